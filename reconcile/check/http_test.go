package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/outbound"
)

// patience bounds what must come, on a busy machine.
const patience = 30 * time.Second

func quick() *Runner { return New(nil, Options{Interval: 5 * time.Millisecond, Allow: outbound.Any()}) }

func asking(url, expect string) Request {
	return Request{
		Environment: &desired.Environment{Name: "staging", Cluster: "default", Namespace: "shop-staging"},
		Service:     "web", Deployment: "web-4f1c2aa90b7e",
		Policy: &desired.Policy{
			Name: "smoke", File: "policies/smoke.yaml", Check: desired.CheckHTTP,
			HTTP:       &desired.HTTP{URL: url, Expect: expect},
			Expression: desired.Position{File: "policies/smoke.yaml", Line: 3, Column: 8},
		},
	}
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// run makes a check that has to be decided.
func run(t *testing.T, r *Runner, q Request) (Result, []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var said []string
	result, err := r.Run(ctx, q, func(s string) { said = append(said, s) })
	if err != nil {
		t.Fatalf("after %q: %v", said, err)
	}
	return result, said
}

func expect(t *testing.T, got Result, want ledger.Result, words ...string) {
	t.Helper()
	if got.Result != want {
		t.Errorf("%s, want %s: %s", got.Result, want, got.Description)
	}
	for _, w := range words {
		if !strings.Contains(got.Description, w) {
			t.Errorf("%q does not say %q", got.Description, w)
		}
	}
	if strings.Contains(got.Description, "\n") {
		t.Errorf("%q is more than a line", got.Description)
	}
}

// failing makes a check that is never as expected. A busy machine is given more
// time for an answer.
func failing(t *testing.T, r *Runner, q Request, words ...string) []string {
	t.Helper()
	for _, bound := range []time.Duration{200 * time.Millisecond, 2 * time.Second, patience / 2} {
		q.Deadline = time.Now().Add(bound)
		result, said := run(t, r, q)
		if strings.Contains(result.Description, words[0]) || bound == patience/2 {
			expect(t, result, ledger.Failure, words...)
			return append(said, fmt.Sprint(result))
		}
	}
	return nil
}

func TestAnswerAsExpected(t *testing.T) {
	var path, agent atomic.Value
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		path.Store(r.URL.String())
		agent.Store(r.UserAgent())
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Version", "1.4.2")
		w.Write([]byte(`{"ready": true, "replicas": 3}`))
	})
	q := asking(at+"/{environment}/{namespace}/{service}?a=b", `status == 200 && body.ready && body.replicas >= 3 && headers["x-version"] == "1.4.2"`)
	result, said := run(t, quick(), q)
	expect(t, result, ledger.Success, "GET "+at+"/staging/shop-staging/web?a=b: 200")
	if result.URL != at+"/staging/shop-staging/web?a=b" || path.Load() != "/staging/shop-staging/web?a=b" || agent.Load() != "pinion" {
		t.Errorf("asked %v as %v, says %s", path.Load(), agent.Load(), result.URL)
	}
	if len(said) != 0 {
		t.Errorf("it waited for %q", said)
	}
}

func TestAnswerComesLater(t *testing.T) {
	var n atomic.Int32
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch n.Add(1) {
		case 1:
			w.WriteHeader(503)
		case 2:
			panic(http.ErrAbortHandler)
		default:
			fmt.Fprint(w, "ok")
		}
	})
	result, said := run(t, quick(), asking(at, `status == 200 && body == "ok"`))
	expect(t, result, ledger.Success)
	want := []string{
		"GET " + at + `: 503, wanted status == 200 && body == "ok"`,
		"GET " + at + ": the connection broke off",
	}
	if !slices.Equal(said, want) {
		t.Errorf("it said %q, want %q", said, want)
	}
}

