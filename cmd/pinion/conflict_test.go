package main

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// patch changes a Deployment or a ConfigMap as kubectl edit does.
func (w *world) patch(r resource, name, body string) {
	w.Helper()
	_, err := w.dynamic.Resource(schema.GroupVersionResource(r)).Namespace(w.namespace).Patch(w.Context(), name, types.MergePatchType, []byte(body), metav1.PatchOptions{FieldManager: "kubectl-edit"})
	w.must(err)
}

// hasData waits until a ConfigMap's data is the wanted.
func (w *world) hasData(name, key, want string) {
	w.Helper()
	w.until("ConfigMap "+name+" says "+want, func(ctx context.Context) string {
		cm, err := w.kube.CoreV1().ConfigMaps(w.namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		if got := cm.Data[key]; got != want {
			return "it says " + got
		}
		return ""
	})
}

// stands makes the world's namespace, with a ConfigMap in it that somebody
// else has applied.
func (w *world) stands(manager, name, key, value string) {
	w.Helper()
	_, err := w.kube.CoreV1().Namespaces().Create(w.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}, metav1.CreateOptions{})
	w.must(err)
	_, err = w.dynamic.Resource(schema.GroupVersionResource(configMaps)).Namespace(w.namespace).Apply(w.Context(), name, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name}, "data": map[string]any{key: value},
	}}, metav1.ApplyOptions{FieldManager: manager})
	w.must(err)
}

func TestConflictOfTwoServices(t *testing.T) {
	t.Parallel()
	const shared = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shared}\ndata: {from: "
	w := newWorld(t, environment("dev", "NAMESPACE", "one", "two")+
		"-- services/one/one.yaml --\n"+shared+"one}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\n-- services/two/two.yaml --\n"+shared+"two}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: two}\n")
	d := w.daemon(t.TempDir())
	line := d.line(0, "failed dev/", "ConfigMap "+w.namespace+"/shared is rendered by two services", "dev/one", "dev/two")
	has, lost := "one", "two"
	if strings.Contains(line, "failed dev/one") {
		has, lost = lost, has
	}
	d.line(0, "[1/2 done] ready dev/"+has)
	w.hasData("shared", "from", has)
	if w.here(t.Context(), configMaps, lost) {
		t.Error("the service that was refused is half applied")
	}
	uid := w.configMap("shared").UID
	w.push("move", "-- services/"+has+"/"+has+".yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: "+has+"}\n")
	w.hasData("shared", "from", lost)
	d.line(0, "[2/2 done]")
	w.appears(configMaps, lost)
	if w.configMap("shared").UID != uid {
		t.Error("what moved from one service to the other was deleted between")
	}
}

func TestConflictOverAnotherNamespace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, environment("dev", "NAMESPACE", "app")+"-- services/app/app.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: app, namespace: elsewhere}\n")
	d := w.daemon(t.TempDir())
	d.line(0, "failed dev/app", "is in the namespace elsewhere, but the environment dev has the namespace "+w.namespace)
}

func TestConflictWithAnUnknownKind(t *testing.T) {
	t.Parallel()
	w := newWorld(t, environment("dev", "NAMESPACE", "app", "other")+`
-- services/app/app.yaml --
apiVersion: NAMESPACE.example/v1
kind: novelty
metadata: {name: first}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: app}
-- services/other/other.yaml --
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
`)
	d := w.daemon(t.TempDir())
	d.line(0, "failed dev/app", "no kind novelty in "+w.namespace+".example/v1", "CustomResourceDefinition")
	d.line(0, "ready dev/other")
	if w.here(t.Context(), configMaps, "app") {
		t.Error("the service is half applied")
	}
	var crd unstructured.Unstructured
	w.must(yaml.Unmarshal([]byte(strings.ReplaceAll(kindNamed("novelty", "Namespaced"), "NAMESPACE", w.namespace)), &crd.Object))
	_, err := w.dynamic.Resource(schema.GroupVersionResource(definitions)).Create(t.Context(), &crd, metav1.CreateOptions{})
	w.must(err)
	d.line(0, "[2/2 done]")
	w.stays(w.of("novelty"), "first")
}

const greeting = "-- services/app/app.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: app}\ndata: {greeting: hello}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: beside}\n"

func TestConflictAdoptsWhatWasThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, environment("dev", "NAMESPACE", "app")+greeting)
	w.stands("helm", "app", "other", "stays")
	stdout, stderr, code := w.pinion("diff", "dev")
	if code != exitDifferent || !strings.Contains(stdout, "ConfigMap "+w.namespace+"/app (is there already, and not ours") {
		t.Errorf("diff ends with %d: %s%s", code, stdout, stderr)
	}
	d := w.daemon(t.TempDir())
	d.line(0, "applied dev/app", "took over ConfigMap "+w.namespace+"/app, which was there before")
	w.hasData("app", "greeting", "hello")
	w.hasData("app", "other", "stays")
	d.line(0, "[1/1 done] ready dev/app")
}

