package reconcile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
	"github.com/pinion-cd/pinion/reconcile/check"
)

// startOn is start with a mirror of the given options.
func (h *house) startOn(o gitstate.Options) {
	h.Helper()
	if o.URL == "" {
		o.URL = h.remote
	}
	if o.Dir == "" {
		o.Dir = filepath.Join(h.TempDir(), "mirror")
	}
	mirror, err := gitstate.Open(context.Background(), o)
	h.must(err)
	clerk := reconcile.NewClerk(reconcile.ClerkOptions{
		Mirror:   mirror,
		Branch:   "main",
		Identity: ledger.Person{Name: "Pinion", Email: "pinion@shop.example"},
		Digests:  []byte("a key"),
		Checks:   check.New(nil, check.Options{}),
		Clock:    h.clock,
		Settled:  h.lastSettled(),
		Settle:   h.settles,
		Name:     h.TempDir(),
		Report: func(ev reconcile.Event) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.events = append(h.events, ev)
		},
	}, reconcile.NewEngine(reconcile.Options{Commits: mirror}))
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { clerk.Run(ctx) })
	wait.Go(func() { h.watch(ctx, mirror, clerk) })
	h.mirror, h.clerk = mirror, clerk
	h.stop = sync.OnceFunc(func() {
		cancel()
		wait.Wait()
		mirror.Close()
	})
	h.Cleanup(func() {
		h.stop()
		if h.Failed() {
			for _, ev := range h.events {
				h.Logf("%s %s/%s: %s", ev.Type, ev.Environment, ev.Service, ev.Message)
			}
		}
	})
}

// said returns the events of a kind whose message has all of the words.
func (h *house) said(kind reconcile.EventType, words ...string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []string
	for _, ev := range h.events {
		if ev.Type == kind && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(ev.Message, w) }) {
			found = append(found, ev.Message)
		}
	}
	return found
}

// says waits for an event.
func (h *house) says(kind reconcile.EventType, words ...string) {
	h.Helper()
	h.until(fmt.Sprintf("a %s event says %q", kind, words), func() string {
		if len(h.said(kind, words...)) == 0 {
			return "none does"
		}
		return ""
	})
}

// asks reports in the background; the channel has the outcome.
func (h *house) asks(ctx context.Context, version string, result ledger.Result, url string) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := h.clerk.Report(ctx, reconcile.ReportRequest{
			Principal: reconcile.Principal{Name: "ci"}, Environment: "staging", Service: "web",
			Policy: "e2e", Version: version, Result: result, URL: url,
		})
		done <- err
	}()
	return done
}

// unanswered checks that a request waits.
func (h *house) unanswered(what string, done <-chan error) {
	h.Helper()
	select {
	case err := <-done:
		h.Fatalf("%s was answered: %v", what, err)
	default:
	}
}

// first brings version 1.0.0 of threeStages to verified everywhere, with the
// clerk that is there.
func (h *house) first() {
	h.Helper()
	h.runs("dev", "1.0.0", ledger.StateVerified)
	h.runs("staging", "1.0.0", ledger.StateCompleted)
	h.must(h.report("ci", "staging", "e2e", "1.0.0", ledger.Success))
	h.runs("staging", "1.0.0", ledger.StateVerified)
	h.runs("production", "1.0.0", ledger.StateVerified)
}

// through leads a version from dev to production.
func (h *house) through(from, to string) {
	h.Helper()
	h.pin("dev", from, to)
	h.runs("staging", to, ledger.StateCompleted)
	h.must(h.report("ci", "staging", "e2e", to, ledger.Success))
	h.admitted(to)
}

// admitted approves a version that waits, and sees it run.
func (h *house) admitted(version string) {
	h.Helper()
	h.until(version+" waits to enter production", func() string {
		r, err := h.record("production", "web")
		if err != nil {
			return err.Error()
		}
		if r.Candidate == nil || r.Candidate.Release.Version() != version {
			return fmt.Sprintf("the candidate is %v", r.Candidate)
		}
		return ""
	})
	h.must(h.approve("alice", "production", version))
	h.must(h.approve("bob", "production", version))
	h.runs("production", version, ledger.StateVerified)
}