func TestAnswerNeverAsExpected(t *testing.T) {
	at := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"state":"starting"}`) })
	q := asking(at, "status == 200 && body.ready")
	q.Policy.Timeout = time.Hour
	failing(t, quick(), q, "200, wanted status == 200 && body.ready (", "ready", "within its timeout of 1h")
}

func TestNoAnswer(t *testing.T) {
	hangs := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	trickles := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		w.Write([]byte("12345"))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	secure := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	for _, test := range []struct{ name, url, words string }{
		{"a server that hangs", hangs, "no answer"},
		{"a body that does not end", trickles, "no answer"},
		{"a certificate of nobody", secure.URL, "x509"},
		{"nobody listens", "http://" + free.Addr().String(), "connection refused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			failing(t, quick(), asking(test.url, "status == 200"), test.words, "not as expected within its time")
		})
	}
}

func TestDeadlineIsOver(t *testing.T) {
	at := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("it was asked") })
	q := asking(at, "status == 200")
	q.Deadline = time.Now().Add(-time.Hour)
	result, _ := run(t, quick(), q)
	expect(t, result, ledger.Failure, "no answer")
}

func TestRedirects(t *testing.T) {
	other := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("the other host was asked") })
	other = strings.Replace(other, "127.0.0.1", "user:hunter2@localhost", 1)
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/other":
			http.Redirect(w, r, other, http.StatusFound)
		case "/near":
			http.Redirect(w, r, "/end", http.StatusFound)
		case "/end":
			fmt.Fprint(w, "end")
		default:
			http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
		}
	})
	result, _ := run(t, quick(), asking(at+"/near", `body == "end"`))
	expect(t, result, ledger.Success, at+"/near: 200")
	result, _ = run(t, quick(), asking(at+"/other", `status == 302 && headers.location.endsWith("`+other[len("http://"):]+`")`))
	expect(t, result, ledger.Success, ": 302")
	for path, words := range map[string]string{
		"/other": "302, wanted status == 200; it redirects to http://localhost:",
		"/round": "more than 5 redirects",
	} {
		if said := failing(t, quick(), asking(at+path, "status == 200"), words); strings.Contains(fmt.Sprint(said), "hunter2") {
			t.Errorf("it tells the password: %q", said)
		}
	}
}

func TestHugeBody(t *testing.T) {
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		chunk := []byte(strings.Repeat("x", 1<<16))
		for { // it never ends
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	result, _ := run(t, quick(), asking(at, "status == 200 && size(body) == 1048576"))
	expect(t, result, ledger.Success)
	failing(t, quick(), asking(at, `body == "x"`), "only the first 1 MiB")
}

func TestWhatTheAuthorMustMend(t *testing.T) {
	for _, test := range []struct{ name, url, expect, words string }{
		{"an expression that does not compile", "http://127.0.0.1:1", "stauts == 200", "policies/smoke.yaml:3:8: expect: "},
		{"an address of another kind", "ftp://x/", "status == 200", "policies/smoke.yaml: the url is not http://"},
		{"the address of credentials", "http://169.254.169.254/latest/meta-data", "status == 200", "169.254.169.254 is an address at which clouds hand out credentials"},
		{"the same as IPv6", "http://[::ffff:169.254.169.254]/", "status == 200", "never asked"},
		{"of a link", "http://[fe80::1%25eth0]/", "status == 200", "never asked"},
	} {
		t.Run(test.name, func(t *testing.T) {
			result, said := run(t, quick(), asking(test.url, test.expect))
			expect(t, result, ledger.Failure, test.words)
			if len(said) != 0 {
				t.Errorf("it waited for %q", said)
			}
		})
	}
}

// Who may merge a policy must not be able to look around in the daemon's
// network.
func TestHostsThatNobodyLists(t *testing.T) {
	at := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("it was asked") })
	where := strings.TrimPrefix(at, "http://")
	r := New(nil, Options{})
	q := asking("http://robot:hunter2@"+where+"/health", "status == 200")
	for _, q := range []Request{q, querying(at, "up", "value > 0.0", 0)} {
		result, said := run(t, r, q)
		expect(t, result, ledger.Failure, where+" is not asked", "outbound.allow")
		if len(said) != 0 || strings.Contains(result.Description, "hunter2") {
			t.Errorf("%q; it waited for %q", result.Description, said)
		}
	}
}

