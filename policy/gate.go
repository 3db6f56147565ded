package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// self is by whom the results are that Pinion finds itself.
const self = "pinion"

// bench is what the policies of one stage are judged from, for a deployment
// (verify) or for a candidate (admit).
type bench struct {
	repository  *desired.Repository
	pipeline    *desired.Pipeline
	stage       *desired.Stage
	shelf       *artifact.Shelf // what is known of artifacts; nil: that is not known
	environment desired.EnvironmentName
	service     desired.ServiceName
	locations   map[string]*time.Location

	// now is never before what has happened: a clock that was set back must
	// not open what was closed.
	now time.Time
	// begun is from when on checks are made and timeouts count: the rollout's
	// end, or the offer. Zero: not yet.
	begun time.Time
	// idle, if set, is why nothing is judged yet.
	idle string
	// fails: what a policy says of the deployment itself is final. If not, it
	// is waited for.
	fails bool

	checks    []ledger.Check
	approvals []ledger.Approval
	authors   []ledger.Person
	// deployment is what expressions see, of a candidate what it would be.
	deployment ledger.Deployment
	soak       func(time.Duration) Verdict

	made []ledger.Check       // the results that were found here, and that the recorded ones lack
	run  []desired.PolicyName // whose check has to be made
}

// judge judges one policy of the stage.
func (b *bench) judge(name desired.PolicyName) Verdict {
	p := b.repository.Policies[name]
	if p == nil {
		why := fmt.Sprintf("there is no policy %s", name)
		if broken := b.repository.Broken(desired.KindPolicy, string(name)); len(broken) > 0 {
			why = "the policy can't be used: " + broken[0].Error()
		}
		return Verdict{Gate: string(name), Outcome: Pending, Reason: why, Needs: "mend the file"}
	}
	v, by := b.value(p)
	v.Gate, v.Check = string(name), p.Check
	if v.Outcome == Failed {
		by = v.Reason
	}
	if v.Outcome == Pending && p.Timeout > 0 && !b.begun.IsZero() {
		v.Deadline = b.begun.Add(p.Timeout)
		if !b.now.Before(v.Deadline) {
			v.Outcome, v.Needs, v.Opens = Failed, "", time.Time{}
			v.Reason = fmt.Sprintf("not passed within %s: %s", span(p.Timeout), v.Reason)
			by = "not passed within " + span(p.Timeout)
		}
	}
	if by != "" && v.Outcome != Pending && b.idle == "" {
		b.make(&v, by)
	}
	return v
}

// make makes a result of a verdict that rests on none, so that what is recorded
// of a deployment names all its evidence. Where there is one, it stays the only
// one, whatever it says.
func (b *bench) make(v *Verdict, by string) {
	name := desired.PolicyName(v.Gate)
	if slices.ContainsFunc(b.checks, func(c ledger.Check) bool { return c.Policy == name }) {
		return
	}
	c := ledger.Check{Policy: name, Result: ledger.Success, By: self, Description: by, Time: b.now}
	if v.Outcome == Failed {
		c.Result = ledger.Failure
	}
	b.made = append(b.made, c)
	v.Result = &c
}

// value is a policy's verdict without its timeout. If the result is found here
// and recorded nowhere, the text says by what in words.
func (b *bench) value(p *desired.Policy) (v Verdict, by string) {
	if byResult(p) {
		return b.recorded(p), ""
	}
	if p.Check == desired.CheckWindow {
		return b.window(p.Window), "within " + p.Window.Allow + " " + p.Window.Timezone
	}
	if b.idle != "" {
		return Verdict{Outcome: Pending, Reason: b.idle}, ""
	}
	switch p.Check {
	case desired.CheckSoak:
		return b.soak(p.Soak), "soaked " + span(p.Soak)
	case desired.CheckApproval:
		return b.approval(p)
	case desired.CheckCEL:
		return b.expression(p.CEL), "its expression holds"
	}
	return Verdict{Outcome: Pending, Reason: fmt.Sprintf("what the check %q is, is not known", p.Check)}, ""
}

// byResult tells whether a policy is decided by a result that is recorded.
func byResult(p *desired.Policy) bool {
	switch p.Check {
	case desired.CheckReport, desired.CheckJob, desired.CheckHTTP, desired.CheckPrometheus:
		return true
	}
	return false
}

// Reports tells whether a policy takes the reports of a principal: it names the
// principal, or one of its groups.
func Reports(r *desired.Report, principal string, groups []string) bool {
	return slices.Contains(r.By, principal) || slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(r.By, g) })
}

