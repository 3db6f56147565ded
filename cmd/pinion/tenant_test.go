package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pinion-cd/pinion/internal/devtest"
)

var everything = []string{"get", "list", "watch", "create", "patch", "delete"}

// what a tenant needs for itself and for ConfigMaps.
var tenantRules = []rbacv1.PolicyRule{
	{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: everything},
	{APIGroups: []string{""}, Resources: []string{"pods", "pods/log"}, Verbs: []string{"get", "list", "watch"}},
	{APIGroups: []string{"apps"}, Resources: []string{"replicasets"}, Verbs: []string{"get", "list", "watch"}},
}

// tenant makes a namespace with a ServiceAccount "deployer" that may do there
// what the rules say.
func (w *world) tenant(namespace string, rules ...rbacv1.PolicyRule) {
	w.Helper()
	ctx, meta := w.Context(), metav1.ObjectMeta{Name: "deployer"}
	_, err := w.kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	w.must(err)
	w.Cleanup(func() { w.kube.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{}) })
	_, err = w.kube.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{})
	w.must(err)
	_, err = w.kube.RbacV1().Roles(namespace).Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{})
	w.must(err)
	_, err = w.kube.RbacV1().RoleBindings(namespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "deployer"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: "deployer", Namespace: namespace}},
	}, metav1.CreateOptions{})
	w.must(err)
}

// grant changes what the tenant of a namespace may do.
func (w *world) grant(namespace string, rules ...rbacv1.PolicyRule) {
	w.Helper()
	_, err := w.kube.RbacV1().Roles(namespace).Update(w.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "deployer"}, Rules: rules}, metav1.UpdateOptions{})
	w.must(err)
}

// witness stands before an API server, and takes note of every request about a
// namespace that was not made in the name of a service account.
type witness struct {
	mu     sync.Mutex
	seen   map[string]int // requests, by whose name
	breach []string
}

func (x *witness) watch(p *devtest.Proxy, namespaces ...string) {
	x.seen = map[string]int{}
	p.Do(func(_ http.ResponseWriter, r *http.Request) bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		as := r.Header.Get("Impersonate-User")
		x.seen[as]++
		for _, ns := range namespaces {
			// Whether the account is there is asked by ourselves.
			if strings.Contains(r.URL.Path+"/", "/namespaces/"+ns+"/") && as != "system:serviceaccount:"+ns+":deployer" &&
				!(r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/serviceaccounts/")) {
				x.breach = append(x.breach, fmt.Sprintf("%s %s by %q", r.Method, r.URL.Path, as))
			}
		}
		return false
	})
}

const workload = `
-- services/app/app.yaml --
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, image: app}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: app}
`

