package reconcile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

// The invariants of the ledger, in their order. More that tries to break them:
// TestKilledClerk (2), TestTwoDaemons (1 and 2), TestRandomHistories (3, 4, 7).

// between does something once, after a push that names a branch was judged and
// before it arrives.
func (s *webRemote) between(branch string, do func()) (done <-chan struct{}) {
	c := make(chan struct{})
	var once sync.Once
	s.do(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if bytes.Contains(body, []byte(" refs/heads/"+branch)) {
			once.Do(func() {
				do()
				close(c)
			})
		}
		next.ServeHTTP(w, r)
	})
	return c
}

func TestInvariant1CompareAndSwap(t *testing.T) {
	t.Parallel()
	h := newRepository(t, threeStages)
	h.logged()
	s := h.serve()
	h.startOn(gitstate.Options{URL: s.url, Poll: 200 * time.Millisecond})
	h.first()
	// In the moment in which a promotion is pushed somebody freezes all.
	var hold string
	done := s.between("main", func() { hold = h.push("freeze", freeze) })
	h.pin("dev", "1.0.0", "1.1.0")
	<-done
	h.ends("ledger/staging", "offered(staging): web 1.0.0 → 1.1.0")
	h.settled()
	if n := h.times("main", "promote"); n != 0 {
		t.Errorf("it was promoted in spite of the hold")
	}
	// And now somebody pins another version by hand.
	done = s.between("main", func() { h.pin("staging", "1.0.0", "1.0.5") })
	h.change("release", func() { h.git("rm", "-q", "holds/freeze.yaml") })
	<-done
	h.runs("staging", "1.1.0", ledger.StateCompleted)
	if r, _ := h.record("staging", "web"); len(r.Previous) == 0 || r.Previous[0].Release.Version() != "1.0.5" || r.Previous[0].Authors[0].Name != "Dana" {
		t.Errorf("the pin of a person was passed over: %+v", r.Previous)
	}
	// The same for a ledger.
	report := make(chan error, 1)
	done = s.between("ledger/staging", func() {
		h.git("fetch", "-q", "origin", "ledger/staging")
		tip := h.git("rev-parse", "FETCH_HEAD")
		h.git("push", "-q", "origin", h.git("commit-tree", tip+"^{tree}", "-p", tip, "-m", strings.TrimRight(late(t), "\n"))+":refs/heads/ledger/staging")
	})
	report <- h.report("ci", "staging", "e2e", "1.1.0", ledger.Success)
	<-done
	h.must(<-report)
	h.admitted("1.1.0")
	a := h.lawful()
	if a.ids[hold] != "main" || a.counts["https://ci/by-hand"] != 1 {
		t.Error("somebody's commit is lost")
	}
}

// late is the message of an entry that moves nothing.
func late(t *testing.T) string {
	e := ledger.Entry{Event: ledger.EventCheck, Environment: "staging", Service: "web", Time: time.Now(), Late: true,
		Deployment: "web-0123456789ab", Checks: []ledger.Check{{Policy: "e2e", Result: ledger.Success, By: "ci", URL: "https://ci/by-hand"}}}
	if _, err := ledger.ParseMessage(e.Message(), e.Time); err != nil {
		t.Fatal(err)
	}
	return e.Message()
}

