package reconcile_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

// diamond is a pipeline that splits and comes together again.
func diamond(services ...string) string {
	var b strings.Builder
	for _, env := range []string{"dev", "a", "b", "production"} {
		fmt.Fprintf(&b, "-- environments/%s.yaml --\napiVersion: pinion.dev/v1\nkind: Environment\nnamespace: shop-%s\npins:\n", env, env)
		for _, s := range services {
			fmt.Fprintf(&b, "  %s:\n    image: registry.example/%s:1.0.0\n", s, s)
		}
	}
	for _, s := range services {
		fmt.Fprintf(&b, "-- services/%s/service.yaml --\napiVersion: pinion.dev/v1\nkind: Service\n", s)
		fmt.Fprintf(&b, "-- services/%s/%s.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {a: \"0\"}\n", s, s, s)
	}
	return b.String() + `
-- pipelines/default.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: ["*"]
stages:
- environment: dev
- environment: a
  after: [dev]
  verify: [e2e]
  onFailure: rollback
- environment: b
  after: [dev]
  onFailure: rollback
- environment: production
  after: [a, b]
  admit: [release]
  onFailure: rollbackAll
-- policies/e2e.yaml --
apiVersion: pinion.dev/v1
kind: Policy
report: {by: [ci]}
-- policies/release.yaml --
apiVersion: pinion.dev/v1
kind: Policy
approval: {groups: [release-managers], count: 2}
`
}

// story makes up what happens to a repository.
type story struct {
	*house
	random   *rand.Rand
	services []string
	minor    map[string]int
	number   int
	told     []string
}

func (s *story) one(list ...string) string { return list[s.random.IntN(len(list))] }

func (s *story) tell(format string, args ...any) {
	s.told = append(s.told, fmt.Sprintf(format, args...))
}

// pinned sets the version of a service in an environment's file.
func (s *story) pinned(env, svc string, minor int) {
	s.change(fmt.Sprintf("pin %s 1.%d.0 in %s", svc, minor, env), func() {
		file := filepath.Join(s.clone, "environments", env+".yaml")
		data, err := os.ReadFile(file)
		s.must(err)
		s.must(os.WriteFile(file, regexp.MustCompile(`/`+svc+`:\S+`).ReplaceAll(data, fmt.Appendf(nil, "/%s:1.%d.0", svc, minor)), 0o644))
	})
}

func (s *story) reports(env, svc, version string, result ledger.Result) {
	s.number++
	s.clerk.Report(s.Context(), reconcile.ReportRequest{
		Principal: reconcile.Principal{Name: "ci"}, Environment: desired.EnvironmentName(env), Service: desired.ServiceName(svc),
		Policy: "e2e", Version: version, Result: result, URL: fmt.Sprintf("https://ci.shop.example/%d", s.number),
	})
}

func (s *story) approves(who, svc, version string) {
	s.clerk.Approve(s.Context(), reconcile.ApprovalRequest{
		Principal:   reconcile.Principal{Name: who, Email: who + "@shop.example", Groups: []string{"release-managers"}},
		Environment: "production", Service: desired.ServiceName(svc), Version: version,
	})
}

// version is the one that an environment has, or "".
func (s *story) version(env, svc string) string {
	r, err := s.record(env, svc)
	if err != nil {
		return ""
	}
	return r.Deployment.Release.Version()
}

