package render_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/render"
)

var update = flag.Bool("update", false, "rewrite what is wanted in testdata")

// request is what every case asks for, unless it has a file "request".
func request() render.Request {
	return render.Request{
		Environment: "staging",
		Namespace:   "shop-staging",
		Service:     "web",
		Folder:      "services/web",
		Plaintext:   true, // what is about Secrets is in secret_test.go
		Parameters:  map[string]any{"replicas": int64(2), "host": "staging.shop.example"},
		Pins: []desired.Pin{{Artifact: "web", Image: desired.Image{
			Reference:  "ghcr.io/acme/web:1.4.2@sha256:2222222222222222222222222222222222222222222222222222222222222222",
			Repository: "ghcr.io/acme/web",
			Version:    "1.4.2",
			Digest:     "sha256:2222222222222222222222222222222222222222222222222222222222222222",
		}}},
	}
}

// files is a tree of files; one whose text begins with "link:" is a link.
func files(m map[string]string) desired.Tree {
	fsys := fstest.MapFS{}
	for name, text := range m {
		fsys[name] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
		if target, ok := strings.CutPrefix(text, "link:"); ok {
			fsys[name] = &fstest.MapFile{Data: []byte(strings.TrimSpace(target)), Mode: 0o777 | fs.ModeSymlink}
		}
	}
	return desired.Hashed(fsys)
}

// A case is a tree. The files below want/ are what comes out of it: objects
// with what was read and the warnings, or an error.
func TestCases(t *testing.T) {
	cases, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			req := request()
			tree := map[string]string{}
			want := map[string]string{}
			var kept []txtar.File
			for _, f := range archive.Files {
				if name, ok := strings.CutPrefix(f.Name, "want/"); ok {
					want[name] = string(f.Data)
					continue
				}
				kept = append(kept, f)
				if f.Name == "request" {
					if err := json.Unmarshal(f.Data, &req); err != nil {
						t.Fatal(err)
					}
					continue
				}
				tree[f.Name] = unquote(f.Data)
			}
			got := outcome(t, files(tree), req)
			if !*update {
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("-want +got\n%s", d)
				}
				return
			}
			archive.Files = kept
			for _, name := range []string{"error", "warnings", "objects", "reads"} {
				if got[name] != "" {
					archive.Files = append(archive.Files, txtar.File{Name: "want/" + name, Data: []byte(got[name])})
				}
			}
			if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// unquote puts the bytes that a txtar file can't hold in their place.
func unquote(data []byte) string {
	return strings.NewReplacer(`\xff`, "\xff", `\r`, "\r", `\ufeff`, "\ufeff", `\t`, "\t").Replace(string(data))
}

func outcome(t *testing.T, tree desired.Tree, req render.Request) map[string]string {
	t.Helper()
	got := map[string]string{}
	result, err := render.Build(t.Context(), tree, req)
	if err != nil {
		if _, ok := errors.AsType[*render.Error](err); !ok {
			t.Fatalf("not an author's error: %v", err)
		}
		got["error"] = err.Error() + "\n"
		return got
	}
	var objects, reads bytes.Buffer
	for _, o := range result.All() {
		fmt.Fprintf(&objects, "# %s\n", o.Ref)
		if err := json.Indent(&objects, o.JSON, "", "  "); err != nil {
			t.Fatal(err)
		}
		objects.WriteByte('\n')
	}
	for _, r := range result.Reads {
		id := "absent"
		if r.ID != "" {
			id = r.ID[:7]
		}
		fmt.Fprintf(&reads, "%s %s\n", r.Path, id)
	}
	got["objects"], got["reads"] = objects.String(), reads.String()
	if len(result.Warnings) > 0 {
		got["warnings"] = strings.Join(result.Warnings, "\n") + "\n"
	}
	if same, err := result.Same(tree); err != nil || !same {
		t.Errorf("the result does not hold for its own tree: %v %v", same, err)
	}
	return got
}
