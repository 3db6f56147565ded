package devtest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Forge stands in for a Gitea where a test needs a forge that does harm, or one
// that is there at once: a bare repository, served by git's own http-backend,
// with the part of Gitea's API that we use. It passes the suite that the real one
// passes; see forge/rest.
type Forge struct {
	URL string
	// Dir is the bare repository, and Repository its name at the forge.
	Dir, Repository string

	t     testing.TB
	users map[string]string // by token

	mu       sync.Mutex // guards what follows
	pulls    []*forgePull
	statuses map[string][]map[string]any
	comments []*forgeComment
	require  []string // statuses without which nothing is merged
	harm     func(w http.ResponseWriter, r *http.Request, next http.Handler) bool
}

type forgePull struct {
	number                           int
	title, body, branch, base, state string
	author, head                     string
	merged                           bool
	reviews                          []map[string]any
}

type forgeComment struct {
	id         int64
	pull       int
	user, body string
}

// NewForge serves a bare repository; users are the logins by their tokens.
func NewForge(t testing.TB, dir string, users map[string]string) *Forge {
	t.Helper()
	program, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	f := &Forge{Dir: dir, Repository: "shop/" + strings.TrimSuffix(filepath.Base(dir), ".git"), t: t, users: users, statuses: map[string][]map[string]any{}}
	f.git("config", "http.receivepack", "true")
	backend := &cgi.Handler{Path: program, Args: []string{"http-backend"}, Stderr: io.Discard, Root: "/shop",
		Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(dir), "GIT_HTTP_EXPORT_ALL=1"}}
	mux := http.NewServeMux()
	mux.Handle("/shop/", backend)
	mux.Handle("/api/v1/", http.StripPrefix("/api/v1", http.HandlerFunc(f.api)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body) // the CGI handler refuses a chunked one
		if err != nil {
			return
		}
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
		f.mu.Lock()
		harm := f.harm
		f.mu.Unlock()
		if harm == nil || !harm(w, r, mux) {
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	f.URL = server.URL
	return f
}

// Remote is the address of the repository for git.
func (f *Forge) Remote() string { return f.URL + "/shop/" + filepath.Base(f.Dir) }

// Harm is done to requests from now on, before or instead; nil ends it.
func (f *Forge) Harm(harm func(w http.ResponseWriter, r *http.Request, next http.Handler) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.harm = harm
}

// Require has nothing merged before its head has the status.
func (f *Forge) Require(context string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.require = append(f.require, context)
}

func (f *Forge) git(args ...string) string {
	out, err := f.try(args...)
	if err != nil {
		f.t.Errorf("git %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

func (f *Forge) try(args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = f.Dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull,
		"GIT_AUTHOR_NAME=Forge", "GIT_AUTHOR_EMAIL=forge@localhost", "GIT_COMMITTER_NAME=Forge", "GIT_COMMITTER_EMAIL=forge@localhost")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (f *Forge) api(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	user := f.users[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	if user == "" {
		refuseAPI(w, http.StatusUnauthorized, "token is required")
		return
	}
	var in map[string]any
	json.NewDecoder(r.Body).Decode(&in)
	text := func(key string) string { s, _ := in[key].(string); return s }
	path, ok := strings.CutPrefix(r.URL.Path, "/repos/"+f.Repository)
	part := strings.Split(strings.Trim(path, "/"), "/")
	switch route := r.Method + " " + part[0]; {
	case r.URL.Path == "/user":
		answerAPI(w, http.StatusOK, map[string]any{"login": user})
	case !ok:
		refuseAPI(w, http.StatusNotFound, "not found")
	case route == "POST statuses":
		if _, err := f.try("cat-file", "-e", part[1]+"^{commit}"); err != nil {
			refuseAPI(w, http.StatusNotFound, "object does not exist")
			return
		}
		s := map[string]any{"id": len(f.statuses[part[1]]) + 1, "status": text("state"), "context": text("context"), "description": text("description"),
			"target_url": text("target_url"), "created_at": time.Now().UTC().Format(time.RFC3339)}
		f.statuses[part[1]] = append(f.statuses[part[1]], s)
		answerAPI(w, http.StatusCreated, s)
	case route == "GET commits":
		if _, err := f.try("cat-file", "-e", part[1]+"^{commit}"); err != nil {
			refuseAPI(w, http.StatusNotFound, "object does not exist")
			return
		}
		page(w, r, f.statuses[part[1]])
	case route == "GET pulls" && len(part) == 1:
		var list []map[string]any
		for _, p := range slices.Backward(f.pulls) {
			if s := r.URL.Query().Get("state"); s == "all" || s == p.state {
				list = append(list, f.show(p))
			}
		}
		page(w, r, list)
	case route == "POST pulls" && len(part) == 1:
		f.open(w, user, text)
	case part[0] == "pulls" || part[0] == "issues" && part[1] != "comments":
		n, _ := strconv.Atoi(part[1])
		if n < 1 || n > len(f.pulls) {
			refuseAPI(w, http.StatusNotFound, "The target couldn't be found.")
			return
		}
		f.pull(w, r, f.pulls[n-1], append(part[2:], "")[0], user, in)
	case part[0] == "issues" && r.Method == http.MethodPatch:
		for _, c := range f.comments {
			if strconv.FormatInt(c.id, 10) == part[2] {
				c.body = text("body")
				answerAPI(w, http.StatusOK, c.show())
				return
			}
		}
		refuseAPI(w, http.StatusNotFound, "not found")
	default:
		refuseAPI(w, http.StatusNotFound, "not found")
	}
}

func (f *Forge) open(w http.ResponseWriter, user string, text func(string) string) {
	head, err := f.try("rev-parse", "--verify", "--quiet", "refs/heads/"+text("head"))
	if err != nil {
		refuseAPI(w, http.StatusNotFound, "The target couldn't be found.")
		return
	}
	for _, p := range f.pulls {
		if p.state == "open" && p.branch == text("head") && p.base == text("base") {
			refuseAPI(w, http.StatusConflict, "pull request already exists for these targets")
			return
		}
	}
	p := &forgePull{number: len(f.pulls) + 1, title: text("title"), body: text("body"), branch: text("head"), base: text("base"), state: "open", author: user, head: head}
	f.pulls = append(f.pulls, p)
	answerAPI(w, http.StatusCreated, f.show(p))
}

// show brings a pull request up to date, as a push does at the real one.
func (f *Forge) show(p *forgePull) map[string]any {
	mergeable := false
	tip, err := f.try("rev-parse", "--verify", "--quiet", "refs/heads/"+p.branch)
	ref := p.branch
	if err != nil {
		ref = fmt.Sprintf("refs/pull/%d/head", p.number) // as of one whose branch is gone
	}
	if p.state == "open" {
		if err == nil {
			p.head = tip
		}
		f.git("update-ref", fmt.Sprintf("refs/pull/%d/head", p.number), p.head)
		_, err := f.try("merge-tree", "--write-tree", "refs/heads/"+p.base, p.head)
		mergeable = err == nil
	}
	repo := map[string]any{"full_name": f.Repository}
	return map[string]any{"number": p.number, "title": p.title, "body": p.body, "state": p.state, "merged": p.merged, "mergeable": mergeable,
		"user": map[string]any{"login": p.author}, "html_url": fmt.Sprintf("%s/%s/pulls/%d", f.URL, f.Repository, p.number),
		"head": map[string]any{"ref": ref, "label": p.branch, "sha": p.head, "repo": repo}, "base": map[string]any{"ref": p.base, "repo": repo}}
}

func (f *Forge) pull(w http.ResponseWriter, r *http.Request, p *forgePull, what, user string, in map[string]any) {
	text := func(key string) string { s, _ := in[key].(string); return s }
	switch r.Method + " " + what {
	case "GET ":
		answerAPI(w, http.StatusOK, f.show(p))
	case "PATCH ":
		p.title, p.body, p.state = cmp.Or(text("title"), p.title), cmp.Or(text("body"), p.body), cmp.Or(text("state"), p.state)
		answerAPI(w, http.StatusCreated, f.show(p))
	case "GET reviews":
		page(w, r, p.reviews)
	case "POST reviews":
		f.show(p)
		review := map[string]any{"id": len(p.reviews) + 1, "user": map[string]any{"login": user}, "state": text("event"), "commit_id": p.head,
			"submitted_at": time.Now().UTC().Format(time.RFC3339Nano)}
		p.reviews = append(p.reviews, review)
		answerAPI(w, http.StatusOK, review)
	case "GET comments":
		list := []map[string]any{}
		for _, c := range f.comments {
			if c.pull == p.number {
				list = append(list, c.show())
			}
		}
		answerAPI(w, http.StatusOK, list)
	case "POST comments":
		c := &forgeComment{int64(len(f.comments) + 1), p.number, user, text("body")}
		f.comments = append(f.comments, c)
		answerAPI(w, http.StatusCreated, c.show())
	case "POST merge":
		f.merge(w, p, text)
	default:
		refuseAPI(w, http.StatusNotFound, "not found")
	}
}

func (f *Forge) merge(w http.ResponseWriter, p *forgePull, text func(string) string) {
	f.show(p)
	missing := slices.ContainsFunc(f.require, func(name string) bool {
		state := ""
		for _, s := range f.statuses[p.head] {
			if s["context"] == name {
				state = s["status"].(string)
			}
		}
		return state != "success"
	})
	base := f.git("rev-parse", "refs/heads/"+p.base) // others push meanwhile
	tree, err := f.try("merge-tree", "--write-tree", base, p.head)
	switch {
	case p.state != "open" || missing || err != nil:
		refuseAPI(w, http.StatusMethodNotAllowed, "Please try again later")
		return
	case text("head_commit_id") != "" && text("head_commit_id") != p.head:
		refuseAPI(w, http.StatusConflict, "head out of date")
		return
	}
	message := cmp.Or(text("MergeTitleField"), p.title) + "\n\n" + text("MergeMessageField")
	args := []string{"commit-tree", tree, "-p", base}
	switch text("Do") {
	case "merge":
		args = append(args, "-p", p.head)
	case "rebase":
		message = f.git("log", "-1", "--format=%B", p.head)
	}
	if _, err := f.try("update-ref", "refs/heads/"+p.base, f.git(append(args, "-m", strings.TrimSpace(message))...), base); err != nil {
		refuseAPI(w, http.StatusConflict, "the base branch has moved") // somebody pushes meanwhile
		return
	}
	p.state, p.merged = "closed", true
	w.WriteHeader(http.StatusOK)
}

func (c *forgeComment) show() map[string]any {
	return map[string]any{"id": c.id, "body": c.body, "user": map[string]any{"login": c.user}}
}

func page[T any](w http.ResponseWriter, r *http.Request, all []T) {
	size, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	n, _ := strconv.Atoi(r.URL.Query().Get("page"))
	from := min(len(all), max(n-1, 0)*size)
	answerAPI(w, http.StatusOK, slices.Concat([]T{}, all[from:min(len(all), from+size)]))
}

func answerAPI(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func refuseAPI(w http.ResponseWriter, status int, message string) {
	answerAPI(w, status, map[string]any{"message": message})
}
