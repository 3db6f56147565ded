package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/pinion-cd/pinion/internal/devtest"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

const settings = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: \"1\"}"

// as returns an error of the type that is wanted.
func as[E error](t *testing.T, err error, words ...string) E {
	t.Helper()
	var e E
	if !errors.As(err, &e) {
		t.Fatalf("%T: %v; want %T", err, err, e)
	}
	for _, w := range words {
		if !strings.Contains(e.Error(), w) {
			t.Errorf("%q does not say %q", e, w)
		}
	}
	return e
}

func (s *stand) try(o render.Object) error {
	_, err := s.c.Apply(s.ctx, o, commit, cluster.ApplyOptions{})
	return err
}

func TestConflict(t *testing.T) {
	s := newStand(t, "")
	o := s.object(settings)
	s.apply(o)
	s.edit(s.admins("", "v1", "configmaps"), "settings", `{"data":{"a":"2"}}`)
	err := s.try(o)
	e := as[*cluster.ConflictError](t, err, "kubectl-edit", ".data.a", "settings")
	if len(e.Managers) != 1 || e.Managers[0] != "kubectl-edit" || len(e.Fields) != 1 {
		t.Errorf("%+v", e)
	}
	if _, retry := cluster.Retry(err); retry {
		t.Error("a conflict passes by itself")
	}
	a, err := s.c.Apply(s.ctx, o, commit, cluster.ApplyOptions{Force: true})
	if err != nil || !a.Changed || a.Created {
		t.Errorf("by force: %+v, %v", a, err)
	}
}

func TestRefusals(t *testing.T) {
	s := newStand(t, "")
	job := "apiVersion: batch/v1\nkind: Job\nmetadata: {name: once}\nspec: {template: {spec: {restartPolicy: Never, containers: [{name: x, image: \"a:IMAGE\", env: [{name: A, value: private}]}]}}}"
	s.apply(s.object(strings.Replace(job, "IMAGE", "1", 1)))
	for _, test := range []struct {
		name, manifest string
		check          func(t *testing.T, err error)
	}{
		{"invalid", "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {ports: [{port: 99999}]}", func(t *testing.T, err error) {
			e := as[*cluster.InvalidError](t, err, "Service "+s.namespace+"/bad", "spec.ports[0].port", "99999")
			if len(e.Fields) == 0 {
				t.Error("no fields")
			}
		}},
		{"unknown field", "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {prots: []}", func(t *testing.T, err error) {
			as[*cluster.InvalidError](t, err, "prots")
		}},
		{"immutable", strings.Replace(job, "IMAGE", "2", 1), func(t *testing.T, err error) {
			e := as[*cluster.ImmutableError](t, err, "immutable", "once")
			if strings.Contains(e.Error(), "private") || strings.Contains(e.Error(), "PodTemplateSpec") {
				t.Errorf("it dumps the object: %s", e)
			}
		}},
		{"a Secret that is invalid", "apiVersion: v1\nkind: Secret\nmetadata: {name: bad}\ndata: {a: hunter2!}", func(t *testing.T, err error) {
			e := as[*cluster.InvalidError](t, err)
			if strings.Contains(e.Error(), "hunter2") {
				t.Errorf("it tells the value: %s", e)
			}
		}},
		{"a Secret of a wrong type", "apiVersion: v1\nkind: Secret\nmetadata: {name: bad}\nstringData: {a: 31337}", func(t *testing.T, err error) {
			e := as[*cluster.InvalidError](t, err)
			if strings.Contains(e.Error(), "31337") {
				t.Errorf("it tells the value: %s", e)
			}
		}},
		{"a Secret of a wrong shape", "apiVersion: v1\nkind: Secret\nmetadata: {name: bad}\ndata: {a: {b: [aHVudGVyMg==, hunter3]}}", func(t *testing.T, err error) {
			e := as[*cluster.InvalidError](t, err)
			if strings.Contains(e.Error(), "hunter") || strings.Contains(e.Error(), "aHVud") {
				t.Errorf("it tells the value: %s", e)
			}
		}},
		{"unknown version", "apiVersion: apps/v1beta1\nkind: Deployment\nmetadata: {name: bad}", func(t *testing.T, err error) {
			as[*cluster.UnknownKindError](t, err, "apps/v1beta1", "it has the kind in apps/v1")
		}},
		{"misspelt kind", "apiVersion: apps/v1\nkind: Deploymnet\nmetadata: {name: bad}", func(t *testing.T, err error) {
			as[*cluster.UnknownKindError](t, err, "did you mean Deployment?")
		}},
		{"wrong group", "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: bad}", func(t *testing.T, err error) {
			as[*cluster.UnknownKindError](t, err, "networking.k8s.io/v1")
		}},
		{"no such namespace", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: nowhere-at-all}", func(t *testing.T, err error) {
			e := as[*cluster.NamespaceError](t, err, "nowhere-at-all", "does not exist")
			if e.Terminating {
				t.Error("it says terminating")
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := s.object(test.manifest)
			_, err := s.c.DryRun(s.ctx, o, commit, cluster.ApplyOptions{})
			test.check(t, err)
			test.check(t, s.try(o))
		})
	}
	// Nothing was deleted for it.
	if _, err := s.admins("batch", "v1", "jobs").Get(s.ctx, "once", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}

