package health_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"sigs.k8s.io/yaml"

	"github.com/pinion-cd/pinion/reconcile/health"
)

var update = flag.Bool("update", false, "rewrite what is wanted")

// Each file of an archive is an object. Its first line says how it does, and
// one that begins with "# class:" how its storage class binds.
func TestBuiltIns(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatal(err, "no cases")
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			archive := txtar.Parse(data)
			for i, f := range archive.Files {
				first, _, _ := strings.Cut(string(f.Data), "\n")
				fact := health.Fact{}
				for line := range strings.Lines(string(f.Data)) {
					if class, ok := strings.CutPrefix(line, "# class: "); ok {
						fact.Binding = strings.TrimSpace(class)
					}
				}
				got := describe(health.Of(objectOf(t, f.Data), nil, fact))
				if *update {
					body := f.Data
					if strings.HasPrefix(first, "# ") && !strings.HasPrefix(first, "# class") {
						_, rest, _ := strings.Cut(string(f.Data), "\n")
						body = []byte(rest)
					}
					archive.Files[i].Data = append([]byte(got+"\n"), body...)
				} else if got != first {
					t.Errorf("%s:\ngot  %s\nwant %s", f.Name, got, first)
				}
			}
			if *update {
				if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func describe(h health.Health) string {
	return strings.TrimRight(fmt.Sprintf("# %s %s", h.Status, strings.ReplaceAll(h.Message, "\n", "\\n")), " ")
}

// objectOf reads an object as it comes from an API server: whole numbers are
// int64.
func objectOf(t *testing.T, data []byte) map[string]any {
	t.Helper()
	raw, err := yaml.YAMLToJSON(bytes.TrimSpace(data))
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	o, err := decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	return o
}
