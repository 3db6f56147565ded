package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/forge"
	"github.com/pinion-cd/pinion/internal/devtest"
)

// scene is what the suite finds in a repository: two branches with one commit
// more than its base.
type scene struct {
	Base     string
	Commit   string // the base's tip
	Branches [2]string
	Heads    [2]string
}

// suite is what every forge has to do in the same way.
func suite(t *testing.T, c *Client, s scene) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	me, err := c.Whoami(ctx)
	must(err)
	if me == "" {
		t.Error("the forge does not say who asks")
	}

	status := forge.Status{Context: "pinion/suite", State: forge.Pending, Description: "web 1.4.2 is being rolled out", URL: "https://pinion.example/suite"}
	must(c.SetStatus(ctx, s.Commit, status))
	status.State, status.Description = forge.Success, "web 1.4.2 is verified"
	must(c.SetStatus(ctx, s.Commit, status))
	must(c.SetStatus(ctx, s.Commit, forge.Status{Context: "pinion/other", State: forge.Neutral, Description: "web 1.4.1 gave way"}))
	all, err := c.Statuses(ctx, s.Commit)
	must(err)
	if all["pinion/suite"] != status {
		t.Errorf("the commit has %+v, want %+v", all["pinion/suite"], status)
	}
	if got := all["pinion/other"].State; got != forge.Neutral {
		t.Errorf("what gave way is %q", got)
	}
	if _, err := c.Statuses(ctx, strings.Repeat("0", 40)); err == nil {
		t.Error("a commit that is not there has statuses")
	}

	p := forge.Pull{Title: "promote(suite): web 1.4.1 → 1.4.2", Body: "Verified in staging.", Branch: s.Branches[0], Base: s.Base}
	opened, err := c.OpenPull(ctx, p)
	for errors.Is(err, ErrNotFound) && ctx.Err() == nil { // a repository that is new
		opened, err = c.OpenPull(ctx, p)
	}
	must(err)
	if _, err := c.OpenPull(ctx, p); !errors.Is(err, ErrConflict) {
		t.Errorf("opened twice: %v, want ErrConflict", err)
	}
	listed, err := c.Pulls(ctx, s.Base)
	must(err)
	if len(listed) != 1 {
		t.Fatalf("%d pull requests are open, want 1", len(listed))
	}
	for what, got := range map[string]forge.Pull{"opened": opened, "listed": listed[0]} {
		want := forge.Pull{Number: opened.Number, Title: p.Title, Body: p.Body, State: forge.Open, Author: me,
			Head: s.Heads[0], Branch: p.Branch, Base: p.Base, URL: got.URL, Mergeable: got.Mergeable, Fits: got.Fits}
		if got != want || got.URL == "" {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	must(c.EditPull(ctx, opened.Number, p.Title+"!", p.Body+"\n\nSoaked."))
	got, err := c.Pull(ctx, opened.Number)
	must(err)
	if got.Title != p.Title+"!" || got.Body != p.Body+"\n\nSoaked." {
		t.Errorf("changed to %q, %q", got.Title, got.Body)
	}
	reviews, err := c.Reviews(ctx, got)
	must(err)
	if len(reviews) != 0 {
		t.Errorf("nobody has reviewed it, and there is %+v", reviews)
	}

	must(c.AddComment(ctx, opened.Number, "one"))
	comments, err := c.Comments(ctx, opened.Number)
	must(err)
	if len(comments) != 1 || comments[0].Body != "one" || comments[0].User != me {
		t.Fatalf("the comments are %+v", comments)
	}
	must(c.EditComment(ctx, opened.Number, comments[0].ID, "two"))
	comments, err = c.Comments(ctx, opened.Number)
	must(err)
	if len(comments) != 1 || comments[0].Body != "two" {
		t.Errorf("the comments are %+v", comments)
	}

	m := Merge{Head: s.Commit, Method: MethodMerge, Subject: p.Title, Message: "Verified in staging."}
	if err := c.MergePull(ctx, opened.Number, m); !errors.Is(err, ErrConflict) && !errors.Is(err, ErrNotNow) {
		t.Errorf("merged at another head: %v", err)
	}
	m.Head = s.Heads[0]
	for got.Mergeable != forge.Yes && ctx.Err() == nil {
		got, err = c.Pull(ctx, opened.Number)
		must(err)
	}
	err = c.MergePull(ctx, opened.Number, m)
	for errors.Is(err, ErrNotNow) && ctx.Err() == nil { // it may still look whether it can be merged
		err = c.MergePull(ctx, opened.Number, m)
	}
	must(err)
	got, err = c.Pull(ctx, opened.Number)
	must(err)
	if got.State != forge.Merged {
		t.Errorf("after the merge it is %s", got.State)
	}
	if err := c.MergePull(ctx, opened.Number, m); err == nil {
		t.Error("it is merged twice")
	}

	p.Branch = s.Branches[1]
	opened, err = c.OpenPull(ctx, p)
	must(err)
	must(c.ClosePull(ctx, opened.Number))
	last, err := c.PullOf(ctx, s.Base, p.Branch)
	must(err)
	if last == nil || last.Number != opened.Number || last.State != forge.Closed {
		t.Errorf("the newest of the branch is %+v", last)
	}
	last, err = c.PullOf(ctx, s.Base, "pinion/promote/suite/none")
	must(err)
	if last != nil {
		t.Errorf("a branch without one has %+v", last)
	}
	got, err = c.Pull(ctx, opened.Number)
	must(err)
	if got.State != forge.Closed {
		t.Errorf("after it was closed it is %s", got.State)
	}
	listed, err = c.Pulls(ctx, s.Base)
	must(err)
	if len(listed) != 0 {
		t.Errorf("still open: %+v", listed)
	}
	if _, err := c.Pull(ctx, 99999); !errors.Is(err, ErrNotFound) {
		t.Errorf("one that is not there: %v, want ErrNotFound", err)
	}
}

// exchange is one request and its answer in a conversation.
type exchange struct {
	request string // the line
	body    string
	status  int
	header  http.Header
	answer  string
}

// conversation is a file of testdata: the scene, and the exchanges in their
// order. "#" says what the scene is, ">" is the request, "<" the answer.
type conversation struct {
	scene     scene
	exchanges []exchange
}

func readConversation(t *testing.T, name string) conversation {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var c conversation
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, "\n")
		mark, rest, _ := strings.Cut(line, " ")
		last := len(c.exchanges) - 1
		switch mark {
		case "#scene":
			if err := json.Unmarshal([]byte(rest), &c.scene); err != nil {
				t.Fatal(err)
			}
		case ">":
			c.exchanges = append(c.exchanges, exchange{request: rest, header: http.Header{}})
		case ">>":
			c.exchanges[last].body += rest
		case "<":
			fmt.Sscan(rest, &c.exchanges[last].status)
		case "<:":
			k, v, _ := strings.Cut(rest, ": ")
			c.exchanges[last].header.Add(k, v)
		case "<<":
			c.exchanges[last].answer += rest + "\n"
		}
	}
	return c
}

