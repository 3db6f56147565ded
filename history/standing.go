package history

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// Standing is where a service stands in an environment.
type Standing struct {
	Environment desired.EnvironmentName `json:"environment"`
	Service     desired.ServiceName     `json:"service"`
	Version     string                  `json:"version,omitempty"`
	Pins        []ledger.Pin            `json:"pins,omitempty"`
	Source      string                  `json:"source,omitempty"`
	// State is that of the deployment, or "wanted", or "retired", or empty: only
	// a candidate is there.
	State      string     `json:"state,omitempty"`
	Since      time.Time  `json:"since,omitzero"`
	Reason     string     `json:"reason,omitempty"`
	Deployment string     `json:"deployment,omitempty"`
	Commit     string     `json:"commit,omitempty"`
	Wanted     string     `json:"wanted,omitempty"` // the version that main asks for, if it is another
	Candidate  *Candidate `json:"candidate,omitempty"`
	Drifted    time.Time  `json:"drifted,omitzero"`
	// Drift is what others did to it, if that stands or comes again and again.
	Drift     *ledger.Drift `json:"drift,omitempty"`
	Problem   string        `json:"problem,omitempty"`   // why main can't be followed
	Suspended string        `json:"suspended,omitempty"` // why nothing is written
	WaitsFor  []string      `json:"waitsFor,omitempty"`  // services that have to be ready before anything of it is applied
	// Next is what comes next; of one environment or one service only.
	Next []string `json:"next,omitempty"`

	// Record is what it was read from; the zero value if nothing is recorded.
	Record ledger.Record `json:"-"`
}

// Candidate is a version that waits to enter an environment, in short.
type Candidate struct {
	Version string    `json:"version"`
	From    []string  `json:"from,omitempty"`
	Offered time.Time `json:"offered"`
	Reason  string    `json:"reason,omitempty"`
}

// What a standing's state may be besides those of a deployment.
const (
	StateWanted  = "wanted"
	StateRetired = "retired"
)

// Unsettled tells whether it has failed, or still moves.
func (s Standing) Unsettled() bool {
	switch s.State {
	case "", StateRetired:
		return s.Wanted != ""
	case string(ledger.StateVerified):
		return s.Wanted != "" || s.Problem != "" || s.Drift != nil
	}
	return true
}

// Standings returns where services stand in an environment, by name: what is
// recorded, and what main asks for. With only, it looks at no other.
func (view *View) Standings(ctx context.Context, env desired.EnvironmentName, only desired.ServiceName) ([]Standing, error) {
	if all, ok := view.stand[env]; ok && only == "" {
		return slices.Clone(all), nil
	}
	repo, err := view.Repository(ctx)
	if err != nil {
		return nil, err
	}
	records := map[desired.ServiceName]ledger.Record{}
	if only == "" {
		records, err = view.Records(ctx, env)
	} else if r, ok, e := view.Record(ctx, env, only); ok || e != nil {
		records[only], err = r, e
		if e != nil {
			return nil, e
		}
	}
	var all []Standing
	for _, svc := range slices.Sorted(maps.Keys(records)) {
		s := standingOf(records[svc])
		if d, ok := repo.Deployment(env, svc); ok {
			s.compare(d)
		}
		var failure error
		if s.Suspended, failure = view.suspended(ctx, repo, env, svc); failure != nil {
			return nil, failure
		}
		if records[svc].Deployment.State == ledger.StatePinned {
			if s.WaitsFor, failure = view.waitsFor(ctx, repo, env, svc); failure != nil {
				return nil, failure
			}
		}
		all = append(all, s)
	}
	wanted := []desired.Deployment{}
	if d, ok := repo.Deployment(env, only); ok {
		wanted = append(wanted, d)
	} else if only == "" {
		wanted = repo.DeploymentsIn(env)
	}
	for _, d := range wanted {
		if _, ok := records[d.Service.Name]; !ok && err == nil {
			s := Standing{Environment: env, Service: d.Service.Name}
			s.compare(d)
			var failure error
			if s.Suspended, failure = view.suspended(ctx, repo, env, s.Service); failure != nil {
				return nil, failure
			}
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b Standing) int { return cmp.Compare(a.Service, b.Service) })
	if only == "" && err == nil {
		view.stand[env] = slices.Clone(all)
	}
	return all, err
}

// waitsFor names the services of an environment on which one depends, and that
// are not rolled out, each with its state.
func (view *View) waitsFor(ctx context.Context, repo *desired.Repository, env desired.EnvironmentName, svc desired.ServiceName) ([]string, error) {
	d, ok := repo.Deployment(env, svc)
	if !ok {
		return nil, nil
	}
	var waits []string
	for _, on := range d.Service.DependsOn {
		if _, here := repo.Deployment(env, on); !here {
			continue
		}
		r, known, err := view.Record(ctx, env, on)
		if err != nil {
			return nil, err
		}
		switch state := r.Deployment.State; {
		case !known || state == "":
			waits = append(waits, fmt.Sprintf("%s, of which nothing is recorded yet", on))
		case state == ledger.StatePinned || state == ledger.StateStarted || state == ledger.StateFailed:
			waits = append(waits, fmt.Sprintf("%s, which is %s", on, state))
		}
	}
	return waits, nil
}

func standingOf(r ledger.Record) Standing {
	d := r.Deployment
	s := Standing{Environment: r.Environment, Service: r.Service, Version: d.Release.Version(), Pins: d.Release.Pins, Source: d.Release.Source,
		State: string(d.State), Since: sinceOf(d), Reason: d.Reason, Deployment: d.ID, Commit: d.Commit, Drifted: r.Drifted, Record: r}
	if r.Drift.Stands() {
		s.Drift = r.Drift
	}
	if !r.Retired.IsZero() {
		s.State, s.Since = StateRetired, r.Retired
	}
	if c := r.Candidate; c != nil {
		s.Candidate = &Candidate{c.Release.Version(), c.From, c.Offered, c.Reason}
	}
	return s
}

// sinceOf is when a deployment came to its state.
func sinceOf(d ledger.Deployment) time.Time {
	for _, t := range []time.Time{d.Ended, d.Completed, d.Started} {
		if !t.IsZero() {
			return t
		}
	}
	return d.Pinned
}

// compare sets what main asks for beside what is recorded.
func (s *Standing) compare(d desired.Deployment) {
	release := ledger.ReleaseOf(d.Pins, d.Source)
	if len(d.Problems) > 0 {
		s.Problem = d.Problems[0].Error()
		return
	}
	switch {
	case s.Deployment == "":
		if s.State == "" {
			s.State = StateWanted
		}
		s.Wanted = cmp.Or(release.Version(), "its manifests")
	case s.State == StateRetired || !release.SamePins(s.Record.Deployment.Release):
		s.Wanted = cmp.Or(release.Version(), "its manifests")
	case d.Source != "" && d.Source != s.Source:
		s.Wanted = fmt.Sprintf("%s with the manifests of %.12s", release.Version(), d.Source)
	}
}
