package envoy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/forge"
	"github.com/pinion-cd/pinion/forge/rest"
	"github.com/pinion-cd/pinion/ledger"
)

// board keeps statuses as a forge does. It belongs to one bubble.
type board struct {
	statuses map[string]map[string]forge.Status
	writes   []string
	reads    int
	fail     func(write bool) error
}

func (b *board) SetStatus(_ context.Context, commit string, s forge.Status) error {
	if b.fail != nil {
		if err := b.fail(true); errors.Is(err, rest.ErrUnknown) {
			b.put(commit, s) // it has arrived all the same
			return err
		} else if err != nil {
			return err
		}
	}
	b.put(commit, s)
	return nil
}

func (b *board) put(commit string, s forge.Status) {
	if b.statuses == nil {
		b.statuses = map[string]map[string]forge.Status{}
	}
	if b.statuses[commit] == nil {
		b.statuses[commit] = map[string]forge.Status{}
	}
	b.statuses[commit][s.Context] = s
	b.writes = append(b.writes, fmt.Sprintf("%s %s %s: %s", commit, s.Context, s.State, s.Description))
}

func (b *board) Statuses(_ context.Context, commit string) (map[string]forge.Status, error) {
	b.reads++
	if b.fail != nil {
		if err := b.fail(false); err != nil {
			return nil, err
		}
	}
	return maps.Clone(b.statuses[commit]), nil
}

// stands is a record whose deployment of a commit has come so far.
func stands(env, service, commit string, state ledger.State) ledger.Record {
	return ledger.Record{Environment: desired.EnvironmentName(env), Service: desired.ServiceName(service), Deployment: ledger.Deployment{
		ID: service + "-" + commit, Commit: commit, State: state, Release: ledger.Release{Pins: []ledger.Pin{{Artifact: "a", Image: "r.example/a:1"}}}}}
}

// telling runs a teller in a bubble, until f returns.
func telling(t *testing.T, b *board, o TellerOptions, f func(tell *Teller, rest func(time.Duration))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o.Forge, o.Log = b, slog.New(slog.DiscardHandler)
		tell := NewTeller(o)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); tell.Run(ctx) }()
		f(tell, func(d time.Duration) { <-time.After(d); synctest.Wait() })
		cancel()
		<-done
	})
}

func TestTellerTellsOnce(t *testing.T) {
	b := &board{}
	telling(t, b, TellerOptions{Link: "https://pinion.example/{environment}/{commit}"}, func(tell *Teller, rest func(time.Duration)) {
		for _, s := range []ledger.State{ledger.StatePinned, ledger.StateStarted, ledger.StateCompleted, ledger.StateVerified} {
			tell.Know(stands("staging", "web", "c1", s), time.Now())
			tell.Know(stands("staging", "web", "c1", s), time.Now())
			rest(time.Minute)
		}
		want := []string{
			"c1 pinion/staging pending: web 1 is about to be applied",
			"c1 pinion/staging pending: web 1 is being rolled out",
			"c1 pinion/staging pending: web 1 is rolled out, and its verification is under way",
			"c1 pinion/staging success: web 1 is verified",
		}
		if !slices.Equal(b.writes, want) {
			t.Errorf("it wrote\n%s\nwant\n%s", strings.Join(b.writes, "\n"), strings.Join(want, "\n"))
		}
		if got := b.statuses["c1"]["pinion/staging"].URL; got != "https://pinion.example/staging/c1" {
			t.Errorf("it leads to %s", got)
		}
	})
	// One that is started anew finds it said.
	b.writes = nil
	telling(t, b, TellerOptions{Link: "https://pinion.example/{environment}/{commit}"}, func(tell *Teller, rest func(time.Duration)) {
		tell.Know(stands("staging", "web", "c1", ledger.StateVerified), time.Now())
		rest(time.Minute)
		if len(b.writes) != 0 {
			t.Errorf("it wrote again: %q", b.writes)
		}
	})
}

