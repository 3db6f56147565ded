package gitstate_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/gitstate"
)

// big has more objects than are kept loose, so that there is a pack.
func big() map[string]string {
	files := services(100)
	files["a"] = "1"
	return files
}

func packs(t *testing.T, dir, ext string) []string {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(present(t, dir), "objects", "pack", "*."+ext))
	if len(files) == 0 {
		t.Fatal("there is no pack")
	}
	return files
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var damages = map[string]func(t *testing.T, dir string){
	"no pack": func(t *testing.T, dir string) {
		for _, f := range packs(t, dir, "pack") {
			must(t, os.Remove(f))
		}
	},
	"no index": func(t *testing.T, dir string) {
		for _, f := range packs(t, dir, "idx") {
			must(t, os.Remove(f))
		}
	},
	"a pack that was cut": func(t *testing.T, dir string) {
		for _, f := range packs(t, dir, "pack") {
			fi, err := os.Stat(f)
			must(t, err)
			must(t, os.Chmod(f, 0o644))
			must(t, os.Truncate(f, fi.Size()/2))
		}
	},
	"an empty pack": func(t *testing.T, dir string) {
		for _, f := range packs(t, dir, "pack") {
			must(t, os.Chmod(f, 0o644))
			must(t, os.Truncate(f, 0))
		}
	},
	"an index that was cut": func(t *testing.T, dir string) {
		for _, f := range packs(t, dir, "idx") {
			must(t, os.Chmod(f, 0o644))
			must(t, os.Truncate(f, 100))
		}
	},
	"a loose object that is empty": func(t *testing.T, dir string) {
		files, _ := filepath.Glob(filepath.Join(present(t, dir), "objects", "[0-9a-f][0-9a-f]", "*"))
		for _, f := range files {
			must(t, os.Truncate(f, 0))
		}
	},
	"HEAD":          func(t *testing.T, dir string) { write(t, filepath.Join(present(t, dir), "HEAD"), []byte("garbage")) },
	"no HEAD":       func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(present(t, dir), "HEAD"))) },
	"config":        func(t *testing.T, dir string) { write(t, filepath.Join(present(t, dir), "config"), []byte("[")) },
	"a branch":      func(t *testing.T, dir string) { write(t, filepath.Join(present(t, dir), "refs/heads/main"), nil) },
	"current":       func(t *testing.T, dir string) { write(t, filepath.Join(dir, "current"), []byte("../..")) },
	"no current":    func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "current"))) },
	"no objects":    func(t *testing.T, dir string) { must(t, os.RemoveAll(filepath.Join(present(t, dir), "objects"))) },
	"no generation": func(t *testing.T, dir string) { must(t, os.RemoveAll(present(t, dir))) },
	"a branch that names nothing": func(t *testing.T, dir string) {
		write(t, filepath.Join(present(t, dir), "refs/heads/main"), []byte(strings.Repeat("ab", 20)+"\n"))
	},
}

func TestOpenMendsADamagedMirror(t *testing.T) {
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			u := newUpstream(t, big())
			o := gitstate.Options{URL: u.dir, Dir: filepath.Join(t.TempDir(), "m"), AllowRewrite: name == "a branch that names nothing"}
			m := open(t, o)
			tip, _ := m.Tip()
			tip = mustCommit(t, m, change(tip, "loose", map[string]string{"a": "2"}))
			m.Close()
			damage(t, o.Dir)
			m = open(t, o)
			if at, _ := m.Tip(); at != tip {
				t.Errorf("tip = %s, want %s", at, tip)
			}
			if got := read(t, snapshot(t, m, tip), "a"); got != "2" {
				t.Errorf("a = %q", got)
			}
			if n := walk(t, snapshot(t, m, tip)); n != 301 {
				t.Errorf("there are %d files", n)
			}
			if left, _ := filepath.Glob(filepath.Join(o.Dir, "git-*")); len(left) != 1 {
				t.Errorf("there are %v", left)
			}
			fsck(t, present(t, o.Dir))
		})
	}
}

func mustCommit(t testing.TB, m *gitstate.Mirror, c gitstate.Change) string {
	t.Helper()
	id, err := m.Commit(t.Context(), c)
	must(t, err)
	return id
}

// It is damaged behind the back of a running daemon. Whatever can't be read
// is an error that is not "not there", and the next fetch mends it.
func TestFetchMendsADamagedMirror(t *testing.T) {
	for _, name := range []string{"no pack", "a pack that was cut", "an empty pack", "no objects", "no generation", "a loose object that is empty"} {
		t.Run(name, func(t *testing.T) {
			u := newUpstream(t, big())
			o := gitstate.Options{URL: u.dir, Dir: filepath.Join(t.TempDir(), "m")}
			m := open(t, o)
			first, _ := m.Tip()
			m.Close()
			m = open(t, o)
			tip := mustCommit(t, m, change(first, "loose", map[string]string{"a": "2"}))
			looks := m.Watch(t.Context())
			<-looks
			damages[name](t, o.Dir)
			s, err := m.Snapshot(t.Context(), tip)
			hurt := err != nil
			if err == nil {
				files := map[string]string{"a": "2", "services/svc-0042/service.yaml": "", "services/svc-0099/deployment.yaml": ""}
				for file := range files {
					if _, err := s.ReadFile(file); err != nil {
						hurt = true
						if errors.Is(err, fs.ErrNotExist) {
							t.Errorf("%s: %v", file, err)
						}
					}
				}
			}
			if hurt && err == nil { // it asks for a look by itself
				select {
				case <-looks:
				case <-soon(t).Done():
					t.Error("no signal")
				}
			}
			// The tip moves, too.
			next := u.commit("main", "next", map[string]string{"services/svc-0042/service.yaml": "new"})
			got, err := m.Fetch(t.Context())
			if err != nil || got.Commit != next {
				t.Fatalf("fetch = %+v, %v", got, err)
			}
			if n := walk(t, snapshot(t, m, next)); n != 301 {
				t.Errorf("there are %d files", n)
			}
			if hurt && s != nil && read(t, s, "a") != "2" {
				t.Error("the old snapshot is not readable again")
			}
			if data, err := snapshot(t, m, first).ReadFile("a"); err != nil || string(data) != "1" {
				t.Errorf("a was %q, %v", data, err)
			}
		})
	}
}

