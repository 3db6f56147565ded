package notify

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// Notification is one piece of news. Its JSON is the body of FormatJSON;
// docs/webhooks.md tells what each field means.
type Notification struct {
	// ID is the same however often it is sent.
	ID          string                  `json:"id"`
	Event       desired.News            `json:"event"`
	Time        time.Time               `json:"time"`
	Summary     string                  `json:"summary"` // one line
	Reason      string                  `json:"reason,omitempty"`
	Environment desired.EnvironmentName `json:"environment,omitempty"`
	Service     desired.ServiceName     `json:"service,omitempty"`
	Deployment  string                  `json:"deployment,omitempty"`
	Candidate   bool                    `json:"candidate,omitempty"`
	Version     string                  `json:"version,omitempty"`
	Before      string                  `json:"before,omitempty"`
	After       string                  `json:"after,omitempty"`
	Cause       ledger.Cause            `json:"cause,omitempty"`
	Pins        []ledger.Pin            `json:"pins,omitempty"`
	Source      string                  `json:"source,omitempty"`
	Commit      string                  `json:"commit,omitempty"`
	Manifests   string                  `json:"manifests,omitempty"`
	From        []string                `json:"from,omitempty"`
	Actor       *ledger.Person          `json:"actor,omitempty"`
	Authors     []ledger.Person         `json:"authors,omitempty"`
	Checks      []ledger.Check          `json:"checks,omitempty"`
	Approval    *ledger.Approval        `json:"approval,omitempty"`
	Wanted      []Wanted                `json:"wanted,omitempty"`
	Policy      desired.PolicyName      `json:"policy,omitempty"`
	Drift       *ledger.Drift           `json:"drift,omitempty"`
	Late        bool                    `json:"late,omitempty"`
	Hold        *Hold                   `json:"hold,omitempty"`
	Record      Reference               `json:"record"`
}

// Reference is the commit that the news come from.
type Reference struct {
	Branch string `json:"branch"`
	Commit string `json:"commit"`
}

// Wanted is an approval that is waited for.
type Wanted struct {
	Policy desired.PolicyName `json:"policy"`
	Groups []string           `json:"groups"`
	Count  int                `json:"count"`
}

// Hold is a freeze, as its file says it.
type Hold struct {
	Name         desired.HoldName          `json:"name"`
	Environments []desired.EnvironmentName `json:"environments,omitempty"`
	Services     []desired.ServiceName     `json:"services,omitempty"`
	Reason       string                    `json:"reason,omitempty"`
	Owner        string                    `json:"owner,omitempty"`
	Until        time.Time                 `json:"until,omitzero"`
}

// Lane is what the order of notifications on a branch holds for: the deployment
// of a service, or the candidate, and on the main branch, for holds, all.
func (n Notification) Lane() string {
	if n.Service == "" {
		return ""
	}
	return string(n.Service) + laneMark + cmp.Or(n.Deployment, n.Version, n.Source)
}

// laneMark ends the service in a lane. No service has it in its name.
const laneMark = "/"

// Within tells whether a lane is another one, or a part of it: of a whole
// service, as positions of earlier versions have them.
func Within(lane, of string) bool {
	return lane == of || of != "" && !strings.Contains(of, laneMark) && strings.HasPrefix(lane, of+laneMark)
}

// OfEntry returns the news that an entry of a ledger is, in their order. Where
// the entry does not name its deployment's cause, it may be added to it. rules are
// the newest commit's, for who has to approve; nil: it is not known.
func OfEntry(e ledger.Entry, at Reference, rules *desired.Repository) []Notification {
	n := Notification{
		Time: e.Time, Reason: e.Reason, Environment: e.Environment, Service: e.Service,
		Deployment: e.Deployment, Candidate: e.Candidate, Version: e.Release.Version(), Before: e.Before, After: e.After,
		Cause: e.Cause, Pins: e.Release.Pins, Source: e.Release.Source, Commit: e.Commit, Manifests: e.Manifests,
		From: e.From, Authors: e.Authors, Checks: e.Checks, Approval: e.Approval, Policy: e.Policy, Drift: e.Drift,
		Late: e.Late, Record: at,
	}
	if e.Actor != (ledger.Person{}) {
		n.Actor = &e.Actor
	}
	var all []Notification
	tell := func(event desired.News, summary string) {
		x := n
		x.Event, x.ID, x.Summary = event, at.Commit+"-"+string(event), summary
		all = append(all, x)
	}
	subject := e.Subject()
	switch e.Event {
	case ledger.EventPinned:
		_, what, _ := strings.Cut(subject, ": ")
		switch e.Cause {
		case ledger.CausePromotion:
			tell(desired.NewsPromoted, fmt.Sprintf("promoted(%s): %s", e.Environment, what))
		case ledger.CauseRollback, ledger.CauseRevert:
			tell(desired.NewsRolledBack, fmt.Sprintf("rolled back(%s): %s", e.Environment, what))
		}
		tell(desired.NewsPinned, subject)
	case ledger.EventStarted:
		tell(desired.NewsStarted, subject)
	case ledger.EventCompleted:
		tell(desired.NewsCompleted, subject)
		n.Wanted = wanted(rules, e, false)
	case ledger.EventVerified:
		tell(desired.NewsVerified, subject)
	case ledger.EventFailed:
		tell(desired.NewsFailed, subject)
	case ledger.EventSuperseded:
		tell(desired.NewsSuperseded, subject)
	case ledger.EventCheck:
		tell(desired.NewsCheck, subject)
	case ledger.EventApproved:
		tell(desired.NewsApproved, subject)
	case ledger.EventOffered:
		tell(desired.NewsOffered, subject)
		n.Wanted = wanted(rules, e, true)
	case ledger.EventDrifted:
		tell(desired.NewsDrifted, subject)
	case ledger.EventRetired:
		tell(desired.NewsRetired, subject)
	case ledger.EventRerun:
		tell(desired.NewsRerun, subject)
	}
	if len(n.Wanted) > 0 {
		var policies []string
		for _, w := range n.Wanted {
			policies = append(policies, fmt.Sprintf("%s by %s", w.Policy, strings.Join(w.Groups, " or ")))
		}
		tell(desired.NewsWanted, fmt.Sprintf("approval wanted(%s): %s %s, %s", e.Environment, e.Service, cmp.Or(n.Version, n.Source), strings.Join(policies, ", ")))
	}
	return all
}

