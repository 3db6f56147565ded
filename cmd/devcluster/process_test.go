package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
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

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// deadline is for whatever takes a moment, on a machine that others use too.
const deadline = 2 * time.Minute

// asCommand in the environment makes the test binary be devcluster: one process
// has room for one cluster only.
const asCommand = "DEVCLUSTER_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		go func() {
			// Held by the test, and closed even if that is killed.
			io.Copy(io.Discard, os.Stdin)
			os.Exit(3)
		}()
		main()
		return
	}
	code := m.Run()
	if shared.process != nil {
		shared.process.kill()
		os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

// A process is a devcluster that was started by a test.
type process struct {
	cmd        *exec.Cmd
	stdin      io.Closer // ends it when it is closed
	kubeconfig string
	stdout     lines
	stderr     bytes.Buffer // to be read after exited is closed
	exited     chan struct{}
	err        error // of the exit; to be read after exited is closed
}

// startProcess starts devcluster up on the folder.
func startProcess(dir string, flags ...string) (*process, error) {
	p := &process{kubeconfig: filepath.Join(dir, "kubeconfig"), exited: make(chan struct{})}
	p.stdout.first = make(chan struct{})
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p.cmd = exec.Command(exe, append([]string{"up", "--data-dir", dir}, flags...)...)
	p.cmd.Env = append(os.Environ(), asCommand+"=1")
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// awaitReady waits for the line that says so.
func (p *process) awaitReady() error {
	select {
	case <-p.stdout.first:
		return nil
	case <-p.exited:
		return fmt.Errorf("devcluster ended before it was ready: %w\n%s", p.err, p.stderr.String())
	case <-time.After(deadline):
		p.kill()
		return fmt.Errorf("devcluster was not ready after %v", deadline)
	}
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.exited
}

// end sends the signal and returns how the process exited.
func (p *process) end(t *testing.T, s os.Signal) error {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.exited:
	case <-time.After(deadline):
		t.Fatalf("devcluster had not ended %v after %v", deadline, s)
	}
	return p.err
}

// lines keeps what is written and tells when the first line is complete.
type lines struct {
	mu    sync.Mutex // guards text
	text  string
	once  sync.Once
	first chan struct{}
}

func (l *lines) Write(data []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text += string(data)
	if strings.Contains(l.text, "\n") {
		l.once.Do(func() { close(l.first) })
	}
	return len(data), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text
}

// up starts a cluster that ends with the test.
func up(t *testing.T, dir string, flags ...string) *process {
	t.Helper()
	p, err := startProcess(dir, flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	if err := p.awaitReady(); err != nil {
		t.Fatal(err)
	}
	return p
}

// shared is the cluster for all tests that don't stop theirs; each uses a
// namespace of its own.
var shared struct {
	once    sync.Once
	dir     string
	process *process
	err     error
}

func sharedCluster(t *testing.T) *process {
	t.Helper()
	shared.once.Do(func() {
		if shared.dir, shared.err = os.MkdirTemp("", "devcluster"); shared.err != nil {
			return
		}
		if shared.process, shared.err = startProcess(shared.dir); shared.err != nil {
			return
		}
		shared.err = shared.process.awaitReady()
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.process
}

func clientConfig(t *testing.T, kubeconfig string) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	return config
}

func clientFor(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// eventually asks until there is no more to complain about.
func eventually(t *testing.T, complaint func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := complaint(ctx)
		if err == nil {
			return
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("after %v still: %v", deadline, last)
		}
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	// Longer than a socket's path may be.
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 25))
	p := up(t, dir)
	address := regexpReady.FindStringSubmatch(p.stdout.String())
	if address == nil || address[2] != p.kubeconfig {
		t.Fatalf("stdout is %q, want one line like %v with kubeconfig %s", p.stdout.String(), regexpReady, p.kubeconfig)
	}
	info, err := os.Stat(p.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("the kubeconfig's mode is %v, want 0600", info.Mode())
	}
	old := clientFor(t, clientConfig(t, p.kubeconfig))
	createConfigMap(t, old, "before-term")

	if err := p.end(t, syscall.SIGTERM); err != nil {
		t.Errorf("after SIGTERM: %v, want exit code 0; stderr:\n%s", err, p.stderr.String())
	}
	if out := p.stdout.String(); !regexpReady.MatchString(out) {
		t.Errorf("stdout is %q, want that one line alone", out)
	}
	if p.stderr.Len() > 0 {
		t.Errorf("stderr is not empty: %s", p.stderr.String())
	}

	p = up(t, dir)
	wantConfigMaps(t, old, "before-term")
	createConfigMap(t, old, "before-kill")
	createPod(t, old, metav1.NamespaceDefault, "web", podTemplate("web", run))
	eventually(t, podIs(old, metav1.NamespaceDefault, "web", isReady))
	if err := p.end(t, syscall.SIGKILL); err == nil {
		t.Error("after SIGKILL: exit code 0")
	}

	p = up(t, dir, "--nodes=2")
	wantConfigMaps(t, old, "before-term", "before-kill")
	nodes, err := old.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 2 {
		t.Errorf("there are %d nodes, want 2; error: %v", len(nodes.Items), err)
	}
	// The kubelet has another port now.
	if _, err := logs(t, old, metav1.NamespaceDefault, "web", corev1.PodLogOptions{}); err != nil {
		t.Error(err)
	}
	if err := p.end(t, os.Interrupt); err != nil {
		t.Errorf("after SIGINT: %v, want exit code 0; stderr:\n%s", err, p.stderr.String())
	}

	listener, err := listenLoopback(portOf(t, address[1]))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	p = up(t, dir)
	if strings.Contains(p.stdout.String(), address[1]) {
		t.Errorf("stdout is %q, though that port was taken", p.stdout.String())
	}
	wantConfigMaps(t, clientFor(t, clientConfig(t, p.kubeconfig)), "before-term", "before-kill")
}

func TestDataFolderInUse(t *testing.T) {
	t.Parallel()
	sharedCluster(t)
	p, err := startProcess(shared.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	select {
	case <-p.exited:
	case <-p.stdout.first:
		t.Fatal("two clusters have one data folder")
	case <-time.After(deadline):
		t.Fatal("it neither starts nor ends")
	}
	if p.err == nil || !strings.Contains(p.stderr.String(), "in use by another devcluster") {
		t.Errorf("exit %v, stderr %q; want an error that says who holds the folder", p.err, p.stderr.String())
	}
}

func TestSignalBeforeReady(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, err := startProcess(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	eventually(t, func(context.Context) error {
		_, err := os.Stat(filepath.Join(dir, "devcluster.log"))
		return err
	})
	var exit *exec.ExitError
	if err := p.end(t, syscall.SIGTERM); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("exit is %v, want code 1", err)
	}
	if out := p.stdout.String(); out != "" {
		t.Errorf("stdout is %q, want nothing", out)
	}
	if n := len(readLines(p.stderr.String())); n != 1 || !strings.Contains(p.stderr.String(), "before the cluster was ready") {
		t.Errorf("stderr is %q, want one line that says that it was not ready", p.stderr.String())
	}
}

func readLines(text string) []string {
	var out []string
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		out = append(out, s.Text())
	}
	return out
}
