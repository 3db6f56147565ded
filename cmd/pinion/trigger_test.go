package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pinion-cd/pinion/api"
	"github.com/pinion-cd/pinion/reconcile/trigger"
)

// elsewhere is a service that another tool deploys, and one whose address the
// operator does not list.
const elsewhere = `
-- environments/dev.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: NAMESPACE
parameters: {size: 2}
pins:
  other:
    image: registry.example/other:1.0.0
  web:
    image: registry.example/web:1.0.0
-- environments/staging.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: NAMESPACE-staging
pins:
  web:
    image: registry.example/web:1.0.0
-- services/web/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
deploy: {webhook: "TOOL/{environment}/{service}", by: [deployers], timeout: 5m}
-- services/other/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
deploy: {webhook: "https://unlisted.example/hook", by: [deployers]}
-- pipelines/default.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: [web]
stages:
- {environment: dev, onFailure: rollback}
- {environment: staging}
`

// tool is what deploys.
type tool struct {
	*httptest.Server
	busy atomic.Bool

	mu    sync.Mutex          // guards calls
	calls map[string][]string // by "path version", the keys
	last  trigger.Call
}

func newTool(t *testing.T) *tool {
	x := &tool{calls: map[string][]string{}}
	x.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x.mu.Lock()
		defer x.mu.Unlock()
		var c trigger.Call
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil || r.Header.Get("Webhook-Signature") == "" {
			t.Errorf("a call that is not signed, or can't be read: %v %v", r.Header, err)
		}
		what := r.URL.Path + " " + c.Version
		x.calls[what] = append(x.calls[what], r.Header.Get("Idempotency-Key"))
		x.last = c
		w.WriteHeader(http.StatusAccepted)
	}))
	handler := x.Config.Handler
	x.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if x.busy.Load() {
			x.mu.Lock()
			x.calls["busy"] = append(x.calls["busy"], r.Header.Get("Webhook-Id"))
			x.mu.Unlock()
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		handler.ServeHTTP(w, r)
	})
	t.Cleanup(x.Close)
	return x
}

func (x *tool) called(what string) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.calls[what]
}

