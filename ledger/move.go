package ledger

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
)

// MoveError is an entry that the present does not allow: it goes backwards, it
// skips a state, it was there already, or it is about something else.
type MoveError struct {
	Environment desired.EnvironmentName
	Service     desired.ServiceName
	Event       Event
	Deployment  string // that the entry is about, "" if it is about a candidate
	State       State  // of the record's deployment; "" if there is none
	Reason      string // in words, with the deployment and the environment
}

func (e *MoveError) Error() string { return e.Reason }

// Apply returns the present after an entry. The record itself is not changed;
// its zero value is the present before the first entry. What the present does
// not allow is a *MoveError; an entry that is wrong by itself is another error.
func (r Record) Apply(e Entry) (Record, error) {
	e = e.Normal()
	if err := e.valid(); err != nil {
		return Record{}, err
	}
	next := r.clone()
	if reason := next.apply(e); reason != "" {
		return Record{}, &MoveError{e.Environment, e.Service, e.Event, e.Deployment, r.Deployment.State, reason}
	}
	return next, nil
}

// clone copies what apply changes in place.
func (r Record) clone() Record {
	r.Deployment.Checks = slices.Clone(r.Deployment.Checks)
	r.Deployment.Approvals = slices.Clone(r.Deployment.Approvals)
	r.Previous = slices.Clone(r.Previous)
	r.Refused = slices.Clone(r.Refused)
	if r.Verified != nil {
		v := *r.Verified
		r.Verified = &v
	}
	if r.Candidate != nil {
		c := *r.Candidate
		c.Checks, c.Approvals = slices.Clone(c.Checks), slices.Clone(c.Approvals)
		r.Candidate = &c
	}
	return r
}

// apply changes the record, or says why it can't be.
func (r *Record) apply(e Entry) (reason string) {
	if r.Environment == "" && r.Service == "" {
		if e.Event != EventPinned && !e.Candidate {
			return fmt.Sprintf("there is no entry of %s in %s yet: the first one pins a deployment or offers a candidate, and can't be %s", e.Service, e.Environment, e.Event)
		}
		r.Environment, r.Service = e.Environment, e.Service
	}
	if e.Environment != r.Environment || e.Service != r.Service {
		return fmt.Sprintf("the entry is about %s in %s, and the record of %s in %s", e.Service, e.Environment, r.Service, r.Environment)
	}
	switch {
	case e.Late:
		return "" // the history has it, and that is all
	case e.Event == EventPinned:
		return r.pin(e)
	case e.Event == EventOffered:
		return r.offer(e)
	case e.Candidate:
		return r.applyCandidate(e)
	}
	d := &r.Deployment
	who := e.Deployment + " in " + string(r.Environment)
	switch {
	case d.ID == "":
		return fmt.Sprintf("there is no deployment of %s in %s yet: %s can't be %s", r.Service, r.Environment, e.Deployment, e.Event)
	case d.ID != e.Deployment && (e.Event == EventCheck || e.Event == EventApproved || e.Event == EventRerun):
		return fmt.Sprintf("%s is not the current deployment, that is %s, which is %s: what comes for it is late", who, d.ID, d.State)
	case d.ID != e.Deployment:
		return fmt.Sprintf("%s is not the current deployment, that is %s, which is %s: it can't become %s", who, d.ID, d.State, e.Event)
	case e.Commit != "" && e.Commit != d.Commit:
		return fmt.Sprintf("%s comes from the commit %s, not from %s", who, d.Commit, e.Commit)
	case !e.Release.isZero() && !e.Release.Equal(d.Release):
		return fmt.Sprintf("%s is %s, not %s", who, d.Release.describe(), e.Release.describe())
	}
	switch e.Event {
	case EventCheck:
		return addCheck(&d.Checks, e.Checks[0], who)
	case EventApproved:
		return addApproval(&d.Approvals, *e.Approval, who)
	case EventRerun:
		if d.State != StateCompleted {
			return fmt.Sprintf("%s is %s: a check can be made once more while it is %s", who, d.State, StateCompleted)
		}
		return takeCheck(&d.Checks, &d.Reruns, e.Policy, who)
	case EventDrifted:
		if e.Drift != nil && e.Drift.Answer == AnswerEnded {
			if !r.Drift.Stands() {
				return fmt.Sprintf("no drift of %s stands that could be %s", who, AnswerEnded)
			}
			r.Drift = nil
			return ""
		}
		r.Drifted, r.Drift = e.Time, e.Drift
		return ""
	case EventRetired:
		if !r.Retired.IsZero() {
			return fmt.Sprintf("%s was retired already, at %s", who, r.Retired.Format(time.RFC3339))
		}
		r.Retired = e.Time
		return ""
	}
	return r.move(e, who)
}

