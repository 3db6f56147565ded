package gitstate_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/pinion-cd/pinion/gitstate"
)

// versions are the contents of a file, one after the other.
func versions(n int) []*gitstate.Blob {
	var list []*gitstate.Blob
	var last *gitstate.Blob
	for i := range n {
		last = gitstate.NewBlob([]byte(noise(8000)+fmt.Sprintf("pin: %d\n", i)+noise(9000)), last)
		list = append(list, last)
	}
	return list
}

// Files and folders that are sent ahead with another branch's push are left out
// of the push that needs them, and are sent all the same where the remote has
// dropped them.
func TestPushSendsAhead(t *testing.T) {
	const n = 60
	for _, kind := range []string{"file", "http", "strict", "pruned"} {
		t.Run(kind, func(t *testing.T) {
			u := newUpstream(t, map[string]string{"a": "1"})
			o := gitstate.Options{URL: u.dir, Dir: filepath.Join(t.TempDir(), "m")}
			switch kind {
			case "http":
				o.URL = serveHTTP(t, u, false, "", "").url
			case "strict":
				git(t, u.dir, "config", "receive.fsckObjects", "true")
			}
			m := open(t, o)
			blobs := versions(n)
			main := func() []gitstate.Change {
				tip := fetch(t, m).Commit
				var list []gitstate.Change
				for i, b := range blobs {
					c := step("", fmt.Sprintf("pin %d", i), nil)
					c.Blobs = map[string]*gitstate.Blob{"environments/dev.yaml": b}
					list = append(list, c)
				}
				return after(tip, list...)
			}
			count := tally(t, u, "")
			ahead := main()
			if _, err := m.PushAhead(t.Context(), counting("ledger/dev", 0, 1), func() []gitstate.Change { return ahead }); err != nil {
				t.Fatal(err)
			}
			if got := count(); got < 3*n { // a file, its folder, and the one above
				t.Fatalf("%d objects were sent ahead of %d", got, n)
			}
			if u.tip("main") != fetch(t, m).Commit || u.tip("ledger/dev") == "" {
				t.Fatal("what was sent ahead has moved a branch")
			}
			if kind == "pruned" {
				git(t, u.dir, "gc", "--quiet", "--prune=now")
			}
			count = tally(t, u, faster("main"))
			if _, err := m.Push(t.Context(), main()); !errors.Is(err, gitstate.ErrMoved) {
				t.Fatal(err)
			}
			if got := count(); kind != "pruned" && got > n+1 {
				t.Errorf("%d objects were sent, and all but %d commits were there", got, n)
			}
			hook(t, u, "pre-receive", "true")
			ids, err := m.Push(t.Context(), main())
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range []int{0, n - 1} {
				if got := git(t, u.dir, "rev-parse", ids[i]+":environments/dev.yaml"); got != blobs[i].ID() {
					t.Errorf("commit %d has %s, want %s", i, got, blobs[i].ID())
				}
			}
			u.fsck()
			fsck(t, present(t, o.Dir))
		})
	}
}
