package proposal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
	"github.com/pinion-cd/pinion/reconcile"
)

// Rollback is what `pinion rollback` was asked for.
type Rollback struct {
	Environment desired.EnvironmentName
	Service     desired.ServiceName
	To, Message string
	Force       bool
	// By is who asks in such a way that the answer can be lost, and Now when. What
	// she has just asked for she may ask for again: nothing is written then, and
	// it is not gone back one version more. The zero Person: each time counts.
	By  ledger.Person
	Now time.Time
}

// again is how long the same, asked for by the same, is taken for a repetition,
// and mostAgain how many of the newest commits are looked through for it.
const (
	again     = 10 * time.Minute
	mostAgain = 1000
)

func (in Rollback) Propose(ctx context.Context, gr *Ground) (*Proposal, error) {
	env, err := gr.environment(in.Environment)
	if err != nil {
		return nil, err
	}
	if _, err := gr.service(in.Service); err != nil {
		return nil, err
	}
	deployment, ok := gr.Commit.Repository.Deployment(in.Environment, in.Service)
	if !ok {
		return nil, unfit("%s does not have %s, so there is nothing to roll back; `pinion pin %s ARTIFACT VERSION --add` brings it", in.Environment, in.Service, in.Environment)
	}
	record, known, err := gr.Record(ctx, in.Environment, in.Service)
	if err != nil {
		return nil, err
	}
	if !known && !in.Force {
		return nil, unfit("no ledger of %s has %s, so it is not known what ran there; --to VERSION --force goes to a version all the same", in.Environment, in.Service)
	}
	// What the files say counts, whether the daemon has taken it up yet or not.
	here := ledger.ReleaseOf(deployment.Pins, deployment.Source)
	if d := record.Deployment.Release; here.Source == "" && d.SamePins(here) {
		here.Source = d.Source
	}
	if why, err := in.repeats(ctx, gr, record, here); err != nil || why != "" {
		return &Proposal{Nothing: why}, err
	}
	head := in.head(gr)
	if why, err := in.wentBack(ctx, gr, record, here, head); err != nil || why != "" {
		return &Proposal{Nothing: why}, err
	}
	p := &Proposal{}
	to, refused, err := in.target(ctx, gr, record, here, head, p)
	if err != nil {
		return nil, err
	}
	if refused != nil {
		return &Proposal{Refused: refused}, nil
	}
	if sameRelease(to.Release, here, head) {
		return &Proposal{Nothing: fmt.Sprintf("%s has %s %s already", in.Environment, in.Service, here.Version())}, nil
	}
	if f, no := record.Refuses(to.Release); no {
		p.warn("%s is refused in %s since %s: %s", to.Release.Version(), in.Environment, f.Time.UTC().Format(time.RFC3339), firstLine(f.Reason))
	}
	r := policy.Retreat{
		Environment: in.Environment, Service: in.Service, To: to.Release,
		Manifests: !head && to.Release.Source != "" && to.Release.Source != here.Source,
		Before:    here.Version(),
		Reason:    paragraphs(in.Message, in.reason(to)),
	}
	if r.Manifests {
		// What is not in main's history can't be read from there.
		ok, err := gr.Archive.IsAncestor(ctx, to.Release.Source, gr.Commit.ID)
		if err != nil && !errors.Is(err, gitstate.ErrNoCommit) {
			return nil, err
		}
		if r.Manifests = err == nil && ok; !r.Manifests {
			p.warn("the manifests of then are those of commit %.12s, which is not in the history of %s, so they stay as they are", to.Release.Source, gr.Branch)
		}
	}
	data, err := gr.Commit.Snapshot.ReadFile(env.File)
	if err != nil {
		return nil, err
	}
	ed, err := desired.NewEditor(env.File, data)
	if err != nil {
		return nil, err
	}
	data, p.Change, err = reconcile.GoBack(r, ed)
	if err != nil {
		return nil, err
	}
	p.Files = map[string][]byte{env.File: data}
	gr.warnOfSuspension(p, in.Environment, in.Service)
	p.Next = []string{fmt.Sprintf("%s goes back to %s %s", in.Environment, in.Service, to.Release.Version())}
	if !to.Release.SamePins(here) {
		p.Next = append(p.Next, fmt.Sprintf("%s does not come back there by automation; a person brings it back with `pinion pin`", here.Version()))
	}
	return p, nil
}

