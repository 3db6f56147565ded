package policy_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
)

var deployed = ledger.Deployment{
	Commit: commit("c2"), Release: release("1.4.2", "c2"), State: ledger.StateCompleted, Cause: ledger.CausePin,
	Actor: ledger.Person{Name: "Dana", Email: "dana@example.com"}, Authors: []ledger.Person{{Name: "Dana", Email: "dana@example.com"}},
}

// history is what could have happened to a service, made of entries that the
// ledger allows.
type history struct {
	t      *testing.T
	r      *rand.Rand
	now    time.Time
	commit int
}

func (h *history) apply(r ledger.Record, e ledger.Entry) ledger.Record {
	h.t.Helper()
	e.Service, e.Time = "web", h.now
	next, err := r.Apply(e)
	if err != nil {
		h.t.Fatalf("%s: %v", e.Event, err)
	}
	return next
}

// tick lets up to some minutes pass.
func (h *history) tick() { h.now = h.now.Add(time.Duration(1+h.r.IntN(40)) * time.Minute) }

var (
	who      = []ledger.Person{{Name: "Dana", Email: "dana@example.com"}, {Name: "erin"}, {Email: "alice@example.com"}}
	versions = []string{"1.4.1", "1.4.2", "1.5.0", "main-7"}
)

// deploy pins a release and takes it somewhere.
func (h *history) deploy(env desired.EnvironmentName, r ledger.Record, x ledger.Release, cause ledger.Cause) ledger.Record {
	h.commit++
	c := commit(fmt.Sprintf("c%d", h.commit))
	about := func(event ledger.Event) ledger.Entry {
		return ledger.Entry{Event: event, Environment: env, Deployment: ledger.DeploymentID("web", c), Commit: c}
	}
	if d := r.Deployment; d.ID != "" && !d.State.Final() {
		h.tick()
		r = h.apply(r, ledger.Entry{Event: ledger.EventSuperseded, Environment: env, Deployment: d.ID, Commit: d.Commit})
	}
	h.tick()
	e := about(ledger.EventPinned)
	if x.Source == "" {
		x.Source = c
	}
	e.Release, e.Cause, e.Actor, e.Authors = x, cause, who[h.r.IntN(3)], []ledger.Person{who[h.r.IntN(3)]}
	r = h.apply(r, e)
	way := []ledger.Event{ledger.EventStarted, ledger.EventCompleted, ledger.EventVerified}
	if h.r.IntN(4) == 0 {
		way[2] = ledger.EventFailed
	}
	if h.r.IntN(3) == 0 {
		way = way[:h.r.IntN(3)]
	}
	for _, event := range way {
		h.tick()
		e := about(event)
		if event == ledger.EventStarted {
			e.Manifests = fmt.Sprintf("sha256:%d", h.r.IntN(3))
		}
		if event == ledger.EventVerified {
			e.Checks = []ledger.Check{{Policy: "e2e", Result: ledger.Success, By: "ci"}}
		}
		r = h.apply(r, e)
	}
	return r
}

