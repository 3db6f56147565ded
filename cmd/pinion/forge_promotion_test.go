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
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pinion-cd/pinion/internal/devtest"
)

const byPullRequest = `
-- environments/dev.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: NAMESPACE
pins:
  web:
    image: registry.example/web:1.0.0
-- environments/production.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: NAMESPACE-p
pins:
  web:
    image: registry.example/web:1.0.0
-- services/web/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/web/main.jsonnet --
function(pinion) { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'web' }, data: { image: pinion.pins.web.image } }
-- policies/release.yaml --
apiVersion: pinion.dev/v1
kind: Policy
approval: {groups: [release-managers]}
-- pipelines/default.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: ["*"]
stages:
- environment: dev
- environment: production
  admit: [release]
  by: pullRequest
  merge: auto
  manifests: head
`

// forgeWorld is a world whose repository is at a forge.
type forgeWorld struct {
	*world
	*devtest.Forge        // nil: a real one
	api            string // of the repository
	bot            string // the daemon's token
	config         string
}

func newForgeWorld(t *testing.T, archive, more string) *forgeWorld {
	t.Helper()
	w := newWorld(t, archive)
	f := devtest.NewForge(t, w.remote, map[string]string{"bot-token": "pinion-bot", "alice-token": "alice"})
	w.git("remote", "set-url", "origin", f.Remote())
	w.remote = f.Remote()
	dir := t.TempDir()
	token, config := filepath.Join(dir, "token"), filepath.Join(dir, "config.yaml")
	w.must(os.WriteFile(token, []byte("bot-token\n"), 0o600))
	w.must(os.WriteFile(config, fmt.Appendf(nil, `apiVersion: pinion.dev/v1
kind: Config
forge:
  kind: gitea
  url: %s
  repository: %s
  tokenFile: %s
  statuses: true
  poll: 1s
  users: [{login: alice, principal: alice, email: alice@shop.example, groups: [release-managers]}]
%s`, f.URL, f.Repository, token, more), 0o600))
	return &forgeWorld{w, f, f.URL + "/api/v1/repos/" + f.Repository, "bot-token", config}
}

// ask sends a request to the forge's API, as somebody.
func (w *forgeWorld) ask(token, method, path string, body any, into any) {
	w.Helper()
	status, answer := w.send(token, method, path, body)
	if status/100 != 2 {
		w.Fatalf("%s %s: %d: %s", method, path, status, answer)
	}
	if into != nil {
		w.must(json.Unmarshal(answer, into))
	}
}

// answers is the status of the answer to a request.
func (w *forgeWorld) answers(token, method, path string, body any) int {
	w.Helper()
	status, _ := w.send(token, method, path, body)
	return status
}

func (w *forgeWorld) send(token, method, path string, body any) (status int, answer []byte) {
	w.Helper()
	data, err := json.Marshal(body)
	w.must(err)
	r, err := http.NewRequest(method, w.api+path, bytes.NewReader(data))
	w.must(err)
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	w.must(err)
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	w.must(err)
	return resp.StatusCode, answer
}

type pullSeen struct {
	Number int
	Title  string
	Body   string
	State  string
	Merged bool
	Head   struct{ SHA string }
}

// pull waits until a pull request is as it is to be.
func (w *forgeWorld) pull(number int, want string, is func(pullSeen) bool) (p pullSeen) {
	w.Helper()
	w.until(fmt.Sprintf("pull request %d: %s", number, want), func(context.Context) string {
		var all []pullSeen
		w.ask(w.bot, "GET", "/pulls?state=all&limit=50&page=1", nil, &all)
		i := slices.IndexFunc(all, func(p pullSeen) bool { return p.Number == number })
		if i < 0 {
			return "it is not there"
		}
		if p = all[i]; !is(p) {
			return fmt.Sprintf("it is %+v", p)
		}
		return ""
	})
	return p
}

func (w *forgeWorld) status(commit, context string) string {
	w.Helper()
	var all []struct {
		ID                           int
		Status, Context, Description string
	}
	w.ask(w.bot, "GET", "/commits/"+commit+"/statuses?limit=50&page=1", nil, &all)
	last, text := 0, ""
	for _, s := range all {
		if s.Context == context && s.ID > last {
			last, text = s.ID, s.Status+": "+s.Description
		}
	}
	return text
}

