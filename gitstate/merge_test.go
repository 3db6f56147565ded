package gitstate_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/gitstate"
)

// Large pushes leave few packs, in which all is there.
func TestPacksAreMerged(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, map[string]string{"a": "1"})
	dir := filepath.Join(t.TempDir(), "mirror")
	m := open(t, gitstate.Options{URL: u.dir, Dir: dir})
	const pushes, each = 9, 40
	tip := ""
	var first string
	for n := range pushes {
		var changes []gitstate.Change
		for i := range each {
			expected := ""
			if i == 0 {
				expected = tip
			}
			c := change(expected, "entry", map[string]string{fmt.Sprintf("s%d", i%7): fmt.Sprint(n*each + i)})
			c.Branch = "ledger/dev"
			changes = append(changes, c)
		}
		ids, err := m.Push(t.Context(), changes)
		if err != nil {
			t.Fatal(err)
		}
		if tip = ids[each-1]; first == "" {
			first = ids[0]
		}
		// What was read before stays readable, and so does what was pushed long ago.
		for _, id := range []string{first, tip} {
			s, err := m.Snapshot(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.ReadFile("s0"); err != nil {
				t.Fatalf("push %d: %s: %v", n, id, err)
			}
		}
	}
	generations, err := filepath.Glob(filepath.Join(dir, "git-*"))
	if err != nil || len(generations) != 1 {
		t.Fatalf("there are %v (%v)", generations, err)
	}
	// The clone's and seven pushes' are one.
	packs, _ := filepath.Glob(filepath.Join(generations[0], "objects", "pack", "*.pack"))
	indices, _ := filepath.Glob(filepath.Join(generations[0], "objects", "pack", "*.idx"))
	if len(packs) != 3 || len(indices) != len(packs) {
		t.Errorf("after %d pushes there are %d packs and %d indices", pushes, len(packs), len(indices))
	}
	for _, args := range [][]string{{"fsck", "--full", "--strict"}, {"rev-list", "--count", tip}} {
		out, err := exec.Command("git", append([]string{"-C", generations[0]}, args...)...).CombinedOutput()
		if err != nil || args[0] == "rev-list" && strings.TrimSpace(string(out)) != fmt.Sprint(pushes*each) {
			t.Errorf("git %v: %v\n%.2000s", args, err, out)
		}
	}
	m.Close()
	again := open(t, gitstate.Options{URL: u.dir, Dir: dir})
	if at, _ := again.Branch("ledger/dev"); at != tip {
		t.Errorf("opened again it is at %s, not %s", at, tip)
	}
	u.fsck()
}
