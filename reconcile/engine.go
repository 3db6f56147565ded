package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile/check"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// Options are what an Engine works with.
type Options struct {
	Commits  Commits
	Renderer Renderer
	Clusters map[desired.ClusterName]*cluster.Cluster
	Fences   Fences
	// Selection is what is ours to touch.
	Selection Selection
	// Tenure says which environments are ours where several replicas run; nil:
	// all.
	Tenure *Tenure
	// Repository names the deployment repository, without user info: only
	// environments that came from it are pruned when their file is removed.
	Repository string
	// Report is called from the engine's own goroutine; nil: nobody listens.
	Report func(Event)
	// Sight is called from the engine's own goroutine whenever it sees
	// something new of a service; nil: nobody keeps a ledger.
	Sight func(Sighting)
	// Drift is called from the engine's own goroutine for each drift that is to
	// be recorded; nil: nobody keeps a ledger.
	Drift func(Drift)
	// Completed says what a ledger knows; nil: nobody keeps one. It must not wait.
	Completed Completed
	// State says what a ledger has of a deployment that somebody else makes; nil:
	// nobody keeps one. It must not wait.
	State func(k Key, manifests string) (state ledger.State, known bool)
	// Compare is about how often all objects are compared with the API server's
	// truth, for watches may lose something; 0: never.
	Compare time.Duration
	// Correct has drift corrected where the environment only reports it: a
	// person says so.
	Correct bool
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
	options  Options
	recorded bool // somebody keeps a ledger
	lineage  *lineage

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
	gone       map[Key]*Target // the last, with Secrets, of a service that has left
	dependents map[Key]map[Key]bool
	claims     map[desired.ClusterName]map[render.Ref][]Key
	estates    map[site]*estate
	dirty      map[Key]bool
	queue      map[desired.ClusterName][]Key               // services whose job waits for a place
	running    map[desired.ClusterName]map[*unit]time.Time // since when
	working    map[desired.EnvironmentName]int             // jobs
	wakes      map[Key]time.Time
	waking     time.Time                        // no wake is due before
	inquiries  []Key                            // to be started, of rollouts that have failed
	ready      int                              // units in phase Ready
	total      int                              // deployments that the commit asks of us
	comparing  map[desired.ClusterName]bool     // an environment of it with the API server's truth
	orphans    map[desired.ClusterName]*Failure // by cluster, the search for orphans; nil: done

	readings chan reading
	outcomes chan Outcome
	surveys  chan survey
	deleted  chan deletions
	looked   chan comparison
	hooks    *check.Runner
	hooksDue map[Key]bool
	hookNews chan hookNews
	saves    chan saved
	left     chan leaving
	inquired chan inquiry
	stirred  chan struct{}                // capacity 1: a cluster has changed
	sooner   chan desired.EnvironmentName // to be compared at once; "": all
	asks     chan chan Status
	jobs     sync.WaitGroup
}

var errPreempted = errors.New("a newer commit has come")