// move takes the deployment to another state.
func (r *Record) move(e Entry, who string) (reason string) {
	d := &r.Deployment
	to := State(e.Event)
	switch {
	case d.State == to:
		return fmt.Sprintf("%s is already %s", who, to)
	case d.State.Final():
		return fmt.Sprintf("%s is %s, and that is final: it can't become %s", who, d.State, to)
	case to == StateFailed || to == StateSuperseded:
	case !r.Retired.IsZero():
		return fmt.Sprintf("%s is retired since %s: it can't become %s", who, r.Retired.Format(time.RFC3339), to)
	case d.State == StateCompleted && to == StateStarted:
		return fmt.Sprintf("%s is %s: it can't go back to %s", who, d.State, to)
	case to == StateStarted && d.State != StatePinned, to == StateCompleted && d.State != StateStarted:
		return fmt.Sprintf("%s is %s: it can't become %s before it is %s", who, d.State, to, StateStarted)
	case to == StateVerified && d.State != StateCompleted:
		return fmt.Sprintf("%s is %s: it can't become %s before it is %s", who, d.State, to, StateCompleted)
	}
	switch to {
	case StateStarted:
		d.Started = e.Time
		d.Manifests = cmp.Or(e.Manifests, d.Manifests)
	case StateCompleted:
		d.Completed = e.Time
		d.Manifests = cmp.Or(e.Manifests, d.Manifests)
	case StateVerified, StateFailed:
		if to == StateVerified && e.Manifests != "" && e.Manifests != d.Manifests {
			return fmt.Sprintf("%s was checked with the objects %s: it can't become verified with %s", who, cmp.Or(d.Manifests, "that are not known"), e.Manifests)
		}
		for _, c := range e.Checks {
			i, found := findCheck(d.Checks, c.Policy)
			switch {
			case to == StateVerified && c.Result != Success:
				return fmt.Sprintf("%s can't become verified by the check %s, which failed", who, c.Policy)
			case found && d.Checks[i].Result != c.Result:
				return fmt.Sprintf("the check %s of %s has the result %s already: %s can't become of it", c.Policy, who, d.Checks[i].Result, c.Result)
			case !found:
				d.Checks = slices.Insert(d.Checks, i, c)
			}
		}
		d.Ended = e.Time
	case StateSuperseded:
		d.Ended = e.Time
	default:
		return fmt.Sprintf("%s can't become %s", who, to)
	}
	d.State, d.Reason = to, e.Reason
	switch to {
	case StateVerified:
		p := d.past()
		r.Verified = &p
		r.forgive(d.Release)
	case StateFailed:
		r.refuse(d.Release, cmp.Or(e.Reason, "it failed"), e.Time)
	}
	return ""
}

