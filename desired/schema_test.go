package desired_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"go.yaml.in/yaml/v3"

	"github.com/pinion-cd/pinion/desired"
)

var kinds = map[string]desired.Kind{
	"environments": desired.KindEnvironment, "services": desired.KindService, "pipelines": desired.KindPipeline,
	"policies": desired.KindPolicy, "holds": desired.KindHold,
}

func TestSchemaFiles(t *testing.T) {
	for _, kind := range kinds {
		got, err := desired.Schema(kind)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("schema", strings.ToLower(string(kind))+".json")
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the types say: go test ./desired -update", file)
		}
		var s map[string]any
		if err := json.Unmarshal(got, &s); err != nil {
			t.Fatal(err)
		}
		if s["$schema"] != "http://json-schema.org/draft-07/schema#" || s["description"] == "" {
			t.Errorf("%s: not a described draft-07 schema", file)
		}
		described(t, file, s)
	}
	if _, err := desired.Schema("Deployment"); err == nil {
		t.Error("there is a schema for a kind that is not ours")
	}
}

// described looks for keys without a description.
func described(t *testing.T, path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		if properties, ok := v["properties"].(map[string]any); ok {
			for name, p := range properties {
				if text, _ := p.(map[string]any)["description"].(string); text == "" {
					t.Errorf("%s.%s has no description", path, name)
				}
			}
		}
		for name, inner := range v {
			described(t, path+"."+name, inner)
		}
	case []any:
		for _, inner := range v {
			described(t, path, inner)
		}
	}
}

func resolved(t *testing.T, kind desired.Kind) *jsonschema.Resolved {
	t.Helper()
	data, err := desired.Schema(kind)
	if err != nil {
		t.Fatal(err)
	}
	var s jsonschema.Schema
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	r, err := s.Resolve(&jsonschema.ResolveOptions{ValidateDefaults: true})
	if err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	return r
}

func validate(t *testing.T, s *jsonschema.Resolved, data []byte) error {
	t.Helper()
	var v any
	if err := yaml.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return s.Validate(v)
}

// What the decoder takes, the schema takes, too.
func TestSchemaAccepts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	accepted := 0
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		all := tree(t, name)
		faulty := map[string]bool{"policies/smoke-job.yaml": true}
		for _, p := range read(t, all).Problems {
			faulty[p.File] = faulty[p.File] || p.Severity == desired.SeverityError
		}
		for path, f := range all {
			kind := kinds[strings.Split(path, "/")[0]]
			base := filepath.Base(path)
			if kind == "" || faulty[path] || filepath.Ext(path) != ".yaml" || base[0] == '.' || strings.Count(path, "/") > 1 && base != "service.yaml" || faulty[filepath.Dir(path)] {
				continue
			}
			accepted++
			if err := validate(t, resolved(t, kind), f.Data); err != nil {
				t.Errorf("%s: %s: the schema refuses it: %v", name, path, err)
			}
		}
	}
	if accepted < 50 {
		t.Errorf("only %d files: the cases do not try the schemas", accepted)
	}
}

// What an editor should underline, it can.
func TestSchemaRefuses(t *testing.T) {
	sound := map[desired.Kind]string{
		desired.KindEnvironment: "namespace: shop\n",
		desired.KindService:     "",
		desired.KindPipeline:    "services: [web]\nstages: [{environment: dev}]\n",
		desired.KindPolicy:      "timeout: 2h\n",
		desired.KindHold:        "reason: x\nowner: y\n",
	}
	for kind, lines := range map[desired.Kind][]string{
		desired.KindEnvironment: {"x: y", "cluster: 3", "cluster: A", "parameters: []", "pins: {web: x}", "pins: {web: {}}", "pins: {web: {image: 1.4}}", "pins: {web: {image: web}}", "pins: {web: {image: \"web:1\", x: y}}", "pins: {Web: {image: \"web:1\"}}", "manifests: {web: 4f1c2aa}"},
		desired.KindService:     {"x: y", "artifacts: web", "artifacts: [a, a]", "artifacts: [A]", "rollout: {timeout: 30}", "rollout: {timeout: 1d}", "rollout: {x: y}", "conflicts: tak", "manifests: /etc"},
		desired.KindPipeline:    {"x: y"},
		desired.KindPolicy:      {"x: y", "", "soak: 3", "soak: 3m\nreport: {by: [ci]}", "report: {}", "report: {by: []}", "job: {}", "http: {url: x}", "prometheus: {url: \"http://x\", query: x}", "approval: {groups: [a], count: 0}", "approval: {groups: [a], count: x}", "approval: {groups: [a], allowAuthor: x}", "window: {allow: never}", "cel: \"\""},
		desired.KindHold:        {"environments: dev", "owners: x"},
	} {
		for _, line := range lines {
			text := "apiVersion: pinion.dev/v1\nkind: " + string(kind) + "\n" + sound[kind] + line + "\n"
			if err := validate(t, resolved(t, kind), []byte(text)); err == nil {
				t.Errorf("the schema takes\n%s", text)
			}
		}
	}
}