// A commit that the remote has is a commit, also if we can't keep it.
func TestCommitThatCannotBeKept(t *testing.T) {
	u := newUpstream(t, big())
	o := gitstate.Options{URL: u.dir, Dir: filepath.Join(t.TempDir(), "m")}
	m := open(t, o)
	tip, _ := m.Tip()
	walk(t, snapshot(t, m, tip))
	must(t, os.RemoveAll(present(t, o.Dir)))
	id := mustCommit(t, m, change(tip, "ours", map[string]string{"a": "2"}))
	if u.tip("main") != id {
		t.Errorf("the remote is at %s, not %s", u.tip("main"), id)
	}
	if at, _ := m.Tip(); at != tip {
		t.Errorf("our tip is %s", at)
	}
	if got := fetch(t, m); got.Commit != id || got.Previous != tip {
		t.Errorf("fetch = %+v", got)
	}
}

// A damaged mirror, and a branch that was rewritten meanwhile: mending it must
// not let the rewriting through.
func TestMendingDoesNotHideARewrite(t *testing.T) {
	u := newUpstream(t, big())
	base := u.tip("main")
	o := gitstate.Options{URL: u.dir, Dir: filepath.Join(t.TempDir(), "m")}
	tip := u.commit("main", "two", map[string]string{"a": "2"})
	open(t, o).Close()
	git(t, u.dir, "update-ref", "refs/heads/main", base)
	u.commit("main", "instead", map[string]string{"a": "3"})
	damages["a pack that was cut"](t, o.Dir)
	_, err := gitstate.Open(t.Context(), o)
	var rewritten *gitstate.RewrittenError
	if !errors.As(err, &rewritten) || rewritten.Old != tip {
		t.Errorf("open: %v", err)
	}
	o.AllowRewrite = true
	m := open(t, o)
	if at, _ := m.Tip(); at != u.tip("main") {
		t.Errorf("tip = %s", at)
	}
}

func TestMirrorOfAnotherRemote(t *testing.T) {
	one, two := newUpstream(t, map[string]string{"a": "1"}), newUpstream(t, map[string]string{"a": "2"})
	o := gitstate.Options{URL: one.dir, Dir: filepath.Join(t.TempDir(), "m")}
	m := open(t, o)
	if _, err := gitstate.Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("opened twice: %v", err)
	}
	m.Close()
	if _, err := m.Fetch(t.Context()); !errors.Is(err, gitstate.ErrClosed) {
		t.Errorf("fetch after close: %v", err)
	}
	o.URL = two.dir
	m = open(t, o)
	if at, _ := m.Tip(); at != two.tip("main") {
		t.Errorf("tip = %s", at)
	}
}

// A machine without the git program reads a repository on its own disk, and
// does not write to it.
func TestWithoutGit(t *testing.T) {
	u := newUpstream(t, big())
	git(t, u.dir, "repack", "-adq")
	u.commit("ledger/dev", "start", map[string]string{"s": "1"})
	path := os.Getenv("PATH")
	t.Setenv("PATH", t.TempDir())
	o := gitstate.Options{URL: u.dir, Dir: filepath.Join(t.TempDir(), "m")}
	m := open(t, o)
	tip, _ := m.Tip()
	if n := walk(t, snapshot(t, m, tip)); n != 301 {
		t.Errorf("there are %d files", n)
	}
	os.Setenv("PATH", path)
	next := u.commit("main", "next", map[string]string{"a": "2"})
	git(t, u.dir, "pack-refs", "--all")
	os.Setenv("PATH", t.TempDir())
	if got := fetch(t, m); got.Commit != next || got.Previous != tip {
		t.Errorf("fetch = %+v", got)
	}
	if got := read(t, snapshot(t, m, next), "a"); got != "2" {
		t.Errorf("a = %q", got)
	}
	if _, err := m.Commit(t.Context(), change(next, "m", map[string]string{"a": "3"})); err == nil || !strings.Contains(err.Error(), "install git, or use an https or ssh URL") {
		t.Errorf("commit: %v", err)
	}
	os.Setenv("PATH", path)
	u.commit("main", "more", map[string]string{"a": "4"})
	git(t, u.dir, "repack", "-adq")
	os.Setenv("PATH", t.TempDir())
	if got := fetch(t, m); got.Previous != next {
		t.Errorf("fetch = %+v", got)
	}
	os.Setenv("PATH", path)
	fsck(t, present(t, o.Dir))
}
