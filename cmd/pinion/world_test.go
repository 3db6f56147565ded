package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/pinion-cd/pinion/internal/devtest"
)

// patience bounds every wait of a test; nothing is judged by it.
const patience = 90 * time.Second

// asMain, in the environment of the test binary, makes it pinion.
const asMain = "PINION_TEST_AS_MAIN"

// world is a cluster, a deployment repository, and those who work with them.
type world struct {
	*testing.T
	kubeconfig string
	kube       *kubernetes.Clientset
	dynamic    *dynamic.DynamicClient
	// namespace is the test's own; the word NAMESPACE in files stands for it.
	namespace     string
	remote, clone string
	env           []string // of daemons, besides our own
}

var worlds atomic.Int64

// newWorld makes a repository from a txtar archive, on the test binary's
// cluster. In the files, NAMESPACE stands for a namespace of the test's own.
func newWorld(t *testing.T, archive string) *world {
	t.Helper()
	return newWorldOn(t, devtest.Cluster(t), archive)
}

// newWorldOn is newWorld on the cluster of a kubeconfig.
func newWorldOn(t *testing.T, kubeconfig, archive string) *world {
	t.Helper()
	w := &world{T: t, kubeconfig: kubeconfig, namespace: fmt.Sprintf("t%d-%d", os.Getpid(), worlds.Add(1))}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	w.must(err)
	config.QPS = -1
	w.kube, err = kubernetes.NewForConfig(config)
	w.must(err)
	w.dynamic, err = dynamic.NewForConfig(config)
	w.must(err)
	dir := t.TempDir()
	w.remote, w.clone = filepath.Join(dir, "remote.git"), filepath.Join(dir, "clone")
	w.must(os.Mkdir(w.clone, 0o755))
	// A test that takes the remote away takes the link: a git that is at work in the
	// folder finds its locks, and removes them, by their whole path.
	folder := filepath.Join(dir, "repository.git")
	w.git("init", "-q", "--bare", "--initial-branch=main", folder)
	w.must(os.Symlink(folder, w.remote))
	w.git("init", "-q", "--initial-branch=main")
	w.git("remote", "add", "origin", w.remote)
	w.push("the first commit", archive)
	t.Cleanup(func() {
		// What a daemon that was killed has begun to push may still end.
		for end := time.Now().Add(patience); ; {
			err := os.RemoveAll(folder)
			if err == nil || time.Now().After(end) {
				w.must(err)
				return
			}
		}
	})
	t.Cleanup(func() {
		// Nobody waits for it: each test has a namespace of its own.
		w.kube.CoreV1().Namespaces().Delete(context.Background(), w.namespace, metav1.DeleteOptions{})
	})
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// git runs git in the clone and returns what it prints.
func (w *world) git(args ...string) string {
	w.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = w.clone
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull,
		"GIT_AUTHOR_NAME=Dana", "GIT_AUTHOR_EMAIL=dana@shop.example", "GIT_COMMITTER_NAME=Dana", "GIT_COMMITTER_EMAIL=dana@shop.example")
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// write writes the files of an archive into the clone; an empty file is
// removed.
func (w *world) write(archive string) {
	w.Helper()
	for _, f := range txtar.Parse([]byte(archive)).Files {
		path := filepath.Join(w.clone, f.Name)
		if len(f.Data) == 0 {
			w.must(os.RemoveAll(path))
			continue
		}
		w.must(os.MkdirAll(filepath.Dir(path), 0o755))
		w.must(os.WriteFile(path, bytes.ReplaceAll(f.Data, []byte("NAMESPACE"), []byte(w.namespace)), 0o644))
	}
}

// push commits the files of an archive and pushes them; it returns the commit.
func (w *world) push(message, archive string) string {
	w.Helper()
	w.write(archive)
	w.git("add", "-A")
	w.git("commit", "-q", "--allow-empty", "-m", message)
	w.git("push", "-q", "origin", "HEAD:main")
	return w.git("rev-parse", "HEAD")
}

// replace changes text in a file, and pushes the change.
func (w *world) replace(file, old, new string) string {
	w.Helper()
	path := filepath.Join(w.clone, file)
	data, err := os.ReadFile(path)
	w.must(err)
	if !strings.Contains(string(data), old) {
		w.Fatalf("%s does not contain %q", file, old)
	}
	w.must(os.WriteFile(path, []byte(strings.ReplaceAll(string(data), old, new)), 0o644))
	return w.push("change "+file, "")
}

// until asks again and again until f returns "", which says what is missing.
func (w *world) until(what string, f func(ctx context.Context) string) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	missing := "nothing was looked at"
	for {
		switch now := f(ctx); {
		case now == "":
			return
		case ctx.Err() == nil: // else it only says that time is up
			missing = now
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			w.Fatalf("%s: not so after %s: %s", what, patience, missing)
		}
	}
}

