package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/internal/devtest"
	"github.com/pinion-cd/pinion/reconcile"
)

func TestTokensOfAnIdentityProvider(t *testing.T) {
	t.Parallel()
	p := devtest.NewIdentityProvider(t, false)
	other := devtest.NewIdentityProvider(t, false)
	issuer := &Issuer{URL: p.URL, Audience: "pinion", Principal: "sub", Groups: "groups", Prefix: "sso:", Client: http.DefaultClient}
	p.Down.Store(true)
	if _, _, _, err := issuer.Verify(t.Context(), p.Token(nil)); err == nil || !strings.Contains(err.Error(), "keys") {
		t.Errorf("while the provider is down: %v", err)
	}
	p.Down.Store(false)
	if _, _, _, err := issuer.Verify(t.Context(), p.Token(nil)); err == nil || p.Asked.Load() != 1 {
		t.Errorf("it is asked at once again, %d times: %v", p.Asked.Load(), err)
	}
	issuer.again = time.Time{}
	p.Flood.Store(true)
	if _, _, _, err := issuer.Verify(t.Context(), p.Token(nil)); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a provider that answers too much: %v", err)
	}
	p.Flood.Store(false)
	issuer.again = time.Time{}
	rules := Rules{{Grant: Grant{Scopes: []Scope{ScopeApprove}}, Groups: []string{"sso:release-managers"}}, {Grant: Grant{Scopes: []Scope{ScopePin}}, Groups: []string{"release-managers"}}}
	m := Remember(issuer, rules, time.Now)
	c, ok, err := m.Authenticate(t.Context(), p.Token(nil))
	want := Caller{Principal: reconcile.Principal{Name: "sso:4711", Email: "kim@shop.example", Groups: []string{"sso:release-managers", "sso:dev"}},
		Grants: []Grant{{Scopes: []Scope{ScopeApprove}}}, Known: true}
	if diff := cmp.Diff(want, c, cmpopts.IgnoreUnexported(Caller{})); diff != "" || !ok || err != nil {
		t.Errorf("%v %v\n%s", ok, err, diff)
	}
	for verified, want := range map[any]string{nil: "", false: "", "false": "", "yes": "", 1: "", "true": "kim@shop.example"} {
		if c, _, err := m.Authenticate(t.Context(), p.Token(map[string]any{"email_verified": verified})); c.Email != want || err != nil {
			t.Errorf("email_verified is %v: the address is %q, %v, want %q", verified, c.Email, err, want)
		}
	}
	for _, name := range []string{"release managers", "kim,ci", "<kim>", "kim\u00a0ci", "kim\n"} {
		for range 2 { // asked, and remembered
			c, ok, err := m.Authenticate(t.Context(), p.Token(map[string]any{"sub": name}))
			if problem := new(*Problem); ok || !errors.As(err, problem) || (*problem).Code != Unauthenticated {
				t.Errorf("%q is %+v, %v", name, c, err)
			}
		}
	}
	if _, ok, err := m.Authenticate(t.Context(), p.Token(map[string]any{"sub": nil})); ok || problemOf(err).Code != Unauthenticated {
		t.Errorf("a token of nobody: %v", err)
	}
	valid := p.Token(nil)
	header := func(h map[string]any) string {
		return p.Sign(h, map[string]any{"iss": p.URL, "aud": "pinion", "sub": "4711", "exp": time.Now().Add(time.Hour).Unix()})
	}
	for what, token := range map[string]string{
		"for somebody else":                p.Token(map[string]any{"aud": "grafana"}),
		"of yesterday":                     p.Token(map[string]any{"exp": time.Now().Add(-time.Minute).Unix()}),
		"of tomorrow":                      p.Token(map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}),
		"of another issuer":                other.Token(nil),
		"of another issuer in its name":    other.Token(map[string]any{"iss": p.URL}),
		"not signed":                       header(map[string]any{"alg": "none"}),
		"signed with what everybody knows": header(map[string]any{"alg": "HS256", "kid": "one"}),
		"changed":                          valid[:len(valid)-6] + "AAAAAA",
		"without a signature":              valid[:strings.LastIndexByte(valid, '.')+1],
		"no token":                         "a.b.c",
		"text":                             "secret",
	} {
		if c, ok, err := m.Authenticate(t.Context(), token); ok || err != nil {
			t.Errorf("a token %s is %+v's, %v", what, c, err)
		}
	}
	p.Turn("two")
	p.Down.Store(true)
	if _, ok, err := m.Authenticate(t.Context(), p.Token(nil)); ok || err == nil {
		t.Errorf("while the new key can't be read: %v, %v", ok, err)
	}
	p.Down.Store(false)
	fresh := p.Token(nil)
	ok, err = false, nil
	for end := time.Now().Add(10 * time.Second); !ok && time.Now().Before(end); { // the answer before may still be passed on
		_, ok, err = m.Authenticate(t.Context(), fresh)
	}
	if !ok || err != nil {
		t.Errorf("after the key was turned: %v, %v", ok, err)
	}
	m.clock = func() time.Time { return time.Now().Add(2 * time.Minute) }
	if _, ok, _ := m.Authenticate(t.Context(), valid); ok {
		t.Error("a token of the key before is taken after two minutes")
	}
}

