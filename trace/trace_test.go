package trace

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

var t0 = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

func at(s float64) time.Time { return t0.Add(time.Duration(s * float64(time.Second))) }

// told writes spans as lines: name, start and end in seconds, failure.
func told(spans []Span) string {
	var b strings.Builder
	for _, s := range spans {
		fmt.Fprintf(&b, "%s %g-%g", s.Name, s.Start.Sub(t0).Seconds(), s.End.Sub(t0).Seconds())
		if s.Failure != "" {
			fmt.Fprintf(&b, " failed: %s", s.Failure)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func web(state ledger.State) ledger.Deployment {
	d := ledger.Deployment{
		ID: "web-4f1c2aa90b7e", Commit: "4f1c2aa90b7e", State: state, Cause: ledger.CausePin,
		Release: ledger.Release{Pins: []ledger.Pin{{Artifact: "web", Image: "registry.example/web:1.4.2"}}},
		Pinned:  at(2),
	}
	switch state {
	case ledger.StateVerified:
		d.Started, d.Completed, d.Ended = at(3), at(9), at(20)
		d.Checks = []ledger.Check{{Policy: "e2e", Result: ledger.Success, By: "ci", Time: at(15)}}
	case ledger.StateCompleted:
		d.Started, d.Completed = at(3), at(9)
	case ledger.StateFailed:
		d.Started, d.Ended, d.Reason = at(3), at(12), "pod web-1: CrashLoopBackOff"
	}
	return d
}

func event(d ledger.Deployment, e ledger.Event, when float64, checks ...ledger.Check) reconcile.Event {
	entry := ledger.Entry{Event: e, Environment: "staging", Service: "web", Deployment: d.ID, Commit: d.Commit, Release: d.Release, Time: at(when), Checks: checks}
	return reconcile.Event{Type: reconcile.EventRecorded, Environment: "staging", Service: "web", Time: at(when), Entry: &entry,
		Record: &ledger.Record{Environment: "staging", Service: "web", Deployment: d}}
}

func phase(p reconcile.Phase, commit string, when float64) reconcile.Event {
	return reconcile.Event{Type: reconcile.EventPhase, Environment: "staging", Service: "web", Phase: p, Commit: commit, Time: at(when)}
}

// One trace goes from the push that was seen to verified.
func TestWayOfADeployment(t *testing.T) {
	f := NewFollower("git.example:shop/deploy.git")
	var all []Span
	for _, ev := range []reconcile.Event{
		{Type: reconcile.EventCommit, Commit: "4f1c2aa90b7e", Time: at(1.5)},
		{Type: reconcile.EventCommit, Commit: "4f1c2aa90b7e", Time: at(1.7)}, // after a restart of the engine
		phase(reconcile.Applying, "4f1c2aa90b7e", 1.75),
		{Type: reconcile.EventApplied, Environment: "staging", Service: "web", Commit: "4f1c2aa90b7e", Time: at(2.25)},
		phase(reconcile.Applying, "4f1c2aa90b7e", 2.3), // again, for an object that came late
		event(web(ledger.StatePinned), ledger.EventPinned, 2),
		event(web(ledger.StateStarted), ledger.EventStarted, 3),
		event(web(ledger.StateCompleted), ledger.EventCompleted, 9),
		event(web(ledger.StateCompleted), ledger.EventCheck, 15, ledger.Check{Policy: "e2e", Result: ledger.Success, By: "ci"}),
		event(web(ledger.StateVerified), ledger.EventVerified, 20,
			ledger.Check{Policy: "e2e", Result: ledger.Success, By: "ci"}, ledger.Check{Policy: "soak", Result: ledger.Success, By: "pinion"}),
	} {
		all = append(all, f.Take(ev)...)
	}
	want := `prepare 1.5-1.75
apply 1.75-2.25
rollout 2.25-9
check e2e 9-15
check soak 9-20
deploy web to staging 1.5-20
`
	if d := cmp.Diff(want, told(all)); d != "" {
		t.Error(d)
	}
	whole := all[len(all)-1]
	if whole.Parent != [8]byte{} || whole.ID == [8]byte{} {
		t.Errorf("the whole has parent %x and id %x", whole.Parent, whole.ID)
	}
	ids := map[[8]byte]bool{whole.ID: true}
	for _, s := range all[:len(all)-1] {
		if s.Trace != whole.Trace || s.Parent != whole.ID {
			t.Errorf("%s is not of the trace", s.Name)
		}
		if ids[s.ID] {
			t.Errorf("%s has the id of another span", s.Name)
		}
		ids[s.ID] = true
	}
	if len(f.under) != 0 {
		t.Errorf("it still remembers %v", f.under)
	}
}

// What another process tells of the same deployment is the same trace.
func TestTraceGoesOnAfterARestart(t *testing.T) {
	first := NewFollower("r").Take(event(web(ledger.StateCompleted), ledger.EventCompleted, 9))
	second := NewFollower("r").Take(event(web(ledger.StateVerified), ledger.EventVerified, 20))
	if got := told(append(first, second...)); got != "rollout 3-9\ncheck e2e 9-15\ndeploy web to staging 2-20\n" {
		t.Error(got)
	}
	if first[0].Parent != second[1].ID || first[0].Trace != second[0].Trace {
		t.Error("two traces")
	}
	other := NewFollower("r2").Take(event(web(ledger.StateVerified), ledger.EventVerified, 20))
	if other[1].Trace == second[1].Trace {
		t.Error("two repositories have one trace")
	}
}

func TestWhatFails(t *testing.T) {
	checked := web(ledger.StateFailed)
	checked.Completed, checked.Reason = at(9), "e2e failed"
	checked.Checks = []ledger.Check{{Policy: "e2e", Result: ledger.Failure, By: "ci", Description: "2 of 41", Time: at(11)}}
	got := NewFollower("r").Take(event(checked, ledger.EventFailed, 12))
	got = append(got, NewFollower("r").Take(event(web(ledger.StateFailed), ledger.EventFailed, 12))...)
	want := `check e2e 9-11 failed: 2 of 41
deploy web to staging 2-12 failed: e2e failed
rollout 3-12 failed: pod web-1: CrashLoopBackOff
deploy web to staging 2-12 failed: pod web-1: CrashLoopBackOff
`
	if d := cmp.Diff(want, told(got)); d != "" {
		t.Error(d)
	}
}

// What is told of a candidate, or too late, ends nothing.
func TestWhatEndsNothing(t *testing.T) {
	late := event(web(ledger.StateVerified), ledger.EventCheck, 30, ledger.Check{Policy: "e2e", Result: ledger.Failure})
	late.Entry.Late = true
	before := event(web(ledger.StateVerified), ledger.EventSuperseded, 30)
	before.Entry.Deployment = "web-000000000000"
	candidate := event(web(ledger.StateVerified), ledger.EventOffered, 30)
	candidate.Entry.Deployment = ""
	for _, ev := range []reconcile.Event{late, before, candidate, {Type: reconcile.EventRecorded}} {
		if spans := NewFollower("r").Take(ev); len(spans) != 0 {
			t.Error(told(spans))
		}
	}
}

// A clock that was set back makes no span of negative length.
func TestClockSetBack(t *testing.T) {
	d := web(ledger.StateVerified)
	d.Completed, d.Ended = at(1), at(0)
	for _, s := range NewFollower("r").Take(event(d, ledger.EventVerified, 0)) {
		if s.End.Before(s.Start) {
			t.Error(told([]Span{s}))
		}
	}
}

// However many commits come by, few are remembered.
func TestMemoryIsBounded(t *testing.T) {
	f := NewFollower("r")
	for i := range 3 * mostCommits {
		f.Take(reconcile.Event{Type: reconcile.EventCommit, Commit: fmt.Sprint(i), Time: at(float64(i))})
	}
	if len(f.read) != mostCommits || len(f.order) != mostCommits {
		t.Errorf("it remembers %d commits", len(f.read))
	}
}
