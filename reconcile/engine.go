package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// Options are what an Engine works with.
type Options struct {
	Commits  Commits
	Renderer Renderer
	Clusters map[desired.ClusterName]*cluster.Cluster
	// Selection is what is ours to touch.
	Selection Selection
	// Repository names the deployment repository, without user info: only
	// environments that came from it are pruned when their file is removed.
	Repository string
	// Report is called from the engine's own goroutine; nil: nobody listens.
	Report func(Event)
	// Attempts is how often an apply is tried before it counts as failed for
	// good; 0: for ever.
	Attempts int
	// Jobs is how many services of one cluster are applied side by side.
	Jobs int
	// Renderings is how many services are rendered side by side.
	Renderings int
	// Confirmed is the digest of deletions that a person has confirmed.
	Confirmed string
}

// Selection is a part of the deployments: those of one environment, or one
// service of it; the zero value is all.
type Selection struct {
	Environment desired.EnvironmentName
	Service     desired.ServiceName
}

// Has tells whether a deployment is part of the selection.
func (s Selection) Has(k Key) bool {
	return s.HasEnvironment(k.Environment) && (s.Service == "" || s.Service == k.Service)
}

// HasEnvironment tells whether any of an environment's can be.
func (s Selection) HasEnvironment(name desired.EnvironmentName) bool {
	return s.Environment == "" || s.Environment == name
}

// Engine moves clusters to what commits ask for. All its state belongs to the
// goroutine that is in Run or Settle.
type Engine struct {
	options Options
	lineage *lineage

	generation int
	cancel     context.CancelFunc // of the preparation
	preparing  bool
	commit     *Commit
	readErr    error
	reread     time.Time // when a commit that could not be read is tried again
	rereads    int
	wanted     string    // the newest commit that we were told of
	rendered   *progress // of the preparation
	// suspects are rendered last: they failed, or were not done when a newer
	// commit came. So one that takes for ever does not keep others from a place.
	suspects map[Key]bool

	units      map[Key]*unit
	dependents map[Key]map[Key]bool
	claims     map[desired.ClusterName]map[render.Ref][]Key
	estates    map[site]*estate
	dirty      map[Key]bool
	queue      map[desired.ClusterName][]Key // services whose job waits for a place
	running    map[desired.ClusterName]int
	wakes      map[Key]time.Time
	waking     time.Time                        // no wake is due before
	ready      int                              // units in phase Ready
	total      int                              // deployments that the commit asks of us
	orphans    map[desired.ClusterName]*Failure // by cluster, the search for orphans; nil: done

	readings chan reading
	outcomes chan Outcome
	surveys  chan survey
	deleted  chan deletions
	stirred  chan struct{} // capacity 1: a cluster has changed
	asks     chan chan Status
	jobs     sync.WaitGroup
}

var errPreempted = errors.New("a newer commit has come")

// NewEngine returns an engine that knows nothing yet.
func NewEngine(o Options) *Engine {
	if o.Report == nil {
		o.Report = func(Event) {}
	}
	o.Jobs = max(o.Jobs, 1)
	o.Renderings = max(o.Renderings, 1)
	return &Engine{
		options:    o,
		lineage:    newLineage(o.Commits),
		suspects:   map[Key]bool{},
		units:      map[Key]*unit{},
		dependents: map[Key]map[Key]bool{},
		claims:     map[desired.ClusterName]map[render.Ref][]Key{},
		estates:    map[site]*estate{},
		dirty:      map[Key]bool{},
		queue:      map[desired.ClusterName][]Key{},
		running:    map[desired.ClusterName]int{},
		wakes:      map[Key]time.Time{},
		orphans:    map[desired.ClusterName]*Failure{},
		readings:   make(chan reading),
		outcomes:   make(chan Outcome),
		surveys:    make(chan survey),
		deleted:    make(chan deletions),
		stirred:    make(chan struct{}, 1),
		asks:       make(chan chan Status),
	}
}

