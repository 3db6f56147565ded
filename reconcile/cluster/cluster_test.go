package cluster_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/internal/devtest"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

func TestMain(m *testing.M) { os.Exit(devtest.Main(m)) }

const (
	patience = 30 * time.Second
	commit   = "4f1c2aa90b7e4f1c2aa90b7e4f1c2aa90b7e4f1c"
)

// stand is one environment in a namespace of its own, seen through one Cluster.
type stand struct {
	*testing.T
	c         *cluster.Cluster
	ctx       context.Context
	scope     cluster.Scope
	namespace string
	config    *rest.Config
	admin     dynamic.Interface // another manager: kubectl, say
}

func restConfig(t *testing.T, kubeconfig string) *rest.Config {
	t.Helper()
	config, _, err := cluster.FromKubeconfig(kubeconfig, "")
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func connect(t *testing.T, config *rest.Config) *cluster.Cluster {
	t.Helper()
	c, err := cluster.Connect(t.Context(), cluster.Config{
		Name: "test", REST: config, Repository: "https://git.example/deploy.git", Timeout: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// newStand makes a stand on a control plane; "" means the shared one.
func newStand(t *testing.T, kubeconfig string) *stand {
	t.Helper()
	if kubeconfig == "" {
		kubeconfig = devtest.Cluster(t)
	}
	config := restConfig(t, kubeconfig)
	plain := rest.CopyConfig(config)
	plain.QPS = -1
	admin, err := dynamic.NewForConfig(plain)
	if err != nil {
		t.Fatal(err)
	}
	// Names of environments are the cluster's, not the namespace's.
	name := fmt.Sprintf("t%x", sha256.Sum256([]byte(t.Name()+time.Now().String())))[:16]
	s := &stand{T: t, ctx: t.Context(), scope: cluster.Scope{Environment: desired.EnvironmentName(name), Namespace: name}, namespace: name, config: config, admin: admin}
	s.c = connect(t, config)
	if err := s.c.EnsureNamespace(s.ctx, name); err != nil {
		t.Fatal(err)
	}
	return s
}

// object renders an object from YAML, as service web.
func (s *stand) object(manifest string) render.Object {
	s.Helper()
	var m map[string]any
	if err := yaml.Unmarshal([]byte(manifest), &m); err != nil {
		s.Fatal(err)
	}
	u := unstructured.Unstructured{Object: m}
	gvk := u.GroupVersionKind()
	ref := render.Ref{Group: gvk.Group, Kind: gvk.Kind, Name: u.GetName()}
	if !slices.Contains([]string{"Namespace", "CustomResourceDefinition", "ClusterRole"}, gvk.Kind) {
		if u.GetNamespace() == "" {
			u.SetNamespace(s.namespace)
		}
		ref.Namespace = u.GetNamespace()
	}
	labels := u.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels[render.LabelManagedBy] = render.ManagedBy
	labels[render.LabelEnvironment] = string(s.scope.Environment)
	labels[render.LabelService] = "web"
	u.SetLabels(labels)
	data, err := json.Marshal(m)
	if err != nil {
		s.Fatal(err)
	}
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(data))
	annotations := u.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[render.AnnotationDigest] = digest
	u.SetAnnotations(annotations)
	if data, err = json.Marshal(m); err != nil {
		s.Fatal(err)
	}
	return render.Object{Ref: ref, Version: gvk.Version, JSON: data, Digest: digest}
}

func (s *stand) objects(manifests string) []render.Object {
	s.Helper()
	var all []render.Object
	for _, m := range strings.Split(manifests, "\n---\n") {
		all = append(all, s.object(m))
	}
	return all
}

// apply does what the engine does.
func (s *stand) apply(objects ...render.Object) []cluster.Applied {
	s.Helper()
	if err := s.c.Enroll(s.ctx, s.scope, objects); err != nil {
		s.Fatal(err)
	}
	if err := s.c.WatchObjects(s.ctx, s.scope, objects); err != nil {
		s.Fatal(err)
	}
	var all []cluster.Applied
	for _, o := range objects {
		if err := s.c.DryRun(s.ctx, o, commit, cluster.ApplyOptions{}); err != nil {
			s.Fatal(err)
		}
		a, err := s.c.Apply(s.ctx, o, commit, cluster.ApplyOptions{})
		if err != nil {
			s.Fatal(err)
		}
		all = append(all, a)
	}
	return all
}

// until waits for Changes until good returns "".
func (s *stand) until(c *cluster.Cluster, good func() string) {
	s.Helper()
	deadline := time.After(patience)
	for {
		why := good()
		if why == "" {
			return
		}
		select {
		case <-c.Changes():
		case <-deadline:
			s.Fatalf("after %s: %s", patience, why)
		}
	}
}

// untilSeen waits for what no change is told of.
func (s *stand) untilSeen(good func() string) {
	s.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		why := good()
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			s.Fatalf("after %s: %s", patience, why)
		}
	}
}

func (s *stand) look(c *cluster.Cluster, o render.Object) (cluster.Observed, bool) {
	found, ok := c.Lookup([]render.Object{o})[o.Ref]
	return found, ok
}

func (s *stand) untilHealthy(c *cluster.Cluster, objects ...render.Object) {
	s.Helper()
	s.until(c, func() string {
		for _, o := range objects {
			if have, _ := s.look(c, o); have.Health.Status != cluster.Current {
				return fmt.Sprintf("%s is %+v", o.Ref, have.Health)
			}
		}
		return ""
	})
}

func (s *stand) admins(group, version, resource string) dynamic.ResourceInterface {
	return s.admin.Resource(schema.GroupVersionResource{Group: group, Version: version, Resource: resource}).Namespace(s.namespace)
}

// edit patches as kubectl edit does.
func (s *stand) edit(r dynamic.ResourceInterface, name, patch string) {
	s.Helper()
	if _, err := r.Patch(s.ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: "kubectl-edit"}); err != nil {
		s.Fatal(err)
	}
}

