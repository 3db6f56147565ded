package render_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/render"
)

// trees returns the trees of all cases that render.
func trees(t testing.TB) map[string]map[string]string {
	cases, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	trees := map[string]map[string]string{}
	for _, file := range cases {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]string{}
		renders := false
		for _, f := range archive.Files {
			if f.Name == "want/objects" {
				renders = true
			}
			if f.Name != "request" && !strings.HasPrefix(f.Name, "want/") {
				m[f.Name] = unquote(f.Data)
			}
		}
		if _, special := m["services/web/overlays/staging/kustomization.yaml"]; renders && !special && len(m["services/web/manifests/service.yaml"]) == 0 {
			trees[file] = m
		}
	}
	return trees
}

// What was read decides about the result: after any change of a tree, the
// result is the same, or Same says that it is not, and Touched told so too.
func TestReadsAreComplete(t *testing.T) {
	for name, m := range trees(t) {
		before, err := render.Build(t.Context(), files(m), request())
		if err != nil {
			t.Fatal(name, err)
		}
		changes := map[string]map[string]string{}
		for file := range m {
			change := maps.Clone(m)
			delete(change, file)
			changes["remove "+file] = change
			change = maps.Clone(m)
			change[file] += "\n# more\n"
			changes["change "+file] = change
			change = maps.Clone(change)
			delete(change, file)
			change[file+"/inner.yaml"] = m[file]
			changes["make a folder of "+file] = change
		}
		for _, read := range before.Reads {
			if read.ID == "" {
				change := maps.Clone(m)
				change[read.Path] = "{}"
				changes["add "+read.Path] = change
			}
		}
		for _, file := range []string{"services/web/new.yaml", "services/web/new.txt", "services/web/below/new.yaml", "other/new.yaml"} {
			change := maps.Clone(m)
			change[file] = "{}"
			changes["add "+file] = change
		}
		for what, change := range changes {
			after := files(change)
			same, err := before.Same(after)
			if err != nil {
				t.Fatal(err)
			}
			var changed []string
			for file := range m {
				if change[file] != m[file] {
					changed = append(changed, file)
				}
			}
			for file := range change {
				if _, ok := m[file]; !ok {
					changed = append(changed, file)
				}
			}
			if touched := render.Touched(before.Reads, changed); !same && !touched {
				t.Errorf("%s: %s: Touched does not know", name, what)
			}
			if !same {
				continue
			}
			result, err := render.Build(t.Context(), after, request())
			if err != nil {
				t.Errorf("%s: %s: not seen, but %v", name, what, err)
			} else if result.Digest != before.Digest {
				t.Errorf("%s: %s: not seen, but other objects come out", name, what)
			}
		}
	}
}

func TestTouched(t *testing.T) {
	reads := []render.Read{{Path: "lib/a", ID: ""}, {Path: "services/web", ID: "1"}, {Path: "services/web/x.yaml", ID: "2"}}
	for changed, want := range map[string]bool{
		"lib/a":                 true,
		"lib/a/b":               true, // it may be a folder now
		"lib":                   true, // it may have been a file
		"lib/b":                 false,
		"lib/ab":                false,
		"services/web/new/x":    true, // in a listed folder
		"services/website/x":    false,
		"services/web":          true,
		"services/api/x.yaml":   false,
		"environments/dev.yaml": false,
		".":                     true,
	} {
		if got := render.Touched(reads, []string{"README.md", changed}); got != want {
			t.Errorf("%s: %v", changed, got)
		}
	}
	if render.Touched(reads, nil) {
		t.Error("nothing touches")
	}
	if !render.Touched([]render.Read{{Path: ".", ID: "1"}}, []string{"x"}) {
		t.Error("the root is a folder too")
	}
}

// broken fails to read one path.
type broken struct {
	desired.Tree
	name string
}

var errBroken = errors.New("the disk is gone")

func (b broken) Open(name string) (fs.File, error) {
	if name == b.name {
		return nil, errBroken
	}
	return b.Tree.Open(name)
}

func (b broken) ReadDir(name string) ([]fs.DirEntry, error) {
	if name == b.name {
		return nil, errBroken
	}
	return fs.ReadDir(b.Tree, name)
}

func (b broken) ID(name string) (string, error) {
	if name == b.name {
		return "", errBroken
	}
	return b.Tree.ID(name)
}

// What could not be read is not absent, whoever looks for it.
func TestCouldNotRead(t *testing.T) {
	for name, m := range trees(t) {
		result, err := render.Build(t.Context(), files(m), request())
		if err != nil {
			t.Fatal(name, err)
		}
		for _, read := range result.Reads {
			tree := broken{files(m), read.Path}
			_, err := render.Build(t.Context(), tree, request())
			if !errors.Is(err, errBroken) {
				t.Errorf("%s: %s: Build says %v", name, read.Path, err)
			}
			if _, err := result.Same(tree); !errors.Is(err, errBroken) {
				t.Errorf("%s: %s: Same says %v", name, read.Path, err)
			}
		}
	}
}

// A Renderer that did others before gives the bytes of a fresh one.
func TestRendererKeepsNothingThatShows(t *testing.T) {
	all := trees(t)
	names := slices.Sorted(maps.Keys(all))
	want := map[string]string{}
	for _, name := range names {
		want[name] = built(t, new(render.Renderer), all[name])
	}
	used := new(render.Renderer)
	for range 2 {
		for _, name := range slices.Backward(names) {
			if got := built(t, used, all[name]); got != want[name] {
				t.Errorf("%s comes out otherwise after others", name)
			}
		}
	}
}

// A library that changes between two renderings, and changes back.
func TestRendererSeesChangedLibraries(t *testing.T) {
	m := map[string]string{
		"services/web/main.jsonnet": `{ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a' }, data: import 'a.libsonnet' }`,
		"lib/a.libsonnet":           `import 'b.libsonnet'`,
		"lib/b.libsonnet":           `{ v: 1 }`,
	}
	r := new(render.Renderer)
	one := built(t, r, m)
	m["lib/b.libsonnet"] = `{ v: 2 }`
	two := built(t, r, m)
	if one == two || !strings.Contains(two, `"v":2`) {
		t.Errorf("the change of lib/b.libsonnet is not seen: %s", two)
	}
	m["services/web/b.libsonnet"] = `{ v: 3 }` // beside the service, but not beside lib/a.libsonnet
	if built(t, r, m) != two {
		t.Error("an import was found in the wrong place")
	}
	m["lib/b.libsonnet"] = `{ v: 1 }`
	if built(t, r, m) != one {
		t.Error("the change back is not seen")
	}
}

func built(t *testing.T, r *render.Renderer, m map[string]string) string {
	t.Helper()
	result, err := r.Build(t.Context(), files(m), request())
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, o := range result.Objects {
		fmt.Fprintf(&b, "%s %s %s\n", o.Ref, o.Digest, o.JSON)
	}
	for _, r := range result.Reads {
		fmt.Fprintf(&b, "%s %s\n", r.Path, r.ID)
	}
	fmt.Fprintln(&b, result.Digest, result.Warnings)
	return b.String()
}
