package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
	"github.com/pinion-cd/pinion/reconcile"
)

func newRollbackCommand(g *globals) *cobra.Command {
	var w writing
	var in retreating
	cmd := &cobra.Command{
		Use:   "rollback ENV SERVICE [--to VERSION]",
		Short: "Commit a way back to the last verified version, which sticks",
		Long: `Go back to the version that was verified last in an environment, or with --to to
one that ran there before. It sticks: the version that is left does not come back
there by automation, until a person pins it. No hold stops it.

` + writingHelp + `

Exit code 3 if the version never ran there; --force goes to it all the same.`,
		Example: `  pinion rollback production web -m "checkout errors since 1.4.3"
  pinion rollback production web --to 1.4.0`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.environment, in.service, in.message = desired.EnvironmentName(args[0]), desired.ServiceName(args[1]), w.message
			if in.force && in.to == "" {
				return errors.New("--force goes to a version that never ran there, and none is named; give --to VERSION")
			}
			return g.write(cmd.Context(), &w, in.propose)
		},
	}
	w.flags(cmd.Flags())
	cmd.Flags().StringVar(&in.to, "to", "", "the version, or a deployment's id, to go back to (default: what was verified there last)")
	cmd.Flags().BoolVar(&in.force, "force", false, "go to a version that never ran there, too")
	return cmd
}

// retreating is what `pinion rollback` was asked for.
type retreating struct {
	environment desired.EnvironmentName
	service     desired.ServiceName
	to, message string
	force       bool
}

func (in retreating) propose(ctx context.Context, gr *ground) (*proposal, error) {
	env, err := gr.environment(in.environment)
	if err != nil {
		return nil, err
	}
	if _, err := gr.service(in.service); err != nil {
		return nil, err
	}
	deployment, ok := gr.commit.Repository.Deployment(in.environment, in.service)
	if !ok {
		return nil, fmt.Errorf("%s does not have %s, so there is nothing to roll back; `pinion pin %s ARTIFACT VERSION --add` brings it", in.environment, in.service, in.environment)
	}
	record, known, err := gr.Record(ctx, in.environment, in.service)
	if err != nil {
		return nil, err
	}
	if !known && !in.force {
		return nil, fmt.Errorf("no ledger of %s has %s, so it is not known what ran there; --to VERSION --force goes to a version all the same", in.environment, in.service)
	}
	// What the files say counts, whether the daemon has taken it up yet or not.
	here := ledger.ReleaseOf(deployment.Pins, deployment.Source)
	if d := record.Deployment.Release; here.Source == "" && d.SamePins(here) {
		here.Source = d.Source
	}
	head := in.head(gr)
	p := &proposal{}
	to, refused, err := in.target(ctx, gr, record, here, head, p)
	if err != nil {
		return nil, err
	}
	if refused != nil {
		return &proposal{refused: refused}, nil
	}
	if sameRelease(to.Release, here, head) {
		return &proposal{nothing: fmt.Sprintf("%s has %s %s already", in.environment, in.service, here.Version())}, nil
	}
	if f, no := record.Refuses(to.Release); no {
		p.warn("%s is refused in %s since %s: %s", to.Release.Version(), in.environment, f.Time.UTC().Format(time.RFC3339), firstLine(f.Reason))
	}
	r := policy.Retreat{
		Environment: in.environment, Service: in.service, To: to.Release,
		Manifests: !head && to.Release.Source != "" && to.Release.Source != here.Source,
		Before:    here.Version(),
		Reason:    paragraphs(in.message, in.reason(to)),
	}
	if r.Manifests {
		// What is not in main's history can't be read from there.
		ok, err := gr.archive.IsAncestor(ctx, to.Release.Source, gr.tip)
		if err != nil && !errors.Is(err, gitstate.ErrNoCommit) {
			return nil, err
		}
		if r.Manifests = err == nil && ok; !r.Manifests {
			p.warn("the manifests of then are those of commit %.12s, which is not in the history of %s, so they stay as they are", to.Release.Source, gr.site.branch)
		}
	}
	data, err := gr.commit.Snapshot.ReadFile(env.File)
	if err != nil {
		return nil, err
	}
	ed, err := desired.NewEditor(env.File, data)
	if err != nil {
		return nil, err
	}
	data, p.change, err = reconcile.GoBack(r, ed)
	if err != nil {
		return nil, err
	}
	p.files = map[string][]byte{env.File: data}
	gr.warnOfSuspension(p, in.environment, in.service)
	p.next = []string{fmt.Sprintf("%s goes back to %s %s", in.environment, in.service, to.Release.Version())}
	if !to.Release.SamePins(here) {
		p.next = append(p.next, fmt.Sprintf("%s does not come back there by automation; a person brings it back with `pinion pin`", here.Version()))
	}
	return p, nil
}