func TestTerminatingNamespace(t *testing.T) {
	s := newStand(t, "")
	s.apply(s.object(settings))
	namespaces := s.admin.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"})
	// A finalizer keeps it terminating.
	s.edit(s.admins("", "v1", "configmaps"), "settings", `{"metadata":{"finalizers":["test.example/stay"]}}`)
	t.Cleanup(func() { s.edit2(s.admins("", "v1", "configmaps"), "settings", `{"metadata":{"finalizers":null}}`) })
	if err := namespaces.Delete(s.ctx, s.namespace, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if e := as[*cluster.NamespaceError](t, s.try(s.object(strings.Replace(settings, "settings", "more", 1))), "is being deleted"); !e.Terminating {
		t.Error("not terminating")
	}
	another := connect(t, s.config) // that has not seen the namespace
	s.untilSeen(func() string {
		err := another.EnsureNamespace(s.ctx, s.namespace)
		if e := as[*cluster.NamespaceError](t, err, "is being deleted since 20"); !strings.Contains(e.Why, "test.example/stay") {
			return e.Error()
		}
		return ""
	})
	s.until(s.c, func() string {
		if have, ok := s.look(s.c, s.object(settings)); !ok || !have.Deleting || have.Health.Status != cluster.Terminating {
			return fmt.Sprintf("%v %+v", ok, have)
		}
		return ""
	})
}

func (s *stand) edit2(r interface {
	Patch(context.Context, string, types.PatchType, []byte, metav1.PatchOptions, ...string) (*unstructured.Unstructured, error)
}, name, patch string) {
	r.Patch(context.Background(), name, "application/merge-patch+json", []byte(patch), metav1.PatchOptions{})
}

// A kind that is not served is an error in words; once its definition is
// there, it is served without a wait; once that is gone, its objects are gone.
func TestKindComesAndGoes(t *testing.T) {
	s := newStand(t, "")
	group := s.namespace + ".example"
	crd := s.object(strings.ReplaceAll(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: globes.GROUP}
spec:
  group: GROUP
  scope: Cluster
  names: {kind: Globe, plural: globes, singular: globe}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {a: {type: string}}}}}}}]`, "GROUP", group))
	// Nobody told the renderer that the kind is of the cluster's scope.
	globe := s.object("apiVersion: " + group + "/v1\nkind: Globe\nmetadata: {name: earth}\nspec: {a: b}")
	as[*cluster.UnknownKindError](t, s.try(globe), "Globe", "CustomResourceDefinition")
	as[*cluster.UnknownKindError](t, s.c.WatchObjects(s.ctx, s.scope, []render.Object{globe}), "Globe")
	if seen := s.c.Observe(s.scope); !seen.Complete {
		t.Errorf("a kind that is surely not served makes the view incomplete: %q", seen.Incomplete)
	}
	s.foundation(crd, globe)
	if err := s.try(globe); err != nil {
		t.Fatal(err)
	}
	m, err := s.c.Map(s.ctx, globe)
	if err != nil || m.Namespaced || m.Ref.Namespace != "" {
		t.Errorf("%+v %v", m, err)
	}
	s.untilHealthy(s.c, globe, crd)
	if have, _ := s.look(s.c, globe); !have.Owned || !cluster.InSync(have, globe) {
		t.Errorf("%+v", have)
	}
	if _, ok := s.c.Observe(s.scope).Objects[m.Ref]; !ok {
		t.Error("the globe is not observed")
	}
	if err := s.admin.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}).
		Delete(s.ctx, crd.Ref.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.until(s.c, func() string {
		seen := s.c.Observe(s.scope)
		if !seen.Complete || len(seen.Objects) != 0 {
			return fmt.Sprintf("%v %q", seen.Objects, seen.Incomplete)
		}
		return ""
	})
	s.untilSeen(func() string {
		err := s.try(globe)
		var unknown *cluster.UnknownKindError
		if errors.As(err, &unknown) {
			return ""
		}
		as[*cluster.RetryableError](t, err, "terminating")
		return err.Error()
	})
	s.untilSeen(func() string {
		err := s.c.WatchObjects(s.ctx, s.scope, []render.Object{globe})
		var unknown *cluster.UnknownKindError
		if seen := s.c.Observe(s.scope); !errors.As(err, &unknown) || !seen.Complete {
			return fmt.Sprint(err, seen.Incomplete)
		}
		return ""
	})
}

// role gives an account rights in the stand's namespace, and returns a
// connection as that account.
func (s *stand) as(user, rules string) *rest.Config {
	s.Helper()
	group := "rbac.authorization.k8s.io"
	for resource, manifest := range map[string]string{
		"roles":        "metadata: {name: USER}\nkind: Role\nrules: " + rules,
		"rolebindings": "metadata: {name: USER}\nkind: RoleBinding\nroleRef: {apiGroup: " + group + ", kind: Role, name: USER}\nsubjects: [{apiGroup: " + group + ", kind: User, name: USER}]",
	} {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte("apiVersion: "+group+"/v1\n"+strings.ReplaceAll(manifest, "USER", user)), &u.Object); err != nil {
			s.Fatal(err)
		}
		if _, err := s.admins(group, "v1", resource).Create(s.ctx, u, metav1.CreateOptions{}); err != nil {
			s.Fatal(err)
		}
	}
	config := rest.CopyConfig(s.config)
	config.Impersonate.UserName = user
	return config
}

// granted waits until the API server's authorizer has heard of a right.
func (s *stand) granted(user, verb, resource string) {
	s.Helper()
	reviews := kubernetes.NewForConfigOrDie(s.config).AuthorizationV1().SubjectAccessReviews()
	for allowed := false; !allowed; {
		r, err := reviews.Create(s.ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: user,
			ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Resource: resource, Namespace: s.namespace}}}, metav1.CreateOptions{})
		if err != nil {
			s.Fatal(err)
		}
		allowed = r.Status.Allowed
	}
}

const onlyConfigMaps = `[{apiGroups: [""], resources: [configmaps], verbs: [get, list, watch, create, patch]}]`

// Rights in the namespace are enough, and what is missing is named.
func TestRights(t *testing.T) {
	s := newStand(t, "")
	s.c = connect(t, s.as("meek", onlyConfigMaps))
	s.granted("meek", "get", "configmaps")
	o := s.object(settings)
	if err := s.c.EnsureNamespace(s.ctx, s.namespace); err != nil {
		t.Fatal(err)
	}
	s.apply(o)
	s.untilHealthy(s.c, o)
	if seen := s.c.Observe(s.scope); !seen.Complete {
		t.Error(seen.Incomplete)
	}
	have, _ := s.look(s.c, o)
	e := as[*cluster.ForbiddenError](t, s.c.Delete(s.ctx, have, cluster.Background), "meek may not delete configmaps in namespace "+s.namespace)
	if e.Verb != "delete" || e.Resource != "configmaps" || e.Namespace != s.namespace {
		t.Errorf("%+v", e)
	}
	deployment := s.object("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: x, image: y}]}}}")
	as[*cluster.ForbiddenError](t, s.try(deployment), "may not patch deployments.apps")
	as[*cluster.ForbiddenError](t, s.c.WatchObjects(s.ctx, s.scope, []render.Object{deployment}), "meek may not", "deployments.apps in namespace "+s.namespace)
	// "Could not read" is not "not there".
	if seen := s.c.Observe(s.scope); seen.Complete || len(seen.Incomplete) == 0 || !strings.Contains(seen.Incomplete[0], "deployments.apps") {
		t.Errorf("complete: %v %q", seen.Complete, seen.Incomplete)
	}
	found, err := s.c.Inventories(s.ctx, []cluster.Account{{Namespace: s.namespace}})
	if err != nil || len(found) != 1 || found[0].Environment != s.scope.Environment {
		t.Errorf("inventories: %+v, %v", found, err)
	}
	denied, err := s.c.Denied(s.ctx, s.namespace, o)
	if err != nil || strings.Join(denied, "; ") != "delete configmaps in namespace "+s.namespace {
		t.Errorf("denied: %q, %v", denied, err)
	}
	denied, err = s.c.DeniedOwn(s.ctx, s.namespace)
	if err != nil || len(denied) != 4 {
		t.Errorf("denied: %q, %v", denied, err)
	}
}

// Each way in which a request can fail on its way, in the middle of an apply.
func TestTrouble(t *testing.T) {
	s := newStand(t, "")
	proxy := devtest.NewProxy(t, devtest.Cluster(t))
	c, err := cluster.Connect(t.Context(), cluster.Config{Name: "test", REST: restConfig(t, proxy.Kubeconfig), Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	s.c = c
	o := s.object(settings)
	s.apply(o)
	applies := func(harm devtest.Harm) devtest.Harm {
		return func(w http.ResponseWriter, r *http.Request) bool { return r.Method == http.MethodPatch && harm(w, r) }
	}
	for _, test := range []struct {
		name  string
		harm  devtest.Harm
		after time.Duration
		words string
	}{
		{"too many requests", devtest.Status(429, "Retry-After", "7"), 7 * time.Second, ""},
		{"internal error", devtest.Status(500), 0, ""},
		{"unavailable", devtest.Status(503), 0, ""},
		{"bad gateway", devtest.Status(502), 0, ""},
		{"hang", devtest.Hang, 0, "did not answer in time"},
		{"reset", devtest.Reset, 0, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			proxy.Do(applies(test.harm))
			defer proxy.Do(nil)
			before := proxy.Requests(http.MethodPatch)
			_, err := c.Apply(s.ctx, o, commit+test.name, cluster.ApplyOptions{})
			as[*cluster.RetryableError](t, err, "apply ConfigMap "+s.namespace+"/settings", test.words)
			if after, retry := cluster.Retry(fmt.Errorf("deploy: %w", err)); !retry || after != test.after {
				t.Errorf("retry %v after %s", retry, after)
			}
			if n := proxy.Requests(http.MethodPatch) - before; n != 1 {
				t.Errorf("%d requests: it is the caller who retries", n)
			}
			proxy.Do(nil)
			if a, err := c.Apply(s.ctx, o, commit+strings.ReplaceAll(test.name, " ", "-"), cluster.ApplyOptions{}); err != nil || !a.Changed {
				t.Errorf("the next apply: %v %v", a.Changed, err)
			}
		})
	}
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	if _, err := c.Apply(ctx, o, commit, cluster.ApplyOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	_, two := cluster.Retry(errors.Join(&cluster.RetryableError{Err: err}, &cluster.InvalidError{}))
	if two {
		t.Error("an error that does not pass passes beside one that does")
	}
}

// While the API server is away the view is incomplete and keeps what it knew;
// when it is back, the view is complete by itself.
func TestAway(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a control plane")
	}
	plane := devtest.Start(t)
	s := newStand(t, plane.Kubeconfig)
	o := s.object(settings)
	s.apply(o)
	s.untilHealthy(s.c, o)
	plane.Kill()
	s.until(s.c, func() string {
		if s.c.Observe(s.scope).Complete {
			return "complete, though the API server is gone"
		}
		return ""
	})
	seen := s.c.Observe(s.scope)
	if have, ok := seen.Objects[o.Ref]; !ok || !have.Owned {
		t.Error("what was known is forgotten")
	}
	if !strings.Contains(strings.Join(seen.Incomplete, ""), "can't reach the API server") {
		t.Errorf("%q", seen.Incomplete)
	}
	as[*cluster.RetryableError](t, s.try(o), "can't reach the API server")
	if err := s.c.Reach(s.ctx); err == nil {
		t.Error("reached")
	}
	lazy := connect(t, s.config) // does not fail
	as[*cluster.RetryableError](t, lazy.WatchObjects(s.ctx, s.scope, []render.Object{o}))
	if lazy.Observe(s.scope).Complete {
		t.Error("complete before anything was read")
	}
	if _, err := lazy.Inventory(s.ctx, s.scope); err == nil {
		t.Error("an inventory was read")
	}
	plane.Restart(t)
	s.until(s.c, func() string {
		if seen := s.c.Observe(s.scope); !seen.Complete {
			return fmt.Sprint(seen.Incomplete)
		}
		return ""
	})
	again := s.object(strings.Replace(settings, `"1"`, `"2"`, 1))
	s.apply(again)
	s.untilHealthy(s.c, again)
	if have, _ := s.look(s.c, again); !cluster.InSync(have, again) {
		t.Error("not in sync")
	}
}