func sameJSON(a, b string) bool {
	var x, y any
	if a == "" || b == "" {
		return a == b
	}
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return a == b
	}
	p, _ := json.Marshal(x)
	q, _ := json.Marshal(y)
	return bytes.Equal(p, q)
}

// play answers as the conversation says, and wants just its requests.
func (c conversation) play(t *testing.T) string {
	t.Helper()
	var mu sync.Mutex
	next := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		line := r.Method + " " + r.URL.RequestURI()
		if next >= len(c.exchanges) {
			t.Errorf("one request too many: %s %s", line, body)
			http.Error(w, "{}", http.StatusTeapot)
			return
		}
		e := c.exchanges[next]
		next++
		if line != e.request || !sameJSON(string(body), e.body) {
			t.Errorf("request %d is\n%s %s\nwant\n%s %s", next, line, body, e.request, e.body)
		}
		if r.Header.Get("Authorization") != "Bearer the-token" {
			t.Errorf("request %d has no token", next)
		}
		for k, v := range e.header {
			w.Header()[k] = v
		}
		w.WriteHeader(e.status)
		io.WriteString(w, e.answer)
	}))
	t.Cleanup(func() {
		server.Close()
		if next != len(c.exchanges) && !t.Failed() {
			t.Errorf("%d requests, want %d; the next one: %s", next, len(c.exchanges), c.exchanges[next].request)
		}
	})
	return server.URL
}

func TestForgesDoTheSame(t *testing.T) {
	for _, kind := range []forge.Kind{forge.GitHub, forge.GitLab, forge.Gitea} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			talk := readConversation(t, filepath.Join("testdata", string(kind)+".txt"))
			c, err := New(Options{Kind: kind, URL: talk.play(t), Repository: "shop/deploy", Token: func() (string, error) { return "the-token", nil }})
			if err != nil {
				t.Fatal(err)
			}
			suite(t, c, talk.scene)
		})
	}
}

