package ledger

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	scaled  = Drifted{Object: "Deployment.apps shop/web", Path: ".spec.replicas", Old: "2", New: "5", By: "kubectl-scale"}
	deleted = Drifted{Object: "Service shop/web"}
)

func drift(a Answer, changes ...Drifted) func(*Entry) {
	return func(e *Entry) { e.Drift = &Drift{Answer: a, Changes: changes} }
}

func TestDriftIsTold(t *testing.T) {
	e := entry(EventDrifted, "4f1c2aa90b7e", of("1.4.2", ""), reason("It was taken back."),
		drift(AnswerCorrected, scaled, Drifted{Object: "ConfigMap shop/web", Path: ".data.a", Old: "say \"no\"\nPinion-Event: failed", New: strings.Repeat("x", 300)}))
	e.Drift.More = "7"
	want := `drifted(staging): web 1.4.2 by kubectl-scale, corrected

It was taken back.

Pinion-Event: drifted
Pinion-Environment: staging
Pinion-Service: web
Pinion-Deployment: web-4f1c2aa90b7e
Pinion-Commit: 4f1c2aa90b7e4f1c2aa90b7e4f1c2aa90b7e4f1c
Pinion-Pin: web ghcr.io/acme/web:1.4.2
Pinion-Answer: corrected
Pinion-Drift: {"object":"Deployment.apps shop/web","path":".spec.replicas","old":"2","new":"5","by":"kubectl-scale"}
Pinion-Drift: {"object":"ConfigMap shop/web","path":".data.a","old":"say \"no\" Pinion-Event: failed","new":"` + strings.Repeat("x", 197) + `…"}
Pinion-More: 7
`
	if diff := cmp.Diff(want, e.Message()); diff != "" {
		t.Error(diff)
	}
}

// A drift moves no state, and stands until it is said to be over.
func TestDriftMovesNoState(t *testing.T) {
	verified := after(t, Record{}, pinned("a", "1.4.2"), entry(EventStarted, "a"), entry(EventCompleted, "a"), entry(EventVerified, "a"))
	later := func(n int) func(*Entry) { return minutes(10 + n) }
	reported := after(t, verified, entry(EventDrifted, "a", drift(AnswerReported, scaled), later(1)))
	if !reported.Drift.Stands() || reported.Deployment.State != StateVerified || !cmp.Equal(reported.Deployment, verified.Deployment) {
		t.Errorf("%+v", reported)
	}
	ended := after(t, reported, entry(EventDrifted, "a", drift(AnswerEnded), later(2)))
	if ended.Drift != nil || !ended.Drifted.Equal(epoch.Add(11*time.Minute)) {
		t.Errorf("after its end: %+v at %v", ended.Drift, ended.Drifted)
	}
	if _, err := ended.Apply(entry(EventDrifted, "a", drift(AnswerEnded), later(3))); err == nil {
		t.Error("it ends twice")
	}
	corrected := after(t, verified, entry(EventDrifted, "a", drift(AnswerCorrected, scaled), later(1)))
	if corrected.Drift.Stands() || corrected.Drift == nil {
		t.Errorf("a corrected drift stands: %+v", corrected.Drift)
	}
	if next := after(t, reported, pinned("b", "1.4.3", later(4))); next.Drift != nil {
		t.Errorf("the next deployment has the drift of the one before: %+v", next.Drift)
	}
}

func TestDriftThatSaysNothing(t *testing.T) {
	for want, change := range map[string]func(*Entry){
		`no answer "fixed"`:      drift("fixed", scaled),
		"has 0 changes":          drift(AnswerReported),
		"has 1 changes":          drift(AnswerEnded, scaled),
		"of which object":        drift(AnswerReported, Drifted{Path: ".spec"}),
		"more than 40":           drift(AnswerReported, make([]Drifted, 41)...),
		"belongs into an entry":  func(e *Entry) { drift(AnswerReported, scaled)(e); e.Event = EventRetired },
		`"a" is not a number of`: func(e *Entry) { drift(AnswerReported, scaled)(e); e.Drift.More = "a" },
	} {
		if _, err := ParseMessage(entry(EventDrifted, "a", change).Message(), epoch); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	m := entry(EventDrifted, "a", drift(AnswerReported, scaled)).Message()
	for _, bad := range []string{`{"object":1}`, `{"objekt":"x"}`, `{"object":"x"} {}`, "x"} {
		if _, err := ParseMessage(m+"Pinion-Drift: "+bad+"\n", epoch); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}
