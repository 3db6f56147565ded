// Package dora works out the five figures by which DORA
// (https://dora.dev/guides/dora-metrics/) tells how well software is delivered:
// deployment frequency, lead time for changes, change failure rate, failed
// deployment recovery time, and deployment rework rate.
//
// It is given the changes of what runs in an environment, and decides nothing
// else than what counts as what:
//
//   - A deployment is a change that was begun to be applied. What was pinned and
//     replaced before that is none.
//   - It failed if its rollout or its verification did, or if what came right
//     after it went back (a rollback or a revert).
//   - The lead time of a deployment is from the moment at which the commit of its
//     artifact was made until it is rolled out; where nobody has said when that
//     was, from the moment at which the artifact was built, or else from that at
//     which the version was first pinned anywhere. Rollbacks and
//     reverts have none: they bring nothing new.
//   - The recovery time of a failure is from the failure until something is
//     rolled out in its place that does not fail.
//   - Rework is a deployment that came because the one before it had failed.
//
// It touches nothing, and reads no clock.
package dora

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// Change is one change of what runs of a service in an environment.
type Change struct {
	Environment desired.EnvironmentName
	Service     desired.ServiceName
	Version     string
	Cause       ledger.Cause
	// Begun is when it was begun to be applied, and RolledOut when it was rolled
	// out; zero: never.
	Begun, RolledOut time.Time
	Failed           time.Time // when its rollout or verification failed; zero: it did not
	// Chosen is when the version came to be, by From; zero: not known.
	Chosen time.Time
	From   Origin
	// Recorded: the ledger tells it. Else only the pins do: it counts as rolled
	// out when it was pinned, and what failed is seen only where it was taken back.
	Recorded bool
}

// Origin is what a lead time is counted from.
type Origin string

// The origins.
const (
	FromPin    Origin = "" // the first pin of the version
	FromBuild  Origin = "build"
	FromCommit Origin = "commit" // of the source
)

func (c Change) back() bool { return c.Cause == ledger.CauseRollback || c.Cause == ledger.CauseRevert }

// Spread is how some times are spread.
type Spread struct {
	Count  int     `json:"count"`
	Median float64 `json:"medianSeconds"`
	P90    float64 `json:"p90Seconds"` // the least that nine of ten are not above
}

// Figures are the five figures of some changes within a time.
type Figures struct {
	Deployments    int     `json:"deployments"`
	PerDay         float64 `json:"deploymentsPerDay"`
	LeadTime       Spread  `json:"leadTime"`
	FromCommits    int     `json:"leadTimesFromCommits"`
	FromBuilds     int     `json:"leadTimesFromBuilds"` // the others are from the first pin
	Failures       int     `json:"failures"`
	FailureRate    float64 `json:"changeFailureRate"` // of the deployments; 0 to 1
	TimeToRestore  Spread  `json:"timeToRestore"`
	Unrestored     int     `json:"unrestored"` // failures in whose place nothing good has come yet
	Reworks        int     `json:"reworks"`
	ReworkRate     float64 `json:"reworkRate"` // of the deployments; 0 to 1
	FromPinsAlone  int     `json:"deploymentsFromPinsAlone"`
	leads, restore []time.Duration
}

// Report is the figures of an environment and of its services.
type Report struct {
	Since    time.Time                       `json:"since"`
	Until    time.Time                       `json:"until"`
	All      Figures                         `json:"all"`
	Services map[desired.ServiceName]Figures `json:"services"`
}

// Measure works out the figures of the changes that were begun from since on
// and before until. What happened before and after is looked at where it tells
// something of them.
func Measure(changes []Change, since, until time.Time) Report {
	r := Report{Since: since, Until: until, Services: map[desired.ServiceName]Figures{}}
	type line struct {
		env desired.EnvironmentName
		svc desired.ServiceName
	}
	lines := map[line][]Change{}
	for _, c := range changes {
		if !c.Begun.IsZero() && c.Begun.Before(until) {
			k := line{c.Environment, c.Service}
			lines[k] = append(lines[k], c)
		}
	}
	order := slices.SortedFunc(maps.Keys(lines), func(a, b line) int {
		return cmp.Or(cmp.Compare(a.env, b.env), cmp.Compare(a.svc, b.svc))
	})
	for _, k := range order {
		all := lines[k]
		slices.SortStableFunc(all, func(a, b Change) int { return a.Begun.Compare(b.Begun) })
		f := r.Services[k.svc]
		f.add(all, since)
		r.Services[k.svc] = f
	}
	for svc, f := range r.Services {
		if f.Deployments == 0 {
			delete(r.Services, svc)
			continue
		}
		r.All.join(f)
		f.finish(until.Sub(since))
		r.Services[svc] = f
	}
	r.All.finish(until.Sub(since))
	return r
}

// add takes in the changes of one service in one environment, oldest first.
func (f *Figures) add(all []Change, since time.Time) {
	failed := make([]time.Time, len(all))
	for i, c := range all {
		failed[i] = c.Failed
		if c.Failed.IsZero() && i+1 < len(all) && all[i+1].back() {
			failed[i] = all[i+1].Begun
		}
	}
	for i, c := range all {
		if c.Begun.Before(since) {
			continue
		}
		f.Deployments++
		if !c.Recorded {
			f.FromPinsAlone++
		}
		if i > 0 && !failed[i-1].IsZero() {
			f.Reworks++
		}
		if lead := c.RolledOut.Sub(c.Chosen); !c.back() && !c.RolledOut.IsZero() && !c.Chosen.IsZero() && lead >= 0 {
			f.leads = append(f.leads, lead)
			switch c.From {
			case FromCommit:
				f.FromCommits++
			case FromBuild:
				f.FromBuilds++
			}
		}
		if failed[i].IsZero() {
			continue
		}
		f.Failures++
		good := i + 1
		for good < len(all) && (all[good].RolledOut.IsZero() || !failed[good].IsZero()) {
			good++
		}
		if good == len(all) {
			f.Unrestored++
			continue
		}
		f.restore = append(f.restore, max(0, all[good].RolledOut.Sub(failed[i])))
	}
}

func (f *Figures) join(o Figures) {
	f.Deployments += o.Deployments
	f.FromCommits += o.FromCommits
	f.FromBuilds += o.FromBuilds
	f.Failures += o.Failures
	f.Unrestored += o.Unrestored
	f.Reworks += o.Reworks
	f.FromPinsAlone += o.FromPinsAlone
	f.leads = append(f.leads, o.leads...)
	f.restore = append(f.restore, o.restore...)
}

func (f *Figures) finish(within time.Duration) {
	f.LeadTime, f.TimeToRestore = spread(f.leads), spread(f.restore)
	if days := within.Hours() / 24; days > 0 {
		f.PerDay = float64(f.Deployments) / days
	}
	if f.Deployments > 0 {
		f.FailureRate = float64(f.Failures) / float64(f.Deployments)
		f.ReworkRate = float64(f.Reworks) / float64(f.Deployments)
	}
}

// spread sorts what it is given.
func spread(all []time.Duration) Spread {
	if len(all) == 0 {
		return Spread{}
	}
	slices.Sort(all)
	n := len(all)
	return Spread{
		Count:  n,
		Median: (all[(n-1)/2] + all[n/2]).Seconds() / 2,
		P90:    all[(9*n+9)/10-1].Seconds(),
	}
}