func TestConflictWithAnotherManager(t *testing.T) {
	t.Parallel()
	w := newWorld(t, environment("dev", "NAMESPACE", "app")+greeting)
	w.stands("helm", "app", "greeting", "bye")
	stdout, stderr, code := w.pinion("diff", "dev")
	if code != exitDifferent || !strings.Contains(stdout, `"helm"`) || !strings.Contains(stdout, "- bye") || !strings.Contains(stdout, "+ hello") {
		t.Errorf("diff ends with %d: %s%s", code, stdout, stderr)
	}
	d := w.daemon(t.TempDir())
	d.line(0, "failed dev/app", ".data.greeting", `held by "helm"`)
	w.hasData("app", "greeting", "bye")
	if w.here(t.Context(), configMaps, "beside") {
		t.Error("the service is half applied")
	}
	if stdout, stderr, code := w.pinion("apply", "dev"); code != exitDifferent || !strings.Contains(stdout, `"helm"`) {
		t.Errorf("apply ends with %d: %s%s", code, stdout, stderr)
	}
	w.replace("services/app/service.yaml", "kind: Service", "kind: Service\nconflicts: take")
	d.line(0, "takes over", `"helm"`)
	w.hasData("app", "greeting", "hello")
	d.line(0, "[1/1 done] ready dev/app")
}

// Of a service of which one object in the middle is refused, nothing is applied,
// and the daemon names the manager and the field.
func TestConflictInTheMiddle(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settingsOf(5, "app", "other"))
	w.stands("helm", "app-2", "greeting", "bye")
	d := w.daemon(t.TempDir())
	d.line(0, "failed dev/app", "app-2", ".data.greeting", `held by "helm"`)
	d.line(0, "ready dev/other")
	for _, name := range []string{"app-0", "app-1", "app-3", "app-4"} {
		if w.here(t.Context(), configMaps, name) {
			t.Errorf("%s is applied", name)
		}
	}
	w.hasData("app-2", "greeting", "bye")
}

func TestConflictWithAnImmutableField(t *testing.T) {
	t.Parallel()
	w := newWorld(t, twoServices)
	d := w.daemon(t.TempDir())
	d.line(0, "[2/2 done]")
	before, _ := w.deployment(t.Context(), "api")
	w.edit("services/api/api.yaml", "app: api", "app: renamed")
	w.replace("services/api/api.yaml", "greeting: hello", "greeting: bye")
	line := d.line(0, "failed dev/api", "Deployment.apps "+w.namespace+"/api", "spec.selector", "immutable")
	if strings.Contains(line, "v1.LabelSelector{") {
		t.Errorf("the message shows Go values: %s", line)
	}
	if got := w.configMap("api").Data["greeting"]; got != "hello" {
		t.Errorf("greeting is %q: the service is half applied", got)
	}
	if after, _ := w.deployment(t.Context(), "api"); after.Generation != before.Generation || after.UID != before.UID {
		t.Error("the Deployment was touched")
	}
	w.replace("services/api/api.yaml", "app: renamed", "app: api")
	w.hasData("api", "greeting", "bye")
	d.line(0, "[2/2 done]")
}

func TestDrift(t *testing.T) {
	t.Parallel()
	w := newWorld(t, strings.Replace(twoServices, "    replicas: 1,\n", "", 1))
	d := w.daemon(t.TempDir())
	d.line(0, "[2/2 done]")
	commit := w.git("rev-parse", "HEAD")

	w.patch(configMaps, "api", `{"data": {"greeting": "bye", "other": "stays"}}`)
	w.hasData("api", "greeting", "hello")
	w.hasData("api", "other", "stays")

	w.must(w.kube.CoreV1().ConfigMaps(w.namespace).Delete(t.Context(), "api", metav1.DeleteOptions{}))
	w.hasData("api", "greeting", "hello")

	deployments := resource{Group: "apps", Version: "v1", Resource: "deployments"}
	w.patch(deployments, "api", `{"spec": {"replicas": 3}}`)
	w.until("api has its replicas again", func(ctx context.Context) string {
		if x, why := w.deployment(ctx, "api"); x == nil || *x.Spec.Replicas != 1 {
			return "not yet " + why
		}
		return ""
	})
	// What the manifests don't say is somebody else's to set.
	w.patch(deployments, "web", `{"spec": {"replicas": 2}}`)
	w.until("web has two replicas", func(ctx context.Context) string {
		if x, why := w.deployment(ctx, "web"); x == nil || x.Status.AvailableReplicas != 2 {
			return "not yet " + why
		}
		return ""
	})
	mark := d.mark()
	w.must(w.kube.AppsV1().Deployments(w.namespace).Delete(t.Context(), "api", metav1.DeleteOptions{}))
	w.runs("api", "registry.example/api:1.0.0")
	d.line(mark, "[2/2 done] ready dev/api")
	x, why := w.deployment(t.Context(), "web")
	if x == nil || *x.Spec.Replicas != 2 {
		t.Errorf("the replicas of web were touched %s", why)
	}
	d.never(0, "applied dev/web 1.0.0", "0 created")
	w.comesFrom("api", commit)
}
