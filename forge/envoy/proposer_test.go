package envoy

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/forge"
	"github.com/pinion-cd/pinion/forge/rest"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/internal/devtest"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
	"github.com/pinion-cd/pinion/reconcile"
)

const productionFile = `apiVersion: pinion.dev/v1
kind: Environment
namespace: shop
pins:
  api:
    image: registry.example/api:1.0.0
  web:
    image: registry.example/web:1.0.0 # the shop window
`

const proposed = "pinion/promote/production/web"

// scene is a repository at a forge, a clone of somebody who may push to the
// branches of proposals, and a Proposer.
type scene struct {
	*testing.T
	forge    *devtest.Forge
	client   *rest.Client
	dir      string
	proposer *Proposer
	judged   string // the commit of main; "": what it is when something is proposed
	log      bytes.Buffer
}

func newScene(t *testing.T, set func(*ProposerOptions)) *scene {
	t.Helper()
	s := &scene{T: t, dir: t.TempDir()}
	bare := filepath.Join(t.TempDir(), "deploy.git")
	s.git("init", "-q", "--bare", "--initial-branch=main", bare)
	s.git("init", "-q", "-b", "main")
	s.write("environments/production.yaml", productionFile)
	s.write("policies/release.yaml", "apiVersion: pinion.dev/v1\nkind: Policy\napproval: {groups: [release-managers]}\n")
	s.git("add", "-A")
	s.git("commit", "-q", "-m", "the shop")
	s.git("push", "-q", bare, "main")
	s.forge = devtest.NewForge(t, bare, map[string]string{"bot": "pinion-bot"})
	s.git("remote", "add", "origin", s.forge.Remote())
	var err error
	if s.client, err = rest.New(rest.Options{Kind: forge.Gitea, URL: s.forge.URL, Repository: s.forge.Repository, Token: func() (string, error) { return "bot", nil }}); err != nil {
		t.Fatal(err)
	}
	mirror, err := gitstate.Open(t.Context(), gitstate.Options{URL: s.forge.Remote(), Dir: filepath.Join(t.TempDir(), "mirror")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mirror.Close() })
	o := ProposerOptions{
		Forge: s.client, Mirror: mirror, Branch: "main", Identity: ledger.Person{Name: "Pinion", Email: "pinion@localhost"},
		Ours:     func(desired.EnvironmentName) bool { return true },
		Rendered: func(context.Context, string, string, reconcile.Key) (string, error) { return "", nil },
		Method:   rest.MethodMerge, Poll: time.Second, Log: slog.New(slog.NewTextHandler(&s.log, nil)),
	}
	if set != nil {
		set(&o)
	}
	s.proposer = NewProposer(o)
	return s
}

// git runs as who copies the daemon's name.
func (s *scene) git(args ...string) string {
	s.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Pinion", "GIT_AUTHOR_EMAIL=pinion@localhost", "GIT_COMMITTER_NAME=Pinion", "GIT_COMMITTER_EMAIL=pinion@localhost")
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.Fatalf("git %s: %v\n%s", args[0], err, out)
	}
	return strings.TrimSpace(string(out))
}

func (s *scene) write(name, text string) {
	s.Helper()
	name = filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		s.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		s.Fatal(err)
	}
}

func (s *scene) remote(branch string) string {
	s.Helper()
	id, _, _ := strings.Cut(s.git("ls-remote", "origin", "refs/heads/"+branch), "\t")
	return id
}

func (s *scene) pass() {
	s.Helper()
	if err := s.proposer.pass(s.Context()); err != nil {
		s.Fatal(err)
	}
}

// proposes has web 1.1.0 proposed, ready to be merged by the daemon.
func (s *scene) proposes() (head string) {
	s.Helper()
	s.proposesWith("Verified in staging: rollout complete.")
	s.pass()
	if head = s.remote(proposed); head == "" {
		s.Fatalf("nothing is proposed:\n%s", &s.log)
	}
	return head
}

