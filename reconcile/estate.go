package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/check"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// A site is where objects of an environment are; an environment that has
// moved has left objects at its former site.
type site struct {
	environment desired.EnvironmentName
	place       Place
}

// estate is what the engine knows of one site: what is there, and what of it
// may go.
type estate struct {
	site
	term    *cluster.Term // under which it is ours; nil: nobody competes
	account string        // in whose name it is looked at and pruned; "": our own
	// former says why nothing is wanted here any more; "" if it is.
	former    string
	surveyed  bool // the inventory is read and its kinds are watched
	surveying bool
	resurvey  time.Time // when to look for a confirmation; zero: none is wanted
	confirmed string    // the digest of deletions that a person has confirmed
	failure   *Failure

	compareAt    time.Time // when all of it is compared with the API server's truth
	comparisons  int       // so far
	incomparable int       // how often that failed in a row

	stale   bool      // pruning is to be decided again
	after   time.Time // not before
	pruning bool      // a job deletes
	halt    string
	agreed  map[types.UID]bool // what a person has confirmed of the deletions
	// origins are on what services depended as the cluster has them, and unsettled
	// on what those did that are not settled yet.
	origins   map[origin][]desired.ServiceName
	unsettled Needs
	// awaited is until when one pass waits for what has to be gone before the
	// rest can go; zero: for nothing.
	awaited time.Time
	// hung are the objects of which it was told that a finalizer holds them.
	hung  map[render.Ref]string
	hangs time.Time // when it is told of others; zero: there are none
}

// The pace of pruning.
const (
	pruneInterval   = 500 * time.Millisecond // between two decisions for one site
	confirmInterval = 10 * time.Second       // between two looks for a confirmation
	longDeletion    = 10 * time.Second       // after that long, it is told what a deletion waits for
	longestAwaited  = time.Minute            // for as long does one pass wait for the deletions that come first
)

func (est *estate) busy(now time.Time) bool {
	switch {
	case est.surveying || est.pruning:
		return true
	case est.failure != nil:
		return !est.failure.Retry.IsZero()
	}
	return est.stale || !est.surveyed || now.Before(est.awaited) || !est.hangs.IsZero()
}

// survey is what a look at a site came to, or at a whole cluster for sites
// whose environment the repository no longer has.
type survey struct {
	site
	confirmed string
	orphans   bool
	found     []cluster.Inventory
	err       error
}

// deletions is what a pruning job came to.
type deletions struct {
	site
	done   []Deletion
	failed []undeleted
	err    error // nothing was tried
}

// undeleted is why an object is still there.
type undeleted struct {
	service desired.ServiceName
	err     error
}

func (e *Engine) tends(est *estate) bool {
	return e.options.Selection.HasEnvironment(est.environment) && e.options.Tenure.Has(est.environment) && e.options.Clusters[est.place.Cluster] != nil
}

// stale has pruning decided again for an environment.
func (e *Engine) stale(name desired.EnvironmentName) {
	for s, est := range e.estates {
		if s.environment == name {
			est.stale = true
			if est.halt != "" {
				est.resurvey = time.Now() // what has changed may be the confirmation
			}
		}
	}
}

// former says why nothing is wanted any more at a site of an environment that
// the commit has, or "".
func (e *Engine) former(s site) string {
	env, ok := e.commit.Repository.Environments[s.environment]
	if !ok {
		return ""
	}
	now := Place{env.Cluster, env.Namespace}
	if now == s.place {
		return ""
	}
	return fmt.Sprintf("environment %s has moved to namespace %s of cluster %s", s.environment, now.Namespace, now.Cluster)
}

// tend does what is due at the sites, and returns when to look again.
func (e *Engine) tend(ctx context.Context, now time.Time) time.Time {
	var wake time.Time
	if e.commit == nil {
		return wake
	}
	if e.options.Selection.Service == "" {
		for name, cl := range e.options.Clusters {
			wake = earlier(e.searchOrphans(ctx, now, name, cl), wake)
		}
	}
	for _, est := range e.estates {
		if !est.hangs.IsZero() && !now.Before(est.hangs) {
			est.hangs, est.stale = time.Time{}, true
		}
		switch {
		case !e.tends(est) || est.surveying || est.pruning:
		case est.failure != nil && est.failure.Retry.After(now):
			wake = earlier(est.failure.Retry, wake)
		case est.failure != nil && est.failure.Retry.IsZero():
		case !est.surveyed || !est.resurvey.IsZero() && !now.Before(est.resurvey):
			est.resurvey = time.Time{}
			e.survey(ctx, est)
		case !est.stale || e.preparing:
			wake = earlier(earlier(est.resurvey, est.hangs), wake)
			if now.Before(est.awaited) {
				wake = earlier(est.awaited, wake)
			}
		case now.Before(est.after):
			wake = earlier(est.after, wake)
		case len(e.running[est.place.Cluster]) > 0 && est.after.Add(10*pruneInterval).After(now):
			// Not in the thick of it: each job that ends makes the view stale.
			wake = earlier(now.Add(pruneInterval), wake)
		default:
			est.stale = false
			est.after = now.Add(pruneInterval)
			wake = earlier(e.prune(ctx, now, est), wake)
		}
	}
	return wake
}

