package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pinion-cd/pinion/internal/devtest"
)

var deploymentsOf = resource{Group: "apps", Version: "v1", Resource: "deployments"}

// as patches as a manager does.
func (w *world) as(manager string, r resource, name, body string) {
	w.Helper()
	_, err := w.dynamic.Resource(schema.GroupVersionResource(r)).Namespace(w.namespace).Patch(w.Context(), name, types.StrategicMergePatchType, []byte(body), metav1.PatchOptions{FieldManager: manager})
	w.must(err)
}

func (w *world) replicas(name string, want int32) {
	w.Helper()
	w.until(name+" has its replicas", func(ctx context.Context) string {
		if x, why := w.deployment(ctx, name); x == nil || *x.Spec.Replicas != want {
			return "not yet " + why
		}
		return ""
	})
}

// has waits until a ledger has entries whose subjects begin as given, in
// whatever order.
func (w *world) has(environment string, want ...string) {
	w.Helper()
	w.until("ledger/"+environment+" has "+strings.Join(want, "; "), func(context.Context) string {
		all := w.entries(environment)
		for _, x := range want {
			if !slices.ContainsFunc(all, func(s string) bool { return strings.HasPrefix(s, x) }) {
				return "it has " + strings.Join(all, "; ")
			}
		}
		return ""
	})
}

// writes counts the requests of the daemon that write.
func (d *daemon) writes() float64 {
	n := 0.0
	for _, verb := range []string{`"apply"`, `"patch"`, `"create"`, `"update"`, `"delete"`} {
		n += d.metric("pinion_kubernetes_requests_total", verb)
	}
	return n
}

// message is the body of the newest entry of dev's ledger.
func (w *world) message() string {
	return w.git("--git-dir="+w.remote, "log", "-1", "--format=%B", "ledger/dev")
}

// Drift is corrected, and the ledger says what it was and who did it; what
// others own is left to them.
func TestDriftIsRecordedAndCorrected(t *testing.T) {
	t.Parallel()
	w := newWorld(t, twoServices)
	d := w.daemon(t.TempDir())
	d.line(0, "[2/2 done]")
	w.has("dev", "verified(dev): api 1.0.0", "verified(dev): web 1.0.0")
	mark := d.mark()
	w.as("kubectl-scale", deploymentsOf, "web", `{"spec":{"replicas":3}}`)
	d.line(mark, "drift: dev/web: .spec.replicas of Deployment.apps "+w.namespace+"/web: 1 → 3 (kubectl-scale); corrected")
	w.replicas("web", 1)
	w.recorded("dev", "drifted(dev): web 1.0.0 by kubectl-scale, corrected")
	if got := w.message(); !strings.Contains(got, `Pinion-Drift: {"object":"Deployment.apps `+w.namespace+`/web","path":".spec.replicas","old":"1","new":"3","by":"kubectl-scale"}`) {
		t.Errorf("the entry says:\n%s", got)
	}
	before, _ := w.deployment(t.Context(), "api")
	w.must(w.kube.CoreV1().ConfigMaps(w.namespace).Delete(t.Context(), "api", metav1.DeleteOptions{}))
	w.hasData("api", "greeting", "hello")
	w.recorded("dev", "drifted(dev): api 1.0.0, corrected")
	if got := w.message(); !strings.Contains(got, "ConfigMap "+w.namespace+"/api was deleted") {
		t.Errorf("the entry says:\n%s", got)
	}
	if after, _ := w.deployment(t.Context(), "api"); after.ResourceVersion != before.ResourceVersion && after.Generation != before.Generation {
		t.Error("what was beside it was written, too")
	}
	d.line(mark, "[2/2 done] ready")
	w.git("fetch", "-q", "origin", "main:refs/remotes/origin/main", "ledger/dev:refs/remotes/origin/ledger/dev")
	stdout, stderr, code := w.pinion("log", "dev")
	if code != 0 || !strings.Contains(stdout, "corrected: .spec.replicas of Deployment.apps") || !strings.Contains(stdout, "kubectl-scale") {
		t.Errorf("log ends with %d: %s%s", code, stdout, stderr)
	}
	if stdout, stderr, code := w.pinion("audit"); code != 0 {
		t.Errorf("audit ends with %d: %s%s", code, stdout, stderr)
	}
	d.stop()
}

const reportsDrift = "kind: Environment\ndrift: report"

