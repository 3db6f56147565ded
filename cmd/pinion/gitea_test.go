package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/internal/devtest"
)

// newGiteaWorld has its repository at a real Gitea, where Alice may push to main
// and the daemon may not, and nothing is merged without the daemon's status. The
// daemon hears of pushes by Gitea's webhook, and polls for nothing but pull
// requests.
func newGiteaWorld(t *testing.T, archive string) (w *forgeWorld, g *devtest.GiteaServer, alice string) {
	t.Helper()
	g = devtest.Gitea(t)
	bot := g.User(t, "pinion-bot", "write:repository", "read:user")
	alice = g.User(t, "alice", "write:repository", "read:user")
	name := g.Repository(t, "deploy", false, "pinion-bot", "alice")
	w = &forgeWorld{world: newWorld(t, archive), api: g.URL + "/api/v1/repos/" + name, bot: bot}
	w.git("remote", "set-url", "origin", g.Remote(name, alice))
	w.git("push", "-q", "-f", "origin", "main")
	w.remote = g.URL + "/" + name + ".git"
	w.ask(g.Admin, http.MethodPost, "/branch_protections", map[string]any{"rule_name": "main", "enable_push": true,
		"enable_push_whitelist": true, "push_whitelist_usernames": []string{"alice"},
		"enable_status_check": true, "status_check_contexts": []string{"pinion/promotion"}}, nil)
	dir := t.TempDir()
	token, secret := filepath.Join(dir, "token"), filepath.Join(dir, "secret")
	w.config = filepath.Join(dir, "config.yaml")
	w.must(os.WriteFile(token, []byte(bot+"\n"), 0o600))
	w.must(os.WriteFile(secret, []byte("sesame\n"), 0o600))
	w.must(os.WriteFile(w.config, fmt.Appendf(nil, `apiVersion: pinion.dev/v1
kind: Config
repository: {url: %q, tokenFile: %q}
forge:
  kind: gitea
  url: %s
  repository: %s
  tokenFile: %q
  webhookSecretFile: %q
  statuses: true
  poll: 1s
  users: [{login: alice, principal: alice, email: alice@shop.example, groups: [release-managers]}]
`, w.remote, token, g.URL, name, token, secret), 0o600))
	return w, g, alice
}