func TestInvariant2ExactlyOnce(t *testing.T) {
	t.Parallel()
	h := newRepository(t, threeStages)
	s := h.serve()
	h.startOn(gitstate.Options{URL: s.url, Poll: 200 * time.Millisecond})
	h.first()
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("staging", "1.1.0", ledger.StateCompleted)
	h.settled()
	// What is acknowledged has been pushed: not before.
	held, free := make(chan bool), make(chan bool)
	s.do(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		s.do(nil)
		close(held)
		<-free
		next.ServeHTTP(w, r)
	})
	report := h.asks(context.Background(), "1.1.0", ledger.Success, "https://ci/once")
	<-held
	h.unanswered("a report whose push has not arrived", report)
	close(free)
	h.must(<-report)
	if r, err := h.record("staging", "web"); err != nil || len(r.Deployment.Checks) != 1 {
		t.Errorf("it was acknowledged, and is not there: %+v", r.Deployment)
	}
	h.must(h.report("ci", "staging", "e2e", "1.1.0", ledger.Success)) // who asks again is told the same
	h.admitted("1.1.0")
	// A clerk that begins anew finds all as it is, and writes nothing.
	h.settled()
	before := h.git("--git-dir="+h.remote, "for-each-ref")
	h.stop()
	h.startOn(gitstate.Options{})
	h.settled()
	h.must(h.report("ci", "staging", "e2e", "1.1.0", ledger.Success))
	h.settled()
	if now := h.git("--git-dir="+h.remote, "for-each-ref"); now != before {
		t.Errorf("a new start wrote\n%s\nbefore it was\n%s", now, before)
	}
	if a := h.lawful(); a.counts["https://ci/once"] != 1 || a.promotions != 2 {
		t.Errorf("%d reports, %d promotions", a.counts["https://ci/once"], a.promotions)
	}
}

func TestInvariant3OnlyWhatWasVerifiedMoves(t *testing.T) {
	t.Parallel()
	h := newRepository(t, threeStages)
	h.startOn(gitstate.Options{})
	h.first()
	var no *reconcile.Rejection
	// A late result.
	h.pin("dev", "1.0.0", "1.1.0")
	old := h.runs("staging", "1.1.0", ledger.StateCompleted).Deployment.ID
	h.pin("dev", "1.1.0", "1.2.0")
	h.runs("staging", "1.2.0", ledger.StateCompleted)
	for _, version := range []string{"1.1.0", old} {
		if err := h.report("ci", "staging", "e2e", version, ledger.Success); !errors.As(err, &no) || no.Code != reconcile.NotCurrent {
			t.Errorf("a late report came to %v", err)
		}
	}
	h.still("staging", "1.2.0", ledger.StateCompleted)
	// The same version, and other bytes.
	a, b := "1.3.0@sha256:"+strings.Repeat("a", 64), "1.3.0@sha256:"+strings.Repeat("b", 64)
	h.pin("dev", "1.2.0", a)
	h.until("staging has the first image", func() string {
		r, err := h.record("staging", "web")
		if err != nil || len(r.Deployment.Release.Pins) == 0 || !strings.HasSuffix(r.Deployment.Release.Pins[0].Image, a) || r.Deployment.State != ledger.StateCompleted {
			return fmt.Sprint(r.Deployment.Release, r.Deployment.State, err)
		}
		return ""
	})
	first, err := h.record("staging", "web")
	h.must(err)
	h.replace("environments/staging.yaml", a, b)
	h.until("staging has the second image", func() string {
		r, err := h.record("staging", "web")
		if err != nil || !strings.HasSuffix(r.Deployment.Release.Pins[0].Image, b) || r.Deployment.State != ledger.StateCompleted {
			return fmt.Sprint(r.Deployment.Release, r.Deployment.State, err)
		}
		return ""
	})
	for _, version := range []string{a, "sha256:" + strings.Repeat("a", 64), first.Deployment.ID, first.Deployment.Commit} {
		if err := h.report("ci", "staging", "e2e", version, ledger.Success); !errors.As(err, &no) || no.Code != reconcile.NotCurrent {
			t.Errorf("a report for another image came to %v", err)
		}
	}
	h.settled()
	if n := h.times("main", "promote(production)"); n != 0 {
		t.Error("it was promoted")
	}
	// Manifests that change behind a verified version stay behind.
	h.replace("environments/dev.yaml", a, "1.4.0")
	good := h.runs("staging", "1.4.0", ledger.StateCompleted).Deployment.Release.Source
	h.must(h.report("ci", "staging", "e2e", "1.4.0", ledger.Success))
	h.ends("ledger/production", "offered(production): web 1.0.0 → 1.4.0")
	changed := h.replace("services/web/web.yaml", "containers:", "terminationGracePeriodSeconds: 5, containers:")
	h.until("staging reads its manifests from the change", func() string {
		r, err := h.record("staging", "web")
		if err != nil || r.Deployment.Release.Source != changed || r.Deployment.State != ledger.StateCompleted {
			return fmt.Sprint(r.Deployment.Release, r.Deployment.State, err)
		}
		return ""
	})
	h.settled()
	h.must(h.approve("alice", "production", "1.4.0"))
	h.must(h.approve("bob", "production", "1.4.0"))
	r := h.runs("production", "1.4.0", ledger.StateVerified)
	if r.Deployment.Release.Source != good {
		t.Errorf("production reads its manifests from %s, and %s was verified", r.Deployment.Release.Source, good)
	}
	h.lawful()
}

