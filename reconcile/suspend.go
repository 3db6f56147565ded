package reconcile

import (
	"errors"

	"github.com/pinion-cd/pinion/desired"
)

var errSuspended = errors.New("it was suspended")

// suspend takes in whether a commit suspends a unit. Only what is certain lifts
// a suspension: a commit that could be read, and that was rendered.
func (e *Engine) suspend(u *unit, repo *desired.Repository, certain bool) {
	why := repo.Suspended(u.key.Environment, u.key.Service)
	if why == u.suspended || why == "" && !certain {
		return
	}
	if u.suspended = why; why == "" {
		u.failure = nil // of the looking
	} else {
		if u.cancel != nil {
			u.cancel(errSuspended)
		}
		u.hookDue = nil
		if u.hook != nil {
			u.hook.cancel() // the Job goes on; what it came to is seen later
			u.hook = nil
		}
	}
	e.dirty[u.key] = true
	e.stale(u.key.Environment)
}

// suspended judges a service that nothing is written of: it is only looked at.
func suspended(v View) Step {
	s := Step{Phase: Suspended, Message: v.Suspended}
	switch {
	case v.Uncompared && v.Failure != nil && v.Failure.Retry.After(v.Now):
		s.Message += "; it can't be compared with the cluster: " + v.Failure.Message
		s.Again = v.Failure.Retry
	case v.Uncompared:
		s.Apply = !v.Busy // the job looks, and writes nothing
		s.Message += "; " + v.OutOfSync
	case !v.InSync:
		s.Message += "; " + v.OutOfSync
	case len(v.Unready) > 0:
		s = rollout(v)
		s.Message += "; " + v.Suspended
	case v.HookDue != "":
		s.Message += "; the hook " + v.HookDue + " is to run"
	default:
		s.Phase = Ready
	}
	return s
}
