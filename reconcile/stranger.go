package reconcile

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
)

// stranger is another daemon of which we know, and that may not know of us.
type stranger struct {
	environment desired.EnvironmentName
	since       time.Time
}

// oneDaemon is in the place of a policy where a daemon tells of itself.
const oneDaemon = "one-daemon"

// strangers looks who has written the entries that are new. For a while after
// the start, or since it is ours, they may be of a clerk before this one: it has
// ended, and its last push was still on its way.
func (c *Clerk) strangers(ctx context.Context, env desired.EnvironmentName, from, to string) {
	most := 100
	if len(c.claimed) > 0 {
		most = mostClaimed
	}
	mine := c.held[env]
	count, foreign := 0, gitstate.CommitInfo{}
	err := c.options.Mirror.History(ctx, to, func(info gitstate.CommitInfo) bool {
		if info.ID == from || count == most {
			return false
		}
		count++
		if _, ours := c.claimed[info.Message]; ours {
			c.claimed[info.Message] = info.ID
		} else if info.Committer.Time.After(mine.began) || time.Since(mine.started) > handover {
			foreign = info
		}
		return true
	})
	if err != nil || foreign.ID == "" {
		return
	}
	now := time.Now()
	if c.stranger == nil && (c.told.IsZero() || now.Sub(c.told) > tellAgain) {
		c.stranger = &stranger{env, now}
	}
	if !c.warned.IsZero() && now.Sub(c.warned) < warnAgain {
		return
	}
	c.warned = now
	c.report(Event{Type: EventWarning, Environment: env, Message: fmt.Sprintf(
		"another daemon writes to %s: entry %.12s of %s is not ours (committed by %s <%s>); only one may run, stop the other",
		ledger.Branch(env), foreign.ID, foreign.Committer.Time.UTC().Format(time.RFC3339), foreign.Committer.Name, foreign.Committer.Email)})
}

// announce tells another daemon of us, by an entry that moves nothing. Of two
// that are equally fast each may take the other's commits for its own, since
// they are the same, and one that is always slower has none.
func (c *Clerk) announce(b *batch) {
	if c.stranger == nil || time.Since(c.stranger.since) < unseen {
		return
	}
	if !c.ours(c.stranger.environment) {
		c.stranger = nil
		return
	}
	book := c.books[c.stranger.environment]
	for _, svc := range slices.Sorted(maps.Keys(book.records)) {
		k := Key{c.stranger.environment, svc}
		if r := b.record(k); r.Deployment.ID != "" {
			e := ledger.Entry{Event: ledger.EventCheck, Late: true, Checks: []ledger.Check{{
				Policy: oneDaemon, Result: ledger.Failure, By: daemonName,
				Description: "two daemons write to this ledger, and only one may run: stop this one, " + c.options.Name + ", or the other",
			}}}
			aboutDeployment(&e, r)
			if err := b.add(k, e); err == nil {
				return
			}
		}
	}
	c.stranger = nil // there is nothing that it could be told by
}

func isAnnouncement(e ledger.Entry) bool {
	return e.Late && e.Event == ledger.EventCheck && e.Checks[0].Policy == oneDaemon && e.Checks[0].By == daemonName
}