// next makes one thing happen.
func (s *story) next() {
	svc := s.one(s.services...)
	env := s.one("dev", "a", "b", "production")
	switch n := s.random.IntN(100); {
	case n < 25: // forward, and it may fail or stay away somewhere
		s.minor[svc]++
		version := fmt.Sprintf("1.%d.0", s.minor[svc])
		if s.random.IntN(3) == 0 {
			phase := []reconcile.Phase{reconcile.Failed, reconcile.Applying}[s.random.IntN(2)]
			s.tell("%s %s is %s in %s", svc, version, phase, env)
			s.is(env+"/"+svc, version, phase)
		}
		s.tell("pin %s %s in dev", svc, version)
		s.pinned("dev", svc, s.minor[svc])
	case n < 33: // back, or forth, past all gates
		minor := s.random.IntN(s.minor[svc] + 1)
		s.tell("pin %s 1.%d.0 in %s", svc, minor, env)
		s.pinned(env, svc, minor)
	case n < 40:
		s.number++
		s.tell("manifests of %s", svc)
		s.change("manifests of "+svc, func() {
			file := filepath.Join(s.clone, "services", svc, svc+".yaml")
			data, err := os.ReadFile(file)
			s.must(err)
			s.must(os.WriteFile(file, regexp.MustCompile(`a: "\d+"`).ReplaceAll(data, []byte(`a: "`+strconv.Itoa(s.number)+`"`)), 0o644))
		})
	case n < 50:
		file := filepath.Join(s.clone, "holds", s.one("one", "two")+".yaml")
		s.tell("hold, or release, %s of %s", env, svc)
		s.change("holds", func() {
			if os.Remove(file) == nil {
				return
			}
			s.must(os.MkdirAll(filepath.Dir(file), 0o755))
			s.must(os.WriteFile(file, fmt.Appendf(nil, "apiVersion: pinion.dev/v1\nkind: Hold\nenvironments: [%s]\nservices: [%s]\nreason: INC\nowner: dana@shop.example\n", env, svc), 0o644))
		})
	case n < 75:
		version := s.version("a", svc)
		if s.random.IntN(4) == 0 { // early, or late
			version = fmt.Sprintf("1.%d.0", s.random.IntN(s.minor[svc]+2))
		}
		result := ledger.Success
		if s.random.IntN(5) == 0 {
			result = ledger.Failure
		}
		s.tell("report %s %s in a: %s", svc, version, result)
		s.reports("a", svc, version, result)
	case n < 95:
		if r, err := s.record("production", svc); err == nil && r.Candidate != nil {
			version := r.Candidate.Release.Version()
			if s.random.IntN(4) == 0 {
				version = fmt.Sprintf("1.%d.0", s.random.IntN(s.minor[svc]+2))
			}
			s.tell("approve %s %s", svc, version)
			s.approves(s.one("alice", "bob", "carol", "dana"), svc, version)
		}
	default:
		s.tell("revert the newest commit")
		s.change("revert", func() {
			if _, err := s.tryGit("rev-parse", "--verify", "HEAD~1"); err == nil {
				s.git("revert", "--no-commit", "HEAD")
			}
		})
	}
	if s.random.IntN(3) == 0 {
		s.settled()
	}
}

// end calms everything down, and sees a new version of each service arrive.
// One of them is left behind for a while, which keeps none of the others.
func (s *story) end() {
	s.Helper()
	s.mu.Lock()
	clear(s.phases)
	s.mu.Unlock()
	s.change("all is calm", func() { os.RemoveAll(filepath.Join(s.clone, "holds")) })
	s.settled()
	for _, svc := range s.services { // what goes back lets nothing in before it has ended
		s.until("nothing is under way in a", func() string {
			r, err := s.record("a", svc)
			if err != nil {
				return err.Error()
			}
			if r.Deployment.State.Final() {
				return ""
			}
			if r.Deployment.State == ledger.StateCompleted {
				s.reports("a", svc, r.Deployment.Release.Version(), ledger.Success)
			}
			return string(r.Deployment.State)
		})
	}
	for _, svc := range s.services {
		s.minor[svc]++
		s.pinned("dev", svc, s.minor[svc])
	}
	last := s.services[s.random.IntN(len(s.services))]
	others := slices.DeleteFunc(slices.Clone(s.services), func(svc string) bool { return svc == last })
	for _, svc := range append(others, last) {
		version := fmt.Sprintf("1.%d.0", s.minor[svc])
		s.arrives(svc, "dev", version)
		s.until(fmt.Sprintf("%s %s is rolled out in a", svc, version), func() string {
			r, err := s.record("a", svc)
			if err != nil || r.Deployment.Release.Version() != version || r.Deployment.State == ledger.StatePinned || r.Deployment.State == ledger.StateStarted {
				return fmt.Sprint(r.Deployment.Release.Version(), r.Deployment.State, err)
			}
			return ""
		})
		s.reports("a", svc, version, ledger.Success)
		s.arrives(svc, "a", version)
		s.arrives(svc, "b", version)
		s.until(fmt.Sprintf("%s %s is a candidate", svc, version), func() string {
			r, err := s.record("production", svc)
			if err != nil || r.Candidate == nil || r.Candidate.Release.Version() != version {
				return fmt.Sprint(r.Candidate, err)
			}
			return ""
		})
		s.approves("alice", svc, version)
		s.approves("bob", svc, version)
		s.arrives(svc, "production", version)
	}
	s.settled()
}

