// Package examples_test runs the examples: what a reader copies has to work.
package examples_test

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-jsonnet/formatter"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/render"
)

var update = flag.Bool("update", false, "rewrite the golden files and the schemas")

// deployment is a service in an environment, with what it renders to.
type deployment struct {
	desired.Deployment
	*render.Result
}

// renderAll reads and renders a deployment repository. Nothing may be wrong
// with it, and nothing worth a warning.
func renderAll(t *testing.T, fsys fs.FS) []deployment {
	t.Helper()
	tree := desired.Hashed(fsys)
	repo, err := desired.Read(tree, nil)
	if err != nil {
		t.Fatal(err)
	}
	problems := slices.Concat(repo.Problems,
		repo.CheckClusters([]desired.ClusterName{"default"}),
		repo.CheckTimezones(func(name string) bool { _, err := time.LoadLocation(name); return err == nil }))
	for _, p := range problems {
		t.Errorf("%s: %v", p.Severity, p)
	}
	var all []deployment
	for _, d := range repo.Deployments() {
		for _, p := range d.Problems {
			t.Errorf("%s/%s can't move: %v", d.Environment.Name, d.Service.Name, p)
		}
		result, err := render.Build(context.Background(), tree, render.Request{
			Environment: d.Environment.Name,
			Namespace:   d.Environment.Namespace,
			Service:     d.Service.Name,
			Folder:      render.Folder(d.Service, d.Environment.Name),
			Parameters:  d.Environment.Parameters,
			Pins:        d.Pins,
		})
		if err != nil {
			t.Errorf("%s/%s: %v", d.Environment.Name, d.Service.Name, err)
			continue
		}
		for _, w := range result.Warnings {
			t.Errorf("%s/%s: %s", d.Environment.Name, d.Service.Name, w)
		}
		all = append(all, deployment{d, result})
	}
	return all
}

func TestShopRenders(t *testing.T) {
	all := renderAll(t, os.DirFS("shop"))
	var got strings.Builder
	for _, d := range all {
		fmt.Fprintf(&got, "%s/%s\n", d.Environment.Name, d.Service.Name)
		for _, o := range d.Objects {
			fmt.Fprintf(&got, "  %s\n", o.Ref)
		}
	}
	golden := "testdata/shop.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("the shop's objects differ from %s; if it is meant so, run go test ./examples -update\n%s", golden, diff)
	}
}

// Every pin is in the objects of its service as it is written, and nothing
// else is: an image that no pin replaced would be the name of an artifact.
func TestShopPinsItsImages(t *testing.T) {
	images := regexp.MustCompile(`"image":"([^"]*)"`)
	for _, d := range renderAll(t, os.DirFS("shop")) {
		found := 0
		for _, o := range d.Objects {
			for _, m := range images.FindAllStringSubmatch(string(o.JSON), -1) {
				found++
				if m[1] != d.Pins[0].Image.Reference {
					t.Errorf("%s/%s: %s has the image %s, which is not pinned", d.Environment.Name, d.Service.Name, o.Ref, m[1])
				}
			}
		}
		if found == 0 {
			t.Errorf("%s/%s has no image", d.Environment.Name, d.Service.Name)
		}
	}
}

// No two services render the same object: the environments share a cluster.
func TestShopObjectsHaveOneOwner(t *testing.T) {
	owner := map[render.Ref]string{}
	for _, d := range renderAll(t, os.DirFS("shop")) {
		for _, o := range d.Objects {
			me := fmt.Sprintf("%s/%s", d.Environment.Name, d.Service.Name)
			if other, taken := owner[o.Ref]; taken {
				t.Errorf("%s is rendered by %s and %s", o.Ref, other, me)
			}
			owner[o.Ref] = me
		}
	}
}

// The schemas that the first lines of the files name are those of today.
func TestShopSchemas(t *testing.T) {
	for _, kind := range []desired.Kind{desired.KindEnvironment, desired.KindService, desired.KindPipeline, desired.KindPolicy, desired.KindHold} {
		want, err := desired.Schema(kind)
		if err != nil {
			t.Fatal(err)
		}
		file := "shop/.pinion/schema/" + strings.ToLower(string(kind)) + ".json"
		if *update {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s is not what `pinion schema %s` prints; run go test ./examples -update", file, strings.ToLower(string(kind)))
		}
	}
	modeline := regexp.MustCompile(`^# yaml-language-server: \$schema=(\S+)\n`)
	eachFile(t, "shop", func(file string, data []byte) {
		if !strings.Contains("\n"+string(data), "\napiVersion: "+desired.APIVersion+"\n") {
			return
		}
		m := modeline.FindStringSubmatch(string(data))
		if m == nil {
			t.Errorf("%s: the first line names no schema", file)
			return
		}
		schema := path.Join(path.Dir(file), m[1])
		kind := regexp.MustCompile(`(?m)^kind: (\w+)$`).FindStringSubmatch(string(data))
		if want := "shop/.pinion/schema/" + strings.ToLower(kind[1]) + ".json"; schema != want {
			t.Errorf("%s: the first line names %s, not %s", file, schema, want)
		}
	})
}

func TestShopJsonnetIsFormatted(t *testing.T) {
	eachFile(t, "shop", func(file string, data []byte) {
		if ext := path.Ext(file); ext != ".jsonnet" && ext != ".libsonnet" {
			return
		}
		want, err := formatter.Format(file, string(data), formatter.DefaultOptions())
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if diff := cmp.Diff(want, string(data)); diff != "" {
			t.Errorf("%s is not formatted as jsonnetfmt does it:\n%s", file, diff)
		}
	})
}

func eachFile(t *testing.T, dir string, f func(file string, data []byte)) {
	t.Helper()
	n := 0
	err := fs.WalkDir(os.DirFS("."), dir, func(file string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		n++
		data, err := os.ReadFile(file)
		f(file, data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		t.Fatalf("%s has no files", dir)
	}
}
