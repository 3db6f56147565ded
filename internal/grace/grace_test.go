package grace

import (
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

// Each case is a process of its own, for the grace is had once.
func TestMain(m *testing.M) {
	if life := lives[os.Getenv("GRACE")]; life != nil {
		os.Stdout.WriteString(life())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// collected tells how often what is there was collected.
func collected() string {
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	if s.NumGC == 0 {
		return "never"
	}
	return "collected"
}

var kept [][]byte

// allocate holds so many MiB.
func allocate(n int) {
	for range n {
		kept = append(kept, make([]byte, 1<<20))
	}
}

// after waits until the first collection was noticed.
func after() string {
	for {
		runtime.GC()
		runtime.Gosched()
		mu.Lock()
		over := !begun
		mu.Unlock()
		if over {
			break
		}
	}
	was := debug.SetGCPercent(-1)
	if debug.SetMemoryLimit(-1) == bytes {
		return "still limited"
	}
	return strings.Repeat("+", was/50)
}

var lives = map[string]func() string{
	"small":    func() string { allocate(32); return collected() },
	"large":    func() string { allocate(80); return collected() },
	"after":    after,
	"percent":  func() string { Percent(400); return after() },
	"late":     func() string { after(); Percent(150); return after() },
	"limited":  func() string { debug.SetMemoryLimit(1 << 30); debug.SetGCPercent(200); return after() },
	"operator": func() string { allocate(32); return collected() },
}

func TestGrace(t *testing.T) {
	for life, want := range map[string]string{
		"small": "never", "large": "collected", "after": "++", "percent": "++++++++", "late": "+++", "limited": "++++", "operator": "collected",
	} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "GRACE="+life)
		if life == "operator" {
			cmd.Env = append(cmd.Env, "GOGC=100")
		}
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != want {
			t.Errorf("%s: %q, %v; want %q", life, out, err, want)
		}
	}
}