// NewEngine returns an engine that knows nothing yet.
func NewEngine(o Options) *Engine {
	if o.Report == nil {
		o.Report = func(Event) {}
	}
	recorded := o.Sight != nil
	if o.Sight == nil {
		o.Sight = func(Sighting) {}
	}
	if o.Drift == nil {
		o.Drift = func(Drift) {}
	}
	if o.Completed == nil {
		o.Completed = func(Key, string) (done, known bool) { return false, true }
	}
	o.Jobs = max(o.Jobs, 1)
	o.Renderings = max(o.Renderings, 1)
	return &Engine{
		options:    o,
		recorded:   recorded,
		lineage:    newLineage(o.Commits),
		suspects:   map[Key]bool{},
		units:      map[Key]*unit{},
		gone:       map[Key]*Target{},
		dependents: map[Key]map[Key]bool{},
		claims:     map[desired.ClusterName]map[render.Ref][]Key{},
		estates:    map[site]*estate{},
		dirty:      map[Key]bool{},
		queue:      map[desired.ClusterName][]Key{},
		running:    map[desired.ClusterName]map[*unit]time.Time{},
		working:    map[desired.EnvironmentName]int{},
		wakes:      map[Key]time.Time{},
		orphans:    map[desired.ClusterName]*Failure{},
		readings:   make(chan reading),
		outcomes:   make(chan Outcome),
		surveys:    make(chan survey),
		deleted:    make(chan deletions),
		looked:     make(chan comparison),
		comparing:  map[desired.ClusterName]bool{},
		hooks:      check.New(o.Clusters, check.Options{}),
		hooksDue:   map[Key]bool{},
		hookNews:   make(chan hookNews),
		saves:      make(chan saved),
		left:       make(chan leaving),
		inquired:   make(chan inquiry),
		stirred:    make(chan struct{}, 1),
		sooner:     make(chan desired.EnvironmentName, 64),
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

// Newest is the newest commit that was read, as its files say; nil: none yet.
func (e *Engine) Newest() *desired.Repository { return e.lineage.known.Load() }

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
	moved := e.options.Tenure.changes()
	for {
		now := time.Now()
		wake := e.act(ctx, now)
		if once && e.wanted != "" && e.settled(now) {
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
			e.read(ctx, time.Now(), r)
		case o := <-e.outcomes:
			e.finished(time.Now(), o)
		case s := <-e.surveys:
			e.surveyed(time.Now(), s)
		case d := <-e.deleted:
			e.pruned(time.Now(), d)
		case x := <-e.looked:
			e.comparedAll(time.Now(), x)
		case n := <-e.hookNews:
			e.heard(time.Now(), n)
		case s := <-e.saves:
			e.wasSaved(time.Now(), s)
		case l := <-e.left:
			e.leftSite(time.Now(), l)
		case x := <-e.inquired:
			e.found(x)
		case <-e.stirred:
			e.stir()
		case env := <-e.sooner:
			e.compareSooner(time.Now(), env)
		case <-moved:
			e.reown(ctx)
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
		case <-e.looked:
		case <-e.hookNews:
		case <-e.saves:
		case <-e.left:
		case <-e.inquired:
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
				e.save(ctx, now, u)
			}
		}
	}
	e.inquire(ctx)
	for name := range e.queue {
		wake = earlier(wake, e.start(ctx, now, name))
	}
	e.startHooks(ctx)
	return earlier(earlier(earlier(wake, e.waking), e.tend(ctx, now)), e.compareAll(ctx, now))
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
	if u.target != nil && u.target.Deploy != nil {
		e.follow(now, u, again)
		return
	}
	if u.target != nil && e.options.Clusters[u.target.Cluster] == nil {
		u.failure = &Failure{Message: fmt.Sprintf("cluster %q is not in the configuration; it has %s", u.target.Cluster, e.clusterNames())}
	}
	if u.applied.IsZero() && u.compared && u.inSync {
		u.applied = now
	}
	sure := e.sure(now, u)
	view := u.view(now, e.dependencies(u))
	view.Unsure = !sure
	step := e.inquireLater(u, Next(view))
	if step.Phase == Ready && !u.wasReady {
		u.wasReady = true
		e.retryBehind(now, u)
		u.failure = nil
		e.stale(u.key.Environment)
	}
	if step.Hook {
		u.hookDue, u.hookCommit = &u.after[0], u.deployed()
		e.hooksDue[u.key] = true
	}
	if step.Apply && !slices.Contains(e.queue[u.target.Cluster], u.key) {
		e.queue[u.target.Cluster] = append(e.queue[u.target.Cluster], u.key)
	}
	u.soak(now, step.Base, e.sightOf(u))
	e.enter(now, u, step)
	e.sight(u, step)
	if !step.Again.IsZero() {
		again = earlier(step.Again, again)
	}
	if len(u.unsaved) > 0 && u.saveAt.After(now) {
		again = earlier(u.saveAt, again)
	}
	if u.contested && u.inSync {
		again = earlier(u.peace(), again)
	}
	if !again.IsZero() {
		e.wakes[u.key] = again
		e.waking = earlier(again, e.waking)
	}
}