// random makes an admission to production, and the tree of its tip.
func random(t *testing.T, r *rand.Rand, repositories map[string]*desired.Repository) policy.Admission {
	h := &history{t: t, r: r, now: time.Date(2026, 11, 19, 5, 0, 0, 0, time.UTC)}
	records := map[desired.EnvironmentName]ledger.Record{"qa": {}, "staging": {}, "production": {}}
	for range 2 + r.IntN(4) {
		x := release(versions[r.IntN(len(versions))], "")
		for _, env := range []desired.EnvironmentName{"qa", "staging"} {
			records[env] = h.deploy(env, records[env], x, ledger.CausePin)
			if r.IntN(3) > 0 && x.Source == "" {
				x.Source = records[env].Deployment.Release.Source
			}
		}
		switch p := records["production"]; r.IntN(5) {
		case 0:
			records["production"] = h.deploy("production", p, records["staging"].Deployment.Release, ledger.CausePromotion)
		case 1:
			if v := p.Verified; v != nil {
				records["production"] = h.deploy("production", p, v.Release, ledger.CauseRollback)
			}
		case 2:
			records["production"] = h.deploy("production", p, release(versions[r.IntN(len(versions))], ""), ledger.CausePin)
		}
	}
	production := records["production"]
	if r.IntN(3) == 0 {
		x := records[[]desired.EnvironmentName{"qa", "staging"}[r.IntN(2)]].Deployment.Release
		h.tick()
		production = h.apply(production, ledger.Entry{Event: ledger.EventOffered, Environment: "production", Candidate: true, Release: x, From: []string{"staging@x"}})
		for _, by := range []string{"alice", "bob", "dana", "erin"} {
			if r.IntN(2) == 0 {
				h.tick()
				production = h.apply(production, ledger.Entry{Event: ledger.EventApproved, Environment: "production", Candidate: true, Release: x,
					Approval: &ledger.Approval{Policy: "approval", By: by, Email: by + "@example.com", Groups: []string{"release-managers"}}})
			}
		}
		if r.IntN(2) == 0 {
			production = h.apply(production, ledger.Entry{Event: ledger.EventCheck, Environment: "production", Candidate: true, Release: x,
				Checks: []ledger.Check{{Policy: "e2e", Result: []ledger.Result{ledger.Success, ledger.Failure}[r.IntN(2)], By: "ci"}}})
		}
	}
	h.tick()

	admit := []string{"", "approval", "hours", "e2e", "no-major", "approval, e2e"}[r.IntN(6)]
	after := []string{"staging", "qa, staging", "staging, qa"}[r.IntN(3)]
	stages := fmt.Sprintf("- environment: qa\n  verify: [e2e]\n- environment: staging\n  after: []\n- environment: production\n  after: [%s]\n  admit: [%s]\n", after, admit)
	if r.IntN(4) == 0 {
		stages += "  manifests: head\n"
	}
	hold := ""
	if r.IntN(4) == 0 {
		hold = []string{"reason: x\nowner: y\n", "environments: [production]\nreason: x\nowner: y\n", "environments: nonsense\n", "services: [web]\nreason: x\nowner: y\nuntil: 2027-01-01T00:00:00Z\n"}[r.IntN(4)]
	}
	key := stages + hold
	repository := repositories[key]
	if repository == nil {
		tree := files(t)
		tree["pipelines/default.yaml"] = &fstest.MapFile{Data: []byte("apiVersion: pinion.dev/v1\nkind: Pipeline\nservices: [web]\nstages:\n" + stages)}
		if hold != "" {
			tree["holds/x.yaml"] = &fstest.MapFile{Data: []byte("apiVersion: pinion.dev/v1\nkind: Hold\n" + hold)}
		}
		for _, env := range []string{"qa", "staging", "production"} {
			tree["environments/"+env+".yaml"] = &fstest.MapFile{Data: []byte(environment(env, ledger.Release{}))}
		}
		repository = read(t, tree)
		repositories[key] = repository
	}
	a := policy.Admission{
		Now: h.now, Service: "web", Environment: "production", Rules: policy.Rules{Commit: commit("c20"), Repository: repository},
		Target: production, Before: map[desired.EnvironmentName]ledger.Record{"qa": records["qa"], "staging": records["staging"]},
		Entries: map[desired.EnvironmentName]string{"qa": "q", "staging": "s"}, Older: older, Locations: zones,
	}
	if has := production.Deployment.Release; len(has.Pins) > 0 {
		a.Pinned = inFiles(t, repository, has)
	}
	return a
}

// inFiles is a release as the files of production would say it.
func inFiles(t *testing.T, r *desired.Repository, x ledger.Release) *desired.Deployment {
	d := desired.Deployment{Environment: r.Environments["production"], Service: r.Services["web"], Source: x.Source}
	for _, p := range x.Pins {
		img, err := desired.ParseImage(p.Image)
		if err != nil {
			t.Fatal(err)
		}
		d.Pins = append(d.Pins, desired.Pin{Artifact: p.Artifact, Image: img})
	}
	return &d
}

var zones = map[string]*time.Location{}

func many(t *testing.T, n int, f func(t *testing.T, r *rand.Rand, a policy.Admission, d policy.Decision)) {
	zones = locations(t)
	repositories := map[string]*desired.Repository{}
	moves := map[policy.Move]int{}
	for seed := range n {
		r := rand.New(rand.NewPCG(uint64(seed), 7))
		a := random(t, r, repositories)
		d := policy.Admit(a)
		moves[d.Move]++
		f(t, r, a, d)
		if t.Failed() {
			t.Fatalf("seed %d:\n%s", seed, decision(d))
		}
	}
	for _, m := range []policy.Move{policy.Stay, policy.Offer, policy.Promote, policy.Dismiss} {
		if moves[m] < n/100 {
			t.Errorf("only %d of %d decisions are to %s: the cases do not try it", moves[m], n, m)
		}
	}
}

const tries = 4000

