package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/pinion-cd/pinion/api"
)

// player is a daemon that gives prepared answers, one after the other, and the
// last one from then on.
type player struct {
	*httptest.Server
	mu      sync.Mutex // guards what follows
	answers []http.HandlerFunc
	asked   []asked
}

// asked is a request that it was sent.
type asked struct {
	path, authorization, body string
}

func newPlayer(t *testing.T, answers ...http.HandlerFunc) *player {
	p := &player{answers: answers}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		p.mu.Lock()
		p.asked = append(p.asked, asked{r.Method + " " + r.URL.Path, r.Header.Get("Authorization"), string(body)})
		answer := p.answers[0]
		if len(p.answers) > 1 {
			p.answers = p.answers[1:]
		}
		p.mu.Unlock()
		answer(w, r)
	}))
	p.Server.Config.ErrorLog = nil
	t.Cleanup(p.Close)
	return p
}

func (p *player) requests() []asked {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]asked(nil), p.asked...)
}

func answerJSON(status int, kind string, v any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(v)
	}
}

func recordedAnswer(r api.Receipt) http.HandlerFunc {
	return answerJSON(http.StatusOK, "application/json", r)
}

func problemAnswer(status int, code api.Code, detail string) http.HandlerFunc {
	return answerJSON(status, "application/problem+json", api.Problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: detail})
}

