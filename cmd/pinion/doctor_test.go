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