// follow takes the step of a unit that somebody else deploys.
func (e *Engine) follow(now time.Time, u *unit, again time.Time) {
	u.compared, u.inSync = true, true
	state, known := ledger.StateCompleted, true // as far as who keeps no ledger can tell
	if e.options.State != nil {
		state, known = e.options.State(u.key, u.target.Result.Digest)
	}
	step := elsewhere(u.view(now, e.dependencies(u)), state, known)
	if step.Base == Ready && !u.wasReady {
		u.wasReady = true
		e.stale(u.key.Environment)
	}
	e.enter(now, u, step)
	e.sight(u, step)
	if again = earlier(step.Again, again); !again.IsZero() {
		e.wakes[u.key] = again
		e.waking = earlier(again, e.waking)
	}
}

// sight tells what is seen of a unit, if it is news.
func (e *Engine) sight(u *unit, step Step) {
	s := Sighting{
		Key: u.key, Target: u.target, Tip: u.at, Phase: step.Base, Message: step.Message, Healthy: u.healthy, Blind: u.sight.blind,
		Started: u.target != nil && (u.cancel != nil && !u.looks || u.hook != nil || !u.applied.IsZero() || u.compared && (u.inSync || u.drifted)),
		Final:   step.Final,
		InSync:  u.compared && u.inSync && u.cancel == nil, Contested: u.contested,
		Note: strings.Join(u.note, "; "), term: u.term,
	}
	if u.problem != "" && u.mistaken {
		s.Problem, s.Wanted, s.Tip = u.problem, u.wanted, u.problemAt
	}
	s.Message, s.Problem, s.Note = u.hide(s.Message), u.hide(s.Problem), u.hide(s.Note)
	if step.Final && step.Inquire {
		s.Evidence = u.hide(u.evidence)
	}
	if s == u.sighting {
		return
	}
	u.sighting = s
	e.options.Sight(s)
}

// sightAt tells that a newer commit wants the same of a unit of which nothing
// else is news.
func (e *Engine) sightAt(u *unit) {
	u.sighting.Tip = u.at
	e.options.Sight(u.sighting)
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
	for k := range e.dependents[u.key] {
		if d := e.units[k]; d != nil && d.phase == Blocked {
			e.dirty[k] = true // what it waits for is told anew
		}
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
		if !u.applied.IsZero() { // else what runs is of the one before
			ev.Deployment = deploymentOf(u.key.Service, u.commit)
		}
	}
	e.report(ev)
}

func (e *Engine) report(ev Event) {
	ev.Time, ev.Done, ev.Total = time.Now(), e.ready, max(e.total, len(e.units))
	ev.Message = e.hide(Key{ev.Environment, ev.Service}, ev.Message)
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
			phase := d.base
			if phase == Degraded && d.tolerates && d.drifted && len(d.unready) == 0 {
				phase = Ready // who lets drift be does not want others to wait for its end
			}
			ds = append(ds, Dependency{Service: name, Phase: phase, Message: d.message})
		} else if _, wanted := e.commit.Repository.Deployment(k.Environment, name); wanted && e.owned(k) {
			ds = append(ds, Dependency{Service: name, Phase: Pending, Message: "not rendered yet"})
		}
	}
	return ds
}

// settled tells whether nothing moves any more.
func (e *Engine) settled(now time.Time) bool {
	if e.preparing {
		return false
	}
	if e.readErr != nil {
		return true
	}
	for _, u := range e.units {
		if u.saving || u.hook != nil || u.inquiring {
			return false
		}
		switch u.phase {
		case Ready, Degraded, Blocked:
		case Suspended:
			if u.cancel != nil || !u.compared && u.failure == nil {
				return false
			}
		case Failed:
			if u.failure != nil && !u.failure.Retry.IsZero() || u.cancel != nil {
				return false
			}
		default:
			return false
		}
	}
	for _, est := range e.estates {
		if e.tends(est) && est.busy(now) {
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