// lose takes the request and goes away.
func lose(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// client runs pinion with an environment.
func runClient(t *testing.T, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := pinionCommand(args...)
	cmd.Env = append(cmd.Env, env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if _, exited := errors.AsType[*exec.ExitError](err); !exited {
			t.Fatal(err)
		}
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

var (
	reporting = []string{"report", "staging", "web", "e2e", "success", "--version", "1.4.3"}
	approving = []string{"approve", "production", "web", "--version", "1.4.3"}
	recorded  = api.Receipt{Recorded: "1a2b3c", Branch: "ledger/staging", State: "completed", Message: "e2e of 1.4.3 in staging is recorded: success"}
)

func TestReportIsSentAndReceived(t *testing.T) {
	p := newPlayer(t, recordedAnswer(recorded))
	stdout, stderr, code := runClient(t, []string{"PINION_SERVER=" + p.URL, "PINION_TOKEN=t0ken"},
		append(reporting, "--description", "20 tests", "--url", "https://dana:hunter2@ci.example/5")...)
	if code != 0 || stdout != "recorded in ledger/staging: 1a2b3c\n" || stderr != recorded.Message+"\n" {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	want := asked{"POST /api/v1/reports", "Bearer t0ken",
		`{"environment":"staging","service":"web","policy":"e2e","status":"success","version":"1.4.3","description":"20 tests","url":"https://ci.example/5"}`}
	if got := p.requests(); len(got) != 1 || got[0] != want {
		t.Errorf("it was asked %q, want %q", got, want)
	}
}

func TestRerunNeedsNoResult(t *testing.T) {
	p := newPlayer(t, recordedAnswer(recorded))
	_, stderr, code := runClient(t, nil, "report", "staging", "web", "e2e", "--version", "1.4.3", "--rerun", "--server", p.URL, "-o", "json")
	if code != 0 {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
	if got := p.requests(); len(got) != 1 || got[0].body != `{"environment":"staging","service":"web","policy":"e2e","version":"1.4.3","rerun":true}` || got[0].authorization != "" {
		t.Errorf("it was asked %q", got)
	}
}

func TestApprovalIsSentAndReceived(t *testing.T) {
	p := newPlayer(t, recordedAnswer(recorded))
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("fromfile\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := runClient(t, []string{"PINION_TOKEN=other"}, "approve", "production", "web", "release", "--version", "1.4.3",
		"--comment", "notes are out", "--server", p.URL+"/pinion/", "--token-file", token, "-o", "json")
	var got api.Receipt
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || got != recorded || code != 0 {
		t.Errorf("exit code %d: %v\n%s%s", code, err, stdout, stderr)
	}
	want := asked{"POST /pinion/api/v1/approvals", "Bearer fromfile",
		`{"environment":"production","service":"web","policy":"release","version":"1.4.3","comment":"notes are out"}`}
	if got := p.requests(); len(got) != 1 || got[0] != want {
		t.Errorf("it was asked %q, want %q", got, want)
	}
}

func TestProblemsAreToldWithTheirExitCodes(t *testing.T) {
	for _, c := range []struct {
		code   api.Code
		status int
		exit   int
	}{
		{api.Invalid, 400, exitFailed},
		{api.Unauthenticated, 401, exitDenied},
		{api.NotAReporter, 403, exitDenied},
		{api.NotInGroup, 403, exitDenied},
		{api.OwnRelease, 403, exitDenied},
		{api.UnknownEnvironment, 404, exitFailed},
		{api.UnknownService, 404, exitFailed},
		{api.UnknownPolicy, 404, exitFailed},
		{api.UnknownDeployment, 404, exitFailed},
		{api.NotCurrent, 409, exitDifferent},
		{api.Decided, 409, exitDifferent},
		{api.PolicyNotUsed, 422, exitFailed},
	} {
		p := newPlayer(t, problemAnswer(c.status, c.code, "that is why\x1b[2J; do this"))
		stdout, stderr, exit := runClient(t, []string{"PINION_TOKEN=t0ken"}, append(approving, "--server", p.URL)...)
		if want := "pinion: approve web 1.4.3 in production: that is why\\x1b[2J\n  do this\n"; exit != c.exit || stdout != "" || stderr != want {
			t.Errorf("%s: exit code %d, want %d\n%s%s", c.code, exit, c.exit, stdout, stderr)
		}
		if n := len(p.requests()); n != 1 {
			t.Errorf("%s: it was asked %d times", c.code, n)
		}
	}
}

// A record that came too late is none to go on with.
func TestLateReceiptIsNoSuccess(t *testing.T) {
	late := recorded
	late.Late = true
	p := newPlayer(t, recordedAnswer(late))
	stdout, _, code := runClient(t, nil, append(reporting, "--server", p.URL)...)
	if code != exitDifferent || !strings.Contains(stdout, "1a2b3c") {
		t.Errorf("exit code %d\n%s", code, stdout)
	}
}

func TestLostAnswersAreAskedForAgain(t *testing.T) {
	busy := problemAnswer(http.StatusServiceUnavailable, api.NotReady, "the repository has not been read yet; ask again")
	half := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		fmt.Fprint(w, `{"recorded":`)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	p := newPlayer(t, lose, busy, half, recordedAnswer(recorded))
	stdout, stderr, code := runClient(t, nil, append(reporting, "--server", p.URL)...)
	if code != 0 || !strings.Contains(stdout, "1a2b3c") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	all := p.requests()
	if len(all) != 4 {
		t.Fatalf("it was asked %d times, want 4", len(all))
	}
	for _, a := range all {
		if a != all[0] {
			t.Errorf("it was asked another time for %q, the first time for %q", a, all[0])
		}
	}
}

func TestDaemonThatIsNotThereYet(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close() // from now on it refuses
	_, stderr, code := runClient(t, nil, append(reporting, "--server", "http://"+address, "--timeout", "700ms")...)
	if code != exitTimeout || !strings.Contains(stderr, "no answer within 700ms") || !strings.Contains(stderr, "connection refused") {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
}

func TestServerThatNeverAnswers(t *testing.T) {
	ended := make(chan struct{})
	p := newPlayer(t, func(_ http.ResponseWriter, r *http.Request) { <-ended })
	defer close(ended)
	_, stderr, code := runClient(t, nil, append(reporting, "--server", p.URL, "--timeout", "300ms")...)
	if code != exitTimeout {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
}

func TestWhatIsNoDaemon(t *testing.T) {
	page := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.Header().Set("Location", "https://elsewhere.example/")
			w.WriteHeader(status)
			fmt.Fprint(w, "<html>Hello</html>")
		}
	}
	for _, c := range []struct {
		status int
		says   string
	}{
		{200, "is not of a Pinion daemon"},
		{302, "redirects, and is not followed with a token"},
		{307, "redirects, and is not followed with a token"},
		{404, "see whether --server is the address of a Pinion daemon"},
		{500, "the server answered 500 Internal Server Error"},
	} {
		p := newPlayer(t, page(c.status))
		_, stderr, code := runClient(t, []string{"PINION_TOKEN=t0ken"}, append(reporting, "--server", p.URL)...)
		if code != exitFailed || !strings.Contains(stderr, c.says) {
			t.Errorf("%d: exit code %d\n%s", c.status, code, stderr)
		}
	}
}

func TestTokenIsNotSentInTheClear(t *testing.T) {
	env := []string{"PINION_TOKEN=t0ken"}
	refused := func(want string, env []string, args ...string) {
		t.Helper()
		_, stderr, code := runClient(t, env, append(reporting, args...)...)
		if code != exitFailed || !strings.Contains(stderr, want) || strings.Contains(stderr, "t0ken") || strings.Contains(stderr, "hunter2") {
			t.Errorf("exit code %d\n%s", code, stderr)
		}
	}
	refused("so it is not sent", env, "--server", "http://pinion.example")
	refused("so it is not sent", env, "--server", "http://10.0.0.1:8080")
	refused("so it is not sent", env, "--server", "http://localhost.example")
	refused("no such host", env, "--server", "http://pinion.invalid", "--insecure") // it would be
	refused("holds credentials", env, "--server", "http://dana:hunter2@127.0.0.1")
	refused("is not http://HOST or https://HOST", env, "--server", "127.0.0.1:8080")
	refused("is not http://HOST or https://HOST", env, "--server", "https://dana:hunter2@[::1")
	refused("characters that no token has", []string{"PINION_TOKEN=t0ken t0ken"})
	refused("see --token-file", env, "--token-file", "/nowhere/token")
	for _, host := range []string{"localhost", "127.0.0.1", "127.8.0.1", "::1"} {
		if !loopback(host) {
			t.Errorf("%s is this machine", host)
		}
	}
}

func TestReconcileIsSentAndReceived(t *testing.T) {
	p := newPlayer(t, answerJSON(http.StatusOK, "application/json", api.Reconciling{Main: "1a2b3c"}))
	for _, c := range []struct {
		args       []string
		body, says string
	}{
		{[]string{"reconcile", "dev"}, `{"environment":"dev"}`, "main is at 1a2b3c; dev: compared with the cluster now\n"},
		{[]string{"reconcile"}, `{}`, "main is at 1a2b3c; all environments: compared with the cluster now\n"},
		{[]string{"reconcile", "-o", "json"}, `{}`, "{\n  \"main\": \"1a2b3c\"\n}\n"},
	} {
		stdout, stderr, code := runClient(t, []string{"PINION_SERVER=" + p.URL, "PINION_TOKEN=t0ken"}, c.args...)
		if code != 0 || stdout != c.says {
			t.Errorf("%q: exit code %d\n%s%s", c.args, code, stdout, stderr)
		}
		got := p.requests()
		if last := got[len(got)-1]; last != (asked{"POST /api/v1/reconciliations", "Bearer t0ken", c.body}) {
			t.Errorf("%q: it was asked %q", c.args, last)
		}
	}
	denied := newPlayer(t, problemAnswer(http.StatusForbidden, api.Denied, "the token has not the scope reconcile"))
	if _, stderr, code := runClient(t, nil, "reconcile", "dev", "--server", denied.URL); code != exitDenied || !strings.Contains(stderr, "reconcile dev: ") {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
}

func TestWhatCantBeReported(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"report", "staging", "web", "e2e", "maybe", "--version", "1"}, `"maybe" is not a result; write success or failure`},
		{[]string{"report", "staging", "web", "e2e", "--version", "1"}, "the result is missing"},
		{[]string{"report", "staging", "web", "e2e", "success"}, "give --version"},
		{[]string{"approve", "staging", "web"}, "give --version"},
		{[]string{"reconcile", ""}, "leave it out for all of them"},
		{[]string{"approve", "staging", "web", "--version", "1", "--timeout", "0s"}, "is no time at all"},
		{[]string{"approve", "staging", "web", "--version", "1", "-o", "xml"}, "this command writes text, json"},
	} {
		_, stderr, code := runClient(t, nil, c.args...)
		if code != exitFailed || !strings.Contains(strings.ReplaceAll(stderr, "\n  ", "; "), c.says) {
			t.Errorf("%q: exit code %d\n%s", c.args, code, stderr)
		}
	}
}
