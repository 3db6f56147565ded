//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pinion-cd/pinion/internal/devtest"
)

// forever is a Jsonnet expression that takes hours, in little memory.
const forever = "local r = std.range(1, 1000); std.foldl(function(a, b) std.foldl(function(c, d) std.foldl(function(e, f) f, r, 0), r, 0), r, 0)"

// Services that can't be rendered, applied or rolled out delay no other. With
// one process to render in, they are also the first by name.
func TestDaemonDelaysNoBystander(t *testing.T) {
	t.Parallel()
	for _, processes := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d processes", processes), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, strings.ReplaceAll(shop("endless", "refused", "stuck", "web"),
				"labels: {app: stuck}\n    spec", "labels: {app: stuck}\n      annotations: {devcluster.pinion.dev/behavior-1.1.0: never-ready}\n    spec"))
			first := w.git("rev-parse", "HEAD")
			config := filepath.Join(t.TempDir(), "config.yaml")
			w.must(os.WriteFile(config, fmt.Appendf(nil, "apiVersion: pinion.dev/v1\nkind: Config\nrender: {processes: %d}\n", processes), 0o600))
			d := w.daemon(t.TempDir(), "--config", config)
			d.line(0, "[4/4 done]")
			before, mark := w.identities(), d.mark()

			bad := w.push("three mistakes", "-- services/endless/endless.yaml --\n-- services/endless/main.jsonnet --\n"+forever+"\n")
			d.line(mark, "commit "+bad[:12])
			w.bump("stuck", "1.0.0", "1.1.0")
			w.replace("services/refused/refused.yaml", "selector: {matchLabels: {app: refused}}", "selector: {matchLabels: {app: another}}")
			d.line(mark, "failed dev/refused")
			d.line(mark, "applied dev/stuck 1.1.0")
			web := w.bump("web", "1.0.0", "1.1.0")
			d.line(mark, "ready dev/web 1.1.0")
			d.never(mark, "failed dev/endless") // it is still being rendered

			// The worker that renders for ever ends with the daemon.
			workers := children(d.cmd.Process.Pid)
			d.kill()
			w.until("no worker is left behind", func(ctx context.Context) string {
				if left := alive(workers); len(left) > 0 {
					return fmt.Sprint(left)
				}
				return ""
			})
			if len(workers) == 0 {
				t.Error("no worker was at it")
			}

			// And all is well when the mistakes are mended.
			w.git("rm", "-q", "services/endless/main.jsonnet")
			w.git("checkout", "-q", first, "--", "services/endless/endless.yaml", "services/refused/refused.yaml")
			stuck := w.bump("stuck", "1.1.0", "1.2.0")
			w.daemon(t.TempDir())
			w.shows(map[string]wanted{"endless": {"1.0.0", ""}, "refused": {"1.0.0", ""}, "stuck": {"1.2.0", stuck}, "web": {"1.1.0", web}})
			w.same(before)
		})
	}
}

// A service with more objects than there may be requests in flight leaves some
// of them to others when none of its own is answered.
func TestDaemonSparesRequestsForOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop("heap", "web"))
	p := devtest.NewProxy(t, w.kubeconfig)
	w.kubeconfig = p.Kubeconfig
	d := w.daemon(t.TempDir())
	d.line(0, "[2/2 done]")
	mark := d.mark()
	heal, met := make(chan struct{}), make(chan struct{}, 1)
	var late atomic.Int32 // requests that the daemon has given up
	p.Do(func(rw http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPatch || !strings.HasPrefix(path.Base(r.URL.Path), "heap-") {
			return false
		}
		io.Copy(io.Discard, r.Body) // or it is not seen that the client goes away
		select {
		case met <- struct{}{}:
		default:
		}
		select {
		case <-heal:
		case <-r.Context().Done():
			late.Add(1)
		}
		return devtest.Reset(rw, r)
	})
	var heap strings.Builder
	for i := range 40 {
		fmt.Fprintf(&heap, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: heap-%d}\n", i)
	}
	w.push("a heap of objects", "-- services/heap/heap.yaml --\n"+heap.String())
	<-met
	w.bump("web", "1.0.0", "1.1.0")
	d.line(mark, "ready dev/web 1.1.0")
	if n := late.Load(); n > 0 {
		t.Errorf("web waited for %d requests of another service", n)
	}
	p.Do(nil)
	close(heal)
	d.line(mark, "ready dev/heap")
	d.line(mark, "deleted", "Deployment.apps "+w.namespace+"/heap:")
}
