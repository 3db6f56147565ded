package rest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/forge"
	"github.com/pinion-cd/pinion/internal/devtest"
)

// town is a repository of a real Gitea, with a clone and with who works there.
type town struct {
	*testing.T
	*Client
	g          *devtest.GiteaServer
	repository string
	bot, alice string // access tokens
	clone      string
}

// A real Gitea does what the recorded one and the stand-in do, and what they
// leave out: it takes its time, protects branches and calls webhooks.
func TestGitea(t *testing.T) {
	t.Parallel()
	g := devtest.Gitea(t)
	bot := g.User(t, "pinion-bot", "write:repository", "write:issue", "read:user")
	alice := g.User(t, "alice", "write:repository", "read:user")
	for name, test := range map[string]func(w *town){
		"suite":     func(w *town) { suite(w.T, w.Client, stage(w.T, g.Remote(w.repository, bot), bot)) },
		"new":       (*town).beginsEmpty,
		"mergeable": (*town).saysLaterWhatCanBeMerged,
		"required":  (*town).requiresAStatus,
		"merge":     func(w *town) { w.mergedByAPerson("merge") },
		"squash":    func(w *town) { w.mergedByAPerson("squash") },
		"rebase":    func(w *town) { w.mergedByAPerson("rebase") },
		"head":      (*town).mergesOnlyTheHeadThatWasJudged,
		"closed":    (*town).closedByAPerson,
		"reviews":   (*town).isReviewed,
		"fork":      (*town).hasAFork,
		"webhooks":  (*town).callsWebhooks,
		"rights":    (*town).hasRights,
		"many":      (*town).hasManyStatuses,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &town{T: t, g: g, repository: g.Repository(t, name, name == "new", "pinion-bot", "alice"), bot: bot, alice: alice, clone: t.TempDir()}
			w.Client = w.client(bot)
			w.git("init", "-q", "-b", "main")
			w.git("remote", "add", "origin", g.Remote(w.repository, bot))
			if name != "new" {
				w.git("pull", "-q", "origin", "main")
			}
			test(w)
		})
	}
}

func (w *town) client(token string) *Client {
	w.Helper()
	c, err := New(Options{Kind: forge.Gitea, URL: w.g.URL, Repository: w.repository, Token: func() (string, error) { return token, nil }})
	w.must(err)
	return c
}

func (w *town) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *town) git(args ...string) string {
	w.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = w.clone
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Pinion", "GIT_AUTHOR_EMAIL=pinion@localhost", "GIT_COMMITTER_NAME=Pinion", "GIT_COMMITTER_EMAIL=pinion@localhost")
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.Fatalf("git %s: %v\n%s", args[0], err, out)
	}
	return strings.TrimSpace(string(out))
}

// push brings a file on a branch that begins at another, and returns the commit.
func (w *town) push(branch, from, name, text string) string {
	w.Helper()
	w.git("checkout", "-q", "-B", branch, from)
	w.must(os.WriteFile(filepath.Join(w.clone, name), []byte(text), 0o644))
	w.git("add", "-A")
	w.git("commit", "-q", "-m", "change "+name)
	w.git("push", "-q", "origin", "+HEAD:refs/heads/"+branch)
	return w.git("rev-parse", "HEAD")
}

// ask sends a request to the API about the repository.
func (w *town) ask(token, method, path string, body, into any) {
	w.Helper()
	w.g.Ask(w.T, token, method, "/repos/"+w.repository+path, body, into)
}

// until asks again as long as there is a complaint.
func (w *town) until(what string, complaint func(ctx context.Context) string) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		now := complaint(ctx)
		if now == "" {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			w.Fatalf("%s: not so in time: %s", what, now)
		}
	}
}

// opens opens a pull request of a branch, and waits until it can be merged.
func (w *town) opens(branch string) forge.Pull {
	w.Helper()
	p, err := w.OpenPull(w.Context(), forge.Pull{Title: "promote " + branch, Body: "Verified in staging.", Branch: branch, Base: "main"})
	w.must(err)
	return w.mergeable(p.Number)
}