// survey starts a job that reads a site's inventory and watches its kinds.
func (e *Engine) survey(ctx context.Context, est *estate) {
	est.surveying = true
	cl := e.reach(est)
	s := survey{site: est.site}
	scope := cluster.Scope{Environment: est.environment, Namespace: est.place.Namespace}
	bounds := e.options.Fences.Of(est.place.Cluster, est.environment, est.account)
	e.jobs.Go(func() {
		inv, err := cl.Inventory(ctx, scope)
		if err == nil {
			err = cl.Foreign(inv)
		}
		if errors.As(err, new(*cluster.OwnerError)) {
			err = errors.Join(err, cl.Watch(ctx, scope, nil)) // until it is handed over
		}
		if err == nil {
			s.confirmed = inv.Confirmed
			err = cl.Watch(ctx, scope, bounds.within(scope, inv.Kinds))
		}
		s.err = err
		e.surveys <- s
	})
}

// searching tells whether a search for orphans is due or under way.
func (e *Engine) searching() bool {
	if e.options.Selection.Service != "" {
		return false
	}
	for name := range e.options.Clusters {
		if f, searched := e.orphans[name]; !searched || f != nil {
			return true
		}
	}
	return false
}

// searchOrphans looks, once for each cluster, for sites that the repository no
// longer has: of environments that were removed or that have moved.
func (e *Engine) searchOrphans(ctx context.Context, now time.Time, name desired.ClusterName, cl *cluster.Cluster) time.Time {
	f, searched := e.orphans[name]
	switch {
	case searched && (f == nil || f.Retry.IsZero()):
		return time.Time{}
	case searched && f.Retry.After(now):
		return f.Retry
	}
	attempts := 1
	if f != nil {
		attempts += f.Attempts
	}
	e.orphans[name] = &Failure{Attempts: attempts}
	accounts := map[string]cluster.Account{} // by namespace
	for s, est := range e.estates {
		if s.place.Cluster == name {
			accounts[s.place.Namespace] = cluster.Account{Namespace: s.place.Namespace, Name: est.account}
		}
	}
	e.jobs.Go(func() {
		found, err := cl.Inventories(ctx, slices.Collect(maps.Values(accounts)))
		e.surveys <- survey{site: site{place: Place{Cluster: name}}, orphans: true, found: found, err: err}
	})
	return time.Time{}
}

func (e *Engine) surveyed(now time.Time, s survey) {
	if s.orphans {
		if s.err != nil {
			f := e.orphans[s.place.Cluster]
			f.Retry = now.Add(delay(Key{}, f.Attempts, firstRetry))
			if f.Attempts == 1 {
				e.report(Event{Type: EventWarning, Message: fmt.Sprintf("look for environments in cluster %s that were removed: %v", s.place.Cluster, s.err)})
			}
			if e.options.Attempts > 0 && f.Attempts >= e.options.Attempts {
				e.orphans[s.place.Cluster] = nil
			}
			return
		}
		e.orphans[s.place.Cluster] = nil
		e.adopt(s.place.Cluster, s.found)
		return
	}
	est := e.estates[s.site]
	if est == nil {
		return
	}
	est.surveying = false
	if s.err != nil {
		est.failure = e.siteFailure(now, est, fmt.Errorf("look what environment %s has in namespace %s of cluster %s: %w",
			est.environment, est.place.Namespace, est.place.Cluster, s.err))
		return
	}
	est.surveyed, est.failure, est.confirmed, est.stale = true, nil, s.confirmed, true
}

// siteFailure reports a failure at a site, once for each message, and says
// when to try again.
func (e *Engine) siteFailure(now time.Time, est *estate, err error) *Failure {
	f := &Failure{Message: err.Error(), Attempts: 1}
	if est.failure != nil {
		f.Attempts = est.failure.Attempts + 1
	}
	if est.failure == nil || est.failure.Message != f.Message {
		e.report(Event{Type: EventWarning, Environment: est.environment, Message: f.Message})
	}
	after, passing := cluster.Retry(err)
	if e.options.Attempts > 0 && (!passing || f.Attempts >= e.options.Attempts) {
		return f
	}
	f.Retry = now.Add(max(after, delay(Key{Environment: est.environment}, f.Attempts, firstRetry)))
	return f
}

