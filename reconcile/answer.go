package reconcile

import (
	"time"

	"github.com/pinion-cd/pinion/ledger"
)

// sure tells whether it is known what to make of a missing object of a unit:
// what this engine has not seen there may have been deleted, or has yet to be
// applied for the first time. The ledger knows. Where drift is corrected, that
// is the same but for what is recorded, and not waited for.
func (e *Engine) sure(now time.Time, u *unit) bool {
	u.tolerates = u.target != nil && u.target.Report && !e.options.Correct
	if u.contested && u.inSync && !now.Before(u.peace()) {
		e.reportDrift(u, "there is peace: nothing was changed for "+quietCorrection.String())
		u.calm()
	}
	if u.target == nil || u.asked || u.settled || u.cancel != nil {
		return true
	}
	done, known := e.options.Completed(u.key, u.target.Result.Digest)
	u.asked = known
	if known && done {
		u.settled = true
		if u.compared {
			e.inspect(u)
		}
	}
	return known || !u.tolerates
}

// examined takes in what others did to a service whose drift is only reported.
func (e *Engine) examined(now time.Time, u *unit, o Outcome) {
	before := u.found
	u.found = &Drift{Key: u.key, Target: o.Target, Time: now, Answer: ledger.AnswerReported, Objects: o.Drift}
	u.examined = o.off
	e.inspect(u)
	u.damp(now)
	if empty(o.Drift) {
		u.found.Objects = nil
		if u.applied.IsZero() {
			u.applied = now
		}
		return
	}
	if before != nil && before.Record().Same(u.found.Record()) {
		return
	}
	e.reportDrift(u, u.found.describe()+"; only reported")
	if _, told := u.answered(*u.found); told {
		u.contested = false // nobody fights with who does nothing
		e.options.Drift(*u.found)
	}
}

// corrected takes in what others did and what was taken back.
func (e *Engine) corrected(now time.Time, u *unit, o Outcome) {
	if len(o.Drift) == 0 || empty(o.Drift) {
		return
	}
	d := Drift{Key: u.key, Target: o.Target, Time: now, Objects: o.Drift}
	u.found = &d
	a, told := u.answered(d)
	if !told {
		return
	}
	d.Answer = a
	said := "; corrected"
	if a == ledger.AnswerContested {
		said = "; corrected again and again: it is taken back less and less often from now on"
	}
	e.reportDrift(u, d.describe()+said)
	e.options.Drift(d)
}

func (e *Engine) reportDrift(u *unit, message string) {
	ev := Event{Type: EventDrifted, Environment: u.key.Environment, Service: u.key.Service, Commit: u.commit, Deployment: deploymentOf(u.key.Service, u.commit), Message: message}
	if u.target != nil {
		ev.Version = u.target.Version()
	}
	e.report(ev)
}
