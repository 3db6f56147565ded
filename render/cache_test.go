package render_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/render"
)

func TestCache(t *testing.T) {
	m := map[string]string{
		"services/web/main.jsonnet": `(import 'a.libsonnet') + { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a' } }`,
		"vendor/a.libsonnet":        `{}`,
	}
	req := request()
	result, err := render.Build(t.Context(), files(m), req)
	if err != nil {
		t.Fatal(err)
	}
	c := render.NewCache(1 << 20)
	hit := func(what string, req render.Request, m map[string]string, want bool) {
		t.Helper()
		got, err := c.Get(req, files(m))
		if err != nil {
			t.Fatal(err)
		}
		if (got == result) != want || got != nil && got != result {
			t.Errorf("%s: hit %v, want %v", what, got != nil, want)
		}
	}
	hit("empty", req, m, false)
	if err := c.Put(req, result); err != nil {
		t.Fatal(err)
	}
	hit("the same", request(), m, true)
	m["README.md"] = "x"
	hit("another file", req, m, true)
	m["lib/a.libsonnet"] = `{ data: {} }`
	hit("a file that comes first now", req, m, false)
	delete(m, "lib/a.libsonnet")
	m["vendor/a.libsonnet"] = "{ }"
	hit("a changed import", req, m, false)
	m["vendor/a.libsonnet"] = "{}"
	hit("changed back", req, m, true)

	other := request()
	other.Pins[0].Position = desired.Position{File: "environments/staging.yaml", Line: 9}
	hit("a pin that moved within its file", other, m, true)
	other.Pins[0].Image.Reference += "x"
	hit("another pin", other, m, false)
	for what, change := range map[string]func(*render.Request){
		"environment": func(r *render.Request) { r.Environment = "production" },
		"namespace":   func(r *render.Request) { r.Namespace = "other" },
		"service":     func(r *render.Request) { r.Service = "api" },
		"folder":      func(r *render.Request) { r.Folder = "services/api" },
		"parameters":  func(r *render.Request) { r.Parameters["replicas"] = int64(3) },
		"type":        func(r *render.Request) { r.Parameters["replicas"] = "2" },
	} {
		other := request()
		change(&other)
		hit("another "+what, other, m, false)
	}
	if _, err := c.Get(req, broken{files(m), "vendor/a.libsonnet"}); err == nil {
		t.Error("what could not be read passes for changed")
	}
}

func TestCacheIsBounded(t *testing.T) {
	tree := files(nil)
	c := render.NewCache(10_000)
	at := func(i int) render.Request {
		r := request()
		r.Folder = fmt.Sprintf("services/%d", i)
		return r
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 50 {
				c.Put(at(g*50+i), &render.Result{Warnings: []string{string(make([]byte, 1000))}})
				c.Get(at(i), tree)
			}
		})
	}
	wg.Wait()
	if err := c.Put(at(1), &render.Result{Warnings: []string{string(make([]byte, 20_000))}}); err != nil {
		t.Fatal(err)
	}
	held := 0
	for i := range 200 {
		if r, err := c.Get(at(i), tree); err != nil {
			t.Fatal(err)
		} else if r != nil {
			held++
		}
	}
	if held == 0 || held > 9 {
		t.Errorf("%d results of 1,000 bytes in 10,000", held)
	}
	c.Put(at(300), &render.Result{Warnings: []string{string(make([]byte, 5000))}})
	if r, _ := c.Get(at(300), tree); r == nil {
		t.Error("the newest is not kept")
	}
}
