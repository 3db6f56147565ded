package reconcile

import (
	"slices"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// Drifted takes in what others did to a service; it never waits.
func (c *Clerk) Drifted(d Drift) {
	c.mu.Lock()
	c.drifts = append(c.drifts, d)
	c.mu.Unlock()
	c.wake()
}

// mostDrifts bounds what is kept of one service until it can be recorded.
const mostDrifts = 16

// forget drops a drift that needs no record any more; at is when it was found,
// zero: the first that is the same.
func (d *card) forget(l *ledger.Drift, at time.Time) {
	i := slices.IndexFunc(d.drifts, func(x Drift) bool { return x.Record().Same(l) && (at.IsZero() || x.Time.Equal(at)) })
	if i >= 0 {
		d.drifts = slices.Delete(d.drifts, i, i+1)
	}
}

// noteWhole notes what an engine may ask of a ledger.
func (c *Clerk) noteWhole(env desired.EnvironmentName, b *book) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blind[Key{Environment: env}] = b.closed
	for svc := range b.broken {
		c.blind[Key{env, svc}] = true
	}
	for svc, r := range b.records {
		delete(c.blind, Key{env, svc})
		k := Key{env, svc}
		if d := r.Deployment; d.Completed.IsZero() {
			delete(c.whole, k)
		} else {
			c.whole[k] = d.Manifests
		}
		c.stands[k] = stand{r.Deployment.Manifests, r.Deployment.State}
	}
}

// Completed is what a ledger says of objects with a digest; see [Completed].
// Where it can't be read, nothing is sure, and who asks had better not write.
func (c *Clerk) Completed(k Key, manifests string) (done, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.blind[k] || c.blind[Key{Environment: k.Environment}] {
		return true, true
	}
	return c.whole[k] == manifests && manifests != "", c.caughtUp
}
