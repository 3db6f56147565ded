package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// Fall says where to go back to after a deployment has failed: what its stage
// asks for with onFailure. The text says why there is nothing to do, or where
// not. all are the service's records, by environment; what is not among them is
// left alone.
//
// No hold is asked: it keeps new versions out, and what fails must not stay for
// its sake.
func Fall(_ time.Time, failed ledger.Record, rules Rules, all map[desired.EnvironmentName]ledger.Record) ([]Retreat, string) {
	d, env, svc := failed.Deployment, failed.Environment, failed.Service
	if d.State != ledger.StateFailed {
		return nil, fmt.Sprintf("%s has not failed in %s", svc, env)
	}
	p, s, why := rules.Stage(env, svc)
	if why != "" {
		return nil, "nothing says what to do: " + why
	}
	if d.Cause == ledger.CauseRollback || d.Cause == ledger.CauseRevert {
		return nil, fmt.Sprintf("%s was a way back already, and one that fails leads to no other: a person has to act", version(d.Release))
	}
	switch s.OnFailure {
	case desired.OnFailureRollback:
		r, why := fall(failed, failed, failed.Verified, env, s)
		if r == nil {
			return nil, why
		}
		return []Retreat{*r}, ""
	case desired.OnFailureRollbackAll:
		return fallAll(failed, p, all)
	case desired.OnFailureStop, "":
		return nil, fmt.Sprintf("onFailure of %s is %s: a person has to act", env, desired.OnFailureStop)
	}
	return nil, fmt.Sprintf("what onFailure %q of %s asks for is not known", s.OnFailure, env)
}

// fall leads one environment back from the failed release to one that was
// verified in an environment.
func fall(failed, r ledger.Record, to *ledger.Past, where desired.EnvironmentName, s *desired.Stage) (*Retreat, string) {
	env, d := r.Environment, r.Deployment
	if to == nil {
		return nil, fmt.Sprintf("there is nothing to go back to: %s was never verified in %s", r.Service, where)
	}
	if same(to.Release, d.Release, s.ManifestsHead) {
		return nil, fmt.Sprintf("there is nothing to go back to: %s was verified in %s last, and %s has it", version(to.Release), where, env)
	}
	if f, no := refusal(r, to.Release, s.ManifestsHead); no {
		return nil, fmt.Sprintf("%s can't go back to %s, which is refused there since %s: %s", env, version(to.Release), on(f.Time), clause(f.Reason))
	}
	_, back := apart(d.Release, to.Release)
	bad, _ := apart(failed.Deployment.Release, to.Release)
	reason := fmt.Sprintf("%s failed in %s", bad, failed.Environment)
	if why := clause(failed.Deployment.Reason); why != "" {
		reason += " (" + why + ")"
	}
	there := "there"
	if where != failed.Environment {
		there = "in " + string(where)
	}
	return &Retreat{
		Environment: env,
		Service:     r.Service,
		To:          to.Release,
		Manifests:   !s.ManifestsHead && to.Release.Source != d.Release.Source,
		Reason:      fmt.Sprintf("%s; %s was verified %s last, on %s", reason, back, there, on(to.Ended)),
		Before:      d.Release.Version(),
	}, ""
}

// fallAll leads every environment of the pipeline that runs the failed release
// back to what was verified last where the pipeline ends.
func fallAll(failed ledger.Record, p *desired.Pipeline, all map[desired.EnvironmentName]ledger.Record) ([]Retreat, string) {
	record := func(env desired.EnvironmentName) (ledger.Record, bool) {
		if env == failed.Environment {
			return failed, true
		}
		r, ok := all[env]
		return r, ok
	}
	to, where, why := last(failed, p, record)
	if to == nil {
		return nil, why
	}
	// If only the manifests are to blame, so is only who has them.
	manifestsOnly := to.Release.SamePins(failed.Deployment.Release)
	var retreats []Retreat
	var left []string
	for i := range p.Stages {
		s := &p.Stages[i]
		r, known := record(s.Environment)
		switch {
		case !known:
			left = append(left, fmt.Sprintf("what %s runs is not known", s.Environment))
			continue
		case r.Deployment.ID == "" || !r.Retired.IsZero() || !same(r.Deployment.Release, failed.Deployment.Release, !manifestsOnly):
			continue
		case len(s.Problems) > 0:
			left = append(left, fmt.Sprintf("the stage %s can't be used: %s", s.Environment, s.Problems[0].Error()))
			continue
		}
		retreat, why := fall(failed, r, to, where, s)
		if retreat == nil {
			left = append(left, why)
			continue
		}
		retreats = append(retreats, *retreat)
	}
	return retreats, strings.Join(left, "; ")
}

// last returns what was verified last in the last stages of the pipeline.
func last(failed ledger.Record, p *desired.Pipeline, record func(desired.EnvironmentName) (ledger.Record, bool)) (to *ledger.Past, where desired.EnvironmentName, why string) {
	var ends []string
	for _, s := range p.Stages {
		if slices.ContainsFunc(p.Stages, func(o desired.Stage) bool { return slices.Contains(o.After, s.Environment) }) {
			continue
		}
		ends = append(ends, string(s.Environment))
		r, known := record(s.Environment)
		if !known {
			return nil, "", fmt.Sprintf("what was verified last in %s is not known", s.Environment)
		}
		v := r.Verified
		if v != nil {
			if _, no := refusal(r, v.Release, s.ManifestsHead); no {
				continue
			}
		}
		if v != nil && !v.Release.Equal(failed.Deployment.Release) && (to == nil || v.Ended.After(to.Ended)) {
			to, where = v, s.Environment
		}
	}
	if to == nil {
		return nil, "", fmt.Sprintf("there is nothing to go back to: nothing else was ever verified in %s", strings.Join(ends, " or "))
	}
	return to, where, ""
}
