package examples_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/pinion-cd/pinion/internal/devtest"
)

const (
	account  = "system:serviceaccount:pinion:pinion"
	patience = 2 * time.Minute
)

// TestInstall applies the manifests that install the daemon, as an
// administrator would, and then looks what the daemon's account may do.
func TestInstall(t *testing.T) {
	kubeconfig := devtest.Start(t).Kubeconfig
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	kube := kubernetes.NewForConfigOrDie(config)
	applyKustomization(t, config, "install")

	t.Run("the daemon's pod is admitted", func(t *testing.T) {
		// Its namespace enforces the restricted profile of pod security.
		seen := ""
		err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
			d, err := kube.AppsV1().Deployments("pinion").Get(ctx, "pinion", metav1.GetOptions{})
			if err != nil {
				return false, err
			}
			seen = fmt.Sprint(d.Status.Conditions)
			return d.Status.AvailableReplicas == 1, nil
		})
		if err != nil {
			t.Fatalf("%v: %s", err, seen)
		}
	})
	t.Run("it may do its work", func(t *testing.T) { mayDoItsWork(t, config) })
	t.Run("it may do nothing else", func(t *testing.T) { mayDoNothingElse(t, kube) })
	program := filepath.Join(t.TempDir(), "pinion")
	command(t, "..", "go", "build", "-o", program, "./cmd/pinion")
	t.Run("it applies the shop", func(t *testing.T) { appliesTheShop(t, kubeconfig, kube, program) })
	t.Run("it applies a tenant", func(t *testing.T) { appliesATenant(t, kubeconfig, kube, config, program) })
}

// mayDoItsWork asks for each kind that the shop renders in each environment.
func mayDoItsWork(t *testing.T, config *rest.Config) {
	kube := kubernetes.NewForConfigOrDie(config)
	mapping := newMapping(config)
	asked := map[string]bool{}
	ask := func(verb, resource, namespace, name string) {
		t.Helper()
		question := strings.Join([]string{verb, resource, namespace, name}, " ")
		if !asked[question] && !may(t, kube, verb, resource, namespace, name) {
			t.Errorf("the daemon may not %s", question)
		}
		asked[question] = true
	}
	for _, d := range renderAll(t, os.DirFS("shop")) {
		namespace := d.Environment.Namespace
		for _, o := range d.Objects {
			if o.Ref.Kind == "CustomResourceDefinition" {
				for _, verb := range []string{"get", "create", "patch"} {
					ask(verb, "customresourcedefinitions.apiextensions.k8s.io", "", o.Ref.Name)
				}
				continue
			}
			resource := "queues.shop.example" // whose definition is not there yet
			if o.Ref.Kind != "Queue" {
				m, err := mapping.RESTMapping(schema.GroupKind{Group: o.Ref.Group, Kind: o.Ref.Kind}, o.Version)
				if err != nil {
					t.Fatal(err)
				}
				resource = m.Resource.GroupResource().String()
			}
			for _, verb := range []string{"get", "list", "watch", "create", "patch", "delete"} {
				ask(verb, resource, namespace, "")
			}
		}
		ask("get", "namespaces", "", namespace)
		for _, verb := range []string{"get", "list", "watch"} {
			ask(verb, "pods", namespace, "")
			ask(verb, "replicasets.apps", namespace, "")
			ask(verb, "jobs.batch", namespace, "")
		}
		for _, verb := range []string{"get", "list", "create", "patch"} {
			ask(verb, "configmaps", namespace, "pinion-"+string(d.Environment.Name)) // the inventory
		}
	}
	ask("get", "namespaces", "", "kube-system")
	ask("list", "customresourcedefinitions.apiextensions.k8s.io", "", "")
	ask("watch", "customresourcedefinitions.apiextensions.k8s.io", "", "")
	if len(asked) < 100 {
		t.Errorf("only %d questions were asked", len(asked))
	}
}

