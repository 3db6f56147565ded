// Package trace tells the way of a deployment as spans of one trace: from the
// push that was seen, over what was prepared, applied and rolled out, and each
// check, to verified or failed.
//
// It decides which spans there are, and touches nothing: it is given the events
// that the daemon reports, and what it returns is sent by who wants to. A span
// is told when it is over. The ids follow from the repository, the environment
// and the deployment, so what a daemon tells after a restart, or another
// replica, belongs to the same trace. The times of what this process has not
// seen are the ledger's, to the second.
//
// A crash loses the finer spans of what was under way (prepare, apply), and no
// other.
package trace

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

// Span is one part of a deployment's way.
type Span struct {
	Trace      [16]byte
	ID, Parent [8]byte // Parent is zero for the deployment as a whole
	Name       string
	Start, End time.Time
	Attributes []Attribute
	Failure    string // why it failed; "": it did not
}

// Attribute is a name, as docs/metrics.md lists them, and its value.
type Attribute struct{ Name, Value string }

// mostCommits is how many commits are remembered with when they were read.
const mostCommits = 1000

// Follower remembers of what is under way when it began. It is not safe for use
// by several goroutines.
type Follower struct {
	repository string
	read       map[string]time.Time // when commits were read
	order      []string             // those commits, oldest first
	under      map[reconcile.Key]progress
}

// progress is how far the application of a commit has come.
type progress struct {
	commit            string
	applying, applied time.Time
}

// NewFollower returns a Follower of the events of one repository, whose name
// has no credentials.
func NewFollower(repository string) *Follower {
	return &Follower{repository: repository, read: map[string]time.Time{}, under: map[reconcile.Key]progress{}}
}

// Take takes in an event, and returns the spans that are over with it.
func (f *Follower) Take(ev reconcile.Event) []Span {
	k := reconcile.Key{Environment: ev.Environment, Service: ev.Service}
	switch {
	case ev.Type == reconcile.EventCommit && ev.Service == "":
		f.readCommit(ev.Commit, ev.Time)
	case ev.Type == reconcile.EventPhase && ev.Phase == reconcile.Applying:
		p := f.under[k]
		if p.applying.IsZero() || p.commit != ev.Commit {
			f.under[k] = progress{commit: ev.Commit, applying: ev.Time}
		}
	case ev.Type == reconcile.EventApplied:
		p := f.under[k]
		p.commit, p.applied = ev.Commit, ev.Time
		f.under[k] = p
	case ev.Type == reconcile.EventRecorded && ev.Entry != nil && ev.Record != nil:
		return f.recorded(k, *ev.Entry, *ev.Record, ev.Time)
	}
	return nil
}

func (f *Follower) readCommit(id string, at time.Time) {
	if _, known := f.read[id]; known {
		return
	}
	f.read[id] = at
	if f.order = append(f.order, id); len(f.order) > mostCommits {
		delete(f.read, f.order[0])
		f.order = f.order[1:]
	}
}

// recorded tells what an entry ends.
func (f *Follower) recorded(k reconcile.Key, e ledger.Entry, r ledger.Record, now time.Time) []Span {
	d := r.Deployment
	if e.Deployment == "" || e.Deployment != d.ID || e.Late {
		return nil // of a candidate, or of what is over
	}
	t := f.deployment(k, d)
	var spans []Span
	switch e.Event {
	case ledger.EventCompleted:
		spans = f.rollout(k, t, d)
	case ledger.EventVerified, ledger.EventFailed, ledger.EventSuperseded:
		if d.Completed.IsZero() && !d.Started.IsZero() {
			spans = f.rollout(k, t, d)
		}
		delete(f.under, k)
		spans = append(spans, t.checks(d, e)...)
		whole := t.whole
		whole.End = later(whole.Start, d.Ended)
		whole.Attributes = append(whole.Attributes, Attribute{"pinion.state", string(d.State)})
		if e.Event == ledger.EventFailed {
			whole.Failure = cmp.Or(d.Reason, "failed")
			if d.Completed.IsZero() && !d.Started.IsZero() {
				spans[len(spans)-1].Failure = whole.Failure
			}
		}
		spans = append(spans, whole)
	case ledger.EventPinned, ledger.EventStarted, ledger.EventCheck, ledger.EventApproved, ledger.EventOffered, ledger.EventDrifted, ledger.EventRetired, ledger.EventRerun:
	}
	return spans
}

