package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// start gives the queued services of a cluster their jobs. It returns when to do
// so again for those that have none; zero: when a job ends.
func (e *Engine) start(ctx context.Context, now time.Time, name desired.ClusterName) (again time.Time) {
	var later []Key
	var room int
	for len(e.queue[name]) > 0 {
		if room, again = vacant(now, e.running[name], e.options.Jobs); room == 0 {
			break
		}
		k := e.queue[name][0]
		e.queue[name] = e.queue[name][1:]
		u := e.units[k]
		if u == nil || u.cancel != nil || u.target == nil || u.target.Cluster != name {
			continue
		}
		claims := map[render.Ref][]Key{}
		contested := false
		for _, o := range u.target.Result.Objects {
			if c := e.claims[name][o.Ref]; len(c) > 1 {
				claims[o.Ref] = slices.Clone(c)
				contested = contested || slices.ContainsFunc(c, func(k Key) bool { return e.units[k] != nil && e.units[k].cancel != nil })
			}
		}
		if contested { // whose the object is can be seen when that job is done
			later = append(later, k)
			continue
		}
		t, cl := u.target, e.connection(u.target)
		termCtx, done := u.term.Context(ctx)
		jobCtx, cancel := context.WithCancelCause(termCtx)
		u.cancel = cancel
		if e.running[name] == nil {
			e.running[name] = map[*unit]time.Time{}
		}
		e.running[name][u] = now
		e.working[k.Environment]++
		if u.suspended == "" && !(u.tolerates && u.drifted) { // else it is only looked at
			e.enter(time.Now(), u, Step{Phase: Applying, Base: Applying, Message: u.outOfSync})
		}
		compare := !u.compared && waitsFor(e.dependencies(u)) != ""
		run := func(f func(*Target) Outcome) {
			e.jobs.Go(func() {
				var out Outcome
				full, err := t.whole()
				if err == nil {
					out = f(full)
				} else {
					out.Err = err
				}
				done()
				out.Target, out.unit = t, u
				e.outcomes <- out
			})
		}
		u.looks = u.suspended != ""
		if u.looks {
			run(func(t *Target) Outcome { return compared(jobCtx, cl, t) })
			continue
		}
		o := order{
			bounds: e.options.Fences.Of(t.Cluster, t.Environment, t.Account), claims: claims, over: maps.Clone(u.over), compare: compare,
			settled: u.settled || !u.applied.IsZero(), tolerates: u.tolerates, off: u.off, careful: u.failure != nil && u.failure.Slow,
		}
		run(func(t *Target) Outcome {
			o.target = t
			return e.deploy(jobCtx, cl, o)
		})
	}
	if e.queue[name] = append(e.queue[name], later...); len(e.queue[name]) == 0 {
		delete(e.queue, name)
	}
	return again
}

// vacant says how many more jobs may run beside those that do, and when there is
// room if there is none now; zero: when one ends. A job that takes long makes
// room for another, for it may wait for what hangs; at most three times as many
// as there may be do.
func vacant(now time.Time, running map[*unit]time.Time, jobs int) (room int, again time.Time) {
	slow := 0
	for _, began := range running {
		if at := began.Add(cluster.Slow); now.Before(at) {
			again = earlier(at, again)
		} else {
			slow++
		}
	}
	if slow >= 3*jobs {
		slow, again = 3*jobs, time.Time{}
	}
	if room = max(0, jobs+slow-len(running)); room > 0 {
		again = time.Time{}
	}
	return room, again
}