// guard is a hook "update" that refuses what Pinion pushes to some branches.
func guard(branches string) string {
	return `#!/bin/sh
case $1 in ` + branches + `)
	case $(git log -1 --format=%cn "$3") in
	Pinion) echo "the branch is protected" >&2; exit 1;;
	esac;;
esac
`
}

// A rule of the remote keeps the daemon off main.
func TestMainIsProtected(t *testing.T) {
	t.Parallel()
	h := newRepository(t, threeStages)
	now := time.Now()
	h.now = now
	h.startOn(gitstate.Options{})
	h.first()
	h.hook("update", guard("refs/heads/main"))
	h.pin("dev", "1.0.0", "1.1.0")
	h.says(reconcile.EventProblem, "allow the daemon's account to push to main", "the branch is protected")
	// The ledgers go on, those of other versions and stages too.
	h.runs("dev", "1.1.0", ledger.StateVerified)
	h.pin("dev", "1.1.0", "1.2.0")
	h.runs("dev", "1.2.0", ledger.StateVerified)
	h.at(now.Add(2 * time.Minute))
	h.settled()
	if n := len(h.said(reconcile.EventProblem)); n != 1 {
		t.Errorf("%d problems were reported, not one", n)
	}
	// A minute later it is tried again.
	h.hook("update", "#!/bin/sh\n")
	h.at(now.Add(4 * time.Minute))
	h.runs("staging", "1.2.0", ledger.StateCompleted)
	h.says(reconcile.EventRecorded, "can be kept again")

	// The way back waits as the way forward does.
	h.hook("update", guard("refs/heads/main"))
	h.must(h.report("ci", "staging", "e2e", "1.2.0", ledger.Failure))
	h.runs("staging", "1.2.0", ledger.StateFailed)
	h.until("it is said once more", func() string {
		if n := len(h.said(reconcile.EventProblem, "push to main")); n != 2 {
			return fmt.Sprint(n)
		}
		return ""
	})
	h.hook("update", "#!/bin/sh\n")
	h.at(now.Add(6 * time.Minute))
	h.runs("staging", "1.0.0", ledger.StateVerified)
	h.lawful()
}

// A rule keeps the daemon off one ledger: the others go on, and nothing is
// acknowledged that could not be pushed.
func TestLedgerIsProtected(t *testing.T) {
	t.Parallel()
	h := newRepository(t, threeStages)
	h.startOn(gitstate.Options{})
	h.first()
	h.hook("update", guard("refs/heads/ledger/staging"))
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("dev", "1.1.0", ledger.StateVerified)
	h.ends("main", "promote(staging): web 1.0.0 → 1.1.0")
	h.says(reconcile.EventProblem, "allow the daemon's account to create the branches ledger/*", "ledger/staging", "the branch is protected")
	report := h.asks(context.Background(), "1.0.0", ledger.Failure, "https://ci/protected")
	h.pin("dev", "1.1.0", "1.2.0")
	h.runs("dev", "1.2.0", ledger.StateVerified)
	h.pin("production", "1.0.0", "1.0.1")
	h.runs("production", "1.0.1", ledger.StateVerified)
	h.unanswered("a report to a ledger that can't be pushed", report)
	h.hook("update", "#!/bin/sh\n")
	h.clerk.Moved()
	var no *reconcile.Rejection
	if err := <-report; !errors.As(err, &no) || no.Receipt == nil {
		t.Errorf("the report came to %v", err)
	}
	h.runs("staging", "1.2.0", ledger.StateCompleted)
	if a := h.lawful(); a.counts["https://ci/protected"] != 1 {
		t.Errorf("the report is there %d times", a.counts["https://ci/protected"])
	}
}