func mayDoNothingElse(t *testing.T, kube kubernetes.Interface) {
	for _, question := range []string{
		// VERB RESOURCE NAMESPACE NAME; - stands for none.
		"* * shop-dev -",
		"* *.* - -",
		"get secrets shop-dev -",
		"list secrets kube-system -",
		"get secrets pinion pinion-git",
		"get configmaps default -",
		"list configmaps kube-system -",
		"patch deployments.apps default -",
		"patch deployments.apps pinion pinion",
		"list deployments.apps - -", // of all namespaces
		"create pods shop-dev -",
		"delete pods shop-dev -",
		"patch pods shop-dev -",
		"create pods/exec shop-dev -",
		"create pods/portforward shop-dev -",
		"create pods/eviction shop-dev -",
		"patch replicasets.apps shop-dev -",
		"deletecollection configmaps shop-dev -",
		"create serviceaccounts/token pinion pinion",
		"create roles.rbac.authorization.k8s.io shop-dev -",
		"escalate roles.rbac.authorization.k8s.io shop-dev -",
		"bind clusterroles.rbac.authorization.k8s.io - cluster-admin",
		"create rolebindings.rbac.authorization.k8s.io shop-dev -",
		"create clusterrolebindings.rbac.authorization.k8s.io - -",
		"patch clusterroles.rbac.authorization.k8s.io - pinion-environment",
		"impersonate users - -",
		"impersonate serviceaccounts kube-system -",
		"list namespaces - -",
		"get namespaces - default",
		"create namespaces - -",
		"delete namespaces - shop-dev",
		"patch namespaces - shop-dev",
		"list nodes - -",
		"patch nodes - -",
		"get nodes/proxy - -",
		"list persistentvolumes - -",
		"delete customresourcedefinitions.apiextensions.k8s.io - queues.shop.example",
		"patch customresourcedefinitions.apiextensions.k8s.io - others.shop.example",
		"create customresourcedefinitions.apiextensions.k8s.io - -",
		"create mutatingwebhookconfigurations.admissionregistration.k8s.io - -",
		"list leases.coordination.k8s.io kube-system -",
	} {
		words := strings.Fields(strings.ReplaceAll(question, " -", " \"\""))
		for i, w := range words {
			words[i] = strings.Trim(w, `"`)
		}
		if may(t, kube, words[0], words[1], words[2], words[3]) {
			t.Errorf("the daemon may %s, and needs not", question)
		}
	}
}

// may asks the API server's authorizer, as `kubectl auth can-i` does. A
// resource is written as in "deployments.apps" or "pods/log".
func may(t *testing.T, kube kubernetes.Interface, verb, resource, namespace, name string) bool {
	t.Helper()
	resource, subresource, _ := strings.Cut(resource, "/")
	resource, group, _ := strings.Cut(resource, ".")
	review, err := kube.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User:   account,
			Groups: []string{"system:serviceaccounts", "system:serviceaccounts:pinion", "system:authenticated"},
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Verb: verb, Group: group, Resource: resource, Subresource: subresource, Namespace: namespace, Name: name,
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return review.Status.Allowed
}

// appliesTheShop runs the program as the daemon's account.
func appliesTheShop(t *testing.T, kubeconfig string, kube kubernetes.Interface, program string) {
	repo := t.TempDir()
	if err := os.CopyFS(repo, os.DirFS("shop")); err != nil {
		t.Fatal(err)
	}
	initialise(t, repo)
	as := asTheDaemon(t, kubeconfig, kube)
	for _, env := range []string{"dev", "staging", "production"} {
		command(t, repo, program, "apply", env, "--kubeconfig", as)
		list, err := kube.AppsV1().Deployments("shop-"+env).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=pinion"})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, d := range list.Items {
			names = append(names, d.Name)
			if d.Status.AvailableReplicas != *d.Spec.Replicas {
				t.Errorf("shop-%s/%s: %d of %d pods are available", env, d.Name, d.Status.AvailableReplicas, *d.Spec.Replicas)
			}
		}
		if want := []string{"api", "db", "queue-operator", "web"}; !slices.Equal(names, want) {
			t.Errorf("shop-%s has the Deployments %v, want %v", env, names, want)
		}
	}
}