// finished takes in what a job came to.
func (e *Engine) finished(now time.Time, o Outcome) {
	t := o.Target
	slow := now.Sub(e.running[t.Cluster][o.unit]) >= cluster.Slow
	delete(e.running[t.Cluster], o.unit)
	e.working[t.Environment]--
	u := e.units[t.Key]
	if u == nil || u != o.unit {
		return
	}
	if u.cancel != nil {
		u.cancel(nil)
		u.cancel = nil
	}
	e.dirty[u.key] = true
	e.stale(u.key.Environment)
	if u.target != t || u.suspended != "" && !u.looks || errors.Is(o.Err, context.Canceled) {
		return // preempted: what came of it is seen by the watches
	}
	for _, w := range o.Warnings {
		e.report(Event{Type: EventWarning, Environment: u.key.Environment, Service: u.key.Service, Message: w})
	}
	u.note = append(u.note, o.notes()...)
	u.knows(o.Done)
	if o.Compared && o.Err == nil {
		u.compared, u.failure = true, nil
		e.inspect(u)
		return
	}
	if o.Err != nil {
		u.failure = e.failure(now, u, o.Err)
		u.failure.Slow = slow && u.failure.Passing
		if notes := o.notes(); len(notes) > 0 {
			e.report(Event{Type: EventApplied, Environment: u.key.Environment, Service: u.key.Service, Version: t.Version(), Commit: o.Commit, Deployment: deploymentOf(u.key.Service, o.Commit), Message: "cut short; " + strings.Join(notes, "; ")})
		}
		return
	}
	u.failure = nil
	u.compared = true
	if o.Reported {
		e.examined(now, u, o)
		return
	}
	e.inspect(u)
	if o.Hook != nil { // the rest is applied when that has completed
		u.hookDue, u.hookCommit = o.Hook, o.Commit
		e.hooksDue[u.key] = true
		return
	}
	if o.Plan.Changes() == 0 {
		if o.Waits && !u.inSync { // a watch shows when it is gone
			u.stuck, u.damped = true, now.Add(longestRetry)
		}
		return
	}
	if defined(o) {
		e.retryUnknown(t.Cluster)
	}
	u.wrote(now, o.Plan, o.Commit)
	e.corrected(now, u, o)
	msg := fmt.Sprintf("%d created, %d changed, %d unchanged", o.Created, o.Changed, len(t.Result.Objects)-o.Created-o.Changed)
	for _, n := range o.notes() {
		msg += "; " + n
	}
	e.report(Event{Type: EventApplied, Environment: u.key.Environment, Service: u.key.Service, Version: t.Version(), Commit: o.Commit, Deployment: deploymentOf(u.key.Service, o.Commit), Message: msg})
}

// notes says what was done besides what everybody expects.
func (o Outcome) notes() []string {
	var notes []string
	for _, a := range o.Adopted {
		notes = append(notes, "took over "+a)
	}
	for _, r := range o.Replaced {
		notes = append(notes, "replaced "+r)
	}
	slices.Sort(notes)
	return notes
}

// defined tells whether a job has written a CustomResourceDefinition.
func defined(o Outcome) bool {
	for _, s := range o.Plan.Stages {
		for _, a := range s {
			if a.writes() && a.Ref.Kind == "CustomResourceDefinition" {
				return true
			}
		}
	}
	return false
}

// retryUnknown tries the services of a cluster again that failed because it
// did not serve a kind.
func (e *Engine) retryUnknown(name desired.ClusterName) {
	for k, u := range e.units {
		if u.failure != nil && u.failure.UnknownKind && u.target.Cluster == name {
			u.failure = nil
			e.dirty[k] = true
		}
	}
}

// retryBehind tries the services of a cluster again that failed because the API
// server could not reach a webhook of a service that is ready now.
func (e *Engine) retryBehind(now time.Time, ready *unit) {
	for k, u := range e.units {
		if u == ready || u.failure == nil || u.failure.Behind == nil || u.target.Cluster != ready.target.Cluster {
			continue
		}
		if slices.ContainsFunc(ready.target.Result.Objects, func(o render.Object) bool { return o.Ref == *u.failure.Behind }) {
			u.failure.Retry = earlier(now, u.failure.Retry)
			e.dirty[k] = true
		}
	}
}

// corrects tells whether the plan only takes back what others have changed.
func corrects(p Plan) bool {
	for _, s := range p.Stages {
		for _, a := range s {
			if a.writes() && a.Verb != Correct && a.Verb != Restore {
				return false
			}
		}
	}
	return true
}

// failure says when an attempt that failed is made again.
func (e *Engine) failure(now time.Time, u *unit, err error) *Failure {
	var unknown *cluster.UnknownKindError
	after, passing := cluster.Retry(err)
	passing = passing || errors.As(err, new(unreadError))
	f := &Failure{Message: err.Error(), Attempts: 1, UnknownKind: errors.As(err, &unknown), Passing: passing, Foreign: errors.As(err, new(*cluster.OwnerError)), Since: now}
	if u.failure != nil {
		f.Attempts, f.Since = u.failure.Attempts+1, u.failure.Since
	}
	if e.options.Attempts > 0 && (!passing || f.Attempts >= e.options.Attempts) {
		return f
	}
	first := firstRetry
	if !passing && !f.UnknownKind {
		first = firstRefusal
	}
	wait := delay(u.key, f.Attempts, first)
	if errors.As(err, new(*cluster.NamespaceError)) || errors.As(err, new(*cluster.AccountError)) {
		wait = min(wait, longestNamespace)
	}
	var unavailable *cluster.UnavailableError
	if errors.As(err, &unavailable) {
		wait = min(wait, longestUnavailable)
		if unavailable.Service != "" {
			f.Behind = &render.Ref{Kind: "Service", Namespace: unavailable.Namespace, Name: unavailable.Service}
		}
	}
	if f.UnknownKind {
		wait = min(wait, longestUnknown)
	}
	f.Retry = now.Add(max(after, wait))
	return f
}