// The remote refuses everything for a while.
func TestEverythingIsProtected(t *testing.T) {
	t.Parallel()
	h := newRepository(t, threeStages)
	h.startOn(gitstate.Options{})
	h.first()
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("staging", "1.1.0", ledger.StateCompleted)
	h.hook("pre-receive", "#!/bin/sh\necho we are moving house >&2\nexit 1\n")
	report := h.asks(context.Background(), "1.1.0", ledger.Success, "https://ci/refused")
	h.says(reconcile.EventProblem, "we are moving house", "allow the daemon's account")
	h.unanswered("a report that was refused", report)
	// Who gives up is not answered by a lie, either.
	ctx, cancel := context.WithCancel(context.Background())
	gone := h.asks(ctx, "1.0.0", ledger.Success, "https://ci/gone")
	h.unanswered("another one", gone)
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up was told %v", err)
	}
	h.hook("pre-receive", "#!/bin/sh\n")
	h.clerk.Moved()
	h.must(<-report)
	h.admitted("1.1.0")
	h.says(reconcile.EventRecorded, "can be kept again")
	if a := h.lawful(); a.counts["https://ci/gone"] != 0 {
		t.Error("what nobody waited for any more was recorded")
	}
}

// webRemote serves the remote over HTTP. harm, if there is any, is done to a
// push instead.
type webRemote struct {
	*httptest.Server
	url  string
	down atomic.Bool // answers nothing but errors
	harm atomic.Pointer[func(http.ResponseWriter, *http.Request, http.Handler)]
}

func (h *house) serve() *webRemote {
	h.Helper()
	git, err := exec.LookPath("git")
	h.must(err)
	backend := &cgi.Handler{Path: git, Args: []string{"http-backend"}, Stderr: io.Discard, Env: []string{
		"GIT_PROJECT_ROOT=" + filepath.Dir(h.remote), "GIT_HTTP_EXPORT_ALL=1",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http.receivepack", "GIT_CONFIG_VALUE_0=true"}}
	s := &webRemote{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body) // the CGI handler refuses a chunked one
		if err != nil {
			return
		}
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
		if s.down.Load() {
			http.Error(w, "on fire", http.StatusServiceUnavailable)
			return
		}
		if harm := s.harm.Load(); harm != nil && r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/git-receive-pack") {
			(*harm)(w, r, backend)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	h.Cleanup(s.Close)
	s.url = s.URL + "/" + filepath.Base(h.remote)
	return s
}

func (s *webRemote) do(harm func(http.ResponseWriter, *http.Request, http.Handler)) {
	if harm == nil {
		s.harm.Store(nil)
		return
	}
	s.harm.Store(&harm)
}

// Every push is accepted, and no reply to any of them arrives.
func TestNoReplyEverArrives(t *testing.T) {
	t.Parallel()
	h := newRepository(t, threeStages)
	s := h.serve()
	pushes := 0
	s.do(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		pushes++
		next.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	})
	h.startOn(gitstate.Options{URL: s.url, Poll: 200 * time.Millisecond})
	h.first()
	h.through("1.0.0", "1.1.0")
	a := h.lawful()
	if warnings := h.said(reconcile.EventWarning); len(warnings) > 0 {
		t.Errorf("it took itself for another: %q", warnings)
	}
	t.Logf("%d pushes for %d entries", pushes, a.total)
}

// A push is accepted, its reply is lost, and then the remote is away: nobody
// knows what became of it. What is found out later is the truth: what was asked
// is recorded once, and acknowledged after that.
func TestReplyIsLostWithTheRemote(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"1.1.0", "1.0.0"} { // current, and late
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			h := newRepository(t, threeStages)
			s := h.serve()
			h.startOn(gitstate.Options{URL: s.url, Poll: 200 * time.Millisecond})
			h.first()
			h.pin("dev", "1.0.0", "1.1.0")
			h.runs("staging", "1.1.0", ledger.StateCompleted)
			h.settled()
			accepted := make(chan bool)
			s.do(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				s.down.Store(true)
				s.do(nil)
				next.ServeHTTP(httptest.NewRecorder(), r)
				close(accepted)
				panic(http.ErrAbortHandler)
			})
			report := h.asks(context.Background(), version, ledger.Success, "https://ci/lost")
			<-accepted
			h.says(reconcile.EventProblem, "unknown whether the push was applied")
			h.unanswered("what may not be there", report)
			s.down.Store(false)
			err := <-report
			var no *reconcile.Rejection
			if version == "1.1.0" && err != nil || version == "1.0.0" && (!errors.As(err, &no) || no.Code != reconcile.NotCurrent || no.Receipt == nil) {
				t.Errorf("the answer is %v", err)
			}
			if version == "1.0.0" {
				h.must(h.report("ci", "staging", "e2e", "1.1.0", ledger.Success))
			}
			h.admitted("1.1.0")
			if a := h.lawful(); a.counts["https://ci/lost"] != 1 {
				t.Errorf("the report is there %d times", a.counts["https://ci/lost"])
			}
			if warnings := h.said(reconcile.EventWarning); len(warnings) > 0 {
				t.Errorf("it took itself for another: %q", warnings)
			}
		})
	}
}