// echo is a body, and what is answered.
type echo struct {
	Environment  desired.EnvironmentName   `json:"environment"`
	Text         string                    `json:"text,omitempty"`
	Environments []desired.EnvironmentName `json:"environments,omitempty"`
	Until        time.Time                 `json:"until,omitzero"`
}

// newEcho is a server with an operation that reads and one that writes.
func newEcho(t *testing.T, change func(*Options)) *httptest.Server {
	t.Helper()
	token := func(name string, g Grant) Token {
		return Token{sha256.Sum256([]byte(name)), Caller{Principal: reconcile.Principal{Name: name}, Grants: []Grant{g}, Known: true}}
	}
	o := Options{
		Authenticators: []Authenticator{Tokens{
			token("reader", Grant{Scopes: []Scope{ScopeRead}}),
			token("ci", Grant{Scopes: DefaultScopes, Environments: []desired.EnvironmentName{"staging"}}),
			token("root", Grant{Scopes: []Scope{ScopeAdmin}}),
		}},
		More: []Operation{
			Reading(Operation{Path: "/api/v1/echo", ID: "echo", Parameters: []Parameter{ofService}}, func(c *Call) (echo, error) { return echo{Text: c.Caller.Name}, nil }),
			Writing(Operation{Path: "/api/v1/echo", ID: "shout", Scope: ScopeReport}, func(e *echo) desired.EnvironmentName { return e.Environment },
				func(c *Call, e *echo) (echo, error) { return *e, nil }),
		},
	}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Open(&Backend{})
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return h
}

// shout writes, and returns the status, the code or the text, and the detail.
func shout(t *testing.T, s *httptest.Server, token, body string) (status int, said, detail string) {
	t.Helper()
	var x struct{ Detail string }
	status, said, _ = asking(t, s, "POST", token, "", strings.NewReader(body), &x)
	return status, said, x.Detail
}

// ask sends a request, and returns the status and the code or the text.
func ask(t *testing.T, s *httptest.Server, method, token, query string, body io.Reader) (status int, said string, header http.Header) {
	t.Helper()
	return asking(t, s, method, token, query, body, nil)
}

// asking is ask; it reads the answer into more, too, unless that is nil.
func asking(t *testing.T, s *httptest.Server, method, token, query string, body io.Reader, more any) (status int, said string, header http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.URL+"/api/v1/echo"+query, body)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, _ := io.ReadAll(resp.Body)
	var x struct{ Code, Text string }
	if err := json.Unmarshal(data, &x); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	if more != nil {
		if err := json.Unmarshal(data, more); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
	}
	return resp.StatusCode, x.Code + x.Text, resp.Header
}

func TestWhoMayAsk(t *testing.T) {
	t.Parallel()
	s := newEcho(t, nil)
	open := newEcho(t, func(o *Options) { o.Anonymous = true })
	in := func(env string) string { return `{"environment": "` + env + `", "text": "hello"}` }
	for _, x := range []struct {
		server              *httptest.Server
		method, token, body string
		want                string
	}{
		{s, "GET", "", "", "401 unauthenticated"},
		{s, "GET", "nobody", "", "401 unauthenticated"},
		{s, "GET", "reader", "", "200 reader"},
		{open, "GET", "", "", "200 "},
		{open, "GET", "nobody", "", "401 unauthenticated"},
		{open, "POST", "", in("staging"), "401 unauthenticated"},
		{s, "POST", "reader", in("staging"), "403 denied"},
		{s, "POST", "ci", in("staging"), "200 hello"},
		{s, "POST", "ci", in("production"), "403 denied"},
		{s, "POST", "root", in("production"), "200 hello"},
		{s, "POST", "ci", `{"environment": "staging", "txet": "x"}`, "400 invalid"},
		{s, "POST", "ci", in("staging") + in("staging"), "400 invalid"},
		{s, "POST", "ci", `{"environment": 1}`, "400 invalid"},
		{s, "POST", "ci", ``, "400 invalid"},
	} {
		status, said, _ := ask(t, x.server, x.method, x.token, "", strings.NewReader(x.body))
		if got := fmt.Sprint(status, " ", said); got != x.want {
			t.Errorf("%s by %q with %s: got %s, want %s", x.method, x.token, x.body, got, x.want)
		}
	}
}

