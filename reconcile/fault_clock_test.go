package reconcile_test

import (
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

// timedStages is a service whose way depends on the time.
var timedStages = strings.NewReplacer(
	"- environment: dev\n", "- environment: dev\n  verify: [soak]\n",
	"admit: [release]", "admit: [office-hours]",
	"report: {by: [ci]}\n", "report: {by: [ci]}\ntimeout: 1h\n",
).Replace(threeStages) + `
-- policies/soak.yaml --
apiVersion: pinion.dev/v1
kind: Policy
soak: 30m
-- policies/office-hours.yaml --
apiVersion: pinion.dev/v1
kind: Policy
window: {allow: "Mon-Fri 09:00-16:00", timezone: UTC}
`

// monday is a Monday, at eight o'clock.
var monday = time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)

// timed starts a house with its own clock, and brings 1.0.0 to the end.
func timed(t *testing.T) *house {
	t.Helper()
	h := newRepository(t, timedStages)
	h.now = monday.Add(-time.Hour)
	h.startOn(gitstate.Options{})
	h.runs("dev", "1.0.0", ledger.StateCompleted)
	h.runs("staging", "1.0.0", ledger.StateCompleted)
	h.runs("production", "1.0.0", ledger.StateVerified)
	h.must(h.report("ci", "staging", "e2e", "1.0.0", ledger.Success))
	h.at(monday.Add(-30 * time.Minute))
	h.runs("dev", "1.0.0", ledger.StateVerified)
	h.runs("staging", "1.0.0", ledger.StateVerified)
	h.at(monday)
	h.settled()
	return h
}

// still checks that time has not changed what an environment has.
func (h *house) still(environment, version string, state ledger.State) {
	h.Helper()
	h.settled()
	r, err := h.record(environment, "web")
	h.must(err)
	if r.Deployment.Release.Version() != version || r.Deployment.State != state {
		h.Errorf("at %s %s has %s, %s: %s", h.clock().Format(time.RFC3339), environment, r.Deployment.Release.Version(), r.Deployment.State, r.Deployment.Reason)
	}
}

func (h *house) times(branch, prefix string) int {
	n := 0
	for _, s := range h.subjects(branch) {
		if strings.HasPrefix(s, prefix) {
			n++
		}
	}
	return n
}

func TestClockJumpsWhileItSoaks(t *testing.T) {
	t.Parallel()
	h := timed(t)
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("dev", "1.1.0", ledger.StateCompleted)
	for _, jump := range []time.Duration{10 * time.Minute, -2 * time.Hour, -90 * 24 * time.Hour, 29*time.Minute + 59*time.Second} {
		h.at(monday.Add(jump))
		h.still("dev", "1.1.0", ledger.StateCompleted)
	}
	h.at(monday.Add(30 * time.Minute))
	r := h.runs("dev", "1.1.0", ledger.StateVerified)
	if !r.Deployment.Ended.Equal(monday.Add(30 * time.Minute)) {
		t.Errorf("it was verified at %s", r.Deployment.Ended)
	}
	// What is verified stays so.
	h.runs("staging", "1.1.0", ledger.StateCompleted)
	h.at(monday.Add(-time.Hour))
	h.still("dev", "1.1.0", ledger.StateVerified)
	h.at(monday.Add(40 * time.Minute))
	h.still("dev", "1.1.0", ledger.StateVerified)
	if n := h.times("ledger/dev", "verified(dev): web 1.0.0 → 1.1.0"); n != 1 {
		t.Errorf("it was verified %d times", n)
	}
	// A soak that began before the clock was set back ends by the clock.
	h.at(monday.Add(-24 * time.Hour))
	h.pin("dev", "1.1.0", "1.2.0")
	h.runs("dev", "1.2.0", ledger.StateCompleted)
	h.at(monday.Add(-24*time.Hour + 30*time.Minute))
	h.runs("dev", "1.2.0", ledger.StateVerified)
	h.settled()
	h.lawful()
}

