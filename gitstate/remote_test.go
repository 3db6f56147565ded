package gitstate_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/pinion-cd/pinion/gitstate"
)

// clone, follow, commit: over each way to reach a remote.
func exercise(t *testing.T, u *upstream, o gitstate.Options) {
	t.Helper()
	o.Dir = filepath.Join(t.TempDir(), "mirror")
	m := open(t, o)
	second := u.commit("main", "Change", map[string]string{"a": "2", "big": strings.Repeat("0123456789abcdef", 100_000)})
	if tip := fetch(t, m); tip.Commit != second {
		t.Fatalf("fetch = %+v, want %s", tip, second)
	}
	id, err := m.Commit(t.Context(), change(second, "Ours", map[string]string{"a": "3", "noise": noise(3 << 20)}))
	if err != nil {
		t.Fatal(err)
	}
	if u.tip("main") != id {
		t.Errorf("the remote is at %s, not %s", u.tip("main"), id)
	}
	if got := read(t, snapshot(t, m, id), "a"); got != "3" {
		t.Errorf("a = %q", got)
	}
	u.fsck()
	fsck(t, present(t, o.Dir))
}

// noise does not compress.
func noise(n int) string {
	b := make([]byte, n)
	x := uint64(88172645463325252)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return string(b)
}

func TestRemotes(t *testing.T) {
	start := map[string]string{"a": "1"}
	token := filepath.Join(t.TempDir(), "token")
	write(t, token, []byte("t0ken-in-a-file\n"))
	t.Run("path", func(t *testing.T) {
		u := newUpstream(t, start)
		exercise(t, u, gitstate.Options{URL: u.dir})
	})
	t.Run("relative path", func(t *testing.T) {
		u := newUpstream(t, start)
		t.Chdir(filepath.Dir(u.dir))
		exercise(t, u, gitstate.Options{URL: "./" + filepath.Base(u.dir)})
	})
	t.Run("file", func(t *testing.T) {
		u := newUpstream(t, start)
		exercise(t, u, gitstate.Options{URL: "file://" + u.dir})
	})
	t.Run("http", func(t *testing.T) {
		u := newUpstream(t, start)
		exercise(t, u, gitstate.Options{URL: serveHTTP(t, u, false, "", "").url})
	})
	t.Run("http with a password", func(t *testing.T) {
		u := newUpstream(t, start)
		exercise(t, u, gitstate.Options{URL: serveHTTP(t, u, false, "ada", "s3cret:/@").url, Auth: gitstate.Auth{Username: "ada", Password: "s3cret:/@"}})
	})
	t.Run("http with a password in the URL", func(t *testing.T) {
		u := newUpstream(t, start)
		url := strings.Replace(serveHTTP(t, u, false, "ada", "s3cret").url, "http://", "http://ada:s3cret@", 1)
		exercise(t, u, gitstate.Options{URL: url})
	})
	t.Run("https with a token in a file", func(t *testing.T) {
		u := newUpstream(t, start)
		s := serveHTTP(t, u, true, "x-access-token", "t0ken-in-a-file")
		exercise(t, u, gitstate.Options{URL: s.url, Auth: gitstate.Auth{TokenFile: token, CAFile: s.caFile(t)}})
	})
	t.Run("ssh", func(t *testing.T) {
		u := newUpstream(t, start)
		s := serveSSH(t)
		exercise(t, u, gitstate.Options{URL: s.url(u), Auth: gitstate.Auth{KeyFile: s.keyFile, KnownHostsFile: s.knownHosts}})
	})
}

// What the environment says about some other repository does not count.
func TestEnvironmentOfGit(t *testing.T) {
	u := newUpstream(t, map[string]string{"a": "1"})
	tip := u.tip("main")
	for _, name := range []string{"GIT_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"} {
		t.Setenv(name, t.TempDir())
	}
	m := open(t, gitstate.Options{URL: u.dir})
	if at, _ := m.Tip(); at != tip {
		t.Errorf("tip = %s", at)
	}
	mustCommit(t, m, change(tip, "m", map[string]string{"a": "2"}))
}

