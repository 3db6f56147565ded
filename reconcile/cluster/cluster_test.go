package cluster_test

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
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
	patience = 90 * time.Second
	commit   = "4f1c2aa90b7e4f1c2aa90b7e4f1c2aa90b7e4f1c"
)

// stand is one environment in a namespace of its own, seen through one Cluster.
type stand struct {
	*testing.T
	c         *cluster.Cluster
	ctx       context.Context
	scope     cluster.Scope
	namespace string
	service   string // of the objects that it renders; "": web
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

// object renders an object from YAML, as an object of the stand's service.
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
	labels[render.LabelService] = cmp.Or(s.service, "web")
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
		if _, err := s.c.DryRun(s.ctx, o, commit, cluster.ApplyOptions{}); err != nil {
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

// untilSeen asks again and again for what no change is told of.
func (s *stand) untilSeen(good func() string) {
	s.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		why := good()
		if why == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
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
	if n := after["get"] - before["get"]; n > 2 { // the inventory, and how the class of a claim binds
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
