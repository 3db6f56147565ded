package history

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
)

// Explanation is all that `pinion why` has to say.
type Explanation struct {
	Environment desired.EnvironmentName `json:"environment"`
	Service     desired.ServiceName     `json:"service"`
	Answer      string                  `json:"answer"`
	Main        string                  `json:"main"` // the commit whose rules admit
	Now         time.Time               `json:"now"`
	Standing    *Standing               `json:"standing,omitempty"`
	// Deployment is as it is recorded.
	Deployment   *ledger.Deployment `json:"deployment,omitempty"`
	Verification *Verification      `json:"verification,omitempty"`
	Admission    *Entrance          `json:"admission,omitempty"` // nil: nothing is promoted into it
	// Route says why there is no admission.
	Route   string           `json:"route,omitempty"`
	Refused []ledger.Refusal `json:"refused,omitempty"`
	// Registries are those from which new versions come, as who watches them knows.
	Registries []Registry `json:"registries,omitempty"`
}

type Verification struct {
	State  ledger.State     `json:"state"` // that it has, or that it is about to have
	Reason string           `json:"reason,omitempty"`
	Rules  string           `json:"rules"` // the commit whose rules verify
	Gates  []policy.Verdict `json:"gates"`
}

type Entrance struct {
	Pipeline  desired.PipelineName      `json:"pipeline"`
	After     []desired.EnvironmentName `json:"after"`
	Move      policy.Move               `json:"move"`
	Reason    string                    `json:"reason,omitempty"`
	Candidate *ledger.Candidate         `json:"candidate,omitempty"`
	Version   string                    `json:"version,omitempty"` // of the candidate
	Verified  time.Time                 `json:"verified,omitzero"` // when the stages before had verified it
	Gates     []policy.Verdict          `json:"gates"`
}

func (view *View) Explain(ctx context.Context, env desired.EnvironmentName, svc desired.ServiceName) (*Explanation, error) {
	x := &Explanation{Environment: env, Service: svc, Now: view.Now.UTC().Truncate(time.Second)}
	repo, err := view.Repository(ctx)
	if err != nil {
		return nil, err
	}
	x.Main = view.main
	here, err := view.Standings(ctx, env, svc)
	if err != nil {
		return nil, err
	}
	if len(here) > 0 {
		x.Standing = &here[0]
		x.Refused = here[0].Record.Refused
	} else if repo.Services[svc] == nil {
		if ps := repo.Broken(desired.KindService, string(svc)); len(ps) > 0 {
			return nil, ps[0]
		}
		return nil, Unknown("service", string(svc), slices.Sorted(maps.Keys(repo.Services)), "there are")
	}
	if x.Standing != nil && x.Standing.Deployment != "" {
		d := x.Standing.Record.Deployment
		x.Deployment = &d
		if x.Verification, err = view.verify(ctx, env, svc); err != nil {
			return nil, err
		}
	}
	if x.Admission, x.Route, err = view.enter(ctx, env, svc); err != nil {
		return nil, err
	}
	x.Answer = x.answer(view.Now)
	return x, nil
}

