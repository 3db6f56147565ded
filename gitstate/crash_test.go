//go:build unix

package gitstate_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/gitstate"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("GITSTATE_TEST_COUNT"); dir != "" {
		chain, _ := strconv.Atoi(os.Getenv("GITSTATE_TEST_CHAIN"))
		fmt.Fprintln(os.Stderr, count(dir, os.Getenv("GITSTATE_TEST_URL"), chain))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// count opens a mirror and then counts in a file for ever, one commit for
// each number and so many in a push, going by nothing but what the tip says.
func count(dir, url string, chain int) error {
	ctx := context.Background()
	m, err := gitstate.Open(ctx, gitstate.Options{URL: url, Dir: dir, MaxPacks: 8})
	if err != nil {
		return err
	}
	for {
		tip, err := m.Fetch(ctx)
		if err != nil {
			return err
		}
		s, err := m.Snapshot(ctx, tip.Commit)
		if err != nil {
			return err
		}
		text, err := s.ReadFile("n")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		n, _ := strconv.Atoi(string(text))
		expected := tip.Commit
		var list []gitstate.Change
		for range chain {
			n++
			next := strconv.Itoa(n)
			list = append(list, change(expected, "n="+next, map[string]string{"n": next, "noise": noise(20_000 + n)}))
			expected = ""
		}
		if _, err := m.Push(ctx, list); err != nil && !errors.Is(err, gitstate.ErrMoved) && !errors.Is(err, gitstate.ErrUnknown) {
			return err
		}
	}
}

// A process that clones, fetches and commits is killed at some moment, again
// and again. What it leaves opens, and its commits are there once each.
func TestKilled(t *testing.T) { killed(t, 1) }

// The same with so many commits in a push that they are kept as a pack.
func TestKilledWithChains(t *testing.T) { killed(t, 50) }

