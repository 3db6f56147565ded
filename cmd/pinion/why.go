package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
)

func newWhyCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "why ENV SERVICE",
		Short: "Show each gate with its value, since when, when it opens, and what would open it",
		Long: `Show why a version is, or is not, in an environment: what is there and in which
state, each gate of its verification, and, if the environment comes after others
in its pipeline, what waits to enter and each gate that it has to pass.

It judges as the daemon does, from the ledgers and from main as the clone has
them, so ` + "`git fetch`" + ` comes first. What only the daemon can see, such as health,
is not known here.`,
		Example: `  pinion why production web`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.why(cmd.Context(), desired.EnvironmentName(args[0]), desired.ServiceName(args[1]))
		},
	}
}

// explanation is all that `pinion why` has to say.
type explanation struct {
	Environment desired.EnvironmentName `json:"environment"`
	Service     desired.ServiceName     `json:"service"`
	Answer      string                  `json:"answer"`
	Main        string                  `json:"main"` // the commit whose rules admit
	Now         time.Time               `json:"now"`
	Standing    *standing               `json:"standing,omitempty"`
	// Deployment is as it is recorded.
	Deployment   *ledger.Deployment `json:"deployment,omitempty"`
	Verification *verification      `json:"verification,omitempty"`
	Admission    *entrance          `json:"admission,omitempty"` // nil: nothing is promoted into it
	// Route says why there is no admission.
	Route   string           `json:"route,omitempty"`
	Refused []ledger.Refusal `json:"refused,omitempty"`
}

type verification struct {
	State  ledger.State     `json:"state"` // that it has, or that it is about to have
	Reason string           `json:"reason,omitempty"`
	Rules  string           `json:"rules"` // the commit whose rules verify
	Gates  []policy.Verdict `json:"gates"`
}

type entrance struct {
	Pipeline  desired.PipelineName      `json:"pipeline"`
	After     []desired.EnvironmentName `json:"after"`
	Move      policy.Move               `json:"move"`
	Reason    string                    `json:"reason,omitempty"`
	Candidate *ledger.Candidate         `json:"candidate,omitempty"`
	Version   string                    `json:"version,omitempty"` // of the candidate
	Verified  time.Time                 `json:"verified,omitzero"` // when the stages before had verified it
	Gates     []policy.Verdict          `json:"gates"`
}

