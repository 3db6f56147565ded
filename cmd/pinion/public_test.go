package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	cached "k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/restmapper"

	"github.com/pinion-cd/pinion/internal/devtest"
)

// public is a configuration that others publish, in two versions that follow
// each other.
type public struct {
	name, module string
	versions     [2]string
	root         string   // what of the module is copied
	resources    []string // below it; none: all YAML files
	without      []string // but these, whose kinds another project brings
	own          bool     // it brings the namespaces of its objects
	image        string   // the artifact that is pinned
}

// publics are large configurations of operators and platforms: hundreds of
// objects, definitions of kinds that are longer than an annotation may be, roles
// of the whole cluster, webhooks, and kinds that come with the objects of theirs.
var publics = []public{
	{name: "argo-cd", module: "github.com/argoproj/argo-cd/v3", versions: [2]string{"v3.1.8", "v3.2.0"}, root: "manifests", resources: []string{"cluster-install"}, image: "quay.io/argoproj/argocd"},
	{name: "argo-rollouts", module: "github.com/argoproj/argo-rollouts", versions: [2]string{"v1.8.2", "v1.8.3"}, root: "manifests", resources: []string{"cluster-install"}, image: "quay.io/argoproj/argo-rollouts"},
	{name: "external-secrets", module: "github.com/external-secrets/external-secrets", versions: [2]string{"v0.19.2", "v0.20.1"}, root: "config/crds", resources: []string{"bases"}, image: "registry.example/external-secrets"},
	{name: "gateway-api", module: "sigs.k8s.io/gateway-api", versions: [2]string{"v1.3.0", "v1.4.0"}, root: "config/crd", resources: []string{"."}, image: "registry.example/gateway-api"},
	{name: "knative-serving", module: "knative.dev/serving", versions: [2]string{"v0.46.0", "v0.47.0"}, root: "config/core", without: []string{"300-knativecertificate.yaml", "999-cache.yaml"}, own: true, image: "registry.example/knative-serving"},
	{name: "tekton", module: "github.com/tektoncd/pipeline", versions: [2]string{"v1.5.0", "v1.6.0"}, root: "config", own: true, image: "registry.example/tekton"},
}

// TestPublicConfigurations installs large configurations of others, moves them
// to their next versions, takes one of them away, and then all. Each time all
// that is in the cluster is compared with the commit, object by object.
func TestPublicConfigurations(t *testing.T) {
	if os.Getenv("PINION_PUBLIC") == "" {
		t.Skip("it fetches other projects' modules: make public")
	}
	sources := t.TempDir()
	for i := range 2 {
		for _, p := range publics {
			p.fetch(t, i, filepath.Join(sources, fmt.Sprint(i), p.name))
		}
	}
	plane := devtest.Start(t)
	w := newWorldOn(t, plane.Kubeconfig, "")
	x := &publicWorld{world: w, sources: sources, seen: map[schema.GroupVersionResource]bool{}}
	config := filepath.Join(t.TempDir(), "config.yaml")
	w.must(os.WriteFile(config, []byte(`apiVersion: pinion.dev/v1
kind: Config
clusters:
  default:
    kubeconfig: `+w.kubeconfig+`
    environments:
      dev:
        namespaces: [knative-serving, tekton-pipelines, tekton-pipelines-resolvers, kube-system]
        clusterScoped: ["*"]
`), 0o600))

	x.commit(0, publics)
	d := w.daemon(t.TempDir(), "--config", config)
	x.reach(0, publics)
	x.commit(1, publics)
	x.reach(1, publics)
	x.commit(1, publics[1:])
	x.reach(1, publics[1:])
	mark := d.mark()
	x.commit(1, nil)
	digest := d.halts(mark)
	if out, errs, code := x.pinion("apply", "dev", "--config", config, "--confirm-prune", digest); code != exitOK {
		t.Fatalf("apply with the digest ends with %d\n%s%s", code, out, errs)
	}
	x.compare()
	w.audited()
}

