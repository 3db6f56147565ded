package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// caresFor checks that what runs is still looked after: a ConfigMap that
// somebody deletes is made again.
func (w *world) caresFor(name string) {
	w.Helper()
	maps := w.kube.CoreV1().ConfigMaps(w.namespace)
	w.must(maps.Delete(w.Context(), name, metav1.DeleteOptions{}))
	w.until("ConfigMap "+name+" is made again", func(ctx context.Context) string {
		if _, err := maps.Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err.Error()
		}
		return ""
	})
}

// away takes the remote away; the function that it returns brings it back. Until then, pushes go to where it is.
func (w *world) away() (back func()) {
	w.Helper()
	elsewhere := w.remote + ".away"
	w.must(os.Rename(w.remote, elsewhere))
	w.git("remote", "set-url", "origin", elsewhere)
	return func() {
		w.must(os.Rename(elsewhere, w.remote))
		w.git("remote", "set-url", "origin", w.remote)
	}
}

func TestDaemonOutlastsItsRemote(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop("api", "web"))
	first := w.git("rev-parse", "HEAD")
	data := t.TempDir()
	d := w.daemon(data)
	d.line(0, "[2/2 done]")
	before, mark := w.identities(), d.mark()

	back := w.away()
	second := w.bump("web", "1.0.0", "1.1.0")
	d.line(mark, "can't be fetched", "the last commit stays")
	w.caresFor("api")
	back()
	w.shows(map[string]wanted{"api": {"1.0.0", first}, "web": {"1.1.0", second}})
	d.line(mark, "can be fetched again")
	d.stop()

	// Away while a daemon starts that knows the repository.
	back = w.away()
	third := w.bump("web", "1.1.0", "1.2.0")
	d = w.daemon(data)
	d.line(0, "can't be fetched")
	w.caresFor("api")
	back()
	w.shows(map[string]wanted{"api": {"1.0.0", first}, "web": {"1.2.0", third}})
	d.stop()

	// And of one that does not.
	back = w.away()
	fourth := w.bump("web", "1.2.0", "1.3.0")
	d = w.daemon(t.TempDir())
	d.line(0, "can't be mirrored")
	resp, err := http.Get("http://" + d.address + "/readyz")
	w.must(err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("/readyz answers %s before the repository was read", resp.Status)
	}
	back()
	w.shows(map[string]wanted{"api": {"1.0.0", first}, "web": {"1.3.0", fourth}})
	w.same(before)
	d.never(0, "] deleted ")
}

// webServer serves the world's remote by git's own http-backend. harm, if
// there is any, is done to a request before, or instead.
type webServer struct {
	*httptest.Server
	harm atomic.Pointer[func(http.ResponseWriter, *http.Request, http.Handler) bool]
}

func (w *world) serve() *webServer {
	w.Helper()
	git, err := exec.LookPath("git")
	w.must(err)
	backend := &cgi.Handler{Path: git, Args: []string{"http-backend"}, Stderr: io.Discard,
		Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(w.remote), "GIT_HTTP_EXPORT_ALL=1"}}
	s := &webServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body) // the CGI handler refuses a chunked one
		if err != nil {
			return
		}
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
		if harm := s.harm.Load(); harm != nil && (*harm)(rw, r, backend) {
			return
		}
		backend.ServeHTTP(rw, r)
	}))
	w.Cleanup(s.Close)
	w.remote = s.URL + "/" + filepath.Base(w.remote)
	return s
}

// do does harm from now on; nil ends it.
func (s *webServer) do(harm func(http.ResponseWriter, *http.Request, http.Handler) bool) {
	if harm == nil {
		s.harm.Store(nil)
		return
	}
	s.harm.Store(&harm)
}

// cutAnswer lets so many bytes of an answer through, and then drops the
// connection.
type cutAnswer struct {
	http.ResponseWriter
	left int
}

