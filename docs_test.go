package pinion_test

import (
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/pinion-cd/pinion/desired"
)

// The examples of docs/formats.md are a deployment repository that is sound.
func TestFormatsAreAsTheyAreRead(t *testing.T) {
	data, err := os.ReadFile("docs/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	tree := fstest.MapFS{
		"policies/smoke-job.yaml":      {Data: []byte("apiVersion: batch/v1\nkind: Job\n")},
		"services/api/service.yaml":    {Data: []byte("apiVersion: pinion.dev/v1\nkind: Service\n")},
		"environments/dev.yaml":        {Data: []byte("apiVersion: pinion.dev/v1\nkind: Environment\nnamespace: shop-dev\n")},
		"environments/production.yaml": {Data: []byte("apiVersion: pinion.dev/v1\nkind: Environment\nnamespace: shop-production\n")},
	}
	shown := map[string]bool{}
	for _, m := range regexp.MustCompile("(?s)```yaml\n# (\\S+)\n(.*?)```").FindAllStringSubmatch(string(data), -1) {
		tree[m[1]] = &fstest.MapFile{Data: []byte(m[2])}
		folder, _, _ := strings.Cut(m[1], "/")
		shown[folder] = true
	}
	if want := []string{"environments", "holds", "pipelines", "policies", "services"}; !slices.Equal(slices.Sorted(maps.Keys(shown)), want) {
		t.Errorf("there are examples of %v, want %v", slices.Sorted(maps.Keys(shown)), want)
	}
	repo, err := desired.Read(desired.Hashed(tree), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range repo.Problems {
		if p.Severity == desired.SeverityError {
			t.Error(p)
		}
	}
}

// Every key that a file may have is in docs/formats.md, in the section of its
// kind, and so is every default.
func TestFormatsAreComplete(t *testing.T) {
	data, err := os.ReadFile("docs/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []desired.Kind{desired.KindEnvironment, desired.KindService, desired.KindPipeline, desired.KindPolicy, desired.KindHold} {
		_, section, ok := strings.Cut(string(data), "\n## "+string(kind)+"\n")
		if !ok {
			t.Errorf("there is no section %s", kind)
			continue
		}
		section, _, _ = strings.Cut(section, "\n## ")
		schema, err := desired.Schema(kind)
		if err != nil {
			t.Fatal(err)
		}
		var root property
		if err := json.Unmarshal(schema, &root); err != nil {
			t.Fatal(err)
		}
		var rows []string
		for line := range strings.Lines(section) {
			if strings.HasPrefix(line, "| `") {
				rows = append(rows, line)
			}
		}
		known := map[string]bool{}
		root.each("", func(key string, p property) {
			known[key] = true
			i := slices.IndexFunc(rows, func(row string) bool { return strings.Contains(strings.SplitN(row, "|", 3)[1], "`"+key+"`") })
			switch {
			case key == "apiVersion", key == "kind":
			case i < 0 && len(p.Properties) == 0 && (p.Items == nil || len(p.Items.Properties) == 0):
				t.Errorf("%s: there is no row for `%s`", kind, key)
			case i >= 0 && p.Default != nil:
				text := strings.Trim(string(p.Default), `"`)
				if !strings.Contains(rows[i], "default `"+text+"`") {
					t.Errorf("%s: the row for `%s` does not say default `%s`", kind, key, text)
				}
			}
		})
		for _, row := range rows {
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(strings.SplitN(row, "|", 3)[1], -1) {
				if !known[m[1]] {
					t.Errorf("%s: there is a row for `%s`, which no file may have", kind, m[1])
				}
			}
		}
	}
}

// property is what is needed of a JSON Schema.
type property struct {
	Properties           map[string]property `json:"properties"`
	Items                *property           `json:"items"`
	Default              json.RawMessage     `json:"default"`
	AdditionalProperties json.RawMessage     `json:"additionalProperties"`
}

// each calls f with every key, written as "stages[].after" or "pins.*.image".
func (p property) each(prefix string, f func(key string, p property)) {
	for _, name := range slices.Sorted(maps.Keys(p.Properties)) {
		child := p.Properties[name]
		f(prefix+name, child)
		child.each(prefix+name+".", f)
		if child.Items != nil {
			child.Items.each(prefix+name+"[].", f)
		}
		var more property
		if json.Unmarshal(child.AdditionalProperties, &more) == nil {
			more.each(prefix+name+".*.", f)
		}
	}
}

// Links between the documents lead somewhere.
func TestDocumentsLinkToWhatIsThere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)
	n := 0
	err := filepath.WalkDir(".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && name != "." && (strings.HasPrefix(e.Name(), ".") || e.Name() == "bin" || e.Name() == "testdata") {
			return filepath.SkipDir
		}
		if filepath.Ext(name) != ".md" {
			return nil
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for _, m := range link.FindAllStringSubmatch(string(data), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			n++
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", name, m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n < 5 {
		t.Errorf("found only %d links", n)
	}
}