func (w *town) mergeable(number int) (p forge.Pull) {
	w.Helper()
	w.until("it can be merged", func(ctx context.Context) string {
		var err error
		p, err = w.Pull(ctx, number)
		w.must(err)
		if p.Mergeable != forge.Yes {
			return fmt.Sprintf("mergeable is %q", p.Mergeable)
		}
		return ""
	})
	return p
}

// merges merges as soon as the forge takes it.
func (w *town) merges(number int, m Merge) {
	w.Helper()
	w.until("it is merged", func(ctx context.Context) string {
		err := w.MergePull(ctx, number, m)
		if errors.Is(err, ErrNotNow) {
			return err.Error()
		}
		w.must(err)
		return ""
	})
}

// Before its first commit a repository has no pull requests that could be asked
// for, and for a moment after it.
func (w *town) beginsEmpty() {
	if list, err := w.Pulls(w.Context(), "main"); !errors.Is(err, ErrNotFound) {
		w.Errorf("it has %v, %v, want ErrNotFound", list, err)
	}
	w.git("commit", "-q", "--allow-empty", "-m", "the first commit")
	w.git("push", "-q", "origin", "HEAD:refs/heads/main")
	w.push("change", "main", "file", "1")
	w.until("it has one", func(ctx context.Context) string {
		_, err := w.OpenPull(ctx, forge.Pull{Title: "change", Branch: "change", Base: "main"})
		if errors.Is(err, ErrNotFound) {
			return err.Error()
		}
		w.must(err)
		return ""
	})
	list, err := w.Pulls(w.Context(), "main")
	w.must(err)
	if len(list) != 1 {
		w.Errorf("it has %v", list)
	}
}

// What can't be merged is not told from what nobody has looked at, so it is
// undecided, and what is pushed to it is looked at anew.
func (w *town) saysLaterWhatCanBeMerged() {
	base := w.git("rev-parse", "main")
	w.push("change", base, "file", "theirs")
	w.push("main", base, "file", "ours")
	p, err := w.OpenPull(w.Context(), forge.Pull{Title: "change", Branch: "change", Base: "main"})
	w.must(err)
	// Also when Gitea has looked, which its page says.
	w.until("Gitea has found the conflict", func(context.Context) string {
		p, err = w.Pull(w.Context(), p.Number)
		w.must(err)
		if p.Mergeable != forge.Undecided || p.Fits != forge.Undecided {
			w.Fatalf("mergeable is %q, fits is %q", p.Mergeable, p.Fits)
		}
		if page := w.page(fmt.Sprintf("/pulls/%d", p.Number)); !strings.Contains(page, "changes conflicting with the target branch") {
			return "its page does not say so"
		}
		return ""
	})
	m := Merge{Head: p.Head, Method: MethodMerge, Subject: "change"}
	if err := w.MergePull(w.Context(), p.Number, m); !errors.Is(err, ErrNotNow) {
		w.Errorf("merged with a conflict: %v, want ErrNotNow", err)
	}
	m.Head = w.push("change", "main", "other", "theirs")
	w.until("the head is the one that was pushed", func(ctx context.Context) string {
		p, err := w.Pull(ctx, p.Number)
		w.must(err)
		if p.Head != m.Head {
			return "it is " + p.Head
		}
		return ""
	})
	w.mergeable(p.Number)
	w.merges(p.Number, m)
}

// page is what a person would see.
func (w *town) page(path string) string {
	w.Helper()
	r, err := http.NewRequestWithContext(w.Context(), http.MethodGet, w.g.URL+"/"+w.repository+path, nil)
	w.must(err)
	resp, err := http.DefaultClient.Do(r)
	w.must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	w.must(err)
	return string(text)
}

