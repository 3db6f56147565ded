package desired_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/pinion-cd/pinion/desired"
)

// many is a repository of so many services in three environments.
func many(services int) fstest.MapFS {
	files := fstest.MapFS{
		"pipelines/default.yaml": {Data: []byte("apiVersion: pinion.dev/v1\nkind: Pipeline\nservices: [\"*\"]\nstages:\n- environment: dev\n- environment: staging\n- environment: production\n")},
	}
	for _, env := range []string{"dev", "staging", "production"} {
		var b strings.Builder
		fmt.Fprintf(&b, "apiVersion: pinion.dev/v1\nkind: Environment\nnamespace: shop-%s\npins:\n", env)
		for i := range services {
			fmt.Fprintf(&b, "  s%05d:\n    image: ghcr.io/acme/s%05d:1.%d.0\n", i, i, i)
		}
		files["environments/"+env+".yaml"] = &fstest.MapFile{Data: []byte(b.String())}
	}
	for i := range services {
		text := serviceHead
		if i > 0 {
			text += fmt.Sprintf("dependsOn: [s%05d]\n", i/2)
		}
		if i == 0 {
			text = serviceHead
		}
		files[fmt.Sprintf("services/s%05d/service.yaml", i)] = &fstest.MapFile{Data: []byte(text)}
		files[fmt.Sprintf("services/s%05d/main.jsonnet", i)] = &fstest.MapFile{Data: []byte("{}\n")}
	}
	return files
}

// hashedWhole is a tree that knows all its IDs, as that of a commit does.
func hashedWhole(b testing.TB, files fstest.MapFS) desired.Tree {
	h := desired.Hashed(files)
	for name := range files {
		if _, err := h.ID(name); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := h.ID("."); err != nil {
		b.Fatal(err)
	}
	return h
}

func bench(b *testing.B, tree desired.Tree, previous *desired.Repository) (r *desired.Repository) {
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if r, err = desired.Read(tree, previous); err != nil {
			b.Fatal(err)
		}
	}
	return r
}

func BenchmarkRead(b *testing.B) {
	files := many(1000)
	whole := hashedWhole(b, files)
	b.Run("full", func(b *testing.B) { bench(b, whole, nil) })
	first, err := desired.Read(whole, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("same", func(b *testing.B) { bench(b, whole, first) })
	files["services/s00500/service.yaml"] = &fstest.MapFile{Data: []byte(serviceHead + "rollout: {timeout: 3m}\n")}
	changed := hashedWhole(b, files)
	b.Run("one service changed", func(b *testing.B) { bench(b, changed, first) })
	pin, err := desired.SetPin("environments/dev.yaml", files["environments/dev.yaml"].Data, "s00500", "ghcr.io/acme/s00500:2")
	if err != nil {
		b.Fatal(err)
	}
	files = many(1000)
	files["environments/dev.yaml"] = &fstest.MapFile{Data: pin}
	changed = hashedWhole(b, files)
	b.Run("one pin changed", func(b *testing.B) { bench(b, changed, first) })
}

func BenchmarkSetPin(b *testing.B) {
	data := many(1000)["environments/dev.yaml"].Data
	b.ReportAllocs()
	for b.Loop() {
		if _, err := desired.SetPin("environments/dev.yaml", data, "s00500", "ghcr.io/acme/s00500:2"); err != nil {
			b.Fatal(err)
		}
	}
}

// Ten times the services cost some ten times the time, also when each
// reference of each of them is dangling or they all hang together.
func TestManyServices(t *testing.T) {
	if testing.Short() {
		t.Skip("it reads 10,000 services")
	}
	sound := many(5000)
	dangling := many(5000)
	for name, f := range dangling {
		if strings.HasSuffix(name, "service.yaml") {
			f.Data = []byte(serviceHead + "artifacts: [x" + strings.Split(name, "/")[1] + "]\ndependsOn: [y" + strings.Split(name, "/")[1] + "]\n")
		}
	}
	circle := many(5000)
	for i := range 5000 {
		circle[fmt.Sprintf("services/s%05d/service.yaml", i)].Data = fmt.Appendf(nil, "%sdependsOn: [s%05d]\n", serviceHead, (i+1)%5000)
	}
	rivals := many(5000)
	for name, f := range rivals {
		if strings.HasSuffix(name, "service.yaml") {
			f.Data = []byte(serviceHead + "artifacts: [s00000]\n")
		}
	}
	for name, files := range map[string]fstest.MapFS{"sound": sound, "dangling": dangling, "circle": circle, "rivals": rivals} {
		tree := hashedWhole(t, files)
		start := time.Now()
		r, err := desired.Read(tree, nil)
		if err != nil {
			t.Fatal(err)
		}
		// Generous: a quadratic step takes minutes.
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("%s: took %s", name, took)
		} else {
			t.Logf("%s: %s, %d problems, %d deployments", name, took, len(r.Problems), len(r.Deployments()))
		}
	}
}
