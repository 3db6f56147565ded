package render_test

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/render"
)

func TestManifest(t *testing.T) {
	tree := desired.Hashed(fstest.MapFS{
		"a/job.yaml": &fstest.MapFile{Data: []byte("kind: Job\napiVersion: batch/v1\nspec: {n: 3, KEY: [KEY, \"x-KEY\"], containers: [{image: \"reg/KEY:1\"}, {image: other}]}\n")},
		"a/job.json": &fstest.MapFile{Data: []byte(`{"kind": "Job", "apiVersion": "batch/v1"}`)},
		"two.yaml":   &fstest.MapFile{Data: []byte("kind: Job\napiVersion: batch/v1\n---\n# a comment\nkind: Job\n")},
		"none.yaml":  &fstest.MapFile{Data: []byte("---\n# nothing\n---\n")},
		"kind.yaml":  &fstest.MapFile{Data: []byte("\nkind: CronJob\napiVersion: batch/v1\n")},
		"bare.yaml":  &fstest.MapFile{Data: []byte("a: b\n")},
		"list.yaml":  &fstest.MapFile{Data: []byte("- kind: Job\n")},
		"bad.yaml":   &fstest.MapFile{Data: []byte("a: b: c\n")},
	})
	pins := []desired.Pin{{Artifact: "web", Image: desired.Image{Repository: "reg/web", Reference: "reg/web:2@sha256:22"}}}
	read := func(file string) (map[string]any, error) {
		return render.Manifest(tree, file, "batch/v1", "Job", func(s string) string { return strings.ReplaceAll(s, "KEY", "web") }, pins)
	}
	got, err := read("a/job.yaml")
	want := map[string]any{"kind": "Job", "apiVersion": "batch/v1", "spec": map[string]any{
		"n": int64(3), "KEY": []any{"web", "x-web"},
		"containers": []any{map[string]any{"image": "reg/web:2@sha256:22"}, map[string]any{"image": "other"}},
	}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v -want +got\n%s", err, diff)
	}
	if _, err := read("a/job.json"); err != nil {
		t.Error(err)
	}
	for file, want := range map[string]string{
		"two.yaml":  "two.yaml:5:1: holds 2 objects, where one Job (batch/v1) is needed; leave only the Job",
		"none.yaml": "none.yaml: is empty, where one Job (batch/v1) is needed",
		"kind.yaml": "kind.yaml:2:1: is CronJob (batch/v1), where one Job (batch/v1) is needed",
		"bare.yaml": "bare.yaml:1:1: is something without a kind, where one Job (batch/v1) is needed",
		"list.yaml": "list.yaml:1:1: is a list, where one Job (batch/v1) is needed",
		"bad.yaml":  "bad.yaml: is not YAML",
		"gone.yaml": "gone.yaml: there is no such file",
		"a":         "a: is a folder, where a file is needed",
	} {
		_, err := read(file)
		var wrong *render.Error
		if !errors.As(err, &wrong) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", file, err, want)
		}
	}
}