// Where drift is only reported, nothing is written for it, whatever was done,
// also after a restart; a person's apply and a new commit end it.
func TestDriftIsOnlyReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t, strings.Replace(twoServices, "kind: Environment", reportsDrift, 1))
	data := t.TempDir()
	d := w.daemon(data)
	d.line(0, "[2/2 done]")
	w.has("dev", "verified(dev): api 1.0.0", "verified(dev): web 1.0.0")
	writes := d.writes()
	w.as("kubectl-scale", deploymentsOf, "api", `{"spec":{"replicas":2}}`)
	d.line(0, "degraded dev/api", "drifted, and only reported: .spec.replicas of Deployment.apps "+w.namespace+"/api: 1 → 2 (kubectl-scale)")
	w.recorded("dev", "drifted(dev): api 1.0.0 by kubectl-scale, reported")
	w.git("fetch", "-q", "origin", "main:refs/remotes/origin/main", "ledger/dev:refs/remotes/origin/ledger/dev")
	for _, args := range [][]string{{"status", "dev"}, {"status", "dev", "--live"}, {"status", "dev", "api"}, {"why", "dev", "api"}} {
		if stdout, stderr, _ := w.pinion(args...); !strings.Contains(stdout, "1 → 2 (kubectl-scale)") {
			t.Errorf("%v says: %s%s", args, stdout, stderr)
		}
	}
	if stdout, _, code := w.pinion("status"); code != exitDifferent || !strings.Contains(stdout, "verified") || !strings.Contains(stdout, "drifted") {
		t.Errorf("status ends with %d: %s", code, stdout)
	}
	// Others do not wait for its end.
	w.replace("environments/dev.yaml", "web:1.0.0", "web:1.1.0")
	w.runs("web", "registry.example/web:1.1.0")
	w.recorded("dev", "verified(dev): web 1.0.0 → 1.1.0")
	if got := d.writes() - writes; got != 1 { // of web
		t.Errorf("%v requests were written", got)
	}

	// What is deleted while no daemon looks is drift too, and what stood is not news.
	d.stop()
	w.must(w.kube.CoreV1().ConfigMaps(w.namespace).Delete(t.Context(), "api", metav1.DeleteOptions{}))
	d = w.daemon(data)
	d.line(0, "degraded dev/api", "ConfigMap "+w.namespace+"/api was deleted")
	w.recorded("dev", "drifted(dev): api 1.0.0 by kubectl-scale, reported")
	if got := w.message(); !strings.Contains(got, "ConfigMap "+w.namespace+"/api was deleted") {
		t.Errorf("the entry says:\n%s", got)
	}
	if got := d.writes(); got != 0 {
		t.Errorf("%v requests were written after a restart", got)
	}

	// A person's apply takes it back, and the ledger hears that it is over.
	if stdout, stderr, code := w.pinion("apply", "dev"); code != 0 {
		t.Fatalf("apply ends with %d: %s%s", code, stdout, stderr)
	}
	w.replicas("api", 1)
	w.hasData("api", "greeting", "hello")
	w.recorded("dev", "drifted(dev): api 1.0.0, ended")

	// And so does a commit of that service.
	w.as("kubectl-scale", deploymentsOf, "api", `{"spec":{"replicas":2}}`)
	w.recorded("dev", "drifted(dev): api 1.0.0 by kubectl-scale, reported")
	w.replace("services/api/api.yaml", "greeting: hello", "greeting: bye")
	w.hasData("api", "greeting", "bye")
	w.replicas("api", 1)
	w.recorded("dev", "verified(dev): api 1.0.0, manifests of")
	w.git("fetch", "-q", "origin", "+main:refs/remotes/origin/main", "+ledger/dev:refs/remotes/origin/ledger/dev")
	if stdout, stderr, code := w.pinion("status", "dev"); code != 0 || strings.Contains(stdout, "drifted") {
		t.Errorf("status ends with %d: %s%s", code, stdout, stderr)
	}
	if stdout, stderr, code := w.pinion("audit"); code != 0 {
		t.Errorf("audit ends with %d: %s%s", code, stdout, stderr)
	}
	d.stop()
}

// What others own and the manifests do not set is no drift: an autoscaler's
// replicas, an injected sidecar, defaults, labels; nor is what is ignored.
func TestOthersFieldsAreNoDrift(t *testing.T) {
	t.Parallel()
	archive := strings.Replace(twoServices, "    replicas: 1,\n", "", 1)
	archive = strings.Replace(archive, "-- services/api/service.yaml --\napiVersion: pinion.dev/v1\nkind: Service\n", "-- services/api/service.yaml --\napiVersion: pinion.dev/v1\nkind: Service\nignore:\n- {kind: ConfigMap, name: a*, pointers: [/data/greeting]}\n", 1)
	w := newWorld(t, archive)
	d := w.daemon(t.TempDir())
	d.line(0, "[2/2 done]")
	w.has("dev", "verified(dev): api 1.0.0", "verified(dev): web 1.0.0")
	writes := d.writes()
	ctx := t.Context()
	_, err := w.kube.AppsV1().Deployments(w.namespace).UpdateScale(ctx, "web", &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: w.namespace}, Spec: autoscalingv1.ScaleSpec{Replicas: 2},
	}, metav1.UpdateOptions{FieldManager: "kube-controller-manager"})
	w.must(err)
	w.as("istio-injector", deploymentsOf, "web", `{"spec":{"template":{"metadata":{"annotations":{"sidecar":"on"}},"spec":{"containers":[{"name":"proxy","image":"mesh:1"}]}}}}`)
	w.as("descheduler", deploymentsOf, "api", `{"metadata":{"labels":{"team":"a"}},"spec":{"revisionHistoryLimit":3}}`)
	w.patch(configMaps, "api", `{"data":{"greeting":"bye"}}`)
	w.until("web is rolled out with its sidecar", func(ctx context.Context) string {
		x, why := w.deployment(ctx, "web")
		if x == nil || x.Status.UpdatedReplicas != 2 || x.Status.AvailableReplicas != 2 || len(x.Spec.Template.Spec.Containers) != 2 {
			return "not yet " + why
		}
		return ""
	})
	// A commit of both leaves it so.
	w.replace("environments/dev.yaml", "1.0.0", "1.1.0")
	w.has("dev", "verified(dev): api 1.0.0 → 1.1.0", "verified(dev): web 1.0.0 → 1.1.0")
	x, _ := w.deployment(ctx, "web")
	if *x.Spec.Replicas != 2 || len(x.Spec.Template.Spec.Containers) != 2 || w.configMap("api").Data["greeting"] != "bye" {
		t.Errorf("%d replicas, %d containers, %v", *x.Spec.Replicas, len(x.Spec.Template.Spec.Containers), w.configMap("api").Data)
	}
	if got := d.writes() - writes; got != 3 {
		t.Errorf("%v requests were written for three objects of a commit", got)
	}
	for _, e := range w.entries("dev") {
		if strings.HasPrefix(e, "drifted") {
			t.Errorf("the ledger has %s", e)
		}
	}
	if stdout, stderr, code := w.pinion("diff", "dev"); code != 0 {
		t.Errorf("diff ends with %d: %s%s", code, stdout, stderr)
	}
	d.never(0, "drift:")
	d.stop()
}