func TestInvariant4RollbackSticks(t *testing.T) {
	t.Parallel()
	h := newRepository(t, threeStages)
	h.startOn(gitstate.Options{})
	h.first()
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("staging", "1.1.0", ledger.StateCompleted)
	h.must(h.report("ci", "staging", "e2e", "1.1.0", ledger.Failure))
	h.runs("staging", "1.0.0", ledger.StateVerified)
	sticks := func(what string) {
		t.Helper()
		h.settled()
		r, err := h.record("staging", "web")
		h.must(err)
		if r.Deployment.Release.Version() != "1.0.0" || r.Candidate != nil {
			t.Errorf("%s: staging has %s, and the candidate is %v", what, r.Deployment.Release.Version(), r.Candidate)
		}
	}
	sticks("at once")
	h.stop()
	h.startOn(gitstate.Options{})
	sticks("after a new start")
	h.push("a note", "-- README.md --\nhello\n")
	sticks("after another commit")
	h.replace("services/web/web.yaml", "containers:", "terminationGracePeriodSeconds: 5, containers:")
	h.until("dev has the manifests", func() string {
		r, err := h.record("dev", "web")
		if err != nil || r.Deployment.Cause != ledger.CauseManifests || r.Deployment.State != ledger.StateVerified {
			return fmt.Sprint(r.Deployment.Cause, r.Deployment.State, err)
		}
		return ""
	})
	sticks("with other manifests")
	h.pin("dev", "1.1.0", "1.0.0")
	h.runs("dev", "1.0.0", ledger.StateVerified)
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("dev", "1.1.0", ledger.StateVerified)
	h.until("nothing of it comes", func() string {
		r, _ := h.record("staging", "web")
		if r.Deployment.Release.Version() != "1.0.0" {
			return r.Deployment.Release.Version()
		}
		return ""
	})
	h.settled()
	if n := h.times("main", "promote(staging): web 1.0.0 → 1.1.0"); n != 1 {
		t.Errorf("it was promoted %d times", n)
	}
	// A person brings it back.
	h.pin("staging", "1.0.0", "1.1.0")
	h.runs("staging", "1.1.0", ledger.StateCompleted)
	h.must(h.report("ci", "staging", "e2e", "1.1.0", ledger.Success))
	h.admitted("1.1.0")
	h.lawful()
}