// Run reconciles the newest of the commits that it is sent, until ctx ends.
func (e *Engine) Run(ctx context.Context, commits <-chan string) error {
	return e.loop(ctx, commits, false)
}

// Settle brings one commit to the clusters, and returns when nothing moves any
// more: each service is ready, has failed, or waits for one that has.
func (e *Engine) Settle(ctx context.Context, commit string) (Status, error) {
	commits := make(chan string, 1)
	commits <- commit
	err := e.loop(ctx, commits, true)
	return e.status(), err
}

// Status asks the engine, while it is in Run, where all services stand.
func (e *Engine) Status(ctx context.Context) (Status, error) {
	answer := make(chan Status, 1)
	select {
	case e.asks <- answer:
		return <-answer, nil
	case <-ctx.Done():
		return Status{}, context.Cause(ctx)
	}
}

func (e *Engine) loop(ctx context.Context, commits <-chan string, once bool) error {
	ctx, stop := context.WithCancel(ctx)
	for _, c := range e.options.Clusters {
		e.jobs.Go(func() { e.relay(ctx, c) })
	}
	defer func() {
		stop()
		e.drain()
	}()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := time.Now()
		wake := e.act(ctx, now)
		if once && e.wanted != "" && e.settled() {
			return e.readErr
		}
		timer.Reset(min(time.Hour, max(0, wake.Sub(now))))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case id := <-commits:
			e.wanted, e.rereads = id, 0
			e.prepare(ctx)
		case r := <-e.readings:
			e.read(time.Now(), r)
		case o := <-e.outcomes:
			e.finished(time.Now(), o)
		case s := <-e.surveys:
			e.surveyed(time.Now(), s)
		case d := <-e.deleted:
			e.pruned(time.Now(), d)
		case <-e.stirred:
			e.stir()
		case answer := <-e.asks:
			answer <- e.status()
		case <-timer.C:
		}
	}
}

// drain waits for all that the loop has started, and takes what they send.
func (e *Engine) drain() {
	if e.cancel != nil {
		e.cancel()
	}
	done := make(chan struct{})
	go func() { e.jobs.Wait(); close(done) }()
	for {
		select {
		case <-done:
			return
		case <-e.readings:
		case <-e.outcomes:
		case <-e.surveys:
		case <-e.deleted:
		}
	}
}

// relay turns a cluster's changes into stirs.
func (e *Engine) relay(ctx context.Context, c *cluster.Cluster) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.Changes():
			select {
			case e.stirred <- struct{}{}:
			default:
			}
		}
	}
}

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
		selection:  e.options.Selection,
		parallel:   e.options.Renderings,
		progress:   e.rendered,
		suspects:   maps.Clone(e.suspects),
	}
	ctx, e.cancel = context.WithCancel(ctx)
	e.preparing = true
	e.jobs.Go(func() { p.run(ctx, e.readings) })
}

// read takes in what a preparation has found.
func (e *Engine) read(now time.Time, r reading) {
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
	case r.wish != nil:
		e.wished(now, *r.wish)
	case r.done:
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
		if e.options.Selection.Has(Key{d.Environment.Name, d.Service.Name}) {
			e.total++
		}
	}
	e.lineage.known.Store(c.Repository)
	errs := 0
	for _, p := range e.problems(c) {
		if p.Severity == desired.SeverityError {
			errs++
		}
		if said[p.Error()] {
			continue
		}
		e.report(Event{Type: EventProblem, Commit: c.ID, Message: string(p.Severity) + ": " + p.Error()})
	}
	for name, env := range c.Repository.Environments {
		s := site{name, Place{env.Cluster, env.Namespace}}
		if e.estates[s] == nil {
			e.estates[s] = &estate{site: s}
		}
	}
	for s, est := range e.estates {
		est.former, est.stale = e.former(s), true
	}
	e.report(Event{Type: EventCommit, Commit: c.ID, Message: fmt.Sprintf("environments %d, services %d, mistakes %d",
		len(c.Repository.Environments), len(c.Repository.Services), errs)})
}

