package reconcile

import (
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
	"github.com/pinion-cd/pinion/render"
)

// Where a service stands that somebody else deploys.
func TestElsewhere(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	waits := []Dependency{{Service: "db", Phase: Progressing}}
	for _, c := range []struct {
		name  string
		view  View
		state ledger.State
		known bool
		want  Phase
	}{
		{"pinned", View{Rendered: true}, "", true, Progressing},
		{"started", View{Rendered: true}, ledger.StateStarted, true, Progressing},
		{"completed", View{Rendered: true}, ledger.StateCompleted, true, Ready},
		{"verified", View{Rendered: true}, ledger.StateVerified, true, Ready},
		{"failed", View{Rendered: true}, ledger.StateFailed, true, Failed},
		{"superseded", View{Rendered: true}, ledger.StateSuperseded, true, Progressing},
		{"waits for another", View{Rendered: true, Dependencies: waits}, "", true, Blocked},
		{"was asked for before the other failed", View{Rendered: true, Dependencies: waits}, ledger.StateStarted, true, Progressing},
		{"suspended", View{Rendered: true, Suspended: "moving"}, "", true, Suspended},
		{"suspended, and done", View{Rendered: true, Suspended: "moving"}, ledger.StateVerified, true, Ready},
		{"the ledger is not read", View{Rendered: true}, "", false, Pending},
		{"a mistake", View{Rendered: true, Problem: "no"}, ledger.StateVerified, true, Failed},
	} {
		c.view.Now = now
		if s := elsewhere(c.view, c.state, c.known); s.Phase != c.want || s.Phase != Blocked && s.Phase != Suspended && s.Again.IsZero() {
			t.Errorf("%s: %+v, want %s", c.name, s, c.want)
		}
	}
}

// What is recorded of it.
func TestFollowElsewhere(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	target := &Target{Key: Key{"dev", "web"}, Deploy: &desired.Deploy{Timeout: time.Hour}, Result: &render.Result{Digest: "sha256:1"}}
	for _, c := range []struct {
		name   string
		state  ledger.State
		since  time.Duration
		s      situation
		want   ledger.Event
		reason string
	}{
		{"nothing was called", ledger.StatePinned, 100 * time.Hour, situation{}, "", ""},
		{"it is called", ledger.StatePinned, 0, situation{Calling: now.Add(-time.Minute)}, "", ""},
		{"it was taken", ledger.StatePinned, 0, situation{Calling: now.Add(-time.Minute), Called: true}, ledger.EventStarted, "has taken it"},
		{"it was taken at last", ledger.StatePinned, 0, situation{Calling: now.Add(-2 * time.Hour), Called: true}, ledger.EventStarted, "has taken it"},
		{"it is not taken", ledger.StatePinned, 0, situation{Calling: now.Add(-time.Hour), Refusal: "it answers 500"}, ledger.EventFailed, "did not take it (it answers 500) within 1h"},
		{"it is asked again after a long time", ledger.StatePinned, 0, situation{Calling: now.Add(-2 * time.Hour)}, "", ""},
		{"it is awaited", ledger.StateStarted, 59 * time.Minute, situation{}, "", ""},
		{"nobody reports", ledger.StateStarted, time.Hour, situation{}, ledger.EventFailed, "Nobody reported that it is deployed within 1h"},
	} {
		c.s.Key, c.s.Now, c.s.Sighting = target.Key, now, &Sighting{Key: target.Key, Target: target}
		c.s.Rules = func(string) *policy.Rules { return nil }
		f := finding{Record: ledger.Record{Deployment: ledger.Deployment{ID: "web-1", State: c.state, Started: now.Add(-c.since)}}, Objects: map[int]*Target{}}
		var got []ledger.Entry
		err := followElsewhere(&f, c.s, func(e ledger.Entry) error {
			got, f.Entries = append(got, e), append(f.Entries, e)
			return nil
		}, func(event ledger.Event, reason string) ledger.Entry {
			return ledger.Entry{Event: event, Reason: reason}
		})
		switch {
		case err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want == "" && len(got) > 0, c.want != "" && (len(got) != 1 || got[0].Event != c.want || !strings.Contains(got[0].Reason, c.reason)):
			t.Errorf("%s: recorded %+v, want %s: %s", c.name, got, c.want, c.reason)
		case c.want == "" && f.Wake.IsZero() && (c.state == ledger.StateStarted || now.Sub(c.s.Calling) < time.Hour):
			t.Errorf("%s: it is not looked at again", c.name)
		}
	}
}