// Each operation that has a body may refuse one that is too large, and says so.
func TestLargeBodies(t *testing.T) {
	t.Parallel()
	s := newEcho(t, nil)
	resp, err := http.Get(s.URL + documentPath)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var document struct {
		Paths map[string]map[string]struct{ Responses map[string]any }
	}
	if err := json.NewDecoder(resp.Body).Decode(&document); err != nil {
		t.Fatal(err)
	}
	for path, item := range document.Paths {
		for method, o := range item {
			if _, told := o.Responses["413"]; told != (method == "post") {
				t.Errorf("the document says of %s %s that a body may be too large: %t", method, path, told)
			}
		}
		if _, ok := item["post"]; !ok {
			continue
		}
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			path := strings.ReplaceAll(path, "{hold}", "audit")
			r, _ := http.NewRequestWithContext(t.Context(), "POST", s.URL+path, strings.NewReader(`{"text": "`+strings.Repeat("x", maxBody)+`"}`))
			r.Header.Set("Authorization", "Bearer root")
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var answer Problem
			if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge || answer.Code != TooLarge {
				t.Errorf("%s %+v, %v", resp.Status, answer, err)
			}
		})
	}
}

// Who asks in another way is told all ways.
func TestWhatIsAllowed(t *testing.T) {
	t.Parallel()
	s := newEcho(t, nil)
	for path, want := range map[string]string{
		"/api/v1/echo":                     "GET, HEAD, POST",
		"/api/v1/holds":                    "GET, HEAD, POST",
		"/api/v1/matrix":                   "GET, HEAD",
		"/api/v1/pins":                     "POST",
		"/api/v1/holds/audit/release":      "POST",
		"/api/v1/environments/dev/entries": "GET, HEAD",
		documentPath:                       "GET, HEAD",
	} {
		for _, method := range []string{"DELETE", "PUT", "OPTIONS"} {
			r, _ := http.NewRequestWithContext(t.Context(), method, s.URL+path, nil)
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if got := resp.Header.Get("Allow"); resp.StatusCode != http.StatusMethodNotAllowed || got != want {
				t.Errorf("%s %s: %s, Allow: %s, want %s", method, path, resp.Status, got, want)
			}
		}
	}
	if status, _, header := ask(t, s, "GET", "reader", "/x", nil); status != http.StatusNotFound || header.Get("Allow") != "" {
		t.Errorf("no such address: %d, Allow: %s", status, header.Get("Allow"))
	}
}

// said is a log.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// take returns what was said since it was asked last.
func (s *said) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.text.Reset()
	return s.text.String()
}

