package reconcile

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/reconcile/health"
	"github.com/pinion-cd/pinion/render"
)

// prepare starts reading the wanted commit; one that is under way is dropped.
func (e *Engine) prepare(ctx context.Context) {
	if e.cancel != nil {
		e.cancel()
		for _, k := range e.rendered.open() {
			e.suspects[k] = true
		}
	}
	e.rendered = newProgress()
	e.generation++
	sure := make(map[Key]known, len(e.units))
	for k, u := range e.units {
		if u.problem == "" && u.target != nil {
			sure[k] = known{u.target, u.at}
		}
	}
	p := preparation{
		generation: e.generation,
		id:         e.wanted,
		previous:   e.commit,
		known:      sure,
		commits:    e.options.Commits,
		renderer:   e.options.Renderer,
		has:        e.owned,
		parallel:   e.options.Renderings,
		progress:   e.rendered,
		suspects:   maps.Clone(e.suspects),
	}
	ctx, e.cancel = context.WithCancel(ctx)
	e.preparing = true
	e.jobs.Go(func() { p.run(ctx, e.readings) })
}

// read takes in what a preparation has found.
func (e *Engine) read(ctx context.Context, now time.Time, r reading) {
	if r.generation != e.generation {
		return
	}
	switch {
	case r.err != nil:
		e.readErr = r.err
		e.rereads++
		e.reread = now.Add(delay(Key{}, e.rereads, firstRetry))
		e.preparing = false
		e.report(Event{Type: EventProblem, Commit: e.wanted, Message: fmt.Sprintf("commit %.12s could not be read: %v", e.wanted, r.err)})
	case r.commit != nil:
		e.readErr, e.reread, e.rereads = nil, time.Time{}, 0
		e.took(r.commit)
	}
	for _, w := range r.wishes {
		e.wished(now, w)
	}
	if r.done && r.err == nil {
		if slices.ContainsFunc(r.passed, e.owned) {
			e.prepare(ctx) // it has become ours since, and may have an estate already
			return
		}
		e.preparing = false
		e.missed()
	}
}

// problems returns what is wrong in a commit, for the clusters that we have.
func (e *Engine) problems(c *Commit) []desired.Problem {
	return slices.Concat(c.Repository.Problems, c.Repository.CheckClusters(slices.Collect(maps.Keys(e.options.Clusters))))
}

// took makes a commit the present one.
func (e *Engine) took(c *Commit) {
	said := map[string]bool{}
	if e.commit != nil {
		for _, p := range e.problems(e.commit) {
			said[p.Error()] = true
		}
	}
	e.commit = c
	e.total = 0
	for _, d := range c.Repository.Deployments() {
		if e.owned(Key{d.Environment.Name, d.Service.Name}) {
			e.total++
		}
	}
	e.lineage.known.Store(c.Repository)
	for _, u := range e.units {
		e.suspend(u, c.Repository, false)
	}
	e.expectHealth(c)
	errs := 0
	for _, p := range e.problems(c) {
		if p.Severity == desired.SeverityError {
			errs++
		}
		if said[p.Error()] {
			continue
		}
		e.report(Event{Type: EventProblem, Severity: p.Severity, Commit: c.ID, Message: string(p.Severity) + ": " + p.Error()})
	}
	e.occupy(c)
	e.report(Event{Type: EventCommit, Commit: c.ID, Message: fmt.Sprintf("environments %d, services %d, mistakes %d",
		len(c.Repository.Environments), len(c.Repository.Services), errs)})
}

// occupy finds the sites of a commit's environments that are ours, and says
// whether there are new ones.
func (e *Engine) occupy(c *Commit) (gained bool) {
	for name, env := range c.Repository.Environments {
		s := site{name, Place{env.Cluster, env.Namespace}}
		term, ours := e.options.Tenure.term(name)
		if ours && e.estates[s] == nil {
			e.estates[s], gained = &estate{site: s, account: env.ServiceAccount, term: term}, true
		}
		if est := e.estates[s]; est != nil && est.account != env.ServiceAccount { // what the other may see is no matter any more
			e.unwatch(est)
			est.account, est.surveyed, est.failure = env.ServiceAccount, false, nil
		}
	}
	for s, est := range e.estates {
		est.former, est.stale = e.former(s), true
	}
	return gained
}

// wished takes in what the commit wants of one service.
func (e *Engine) wished(now time.Time, w wish) {
	term, ours := e.options.Tenure.term(w.key.Environment)
	if !ours {
		return
	}
	u := e.units[w.key]
	if u == nil {
		u = &unit{key: w.key, term: term, phase: Pending, base: Pending, since: now}
		e.units[w.key] = u
	}
	u.generation = e.generation
	delete(e.suspects, w.key)
	if w.unchanged && u.target == w.target && u.settledBefore() {
		u.at = e.commit.ID
		e.suspend(u, e.commit.Repository, true)
		e.sightAt(u)
		return
	}
	e.dirty[w.key] = true
	e.suspend(u, e.commit.Repository, w.err == nil)
	if w.err != nil {
		e.suspects[w.key] = true
		if u.problem != w.err.Error() {
			u.problem = w.err.Error()
			e.report(Event{Type: EventProblem, Environment: u.key.Environment, Service: u.key.Service, Commit: e.wanted, Message: u.problem})
		}
		u.mistaken, u.problemAt, u.wanted = !w.retry, e.commit.ID, nil
		if d, ok := e.commit.Repository.Deployment(w.key.Environment, w.key.Service); ok && len(d.Problems) == 0 {
			u.wanted = &d
		}
		u.again = time.Time{}
		if u.tries++; w.retry && (e.options.Attempts == 0 || u.tries < e.options.Attempts) {
			u.again = now.Add(delay(u.key, u.tries, firstRetry))
		}
		return
	}
	u.problem, u.mistaken, u.wanted, u.again, u.tries = "", false, nil, time.Time{}, 0
	u.at = e.commit.ID
	if w.unchanged && u.target == w.target {
		return
	}
	e.unclaim(u)
	if u.target != nil && u.target.Cluster != w.target.Cluster {
		e.setHealth(u.target, nil)
	}
	before := u.target
	if before == nil {
		before = e.gone[u.key]
		delete(e.gone, u.key)
	}
	u.setTarget(w.target.succeed(before))
	e.claim(u)
	if u.compared {
		// The watches of its kinds run; if nothing but the way differs, it
		// is in sync at once.
		e.inspect(u)
	}
}

