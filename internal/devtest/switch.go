package devtest

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"sync"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Switch is an address behind which another API server can stand at any
// moment, as when a name in the DNS moves.
type Switch struct {
	Kubeconfig string

	server *httptest.Server
	test   testing.TB

	mu      sync.Mutex
	handler http.Handler // guarded by mu
	writes  int          // guarded by mu; requests since the last turn that could write
}

// NewSwitch starts a switch that leads to the API server of a kubeconfig.
func NewSwitch(t testing.TB, kubeconfig string) *Switch {
	t.Helper()
	s := &Switch{Kubeconfig: filepath.Join(t.TempDir(), "kubeconfig"), test: t}
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		handler := s.handler
		if r.Method != http.MethodGet {
			s.writes++
		}
		s.mu.Unlock()
		handler.ServeHTTP(w, r)
	}))
	s.server.EnableHTTP2 = true
	s.server.TLS = &tls.Config{}
	s.server.StartTLS()
	t.Cleanup(func() {
		s.server.CloseClientConnections()
		s.server.Close()
	})
	s.Turn(kubeconfig)
	through := clientcmdapi.NewConfig()
	through.Clusters["switch"] = &clientcmdapi.Cluster{Server: s.server.URL, InsecureSkipTLSVerify: true}
	through.AuthInfos["switch"] = &clientcmdapi.AuthInfo{}
	through.Contexts["switch"] = &clientcmdapi.Context{Cluster: "switch", AuthInfo: "switch"}
	through.CurrentContext = "switch"
	if err := clientcmd.WriteToFile(*through, s.Kubeconfig); err != nil {
		t.Fatal(err)
	}
	return s
}

// Turn has another API server answer, and cuts the connections that there are.
func (s *Switch) Turn(kubeconfig string) {
	s.test.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		s.test.Fatal(err)
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		s.test.Fatal(err)
	}
	target, err := url.Parse(config.Host)
	if err != nil {
		s.test.Fatal(err)
	}
	s.mu.Lock()
	s.handler = &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1,
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	s.writes = 0
	s.mu.Unlock()
	s.server.CloseClientConnections()
}

// Writes returns how many requests that could write have come since the last
// turn.
func (s *Switch) Writes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes
}