// A merge waits for the status that the branch requires.
func (w *town) requiresAStatus() {
	ctx := w.Context()
	w.ask(w.g.Admin, http.MethodPost, "/branch_protections", map[string]any{"rule_name": "main", "enable_push": false,
		"enable_status_check": true, "status_check_contexts": []string{forge.GateContext}}, nil)
	head := w.push("change", "main", "file", "1")
	p := w.opens("change")
	m := Merge{Head: head, Method: MethodSquash, Subject: p.Title, Message: p.Body}
	for _, state := range []forge.State{"", forge.Pending, forge.Failure, forge.Neutral} {
		if state != "" {
			w.must(w.SetStatus(ctx, head, forge.Status{Context: forge.GateContext, State: state, Description: "0 of 1 approval"}))
		}
		w.until("it says that the status is missing", func(ctx context.Context) string {
			err := w.MergePull(ctx, p.Number, m)
			if !errors.Is(err, ErrNotNow) {
				w.Fatalf("merged with the status %q: %v, want ErrNotNow", state, err)
			}
			if !strings.Contains(err.Error(), "status check") { // it may still look at the head
				return err.Error()
			}
			return ""
		})
	}
	w.must(w.SetStatus(ctx, head, forge.Status{Context: "pinion/lint", State: forge.Success}))
	if err := w.MergePull(ctx, p.Number, m); !errors.Is(err, ErrNotNow) {
		w.Errorf("merged with another status: %v, want ErrNotNow", err)
	}
	w.must(w.SetStatus(ctx, head, forge.Status{Context: forge.GateContext, State: forge.Success}))
	w.merges(p.Number, m)
	p, err := w.Pull(ctx, p.Number)
	w.must(err)
	if p.State != forge.Merged {
		w.Errorf("it is %q", p.State)
	}
}

// What a person merges, with what the forge's page offers, is seen as merged.
func (w *town) mergedByAPerson(style string) {
	ctx := w.Context()
	head := w.push("change", "main", "file", "1")
	p := w.opens("change")
	w.ask(w.alice, http.MethodPost, fmt.Sprintf("/pulls/%d/merge", p.Number), map[string]any{"Do": style, "delete_branch_after_merge": true}, nil)
	got, err := w.Pull(ctx, p.Number)
	w.must(err)
	if got.State != forge.Merged || got.Head != head || got.Branch != "change" {
		w.Errorf("it is %+v", got)
	}
	last, err := w.PullOf(ctx, "main", "change")
	w.must(err)
	if last == nil || last.Number != p.Number || last.State != forge.Merged || last.Fork {
		w.Errorf("the newest of the branch is %+v", last)
	}
	list, err := w.Pulls(ctx, "main")
	w.must(err)
	if len(list) != 0 {
		w.Errorf("open are %+v", list)
	}
	w.git("fetch", "-q", "origin", "main")
	if text := w.git("show", "FETCH_HEAD:file"); text != "1" {
		w.Errorf("main has %q", text)
	}
	if err := w.MergePull(ctx, p.Number, Merge{Head: head, Method: MethodMerge, Subject: "again"}); err == nil {
		w.Error("it is merged twice")
	}
}

// One that a person closes is found also when its branch is gone, with the head
// that it had.
func (w *town) closedByAPerson() {
	head := w.push("change", "main", "file", "1")
	p := w.opens("change")
	w.ask(w.alice, http.MethodPatch, fmt.Sprintf("/pulls/%d", p.Number), map[string]any{"state": "closed"}, nil)
	w.git("push", "-q", "origin", ":refs/heads/change")
	last, err := w.PullOf(w.Context(), "main", "change")
	w.must(err)
	if last == nil || last.Number != p.Number || last.State != forge.Closed || last.Head != head || last.Fork {
		w.Errorf("the newest of the branch is %+v", last)
	}
	w.git("fetch", "-q", "origin", w.HeadRef(p.Number))
	if got := w.git("rev-parse", "FETCH_HEAD"); got != head {
		w.Errorf("fetched is %s, want %s", got, head)
	}
}

