package gitstate_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pinion-cd/pinion/gitstate"
)

// step is a change of a branch that follows another of the same push.
func step(branch, message string, files map[string]string) gitstate.Change {
	c := change("", message, files)
	c.Branch = branch
	return c
}

// after sets what the first change of a chain was judged on.
func after(tip string, list ...gitstate.Change) []gitstate.Change {
	list[0].Expected = tip
	return list
}

// subjects are the first lines of the commits of a range, oldest first.
func subjects(t testing.TB, u *upstream, of string) []string {
	t.Helper()
	out := git(t, u.dir, "log", "--first-parent", "--reverse", "--format=%s", of)
	if out == "" {
		return nil
	}
	return strings.Split(out, "\n")
}

// counting is a chain of n changes that count in one large file, in a folder
// of many, and in files of their own.
func counting(branch string, from, n int) []gitstate.Change {
	var list []gitstate.Change
	for i := from; i < from+n; i++ {
		list = append(list, step(branch, fmt.Sprintf("n=%d", i), map[string]string{
			"n":                                  fmt.Sprint(i),
			"large/pins.yaml":                    noise(8000) + fmt.Sprintf("pin: %d\n", i) + noise(9000),
			fmt.Sprintf("many/%03d/state", i%70): fmt.Sprint("state ", i),
		}))
	}
	return list
}

func TestPushChain(t *testing.T) {
	for _, kind := range []string{"file", "http", "ssh"} {
		t.Run(kind, func(t *testing.T) {
			u := newUpstream(t, map[string]string{"a": "1", "run": "<exec>x", "deep/er/b": "1", "deep-er": "x", "other": "x"})
			git(t, u.dir, "config", "receive.fsckObjects", "true")
			o := gitstate.Options{URL: u.dir, Dir: filepath.Join(t.TempDir(), "m")}
			switch kind {
			case "http":
				o.URL = serveHTTP(t, u, false, "", "").url
			case "ssh":
				s := serveSSH(t)
				o.URL, o.Auth = s.url(u), gitstate.Auth{KeyFile: s.keyFile, KnownHostsFile: s.knownHosts}
			}
			m := open(t, o)
			first, _ := m.Tip()
			list := after(first,
				step("", "one", map[string]string{"a": "2", "run": "y"}),
				step("ledger/new", "born", map[string]string{"web/state": "pinned"}),
				step("main", "two", map[string]string{"deep/er/b": "2", "deep/er/c": "new"}),
				step("ledger/new", "grown", map[string]string{"web/state": "started", "api/state": "pinned"}),
				step("", "three", map[string]string{"deep/er/b": "<gone>", "deep/er/c": "<gone>", "deep.er": "new"}),
				step("", "four", map[string]string{"deep/er/b": "1", "a": "1"}))
			ids, err := m.Push(t.Context(), list)
			if err != nil {
				t.Fatal(err)
			}
			if got := m.Pushes(); got != 1 {
				t.Errorf("%d pushes", got)
			}
			want := map[string]string{
				ids[0]: first + "|one|a=2 deep-er=x deep/er/b=1 other=x run=y",
				ids[2]: ids[0] + "|two|a=2 deep-er=x deep/er/b=2 deep/er/c=new other=x run=y",
				ids[4]: ids[2] + "|three|a=2 deep-er=x deep.er=new other=x run=y",
				ids[5]: ids[4] + "|four|a=1 deep-er=x deep.er=new deep/er/b=1 other=x run=y",
				ids[1]: "|born|web/state=pinned",
				ids[3]: ids[1] + "|grown|api/state=pinned web/state=started",
			}
			for id, w := range want {
				var files []string
				for _, name := range strings.Fields(git(t, u.dir, "ls-tree", "-r", "--name-only", id)) {
					files = append(files, name+"="+git(t, u.dir, "show", id+":"+name))
					if got := read(t, snapshot(t, m, id), name); got != git(t, u.dir, "show", id+":"+name) {
						t.Errorf("ours of %s:%s is %q", id, name, got)
					}
				}
				if d := cmp.Diff(w, git(t, u.dir, "log", "-1", "--format=%P|%s|", id)+strings.Join(files, " ")); d != "" {
					t.Error(d)
				}
			}
			if mode := git(t, u.dir, "ls-tree", "--format=%(objectmode)", "main", "run"); mode != "100755" {
				t.Errorf("run has the mode %s", mode)
			}
			if d := cmp.Diff(map[string]string{"main": ids[5], "ledger/new": ids[3]}, m.Branches()); d != "" {
				t.Error(d)
			}
			if u.tip("main") != ids[5] || u.tip("ledger/new") != ids[3] {
				t.Error("the remote is elsewhere")
			}

			// Enough of it for a pack and for many deltas.
			long := append(after(ids[5], counting("", 0, 130)...), after(ids[3], counting("ledger/new", 0, 60)...)...)
			ids, err = m.Push(t.Context(), long)
			if err != nil {
				t.Fatal(err)
			}
			var count []string
			for i := range 130 {
				count = append(count, fmt.Sprint("n=", i))
			}
			if d := cmp.Diff(count, subjects(t, u, list[0].Expected+"..main")[4:]); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(count[:60], subjects(t, u, "ledger/new")[2:]); d != "" {
				t.Error(d)
			}
			for i, id := range ids {
				n, s := i%130, snapshot(t, m, id)
				for name, data := range long[i].Files {
					if got := read(t, s, name); got != string(data) {
						t.Fatalf("commit %d: %s is %q", n, name, got)
					}
				}
			}
			if tip := fetch(t, m); tip.Commit != ids[129] || tip.Previous != ids[129] {
				t.Errorf("fetch = %+v", tip)
			}
			u.fsck()
			fsck(t, present(t, o.Dir))
			// The clone's, and one of each push.
			if packs, _ := filepath.Glob(filepath.Join(present(t, o.Dir), "objects/pack/*.pack")); len(packs) != 3 {
				t.Errorf("there are %d packs", len(packs))
			}
			m.Close()
			if tip, _ := open(t, o).Tip(); tip != ids[129] {
				t.Errorf("it opens at %s", tip)
			}
		})
	}
}

