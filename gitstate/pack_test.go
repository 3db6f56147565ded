package gitstate

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
)

// Contents that begin and end alike, of all lengths at which a number needs
// one more byte.
func FuzzDelta(f *testing.F) {
	for _, n := range []int{0, 1, 2, 3, 4, 5, 127, 128, 255, 256, 1023, 1024, 1025, 0xfffe, 0xffff, 0x10000, 0x1ffff, 0x123456} {
		f.Add(n, 0, n, "", "")
		f.Add(n, 10, 10, "ab", "abab")
		f.Add(10, n, 10, "x", strings.Repeat("y", 300))
		f.Add(n, 300, n, strings.Repeat("z", 1000), "")
	}
	f.Fuzz(func(t *testing.T, head, middle, foot int, from, to string) {
		r := rand.New(rand.NewPCG(1, 2))
		random := func(n int) []byte {
			b := make([]byte, min(max(n, 0), 1<<21))
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			return b
		}
		h, m, e := random(head), random(middle), random(foot)
		base := bytes.Join([][]byte{h, m, []byte(from), e}, nil)
		target := bytes.Join([][]byte{h, []byte(to), m, e}, nil)
		for _, c := range [][2][]byte{{base, target}, {target, base}} {
			d := makeDelta(c[0], c[1])
			got, err := packfile.PatchDelta(c[0], d)
			if len(c[0]) == 0 || len(c[1]) == 0 { // go-git takes these for damaged
				continue
			}
			if err != nil || !bytes.Equal(got, c[1]) {
				t.Errorf("delta from %d to %d bytes: %v", len(c[0]), len(c[1]), err)
			}
		}
	})
}

// versions are n versions of a file of many lines.
func versions(n int) []*made {
	var lines []string
	for i := range 3000 {
		lines = append(lines, fmt.Sprintf("pin %d: %x", i, rand.Uint64()))
	}
	var list []*made
	var last *made
	for i := range n {
		lines[i*7%len(lines)] += fmt.Sprint(i)
		data := []byte(strings.Join(lines, "\n"))
		last = &made{id: identify(plumbing.BlobObject, data), kind: plumbing.BlobObject, data: data, prev: last}
		list = append(list, last)
	}
	return list
}

// What we write is what git reads, and the index is the one that git would
// write.
func TestPack(t *testing.T) {
	all := versions(180)
	for name, c := range map[string]struct {
		objects []*made
		near    bool
	}{
		"near":     {all, true},
		"by id":    {all, false},
		"empty":    {nil, true},
		"one":      {all[:1], true},
		"tail":     {all[100:], true}, // the base of the first is not in it
		"scarce":   {append(append([]*made(nil), all[:20]...), all[40:]...), true},
		"no bytes": {[]*made{{id: identify(plumbing.BlobObject, nil), kind: plumbing.BlobObject}, all[0]}, true},
	} {
		p := newPack(c.objects, c.near)
		dir := t.TempDir()
		file := filepath.Join(dir, "x.pack")
		if err := os.WriteFile(file, p.data, 0o644); err != nil {
			t.Fatal(err)
		}
		run := func(args ...string) string {
			cmd := exec.Command("git", args...)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s: git %v: %v: %s", name, args, err, out)
			}
			return string(out)
		}
		run("init", "-q")
		if len(c.objects) > 0 {
			run("index-pack", "--strict", "-o", file[:len(file)-5]+".idx", file)
			if want, err := os.ReadFile(file[:len(file)-5] + ".idx"); err != nil {
				t.Fatal(err)
			} else if got, err := encodeIndex(p.own("", 0), p.sum); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: the index differs from git's: %v", name, err)
			}
			out := run("verify-pack", "-v", file)
			if strings.Count(out, " blob ") != len(c.objects) {
				t.Errorf("%s: git sees %s", name, out)
			}
			deepest := 0
			for _, m := range regexp.MustCompile(`(?m)^[0-9a-f]{40} blob +\d+ \d+ \d+ (\d+) [0-9a-f]{40}$`).FindAllStringSubmatch(out, -1) {
				n, _ := strconv.Atoi(m[1])
				deepest = max(deepest, n)
			}
			if want := min(50, len(c.objects)-1); deepest > 50 || deepest < want-1 && len(c.objects) > 2 {
				t.Errorf("%s: deltas are %d deep", name, deepest)
			}
		}
		if n, _, err := checkPack(bytes.NewReader(p.data), int64(len(p.data))); n != uint32(len(c.objects)) || err != nil {
			t.Errorf("%s: %d objects, %v", name, n, err)
		}
	}
	// Small: it is deltas indeed.
	if n := len(newPack(all, true).data); n > 6*len(all[0].data) {
		t.Errorf("%d bytes for 180 versions of %d", n, len(all[0].data))
	}
}