// wished takes in what the commit wants of one service.
func (e *Engine) wished(now time.Time, w wish) {
	u := e.units[w.key]
	if u == nil {
		u = &unit{key: w.key, phase: Pending, base: Pending, since: now}
		e.units[w.key] = u
	}
	u.generation = e.generation
	e.dirty[w.key] = true
	delete(e.suspects, w.key)
	if w.err != nil {
		e.suspects[w.key] = true
		if u.problem != w.err.Error() {
			u.problem = w.err.Error()
			e.report(Event{Type: EventProblem, Environment: u.key.Environment, Service: u.key.Service, Commit: e.wanted, Message: u.problem})
		}
		u.again = time.Time{}
		if u.tries++; w.retry && (e.options.Attempts == 0 || u.tries < e.options.Attempts) {
			u.again = now.Add(delay(u.key, u.tries, firstRetry))
		}
		return
	}
	u.problem, u.again, u.tries = "", time.Time{}, 0
	u.at = e.commit.ID
	if w.unchanged && u.target == w.target {
		return
	}
	e.unclaim(u)
	u.setTarget(w.target)
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
		if u.generation == e.generation || !e.options.Selection.Has(k) {
			continue
		}
		gone, why := e.commit.Repository.Gone(k.Environment, k.Service)
		if !gone {
			u.problem = why
			e.dirty[k] = true
			continue
		}
		if u.cancel != nil {
			u.cancel(errPreempted)
		}
		if u.phase == Ready {
			e.ready--
		}
		e.unclaim(u)
		delete(e.units, k)
		delete(e.wakes, k)
		e.report(Event{Type: EventCommit, Environment: k.Environment, Service: k.Service, Commit: e.commit.ID, Message: why})
	}
	for _, est := range e.estates {
		est.stale = true
	}
}

// claim notes which objects a unit renders and on whom it depends.
func (e *Engine) claim(u *unit) {
	t := u.target
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
				if u.stuck && u.outOfSync != before {
					u.stuck, u.damped = false, time.Time{}
				}
				e.dirty[key] = true
			}
			e.stale(k.Environment)
			if k.Service == "" {
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
		if k.Environment != name || u.failure == nil || !u.failure.Passing || u.failure.Retry.IsZero() || e.options.Clusters[u.target.Cluster] != c {
			continue
		}
		s := site{name, u.target.Place}
		if _, looked := seen[s]; !looked {
			seen[s] = c.Observe(cluster.Scope{Environment: name, Namespace: s.place.Namespace}).Complete
		}
		if seen[s] {
			u.failure.Retry = earlier(time.Now(), u.failure.Retry)
			e.dirty[k] = true
		}
	}
}

func (e *Engine) inspect(u *unit) {
	if cl := e.options.Clusters[u.target.Cluster]; cl != nil {
		u.inspect(cl.Lookup(u.target.Result.Objects))
	}
}

// act does what is due, and returns when to act again.
func (e *Engine) act(ctx context.Context, now time.Time) time.Time {
	wake := now.Add(time.Hour)
	if !e.reread.IsZero() {
		if !now.Before(e.reread) {
			e.reread = time.Time{}
			e.prepare(ctx)
		} else {
			wake = earlier(wake, e.reread)
		}
	}
	if !e.waking.IsZero() && !now.Before(e.waking) {
		e.waking = time.Time{}
		for k, at := range e.wakes {
			if now.Before(at) {
				e.waking = earlier(at, e.waking)
				continue
			}
			delete(e.wakes, k)
			e.dirty[k] = true
		}
	}
	for len(e.dirty) > 0 {
		keys := slices.SortedFunc(maps.Keys(e.dirty), Key.Compare)
		clear(e.dirty)
		for _, k := range keys {
			if u := e.units[k]; u != nil {
				e.decide(now, u)
			}
		}
	}
	for name := range e.queue {
		e.start(ctx, name)
	}
	return earlier(earlier(wake, e.waking), e.tend(ctx, now))
}