func TestClockJumpsOverADeadline(t *testing.T) {
	t.Parallel()
	h := timed(t)
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("dev", "1.1.0", ledger.StateCompleted)
	begun := monday.Add(30 * time.Minute)
	h.at(begun)
	h.runs("staging", "1.1.0", ledger.StateCompleted)
	for _, jump := range []time.Duration{-5 * time.Hour, 0, 59 * time.Minute} {
		h.at(begun.Add(jump))
		h.still("staging", "1.1.0", ledger.StateCompleted)
	}
	h.at(begun.Add(48 * time.Hour))
	h.runs("staging", "1.0.0", ledger.StateVerified)
	r, err := h.record("staging", "web")
	h.must(err)
	if p := r.Previous[0]; p.State != ledger.StateFailed || p.Release.Version() != "1.1.0" {
		t.Errorf("before it was %s, %s", p.Release.Version(), p.State)
	}
	// The clock goes back to before the deadline: what has failed has failed.
	h.at(begun.Add(10 * time.Minute))
	if err := h.report("ci", "staging", "e2e", "1.1.0", ledger.Success); err == nil {
		t.Error("a report revived what had failed")
	}
	h.still("staging", "1.0.0", ledger.StateVerified)
	h.at(begun.Add(72 * time.Hour))
	h.still("staging", "1.0.0", ledger.StateVerified)
	if n := h.times("ledger/staging", "failed(staging)"); n != 1 {
		t.Errorf("it failed %d times", n)
	}
	if n := h.times("main", "rollback(staging)"); n != 1 {
		t.Errorf("it was rolled back %d times", n)
	}
	h.lawful()
}

func TestClockJumpsOverAWindow(t *testing.T) {
	t.Parallel()
	h := timed(t)
	bring := func(from, to string, at time.Time) {
		t.Helper()
		h.at(at.Add(-30 * time.Minute))
		h.pin("dev", from, to)
		h.runs("dev", to, ledger.StateCompleted)
		h.at(at)
		h.runs("staging", to, ledger.StateCompleted)
		h.must(h.report("ci", "staging", "e2e", to, ledger.Success))
		h.runs("staging", to, ledger.StateVerified)
	}
	sunday := monday.Add(6 * 24 * time.Hour)
	bring("1.0.0", "1.1.0", sunday)
	h.ends("ledger/production", "offered(production): web 1.0.0 → 1.1.0")
	h.still("production", "1.0.0", ledger.StateVerified)
	// Back into a window that was open before it was offered.
	h.at(monday.Add(2 * time.Hour))
	h.still("production", "1.0.0", ledger.StateVerified)
	// Over the next one.
	h.at(sunday.Add(24*time.Hour + 9*time.Hour))
	h.still("production", "1.0.0", ledger.StateVerified)
	// And into it.
	h.at(sunday.Add(24*time.Hour + time.Hour))
	h.runs("production", "1.1.0", ledger.StateVerified)
	h.at(sunday)
	h.still("production", "1.1.0", ledger.StateVerified)
	bring("1.1.0", "1.2.0", sunday.Add(time.Hour))
	h.still("production", "1.1.0", ledger.StateVerified)
	h.at(sunday.Add(48*time.Hour + time.Hour))
	h.runs("production", "1.2.0", ledger.StateVerified)
	if n := h.times("main", "promote(production)"); n != 2 {
		t.Errorf("%d promotions", n)
	}
	h.lawful()
}

// Nothing tells the clerk that the clock has jumped.
func TestClockJumpsUnseen(t *testing.T) {
	t.Parallel()
	h := timed(t)
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("dev", "1.1.0", ledger.StateCompleted)
	h.settled()
	start := time.Now()
	h.mu.Lock()
	h.now = monday.Add(time.Hour)
	h.mu.Unlock()
	h.runs("staging", "1.1.0", ledger.StateCompleted)
	if took := time.Since(start); took > 45*time.Second {
		t.Errorf("it was noticed after %s", took)
	}
}

// The clock goes back while the clerk waits to try main once more.
func TestClockJumpsWhileMainIsProtected(t *testing.T) {
	t.Parallel()
	h := timed(t)
	h.hook("update", guard("refs/heads/main"))
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("dev", "1.1.0", ledger.StateCompleted)
	h.at(monday.Add(30 * time.Minute))
	h.says(reconcile.EventProblem, "push to main")
	h.hook("update", "#!/bin/sh\n")
	h.settled()
	if n := h.times("main", "promote"); n != 0 {
		t.Errorf("it was tried again at once")
	}
	h.at(monday.Add(-24 * time.Hour))
	h.runs("staging", "1.1.0", ledger.StateCompleted)
	h.lawful()
}
