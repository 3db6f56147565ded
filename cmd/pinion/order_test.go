package main

import (
	"context"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// kind is a CustomResourceDefinition; GROUP, KIND and SCOPE stand for its own.
const kind = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: KINDs.NAMESPACE.example}
spec:
  group: NAMESPACE.example
  scope: SCOPE
  names: {kind: KIND, plural: KINDs, singular: KIND, listKind: KINDList}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

// kindNamed returns a definition; kinds of this test are written in small
// letters, so that one word serves for all of its names.
func kindNamed(name, scope string) string {
	return strings.NewReplacer("KIND", name, "SCOPE", scope).Replace(kind)
}

// of is the resource of a kind of the world's own group.
func (w *world) of(kind string) resource {
	return resource{Group: w.namespace + ".example", Version: "v1", Resource: kind + "s"}
}

func environment(name, namespace string, services ...string) string {
	s := "-- environments/" + name + ".yaml --\napiVersion: pinion.dev/v1\nkind: Environment\ncluster: default\nnamespace: " + namespace + "\npins:\n"
	for _, v := range services {
		s += "  " + v + ":\n    image: registry.example/" + v + ":1.0.0\n"
	}
	for _, v := range services {
		s += "-- services/" + v + "/service.yaml --\napiVersion: pinion.dev/v1\nkind: Service\n"
	}
	return s
}

func TestOrderWithinAService(t *testing.T) {
	t.Parallel()
	w := newWorld(t, environment("dev", "NAMESPACE", "app")+`
-- services/app/a.yaml --
apiVersion: NAMESPACE.example/v1
kind: gadget
metadata: {name: first}
---
apiVersion: NAMESPACE.example/v1
kind: global
metadata: {name: second}
---
apiVersion: v1
kind: Namespace
metadata: {name: NAMESPACE-own}
---
`+kindNamed("gadget", "Namespaced")+"---\n"+kindNamed("global", "Cluster"))
	// What is shown before is what an apply would create.
	stdout, stderr, code := w.pinion("diff", "dev")
	for _, want := range []string{"gadget.", "global.", "Namespace " + w.namespace + "-own"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("diff does not show %s:\n%s%s", want, stdout, stderr)
		}
	}
	if code != exitDifferent {
		t.Errorf("diff ends with %d: %s", code, stderr)
	}
	d := w.daemon(t.TempDir())
	d.line(0, "[1/1 done] ready dev/app")
	w.stays(w.of("gadget"), "first")
	w.stays(w.of("global"), "/second")
	w.stays(namespaces, "/"+w.namespace+"-own")
	d.never(0, "failed")
	if _, stderr, code := w.pinion("diff", "dev"); code != exitOK {
		t.Errorf("diff ends with %d after all was applied: %s", code, stderr)
	}
}

func TestOrderAcrossServices(t *testing.T) {
	t.Parallel()
	// By name, the service with the objects comes before that with their kinds.
	w := newWorld(t, environment("dev", "NAMESPACE", "app", "operator")+`
-- services/app/app.yaml --
apiVersion: NAMESPACE.example/v1
kind: gadget
metadata: {name: first}
---
apiVersion: NAMESPACE.example/v1
kind: global
metadata: {name: NAMESPACE-second}
-- services/app/more.yaml --
apiVersion: v1
kind: ConfigMap
metadata: {name: more}
-- services/operator/kinds.yaml --
`+kindNamed("gadget", "Namespaced")+"---\n"+kindNamed("global", "Cluster"))
	d := w.daemon(t.TempDir())
	d.line(0, "[2/2 done]")
	w.stays(w.of("gadget"), "first")
	w.stays(w.of("global"), "/"+w.namespace+"-second")
	// That the second kind lies in no namespace was not known when it was
	// rendered; it is no leftover for that.
	w.push("remove", "-- services/app/more.yaml --\n")
	w.goes(configMaps, "more")
	w.stays(w.of("global"), "/"+w.namespace+"-second")
	d.never(0, "deleted", "global")
	if stdout, stderr, code := w.pinion("diff", "dev"); code != exitOK {
		t.Errorf("diff ends with %d: %s%s", code, stdout, stderr)
	}
}

func TestOrderOfDependencies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, strings.ReplaceAll(twoServices, "devcluster.pinion.dev/behavior-0.0.0-broken: image-pull-error", "devcluster.pinion.dev/behavior: ready-after=2s"))
	d := w.daemon(t.TempDir())
	d.line(0, "blocked dev/web 1.0.0: waits for api, which is progressing")
	d.line(0, "[2/2 done]")
	lines := d.said(0)
	ready := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "ready dev/api") })
	applied := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "applied dev/web") })
	if ready > applied {
		t.Error("web was applied before api was ready")
	}
}

func TestOrderBlocksBehindAFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t, strings.NewReplacer("timeout: 60s", "timeout: 2s", "api:1.0.0", "api:0.0.0-broken").Replace(twoServices))
	d := w.daemon(t.TempDir())
	d.line(0, "failed dev/api 0.0.0-broken")
	d.line(0, "blocked dev/web 1.0.0: waits for api, which is failed (rollout", "ImagePullBackOff")
	if x, _ := w.deployment(t.Context(), "web"); x != nil {
		t.Error("web is there, though what it needs is not")
	}
	stdout, _, code := w.pinion("status", "--live", "dev")
	if code != exitDifferent || !strings.Contains(stdout, "ImagePullBackOff") {
		t.Errorf("status ends with %d:\n%s", code, stdout)
	}
	w.replace("environments/dev.yaml", "api:0.0.0-broken", "api:1.0.0")
	w.runs("web", "registry.example/web:1.0.0")
	d.line(0, "[2/2 done]")
	if stdout, _, code := w.pinion("status", "--live", "dev"); code != exitOK {
		t.Errorf("status ends with %d:\n%s", code, stdout)
	}
}