func TestAnotherToolDeploys(t *testing.T) {
	t.Parallel()
	x := newTool(t)
	w := newWorld(t, strings.ReplaceAll(elsewhere, "TOOL", x.URL))
	secretFile := filepath.Join(t.TempDir(), "secret")
	w.must(os.WriteFile(secretFile, []byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"), 0o600))
	config := configured(t, fmt.Sprintf("outbound: {allow: [127.0.0.1]}\ntriggers: {%q: {secretFile: %s}}", strings.TrimPrefix(x.URL, "http://"), secretFile))
	text, err := os.ReadFile(config)
	w.must(err)
	w.must(os.WriteFile(config, []byte(strings.Replace(string(text), "principal: ci,", "principal: ci, groups: [deployers],", 1)), 0o600))
	as := func(who string, d *daemon, env, result, version string) (string, int) {
		w.Helper()
		body, err := json.Marshal(map[string]string{"environment": env, "service": "web", "policy": "deploy", "status": result, "version": version, "description": "job 5"})
		w.must(err)
		r, err := http.NewRequest(http.MethodPost, "http://"+d.address+api.ReportsPath, bytes.NewReader(body))
		w.must(err)
		r.Header.Set("Authorization", "Bearer "+who+"-token")
		r.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(r)
		w.must(err)
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		w.must(err)
		return string(text), response.StatusCode
	}
	report := func(d *daemon, env, result, version string) (string, int) { return as("ci", d, env, result, version) }
	must := func(d *daemon, env, result, version string) {
		w.Helper()
		if text, status := report(d, env, result, version); status != 200 {
			t.Fatalf("report %s %s %s: %d\n%s", env, version, result, status, text)
		}
	}

	// It is called until it answers, with the same id.
	x.busy.Store(true)
	d := w.daemon(t.TempDir(), "--config", config)
	w.until("it is called twice", func(context.Context) string {
		if all := x.called("busy"); len(all) < 3 {
			return fmt.Sprint(all)
		}
		return ""
	})
	d.line(0, "dev/other", "unlisted.example is not asked")
	x.busy.Store(false)
	w.recorded("staging", "pinned(staging): web 1.0.0", "started(staging): web 1.0.0")
	w.until("dev is started", func(context.Context) string {
		all := strings.Join(w.entries("dev"), "; ")
		if !strings.Contains(all, "started(dev): web 1.0.0") || strings.Contains(all, "started(dev): other") {
			return all
		}
		return ""
	})
	keys := x.called("/dev/web 1.0.0")
	x.mu.Lock()
	call := x.last
	x.mu.Unlock()
	if len(keys) != 1 || !strings.HasPrefix(keys[0], "dev_web-") || call.Deployment == "" || call.Service != "web" || len(call.Pins) != 1 {
		t.Errorf("called with %v and %+v", keys, call)
	}

	// Once it was taken it is not called again, and whoever reports is looked at.
	d.kill()
	d = w.daemon(t.TempDir(), "--config", config)
	d.line(0, "waits for the report that it is deployed")
	if text, status := as("mallory", d, "dev", "success", "1.0.0"); status != 403 {
		t.Errorf("Mallory reports: %d\n%s", status, text)
	}
	must(d, "dev", "success", "1.0.0")
	must(d, "dev", "success", "1.0.0") // twice is once
	must(d, "staging", "success", "1.0.0")
	w.recorded("staging", "completed(staging): web 1.0.0", "verified(staging): web 1.0.0")
	if text, status := report(d, "dev", "failure", "1.0.0"); status != 409 || !strings.Contains(text, "decided") {
		t.Errorf("the opposite is reported: %d\n%s", status, text)
	}

	// A failure is rolled back, by another call. Until that is taken nothing is
	// reported, and a repetition of what was reported of the version is not for it.
	w.replace("environments/dev.yaml", "web:1.0.0", "web:1.1.0")
	w.recorded("dev", "pinned(dev): web 1.0.0 → 1.1.0", "started(dev)")
	x.busy.Store(true)
	must(d, "dev", "failure", "1.1.0")
	w.recorded("dev", "failed(dev): web 1.0.0 → 1.1.0", "pinned(dev): web 1.1.0 → 1.0.0")
	back := ""
	w.until("it is asked to go back", func(context.Context) string {
		all := x.called("busy")
		_, back, _ = strings.Cut(all[len(all)-1], "_")
		if back == call.Deployment || len(all) < 4 {
			return fmt.Sprint(all)
		}
		return ""
	})
	if text, status := report(d, "dev", "success", "1.0.0"); status != 409 || !strings.Contains(text, "nothing is recorded") {
		t.Errorf("a repetition: %d\n%s", status, text)
	}
	if text, status := report(d, "dev", "success", back); status != 503 || !strings.Contains(text, "has not taken") {
		t.Errorf("a report of what was not taken: %d\n%s", status, text)
	}
	x.busy.Store(false)
	w.recorded("dev", "pinned(dev): web 1.1.0 → 1.0.0", "started(dev)")
	if text, status := report(d, "dev", "success", "1.1.0"); status != 409 || !strings.Contains(text, "nothing is recorded") {
		t.Errorf("a late report: %d\n%s", status, text)
	}
	must(d, "dev", "success", back)
	w.recorded("dev", "completed(dev): web 1.1.0 → 1.0.0", "verified(dev)")

	// What is verified is promoted, and asked for there.
	w.git("pull", "-q", "origin", "main")
	w.replace("environments/dev.yaml", "web:1.0.0", "web:1.2.0")
	w.recorded("dev", "pinned(dev): web 1.0.0 → 1.2.0", "started(dev)")
	must(d, "dev", "success", "1.2.0")
	w.recorded("staging", "pinned(staging): web 1.0.0 → 1.2.0", "started(staging)")
	must(d, "staging", "success", "1.2.0")
	w.recorded("staging", "completed(staging)", "verified(staging): web 1.0.0 → 1.2.0")
	for what, want := range map[string]int{"/dev/web 1.0.0": 2, "/dev/web 1.1.0": 1, "/dev/web 1.2.0": 1, "/staging/web 1.0.0": 1, "/staging/web 1.2.0": 1} {
		if all := x.called(what); len(all) != want {
			t.Errorf("%s was called %v", what, all)
		}
	}
	d.stop()
}
