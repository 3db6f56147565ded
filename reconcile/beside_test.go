package reconcile_test

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/reconcile"
)

// BenchmarkPromoteBeside promotes 1,000 services that are verified in the same
// instant, while somebody else pushes to main every 100 ms.
func BenchmarkPromoteBeside(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		took, pushes := promoteBeside(b, 1000)
		b.ReportMetric(took.Seconds(), "s/op")
		b.ReportMetric(float64(pushes), "pushes/op")
		b.StartTimer()
	}
}

// Many that may enter in the same moment do so beside somebody who moves main
// all the time: each of them once, and no commit of the other's is lost.
func TestManyEnterBesideOthers(t *testing.T) {
	promoteBeside(t, 80)
}

// promoteBeside returns how long it took to promote n services, and how many
// pushes.
func promoteBeside(tb testing.TB, n int) (time.Duration, uint64) {
	// In dev nothing is verified before noon.
	noon := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	h := newRepository(tb, strings.Replace(manyServices(n, "1.0.0"), "- environment: dev\n", "- environment: dev\n  verify: [noon]\n", 1)+
		"-- policies/noon.yaml --\napiVersion: pinion.dev/v1\nkind: Policy\nwindow: {allow: \"Mon-Sun 12:00-24:00\"}\n")
	h.now = noon.Add(time.Hour)
	// Who asks git every few milliseconds takes a processor from what is measured.
	landed, all := 0, make(chan struct{})
	h.start(reconcile.ClerkOptions{Pushed: func(_, moves int, _ time.Duration) {
		if landed += moves; moves > 0 && landed == n {
			close(all)
		}
	}})
	count := func(branch, prefix string) (c int) {
		for _, s := range h.subjects(branch) {
			if strings.HasPrefix(s, prefix) {
				c++
			}
		}
		return c
	}
	reach := func(branch, prefix string, want int) {
		tb.Helper()
		h.until(fmt.Sprintf("%s has %d of %s", branch, want, prefix), func() string {
			if c := count(branch, prefix); c < want {
				return fmt.Sprint(c)
			}
			return ""
		})
	}
	reach("ledger/production", "verified", n)
	reach("ledger/dev", "verified", n)
	h.at(noon.Add(20 * time.Hour))
	h.change("bump all", func() { h.edit("environments/dev.yaml", ":1.0.0@", ":1.1.0@") })
	reach("ledger/dev", "completed", 2*n)
	w := startWriter(h)
	h.until("the other has begun", func() string {
		if w.count() < 10 {
			return fmt.Sprint(w.count())
		}
		return ""
	})
	begun, before, written := time.Now(), h.mirror.Pushes(), w.count()
	h.at(noon.Add(24 * time.Hour))
	select {
	case <-all:
	case <-time.After(patience):
		tb.Fatalf("not all is promoted after %s", patience)
	}
	took, pushes := time.Since(begun), h.mirror.Pushes()-before
	wrote := w.count() - written
	if lost := w.end(); lost > 0 {
		tb.Errorf("%d commits of the other are lost", lost)
	}
	tb.Logf("%s and %d pushes, beside %d of the other", took, pushes, wrote)
	reach("ledger/production", "verified", 2*n)
	h.settled()
	if c := count("main", "promote(production)"); c != n {
		tb.Errorf("%d promotions of %d services", c, n)
	}
	h.sound()
	h.stop()
	return took, pushes
}

// writer pushes a commit to main every 100 ms, as a person with a script does, and
// right behind the last where that took longer.
type writer struct {
	h    *house
	stop context.CancelFunc
	wait sync.WaitGroup

	mu  sync.Mutex // guards ids
	ids []string
}

func startWriter(h *house) *writer {
	ctx, cancel := context.WithCancel(context.Background())
	w := &writer{h: h, stop: cancel}
	clone := h.TempDir()
	h.git("clone", "-q", "--bare", h.remote, clone)
	run := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", clone, "-c", "user.name=Writer", "-c", "user.email=writer@shop.example"}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	once := func(n int) (string, error) {
		if _, err := run("fetch", "-q", h.remote, "main"); err != nil {
			return "", err
		}
		id, err := run("commit-tree", "FETCH_HEAD^{tree}", "-p", "FETCH_HEAD", "-m", fmt.Sprintf("Write %d", n))
		if err != nil {
			return "", err
		}
		_, err = run("push", "-q", h.remote, id+":refs/heads/main")
		return id, err
	}
	w.wait.Go(func() {
		const pause = 100 * time.Millisecond
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for ctx.Err() == nil {
				id, err := once(n)
				if err != nil {
					continue
				}
				w.mu.Lock()
				w.ids = append(w.ids, id)
				w.mu.Unlock()
				break
			}
		}
	})
	return w
}

func (w *writer) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.ids)
}

// end stops the writer, and returns how many of its commits are not on main.
func (w *writer) end() (lost int) {
	w.stop()
	w.wait.Wait()
	for _, id := range w.ids {
		if _, err := w.h.tryGit("--git-dir="+w.h.remote, "merge-base", "--is-ancestor", id, "main"); err != nil {
			lost++
		}
	}
	return lost
}