// prune decides what may go at a site, and starts a job that deletes it.
func (e *Engine) prune(ctx context.Context, now time.Time, est *estate) time.Time {
	cl := e.reach(est)
	scope := cluster.Scope{Environment: est.environment, Namespace: est.place.Namespace}
	in := PruneInput{
		Environment: est.environment,
		Observation: cl.Observe(scope),
		Services:    map[desired.ServiceName]Standing{},
		Elsewhere: func(r render.Ref) bool {
			return slices.ContainsFunc(e.claims[est.place.Cluster][r], func(k Key) bool { return k.Environment != est.environment })
		},
		Foreign:   foreign(ctx, e.options.Commits, est.place.Namespace),
		Confirmed: est.confirmed,
		Agreed:    est.agreed,
	}
	if e.options.Confirmed != "" {
		in.Confirmed = e.options.Confirmed
	}
	for _, o := range in.Observation.Objects {
		if _, ok := in.Services[o.Service]; !ok {
			in.Services[o.Service] = e.standing(est, o.Service)
		}
	}
	p := Prune(in)
	if p.Halt != est.halt {
		est.halt = p.Halt
		if p.Halt != "" {
			e.report(Event{Type: EventHalted, Environment: est.environment, Message: p.Halt})
		}
	}
	if p.Halt == "" && len(p.Delete) > 0 {
		e.agree(est, in, p)
		needs, err := e.needs(ctx, est, in, p)
		if err != nil {
			est.stale, est.failure = true, e.siteFailure(now, est, unreadError{err})
			return est.failure.Retry
		}
		p = p.InOrder(in.Services, needs)
	}
	again := e.hang(now, est, p)
	ready := p.ready()
	switch {
	case p.Halt != "" && !in.Observation.Complete:
		est.stale, est.after = true, now.Add(2*pruneInterval)
		return est.after
	case p.Halt != "":
		est.resurvey = now.Add(confirmInterval)
		return earlier(est.resurvey, again)
	case len(p.Delete) == 0:
		est.agreed, est.origins, est.unsettled, est.awaited = nil, nil, nil, time.Time{}
		if why := e.over(est, in); why != "" {
			e.leave(ctx, est, why)
		}
		return again
	case len(ready) == 0:
		if p.going && est.awaited.IsZero() {
			est.awaited = now.Add(longestAwaited)
		}
		if now.Before(est.awaited) {
			again = earlier(est.awaited, again)
		}
		return again
	}
	est.awaited = time.Time{}
	est.pruning = true
	s := est.site
	gone := map[desired.ServiceName]bool{}
	for _, x := range ready {
		gone[x.Object.Service] = in.Services[x.Object.Service].Gone
	}
	ctx, done := est.term.Context(ctx)
	e.jobs.Go(func() {
		defer done()
		d := deletions{site: s}
		// Two repositories may begin at the same time.
		if d.err = cl.Owner(ctx, scope); d.err != nil {
			e.deleted <- d
			return
		}
		kept := map[desired.ServiceName]bool{}
		for svc, is := range gone {
			if !is {
				continue
			}
			// Who may not list Jobs had no hooks.
			err := check.RemoveHooks(ctx, cl, s.place.Namespace, s.environment, svc)
			if err != nil && !errors.As(err, new(*cluster.ForbiddenError)) {
				kept[svc] = true // so that it is tried again
				d.failed = append(d.failed, undeleted{svc, fmt.Errorf("remove the hooks of service %s: %w", svc, err)})
			}
		}
		for _, x := range ready {
			if kept[x.Object.Service] {
				continue
			}
			how := cluster.Background
			if x.Awaited {
				how = cluster.Foreground // its pods count, too
			}
			if err := cl.Delete(ctx, x.Object, how); err != nil {
				d.failed = append(d.failed, undeleted{x.Object.Service, err})
				continue
			}
			d.done = append(d.done, x)
		}
		e.deleted <- d
	})
	return time.Time{}
}

// agree notes what a person has confirmed: what of it waits for its turn needs no
// other confirmation when the rest is gone.
func (e *Engine) agree(est *estate, in PruneInput, p Pruning) {
	if in.Confirmed != p.Digest {
		return
	}
	est.agreed = map[types.UID]bool{}
	for _, d := range p.Delete {
		est.agreed[d.Object.UID] = true
	}
}

