package reconcile

import (
	"context"
	"maps"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/cluster"
)

// Tenure says which environments are ours to write to, where several replicas
// follow one repository. It may change at any moment; what was begun under a
// term ends with it. A nil Tenure says that there are no other replicas.
type Tenure struct {
	leases *cluster.Leases
	lease  func(desired.EnvironmentName) string
}

// NewTenure returns who has which environment, by the lease that lease names
// for it.
func NewTenure(leases *cluster.Leases, lease func(desired.EnvironmentName) string) *Tenure {
	return &Tenure{leases, lease}
}

// term returns the term under which an environment is ours; it is nil if
// nobody competes for it. ok is false if it is not ours.
func (t *Tenure) term(env desired.EnvironmentName) (term *cluster.Term, ok bool) {
	if t == nil {
		return nil, true
	}
	term = t.leases.Term(t.lease(env))
	return term, term != nil
}

// Has tells whether an environment is ours to write to, now.
func (t *Tenure) Has(env desired.EnvironmentName) bool {
	_, ok := t.term(env)
	return ok
}

// Holder returns who else has an environment; the zero Holder: nobody, or it
// is not known.
func (t *Tenure) Holder(env desired.EnvironmentName) cluster.Holder {
	if t == nil {
		return cluster.Holder{}
	}
	return t.leases.Holder(t.lease(env))
}

// changes tells each time that what is ours has changed.
func (t *Tenure) changes() <-chan struct{} {
	if t == nil {
		return nil
	}
	return t.leases.Changes()
}

// owned is the part of a selection that is ours, now.
func (e *Engine) owned(k Key) bool {
	return e.options.Selection.Has(k) && e.options.Tenure.Has(k.Environment)
}

// reown drops what is not ours any more, and looks at the whole commit for
// what has become ours. What was ours under another term begins anew.
func (e *Engine) reown(ctx context.Context) {
	for k, u := range e.units {
		if term, ok := e.options.Tenure.term(k.Environment); !ok || term != u.term {
			e.drop(u)
		}
	}
	maps.DeleteFunc(e.gone, func(k Key, _ *Target) bool { return !e.options.Tenure.Has(k.Environment) })
	for s, est := range e.estates {
		if term, ok := e.options.Tenure.term(s.environment); !ok || term != est.term {
			delete(e.estates, s)
		}
	}
	if e.commit != nil && !e.occupy(e.commit) {
		return
	}
	for name, f := range e.orphans {
		if f == nil {
			delete(e.orphans, name) // they may be of an environment that is ours now
		}
	}
	if e.wanted != "" {
		e.prepare(ctx) // what has not changed costs a comparison
	}
}

// drop forgets a unit, and ends its job.
func (e *Engine) drop(u *unit) {
	if u.cancel != nil {
		u.cancel(errPreempted)
	}
	if u.hook != nil {
		u.hook.cancel() // the Job goes on; whose the environment is now finds it
	}
	if u.phase == Ready {
		e.ready--
	}
	e.unclaim(u)
	if u.target != nil {
		e.setHealth(u.target, nil)
	}
	if u.target.guarded() {
		e.gone[u.key] = u.target
	}
	for k := range e.dependents[u.key] {
		e.dirty[k] = true // they may not wait any more
	}
	delete(e.units, u.key)
	delete(e.wakes, u.key)
	delete(e.dirty, u.key)
}

// ours tells whether the ledger of an environment was ours when this turn
// began. That it still is, is asked once more before each push.
func (c *Clerk) ours(env desired.EnvironmentName) bool {
	if c.options.Tenure == nil {
		return true
	}
	_, ok := c.held[env]
	return ok
}

// survey finds out what is ours. What is not any more is forgotten, with the
// checks that are made for it: who has it now goes on with them. What has
// become ours is judged from nothing.
func (c *Clerk) survey() {
	known := map[desired.EnvironmentName]bool{}
	for env := range c.books {
		known[env] = true
	}
	if c.commit != nil {
		for env := range c.commit.Repository.Environments {
			known[env] = true
		}
	}
	for env := range known {
		term, ok := c.options.Tenure.term(env)
		have, had := c.held[env]
		if had == ok && have.term == term {
			continue
		}
		if had {
			c.leave(env)
		}
		if ok {
			c.held[env] = holding{term, c.options.Clock(), time.Now()}
			if c.commit != nil {
				c.touchEnvironment(env)
			}
		}
	}
}

func (c *Clerk) leave(env desired.EnvironmentName) {
	delete(c.held, env)
	c.dropCalls(env)
	for key, r := range c.checks {
		if key.Environment == env {
			r.cancel()
			delete(c.checks, key)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, d := range c.cards {
		if k.Environment == env {
			c.settle(k, d)
			c.cards[k] = &card{told: c.journal.later(d.told, d.tip)}
			c.dirty[k] = true
		}
	}
}

// termOf is the term under which a change is ours to push.
func (c *Clerk) termOf(env desired.EnvironmentName) *cluster.Term { return c.held[env].term }

// after tidies up behind a check, also when the daemon ends, but not after the
// term.
func (c *Clerk) after(ctx context.Context, env desired.EnvironmentName, tidy func(context.Context)) {
	ctx, done := c.termOf(env).Context(context.WithoutCancel(ctx))
	c.jobs.Go(func() {
		defer done()
		tidy(ctx)
	})
}