// Two tenants in one cluster: each is served in the name of its own account,
// and has no right but that account's, whatever the daemon may.
func TestTenants(t *testing.T) {
	t.Parallel()
	w := newWorld(t, environment("one", "NAMESPACE-one", "app")+environment("two", "NAMESPACE-two", "app")+workload+`
-- policies/smoke.yaml --
apiVersion: pinion.dev/v1
kind: Policy
job: {manifest: job.yaml}
-- policies/job.yaml --
apiVersion: batch/v1
kind: Job
metadata: {name: smoke}
spec: {template: {spec: {containers: [{name: smoke, image: app}]}}}
-- pipelines/default.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: ["*"]
stages:
- environment: one
  verify: [smoke]
`)
	one, two := w.namespace+"-one", w.namespace+"-two"
	deployments := rbacv1.PolicyRule{APIGroups: []string{"apps"}, Resources: []string{"deployments"}, Verbs: everything}
	jobs := rbacv1.PolicyRule{APIGroups: []string{"batch"}, Resources: []string{"jobs"}, Verbs: everything}
	w.tenant(one, append([]rbacv1.PolicyRule{deployments, jobs}, tenantRules...)...)
	w.tenant(two, tenantRules...)
	for _, env := range []string{"one", "two"} {
		w.edit("environments/"+env+".yaml", "namespace: ", "serviceAccount: deployer\nnamespace: ")
	}
	w.push("accounts", "")
	proxy := devtest.NewProxy(t, w.kubeconfig)
	var x witness
	x.watch(proxy, one, two)
	direct := w.kubeconfig
	w.kubeconfig = proxy.Kubeconfig
	d := w.daemon(t.TempDir())
	d.line(0, "ready one/app")
	d.line(0, "failed two/app", "system:serviceaccount:"+two+":deployer may not ", "deployments.apps in namespace "+two)
	w.stays(configMaps, one+"/app")
	if w.here(t.Context(), configMaps, two+"/app") {
		t.Error("what the tenant may have was applied without what it may not")
	}
	d.line(0, "verified(one): app 1.0.0")

	// The commands are no other way in.
	stdout, stderr, code := w.pinion("diff", "two")
	if code != exitFailed || !strings.Contains(stderr, "system:serviceaccount:"+two+":deployer may not") {
		t.Errorf("diff ends with %d: %s%s", code, stdout, stderr)
	}
	stdout, stderr, code = w.pinion("apply", "two")
	if code == exitOK || !strings.Contains(stdout, "system:serviceaccount:"+two+":deployer may not") {
		t.Errorf("apply ends with %d: %s%s", code, stdout, stderr)
	}
	stdout, stderr, code = w.pinion("status", "two", "--live")
	if code == exitOK || !strings.Contains(stdout, "deployer may not") {
		t.Errorf("status ends with %d: %s%s", code, stdout, stderr)
	}

	// What was missing is given, and drift is found and corrected in its name.
	w.grant(two, append([]rbacv1.PolicyRule{deployments}, tenantRules...)...)
	d.line(0, "ready two/app")
	w.must(w.kube.CoreV1().ConfigMaps(two).Delete(t.Context(), "app", metav1.DeleteOptions{}))
	w.appears(configMaps, two+"/app")

	// It leaves, and is pruned in its own name, after a restart too.
	d.stop()
	w.push("remove two", "-- environments/two.yaml --\n")
	d = w.daemon(t.TempDir())
	w.goes(configMaps, two+"/app", two+"/pinion-two")
	d.line(0, "nothing of it is left in namespace "+two)
	w.kubeconfig = direct
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, b := range x.breach {
		t.Error(b)
	}
	for _, ns := range []string{one, two} {
		if x.seen["system:serviceaccount:"+ns+":deployer"] < 10 {
			t.Errorf("only %d requests as the account of %s", x.seen["system:serviceaccount:"+ns+":deployer"], ns)
		}
	}
}

// An account that does not exist is an error, though Kubernetes would let us
// act in its name; and so is a name that is none.
func TestTenantWithoutAnAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, environment("dev", "NAMESPACE", "app")+greeting)
	w.tenant(w.namespace, tenantRules...)
	w.edit("environments/dev.yaml", "namespace: ", "serviceAccount: nobody\nnamespace: ")
	w.push("nobody", "")
	// Whoever gave rights to a name that nobody has would otherwise be obeyed.
	_, err := w.kube.RbacV1().RoleBindings(w.namespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "nobody"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: "nobody", Namespace: w.namespace}},
	}, metav1.CreateOptions{})
	w.must(err)
	d := w.daemon(t.TempDir())
	d.line(0, "failed dev/app", "namespace "+w.namespace+" of cluster default has no ServiceAccount nobody")
	if w.here(t.Context(), configMaps, "app") || w.here(t.Context(), configMaps, "pinion-dev") {
		t.Error("something was written all the same")
	}
	from := d.mark()
	w.replace("environments/dev.yaml", "serviceAccount: nobody", `serviceAccount: ""`)
	d.line(from, "environments/dev.yaml:4:17", "the service account has no name")
	if w.here(t.Context(), configMaps, "app") {
		t.Error("an empty name was taken for the daemon's own account")
	}
	w.replace("environments/dev.yaml", `serviceAccount: ""`, "serviceAccount: deployer")
	w.appears(configMaps, "app")
	d.line(from, "ready dev/app")
}