// repeats says that main already has what is asked for, from the one who asks;
// "": it is asked for the first time, or a version is named. Whoever asks once more
// when that has failed, too, wants to go further back.
func (in Rollback) repeats(ctx context.Context, gr *Ground, record ledger.Record, here ledger.Release) (why string, err error) {
	failed := record.Deployment.State == ledger.StateFailed && record.Deployment.Release.SamePins(here)
	if in.To != "" || in.By == (ledger.Person{}) || failed {
		return "", nil
	}
	n := 0
	err = gr.Archive.History(ctx, gr.Commit.ID, func(c gitstate.CommitInfo) bool {
		change, ours := ledger.ParseChange(c.Message)
		if n++; in.Now.Sub(c.Committer.Time) > again || n > mostAgain {
			return false
		}
		if !ours || change.Environment != in.Environment || change.Service != in.Service {
			return true
		}
		if change.Kind == ledger.ChangeRolledBack && slices.Contains(change.RequestedBy, in.By) && change.Release.SamePins(here) {
			why = fmt.Sprintf("%s went back to %s %s by commit %.12s already, as %s asked %s ago; name a version to go further back",
				in.Environment, in.Service, here.Version(), c.ID, in.By.Name, history.ShortAge(in.Now.Sub(c.Committer.Time)))
		}
		return false // what came after that change is another matter
	})
	if errors.Is(err, gitstate.ErrNoCommit) {
		err = nil // a shallow clone ends before
	}
	return why, err
}

// wentBack says that main has already gone back, and that the ledger does not
// know it yet; "": it has not, or a version is named. What the ledger has for the
// newest is what was left then, so that to go back to it would be to go forth.
func (in Rollback) wentBack(ctx context.Context, gr *Ground, record ledger.Record, here ledger.Release, head bool) (why string, err error) {
	d := record.Deployment
	if in.To != "" || d.ID == "" || sameRelease(here, d.Release, head) {
		return "", nil
	}
	by, n := "", 0
	err = gr.Archive.History(ctx, gr.Commit.ID, func(c gitstate.CommitInfo) bool {
		if n++; c.ID == d.Commit || n > mostAgain {
			return false
		}
		change, ours := ledger.ParseChange(c.Message)
		if !ours || change.Environment != in.Environment || change.Service != in.Service {
			return true
		}
		if change.Kind == ledger.ChangeRolledBack && change.Release.SamePins(here) {
			by = fmt.Sprintf(", by commit %.12s", c.ID)
		}
		return false
	})
	if errors.Is(err, gitstate.ErrNoCommit) {
		err = nil // a shallow clone ends before
	}
	if err != nil {
		return "", err
	}
	all := pasts(record)
	i := slices.IndexFunc(all, func(p ledger.Past) bool { return sameRelease(p.Release, here, head) && !p.Started.IsZero() })
	switch newer, known := ledger.Newer(here, d.Release); {
	case by != "" && i < 0 && slices.ContainsFunc(all, func(p ledger.Past) bool { return p.Release.SamePins(here) }):
		return "", nil // somebody has insisted on what never ran
	case by == "" && (i < 0 || known && newer):
		return "", nil // it goes forth
	}
	return fmt.Sprintf("main has %s go back to %s %s already%s, which the ledger does not know yet; --to VERSION goes to another one", in.Environment, in.Service, here.Version(), by), nil
}

// head tells whether the manifests stay those of the newest commit.
func (in Rollback) head(gr *Ground) bool {
	if pipeline := gr.Commit.Repository.StagesOf(in.Service); pipeline != nil {
		if stage := pipeline.Stage(in.Environment); stage != nil {
			return stage.ManifestsHead
		}
	}
	// Without a stage they move if the environment says which ones it has.
	return gr.Commit.Repository.Environments[in.Environment].Manifests[in.Service] == ""
}

// target finds what to go back to; refused says why it may not be.
func (in Rollback) target(ctx context.Context, gr *Ground, r ledger.Record, here ledger.Release, head bool, p *Proposal) (to ledger.Past, refused, err error) {
	if in.To == "" {
		for _, past := range pasts(r) {
			_, no := r.Refuses(past.Release)
			if past.State == ledger.StateVerified && !no && !sameRelease(past.Release, here, head) {
				return past, nil, nil
			}
		}
		return to, fmt.Errorf("nothing to go back to: nothing but %s was ever verified in %s; name a version with --to", here.Version(), in.Environment), nil
	}
	past, ok := ran(r, in.To)
	if !ok {
		if past, ok, err = in.history(ctx, gr); err != nil {
			return to, nil, err
		}
	}
	if ok && (in.Force || !past.Started.IsZero()) {
		if past.State == ledger.StateFailed {
			p.warn("%s failed in %s on %s", past.Release.Version(), in.Environment, past.Ended.UTC().Format(time.DateOnly))
		}
		return past, nil, nil
	}
	if !in.Force {
		return to, fmt.Errorf("%s %s never ran in %s; `pinion log %s %s` says what did, and --force goes to it all the same", in.Service, in.To, in.Environment, in.Environment, in.Service), nil
	}
	if len(here.Pins) != 1 {
		return to, nil, unfit("%s has %d artifacts, and it is not known which versions of them %s means; pin them one by one with `pinion pin`", in.Service, len(here.Pins), in.To)
	}
	present, err := desired.ParseImage(here.Pins[0].Image)
	if err != nil {
		return to, nil, err
	}
	image, err := Pin{Artifact: here.Pins[0].Artifact, Version: in.To}.image(gr.Commit.Repository, present)
	if err != nil {
		return to, nil, err
	}
	p.warn("%s never ran in %s", image.Reference, in.Environment)
	return ledger.Past{Release: ledger.Release{Pins: []ledger.Pin{{Artifact: here.Pins[0].Artifact, Image: image.Reference}}}}, nil, nil
}