// hang tells of each object, once for the same finalizers, that they hold it for
// long. It returns when it is to be asked again.
func (e *Engine) hang(now time.Time, est *estate, p Pruning) (again time.Time) {
	was := est.hung
	est.hung = nil
	for _, g := range p.Going {
		if at := g.Since.Add(longDeletion); now.Before(at) {
			again = earlier(at, again)
			continue
		}
		if est.hung == nil {
			est.hung = map[render.Ref]string{}
		}
		message := g.Reason
		if rest := p.behind(g.Service); rest != "" {
			message += "; " + rest
		}
		est.hung[g.Ref] = message
		if was[g.Ref] != message {
			e.report(Event{Type: EventWarning, Environment: est.environment, Service: g.Service, Message: g.Ref.String() + ": " + message})
		}
	}
	est.hangs = again
	return again
}

// standing says what is known of a service at a site.
func (e *Engine) standing(est *estate, name desired.ServiceName) Standing {
	key := Key{est.environment, name}
	if !e.owned(key) {
		return Standing{Why: "its service is not part of this run"}
	}
	u := e.units[key]
	if why := e.commit.Repository.Suspended(est.environment, name); why != "" {
		return Standing{Why: why, Pending: u != nil}
	}
	if u != nil && u.suspended != "" {
		return Standing{Why: u.suspended, Pending: true} // as it was when its file could be read
	}
	if u == nil {
		gone, why := e.commit.Repository.Gone(est.environment, name)
		return Standing{Gone: gone, Why: why, Pending: !gone}
	}
	s := Standing{Renders: map[render.Ref]bool{}, Pending: true}
	switch {
	case u.target == nil:
		s.Why = fmt.Sprintf("service %s could not be rendered", name)
	case u.problem != "":
		s.Why = fmt.Sprintf("service %s has a mistake in the newest commit", name)
	case u.phase != Ready:
		s.Why = fmt.Sprintf("it goes when service %s is ready; it is %s", name, u.phase)
	default:
		s.Settled, s.Pending = true, false
	}
	if u.target != nil && u.target.Cluster == est.place.Cluster {
		// What lies in no namespace, or in one of its own, does not move.
		s.renders(e.connection(u.target), u.target)
	}
	if u.target != nil && u.target.Place != est.place && est.former != "" && s.Settled {
		s.Gone, s.Why = true, est.former
	}
	return s
}

// renders notes the objects that a target renders in a cluster.
func (s Standing) renders(cl *cluster.Cluster, t *Target) {
	for _, o := range t.Result.Objects {
		s.Renders[o.Ref] = true
	}
	// A kind that turns out to lie in no namespace is rendered with one.
	for _, have := range cl.Lookup(t.Result.Objects) {
		s.Renders[have.Ref] = true
	}
}

// foreign tells of objects outside of an environment's namespace whether they
// come from a commit that can't be found in this repository. Another
// repository may have an environment of the same name in the same cluster.
func foreign(ctx context.Context, commits Commits, namespace string) func(cluster.Observed) bool {
	known := map[string]bool{}
	return func(o cluster.Observed) bool {
		if o.Ref.Namespace == namespace {
			return false
		}
		if _, looked := known[o.Commit]; !looked && o.Commit != "" {
			_, err := commits.Snapshot(ctx, o.Commit)
			known[o.Commit] = err == nil
		}
		return !known[o.Commit]
	}
}

// pruned takes in what a pruning job came to.
func (e *Engine) pruned(now time.Time, d deletions) {
	est := e.estates[d.site]
	if est == nil {
		return // not ours any more
	}
	est.pruning = false
	est.stale = true
	for _, x := range d.done {
		e.report(Event{Type: EventPruned, Environment: est.environment, Service: x.Object.Service, Message: x.Ref.String() + ": " + x.Reason})
	}
	errs := []error{d.err}
	for _, x := range d.failed {
		errs = append(errs, hidden{e.hide(Key{est.environment, x.service}, x.err.Error()), x.err})
	}
	if err := errors.Join(errs...); err != nil {
		est.failure = e.siteFailure(now, est, err)
		return
	}
	est.failure = nil
}

// adopt takes over sites that are no longer in the repository, as the
// inventories in a cluster show them.
func (e *Engine) adopt(name desired.ClusterName, found []cluster.Inventory) {
	for _, inv := range found {
		if inv.Repository != e.options.Repository || !e.options.Selection.HasEnvironment(inv.Environment) {
			continue
		}
		s := site{inv.Environment, Place{name, inv.Namespace}}
		if term, ours := e.options.Tenure.term(inv.Environment); ours && e.estates[s] == nil {
			e.estates[s] = &estate{site: s, account: inv.Account, term: term, former: e.former(s), stale: true}
		}
	}
}
