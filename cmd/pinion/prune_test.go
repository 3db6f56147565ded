package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// configMap returns a ConfigMap of the world's namespace.
func (w *world) configMap(name string) *corev1.ConfigMap {
	w.Helper()
	cm, err := w.kube.CoreV1().ConfigMaps(w.namespace).Get(w.Context(), name, metav1.GetOptions{})
	w.must(err)
	return cm
}

// resource is a kind by the name that the API server has for it.
type resource schema.GroupVersionResource

var (
	configMaps  = resource{Version: "v1", Resource: "configmaps"}
	claims      = resource{Version: "v1", Resource: "persistentvolumeclaims"}
	endpoints   = resource{Version: "v1", Resource: "endpoints"}
	namespaces  = resource{Version: "v1", Resource: "namespaces"}
	roles       = resource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"}
	definitions = resource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
)

// here tells whether an object exists and is not being deleted. A name is
// "name" in the world's namespace, "namespace/name", or "/name" of the
// cluster's scope.
func (w *world) here(ctx context.Context, r resource, name string) bool {
	w.Helper()
	namespace := w.namespace
	if ns, n, ok := strings.Cut(name, "/"); ok {
		namespace, name = ns, n
	}
	x, err := w.dynamic.Resource(schema.GroupVersionResource(r)).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false
	}
	w.must(err)
	return x.GetDeletionTimestamp() == nil
}

// appears waits until objects exist.
func (w *world) appears(r resource, names ...string) {
	w.Helper()
	for _, name := range names {
		w.until(r.Resource+" "+name+" appears", func(ctx context.Context) string {
			if w.here(ctx, r, name) {
				return ""
			}
			return "it is not there"
		})
	}
}

// goes waits until objects are gone or going.
func (w *world) goes(r resource, names ...string) {
	w.Helper()
	for _, name := range names {
		w.until(r.Resource+" "+name+" goes", func(ctx context.Context) string {
			if w.here(ctx, r, name) {
				return "it is still there"
			}
			return ""
		})
	}
}

// stays checks that objects exist now.
func (w *world) stays(r resource, names ...string) {
	w.Helper()
	for _, name := range names {
		if !w.here(w.Context(), r, name) {
			w.Errorf("%s %s is gone", r.Resource, name)
		}
	}
}

// eachWay runs a test twice: the daemon runs while the commit comes, or it
// starts after it, with nothing on disk.
func eachWay(t *testing.T, f func(t *testing.T, restart bool)) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		t.Run(map[bool]string{false: "running", true: "restarted"}[restart], func(t *testing.T) {
			t.Parallel()
			f(t, restart)
		})
	}
}

// across makes a change while the daemon runs or while it does not.
func (d *daemon) across(restart bool, change func()) *daemon {
	d.Helper()
	if !restart {
		change()
		return d
	}
	d.stop()
	change()
	return d.world.daemon(d.TempDir())
}

const manyKinds = `
-- environments/dev.yaml --
apiVersion: pinion.dev/v1
kind: Environment
cluster: default
namespace: NAMESPACE
pins:
  app:
    image: registry.example/app:1.0.0
  other:
    image: registry.example/other:1.0.0
-- services/app/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/app/stays.yaml --
apiVersion: v1
kind: ConfigMap
metadata: {name: stays}
---
apiVersion: v1
kind: Service
metadata: {name: front}
spec:
  selector: {app: front}
  ports: [{port: 80}]
-- services/app/goes.yaml --
apiVersion: v1
kind: ConfigMap
metadata: {name: goes}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: never, annotations: {pinion.dev/prune: never}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: precious}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: scratch, annotations: {pinion.dev/prune: allow}}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: Namespace
metadata: {name: NAMESPACE-precious}
---
apiVersion: v1
kind: Namespace
metadata: {name: NAMESPACE-scratch, annotations: {pinion.dev/prune: allow}}
---
apiVersion: v1
kind: Endpoints
metadata: {name: legacy}
subsets: [{addresses: [{ip: 192.0.2.1}], ports: [{port: 80}]}]
-- services/other/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/other/other.yaml --
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
`