func TestPushChainRefusesBadChanges(t *testing.T) {
	u := newUpstream(t, map[string]string{"a": "1"})
	m := open(t, gitstate.Options{URL: u.dir})
	tip, _ := m.Tip()
	good := func() []gitstate.Change {
		return after(tip, step("", "one", map[string]string{"a": "2"}), step("", "two", map[string]string{"a": "3"}), step("", "three", map[string]string{"a": "4"}))
	}
	for want, spoil := range map[string]func([]gitstate.Change){
		"change 3 of the push expects the branch at " + tip + ", but its parent is the commit of change 2": func(l []gitstate.Change) { l[2].Expected = tip },
		"commit 2 of 3 (two): nothing to commit":                                                           func(l []gitstate.Change) { l[1].Files = l[0].Files },
		`commit 3 of 3 (three): the name "x/.git" is not allowed`:                                          func(l []gitstate.Change) { l[2].Files = map[string][]byte{"x/.git": nil} },
		"commit 2 of 3 (two): a in . is a file, not a folder":                                              func(l []gitstate.Change) { l[1].Files = map[string][]byte{"a/b": []byte("x")} },
		"no such commit": func(l []gitstate.Change) { l[0].Expected = strings.Repeat("ab", 20) },
	} {
		list := good()
		spoil(list)
		ids, err := m.Push(t.Context(), list)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error about %q, got %v", want, err)
		}
		if d := cmp.Diff([]string{"", "", ""}, ids); d != "" {
			t.Error(d)
		}
	}
	if n := m.Pushes(); n != 0 || u.tip("main") != tip {
		t.Errorf("something was sent, %d times", n)
	}
	// An empty Expected in the first place says that there is no branch.
	list := good()
	list[0].Expected = ""
	if _, err := m.Push(t.Context(), list); !errors.Is(err, gitstate.ErrMoved) || len(strings.Split(err.Error(), "\n")) != 1 {
		t.Errorf("push = %v", err)
	}
	list = good()
	list[1].AllowEmpty, list[1].Files = true, nil
	ids, err := m.Push(t.Context(), list)
	if err != nil || u.tip("main") != ids[2] {
		t.Errorf("push = %v, %v", ids, err)
	}
	u.fsck()
}