// head tells whether the manifests stay those of the newest commit.
func (in retreating) head(gr *ground) bool {
	if pipeline := gr.commit.Repository.StagesOf(in.service); pipeline != nil {
		if stage := pipeline.Stage(in.environment); stage != nil {
			return stage.ManifestsHead
		}
	}
	// Without a stage they move if the environment says which ones it has.
	return gr.commit.Repository.Environments[in.environment].Manifests[in.service] == ""
}

// target finds what to go back to; refused says why it may not be.
func (in retreating) target(ctx context.Context, gr *ground, r ledger.Record, here ledger.Release, head bool, p *proposal) (to ledger.Past, refused, err error) {
	if in.to == "" {
		for _, past := range pasts(r) {
			_, no := r.Refuses(past.Release)
			if past.State == ledger.StateVerified && !no && !sameRelease(past.Release, here, head) {
				return past, nil, nil
			}
		}
		return to, fmt.Errorf("nothing to go back to: nothing but %s was ever verified in %s; name a version with --to", here.Version(), in.environment), nil
	}
	past, ok := ran(r, in.to)
	if !ok {
		if past, ok, err = in.history(ctx, gr); err != nil {
			return to, nil, err
		}
	}
	if ok && (in.force || !past.Started.IsZero()) {
		if past.State == ledger.StateFailed {
			p.warn("%s failed in %s on %s", past.Release.Version(), in.environment, past.Ended.UTC().Format(time.DateOnly))
		}
		return past, nil, nil
	}
	if !in.force {
		return to, fmt.Errorf("%s %s never ran in %s; `pinion log %s %s` says what did, and --force goes to it all the same", in.service, in.to, in.environment, in.environment, in.service), nil
	}
	if len(here.Pins) != 1 {
		return to, nil, fmt.Errorf("%s has %d artifacts, and it is not known which versions of them %s means; pin them one by one with `pinion pin`", in.service, len(here.Pins), in.to)
	}
	present, err := desired.ParseImage(here.Pins[0].Image)
	if err != nil {
		return to, nil, err
	}
	image, err := pinning{artifact: here.Pins[0].Artifact, version: in.to}.image(gr.commit.Repository, present)
	if err != nil {
		return to, nil, err
	}
	p.warn("%s never ran in %s", image.Reference, in.environment)
	return ledger.Past{Release: ledger.Release{Pins: []ledger.Pin{{Artifact: here.Pins[0].Artifact, Image: image.Reference}}}}, nil, nil
}

// reason says why it is gone back to.
func (in retreating) reason(to ledger.Past) string {
	switch {
	case to.State == ledger.StateVerified:
		return fmt.Sprintf("%s was verified in %s on %s.", to.Release.Version(), in.environment, to.Ended.UTC().Format(time.DateOnly))
	case !to.Started.IsZero():
		return fmt.Sprintf("%s ran in %s from %s on.", to.Release.Version(), in.environment, to.Started.UTC().Format(time.DateOnly))
	}
	return fmt.Sprintf("%s never ran in %s.", to.Release.Version(), in.environment)
}

// history looks for a version among the deployments that the record does not
// keep any more.
func (in retreating) history(ctx context.Context, gr *ground) (found ledger.Past, ok bool, err error) {
	tip := gr.Tips[in.environment]
	if tip == "" {
		return found, false, nil
	}
	err = gr.archive.History(ctx, tip, func(c gitstate.CommitInfo) bool {
		e, bad := ledger.ParseMessage(c.Message, c.Committer.Time)
		if bad != nil || e.Service != in.service || e.Candidate || !names(in.to, e.Deployment, e.Commit, e.Release) {
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