// asTheDaemon returns a kubeconfig with a token of the daemon's account.
func asTheDaemon(t *testing.T, kubeconfig string, kube kubernetes.Interface) string {
	t.Helper()
	token, err := kube.CoreV1().ServiceAccounts("pinion").CreateToken(t.Context(), "pinion", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for name := range config.AuthInfos {
		config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: token.Status.Token}
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// tenant is a repository with an environment whose account is the one of
// tenants.yaml.
const tenant = `
-- environments/tenant.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: shop-tenant
serviceAccount: deployer
pins:
  web:
    image: registry.k8s.io/pause:3.9
-- services/web/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
rollout: {timeout: 60s}
-- services/web/web.yaml --
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: main, image: web}]
`

// appliesATenant gives the daemon's account what tenants.yaml says and no more,
// and applies what is then done in the tenant's name.
func appliesATenant(t *testing.T, kubeconfig string, kube kubernetes.Interface, config *rest.Config, program string) {
	dir := t.TempDir()
	data, err := os.ReadFile("install/tenants.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"tenants.yaml": data, "kustomization.yaml": []byte("resources: [tenants.yaml]\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	applyKustomization(t, config, dir)
	repo := t.TempDir()
	for _, f := range txtar.Parse([]byte(tenant)).Files {
		path := filepath.Join(repo, f.Name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, f.Data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	initialise(t, repo)
	command(t, repo, program, "apply", "tenant", "--kubeconfig", asTheDaemon(t, kubeconfig, kube))
	d, err := kube.AppsV1().Deployments("shop-tenant").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil || d.Status.AvailableReplicas != 1 {
		t.Errorf("%d pods are available: %v", d.Status.AvailableReplicas, err)
	}
	for question, want := range map[string]bool{
		"impersonate serviceaccounts shop-tenant deployer": true,
		"impersonate serviceaccounts shop-tenant default":  false,
		"get serviceaccounts shop-tenant default":          false,
		"patch deployments.apps shop-tenant web":           false,
		"list configmaps shop-tenant -":                    false,
	} {
		words := strings.Fields(question)
		if words[3] == "-" {
			words[3] = ""
		}
		if may(t, kube, words[0], words[1], words[2], words[3]) != want {
			t.Errorf("the daemon may %s: %v", question, !want)
		}
	}
}

func initialise(t *testing.T, repo string) {
	t.Helper()
	command(t, repo, "git", "init", "--quiet", "--initial-branch=main")
	command(t, repo, "git", "add", ".")
	command(t, repo, "git", "commit", "--quiet", "--message=The shop")
}

// applyKustomization applies a folder as `kubectl apply -k --server-side` does.
func applyKustomization(t *testing.T, config *rest.Config, dir string) {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	mapping := newMapping(config)
	client := dynamic.NewForConfigOrDie(config)
	for _, r := range built.Resources() {
		data, err := r.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var o unstructured.Unstructured
		if err := o.UnmarshalJSON(data); err != nil {
			t.Fatal(err)
		}
		gvk := o.GroupVersionKind()
		m, err := mapping.RESTMapping(gvk.GroupKind(), gvk.Version)
		if err != nil {
			t.Fatal(err)
		}
		options := metav1.PatchOptions{FieldManager: "admin", FieldValidation: metav1.FieldValidationStrict}
		if _, err := client.Resource(m.Resource).Namespace(o.GetNamespace()).Patch(t.Context(), o.GetName(), types.ApplyPatchType, data, options); err != nil {
			t.Fatalf("apply %s %s: %v", gvk.Kind, o.GetName(), err)
		}
	}
}

func newMapping(config *rest.Config) *restmapper.DeferredDiscoveryRESTMapper {
	return restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(kubernetes.NewForConfigOrDie(config).Discovery()))
}

// command runs a program in a folder; its output is shown if it fails.
func command(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(),
		"GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull,
		"GIT_AUTHOR_NAME=Dana", "GIT_AUTHOR_EMAIL=dana@shop.example",
		"GIT_COMMITTER_NAME=Dana", "GIT_COMMITTER_EMAIL=dana@shop.example")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, &out)
	}
}
