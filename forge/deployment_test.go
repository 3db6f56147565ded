package forge

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

func record(service, version, commit string, state ledger.State, reason string, before ...ledger.Past) ledger.Record {
	r := ledger.Record{Environment: "staging", Service: desired.ServiceName(service), Previous: before}
	r.Deployment = ledger.Deployment{ID: service + "-" + commit, Commit: commit, State: state, Reason: reason,
		Release: ledger.Release{Pins: []ledger.Pin{{Artifact: desired.ArtifactName(service), Image: "registry.example/" + service + ":" + version}}}}
	return r
}

func past(version, commit string, state ledger.State) ledger.Past {
	return ledger.Past{ID: "web-" + commit, Commit: commit, State: state,
		Release: ledger.Release{Pins: []ledger.Pin{{Artifact: "web", Image: "registry.example/web:" + version}}}}
}

func TestStatusOfACommit(t *testing.T) {
	const c = "4f1c2aa90b7e"
	long := strings.Repeat("ünd ", 60)
	for _, tt := range []struct {
		name    string
		records []ledger.Record
		state   State
		words   string
	}{
		{"nothing", nil, "", ""},
		{"another commit", []ledger.Record{record("web", "1", "aaaa", ledger.StateVerified, "")}, "", ""},
		{"pinned", []ledger.Record{record("web", "1.4.2", c, ledger.StatePinned, "")}, Pending, "web 1.4.2 is about to be applied"},
		{"started", []ledger.Record{record("web", "1.4.2", c, ledger.StateStarted, "")}, Pending, "web 1.4.2 is being rolled out"},
		{"completed", []ledger.Record{record("web", "1.4.2", c, ledger.StateCompleted, "")}, Pending, "web 1.4.2 is rolled out, and its verification is under way"},
		{"verified", []ledger.Record{record("web", "1.4.2", c, ledger.StateVerified, "e2e passed")}, Success, "web 1.4.2 is verified"},
		{"failed", []ledger.Record{record("web", "1.4.2", c, ledger.StateFailed, "e2e failed\nwith a log")}, Failure, "web 1.4.2 is failed: e2e failed"},
		{"left", []ledger.Record{record("web", "1.4.3", "aaaa", ledger.StateStarted, "", past("1.4.2", c, ledger.StateSuperseded))}, Neutral, "web 1.4.2 gave way to another before it was verified"},
		{"one of several has failed", []ledger.Record{record("api", "1", c, ledger.StateVerified, ""), record("web", "2", c, ledger.StateFailed, "no"), record("db", "1", c, ledger.StateStarted, "")}, Failure, "1 of 3: web 2 is failed: no"},
		{"one of several is under way", []ledger.Record{record("api", "1", c, ledger.StateVerified, ""), record("web", "2", c, ledger.StateCompleted, "")}, Pending, "1 of 2: web 2 is rolled out, and its verification is under way"},
		{"all of several", []ledger.Record{record("web", "2", c, ledger.StateVerified, ""), record("api", "1", c, ledger.StateVerified, "")}, Success, "2 of 2: api 1 is verified"},
		{"a state of the future", []ledger.Record{record("web", "2", c, "levitating", "")}, "", "web 2 is levitating"},
		{"a long reason", []ledger.Record{record("web", "2", c, ledger.StateFailed, long)}, Failure, Short("web 2 is failed: " + long)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, ok := Of("staging", c, tt.records)
			if ok != (tt.words != "") || s.State != tt.state || s.Description != tt.words {
				t.Errorf("got %+v, %t", s, ok)
			}
			if ok && s.Context != "pinion/staging" || utf8.RuneCountInString(s.Description) > MaxDescription {
				t.Errorf("got %+v", s)
			}
		})
	}
}