// Who was refused can be found out, and so can who had something looked at.
func TestWhoWasRefused(t *testing.T) {
	t.Parallel()
	var log said
	s := newEcho(t, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	for _, x := range []struct{ path, token, body, want string }{
		{"echo", "reader", `{"environment": "staging"}`, `level=INFO msg="a request was refused" principal=reader operation=shout code=denied reason="reader does not have the scope report; `},
		{"echo", "ci", `{"environment": "production", "environments": ["dev"]}`, `principal=ci operation=shout environment=production environments=dev code=denied reason="ci does not have the scope report in production; `},
		{"holds/audit/release", "ci", `{}`, `principal=ci operation=release hold=audit code=denied`},
		{"echo", "nobody", `{"environment": "staging"}`, ""},
		{"echo", "ci", `{"environment": "staging"}`, ""},
		{"echo", "ci", `{"environment": 1}`, ""},
		{"reconciliations", "root", `{"environment": ""}`, ""},
	} {
		r, _ := http.NewRequestWithContext(t.Context(), "POST", s.URL+"/api/v1/"+x.path, strings.NewReader(x.body))
		r.Header.Set("Authorization", "Bearer "+x.token)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := log.take(); !strings.Contains(got, x.want) || x.want == "" && got != "" {
			t.Errorf("%s to %s %s: %s, it is logged:\n%swant %s", x.token, x.path, x.body, resp.Status, got, x.want)
		}
	}
}

// encoding/json takes more than the schema does: a slip may have meant something
// else.
func TestBodiesAreExact(t *testing.T) {
	t.Parallel()
	s := newEcho(t, nil)
	for body, want := range map[string]string{
		`{"environment": "staging", "text": "hello"}`: "hello",
		`{"environment": "staging", "text": "hello", "environments": ["dev", "staging"], "until": "2026-12-01T09:00:00Z"}`: "hello",
		`null`:                  "null",
		` null `:                "null",
		`{"environment": null}`: "environment is null",
		`{"environment": "staging", "environments": null}`:                  "environments is null",
		`{"environment": "staging", "environments": ["dev", null]}`:         "environments[1] is null",
		`{"environment": "staging", "until": null}`:                         "until is null",
		`{"Environment": "staging"}`:                                        `did you mean "environment"?`,
		`{"environment": "staging", "ENVIRONMENT": "dev"}`:                  `did you mean "environment"?`,
		`{"environment": "dev", "environment": "staging"}`:                  "environment is there twice",
		`{"environment": "staging", "text": "a", "\u0074ext": "b"}`:         "text is there twice",
		`{"environment": "Staging"}`:                                        `environment is "Staging"; write a name`,
		`{"environment": ""}`:                                               `environment is ""; write a name`,
		`{"environment": "staging", "environments": ["dev", "Pr od", "x"]}`: `environments[1] is "Pr od"; write a name`,
		`{"environment": "` + strings.Repeat("a", 64) + `"}`:                "write a name",
	} {
		status, said, detail := shout(t, s, "root", body)
		if want == "hello" {
			if status != http.StatusOK || said != want {
				t.Errorf("%s: %d %s %s", body, status, said, detail)
			}
			continue
		}
		if status != http.StatusBadRequest || said != "invalid" || !strings.Contains(detail, want) {
			t.Errorf("%s: %d %s %q, want %q", body, status, said, detail, want)
		}
	}
}

// endless is a body that does not end; it counts what is read of it.
type endless struct{ n atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.n.Add(int64(len(p)))
	return copy(p, bytes.Repeat([]byte("x"), len(p))), nil
}

func TestHowMuchOneMayAsk(t *testing.T) {
	t.Parallel()
	s := newEcho(t, func(o *Options) { o.Limits = Limits{PerSecond: 0.01, Burst: 3} })
	var got []int
	for range 5 {
		status, _, header := ask(t, s, "GET", "reader", "", nil)
		if status == http.StatusTooManyRequests && (header.Get("Retry-After") == "" || header.Get("Retry-After") == "0") {
			t.Errorf("Retry-After: %q", header.Get("Retry-After"))
		}
		got = append(got, status)
	}
	if want := []int{200, 200, 200, 429, 429}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if status, _, _ := ask(t, s, "GET", "root", "", nil); status != http.StatusOK {
		t.Errorf("another caller: %d", status)
	}
	// 100 MB, of which no more is taken than is looked at.
	s = newEcho(t, nil)
	body := &endless{}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, _ := http.NewRequestWithContext(ctx, "POST", s.URL+"/api/v1/echo", io.LimitReader(body, 100<<20))
	r.Header.Set("Authorization", "Bearer root")
	if resp, err := http.DefaultClient.Do(r); err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("100 MB: %s", resp.Status)
		}
	}
	if n := body.n.Load(); n > 50<<20 {
		t.Errorf("%d bytes of it were taken", n)
	}
}

// register knows tokens, and is a verifier that answers when it is let.
type register struct {
	asked atomic.Int64
	let   chan struct{} // nil: at once
}

func (g *register) Verify(ctx context.Context, token string) (p reconcile.Principal, until time.Time, ok bool, err error) {
	g.asked.Add(1)
	if g.let != nil {
		<-g.let
	}
	if token == "down" {
		return p, until, false, errors.New("nobody answers")
	}
	p.Name, ok = strings.CutPrefix(token, "of-")
	return p, until, ok, nil
}