func TestInvariant5CouldNotReadIsNotNotThere(t *testing.T) {
	t.Parallel()
	h := newRepository(t, threeStagesOf("api", "web"))
	h.startOn(gitstate.Options{})
	h.first()
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("staging", "1.1.0", ledger.StateCompleted)
	h.must(h.report("ci", "staging", "e2e", "1.1.0", ledger.Failure))
	h.runs("staging", "1.0.0", ledger.StateVerified)
	h.settled()

	// A record that can't be read is not one that is not there.
	good := h.file("ledger/staging", "web/deployment.yaml") + "\n"
	byHand := func(message, text string) {
		t.Helper()
		h.git("fetch", "-q", "origin", "ledger/staging")
		h.git("checkout", "-q", "-B", "by-hand", "FETCH_HEAD")
		h.must(os.WriteFile(filepath.Join(h.clone, "web/deployment.yaml"), []byte(text), 0o644))
		h.git("commit", "-qam", message)
		h.git("push", "-q", "origin", "HEAD:ledger/staging")
		h.git("checkout", "-q", "main")
	}
	byHand("a slip of the hand", "state: who knows\n")
	h.says(reconcile.EventProblem, "web/deployment.yaml", "a commit on ledger/staging mends it")
	before := h.git("--git-dir="+h.remote, "rev-parse", "ledger/staging")
	h.pin("staging", "1.0.0", "1.2.0")
	h.pin("dev", "1.1.0", "1.3.0")
	h.runs("dev", "1.3.0", ledger.StateVerified)
	var no *reconcile.Rejection
	if err := h.report("ci", "staging", "e2e", "1.2.0", ledger.Success); !errors.As(err, &no) || no.Code != reconcile.NotReady {
		t.Errorf("a report that can't be judged came to %v", err)
	}
	h.settled()
	if now := h.git("--git-dir="+h.remote, "rev-parse", "ledger/staging"); now != before {
		t.Errorf("staging was written to:\n%s", h.git("--git-dir="+h.remote, "log", "-3", "ledger/staging"))
	}
	if n := h.times("main", "promote"); n != 1 {
		t.Errorf("%d promotions", n)
	}
	// A new start makes no difference.
	h.stop()
	dir := filepath.Join(t.TempDir(), "mirror")
	h.startOn(gitstate.Options{Dir: dir})
	h.settled()
	if now := h.git("--git-dir="+h.remote, "rev-parse", "ledger/staging"); now != before {
		t.Errorf("staging was written to after a new start:\n%s", h.git("--git-dir="+h.remote, "log", "-3", "ledger/staging"))
	}
	byHand("mended", good)
	h.until("it goes on from where it was", func() string {
		r, err := h.record("staging", "web")
		if err != nil || len(r.Refused) == 0 || len(r.Previous) < 3 || r.Deployment.Release.Version() != "1.3.0" {
			return fmt.Sprint(r.Deployment.Release.Version(), len(r.Previous), r.Refused, err)
		}
		return ""
	})

	// A file that is broken takes nothing away and lets nothing in.
	h.runs("staging", "1.3.0", ledger.StateCompleted)
	file := filepath.Join(h.clone, "environments/production.yaml")
	var sound []byte
	h.change("a slip in production", func() {
		var err error
		sound, err = os.ReadFile(file)
		h.must(err)
		h.must(os.WriteFile(file, append([]byte("oops: [\n"), sound...), 0o644))
	})
	h.must(h.report("ci", "staging", "e2e", "1.3.0", ledger.Success))
	h.runs("staging", "1.3.0", ledger.StateVerified)
	h.settled()
	if r, _ := h.record("production", "web"); !r.Retired.IsZero() || r.Deployment.Release.Version() != "1.0.0" {
		t.Errorf("production has %s, retired %s", r.Deployment.Release.Version(), r.Retired)
	}
	h.change("mend production", func() { h.must(os.WriteFile(file, sound, 0o644)) })

	// Half of the mirror is gone, but what is being written: a fetch that fails is not
	// tried again here before the next poll.
	h.must(filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && strings.Contains(path, "/objects/") && len(path)%2 == 0 && !strings.Contains(e.Name(), "tmp_") {
			err = os.Remove(path)
		}
		if errors.Is(err, fs.ErrNotExist) { // it was merged meanwhile
			return nil
		}
		return err
	}))
	h.admitted("1.3.0")
	h.settled()
	for _, env := range []string{"dev", "staging", "production"} {
		if n := h.times("ledger/"+env, "retired"); n != 0 {
			t.Errorf("%s: %d retired", env, n)
		}
		if n := h.times("ledger/"+env, "pinned("+env+"): api"); n != 1 {
			t.Errorf("%s: api was pinned %d times", env, n)
		}
	}
}

