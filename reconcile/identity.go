package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
)

// wanted is a deployment as git knows it: what the ledger's pinned entry says.
type wanted struct {
	id      string
	commit  string // on main
	release ledger.Release
	actor   ledger.Person
	authors []ledger.Person
	// change is what the commit's message claims, if it is one of Pinion's.
	change  ledger.Change
	claimed bool
}

// identity is which deployment a sighting is of. If it is the one that the
// record had, only its id is set.
type identity struct {
	wanted
	// before are the deployments that were asked for since the record's, oldest
	// first, and gave way to this one before anybody looked.
	before []wanted
}

// identifier finds out which deployment a sighting is of.
type identifier struct {
	commits Commits
	info    func(ctx context.Context, id string) (gitstate.CommitInfo, error)
	lineage *lineage
	reader  *reader
	daemon  ledger.Person
}

// identify compares what is seen with the record. between returns the commits
// that changed the deployment since all of them were recorded in this process,
// and before the given one; repinned the newest of them up to the sighting's that
// changed its pins, or "".
func (i identifier) identify(ctx context.Context, s Sighting, r ledger.Record, between func(commit string) []string, repinned string) (identity, error) {
	recorded := func(commit string) bool {
		id := ledger.DeploymentID(s.Service, commit)
		return id == r.Deployment.ID || slices.ContainsFunc(r.Previous, func(p ledger.Past) bool { return p.ID == id })
	}
	var commit string
	var release ledger.Release
	switch {
	case s.Problem == "" && s.Target != nil:
		t := *s.Target
		t.Tip = s.Tip
		same, err := i.same(ctx, &t, r)
		if err != nil {
			return identity{}, err
		}
		// What went there and back before anybody looked has been there.
		if same && (repinned == "" || recorded(repinned)) {
			return identity{wanted: wanted{id: r.Deployment.ID}}, nil
		}
		if commit, err = i.lineage.origin(ctx, &t); err != nil {
			return identity{}, err
		}
		source, err := i.lineage.source(ctx, &t)
		if err != nil {
			return identity{}, err
		}
		release = ledger.ReleaseOf(t.Request.Pins, source)
	case s.Wanted != nil:
		var err error
		if commit, err = i.changed(ctx, s.Tip, *s.Wanted); err != nil {
			return identity{}, err
		}
		source := s.Wanted.Source
		if source == "" {
			source = commit
		}
		release = ledger.ReleaseOf(s.Wanted.Pins, source)
	default:
		return identity{}, errors.New("nothing is known of the service")
	}
	id := ledger.DeploymentID(s.Service, commit)
	if id == r.Deployment.ID {
		return identity{wanted: wanted{id: id}}, nil
	}
	w, err := i.describe(ctx, commit, s.Key, release)
	if err != nil {
		return identity{}, err
	}
	found := identity{wanted: w}
	if r.Deployment.ID != "" {
		// Another daemon may have recorded some of them.
		found.before, err = i.unseen(ctx, s.Key, slices.DeleteFunc(between(commit), recorded))
	}
	return found, err
}

// same tells whether a target is what the record has: the same pins, the same
// objects, and manifests from the same files.
func (i identifier) same(ctx context.Context, t *Target, r ledger.Record) (bool, error) {
	d := r.Deployment
	if d.ID == "" || !r.Retired.IsZero() || d.Manifests != "" && d.Manifests != t.Result.Digest ||
		!d.Release.SamePins(ledger.ReleaseOf(t.Request.Pins, "")) {
		return false, nil
	}
	if d.Manifests == "" {
		// Nobody has rendered it yet; the commit alone can tell.
		commit, err := i.lineage.origin(ctx, t)
		return err == nil && ledger.DeploymentID(t.Service, commit) == d.ID, err
	}
	if t.Pinned {
		return t.Source == d.Release.Source, nil
	}
	now, err := i.commits.Snapshot(ctx, t.Tip)
	if err != nil {
		return false, err
	}
	folder, err := now.ID(serviceFolder(t.Service))
	if err != nil {
		return false, err
	}
	then, err := i.commits.Snapshot(ctx, d.Release.Source)
	switch {
	case errors.Is(err, gitstate.ErrNoCommit) && !errors.Is(err, gitstate.ErrShallow):
		return false, nil
	case err != nil:
		return false, err
	}
	return sameManifests(t, folder, then)
}

