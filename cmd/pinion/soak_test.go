package main

import (
	"context"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pinion-cd/pinion/ledger"
)

const (
	soakTime = 8 * time.Second
	soaking  = `
-- pipelines/default.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: ["*"]
stages:
- environment: dev
  verify: [soak]
-- policies/soak.yaml --
apiVersion: pinion.dev/v1
kind: Policy
soak: 8s
`
)

// deployed reads the record of web in dev.
func (w *world) deployed(state ledger.State) (d ledger.Deployment) {
	w.Helper()
	w.until("web is "+string(state), func(context.Context) string {
		r, err := ledger.DecodeRecord("deployment.yaml", []byte(w.git("--git-dir="+w.remote, "show", "ledger/dev:web/deployment.yaml")+"\n"))
		if d = r.Deployment; err != nil || d.State != state {
			return string(d.State)
		}
		return ""
	})
	return d
}

// A loss of health ends a soak whoever saw it: a daemon that was killed since, or
// none.
func TestSoakForgetsNoLoss(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop("web")+soaking)
	data := t.TempDir()
	// partway waits until a good part of the soak is over, so that it matters whether
	// that counts, and soaked holds the end against the moment of the loss.
	partway := func() {
		done := w.deployed(ledger.StateCompleted).Completed
		w.until("some of it has soaked", func(context.Context) string {
			if left := soakTime/2 - time.Since(done); left > 0 {
				return left.String() + " are left"
			}
			return ""
		})
	}
	soaked := func(broken time.Time) {
		t.Helper()
		// The cluster tells times to the second.
		if end := w.deployed(ledger.StateVerified).Ended; end.Before(broken.Truncate(time.Second).Add(soakTime)) {
			t.Errorf("verified at %s, and health was lost at %s", end.Format(time.TimeOnly), broken.UTC().Format(time.TimeOnly))
		}
	}

	d := w.daemon(data)
	d.line(0, "[1/1 done]")
	partway()
	mark, broken := d.mark(), time.Now()
	w.must(w.kube.AppsV1().Deployments(w.namespace).Delete(t.Context(), "web", metav1.DeleteOptions{}))
	d.line(mark, "ready dev/web")
	d.kill()
	d = w.daemon(data)
	soaked(broken)

	mark = d.mark()
	w.bump("web", "1.0.0", "1.1.0")
	d.line(mark, "ready dev/web 1.1.0")
	w.until("1.1.0 is recorded", func(context.Context) string {
		if all := w.entries("dev"); !strings.HasPrefix(all[len(all)-1], "completed(dev): web 1.0.0 → 1.1.0") {
			return all[len(all)-1]
		}
		return ""
	})
	partway()
	d.kill()
	broken = time.Now()
	pods, err := w.kube.CoreV1().Pods(w.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
	w.must(err)
	before, _ := w.deployment(t.Context(), "web")
	for _, p := range pods.Items {
		w.must(w.kube.CoreV1().Pods(w.namespace).Delete(t.Context(), p.Name, metav1.DeleteOptions{}))
	}
	w.until("web is available again", func(ctx context.Context) string {
		now, why := w.deployment(ctx, "web")
		if now == nil || now.ResourceVersion == before.ResourceVersion || now.Status.AvailableReplicas != *now.Spec.Replicas || now.Status.Replicas != now.Status.AvailableReplicas {
			return "not yet " + why
		}
		return ""
	})
	d = w.daemon(data)
	soaked(broken)
	d.stop()
}