func (s *scene) proposesWith(evidence string) {
	if s.judged == "" {
		s.judged = s.remote("main")
	}
	s.proposer.Propose(reconcile.Proposal{
		Key: reconcile.Key{Environment: "production", Service: "web"}, Ready: true, Merge: true, Main: s.judged,
		Promotion: &policy.Promotion{Service: "web", Environment: "production", Before: "1.0.0", Evidence: evidence,
			From: []string{"staging@0123456789ab"}, Pipeline: "default@abc",
			Release: ledger.Release{Pins: []ledger.Pin{{Artifact: "web", Image: "registry.example/web:1.1.0"}}, Source: strings.Repeat("0123456789", 4)}},
	})
}

// A text that the forge did not take is not waited for as one that it has.
func TestTextThatCouldNotBeChanged(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	main := s.remote("main")
	s.proposes()
	s.proposesWith("Verified in staging: soaked 30m.")
	s.forge.Harm(func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if r.Method == http.MethodPatch {
			w.WriteHeader(http.StatusBadGateway)
		}
		return r.Method == http.MethodPatch
	})
	if err := s.proposer.pass(t.Context()); err == nil || s.remote("main") != main {
		t.Errorf("while its text is another one: %v", err)
	}
	s.forge.Harm(nil)
	s.pass()
	if s.remote("main") == main {
		t.Errorf("it is not merged:\n%s", &s.log)
	}
}

// What was ready a moment ago is not merged past what has come to main since, nor
// while nobody can tell what has.
func TestMainMovesBeforeAMerge(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	s.proposes()
	change := func(name, text string) string {
		s.write(name, text)
		s.git("add", "-A")
		s.git("commit", "-q", "-m", "change "+name)
		s.git("push", "-q", "origin", "HEAD:main")
		return s.remote("main")
	}
	main := change("holds/inc-1.yaml", "apiVersion: pinion.dev/v1\nkind: Hold\nreason: INC-1\nowner: dana\n")
	s.pass()
	if s.remote("main") != main {
		t.Fatalf("it is merged past a hold:\n%s", &s.log)
	}
	s.judged = main
	s.proposesWith("Verified in staging: rollout complete.") // judged anew, as if the hold were none of its business
	var begun atomic.Bool                                    // the look at the pull requests, which is right after that at the branches
	s.forge.Harm(func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		begun.CompareAndSwap(false, strings.HasSuffix(r.URL.Path, "/pulls"))
		git := begun.Load() && strings.HasPrefix(r.URL.Path, "/shop/")
		if git {
			w.WriteHeader(http.StatusBadGateway)
		}
		return git
	})
	if err := s.proposer.pass(t.Context()); err == nil || !strings.Contains(err.Error(), "look at main before a merge") {
		t.Errorf("while main can't be read: %v", err)
	}
	s.forge.Harm(nil)
	if s.remote("main") != main {
		t.Fatalf("it is merged while main can't be read:\n%s", &s.log)
	}
	main = change("README.md", "The shop.\n") // which is nothing to it
	s.pass()
	if s.remote("main") == main {
		t.Errorf("it is not merged:\n%s", &s.log)
	}
}