// pin makes a new deployment of the current one.
func (r *Record) pin(e Entry) (reason string) {
	d := r.Deployment
	who := e.Deployment + " in " + string(r.Environment)
	switch {
	case d.ID == e.Deployment:
		return fmt.Sprintf("%s was pinned already, and is %s", who, d.State)
	case slices.ContainsFunc(r.Previous, func(p Past) bool { return p.ID == e.Deployment }):
		return fmt.Sprintf("%s was there before %s: a deployment comes once", who, d.ID)
	case d.ID != "" && !d.State.Final():
		return fmt.Sprintf("%s can't take the place of %s while that is %s: it is to be superseded before", who, d.ID, d.State)
	}
	if d.ID != "" {
		p := d.past()
		p.Left = e.Time
		if r.Verified != nil && r.Verified.ID == d.ID {
			r.Verified.Left = e.Time
		}
		r.Previous = slices.Insert(r.Previous, 0, p)
		r.Previous = r.Previous[:min(len(r.Previous), MaxPrevious)]
	}
	if e.Cause != CausePromotion && e.Cause != CauseTracking && e.Cause != CauseRollback {
		r.forgive(e.Release)
	}
	if (e.Cause == CauseRollback || e.Cause == CauseRevert) && d.ID != "" && !d.Release.Equal(e.Release) {
		left := d.Release
		if !left.SamePins(e.Release) {
			left.Source = ""
		}
		by := "pinion"
		if e.Actor != (Person{}) {
			by = e.Actor.String()
		}
		why := "rolled back by " + by
		if e.Reason != "" {
			why += ": " + e.Reason
		} else if d.State == StateFailed && d.Reason != "" {
			why += ": " + d.Reason
		}
		r.addRefusal(Refusal{left, why, e.Time})
	}
	if c := r.Candidate; c != nil && c.Release.SamePins(e.Release) {
		// An environment that reads its manifests from the commit itself takes
		// only the pins.
		if s := e.Release.Source; s == c.Release.Source || s == "" || s == e.Commit || c.Release.Source == "" {
			r.Candidate = nil
		}
	}
	r.Deployment = Deployment{
		ID:        e.Deployment,
		Commit:    e.Commit,
		Release:   e.Release,
		Manifests: e.Manifests,
		State:     StatePinned,
		Reason:    e.Reason,
		Cause:     e.Cause,
		From:      strings.Join(e.From, ", "),
		Actor:     e.Actor,
		Authors:   e.Authors,
		Pinned:    e.Time,
	}
	r.Retired, r.Drifted, r.Drift = time.Time{}, time.Time{}, nil
	return ""
}

// offer sets the candidate.
func (r *Record) offer(e Entry) (reason string) {
	if c := r.Candidate; c != nil {
		if c.Release.Equal(e.Release) {
			return fmt.Sprintf("%s waits to enter %s already", e.Release.describe(), r.Environment)
		}
		return fmt.Sprintf("%s can't be offered to %s while %s waits to enter it: that is to be superseded before", e.Release.describe(), r.Environment, c.Release.describe())
	}
	r.Candidate = &Candidate{Release: e.Release, From: e.From, Authors: e.Authors, Offered: e.Time, Reason: e.Reason}
	return ""
}

// applyCandidate applies what is about the candidate.
func (r *Record) applyCandidate(e Entry) (reason string) {
	c := r.Candidate
	who := e.Release.describe() + ", the candidate for " + string(r.Environment) + ","
	switch {
	case c == nil:
		return fmt.Sprintf("nothing waits to enter %s: %s can't be %s", r.Environment, e.Release.describe(), e.Event)
	case !c.Release.Equal(e.Release):
		return fmt.Sprintf("what waits to enter %s is %s: %s can't be %s", r.Environment, c.Release.describe(), e.Release.describe(), e.Event)
	}
	switch e.Event {
	case EventCheck:
		return addCheck(&c.Checks, e.Checks[0], who)
	case EventApproved:
		return addApproval(&c.Approvals, *e.Approval, who)
	case EventRerun:
		return takeCheck(&c.Checks, &c.Reruns, e.Policy, who)
	case EventSuperseded:
		r.Candidate = nil
		return ""
	case EventFailed:
		r.Candidate = nil
		r.refuse(e.Release, cmp.Or(e.Reason, "it failed"), e.Time)
		return ""
	}
	return fmt.Sprintf("%s can't be %s", who, e.Event)
}

func findCheck(checks []Check, policy desired.PolicyName) (int, bool) {
	return slices.BinarySearchFunc(checks, policy, func(c Check, p desired.PolicyName) int { return cmp.Compare(c.Policy, p) })
}

