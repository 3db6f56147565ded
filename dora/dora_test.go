package dora

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pinion-cd/pinion/ledger"
)

var day0 = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func hour(h float64) time.Time { return day0.Add(time.Duration(h * float64(time.Hour))) }

// went is a deployment that was rolled out within an hour.
func went(version string, chosen, begun float64, cause ledger.Cause) Change {
	return Change{Environment: "production", Service: "web", Version: version, Cause: cause, Chosen: hour(chosen), Begun: hour(begun), RolledOut: hour(begun + 1), Recorded: true}
}

func TestMeasure(t *testing.T) {
	broke := went("1.2.0", 20, 30, ledger.CausePromotion)
	broke.Failed = hour(33) // its verification, after it was rolled out
	stuck := went("1.4.0", 60, 70, ledger.CausePromotion)
	stuck.RolledOut, stuck.Failed = time.Time{}, hour(71)
	built := went("1.1.0", 4, 10, ledger.CausePromotion)
	built.From = FromBuild
	broke.From = FromCommit
	never := Change{Environment: "production", Service: "web", Version: "1.0.9", Recorded: true}
	api := went("7", 0, 50, ledger.CausePin)
	api.Service, api.Recorded = "api", false
	changes := []Change{
		stuck, built, broke, never, api, // in any order
		went("1.1.0", 4, 34, ledger.CauseRollback),
		went("1.3.0", 40, 45, ledger.CausePin),   // somebody has reverted it: a failure, too
		went("1.1.0", 4, 50, ledger.CauseRevert), // mends it
		went("0.9.0", -40, -24, ledger.CausePin), // before
		went("2.0.0", 90, 96, ledger.CausePin),   // after
	}
	got := Measure(changes, hour(0), hour(96))
	want := Figures{
		Deployments: 7, PerDay: 7. / 4, FromPinsAlone: 1,
		// 1.1.0: 7 h, 1.2.0: 11 h, 1.3.0: 6 h, api 7: 51 h.
		LeadTime: Spread{Count: 4, Median: 9 * 3600, P90: 51 * 3600}, FromCommits: 1, FromBuilds: 1,
		// 1.2.0, 1.3.0 and 1.4.0.
		Failures: 3, FailureRate: 3. / 7,
		// 1.2.0 from 33 to 35, 1.3.0 from 50 to 51; 1.4.0 not yet.
		TimeToRestore: Spread{Count: 2, Median: 1.5 * 3600, P90: 2 * 3600}, Unrestored: 1,
		Reworks: 2, ReworkRate: 2. / 7,
	}
	if d := cmp.Diff(want, got.All, cmpopts.IgnoreUnexported(Figures{})); d != "" {
		t.Error(d)
	}
	if n := got.Services["api"].Deployments; n != 1 || len(got.Services) != 2 {
		t.Errorf("api: %d of %d services", n, len(got.Services))
	}
}

// A failure is over only when something good has come.
func TestOneFailureAfterTheOther(t *testing.T) {
	first, second := went("2", 0, 10, ledger.CausePin), went("3", 11, 12, ledger.CausePin)
	first.Failed, second.Failed = hour(11), hour(13)
	all := []Change{went("1", 0, 1, ledger.CausePin), first, second, went("4", 13, 20, ledger.CausePin)}
	f := Measure(all, hour(0), hour(24)).All
	if f.Failures != 2 || f.Reworks != 2 || f.Unrestored != 0 || f.TimeToRestore.Count != 2 || f.TimeToRestore.Median != (10+8)*1800 {
		t.Errorf("%+v", f)
	}
}

func TestNothing(t *testing.T) {
	got := Measure(nil, hour(0), hour(0))
	if got.All.Deployments != 0 || got.All.PerDay != 0 || len(got.Services) != 0 {
		t.Errorf("%+v", got)
	}
}

// The order of what is given is of no matter, and no figure is out of its bounds.
func TestOrderIsOfNoMatter(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		causes := []ledger.Cause{ledger.CausePin, ledger.CausePromotion, ledger.CauseRollback, ledger.CauseRevert, ledger.CauseManifests}
		var all []Change
		for i := range r.IntN(20) {
			c := went(fmt.Sprint(i), float64(r.IntN(20)), float64(i)+r.Float64()/2, causes[r.IntN(len(causes))])
			if r.IntN(3) == 0 {
				c.Failed = c.Begun.Add(time.Minute)
			}
			if r.IntN(4) == 0 {
				c.RolledOut = time.Time{}
			}
			all = append(all, c)
		}
		one := Measure(all, hour(2), hour(15))
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		if d := cmp.Diff(one, Measure(all, hour(2), hour(15)), cmpopts.IgnoreUnexported(Figures{})); d != "" {
			t.Fatalf("seed %d: %s", seed, d)
		}
		f := one.All
		if f.Failures > f.Deployments || f.Reworks > f.Deployments || f.TimeToRestore.Count+f.Unrestored != f.Failures || f.LeadTime.Median > f.LeadTime.P90 || f.TimeToRestore.Median < 0 {
			t.Fatalf("seed %d: %+v", seed, f)
		}
	}
}