func (s *story) arrives(svc, env, version string) {
	s.Helper()
	s.until(fmt.Sprintf("%s %s is verified in %s", svc, version, env), func() string {
		r, err := s.record(env, svc)
		if err != nil || r.Deployment.Release.Version() != version || r.Deployment.State != ledger.StateVerified {
			return fmt.Sprint(r.Deployment.Release.Version(), " ", r.Deployment.State, " ", r.Deployment.Reason, err)
		}
		return ""
	})
}

// A promotion that a person takes back before anything of it was seen is taken
// back for good: it is recorded, and refused, and does not come again meanwhile.
// That the daemon has ended in between makes no difference.
func TestTakenBackUnseen(t *testing.T) {
	t.Parallel()
	for _, ended := range []bool{false, true} {
		t.Run(fmt.Sprintf("ended=%t", ended), func(t *testing.T) {
			t.Parallel()
			h := newRepository(t, threeStagesOf("api", "web"))
			h.logged()
			h.startOn(gitstate.Options{})
			h.first()
			promoted := func(service string) int { return h.times("main", "promote(staging): "+service+" ") }
			moves := func(service string) {
				t.Helper()
				h.until(service+" is promoted", func() string {
					if promoted(service) == 0 {
						return "not yet"
					}
					return ""
				})
			}
			h.hides("staging", true)
			h.pin("dev", "1.0.0", "1.1.0")
			moves("web")
			if at := h.lastSettled(); at == "" || at == h.git("--git-dir="+h.remote, "rev-parse", "main") {
				t.Errorf("all is taken as recorded up to %q, with the promotion", at)
			}
			if ended {
				h.stop()
			}
			back := h.change("not this one", func() { h.git("revert", "--no-commit", "HEAD") })
			if ended {
				h.startOn(gitstate.Options{})
			}
			h.replace("environments/dev.yaml", "api:1.0.0", "api:1.1.0")
			moves("api")
			if n := promoted("web"); n != 1 {
				t.Errorf("web was promoted %d times before what was taken back was recorded", n)
			}
			h.hides("staging", false)
			h.until("what was taken back is recorded", func() string {
				r, err := h.record("staging", "web")
				if err != nil || len(r.Refused) == 0 || r.Deployment.Commit != back || r.Deployment.Cause != ledger.CauseRevert || r.Previous[0].Release.Version() != "1.1.0" {
					return fmt.Sprintf("%+v %v", r, err)
				}
				return ""
			})
			h.settled()
			if n := promoted("web"); n != 1 {
				t.Errorf("web was promoted %d times", n)
			}
			h.until("a start need not read what was before", func() string {
				if at, tip := h.lastSettled(), h.mirror.Branches()["main"]; at != tip {
					return fmt.Sprintf("all is recorded up to %s, and main is at %s", at, tip)
				}
				return ""
			})
			h.lawful()
		})
	}
}

// A rollback that a person takes back before anything of it was seen is not made
// once more: the version is tried again.
func TestRollbackTakenBackUnseen(t *testing.T) {
	t.Parallel()
	h := newRepository(t, threeStages)
	h.logged()
	h.startOn(gitstate.Options{})
	h.first()
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("staging", "1.1.0", ledger.StateCompleted)
	h.hides("staging", true)
	h.must(h.report("ci", "staging", "e2e", "1.1.0", ledger.Failure))
	rolledBack := func() int { return h.times("main", "rollback(staging): web ") }
	h.until("it is rolled back", func() string {
		if rolledBack() == 0 {
			return fmt.Sprint(h.subjects("main"))
		}
		return ""
	})
	back := h.change("once more", func() { h.git("revert", "--no-commit", "HEAD") })
	h.pin("dev", "1.1.0", "1.2.0") // it does not enter staging while that goes back
	h.runs("dev", "1.2.0", ledger.StateVerified)
	if n := rolledBack(); n != 1 {
		t.Errorf("it was rolled back %d times before a person's try was recorded", n)
	}
	h.hides("staging", false)
	h.until("the try is recorded", func() string {
		r, err := h.record("staging", "web")
		for _, p := range r.Previous {
			if p.Commit == back {
				return ""
			}
		}
		if r.Deployment.Commit == back {
			return ""
		}
		return fmt.Sprintf("%+v %v", r, err)
	})
	h.settled()
	if n := rolledBack(); n != 1 {
		t.Errorf("it was rolled back %d times", n)
	}
	h.lawful()
}