func requests(c *cluster.Cluster) string { return fmt.Sprint(c.Requests()) }

const many = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {a: "1", b: "2"}
---
apiVersion: v1
kind: Secret
metadata: {name: key}
data: {password: aHVudGVyMg==}
stringData: {token: abc}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: web}
rules:
- {apiGroups: [""], resources: [pods], verbs: [get]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports:
  - {name: http, port: 80}
  - {name: dns, port: 53, protocol: UDP, targetPort: dns}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, creationTimestamp: null}
    spec:
      nodeSelector: {}
      containers:
      - name: web
        image: registry.k8s.io/pause:3.10
        args: [a, b]
        env: [{name: A, value: "1"}, {name: B, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        ports: [{containerPort: 80}, {containerPort: 53, protocol: UDP}]
        resources: {limits: {cpu: "1", memory: 64Mi}}
        envFrom: []
        volumeDevices: []
        volumeMounts: [{name: tmp, mountPath: /tmp}]
      volumes: [{name: tmp, emptyDir: {}}]
      imagePullSecrets: []
      tolerations: []
      securityContext: {}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  rules:
  - host: shop.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 50%, selector: {matchLabels: {app: web}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  minReplicas: 2
  maxReplicas: 4
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: other}
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: night}
spec:
  schedule: "0 3 * * *"
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: x, image: registry.k8s.io/pause:3.10}]}}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]}`

// Whatever is applied is in sync, here and for the next process, and looking
// at it costs no request.
func TestApply(t *testing.T) {
	s := newStand(t, "")
	objects := s.objects(strings.TrimPrefix(many, "\n"))
	before := s.c.Requests()
	for _, a := range s.apply(objects...) {
		if !a.Created || !a.Changed || !a.Owned {
			t.Errorf("%s: created %v, changed %v, owned %v", a.Ref, a.Created, a.Changed, a.Owned)
		}
	}
	after := s.c.Requests()
	if n := after["apply"] - before["apply"]; n != uint64(len(objects)) {
		t.Errorf("%d objects took %d applies", len(objects), n)
	}
	if n := after["get"] - before["get"]; n > 1 { // the inventory
		t.Errorf("%d GETs: %v", n, after)
	}
	if n := after["create"] + after["patch"] - before["create"] - before["patch"]; n != 1 {
		t.Errorf("the inventory was written %d times", n)
	}
	var waitFor []render.Object
	for _, o := range objects {
		if o.Ref.Kind != "HorizontalPodAutoscaler" { // has no metrics here
			waitFor = append(waitFor, o)
		}
	}
	s.untilHealthy(s.c, waitFor...)
	for _, a := range s.apply(objects...) {
		if a.Created || a.Changed {
			t.Errorf("%s: the second apply created %v, changed %v", a.Ref, a.Created, a.Changed)
		}
	}

	again := connect(t, s.config)
	inv, err := again.Inventory(s.ctx, s.scope)
	if err != nil {
		t.Fatal(err)
	}
	if len(inv.Kinds) != len(objects) || !inv.Found || inv.Repository != "https://git.example/deploy.git" {
		t.Errorf("inventory: %+v", inv)
	}
	if err := again.Watch(s.ctx, s.scope, inv.Kinds); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*cluster.Cluster{s.c, again} {
		seen := c.Observe(s.scope)
		if !seen.Complete {
			t.Errorf("not complete: %q", seen.Incomplete)
		}
		sent := requests(c)
		for _, o := range objects {
			have, ok := seen.Objects[o.Ref]
			switch {
			case !ok:
				t.Errorf("%s is not seen", o.Ref)
			case !have.Owned || have.Service != "web" || have.Commit != commit:
				t.Errorf("%s: %+v", o.Ref, have)
			case !cluster.InSync(have, o):
				t.Errorf("%s is not in sync: %s", o.Ref, have.Fields.Value())
			}
		}
		if err := c.WatchObjects(s.ctx, s.scope, objects); err != nil {
			t.Error(err)
		}
		if err := c.Enroll(s.ctx, s.scope, objects); err != nil {
			t.Error(err)
		}
		if err := c.EnsureNamespace(s.ctx, s.namespace); err != nil && c == s.c {
			t.Error(err)
		}
		if c == s.c && requests(c) != sent {
			t.Errorf("looking at what is in sync sent requests: before %s, after %s", sent, requests(c))
		}
	}
}

// Fields that another manager changes are found by the watch, and after a
// restart; what we never set is no drift.
func TestDrift(t *testing.T) {
	s := newStand(t, "")
	objects := s.objects(strings.TrimPrefix(many, "\n"))
	s.apply(objects...)
	cm := s.admins("", "v1", "configmaps")
	deployments := s.admins("apps", "v1", "deployments")
	for _, test := range []struct {
		name   string
		ref    string
		change func()
		drift  bool
	}{
		{"an own label", "ConfigMap", func() { s.edit(cm, "settings", `{"metadata":{"labels":{"team":"a"}},"data":{"c":"3"}}`) }, false},
		{"replicas", "Deployment.apps", func() { s.edit(deployments, "web", `{"spec":{"replicas":1}}`) }, true},
		{"a value", "ConfigMap", func() { s.edit(cm, "settings", `{"data":{"a":"9"}}`) }, true},
		{"a list that we left empty", "Deployment.apps", func() {
			s.edit(deployments, "web", `{"spec":{"template":{"spec":{"tolerations":[{"key":"x","operator":"Exists"}]}}}}`)
		}, true},
		{"a label of ours", "Service", func() {
			s.edit(s.admins("", "v1", "services"), "web", `{"metadata":{"labels":{"pinion.dev/service":"api"}}}`)
		}, true},
		{"a Secret's value", "Secret", func() { s.edit(s.admins("", "v1", "secrets"), "key", `{"data":{"password":"eA=="}}`) }, true},
		{"a value that was given as text", "Secret", func() { s.edit(s.admins("", "v1", "secrets"), "key", `{"data":{"token":"eA=="}}`) }, true},
		{"a rule", "Role.rbac.authorization.k8s.io", func() {
			s.edit(s.admins("rbac.authorization.k8s.io", "v1", "roles"), "web", `{"rules":[]}`)
		}, true},
		{"a container's image", "Deployment.apps", func() {
			if _, err := deployments.Patch(s.ctx, "web", types.StrategicMergePatchType, []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"other"}]}}}}`), metav1.PatchOptions{FieldManager: "kubectl-set"}); err != nil {
				t.Fatal(err)
			}
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := slices.IndexFunc(objects, func(o render.Object) bool { return strings.HasPrefix(o.Ref.String(), test.ref+" ") })
			o := objects[i]
			before, _ := s.look(s.c, o)
			if _, err := s.c.Apply(s.ctx, o, commit, cluster.ApplyOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
			if have, _ := s.look(s.c, o); !cluster.InSync(have, o) {
				t.Fatal("not in sync before")
			}
			test.change()
			seen := func() string {
				have, ok := s.look(s.c, o)
				if !ok || have.ResourceVersion == before.ResourceVersion || have.Health.Message == "applied, not yet observed" {
					return "no event"
				}
				if test.drift && cluster.InSync(have, o) {
					return "drift not found: " + have.Fields.Value()
				}
				return ""
			}
			if test.drift {
				s.until(s.c, seen)
			} else {
				s.untilSeen(seen) // nobody needs to look again
			}
			again := connect(t, s.config)
			if err := again.WatchObjects(s.ctx, s.scope, objects); err != nil {
				t.Fatal(err)
			}
			have, _ := s.look(again, o)
			if cluster.InSync(have, o) == test.drift {
				t.Errorf("after a restart: drift is %v: %s", !test.drift, have.Fields.Value())
			}
		})
	}
}