func TestPruneDeletesWhatLeftTheCommit(t *testing.T) {
	eachWay(t, func(t *testing.T, restart bool) {
		w := newWorld(t, manyKinds)
		d := w.daemon(t.TempDir())
		d.line(0, "[2/2 done]")
		w.appears(endpoints, "front")
		front, err := w.kube.CoreV1().Endpoints(w.namespace).Get(t.Context(), "front", metav1.GetOptions{})
		w.must(err)
		if front.Labels["pinion.dev/service"] != "app" {
			t.Fatalf("the Endpoints of a Service have not got its labels, so this test is worth nothing: %v", front.Labels)
		}
		// Someone has copied an object of ours.
		original := w.configMap("goes")
		_, err = w.kube.CoreV1().ConfigMaps(w.namespace).Create(t.Context(), &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: "copied", Labels: original.Labels, Annotations: original.Annotations},
		}, metav1.CreateOptions{FieldManager: "someone"})
		w.must(err)

		d = d.across(restart, func() { w.push("remove", "-- services/app/goes.yaml --\n") })
		w.goes(configMaps, "goes")
		w.goes(claims, "scratch")
		w.goes(namespaces, "/"+w.namespace+"-scratch")
		w.goes(endpoints, "legacy")
		w.stays(configMaps, "stays", "never", "copied", "other")
		w.stays(claims, "precious")
		w.stays(namespaces, "/"+w.namespace+"-precious", "/"+w.namespace)
		w.stays(endpoints, "front")
		if now, _ := w.kube.CoreV1().Endpoints(w.namespace).Get(t.Context(), "front", metav1.GetOptions{}); now == nil || now.UID != front.UID {
			t.Error("the Endpoints of a Service were deleted")
		}
		d.line(0, "deleted", "goes", "no longer renders it")
	})
}

func TestPruneDeletesAServiceThatLeft(t *testing.T) {
	eachWay(t, func(t *testing.T, restart bool) {
		w := newWorld(t, manyKinds)
		d := w.daemon(t.TempDir())
		d.line(0, "[2/2 done]")
		d = d.across(restart, func() {
			w.write("-- services/other --\n")
			w.replace("environments/dev.yaml", "  other:\n    image: registry.example/other:1.0.0\n", "")
		})
		w.goes(configMaps, "other")
		w.stays(configMaps, "stays", "goes")
		d.line(0, "deleted dev/other", "no services/other")
	})
}

func TestPruneWaitsForTheRollout(t *testing.T) {
	t.Parallel()
	// web does not wait for api: what leaves it goes while api is not ready.
	w := newWorld(t, strings.NewReplacer("behavior-0.0.0-broken: image-pull-error", "behavior-2.0.0: never-ready", "dependsOn: [api]\n", "").Replace(twoServices))
	d := w.daemon(t.TempDir())
	d.line(0, "[2/2 done]")
	mark := d.mark()
	w.replace("services/api/api.yaml", "kind: ConfigMap\nmetadata: {name: api}", "kind: ConfigMap\nmetadata: {name: renamed}")
	w.goes(configMaps, "api")
	// The next one does not complete its rollout, so the old one stays.
	w.write("-- services/web/main.jsonnet --\n-- services/web/main.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\n")
	w.replace("services/api/api.yaml", "name: renamed", "name: again")
	d.line(mark, "deleted dev/web", "Deployment.apps")
	w.goes(configMaps, "renamed")
	mark = d.mark()
	w.write("-- services/web/main.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: web2}\n")
	w.replace("environments/dev.yaml", "api:1.0.0", "api:2.0.0")
	w.replace("services/api/api.yaml", "name: again", "name: last")
	w.appears(configMaps, "last")
	d.line(mark, "deleted dev/web", "ConfigMap")
	w.stays(configMaps, "again", "last")
	w.replace("environments/dev.yaml", "api:2.0.0", "api:3.0.0")
	w.goes(configMaps, "again")
}