func (g *globals) why(ctx context.Context, env desired.EnvironmentName, svc desired.ServiceName) error {
	format, err := g.format("table", "json", "yaml")
	if err != nil {
		return err
	}
	l, err := g.openLedgers(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	if len(l.tips) == 0 {
		return l.none()
	}
	repo, err := l.repository(ctx)
	if err != nil {
		return err
	}
	if envs := order(repo, slices.Collect(maps.Keys(l.tips))); !slices.Contains(envs, env) {
		if ps := repo.Broken(desired.KindEnvironment, string(env)); len(ps) > 0 {
			return ps[0]
		}
		return unknownName("environment", string(env), envs, "there are")
	}
	x, err := l.explain(ctx, repo, env, svc)
	if err != nil {
		return err
	}
	fmt.Fprintln(g.err, l.asOf(ctx))
	switch format {
	case "json":
		return g.writeJSON(x)
	case "yaml":
		return g.writeValue(x)
	}
	return g.writeWhy(l.now, x)
}

func (l *ledgers) explain(ctx context.Context, repo *desired.Repository, env desired.EnvironmentName, svc desired.ServiceName) (*explanation, error) {
	x := &explanation{Environment: env, Service: svc, Main: l.mainTip, Now: l.now.UTC().Truncate(time.Second)}
	here, err := l.standings(ctx, repo, env, svc)
	if err != nil {
		return nil, err
	}
	if len(here) > 0 {
		x.Standing = &here[0]
		x.Refused = here[0].record.Refused
	} else if repo.Services[svc] == nil {
		if ps := repo.Broken(desired.KindService, string(svc)); len(ps) > 0 {
			return nil, ps[0]
		}
		return nil, unknownName("service", string(svc), slices.Sorted(maps.Keys(repo.Services)), "there are")
	}
	if x.Standing != nil && x.Standing.Deployment != "" {
		d := x.Standing.record.Deployment
		x.Deployment = &d
		if x.Verification, err = l.verify(ctx, env, svc); err != nil {
			return nil, err
		}
	}
	if x.Admission, x.Route, err = l.enter(ctx, env, svc); err != nil {
		return nil, err
	}
	x.Answer = x.answer(l.now)
	return x, nil
}

// verify judges the present deployment.
func (l *ledgers) verify(ctx context.Context, env desired.EnvironmentName, svc desired.ServiceName) (*verification, error) {
	v, err := l.verification(ctx, env, svc)
	if err != nil && !v.Record.Deployment.State.Final() { // what is recorded of one that moves no more needs no rules
		return nil, err
	}
	j := policy.Verify(v)
	for i := range j.Verdicts {
		estimate(&j.Verdicts[i], v.Rules.Repository)
	}
	return &verification{State: j.State, Reason: j.Reason, Rules: v.Record.Deployment.Commit, Gates: j.Verdicts}, nil
}

// estimate says of a soak when it ends if the deployment stays as it is. What
// is known here is only that the daemon has recorded nothing else.
func estimate(v *policy.Verdict, repo *desired.Repository) {
	if repo == nil {
		return
	}
	p := repo.Policies[desired.PolicyName(v.Gate)]
	if v.Check != desired.CheckSoak || v.Outcome != policy.Pending || !v.Opens.IsZero() || v.Since.IsZero() || p == nil {
		return
	}
	v.Opens = v.Since.Add(p.Soak)
	v.Reason = "it soaks, and how healthy it is, is not known here"
	v.Needs = "wait; it begins anew if the deployment is not healthy"
}

// enter judges what may enter an environment; route says why nothing is.
func (l *ledgers) enter(ctx context.Context, env desired.EnvironmentName, svc desired.ServiceName) (a *entrance, route string, err error) {
	in, err := l.admission(ctx, env, svc)
	if err != nil {
		return nil, "", err
	}
	pipeline, stage, why := in.Rules.Stage(env, svc)
	switch {
	case stage == nil:
		return nil, why, nil
	case why == "" && len(stage.After) == 0:
		return nil, fmt.Sprintf("%s is a first stage of the pipeline %s: versions are pinned there", env, pipeline.Name), nil
	}
	d, err := l.admit(in)
	if err != nil {
		return nil, "", err
	}
	a = &entrance{Pipeline: pipeline.Name, After: stage.After, Move: d.Move, Reason: d.Reason, Candidate: d.Candidate, Gates: d.Verdicts}
	if d.Candidate != nil {
		a.Version = d.Candidate.Release.Version()
		for _, before := range in.Before {
			if v := before.Verified; v != nil && v.Release.SamePins(d.Candidate.Release) && v.Ended.After(a.Verified) {
				a.Verified = v.Ended
			}
		}
	}
	return a, "", nil
}

// blocked tells that the candidate does not lead forward: the environment has
// it, has a newer one, or refuses it.
func (a *entrance) blocked() (policy.Verdict, bool) {
	i := slices.IndexFunc(a.Gates, func(v policy.Verdict) bool { return v.Gate == "version" && v.Outcome != policy.Passed })
	if i < 0 {
		return policy.Verdict{}, false
	}
	return a.Gates[i], true
}

// gateText says in few words what a gate waits for.
func gateText(now time.Time, v policy.Verdict) string {
	switch {
	case v.Check == desired.CheckSoak && !v.Opens.IsZero():
		return v.Gate + " until " + clockAt(now, v.Opens)
	case strings.HasPrefix(v.Gate, "hold ") && !v.Opens.IsZero():
		return v.Gate + ": " + v.Reason + ", until " + clockAt(now, v.Opens)
	}
	return v.Gate + ": " + v.Reason
}

// gateTexts are the gates with an outcome.
func gateTexts(now time.Time, verdicts []policy.Verdict, o policy.Outcome) []string {
	var texts []string
	for _, v := range verdicts {
		if v.Outcome == o {
			texts = append(texts, gateText(now, v))
		}
	}
	return texts
}

// answer is the first sentence.
func (x *explanation) answer(now time.Time) string {
	env, svc := string(x.Environment), string(x.Service)
	ago := func(t time.Time) string { return ageAt(now, t) + " ago" }
	var b strings.Builder
	s := x.Standing
	switch {
	case s == nil:
		fmt.Fprintf(&b, "%s does not run %s", env, svc)
	case s.State == stateRetired:
		fmt.Fprintf(&b, "%s does not run %s any more since %s", env, svc, ago(s.Since))
	case s.State == stateWanted:
		fmt.Fprintf(&b, "%s is to run %s %s, and nothing is recorded of it yet", env, svc, s.Wanted)
	case x.Deployment == nil:
		fmt.Fprintf(&b, "%s has never run %s", env, svc)
	default:
		what := strings.TrimSpace(svc + " " + s.Version)
		switch x.Deployment.State {
		case ledger.StatePinned:
			fmt.Fprintf(&b, "%s is to run %s since %s, and nothing of it is applied yet", env, what, ago(s.Since))
			if len(s.WaitsFor) > 0 {
				b.WriteString("; it waits for " + strings.Join(s.WaitsFor, ", and for "))
			}
		case ledger.StateStarted:
			fmt.Fprintf(&b, "%s rolls out %s since %s", env, what, ago(s.Since))
		case ledger.StateCompleted:
			fmt.Fprintf(&b, "%s runs %s, not verified yet", env, what)
			if x.Verification != nil {
				if waits := gateTexts(now, x.Verification.Gates, policy.Pending); len(waits) > 0 {
					fmt.Fprintf(&b, ": it waits for %s", strings.Join(waits, "; "))
				}
			}
		case ledger.StateVerified:
			fmt.Fprintf(&b, "%s runs %s, verified %s", env, what, ago(s.Since))
		case ledger.StateFailed:
			fmt.Fprintf(&b, "%s has %s, which failed %s", env, what, ago(s.Since))
			if s.Reason != "" {
				b.WriteString(": " + clause(s.Reason))
			}
		default:
			fmt.Fprintf(&b, "%s has %s, %s %s", env, what, x.Deployment.State, ago(s.Since))
		}
		if s.Wanted != "" {
			fmt.Fprintf(&b, "; main asks for %s, and nothing is recorded of it yet", s.Wanted)
		}
	}
	if s != nil && s.Drift != nil {
		fmt.Fprintf(&b, "; it has drifted %s", ago(s.Drifted))
		switch s.Drift.Answer {
		case ledger.AnswerContested:
			b.WriteString(", again and again, and is taken back less and less often: ")
		default:
			b.WriteString(", and that is only reported: ")
		}
		b.WriteString(s.Drift.String())
	}
	if s != nil && s.Problem != "" {
		b.WriteString("; main can't be followed: " + s.Problem)
	}
	if s != nil && s.Suspended != "" {
		b.WriteString("; nothing is written there: " + s.Suspended)
	}
	if a := x.Admission; a != nil {
		b.WriteString("; " + a.answer(now, env))
	} else if s == nil && x.Route != "" {
		b.WriteString("; " + x.Route)
	}
	return b.String()
}

// clause is the first line of a reason, without its stop.
func clause(reason string) string {
	line, _, _ := strings.Cut(reason, "\n")
	return strings.TrimSuffix(line, ".")
}

func (a *entrance) answer(now time.Time, env string) string {
	if a.Candidate == nil {
		return strings.TrimSuffix(cmp.Or(a.Reason, "nothing waits to enter"), ".")
	}
	if v, ok := a.blocked(); ok {
		return "nothing is to enter: " + v.Reason
	}
	from := make([]string, len(a.After))
	for i, e := range a.After {
		from[i] = string(e)
	}
	text := a.Version + ", verified in " + strings.Join(from, " and ")
	if !a.Verified.IsZero() {
		text += " " + ageAt(now, a.Verified) + " ago"
	}
	if failed := gateTexts(now, a.Gates, policy.Failed); len(failed) > 0 {
		return text + ", does not enter: " + strings.Join(failed, "; ")
	}
	if waits := gateTexts(now, a.Gates, policy.Pending); len(waits) > 0 {
		return text + ", waits for: " + strings.Join(waits, "; ")
	}
	return text + ", enters now: every gate is open"
}

func (g *globals) writeWhy(now time.Time, x *explanation) error {
	p := paletteFor(g.out)
	fmt.Fprintln(g.out, printable(x.Answer)+".")
	if d := x.Deployment; d != nil {
		fmt.Fprintf(g.out, "\n%s: %s since %s (%s)\n", d.ID, p.state(string(d.State))(string(d.State)), rfc3339(x.Standing.Since), ageAt(now, x.Standing.Since))
		by := fmt.Sprintf("  %s by %s, commit %.12s", d.Cause, cmp.Or(d.Actor.String(), "pinion"), d.Commit)
		if d.From != "" {
			by += ", from " + d.From
		}
		fmt.Fprintln(g.out, printable(by))
		if d.Reason != "" {
			fmt.Fprintln(g.out, "  "+printable(strings.ReplaceAll(d.Reason, "\n", "\n  ")))
		}
	}
	if s := x.Standing; s != nil && s.Drift != nil {
		fmt.Fprintf(g.out, "\nDrift, %s since %s (%s):\n", s.Drift.Answer, rfc3339(s.Drifted), ageAt(now, s.Drifted))
		for _, c := range s.Drift.Changes {
			fmt.Fprintln(g.out, "  "+printable(c.String()))
		}
		if s.Drift.More != "" {
			fmt.Fprintf(g.out, "  and %s that are not listed\n", printable(s.Drift.More))
		}
	}
	if v := x.Verification; v != nil {
		fmt.Fprintf(g.out, "\nVerification, by the rules of %.12s:\n", v.Rules)
		if err := g.writeGates(now, v.Gates); err != nil {
			return err
		}
	}
	switch a := x.Admission; {
	case a != nil:
		what := "nothing"
		if a.Candidate != nil {
			what = a.Version + " from " + strings.Join(a.Candidate.From, ", ")
		}
		fmt.Fprintf(g.out, "\nTo enter %s, by the rules of %.12s: %s\n", x.Environment, x.Main, printable(what))
		if err := g.writeGates(now, a.Gates); err != nil {
			return err
		}
	case x.Route != "":
		fmt.Fprintf(g.out, "\nNothing is promoted into %s: %s\n", x.Environment, printable(x.Route))
	}
	if len(x.Refused) > 0 {
		fmt.Fprintln(g.out, "\nRefused, until a person pins it again:")
		t := &table{w: g.out, indent: "  "}
		rows := [][]cell{plain("VERSION", "SINCE", "WHY")}
		for _, r := range x.Refused {
			rows = append(rows, plain(r.Release.Version(), g.moment(now, r.Time), r.Reason))
		}
		return t.write(rows...)
	}
	return nil
}

func (g *globals) writeGates(now time.Time, verdicts []policy.Verdict) error {
	p := paletteFor(g.out)
	t := &table{w: g.out, indent: "  "}
	rows := [][]cell{plain("GATE", "VALUE", "SINCE", "OPENS", "FAILS", "WHY", "WHAT OPENS IT")}
	for _, v := range verdicts {
		row := plain(v.Gate, string(v.Outcome), g.moment(now, v.Since), g.upcoming(now, v.Opens), g.upcoming(now, v.Deadline), v.Reason, v.Needs)
		row[1].paint = p.state(string(v.Outcome))
		rows = append(rows, row)
	}
	return t.write(filled(rows)...)
}

// upcoming writes when something will be.
func (g *globals) upcoming(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	if _, tty := terminal(g.out); tty {
		return clockAt(now, t)
	}
	return rfc3339(t)
}

// next says what comes next for a service: in its environment, and from there.
func (l *ledgers) next(ctx context.Context, s standing) ([]string, error) {
	var next []string
	if s.Problem != "" {
		next = append(next, "main can't be followed: "+s.Problem)
	}
	if s.Suspended != "" {
		next = append(next, s.Suspended)
	}
	if s.Wanted != "" {
		next = append(next, s.Wanted+" is wanted, and not recorded yet")
	}
	if s.Drift != nil {
		next = append(next, "has drifted, "+string(s.Drift.Answer)+": "+s.Drift.String())
	}
	switch s.State {
	case string(ledger.StatePinned):
		if len(s.WaitsFor) > 0 {
			next = append(next, "waits for "+strings.Join(s.WaitsFor, ", and for "))
		} else {
			next = append(next, "is to be applied")
		}
	case string(ledger.StateStarted):
		next = append(next, "rolls out")
	case string(ledger.StateCompleted):
		v, err := l.verify(ctx, s.Environment, s.Service)
		if err != nil {
			return next, err
		}
		waits := gateTexts(l.now, v.Gates, policy.Pending)
		if len(waits) == 0 {
			waits = append(gateTexts(l.now, v.Gates, policy.Failed), "is about to be "+string(v.State))
		}
		next = append(next, waits...)
	case string(ledger.StateFailed):
		next = append(next, cmp.Or(clause(s.Reason), "pin another version"))
	}
	a, _, err := l.enter(ctx, s.Environment, s.Service)
	if err != nil {
		return next, err
	}
	if a != nil && a.Candidate != nil {
		if _, no := a.blocked(); !no {
			next = append(next, a.comes(l.now, a.Version+" enters", a.Version+" waits for "))
		}
	}
	if s.State != string(ledger.StateVerified) {
		return next, nil
	}
	repo, err := l.repository(ctx)
	if err != nil {
		return next, err
	}
	pipeline := repo.StagesOf(s.Service)
	if pipeline == nil {
		return next, nil
	}
	for _, stage := range pipeline.Next(s.Environment) {
		a, _, err := l.enter(ctx, stage.Environment, s.Service)
		if err != nil {
			return next, err
		}
		if a == nil || a.Candidate == nil || !a.Candidate.Release.SamePins(s.record.Deployment.Release) {
			continue
		}
		if _, no := a.blocked(); !no {
			next = append(next, a.comes(l.now, string(stage.Environment), string(stage.Environment)+" waits for "))
		}
	}
	return next, nil
}

// comes says when a candidate enters, or what it waits for.
func (a *entrance) comes(now time.Time, enters, waits string) string {
	if failed := gateTexts(now, a.Gates, policy.Failed); len(failed) > 0 {
		return enters + " not: " + strings.Join(failed, "; ")
	}
	pending := slices.DeleteFunc(slices.Clone(a.Gates), func(v policy.Verdict) bool { return v.Outcome != policy.Pending })
	if len(pending) == 0 {
		return enters + " now"
	}
	var opens time.Time
	for _, v := range pending {
		if v.Opens.IsZero() {
			return waits + strings.Join(gateTexts(now, pending, policy.Pending), "; ")
		}
		if v.Opens.After(opens) {
			opens = v.Opens
		}
	}
	return enters + " at " + clockAt(now, opens)
}
