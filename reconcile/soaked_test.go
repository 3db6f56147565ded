package reconcile_test

import (
	"testing"
	"time"

	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

// A soak begins anew when health is lost, whatever the way back is, and whoever
// looks then.
func TestSoakRestartsWhenHealthIsLost(t *testing.T) {
	t.Parallel()
	at := func(minutes int) time.Time { return monday.Add(time.Duration(minutes) * time.Minute) }
	for _, test := range []struct {
		name    string
		way     []reconcile.Phase
		restart bool
	}{
		{"degraded", []reconcile.Phase{reconcile.Degraded}, false},
		{"degraded and applied", []reconcile.Phase{reconcile.Degraded, reconcile.Applying}, false},
		{"applied at once", []reconcile.Phase{reconcile.Applying}, false},
		{"degraded, and started again", []reconcile.Phase{reconcile.Degraded}, true},
		{"applied, and started again", []reconcile.Phase{reconcile.Degraded, reconcile.Pending, reconcile.Applying}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := timed(t)
			h.pin("dev", "1.0.0", "1.1.0")
			h.runs("dev", "1.1.0", ledger.StateCompleted)
			h.at(at(20))
			for _, phase := range test.way {
				h.looks("dev/web", "1.1.0", phase, time.Time{}, false)
			}
			h.at(at(35))
			h.still("dev", "1.1.0", ledger.StateCompleted)
			h.looks("dev/web", "1.1.0", reconcile.Ready, at(35), false)
			h.at(at(50))
			h.still("dev", "1.1.0", ledger.StateCompleted)
			if test.restart {
				h.stop()
				h.startOn(gitstate.Options{})
				h.looks("dev/web", "1.1.0", reconcile.Ready, at(35), false)
			}
			h.at(at(65).Add(-time.Second))
			h.still("dev", "1.1.0", ledger.StateCompleted)
			h.at(at(65))
			r := h.runs("dev", "1.1.0", ledger.StateVerified)
			if !r.Deployment.Ended.Equal(at(65)) {
				t.Errorf("it was verified at %s", r.Deployment.Ended)
			}
			h.settled()
			h.lawful()
		})
	}
}

// As long as a cluster can't be seen nothing has soaked; what it vouches for
// afterwards has.
func TestSoakWaitsUntilTheClusterIsSeen(t *testing.T) {
	t.Parallel()
	h := timed(t)
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("dev", "1.1.0", ledger.StateCompleted)
	h.looks("dev/web", "1.1.0", reconcile.Ready, monday, true)
	h.at(monday.Add(time.Hour))
	h.still("dev", "1.1.0", ledger.StateCompleted)
	h.looks("dev/web", "1.1.0", reconcile.Ready, monday, false)
	h.runs("dev", "1.1.0", ledger.StateVerified)
	h.settled()
	h.lawful()
}