// Only what was verified in all stages before is promoted or offered, and
// nothing that is refused or held, or that is there.
func TestAdmitOnlyWhatIsVerified(t *testing.T) {
	many(t, tries, func(t *testing.T, _ *rand.Rand, a policy.Admission, d policy.Decision) {
		if d.Move != policy.Promote && d.Move != policy.Offer {
			if d.Promotion != nil {
				t.Error("a promotion that is none")
			}
			return
		}
		x := d.Candidate.Release
		_, stage, why := a.Rules.Stage("production", "web")
		if why != "" {
			t.Fatal(why)
		}
		for _, env := range stage.After {
			if !verifiedIn(a.Before[env], x, stage.ManifestsHead) {
				t.Errorf("%s is not verified in %s", x.Version(), env)
			}
		}
		if f, no := a.Target.Refuses(x); no {
			t.Errorf("it is refused: %s", f.Reason)
		}
		if a.Target.Deployment.Release.Equal(x) {
			t.Error("it is there already")
		}
		if newer, ok := ledger.Newer(a.Target.Deployment.Release, x); ok && newer {
			t.Error("what is there is newer")
		}
		if d.Move == policy.Promote {
			if !d.Promotion.Release.Equal(x) || d.Promotion.Evidence == "" || len(d.Promotion.From) != len(stage.After) && a.Target.Candidate == nil {
				t.Errorf("the promotion is of something else: %+v", d.Promotion)
			}
			if len(a.Rules.Repository.Holds)+len(a.Rules.Repository.BrokenNames(desired.KindHold)) > 0 {
				t.Error("it is held")
			}
			if slices.ContainsFunc(d.Verdicts, func(v policy.Verdict) bool { return v.Outcome != policy.Passed }) {
				t.Error("a gate is not passed")
			}
		}
	})
}

// verifiedIn looks at a record in the simplest way: the newest deployment of a
// release that came to an end was verified, and it is not refused.
func verifiedIn(r ledger.Record, x ledger.Release, pinsOnly bool) bool {
	is := func(y ledger.Release) bool { return y.Equal(x) || pinsOnly && y.SamePins(x) }
	for _, f := range r.Refused {
		if is(f.Release) || f.Release.Source == "" && f.Release.SamePins(x) {
			return false
		}
	}
	if is(r.Deployment.Release) && (r.Deployment.State == ledger.StateVerified || r.Deployment.State == ledger.StateFailed) {
		return r.Deployment.State == ledger.StateVerified
	}
	for _, p := range r.Previous {
		if is(p.Release) && (p.State == ledger.StateVerified || p.State == ledger.StateFailed) {
			return p.State == ledger.StateVerified
		}
	}
	return false
}

// While anything is held, nothing is promoted, and what would be is offered.
func TestAHoldHolds(t *testing.T) {
	tree := files(t)
	tree["holds/x.yaml"] = &fstest.MapFile{Data: []byte("apiVersion: pinion.dev/v1\nkind: Hold\nreason: x\nowner: y\n")}
	hold := read(t, tree).Holds["x"]
	many(t, tries/4, func(t *testing.T, _ *rand.Rand, a policy.Admission, d policy.Decision) {
		before := d.Move
		held := *a.Rules.Repository
		held.Holds = map[desired.HoldName]*desired.Hold{"x": hold}
		a.Rules.Repository = &held
		after := policy.Admit(a)
		switch {
		case after.Move == policy.Promote:
			t.Error("it is promoted all the same")
		case before == policy.Promote && after.Move != policy.Offer && a.Target.Candidate == nil:
			t.Errorf("%s, and not offered", after.Move)
		}
		if _, s, why := a.Rules.Stage("production", "web"); why == "" && s != nil && !slices.ContainsFunc(after.Verdicts, func(v policy.Verdict) bool { return v.Gate == "hold x" }) {
			t.Error("the hold is not told")
		}
	})
}

// The order in which things came to be known does not matter.
func TestOrderIsIrrelevant(t *testing.T) {
	many(t, tries/2, func(t *testing.T, r *rand.Rand, a policy.Admission, d policy.Decision) {
		b := a
		b.Before = maps.Clone(a.Before)
		for env, record := range b.Before {
			record.Deployment.Checks = shuffled(r, record.Deployment.Checks)
			b.Before[env] = record
		}
		if c := a.Target.Candidate; c != nil {
			x := *c
			x.Checks, x.Approvals = shuffled(r, c.Checks), shuffled(r, c.Approvals)
			b.Target.Candidate = &x
		}
		if got, want := decision(policy.Admit(b)), decision(d); got != want {
			t.Errorf("in another order\n%s\n", got)
		}
		v := policy.Verification{Now: a.Now, Record: a.Before["staging"], Rules: a.Rules, Locations: a.Locations}
		want := verification(policy.Verify(v))
		v.Record.Deployment.Checks = shuffled(r, v.Record.Deployment.Checks)
		v.Record.Deployment.Approvals = shuffled(r, v.Record.Deployment.Approvals)
		if v.Record.Deployment.State.Final() {
			return // its checks are told as they are recorded
		}
		if got := verification(policy.Verify(v)); got != want {
			t.Errorf("in another order\n%s\nwant\n%s", got, want)
		}
	})
}