const twoEnvironments = `
-- environments/dev.yaml --
apiVersion: pinion.dev/v1
kind: Environment
cluster: default
namespace: NAMESPACE
parameters: {names: [a, b]}
pins:
  app:
    image: registry.example/app:1.0.0
-- environments/stage.yaml --
apiVersion: pinion.dev/v1
kind: Environment
cluster: default
namespace: NAMESPACE-stage
parameters: {names: [a, b, c]}
pins:
  app:
    image: registry.example/app:1.0.0
-- services/app/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/app/main.jsonnet --
function(pinion) [
  { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: name } }
  for name in pinion.parameters.names
] + [{
  apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'ClusterRole',
  metadata: { name: 'NAMESPACE-' + pinion.environment },
  rules: [],
}]
`

func TestPruneDeletesNothingOfABrokenEnvironment(t *testing.T) {
	eachWay(t, func(t *testing.T, restart bool) {
		w := newWorld(t, twoEnvironments)
		d := w.daemon(t.TempDir())
		d.line(0, "[2/2 done]")
		stage := w.namespace + "-stage/"
		d = d.across(restart, func() {
			w.write("-- environments/dev.yaml --\napiVersion: pinion.dev/v1\nkind: Environment\n\tcluster: default\n")
			w.replace("environments/stage.yaml", "a, b, c", "a, b")
		})
		d.line(0, "environments/dev.yaml:2")
		w.goes(configMaps, stage+"c")
		w.replace("environments/stage.yaml", "a, b", "a")
		w.goes(configMaps, stage+"b")
		w.stays(configMaps, "a", "b", stage+"a")
		w.stays(roles, "/"+w.namespace+"-dev", "/"+w.namespace+"-stage")
		d.never(0, "deleted dev/")
	})
}

func TestPruneDeletesARemovedEnvironment(t *testing.T) {
	eachWay(t, func(t *testing.T, restart bool) {
		w := newWorld(t, twoEnvironments)
		d := w.daemon(t.TempDir())
		d.line(0, "[2/2 done]")
		d = d.across(restart, func() { w.push("remove", "-- environments/stage.yaml --\n") })
		stage := w.namespace + "-stage"
		w.goes(configMaps, stage+"/a", stage+"/b", stage+"/c")
		w.goes(roles, "/"+stage)
		w.stays(configMaps, "a", "b")
		w.stays(roles, "/"+w.namespace+"-dev")
		w.stays(namespaces, "/"+stage)
		d.line(0, "deleted stage/app", "no environments/stage.yaml")
	})
}

func TestPruneFollowsAMovedNamespace(t *testing.T) {
	eachWay(t, func(t *testing.T, restart bool) {
		w := newWorld(t, twoEnvironments)
		d := w.daemon(t.TempDir())
		d.line(0, "[2/2 done]")
		role, err := w.kube.RbacV1().ClusterRoles().Get(t.Context(), w.namespace+"-dev", metav1.GetOptions{})
		w.must(err)
		d = d.across(restart, func() {
			w.replace("environments/dev.yaml", "namespace: "+w.namespace, "namespace: "+w.namespace+"-moved")
		})
		moved := w.namespace + "-moved/"
		w.goes(configMaps, "a", "b")
		w.stays(configMaps, moved+"a", moved+"b")
		// What belongs to no namespace has not moved.
		w.replace("environments/dev.yaml", "[a, b]", "[a]")
		w.goes(configMaps, moved+"b")
		now, err := w.kube.RbacV1().ClusterRoles().Get(t.Context(), w.namespace+"-dev", metav1.GetOptions{})
		if err != nil || now.UID != role.UID {
			t.Errorf("the ClusterRole was deleted: %v", err)
		}
		d.never(0, "deleted", "ClusterRole")
	})
}

