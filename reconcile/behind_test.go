package reconcile

import (
	"testing"
	"time"

	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// What a webhook keeps out is tried again soon, and at once when the service
// that brings the webhook is ready.
func TestWebhookThatIsNotUpYet(t *testing.T) {
	e := NewEngine(Options{})
	hook := render.Object{Ref: render.Ref{Kind: "Service", Namespace: "shop", Name: "admission"}}
	brings := &unit{key: Key{"dev", "admission"}, target: &Target{Place: Place{Cluster: "a"}, Result: &render.Result{Objects: []render.Object{hook}}}}
	waits := &unit{key: Key{"dev", "web"}, target: &Target{Place: Place{Cluster: "a"}, Result: &render.Result{}}}
	e.units[brings.key], e.units[waits.key] = brings, waits
	down := &cluster.RetryableError{Op: "validate", Err: &cluster.UnavailableError{Webhook: "x.example", Namespace: "shop", Service: "admission", Why: "connection refused"}}
	for range 10 {
		waits.failure = e.failure(noon, waits, down)
	}
	if wait := waits.failure.Retry.Sub(noon); wait > longestUnavailable || !waits.failure.Passing {
		t.Errorf("it is tried again after %s: %+v", wait, waits.failure)
	}
	other := &unit{key: Key{"dev", "other"}, target: &Target{Place: Place{Cluster: "b"}, Result: brings.target.Result}}
	if e.retryBehind(noon, other); waits.failure.Retry.Equal(noon) {
		t.Error("a service of another cluster counts")
	}
	e.retryBehind(noon.Add(time.Millisecond), brings)
	if waits.failure.Retry.After(noon.Add(time.Millisecond)) || !e.dirty[waits.key] {
		t.Errorf("it waits on: %+v", waits.failure)
	}
}