func shuffled[T any](r *rand.Rand, all []T) []T {
	all = slices.Clone(all)
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// What is decided and recorded is not decided again.
func TestAdmitTwiceIsOnce(t *testing.T) {
	many(t, tries, func(t *testing.T, r *rand.Rand, a policy.Admission, d policy.Decision) {
		h := &history{t: t, r: r, now: a.Now, commit: commits - 2}
		old := a.Target.Candidate
		about := func(event ledger.Event, x ledger.Release) ledger.Entry {
			return ledger.Entry{Event: event, Environment: "production", Candidate: true, Release: x, Reason: d.Reason}
		}
		if d.Supersedes {
			if old == nil {
				t.Fatal("nothing could be superseded")
			}
			a.Target = h.apply(a.Target, about(ledger.EventSuperseded, old.Release))
		}
		switch d.Move {
		case policy.Offer:
			e := about(ledger.EventOffered, d.Candidate.Release)
			e.From, e.Authors = d.Candidate.From, d.Candidate.Authors
			a.Target = h.apply(a.Target, e)
		case policy.Dismiss:
			if d.Failed {
				a.Target = h.apply(a.Target, about(ledger.EventFailed, old.Release))
			}
		case policy.Promote:
			c := commit(fmt.Sprintf("c%d", commits-1))
			x := d.Promotion.Release
			if !d.Promotion.Manifests {
				x.Source = c
			}
			if cur := a.Target.Deployment; cur.ID != "" && !cur.State.Final() {
				a.Target = h.apply(a.Target, ledger.Entry{Event: ledger.EventSuperseded, Environment: "production", Deployment: cur.ID, Commit: cur.Commit})
			}
			a.Target = h.apply(a.Target, ledger.Entry{Event: ledger.EventPinned, Environment: "production", Deployment: ledger.DeploymentID("web", c), Commit: c,
				Release: x, Cause: ledger.CausePromotion, From: d.Promotion.From, Authors: d.Promotion.Authors})
			a.Pinned = inFiles(t, a.Rules.Repository, x)
		}
		again := policy.Admit(a)
		if again.Move == policy.Stay || d.Move == policy.Dismiss && again.Move != policy.Dismiss || d.Move == policy.Stay {
			return
		}
		t.Errorf("after it was recorded:\n%s", decision(again))
	})
}

// With the clock set back to before the rollout's end, nothing that takes time
// has passed.
func TestAClockThatWasSetBack(t *testing.T) {
	for _, back := range []time.Duration{time.Nanosecond, time.Minute, 24 * time.Hour, 100 * 365 * 24 * time.Hour} {
		for _, healthy := range []time.Duration{-48 * time.Hour, -time.Minute, 0, time.Hour} {
			_, rules, records := scene{Now: "2026-11-19T10:00:00Z", Records: map[string]recordText{
				"staging": {Deployments: []deploymentText{{Commit: "c2", Version: "1.4.2", State: "completed", At: "10:00", Checks: map[string]string{"e2e": "success ci"}}}},
			}}.world(t, files(t))
			r := records["staging"]
			now := r.Deployment.Completed.Add(-back)
			v := policy.Verification{Now: now, Record: r, Rules: rules, Locations: locations(t), Health: policy.Health{Known: true, Healthy: true, Since: now.Add(healthy)}}
			j := policy.Verify(v)
			if j.State != ledger.StateCompleted {
				t.Errorf("%s back: %s", back, verification(j))
			}
			for _, x := range j.Verdicts {
				if x.Check == desired.CheckSoak && (x.Outcome != policy.Pending || x.Opens.Before(r.Deployment.Completed.Add(30*time.Minute))) {
					t.Errorf("%s back: the soak is %s, and opens at %s", back, x.Outcome, x.Opens)
				}
			}
		}
	}
}

// What nobody has filled in allows nothing.
func TestZeroValues(t *testing.T) {
	var r ledger.Record
	for _, state := range []ledger.State{"", ledger.StatePinned, ledger.StateStarted, ledger.StateCompleted, "nonsense"} {
		for _, repository := range []*desired.Repository{nil, {}} {
			r.Deployment.State = state
			j := policy.Verify(policy.Verification{Record: r, Rules: policy.Rules{Repository: repository}})
			if j.State != state {
				t.Errorf("%q becomes %q", state, j.State)
			}
			if j.Reason == "" {
				t.Errorf("%q: no reason", state)
			}
		}
	}
	for _, a := range []policy.Admission{
		{}, {Rules: policy.Rules{Repository: &desired.Repository{}}}, {Service: "web", Environment: "production"},
		{Rules: policy.Rules{Repository: read(t, files(t))}, Service: "web", Environment: "production"},
	} {
		if d := policy.Admit(a); d.Move != policy.Stay || d.Promotion != nil || d.Reason == "" {
			t.Errorf("%+v", d)
		}
	}
	if retreats, why := policy.Fall(time.Time{}, ledger.Record{}, policy.Rules{}, nil); len(retreats) > 0 || why == "" {
		t.Error(retreats, why)
	}
	if retreats, why := policy.Fall(time.Time{}, ledger.Record{Deployment: ledger.Deployment{State: ledger.StateFailed}}, policy.Rules{}, nil); len(retreats) > 0 || why == "" {
		t.Error(retreats, why)
	}
	var v policy.Verdict
	var d policy.Decision
	if v.Outcome == policy.Passed || d.Move == policy.Promote {
		t.Error("a zero value allows something")
	}
}

// What desired would not let through, and what a caller leaves out, opens
// nothing either.
func TestNothingIsTakenForGranted(t *testing.T) {
	approved := &candidateText{Version: "1.4.2", Source: "c3", Offered: "09:10", Approvals: []approvalText{{By: "alice", Groups: []string{""}}}}
	s := scene{Now: "2026-11-19T10:00:00Z", Admit: "production", Records: map[string]recordText{
		"staging":    {Deployments: []deploymentText{{Commit: "c3", Version: "1.4.2", State: "verified", At: "09:00"}}},
		"production": {Deployments: []deploymentText{{Commit: "c2", Version: "1.4.2", Source: "c1", State: "verified", At: "08:00", Cause: "promotion"}}, Candidate: approved},
	}}
	now, rules, records := s.world(t, files(t))
	a := s.admission(t, now, rules, records)
	a.Now = now
	check := func(what, want string) {
		t.Helper()
		if d := policy.Admit(a); d.Move == policy.Promote || !strings.Contains(d.Reason, want) {
			t.Errorf("%s:\n%s", what, decision(d))
		}
	}
	for _, p := range []*desired.Policy{
		{Name: "approval", Check: desired.CheckApproval, Approval: &desired.Approval{}},
		{Name: "approval", Check: desired.CheckApproval, Approval: &desired.Approval{Groups: []string{"release-managers"}}},
	} {
		policies := maps.Clone(rules.Repository.Policies)
		policies["approval"] = p
		changed := *rules.Repository
		changed.Policies = policies
		a.Rules.Repository = &changed
		check("an approval of nobody", map[bool]string{true: "no group is named, so nobody may approve", false: "0 of 1 approval by release-managers"}[len(p.Approval.Groups) == 0])
	}
	policies := maps.Clone(rules.Repository.Policies)
	delete(policies, "approval")
	changed := *rules.Repository
	changed.Policies = policies
	a.Rules.Repository = &changed
	check("a policy that is gone", "there is no policy approval")
	policies["approval"] = &desired.Policy{Name: "approval", Check: "horoscope"}
	check("a check of a kind that is not known", `what the check "horoscope" is, is not known`)
	policies["approval"] = &desired.Policy{Name: "approval", Check: desired.CheckWindow, Window: &desired.Window{Allow: "never", Timezone: "UTC"}}
	check("a window without hours", "it never opens: never")
	a.Rules, a.Older = rules, nil
	check("nobody who knows the history", "are older")
}

// Each verdict of each case says why, and one that is pending by itself says
// what would open it.
func TestVerdictsSayWhy(t *testing.T) {
	many(t, tries/4, func(t *testing.T, _ *rand.Rand, _ policy.Admission, d policy.Decision) {
		if d.Reason == "" {
			t.Error("a decision without a reason")
		}
		for _, v := range d.Verdicts {
			if v.Gate == "" || v.Reason == "" || v.Outcome == "" || strings.ContainsAny(v.Reason+v.Needs, "\n") {
				t.Errorf("%+v", v)
			}
		}
		if !d.Wake.IsZero() && d.Candidate == nil {
			t.Error("it wakes for nothing")
		}
	})
}
