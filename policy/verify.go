package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// Verify judges whether a deployment is verified, or has failed, by the gates
// of its stage. It moves a deployment that is completed, and no other. One that
// no pipeline leads through its environment is verified by its rollout alone;
// where it can't be told what is asked for, nothing passes.
//
// What has been verified with the same pins and the same rendered objects needs
// no more than its rollout, unless a check of this very deployment has failed.
func Verify(v Verification) Judgement {
	d := v.Record.Deployment
	j := Judgement{State: d.State}
	switch d.State {
	case ledger.StatePinned, ledger.StateStarted, ledger.StateCompleted:
	case ledger.StateVerified, ledger.StateFailed, ledger.StateSuperseded:
		j.Reason, j.Verdicts, j.Checks = d.Reason, facted(v), d.Checks
		return j
	default:
		j.Reason = "there is no deployment to judge"
		return j
	}
	done := d.State == ledger.StateCompleted
	j.Verdicts = []Verdict{rollout(d)}
	p, s, why, free := v.Rules.stage(v.Record.Environment, v.Record.Service)
	switch {
	case free && done:
		j.State, j.Reason = ledger.StateVerified, fmt.Sprintf("rollout complete; %s, so nothing else is asked for", why)
		return j
	case free:
		j.Reason = reasons(j.Verdicts, Pending)
		return j
	case why != "":
		j.Verdicts = append(j.Verdicts, Verdict{Gate: "stage " + string(v.Record.Environment), Outcome: Pending, Reason: why, Needs: "mend it, and pin the version anew"})
		j.Reason = reasons(j.Verdicts, Pending)
		return j
	}
	b := v.bench(p, s)
	j.Verdicts = slices.Grow(j.Verdicts, len(s.Verify))
	carried := ""
	if last := verifiedBefore(v.Record); done && last != nil {
		carried = fmt.Sprintf("the same objects and pins were verified as %s on %s", last.ID, on(last.Ended))
	}
	for _, name := range s.Verify {
		gate := b.gate(name, carried)
		j.Verdicts = append(j.Verdicts, gate)
		if gate.Result != nil {
			j.Checks = append(j.Checks, *gate.Result)
		}
	}
	if !done {
		j.Reason = reasons(j.Verdicts, Pending)
		return j
	}
	failed, pending := reasons(j.Verdicts, Failed), reasons(j.Verdicts, Pending)
	switch {
	case failed != "":
		j.State, j.Reason = ledger.StateFailed, failed
	case pending != "":
		j.Reason, j.Run, j.Wake = pending, b.run, first(b.now, j.Verdicts)
	default:
		j.State = ledger.StateVerified
		j.Reason = strings.Join(append([]string{"rollout complete"}, evidence(j.Checks, s.Verify, v.Rules.Repository)...), ", ")
		if carried != "" {
			j.Reason = carried
		}
	}
	return j
}

// gate is judge, unless the evidence of an earlier deployment holds.
func (b *bench) gate(name desired.PolicyName, carried string) Verdict {
	if carried == "" {
		return b.judge(name)
	}
	p := b.repository.Policies[name]
	if p == nil {
		return b.judge(name)
	}
	v := Verdict{Outcome: Passed, Reason: carried}
	if byResult(p) {
		if said := b.recorded(p); said.Result != nil {
			v = said
		}
	}
	v.Gate, v.Check = string(name), p.Check
	if v.Result == nil {
		b.make(&v, carried)
	}
	return v
}

// bench is what the stage's policies are judged from.
func (v Verification) bench(p *desired.Pipeline, s *desired.Stage) *bench {
	d := v.Record.Deployment
	b := &bench{
		repository:  v.Rules.Repository,
		pipeline:    p,
		stage:       s,
		shelf:       v.Shelf,
		environment: v.Record.Environment,
		service:     v.Record.Service,
		locations:   v.Locations,
		now:         later(v.Now, d.Completed),
		fails:       true,
		checks:      d.Checks,
		approvals:   d.Approvals,
		authors:     d.Authors,
		deployment:  d,
	}
	if d.State == ledger.StateCompleted {
		b.begun = d.Completed
	} else {
		b.idle = "waits for the rollout"
	}
	b.soak = func(long time.Duration) Verdict { return soak(v.Health, d.Completed, b.now, long) }
	return b
}