// pinion runs a command to its end.
func (w *world) pinion(args ...string) (stdout, stderr string, code int) {
	w.Helper()
	cmd := pinionCommand(args...)
	cmd.Dir = w.clone
	cmd.Env = append(cmd.Env, "KUBECONFIG="+w.kubeconfig)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		w.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// pinionCommand is this test binary in the role of pinion.
func pinionCommand(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asMain+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// daemon is a running `pinion run`.
type daemon struct {
	*world
	cmd     *exec.Cmd
	args    []string
	address string
	ended   chan struct{}

	mu    sync.Mutex // guards lines and more
	lines []string
	more  chan struct{}
}

// listening finds the daemon's address in its log, in either format.
var listening = regexp.MustCompile(`"?listen"?[=:]"?([^" ]+)`)

// daemon starts the daemon against the world's remote and cluster; data is
// its data folder, and args are further flags.
func (w *world) daemon(data string, args ...string) *daemon {
	w.Helper()
	args = append([]string{"run", "--repo", w.remote, "--kubeconfig", w.kubeconfig, "--data-dir", data, "--listen", "127.0.0.1:0", "--poll", "2s"}, args...)
	d := &daemon{world: w, args: args, ended: make(chan struct{}), more: make(chan struct{})}
	d.cmd = pinionCommand(args...)
	d.cmd.Env = append(d.cmd.Env, w.env...)
	r, pipe := io.Pipe()
	d.cmd.Stdout, d.cmd.Stderr = pipe, pipe
	w.must(d.cmd.Start())
	var read sync.WaitGroup
	read.Go(func() {
		s := bufio.NewScanner(r)
		s.Buffer(nil, 4<<20)
		for s.Scan() {
			d.mu.Lock()
			d.lines = append(d.lines, s.Text())
			close(d.more)
			d.more = make(chan struct{})
			d.mu.Unlock()
		}
	})
	go func() {
		d.cmd.Wait()
		pipe.Close()
		read.Wait()
		close(d.ended)
	}()
	w.Cleanup(func() {
		d.kill()
		if w.Failed() {
			w.Logf("the daemon said:\n%s", strings.Join(d.said(0), "\n"))
		}
	})
	line := d.line(0, "pinion is up")
	d.address = listening.FindStringSubmatch(line)[1]
	return d
}

// said returns the lines that the daemon has written, from one on.
func (d *daemon) said(from int) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.lines[min(from, len(d.lines)):]...)
}

// mark returns the number of lines so far, for line and said.
func (d *daemon) mark() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.lines)
}

// line waits for a line, from a mark on, that contains all of the words.
func (d *daemon) line(from int, words ...string) string {
	d.Helper()
	deadline := time.After(patience)
	for {
		d.mu.Lock()
		more := d.more
		d.mu.Unlock()
	lines:
		for _, l := range d.said(from) {
			for _, word := range words {
				if !strings.Contains(l, word) {
					continue lines
				}
			}
			return l
		}
		select {
		case <-more:
		case <-d.ended:
			d.Fatalf("the daemon has ended before it said %q", words)
		case <-deadline:
			d.Fatalf("the daemon did not say %q", words)
		}
	}
}

// never checks that no line, from a mark on, contains all of the words.
func (d *daemon) never(from int, words ...string) {
	d.Helper()
lines:
	for _, l := range d.said(from) {
		for _, word := range words {
			if !strings.Contains(l, word) {
				continue lines
			}
		}
		d.Errorf("the daemon said: %s", l)
	}
}

// stop ends the daemon as a supervisor does, and expects it to end cleanly.
func (d *daemon) stop() {
	d.Helper()
	d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.ended:
	case <-time.After(patience):
		d.Fatal("the daemon does not end")
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		d.Fatalf("the daemon ended with %d", code)
	}
}

// kill ends the daemon without notice.
func (d *daemon) kill() {
	d.cmd.Process.Kill()
	<-d.ended
}

// metric adds up the samples of a metric whose line contains all of the words,
// and none of those that have an exclamation mark before them.
func (d *daemon) metric(name string, words ...string) float64 {
	d.Helper()
	resp, err := http.Get("http://" + d.address + "/metrics")
	d.must(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	d.must(err)
	sum := 0.0
lines:
	for line := range strings.Lines(string(body)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		for _, w := range words {
			word, not := strings.CutPrefix(w, "!")
			if strings.Contains(line, word) == not {
				continue lines
			}
		}
		fields := strings.Fields(line)
		v, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		d.must(err)
		sum += v
	}
	return sum
}
