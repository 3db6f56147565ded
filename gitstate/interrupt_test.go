package gitstate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// lookedAt is a context that ends when it is looked at for so many times.
type lookedAt struct {
	context.Context
	most  int64
	looks atomic.Int64
}

func (l *lookedAt) Err() error {
	if l.looks.Add(1) > l.most {
		return context.Canceled
	}
	return nil
}

func (l *lookedAt) Done() <-chan struct{} { return nil }

// A daemon that is told to end does not wait until a large pack is indexed.
func TestPackIsInterrupted(t *testing.T) {
	repository := packedRepository(t)
	packs, err := filepath.Glob(filepath.Join(repository, "objects", "pack", "*.pack"))
	if err != nil || len(packs) == 0 {
		t.Fatal(packs, err)
	}
	data, err := os.ReadFile(packs[0])
	if err != nil {
		t.Fatal(err)
	}
	var both [2]*generation
	for i := range both {
		if both[i], err = createGeneration(t.TempDir(), "https://git.example/shop.git", "main"); err != nil {
			t.Fatal(err)
		}
	}
	g := both[0]
	files := func() string {
		list, err := filepath.Glob(filepath.Join(g.dir, "objects", "pack", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(list, " ")
	}
	all := &lookedAt{Context: t.Context(), most: 1 << 40}
	if err := both[1].addPack(all, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	objects := int64(data[10])<<8 | int64(data[11])
	if n := all.looks.Load(); n < objects { // each one's delta is looked up
		t.Fatalf("ctx is looked at %d times for %d objects", n, objects)
	}
	for tenth := range int64(10) {
		ctx := &lookedAt{Context: t.Context(), most: all.looks.Load() * tenth / 10}
		err := g.addPack(ctx, bytes.NewReader(data))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("after %d of %d looks: %v", ctx.most, all.looks.Load(), err)
		}
		if more := ctx.looks.Load() - ctx.most; more > 3 {
			t.Errorf("after %d of %d looks it goes on for %d", ctx.most, all.looks.Load(), more)
		}
		if left := files(); left != "" || len(g.fresh) != 0 {
			t.Errorf("after %d of %d looks there is %s", ctx.most, all.looks.Load(), left)
		}
	}
	if err := g.addPack(t.Context(), bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	gitIn(t, g.dir, "", "verify-pack", g.fresh[0]+".idx")
}

// A fetch that is interrupted leaves the mirror as it was, and the next one is right.
func TestFetchIsInterrupted(t *testing.T) {
	remote := filepath.Join(t.TempDir(), "remote.git")
	gitIn(t, "", "", "init", "--quiet", "--bare", "--initial-branch=main", remote)
	commits := func(from, to int) {
		var in strings.Builder
		for i := from; i < to; i++ {
			fmt.Fprintf(&in, "commit refs/heads/main\ncommitter A <a@example.com> %d +0000\ndata 1\nx\n", 1700000000+i)
			if i > 0 && i == from {
				in.WriteString("from refs/heads/main^0\n")
			}
			text := strings.Repeat(fmt.Sprintln("line", i/50), 50) + fmt.Sprintln("at", i)
			fmt.Fprintf(&in, "M 100644 inline f\ndata %d\n%s\n", len(text), text)
		}
		gitIn(t, remote, in.String(), "fast-import", "--quiet")
	}
	commits(0, 1)
	var mirrors []*Mirror
	for range 5 {
		m, err := Open(t.Context(), Options{URL: remote, Dir: filepath.Join(t.TempDir(), "mirror")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		mirrors = append(mirrors, m)
	}
	commits(1, 200)
	tip := strings.TrimSpace(gitIn(t, remote, "", "rev-parse", "main"))
	all := &lookedAt{Context: t.Context(), most: 1 << 40}
	if err := mirrors[0].update(all); err != nil {
		t.Fatal(err)
	}
	// The caller's own context, not the one of who waits for the remote: indexing may
	// take longer than that.
	if n := all.looks.Load(); n < 3*199 {
		t.Fatalf("ctx is looked at %d times", n)
	}
	for i, m := range mirrors[1:] {
		ctx := &lookedAt{Context: t.Context(), most: all.looks.Load() * int64(i+1) / 5}
		before := maps.Clone(m.present.refs)
		if err := m.update(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("after %d of %d looks: %v", ctx.most, all.looks.Load(), err)
		}
		if !maps.Equal(m.present.refs, before) {
			t.Errorf("the branches have moved: %v", m.present.refs)
		}
		for _, pattern := range []string{"tmp_*", "objects/pack/tmp_*"} {
			if left, _ := filepath.Glob(filepath.Join(m.present.dir, pattern)); len(left) > 0 {
				t.Errorf("it has left %v", left)
			}
		}
		got, err := m.Fetch(t.Context())
		if err != nil || got.Commit != tip || got.Previous != before["main"].String() {
			t.Errorf("the next fetch = %+v, %v", got, err)
		}
		if bad := gitIn(t, m.present.dir, "", "fsck", "--strict", "--full", "--no-dangling"); bad != "" {
			t.Errorf("git fsck: %s", bad)
		}
		if s, err := m.Snapshot(t.Context(), tip); err != nil {
			t.Error(err)
		} else if data, err := s.ReadFile("f"); err != nil || !strings.HasSuffix(string(data), "at 199\n") {
			t.Errorf("f = %q, %v", data, err)
		}
	}
}
