package gitstate_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pinion-cd/pinion/gitstate"
)

func openClone(t testing.TB, dir string) *gitstate.Clone {
	t.Helper()
	c, err := gitstate.OpenClone(dir)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestClone(t *testing.T) {
	u := newUpstream(t, map[string]string{"services/web/main.jsonnet": "1"})
	first := u.tip("main")
	second := u.commit("main", "two", map[string]string{"services/web/main.jsonnet": "2"})
	git(t, u.dir, "tag", "-m", "the first", "v1", first)
	git(t, u.dir, "tag", "light", first)
	dir := filepath.Join(t.TempDir(), "clone")
	git(t, "", "clone", "--quiet", u.dir, dir)
	git(t, dir, "checkout", "--quiet", "-b", "topic", "--track", "origin/main")
	write(t, filepath.Join(dir, "new"), []byte("x"))
	git(t, dir, "add", "new")
	git(t, dir, "commit", "--quiet", "-m", "mine")
	mine := git(t, dir, "rev-parse", "HEAD")
	tree := filepath.Join(t.TempDir(), "tree")
	git(t, dir, "worktree", "add", "--quiet", tree, "main")

	c := openClone(t, filepath.Join(dir, "services", "web"))
	if c.Root() != dir {
		t.Errorf("root = %s, want %s", c.Root(), dir)
	}
	if url, err := c.RemoteURL(); err != nil || url != u.dir {
		t.Errorf("remote = %s, %v", url, err)
	}
	for rev, want := range map[string]string{"": mine, "HEAD": mine, "topic": mine, "HEAD~1": second, "main": second, "origin/main": second, "origin": second,
		"v1": first, "tags/v1": first, "refs/tags/v1": first, "light": first, "v1~0": first, mine[:5]: mine, "refs/heads/main": second} {
		if got, err := c.Resolve(t.Context(), rev); err != nil || got != want {
			t.Errorf("Resolve(%q) = %s, %v; want %s", rev, got, err, want)
		}
	}
	for _, rev := range []string{"nope", "../config", "HEAD^2", "config", "objects"} {
		if got, err := c.Resolve(t.Context(), rev); !errors.Is(err, gitstate.ErrNoCommit) {
			t.Errorf("Resolve(%q) = %s, %v", rev, got, err)
		}
	}
	s, err := c.Snapshot(t.Context(), "v1")
	must(t, err)
	if got := read(t, s, "services/web/main.jsonnet"); got != "1" {
		t.Errorf("main.jsonnet = %q", got)
	}
	if ok, err := c.IsAncestor(t.Context(), first, mine); !ok || err != nil {
		t.Errorf("IsAncestor = %v, %v", ok, err)
	}
	var subjects []string
	must(t, c.History(t.Context(), mine, func(i gitstate.CommitInfo) bool {
		subjects = append(subjects, i.Message)
		return len(subjects) < 2
	}))
	if d := cmp.Diff([]string{"mine\n", "two"}, subjects); d != "" {
		t.Error(d)
	}

	// What others do to it meanwhile.
	write(t, filepath.Join(dir, "new"), []byte("y"))
	git(t, dir, "commit", "--quiet", "-am", "again")
	git(t, dir, "gc", "--quiet", "--prune=now")
	id, err := c.Resolve(t.Context(), "HEAD")
	if err != nil || id != git(t, dir, "rev-parse", "HEAD") {
		t.Errorf("HEAD = %s, %v", id, err)
	}
	s, err = c.Snapshot(t.Context(), "HEAD")
	must(t, err)
	if got := read(t, s, "new"); got != "y" {
		t.Errorf("new = %q", got)
	}

	// A worktree of the same, and the bare repository.
	w := openClone(t, tree)
	if got, err := w.Resolve(t.Context(), "HEAD"); err != nil || got != second || w.Root() != tree {
		t.Errorf("the worktree's HEAD = %s, %v; root %s", got, err, w.Root())
	}
	if got, err := w.Resolve(t.Context(), "topic"); err != nil || got != id {
		t.Errorf("topic = %s, %v", got, err)
	}
	b := openClone(t, filepath.Join(u.dir, "refs"))
	if got, err := b.Resolve(t.Context(), "HEAD"); err != nil || got != second || b.Root() != "" {
		t.Errorf("the bare HEAD = %s, %v; root %q", got, err, b.Root())
	}
	if url, err := b.RemoteURL(); url != "" || err != nil {
		t.Errorf("remote = %q, %v", url, err)
	}

	// One that borrows its objects.
	shared := filepath.Join(t.TempDir(), "shared")
	git(t, "", "clone", "--quiet", "--shared", u.dir, shared)
	s, err = openClone(t, shared).Snapshot(t.Context(), "HEAD")
	must(t, err)
	if got := read(t, s, "services/web/main.jsonnet"); got != "2" {
		t.Errorf("main.jsonnet = %q", got)
	}
}

func TestShallowClone(t *testing.T) {
	u := newUpstream(t, map[string]string{"a": "1"})
	first := u.tip("main")
	for range 5 {
		u.commit("main", "more", map[string]string{"a": "2"})
	}
	dir := filepath.Join(t.TempDir(), "clone")
	git(t, "", "clone", "--quiet", "--depth=3", "file://"+u.dir, dir)
	c := openClone(t, dir)
	tip, err := c.Resolve(t.Context(), "HEAD")
	must(t, err)
	n := 0
	if err := c.History(t.Context(), tip, func(gitstate.CommitInfo) bool { n++; return true }); !errors.Is(err, gitstate.ErrShallow) || n != 3 {
		t.Errorf("history: %d commits, %v", n, err)
	}
	if _, err := c.IsAncestor(t.Context(), first, tip); !errors.Is(err, gitstate.ErrNoCommit) {
		t.Errorf("a commit that was cut off: %v", err)
	}
	near, err := c.Resolve(t.Context(), "HEAD~2")
	must(t, err)
	if ok, err := c.IsAncestor(t.Context(), near, tip); !ok || err != nil {
		t.Errorf("IsAncestor = %v, %v", ok, err)
	}
	if _, err := c.IsAncestor(t.Context(), tip, near); !errors.Is(err, gitstate.ErrShallow) {
		t.Errorf("it can't know: %v", err)
	}
	if _, err := c.Resolve(t.Context(), "HEAD~3"); !errors.Is(err, gitstate.ErrShallow) {
		t.Errorf("HEAD~3: %v", err)
	}
}

func TestNoClone(t *testing.T) {
	if _, err := gitstate.OpenClone(t.TempDir()); err == nil {
		t.Error("there is no repository")
	}
	if _, err := gitstate.OpenClone(filepath.Join(t.TempDir(), "nope")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such folder: %v", err)
	}
	sha256 := filepath.Join(t.TempDir(), "sha256")
	git(t, "", "init", "--quiet", "--object-format=sha256", sha256)
	if _, err := gitstate.OpenClone(sha256); err == nil {
		t.Error("sha256 is not supported")
	} else {
		t.Log(err)
	}
}

func TestLedgersOfAClone(t *testing.T) {
	u := newUpstream(t, map[string]string{"a": "1"})
	first := u.tip("main")
	dev, staging := u.commit("ledger/dev", "one", map[string]string{"x": "1"}), u.commit("ledger/staging", "two", map[string]string{"x": "2"})
	want := map[string]string{"ledger/dev": dev, "ledger/staging": staging}
	check := func(dir string, want map[string]string) *gitstate.Clone {
		t.Helper()
		c := openClone(t, dir)
		got, err := c.Ledgers()
		must(t, err)
		if len(want) == 0 && len(got) == 0 {
			return c
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("ledgers of %s: %s", filepath.Base(dir), d)
		}
		return c
	}
	published := func(c *gitstate.Clone, branch, name, id string) {
		t.Helper()
		if gotName, got, err := c.Published(branch); err != nil || gotName != name || got != id {
			t.Errorf("published %q = %s %s, %v; want %s %s", branch, gotName, got, err, name, id)
		}
	}

	// A bare repository has its own.
	bare := check(u.dir, want)
	published(bare, "", "", "")
	if !bare.Fetched().IsZero() || bare.Fetches("ledger/any") || bare.Shallow() {
		t.Error("nobody fetches into it")
	}

	// A clone has the remote's, packed, loose, and both.
	dir := filepath.Join(t.TempDir(), "clone")
	git(t, "", "clone", "--quiet", u.dir, dir)
	c := check(dir, want)
	published(c, "", "origin/main", first)
	if c.Fetched().IsZero() || !c.Fetches("ledger/any") {
		t.Error("it was cloned")
	}
	git(t, dir, "pack-refs", "--all")
	check(dir, want)
	want["ledger/dev"] = u.commit("ledger/dev", "three", map[string]string{"x": "3"})
	git(t, dir, "fetch", "--quiet")
	check(dir, want)

	// A ledger of one's own is none, and a broken reference elsewhere does not matter.
	git(t, dir, "branch", "ledger/mine", first)
	broken := filepath.Join(dir, ".git", "refs", "heads", "broken")
	write(t, broken, []byte("nonsense"))
	check(dir, want)
	must(t, os.Remove(broken)) // git itself would not fetch with it
	second := u.commit("main", "four", map[string]string{"a": "2"})
	git(t, dir, "fetch", "--quiet")
	c = check(dir, want)
	published(c, "", "origin/main", second)
	published(c, "main", "origin/main", second)
	published(c, "nope", "", "")
	published(c, "../x", "", "")

	// The remote that the present branch follows counts.
	other := newUpstream(t, map[string]string{"b": "1"})
	prod := other.commit("ledger/prod", "five", map[string]string{"x": "1"})
	git(t, dir, "remote", "add", "other", other.dir)
	git(t, dir, "fetch", "--quiet", "other")
	git(t, dir, "checkout", "--quiet", "-b", "topic", "--track", "other/main")
	c = check(dir, map[string]string{"ledger/prod": prod})
	published(c, "", "other/main", other.tip("main"))
	tree := filepath.Join(t.TempDir(), "tree")
	git(t, dir, "worktree", "add", "--quiet", tree, "main")
	check(tree, want)

	// One that does not bring them.
	single := filepath.Join(t.TempDir(), "single")
	git(t, "", "clone", "--quiet", "--single-branch", "--depth=1", "file://"+u.dir, single)
	c = check(single, nil)
	if c.Fetches("ledger/any") || !c.Shallow() {
		t.Error("it fetches main only, and that without a history")
	}
	git(t, single, "config", "--add", "remote.origin.fetch", "+refs/heads/ledger/*:refs/remotes/origin/ledger/*")
	git(t, single, "fetch", "--quiet")
	if c = check(single, want); !c.Fetches("ledger/any") {
		t.Error("it fetches them now")
	}
}