func TestPromotionOnGitea(t *testing.T) {
	t.Parallel()
	direct := strings.NewReplacer("  by: pullRequest\n", "", "  merge: auto\n", "", "  admit: [release]\n", "").Replace(byPullRequest)
	w, g, alice := newGiteaWorld(t, direct)
	d := w.daemon(t.TempDir(), "--poll", "1h", "--config", w.config)
	hook := func(path, secret string) {
		w.ask(g.Admin, http.MethodPost, "/hooks", map[string]any{"type": "gitea", "active": true, "events": []string{"push"},
			"config": map[string]string{"url": "http://" + d.address + path, "content_type": "json", "secret": secret}}, nil)
	}
	d.line(0, "[2/2 done]")
	hook(webhookPath+"gitea", "sesame")

	// A promotion that would be pushed to main is refused there, and the daemon
	// says what can be done about it.
	w.bump("web", "1.0.0", "1.1.0")
	d.line(0, "allow the daemon's account to push to main", "by: pullRequest")
	d.line(0, "verified(dev): web 1.0.0 → 1.1.0")

	// Done so, Alice approves it, and merges it as her forge offers.
	w.replace("pipelines/default.yaml", "- environment: production\n", "- environment: production\n  admit: [release]\n  by: pullRequest\n")
	p := w.pull(1, "is open", func(p pullSeen) bool { return p.State == "open" && strings.Contains(p.Body, "| release | pending |") })
	gate := func(commit, want string) {
		w.Helper()
		w.until("the gate is "+want, func(context.Context) string {
			if got := w.status(commit, "pinion/promotion"); !strings.HasPrefix(got, want) {
				return "the head has " + got
			}
			return ""
		})
	}
	gate(p.Head.SHA, "pending: release: 0 of 1")
	if got := w.answers(alice, http.MethodPost, "/pulls/1/merge", map[string]string{"Do": "squash"}); got != http.StatusMethodNotAllowed {
		w.Errorf("a merge before the gate is passed is answered with %d", got)
	}
	w.ask(alice, http.MethodPost, "/pulls/1/reviews", map[string]string{"event": "APPROVED"}, nil)
	gate(p.Head.SHA, "success: ")
	w.merged(alice, 1, "squash")
	d.line(0, "approved(production): web 1.1.0 by alice")
	d.line(0, "verified(production): web 1.0.0 → 1.1.0")
	w.gone()

	// The branch is deleted, by which Gitea closes the pull request: that is an
	// answer.
	mark := d.mark()
	w.git("pull", "-q", "origin", "main")
	w.bump("web", "1.1.0", "1.2.0")
	w.pull(2, "is open", func(p pullSeen) bool { return p.State == "open" })
	w.git("push", "-q", "origin", ":refs/heads/pinion/promote/production/web")
	d.line(mark, "a promotion is not proposed", "pull request #2 was closed without being merged")

	// The daemon merges by itself, and a person by a merge commit.
	w.replace("pipelines/default.yaml", "  by: pullRequest\n", "  by: pullRequest\n  merge: auto\n")
	w.bump("web", "1.2.0", "1.3.0")
	p = w.pull(3, "is open", func(p pullSeen) bool { return strings.HasSuffix(p.Title, "1.1.0 → 1.3.0") })
	w.ask(alice, http.MethodPost, "/pulls/3/reviews", map[string]string{"event": "APPROVED"}, nil)
	w.pull(3, "is merged", func(p pullSeen) bool { return p.Merged })
	d.line(0, "verified(production): web 1.1.0 → 1.3.0")
	w.gone()
	w.git("pull", "-q", "origin", "main")
	w.replace("pipelines/default.yaml", "  by: pullRequest\n  merge: auto\n", "  by: pullRequest\n")
	w.bump("web", "1.3.0", "1.4.0")
	p = w.pull(4, "is open", func(p pullSeen) bool { return p.State == "open" })
	w.ask(alice, http.MethodPost, "/pulls/4/reviews", map[string]string{"event": "APPROVED"}, nil)
	gate(p.Head.SHA, "success: ")
	w.merged(alice, 4, "merge")
	d.line(0, "verified(production): web 1.3.0 → 1.4.0")

	w.git("fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*")
	text := w.git("log", "--format=%B", "origin/ledger/production")
	if n := strings.Count(text, "Pinion-Cause: promotion"); n != 3 {
		w.Errorf("%d promotions in the ledger:\n%s", n, text)
	}

	// A webhook with another secret is not heard.
	mark = d.mark()
	hook(webhookPath+"gitea?", "open")
	w.git("pull", "-q", "origin", "main")
	w.push("nothing", "")
	d.line(mark, "a webhook was refused", "signature is wrong")
	d.stop()
	if out, errs, code := w.pinion("audit"); code != 0 {
		t.Errorf("the audit: %s%s", out, errs)
	}
}

// merged merges as a person, as soon as the forge has seen that it can be.
func (w *forgeWorld) merged(token string, number int, style string) {
	w.Helper()
	w.until(fmt.Sprintf("pull request %d is merged", number), func(context.Context) string {
		switch got := w.answers(token, http.MethodPost, fmt.Sprintf("/pulls/%d/merge", number), map[string]string{"Do": style}); got {
		case http.StatusOK:
			return ""
		case http.StatusMethodNotAllowed:
			return "it can't be merged yet"
		default:
			w.Fatalf("the merge is answered with %d", got)
			return ""
		}
	})
}

// gone waits until no proposal has a branch.
func (w *forgeWorld) gone() {
	w.Helper()
	w.until("the branch is gone", func(context.Context) string { return w.git("ls-remote", "origin", "refs/heads/pinion/*") })
}
