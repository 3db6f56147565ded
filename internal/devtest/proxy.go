package devtest

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Harm is done to a request instead of serving it, or after it was served. It
// returns false to have the request served as it is.
type Harm func(w http.ResponseWriter, r *http.Request) bool

// Proxy stands between a client and an API server.
type Proxy struct {
	// Kubeconfig leads through the proxy, with the rights of the one behind it.
	Kubeconfig string

	mu       sync.Mutex
	harm     Harm              // guarded by mu
	requests map[string]int    // guarded by mu; by method
	lose     func([]byte) bool // guarded by mu
}

// NewProxy starts a proxy before the API server of a kubeconfig.
func NewProxy(t testing.TB, kubeconfig string) *Proxy {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Kubeconfig: filepath.Join(t.TempDir(), "kubeconfig"), requests: map[string]int{}}
	reverse := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1,
		ModifyResponse: func(r *http.Response) error {
			if r.Request.URL.Query().Get("watch") != "" && strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
				r.Body = &leaky{Closer: r.Body, proxy: p, lines: bufio.NewReader(r.Body)}
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { Reset(w, nil) },
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		harm := p.harm
		p.requests[r.Method]++
		p.mu.Unlock()
		if harm != nil && harm(w, r) {
			return
		}
		reverse.ServeHTTP(w, r)
	}))
	// HTTP/1.1, so that one connection can be reset alone.
	server.TLS = &tls.Config{NextProtos: []string{"http/1.1"}}
	server.StartTLS()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	through := clientcmdapi.NewConfig()
	through.Clusters["proxy"] = &clientcmdapi.Cluster{Server: server.URL, InsecureSkipTLSVerify: true}
	through.AuthInfos["proxy"] = &clientcmdapi.AuthInfo{}
	through.Contexts["proxy"] = &clientcmdapi.Context{Cluster: "proxy", AuthInfo: "proxy"}
	through.CurrentContext = "proxy"
	if err := clientcmd.WriteToFile(*through, p.Kubeconfig); err != nil {
		t.Fatal(err)
	}
	return p
}

// Do has harm done to all requests from now on; nil ends it.
func (p *Proxy) Do(harm Harm) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.harm = harm
}

// Requests returns how many requests of a method have come.
func (p *Proxy) Requests(method string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests[method]
}

// Reset cuts the connection of a request in the middle.
func Reset(w http.ResponseWriter, _ *http.Request) bool {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		if tcp, ok := c.NetConn().(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
	}
	conn.Close()
	return true
}

// Status answers a request with a status, as an API server that is in trouble
// does.
func Status(code int, header ...string) Harm {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		http.Error(w, http.StatusText(code), code)
		return true
	}
}

// Hang answers nothing until the client goes away.
func Hang(_ http.ResponseWriter, r *http.Request) bool {
	io.Copy(io.Discard, r.Body) // until then the server does not notice that the client is gone
	<-r.Context().Done()
	return true
}

// Lose has the proxy swallow those events of watches in JSON that lose names,
// from now on and also of streams that are open; nobody is told. nil ends it.
func (p *Proxy) Lose(lose func(event []byte) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lose = lose
}

// leaky passes a watch's events on, one in each line, but for those that are
// to be lost.
type leaky struct {
	io.Closer
	proxy *Proxy
	lines *bufio.Reader
	rest  []byte // of the line that is being read
}

func (l *leaky) Read(b []byte) (int, error) {
	for len(l.rest) == 0 {
		line, err := l.lines.ReadBytes('\n')
		if err != nil && len(line) == 0 {
			return 0, err
		}
		l.proxy.mu.Lock()
		lose := l.proxy.lose
		l.proxy.mu.Unlock()
		if lose == nil || !lose(line) {
			l.rest = line
		}
	}
	n := copy(b, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}