// What the daemon has written is merged, and nothing that looks like it.
func TestForgedHeadIsNotMerged(t *testing.T) {
	t.Parallel()
	promoted := strings.Replace(productionFile, "web:1.0.0", "web:1.1.0", 1)
	for _, tt := range []struct {
		name  string
		forge func(s *scene)
	}{
		{"a policy besides", func(s *scene) {
			s.write("policies/release.yaml", "apiVersion: pinion.dev/v1\nkind: Policy\napproval: {groups: [everybody]}\n")
		}},
		{"another file, and no promotion", func(s *scene) {
			s.git("checkout", "-q", "HEAD^", "--", "environments/production.yaml")
			s.write("services/web/main.jsonnet", "{}")
		}},
		{"other pins", func(s *scene) {
			s.write("environments/production.yaml", strings.Replace(promoted, "web:1.1.0", "web:6.6.6", 1))
		}},
		{"a pin of another service besides", func(s *scene) {
			s.write("environments/production.yaml", strings.Replace(promoted, "api:1.0.0", "api:6.6.6", 1))
		}},
		{"another namespace besides", func(s *scene) {
			s.write("environments/production.yaml", strings.Replace(promoted, "namespace: shop", "namespace: kube-system", 1))
		}},
		{"a mode besides", func(s *scene) { s.git("update-index", "--chmod=+x", "environments/production.yaml") }},
		{"the file as a link", func(s *scene) {
			os.Remove(filepath.Join(s.dir, "environments/production.yaml"))
			if err := os.Symlink("../policies/release.yaml", filepath.Join(s.dir, "environments/production.yaml")); err != nil {
				s.Fatal(err)
			}
		}},
		{"the file removed", func(s *scene) { s.git("rm", "-q", "environments/production.yaml") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, nil)
			main := s.remote("main")
			s.proposes()
			s.git("fetch", "-q", "origin", proposed)
			s.git("checkout", "-q", "FETCH_HEAD")
			tt.forge(s)
			if tt.name != "a mode besides" {
				s.git("add", "-A")
			}
			s.git("commit", "-q", "--amend", "--no-edit", "--allow-empty")
			forged := s.git("rev-parse", "HEAD")
			s.git("push", "-q", "-f", "origin", "HEAD:refs/heads/"+proposed)
			s.pass()
			s.left(main, forged)
		})
	}
	s := newScene(t, nil)
	head := s.proposes()
	s.pass()
	if s.git("fetch", "-q", "origin", "main"); s.git("rev-parse", "FETCH_HEAD^2") != head {
		t.Errorf("what the daemon wrote is not merged:\n%s", &s.log)
	}
}

// left tells whether a head of somebody else's is left alone.
func (s *scene) left(main, head string) {
	s.Helper()
	if at := s.remote("main"); at != main {
		s.Errorf("it is merged:\n%s", s.git("log", "-p", "-1", "--first-parent", "-m", head))
	}
	if at := s.remote(proposed); at != head {
		s.Errorf("it is overwritten by %s", at)
	}
	there, err := s.client.Statuses(s.Context(), head)
	if err != nil {
		s.Fatal(err)
	}
	if got, ok := there[forge.GateContext]; ok {
		s.Errorf("it is told to be %+v", got)
	}
	if !strings.Contains(s.log.String(), "somebody else has written to the branch") {
		s.Errorf("nobody is told:\n%s", &s.log)
	}
}

// With a key, what has no signature of it is somebody else's, whatever it does.
func TestUnsignedHeadIsNotMerged(t *testing.T) {
	t.Parallel()
	const mark = "-----BEGIN SSH SIGNATURE-----\nours\n-----END SSH SIGNATURE-----\n"
	s := newScene(t, func(o *ProposerOptions) {
		o.Sign = func([]byte) (string, error) { return mark, nil }
		o.Signed = func(commit []byte) bool { return bytes.Contains(commit, []byte("\n ours\n")) }
	})
	main := s.remote("main")
	signed := s.proposes()
	s.git("fetch", "-q", "origin", proposed)
	s.git("checkout", "-q", "FETCH_HEAD")
	s.git("commit", "-q", "--amend", "--no-edit")
	forged := s.git("rev-parse", "HEAD")
	s.git("push", "-q", "-f", "origin", "HEAD:refs/heads/"+proposed)
	s.pass()
	s.left(main, forged)
	s.git("push", "-q", "-f", "origin", signed+":refs/heads/"+proposed)
	s.pass()
	if s.git("fetch", "-q", "origin", "main"); s.git("rev-parse", "FETCH_HEAD^2") != signed {
		t.Errorf("what the daemon signed is not merged:\n%s", &s.log)
	}
}