// fetch copies what is published of one version.
func (p public) fetch(t *testing.T, version int, to string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module fetch\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "mod", "download", "-json", p.module+"@"+p.versions[version])
	cmd.Dir = dir
	out, err := cmd.Output()
	var got struct{ Dir, Error string }
	if json.Unmarshal(out, &got) != nil || got.Dir == "" {
		t.Fatalf("fetch %s %s: %v\n%s%s", p.module, p.versions[version], err, got.Error, out)
	}
	from := filepath.Join(got.Dir, filepath.FromSlash(p.root))
	var files []string
	err = filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err // the module has no links
		}
		name, _ := filepath.Rel(from, path)
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.HasSuffix(name, ".yaml") && objects.Match(data) && !slices.Contains(p.without, filepath.ToSlash(name)) {
			files = append(files, filepath.ToSlash(name))
		}
		path = filepath.Join(to, "upstream", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, data, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	if p.resources != nil {
		files = p.resources
	}
	var b strings.Builder
	b.WriteString("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\ncommonAnnotations: {pinion.dev/prune: allow}\nresources:\n")
	for _, f := range files {
		fmt.Fprintf(&b, "- %s\n", filepath.ToSlash(filepath.Join("upstream", f)))
	}
	if !p.own {
		b.WriteString("namespace: NAMESPACE\n")
	}
	if err := os.WriteFile(filepath.Join(to, "kustomization.yaml"), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	// No metrics come from here, so no autoscaler becomes active.
	service := "apiVersion: pinion.dev/v1\nkind: Service\nrollout: {timeout: 5m}\nhealth:\n- {apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, current: \"true\"}\n"
	if err := os.WriteFile(filepath.Join(to, "service.yaml"), []byte(service), 0o644); err != nil {
		t.Fatal(err)
	}
}

// objects finds files that hold objects of Kubernetes.
var objects = regexp.MustCompile(`(?m)^apiVersion: `)

type publicWorld struct {
	*world
	sources string
	seen    map[schema.GroupVersionResource]bool // what kinds there ever were
}

// commit makes the repository have some configurations in a version.
func (x *publicWorld) commit(version int, list []public) {
	x.Helper()
	services := filepath.Join(x.clone, "services")
	x.must(os.RemoveAll(services))
	var pins strings.Builder
	for _, p := range list {
		x.must(os.CopyFS(filepath.Join(services, p.name), os.DirFS(filepath.Join(x.sources, fmt.Sprint(version), p.name))))
		file := filepath.Join(services, p.name, "kustomization.yaml")
		data, err := os.ReadFile(file)
		x.must(err)
		x.must(os.WriteFile(file, []byte(strings.ReplaceAll(string(data), "NAMESPACE", x.namespace)), 0o644))
		fmt.Fprintf(&pins, "  %s:\n    image: %s:%s\n", p.name, p.image, p.versions[version])
	}
	x.push(fmt.Sprintf("%d configurations in version %d", len(list), version), `
-- environments/dev.yaml --
apiVersion: pinion.dev/v1
kind: Environment
cluster: default
namespace: NAMESPACE
pins:
  note:
    image: registry.example/note:1.0.0
`+pins.String()+`
-- services/note/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/note/note.yaml --
apiVersion: v1
kind: ConfigMap
metadata: {name: note}
data: {text: "what stays, for an empty commit may not be a deployment repository at all"}
`)
}

// reach waits until what is committed is verified, and compares.
func (x *publicWorld) reach(version int, list []public) {
	x.Helper()
	begun := time.Now()
	for _, p := range list {
		x.until(p.name+" is verified", func(context.Context) string {
			out, errs, _ := x.pinion("where", p.name)
			if strings.Contains(out, p.versions[version]) && strings.Contains(out, "verified") {
				return ""
			}
			x.git("fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*")
			return out + errs
		})
	}
	all := x.compare()
	x.Logf("%d configurations in version %d, %d objects: %s", len(list), version, all, time.Since(begun).Round(10*time.Millisecond))
}

// compare compares the cluster with the commit, and returns of how many objects.
func (x *publicWorld) compare() int {
	x.Helper()
	var want []map[string]any
	out, errs, code := x.pinion("render", "dev", "-o", "json")
	if code != 0 {
		x.Fatalf("render: %s", errs)
	}
	x.must(json.Unmarshal([]byte(out), &want))
	x.until("the cluster is as the commit wants it", func(ctx context.Context) string {
		mapper := restmapper.NewDeferredDiscoveryRESTMapper(cached.NewMemCacheClient(x.kube.Discovery()))
		var wrong []string
		wanted := map[string]bool{}
		for _, o := range want {
			u := unstructured.Unstructured{Object: o}
			kind := u.GroupVersionKind()
			m, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
			if err != nil {
				return err.Error()
			}
			x.seen[m.Resource] = true
			name := m.Resource.Resource + " " + u.GetNamespace() + "/" + u.GetName()
			wanted[name] = true
			client := x.dynamic.Resource(m.Resource)
			var have *unstructured.Unstructured
			if m.Scope.Name() == meta.RESTScopeNameNamespace {
				have, err = client.Namespace(u.GetNamespace()).Get(ctx, u.GetName(), metav1.GetOptions{})
			} else {
				have, err = client.Get(ctx, u.GetName(), metav1.GetOptions{})
			}
			if err != nil {
				wrong = append(wrong, err.Error())
			} else if why := lacking(o, have.Object, ""); why != "" {
				wrong = append(wrong, name+": "+why)
			}
		}
		for _, r := range slices.SortedFunc(maps.Keys(x.seen), func(a, b schema.GroupVersionResource) int { return strings.Compare(a.String(), b.String()) }) {
			list, err := x.dynamic.Resource(r).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=pinion,pinion.dev/service"})
			if err != nil {
				continue // the kind is gone
			}
			for _, o := range list.Items {
				if name := r.Resource + " " + o.GetNamespace() + "/" + o.GetName(); !wanted[name] {
					wrong = append(wrong, name+" should not be there")
				}
			}
		}
		return strings.Join(wrong, "\n")
	})
	return len(want)
}