// What a report can be about: what a webhook has taken, and that alone.
func TestReportable(t *testing.T) {
	release := func(version, source string) ledger.Release {
		return ledger.Release{Pins: []ledger.Pin{{Artifact: "web", Image: "registry.example/web:" + version}}, Source: source}
	}
	first := ledger.Past{ID: "web-1", Commit: strings.Repeat("1", 40), Release: release("1.0.0", "x"), State: ledger.StateVerified}
	second := ledger.Past{ID: "web-2", Commit: strings.Repeat("2", 40), Release: release("1.1.0", "x"), State: ledger.StateFailed}
	for _, c := range []struct {
		name, version string
		release       ledger.Release
		state         ledger.State
		taken         bool
		want          RejectionCode
	}{
		{"a new version", "1.2.0", release("1.2.0", "x"), ledger.StateStarted, false, ""},
		{"by its commit", "3333333", release("1.2.0", "x"), ledger.StateStarted, false, ""},
		{"another version", "1.1.0", release("1.2.0", "x"), ledger.StateStarted, false, NotCurrent},
		{"before the call was taken", "1.2.0", release("1.2.0", "x"), ledger.StatePinned, false, NotReady},
		{"by its id, before the call was taken", "web-3", release("1.2.0", "x"), ledger.StatePinned, false, NotReady},
		{"taken, and not recorded yet", "1.2.0", release("1.2.0", "x"), ledger.StatePinned, true, ""},
		{"back, which may be a repetition", "1.0.0", release("1.0.0", "x"), ledger.StateStarted, false, NotCurrent},
		{"back, before the call was taken", "1.0.0", release("1.0.0", "x"), ledger.StatePinned, false, NotCurrent},
		{"back, by its id", "web-3", release("1.0.0", "x"), ledger.StateStarted, false, ""},
		{"back, by its commit", "3333333", release("1.0.0", "x"), ledger.StateStarted, false, ""},
		{"the same with other manifests", "1.1.0", release("1.1.0", "y"), ledger.StateStarted, false, NotCurrent},
		{"repeated, when it is over", "1.2.0", release("1.2.0", "x"), ledger.StateVerified, false, ""},
		{"a report of before, when it is over", "1.0.0", release("1.0.0", "x"), ledger.StateVerified, false, NotCurrent},
	} {
		r := ledger.Record{Environment: "dev", Service: "web", Previous: []ledger.Past{second, first},
			Deployment: ledger.Deployment{ID: "web-3", Commit: strings.Repeat("3", 40), Release: c.release, State: c.state}}
		switch err := reportable(r, c.version, c.taken); {
		case err == nil && c.want != "", err != nil && err.Code != c.want:
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// A restart does not begin the time anew in which a webhook has to take it.
func TestCalledSince(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	pinned := now.Add(-time.Hour)
	for _, c := range []struct {
		name string
		d    ledger.Deployment
		back string
		want time.Time
	}{
		{"pinned", ledger.Deployment{ID: "web-1", Pinned: pinned}, "", pinned},
		{"held back until now", ledger.Deployment{ID: "web-1", Pinned: pinned}, "web-1", now},
		{"the one before was held back", ledger.Deployment{ID: "web-2", Pinned: pinned}, "web-1", pinned},
		{"the record does not say", ledger.Deployment{ID: "web-1"}, "", now},
	} {
		if got := calledSince(c.d, c.back, now); !got.Equal(c.want) {
			t.Errorf("%s: since %s, want %s", c.name, got, c.want)
		}
	}
}