// However many packs are made, few are left, each as git wants it, and none has
// lost anything, or has anything twice.
func TestMerge(t *testing.T) {
	t.Parallel()
	g, err := createGeneration(t.TempDir(), "x", "main")
	if err != nil {
		t.Fatal(err)
	}
	ids := map[plumbing.Hash]bool{}
	keep := func(objects []*made) {
		t.Helper()
		p := newPack(objects, true)
		own := p.own(g.packName(p.sum), 0)
		if err := g.writePack(p.data, own); err != nil {
			t.Fatal(err)
		}
		g.own = append(g.own, own)
		useless, err := g.merge()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range useless {
			if err := os.Remove(name); err != nil {
				t.Error(err)
			}
		}
		for _, o := range objects {
			ids[o.id] = true
		}
	}
	blob := func(text string, prev *made) *made {
		return &made{id: identify(plumbing.BlobObject, []byte(text)), kind: plumbing.BlobObject, data: []byte(text), prev: prev}
	}
	count := func() int {
		names, _ := filepath.Glob(filepath.Join(g.dir, "objects/pack/*.pack"))
		return len(names)
	}
	lines := strings.Repeat("a line\n", 50)
	for n := range mergeAt * mergeAt {
		first := blob(lines+fmt.Sprint(n), nil)
		keep([]*made{first, blob(lines+fmt.Sprint(n)+"!", first)})
	}
	if n := count(); n != 1 {
		t.Errorf("%d packs are left", n)
	}
	// What several have is the base of some, and between others and theirs.
	shared := blob(lines+"shared", nil)
	for n := range mergeAt {
		first := blob(fmt.Sprint(n, lines), nil)
		keep([]*made{first, shared, blob(fmt.Sprint(n, lines, strings.Repeat(" more", n*n*n+1)), first), blob(lines+"shared"+fmt.Sprint(n), shared)})
	}
	if n := count(); n != 2 || len(g.own) != 2 || len(g.own[1].ids) != 3*mergeAt+1 {
		t.Errorf("of packs that share an object %d are left, and %d can be merged: %d objects", n-1, len(g.own)-1, len(g.own[1].ids))
	}
	for range mergeAt {
		keep([]*made{blob("the same, again and again", nil)})
	}
	if n := count(); n != 3 || len(g.own) != 3 {
		t.Errorf("of packs that have the same %d are left, and %d can be merged", n-2, len(g.own)-2)
	}
	for _, o := range g.own {
		if out, err := exec.Command("git", "verify-pack", o.name+".idx").CombinedOutput(); err != nil {
			t.Errorf("git verify-pack: %v\n%s", err, out)
		}
	}
	out, err := exec.Command("git", "-C", g.dir, "fsck", "--full", "--strict").CombinedOutput()
	if err != nil {
		t.Errorf("git fsck: %v\n%s", err, out)
	}
	out, err = exec.Command("git", "-C", g.dir, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)").CombinedOutput()
	if n := strings.Count(string(out), "\n"); err != nil || n != len(ids) {
		t.Errorf("git sees %d objects of %d: %v", n, len(ids), err)
	}
	// What is damaged is not passed on.
	g.own = nil
	for n := range mergeAt - 1 {
		keep([]*made{blob(fmt.Sprintf("sound %d", n), nil)})
	}
	if err := os.Truncate(g.own[3].name+".pack", 40); err != nil {
		t.Fatal(err)
	}
	p := newPack([]*made{blob("the last", nil)}, true)
	g.own = append(g.own, p.own(g.packName(p.sum), 0))
	if useless, err := g.merge(); err == nil || !strings.Contains(err.Error(), "damaged") || len(useless) > 0 {
		t.Errorf("a damaged pack is merged: %v, %v", useless, err)
	}
	// What an earlier process has left is recalled, but not by an index that is wrong.
	g.own = nil
	if g.recall(); len(g.own) < mergeAt {
		t.Errorf("%d packs are recalled", len(g.own))
	}
	recalled := g.own[0]
	index, err := os.ReadFile(recalled.name + ".idx")
	if err != nil {
		t.Fatal(err)
	}
	copy(index[8+4*255:], "\xff\xff\xff\xff") // so many objects
	for _, data := range [][]byte{index, index[:40], nil} {
		if err := os.WriteFile(recalled.name+".idx", data, 0o644); err != nil {
			t.Fatal(err)
		}
		g.own = nil
		if g.recall(); g.owns(recalled.name) {
			t.Errorf("a pack is recalled by a wrong index of %d bytes", len(data))
		}
	}
	for _, wrong := range [][]uint64{{1 << 40}, {0, 12}, {12, 11}, {1 << 63}} {
		g.own = nil
		for n := range mergeAt - 1 {
			keep([]*made{blob(fmt.Sprint("indexed ", wrong, n), nil), blob(fmt.Sprint("beside ", wrong, n), nil)})
		}
		copy(g.own[3].offsets, wrong)
		p := newPack([]*made{blob(fmt.Sprint("the last ", wrong), nil)}, true)
		g.own = append(g.own, p.own(g.packName(p.sum), 0))
		if useless, err := g.merge(); err == nil || !strings.Contains(err.Error(), "index") || len(useless) > 0 {
			t.Errorf("a pack is merged by the places %v: %v, %v", wrong, useless, err)
		}
	}
}