var (
	realKind   = flag.String("forge", "", "run the suite against a real forge of this kind")
	realURL    = flag.String("url", "", "the real forge's URL; empty: the public one")
	realRepo   = flag.String("repository", "", "a repository of the real forge that the token of FORGE_TOKEN may write to; it gets branches and pull requests")
	recordInto = flag.String("record", "", "write the conversation with the real forge into this file")
)

// It runs by `make test-forge`.
func TestRealForge(t *testing.T) {
	if *realKind == "" {
		t.Skip("no real forge is named; see make test-forge")
	}
	token := os.Getenv("FORGE_TOKEN")
	o := Options{Kind: forge.Kind(*realKind), URL: *realURL, Repository: *realRepo, Token: func() (string, error) { return token, nil }}
	var tape *recorder
	if *recordInto != "" {
		tape = &recorder{}
		o.HTTP = &http.Client{Transport: tape}
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	web := map[forge.Kind]string{forge.GitHub: "https://github.com", forge.GitLab: "https://gitlab.com"}[o.Kind]
	if *realURL != "" {
		web = strings.TrimRight(*realURL, "/")
	}
	u, err := url.Parse(web + "/" + *realRepo + ".git")
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("pinion", token)
	s := stage(t, u.String(), token)
	suite(t, c, s)
	if tape != nil {
		data, _ := json.Marshal(s)
		out := fmt.Sprintf("#scene %s\n%s", data, tape.String())
		out = strings.ReplaceAll(strings.ReplaceAll(out, token, "TOKEN"), web, "https://forge.example")
		if err := os.WriteFile(*recordInto, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// The stand-in of the other tests does as the real one.
func TestStandInDoesTheSame(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "deploy.git")
	if out, err := exec.Command("git", "init", "-q", "--bare", "--initial-branch=main", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f := devtest.NewForge(t, dir, map[string]string{"the-token": "pinion-bot"})
	c, err := New(Options{Kind: forge.Gitea, URL: f.URL, Repository: f.Repository, Token: func() (string, error) { return "the-token", nil }})
	if err != nil {
		t.Fatal(err)
	}
	suite(t, c, stage(t, f.Remote(), "the-token"))
}

// stage pushes the branches of the scene to a forge.
func stage(t *testing.T, remote, token string) scene {
	t.Helper()
	dir := t.TempDir()
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_TERMINAL_PROMPT=0",
			"GIT_AUTHOR_NAME=Pinion", "GIT_AUTHOR_EMAIL=pinion@localhost", "GIT_COMMITTER_NAME=Pinion", "GIT_COMMITTER_EMAIL=pinion@localhost")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %s: %v\n%s", args[0], err, strings.ReplaceAll(string(out), token, "TOKEN"))
		}
		return strings.TrimSpace(string(out))
	}
	mark := time.Now().UTC().Format("20060102150405")
	s := scene{Base: "suite-" + mark, Branches: [2]string{"pinion/promote/suite/one-" + mark, "pinion/promote/suite/two-" + mark}}
	git("init", "-q", "-b", s.Base)
	git("commit", "-q", "--allow-empty", "-m", "the base "+mark)
	s.Commit = git("rev-parse", "HEAD")
	git("push", "-q", remote, "HEAD:refs/heads/"+s.Base)
	for i, b := range s.Branches {
		git("checkout", "-q", "-b", b, s.Base)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("file", i)), []byte(mark), 0o644); err != nil {
			t.Fatal(err)
		}
		git("add", "-A")
		git("commit", "-q", "-m", "a change "+mark)
		s.Heads[i] = git("rev-parse", "HEAD")
		git("push", "-q", remote, "HEAD:refs/heads/"+b)
	}
	return s
}

// recorder writes down what is said.
type recorder struct{ bytes.Buffer }

func (r *recorder) RoundTrip(q *http.Request) (*http.Response, error) {
	var body []byte
	if q.Body != nil {
		body, _ = io.ReadAll(q.Body)
		q.Body = io.NopCloser(bytes.NewReader(body))
	}
	resp, err := http.DefaultTransport.RoundTrip(q)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(answer))
	fmt.Fprintf(r, "\n> %s %s\n", q.Method, q.URL.RequestURI())
	if len(body) > 0 {
		fmt.Fprintf(r, ">> %s\n", body)
	}
	fmt.Fprintf(r, "< %d\n", resp.StatusCode)
	if len(answer) > 0 {
		fmt.Fprintf(r, "<< %s\n", bytes.ReplaceAll(bytes.TrimSpace(answer), []byte("\n"), nil))
	}
	return resp, err
}
