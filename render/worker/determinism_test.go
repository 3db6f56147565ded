package worker_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/render"
	"github.com/pinion-cd/pinion/render/worker"
)

// The same request gives the same bytes, and the same reads, in fresh
// processes, in one that did all the others before, and in this one.
func TestSameBytesEverywhere(t *testing.T) {
	cases, err := filepath.Glob("../testdata/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	fresh := worker.New(worker.Options{Size: 1, Renders: 1})
	defer fresh.Close()
	used := worker.New(worker.Options{Size: 1, Renders: 1 << 30})
	defer used.Close()
	trees := map[string]desired.Tree{}
	for _, file := range cases {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]string{}
		renders := false
		for _, f := range archive.Files {
			renders = renders || f.Name == "want/objects"
			if !strings.HasPrefix(f.Name, "want/") {
				m[f.Name] = string(f.Data)
			}
		}
		if renders && !strings.Contains(m["request"]+string(m["services/web/a.yaml"])+m["services/web/main.jsonnet"], `\`) {
			trees[file] = files(m)
		}
	}
	trees["kustomize"], trees["jsonnet"] = files(kustomizeService), files(jsonnetService)
	want := map[string]string{}
	for round := range 3 {
		for name, tree := range trees {
			req := request()
			if strings.HasSuffix(name, "/kustomize.txtar") {
				req.Folder = "services/web/overlays/staging"
			}
			if strings.HasSuffix(name, "_other_folder.txtar") {
				req.Folder = "services/web/manifests"
			}
			here, err := render.Build(t.Context(), tree, req)
			if err != nil {
				t.Fatal(name, err)
			}
			if want[name] == "" {
				want[name] = everything(here)
			}
			there, err := fresh.Render(t.Context(), tree, req)
			if err != nil {
				t.Fatal(name, err)
			}
			again, err := used.Render(t.Context(), tree, req)
			if err != nil {
				t.Fatal(name, err)
			}
			for where, r := range map[string]*render.Result{"this process": here, "a fresh process": there, "a used process": again} {
				if got := everything(r); got != want[name] {
					t.Errorf("%s, round %d, %s:\n%s\nwant\n%s", name, round, where, got, want[name])
				}
			}
		}
	}
}

func everything(r *render.Result) string {
	var b strings.Builder
	for _, o := range r.All() {
		fmt.Fprintf(&b, "%s %s %s\n%s\n%s\n", o.Ref, o.Version, o.Digest, o.JSON, o.Stamp("4f1c2aa90b7e"))
	}
	fmt.Fprintln(&b, r.Digest, r.Reads, r.Warnings)
	return b.String()
}

// The parameters arrive in a worker as they are, and come back.
func TestParametersArrive(t *testing.T) {
	p := worker.New(worker.Options{Size: 1})
	defer p.Close()
	req := request()
	req.Parameters = map[string]any{"int": int64(7), "float": 0.1, "big": 1e21, "text": "<é\u2028>", "list": []any{nil, true}, "map": map[string]any{"a": int64(1)}}
	tree := files(jsonnet(`function(pinion) { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a' }, data: pinion.parameters }`))
	here, err := render.Build(t.Context(), tree, req)
	if err != nil {
		t.Fatal(err)
	}
	there, err := p.Render(t.Context(), tree, req)
	if err != nil {
		t.Fatal(err)
	}
	if everything(here) != everything(there) {
		t.Errorf("%s\n%s", everything(here), everything(there))
	}
	const want = `"data":{"big":1e+21,"float":0.1,"int":7,"list":[null,true],"map":{"a":1},"text":"<é\u2028>"}`
	if !strings.Contains(string(there.Objects[0].JSON), want) {
		t.Errorf("%s", there.Objects[0].JSON)
	}
}