func (c *cutAnswer) Write(p []byte) (int, error) {
	if len(p) < c.left {
		c.left -= len(p)
		return c.ResponseWriter.Write(p)
	}
	c.ResponseWriter.Write(p[:c.left])
	http.NewResponseController(c.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

func TestDaemonOutlastsAWebServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop("api", "web"))
	first := w.git("rev-parse", "HEAD")
	s := w.serve()
	d := w.daemon(t.TempDir(), "--poll", "200ms")
	d.line(0, "[2/2 done]")
	before := w.identities()

	mark := d.mark()
	s.do(func(rw http.ResponseWriter, _ *http.Request, _ http.Handler) bool {
		http.Error(rw, "on fire", http.StatusInternalServerError)
		return true
	})
	second := w.bump("web", "1.0.0", "1.1.0")
	d.line(mark, "can't be fetched", "500")
	w.caresFor("api")
	s.do(nil)
	w.shows(map[string]wanted{"api": {"1.0.0", first}, "web": {"1.1.0", second}})

	// No answer; in the end the connection is cut.
	heal, met := make(chan struct{}), make(chan struct{}, 1)
	s.do(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		select {
		case met <- struct{}{}:
		default:
		}
		select {
		case <-heal:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	})
	third := w.bump("web", "1.1.0", "1.2.0")
	<-met
	w.caresFor("api")
	s.do(nil)
	close(heal)
	w.shows(map[string]wanted{"api": {"1.0.0", first}, "web": {"1.2.0", third}})

	// Cut in the middle of what is fetched.
	mark = d.mark()
	s.do(func(rw http.ResponseWriter, r *http.Request, next http.Handler) bool {
		if r.Method == http.MethodPost {
			next.ServeHTTP(&cutAnswer{rw, 64 << 10}, r)
			return true
		}
		return false
	})
	noise := make([]byte, 1<<20)
	rand.Read(noise)
	w.must(os.WriteFile(filepath.Join(w.clone, "noise"), noise, 0o644))
	fourth := w.bump("web", "1.2.0", "1.3.0")
	d.line(mark, "can't be fetched")
	w.caresFor("api")
	s.do(nil)
	w.shows(map[string]wanted{"api": {"1.0.0", first}, "web": {"1.3.0", fourth}})
	w.same(before)
	d.never(0, "] deleted ")
}

// shell serves repositories over ssh, with the host key of the moment.
type shell struct {
	address string
	config  atomic.Pointer[ssh.ServerConfig]
}

func newHostKey(w *world) (ssh.Signer, []byte) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	w.must(err)
	signer, err := ssh.NewSignerFromKey(key)
	w.must(err)
	block, err := ssh.MarshalPrivateKey(key, "")
	w.must(err)
	return signer, pem.EncodeToMemory(block)
}

func (s *shell) use(key ssh.Signer) {
	c := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}
	c.AddHostKey(key)
	s.config.Store(c)
}

func serveShell(w *world) *shell {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	w.Cleanup(func() { l.Close() })
	s := &shell{address: l.Addr().String()}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	return s
}

func (s *shell) serve(conn net.Conn) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, s.config.Load())
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for c := range channels {
		channel, requests, err := c.Accept()
		if err != nil {
			return
		}
		for r := range requests {
			r.Reply(r.Type == "exec", nil)
			if r.Type != "exec" {
				continue
			}
			cmd := exec.Command("sh", "-c", string(r.Payload[4:]))
			in, _ := cmd.StdinPipe()
			go func() { io.Copy(in, channel); in.Close() }()
			cmd.Stdout, cmd.Stderr = channel, channel.Stderr()
			cmd.Run()
			channel.SendRequest("exit-status", false, []byte{0, 0, 0, byte(cmd.ProcessState.ExitCode())})
			channel.Close()
		}
	}
}

func TestDaemonRefusesAnotherHostKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop("api", "web"))
	first := w.git("rev-parse", "HEAD")
	s := serveShell(w)
	good, _ := newHostKey(w)
	evil, _ := newHostKey(w)
	_, mine := newHostKey(w)
	s.use(good)
	dir := t.TempDir()
	host, port, _ := net.SplitHostPort(s.address)
	w.must(os.WriteFile(filepath.Join(dir, "known_hosts"), fmt.Appendf(nil, "[%s]:%s %s", host, port, ssh.MarshalAuthorizedKey(good.PublicKey())), 0o600))
	w.must(os.WriteFile(filepath.Join(dir, "key"), mine, 0o600))
	config := filepath.Join(dir, "config.yaml")
	w.must(os.WriteFile(config, fmt.Appendf(nil, "apiVersion: pinion.dev/v1\nkind: Config\nrepository: {keyFile: %s, knownHostsFile: %s}\n",
		filepath.Join(dir, "key"), filepath.Join(dir, "known_hosts")), 0o600))
	w.remote = "ssh://git@" + s.address + w.remote
	d := w.daemon(t.TempDir(), "--config", config, "--poll", "200ms")
	d.line(0, "[2/2 done]")
	before, mark := w.identities(), d.mark()

	s.use(evil)
	second := w.bump("web", "1.0.0", "1.1.0")
	if line := d.line(mark, "can't be fetched"); !strings.Contains(line, "host key") {
		t.Errorf("what was said does not name the host key: %s", line)
	}
	w.caresFor("api")
	if x, _ := w.deployment(t.Context(), "web"); x.Annotations["pinion.dev/commit"] != first {
		t.Error("a commit was taken from a host that is not the one we know")
	}
	s.use(good)
	w.shows(map[string]wanted{"api": {"1.0.0", first}, "web": {"1.1.0", second}})
	w.same(before)
	d.never(0, "] deleted ")
}

func TestDaemonMendsItsMirror(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop("api", "web"))
	first := w.git("rev-parse", "HEAD")
	data := t.TempDir()
	d := w.daemon(data)
	d.line(0, "[2/2 done]")
	before := w.identities()
	second := ""
	for i := range 3 {
		damage := 0
		w.must(filepath.WalkDir(filepath.Join(data, "mirror"), func(path string, e os.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() && strings.Contains(path, "/objects/") {
				damage++
				return os.Remove(path)
			}
			return nil
		}))
		if damage == 0 {
			t.Fatal("there is nothing in the mirror to damage")
		}
		w.caresFor("api")
		second = w.bump("web", fmt.Sprintf("1.%d.0", i), fmt.Sprintf("1.%d.0", i+1))
		w.runs("web", fmt.Sprintf("registry.example/web:1.%d.0", i+1))
		if i == 1 { // what is kept in memory can't stand in
			d.kill()
			d = w.daemon(data)
			d.line(0, "[2/2 done]")
		}
	}
	w.shows(map[string]wanted{"api": {"1.0.0", first}, "web": {"1.3.0", second}})
	w.same(before)
	d.never(0, "] deleted ")
}

func TestDaemonLeavesTheMirrorOfAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop("api"))
	data := t.TempDir()
	d := w.daemon(data)
	d.line(0, "[1/1 done]")
	second := w.daemon(data)
	line := second.line(0, "can't be mirrored")
	for _, word := range []string{"in use by another process", filepath.Join(data, "mirror"), "give each its own folder"} {
		if !strings.Contains(line, word) {
			t.Errorf("the refusal does not say %q: %s", word, line)
		}
	}
	pushed := w.bump("api", "1.0.0", "1.1.0")
	w.shows(map[string]wanted{"api": {"1.1.0", pushed}})
	if got := second.metric("pinion_kubernetes_requests_total"); got != 0 {
		t.Errorf("the second daemon has sent %v requests", got)
	}
	// It takes over when the first one is gone.
	d.kill()
	pushed = w.bump("api", "1.1.0", "1.2.0")
	w.shows(map[string]wanted{"api": {"1.2.0", pushed}})
	second.line(0, "[1/1 done]")
}