func TestTellerOfMany(t *testing.T) {
	b := &board{}
	telling(t, b, TellerOptions{Ours: func(env desired.EnvironmentName) bool { return env != "theirs" }}, func(tell *Teller, rest func(time.Duration)) {
		const n = 200
		for i := range n {
			name := fmt.Sprint("s", i)
			tell.Know(stands("staging", name, "c1", ledger.StateStarted), time.Now())
			tell.Know(stands("theirs", name, "c1", ledger.StateStarted), time.Now())
			rest(100 * time.Millisecond)
		}
		for i := range n {
			tell.Know(stands("staging", fmt.Sprint("s", i), "c1", ledger.StateVerified), time.Now())
			rest(100 * time.Millisecond)
		}
		rest(time.Minute)
		if len(b.writes) > 5 {
			t.Errorf("%d writes for one commit in forty seconds:\n%s", len(b.writes), strings.Join(b.writes, "\n"))
		}
		if got := b.statuses["c1"]["pinion/staging"]; got.State != forge.Success || !strings.HasPrefix(got.Description, "200 of 200") {
			t.Errorf("at the end it says %+v", got)
		}
		if _, ok := b.statuses["c1"]["pinion/theirs"]; ok {
			t.Error("it speaks of an environment that another replica has")
		}
	})
}

func TestTellerOutlastsItsForge(t *testing.T) {
	b := &board{}
	down := errors.New("connection refused")
	telling(t, b, TellerOptions{}, func(tell *Teller, pause func(time.Duration)) {
		b.fail = func(bool) error { return down }
		tell.Know(stands("staging", "web", "c1", ledger.StateStarted), time.Now())
		pause(20 * time.Minute)
		if b.reads > 20 {
			t.Errorf("it asked %d times in 20 minutes", b.reads)
		}
		tell.Know(stands("staging", "web", "c1", ledger.StateVerified), time.Now())
		b.fail = func(write bool) error {
			if write {
				b.fail = nil
				return rest.ErrUnknown // it was written, and the answer is lost
			}
			return nil
		}
		pause(10 * time.Minute)
		if got := b.statuses["c1"]["pinion/staging"].State; got != forge.Success {
			t.Errorf("the commit has %q after the forge is back", got)
		}
	})
	// A commit that the forge does not have is given up, and holds nothing up.
	b = &board{}
	telling(t, b, TellerOptions{}, func(tell *Teller, pause func(time.Duration)) {
		b.fail = func(write bool) error {
			if !write && len(b.statuses) == 0 {
				return rest.ErrNotFound
			}
			return nil
		}
		tell.Know(stands("staging", "web", "gone", ledger.StateStarted), time.Now())
		pause(3 * time.Hour)
		b.fail = nil
		reads := b.reads
		pause(3 * time.Hour)
		if b.reads != reads {
			t.Error("it is asked for once more")
		}
		tell.Know(stands("staging", "api", "c2", ledger.StateVerified), time.Now())
		pause(time.Minute)
		if got := b.statuses["c2"]["pinion/staging"].State; got != forge.Success {
			t.Errorf("the other commit has %q", got)
		}
	})
}

// What has left is told of, and what has left long ago is not dug up.
func TestTellerOfThePast(t *testing.T) {
	b := &board{}
	telling(t, b, TellerOptions{}, func(tell *Teller, rest func(time.Duration)) {
		r := stands("staging", "web", "c3", ledger.StateStarted)
		r.Previous = []ledger.Past{
			{ID: "web-c2", Commit: "c2", State: ledger.StateSuperseded, Left: time.Now().Add(-time.Hour)},
			{ID: "web-c1", Commit: "c1", State: ledger.StateVerified, Left: time.Now().Add(-48 * time.Hour)},
		}
		tell.Know(r, time.Now())
		rest(time.Minute)
		if b.statuses["c2"]["pinion/staging"].State != forge.Neutral || b.statuses["c1"] != nil {
			t.Errorf("it wrote %q", b.writes)
		}
		r = stands("staging", "web", "c4", ledger.StatePinned)
		r.Previous = []ledger.Past{{ID: "web-c3", Commit: "c3", State: ledger.StateSuperseded, Left: time.Now()}}
		tell.Know(r, time.Now())
		rest(time.Minute)
		if b.statuses["c3"]["pinion/staging"].State != forge.Neutral {
			t.Errorf("it wrote %q", b.writes)
		}
	})
}