// reason says why it is gone back to.
func (in Rollback) reason(to ledger.Past) string {
	switch {
	case to.State == ledger.StateVerified:
		return fmt.Sprintf("%s was verified in %s on %s.", to.Release.Version(), in.Environment, to.Ended.UTC().Format(time.DateOnly))
	case !to.Started.IsZero():
		return fmt.Sprintf("%s ran in %s from %s on.", to.Release.Version(), in.Environment, to.Started.UTC().Format(time.DateOnly))
	}
	return fmt.Sprintf("%s never ran in %s.", to.Release.Version(), in.Environment)
}

// history looks for a version among the deployments that the record does not
// keep any more.
func (in Rollback) history(ctx context.Context, gr *Ground) (found ledger.Past, ok bool, err error) {
	tip := gr.Tips[in.Environment]
	if tip == "" {
		return found, false, nil
	}
	err = gr.Archive.History(ctx, tip, func(c gitstate.CommitInfo) bool {
		e, bad := ledger.ParseMessage(c.Message, c.Committer.Time)
		if bad != nil || e.Service != in.Service || e.Candidate || !names(in.To, e.Deployment, e.Commit, e.Release) {
			return true
		}
		if !ok {
			found, ok = ledger.Past{ID: e.Deployment, Commit: e.Commit, Release: e.Release}, true
		}
		if e.Deployment != found.ID {
			return false // an older one of the same version
		}
		switch e.Event {
		case ledger.EventVerified:
			found.State, found.Ended = ledger.StateVerified, e.Time
		case ledger.EventFailed:
			found.State, found.Ended = ledger.StateFailed, e.Time
		case ledger.EventStarted:
			found.Started = e.Time
		case ledger.EventPinned:
			return false
		}
		return true
	})
	return found, ok, err
}

// sameRelease tells whether going from one to the other changes nothing. What
// has no source takes any manifests.
func sameRelease(a, b ledger.Release, head bool) bool {
	return a.SamePins(b) && (head || a.Source == "" || b.Source == "" || a.Source == b.Source)
}

// pasts are the deployments that a record knows, the newest first.
func pasts(r ledger.Record) []ledger.Past {
	var all []ledger.Past
	if d := r.Deployment; d.ID != "" {
		all = append(all, ledger.Past{ID: d.ID, Commit: d.Commit, Release: d.Release, State: d.State, Authors: d.Authors, Started: d.Started, Ended: d.Ended})
	}
	all = append(all, r.Previous...)
	if v := r.Verified; v != nil && !slices.ContainsFunc(all, func(p ledger.Past) bool { return p.ID == v.ID }) {
		all = append(all, *v) // older than what is kept
	}
	return all
}

// ran returns the newest deployment that a version names; one that has run goes
// before one that has not.
func ran(r ledger.Record, version string) (found ledger.Past, ok bool) {
	for _, p := range pasts(r) {
		if !names(version, p.ID, p.Commit, p.Release) {
			continue
		}
		if !p.Started.IsZero() {
			return p, true
		}
		if !ok {
			found, ok = p, true
		}
	}
	return found, ok
}

// names tells whether a person who says version can mean a deployment.
func names(version, id, commit string, r ledger.Release) bool {
	if version == id || version == r.Version() || len(version) >= 7 && strings.HasPrefix(commit, strings.ToLower(version)) {
		return true
	}
	if len(r.Pins) != 1 {
		return false
	}
	image, err := desired.ParseImage(r.Pins[0].Image)
	return version == r.Pins[0].Image || err == nil &&
		(version == image.Version || version == image.Digest || version == image.Version+"@"+image.Digest)
}
