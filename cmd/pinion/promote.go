package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
	"github.com/pinion-cd/pinion/reconcile"
)

func newPromoteCommand(g *globals) *cobra.Command {
	var w writing
	var in promoting
	var to string
	cmd := &cobra.Command{
		Use:   "promote SERVICE --to ENV",
		Short: "Commit a promotion, if policy allows it",
		Long: `Write the commit that the daemon would write: the newest release that is verified
in the stages before enters an environment. It is judged on the remote's main
branch and ledgers, by the same rules; what they refuse is refused, and said gate
by gate. --version asks for another verified release, also for one that ran there
before or is older than what is there.

` + writingHelp + `

Exit code 3 if it is refused.`,
		Example: `  pinion promote web --to production`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if to == "" {
				return fmt.Errorf("it is not said where %s is to go; give --to ENV", args[0])
			}
			in.service, in.to, in.message = desired.ServiceName(args[0]), desired.EnvironmentName(to), w.message
			return g.write(cmd.Context(), &w, in.propose)
		},
	}
	w.flags(cmd.Flags())
	cmd.Flags().StringVar(&to, "to", "", "the environment to enter")
	cmd.Flags().StringVar(&in.version, "version", "", "the version, or a deployment's id, to promote (default: the newest that is verified)")
	return cmd
}

// promoting is what `pinion promote` was asked for.
type promoting struct {
	service desired.ServiceName
	to      desired.EnvironmentName
	version string
	message string
}

func (in promoting) propose(ctx context.Context, gr *ground) (*proposal, error) {
	env, err := gr.environment(in.to)
	if err != nil {
		return nil, err
	}
	if _, err := gr.service(in.service); err != nil {
		return nil, err
	}
	if len(gr.Tips) == 0 {
		return nil, fmt.Errorf("%s has no ledger, so it is not known what is verified; the first deployment by `pinion run` begins one", gr.name)
	}
	a, err := gr.Admission(ctx, in.to, in.service)
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
	_, stage, _ := a.Rules.Stage(in.to, in.service)
	has := func(x ledger.Release) bool {
		return a.Pinned != nil && sameRelease(here, x, stage != nil && stage.ManifestsHead)
	}
	already := &proposal{nothing: fmt.Sprintf("%s pins %s %s already", in.to, in.service, here.Version())}
	if in.version != "" {
		release, ok := in.find(a)
		if !ok && names(in.version, "", "", here) {
			return already, nil
		}
		if !ok {
			before := "any stage before " + string(in.to)
			if stage != nil && len(stage.After) > 0 {
				before = list(stage.After)
			}
			return &proposal{refused: fmt.Errorf("%s %s is not known in %s; `pinion where` says where a version is", in.service, in.version, before)}, nil
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
		return &proposal{refused: fmt.Errorf("%s is not promoted to %s: %s; `pinion why %s %s` follows how that stands", in.what(d), in.to, closed(d), in.to, in.service), verdicts: d.Verdicts}, nil
	}
	data, err := gr.commit.Snapshot.ReadFile(env.File)
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
	change.Reason = paragraphs(change.Reason, in.message)
	return &proposal{
		files:  map[string][]byte{env.File: data},
		change: change,
		next:   journey(gr.commit.Repository, in.to, in.service, d.Promotion.Release.Version()),
	}, nil
}

// find looks for the version in the stages before.
func (in promoting) find(a policy.Admission) (ledger.Release, bool) {
	for _, env := range gather(a) {
		if x, ok := ran(a.Before[env], in.version); ok {
			return x.Release, true
		}
	}
	return ledger.Release{}, false
}

// what names what is asked for.
func (in promoting) what(d policy.Decision) string {
	switch {
	case in.version != "":
		return string(in.service) + " " + in.version
	case d.Candidate != nil:
		return string(in.service) + " " + d.Candidate.Release.Version()
	}
	return string(in.service)
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
