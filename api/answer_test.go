package api

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

// What is kept is told to nobody who may not read, and to nobody any more when a
// branch has moved.
func TestKeptAnswers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	git := func(in string, args ...string) string {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Stdin = dir, strings.NewReader(in)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("", "init", "-q", "--bare", "--initial-branch=main")
	commit := func(env string) {
		t.Helper()
		file := fmt.Sprintf("apiVersion: pinion.dev/v1\nkind: Environment\ncluster: default\nnamespace: %s\n", env)
		from := ""
		if env != "dev" {
			from = "from refs/heads/main^0\n"
		}
		git(fmt.Sprintf("commit refs/heads/main\ncommitter Dana <dana@shop.example> 1790000000 +0000\ndata 0\n%sM 100644 inline environments/%s.yaml\ndata %d\n%s\n", from, env, len(file), file), "fast-import", "--quiet")
	}
	commit("dev")
	clone, err := gitstate.OpenClone(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer clone.Close()
	asked := 0
	lasting := func(c *Call) (echo, error) {
		asked++
		c.fleeting = c.text("service") == "unread"
		return echo{Text: fmt.Sprintf("%q asks for %s, answer %d", c.Caller.Name, c.text("service"), asked)}, nil
	}
	token := func(name string, scope Scope) Token {
		return Token{Hash: sha256.Sum256([]byte(name)), Caller: Caller{Principal: reconcile.Principal{Name: name}, Known: true, Grants: []Grant{{Scopes: []Scope{scope}}}}}
	}
	s, err := New(Options{Authenticators: []Authenticator{Tokens{token("reader", ScopeRead), token("other", ScopeRead), token("ci", ScopeReport)}},
		More: []Operation{Lasting(Operation{Path: "/api/v1/kept", ID: "kept", Parameters: []Parameter{ofService}}, lasting)}})
	if err != nil {
		t.Fatal(err)
	}
	s.Open(&Backend{Present: history.NewPresent(clone, "main", func() map[string]string { return map[string]string{"main": git("", "rev-parse", "main")} })})
	h := httptest.NewServer(s)
	defer h.Close()
	for _, step := range []struct {
		token, path, before string
		status              int
		says, not           string
	}{
		{"reader", "environments", "", 200, `"dev"`, "staging"},
		{"ci", "environments", "", 403, "scope read", "dev"},
		{"nobody", "environments", "", 401, "nobody is known", "dev"},
		{"", "environments", "", 401, "send a token", "dev"},
		{"reader", "environments", "staging", 200, `"staging"`, ""},
		{"reader", "environments?limit=1", "", 200, `"next":"dev"`, "staging"},
		{"reader", "environments?limit=1&cursor=dev", "", 200, `"staging"`, `"dev"`},
		{"reader", "environments?limits=1", "", 400, "did you mean", ""},
		// The call that finds the answer does not know who asks.
		{"reader", "kept?service=web", "", 200, `\"\" asks for web, answer 1`, ""},
		{"other", "kept?service=web", "", 200, "answer 1", ""},
		{"ci", "kept?service=web", "", 403, "", "answer"},
		{"other", "kept?service=api", "", 200, "api, answer 2", ""},
		{"other", "kept?service=web", "production", 200, "answer 3", ""},
		{"other", "kept?service=unread", "", 200, "answer 4", ""},
		{"other", "kept?service=unread", "", 200, "answer 5", ""},
	} {
		if step.before != "" {
			commit(step.before)
		}
		req, _ := http.NewRequestWithContext(t.Context(), "GET", h.URL+"/api/v1/"+step.path, nil)
		if step.token != "" {
			req.Header.Set("Authorization", "Bearer "+step.token)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != step.status || !strings.Contains(string(data), step.says) || step.not != "" && strings.Contains(string(data), step.not) {
			t.Errorf("%s asks for %s: %d %s; want %d, with %s, without %q", step.token, step.path, resp.StatusCode, data, step.status, step.says, step.not)
		}
		if tagged := resp.Header.Get("ETag") != ""; tagged != (step.status == http.StatusOK) {
			t.Errorf("%s asks for %s: ETag %q", step.token, step.path, resp.Header.Get("ETag"))
		}
	}
}

// What is put together of parts is what the whole is as JSON.
func TestJoinedAnswers(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 1, 9, 0, 0, 5, time.FixedZone("", 3600))
	all := []*history.Deployment{
		{ID: "web-4f1c2aa90b7e", Environment: "dev", Reason: "<&> \u2028 \xff", Pinned: at, Drifts: 1},
		{ID: "api-4f1c2aa90b7e", Checks: []ledger.Check{{Policy: "e2e", Result: ledger.Success, URL: "https://ci.example/?a=1&b=2"}}},
	}
	var kept texts[*history.Deployment]
	for _, p := range []history.Page[*history.Deployment]{
		{Items: []*history.Deployment{}},
		{Items: all[:1], Next: "dev@<&>"},
		{Items: all, Truncated: true},
		{Items: all, Next: "dev@1", Truncated: true},
	} {
		j := joined{page: true, next: p.Next, truncated: p.Truncated}
		for _, d := range p.Items {
			text, err := kept.text(d)
			again, _ := kept.text(d)
			if err != nil || &text[0] != &again[0] {
				t.Fatalf("%s is written again (%v)", d.ID, err)
			}
			j.parts = append(j.parts, text)
		}
		var want, got bytes.Buffer
		if err := errors.Join(encode(&want, p), encode(&got, j)); err != nil || got.String() != want.String() {
			t.Errorf("%v\n got %s\nwant %s", err, &got, &want)
		}
	}
	var want, got bytes.Buffer
	one, _ := kept.text(all[0])
	if err := errors.Join(encode(&want, all[0]), encode(&got, joined{parts: [][]byte{one}})); err != nil || got.String() != want.String() {
		t.Errorf("%v\n got %s\nwant %s", err, &got, &want)
	}
}

// What is asked for again and again stays, and all together stays within bounds.
func TestKeptAnswersAreBounded(t *testing.T) {
	t.Parallel()
	var a answers
	at := map[string]string{"main": "1"}
	if _, ok := a.find(at, "often"); ok {
		t.Fatal("found in nothing")
	}
	a.keep(at, "often", encoded{tag: "kept"})
	large := make([]byte, mostKept/20)
	for i := range 100 {
		a.keep(at, fmt.Sprint(i), encoded{data: large})
		if e, ok := a.find(at, "often"); !ok || e.tag != "kept" {
			t.Fatalf("after %d others it is gone", i)
		}
		total := 0
		for _, all := range []map[string]held{a.kept.young, a.kept.old} {
			for k, e := range all {
				total += len(k) + len(e.data)
			}
		}
		if total > 2*mostKept {
			t.Fatalf("%d bytes are kept", total)
		}
	}
	if _, ok := a.find(at, "0"); ok {
		t.Error("what was asked for once is still there")
	}
	a.keep(at, "huge", encoded{data: make([]byte, mostKept)})
	if _, ok := a.find(at, "huge"); ok {
		t.Error("one answer takes the place of all others")
	}
	moved := map[string]string{"main": "2"}
	a.keep(moved, "late", encoded{})
	if _, ok := a.find(moved, "often"); ok {
		t.Error("it is kept after a branch has moved")
	}
	a.keep(at, "late", encoded{})
	if _, ok := a.find(moved, "late"); ok {
		t.Error("an answer from before is kept for what is now")
	}
}
