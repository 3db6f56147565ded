package worker_test

import (
	"os"
	"testing"
	"testing/fstest"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/render"
	"github.com/pinion-cd/pinion/render/worker"
)

func TestMain(m *testing.M) {
	worker.Hook()
	os.Exit(m.Run())
}

func files(m map[string]string) desired.Tree {
	fsys := fstest.MapFS{}
	for name, text := range m {
		fsys[name] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
	}
	return desired.Hashed(fsys)
}

func request() render.Request {
	return render.Request{
		Environment: "staging",
		Namespace:   "shop-staging",
		Service:     "web",
		Folder:      "services/web",
		Plaintext:   true,
		Parameters:  map[string]any{"replicas": int64(2), "host": "staging.shop.example"},
		Pins: []desired.Pin{{Artifact: "web", Image: desired.Image{
			Reference: "ghcr.io/acme/web:1.4.2", Repository: "ghcr.io/acme/web", Version: "1.4.2",
		}}},
	}
}

var kustomizeService = map[string]string{
	"services/web/kustomization.yaml": "resources: [deploy.yaml, service.yaml, account.yaml]\nconfigMapGenerator:\n- name: config\n  literals: [a=1]\npatches:\n- target: {kind: Deployment}\n  patch: |-\n    apiVersion: apps/v1\n    kind: Deployment\n    metadata: {name: web}\n    spec: {replicas: 3}\n",
	"services/web/deploy.yaml":        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 1\n  template:\n    spec:\n      containers:\n      - {name: web, image: web, envFrom: [{configMapRef: {name: config}}]}\n",
	"services/web/service.yaml":       "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n",
	"services/web/account.yaml":       "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web}\n",
}

var jsonnetService = map[string]string{
	"services/web/main.jsonnet": `local k = import 'k.libsonnet';
function(pinion) [k.object('apps/v1', 'Deployment', 'web') + { spec: { replicas: pinion.parameters.replicas, template: { spec: { containers: [{ name: 'web', image: pinion.pins.web.image }] } } } },
  k.object('v1', 'Service', 'web'), k.object('v1', 'ServiceAccount', 'web'), k.object('v1', 'ConfigMap', 'web')]`,
	"lib/k.libsonnet": `{ object(v, k, n): { apiVersion: v, kind: k, metadata: { name: n } } }`,
}

func BenchmarkRender(b *testing.B) {
	for name, m := range map[string]map[string]string{"kustomize": kustomizeService, "jsonnet": jsonnetService} {
		b.Run(name, func(b *testing.B) {
			p := worker.New(worker.Options{Size: 1, Renders: 1 << 30})
			defer p.Close()
			tree := files(m)
			if _, err := p.Render(b.Context(), tree, request()); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := p.Render(b.Context(), tree, request()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The time until a new worker has rendered, Jsonnet and Kustomize, whose first
// build reads the schema of Kubernetes.
func BenchmarkStart(b *testing.B) {
	for name, m := range map[string]map[string]string{"kustomize": kustomizeService, "jsonnet": jsonnetService} {
		b.Run(name, func(b *testing.B) {
			tree := files(m)
			for b.Loop() {
				p := worker.New(worker.Options{Size: 1})
				if _, err := p.Render(b.Context(), tree, request()); err != nil {
					b.Fatal(err)
				}
				p.Close()
			}
		})
	}
}