func addCheck(checks *[]Check, c Check, who string) (reason string) {
	i, found := findCheck(*checks, c.Policy)
	if found {
		return fmt.Sprintf("the check %s of %s has the result %s already, by %s: the first one counts", c.Policy, who, (*checks)[i].Result, (*checks)[i].By)
	}
	*checks = slices.Insert(*checks, i, c)
	return ""
}

func takeCheck(checks *[]Check, reruns *[]desired.PolicyName, policy desired.PolicyName, who string) (reason string) {
	i, found := findCheck(*checks, policy)
	if !found {
		return fmt.Sprintf("the check %s of %s has no result that could be taken back", policy, who)
	}
	*checks = orNil(slices.Delete(*checks, i, i+1))
	*reruns = append(slices.Clip(*reruns), policy)
	return ""
}

func addApproval(approvals *[]Approval, a Approval, who string) (reason string) {
	for _, b := range *approvals {
		if a.Policy == b.Policy && (a.By == b.By || a.Email != "" && strings.EqualFold(a.Email, b.Email)) {
			return fmt.Sprintf("%s has approved %s for %s already, at %s", b.By, who, a.Policy, b.Time.Format(time.RFC3339))
		}
	}
	*approvals = append(*approvals, a)
	return ""
}

func (d Deployment) past() Past {
	return Past{d.ID, d.Commit, d.Release, d.Manifests, d.State, d.Authors, d.Started, d.Ended, time.Time{}}
}

func (r Release) isZero() bool { return len(r.Pins) == 0 && r.Source == "" }

// describe writes a release for an error: its version and its source.
func (r Release) describe() string {
	v, s := abridge(r.Version()), short(r.Source)
	switch {
	case s == "":
		return cmp.Or(v, "nothing")
	case v == "":
		return "the manifests of " + s
	}
	return v + " (manifests of " + s + ")"
}

// refuse keeps automation from bringing a release that has failed. Its pins are
// to blame whatever the manifests, unless it is known that they were good with
// others; and nothing is if all was good before, for then it was something
// else that failed, such as the environment's parameters.
func (r *Record) refuse(x Release, reason string, at time.Time) {
	v := r.Verified
	switch {
	case v != nil && v.Release.Equal(x), x.isZero():
		return
	case len(x.Pins) > 0 && (v == nil || !v.Release.SamePins(x)):
		x.Source = ""
	}
	r.addRefusal(Refusal{x, reason, at})
}

// addRefusal puts a refusal first, in the place of an older one of the same.
func (r *Record) addRefusal(x Refusal) {
	x.Reason = line(x.Reason, maxDescription)
	r.Refused = slices.DeleteFunc(r.Refused, func(o Refusal) bool { return o.Release.Equal(x.Release) })
	r.Refused = slices.Insert(r.Refused, 0, x)
	r.Refused = r.Refused[:min(len(r.Refused), MaxRefused)]
}

// forgive takes away what refuses a release.
func (r *Record) forgive(x Release) {
	r.Refused = orNil(slices.DeleteFunc(r.Refused, func(o Refusal) bool { return o.covers(x) }))
}

func (f Refusal) covers(x Release) bool {
	return f.Release.SamePins(x) && (f.Release.Source == "" || f.Release.Source == x.Source)
}

// Refuses returns the newest refusal that a release comes under.
func (r Record) Refuses(x Release) (Refusal, bool) {
	i := slices.IndexFunc(r.Refused, func(f Refusal) bool { return f.covers(x) })
	if i < 0 {
		return Refusal{}, false
	}
	return r.Refused[i], true
}

// RanBefore returns the last deployment of before that had a release's pins,
// whatever its manifests; of a service without artifacts, its manifests. Its
// Started is zero if it was pinned and never ran.
func (r Record) RanBefore(x Release) (Past, bool) {
	i := slices.IndexFunc(r.Previous, func(p Past) bool {
		return p.Release.SamePins(x) && (len(x.Pins) > 0 || p.Release.Source == x.Source)
	})
	if i < 0 {
		return Past{}, false
	}
	return r.Previous[i], true
}
