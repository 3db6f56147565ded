// Package devtest gives tests a real Kubernetes control plane: bin/devcluster,
// started by the test binary itself, on free ports of the loopback interface.
//
// Cluster is one for the whole test binary; tests that share it keep to
// namespaces of their own. Start is one for a test alone, which may stop, kill
// and restart it. Proxy stands between a client and an API server, and does
// the harm that a test asks for. IdentityProvider signs tokens. Prometheus is a
// real one, of whose series the test decides, Registry one of container images,
// and Gitea a forge. All processes end with the test binary, also if that is killed.
package devtest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// ready bounds the start of a control plane on a busy machine.
const ready = 2 * time.Minute

var shared struct {
	once       sync.Once
	controller *ControlPlane
	err        error
}

// Cluster returns the kubeconfig of a control plane that all tests of the
// binary share. It ends with the binary.
func Cluster(t testing.TB) (kubeconfig string) {
	t.Helper()
	shared.once.Do(func() {
		var dir string
		if dir, shared.err = os.MkdirTemp("", "devtest-"); shared.err != nil {
			return
		}
		shared.controller = &ControlPlane{dir: dir, Kubeconfig: filepath.Join(dir, "kubeconfig")}
		shared.err = shared.controller.start()
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.controller.Kubeconfig
}

// Main runs the tests of a binary, and removes what Cluster has left. It is
// for TestMain: os.Exit(devtest.Main(m)).
func Main(m interface{ Run() int }) int {
	code := m.Run()
	if c := shared.controller; c != nil {
		c.end(syscall.SIGKILL)
		os.RemoveAll(c.dir)
	}
	return code
}

// ControlPlane is a running devcluster.
type ControlPlane struct {
	Kubeconfig string

	dir   string
	cmd   *exec.Cmd
	ended chan struct{}
}

// Start starts a control plane for one test, which ends with it.
func Start(t testing.TB) *ControlPlane {
	t.Helper()
	dir := t.TempDir()
	c := &ControlPlane{dir: dir, Kubeconfig: filepath.Join(dir, "kubeconfig")}
	t.Cleanup(func() { c.end(syscall.SIGKILL) })
	if err := c.start(); err != nil {
		t.Fatal(err)
	}
	return c
}

// Kill ends the control plane without notice.
func (c *ControlPlane) Kill() { c.end(syscall.SIGKILL) }

// Pause stops its process without ending it, Resume lets it go on.
func (c *ControlPlane) Pause() { c.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets a paused control plane go on.
func (c *ControlPlane) Resume() { c.cmd.Process.Signal(syscall.SIGCONT) }

// Restart starts it again, with its data and at its address.
func (c *ControlPlane) Restart(t testing.TB) {
	t.Helper()
	if err := c.start(); err != nil {
		t.Fatal(err)
	}
}

func (c *ControlPlane) end(s syscall.Signal) {
	if c.cmd == nil || c.cmd.Process == nil {
		return
	}
	c.cmd.Process.Signal(s)
	<-c.ended
}

func (c *ControlPlane) start() error {
	binary, err := find()
	if err != nil {
		return err
	}
	// A process dies with the thread that started it, so that thread must last.
	began := make(chan error, 1)
	c.ended = make(chan struct{})
	lines := make(chan string, 1)
	threads <- func() {
		c.cmd = exec.Command(binary, "up", "--data-dir", filepath.Join(c.dir, "data"), "--kubeconfig", c.Kubeconfig)
		c.cmd.SysProcAttr = parentDeath()
		c.cmd.Stderr = os.Stderr
		out, err := c.cmd.StdoutPipe()
		if err == nil {
			err = c.cmd.Start()
		}
		began <- err
		if err != nil {
			return
		}
		cmd, ended := c.cmd, c.ended
		go func() {
			r := bufio.NewReader(out)
			line, _ := r.ReadString('\n')
			lines <- line
			io.Copy(io.Discard, r)
			cmd.Wait()
			close(ended)
		}()
	}
	if err := <-began; err != nil {
		return fmt.Errorf("start %s: %w", binary, err)
	}
	select {
	case line := <-lines:
		if !strings.HasPrefix(line, "ready") {
			return fmt.Errorf("devcluster did not start: it said %q; its log is in %s", line, filepath.Join(c.dir, "data"))
		}
		return nil
	case <-time.After(ready):
		return fmt.Errorf("devcluster was not ready after %s", ready)
	}
}

// find returns the binary: $PINION_DEVCLUSTER, or bin/devcluster beside the
// product's go.mod.
func find() (string, error) {
	if path := os.Getenv("PINION_DEVCLUSTER"); path != "" {
		return path, nil
	}
	root, err := module()
	if err != nil {
		return "", fmt.Errorf("%w; set PINION_DEVCLUSTER to the binary", err)
	}
	path := filepath.Join(root, "bin", "devcluster")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("bin/devcluster is not there; build it with: make build")
	}
	return path, nil
}

// module returns the folder of the product's go.mod.
func module() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod above the test's folder")
		}
		dir = parent
	}
}
