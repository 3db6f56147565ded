package worker_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/render"
	"github.com/pinion-cd/pinion/render/worker"
)

const configMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"

func jsonnet(text string) map[string]string {
	return map[string]string{"services/web/main.jsonnet": text}
}

// loop runs for hours in little memory.
const loop = "local r = std.range(1, 1000); std.foldl(function(a, b) std.foldl(function(c, d) std.foldl(function(e, f) f, r, 0), r, 0), r, 0)"

func bomb() string {
	b := configMap + "x0: &x0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n"
	for i := range 9 {
		a := fmt.Sprintf("*x%d", i)
		b += fmt.Sprintf("x%d: &x%d [%s]\n", i+1, i+1, strings.Join([]string{a, a, a, a, a, a, a, a, a}, ","))
	}
	return b
}

// Each of these must end as an error of that rendering, in words, soon; and
// the next rendering of the same pool must not notice.
func TestBadManifests(t *testing.T) {
	deep := strings.Repeat("[", 20000) + strings.Repeat("]", 20000)
	cases := []struct {
		name, want string
		tree       map[string]string
	}{
		{"loops for ever", "services/web/main.jsonnet: rendering took longer than 2s", jsonnet(loop)},
		{"loops by tailstrict", "services/web/main.jsonnet: ", jsonnet("local f(x) = if x < 0 then x else f(x + 1) tailstrict; f(1)")},
		{"loops in the standard library", "services/web/main.jsonnet: rendering", jsonnet("std.foldl(function(a, b) a + b, std.range(1, 1000000000), 0)")},
		{"recurses", "services/web/main.jsonnet:1:18: max stack frames exceeded", jsonnet("local f(x) = 1 + f(x + 1); f(1)")},
		{"recurses by tailstrict", "services/web/main.jsonnet: ", jsonnet("local f(x) = 1 + f(x + 1) tailstrict; f(1)")},
		{"nests brackets", "services/web/main.jsonnet: ", jsonnet(deep)},
		{"nests a million brackets", "services/web/main.jsonnet: rendering goes over the memory limit of 256 MiB", jsonnet(strings.Repeat("[", 1000000))},
		{"repeats a text", "services/web/main.jsonnet: rendering goes over the memory limit of 256 MiB", jsonnet("std.length(std.repeat('x', 2000000000))")},
		{"doubles a text", "services/web/main.jsonnet: rendering goes over the memory limit of 256 MiB", jsonnet("local d(s, n) = if n == 0 then s else d(s + s, n - 1); { a: d('xxxxxxxx', 40) }")},
		{"makes an array", "services/web/main.jsonnet: rendering goes over the memory limit of 256 MiB", jsonnet("std.makeArray(100000000, function(i) { a: i })")},
		{"writes much", "services/web/main.jsonnet: the objects are larger than 1 MiB together", jsonnet("local big = std.repeat('x', 10000); std.map(function(i) { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a' + i }, data: { a: big } }, std.range(1, 200))")},
		{"writes many", "there are more than 5000 objects", jsonnet("std.map(function(i) { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a' + i } }, std.range(1, 6000))")},
		{"imports a file of the machine", "imports come from the repository's own files", jsonnet("importstr '/etc/passwd'")},
		{"imports from above", "leads out of the repository", jsonnet("importstr '../../../../etc/passwd'")},
		{"imports from the network", "never from the network", jsonnet("import 'https://example.com/'")},
		{"is a large file", "services/web/a.yaml: is larger than 10 MiB; split it", map[string]string{"services/web/a.yaml": configMap + "data: {a: " + strings.Repeat("x", 11<<20) + "}"}},
		{"laughs", "when its aliases are copied out", map[string]string{"services/web/a.yaml": bomb()}},
		{"laughs at Kustomize", "services/web/", map[string]string{"services/web/kustomization.yaml": "resources: [a.yaml]", "services/web/a.yaml": bomb()}},
		{"nests YAML", "services/web/a.yaml: is not YAML: ", map[string]string{"services/web/a.yaml": deep}},
		{"nests JSON", "services/web/a.json:1", map[string]string{"services/web/a.json": deep}},
		{"nests for Kustomize", "services/web/", map[string]string{"services/web/kustomization.yaml": "resources: [a.yaml]", "services/web/a.yaml": configMap + "a: " + deep}},
		{"is not an object", "is a list, where a Kubernetes object is needed", map[string]string{"services/web/a.yaml": "[1]"}},
		{"has an empty schema", "services/web/kustomization.yaml: ", map[string]string{"services/web/kustomization.yaml": "resources: [a.yaml]\ncrds: [e.json]", "services/web/a.yaml": configMap, "services/web/e.json": ""}},
		{"names a remote base", "is remote, and a rendering has no network", map[string]string{"services/web/kustomization.yaml": "resources: [https://example.com/x]"}},
	}
	limits := worker.Options{Size: 2, Timeout: 2 * time.Second, MemoryLimit: 256 << 20, OutputLimit: 1 << 20}
	hasty := worker.New(limits)
	defer hasty.Close()
	// Where the memory is to be the limit, the time must not be it before,
	// however busy the machine is.
	limits.Timeout = 2 * time.Minute
	patient := worker.New(limits)
	defer patient.Close()
	good := files(jsonnetService)
	want, err := render.Build(t.Context(), good, request())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			p := hasty
			if strings.Contains(c.want, "memory limit") {
				p = patient
			}
			tree := files(c.tree)
			start := time.Now()
			_, err := p.Render(t.Context(), tree, request())
			took := time.Since(start)
			if _, ok := errors.AsType[*render.Error](err); !ok {
				t.Fatalf("%T is not an author's error: %v", err, err)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("said %.500q, want %q", err, c.want)
			}
			if p == hasty && took > 6*time.Second {
				t.Errorf("took %s", took)
			}
			t.Logf("%s: %.300s", took.Round(time.Millisecond), err)
			got, err := p.Render(t.Context(), good, request())
			if err != nil || got.Digest != want.Digest {
				t.Errorf("the next one: %v", err)
			}
		})
	}
	if ok, why := hasty.Confined(); !ok {
		t.Logf("workers are not confined: %s", why)
	}
}