func earlier(a, b time.Time) time.Time {
	if b.IsZero() || !a.IsZero() && a.Before(b) {
		return a
	}
	return b
}

// decide asks Next about one unit and takes its step.
func (e *Engine) decide(now time.Time, u *unit) {
	again := time.Time{}
	if !u.again.IsZero() {
		if now.Before(u.again) {
			again = u.again
		} else if !e.preparing {
			u.again = time.Time{}
			e.reread = now // the whole commit: what has not changed costs a comparison
			again = now
		}
	}
	if u.target != nil && e.options.Clusters[u.target.Cluster] == nil {
		u.failure = &Failure{Message: fmt.Sprintf("cluster %q is not in the configuration; it has %s", u.target.Cluster, e.clusterNames())}
	}
	if u.applied.IsZero() && u.compared && u.inSync {
		u.applied = now
	}
	step := Next(u.view(now, e.dependencies(u)))
	if step.Phase == Ready && !u.wasReady {
		u.wasReady = true
		u.failure = nil
		e.stale(u.key.Environment)
	}
	if step.Apply && !slices.Contains(e.queue[u.target.Cluster], u.key) {
		e.queue[u.target.Cluster] = append(e.queue[u.target.Cluster], u.key)
	}
	e.enter(now, u, step)
	if !step.Again.IsZero() {
		again = earlier(step.Again, again)
	}
	if !again.IsZero() {
		e.wakes[u.key] = again
		e.waking = earlier(again, e.waking)
	}
}

func (e *Engine) clusterNames() string {
	names := slices.Sorted(maps.Keys(e.options.Clusters))
	return fmt.Sprint(names)
}

// enter notes a unit's phase and reports it if it is news.
func (e *Engine) enter(now time.Time, u *unit, s Step) {
	if u.base != s.Base {
		u.base = s.Base
		for k := range e.dependents[u.key] {
			e.dirty[k] = true
		}
	}
	if u.phase == s.Phase && u.message == s.Message {
		return
	}
	if u.phase != s.Phase {
		u.since = now
		if s.Phase == Ready {
			e.ready++
		} else if u.phase == Ready {
			e.ready--
		}
	}
	u.phase, u.message = s.Phase, s.Message
	ev := Event{Type: EventPhase, Environment: u.key.Environment, Service: u.key.Service, Phase: s.Phase, Message: s.Message, Commit: u.commit}
	if u.target != nil {
		ev.Version = u.target.Version()
	}
	e.report(ev)
}

func (e *Engine) report(ev Event) {
	ev.Time, ev.Done, ev.Total = time.Now(), e.ready, max(e.total, len(e.units))
	e.options.Report(ev)
}

// dependencies says where the services stand that u needs. One that is not
// in the environment is not waited for.
func (e *Engine) dependencies(u *unit) []Dependency {
	if u.target == nil {
		return nil
	}
	var ds []Dependency
	for _, name := range u.target.DependsOn {
		k := Key{u.key.Environment, name}
		if d := e.units[k]; d != nil {
			ds = append(ds, Dependency{Service: name, Phase: d.base, Message: d.message})
		} else if _, wanted := e.commit.Repository.Deployment(k.Environment, name); wanted && e.options.Selection.Has(k) {
			ds = append(ds, Dependency{Service: name, Phase: Pending, Message: "not rendered yet"})
		}
	}
	return ds
}

// start gives the queued services of a cluster their jobs.
func (e *Engine) start(ctx context.Context, name desired.ClusterName) {
	var later []Key
	for len(e.queue[name]) > 0 && e.running[name] < e.options.Jobs {
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
		t, cl := u.target, e.options.Clusters[name]
		jobCtx, cancel := context.WithCancelCause(ctx)
		u.cancel = cancel
		e.running[name]++
		e.enter(time.Now(), u, Step{Phase: Applying, Base: Applying, Message: u.outOfSync})
		compare := !u.compared && waitsFor(e.dependencies(u)) != ""
		over := maps.Clone(u.over)
		e.jobs.Go(func() { e.outcomes <- e.deploy(jobCtx, cl, t, claims, over, compare) })
	}
	if e.queue[name] = append(e.queue[name], later...); len(e.queue[name]) == 0 {
		delete(e.queue, name)
	}
}