func TestOrderOfItsOwnNamespace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, environment("dev", "NAMESPACE", "app")+`
-- services/app/app.yaml --
apiVersion: v1
kind: ConfigMap
metadata: {name: app}
---
apiVersion: v1
kind: Namespace
metadata: {name: NAMESPACE, labels: {team: shop}}
`)
	d := w.daemon(t.TempDir())
	d.line(0, "[1/1 done] ready dev/app")
	ns, err := w.kube.CoreV1().Namespaces().Get(t.Context(), w.namespace, metav1.GetOptions{})
	w.must(err)
	if ns.Labels["team"] != "shop" {
		t.Errorf("the namespace has the labels %v", ns.Labels)
	}
	w.stays(configMaps, "app")
}

// dependent returns a service with one Deployment of its name, which depends on
// others.
func dependent(name string, behavior string, on ...string) string {
	s := "-- services/" + name + "/service.yaml --\napiVersion: pinion.dev/v1\nkind: Service\nrollout: {timeout: 60s}\n"
	if len(on) > 0 {
		s += "dependsOn: [" + strings.Join(on, ", ") + "]\n"
	}
	return s + strings.NewReplacer("NAME", name, "BEHAVIOR", behavior).Replace(`-- services/NAME/NAME.yaml --
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME}
spec:
  replicas: 1
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}, annotations: {BEHAVIOR}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, image: NAME}]}
`)
}

// In a diamond, both sides wait for the one at its foot, and the one at its top
// for both sides.
func TestOrderInADiamond(t *testing.T) {
	t.Parallel()
	slow := "devcluster.pinion.dev/behavior: ready-after=2s"
	w := newWorld(t, environment("dev", "NAMESPACE", "a", "b", "c", "d")+
		dependent("a", slow)+dependent("b", slow, "a")+dependent("c", "", "a")+dependent("d", "", "b", "c"))
	d := w.daemon(t.TempDir())
	d.line(0, "blocked dev/b", "waits for a, which is")
	d.line(0, "blocked dev/c", "waits for a, which is")
	d.line(0, "blocked dev/d", "waits for b, which is", " and for c, which is")
	d.line(0, "blocked dev/d", "waits for b, which is progressing")
	d.line(0, "[4/4 done]")
	lines := d.said(0)
	at := func(words string) int {
		return slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, words) })
	}
	for _, edge := range [][2]string{{"a", "b"}, {"a", "c"}, {"b", "d"}, {"c", "d"}} {
		if ready, applied := at("ready dev/"+edge[0]+" "), at("applied dev/"+edge[1]+" "); ready < 0 || applied < ready {
			t.Errorf("%s was applied before %s was ready", edge[1], edge[0])
		}
	}
}

// Who waits at the end of a chain is told what the first of it suffers from.
func TestOrderTellsTheChainOfReasons(t *testing.T) {
	t.Parallel()
	w := newWorld(t, environment("dev", "NAMESPACE", "a", "b", "c")+
		dependent("a", "devcluster.pinion.dev/behavior: image-pull-error")+dependent("b", "", "a")+dependent("c", "", "b"))
	d := w.daemon(t.TempDir())
	d.line(0, "blocked dev/c", "waits for b, which is blocked (waits for a, which is progressing (", "ImagePullBackOff")
	w.replace("services/a/a.yaml", "image-pull-error", "run")
	d.line(0, "[3/3 done]")
}

// Objects of a kind that another service brings wait for the service, and need
// no second attempt.
func TestOrderOfADefinition(t *testing.T) {
	t.Parallel()
	w := newWorld(t, environment("dev", "NAMESPACE", "app", "operator")+`
-- services/app/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
dependsOn: [operator]
-- services/app/app.yaml --
apiVersion: NAMESPACE.example/v1
kind: gadget
metadata: {name: first}
`+dependent("operator", "devcluster.pinion.dev/behavior: ready-after=2s")+"-- services/operator/kinds.yaml --\n"+kindNamed("gadget", "Namespaced"))
	d := w.daemon(t.TempDir())
	d.line(0, "blocked dev/app", "waits for operator")
	d.line(0, "[2/2 done]")
	w.stays(w.of("gadget"), "first")
	d.never(0, "failed dev/app")
	// The resource has to be gone before the operator and its kind.
	gadgets := w.dynamic.Resource(schema.GroupVersionResource(w.of("gadget"))).Namespace(w.namespace)
	finalizers := func(now string) {
		gadgets.Patch(context.Background(), "first", types.MergePatchType, []byte(`{"metadata":{"finalizers":`+now+`}}`), metav1.PatchOptions{})
	}
	t.Cleanup(func() { finalizers("null") })
	finalizers(`["shop.example/operator"]`)
	mark := d.mark()
	w.push("remove", "-- environments/dev.yaml --\n")
	d.line(mark, "warning", "first: it is being deleted", "shop.example/operator", "what leaves service operator, on which it depended, goes after it")
	w.stays(deployments, "operator")
	finalizers("null")
	w.goes(deployments, "operator")
}
