package desired_test

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/pinion-cd/pinion/desired"
)

var update = flag.Bool("update", false, "rewrite what the tests want to what they get")

// A case is a tree, and what is wanted of it. Lines before the first file may
// say "clusters: a b" and "now: TIME" (what the checks of the edge are told) and
// "gone: ENV/SERVICE …". "problems", "deployments" and "gone" are what is wanted.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			archive := txtar.Parse(data)
			tree := make(fstest.MapFS)
			want := make(map[string]string)
			out := &txtar.Archive{Comment: archive.Comment}
			for _, f := range archive.Files {
				if f.Name == "problems" || f.Name == "deployments" || f.Name == "gone" {
					want[f.Name] = string(f.Data)
					continue
				}
				tree[f.Name] = &fstest.MapFile{Data: f.Data}
				out.Files = append(out.Files, f)
			}
			r := read(t, tree)
			got := map[string]string{"problems": "", "deployments": deployments(r)}
			problems := r.Problems
			for line := range strings.Lines(string(archive.Comment)) {
				key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
				switch key {
				case "clusters":
					var known []desired.ClusterName
					for _, c := range strings.Fields(value) {
						known = append(known, desired.ClusterName(c))
					}
					problems = append(problems, r.CheckClusters(known)...)
				case "now":
					now, err := time.Parse(time.RFC3339, value)
					if err != nil {
						t.Fatal(err)
					}
					problems = append(problems, r.CheckHolds(now)...)
					problems = append(problems, r.CheckTimezones(func(name string) bool { return name != "Europe/Nowhere" })...)
				case "gone":
					for _, pair := range strings.Fields(value) {
						env, svc, _ := strings.Cut(pair, "/")
						gone, why := r.Gone(desired.EnvironmentName(env), desired.ServiceName(svc))
						got["gone"] += fmt.Sprintf("%s %s %v: %s\n", env, svc, gone, why)
					}
				}
			}
			for _, p := range problems {
				got["problems"] += fmt.Sprintf("%s: %s\n", p.Severity, p.Error())
				if p.File == "" || p.Message == "" {
					t.Errorf("a problem without a file or a message: %#v", p)
				}
			}
			for _, name := range []string{"problems", "deployments", "gone"} {
				if got[name] != "" || want[name] != "" || name != "gone" {
					out.Files = append(out.Files, txtar.File{Name: name, Data: []byte(got[name])})
				}
				if got[name] != want[name] && !*update {
					t.Errorf("%s: got\n%swant\n%s", name, got[name], want[name])
				}
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(out), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func read(t testing.TB, fsys fs.FS) *desired.Repository {
	t.Helper()
	r, err := desired.Read(desired.Hashed(fsys), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// deployments are the deployments as text.
func deployments(r *desired.Repository) string {
	var b strings.Builder
	for _, d := range r.Deployments() {
		fmt.Fprintf(&b, "%s %s", d.Environment.Name, d.Service.Name)
		for _, p := range d.Pins {
			fmt.Fprintf(&b, " %s=%s", p.Artifact, p.Image.Reference)
		}
		if d.Source != "" {
			fmt.Fprintf(&b, " from %s", d.Source)
		}
		b.WriteByte('\n')
		for _, p := range d.Problems {
			fmt.Fprintf(&b, "\t%s\n", p.Error())
		}
	}
	return b.String()
}