// rollout tells what came before a deployment's verification.
func (f *Follower) rollout(k reconcile.Key, t tracing, d ledger.Deployment) []Span {
	var spans []Span
	begun, end := d.Started, cmp.Or(d.Completed, d.Ended)
	if p := f.under[k]; p.commit == d.Commit && !p.applying.IsZero() {
		spans = append(spans, t.span("prepare", t.whole.Start, p.applying))
		begun = p.applying
		if !p.applied.IsZero() {
			spans = append(spans, t.span("apply", p.applying, p.applied))
			begun = p.applied
		}
	}
	return append(spans, t.span("rollout", begun, end))
}

// checks tells the checks of a deployment that has ended: those that had an
// entry of their own, and those that its last entry is founded on.
func (t tracing) checks(d ledger.Deployment, e ledger.Entry) []Span {
	all := slices.Clone(d.Checks)
	for _, c := range e.Checks {
		if !slices.ContainsFunc(all, func(x ledger.Check) bool { return x.Policy == c.Policy }) {
			c.Time = e.Time
			all = append(all, c)
		}
	}
	var spans []Span
	for _, c := range all {
		s := t.span("check "+string(c.Policy), cmp.Or(d.Completed, d.Started, d.Pinned), c.Time)
		s.Attributes = append(s.Attributes, Attribute{"pinion.policy", string(c.Policy)}, Attribute{"pinion.check.by", c.By})
		if c.Result != ledger.Success {
			s.Failure = cmp.Or(c.Description, string(c.Result))
		}
		spans = append(spans, s)
	}
	return spans
}

// tracing makes the spans of one deployment.
type tracing struct {
	about string
	whole Span // without its end
}

func (f *Follower) deployment(k reconcile.Key, d ledger.Deployment) tracing {
	t := tracing{about: strings.Join([]string{f.repository, string(k.Environment), d.ID}, "\x00")}
	start := d.Pinned
	if read, ok := f.read[d.Commit]; ok && (start.IsZero() || read.Before(start)) {
		start = read
	}
	t.whole = Span{
		Trace: [16]byte(t.hash("")[:16]), ID: [8]byte(t.hash("")[16:24]),
		Name: "deploy " + string(k.Service) + " to " + string(k.Environment), Start: start,
		Attributes: []Attribute{
			{"pinion.repository", f.repository},
			{"pinion.environment", string(k.Environment)},
			{"pinion.service", string(k.Service)},
			{"pinion.deployment", d.ID},
			{"pinion.version", d.Release.Version()},
			{"pinion.commit", d.Commit},
			{"pinion.cause", string(d.Cause)},
		},
	}
	if d.From != "" {
		t.whole.Attributes = append(t.whole.Attributes, Attribute{"pinion.from", d.From})
	}
	return t
}

// span makes a part of the whole. A clock that was set back makes none of
// negative length.
func (t tracing) span(name string, start, end time.Time) Span {
	return Span{
		Trace: t.whole.Trace, Parent: t.whole.ID, ID: [8]byte(t.hash(fmt.Sprintf("%s\x00%d", name, end.UnixNano()))[:8]),
		Name: name, Start: start, End: later(start, end),
		Attributes: t.whole.Attributes[1:4:4],
	}
}

func (t tracing) hash(part string) []byte {
	sum := sha256.Sum256([]byte(t.about + "\x00" + part))
	return sum[:]
}

func later(a, b time.Time) time.Time {
	if b.Before(a) {
		return a
	}
	return b
}
