package history

import (
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
)

// The first sentence answers the question, whatever the state.
func TestAnswer(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	in := func(state ledger.State, reason string) *Explanation {
		d := ledger.Deployment{ID: "web-1", State: state, Reason: reason}
		return &Explanation{Environment: "production", Service: "web", Deployment: &d,
			Standing: &Standing{Version: "1.4.1", State: string(state), Since: now.Add(-time.Hour), Deployment: "web-1", Reason: reason}}
	}
	with := func(x *Explanation, change func(*Explanation)) *Explanation {
		change(x)
		return x
	}
	candidate := func(gates ...policy.Verdict) func(*Explanation) {
		return func(x *Explanation) {
			x.Admission = &Entrance{After: []desired.EnvironmentName{"eu", "us"}, Version: "1.4.2", Candidate: &ledger.Candidate{}, Verified: now.Add(-3 * time.Hour), Gates: gates}
		}
	}
	for _, c := range []struct {
		want string
		x    *Explanation
	}{
		{"production does not run web; no pipeline claims web", &Explanation{Environment: "production", Service: "web", Route: "no pipeline claims web"}},
		{"production is to run web 1.4.2, and nothing is recorded of it yet",
			&Explanation{Environment: "production", Service: "web", Standing: &Standing{State: StateWanted, Wanted: "1.4.2"}}},
		{"production has never run web; 1.4.2, verified in eu and us 3h ago, enters now: every gate is open",
			with(&Explanation{Environment: "production", Service: "web", Standing: &Standing{}}, candidate())},
		{"production does not run web any more since 60m ago", with(in(ledger.StateVerified, ""), func(x *Explanation) { x.Standing.State = StateRetired })},
		{"production is to run web 1.4.1 since 60m ago, and nothing of it is applied yet", in(ledger.StatePinned, "")},
		{"production rolls out web 1.4.1 since 60m ago", in(ledger.StateStarted, "")},
		{"production runs web 1.4.1, not verified yet: it waits for e2e: no report", with(in(ledger.StateCompleted, ""), func(x *Explanation) {
			x.Verification = &Verification{Gates: []policy.Verdict{{Gate: "rollout", Outcome: policy.Passed}, {Gate: "e2e", Outcome: policy.Pending, Reason: "no report"}}}
		})},
		{"production has web 1.4.1, which failed 60m ago: It crashes", in(ledger.StateFailed, "It crashes.\n\nAnd more.")},
		{"production has web 1.4.1, superseded 60m ago; main asks for 1.4.3, and nothing is recorded of it yet",
			with(in(ledger.StateSuperseded, ""), func(x *Explanation) { x.Standing.Wanted = "1.4.3" })},
		{"production runs web 1.4.1, verified 60m ago; main can't be followed: a bad pin",
			with(in(ledger.StateVerified, ""), func(x *Explanation) { x.Standing.Problem = "a bad pin" })},
		{"production runs web 1.4.1, verified 60m ago; 1.4.2, verified in eu and us 3h ago, does not enter: http: it answers 500",
			with(in(ledger.StateVerified, ""), candidate(policy.Verdict{Gate: "http", Outcome: policy.Failed, Reason: "it answers 500"}, policy.Verdict{Gate: "a", Outcome: policy.Pending}))},
		{"production runs web 1.4.1, verified 60m ago; nothing is to enter: it is there",
			with(in(ledger.StateVerified, ""), candidate(policy.Verdict{Gate: "version", Outcome: policy.Pending, Reason: "it is there"}))},
		{"production runs web 1.4.1, verified 60m ago; nothing is verified in staging",
			with(in(ledger.StateVerified, ""), func(x *Explanation) { x.Admission = &Entrance{Reason: "nothing is verified in staging"} })},
	} {
		if got := c.x.answer(now); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

// Who waits for a version is told that its registry can't be read.
func TestAnswerOfRegistries(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	for want, r := range map[string]Registry{
		"dev runs web": {Read: now},
		"dev runs web; registry.example/web can't be read since 20m ago, so newer versions are not seen: the registry answers 500; it is looked at again at 12:05 UTC": {
			Read: now.Add(-time.Hour), Failing: now.Add(-20 * time.Minute), Problem: "the registry answers 500", Next: now.Add(5 * time.Minute)},
		"dev runs web; registry.example/web can't be read since 1s ago, so newer versions are not seen: no route; it is being looked at": {
			Failing: now.Add(-time.Second), Problem: "no route"},
		"dev runs web; not all of registry.example/web can be taken: 1.2.3 has no manifest": {Read: now, Problem: "1.2.3 has no manifest"},
		"dev runs web ": {Elsewhere: true, Problem: "of another replica"},
	} {
		r.Repository = "registry.example/web"
		x := &Explanation{Now: now, Answer: "dev runs web"}
		if x.Hear([]Registry{r}); x.Answer != strings.TrimSpace(want) || len(x.Registries) != 1 {
			t.Errorf("got  %s\nwant %s", x.Answer, want)
		}
	}
}
