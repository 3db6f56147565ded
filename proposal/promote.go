package proposal

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
	"github.com/pinion-cd/pinion/reconcile"
)

// Promote is what `pinion promote` was asked for.
type Promote struct {
	Service desired.ServiceName
	To      desired.EnvironmentName
	Version string
	Message string
}

func (in Promote) Propose(ctx context.Context, gr *Ground) (*Proposal, error) {
	env, err := gr.environment(in.To)
	if err != nil {
		return nil, err
	}
	if _, err := gr.service(in.Service); err != nil {
		return nil, err
	}
	if len(gr.Tips) == 0 {
		return nil, unfit("%s has no ledger, so it is not known what is verified; the first deployment by `pinion run` begins one", gr.Name)
	}
	a, err := gr.Admission(ctx, in.To, in.Service)
	if err != nil {
		return nil, err
	}
	var here ledger.Release // by the files
	if a.Pinned != nil {
		here = ledger.ReleaseOf(a.Pinned.Pins, a.Pinned.Source)
		if d := a.Target.Deployment.Release; here.Source == "" && here.SamePins(d) {
			here.Source = d.Source
		}
	}
	_, stage, _ := a.Rules.Stage(in.To, in.Service)
	has := func(x ledger.Release) bool {
		return a.Pinned != nil && sameRelease(here, x, stage != nil && stage.ManifestsHead)
	}
	already := &Proposal{Nothing: fmt.Sprintf("%s pins %s %s already", in.To, in.Service, here.Version())}
	if in.Version != "" {
		release, ok := in.find(a)
		if !ok && names(in.Version, "", "", here) {
			return already, nil
		}
		if !ok {
			before := "any stage before " + string(in.To)
			if stage != nil && len(stage.After) > 0 {
				before = list(stage.After)
			}
			return &Proposal{Refused: fmt.Errorf("%s %s is not known in %s; `pinion where` says where a version is", in.Service, in.Version, before)}, nil
		}
		// Its manifests are those that it was verified with last.
		a.Forced = &ledger.Release{Pins: release.Pins}
	}
	d, err := gr.Admit(a)
	if err != nil {
		return nil, err
	}
	if d.Candidate != nil && has(d.Candidate.Release) {
		return already, nil
	}
	if d.Move != policy.Promote || d.Promotion == nil {
		return &Proposal{Refused: fmt.Errorf("%s is not promoted to %s: %s; `pinion why %s %s` follows how that stands", in.what(d), in.To, closed(d), in.To, in.Service), Verdicts: d.Verdicts}, nil
	}
	data, err := gr.Commit.Snapshot.ReadFile(env.File)
	if err != nil {
		return nil, err
	}
	ed, err := desired.NewEditor(env.File, data)
	if err != nil {
		return nil, err
	}
	data, change, err := reconcile.Promote(*d.Promotion, ed)
	if err != nil {
		return nil, err
	}
	change.Reason = paragraphs(change.Reason, in.Message)
	return &Proposal{
		Files:  map[string][]byte{env.File: data},
		Change: change,
		Next:   journey(gr.Commit.Repository, in.To, in.Service, d.Promotion.Release.Version()),
	}, nil
}

// find looks for the version in the stages before.
func (in Promote) find(a policy.Admission) (ledger.Release, bool) {
	for _, env := range gather(a) {
		if x, ok := ran(a.Before[env], in.Version); ok {
			return x.Release, true
		}
	}
	return ledger.Release{}, false
}

// what names what is asked for.
func (in Promote) what(d policy.Decision) string {
	switch {
	case in.Version != "":
		return string(in.Service) + " " + in.Version
	case d.Candidate != nil:
		return string(in.Service) + " " + d.Candidate.Release.Version()
	}
	return string(in.Service)
}

// closed names the gates that are not passed; what each of them waits for stands
// in their verdicts.
func closed(d policy.Decision) string {
	var pending, failed []string
	for _, v := range d.Verdicts {
		switch v.Outcome {
		case policy.Passed:
		case policy.Failed:
			failed = append(failed, v.Gate)
		default:
			pending = append(pending, v.Gate)
		}
	}
	var parts []string
	if len(failed) > 0 {
		parts = append(parts, list(failed)+" failed")
	}
	if len(pending) > 0 {
		parts = append(parts, list(pending)+" not passed yet")
	}
	if len(parts) == 0 {
		return strings.ReplaceAll(d.Reason, "; ", ", ")
	}
	return strings.Join(parts, ", ")
}

// gather returns the stages before, sorted.
func gather(a policy.Admission) []desired.EnvironmentName {
	var all []desired.EnvironmentName
	for env := range a.Before {
		all = append(all, env)
	}
	slices.Sort(all)
	return all
}

// paragraphs joins what is not empty.
func paragraphs(texts ...string) string {
	texts = slices.DeleteFunc(texts, func(s string) bool { return strings.TrimSpace(s) == "" })
	return strings.Join(texts, "\n\n")
}