// finished takes in what a job came to.
func (e *Engine) finished(now time.Time, o Outcome) {
	t := o.Target
	e.running[t.Cluster]--
	u := e.units[t.Key]
	if u == nil {
		return
	}
	if u.cancel != nil {
		u.cancel(nil)
		u.cancel = nil
	}
	e.dirty[u.key] = true
	e.stale(u.key.Environment)
	if u.target != t {
		return // preempted: what came of it is seen by the watches
	}
	for _, w := range o.Warnings {
		e.report(Event{Type: EventWarning, Environment: u.key.Environment, Service: u.key.Service, Message: w})
	}
	if o.Compared {
		u.compared = true
		e.inspect(u)
		return
	}
	if o.Err != nil {
		u.failure = e.failure(now, u, o.Err)
		return
	}
	u.failure = nil
	u.compared = true
	e.inspect(u)
	if o.Plan.Changes() == 0 {
		return
	}
	if defined(o) {
		e.retryUnknown(t.Cluster)
	}
	u.wrote(now, o.Plan, o.Commit)
	msg := fmt.Sprintf("%d created, %d changed, %d unchanged", o.Created, o.Changed, len(t.Result.Objects)-o.Created-o.Changed)
	for _, r := range o.Adopted {
		msg += "; took over " + r.String() + ", which was there before"
	}
	e.report(Event{Type: EventApplied, Environment: u.key.Environment, Service: u.key.Service, Version: t.Version(), Commit: o.Commit, Message: msg})
}

// defined tells whether a job has written a CustomResourceDefinition.
func defined(o Outcome) bool {
	for _, s := range o.Plan.Stages {
		for _, a := range s {
			if a.Verb != None && a.Ref.Kind == "CustomResourceDefinition" {
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

// corrects tells whether the plan only takes back what others have changed.
func corrects(p Plan) bool {
	for _, s := range p.Stages {
		for _, a := range s {
			if a.Verb != None && a.Verb != Correct {
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
	f := &Failure{Message: err.Error(), Attempts: 1, UnknownKind: errors.As(err, &unknown), Passing: passing}
	if u.failure != nil {
		f.Attempts = u.failure.Attempts + 1
	}
	if e.options.Attempts > 0 && (!passing || f.Attempts >= e.options.Attempts) {
		return f
	}
	first := firstRetry
	if !passing && !f.UnknownKind {
		first = firstRefusal
	}
	wait := delay(u.key, f.Attempts, first)
	if errors.As(err, new(*cluster.NamespaceError)) {
		wait = min(wait, longestNamespace)
	}
	if f.UnknownKind {
		wait = min(wait, longestUnknown)
	}
	f.Retry = now.Add(max(after, wait))
	return f
}

// settled tells whether nothing moves any more.
func (e *Engine) settled() bool {
	if e.preparing {
		return false
	}
	if e.readErr != nil {
		return true
	}
	for _, u := range e.units {
		switch u.phase {
		case Ready, Degraded, Blocked:
		case Failed:
			if u.failure != nil && !u.failure.Retry.IsZero() || u.cancel != nil {
				return false
			}
		default:
			return false
		}
	}
	for _, est := range e.estates {
		if e.tends(est) && est.busy() {
			return false
		}
	}
	return len(e.dirty) == 0 && !e.searching()
}

func (e *Engine) status() Status {
	s := Status{}
	if e.commit != nil {
		s.Commit = e.commit.ID
		s.Problems = e.commit.Repository.Problems
	}
	for _, k := range slices.SortedFunc(maps.Keys(e.units), Key.Compare) {
		s.Services = append(s.Services, e.units[k].status())
	}
	for _, est := range e.estates {
		if est.halt != "" {
			s.Halts = append(s.Halts, est.halt)
		}
	}
	slices.Sort(s.Halts)
	return s
}
