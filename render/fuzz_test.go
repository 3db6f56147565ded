package render_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/render"
)

// Whatever the file holds, Build says what is wrong with it, or gives objects
// that are JSON, carry the labels, and come out the same once more.
func FuzzBuild(f *testing.F) {
	for _, m := range trees(f) {
		for name, text := range m {
			if strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".json") {
				f.Add(text, strings.HasSuffix(name, ".json"))
			}
		}
	}
	f.Add("apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: A, metadata: {name: a}}]", false)
	f.Add("a: &a [*a]", false)
	f.Add("{<<: 1, <<: 2}", false)
	f.Add("? [a]\n: b", false)
	f.Fuzz(func(t *testing.T, text string, isJSON bool) {
		name := "services/web/a.yaml"
		if isJSON {
			name = "services/web/a.json"
		}
		tree := files(map[string]string{name: text})
		result, err := render.Build(t.Context(), tree, request())
		if err != nil {
			if _, ok := errors.AsType[*render.Error](err); !ok {
				t.Fatalf("%T: %v", err, err)
			}
			if strings.ContainsAny(err.Error()[:1], " ;") {
				t.Fatalf("%q", err)
			}
			return
		}
		for _, o := range result.All() {
			var m struct {
				Metadata struct {
					Name, Namespace     string
					Labels, Annotations map[string]string
				}
			}
			if err := json.Unmarshal(o.JSON, &m); err != nil {
				t.Fatalf("%s: %v", o.JSON, err)
			}
			if m.Metadata.Labels[render.LabelService] != "web" || m.Metadata.Annotations[render.AnnotationDigest] != o.Digest ||
				m.Metadata.Name != o.Ref.Name || m.Metadata.Namespace != o.Ref.Namespace {
				t.Fatalf("%s", o.JSON)
			}
		}
		again, err := render.Build(t.Context(), tree, request())
		if err != nil || again.Digest != result.Digest {
			t.Fatalf("not the same once more: %v", err)
		}
		// What came out goes in again, and comes out the same.
		if len(result.Objects) == 0 {
			return
		}
		var list []json.RawMessage
		for _, o := range result.All() {
			list = append(list, o.JSON)
		}
		data, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "items": list})
		if err != nil {
			t.Fatal(err)
		}
		once, err := render.Build(t.Context(), files(map[string]string{"services/web/a.json": string(data)}), request())
		if err != nil {
			t.Fatal(err)
		}
		if once.Digest != result.Digest {
			t.Fatalf("a rendering of the rendering differs: %s", data)
		}
	})
}

// FuzzKustomization looks for a file that passes the check and makes
// Kustomize reach out, which fails without a network, or crash.
func FuzzKustomization(f *testing.F) {
	for _, m := range trees(f) {
		if text, ok := m["services/web/kustomization.yaml"]; ok {
			f.Add(text)
		}
	}
	f.Add("resources: [https://example.com/a]")
	f.Add("generators: ['{apiVersion: builtin, kind: ConfigMapGenerator, metadata: {name: a}}']")
	f.Fuzz(func(t *testing.T, text string) {
		_, err := render.Build(t.Context(), files(map[string]string{
			"services/web/kustomization.yaml": text,
			"services/web/cm.yaml":            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
		}), request())
		if err == nil {
			return
		}
		if _, ok := errors.AsType[*render.Error](err); !ok {
			t.Fatalf("%T: %v", err, err)
		}
		for _, sign := range []string{"dial tcp", "lookup ", "git fetch", "git clone", "executable file not found", "no 'git' program"} {
			if strings.Contains(err.Error(), sign) {
				t.Fatalf("it reached out: %v", err)
			}
		}
	})
}