// All chains of a push land, or none does; and what is wrong with a branch is
// said once, not for each of its commits.
func TestPushChainsAllOrNone(t *testing.T) {
	u := newUpstream(t, map[string]string{"a": "1"})
	u.commit("ledger/dev", "start", map[string]string{"s": "1"})
	m := open(t, gitstate.Options{URL: u.dir})
	main, _ := m.Tip()
	dev, _ := m.Branch("ledger/dev")
	push := func() ([]string, error) {
		return m.Push(t.Context(), append(after(main, counting("", 0, 40)...), after(dev, counting("ledger/dev", 0, 40)...)...))
	}
	none := func(ids []string, err error, sort error) {
		t.Helper()
		if !errors.Is(err, sort) || len(strings.Split(err.Error(), "\n")) != 2 {
			t.Errorf("want %v, got %v", sort, err)
		}
		if d := cmp.Diff(make([]string, 80), ids); d != "" {
			t.Error(d)
		}
		if u.tip("main") != main {
			t.Error("main was moved")
		}
	}
	hook(t, u, "update", `[ "$1" != refs/heads/ledger/dev ] || { echo "not today"; exit 1; }`)
	ids, err := push()
	none(ids, err, gitstate.ErrRefused)
	if !strings.Contains(err.Error(), "not today") || !strings.Contains(err.Error(), "push main: not done") {
		t.Errorf("err = %v", err)
	}
	os.Remove(filepath.Join(u.dir, "hooks", "update"))

	// Somebody is faster while our objects arrive: nobody could see that before.
	hook(t, u, "pre-receive", faster("ledger/dev"))
	ids, err = push()
	none(ids, err, gitstate.ErrMoved)
	os.Remove(filepath.Join(u.dir, "hooks", "pre-receive"))
	if n := m.Pushes(); n != 2 {
		t.Errorf("%d pushes", n)
	}

	// And before.
	ids, err = push()
	none(ids, err, gitstate.ErrMoved)
	if n := m.Pushes(); n != 2 {
		t.Errorf("%d pushes", n)
	}
	fetch(t, m)
	dev, _ = m.Branch("ledger/dev")
	if _, err := push(); err != nil {
		t.Error(err)
	}
	u.fsck()
}

// faster is the script of a pre-receive hook that moves a branch while a push
// of ours is under way.
func faster(branch string) string {
	return `unset GIT_QUARANTINE_PATH GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES
export GIT_AUTHOR_NAME=p GIT_AUTHOR_EMAIL=p@example.com GIT_COMMITTER_NAME=p GIT_COMMITTER_EMAIL=p@example.com
ref=refs/heads/` + branch + `
git update-ref $ref $(git commit-tree -p $ref -m faster $ref^{tree})`
}