const manyObjects = `
-- environments/dev.yaml --
apiVersion: pinion.dev/v1
kind: Environment
cluster: default
namespace: NAMESPACE
parameters: {count: 14}
pins:
  app:
    image: registry.example/app:1.0.0
-- environments/other.yaml --
apiVersion: pinion.dev/v1
kind: Environment
cluster: default
namespace: NAMESPACE-other
parameters: {count: 2}
pins:
  app:
    image: registry.example/app:1.0.0
-- services/app/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/app/main.jsonnet --
function(pinion) [
  { apiVersion: 'v1', kind: 'Secret', metadata: { name: 's%d' % i } }
  for i in std.range(1, pinion.parameters.count)
]
`

var confirmation = regexp.MustCompile(`(pinion apply (\w+) --confirm-prune ([0-9a-f]+))`)

// secrets returns the names of the Secrets in the world's namespace.
func (w *world) secrets() []string {
	w.Helper()
	list, err := w.kube.CoreV1().Secrets(w.namespace).List(w.Context(), metav1.ListOptions{})
	w.must(err)
	var names []string
	for _, s := range list.Items {
		if s.DeletionTimestamp == nil {
			names = append(names, s.Name)
		}
	}
	slices.Sort(names)
	return names
}

// halts waits until the daemon wants a confirmation, and returns its digest.
func (d *daemon) halts(from int, words ...string) string {
	d.Helper()
	line := d.line(from, append(words, "halted", "--confirm-prune")...)
	return confirmation.FindStringSubmatch(line)[3]
}

func TestPruneGuardIsConfirmedByApply(t *testing.T) {
	eachWay(t, func(t *testing.T, restart bool) {
		w := newWorld(t, manyObjects)
		d := w.daemon(t.TempDir())
		d.line(0, "[2/2 done]")
		d = d.across(restart, func() { w.replace("environments/dev.yaml", "count: 14", "count: 2") })
		digest := d.halts(0, "12 of the 14 objects of environment dev would be deleted")
		if got := len(w.secrets()); got != 14 {
			t.Errorf("%d of 14 objects are left before the deletion is confirmed", got)
		}
		_, stderr, code := w.pinion("apply", "dev")
		if code != exitRefused || !strings.Contains(stderr, "pinion apply dev --confirm-prune "+digest) {
			t.Errorf("apply ends with %d, and says:\n%s", code, stderr)
		}
		if _, _, code := w.pinion("apply", "dev", "--confirm-prune", "0123456789ab"); code != exitRefused {
			t.Errorf("apply with another digest ends with %d", code)
		}
		if got := len(w.secrets()); got != 14 {
			t.Errorf("%d of 14 objects are left before the deletion is confirmed", got)
		}
		if _, stderr, code := w.pinion("apply", "dev", "--confirm-prune", digest); code != exitOK {
			t.Errorf("apply with the digest ends with %d, and says:\n%s", code, stderr)
		}
		if got := w.secrets(); !slices.Equal(got, []string{"s1", "s2"}) {
			t.Errorf("left are %v", got)
		}
		// The daemon has nothing to wait for any more, and goes on.
		w.replace("environments/dev.yaml", "count: 2", "count: 1")
		w.goes(resource{Version: "v1", Resource: "secrets"}, "s2")
	})
}

