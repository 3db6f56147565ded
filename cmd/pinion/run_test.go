package main

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// get returns what the daemon answers.
func (d *daemon) get(path string) (body string, code int) {
	d.Helper()
	resp, err := http.Get("http://" + d.address + path)
	d.must(err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	d.must(err)
	return string(data), resp.StatusCode
}

func TestRunWithAConfiguration(t *testing.T) {
	t.Parallel()
	w := newWorld(t, twoServices)
	file := filepath.Join(t.TempDir(), "pinion.yaml")
	w.must(os.WriteFile(file, []byte("apiVersion: pinion.dev/v1\nkind: Config\nlog: {format: text}\napply: {services: 1}\n"), 0o600))
	d := w.daemon(t.TempDir(), "--config", file)
	d.line(0, "msg=phase", "service=web", "state=ready")
	w.until("ready", func(context.Context) string {
		if body, code := d.get("/readyz"); code != http.StatusOK {
			return body
		}
		return ""
	})
	if body, code := d.get("/healthz"); code != http.StatusOK || body != "ok\n" {
		t.Errorf("/healthz: %d %q", code, body)
	}
	if got := d.metric("pinion_services", `environment="dev"`, `state="ready"`); got != 2 {
		t.Errorf("pinion_services counts %v as ready", got)
	}
	d.stop()

	for _, test := range []struct{ text, want string }{
		{"apiVersion: pinion.dev/v1\nkind: Config\nlisten: :0\nrepositry: {}\n", ":4: unknown key \"repositry\""},
		{"apiVersion: pinion.dev/v1\nkind: Config\nrepository:\n  poll: soon\n", ":4: "},
		{"apiVersion: pinion.dev/v1\nkind: Config\nleaderElection:\n  lease: 1s\n", ":4: unknown key \"lease\""},
		{"apiVersion: pinion.dev/v1\nkind: Config\nleaderElection: {leaseDuration: 5s}\n", "leaseDuration 5s is not longer than renewDeadline 10s"},
		{"apiVersion: pinion.dev/v1\nkind: Config\nleaderElection: {retryPeriod: 10s}\n", "renewDeadline 10s is not longer than retryPeriod 10s"},
		{"apiVersion: pinion.dev/v1\nkind: Config\nshard: 3/3\n", "there is no number 3"},
		{"apiVersion: pinion.dev/v1\nkind: Service\n", "apiVersion: pinion.dev/v1 and kind: Config"},
	} {
		w.must(os.WriteFile(file, []byte(test.text), 0o600))
		_, stderr, code := w.pinion("run", "--repo", w.remote, "--config", file)
		if code != exitFailed || !strings.Contains(stderr, file) || !strings.Contains(stderr, test.want) {
			t.Errorf("run with %q ends with %d: %s", test.text, code, stderr)
		}
	}
}

func TestRunFollowsARewriteOnlyIfAllowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, twoServices)
	first := w.git("rev-parse", "HEAD")
	w.replace("environments/dev.yaml", "web:1.0.0", "web:1.1.0")
	data := t.TempDir()
	d := w.daemon(data)
	d.line(0, "[2/2 done]")
	w.git("reset", "-q", "--hard", first)
	w.edit("environments/dev.yaml", "web:1.0.0", "web:2.0.0")
	w.git("push", "-q", "--force", "origin", "HEAD:main")
	d.line(0, "can't be fetched", "rewritten")
	w.runs("web", "registry.example/web:1.1.0")
	d.never(0, "web 2.0.0")
	d.stop()
	w.daemon(data, "--allow-rewrite")
	w.runs("web", "registry.example/web:2.0.0")
}