// A manager that fights is answered less and less often, named once, and
// forgotten when it stops.
func TestFightIsNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, twoServices)
	d := w.daemon(t.TempDir())
	d.line(0, "[2/2 done]")
	w.has("dev", "verified(dev): api 1.0.0", "verified(dev): web 1.0.0")
	ctx, stop := context.WithCancel(t.Context())
	var fight sync.WaitGroup
	fight.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				w.kube.AppsV1().Deployments(w.namespace).Patch(ctx, "web", types.StrategicMergePatchType, []byte(`{"spec":{"replicas":3}}`), metav1.PatchOptions{FieldManager: "fighter"})
			case <-ctx.Done():
				return
			}
		}
	})
	d.line(0, "drift: dev/web", "(fighter); corrected again and again")
	w.recorded("dev", "drifted(dev): web 1.0.0 by fighter, contested")
	d.line(0, "degraded dev/web", ".spec.replicas", "(fighter), again and again")
	w.git("fetch", "-q", "origin", "main:refs/remotes/origin/main", "ledger/dev:refs/remotes/origin/ledger/dev")
	for _, args := range [][]string{{"status", "dev", "web"}, {"why", "dev", "web"}} {
		if stdout, stderr, _ := w.pinion(args...); !strings.Contains(stdout, "(fighter)") {
			t.Errorf("%v says: %s%s", args, stdout, stderr)
		}
	}
	stop()
	fight.Wait()
	w.replicas("web", 1)
	mark := d.mark()
	d.line(max(0, mark-3), "ready dev/web")
	drifts := 0
	for _, e := range w.entries("dev") {
		if strings.HasPrefix(e, "drifted") {
			drifts++
		}
	}
	if drifts != 4 {
		t.Errorf("the ledger has %d entries of one fight", drifts)
	}
	if n := d.metric("pinion_kubernetes_requests_total", `"apply"`); n > 20 {
		t.Errorf("%v applies: the loop is too tight", n)
	}
	d.stop()
}

// A change that the watch has silently lost is found by the slow comparison,
// which writes nothing where all is well.
func TestLostChangeIsFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t, twoServices)
	proxy := devtest.NewProxy(t, w.kubeconfig)
	config := filepath.Join(t.TempDir(), "config.yaml")
	w.must(os.WriteFile(config, []byte("apiVersion: pinion.dev/v1\nkind: Config\napply: {compare: 3s}\n"), 0o644))
	w.kubeconfig = proxy.Kubeconfig
	d := w.daemon(t.TempDir(), "--config", config)
	d.line(0, "[2/2 done]")
	w.has("dev", "verified(dev): api 1.0.0", "verified(dev): web 1.0.0")
	d.line(d.mark(), "compared: 4 objects compared with the cluster, 0 of them") // two Deployments, two ConfigMaps with the inventory
	writes := d.writes()
	proxy.Lose(func(event []byte) bool { return bytes.Contains(event, []byte(`"replicas":3`)) })
	w.as("kubectl-scale", deploymentsOf, "web", `{"spec":{"replicas":3}}`)
	d.line(0, "drift: dev/web", "1 → 3 (kubectl-scale); corrected")
	proxy.Lose(nil)
	w.replicas("web", 1)
	w.has("dev", "drifted(dev): web 1.0.0 by kubectl-scale, corrected")
	d.line(d.mark(), "compared: 4 objects")
	if got := d.writes() - writes; got != 1 {
		t.Errorf("%v requests were written", got)
	}
	d.stop()
}
