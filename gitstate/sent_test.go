package gitstate_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/gitstate"
)

// tally lets the remote note how many objects each push brings, and returns
// what the last one brought.
func tally(t testing.TB, u *upstream, script string) func() int {
	file := filepath.Join(t.TempDir(), "count")
	hook(t, u, "pre-receive", `{ find "$GIT_QUARANTINE_PATH" -type f -path '*/??/*' ! -path '*/pack/*'
for i in "$GIT_QUARANTINE_PATH"/pack/*.idx; do [ ! -f "$i" ] || git show-index <"$i"; done; } | wc -l >'`+file+`'
`+script)
	return func() int {
		t.Helper()
		text, err := os.ReadFile(file)
		must(t, err)
		n, err := strconv.Atoi(strings.TrimSpace(string(text)))
		must(t, err)
		return n
	}
}

// What a push brought that lost a race is not sent once more.
func TestPushAfterALostRace(t *testing.T) {
	for _, kind := range []string{"file", "http", "pruned", "pruned and strict"} {
		t.Run(kind, func(t *testing.T) {
			u := newUpstream(t, map[string]string{"a": "1"})
			u.commit("ledger/dev", "start", map[string]string{"s": "1"})
			o := gitstate.Options{URL: u.dir, Dir: filepath.Join(t.TempDir(), "m")}
			if kind == "http" {
				o.URL = serveHTTP(t, u, false, "", "").url
			}
			if kind == "pruned and strict" {
				git(t, u.dir, "config", "receive.fsckObjects", "true")
			}
			m := open(t, o)
			push := func() ([]string, error) {
				t.Helper()
				main := fetch(t, m).Commit
				dev, _ := m.Branch("ledger/dev")
				return m.Push(t.Context(), append(after(main, counting("", 0, 60)...), after(dev, counting("ledger/dev", 0, 60)...)...))
			}
			loses := func() {
				t.Helper()
				if _, err := push(); !errors.Is(err, gitstate.ErrMoved) {
					t.Fatalf("push = %v", err)
				}
			}
			count := tally(t, u, faster("main"))
			loses()
			all := count()
			if all < 2*60*5 {
				t.Fatalf("the first push brought %d objects", all)
			}
			loses()
			if kind == "file" || kind == "http" {
				if n := count(); n > 60+61+2 { // main's commits, the root trees, two tips
					t.Errorf("the second push brought %d objects again, of %d", n, all)
				}
			}
			count = tally(t, u, "")
			before := m.Pushes()
			if strings.HasPrefix(kind, "pruned") {
				git(t, u.dir, "gc", "--quiet", "--prune=now")
			}
			ids, err := push()
			if err != nil {
				t.Fatal(err)
			}
			if u.tip("main") != ids[59] || u.tip("ledger/dev") != ids[119] {
				t.Error("the remote is elsewhere")
			}
			n, pushes := count(), m.Pushes()-before
			if strings.HasPrefix(kind, "pruned") {
				if n < 2*60*5 || pushes != 2 {
					t.Errorf("%d pushes, the last brought %d objects", pushes, n)
				}
			} else if n > 60+61+2 || pushes != 1 {
				t.Errorf("%d pushes, the last brought %d objects", pushes, n)
			}
			u.fsck()
			fsck(t, present(t, o.Dir)) // ours has all of it
			walk(t, snapshot(t, m, ids[30]))

			// A fresh one of other contents brings what it is made of.
			main := fetch(t, m).Commit
			if _, err := m.Push(t.Context(), after(main, counting("", 100, 60)...)); err != nil {
				t.Fatal(err)
			}
			if n := count(); n < 60*5 {
				t.Errorf("the last push brought %d objects", n)
			}
			u.fsck()
		})
	}
}

// A refusal by a rule throws away what was sent, so that all of it is sent
// again; and a remote that was seen to drop things is not believed any more.
func TestPushAfterARefusal(t *testing.T) {
	u := newUpstream(t, map[string]string{"a": "1"})
	m := open(t, gitstate.Options{URL: u.dir})
	push := func() error {
		t.Helper()
		_, err := m.Push(t.Context(), after(fetch(t, m).Commit, counting("", 0, 30)...))
		return err
	}
	check := func(err, want error, pushes uint64) {
		t.Helper()
		if !errors.Is(err, want) || m.Pushes() != pushes {
			t.Errorf("%v after %d pushes, want %v after %d", err, m.Pushes(), want, pushes)
		}
	}
	refuse := func() { hook(t, u, "pre-receive", "exit 1") }
	race := func() { hook(t, u, "pre-receive", faster("main")) }
	refuse()
	check(push(), gitstate.ErrRefused, 1)
	hook(t, u, "pre-receive", faster("main")+"\nexit 1")
	check(push(), gitstate.ErrMoved, 2)
	refuse()
	check(push(), gitstate.ErrRefused, 3)
	race()
	check(push(), gitstate.ErrMoved, 4)
	refuse()
	check(push(), gitstate.ErrRefused, 5)
	race()
	check(push(), gitstate.ErrMoved, 6)
	git(t, u.dir, "gc", "--quiet", "--prune=now")
	check(push(), gitstate.ErrMoved, 7) // the hook runs although objects are missing; there is no point in the second try then
	check(push(), gitstate.ErrMoved, 8)
	git(t, u.dir, "gc", "--quiet", "--prune=now")
	hook(t, u, "pre-receive", "true")
	check(push(), nil, 9)
	u.fsck()
}