func TestPruneGuardIsConfirmedByAnnotation(t *testing.T) {
	eachWay(t, func(t *testing.T, restart bool) {
		w := newWorld(t, manyObjects)
		d := w.daemon(t.TempDir())
		d.line(0, "[2/2 done]")
		d = d.across(restart, func() { w.replace("environments/dev.yaml", "count: 14", "count: 2") })
		digest := d.halts(0)
		annotate := func(digest string) {
			_, err := w.kube.CoreV1().ConfigMaps(w.namespace).Patch(t.Context(), "pinion-dev", types.MergePatchType,
				fmt.Appendf(nil, `{"metadata": {"annotations": {"pinion.dev/confirm-prune": %q}}}`, digest), metav1.PatchOptions{FieldManager: "kubectl-annotate"})
			w.must(err)
		}
		annotate("0123456789ab")
		annotate(digest)
		for i := 3; i <= 14; i++ {
			w.goes(resource{Version: "v1", Resource: "secrets"}, fmt.Sprintf("s%d", i))
		}
		if got := w.secrets(); !slices.Equal(got, []string{"s1", "s2"}) {
			t.Errorf("left are %v", got)
		}
	})
}

func TestPruneGuardHoldsForARemovedEnvironment(t *testing.T) {
	eachWay(t, func(t *testing.T, restart bool) {
		w := newWorld(t, manyObjects)
		d := w.daemon(t.TempDir())
		d.line(0, "[2/2 done]")
		d = d.across(restart, func() { w.push("remove", "-- environments/dev.yaml --\n") })
		digest := d.halts(0, "14 of the 14 objects of environment dev")
		if _, stderr, code := w.pinion("apply", "dev"); code == exitOK {
			t.Errorf("apply of a removed environment ends with 0:\n%s", stderr)
		}
		if got := len(w.secrets()); got != 14 {
			t.Errorf("%d of 14 objects are left before the deletion is confirmed", got)
		}
		if _, stderr, code := w.pinion("apply", "dev", "--confirm-prune", digest); code != exitOK {
			t.Errorf("apply with the digest ends with %d, and says:\n%s", code, stderr)
		}
		if got := w.secrets(); len(got) != 0 {
			t.Errorf("left are %v", got)
		}
	})
}

// An object that a service of another repository has is not ours to prune.
func TestPruneLeavesOtherRepositoriesAlone(t *testing.T) {
	t.Parallel()
	one := newWorld(t, twoEnvironments)
	d := one.daemon(t.TempDir())
	d.line(0, "[2/2 done]")
	d.stop()
	other := newWorld(t, twoEnvironments)
	d = other.daemon(t.TempDir())
	d.line(0, "[2/2 done]")
	other.replace("environments/dev.yaml", "[a, b]", "[a]")
	other.goes(configMaps, "b")
	other.push("remove", "-- environments/stage.yaml --\n")
	other.goes(roles, "/"+other.namespace+"-stage")
	one.stays(roles, "/"+one.namespace+"-stage", "/"+one.namespace+"-dev")
	one.stays(configMaps, "a", "b")
	one.stays(configMaps, one.namespace+"-stage/a", one.namespace+"-stage/c")
}

// What was pruned and hangs on a finalizer is told, with the finalizer's name
// and since when; it holds nothing up, and goes when that is removed.
func TestPruneNamesAFinalizer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settingsOf(2, "app", "other"))
	d := w.daemon(t.TempDir())
	d.line(0, "[2/2 done]")
	w.hold("app-1")
	mark := d.mark()
	w.push("remove", "-- services/app/app.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: app-0}\ndata: {greeting: hello}\n")
	d.line(mark, "deleted", "app-1")
	w.greet("goodbye", "other")
	w.hasData("other-0", "greeting", "goodbye")
	d.line(mark, "warning", "ConfigMap "+w.namespace+"/app-1: it is being deleted since 20", "shop.example/hold")
	stdout, stderr, code := w.pinion("status", "dev", "--live")
	if code != 0 || !strings.Contains(stderr, "app-1: it is being deleted since") || !strings.Contains(stderr, "shop.example/hold") {
		t.Errorf("status --live ends with %d: %s%s", code, stdout, stderr)
	}
	w.release("app-1")
	w.goes(configMaps, "app-1")
	stdout, stderr, code = w.pinion("status", "dev", "--live")
	if code != 0 || strings.Contains(stderr, "app-1") {
		t.Errorf("status --live ends with %d: %s%s", code, stdout, stderr)
	}
}