func TestAuthenticationErrors(t *testing.T) {
	u := newUpstream(t, map[string]string{"a": "1"})
	plain := serveHTTP(t, u, false, "ada", "right-password")
	tls := serveHTTP(t, u, true, "", "")
	s := serveSSH(t)
	dir := t.TempDir()
	other, otherPEM := newKey(t)
	write(t, filepath.Join(dir, "changed"), knownHost(s.addr, other.PublicKey()))
	write(t, filepath.Join(dir, "empty"), nil)
	write(t, filepath.Join(dir, "other-key"), otherPEM)
	// Neither an agent nor a home folder helps.
	t.Setenv("HOME", dir)
	t.Setenv("SSH_AUTH_SOCK", filepath.Join(dir, "agent"))
	t.Setenv("SSH_KNOWN_HOSTS", s.knownHosts)

	for _, c := range []struct {
		name, url string
		auth      gitstate.Auth
		want      string
		is        error
	}{
		{"no password", plain.url, gitstate.Auth{}, "check the user, the password or the token", gitstate.ErrAuthentication},
		{"wrong password", plain.url, gitstate.Auth{Username: "ada", Password: "wrong-password"}, "check the user", gitstate.ErrAuthentication},
		{"wrong password in the URL", strings.Replace(plain.url, "://", "://ada:wrong-password@", 1), gitstate.Auth{}, "check the user", gitstate.ErrAuthentication},
		{"unknown certificate", tls.url, gitstate.Auth{}, "CA file", gitstate.ErrAuthentication},
		{"no such repository", tls.URL + "/nope.git", gitstate.Auth{CAFile: tls.caFile(t)}, "check the URL", nil},
		{"no file of known hosts", s.url(u), gitstate.Auth{KeyFile: s.keyFile}, "needs a file of known host keys", nil},
		{"unknown host", s.url(u), gitstate.Auth{KeyFile: s.keyFile, KnownHostsFile: filepath.Join(dir, "empty")}, "has no key of", gitstate.ErrAuthentication},
		{"changed host key", s.url(u), gitstate.Auth{KeyFile: s.keyFile, KnownHostsFile: filepath.Join(dir, "changed")}, "somebody may be in between", gitstate.ErrAuthentication},
		{"no key", s.url(u), gitstate.Auth{KnownHostsFile: s.knownHosts}, "needs a key file or a password", nil},
		{"wrong key", s.url(u), gitstate.Auth{KeyFile: filepath.Join(dir, "other-key"), KnownHostsFile: s.knownHosts}, "add the public key", gitstate.ErrAuthentication},
		{"no such repository over ssh", "ssh://git@" + s.addr + "/nope.git", gitstate.Auth{KeyFile: s.keyFile, KnownHostsFile: s.knownHosts}, "does not appear to be a git repository", nil},
		{"no such folder", filepath.Join(dir, "nope"), gitstate.Auth{}, "no such file", nil},
		{"not a repository", dir, gitstate.Auth{}, "does not appear to be a git repository", nil},
		{"unsupported protocol", "ftp://ada:wrong-password@example.com/x", gitstate.Auth{}, `"ftp" is not supported`, nil},
		{"no URL", "https://ada:wrong-password@exa mple.com/%zz", gitstate.Auth{}, "the URL", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := gitstate.Open(t.Context(), gitstate.Options{URL: c.url, Dir: filepath.Join(t.TempDir(), "m"), Auth: c.auth})
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("err = %v, want one about %q (%v)", err, c.want, c.is)
			}
			if err != nil && (strings.Contains(err.Error(), "wrong-password") || strings.Contains(err.Error(), "ada:")) {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
	if fp := ssh.FingerprintSHA256(s.hostKey.PublicKey()); fp == "" {
		t.Error("no fingerprint")
	}
}

func TestSecretsStaySecret(t *testing.T) {
	u := newUpstream(t, map[string]string{"a": "1"})
	s := serveHTTP(t, u, false, "ada", "p4ssw0rd!")
	var log strings.Builder
	dir := filepath.Join(t.TempDir(), "m")
	m := open(t, gitstate.Options{URL: strings.Replace(s.url, "://", "://ada:p4ssw0rd%21@", 1), Dir: dir,
		Logger: slog.New(slog.NewTextHandler(&log, nil))})
	hook(t, u, "pre-receive", "echo we know that your password is p4ssw0rd!; exit 1")
	tip, _ := m.Tip()
	_, refused := m.Commit(t.Context(), change(tip, "m", map[string]string{"a": "2"}))
	if refused == nil || !strings.Contains(refused.Error(), "your password is ***") {
		t.Errorf("commit: %v", refused)
	}
	s.CloseClientConnections()
	s.Listener.Close()
	_, err := m.Fetch(t.Context())
	if err == nil {
		t.Fatal("the server is gone")
	}
	err = errors.Join(err, refused)
	config, _ := os.ReadFile(filepath.Join(present(t, dir), "config"))
	for what, text := range map[string]string{"error": err.Error(), "log": log.String(), "config": string(config)} {
		if strings.Contains(text, "p4ssw0rd") || strings.Contains(text, "ada") {
			t.Errorf("the %s tells: %s", what, text)
		}
	}
	for in, want := range map[string]string{
		"https://ada:p%40ss@example.com/x":             "https://example.com/x",
		"ssh://git@example.com:22/x":                   "ssh://example.com:22/x",
		"git@example.com:a/b.git":                      "example.com:a/b.git",
		"/a/path@2":                                    "/a/path@2",
		"dial https://u:p@h/x: and http://v@w: broken": "dial https://h/x: and http://w: broken",
		"https://example.com/a@b":                      "https://example.com/a@b",
	} {
		if got := gitstate.Redact(in); got != want {
			t.Errorf("Redact(%s) = %s, want %s", in, got, want)
		}
	}
}

func TestRemoteDown(t *testing.T) {
	u := newUpstream(t, map[string]string{"a": "1"})
	o := gitstate.Options{URL: u.dir, Dir: filepath.Join(t.TempDir(), "m")}
	m := open(t, o)
	tip, _ := m.Tip()
	m.Close()
	if err := os.Rename(u.dir, u.dir+".away"); err != nil {
		t.Fatal(err)
	}
	m = open(t, o)
	if got, ok := m.Tip(); !ok || got != tip {
		t.Errorf("tip = %q, %v", got, ok)
	}
	if got := read(t, snapshot(t, m, tip), "a"); got != "1" {
		t.Errorf("a = %q", got)
	}
	if got, err := m.Fetch(t.Context()); err == nil || got.Commit != tip {
		t.Errorf("fetch = %+v, %v", got, err)
	}
	if _, err := m.Commit(t.Context(), change(tip, "m", map[string]string{"a": "2"})); err == nil || errors.Is(err, gitstate.ErrMoved) || errors.Is(err, gitstate.ErrUnknown) {
		t.Errorf("commit: %v", err)
	}
	if err := os.Rename(u.dir+".away", u.dir); err != nil {
		t.Fatal(err)
	}
	fetch(t, m)
	if _, err := m.Commit(t.Context(), change(tip, "m", map[string]string{"a": "2"})); err != nil {
		t.Error(err)
	}
	// Nobody listens.
	for _, url := range []string{"http://" + deadAddress(t) + "/x.git", "ssh://git@" + deadAddress(t) + "/x.git"} {
		key := serveSSH(t)
		_, err := gitstate.Open(t.Context(), gitstate.Options{URL: url, Dir: filepath.Join(t.TempDir(), "m"),
			Auth: gitstate.Auth{KeyFile: key.keyFile, KnownHostsFile: key.knownHosts}})
		if err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestRemoteHangs(t *testing.T) {
	u := newUpstream(t, map[string]string{"a": "1"})
	h := serveHTTP(t, u, false, "", "")
	s := serveSSH(t)
	for name, c := range map[string]struct {
		o    gitstate.Options
		hang func()
	}{
		"http": {gitstate.Options{URL: h.url}, func() { h.hang.Store(true) }},
		"ssh":  {gitstate.Options{URL: s.url(u), Auth: gitstate.Auth{KeyFile: s.keyFile, KnownHostsFile: s.knownHosts}}, func() { s.mute.Store(true) }},
		"file": {gitstate.Options{URL: u.dir}, func() { // a fetch that hangs in a program
			u.commit("main", "there is something to fetch", map[string]string{"b": "1"})
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "git"), []byte("#!/bin/sh\nexec tail -f /dev/null\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			path := os.Getenv("PATH")
			defer os.Setenv("PATH", path)
			c.o.Timeout = 300 * time.Millisecond
			m := open(t, c.o)
			tip, _ := m.Tip()
			c.hang()
			if _, err := m.Fetch(soon(t)); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "nothing came for 300ms") {
				t.Errorf("fetch: %v", err)
			}
			if _, err := m.Commit(soon(t), change(tip, "m", map[string]string{"a": "2"})); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("commit: %v", err)
			}
			// Readers are not held up, and the caller's own end counts.
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := m.Fetch(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("a cancelled fetch: %v", err)
			}
			if got := read(t, snapshot(t, m, tip), "a"); got != "1" {
				t.Errorf("a = %q", got)
			}
		})
	}
}

func TestReplyLost(t *testing.T) {
	for _, kind := range []string{"http", "ssh"} {
		t.Run(kind, func(t *testing.T) {
			u := newUpstream(t, map[string]string{"a": "1"})
			h, s := serveHTTP(t, u, false, "", ""), serveSSH(t)
			o := gitstate.Options{URL: h.url}
			if kind == "ssh" {
				o = gitstate.Options{URL: s.url(u), Auth: gitstate.Auth{KeyFile: s.keyFile, KnownHostsFile: s.knownHosts}}
			}
			m := open(t, o)
			tip, _ := m.Tip()

			// It was applied.
			h.cut.Store(true)
			s.cut.Store(true)
			id, err := m.Commit(t.Context(), change(tip, "one", map[string]string{"a": "2"}))
			if err != nil || u.tip("main") != id {
				t.Fatalf("commit = %q, %v; the remote is at %s", id, err, u.tip("main"))
			}
			if at, _ := m.Tip(); at != id {
				t.Errorf("our tip is %s", at)
			}
			if kind == "ssh" {
				return
			}

			// It was applied, and somebody went on from it.
			hook(t, u, "post-receive", `read old new ref
tree=$(git rev-parse $new^{tree})
next=$(GIT_AUTHOR_NAME=p GIT_AUTHOR_EMAIL=p@example.com GIT_COMMITTER_NAME=p GIT_COMMITTER_EMAIL=p@example.com git commit-tree -p $new -m further $tree)
git update-ref $ref $next`)
			h.cut.Store(true)
			id2, err := m.Commit(t.Context(), change(id, "two", map[string]string{"a": "3"}))
			if err != nil || git(t, u.dir, "rev-parse", "main^") != id2 {
				t.Fatalf("commit = %q, %v", id2, err)
			}
			further := u.tip("main")
			if at, _ := m.Tip(); at != further {
				t.Errorf("our tip is %s, the remote's %s", at, further)
			}
			hook(t, u, "post-receive", "true")

			// It never arrived.
			h.drop.Store(true)
			if id, err := m.Commit(t.Context(), change(further, "three", map[string]string{"a": "4"})); !errors.Is(err, gitstate.ErrUnknown) || errors.Is(err, gitstate.ErrMoved) {
				t.Errorf("commit = %q, %v", id, err)
			}
			if u.tip("main") != further {
				t.Error("it did arrive")
			}

			// It was refused for another commit, and the refusal was lost.
			faster := `unset GIT_QUARANTINE_PATH
tree=$(git rev-parse main^{tree})
next=$(env -u GIT_OBJECT_DIRECTORY -u GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_AUTHOR_NAME=p GIT_AUTHOR_EMAIL=p@example.com GIT_COMMITTER_NAME=p GIT_COMMITTER_EMAIL=p@example.com git commit-tree -p main -m faster $tree)
git update-ref refs/heads/main $next`
			hook(t, u, "pre-receive", faster)
			h.cut.Store(true)
			if id, err := m.Commit(t.Context(), change(further, "four", map[string]string{"a": "5"})); !errors.Is(err, gitstate.ErrMoved) {
				t.Errorf("commit = %q, %v", id, err)
			}
			os.Remove(filepath.Join(u.dir, "hooks", "pre-receive"))

			// The same, and the refusal is heard.
			further = fetch(t, m).Commit
			hook(t, u, "pre-receive", faster+"\nexit 1")
			if id, err := m.Commit(t.Context(), change(further, "four", map[string]string{"a": "5"})); !errors.Is(err, gitstate.ErrMoved) {
				t.Errorf("commit = %q, %v", id, err)
			}
			os.Remove(filepath.Join(u.dir, "hooks", "pre-receive"))

			// The remote is gone when it would be asked.
			tip = fetch(t, m).Commit
			h.cut.Store(true)
			hook(t, u, "post-receive", "mv '"+u.dir+"' '"+u.dir+".away'")
			if id, err := m.Commit(t.Context(), change(tip, "five", map[string]string{"a": "6"})); !errors.Is(err, gitstate.ErrUnknown) {
				t.Errorf("commit = %q, %v", id, err)
			}
			if err := os.Rename(u.dir+".away", u.dir); err != nil {
				t.Fatal(err)
			}
			if after := fetch(t, m); after.Previous != tip || git(t, u.dir, "log", "-1", "--format=%s", after.Commit) != "five" {
				t.Errorf("fetch = %+v", after)
			}
			u.fsck()
		})
	}
}

// What a branch had before it was rewritten stays readable for whoever holds
// a snapshot of it, also when the mirror is cloned anew.
func TestSnapshotOfWhatWasRewritten(t *testing.T) {
	for _, order := range []string{"rewritten, then tidied", "tidied and rewritten at once"} {
		t.Run(order, func(t *testing.T) {
			u := newUpstream(t, map[string]string{"a": "1"})
			base := u.tip("main")
			tip := u.commit("main", "Two", map[string]string{"a": "2"})
			o := gitstate.Options{URL: u.dir, Dir: filepath.Join(t.TempDir(), "m"), AllowRewrite: true, MaxPacks: 2}
			m := open(t, o)
			s := snapshot(t, m, tip)
			first := present(t, o.Dir)
			git(t, u.dir, "update-ref", "refs/heads/main", base)
			git(t, u.dir, "reflog", "expire", "--expire=now", "--all")
			git(t, u.dir, "gc", "--quiet", "--prune=now")
			u.commit("main", "Instead", map[string]string{"a": "3"})
			if order == "rewritten, then tidied" {
				fetch(t, m)
				u.commit("main", "More", map[string]string{"b": "x", "c/d": "y", "e/f/g": "z"})
			} else {
				write(t, filepath.Join(present(t, o.Dir), "refs/heads/main"), nil)
				must(t, os.RemoveAll(filepath.Join(present(t, o.Dir), "refs")))
			}
			for ctx := soon(t); present(t, o.Dir) == first; {
				if _, err := m.Fetch(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if got := read(t, s, "a"); got != "2" {
				t.Errorf("a = %q", got)
			}
		})
	}
}

func TestBranchRewritten(t *testing.T) {
	u := newUpstream(t, map[string]string{"a": "1"})
	base := u.tip("main")
	tip := u.commit("main", "Two", map[string]string{"a": "2"})
	ledger := u.commit("ledger/dev", "start", map[string]string{"s": "1"})
	o := gitstate.Options{URL: u.dir, Dir: filepath.Join(t.TempDir(), "m")}
	m := open(t, o)
	git(t, u.dir, "update-ref", "refs/heads/main", base)
	forced := u.commit("main", "Instead", map[string]string{"a": "3"})
	_, err := m.Fetch(t.Context())
	var rewritten *gitstate.RewrittenError
	if !errors.As(err, &rewritten) || !errors.Is(err, gitstate.ErrRewritten) || *rewritten != (gitstate.RewrittenError{Branch: "main", Old: tip, New: forced}) {
		t.Fatalf("fetch: %v", err)
	}
	if at, _ := m.Tip(); at != tip {
		t.Errorf("the tip has moved to %s", at)
	}
	// A commit on the old tip does not get through either.
	if _, err := m.Commit(t.Context(), change(tip, "m", map[string]string{"b": "1"})); !errors.Is(err, gitstate.ErrMoved) {
		t.Errorf("commit: %v", err)
	}
	// Deleting is rewriting, too; and a ledger's trouble is not main's.
	git(t, u.dir, "update-ref", "refs/heads/main", tip)
	next := u.commit("main", "Three", map[string]string{"a": "4"})
	git(t, u.dir, "update-ref", "-d", "refs/heads/ledger/dev")
	got, err := m.Fetch(t.Context())
	if !errors.As(err, &rewritten) || rewritten.Branch != "ledger/dev" || rewritten.Old != ledger || rewritten.New != "" {
		t.Errorf("fetch: %v", err)
	}
	if got.Commit != next || got.Previous != tip {
		t.Errorf("fetch = %+v", got)
	}
	git(t, u.dir, "update-ref", "refs/heads/main", forced)
	m.Close()

	o.AllowRewrite = true
	m = open(t, o)
	old := snapshot(t, m, tip)
	if got := fetch(t, m); got != (gitstate.Tip{Commit: forced, Previous: next, Rewritten: true}) {
		t.Errorf("fetch = %+v", got)
	}
	if _, ok := m.Branch("ledger/dev"); ok {
		t.Error("the ledger is still there")
	}
	if read(t, old, "a") != "2" || read(t, snapshot(t, m, forced), "a") != "3" {
		t.Error("the snapshots are wrong")
	}
}

// A branch that is set back to an older commit brings nothing new, and was rewritten
// all the same, whether or not the remote is told that we have that commit.
func TestBranchSetBack(t *testing.T) {
	key := serveSSH(t)
	for name, at := range map[string]func(*upstream) gitstate.Options{
		"file": func(u *upstream) gitstate.Options { return gitstate.Options{URL: u.dir} },
		"http": func(u *upstream) gitstate.Options { return gitstate.Options{URL: serveHTTP(t, u, false, "", "").url} },
		"ssh": func(u *upstream) gitstate.Options {
			return gitstate.Options{URL: key.url(u), Auth: gitstate.Auth{KeyFile: key.keyFile, KnownHostsFile: key.knownHosts}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUpstream(t, map[string]string{"a": "0"})
			ids := []string{u.tip("main")} // the newest first
			for _, a := range []string{"1", "2", "3", "4"} {
				ids = append([]string{u.commit("main", a, map[string]string{"a": a})}, ids...)
			}
			ledger := u.commit("ledger/dev", "start", map[string]string{"s": "0"})
			entry := u.commit("ledger/dev", "entry", map[string]string{"s": "1"})
			o := at(u)
			o.Dir = filepath.Join(t.TempDir(), "m")
			m := open(t, o)
			for back := 1; back < len(ids); back++ {
				git(t, u.dir, "update-ref", "refs/heads/main", ids[back])
				_, err := m.Fetch(t.Context())
				var rewritten *gitstate.RewrittenError
				if !errors.As(err, &rewritten) || *rewritten != (gitstate.RewrittenError{Branch: "main", Old: ids[0], New: ids[back]}) {
					t.Errorf("main went back by %d: %v", back, err)
				}
			}
			// Another branch that has moved comes all the same.
			next := u.commit("ledger/dev", "another", map[string]string{"s": "2"})
			if _, err := m.Fetch(t.Context()); !errors.Is(err, gitstate.ErrRewritten) {
				t.Errorf("fetch: %v", err)
			}
			if got, _ := m.Branch("ledger/dev"); got != next {
				t.Errorf("the ledger is at %s, not %s", got, next)
			}
			git(t, u.dir, "update-ref", "refs/heads/ledger/dev", entry)
			git(t, u.dir, "update-ref", "refs/heads/main", ids[0])
			var rewritten *gitstate.RewrittenError
			if _, err := m.Fetch(t.Context()); !errors.As(err, &rewritten) || rewritten.Branch != "ledger/dev" {
				t.Errorf("the ledger went back: %v", err)
			}
			git(t, u.dir, "update-ref", "refs/heads/ledger/dev", next)
			if got := fetch(t, m); got.Commit != ids[0] {
				t.Errorf("fetch = %+v", got)
			}
			m.Close()

			o.AllowRewrite = true
			m = open(t, o)
			git(t, u.dir, "update-ref", "refs/heads/main", ids[1])
			git(t, u.dir, "update-ref", "refs/heads/ledger/dev", ledger)
			if got := fetch(t, m); got != (gitstate.Tip{Commit: ids[1], Previous: ids[0], Rewritten: true}) {
				t.Errorf("fetch = %+v", got)
			}
			if got := read(t, snapshot(t, m, ids[1]), "a"); got != "3" {
				t.Errorf("a = %q", got)
			}
			fsck(t, present(t, o.Dir))
		})
	}
}

// That nothing has come to a repository on this machine is seen without the git
// program, and that something has is not overlooked, however its references are kept.
func TestNothingToFetch(t *testing.T) {
	u := newUpstream(t, map[string]string{"a": "1"})
	u.commit(gitstate.LedgerPrefix+"dev", "an entry", map[string]string{"a": "1"})
	m := open(t, gitstate.Options{URL: u.dir})
	dir := t.TempDir()
	calls := filepath.Join(dir, "calls")
	real, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "git"), []byte("#!/bin/sh\necho \"$1\" >>"+calls+"\nexec "+real+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	before := os.Getenv("PATH")
	counted := func() (fetches int) {
		t.Setenv("PATH", dir+":"+before)
		fetch(t, m)
		t.Setenv("PATH", before)
		data, _ := os.ReadFile(calls)
		os.Remove(calls)
		return strings.Count(string(data), "upload-pack\n")
	}
	if n := counted(); n != 0 {
		t.Errorf("%d fetches of nothing", n)
	}
	for _, c := range []struct {
		name string
		do   func()
	}{
		{"main", func() { u.commit("main", "2", map[string]string{"a": "2"}) }},
		{"packed", func() {
			u.commit("main", "3", map[string]string{"a": "3"})
			git(t, u.dir, "pack-refs", "--all")
		}},
		{"a new ledger", func() { u.commit(gitstate.LedgerPrefix+"staging", "an entry", map[string]string{"a": "1"}) }},
	} {
		c.do()
		if n := counted(); n != 1 {
			t.Errorf("%s: %d fetches", c.name, n)
		}
		for _, branch := range []string{"main", gitstate.LedgerPrefix + "dev", gitstate.LedgerPrefix + "staging"} {
			if at, _ := m.Branch(branch); u.has(branch) && at != u.tip(branch) {
				t.Errorf("%s: %s is at %s", c.name, branch, at)
			}
		}
		if n := counted(); n != 0 {
			t.Errorf("%s: %d fetches behind it", c.name, n)
		}
	}
	// One that is gone is not nothing.
	git(t, u.dir, "update-ref", "-d", "refs/heads/"+gitstate.LedgerPrefix+"staging")
	if _, err := m.Fetch(t.Context()); !errors.Is(err, gitstate.ErrRewritten) {
		t.Errorf("a ledger that is gone: %v", err)
	}
}
