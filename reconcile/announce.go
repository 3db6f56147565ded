package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile/cluster"
)

// The pace of an Announcer.
const (
	mostAnnounced  = 256 // that wait; what comes besides is not announced
	announceEvery  = 100 * time.Millisecond
	announceTime   = 5 * time.Second
	forbiddenAgain = 10 * time.Minute
)

// Announcer makes Kubernetes Events of what was recorded, in the environments'
// namespaces. They are a convenience for who looks there: none is made up for,
// and nothing waits for them or fails with them. At most ten are made in a
// second; where the account may not make them, it is tried again in ten minutes.
// Like all that is written, they are made under the term of their environment.
type Announcer struct {
	engine *Engine
	logger *slog.Logger
	queue  chan Event
}

// NewAnnouncer returns an announcer for what an engine's clusters have.
func NewAnnouncer(e *Engine, logger *slog.Logger) *Announcer {
	return &Announcer{e, logger, make(chan Event, mostAnnounced)}
}

// Tell takes in an event; it never waits.
func (a *Announcer) Tell(ev Event) {
	if ev.Entry == nil {
		return
	}
	select {
	case a.queue <- ev:
	default:
	}
}

// Run makes Events until ctx ends.
func (a *Announcer) Run(ctx context.Context) {
	silent := map[string]time.Time{} // namespaces, until when
	tick := time.NewTicker(announceEvery)
	defer tick.Stop()
	for {
		var ev Event
		select {
		case <-ctx.Done():
			return
		case ev = <-a.queue:
		}
		newest := a.engine.Newest()
		if newest == nil || newest.Environments[ev.Environment] == nil {
			continue
		}
		env := newest.Environments[ev.Environment]
		at := string(env.Cluster) + " " + env.Namespace
		cl := Connection(a.engine.options.Clusters, Place{env.Cluster, env.Namespace}, env.ServiceAccount)
		if cl == nil || time.Now().Before(silent[at]) {
			continue
		}
		term, ours := a.engine.options.Tenure.term(ev.Environment)
		if !ours {
			continue // who has it now tells what it does
		}
		under, done := term.Context(ctx)
		limited, cancel := context.WithTimeout(under, announceTime)
		err := cl.Announce(limited, announcement(ev, env))
		cancel()
		done()
		if errors.As(err, new(*cluster.ForbiddenError)) {
			silent[at] = time.Now().Add(forbiddenAgain)
		}
		if err != nil && ctx.Err() == nil {
			a.logger.Debug("no Kubernetes Event was made", "environment", string(ev.Environment), "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// announcement is what an Event says of an entry.
func announcement(ev Event, env *desired.Environment) cluster.Announcement {
	e := ev.Entry
	note := e.Subject()
	if e.Reason != "" {
		note += "\n" + e.Reason
	}
	return cluster.Announcement{
		Namespace:   env.Namespace,
		Name:        fmt.Sprintf("pinion.%s.%s", e.Service, short(ev.Recorded)),
		Environment: env.Name,
		Time:        e.Time,
		Reason:      strings.ToUpper(string(e.Event[:1])) + string(e.Event[1:]),
		Warning:     e.Event == ledger.EventFailed || e.Event == ledger.EventDrifted && e.Drift != nil && e.Drift.Answer != ledger.AnswerEnded,
		Note:        note,
	}
}