// describe says who asked for a release, and how.
func (i identifier) describe(ctx context.Context, commit string, k Key, release ledger.Release) (wanted, error) {
	info, err := i.info(ctx, commit)
	if err != nil {
		return wanted{}, err
	}
	w := wanted{id: ledger.DeploymentID(k.Service, commit), commit: commit, release: release}
	var merged []ledger.Person
	var message string
	if len(info.Parents) > 1 {
		if merged, err = Merged(ctx, i.commits, info, k); err != nil {
			return wanted{}, err
		}
		second, err := i.info(ctx, info.Parents[1])
		if err != nil {
			return wanted{}, err
		}
		message = second.Message
	}
	w.change, w.claimed = ledger.Claim(info.Message, message)
	if w.change.Open() {
		forge, err := i.byPullRequest(ctx, info, w.change)
		if err != nil {
			return wanted{}, err
		}
		if !forge {
			w.change, w.claimed = ledger.Change{}, false
		}
	}
	w.actor, w.authors = ledger.AuthorsOf(ledger.Person{Name: info.Author.Name, Email: info.Author.Email},
		ledger.Person{Name: info.Committer.Name, Email: info.Committer.Email}, info.Message, merged, w.claimed, i.daemon)
	return w, nil
}

// byPullRequest tells whether a commit came into being where its stage was
// entered by pull requests, so that a forge may have written its message.
func (i identifier) byPullRequest(ctx context.Context, info gitstate.CommitInfo, change ledger.Change) (bool, error) {
	if len(info.Parents) == 0 {
		return false, nil
	}
	c, err := i.reader.read(ctx, info.Parents[0])
	if err != nil {
		return false, err
	}
	rules := policy.Rules{Commit: c.ID, Repository: c.Repository}
	return rules.ByPullRequest(change.Environment, change.Service), nil
}

// mostMerged bounds how many commits of a branch that was merged are asked for
// their authors.
const mostMerged = 50

// Merged returns the authors of the commits that a merge brought and that
// changed the environment's file or the service's folder.
func Merged(ctx context.Context, commits Commits, merge gitstate.CommitInfo, k Key) ([]ledger.Person, error) {
	var authors []ledger.Person
	var child gitstate.CommitInfo
	var above *gitstate.Snapshot
	var failure error
	count := 0
	err := commits.History(ctx, merge.Parents[1], func(c gitstate.CommitInfo) bool {
		snap, err := commits.Snapshot(ctx, c.ID)
		if err == nil && above != nil {
			var file, folder bool
			if file, err = SameID(above, snap, environmentFile(k.Environment)); err == nil {
				folder, err = SameID(above, snap, serviceFolder(k.Service))
			}
			if err == nil && !(file && folder) {
				_, who := ledger.Authors(ledger.Person{Name: child.Author.Name, Email: child.Author.Email}, ledger.Person{}, child.Message)
				authors = append(authors, who...)
			}
		}
		var known bool
		if err == nil {
			known, err = commits.IsAncestor(ctx, c.ID, merge.Parents[0])
		}
		failure = err
		child, above = c, snap
		count++
		return err == nil && !known && count < mostMerged
	})
	return authors, errors.Join(failure, err)
}

// changed returns the newest commit, from tip on, that changed a deployment's
// pins, its manifests' commit, or its service's folder.
func (i identifier) changed(ctx context.Context, tip string, d desired.Deployment) (string, error) {
	var commit string
	err := i.walk(ctx, tip, Key{d.Environment.Name, d.Service.Name}, func(id string, changed bool) bool {
		commit = id
		return !changed
	})
	return commit, err
}

