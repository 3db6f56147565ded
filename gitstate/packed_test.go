package gitstate

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
)

// packedRepository is a bare repository whose objects are in two packs.
func packedRepository(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "packed.git")
	gitIn(t, "", "", "init", "--quiet", "--bare", dir)
	random := rand.New(rand.NewPCG(1, 2))
	text := make([]string, 3000)
	for i := range text {
		text[i] = fmt.Sprintf("line %d: %x", i, random.Uint64())
	}
	for part := range 2 {
		var in strings.Builder
		for i := range 80 {
			text[random.IntN(len(text))] = fmt.Sprintf("changed in %d: %x", i, random.Uint64())
			body, message := strings.Join(text, "\n"), fmt.Sprintf("Commit %d of %d", i, part)
			fmt.Fprintf(&in, "commit refs/heads/part%d\ncommitter A <a@example.com> %d +0000\ndata %d\n%s\n", part, 1700000000+i, len(message), message)
			fmt.Fprintf(&in, "M 100644 inline folder/file\ndata %d\n%s\nM 100644 inline f%d\ndata 2\n%02d\n", len(body), body, i, i)
		}
		gitIn(t, dir, in.String(), "-c", "fastimport.unpackLimit=1", "fast-import", "--quiet")
	}
	return dir
}

func gitIn(t testing.TB, dir, in string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(in)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %v: %v", args, err)
	}
	return string(out)
}

// What is read from packs is what git has put there: whole objects, and deltas
// that name what they are made from by the distance, or by the id.
func TestPackedObjectsAreRead(t *testing.T) {
	dir := packedRepository(t)
	check := func(t *testing.T) {
		p := newPacks(dir)
		defer p.close()
		n, deltas := 0, 0
		for line := range strings.Lines(gitIn(t, dir, "", "cat-file", "--batch-check=%(objectname) %(objecttype) %(objectsize) %(deltabase)", "--batch-all-objects")) {
			f := strings.Fields(line)
			if strings.Trim(f[3], "0") != "" {
				deltas++
			}
			kind, data, err := p.get(plumbing.NewHash(f[0]))
			if err != nil || kind.String() != f[1] || strconv.Itoa(len(data)) != f[2] || plumbing.ComputeHash(kind, data).String() != f[0] {
				t.Fatalf("a %s of %d bytes, %v; want %s", kind, len(data), err, line)
			}
			n++
		}
		if n < 300 || deltas < 50 {
			t.Errorf("there are only %d objects, %d of them deltas", n, deltas)
		}
		if _, _, err := p.get(plumbing.NewHash("0123456789012345678901234567890123456789")); !errors.Is(err, plumbing.ErrObjectNotFound) {
			t.Errorf("an object that is not there: %v", err)
		}
	}
	t.Run("distance", check)
	gitIn(t, dir, "", "-c", "repack.useDeltaBaseOffset=false", "repack", "-adqf")
	t.Run("id", check)
	gitIn(t, dir, "", "-c", "pack.indexVersion=1", "repack", "-adqf")
	p := newPacks(dir)
	defer p.close()
	if _, _, err := p.get(plumbing.NewHash(gitIn(t, dir, "", "rev-parse", "part0"))); !errors.Is(err, plumbing.ErrObjectNotFound) {
		t.Errorf("an index of another version: %v", err)
	}
}

