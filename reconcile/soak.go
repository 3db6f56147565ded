package reconcile

import (
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/cluster"
)

// sight is how a unit's objects are seen: not at the moment, and since when
// without a gap.
type sight struct {
	blind bool
	since time.Time
}

// soak keeps since when what runs has been healthy and unchanged without a gap,
// for soaks. base is where it stands now, and s how that is seen.
//
// What was lost in sight counts anew from when it is regained. For a time in
// which nobody looked (before a start, while another replica had the environment,
// while the API server did not answer) the cluster itself has to vouch: no object
// was written since then, a status included, so its health was the same. An
// object that is written all the time vouches for nothing.
func (u *unit) soak(now time.Time, base Phase, s sight) {
	gap := u.sight != s
	u.sight = s
	switch {
	case base != Ready:
		u.healthy, u.unwell = time.Time{}, u.unwell || u.compared
	case u.unwell:
		u.healthy, u.unwell = now, false
	case u.healthy.IsZero(), gap:
		vouched := latest(u.written, u.lostAt)
		if vouched.After(now) { // the API server's clock is ahead
			vouched = now
		}
		u.healthy = latest(u.healthy, vouched)
	default:
		u.healthy = latest(u.healthy, u.lostAt) // it was regained before it was looked at
	}
}

// sightOf says how a unit's objects are seen.
func (e *Engine) sightOf(u *unit) sight {
	if u.target == nil || !u.compared {
		return u.sight
	}
	cl := e.connection(u.target)
	if cl == nil {
		return u.sight
	}
	since, seen := cl.Sight(u.target.Result.Objects)
	return sight{blind: !seen, since: since}
}

// glimpse looks for units of an environment that are seen otherwise than before.
func (e *Engine) glimpse(c *cluster.Cluster, name desired.EnvironmentName) {
	for k, u := range e.units {
		if k.Environment != name || u.target == nil || u.target.Deploy != nil || !u.compared || e.options.Clusters[u.target.Cluster] != c {
			continue
		}
		if e.sightOf(u) != u.sight {
			e.inspect(u)
			e.dirty[k] = true
		}
	}
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
