package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// twoServices is a repository with one environment and two services.
const twoServices = `
-- environments/dev.yaml --
apiVersion: pinion.dev/v1
kind: Environment
cluster: default
namespace: NAMESPACE
pins:
  api:
    image: registry.example/api:1.0.0
  web:
    image: registry.example/web:1.0.0
-- services/api/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
rollout: {timeout: 60s}
-- services/api/api.yaml --
apiVersion: apps/v1
kind: Deployment
metadata: {name: api}
spec:
  replicas: 1
  selector: {matchLabels: {app: api}}
  template:
    metadata:
      labels: {app: api}
      annotations: {devcluster.pinion.dev/behavior-0.0.0-broken: image-pull-error}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: api}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: api}
data: {greeting: hello}
-- services/web/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
dependsOn: [api]
-- services/web/main.jsonnet --
function(pinion) {
  apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'web' },
  spec: {
    replicas: 1,
    selector: { matchLabels: { app: 'web' } },
    template: {
      metadata: { labels: { app: 'web' } },
      spec: { terminationGracePeriodSeconds: 1, containers: [{ name: 'main', image: pinion.pins.web.image }] },
    },
  },
}
`

// deployment returns a Deployment of the world's namespace, or nil and why.
func (w *world) deployment(ctx context.Context, name string) (*appsv1.Deployment, string) {
	x, err := w.kube.AppsV1().Deployments(w.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err.Error()
	}
	return x, ""
}

// runs waits until a Deployment's rollout of an image is complete.
func (w *world) runs(name, image string) *appsv1.Deployment {
	w.Helper()
	var found *appsv1.Deployment
	w.until(name+" runs "+image, func(ctx context.Context) string {
		x, why := w.deployment(ctx, name)
		if x == nil {
			return why
		}
		found = x
		s := x.Status
		switch got := x.Spec.Template.Spec.Containers[0].Image; {
		case got != image:
			return "it runs " + got
		case s.ObservedGeneration < x.Generation || s.UpdatedReplicas != *x.Spec.Replicas || s.AvailableReplicas != *x.Spec.Replicas || s.Replicas != *x.Spec.Replicas:
			return fmt.Sprintf("its rollout is not complete: %+v", s)
		}
		return ""
	})
	return found
}

func TestDaemonRollsOutAPin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, twoServices)
	first := w.git("rev-parse", "HEAD")
	d := w.daemon(t.TempDir())
	api := w.runs("api", "registry.example/api:1.0.0")
	w.runs("web", "registry.example/web:1.0.0")
	if got := api.Annotations["pinion.dev/commit"]; got != first {
		t.Errorf("api comes from commit %q, want %s", got, first)
	}
	d.line(0, "[2/2 done] ready dev/web")

	// Pods are watched while a rollout takes longer than a second; that does
	// not count here.
	writes := func() float64 {
		return d.metric("pinion_kubernetes_requests_total", `"apply"`) + d.metric("pinion_kubernetes_requests_total", `"dry-run"`)
	}
	mark, requests, renders := d.mark(), writes(), d.metric("pinion_renders_total")
	second := w.replace("environments/dev.yaml", "web:1.0.0", "web:1.1.0")
	web := w.runs("web", "registry.example/web:1.1.0")
	d.line(mark, "ready dev/web 1.1.0")
	if got := web.Annotations["pinion.dev/commit"]; got != second {
		t.Errorf("web comes from commit %q, want %s", got, second)
	}
	if x, _ := w.deployment(t.Context(), "api"); x.Annotations["pinion.dev/commit"] != first || x.Generation != api.Generation {
		t.Error("api was touched by a commit that changes web")
	}
	// One dry run and one apply for the only object.
	if got := writes() - requests; got != 2 {
		t.Errorf("%v requests for one object", got)
	}
	if got := d.metric("pinion_renders_total") - renders; got != 1 {
		t.Errorf("%v renderings for one pin", got)
	}
	d.never(mark, "dev/api")

	// A commit that changes nothing of any service. Events of what was before may
	// still be made, and the cluster is asked who it is by the clock.
	all := func() float64 { return d.metric("pinion_kubernetes_requests_total", `!"event"`, `!"identity"`) }
	mark, requests, renders = d.mark(), all(), d.metric("pinion_renders_total")
	third := w.push("say something", "-- README.md --\nhello\n")
	d.line(mark, "commit "+third[:12])
	if got := all() - requests; got != 0 {
		t.Errorf("%v requests for a commit that changes nothing", got)
	}
	if got := d.metric("pinion_renders_total") - renders; got != 0 {
		t.Errorf("%v renderings for a commit that changes nothing", got)
	}
	d.stop()

	// A daemon that starts with everything applied writes nothing.
	d = w.daemon(t.TempDir())
	d.line(0, "[2/2 done]")
	for _, verb := range []string{"apply", "dry-run", "create", "patch", "delete"} {
		if got := d.metric("pinion_kubernetes_requests_total", `"`+verb+`"`); got != 0 {
			t.Errorf("%v requests of verb %s by a restart with everything applied", got, verb)
		}
	}
	d.never(0, "applied")
}

func TestDaemonNamesWhatIsBroken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, strings.Replace(twoServices, "timeout: 60s", "timeout: 5s", 1))
	d := w.daemon(t.TempDir())
	d.line(0, "[2/2 done]")
	mark := d.mark()
	w.replace("environments/dev.yaml", "api:1.0.0", "api:0.0.0-broken")
	line := d.line(mark, "failed dev/api 0.0.0-broken")
	for _, word := range []string{"ImagePullBackOff", "registry.example/api:0.0.0-broken", "pod "} {
		if !strings.Contains(line, word) {
			t.Errorf("the failure does not say %q: %s", word, line)
		}
	}
	// A newer commit is not kept waiting.
	w.replace("environments/dev.yaml", "api:0.0.0-broken", "api:1.0.1")
	w.runs("api", "registry.example/api:1.0.1")
	d.line(mark, "ready dev/api 1.0.1")
}

func TestDaemonKeepsWhatIsSound(t *testing.T) {
	t.Parallel()
	w := newWorld(t, twoServices)
	d := w.daemon(t.TempDir())
	d.line(0, "[2/2 done]")
	mark := d.mark()
	w.push("one good, one bad", `
-- services/api/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
rolout: {timeout: 60s}
`)
	d.line(mark, "services/api/service.yaml:3:1", "rolout", "rollout")
	w.replace("environments/dev.yaml", "web:1.0.0", "web:1.1.0")
	w.runs("web", "registry.example/web:1.1.0")
	w.runs("api", "registry.example/api:1.0.0")
	d.never(mark, "deleted")
}
