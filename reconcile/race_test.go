//go:build unix

package reconcile_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

// long returns PINION_LONG, or what is usual.
func long(t testing.TB, usual time.Duration) time.Duration {
	text := os.Getenv("PINION_LONG")
	if text == "" {
		return usual
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("PINION_LONG: %v", err)
	}
	return d
}

// meddle has a person do one thing to main, by hand.
func (c *city) meddle() {
	c.Helper()
	svc := c.services[c.rand(len(c.services))]
	env := []string{"staging", "production"}[c.rand(2)]
	hold := "holds/" + env + "-" + svc + ".yaml"
	what := c.rand(6)
	id := c.change(fmt.Sprintf("by hand: %d in %s of %s", what, env, svc), func() {
		file := filepath.Join(c.clone, "environments", env+".yaml")
		switch what {
		case 0:
			c.must(os.MkdirAll(filepath.Join(c.clone, "holds"), 0o755))
			c.must(os.WriteFile(filepath.Join(c.clone, hold), fmt.Appendf(nil,
				"apiVersion: pinion.dev/v1\nkind: Hold\nenvironments: [%s]\nservices: [%s]\nreason: INC-1\nowner: dana@shop.example\n", env, svc), 0o644))
		case 1, 2:
			os.Remove(filepath.Join(c.clone, hold))
		case 3: // back, or forward, past all gates
			data, err := os.ReadFile(file)
			c.must(err)
			pin := regexp.MustCompile(`/` + svc + `:1\.(\d+)\.0`)
			data = pin.ReplaceAllFunc(data, func(old []byte) []byte {
				var minor int
				fmt.Sscanf(string(old[len(svc)+1:]), ":1.%d.0", &minor)
				return fmt.Appendf(nil, "/%s:1.%d.0", svc, max(0, minor-2+c.rand(4)))
			})
			c.must(os.WriteFile(file, data, 0o644))
		case 4: // a comment in the very file that promotions edit
			data, err := os.ReadFile(file)
			c.must(err)
			c.must(os.WriteFile(file, append(bytes.TrimRight(data, "\n"), fmt.Appendf(nil, "\n# %d\n", c.rand(1000))...), 0o644))
		case 5:
			c.must(os.WriteFile(filepath.Join(c.clone, "README.md"), fmt.Appendf(nil, "# The shop\n\n%d\n", c.rand(1<<30)), 0o644))
		}
	})
	c.mu.Lock()
	c.commits = append(c.commits, id)
	c.mu.Unlock()
}

// Two daemons by mistake, and people who bump, pin, revert, hold, release,
// report and approve: nothing is promoted or recorded twice, nobody's commit is
// lost, and each of the two says that there is another.
func TestTwoDaemons(t *testing.T) {
	t.Parallel()
	c := newCity(t, seeded(t), "api", "db", "web")
	dirs := []string{filepath.Join(t.TempDir(), "mirror"), filepath.Join(t.TempDir(), "mirror")}
	clerks := []*clerkProcess{c.process(dirs[0], "", 0), c.process(dirs[1], "", 0)}
	c.employ(clerks...)
	start, end := time.Now(), time.Now().Add(long(t, 25*time.Second))
	meddled := 0
	for ; time.Now().Before(end); meddled++ {
		c.meddle()
	}
	c.change("release all", func() { os.RemoveAll(filepath.Join(c.clone, "holds")) })
	c.rest()
	c.stop()
	for i, p := range clerks {
		p.kill()
		noticed := false
		for _, ev := range p.events {
			if strings.HasPrefix(ev, "warning") && strings.Contains(ev, "another daemon") {
				noticed = true
				continue
			}
			t.Logf("daemon %d: %s", i, ev)
		}
		if !noticed {
			t.Errorf("daemon %d has not noticed the other one", i)
		}
	}
	a := c.lawful()
	c.kept(a)
	t.Logf("%d entries, %d promotions, %d rollbacks; %d of %d commits on main by hand; %d requests acknowledged, %d not; %s",
		a.total, a.promotions, a.rollbacks, meddled, len(c.commits), len(c.accepted), c.unknown, time.Since(start))
	if a.promotions == 0 || len(c.accepted) == 0 {
		t.Error("too little has happened")
	}
}