// soak judges for how long a deployment has been healthy.
func soak(h Health, completed, now time.Time, long time.Duration) Verdict {
	v := Verdict{Outcome: Pending, Since: completed}
	switch {
	case !h.Known || completed.IsZero():
		v.Reason = "health is not known here"
		return v
	case !h.Healthy:
		v.Reason = "restarted: it is not healthy"
		if h.Message != "" {
			v.Reason = "restarted: " + h.Message
		}
		v.Needs = "it has to become healthy, and to stay so for " + span(long)
		return v
	}
	v.Since = later(h.Since, completed)
	return soaked(v, now, long)
}

// soaked completes the verdict of a soak that began with v.Since.
func soaked(v Verdict, now time.Time, long time.Duration) Verdict {
	v.Opens = v.Since.Add(long)
	lasted := max(0, now.Sub(v.Since))
	if lasted >= long {
		v.Outcome, v.Opens, v.Reason = Passed, time.Time{}, "soaked "+span(long)
		return v
	}
	v.Reason = fmt.Sprintf("soaked %s of %s", span(lasted.Truncate(time.Second)), span(long))
	v.Needs = "wait until " + on(v.Opens)
	return v
}

func rollout(d ledger.Deployment) Verdict {
	v := Verdict{Gate: "rollout", Outcome: Pending, Since: d.Pinned, Reason: "it has not begun"}
	switch {
	case d.State == ledger.StateCompleted:
		v.Outcome, v.Since, v.Reason = Passed, d.Completed, "complete"
	case d.State == ledger.StateStarted:
		v.Since, v.Reason = d.Started, "it is under way"
	}
	return v
}

// facted are the verdicts of a deployment that moves no more: what is recorded
// of it, and nothing that would be said of it today.
func facted(v Verification) []Verdict {
	d := v.Record.Deployment
	r := Verdict{Gate: "rollout", Outcome: Passed, Since: d.Completed, Reason: "complete"}
	if d.Completed.IsZero() && d.State != ledger.StateVerified {
		r.Outcome, r.Since, r.Reason = Pending, d.Ended, "it did not complete"
		if d.State == ledger.StateFailed {
			r.Outcome, r.Reason = Failed, gist(d.Reason)
		}
	}
	verdicts := []Verdict{r}
	for _, c := range d.Checks {
		o := Failed
		if c.Result == ledger.Success {
			o = Passed
		}
		g := Verdict{Gate: string(c.Policy), Outcome: o, Reason: outcome(c), Since: c.Time, Result: &c}
		if c.Description != "" {
			g.Reason += ": " + c.Description
		}
		if v.Rules.Repository != nil && v.Rules.Repository.Policies[c.Policy] != nil {
			g.Check = v.Rules.Repository.Policies[c.Policy].Check
		}
		verdicts = append(verdicts, g)
	}
	return verdicts
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// verifiedBefore returns the last deployment of before with the very pins and
// objects of the present one, if it was verified.
func verifiedBefore(r ledger.Record) *ledger.Past {
	d := r.Deployment
	same := func(p ledger.Past) bool {
		return p.ID != d.ID && d.Manifests != "" && p.Manifests == d.Manifests && p.Release.SamePins(d.Release)
	}
	for _, p := range r.Previous {
		if !same(p) || p.State == ledger.StateSuperseded {
			continue
		}
		if p.State == ledger.StateVerified {
			return &p
		}
		return nil // it has failed since
	}
	if r.Verified != nil && same(*r.Verified) {
		return r.Verified
	}
	return nil
}
