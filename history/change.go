package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/dora"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
)

// Lookback is how long before the time that is measured a version may have been
// pinned first, and a failure have happened, to be found.
const Lookback = 90 * 24 * time.Hour

// firstSeen is how long after its pin a deployment may begin and still be by a
// daemon that was there: what begins later was running when the daemon came.
const firstSeen = time.Hour

// Changes tells what changed in environments since a moment, and before it as
// far as [Lookback] goes: by the ledgers, and from before there were any by the
// pins on main. Truncated: there may be older ones that x does not hold.
func (view *View) Changes(ctx context.Context, x *Index, envs []desired.EnvironmentName, since time.Time) (changes []dora.Change, truncated bool, err error) {
	since = since.Add(-Lookback)
	var recorded []*Deployment
	for after := ""; ; {
		p, err := x.Deployments(ctx, DeploymentQuery{Since: since}, after, chunk)
		if err != nil {
			return nil, false, err
		}
		recorded, truncated, after = append(recorded, p.Items...), truncated || p.Truncated, p.Next
		if after == "" {
			break
		}
	}
	slices.Reverse(recorded) // the oldest first
	pinned, err := view.pinned(ctx, since)
	if err != nil {
		return nil, false, err
	}
	first, err := view.firsts(ctx, recorded, pinned)
	if err != nil {
		return nil, false, err
	}
	shelf, err := view.Shelf(ctx)
	if err != nil {
		return nil, false, err
	}
	about := func(c dora.Change, pins []ledger.Pin) dora.Change {
		c.Chosen = first[artifactVersion{c.Service, c.Version}]
		for _, p := range pins {
			if at, from := madeAt(shelf, p.Image); from != dora.FromPin && (c.From == dora.FromPin || at.After(c.Chosen)) {
				c.Chosen, c.From = at, from
			}
		}
		return c
	}
	began := map[place]*Deployment{} // the first that the ledger has
	for _, d := range recorded {
		k := place{d.Environment, d.Service}
		if began[k] == nil {
			began[k] = d
		}
	}
	replaced := map[*Deployment]bool{}
	for k, all := range pinned {
		if !slices.Contains(envs, k.env) {
			continue
		}
		for i, p := range all {
			d := began[k]
			if d != nil && !p.at.Before(d.Pinned) {
				break
			}
			c := dora.Change{Environment: k.env, Service: k.svc, Version: p.release.Version(), Cause: p.cause, Begun: p.at, RolledOut: p.at}
			last := i+1 == len(all) || d != nil && !all[i+1].at.Before(d.Pinned)
			if last && d != nil && d.Version == c.Version {
				if !d.Started.IsZero() && d.Started.Sub(p.at) < firstSeen {
					break // the ledger tells it
				}
				replaced[d] = true
				c.Failed = failedAt(d)
			}
			changes = append(changes, about(c, p.release.Pins))
		}
	}
	for _, d := range recorded {
		if !slices.Contains(envs, d.Environment) || replaced[d] {
			continue
		}
		changes = append(changes, about(dora.Change{
			Environment: d.Environment, Service: d.Service, Version: d.Version, Cause: d.Cause,
			Begun: d.Started, RolledOut: d.Completed, Failed: failedAt(d), Recorded: true,
		}, d.Pins))
	}
	return changes, truncated, nil
}

// madeAt is when what is in an image came to be, as far as somebody has said: its
// commit was made, or else it was built; one that was published without either
// was built just before.
func madeAt(shelf *artifact.Shelf, reference string) (time.Time, dora.Origin) {
	image, err := desired.ParseImage(reference)
	if err != nil || shelf == nil {
		return time.Time{}, dora.FromPin
	}
	r, ok := shelf.Image(image.Repository, image.Version, image.Digest)
	switch told := r.Told(); {
	case !told.Committed.IsZero():
		return told.Committed, dora.FromCommit
	case !told.Created.IsZero():
		return told.Created, dora.FromBuild
	case ok && r.Origin == artifact.FromPublisher:
		return r.Found, dora.FromBuild
	}
	return time.Time{}, dora.FromPin
}

func failedAt(d *Deployment) time.Time {
	if d.State == ledger.StateFailed {
		return d.Ended
	}
	return time.Time{}
}