// What goes back everywhere leaves alone what somebody has changed meanwhile, there
// and back, too: that is a choice, and it is recorded.
func TestRollbackLeavesWhatSomebodyChanged(t *testing.T) {
	t.Parallel()
	h := newRepository(t, threeStages)
	h.logged()
	h.startOn(gitstate.Options{})
	h.first()
	h.through("1.0.0", "1.1.0")
	h.is("production/web", "1.2.0", reconcile.Failed)
	h.pin("dev", "1.1.0", "1.2.0")
	h.runs("staging", "1.2.0", ledger.StateCompleted)
	h.must(h.report("ci", "staging", "e2e", "1.2.0", ledger.Success))
	h.runs("staging", "1.2.0", ledger.StateVerified)
	h.hides("staging", true)
	h.pin("staging", "1.2.0", "1.0.5")
	back := h.pin("staging", "1.0.5", "1.2.0")
	for _, who := range []string{"alice", "bob"} {
		h.until("it is approved", func() string {
			if err := h.approve(who, "production", "1.2.0"); err != nil {
				return err.Error()
			}
			return ""
		})
	}
	rolledBack := func(environment string) int { return h.times("main", "rollback("+environment+"): web ") }
	h.runs("production", "1.1.0", ledger.StateVerified)
	h.runs("dev", "1.1.0", ledger.StateVerified)
	h.settled()
	if n := rolledBack("staging"); n != 0 {
		t.Errorf("staging went back %d times before what somebody did there was recorded", n)
	}
	h.hides("staging", false)
	h.until("what somebody did is recorded", func() string {
		r, err := h.record("staging", "web")
		if err != nil || r.Deployment.Commit != back || r.Previous[0].Release.Version() != "1.0.5" {
			return fmt.Sprintf("%+v %v", r, err)
		}
		return ""
	})
	h.settled()
	if n := rolledBack("staging"); n != 0 {
		t.Errorf("staging went back %d times", n)
	}
	h.lawful()
}

// Whatever happens to a repository, what the daemon does with it is lawful, and
// when all is calm it comes to a good end.
func TestRandomHistories(t *testing.T) {
	t.Parallel()
	seed := seeded(t)
	end := time.Now().Add(long(t, 0))
	for n := uint64(0); n < 1 || time.Now().Before(end); n++ {
		ok := t.Run(fmt.Sprint(n), func(t *testing.T) {
			services := []string{"api", "db", "web"}
			s := &story{house: newRepository(t, diamond(services...)), services: services, minor: map[string]int{}, random: rand.New(rand.NewPCG(seed, n))}
			t.Cleanup(func() {
				if t.Failed() {
					t.Log(strings.Join(s.told, "\n"))
				}
			})
			s.logged()
			s.startOn(gitstate.Options{})
			for range 60 {
				s.next()
			}
			s.end()
			s.stop()
			a := s.lawful()
			for _, x := range a.entered {
				if x.entry.Environment != "production" {
					continue
				}
				c := x.before.Candidate
				if c == nil || !c.Release.Equal(x.entry.Release) || len(c.Approvals) < 2 {
					t.Errorf("production: %s entered and was not approved twice: %+v", x.entry.Deployment, c)
					continue
				}
				for _, p := range c.Approvals {
					if p.By == "dana" {
						t.Errorf("production: %s was approved by who chose it", x.entry.Deployment)
					}
				}
			}
			for _, ev := range s.events {
				if ev.Type == reconcile.EventProblem || ev.Type == reconcile.EventWarning {
					t.Errorf("%s %s/%s: %s", ev.Type, ev.Environment, ev.Service, ev.Message)
				}
			}
			t.Logf("%d entries, %d promotions, %d rollbacks", a.total, a.promotions, a.rollbacks)
		})
		if !ok {
			return
		}
	}
}