// A free map whose only field is taken over, or taken out, by another is the
// case in which a leaf of the field set could mean both.
func TestDriftInFreeMap(t *testing.T) {
	s := newStand(t, "")
	group := s.namespace + ".example"
	crd := s.object(strings.ReplaceAll(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.GROUP}
spec:
  group: GROUP
  scope: Namespaced
  names: {kind: Thing, plural: things, singular: thing}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}`, "GROUP", group))
	thing := s.object("apiVersion: " + group + "/v1\nkind: Thing\nmetadata: {name: x}\nspec: {map: {only: 1}, list: [{a: b}], empty: {}}")
	s.foundation(crd, thing)
	if _, err := s.c.Apply(s.ctx, thing, commit, cluster.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	things := s.admins(group, "v1", "things")
	for _, patch := range []string{`{"spec":{"map":{"only":2}}}`, `{"spec":{"map":{"only":null}}}`} {
		if _, err := s.c.Apply(s.ctx, thing, commit, cluster.ApplyOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
		if have, ok := s.look(s.c, thing); !ok || !cluster.InSync(have, thing) {
			t.Fatalf("applied, but not in sync: %v %+v", ok, have)
		}
		s.edit(things, "x", patch)
		s.until(s.c, func() string {
			if have, _ := s.look(s.c, thing); cluster.InSync(have, thing) {
				return "drift not found after " + patch + ": " + have.Fields.Value()
			}
			return ""
		})
	}
}

// foundation applies a definition and waits for it.
func (s *stand) foundation(crd render.Object, others ...render.Object) {
	s.Helper()
	all := append([]render.Object{crd}, others...)
	if err := s.c.Enroll(s.ctx, s.scope, all); err != nil {
		s.Fatal(err)
	}
	if err := s.c.WatchObjects(s.ctx, s.scope, all); err != nil {
		s.Fatal(err)
	}
	if _, err := s.c.Apply(s.ctx, crd, commit, cluster.ApplyOptions{}); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		s.admin.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}).
			Delete(context.Background(), crd.Ref.Name, metav1.DeleteOptions{})
	})
	if err := s.c.Established(s.ctx, all); err != nil {
		s.Fatal(err)
	}
}

// What carries our labels without our having applied it is not ours.
func TestOwned(t *testing.T) {
	s := newStand(t, "")
	objects := s.objects(`apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {a: "1"}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}`)
	s.apply(objects...)
	cm := s.admins("", "v1", "configmaps")
	live, err := cm.Get(s.ctx, "settings", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// One that was deleted, and that a backup brings back with managedFields.
	restored := s.object("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: restored}\ndata: {a: \"1\"}")
	s.apply(restored)
	saved, err := cm.Get(s.ctx, "restored", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := cm.Delete(s.ctx, "restored", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	// kubectl get | edit the name | kubectl create, without and with managedFields.
	plain := live.DeepCopy()
	plain.SetManagedFields(nil)
	for name, u := range map[string]*unstructured.Unstructured{"plain": plain, "full": live.DeepCopy(), "restored": saved} {
		u.SetName(name)
		u.SetResourceVersion("")
		u.SetUID("")
		entries := u.GetManagedFields()
		old := metav1.NewTime(time.Now().Add(-time.Hour))
		for i := range entries {
			entries[i].Time = &old
		}
		u.SetManagedFields(entries)
		made, err := cm.Create(s.ctx, u, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if name == "plain" {
			continue
		}
		made.SetManagedFields(entries)
		if made, err = cm.Update(s.ctx, made, metav1.UpdateOptions{}); err != nil || !slices.ContainsFunc(made.GetManagedFields(), func(e metav1.ManagedFieldsEntry) bool { return e.Manager == "pinion" }) {
			t.Fatalf("managedFields were not restored: %v", err)
		}
	}
	kinds := []cluster.Kind{{Kind: "ConfigMap"}, {Kind: "Endpoints"}, {Group: "discovery.k8s.io", Kind: "EndpointSlice"}}
	if err := s.c.Watch(s.ctx, s.scope, kinds); err != nil {
		t.Fatal(err)
	}
	s.until(s.c, func() string {
		seen := s.c.Observe(s.scope)
		count := map[string]int{}
		for _, o := range seen.Objects {
			if o.Owned != slices.ContainsFunc(objects, func(r render.Object) bool { return r.Ref == o.Ref }) {
				t.Fatalf("%s: owned %v", o.Ref, o.Owned)
			}
			count[o.Ref.Kind]++
		}
		if count["ConfigMap"] != 4 || count["Endpoints"] != 1 || count["EndpointSlice"] != 1 {
			return fmt.Sprint(count)
		}
		return ""
	})
	for _, o := range s.c.Observe(s.scope).Objects {
		if o.Owned {
			continue
		}
		var not *cluster.NotOursError
		if err := s.c.Delete(s.ctx, o); !errors.As(err, &not) {
			t.Errorf("delete %s: %v", o.Ref, err)
		}
	}
	// One that a backup restored becomes ours by being applied.
	if a, err := s.c.Apply(s.ctx, restored, commit, cluster.ApplyOptions{}); err != nil || !a.Owned {
		t.Errorf("applied: %+v, %v", a, err)
	}
	if have, _ := s.look(s.c, restored); !have.Owned {
		t.Error("what was restored and then applied is not ours")
	}
}

// Only what was seen is deleted.
func TestDelete(t *testing.T) {
	s := newStand(t, "")
	manifest := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME}\ndata: {a: \"1\"}"
	named := func(name string) render.Object { return s.object(strings.Replace(manifest, "NAME", name, 1)) }
	s.apply(named("plain"), named("changed"), named("moved"), named("another"))
	cm := s.admins("", "v1", "configmaps")
	seen := s.c.Lookup([]render.Object{named("plain"), named("changed"), named("moved"), named("another")})
	s.edit(cm, "changed", `{"data":{"b":"2"}}`)
	s.edit(cm, "moved", `{"metadata":{"labels":{"pinion.dev/service":"api"}}}`)
	if err := cm.Delete(s.ctx, "another", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.c.Apply(s.ctx, named("another"), commit, cluster.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"plain": "", "changed": "", "another": "", "moved": "belongs to " + string(s.scope.Environment) + "/api now"} {
		err := s.c.Delete(s.ctx, seen[named(name).Ref])
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("delete %s: %v, want %q", name, err, want)
		}
		_, err = cm.Get(s.ctx, name, metav1.GetOptions{})
		if there := err == nil; there != (name == "another" || name == "moved") {
			t.Errorf("%s is there: %v", name, there)
		}
	}
	s.until(s.c, func() string {
		if n := len(s.c.Observe(s.scope).Objects); n != 2 {
			return fmt.Sprintf("%d objects are seen", n)
		}
		return ""
	})
	if err := s.c.Delete(s.ctx, seen[named("plain").Ref]); err != nil {
		t.Errorf("delete what is gone: %v", err)
	}
}

func TestFromKubeconfig(t *testing.T) {
	if _, _, err := cluster.FromKubeconfig(filepath.Join(t.TempDir(), "none"), ""); err == nil {
		t.Error("a kubeconfig that is not there was read")
	}
	config, namespace, err := cluster.FromKubeconfig(devtest.Cluster(t), "")
	if err != nil || config.Host == "" || namespace != "default" {
		t.Errorf("%v %q %v", config, namespace, err)
	}
	if _, _, err := cluster.FromKubeconfig(devtest.Cluster(t), "nowhere"); err == nil {
		t.Error("a context that is not there was taken")
	}
}
