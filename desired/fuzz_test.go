package desired_test

import (
	"bytes"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"

	"go.yaml.in/yaml/v3"

	"github.com/pinion-cd/pinion/desired"
)

// Nothing that a file may hold makes reading it panic; what is wrong in it has
// a place in it; and it is either sound or broken.
func FuzzRead(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		for path, x := range tree(f, strings.TrimSuffix(filepath.Base(file), ".txtar")) {
			f.Add(x.Data, strings.Split(path, "/")[0])
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, folder string) {
		kind, ok := kinds[folder]
		if !ok {
			folder, kind = "environments", desired.KindEnvironment
		}
		path := folder + "/x.yaml"
		if kind == desired.KindService {
			path = "services/x/service.yaml"
		}
		others := fstest.MapFS{
			"environments/dev.yaml":     {Data: []byte(environmentHead + "namespace: a\npins:\n  web:\n    image: web:1\n")},
			"services/web/service.yaml": {Data: []byte(serviceHead)},
			path:                        {Data: data},
		}
		r := read(t, others)
		lines := bytes.Count(bytes.ReplaceAll(data, []byte("\r"), []byte("\n")), []byte("\n")) + bytes.Count(data, []byte("\u0085")) + bytes.Count(data, []byte("\u2028")) + bytes.Count(data, []byte("\u2029")) + 1
		errors := 0
		for _, p := range r.Problems {
			if p.File == "" || p.Message == "" || p.Line < 0 || p.Column < 0 || strings.HasPrefix(p.Message, "not valid YAML: runtime") {
				t.Errorf("%#v", p)
			}
			if p.File != path {
				continue
			}
			if p.Line < 1 || p.Line > lines+1 || p.Column < 1 {
				t.Errorf("out of the file of %d lines: %#v", lines, p)
			}
			if p.Severity == desired.SeverityError {
				errors++
			}
		}
		broken := len(r.Broken(kind, "x")) > 0
		if broken && errors == 0 {
			t.Error("it is broken, and no error says why")
		}
		there := map[desired.Kind]bool{
			desired.KindEnvironment: r.Environments["x"] != nil, desired.KindService: r.Services["x"] != nil,
			desired.KindPipeline: r.Pipelines["x"] != nil, desired.KindPolicy: r.Policies["x"] != nil, desired.KindHold: r.Holds["x"] != nil,
		}[kind]
		if there == broken {
			t.Errorf("there: %v, broken: %v", there, broken)
		}
		if _, ok := r.Deployment("dev", "web"); !ok {
			t.Error("what is sound has vanished")
		}
		for _, d := range r.Deployments() {
			if gone, _ := r.Gone(d.Environment.Name, d.Service.Name); gone {
				t.Error("a deployment is gone")
			}
			if len(d.Problems) == 0 && len(d.Pins) != len(d.Service.Artifacts) {
				t.Errorf("%+v may move without all of its pins", d)
			}
		}
	})
}