// Who sends tokens that are nobody's, or that nobody can be asked about, has
// others asked a few times; who has a token that is known is not held up by that.
func TestStrangersHoldUpNobody(t *testing.T) {
	t.Parallel()
	for _, guess := range []string{"guess", "down"} {
		g := &register{}
		rules := Rules{{Grant: Grant{Scopes: []Scope{ScopeRead}}, Principals: []string{"kim", "dana"}}}
		var now atomic.Int64
		clock := func() time.Time { return time.Unix(1_800_000_000+now.Load(), 0) }
		m := Remember(g, rules, clock)
		s := newEcho(t, func(o *Options) {
			o.Authenticators, o.Clock = append(o.Authenticators, m, Remember(&register{}, rules, clock)), clock
		})
		for range 30 { // each of them is taken for a stranger before the answer comes
			if status, said, _ := ask(t, s, "GET", "of-kim", "", nil); status != http.StatusOK {
				t.Fatalf("%d %s", status, said)
			}
		}
		got := map[int]int{}
		for i := range 40 {
			token := guess
			if guess == "guess" {
				token += fmt.Sprint(i)
			}
			status, _, _ := ask(t, s, "GET", token, "", nil)
			got[status]++
		}
		if got[http.StatusTooManyRequests] != 40-2*strangersPerSecond {
			t.Errorf("%s: %v", guess, got)
		}
		if n := g.asked.Load(); n != 1+2*strangersPerSecond {
			t.Errorf("%s: asked %d times", guess, n)
		}
		now.Add(1) // some places are free again
		for range 40 {
			ask(t, s, "GET", guess, "", nil)
		}
		if status, said, _ := ask(t, s, "GET", "of-kim", "", nil); status != http.StatusOK {
			t.Errorf("a token that is remembered: %d %s", status, said)
		}
		m.mu.Lock()
		for hash, r := range m.known {
			r.until = time.Time{}
			m.known[hash] = r
		}
		m.mu.Unlock()
		if status, said, _ := ask(t, s, "GET", "of-kim", "", nil); status != http.StatusOK {
			t.Errorf("a token that was somebody's a minute ago: %d %s", status, said)
		}
	}
}

func TestOneQuestionForATokenAtATime(t *testing.T) {
	t.Parallel()
	g := &register{let: make(chan struct{})}
	m := Remember(g, nil, time.Now)
	reserved := 0
	answers := make(chan error)
	for range 20 {
		go func() {
			c, ok, err := m.authenticate(t.Context(), "of-kim", func() error { reserved++; return nil })
			if err == nil && (!ok || c.Name != "kim") {
				err = fmt.Errorf("%+v, %t", c, ok)
			}
			answers <- err
		}()
	}
	close(g.let)
	for range 20 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	if n := g.asked.Load(); n != 1 || reserved != 1 {
		t.Errorf("asked %d times, %d places", n, reserved)
	}
}

// A caller has a few streams, which end when the caller's token is taken away or
// is over.
func TestStreamsOfACaller(t *testing.T) {
	t.Parallel()
	var gone atomic.Bool
	over := verifier(func(token string) (reconcile.Principal, time.Time, bool) {
		switch {
		case token == "short":
			return reconcile.Principal{Name: "kim"}, time.Now().Add(time.Second), true
		case token == "taken":
			return reconcile.Principal{Name: "dana"}, time.Time{}, !gone.Load()
		}
		return reconcile.Principal{}, time.Time{}, false
	})
	rules := Rules{{Grant: Grant{Scopes: []Scope{ScopeRead}}, Principals: []string{"kim", "dana"}}}
	memory := Remember(over, rules, time.Now)
	s := newEcho(t, func(o *Options) {
		o.Authenticators = append(o.Authenticators, memory)
		o.More = append(o.More, Streaming(Operation{Path: "/api/v1/wait", ID: "wait", Scope: ScopeRead}, func(c *Call, s *Stream) error {
			if err := s.send("begin", "", Begun{}); err != nil {
				return err
			}
			<-c.Done()
			return nil
		}))
	})
	s.Config.Handler.(*Server).again = 20 * time.Millisecond
	open := func(token string) *http.Response {
		r, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/api/v1/wait", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	for range maxStreamsOfOne {
		if resp := open("reader"); resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status)
		}
	}
	if resp := open("reader"); resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one more: %s", resp.Status)
	}
	short := open("short")
	if _, err := io.ReadAll(short.Body); short.StatusCode != http.StatusOK || err != nil { // it ends
		t.Errorf("%s, %v", short.Status, err)
	}
	taken := open("taken")
	gone.Store(true)
	memory.mu.Lock()
	clear(memory.known) // a minute has passed
	memory.mu.Unlock()
	if _, err := io.ReadAll(taken.Body); taken.StatusCode != http.StatusOK || err != nil {
		t.Errorf("%s, %v", taken.Status, err)
	}
}

// verifier is one that is a function.
type verifier func(token string) (reconcile.Principal, time.Time, bool)

func (f verifier) Verify(_ context.Context, token string) (reconcile.Principal, time.Time, bool, error) {
	p, until, ok := f(token)
	return p, until, ok, nil
}