func TestUserInfoIsNotTold(t *testing.T) {
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if name, password, _ := r.BasicAuth(); name != "robot" || password != "hunter2" {
			w.WriteHeader(401)
		}
	})
	at = strings.Replace(at, "http://", "http://robot:hunter2@", 1)
	result, said := run(t, quick(), asking(at, "status == 200"))
	expect(t, result, ledger.Success, "GET http://127.0.0.1:")
	said = append(said, fmt.Sprint(result))
	said = append(said, failing(t, quick(), asking(at, "status == 201"), "200, wanted status == 201")...)
	if all := fmt.Sprint(said); strings.Contains(all, "robot") || strings.Contains(all, "hunter2") {
		t.Errorf("it tells who asks: %s", all)
	}
	q := asking(strings.Replace(at, "127.0.0.1", "\x7f", 1), "status == 200")
	result, _ = run(t, quick(), q)
	if strings.Contains(result.Description, "hunter2") {
		t.Errorf("it tells who asks: %s", result.Description)
	}
}

func TestEndOfContextDecidesNothing(t *testing.T) {
	asked := make(chan struct{}, 1)
	at := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	q := asking(at, "status == 200")
	q.Deadline = time.Now().Add(time.Hour)
	result, err := quick().Run(ctx, q, nil)
	if !errors.Is(err, context.Canceled) || result != (Result{}) {
		t.Errorf("%+v, %v", result, err)
	}
}

func TestEndOfContextWhileItPauses(t *testing.T) {
	at := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	for _, q := range []Request{asking(at, "status == 200"), querying(at, "up", "value > 0.0", 0)} {
		ctx, cancel := context.WithCancel(t.Context())
		result, err := New(nil, Options{Interval: time.Hour, Allow: outbound.Any()}).Run(ctx, q, func(string) { cancel() })
		if !errors.Is(err, context.Canceled) || result != (Result{}) {
			t.Errorf("%s: %+v, %v", q.Policy.Check, result, err)
		}
	}
}

func TestKindsThatAreNotRun(t *testing.T) {
	q := asking("", "")
	q.Policy.Check = desired.CheckSoak
	if _, err := quick().Run(t.Context(), q, nil); err == nil || !strings.Contains(err.Error(), "soak is judged, not run") {
		t.Error(err)
	}
	q.Policy.Check = "guess"
	if _, err := quick().Run(t.Context(), q, nil); err == nil || !strings.Contains(err.Error(), `"guess"`) {
		t.Error(err)
	}
}

// names is a name server that answers with one address after the other, the
// last one for ever.
func names(t *testing.T, addresses ...string) *net.Resolver {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { server.Close(); serving.Wait() })
	serving.Go(func() {
		asked := 0
		for buffer := make([]byte, 1500); ; {
			n, from, err := server.ReadFrom(buffer)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buffer[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Header.Response = true
			m.Additionals = nil
			if question := m.Questions[0]; question.Type == dnsmessage.TypeA {
				a := netip.MustParseAddr(addresses[min(asked, len(addresses)-1)]).As4()
				asked++
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: question.Name, Class: question.Class, TTL: 0},
					Body:   &dnsmessage.AResource{A: a},
				}}
			}
			if packed, err := m.Pack(); err == nil {
				server.WriteTo(packed, from)
			}
		}
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

// A name server can answer once with a harmless address, and then with one
// that gives away credentials.
func TestNameThatLeadsAstray(t *testing.T) {
	var asked atomic.Int32
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.WriteHeader(503)
	})
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	r := New(nil, Options{Interval: 5 * time.Millisecond, Allow: outbound.Any(), Resolver: names(t, "127.0.0.1", "127.0.0.1", "169.254.169.254")})
	result, said := run(t, r, asking("http://rebind.test.:"+u.Port()+"/latest", "status == 200"))
	expect(t, result, ledger.Failure, "http://rebind.test.:"+u.Port()+"/latest", "169.254.169.254 is an address at which")
	if asked.Load() != 2 || len(said) != 1 {
		t.Errorf("the server was asked %d times; %q", asked.Load(), said)
	}
}
