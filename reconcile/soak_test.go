package reconcile

import (
	"testing"
	"time"
	"unique"

	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// What was seen counts by our clock, and what was not by the cluster's.
func TestSoakCountsWhatWasSeen(t *testing.T) {
	began := noon.Add(-time.Hour)  // when the daemon's watches were first in sync
	again := noon.Add(time.Minute) // and when they were after a gap
	written := noon.Add(-10 * time.Minute)
	at := func(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }
	type look struct {
		minute     int
		phase      Phase
		written    time.Time // zero: as before
		lost       time.Time
		sight      sight
		uncompared bool
		want       time.Time // zero: it is not healthy
	}
	seen, later := sight{since: began}, sight{since: again}
	blind := sight{blind: true, since: began}
	for _, test := range []struct {
		name  string
		looks []look
	}{
		{"a rollout", []look{{0, Progressing, time.Time{}, time.Time{}, seen, false, time.Time{}}, {1, Ready, at(0), time.Time{}, seen, false, at(1)}, {5, Ready, at(0), time.Time{}, seen, false, at(1)}}},
		{"lost and regained", []look{{0, Ready, written, time.Time{}, seen, false, written}, {1, Degraded, time.Time{}, time.Time{}, seen, false, time.Time{}}, {2, Ready, at(1), time.Time{}, seen, false, at(2)}}},
		{"lost, and applied before it is regained", []look{
			{0, Ready, written, time.Time{}, seen, false, written}, {1, Degraded, time.Time{}, time.Time{}, seen, false, time.Time{}},
			{2, Pending, time.Time{}, time.Time{}, seen, false, time.Time{}}, {3, Applying, time.Time{}, time.Time{}, seen, false, time.Time{}}, {4, Ready, at(3), time.Time{}, seen, false, at(4)}}},
		{"corrected, and never degraded", []look{{0, Ready, written, time.Time{}, seen, false, written}, {1, Applying, time.Time{}, time.Time{}, seen, false, time.Time{}}, {2, Ready, at(1), time.Time{}, seen, false, at(2)}}},
		{"a start finds it as it was", []look{{0, Pending, time.Time{}, time.Time{}, sight{}, true, time.Time{}}, {1, Ready, written, time.Time{}, seen, false, written}, {2, Ready, written, time.Time{}, seen, false, written}}},
		{"a start finds it written a moment ago", []look{{0, Applying, time.Time{}, time.Time{}, sight{}, true, time.Time{}}, {1, Ready, at(0), time.Time{}, seen, false, at(0)}, {2, Ready, at(2), time.Time{}, seen, false, at(0)}}},
		{"a start finds it broken", []look{{0, Degraded, written, time.Time{}, seen, false, time.Time{}}, {3, Ready, at(2), time.Time{}, seen, false, at(3)}}},
		{"the API server's clock is ahead", []look{{1, Ready, at(30), time.Time{}, seen, false, at(1)}, {2, Ready, at(30), time.Time{}, seen, false, at(1)}}},
		{"nothing that is written vouches for itself", []look{{1, Ready, time.Time{}, time.Time{}, seen, false, time.Time{}}}},
		{"lost and regained between two looks", []look{{0, Ready, written, time.Time{}, seen, false, written}, {3, Ready, at(2), at(2), seen, false, at(2)}}},
		{"what is written while it is seen is no matter", []look{{0, Ready, written, time.Time{}, seen, false, written}, {3, Ready, at(3), time.Time{}, seen, false, written}}},
		{"a gap in which nothing was written", []look{{0, Ready, written, time.Time{}, seen, false, written}, {1, Ready, written, time.Time{}, blind, false, written}, {4, Ready, written, time.Time{}, later, false, written}}},
		{"a gap in which something was", []look{{0, Ready, written, time.Time{}, seen, false, written}, {1, Ready, written, time.Time{}, blind, false, written}, {4, Ready, at(2), time.Time{}, later, false, at(2)}}},
		{"a gap that nobody was told of", []look{{0, Ready, written, time.Time{}, seen, false, written}, {4, Ready, at(2), time.Time{}, later, false, at(2)}}},
	} {
		u := &unit{}
		for _, x := range test.looks {
			if !x.written.IsZero() {
				u.written = x.written
			}
			u.lostAt, u.compared = x.lost, !x.uncompared
			u.soak(at(x.minute), x.phase, x.sight)
			if !u.healthy.Equal(x.want) {
				t.Errorf("%s: in minute %d it is healthy since %s, want %s", test.name, x.minute, u.healthy.Format(time.TimeOnly), x.want.Format(time.TimeOnly))
			}
		}
	}
}

// All objects have to vouch.
func TestSoakAsksAllObjects(t *testing.T) {
	u, o := jobUnit(`{}`)
	other := render.Object{Ref: render.Ref{Kind: "ConfigMap", Namespace: "shop", Name: "a"}, Digest: "sha256:2", JSON: []byte(`{}`)}
	u.target.Result.Objects = append(u.target.Result.Objects, other)
	have := cluster.Observed{Ref: o.Ref, Owned: true, Environment: "dev", Service: "web", Digest: o.Digest, Fields: unique.Make(`{"f:spec":{}}`),
		Health: cluster.Health{Status: cluster.Current}, Changed: noon, Unwell: noon.Add(-time.Hour)}
	second := have
	second.Ref, second.Digest, second.Changed, second.Unwell = other.Ref, other.Digest, noon.Add(-time.Minute), noon.Add(time.Minute)
	u.inspect(map[render.Ref]cluster.Observed{o.Ref: have, other.Ref: second})
	if !u.inSync || !u.written.Equal(noon) || !u.lostAt.Equal(noon.Add(time.Minute)) {
		t.Errorf("in sync: %v (%s), written %s, lost %s", u.inSync, u.outOfSync, u.written, u.lostAt)
	}
	// What was applied anew is counted anew.
	u.soak(noon.Add(time.Hour), Ready, sight{})
	u.setTarget(u.target)
	if !u.healthy.IsZero() {
		t.Error("another target is healthy since before it was applied")
	}
}
