package reconcile

import (
	"context"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/cluster"
)

// comparison is what comparing a whole site came to.
type comparison struct {
	site
	found cluster.Comparison
	err   error
}

// CompareSoon has all objects of an environment, or of all, compared with the
// API server's truth as soon as there is a place, instead of when it is due.
func (e *Engine) CompareSoon(env desired.EnvironmentName) {
	select {
	case e.sooner <- env:
	default: // so many are asked for that it is soon in any case
	}
}

// compareSooner takes in that somebody does not want to wait.
func (e *Engine) compareSooner(now time.Time, env desired.EnvironmentName) {
	for _, est := range e.estates {
		if env == "" || est.environment == env {
			est.compareAt = now
		}
	}
}

// compareAll has one environment of each cluster at a time compared with the
// API server's truth, when its time has come, and returns when the next is due.
// It is the safety net under the watches: what it finds is seen, and corrected
// or reported, as if a watch had told it.
func (e *Engine) compareAll(ctx context.Context, now time.Time) time.Time {
	var wake time.Time
	if e.options.Compare <= 0 {
		return wake
	}
	for _, est := range e.estates {
		switch {
		case !e.tends(est) || !est.surveyed:
		case est.compareAt.IsZero():
			est.compareAt = now.Add(est.pause(e.options.Compare))
			wake = earlier(est.compareAt, wake)
		case est.compareAt.After(now):
			wake = earlier(est.compareAt, wake)
		case e.comparing[est.place.Cluster]: // it is looked at again when that has ended
		default:
			e.comparing[est.place.Cluster] = true
			s, cl := est.site, e.reach(est)
			e.jobs.Go(func() {
				x := comparison{site: s}
				x.found, x.err = cl.Compare(ctx, cluster.Scope{Environment: s.environment, Namespace: s.place.Namespace})
				e.looked <- x
			})
		}
	}
	return wake
}

// pause returns how long to wait for the next comparison of a site: the first
// time half of the interval to all of it, then the interval ± a fifth, by a
// share that depends on the site. So many environments are spread over it.
func (est *estate) pause(interval time.Duration) time.Duration {
	h := fnv.New32a()
	fmt.Fprintln(h, est.environment, est.place, est.comparisons)
	share := time.Duration(h.Sum32() % 1000)
	if est.comparisons == 0 {
		return interval/2 + interval/2000*share
	}
	return interval - interval/5 + interval/2500*share
}

// comparedAll takes in what a comparison came to.
func (e *Engine) comparedAll(now time.Time, x comparison) {
	delete(e.comparing, x.place.Cluster)
	est := e.estates[x.site]
	if est == nil {
		return
	}
	if x.err != nil {
		if est.incomparable++; est.incomparable == 1 {
			e.report(Event{Type: EventWarning, Environment: est.environment, Message: fmt.Sprintf("compare all objects of environment %s with the cluster: %v; it is tried again", est.environment, x.err)})
		}
		after, _ := cluster.Retry(x.err)
		est.compareAt = now.Add(max(after, delay(Key{Environment: est.environment}, est.incomparable+4, firstRetry)))
		return
	}
	est.incomparable = 0
	est.comparisons++
	est.compareAt = now.Add(est.pause(e.options.Compare))
	const most = 5
	for i, r := range x.found.Missed {
		if i == most {
			e.report(Event{Type: EventWarning, Environment: est.environment, Message: fmt.Sprintf("and %d more", len(x.found.Missed)-most)})
			break
		}
		e.report(Event{Type: EventWarning, Environment: est.environment, Message: "a watch did not tell of a change of " + r.String()})
	}
	e.report(Event{Type: EventCompared, Environment: est.environment, Message: fmt.Sprintf("%d objects compared with the cluster, %d of them with changes that no watch had told", x.found.Objects, len(x.found.Missed))})
}
