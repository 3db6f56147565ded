package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A daemon that dies by a signal which leaves a core file leaves none.
func TestNoCoreIsLeft(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max == 0 {
		t.Skip("this machine allows no core files at all")
	}
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	remote := filepath.Join(dir, "remote.git")
	if out, err := exec.Command("git", "init", "-q", "--bare", remote).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// Nothing answers there, so it waits.
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\ncontexts: [{name: c, context: {cluster: c}}]\ncurrent-context: c\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `ulimit -c unlimited 2>/dev/null || ulimit -c "$(ulimit -H -c)"; exec "$@"`, "sh",
		"env", "GOTRACEBACK=crash", asMain+"=1", self, "run", "--kubeconfig", kubeconfig, "--repo", remote, "--listen", "127.0.0.1:0", "--data-dir", filepath.Join(dir, "data"))
	cmd.Dir = dir
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan string, 1)
	var text strings.Builder
	go func() {
		buffer := make([]byte, 4096)
		up := false
		for {
			n, err := stderr.Read(buffer)
			text.Write(buffer[:n])
			if !up && strings.Contains(text.String(), "pinion is up") {
				up = true
				_ = cmd.Process.Signal(syscall.SIGABRT)
			}
			if err != nil {
				read <- text.String()
				return
			}
		}
	}()
	said := <-read
	_ = cmd.Wait() // it ends by a signal
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGABRT {
		t.Fatalf("it ended with %v:\n%s", cmd.ProcessState, said)
	}
	if status.CoreDump() {
		t.Error("it left a core file")
	}
	if cores, _ := filepath.Glob(filepath.Join(dir, "core*")); len(cores) > 0 {
		t.Errorf("it left %v", cores)
	}
}