func TestInvariant6JudgedByTheRulesOfItsTime(t *testing.T) {
	t.Parallel()
	h := newRepository(t, threeStages)
	h.startOn(gitstate.Options{})
	h.first()
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("staging", "1.1.0", ledger.StateCompleted)
	// Nobody gets a version verified by doing away with its check.
	h.replace("pipelines/default.yaml", "  verify: [e2e]\n", "")
	h.still("staging", "1.1.0", ledger.StateCompleted)
	h.stop()
	h.startOn(gitstate.Options{})
	h.still("staging", "1.1.0", ledger.StateCompleted)
	h.must(h.report("ci", "staging", "e2e", "1.1.0", ledger.Success))
	h.runs("staging", "1.1.0", ledger.StateVerified)
	// Whether it may enter is for the tip to say.
	h.ends("ledger/production", "offered(production): web 1.0.0 → 1.1.0")
	h.must(h.approve("alice", "production", "1.1.0"))
	h.replace("policies/release.yaml", "count: 2", "count: 3")
	h.must(h.approve("bob", "production", "1.1.0"))
	h.still("production", "1.0.0", ledger.StateVerified)
	h.replace("policies/release.yaml", "count: 3", "count: 2")
	h.runs("production", "1.1.0", ledger.StateVerified)
	// The next one is pinned without a check, and has none when it comes back.
	h.pin("dev", "1.1.0", "1.2.0")
	h.runs("staging", "1.2.0", ledger.StateVerified)
	h.replace("pipelines/default.yaml", "- environment: staging\n", "- environment: staging\n  verify: [e2e]\n")
	h.pin("dev", "1.2.0", "1.3.0")
	h.runs("staging", "1.3.0", ledger.StateCompleted)
	h.still("staging", "1.3.0", ledger.StateCompleted)
	h.lawful()
}

func TestInvariant7OneBadServiceStopsNoOther(t *testing.T) {
	t.Parallel()
	h := newRepository(t, threeStagesOf("api", "bff", "cms", "web"))
	h.startOn(gitstate.Options{})
	h.first()
	from := "1.0.0"
	minor := 0
	goes := func(what string) {
		t.Helper()
		minor++
		to := fmt.Sprintf("1.%d.0", minor)
		h.through(from, to)
		from = to
		if t.Failed() {
			t.Fatalf("after: %s", what)
		}
	}
	h.push("a service that can't be read", "-- services/api/service.yaml --\nkind: [\n")
	goes("a file is broken")
	h.push("manifests that can't be rendered", "-- services/bff/bff.yaml --\n{{ oops }}\n")
	goes("manifests are broken")
	h.is("dev/cms", "2.0.0", reconcile.Failed)
	h.replace("environments/dev.yaml", "cms:1.0.0", "cms:2.0.0")
	goes("a rollout fails")
	h.push("a pipeline of its own", "-- pipelines/cms.yaml --\napiVersion: pinion.dev/v1\nkind: Pipeline\nservices: [cms]\nstages:\n- environment: nowhere\n")
	goes("a pipeline leads nowhere")
	h.git("fetch", "-q", "origin", "ledger/dev")
	h.git("checkout", "-q", "-B", "by-hand", "FETCH_HEAD")
	h.must(os.WriteFile(filepath.Join(h.clone, "cms/deployment.yaml"), []byte("oops"), 0o644))
	h.git("commit", "-qam", "a slip")
	h.git("push", "-q", "origin", "HEAD:ledger/dev")
	h.git("checkout", "-q", "main")
	goes("a record is broken")
}
