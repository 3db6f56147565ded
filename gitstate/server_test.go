package gitstate_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"
)

// httpServer serves a repository by git's own http-backend.
type httpServer struct {
	*httptest.Server
	url  string
	cut  atomic.Bool // let the next push through, and drop its reply
	drop atomic.Bool // drop the next push before it gets anywhere
	hang atomic.Bool // accept requests, and never answer
	stop chan struct{}
}

func serveHTTP(t testing.TB, u *upstream, tls bool, user, password string) *httpServer {
	t.Helper()
	program, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	backend := &cgi.Handler{Path: program, Args: []string{"http-backend"}, Env: []string{
		"GIT_PROJECT_ROOT=" + filepath.Dir(u.dir), "GIT_HTTP_EXPORT_ALL=1",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http.receivepack", "GIT_CONFIG_VALUE_0=true"}, Stderr: io.Discard}
	s := &httpServer{stop: make(chan struct{})}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name, pass, ok := r.BasicAuth(); user != "" && (!ok || name != user || pass != password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		if s.hang.Load() {
			select {
			case <-s.stop:
			case <-r.Context().Done():
			}
			return
		}
		// Go's CGI handler refuses a chunked body.
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
		push := r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/git-receive-pack")
		if push && s.drop.CompareAndSwap(true, false) {
			panic(http.ErrAbortHandler)
		}
		if push && s.cut.CompareAndSwap(true, false) {
			backend.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		if push {
			w = atOnce{w}
		}
		backend.ServeHTTP(w, r)
	})
	if tls {
		s.Server = httptest.NewTLSServer(handler)
	} else {
		s.Server = httptest.NewServer(handler)
	}
	t.Cleanup(func() { close(s.stop); s.Close() })
	s.url = s.URL + "/" + filepath.Base(u.dir)
	return s
}

// atOnce sends each part of an answer when it comes, as a server does whose git says
// something while it works.
type atOnce struct{ http.ResponseWriter }

func (a atOnce) Write(p []byte) (int, error) {
	n, err := a.ResponseWriter.Write(p)
	http.NewResponseController(a.ResponseWriter).Flush()
	return n, err
}

// caFile is the server's certificate as a file.
func (s *httpServer) caFile(t testing.TB) string {
	name := filepath.Join(t.TempDir(), "ca.pem")
	write(t, name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	return name
}

func write(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// sshServer serves repositories by git's programs behind ssh.
type sshServer struct {
	addr       string
	hostKey    ssh.Signer
	keyFile    string // a key that it accepts
	knownHosts string
	mute       atomic.Bool // accept connections, and say nothing
	cut        atomic.Bool // let the next push through, and drop its reply
}

func newKey(t testing.TB) (ssh.Signer, []byte) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	return signer, pem.EncodeToMemory(block)
}

// knownHost is a line of a file of known hosts.
func knownHost(addr string, key ssh.PublicKey) []byte {
	host, port, _ := net.SplitHostPort(addr)
	return []byte("[" + host + "]:" + port + " " + string(ssh.MarshalAuthorizedKey(key)))
}

func serveSSH(t testing.TB) *sshServer {
	t.Helper()
	s := &sshServer{}
	var key []byte
	s.hostKey, _ = newKey(t)
	client, key := newKey(t)
	dir := t.TempDir()
	s.keyFile = filepath.Join(dir, "key")
	write(t, s.keyFile, key)
	config := &ssh.ServerConfig{PublicKeyCallback: func(c ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if c.User() == "git" && bytes.Equal(k.Marshal(), client.PublicKey().Marshal()) {
			return nil, nil
		}
		return nil, errors.New("unknown key")
	}}
	config.AddHostKey(s.hostKey)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s.addr = l.Addr().String()
	s.knownHosts = filepath.Join(dir, "known_hosts")
	write(t, s.knownHosts, knownHost(s.addr, s.hostKey.PublicKey()))
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if s.mute.Load() {
				t.Cleanup(func() { conn.Close() })
				continue
			}
			go s.serve(conn, config)
		}
	}()
	return s
}

func (s *sshServer) serve(conn net.Conn, config *ssh.ServerConfig) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, config)
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
			if r.Type != "exec" {
				r.Reply(r.Type == "env", nil)
				continue
			}
			r.Reply(true, nil)
			line := string(r.Payload[4:])
			cmd := exec.Command("sh", "-c", line)
			in, _ := cmd.StdinPipe()
			go func() { io.Copy(in, channel); in.Close() }()
			cmd.Stdout, cmd.Stderr = channel, channel.Stderr()
			var reply bytes.Buffer
			cut := strings.HasPrefix(line, "git-receive-pack") && s.cut.CompareAndSwap(true, false)
			if cut {
				cmd.Stdout = &onlyAdvertisement{channel, &reply}
			}
			cmd.Run() // its exit status is what the client is told
			if cut {
				return
			}
			status := []byte{0, 0, 0, byte(cmd.ProcessState.ExitCode())}
			channel.SendRequest("exit-status", false, status)
			channel.Close()
		}
	}
}

// onlyAdvertisement passes the references on, up to the first flush, and
// swallows what comes behind.
type onlyAdvertisement struct {
	w    io.Writer
	seen *bytes.Buffer
}

func (o *onlyAdvertisement) Write(p []byte) (int, error) {
	if bytes.HasSuffix(o.seen.Bytes(), []byte("0000")) {
		return len(p), nil
	}
	o.seen.Write(p)
	return o.w.Write(p)
}

func (s *sshServer) url(u *upstream) string {
	return "ssh://git@" + s.addr + u.dir
}

// port is a free port with nobody behind it.
func deadAddress(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "127.0.0.1:" + strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