// A push is held up on its way, given up, and arrives after all, while, or
// after, it is made once more.
func TestPushArrivesLate(t *testing.T) {
	t.Parallel()
	h := newRepository(t, threeStages)
	s := h.serve()
	h.startOn(gitstate.Options{URL: s.url, Poll: 200 * time.Millisecond, Timeout: 500 * time.Millisecond})
	var late atomic.Int32
	delay := func() {
		var once sync.Once
		s.do(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			held := false
			once.Do(func() { held = true })
			if held {
				<-r.Context().Done() // the client has given up
				late.Add(1)
				r = r.WithContext(context.WithoutCancel(r.Context()))
				w = httptest.NewRecorder()
			}
			next.ServeHTTP(w, r)
		})
	}
	delay()
	h.first()
	from := "1.0.0"
	for i := 1; i <= 3; i++ {
		to := fmt.Sprintf("1.%d.0", i)
		delay()
		h.pin("dev", from, to)
		h.runs("dev", to, ledger.StateVerified)
		delay()
		h.runs("staging", to, ledger.StateCompleted)
		delay()
		h.must(h.report("ci", "staging", "e2e", to, ledger.Success))
		h.runs("staging", to, ledger.StateVerified)
		delay()
		h.admitted(to)
		from = to
	}
	h.lawful()
	if warnings := h.said(reconcile.EventWarning); len(warnings) > 0 {
		t.Errorf("it took itself for another: %q", warnings)
	}
	if late.Load() < 3 {
		t.Errorf("%d pushes were late", late.Load())
	}
}

// The remote takes connections and says nothing.
func TestRemoteHangs(t *testing.T) {
	t.Parallel()
	h := newRepository(t, threeStages)
	s := h.serve()
	h.startOn(gitstate.Options{URL: s.url, Poll: 200 * time.Millisecond, Timeout: time.Second})
	h.first()
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("staging", "1.1.0", ledger.StateCompleted)
	h.settled()
	s.do(func(w http.ResponseWriter, r *http.Request, next http.Handler) { <-r.Context().Done() })
	report := h.asks(context.Background(), "1.1.0", ledger.Success, "https://ci/hangs")
	h.says(reconcile.EventProblem, "nothing came for 1s")
	h.unanswered("a report whose push hangs", report)
	s.do(nil)
	h.must(<-report)
	h.admitted("1.1.0")
	h.lawful()
}

// The remote is away for a while, and moves on meanwhile.
func TestRemoteIsAway(t *testing.T) {
	t.Parallel()
	h := newRepository(t, threeStages)
	s := h.serve()
	h.startOn(gitstate.Options{URL: s.url, Poll: 200 * time.Millisecond})
	h.first()
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("staging", "1.1.0", ledger.StateCompleted)
	h.settled()
	s.down.Store(true)
	report := h.asks(context.Background(), "1.1.0", ledger.Success, "https://ci/away")
	h.says(reconcile.EventProblem, "503")
	// What the clerk would do next is not so any more when the remote is back.
	h.pin("staging", "1.1.0", "1.0.0")
	h.unanswered("a report that can't be pushed", report)
	s.down.Store(false)
	<-report // true or late, as it met the revert
	r := h.runs("staging", "1.0.0", ledger.StateVerified)
	if r.Deployment.Cause != ledger.CauseRevert {
		t.Errorf("the cause is %s", r.Deployment.Cause)
	}
	h.settled()
	for _, x := range h.subjects("main") {
		if strings.Contains(x, "promote(production)") {
			t.Errorf("what was reverted moved on: %s", x)
		}
	}
	if a := h.lawful(); a.counts["https://ci/away"] != 1 {
		t.Errorf("the report is there %d times", a.counts["https://ci/away"])
	}
}