// A tenant has nothing outside of its namespace, unless the configuration says
// so; what is refused says where the object is from and what would let it in.
func TestBounds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, environment("dev", "NAMESPACE", "app")+greeting+`
-- services/app/role.yaml --
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: NAMESPACE}
rules: []
-- services/app/there.yaml --
apiVersion: v1
kind: ConfigMap
metadata: {name: there, namespace: NAMESPACE-there}
`)
	there := w.namespace + "-there"
	w.tenant(there)
	config := filepath.Join(t.TempDir(), "config.yaml")
	configure := func(environments string) {
		w.must(os.WriteFile(config, []byte("apiVersion: pinion.dev/v1\nkind: Config\nclusters:\n  default:\n    kubeconfig: "+w.kubeconfig+"\n    environments: "+environments+"\n"), 0o600))
	}
	configure("{}")
	d := w.daemon(t.TempDir(), "--config", config)
	d.line(0, "failed dev/app", "clusters.default.environments.dev")
	d.line(0, "there/there is in the namespace")
	said := strings.Join(d.said(0), "\n")
	for _, want := range []string{
		"services/app/role.yaml:1:1: ClusterRole.rbac.authorization.k8s.io " + w.namespace + " is of the whole cluster",
		"{clusterScoped: [ClusterRole.rbac.authorization.k8s.io]}",
		"services/app/there.yaml:1:1: ConfigMap " + there + "/there is in the namespace " + there,
		"{namespaces: [" + there + "]}",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("the daemon did not say: %s", want)
		}
	}
	if w.here(t.Context(), configMaps, "app") {
		t.Error("the service is half applied")
	}
	stdout, _, code := w.pinion("lint", "--config", config)
	if code != exitDifferent || !strings.Contains(stdout, "services/app/there.yaml:1:1: error: in environment dev") {
		t.Errorf("lint ends with %d: %s", code, stdout)
	}
	if stdout, _, code := w.pinion("lint"); code != exitOK || !strings.Contains(stdout, "services/app/there.yaml:1:1: warning: in environment dev") {
		t.Errorf("lint without a configuration ends with %d: %s", code, stdout)
	}
	if _, stderr, code := w.pinion("diff", "dev", "--config", config); code != exitFailed || !strings.Contains(stderr, "is of the whole cluster") {
		t.Errorf("diff ends with %d: %s", code, stderr)
	}
	d.stop()
	configure("{dev: {namespaces: [" + there + "], clusterScoped: [ClusterRole.rbac.authorization.k8s.io]}}")
	d = w.daemon(t.TempDir(), "--config", config)
	d.line(0, "ready dev/app")
	w.stays(configMaps, "app", there+"/there")
	w.stays(roles, "/"+w.namespace)
}

// A kind that rendering does not know is judged by what the API server says.
func TestBoundsOfAnUnknownKind(t *testing.T) {
	t.Parallel()
	w := newWorld(t, environment("dev", "NAMESPACE", "definition", "app")+"-- services/definition/crd.yaml --\n"+kindNamed("planet", "Cluster")+`
-- services/app/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
dependsOn: [definition]
-- services/app/app.yaml --
apiVersion: NAMESPACE.example/v1
kind: planet
metadata: {name: mars}
`)
	config := filepath.Join(t.TempDir(), "config.yaml")
	w.must(os.WriteFile(config, []byte("apiVersion: pinion.dev/v1\nkind: Config\nclusters:\n  default:\n    environments: {dev: {clusterScoped: [CustomResourceDefinition.apiextensions.k8s.io]}}\n"), 0o600))
	d := w.daemon(t.TempDir(), "--config", config)
	d.line(0, "ready dev/definition")
	d.line(0, "failed dev/app", "services/app/app.yaml:1:1: planet."+w.namespace+".example mars is of the whole cluster")
	if w.here(t.Context(), w.of("planet"), "/mars") {
		t.Error("it was written all the same")
	}
}
