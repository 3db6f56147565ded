package reconcile

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/pinion-cd/pinion/reconcile/cluster"
)

// over says why a site is done with, or "": nothing is wanted there any more,
// nothing of it is left, and nobody works on its environment. What is kept, for
// an annotation says so, keeps the site, for the annotation may change.
func (e *Engine) over(est *estate, in PruneInput) string {
	why := est.former
	if why == "" && e.commit.Repository.NoEnvironment(est.environment) {
		why = fmt.Sprintf("the commit has no environments/%s.yaml", est.environment)
	}
	if why == "" || !in.Observation.Complete || e.working[est.environment] > 0 {
		return ""
	}
	for _, o := range in.Observation.Objects {
		if o.Owned && !in.Services[o.Service].Renders[o.Ref] && !(in.Foreign != nil && in.Foreign(o)) {
			return ""
		}
	}
	return why
}

// leaving is what the end of a site came to.
type leaving struct {
	site
	why string
	err error
}

// leave starts a job that removes the inventory of a site that is done with.
// Until that is gone the site is watched.
func (e *Engine) leave(ctx context.Context, est *estate, why string) {
	est.pruning = true
	cl, l := e.reach(est), leaving{site: est.site, why: why}
	scope := cluster.Scope{Environment: est.environment, Namespace: est.place.Namespace}
	ctx, done := est.term.Context(ctx)
	e.jobs.Go(func() {
		defer done()
		l.err = cl.Forget(ctx, scope)
		e.left <- l
	})
}

// leftSite ends the watches of a site that is done with.
func (e *Engine) leftSite(now time.Time, l leaving) {
	est := e.estates[l.site]
	if est == nil {
		return // it is another replica's now
	}
	est.pruning = false
	if l.err != nil {
		est.stale = true
		est.failure = e.siteFailure(now, est, l.err)
		return
	}
	if e.former(l.site) == "" && !e.commit.Repository.NoEnvironment(l.environment) {
		est.surveyed, est.stale = false, true // a newer commit wants it again
		return
	}
	e.unwatch(est)
	delete(e.estates, l.site)
	maps.DeleteFunc(e.gone, func(k Key, t *Target) bool { return k.Environment == l.environment && t.Place == l.place })
	e.report(Event{Type: EventPruned, Environment: l.environment, Message: fmt.Sprintf("nothing of it is left in namespace %s of cluster %s, and it is watched no longer: %s", l.place.Namespace, l.place.Cluster, l.why)})
}
