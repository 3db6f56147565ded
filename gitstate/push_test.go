package gitstate_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pinion-cd/pinion/gitstate"
)

var robot = gitstate.Signature{Name: "Pinion", Email: "pinion@example.com", Time: time.Date(2026, 5, 1, 12, 30, 0, 0, time.FixedZone("", 7200))}

func change(expected, message string, files map[string]string) gitstate.Change {
	c := gitstate.Change{Expected: expected, Message: message, Author: robot, Committer: robot, Files: map[string][]byte{}}
	for name, text := range files {
		if text == "<gone>" {
			c.Files[name] = nil
		} else {
			c.Files[name] = []byte(text)
		}
	}
	return c
}

func TestCommit(t *testing.T) {
	u := newUpstream(t, map[string]string{"a.txt": "a\n", "a/b/c.txt": "c\n", "a/run": "<exec>#!/bin/sh\n", "a-b": "x", "gone/only": "x", "link": "<link>a.txt"})
	dir := filepath.Join(t.TempDir(), "mirror")
	m := open(t, gitstate.Options{URL: u.dir, Dir: dir})
	first, _ := m.Tip()
	id, err := m.Commit(t.Context(), change(first, "promote: web\n\nBecause.\n\nPinion-Event: promoted", map[string]string{
		"a/b/c.txt": "C\n", "a/new/deep/file": "", "a/run": "#!/bin/bash\n", "gone/only": "<gone>", "never/was": "<gone>", "a.0": "0"}))
	if err != nil {
		t.Fatal(err)
	}
	if tip, _ := m.Tip(); tip != id || u.tip("main") != id {
		t.Errorf("commit %s; our tip %s, the remote's %s", id, tip, u.tip("main"))
	}
	got := git(t, u.dir, "ls-tree", "-r", "--format=%(objectmode) %(path)", "main")
	if d := cmp.Diff(strings.Join([]string{"100644 a-b", "100644 a.0", "100644 a.txt", "100644 a/b/c.txt", "100644 a/new/deep/file", "100755 a/run", "120000 link"}, "\n"), got); d != "" {
		t.Error(d)
	}
	if got := git(t, u.dir, "log", "-1", "--format=%an <%ae> %aI %cn %cI %P|%B"); got != "Pinion <pinion@example.com> 2026-05-01T12:30:00+02:00 Pinion 2026-05-01T12:30:00+02:00 "+first+"|promote: web\n\nBecause.\n\nPinion-Event: promoted" {
		t.Errorf("the commit is %q", got)
	}
	info, err := m.Info(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if info.Parents[0] != first || info.Message != "promote: web\n\nBecause.\n\nPinion-Event: promoted\n" || !info.Author.Time.Equal(robot.Time) {
		t.Errorf("info = %+v", info)
	}
	if got := read(t, snapshot(t, m, id), "a/b/c.txt"); got != "C\n" {
		t.Errorf("c.txt = %q", got)
	}
	if tip := fetch(t, m); tip.Commit != id {
		t.Errorf("fetch after commit = %+v", tip)
	}
	u.fsck()
	fsck(t, present(t, dir))
}

func TestCommitRefusesBadChanges(t *testing.T) {
	u := newUpstream(t, map[string]string{"a": "1", "d/e": "1", "link": "<link>a"})
	m := open(t, gitstate.Options{URL: u.dir})
	tip, _ := m.Tip()
	for name, c := range map[string]gitstate.Change{
		"nothing to commit":             change(tip, "m", map[string]string{"a": "1"}),
		"nothing to commit ":            change(tip, "m", map[string]string{"b": "<gone>"}),
		"is not the name of a file":     change(tip, "m", map[string]string{"../x": "1"}),
		"is git's own folder":           change(tip, "m", map[string]string{"d/.GIT/config": "1"}),
		"has a backslash":               change(tip, "m", map[string]string{`d\e`: "1"}),
		"is a folder, not a file":       change(tip, "m", map[string]string{"d": "1"}),
		"is a file, not a folder":       change(tip, "m", map[string]string{"a/b": "1"}),
		"is a symbolic link, not a fil": change(tip, "m", map[string]string{"link": "1"}),
		"needs a message":               change(tip, " \n", map[string]string{"a": "2"}),
		"no such commit":                change(strings.Repeat("ab", 20), "m", map[string]string{"a": "2"}),
		"needs a time":                  {Expected: tip, Message: "m", AllowEmpty: true, Author: gitstate.Signature{Name: "x", Email: "y"}, Committer: robot},
		"can't be a name":               {Expected: tip, Message: "m", AllowEmpty: true, Author: gitstate.Signature{Name: "x <", Email: "y", Time: robot.Time}, Committer: robot},
		"not a name for a branch":       {Branch: "../x", Expected: tip, Message: "m", AllowEmpty: true, Author: robot, Committer: robot},
	} {
		_, err := m.Commit(t.Context(), c)
		if err == nil || !strings.Contains(err.Error(), strings.TrimSpace(name)) {
			t.Errorf("want an error about %q, got %v", name, err)
		}
	}
	if u.tip("main") != tip {
		t.Error("the remote has moved")
	}
	c := change(tip, "empty", nil)
	c.AllowEmpty = true
	c.Sign = func(b []byte) (string, error) {
		return fmt.Sprintf("-----BEGIN SSH SIGNATURE-----\n%d\n-----END SSH SIGNATURE-----\n", len(b)), nil
	}
	id, err := m.Commit(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if raw := git(t, u.dir, "cat-file", "commit", id); !strings.Contains(raw, "\ngpgsig -----BEGIN SSH SIGNATURE-----\n ") {
		t.Errorf("the commit is %q", raw)
	}
	u.fsck()
}

func TestCommitMoved(t *testing.T) {
	u := newUpstream(t, map[string]string{"a": "1"})
	m := open(t, gitstate.Options{URL: u.dir})
	tip, _ := m.Tip()
	other := u.commit("main", "A person was faster", map[string]string{"b": "2"})
	_, err := m.Commit(t.Context(), change(tip, "late", map[string]string{"a": "3"}))
	var moved *gitstate.MovedError
	if !errors.Is(err, gitstate.ErrMoved) || !errors.As(err, &moved) || moved.Actual != other || moved.Expected != tip {
		t.Fatalf("err = %v", err)
	}
	// A branch that must not exist yet.
	c := change("", "first", map[string]string{"web/deployment.yaml": "x"})
	c.Branch = "ledger/dev"
	id, err := m.Commit(t.Context(), c)
	if err != nil || u.tip("ledger/dev") != id {
		t.Fatalf("commit to a new branch = %s, %v", id, err)
	}
	if at, _ := m.Branch("ledger/dev"); at != id {
		t.Errorf("our ledger/dev is at %q", at)
	}
	if _, err := m.Commit(t.Context(), c); !errors.Is(err, gitstate.ErrMoved) {
		t.Errorf("a second first commit: %v", err)
	}
	u.fsck()
}

func TestEmptyRemote(t *testing.T) {
	for _, kind := range []string{"file", "http", "ssh"} {
		t.Run(kind, func(t *testing.T) {
			u := newUpstream(t, nil)
			o := gitstate.Options{URL: u.dir}
			switch kind {
			case "http":
				o.URL = serveHTTP(t, u, false, "", "").url
			case "ssh":
				s := serveSSH(t)
				o.URL, o.Auth = s.url(u), gitstate.Auth{KeyFile: s.keyFile, KnownHostsFile: s.knownHosts}
			}
			m := open(t, o)
			if tip, ok := m.Tip(); ok {
				t.Errorf("tip = %s", tip)
			}
			if _, err := m.Fetch(t.Context()); !errors.Is(err, gitstate.ErrNoBranch) {
				t.Errorf("fetch: %v", err)
			}
			id, err := m.Commit(t.Context(), change("", "init", map[string]string{"a": "1"}))
			if err != nil {
				t.Fatal(err)
			}
			if tip := fetch(t, m); tip.Commit != id || u.tip("main") != id {
				t.Errorf("fetch = %+v", tip)
			}
			u.fsck()
		})
	}
}

func TestPushSeveral(t *testing.T) {
	u := newUpstream(t, map[string]string{"a": "1"})
	u.commit("ledger/dev", "start", map[string]string{"s": "1"})
	m := open(t, gitstate.Options{URL: u.dir})
	on := func(branch, expected string) gitstate.Change {
		c := change(expected, "entry", map[string]string{"new": branch + expected})
		c.Branch = branch
		return c
	}
	dev, _ := m.Branch("ledger/dev")
	tip, _ := m.Tip()
	ids, err := m.Push(t.Context(), []gitstate.Change{on("ledger/dev", dev), on("main", tip), on("ledger/new", "")})
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range []string{"ledger/dev", "main", "ledger/new"} {
		if u.tip(b) != ids[i] {
			t.Errorf("%s is at %s, not %s", b, u.tip(b), ids[i])
		}
	}
	// One has moved: none is written.
	moved := u.commit("ledger/dev", "other", map[string]string{"s": "2"})
	ids, err = m.Push(t.Context(), []gitstate.Change{on("ledger/dev", ids[0]), on("ledger/prod", "")})
	if !errors.Is(err, gitstate.ErrMoved) || ids[0] != "" || ids[1] != "" {
		t.Errorf("push = %v, %v", ids, err)
	}
	if u.has("ledger/prod") || u.tip("ledger/dev") != moved {
		t.Error("something was written")
	}
	// One is refused by a hook: none is written.
	hook(t, u, "update", `[ "$1" = refs/heads/ledger/prod ] && echo "no prod today" && exit 1; exit 0`)
	ids, err = m.Push(t.Context(), []gitstate.Change{on("main", u.tip("main")), on("ledger/prod", "")})
	if !errors.Is(err, gitstate.ErrRefused) || ids[0] != "" || u.has("ledger/prod") {
		t.Errorf("push = %v, %v", ids, err)
	}
	if err == nil || !strings.Contains(err.Error(), "no prod today") || !strings.Contains(err.Error(), "push main: not done") {
		t.Errorf("the error is %v", err)
	}
	u.fsck()
}

func hook(t testing.TB, u *upstream, name, script string) {
	t.Helper()
	os.MkdirAll(filepath.Join(u.dir, "hooks"), 0o755)
	if err := os.WriteFile(filepath.Join(u.dir, "hooks", name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

// Eight writers append to one branch; each takes up the tip again when it was
// too late.
func TestRacingWriters(t *testing.T) {
	const writers, each = 8, 4
	u := newUpstream(t, map[string]string{"a": "1"})
	s := serveHTTP(t, u, false, "", "")
	var wg sync.WaitGroup
	for w := range writers {
		o := gitstate.Options{URL: u.dir, Dir: filepath.Join(t.TempDir(), "mirror")}
		if w%2 == 1 {
			o.URL = s.url
		}
		m := open(t, o)
		wg.Go(func() {
			for n := 0; n < each; {
				tip, err := m.Fetch(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				_, err = m.Commit(t.Context(), change(tip.Commit, fmt.Sprintf("writer %d: %d", w, n), map[string]string{fmt.Sprintf("w/%d", w): fmt.Sprint(n)}))
				switch {
				case err == nil:
					n++
				case !errors.Is(err, gitstate.ErrMoved):
					t.Errorf("writer %d: %v", w, err)
					return
				}
			}
		})
	}
	wg.Wait()
	subjects := strings.Split(git(t, u.dir, "log", "--first-parent", "--format=%s", "main"), "\n")
	count := map[string]int{}
	for _, s := range subjects {
		count[s]++
	}
	for w := range writers {
		for n := range each {
			if c := count[fmt.Sprintf("writer %d: %d", w, n)]; c != 1 {
				t.Errorf("writer %d: %d is there %d times", w, n, c)
			}
		}
	}
	if len(subjects) != writers*each+1 {
		t.Errorf("there are %d commits", len(subjects))
	}
	u.fsck()
}

func TestPushRefusedByHook(t *testing.T) {
	for _, kind := range []string{"file", "http", "ssh"} {
		t.Run(kind, func(t *testing.T) {
			u := newUpstream(t, map[string]string{"a": "1"})
			hook(t, u, "pre-receive", `printf 'error:\nerror: ask the release managers\nerror:\n' >&2; exit 1`)
			o := gitstate.Options{URL: u.dir}
			switch kind {
			case "http":
				o.URL = serveHTTP(t, u, false, "", "").url
			case "ssh":
				s := serveSSH(t)
				o.URL, o.Auth = s.url(u), gitstate.Auth{KeyFile: s.keyFile, KnownHostsFile: s.knownHosts}
			}
			m := open(t, o)
			tip, _ := m.Tip()
			_, err := m.Commit(t.Context(), change(tip, "m", map[string]string{"a": "2"}))
			if !errors.Is(err, gitstate.ErrRefused) || errors.Is(err, gitstate.ErrMoved) || !strings.HasSuffix(err.Error(), "declined: error: ask the release managers") {
				t.Errorf("err = %v", err)
			}
			if after, _ := m.Tip(); after != tip || u.tip("main") != tip {
				t.Error("the tip has moved")
			}
		})
	}
}

// Who pushes may give up while git holds the locks of a branch: git lets go of them,
// and the branch can be moved again.
func TestPushIsGivenUp(t *testing.T) {
	u := newUpstream(t, map[string]string{"a": "1"})
	held, on := filepath.Join(t.TempDir(), "held"), filepath.Join(t.TempDir(), "on")
	hook(t, u, "reference-transaction", fmt.Sprintf(`[ "$1" = prepared ] || exit 0; : > %s; n=0; until [ -e %s ] || [ $((n += 1)) = 600 ]; do sleep 0.05; done`, held, on))
	m := open(t, gitstate.Options{URL: u.dir})
	tip, _ := m.Tip()
	ctx, cancel := context.WithCancel(t.Context())
	pushed := make(chan error, 1)
	go func() {
		_, err := m.Commit(ctx, change(tip, "given up", map[string]string{"a": "2"}))
		pushed <- err
	}()
	wait := func(what string, so func() bool) {
		t.Helper()
		ctx, tick := soon(t), time.NewTicker(10*time.Millisecond)
		defer tick.Stop()
		for !so() {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("%s: not so after a while", what)
			}
		}
	}
	wait("git holds the locks", func() bool { _, err := os.Stat(held); return err == nil })
	cancel()
	if err := <-pushed; err == nil {
		t.Fatal("what was given up is said to be done")
	}
	if err := os.WriteFile(on, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	wait("the branch can be moved", func() bool {
		s, err := m.Fetch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err = m.Commit(t.Context(), change(s.Commit, "after it", map[string]string{"b": "1"}))
		if err != nil && !errors.Is(err, gitstate.ErrMoved) {
			t.Fatal(err)
		}
		return err == nil
	})
	u.fsck()
}

// A push that its guard refuses is not sent: no branch of it moves.
func TestPushIsGuarded(t *testing.T) {
	u := newUpstream(t, map[string]string{"a.txt": "a\n"})
	m := open(t, gitstate.Options{URL: u.dir, Dir: filepath.Join(t.TempDir(), "mirror")})
	first, _ := m.Tip()
	over := errors.New("the lease is lost")
	ledger := change("", "pinned(dev): web", map[string]string{"web": "1"})
	ledger.Branch = "ledger/dev"
	guarded := change(first, "promote: web", map[string]string{"a.txt": "b\n"})
	guarded.Guard = func() error { return over }
	if ids, err := m.Push(t.Context(), []gitstate.Change{ledger, guarded}); !errors.Is(err, over) || ids[0] != "" || ids[1] != "" {
		t.Errorf("the push came to %v, %v", ids, err)
	}
	if got := m.Pushes(); got != 0 {
		t.Errorf("%d requests were sent", got)
	}
	if u.tip("main") != first {
		t.Error("main has moved")
	}
	guarded.Guard = func() error { return nil }
	if _, err := m.Push(t.Context(), []gitstate.Change{ledger, guarded}); err != nil || u.tip("main") == first {
		t.Errorf("a push that its guard allows: %v", err)
	}
}