// Somebody forces main back to what it was: the daemon never forces it forward
// again, and follows when it is restored. Meanwhile the ledgers go on.
func TestMainIsRewritten(t *testing.T) {
	t.Parallel()
	h := newRepository(t, threeStages)
	h.startOn(gitstate.Options{})
	h.first()
	good := h.git("rev-parse", "origin/main")
	h.push("freeze", freeze)
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("dev", "1.1.0", ledger.StateVerified)
	h.ends("ledger/staging", "offered(staging): web 1.0.0 → 1.1.0")
	h.settled()
	release := h.change("release", func() { h.git("rm", "-q", "holds/freeze.yaml") })
	h.runs("staging", "1.1.0", ledger.StateCompleted)
	h.settled()
	h.git("fetch", "-q", "origin", "main")
	last := h.git("rev-parse", "FETCH_HEAD")

	h.git("push", "-q", "--force", "origin", good+":main")
	h.must(h.report("ci", "staging", "e2e", "1.1.0", ledger.Success))
	h.runs("staging", "1.1.0", ledger.StateVerified)
	// It wants to promote now, and asks for approvals: the ledgers go on.
	h.ends("ledger/production", "offered(production): web 1.0.0 → 1.1.0")
	h.must(h.approve("alice", "production", "1.1.0"))
	h.must(h.approve("bob", "production", "1.1.0"))
	h.says(reconcile.EventProblem, "was rewritten from "+last, "restore it")
	if got := h.git("--git-dir="+h.remote, "rev-parse", "main"); got != good {
		t.Errorf("main is at %s, not where it was forced to", got)
	}
	h.git("push", "-q", "origin", last+":main")
	h.clerk.Moved()
	h.runs("production", "1.1.0", ledger.StateVerified)
	h.git("fetch", "-q", "origin", "main")
	h.git("merge-base", "--is-ancestor", release, "FETCH_HEAD")
	h.sound()
}

// A branch is locked on the remote, for a git that was killed there has left
// its lock. The others go on, and nobody runs hot.
func TestBranchIsLocked(t *testing.T) {
	t.Parallel()
	for _, branch := range []string{"main", "ledger/staging"} {
		t.Run(branch, func(t *testing.T) {
			t.Parallel()
			h := newRepository(t, threeStages)
			h.startOn(gitstate.Options{})
			h.first()
			h.settled()
			var from, to string
			before := h.mirror.Pushes()
			lock := filepath.Join(h.remote, "refs/heads", branch+".lock")
			if branch == "main" {
				h.pin("staging", "1.0.0", "1.1.0")
				h.must(os.WriteFile(lock, nil, 0o644))
				h.runs("staging", "1.1.0", ledger.StateCompleted)
				h.must(h.report("ci", "staging", "e2e", "1.1.0", ledger.Failure)) // it wants to go back
				h.runs("staging", "1.1.0", ledger.StateFailed)
				from, to = "staging", "1.0.0"
			} else {
				h.must(os.WriteFile(lock, nil, 0o644))
				h.pin("dev", "1.0.0", "1.1.0")
				h.runs("dev", "1.1.0", ledger.StateVerified)
				h.ends("main", "promote(staging): web 1.0.0 → 1.1.0")
				from, to = "staging", "1.1.0"
			}
			h.says(reconcile.EventProblem, "another push is at work", branch)
			if n := h.mirror.Pushes() - before; n > 40 {
				t.Errorf("%d pushes were tried", n)
			}
			h.must(os.Remove(lock))
			h.clerk.Moved()
			h.until("it goes on", func() string {
				r, err := h.record(from, "web")
				if err != nil {
					return err.Error()
				}
				if r.Deployment.Release.Version() != to || r.Deployment.State == ledger.StateFailed {
					return fmt.Sprintf("%s is %s", r.Deployment.Release.Version(), r.Deployment.State)
				}
				return ""
			})
			h.lawful()
		})
	}
}