// recorded is the verdict of a check whose result somebody has found.
func (b *bench) recorded(p *desired.Policy) Verdict {
	ignored := ""
	if i := slices.IndexFunc(b.checks, func(c ledger.Check) bool { return c.Policy == p.Name }); i >= 0 {
		c := b.checks[i]
		v := Verdict{Outcome: Failed, Reason: outcome(c), Since: c.Time, Result: &c}
		switch {
		case p.Check == desired.CheckReport && !Reports(p.Report, c.By, c.Groups):
			ignored = fmt.Sprintf("; that of %s does not count", c.By)
		case c.Result == ledger.Success:
			v.Outcome = Passed
			return v
		default:
			if c.Description != "" {
				v.Reason += ": " + c.Description
			}
			return v
		}
	}
	if b.idle != "" {
		return Verdict{Outcome: Pending, Reason: b.idle}
	}
	if p.Check == desired.CheckReport {
		return Verdict{Outcome: Pending, Since: b.begun,
			Reason: "waits for a report by " + strings.Join(p.Report.By, " or ") + ignored,
			Needs:  fmt.Sprintf("report with `pinion report %s %s %s success%s`", b.environment, b.service, p.Name, b.flag())}
	}
	if _, err := expressionOf(p); err != nil {
		return Verdict{Outcome: Pending, Since: b.begun, Reason: "its expression does not compile: " + err.Error(), Needs: "mend " + p.File}
	}
	if b.begun.IsZero() {
		return Verdict{Outcome: Pending, Reason: "it is checked once the version is offered"}
	}
	b.run = append(b.run, p.Name)
	doing := map[desired.Check]string{desired.CheckJob: "waits for its Job to succeed", desired.CheckHTTP: "waits for the answer that it expects", desired.CheckPrometheus: "waits for the value that it expects"}[p.Check]
	if p.Check == desired.CheckPrometheus && p.Prometheus.For > 0 {
		doing += " for " + span(p.Prometheus.For)
	}
	return Verdict{Outcome: Pending, Since: b.begun, Reason: doing}
}

// flag says to a command which version is meant.
func (b *bench) flag() string {
	v := cmp.Or(b.deployment.Release.Version(), b.deployment.ID)
	if v == "" {
		return ""
	}
	return " --version " + argument(v)
}

func (b *bench) window(w *desired.Window) Verdict {
	loc := b.locations[w.Timezone]
	if loc == nil {
		return Verdict{Outcome: Pending, Reason: fmt.Sprintf("the time zone %s is not known here", w.Timezone), Needs: "name another one, or install the time zones"}
	}
	open, change := OpenAt(w, loc, b.now)
	switch {
	case open && change.IsZero():
		return Verdict{Outcome: Passed, Reason: "always open"}
	case open:
		return Verdict{Outcome: Passed, Reason: "open until " + at(change, loc)}
	case change.IsZero():
		return Verdict{Outcome: Pending, Reason: "it never opens: " + w.Allow}
	}
	return Verdict{Outcome: Pending, Reason: "opens " + at(change, loc), Needs: "wait until " + at(change, loc), Opens: change}
}

func (b *bench) expression(src string) Verdict {
	x, err := CompileDeployment(src)
	if err != nil {
		return Verdict{Outcome: Pending, Reason: "its expression does not compile: " + err.Error(), Needs: "mend it"}
	}
	no := Verdict{Outcome: Pending, Needs: "another version, or another policy"}
	if b.fails {
		no = Verdict{Outcome: Failed}
	}
	if x.Mentions(about) {
		return b.ofArtifacts(x, src, no)
	}
	ok, err := x.Eval(DeploymentVariables(b.environment, b.service, b.deployment))
	switch {
	case err != nil:
		no.Reason = "its expression can't be evaluated: " + err.Error()
		return no
	case !ok:
		no.Reason = "its expression is false: " + src
		return no
	}
	return Verdict{Outcome: Passed, Reason: "its expression holds"}
}

// first returns the earliest of the times that are after now; zero if none is.
func first(now time.Time, verdicts []Verdict) (wake time.Time) {
	for _, v := range verdicts {
		if v.Outcome != Pending {
			continue
		}
		for _, t := range []time.Time{v.Opens, v.Deadline} {
			if t.After(now) && (wake.IsZero() || t.Before(wake)) {
				wake = t
			}
		}
	}
	return wake
}

// reasons joins those of the verdicts with an outcome.
func reasons(verdicts []Verdict, o Outcome) string {
	var texts []string
	for _, v := range verdicts {
		if v.Outcome == o {
			texts = append(texts, v.Gate+": "+v.Reason)
		}
	}
	return strings.Join(texts, "; ")
}

// evidence says in words what checks came to, those of the time that has
// passed first, and then in the order of the stage's policies.
func evidence(checks []ledger.Check, policies []desired.PolicyName, repository *desired.Repository) []string {
	rank := func(c ledger.Check) int {
		if p := repository.Policies[c.Policy]; p != nil && p.Check == desired.CheckSoak {
			return -1
		}
		if i := slices.Index(policies, c.Policy); i >= 0 {
			return i
		}
		return len(policies)
	}
	sorted := slices.Clone(checks)
	slices.SortStableFunc(sorted, func(x, y ledger.Check) int { return rank(x) - rank(y) })
	var texts []string
	for _, c := range sorted {
		if c.Result != ledger.Success {
			continue
		}
		p := repository.Policies[c.Policy]
		text := string(c.Policy) + " " + outcome(c)
		if p != nil && c.By == self && c.Description != "" {
			switch p.Check {
			case desired.CheckSoak, desired.CheckApproval:
				text = c.Description
			case desired.CheckWindow:
				text = fmt.Sprintf("%s (%s)", c.Policy, c.Description)
			case desired.CheckCEL:
				text = string(c.Policy) + " holds"
			}
		}
		texts = append(texts, text)
	}
	return texts
}
