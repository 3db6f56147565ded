package gitstate_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
)

var _ desired.Tree = (*gitstate.Snapshot)(nil)

func TestSnapshotIsAFileSystem(t *testing.T) {
	u := newUpstream(t, map[string]string{"a.txt": "a", "a/b": "b", "a/c/d": "d", "a-z": "", "run": "<exec>#!", "Ünï": "x"})
	m := open(t, gitstate.Options{URL: u.dir})
	tip, _ := m.Tip()
	s := snapshot(t, m, tip)
	if err := fstest.TestFS(s, "a.txt", "a/b", "a/c/d", "a-z", "run", "Ünï"); err != nil {
		t.Error(err)
	}
	if s.Commit() != tip {
		t.Errorf("commit = %s", s.Commit())
	}
	for _, name := range []string{".", "a", "a/c", "a/c/d", "run"} {
		want := git(t, u.dir, "rev-parse", "main:"+strings.TrimPrefix(name, "."))
		if got, err := s.ID(name); err != nil || got != want {
			t.Errorf("ID(%s) = %s, %v; want %s", name, got, err, want)
		}
	}
	if fi, err := s.Stat("run"); err != nil || fi.Mode() != 0o555 || fi.Size() != 2 {
		t.Errorf("run: %v, %v", fi, err)
	}
}

func TestSnapshotRefuses(t *testing.T) {
	u := newUpstream(t, map[string]string{
		"file": "x", "dir/file": "x", "dir/link": "<link>../file", "linked": "<link>dir", "escape": "<link>/etc/passwd",
		"sub":  "<submodule>0123456789012345678901234567890123456789",
		"huge": strings.Repeat("0123456789abcdef", 700_000), "limit": strings.Repeat("0123456789abcdef", 655_360),
	})
	// Names that git itself would not check out everywhere.
	blob := git(t, u.dir, "rev-parse", "main:file")
	tree := gitInput(t, u.dir, strings.NewReader(fmt.Sprintf("100644 blob %s\tback\\slash\n100644 blob %s\tfine\n100644 blob %s\t\"tab\\there\"\n", blob, blob, blob)), "mktree")
	commit := git(t, u.dir, "commit-tree", "-p", "main", "-m", "odd", tree)
	git(t, u.dir, "update-ref", "refs/heads/ledger/odd", commit)
	m := open(t, gitstate.Options{URL: u.dir})
	tip, _ := m.Tip()
	s := snapshot(t, m, tip)

	for name, want := range map[string]string{
		"dir/link": "symbolic link", "escape": "symbolic link", "linked/file": "is a symbolic link, which is not followed",
		"sub": "submodule", "sub/x": "is a submodule", "huge": "11200000 bytes, more than the 10485760",
		"../file": "invalid", "/file": "invalid", "dir/../file": "invalid", "dir//file": "invalid", "": "invalid", "./file": "invalid",
		`dir\file`: "backslash", ".git/config": "git's own folder", "dir/.GIT": "git's own folder", "git~1": "git's own folder", ".git ": "git's own folder",
		".g\u200cit": "git's own folder", "a\x01": "control character", "file\x00": "control character",
	} {
		for op, f := range map[string]func(string) error{
			"Open":     func(n string) error { _, err := s.Open(n); return err },
			"ReadFile": func(n string) error { _, err := s.ReadFile(n); return err },
		} {
			err := f(name)
			var pe *fs.PathError
			if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, fs.ErrNotExist) || !errors.As(err, &pe) {
				t.Errorf("%s(%q): %v, want one about %q", op, name, err, want)
			}
		}
	}
	for _, name := range []string{"nope", "dir/nope", "file/below"} {
		for op, f := range map[string]func(string) error{
			"Open":     func(n string) error { _, err := s.Open(n); return err },
			"ReadFile": func(n string) error { _, err := s.ReadFile(n); return err },
			"ReadDir":  func(n string) error { _, err := s.ReadDir(n); return err },
			"Stat":     func(n string) error { _, err := s.Stat(n); return err },
			"ID":       func(n string) error { _, err := s.ID(n); return err },
		} {
			if err := f(name); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s(%q): %v", op, name, err)
			}
		}
	}
	if data, err := s.ReadFile("limit"); err != nil || len(data) != gitstate.MaxFile {
		t.Errorf("a file of just the limit: %d, %v", len(data), err)
	}
	list, err := s.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range list {
		i, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(e.Name(), " ", e.Type(), " ", i.Mode()))
	}
	if d := cmp.Diff([]string{"dir d--------- dr-xr-xr-x", "escape L--------- Lrwxrwxrwx", "file ---------- -r--r--r--", "huge ---------- -r--r--r--",
		"limit ---------- -r--r--r--", "linked L--------- Lrwxrwxrwx", "sub ?--------- ?---------"}, got); d != "" {
		t.Error(d)
	}
	odd := snapshot(t, m, commit)
	list, err = odd.ReadDir(".")
	if err != nil || len(list) != 3 || list[0].Type() != fs.ModeIrregular || list[1].Type() != 0 || list[2].Type() != fs.ModeIrregular {
		t.Errorf("odd names: %v, %v", list, err)
	}
	if got := read(t, odd, "fine"); got != "x" {
		t.Errorf("fine = %q", got)
	}
	if _, err := m.Snapshot(t.Context(), strings.Repeat("ab", 20)); !errors.Is(err, gitstate.ErrNoCommit) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a snapshot of nothing: %v", err)
	}
	if _, err := m.Snapshot(t.Context(), tip[:8]); !errors.Is(err, gitstate.ErrNoCommit) {
		t.Errorf("a snapshot of an abbreviated id: %v", err)
	}
	// A question about what is not there is not damage.
	if tip2 := fetch(t, m); tip2.Commit != tip {
		t.Errorf("fetch = %+v", tip2)
	}
}