// verify judges the present deployment.
func (view *View) verify(ctx context.Context, env desired.EnvironmentName, svc desired.ServiceName) (*Verification, error) {
	v, err := view.verification(ctx, env, svc)
	if err != nil && !v.Record.Deployment.State.Final() { // what is recorded of one that moves no more needs no rules
		return nil, err
	}
	j := policy.Verify(v)
	for i := range j.Verdicts {
		estimate(&j.Verdicts[i], v.Rules.Repository)
	}
	return &Verification{State: j.State, Reason: j.Reason, Rules: v.Record.Deployment.Commit, Gates: j.Verdicts}, nil
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
func (view *View) enter(ctx context.Context, env desired.EnvironmentName, svc desired.ServiceName) (a *Entrance, route string, err error) {
	in, err := view.Admission(ctx, env, svc)
	if err != nil {
		return nil, "", err
	}
	pipeline, stage, why := in.Rules.Stage(env, svc)
	switch {
	case stage == nil:
		return nil, why, nil
	case why == "" && len(stage.After) == 0 && len(stage.Track) == 0:
		return nil, fmt.Sprintf("%s is a first stage of the pipeline %s: versions are pinned there", env, pipeline.Name), nil
	}
	d, err := view.Admit(in)
	if err != nil {
		return nil, "", err
	}
	a = &Entrance{Pipeline: pipeline.Name, After: append([]desired.EnvironmentName{}, stage.After...), // none is a list, too
		Move: d.Move, Reason: d.Reason, Candidate: d.Candidate, Gates: append([]policy.Verdict{}, d.Verdicts...)}
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
func (a *Entrance) blocked() (policy.Verdict, bool) {
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
		return v.Gate + " until " + Clock(now, v.Opens)
	case strings.HasPrefix(v.Gate, "hold ") && !v.Opens.IsZero():
		return v.Gate + ": " + v.Reason + ", until " + Clock(now, v.Opens)
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
func (x *Explanation) answer(now time.Time) string {
	env, svc := string(x.Environment), string(x.Service)
	ago := func(t time.Time) string { return Age(now, t) + " ago" }
	var b strings.Builder
	s := x.Standing
	switch {
	case s == nil:
		fmt.Fprintf(&b, "%s does not run %s", env, svc)
	case s.State == StateRetired:
		fmt.Fprintf(&b, "%s does not run %s any more since %s", env, svc, ago(s.Since))
	case s.State == StateWanted:
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
				b.WriteString(": " + Clause(s.Reason))
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
func Clause(reason string) string {
	line, _, _ := strings.Cut(reason, "\n")
	return strings.TrimSuffix(line, ".")
}

func (a *Entrance) answer(now time.Time, env string) string {
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
	if len(from) == 0 {
		text = a.Version + ", the newest that " + env + " takes"
	}
	if !a.Verified.IsZero() {
		text += " " + Age(now, a.Verified) + " ago"
	}
	if failed := gateTexts(now, a.Gates, policy.Failed); len(failed) > 0 {
		return text + ", does not enter: " + strings.Join(failed, "; ")
	}
	if waits := gateTexts(now, a.Gates, policy.Pending); len(waits) > 0 {
		return text + ", waits for: " + strings.Join(waits, "; ")
	}
	return text + ", enters now: every gate is open"
}

// next says what comes next for a service: in its environment, and from there.
func (view *View) Next(ctx context.Context, s Standing) ([]string, error) {
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
		v, err := view.verify(ctx, s.Environment, s.Service)
		if err != nil {
			return next, err
		}
		waits := gateTexts(view.Now, v.Gates, policy.Pending)
		if len(waits) == 0 {
			waits = append(gateTexts(view.Now, v.Gates, policy.Failed), "is about to be "+string(v.State))
		}
		next = append(next, waits...)
	case string(ledger.StateFailed):
		next = append(next, cmp.Or(Clause(s.Reason), "pin another version"))
	}
	a, _, err := view.enter(ctx, s.Environment, s.Service)
	if err != nil {
		return next, err
	}
	if a != nil && a.Candidate != nil {
		if _, no := a.blocked(); !no {
			next = append(next, a.comes(view.Now, a.Version+" enters", a.Version+" waits for "))
		}
	}
	if s.State != string(ledger.StateVerified) {
		return next, nil
	}
	repo, err := view.Repository(ctx)
	if err != nil {
		return next, err
	}
	pipeline := repo.StagesOf(s.Service)
	if pipeline == nil {
		return next, nil
	}
	for _, stage := range pipeline.Next(s.Environment) {
		a, _, err := view.enter(ctx, stage.Environment, s.Service)
		if err != nil {
			return next, err
		}
		if a == nil || a.Candidate == nil || !a.Candidate.Release.SamePins(s.Record.Deployment.Release) {
			continue
		}
		if _, no := a.blocked(); !no {
			next = append(next, a.comes(view.Now, string(stage.Environment), string(stage.Environment)+" waits for "))
		}
	}
	return next, nil
}

// comes says when a Candidate enters, or what it waits for.
func (a *Entrance) comes(now time.Time, enters, waits string) string {
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
	return enters + " at " + Clock(now, opens)
}