func TestPushChainReplyLost(t *testing.T) {
	u := newUpstream(t, map[string]string{"a": "1"})
	u.commit("ledger/dev", "start", map[string]string{"s": "1"})
	s := serveHTTP(t, u, false, "", "")
	m := open(t, gitstate.Options{URL: s.url})
	push := func() ([]string, error) {
		t.Helper()
		main, _ := m.Tip()
		dev, _ := m.Branch("ledger/dev")
		n := len(subjects(t, u, "main"))
		return m.Push(t.Context(), append(after(main, counting("", n, 40)...), after(dev, counting("ledger/dev", n, 40)...)...))
	}
	both := func(suffix string, ids []string, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if at := git(t, u.dir, "rev-parse", "main"+suffix); at != ids[39] {
			t.Errorf("main%s is %s, not %s", suffix, at, ids[39])
		}
		if at := u.tip("ledger/dev"); at != ids[79] {
			t.Errorf("ledger/dev is %s, not %s", at, ids[79])
		}
		main, _ := m.Tip()
		dev, _ := m.Branch("ledger/dev")
		if main != u.tip("main") || dev != ids[79] {
			t.Errorf("ours are %s and %s", main, dev)
		}
	}
	// It was applied.
	s.cut.Store(true)
	ids, err := push()
	both("", ids, err)
	// It was applied, and somebody went on from it, on one of the branches.
	hook(t, u, "post-receive", strings.ReplaceAll(faster("main"), "unset", "cat >/dev/null; unset"))
	s.cut.Store(true)
	ids, err = push()
	both("^", ids, err)
	os.Remove(filepath.Join(u.dir, "hooks", "post-receive"))
	// It never arrived.
	before := u.tip("main")
	s.drop.Store(true)
	ids, err = push()
	if !errors.Is(err, gitstate.ErrUnknown) || len(strings.Split(err.Error(), "\n")) != 2 || strings.Join(ids, "") != "" || u.tip("main") != before {
		t.Errorf("push = %q, %v", ids, err)
	}
	// Another was faster, and that reply was lost.
	hook(t, u, "pre-receive", faster("main"))
	s.cut.Store(true)
	ids, err = push()
	if !errors.Is(err, gitstate.ErrMoved) || strings.Join(ids, "") != "" {
		t.Errorf("push = %q, %v", ids, err)
	}
	os.Remove(filepath.Join(u.dir, "hooks", "pre-receive"))
	fetch(t, m)
	ids, err = push()
	both("", ids, err)
	u.fsck()
}

// Writers of chains and of single commits race for two branches; each takes up
// the tips again when it was too late. Nothing is lost, doubled or torn apart.
func TestRacingChains(t *testing.T) {
	const writers, pushes, length = 4, 4, 35
	u := newUpstream(t, map[string]string{"a": "1"})
	u.commit("ledger/dev", "start", map[string]string{"s": "1"})
	s := serveHTTP(t, u, false, "", "")
	var wg sync.WaitGroup
	for w := range writers {
		o := gitstate.Options{URL: u.dir, Dir: filepath.Join(t.TempDir(), "mirror")}
		if w%2 == 1 {
			o.URL = s.url
		}
		m := open(t, o)
		wg.Go(func() {
			for n := 0; n < pushes; {
				if _, err := m.Fetch(t.Context()); err != nil {
					t.Error(err)
					return
				}
				var list []gitstate.Change
				for _, branch := range []string{"main", "ledger/dev"} {
					var c []gitstate.Change
					for k := range length {
						if w == 0 && k > 0 {
							break
						}
						c = append(c, step(branch, fmt.Sprintf("writer %d: %d.%d", w, n, k), map[string]string{
							fmt.Sprintf("w/%d", w): fmt.Sprint(n, ".", k), "same": noise(3000) + fmt.Sprint(w, n, k)}))
					}
					at, _ := m.Branch(branch)
					list = append(list, after(at, c...)...)
				}
				_, err := m.Push(t.Context(), list)
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
	for _, branch := range []string{"main", "ledger/dev"} {
		list := subjects(t, u, branch)[1:]
		if want := pushes * (1 + (writers-1)*length); len(list) != want {
			t.Errorf("%s has %d commits, not %d", branch, len(list), want)
		}
		next := map[int]string{}
		for w := range writers {
			next[w] = "0.0"
		}
		for i, subject := range list {
			var w, n, k int
			fmt.Sscanf(subject, "writer %d: %d.%d", &w, &n, &k)
			if fmt.Sprint(n, ".", k) != next[w] {
				t.Fatalf("%s: commit %d is %q, after %v", branch, i, subject, next)
			}
			if k++; k == length || w == 0 {
				n, k = n+1, 0
			} else if i+1 < len(list) && !strings.HasPrefix(list[i+1], fmt.Sprintf("writer %d: ", w)) {
				t.Fatalf("%s: the chain of %q is torn apart by %q", branch, subject, list[i+1])
			}
			next[w] = fmt.Sprint(n, ".", k)
		}
		if d := cmp.Diff(map[int]string{0: "4.0", 1: "4.0", 2: "4.0", 3: "4.0"}, next); d != "" {
			t.Error(d)
		}
	}
	u.fsck()
}