type artifactVersion struct {
	svc     desired.ServiceName
	version string
}

// firsts finds when each version of a service was first pinned: the time of the
// commit's author, for a merge can come much later.
func (view *View) firsts(ctx context.Context, recorded []*Deployment, pinned map[place][]repinned) (map[artifactVersion]time.Time, error) {
	first := map[artifactVersion]time.Time{}
	earlier := func(v artifactVersion, at time.Time) {
		if was, ok := first[v]; !ok || at.Before(was) {
			first[v] = at
		}
	}
	for k, all := range pinned {
		for _, p := range all {
			earlier(artifactVersion{k.svc, p.release.Version()}, p.authored)
		}
	}
	for _, d := range recorded {
		v := artifactVersion{d.Service, d.Version}
		if _, known := first[v]; known {
			continue
		}
		info, err := view.Archive.Info(ctx, d.Commit)
		if err != nil {
			return nil, fmt.Errorf("read the commit of %s: %w", d.ID, err)
		}
		earlier(v, info.Author.Time)
	}
	return first, nil
}

// repinned is a change of a service's pins on main.
type repinned struct {
	release      ledger.Release // without a source
	at, authored time.Time
	cause        ledger.Cause
}

// pinned reads from main how the pins of each service moved since a moment, the
// oldest first. What a file has that can't be read counts as no change.
func (view *View) pinned(ctx context.Context, since time.Time) (map[place][]repinned, error) {
	tip, err := view.Main(ctx)
	if err != nil {
		return nil, err
	}
	moves := map[place][]repinned{}
	var child *pinnedCommit
	var failure error
	err = view.Archive.History(ctx, tip, func(c gitstate.CommitInfo) bool {
		var now *pinnedCommit
		if now, failure = view.pinnedCommit(ctx, c, child); failure != nil {
			return false
		}
		compare(moves, child, now)
		child = now
		return !c.Committer.Time.Before(since)
	})
	switch {
	case failure != nil:
		return nil, failure
	case err != nil && !view.Shallow:
		return nil, err
	}
	if child != nil && len(child.info.Parents) == 0 {
		compare(moves, child, &pinnedCommit{repo: &desired.Repository{}})
	}
	for _, all := range moves {
		slices.Reverse(all)
		for i := range all {
			all[i].cause = ledger.CausePin
			if slices.ContainsFunc(all[:i], func(p repinned) bool { return p.release.SamePins(all[i].release) }) {
				all[i].cause = ledger.CauseRevert
			}
		}
	}
	return moves, nil
}

// pinnedCommit is a commit with its files, or, if its environments are those of
// the child, with the child's.
type pinnedCommit struct {
	info   gitstate.CommitInfo
	folder string // the id of the environments
	repo   *desired.Repository
}

func (view *View) pinnedCommit(ctx context.Context, c gitstate.CommitInfo, child *pinnedCommit) (*pinnedCommit, error) {
	now := &pinnedCommit{info: c}
	snap, err := view.Archive.Snapshot(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	if now.folder, err = snap.ID("environments"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var near *desired.Repository
	if child != nil {
		if near = child.repo; child.folder == now.folder {
			now.repo = near
			return now, nil
		}
	}
	if now.repo, err = desired.Read(snap, near); err != nil {
		return nil, fmt.Errorf("read commit %.12s: %w", c.ID, err)
	}
	return now, nil
}

// compare notes which pins are others than in the commit before.
func compare(moves map[place][]repinned, now, before *pinnedCommit) {
	if now == nil || now.repo == before.repo {
		return
	}
	for env, e := range now.repo.Environments {
		if e == before.repo.Environments[env] {
			continue
		}
		for svc := range now.repo.Services {
			x, ok := now.repo.Deployment(env, svc)
			if !ok || len(x.Pins) == 0 {
				continue
			}
			release := ledger.ReleaseOf(x.Pins, "")
			if y, was := before.repo.Deployment(env, svc); was && release.SamePins(ledger.ReleaseOf(y.Pins, "")) {
				continue
			}
			k := place{env, svc}
			moves[k] = append(moves[k], repinned{release: release, at: now.info.Committer.Time, authored: now.info.Author.Time})
		}
	}
}