// wanted are the approvals that the stage of an entry asks for, of a candidate
// to enter it, else of a deployment to be verified.
func wanted(rules *desired.Repository, e ledger.Entry, candidate bool) []Wanted {
	if rules == nil {
		return nil
	}
	p := rules.StagesOf(e.Service)
	if p == nil {
		return nil
	}
	s := p.Stage(e.Environment)
	if s == nil {
		return nil
	}
	names := s.Verify
	if candidate {
		names = s.Admit
	}
	var all []Wanted
	for _, name := range names {
		if p := rules.Policies[name]; p != nil && p.Approval != nil {
			all = append(all, Wanted{name, p.Approval.Groups, p.Approval.Count})
		}
	}
	return all
}

// Change is a commit on the main branch by which the holds have become others.
type Change struct {
	Before, After map[desired.HoldName]*desired.Hold
	At            Reference
	When          time.Time
	// Ended is up to when the ends of holds were told before.
	Ended time.Time
	By    ledger.Person
}

// OfHolds returns the news that a change of the holds is, sorted by the holds'
// names. One that had come to its end is as one that is not there, for its end is
// told by [OfEnds].
func OfHolds(c Change) []Notification {
	before, after := c.Before, c.After
	as := c.When
	if c.Ended.After(as) {
		as = c.Ended
	}
	in := func(all map[desired.HoldName]*desired.Hold, name desired.HoldName) *desired.Hold {
		if h := all[name]; h != nil && !h.Expired(as) {
			return h
		}
		return nil
	}
	names := map[desired.HoldName]bool{}
	for name := range before {
		names[name] = true
	}
	for name := range after {
		names[name] = true
	}
	var all []Notification
	for name := range names {
		was, is := in(before, name), in(after, name)
		n := Notification{Time: c.When.UTC(), Record: c.At}
		switch {
		case is != nil && (was == nil || !same(was, is)):
			n.Event, n.Hold = desired.NewsHeld, hold(is)
		case is == nil && was != nil:
			n.Event, n.Hold = desired.NewsReleased, hold(was)
		default:
			continue
		}
		if c.By != (ledger.Person{}) {
			n.Actor = &c.By
		}
		n.ID = c.At.Commit + "-" + string(n.Event) + "-" + string(name)
		n.Reason = strings.TrimSpace(n.Hold.Reason)
		n.Summary = fmt.Sprintf("%s(%s): %s", n.Event, n.Hold.scope(), cmp.Or(firstLine(n.Reason), string(name)))
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b Notification) int { return cmp.Compare(a.Hold.Name, b.Hold.Name) })
	return all
}

// OfEnds returns the news of the holds that come to their end after one time, and
// not after another, those that end first first. A hold has the same id for its
// end, whatever else main has.
func OfEnds(holds map[desired.HoldName]*desired.Hold, after, until time.Time, at Reference) []Notification {
	var all []Notification
	for name, h := range holds {
		if h.Until.IsZero() || !h.Until.After(after) || h.Until.After(until) {
			continue
		}
		n := Notification{Event: desired.NewsReleased, Time: h.Until.UTC(), Record: at, Hold: hold(h)}
		n.ID = fmt.Sprintf("%s-%s-%s", n.Time.Format("20060102T150405Z"), n.Event, name)
		n.Reason = n.Hold.Reason
		n.Summary = fmt.Sprintf("%s(%s): %s, its end has come", n.Event, n.Hold.scope(), cmp.Or(firstLine(n.Reason), string(name)))
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b Notification) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Hold.Name, b.Hold.Name))
	})
	return all
}

func same(a, b *desired.Hold) bool {
	return slices.Equal(a.Environments, b.Environments) && slices.Equal(a.Services, b.Services) &&
		a.Reason == b.Reason && a.Owner == b.Owner && a.Until.Equal(b.Until)
}

func hold(h *desired.Hold) *Hold {
	x := &Hold{h.Name, h.Environments, h.Services, strings.TrimSpace(h.Reason), h.Owner, h.Until}
	if !h.Until.IsZero() {
		x.Until = h.Until.UTC()
	}
	return x
}

// scope says in words what a hold covers.
func (h *Hold) scope() string {
	list := func(all string, names []string) string {
		if len(names) == 0 {
			return all
		}
		return strings.Join(names, ", ")
	}
	return list("all environments", words(h.Environments)) + "; " + list("all services", words(h.Services))
}

func words[T ~string](names []T) []string {
	all := make([]string, len(names))
	for i, n := range names {
		all[i] = string(n)
	}
	return all
}

func firstLine(s string) string {
	first, _, _ := strings.Cut(s, "\n")
	return first
}