func killed(t *testing.T, chain int) {
	program, err := os.Executable()
	must(t, err)
	u := newUpstream(t, big())
	git(t, u.dir, "config", "receive.autogc", "false") // it would go on behind our back, and repack under fsck
	dir := filepath.Join(t.TempDir(), "m")
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	rng := rand.New(rand.NewPCG(7, 11))
	for round := range rounds {
		if round%4 == 0 {
			os.Remove(filepath.Join(dir, "current")) // so that it clones
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rng.IntN(250))*time.Millisecond)
		cmd := exec.CommandContext(ctx, program)
		cmd.Env = append(os.Environ(), "GITSTATE_TEST_COUNT="+dir, "GITSTATE_TEST_URL="+u.dir, "GITSTATE_TEST_CHAIN="+strconv.Itoa(chain))
		var messages strings.Builder
		cmd.Stderr = &messages
		cmd.WaitDelay = 10 * time.Second // a git that it started may go on for a moment
		err := cmd.Run()
		cancel()
		if ctx.Err() == nil || messages.Len() > 0 {
			t.Fatalf("round %d: it ended by itself: %v: %s", round, err, &messages)
		}
		var log bytes.Buffer
		m, err := gitstate.Open(t.Context(), gitstate.Options{URL: u.dir, Dir: dir, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if strings.Contains(log.String(), "damaged") {
			t.Errorf("round %d: it left more than a copy that is not up to date: %s", round, &log)
		}
		tip, err := m.Fetch(t.Context())
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		walk(t, snapshot(t, m, tip.Commit))
		must(t, m.Close())
	}
	subjects := strings.Split(git(t, u.dir, "log", "--first-parent", "--format=%s", "main"), "\n")
	slices.Reverse(subjects)
	for i, s := range subjects[1:] {
		if s != fmt.Sprintf("n=%d", i+1) {
			t.Fatalf("commit %d is %q", i+1, s)
		}
	}
	t.Logf("%d commits", len(subjects)-1)
	if (len(subjects)-1)%chain != 0 {
		t.Errorf("a chain of %d is torn apart", chain)
	}
	if len(subjects) < 5 {
		t.Errorf("it never got anywhere: %q", subjects)
	}
	open(t, gitstate.Options{URL: u.dir, Dir: dir})
	if left, _ := filepath.Glob(filepath.Join(dir, "git-*")); len(left) != 1 {
		t.Errorf("old generations are left: %v", left)
	}
	for _, pattern := range []string{"tmp_*", "tmp_*", "objects/pack/tmp_*"} {
		if left, _ := filepath.Glob(filepath.Join(present(t, dir), pattern)); len(left) != 0 {
			t.Errorf("files are left: %v", left)
		}
	}
	u.fsck()
	fsck(t, present(t, dir))
}

// A process that is killed while it keeps a chain leaves one of these states
// behind: parts of the pack, the index alone, all of it with the branch where
// it was. Each of them opens, and catches up.
func TestKilledWhileKeepingAChain(t *testing.T) {
	u := newUpstream(t, map[string]string{"a": "1"})
	dir := filepath.Join(t.TempDir(), "m")
	o := gitstate.Options{URL: u.dir, Dir: dir}
	m := open(t, o)
	first, _ := m.Tip()
	packs := func() []string {
		names, _ := filepath.Glob(filepath.Join(present(t, dir), "objects/pack/pack-*.pack"))
		return names
	}
	before := packs()
	ids, err := m.Push(t.Context(), after(first, counting("", 0, 60)...))
	must(t, err)
	must(t, m.Close())
	found := slices.DeleteFunc(packs(), func(name string) bool { return slices.Contains(before, name) })
	if len(found) != 1 {
		t.Fatalf("the packs are %v", found)
	}
	pack, idx := found[0], strings.TrimSuffix(found[0], ".pack")+".idx"
	for name, files := range map[string]map[string]string{
		"begun":      {"tmp_index": idx},
		"index":      {filepath.Base(idx): idx},
		"index, tmp": {filepath.Base(idx): idx, "tmp_pack": pack},
		"both":       {filepath.Base(idx): idx, filepath.Base(pack): pack},
	} {
		o := gitstate.Options{URL: u.dir, Dir: filepath.Join(t.TempDir(), "m")}
		must(t, os.CopyFS(o.Dir, os.DirFS(dir)))
		to := filepath.Join(present(t, o.Dir), "objects/pack")
		must(t, os.Remove(filepath.Join(to, filepath.Base(pack))))
		must(t, os.Remove(filepath.Join(to, filepath.Base(idx))))
		for base, from := range files {
			data, err := os.ReadFile(from)
			must(t, err)
			if strings.HasPrefix(base, "tmp_") {
				data = data[:len(data)/2]
			}
			must(t, os.WriteFile(filepath.Join(to, base), data, 0o644))
		}
		must(t, os.WriteFile(filepath.Join(present(t, o.Dir), "refs/heads/main"), []byte(first+"\n"), 0o644))
		m := open(t, o)
		if tip, _ := m.Tip(); tip != first {
			t.Errorf("%s: it opens at %s", name, tip)
		}
		if tip := fetch(t, m); tip.Commit != ids[59] || tip.Previous != first {
			t.Errorf("%s: fetch = %+v", name, tip)
		}
		walk(t, snapshot(t, m, ids[30]))
		fsck(t, present(t, o.Dir))
		if left, _ := filepath.Glob(filepath.Join(to, "tmp_*")); len(left) != 0 {
			t.Errorf("%s: files are left: %v", name, left)
		}
		if left, _ := filepath.Glob(filepath.Join(o.Dir, "git-*")); len(left) != 1 || !strings.HasSuffix(left[0], "git-1") {
			t.Errorf("%s: it was cloned anew: %v", name, left)
		}
	}
}

// No file may grow: that is what a full disk looks like to us. It runs in a
// process of its own, since the limit is the process's.
func TestFullDisk(t *testing.T) {
	if os.Getenv("GITSTATE_TEST_FULL") == "" {
		program, err := os.Executable()
		must(t, err)
		cmd := exec.CommandContext(t.Context(), program, "-test.run=^TestFullDisk$", "-test.v")
		cmd.Env = append(os.Environ(), "GITSTATE_TEST_FULL=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	signal.Ignore(syscall.SIGXFSZ)
	var usual syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &usual))
	full := func(yes bool) {
		limit := usual
		if yes {
			limit.Cur = 4096
		}
		must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit))
	}

	u := newUpstream(t, big())
	o := gitstate.Options{URL: u.dir, Dir: filepath.Join(t.TempDir(), "m")}
	full(true)
	_, err := gitstate.Open(t.Context(), o)
	full(false)
	if err == nil || !strings.Contains(err.Error(), "make room on the volume") {
		t.Fatalf("open: %v", err)
	}
	m := open(t, o)
	tip, _ := m.Tip()
	for _, files := range []map[string]string{
		{"few": noise(100_000)}, // arrives as loose objects
		services(150),           // arrives as a pack
	} {
		next := u.commit("main", "big", files)
		full(true)
		_, err = m.Fetch(t.Context())
		full(false)
		if err == nil || !strings.Contains(err.Error(), "make room on the volume") {
			t.Errorf("fetch: %v", err)
		}
		if at, _ := m.Tip(); at != tip || read(t, snapshot(t, m, tip), "a") != "1" {
			t.Errorf("the mirror is at %s", at)
		}
		if left, _ := filepath.Glob(filepath.Join(present(t, o.Dir), "objects/pack/tmp_*")); len(left) != 0 {
			t.Errorf("files are left: %v", left)
		}
		if tip = fetch(t, m).Commit; tip != next {
			t.Errorf("tip = %s, want %s", tip, next)
		}
	}

	// The remote's disk: git gets our limit, too.
	c := change(tip, "ours", map[string]string{"ours": noise(8000)})
	full(true)
	id, err := m.Commit(t.Context(), c)
	full(false)
	if err == nil || errors.Is(err, gitstate.ErrMoved) || errors.Is(err, gitstate.ErrRefused) {
		t.Errorf("commit = %s, %v", id, err)
	}
	if u.tip("main") != tip {
		t.Error("the remote has moved")
	}
	id = mustCommit(t, m, c)
	if got := fetch(t, m); got.Commit != id {
		t.Errorf("fetch = %+v", got)
	}
	fsck(t, present(t, o.Dir))
}
