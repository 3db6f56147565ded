//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/internal/devtest"
)

// process is one process of this machine; a later one with its number is
// another.
type process struct{ pid, began string }

// children returns the processes that a process has started.
func children(pid int) []process {
	var found []process
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		p, parent := readProcess(stat)
		if parent == strconv.Itoa(pid) {
			found = append(found, p)
		}
	}
	return found
}

// readProcess reads a file /proc/PID/stat.
func readProcess(stat string) (p process, parent string) {
	data, err := os.ReadFile(stat)
	if err != nil {
		return p, ""
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndex(text, ")")+1:])
	if len(fields) < 20 || fields[0] == "Z" {
		return p, ""
	}
	return process{filepath.Base(filepath.Dir(stat)), fields[19]}, fields[1]
}

// alive returns those that have not ended.
func alive(all []process) []process {
	var left []process
	for _, p := range all {
		if now, _ := readProcess("/proc/" + p.pid + "/stat"); now == p {
			left = append(left, p)
		}
	}
	return left
}

// The daemon is killed again and again, at a random moment or in the middle of
// a random request, while pins are bumped.
func TestDaemonIsKilled(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("PINION_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("again with: PINION_TEST_SEED=%d", seed)
		}
	})
	random := rand.New(rand.NewPCG(seed, 0))

	names := []string{"api", "db", "web"}
	w := newWorld(t, shop(names...))
	remote := w.remote
	want, minor := map[string]wanted{}, map[string]int{}
	for _, n := range names {
		want[n] = wanted{"1.0.0", w.git("rev-parse", "HEAD")}
	}
	p := devtest.NewProxy(t, w.kubeconfig)
	w.kubeconfig = p.Kubeconfig
	var orphans []process
	kept := t.TempDir()
	for range 30 {
		data := kept
		if random.IntN(3) == 0 {
			data = t.TempDir()
		}
		bump := func() {
			for _, n := range names {
				if random.IntN(2) == 0 {
					from, to := fmt.Sprintf("1.%d.0", minor[n]), fmt.Sprintf("1.%d.0", minor[n]+1)
					minor[n]++
					want[n] = wanted{to, w.bump(n, from, to)}
				}
			}
		}
		if random.IntN(2) == 0 {
			bump()
		}
		d := w.daemon(data)
		killed := make(chan struct{})
		kill := sync.OnceFunc(func() {
			orphans = append(orphans, children(d.cmd.Process.Pid)...)
			d.cmd.Process.Kill()
			close(killed)
		})
		var mu sync.Mutex
		count, at := 0, 1+random.IntN(60)
		p.Do(func(rw http.ResponseWriter, r *http.Request) bool {
			mu.Lock()
			defer mu.Unlock()
			if count++; count == at {
				kill() // the request still goes through
			}
			return false
		})
		timer := time.AfterFunc(time.Duration(random.Int64N(int64(time.Second))), kill)
		bump()
		select {
		case <-killed:
		case <-time.After(patience):
			t.Fatal("nobody has killed the daemon")
		}
		timer.Stop()
		<-d.ended
		p.Do(nil)
	}
	d := w.daemon(kept)
	w.shows(want)
	d.line(0, "[3/3 done]")
	w.until("no worker is left behind", func(context.Context) string {
		if left := alive(orphans); len(left) > 0 {
			return fmt.Sprint(left)
		}
		return ""
	})
	if len(orphans) == 0 {
		t.Error("no killed daemon had a worker")
	}
	devtest.Fsck(t, remote)
}
