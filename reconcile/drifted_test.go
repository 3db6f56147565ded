package reconcile_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// target is what the tip wants of web in an environment.
func (h *house) target(env desired.EnvironmentName) *reconcile.Target {
	h.Helper()
	tip, err := h.mirror.Fetch(h.Context())
	h.must(err)
	c, err := reconcile.ReadCommit(h.Context(), h.mirror, tip.Commit, nil)
	h.must(err)
	d, ok := c.Repository.Deployment(env, "web")
	if !ok {
		h.Fatalf("there is no web in %s", env)
	}
	t, tree, err := reconcile.Resolve(h.Context(), h.mirror, c, d)
	h.must(err)
	t.Result, err = render.Build(h.Context(), tree, t.Request)
	h.must(err)
	return t
}

func scaled(t *reconcile.Target, a ledger.Answer, to string) reconcile.Drift {
	return reconcile.Drift{Key: t.Key, Target: t, Time: time.Now(), Answer: a, Objects: []cluster.Drift{{
		Ref: t.Result.Objects[0].Ref, Ours: true,
		Changes: []cluster.FieldDrift{{Path: ".spec.replicas", Old: "2", New: to, Manager: "kubectl-scale"}},
	}}}
}

// Drift is recorded once, moves no state, and is over when it is undone; the
// ledger is as sound as before.
func TestDriftIsRecorded(t *testing.T) {
	h := brought(t)
	dev := h.target("dev")
	h.clerk.Drifted(scaled(dev, ledger.AnswerCorrected, "5"))
	h.ends("ledger/dev", "verified(dev): web 1.0.0", "drifted(dev): web 1.0.0 by kubectl-scale, corrected")
	h.clerk.Drifted(scaled(dev, ledger.AnswerReported, "6"))
	h.clerk.Drifted(scaled(dev, ledger.AnswerReported, "6"))
	h.ends("ledger/dev", "drifted(dev): web 1.0.0 by kubectl-scale, corrected", "drifted(dev): web 1.0.0 by kubectl-scale, reported")
	r, err := h.record("dev", "web")
	h.must(err)
	if r.Deployment.State != ledger.StateVerified || !r.Drift.Stands() || r.Drift.Changes[0].New != "6" {
		t.Errorf("%s, %+v", r.Deployment.State, r.Drift)
	}
	// What stands is found anew after a start, and is not news.
	h.stop()
	h.start(reconcile.ClerkOptions{})
	h.clerk.Drifted(scaled(dev, ledger.AnswerReported, "6"))
	h.until("the drift is over", func() string {
		// Again and again, for what the house sees at its start can come after it.
		h.clerk.See(reconcile.Sighting{Key: dev.Key, Target: dev, Tip: dev.Tip, Phase: reconcile.Ready, Started: true, InSync: true})
		if r, err := h.record("dev", "web"); err != nil || r.Drift.Stands() {
			return fmt.Sprint(err, r.Drift)
		}
		return ""
	})
	h.ends("ledger/dev", "drifted(dev): web 1.0.0 by kubectl-scale, reported", "drifted(dev): web 1.0.0, ended")
	h.sound()
}

// Drift from what is not there any more is not said of what is.
func TestDriftOfAnotherVersion(t *testing.T) {
	h := brought(t)
	old := h.target("dev")
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("dev", "1.1.0", ledger.StateVerified)
	h.clerk.Drifted(scaled(old, ledger.AnswerCorrected, "5"))
	h.clerk.Drifted(scaled(h.target("dev"), ledger.AnswerCorrected, "6"))
	h.ends("ledger/dev", "verified(dev): web 1.0.0 → 1.1.0", "drifted(dev): web 1.1.0")
	h.sound()
}

// The ledger knows what was once applied whole.
func TestCompleted(t *testing.T) {
	h := brought(t)
	dev := h.target("dev")
	for digest, want := range map[string]bool{dev.Result.Digest: true, "sha256:other": false, "": false} {
		if done, known := h.clerk.Completed(dev.Key, digest); done != want || !known {
			t.Errorf("%q: %v, %v", digest, done, known)
		}
	}
	if _, known := reconcile.NewClerk(reconcile.ClerkOptions{}, reconcile.NewEngine(reconcile.Options{})).Completed(dev.Key, dev.Result.Digest); known {
		t.Error("it is known before anything was read")
	}
}