// One that loops keeps one worker busy, and nothing else late.
func TestOthersAreNotLate(t *testing.T) {
	p := worker.New(worker.Options{Size: 2, Timeout: 10 * time.Second})
	defer p.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	asked := make(chan struct{})
	wg.Go(func() {
		tree := &telling{files(jsonnet(loop)), asked, sync.Once{}}
		if _, err := p.Render(ctx, tree, request()); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled: %v", err)
		}
	})
	<-asked
	for range 20 {
		if _, err := p.Render(t.Context(), files(jsonnetService), request()); err != nil {
			t.Error(err)
		}
	}
	cancel()
	wg.Wait()
}

// telling tells when the worker asks for the first file.
type telling struct {
	desired.Tree
	asked chan struct{}
	once  sync.Once
}

func (t *telling) Open(name string) (fs.File, error) {
	t.once.Do(func() { close(t.asked) })
	return t.Tree.Open(name)
}

func TestManyAtOnce(t *testing.T) {
	p := worker.New(worker.Options{Size: 3, Renders: 4})
	defer p.Close()
	want := map[bool]string{}
	for kustomize, m := range map[bool]map[string]string{true: kustomizeService, false: jsonnetService} {
		r, err := render.Build(t.Context(), files(m), request())
		if err != nil {
			t.Fatal(err)
		}
		want[kustomize] = r.Digest
	}
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			m := jsonnetService
			if i%2 == 0 {
				m = kustomizeService
			}
			r, err := p.Render(t.Context(), files(m), request())
			if err != nil {
				t.Error(err)
			} else if r.Digest != want[i%2 == 0] {
				t.Errorf("%d: another digest", i)
			}
		})
	}
	wg.Wait()
}

// The tree's failure is the tree's, not the author's.
func TestTreeFails(t *testing.T) {
	p := worker.New(worker.Options{Size: 1})
	defer p.Close()
	_, err := p.Render(t.Context(), failing{files(jsonnetService)}, request())
	if !errors.Is(err, errBroken) {
		t.Errorf("%v", err)
	}
	if _, err := p.Render(t.Context(), files(jsonnetService), request()); err != nil {
		t.Error(err)
	}
}

var errBroken = errors.New("the disk is gone")

type failing struct{ desired.Tree }

func (f failing) Open(name string) (fs.File, error) {
	if strings.HasPrefix(name, "lib/") {
		return nil, errBroken
	}
	return f.Tree.Open(name)
}

func TestClose(t *testing.T) {
	p := worker.New(worker.Options{Size: 1})
	asked := make(chan struct{})
	done := make(chan error)
	go func() {
		tree := &telling{files(jsonnet(loop)), asked, sync.Once{}}
		_, err := p.Render(context.Background(), tree, request())
		done <- err
	}()
	<-asked
	p.Close()
	if err := <-done; !errors.Is(err, worker.ErrClosed) {
		t.Errorf("in the middle: %v", err)
	}
	if _, err := p.Render(t.Context(), files(jsonnetService), request()); !errors.Is(err, worker.ErrClosed) {
		t.Errorf("afterwards: %v", err)
	}
	p.Close()
}

// A worker that is killed while it waits is no error of anybody's.
func TestKilledWhileIdle(t *testing.T) {
	p := worker.New(worker.Options{Size: 1})
	defer p.Close()
	for range 3 {
		if _, err := p.Render(t.Context(), files(jsonnetService), request()); err != nil {
			t.Fatal(err)
		}
		pids := worker.Processes(p)
		if len(pids) != 1 {
			t.Fatalf("%d workers", len(pids))
		}
		if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Render(t.Context(), files(jsonnetService), request()); err != nil {
		t.Fatal(err)
	}
}

// A program whose main does not call Hook is told apart from bad manifests.
func TestNoWorker(t *testing.T) {
	for _, executable := range []string{"/bin/false", "/does/not/exist"} {
		if _, err := os.Stat(executable); err != nil && executable == "/bin/false" {
			continue
		}
		p := worker.New(worker.Options{Size: 1, Executable: executable})
		_, err := p.Render(t.Context(), files(jsonnetService), request())
		if err == nil {
			t.Error("no error")
		}
		t.Log(err)
		p.Close()
	}
}

// A worker without work goes by itself.
func TestIdleWorkersGo(t *testing.T) {
	p := worker.New(worker.Options{Size: 1, Idle: time.Nanosecond})
	defer p.Close()
	for range 5 {
		if _, err := p.Render(t.Context(), files(jsonnetService), request()); err != nil {
			t.Fatal(err)
		}
	}
	for len(worker.Processes(p)) > 0 {
		time.Sleep(time.Millisecond)
	}
}