// A daemon whose every push comes too late would never be seen by the other.
// It makes itself known.
func TestSlowerDaemonIsNoticed(t *testing.T) {
	t.Parallel()
	h := newRepository(t, threeStages)
	h.startOn(gitstate.Options{})
	h.first()
	s := h.serve()
	s.do(func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) })
	other := houseOn(t, h.remote, h.clone)
	other.startOn(gitstate.Options{URL: s.url, Poll: 200 * time.Millisecond})
	// What is written in the second in which it begins may be of a clerk before it.
	if _, err := other.clerk.Report(t.Context(), reconcile.ReportRequest{Environment: "none"}); err == nil {
		t.Fatal("a report about no environment was taken")
	}
	begun := time.Now().Unix()
	h.until("the next second", func() string {
		if now := time.Now().Unix(); now == begun {
			return fmt.Sprint(now)
		}
		return ""
	})
	h.through("1.0.0", "1.1.0")
	h.settled()
	if warnings := h.said(reconcile.EventWarning); len(warnings) > 0 {
		t.Fatalf("it has noticed already: %q", warnings)
	}
	other.says(reconcile.EventWarning, "another daemon")
	s.do(nil)
	h.says(reconcile.EventWarning, "another daemon")
	h.through("1.1.0", "1.2.0")
	h.stop()
	other.stop()
	h.lawful()
	told := 0
	for _, b := range []string{"dev", "staging", "production"} {
		for _, s := range h.subjects("ledger/" + b) {
			if strings.Contains(s, "one-daemon") {
				told++
			}
		}
	}
	if told > 2 { // each once
		t.Errorf("it was told %d times", told)
	}
}

// Two clerks are told the same and different things at the same moment, again
// and again, and each answers only for what is there.
func TestTwoDaemonsAreAskedAtOnce(t *testing.T) {
	t.Parallel()
	h := newRepository(t, threeStages)
	h.startOn(gitstate.Options{})
	h.first()
	other := houseOn(t, h.remote, h.clone)
	other.startOn(gitstate.Options{})
	other.settled()
	from := "1.0.0"
	for i := 1; i <= 4; i++ {
		to := fmt.Sprintf("1.%d.0", i)
		h.pin("dev", from, to)
		h.runs("staging", to, ledger.StateCompleted)
		h.settled()
		other.settled() // who has not fetched it can't know what is asked about
		results := []ledger.Result{ledger.Success, ledger.Success}
		if i == 2 {
			results[1] = ledger.Failure
		}
		var done []<-chan error
		for n, clerk := range []*house{h, other} {
			done = append(done, clerk.asks(t.Context(), to, results[n], fmt.Sprintf("https://ci/%d-%d", i, n)))
		}
		taken, failed := 0, false
		var errs []error
		for n, d := range done {
			err := <-d
			errs = append(errs, err)
			var no *reconcile.Rejection
			switch {
			case err == nil:
				taken++
				failed = failed || results[n] == ledger.Failure
			case !errors.As(err, &no) || no.Code != reconcile.Decided && no.Code != reconcile.NotCurrent:
				t.Errorf("%s: %v", to, err)
			}
		}
		if i != 2 && taken != 2 || taken == 0 { // the second one is told that it is there already
			t.Errorf("%s: %d reports were taken; %v", to, taken, errs)
		}
		if failed {
			h.runs("staging", from, ledger.StateVerified) // rolled back
			h.replace("environments/dev.yaml", "web:"+to, "web:"+from)
			h.runs("dev", from, ledger.StateVerified)
			continue
		}
		h.until(to+" waits to enter production", func() string {
			r, err := h.record("production", "web")
			if err != nil || r.Candidate == nil || r.Candidate.Release.Version() != to {
				return fmt.Sprint(r.Candidate, err)
			}
			return ""
		})
		approve := make(chan error, 2)
		for n, who := range []string{"alice", "bob"} {
			go func() {
				_, err := []*house{h, other}[n].clerk.Approve(t.Context(), reconcile.ApprovalRequest{
					Principal:   reconcile.Principal{Name: who, Email: who + "@shop.example", Groups: []string{"release-managers"}},
					Environment: desired.EnvironmentName("production"), Service: "web", Version: to, Comment: who + " " + to,
				})
				approve <- err
			}()
		}
		h.must(<-approve)
		h.must(<-approve)
		h.runs("production", to, ledger.StateVerified)
		from = to
	}
	h.stop()
	other.stop()
	h.lawful()
}
