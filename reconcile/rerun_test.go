package reconcile

import (
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// A failure that the daemon found is decided in the moment in which it is
// recorded, even if what follows from it is not yet.
func TestRerunTakesNoFailureBack(t *testing.T) {
	k := Key{"staging", "web"}
	check := func(r ledger.Result) ledger.Record {
		return ledger.Record{Environment: "staging", Service: "web", Deployment: ledger.Deployment{
			ID: "web-a", Commit: "a", State: ledger.StateCompleted, Cause: ledger.CausePin, Checks: []ledger.Check{{Policy: "smoke", Result: r, By: daemonName}}}}
	}
	for _, test := range []struct {
		gate   *desired.Policy
		result ledger.Result
		want   RejectionCode
	}{
		{&desired.Policy{Check: desired.CheckJob}, ledger.Success, ""},
		{&desired.Policy{Check: desired.CheckJob}, ledger.Failure, Decided},
		{&desired.Policy{Check: desired.CheckReport, Report: &desired.Report{By: []string{"ci"}}}, ledger.Failure, ""},
	} {
		c := &Clerk{dirty: map[Key]bool{}, stages: map[Key]bool{},
			books: map[desired.EnvironmentName]*book{"staging": {records: map[desired.ServiceName]ledger.Record{"web": check(test.result)}}}}
		b := newBatch(t.Context(), c, time.Now())
		got := RejectionCode("")
		err := c.takeBack(b, k, asked{gate: test.gate, current: true}, ReportRequest{Principal: Principal{Name: "ci"}, Policy: "smoke", Version: "1.0.0"})
		if err != nil {
			got = err.Code
		}
		if got != test.want || (len(b.pages["staging"]) == 1) != (test.want == "") || err != nil && !strings.Contains(err.Message, "has failed") {
			t.Errorf("%s, %s: %v", test.gate.Check, test.result, err)
		}
	}
}