func TestChanged(t *testing.T) {
	u := newUpstream(t, map[string]string{"same/x": "1", "d/a": "1", "d/b": "1", "to-dir": "1", "to-file/x": "1", "to-file/y/z": "1", "mode": "1"})
	m := open(t, gitstate.Options{URL: u.dir})
	tip, _ := m.Tip()
	before := snapshot(t, m, tip)
	u.commit("main", "m", map[string]string{"to-dir": "<gone>", "to-file": "<gone>"})
	u.commit("main", "m", map[string]string{"d/a": "2", "d/b": "<gone>", "d/c": "1", "to-dir/n": "1", "to-file": "1", "mode": "<exec>1", "new/deep/er": "1"})
	after := snapshot(t, m, fetch(t, m).Commit)
	want := []string{"d/a", "d/b", "d/c", "mode", "new/deep/er", "to-dir", "to-dir/n", "to-file", "to-file/x", "to-file/y/z"}
	for _, pair := range [][2]*gitstate.Snapshot{{before, after}, {after, before}} {
		got, err := pair[0].Changed(pair[1])
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
	if got, err := after.Changed(after); err != nil || len(got) != 0 {
		t.Errorf("changed from itself: %v, %v", got, err)
	}
}

// Readers, while the mirror fetches, commits, is tidied and is rewritten.
func TestSnapshotsAreReadWhileTheMirrorChanges(t *testing.T) {
	files := map[string]string{}
	for i := range 40 {
		files[fmt.Sprintf("d%d/f", i)] = fmt.Sprint(i)
	}
	u := newUpstream(t, files)
	dir := filepath.Join(t.TempDir(), "m")
	m := open(t, gitstate.Options{URL: u.dir, Dir: dir, AllowRewrite: true, MaxPacks: 8})
	tip, _ := m.Tip()
	s := snapshot(t, m, tip)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for r := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(r)))
			for {
				select {
				case <-stop:
					return
				default:
				}
				i := rng.IntN(40)
				if data, err := s.ReadFile(fmt.Sprintf("d%d/f", i)); err != nil || string(data) != fmt.Sprint(i) {
					t.Errorf("d%d/f = %q, %v", i, data, err)
					return
				}
				at, _ := m.Tip()
				now, err := m.Snapshot(t.Context(), at)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := now.ReadFile("n"); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
					return
				}
			}
		})
	}
	first := present(t, dir)
	for n := range 30 {
		if n == 15 {
			git(t, u.dir, "update-ref", "refs/heads/main", tip)
		}
		at := u.commit("main", "n", map[string]string{"n": fmt.Sprint("n", n)})
		fetch(t, m)
		if _, err := m.Commit(t.Context(), change(at, "ours", map[string]string{"ours": fmt.Sprint(n)})); err != nil && !errors.Is(err, gitstate.ErrMoved) {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	m.Close()
	if present(t, dir) == first {
		t.Error("it was never tidied")
	}
	if entries, _ := filepath.Glob(filepath.Join(dir, "git-*")); len(entries) > 2 {
		t.Errorf("old generations are left: %v", entries)
	}
	u.fsck()
	fsck(t, present(t, dir))
	m = open(t, gitstate.Options{URL: u.dir, Dir: dir, AllowRewrite: true})
	if entries, _ := filepath.Glob(filepath.Join(dir, "git-*")); len(entries) != 1 {
		t.Errorf("after opening, these are left: %v", entries)
	}
	fetch(t, m)
}

func FuzzParseTree(f *testing.F) {
	// Trees come from git's own tools; whatever bytes are committed as one,
	// a snapshot of it answers or fails, and never panics.
	u := newUpstream(f, map[string]string{"a": "1", "b/c": "2"})
	f.Add([]byte{})
	f.Add([]byte("100644 a\x0001234567890123456789"))
	f.Add([]byte("40000 a\x000123456789012345678940000 a\x0001234567890123456789"))
	f.Add([]byte("100644 ../x\x0001234567890123456789"))
	f.Fuzz(func(t *testing.T, data []byte) {
		w := &upstream{t, u.dir}
		tree := gitInput(t, w.dir, bytes.NewReader(data), "hash-object", "--literally", "-t", "tree", "-w", "--stdin")
		id := git(t, w.dir, "commit-tree", "-m", "x", tree)
		c, err := gitstate.OpenClone(w.dir)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := c.Snapshot(t.Context(), id)
		if err != nil {
			return
		}
		list, err := s.ReadDir(".")
		if err != nil {
			return
		}
		for _, e := range list {
			if strings.Contains(e.Name(), "/") || !fs.ValidPath(e.Name()) && e.Type() != fs.ModeIrregular {
				t.Errorf("it lists %q", e.Name())
			}
			s.ReadFile(e.Name())
		}
	})
}
