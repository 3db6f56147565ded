package gitstate_test

import (
	"errors"
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

// What earlier processes have left is merged before the mirror is cloned anew for it;
// and what comes with each fetch, since its branch was rewritten, is there once.
func TestPacksOfEarlierProcesses(t *testing.T) {
	t.Parallel()
	u := newUpstream(t, map[string]string{"a": "1"})
	o := gitstate.Options{URL: u.dir, Dir: filepath.Join(t.TempDir(), "mirror"), MaxPacks: 12}
	packs := func() int {
		names, _ := filepath.Glob(filepath.Join(present(t, o.Dir), "objects", "pack", "*.pack"))
		return len(names)
	}
	most, first := 0, ""
	for n := range 40 {
		u.commit("main", fmt.Sprint(n), map[string]string{"n": fmt.Sprint(n)})
		m, err := gitstate.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		tip := fetch(t, m)
		walk(t, snapshot(t, m, tip.Commit))
		m.Close()
		if most = max(most, packs()); first == "" {
			first = present(t, o.Dir)
		}
	}
	if most > 13 || present(t, o.Dir) != first {
		t.Errorf("there were %d packs, and it is in %s now, which was %s", most, present(t, o.Dir), first)
	}
	fsck(t, present(t, o.Dir))
	m := open(t, o)
	tip := u.tip("main")
	git(t, u.dir, "update-ref", "refs/heads/main", tip+"~3")
	forced := u.commit("main", "Instead", map[string]string{"a": "2", "b": "3", "c/d": "4"})
	before := packs()
	for range 20 {
		if _, err := m.Fetch(t.Context()); !errors.Is(err, gitstate.ErrRewritten) {
			t.Fatal(err)
		}
	}
	if n := packs(); n > before+1 {
		t.Errorf("of %d packs there are %d, since main is at %s", before, n, forced)
	}
}

// A branch may be another name of one.
func TestBranchIsASymbolicReference(t *testing.T) {
	u := newUpstream(t, map[string]string{"a": "1"})
	git(t, u.dir, "update-ref", "refs/heads/master", "refs/heads/main")
	git(t, u.dir, "update-ref", "-d", "refs/heads/main")
	git(t, u.dir, "symbolic-ref", "refs/heads/main", "refs/heads/master")
	m := open(t, gitstate.Options{URL: u.dir})
	if tip, _ := m.Tip(); tip != u.tip("master") {
		t.Errorf("it is at %s", tip)
	}
	next := u.commit("master", "Two", map[string]string{"a": "2"})
	if tip := fetch(t, m); tip.Commit != next {
		t.Errorf("it is at %s", tip.Commit)
	}
}
