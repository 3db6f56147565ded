package worker_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinion-cd/pinion/render/worker"
)

// probe is set in a process that confines itself and then tries to get out.
const probe = "PINION_TEST_CONFINE"

func init() {
	if os.Getenv(probe) != "" {
		tryToGetOut()
		os.Exit(0)
	}
}

// attempts is what a confined process tries. What it needs for its own life
// must go on working.
var attempts = []struct {
	name    string
	allowed bool
	try     func() error
}{
	{"tcp", false, func() error { _, err := net.DialTimeout("tcp", "127.0.0.1:1", time.Second); return err }},
	{"udp", false, func() error { _, err := net.Dial("udp", "127.0.0.1:53"); return err }},
	{"unix", false, func() error { _, err := net.Dial("unix", "/run/x.sock"); return err }},
	{"listen", false, func() error { _, err := net.Listen("tcp", "127.0.0.1:0"); return err }},
	{"socketpair", false, func() error { _, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err }},
	{"read a file", false, func() error { _, err := os.ReadFile("/proc/self/status"); return err }},
	{"write a file", false, func() error { return os.WriteFile(os.TempDir()+"/pinion-confined", nil, 0o600) }},
	{"remove a file", false, func() error { return unix.Unlink("/tmp/pinion-nothing") }},
	{"make a folder", false, func() error { return os.Mkdir("/tmp/pinion-confined.d", 0o700) }},
	{"run a program", false, func() error { return exec.Command("/bin/true").Run() }},
	{"execve", false, func() error { return unix.Exec("/bin/true", []string{"true"}, nil) }},
	{"fork", false, func() error {
		pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno == 0 && pid == 0 {
			syscall.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
		}
		if errno != 0 {
			return errno
		}
		return nil
	}},
	{"signal another", false, func() error { return unix.Kill(os.Getppid(), 0) }},
	{"signal its thread", false, func() error { return unix.Tgkill(os.Getppid(), os.Getppid(), 0) }},
	{"trace", false, func() error { return unix.PtraceAttach(os.Getppid()) }},
	{"io_uring", false, func() error {
		if _, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0); errno != 0 {
			return errno
		}
		return nil
	}},
	{"namespaces", false, func() error { return unix.Unshare(unix.CLONE_NEWUSER) }},
	{"memory file", false, func() error { _, err := unix.MemfdCreate("x", 0); return err }},
	{"raise limits", false, func() error {
		return unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
	}},
	{"signal itself", true, func() error { return unix.Kill(os.Getpid(), 0) }},
	{"threads", true, func() error {
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { runtime.LockOSThread(); time.Sleep(time.Millisecond) })
		}
		wg.Wait()
		return nil
	}},
	{"memory", true, func() error {
		b := make([]byte, 100<<20)
		b[len(b)-1] = 1
		runtime.GC()
		return nil
	}},
	{"time", true, func() error { _ = time.Now().Local().String(); return nil }},
	{"panic", true, func() (err error) {
		defer func() {
			if recover() == nil {
				err = errors.New("no panic")
			}
		}()
		var m map[string]int
		m["a"] = 1 //lint:ignore SA5000 the panic is what is tried
		return nil
	}},
}

func tryToGetOut() {
	if err := worker.Confine(256 << 20); err != nil {
		fmt.Println("not confined:", err)
		return
	}
	for _, a := range attempts {
		err := a.try()
		switch {
		case err == nil:
			fmt.Printf("%s: done\n", a.name)
		case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
			fmt.Printf("%s: refused\n", a.name)
		default:
			fmt.Printf("%s: %v\n", a.name, err)
		}
	}
}

func TestNoWayOut(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), probe+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.HasPrefix(string(out), "not confined") {
		t.Skip(string(out)) // a kernel without it; the pool says so, too
	}
	for _, a := range attempts {
		want := a.name + ": refused\n"
		if a.allowed {
			want = a.name + ": done\n"
		}
		if !strings.Contains(string(out), want) {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
}

// A worker does not outlive its pool, even in the middle of a loop.
func TestWorkersGoWithTheirPool(t *testing.T) {
	p := worker.New(worker.Options{Size: 1, Timeout: time.Hour})
	asked := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Render(t.Context(), &telling{files(jsonnet(loop)), asked, sync.Once{}}, request())
	}()
	<-asked
	pids := worker.Processes(p)
	if len(pids) != 1 {
		t.Fatalf("%d workers", len(pids))
	}
	worker.CutOff(p) // as if the daemon were gone: nobody kills, the pipes end
	<-done
	if err := unix.Kill(pids[0], 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("worker %d: %v", pids[0], err)
	}
	p.Close()
}