// unseen describes what was asked for by commits that gave way to others
// before anybody looked.
func (i identifier) unseen(ctx context.Context, k Key, ids []string) ([]wanted, error) {
	var all []wanted
	for _, id := range ids {
		c, err := i.reader.read(ctx, id)
		if err != nil {
			return nil, err
		}
		d, ok := c.Repository.Deployment(k.Environment, k.Service)
		if !ok || len(d.Problems) > 0 {
			continue
		}
		source := d.Source
		if source == "" {
			source = id
		}
		w, err := i.describe(ctx, id, k, ledger.ReleaseOf(d.Pins, source))
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	return all, nil
}

// walk calls yield with commits of the first-parent line, newest first, and
// whether each has changed what its files say of a deployment.
func (i identifier) walk(ctx context.Context, from string, k Key, yield func(id string, changed bool) bool) error {
	var child *gitstate.Snapshot
	var failure error
	err := i.commits.History(ctx, from, func(c gitstate.CommitInfo) bool {
		snap, err := i.commits.Snapshot(ctx, c.ID)
		if err != nil {
			failure = err
			return false
		}
		if child == nil {
			child = snap
			return true
		}
		changed, err := i.changes(ctx, k, child, snap)
		if err != nil {
			failure = err
			return false
		}
		if !yield(child.Commit(), changed) {
			child = nil
			return false
		}
		child = snap
		return true
	})
	switch {
	case failure != nil:
		return failure
	case err != nil:
		return err
	case child != nil: // the first commit of all
		yield(child.Commit(), true)
	}
	return nil
}

// changes tells whether a commit changed what its files say of a deployment.
func (i identifier) changes(ctx context.Context, k Key, child, parent *gitstate.Snapshot) (bool, error) {
	if same, err := SameID(child, parent, serviceFolder(k.Service)); err != nil || !same {
		return !same, err
	}
	if same, err := SameID(child, parent, environmentFile(k.Environment)); err != nil || same {
		return false, err
	}
	now, err := i.reader.read(ctx, child.Commit())
	if err != nil {
		return false, err
	}
	then, err := i.reader.read(ctx, parent.Commit())
	if err != nil {
		return false, err
	}
	a, ok := now.Repository.Deployment(k.Environment, k.Service)
	b, was := then.Repository.Deployment(k.Environment, k.Service)
	return ok != was || a.Source != b.Source || !ledger.ReleaseOf(a.Pins, "").SamePins(ledger.ReleaseOf(b.Pins, "")), nil
}

// cause says why there is a deployment, given what was there before.
func (w wanted) cause(r ledger.Record) ledger.Cause {
	return ledger.CauseOf(r, w.release, w.change, w.claimed)
}

// from is the ledger entries that a promotion claims to rest on.
func (w wanted) from() []string {
	if !w.claimed {
		return nil
	}
	return w.change.From
}

// pinned is the entry that a deployment begins with.
func (w wanted) pinned(k Key, r ledger.Record) ledger.Entry {
	e := ledger.Entry{
		Event: ledger.EventPinned, Environment: k.Environment, Service: k.Service,
		Deployment: w.id, Commit: w.commit, Release: w.release,
		Actor: w.actor, Authors: w.authors, Cause: w.cause(r), From: w.from(),
		Before: r.Deployment.Release.Version(),
	}
	switch e.Cause {
	case ledger.CauseManifests:
		e.Reason = fmt.Sprintf("%s changed the manifests, the parameters or the service's file with commit %.12s; the pins are the same.", w.actor, w.commit)
	case ledger.CauseTracking:
		e.Reason = fmt.Sprintf("Brought by commit %.12s, for the stage tracks it.", w.commit)
		if w.change.Reason != "" {
			e.Reason = sentence(w.change.Reason)
		}
	case ledger.CausePromotion:
		e.Reason = fmt.Sprintf("Promoted by commit %.12s.", w.commit)
		if w.change.Open() {
			e.From = r.Candidate.From
		}
	case ledger.CauseRollback:
		e.Reason = fmt.Sprintf("Rolled back by commit %.12s.", w.commit)
		if w.change.Reason != "" {
			e.Reason = sentence(w.change.Reason)
		}
	case ledger.CauseRevert:
		e.Reason = fmt.Sprintf("%s went back to an earlier version with commit %.12s.", w.actor, w.commit)
	default:
		e.Reason = fmt.Sprintf("%s pinned it with commit %.12s.", w.actor, w.commit)
	}
	return e
}
