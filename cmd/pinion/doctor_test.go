package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// doctor returns what the doctor finds, by check.
func (w *world) doctor(args ...string) (map[string]finding, int) {
	w.Helper()
	stdout, stderr, code := w.pinion(append([]string{"doctor", "-o", "json"}, args...)...)
	var list []finding
	if err := json.Unmarshal([]byte(stdout), &list); err != nil {
		w.Fatalf("doctor says: %v\n%s%s", err, stdout, stderr)
	}
	found := map[string]finding{}
	for _, f := range list {
		found[f.Check] = f
	}
	return found, code
}

// account makes a ServiceAccount that may do what the rules say in the
// world's namespace, and returns a kubeconfig for it.
func (w *world) account(name string, rules ...rbacv1.PolicyRule) (kubeconfig string) {
	w.Helper()
	ctx, meta := w.Context(), metav1.ObjectMeta{Name: name}
	_, err := w.kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}, metav1.CreateOptions{})
	w.must(err)
	_, err = w.kube.CoreV1().ServiceAccounts(w.namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{})
	w.must(err)
	_, err = w.kube.RbacV1().Roles(w.namespace).Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{})
	w.must(err)
	_, err = w.kube.RbacV1().RoleBindings(w.namespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: name, Namespace: w.namespace}},
	}, metav1.CreateOptions{})
	w.must(err)
	token, err := w.kube.CoreV1().ServiceAccounts(w.namespace).CreateToken(ctx, name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	w.must(err)
	config, err := clientcmd.LoadFromFile(w.kubeconfig)
	w.must(err)
	for user := range config.AuthInfos {
		config.AuthInfos[user] = &api.AuthInfo{Token: token.Status.Token}
	}
	kubeconfig = filepath.Join(w.TempDir(), "kubeconfig")
	w.must(clientcmd.WriteToFile(*config, kubeconfig))
	return kubeconfig
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, twoServices)
	found, code := w.doctor()
	for _, check := range []string{"repository", "files", "remote: fetch", "remote: push", "cluster default", "cluster default: clock", "environment dev"} {
		if f, ok := found[check]; !ok || !f.OK {
			t.Errorf("%s: %+v", check, f)
		}
	}
	if code != exitOK {
		t.Errorf("doctor ends with %d", code)
	}
	if w.here(t.Context(), namespaces, "/"+w.namespace) {
		t.Error("doctor has made the namespace")
	}

	nowhere := filepath.Join(t.TempDir(), "kubeconfig")
	data, err := os.ReadFile(w.kubeconfig)
	w.must(err)
	config, err := clientcmd.Load(data)
	w.must(err)
	for _, c := range config.Clusters {
		c.Server = "https://127.0.0.1:1"
	}
	w.must(clientcmd.WriteToFile(*config, nowhere))
	found, code = w.doctor("--kubeconfig", nowhere)
	if f := found["cluster default"]; f.OK || code != exitDifferent || !strings.Contains(f.Detail, "refused") {
		t.Errorf("doctor ends with %d where no API server is: %+v", code, f)
	}
	found, code = w.doctor("--kubeconfig", nowhere+".missing")
	if f := found["kubeconfig"]; f.OK || code != exitDifferent || !strings.Contains(f.Detail, ".missing") {
		t.Errorf("doctor ends with %d without a kubeconfig: %+v", code, f)
	}

	all := []string{"get", "list", "watch", "create", "patch", "delete"}
	found, code = w.doctor("--kubeconfig", w.account("pinion",
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: all},
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: all},
		rbacv1.PolicyRule{APIGroups: []string{"apps"}, Resources: []string{"replicasets"}, Verbs: all},
		rbacv1.PolicyRule{APIGroups: []string{"apps"}, Resources: []string{"deployments"}, Verbs: []string{"get", "list", "watch", "create"}}))
	f := found["environment dev"]
	for _, want := range []string{"patch deployments.apps in namespace " + w.namespace, "delete deployments.apps in namespace " + w.namespace} {
		if !strings.Contains(f.Detail, want) {
			t.Errorf("doctor does not miss: %s", want)
		}
	}
	if f.OK || code != exitDifferent || strings.Contains(f.Detail, "configmaps") || strings.Contains(f.Detail, "pods") || f.Hint == "" {
		t.Errorf("doctor ends with %d: %+v", code, f)
	}

	// A broken file, and a remote that is not there.
	w.must(os.WriteFile(filepath.Join(w.clone, "environments/dev.yaml"), []byte("kind: Nothing\n"), 0o644))
	w.git("commit", "-q", "-am", "break")
	if found, code = w.doctor(); found["files"].OK || code != exitDifferent {
		t.Errorf("doctor ends with %d for a broken file: %+v", code, found["files"])
	}
	w.git("remote", "set-url", "origin", w.remote+".missing")
	if found, code = w.doctor(); found["remote: fetch"].OK || code != exitDifferent {
		t.Errorf("doctor ends with %d without a remote: %+v", code, found["remote: fetch"])
	}
}

// What a tenant may not have is found before the daemon refuses it.
func TestDoctorOfBounds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, environment("dev", "NAMESPACE", "app")+greeting+"-- services/app/there.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: there, namespace: NAMESPACE-there}\n")
	config := filepath.Join(t.TempDir(), "config.yaml")
	configure := func(environments string) {
		w.must(os.WriteFile(config, []byte("apiVersion: pinion.dev/v1\nkind: Config\nclusters:\n  default:\n    kubeconfig: "+w.kubeconfig+"\n    environments: "+environments+"\n"), 0o600))
	}
	configure("{}")
	found, code := w.doctor("--config", config)
	f := found["bounds"]
	if f.OK || code != exitDifferent || !strings.HasPrefix(f.Detail, "services/app/there.yaml:1:1: in environment dev: ConfigMap "+w.namespace+"-there/there is in the namespace") ||
		!strings.Contains(f.Hint, "clusters.default.environments.dev: {namespaces: ["+w.namespace+"-there]}") {
		t.Errorf("doctor ends with %d: %+v", code, f)
	}
	configure("{dev: {namespaces: [" + w.namespace + "-there]}}")
	if found, code = w.doctor("--config", config); code != exitOK || !found["bounds"].OK {
		t.Errorf("doctor ends with %d where it is allowed: %+v", code, found["bounds"])
	}
	if found, _ = w.doctor(); found["bounds"].Check != "" {
		t.Errorf("doctor knows the bounds without the daemon's configuration: %+v", found["bounds"])
	}
}

// Our own account has to be allowed to act in the name of a tenant's, and that
// account has to be there.
func TestDoctorOfServiceAccounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, environment("dev", "NAMESPACE", "app")+greeting)
	w.replace("environments/dev.yaml", "namespace: ", "serviceAccount: deployer\nnamespace: ")
	ours := w.account("pinion")
	found, code := w.doctor("--kubeconfig", ours)
	f := found["environment dev"]
	if f.OK || code != exitDifferent || !strings.HasPrefix(f.Detail, "our own account may not: ") || !strings.Contains(f.Detail, "impersonate serviceaccounts") || !strings.Contains(f.Hint, "tenants.yaml") {
		t.Errorf("doctor ends with %d for an account that may not impersonate: %+v", code, f)
	}
	found, code = w.doctor()
	if f = found["environment dev"]; f.OK || code != exitDifferent || !strings.Contains(f.Detail, "has no ServiceAccount deployer") {
		t.Errorf("doctor ends with %d for an account that is not there: %+v", code, f)
	}
}