// In an index of many objects, each is found: also where the ids are not spread
// as those of objects are.
func TestIndexesAreSearched(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for name, first := range map[string]func() [2]byte{
		"even":  func() [2]byte { return [2]byte{byte(random.Uint32()), byte(random.Uint32())} },
		"heaps": func() [2]byte { return [2]byte{byte(random.IntN(2) * 255), byte(random.IntN(3) * 100)} },
	} {
		t.Run(name, func(t *testing.T) {
			ids := make([]plumbing.Hash, 50_000)
			for i := range ids {
				f := first()
				binary.BigEndian.PutUint64(ids[i][8:], random.Uint64())
				ids[i][0], ids[i][1] = f[0], f[1]
			}
			plumbing.HashesSort(ids)
			b := []byte("\xfftOc\x00\x00\x00\x02")
			for first := range 256 {
				n, _ := slices.BinarySearchFunc(ids, first+1, func(id plumbing.Hash, first int) int { return cmp.Compare(int(id[0]), first) })
				b = binary.BigEndian.AppendUint32(b, uint32(n))
			}
			for _, id := range ids {
				b = append(b, id[:]...)
			}
			b = append(b, make([]byte, len(ids)*4)...)
			for i := range ids {
				b = binary.BigEndian.AppendUint32(b, uint32(i))
			}
			b = append(b, make([]byte, 40)...)
			file := filepath.Join(t.TempDir(), "pack-1.idx")
			for _, f := range []string{file, strings.TrimSuffix(file, ".idx") + ".pack"} {
				if err := os.WriteFile(f, b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			f, _, err := openPack(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.index.Close()
			defer f.data.Close()
			for i, id := range ids {
				if at, err := f.find(id); err != nil || at != int64(i) {
					t.Fatalf("%s is at %d, %v; want %d", id, at, err, i)
				}
				id[19]++
				if at, err := f.find(id); err != nil || at >= 0 && !slices.Contains(ids, id) {
					t.Fatalf("%s is at %d, %v; want nothing", id, at, err)
				}
			}
		})
	}
}

// A damaged pack is an error, never a panic, and never a wrong object.
func TestDamagedPacksAreLeftToOthers(t *testing.T) {
	dir := packedRepository(t)
	var ids []plumbing.Hash
	for line := range strings.Lines(gitIn(t, dir, "", "rev-list", "--objects", "--all", "--max-count=20")) {
		ids = append(ids, plumbing.NewHash(line[:40]))
	}
	files, err := filepath.Glob(filepath.Join(dir, "objects", "pack", "pack-*.*"))
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(3, 4))
	refused := 0
	for _, file := range files {
		if ext := filepath.Ext(file); ext != ".idx" && ext != ".pack" {
			continue
		}
		sound, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, 0o644); err != nil {
			t.Fatal(err)
		}
		for round := range 60 {
			data := bytes.Clone(sound)
			if round%4 == 0 {
				data = data[:random.IntN(len(data))]
			}
			for range 1 + len(data)/300 {
				if len(data) > 0 {
					data[random.IntN(len(data))] ^= byte(1 + random.IntN(255))
				}
			}
			if err := os.WriteFile(file, data, 0o644); err != nil {
				t.Fatal(err)
			}
			p := newPacks(dir)
			for _, id := range ids {
				kind, content, err := p.get(id)
				if err != nil {
					refused++
				} else if plumbing.ComputeHash(kind, content) != id {
					t.Fatalf("%s is not what was read for it", id)
				}
			}
			p.close()
		}
		if err := os.WriteFile(file, sound, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if refused == 0 {
		t.Error("no damage was found")
	}
}

func FuzzApplyDelta(f *testing.F) {
	base := []byte(strings.Repeat("0123456789abcdef", 20))
	f.Add(base, makeDelta(base, append([]byte("x"), base...)))
	f.Add(base, []byte{})
	f.Add(base, []byte("\xc0\x02\x90\x80"))
	f.Fuzz(func(t *testing.T, base, delta []byte) {
		if out, err := applyDelta(nil, base, delta); err == nil && len(out) > mostPacked {
			t.Errorf("%d bytes", len(out))
		}
	})
}

func TestDeltasLeadBack(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		base := make([]byte, random.IntN(200_000))
		for i := range base {
			base[i] = byte(random.Uint32())
		}
		target := bytes.Clone(base)
		if len(target) > 0 {
			target[random.IntN(len(target))]++
		}
		target = append(target, "more"...)
		got, err := applyDelta(nil, base, makeDelta(base, target))
		if err != nil || !bytes.Equal(got, target) {
			t.Fatalf("%d bytes, %v; want %d", len(got), err, len(target))
		}
	}
}

// A file that is changed in several places is sent as these changes.
func TestDeltasOfSeveralChangesAreSmall(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for range 100 {
		base := make([]byte, 50_000+random.IntN(100_000))
		for i := range base {
			base[i] = byte(random.Uint32())
		}
		target := bytes.Clone(base)
		for range 5 {
			at := random.IntN(len(target))
			end := min(len(target), at+random.IntN(100))
			target = slices.Replace(target, at, end, bytes.Repeat([]byte("new"), random.IntN(40))...)
		}
		d := makeDelta(base, target)
		if got, err := applyDelta(nil, base, d); err != nil || !bytes.Equal(got, target) || len(d) > 1000 {
			t.Fatalf("%d bytes, %v; want %d, by a delta of at most 1000, not %d", len(got), err, len(target), len(d))
		}
	}
}