// missed looks at the services that a whole commit did not mention.
func (e *Engine) missed() {
	for k, u := range e.units {
		if u.generation == e.generation || !e.owned(k) {
			continue
		}
		gone, why := e.commit.Repository.Gone(k.Environment, k.Service)
		if !gone {
			u.problem, u.mistaken = why, false
			e.dirty[k] = true
			continue
		}
		e.drop(u)
		e.report(Event{Type: EventCommit, Environment: k.Environment, Service: k.Service, Commit: e.commit.ID, Message: why})
	}
	for _, est := range e.estates {
		est.stale = true
	}
}

// setHealth lets a target's cluster judge its objects by rules.
func (e *Engine) setHealth(t *Target, rules *health.Rules) {
	if cl := e.connection(t); cl != nil {
		cl.SetHealth(cluster.Key{Environment: t.Environment, Service: t.Service}, rules)
	}
}

// expectHealth tells the clusters by which rules the objects of services are
// judged of which nothing is known yet, so that the first lists need not be
// read again. What turns out to be otherwise is told with the target.
func (e *Engine) expectHealth(c *Commit) {
	for _, d := range c.Repository.Deployments() {
		key := Key{d.Environment.Name, d.Service.Name}
		if len(d.Service.Health) == 0 || d.Source != "" || e.units[key] != nil {
			continue
		}
		if rules, err := health.Compile(d.Service.Health); err == nil {
			e.setHealth(&Target{Key: key, Place: Place{d.Environment.Cluster, d.Environment.Namespace}, Account: d.Environment.ServiceAccount}, rules)
		}
	}
}

// claim notes which objects a unit renders and on whom it depends.
func (e *Engine) claim(u *unit) {
	t := u.target
	e.setHealth(t, t.Health)
	claims := e.claims[t.Cluster]
	if claims == nil {
		claims = map[render.Ref][]Key{}
		e.claims[t.Cluster] = claims
	}
	for _, o := range t.Result.Objects {
		claims[o.Ref] = append(claims[o.Ref], u.key)
	}
	for _, d := range t.DependsOn {
		k := Key{u.key.Environment, d}
		if e.dependents[k] == nil {
			e.dependents[k] = map[Key]bool{}
		}
		e.dependents[k][u.key] = true
	}
}

// unclaim takes that back; a service that was refused for it is tried again.
func (e *Engine) unclaim(u *unit) {
	t := u.target
	if t == nil {
		return
	}
	claims := e.claims[t.Cluster]
	for _, o := range t.Result.Objects {
		rest := slices.DeleteFunc(slices.Clone(claims[o.Ref]), func(k Key) bool { return k == u.key })
		if len(rest) == 0 {
			delete(claims, o.Ref)
			continue
		}
		claims[o.Ref] = rest
		for _, k := range rest {
			if other := e.units[k]; other != nil && other.failure != nil {
				other.failure = nil
				e.dirty[k] = true
			}
		}
	}
	for _, d := range t.DependsOn {
		delete(e.dependents[Key{u.key.Environment, d}], u.key)
	}
}

// stir marks what the clusters say has changed.
func (e *Engine) stir() {
	for _, c := range e.options.Clusters {
		for _, k := range c.Drain() {
			key := Key{k.Environment, k.Service}
			if u := e.units[key]; u != nil && u.compared {
				before := u.outOfSync
				e.inspect(u)
				// Whoever changes fields again is not answered any sooner.
				if u.stuck && u.outOfSync != before && !u.inSync && !u.changed {
					u.stuck, u.damped = false, earlier(time.Now(), u.damped)
				}
				e.dirty[key] = true
			}
			e.stale(k.Environment)
			if k.Service == "" {
				e.glimpse(c, k.Environment)
				e.recovered(c, k.Environment)
			}
		}
	}
}

// recovered tries again at once what has failed for a trouble that may have
// passed, now that a cluster is seen in full.
func (e *Engine) recovered(c *cluster.Cluster, name desired.EnvironmentName) {
	seen := map[site]bool{}
	for k, u := range e.units {
		if k.Environment != name || u.failure == nil || !u.failure.Passing && !u.failure.Foreign || u.failure.Retry.IsZero() || e.options.Clusters[u.target.Cluster] != c {
			continue
		}
		s := site{name, u.target.Place}
		if _, looked := seen[s]; !looked {
			seen[s] = e.connection(u.target).Observe(cluster.Scope{Environment: name, Namespace: s.place.Namespace}).Complete
		}
		if seen[s] {
			u.failure.Retry = earlier(time.Now(), u.failure.Retry)
			e.dirty[k] = true
		}
	}
}

func (e *Engine) inspect(u *unit) {
	if cl := e.connection(u.target); cl != nil {
		u.inspect(cl.Lookup(u.target.Result.Objects))
	}
}