// A review counts for the head that it was given for.
func (w *town) isReviewed() {
	head := w.push("change", "main", "file", "1")
	p := w.opens("change")
	reviews := func() []forge.Review {
		w.Helper()
		all, err := w.Reviews(w.Context(), p)
		w.must(err)
		return all
	}
	path := fmt.Sprintf("/pulls/%d/reviews", p.Number)
	w.ask(w.alice, http.MethodPost, path, map[string]any{"event": "REQUEST_CHANGES", "body": "no"}, nil)
	if all := reviews(); len(all) != 1 || all[0].Approved || all[0].User != "alice" {
		w.Errorf("refused, the reviews are %+v", all)
	}
	w.ask(w.alice, http.MethodPost, path, map[string]any{"event": "APPROVED"}, nil)
	w.ask(w.alice, http.MethodPost, path, map[string]any{"event": "COMMENT", "body": "well done"}, nil)
	if all := reviews(); len(all) != 1 || !all[0].Approved || all[0].User != "alice" || all[0].Commit != head || time.Since(all[0].Time).Abs() > time.Hour {
		w.Errorf("approved, the reviews are %+v", all)
	}
	w.push("change", "main", "file", "2")
	w.until("the approval was of another head", func(context.Context) string {
		for _, r := range reviews() {
			if r.Approved {
				return fmt.Sprintf("%+v", r)
			}
		}
		return ""
	})
}

// What comes from a fork is known as such, and its head can be fetched.
func (w *town) hasAFork() {
	mine := strings.Replace(w.repository, "shop/", "alice/", 1)
	w.ask(w.alice, http.MethodPost, "/forks", map[string]any{}, nil)
	w.git("checkout", "-q", "-b", "change")
	w.git("commit", "-q", "--allow-empty", "-m", "from a fork")
	head := w.git("rev-parse", "HEAD")
	w.git("push", "-q", w.g.Remote(mine, w.alice), "HEAD:refs/heads/change")
	w.ask(w.alice, http.MethodPost, "/pulls", map[string]any{"title": "from a fork", "head": "alice:change", "base": "main"}, nil)
	list, err := w.Pulls(w.Context(), "main")
	w.must(err)
	if len(list) != 1 || !list[0].Fork || list[0].Head != head || list[0].Author != "alice" {
		w.Fatalf("open are %+v", list)
	}
	if last, err := w.PullOf(w.Context(), "main", "change"); err != nil || last != nil {
		w.Errorf("the newest of our branch is %+v, %v", last, err)
	}
	w.git("fetch", "-q", "origin", w.HeadRef(list[0].Number))
	if got := w.git("rev-parse", "FETCH_HEAD"); got != head {
		w.Errorf("fetched is %s, want %s", got, head)
	}
}

// Gitea's own webhooks are known by their signature.
func (w *town) callsWebhooks() {
	type delivery struct{ event, problem string }
	const secret, older = "a secret", "the one before"
	arrived := make(chan delivery, 100)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		judge := func(kind forge.Kind, secrets ...string) error {
			d, err := kind.Receive(secrets, r.Header.Get, time.Now())
			if err == nil {
				d.Write(body)
				err = d.Genuine()
			}
			return err
		}
		d := delivery{event: r.Header.Get("X-Gitea-Event") + r.URL.Path}
		good := judge(forge.Gitea, older, secret)
		if err := judge(forge.Forgejo, older, secret); !errors.Is(err, good) {
			d.problem += fmt.Sprintf("as one of a Forgejo: %v; ", err)
		}
		if err := judge(forge.Gitea, older); err == nil {
			d.problem += "taken with another secret; "
		}
		body = append(body, ' ')
		if err := judge(forge.Gitea, secret); err == nil {
			d.problem += "taken with another body; "
		}
		if good != nil {
			d.problem += good.Error()
		}
		arrived <- d
	}))
	defer server.Close()
	for path, key := range map[string]string{"/good": secret, "/wrong": "of somebody else", "/none": ""} {
		w.ask(w.g.Admin, http.MethodPost, "/hooks", map[string]any{"type": "gitea", "active": true, "events": []string{"push", "pull_request"},
			"config": map[string]string{"url": server.URL + path, "content_type": "json", "secret": key}}, nil)
	}
	missing := map[string]string{
		"push/good": "", "pull_request/good": "",
		"push/wrong": forge.ErrForged.Error(), "pull_request/wrong": forge.ErrForged.Error(),
		"push/none": forge.ErrForged.Error() + "|" + forge.ErrUnsigned.Error(), "pull_request/none": forge.ErrForged.Error() + "|" + forge.ErrUnsigned.Error(),
	}
	w.push("change", "main", "file", "1")
	_, err := w.OpenPull(w.Context(), forge.Pull{Title: "change", Branch: "change", Base: "main"})
	w.must(err)
	for late := time.After(time.Minute); len(missing) > 0; {
		select {
		case d := <-arrived:
			want, ok := missing[d.event]
			delete(missing, d.event)
			if ok && d.problem != want && (d.problem == "" || !strings.Contains(want, d.problem)) {
				w.Errorf("%s: %q, want %q", d.event, d.problem, want)
			}
		case <-late:
			w.Fatalf("these did not arrive: %v", missing)
		}
	}
}