func TestPromotionByPullRequest(t *testing.T) {
	t.Parallel()
	w := newForgeWorld(t, byPullRequest, "")
	d := w.daemon(t.TempDir(), "--config", w.config)
	d.line(0, "[2/2 done]")
	w.Require("pinion/promotion")
	second := w.bump("web", "1.0.0", "1.1.0")
	p := w.pull(1, "is open", func(p pullSeen) bool { return p.State == "open" })
	if p.Title != "promote(production): web 1.0.0 → 1.1.0" {
		t.Errorf("its title is %q", p.Title)
	}
	for _, want := range []string{"Verified in dev: rollout complete.", "| release | pending | 0 of 1 approval by release-managers", "Not all gates are passed yet",
		"+    image: registry.example/web:1.1.0", "-    image: registry.example/web:1.0.0", "+ registry.example/web:1.1.0"} {
		if !strings.Contains(p.Body, want) {
			t.Errorf("its body does not say %q:\n%s", want, p.Body)
		}
	}
	w.until("the commits say how it is", func(context.Context) string {
		if gate := w.status(p.Head.SHA, "pinion/promotion"); !strings.HasPrefix(gate, "pending: release: 0 of 1") {
			return "the head has " + gate
		}
		if s := w.status(second, "pinion/dev"); s != "success: web 1.1.0 is verified" {
			return "the bump has " + s
		}
		return ""
	})

	// Approved there, and merged by a request whose answer is lost.
	var lost atomic.Int32
	w.Harm(func(rw http.ResponseWriter, r *http.Request, next http.Handler) bool {
		if !strings.HasSuffix(r.URL.Path, "/merge") || lost.Add(1) > 1 {
			return false
		}
		next.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	})
	w.ask("alice-token", "POST", "/pulls/1/reviews", map[string]string{"event": "APPROVED"}, nil)
	w.pull(1, "is merged", func(p pullSeen) bool { return p.Merged })
	w.ran("production", "1.1.0")
	d.line(0, "approved(production): web 1.1.0 by alice")
	d.line(0, "pinned(production): web 1.0.0 → 1.1.0")
	w.until("the branch is gone", func(context.Context) string {
		return w.git("ls-remote", "origin", "refs/heads/pinion/*")
	})
	w.Harm(nil)
	if n := lost.Load(); n != 1 {
		t.Errorf("it was merged by %d requests", n)
	}
	if text, _ := d.get("/metrics"); !regexp.MustCompile(`(?s)pinion_forge_requests_total\{result="failure"\} [1-9].*pinion_forge_requests_total\{result="limited"\} 0\n.*pinion_forge_requests_total\{result="success"\} [1-9]`).MatchString(text) {
		t.Errorf("the metrics have\n%s", text)
	}

	// A newer one takes the place of the one that waits, in the same pull request.
	w.git("pull", "-q", "origin", "main")
	w.bump("web", "1.1.0", "1.2.0")
	before := w.pull(2, "is open", func(p pullSeen) bool { return strings.HasSuffix(p.Title, "1.1.0 → 1.2.0") })
	w.bump("web", "1.2.0", "1.3.0")
	after := w.pull(2, "is about the newer one", func(p pullSeen) bool {
		return strings.HasSuffix(p.Title, "1.1.0 → 1.3.0") && strings.Contains(p.Body, "web:1.3.0")
	})
	if before.Head.SHA == after.Head.SHA || after.State != "open" {
		t.Errorf("before %+v, after %+v", before, after)
	}

	// What somebody pushes to the branch is not overwritten.
	mark := d.mark()
	w.git("fetch", "-q", "origin", "pinion/promote/production/web")
	w.git("checkout", "-q", "FETCH_HEAD")
	w.git("commit", "-q", "--allow-empty", "-m", "mine")
	mine := w.git("rev-parse", "HEAD")
	w.git("push", "-q", "origin", "HEAD:refs/heads/pinion/promote/production/web")
	w.git("checkout", "-q", "main")
	w.bump("web", "1.3.0", "1.4.0")
	d.line(mark, "a promotion is not proposed", "somebody else has written to the branch")
	if at := w.git("ls-remote", "origin", "refs/heads/pinion/promote/production/web"); !strings.HasPrefix(at, mine) {
		t.Errorf("the branch is at %s, not at %s", at, mine)
	}
	w.git("push", "-q", "origin", ":refs/heads/pinion/promote/production/web")
	w.pull(2, "goes on", func(p pullSeen) bool { return strings.HasSuffix(p.Title, "1.1.0 → 1.4.0") })

	// Closed by a person: that is an answer.
	mark = d.mark()
	w.ask("alice-token", "PATCH", "/pulls/2", map[string]string{"state": "closed"}, nil)
	d.line(mark, "a promotion is not proposed", "pull request #2 was closed without being merged")
	w.bump("web", "1.4.0", "1.5.0")
	p = w.pull(3, "is open for another version", func(p pullSeen) bool { return p.State == "open" })

	// Merged by a person who keeps nothing but the title, before policy lets
	// it: it is told by what it brings.
	w.ask("alice-token", "POST", "/pulls/3/reviews", map[string]string{"event": "COMMENT"}, nil)
	base := w.git("ls-remote", "origin", "refs/heads/main")
	base, _, _ = strings.Cut(base, "\t")
	w.git("fetch", "-q", "origin", "main", "pinion/promote/production/web")
	w.git("checkout", "-q", base)
	w.git("merge", "-q", "--squash", p.Head.SHA)
	w.git("commit", "-q", "-m", p.Title+" (#3)")
	w.git("push", "-q", "origin", "HEAD:main")
	w.ran("production", "1.5.0")
	d.line(mark, "pinned(production): web 1.1.0 → 1.5.0")
	w.pull(3, "is closed", func(p pullSeen) bool { return p.State == "closed" })
	w.until("the ledger calls it a promotion", func(context.Context) string {
		w.git("fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*")
		text := w.git("log", "--format=%B", "origin/ledger/production")
		if !strings.Contains(text, "pinned(production): web 1.1.0 → 1.5.0") {
			return "it does not know it"
		}
		if n := strings.Count(text, "Pinion-Cause: promotion"); n != 2 {
			return fmt.Sprintf("%d promotions in it:\n%s", n, text)
		}
		return ""
	})
	d.stop()
	// The audit tells of what was merged before policy let it, and of nothing else.
	out, errs, code := w.pinion("audit")
	if code != 1 || strings.Count(out, "\n") != 2 || !strings.Contains(out, "a promotion without its evidence: registry.example/web:1.5.0 to production") || !strings.Contains(out, "release: 0 of 1 approval") {
		t.Errorf("the audit ends with %d: %s%s", code, out, errs)
	}
}

// ran waits until an environment has a version.
func (w *forgeWorld) ran(env, version string) {
	w.Helper()
	w.until(env+" has "+version, func(context.Context) string {
		w.git("fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*")
		text := w.git("show", "origin/ledger/"+env+":web/deployment.yaml")
		if !strings.Contains(text, "web:"+version) || !strings.Contains(text, "state: verified") {
			return text
		}
		return ""
	})
}
