package reconcile

import (
	"fmt"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// Phase is where a service stands in an environment.
type Phase string

// The phases. A service that is ready and then loses its health is Degraded.
const (
	Pending     Phase = "pending"     // not looked at yet, or the cluster can't be seen
	Blocked     Phase = "blocked"     // waits for another service
	Applying    Phase = "applying"    // requests are under way
	Progressing Phase = "progressing" // applied; the rollout is under way
	Ready       Phase = "ready"       // in sync and rolled out
	Degraded    Phase = "degraded"    // was ready; an object has lost its health
	Failed      Phase = "failed"      // could not be rendered, applied, or rolled out
	Suspended   Phase = "suspended"   // something is to be written, and may not be
)

// Unready is an object that is not yet, or no longer, as it should be.
type Unready struct {
	Ref    render.Ref     `json:"object"`
	Health cluster.Health `json:"health"`
}

// String says what is waited for and why.
func (u Unready) String() string {
	why := u.Health.Message
	if u.Health.Reason != "" {
		if why != "" {
			why += "; "
		}
		why += u.Health.Reason
	}
	if why == "" {
		why = strings.ToLower(string(u.Health.Status))
	}
	return u.Ref.String() + ": " + why
}

// Dependency is a service that must be ready first.
type Dependency struct {
	Service desired.ServiceName
	Phase   Phase
	Message string
}

// Failure is an attempt that failed.
type Failure struct {
	Message  string
	Attempts int
	// Retry is when to try again; zero: not before the commit changes.
	Retry time.Time
	// UnknownKind: the cluster does not serve a kind, which may change when
	// another service is applied.
	UnknownKind bool
	// Behind is the Service that the API server could not reach; nil: none.
	Behind *render.Ref
	// Passing: nobody has to do anything for the next attempt to succeed.
	Passing bool
	// Slow: the attempt took long; the next one sends one request at a time.
	Slow bool
	// Foreign: another repository has the environment, which it may hand over.
	Foreign bool
	// Since is when the first of the attempts failed.
	Since time.Time
}

// View is all that is known of a service when it is decided what to do next.
type View struct {
	Now time.Time
	// Problem says why the newest commit's wish can't be had: a mistake in a
	// file, a rendering that failed. The last good one stays.
	Problem string
	// Rendered: there is a target, of this commit or of the last good one.
	Rendered bool
	// Suspended says, if not empty, why nothing is written.
	Suspended string
	// Busy: a job for the present target is under way.
	Busy         bool
	Dependencies []Dependency
	// InSync: the cluster shows every object as the target wants it.
	InSync bool
	// Uncompared: a job has to look first; it writes nothing as long as
	// dependencies are waited for.
	Uncompared bool
	// Hook says what a hook that runs waits for; "": none runs.
	Hook string
	// HookDue is a hook that is to be run when the rollout is complete.
	HookDue string
	// Going: it is not in sync for an object that is being deleted.
	Going bool
	// OutOfSync says in words what is missing.
	OutOfSync string
	Unready   []Unready
	// Since is when the present target was applied, or first seen in sync.
	Since   time.Time
	Timeout time.Duration
	// WasReady: the present target has been ready before.
	WasReady bool
	Failure  *Failure
	// Damped is the moment until which nothing is applied once more: fields
	// that another manager keeps changing, or what the last apply did not bring
	// in sync.
	Damped time.Time
	// Tolerated: others alone keep it out of sync, and that is only reported.
	Tolerated bool
	// Examined: what they did is known; it is Drift, or, if that is empty,
	// nothing that differs.
	Examined bool
	Drift    string
	// Contested: what was corrected comes again and again.
	Contested bool
	// Unsure: whether what is missing was deleted is known when the ledger is
	// read.
	Unsure bool
}

// Step is what to do next, and why.
type Step struct {
	Phase Phase
	// Base is the phase of what runs, a mistake in the newest wish aside: it
	// is what others wait for.
	Base Phase
	// Apply: start a job now.
	Apply bool
	// Hook: run the hook that is due.
	Hook    bool
	Message string
	// Again is when to look again even if nothing happens; zero: never.
	Again time.Time
	// Final: it is Failed, and no more attempts will mend that.
	Final bool
	// Inquire: a rollout has failed, and the cluster may say why.
	Inquire bool
}

// Next decides what to do next for one service.
func Next(v View) Step {
	s := next(v)
	s.Base = s.Phase
	if v.Problem != "" && s.Phase != Applying {
		// What runs is cared for, and what was asked for is reported.
		s.Phase, s.Message = Failed, v.Problem
	}
	return s
}

func next(v View) Step {
	switch {
	case v.Suspended != "" && v.Rendered:
		return suspended(v)
	case v.Busy:
		return Step{Phase: Applying, Message: v.OutOfSync}
	case !v.Rendered:
		return Step{Phase: Pending, Message: "not rendered yet"}
	case v.Hook != "":
		return Step{Phase: Progressing, Message: v.Hook}
	case v.Failure != nil && v.Failure.Retry.IsZero():
		return Step{Phase: Failed, Message: v.Failure.Message, Final: true}
	case v.Failure != nil && v.Failure.Retry.After(v.Now):
		return Step{Phase: Failed, Message: v.Failure.Message, Again: v.Failure.Retry, Final: outlasted(v)}
	case !v.InSync && v.Going && v.WasReady && v.Damped.After(v.Now):
		return Step{Phase: Degraded, Message: v.OutOfSync, Again: v.Damped}
	case !v.InSync && v.Going && v.Damped.After(v.Now):
		return Step{Phase: Progressing, Message: v.OutOfSync, Again: v.Damped}
	case v.Unsure:
		return Step{Phase: Pending, Message: "the ledger is not read yet, and says whether what is missing was deleted", Again: v.Now.Add(time.Second)}
	case !v.InSync && v.Tolerated && v.Examined && v.Drift != "":
		return Step{Phase: Degraded, Message: "drifted, and only reported: " + v.Drift}
	case !v.InSync && v.Tolerated && !v.Examined && v.Damped.After(v.Now):
		return Step{Phase: Degraded, Message: v.OutOfSync + " again", Again: v.Damped}
	case !v.InSync && v.Tolerated && !v.Examined:
		return Step{Phase: Pending, Apply: true, Message: v.OutOfSync}
	case !v.InSync && !v.Tolerated && v.WasReady && v.Damped.After(v.Now):
		return Step{Phase: Degraded, Message: again(v), Again: v.Damped}
	case !v.InSync && !v.Tolerated && v.Damped.After(v.Now):
		return Step{Phase: Progressing, Message: v.OutOfSync + ", though it was applied", Again: v.Damped}
	case !v.InSync && !v.Tolerated:
		if why := waitsFor(v.Dependencies); why != "" && !v.Uncompared {
			return Step{Phase: Blocked, Message: why}
		}
		return Step{Phase: Pending, Apply: true, Message: v.OutOfSync}
	case len(v.Unready) > 0:
		return rollout(v)
	case v.InSync && v.HookDue != "":
		return Step{Phase: Progressing, Hook: true, Message: "the hook " + v.HookDue + " is to run"}
	}
	return Step{Phase: Ready}
}

// again says what was changed once more after it was corrected.
func again(v View) string {
	if !v.Contested || v.Drift == "" {
		return v.OutOfSync + " again, after it was corrected"
	}
	return v.Drift + ", again and again; it is taken back less and less often, next at " + v.Damped.UTC().Format(time.TimeOnly) + " UTC"
}

// outlasted tells whether what the API server refuses has been refused for as
// long as a rollout may take.
func outlasted(v View) bool {
	return !v.Failure.Passing && v.Timeout > 0 && !v.Now.Before(v.Failure.Since.Add(v.Timeout))
}

// waitsFor says which dependencies are not ready, or "".
func waitsFor(ds []Dependency) string {
	var waits []string
	for _, d := range ds {
		if d.Phase == Ready {
			continue
		}
		w := fmt.Sprintf("%s, which is %s", d.Service, d.Phase)
		if d.Message != "" {
			w += " (" + d.Message + ")"
		}
		waits = append(waits, w)
	}
	if len(waits) == 0 {
		return ""
	}
	return "waits for " + strings.Join(waits, " and for ")
}

// rollout judges a service that is applied and not healthy.
func rollout(v View) Step {
	what := describe(v.Unready)
	if v.WasReady {
		return Step{Phase: Degraded, Message: what}
	}
	for _, u := range v.Unready {
		if u.Health.Status == cluster.Failed {
			return Step{Phase: Failed, Message: "rollout failed: " + what, Final: true, Inquire: true}
		}
	}
	deadline := v.Since.Add(v.Timeout)
	if !v.Now.Before(deadline) {
		return Step{Phase: Failed, Message: fmt.Sprintf("rollout not complete after %s: %s", v.Timeout, what), Final: true, Inquire: true}
	}
	return Step{Phase: Progressing, Message: what, Again: deadline}
}

// describe names the first objects that are not ready.
func describe(us []Unready) string {
	const most = 3
	var parts []string
	for i, u := range us {
		if i == most {
			parts = append(parts, fmt.Sprintf("and %d more", len(us)-most))
			break
		}
		parts = append(parts, u.String())
	}
	return strings.Join(parts, "; ")
}