// What a token may not do is told from what is not there.
func (w *town) hasRights() {
	ctx := w.Context()
	head := w.push("change", "main", "file", "1")
	p := w.opens("change")
	less := w.client(w.g.Token(w.T, "pinion-bot", "write:repository", "read:user"))
	w.must(less.SetStatus(ctx, head, forge.Status{Context: forge.GateContext, State: forge.Success}))
	w.must(less.EditPull(ctx, p.Number, "another title", p.Body))
	if err := less.AddComment(ctx, p.Number, "hello"); !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "write:issue") {
		w.Errorf("a comment without the scope for it: %v, want ErrDenied", err)
	}
	if _, err := w.client("0123456789012345678901234567890123456789").Whoami(ctx); !errors.Is(err, ErrDenied) {
		w.Errorf("a token that is none: %v, want ErrDenied", err)
	}
	reader := w.client(w.g.Token(w.T, "pinion-bot", "read:repository", "read:user"))
	if got, err := reader.Pull(ctx, p.Number); err != nil || got.Title != "another title" {
		w.Errorf("who may read reads %+v, %v", got, err)
	}
	if err := reader.SetStatus(ctx, head, forge.Status{Context: forge.GateContext, State: forge.Failure}); !errors.Is(err, ErrDenied) {
		w.Errorf("who may read writes: %v, want ErrDenied", err)
	}
}

// A list of more than a page is read to its end.
func (w *town) hasManyStatuses() {
	const many = pageSize + 1
	head := w.push("change", "main", "file", "1")
	for i := range many {
		w.must(w.SetStatus(w.Context(), head, forge.Status{Context: fmt.Sprint("pinion/", i), State: forge.Success}))
	}
	if all, err := w.Statuses(w.Context(), head); err != nil || len(all) != many {
		w.Errorf("there are %d, %v, want %d", len(all), err, many)
	}
}

// A head that was pushed since is not merged.
func (w *town) mergesOnlyTheHeadThatWasJudged() {
	judged := w.push("change", "main", "file", "1")
	p := w.opens("change")
	pushed := w.push("change", "change", "file", "2")
	w.until("it is mergeable anew", func(ctx context.Context) string {
		p, err := w.Pull(ctx, p.Number)
		w.must(err)
		if p.Head != pushed || p.Mergeable != forge.Yes {
			return fmt.Sprintf("%+v", p)
		}
		return ""
	})
	w.until("the head before is not merged", func(ctx context.Context) string {
		err := w.MergePull(ctx, p.Number, Merge{Head: judged, Method: MethodMerge, Subject: "change"})
		if errors.Is(err, ErrNotNow) { // it may still look at the new one
			return err.Error()
		}
		if !errors.Is(err, ErrConflict) {
			w.Fatalf("merged at the head before: %v, want ErrConflict", err)
		}
		return ""
	})
	w.merges(p.Number, Merge{Head: pushed, Method: MethodMerge, Subject: "change", Message: "Pinion-Service: web"})
	w.git("fetch", "-q", "origin", "main")
	if got := w.git("log", "-1", "--format=%B", "FETCH_HEAD"); got != "change\n\nPinion-Service: web" {
		w.Errorf("the merge says %q", got)
	}
	if got := w.git("rev-parse", "FETCH_HEAD^2"); got != pushed {
		w.Errorf("the merge is of %s, want %s", got, pushed)
	}
}