// A splice changes the reference and nothing else.
func FuzzSetPin(f *testing.F) {
	for _, s := range []string{
		"pins:\n  web:\n    image: web:1 # x\n", "pins: {web: {image: \"web:1\"}}", "pins:\r\n  web:\r\n    image: 'web:1'\r\n",
		"{\"pins\": {\"web\": {\"image\": \"web:1\"}}}", "pins:\n  web:\n    image: >-\n      web:1\n", "pins:\n  ? web\n  : image: web:1\n",
		"a: \u2028\npins:\n  web:\n    image: web\u0085:1\n", "\ufeffpins: {web: {image: 1.4}}", "pins:\n  web:\n    image: web:1\n...\n", "--- {pins: {web: {image: a:1}}}",
		"a: \"x\n\n  y\"\npins:\n  web: {image: b:2, x: [1,2]}\n", "%YAML 1.1\n---\npins:\n web:\n  image: x\n",
	} {
		f.Add([]byte(s), "web:2")
		f.Add([]byte(s), "ghcr.io/acme/web:1.4.2@sha256:"+strings.Repeat("2", 64))
	}
	f.Fuzz(func(t *testing.T, data []byte, reference string) {
		got, err := desired.SetPin("environments/x.yaml", data, "web", reference)
		if err != nil {
			if got != nil {
				t.Error("an error, and a file")
			}
			return
		}
		var before, after any
		if err := yaml.Unmarshal(bytes.TrimPrefix(data, []byte("\ufeff")), &before); err != nil {
			return // such as a key that is there twice: the splice looks only at its own
		}
		if err := yaml.Unmarshal(bytes.TrimPrefix(got, []byte("\ufeff")), &after); err != nil {
			t.Fatalf("%q does not parse any more: %q: %v", data, got, err)
		}
		before.(map[string]any)["pins"].(map[string]any)["web"].(map[string]any)["image"] = reference
		// By text: there may be NaN.
		was, _ := yaml.Marshal(before)
		is, _ := yaml.Marshal(after)
		if !reflect.DeepEqual(was, is) {
			t.Errorf("%q became %q", data, got)
		}
		prefix := 0
		for prefix < len(data) && prefix < len(got) && data[prefix] == got[prefix] {
			prefix++
		}
		suffix := 0
		for suffix < len(data)-prefix && suffix < len(got)-prefix && data[len(data)-1-suffix] == got[len(got)-1-suffix] {
			suffix++
		}
		if changed := data[prefix : len(data)-suffix]; bytes.ContainsAny(changed, "\n\r") || bytes.Contains(changed, []byte(" #")) {
			t.Errorf("%q was replaced in %q", changed, data)
		}
		if put := string(got[prefix : len(got)-suffix]); !strings.Contains(reference, put) {
			t.Errorf("%q was put into %q", put, data)
		}
		again, err := desired.SetPin("environments/x.yaml", got, "web", reference)
		if err != nil || !bytes.Equal(again, got) {
			t.Errorf("set again: %q, %v", again, err)
		}
	})
}

// An entry is added or replaced, and nothing else changes.
func FuzzSetManifests(f *testing.F) {
	for _, s := range []string{
		"a: b\n", "manifests:\n  web: " + commit + "\n", "manifests:\n  a: x # y\n  # z\n  z: x\n", "manifests: # x\nb: c\n", "  manifests:\n     a: b\n  c: d", "manifests:\r\n  z: x\r\n", "a: |+\n  x\n\n", "manifests:\n- a\n", "{}", "? manifests\n: a: b\n",
	} {
		f.Add([]byte(s), commit)
		f.Add([]byte(s), other)
	}
	f.Fuzz(func(t *testing.T, data []byte, commit string) {
		got, err := desired.SetManifests("environments/x.yaml", data, "web", commit)
		if err != nil {
			return
		}
		var before, after map[string]any
		if err := yaml.Unmarshal(bytes.TrimPrefix(data, []byte("\ufeff")), &before); err != nil {
			return
		}
		if err := yaml.Unmarshal(bytes.TrimPrefix(got, []byte("\ufeff")), &after); err != nil {
			t.Fatalf("%q does not parse any more: %q: %v", data, got, err)
		}
		if before == nil {
			before = make(map[string]any)
		}
		if m, ok := before["manifests"].(map[string]any); ok {
			m["web"] = commit
		} else {
			before["manifests"] = map[string]any{"web": commit}
		}
		was, _ := yaml.Marshal(before)
		is, _ := yaml.Marshal(after)
		if !bytes.Equal(was, is) {
			t.Errorf("%q became %q", data, got)
		}
		// What was there is there still, in its order.
		rest := string(got)
		isBreak := func(r rune) bool { return strings.ContainsRune("\n\r\u0085\u2028\u2029", r) }
		for _, line := range strings.FieldsFunc(string(data), isBreak) {
			if strings.Contains(line, "web") {
				continue // it may be the line that changed
			}
			_, after, found := strings.Cut(rest, line)
			if !found {
				t.Fatalf("%q lost %q: %q", data, line, got)
			}
			rest = after
		}
		again, err := desired.SetManifests("environments/x.yaml", got, "web", commit)
		if err != nil || !bytes.Equal(again, got) {
			t.Errorf("set again: %q, %v", again, err)
		}
	})
}
