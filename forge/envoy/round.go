package envoy

import (
	"context"
	"log/slog"
	"time"
)

// soon is how long what wakes a round waits for more of its kind.
const soon = time.Second

// round goes again and again through what a forge has: when it is woken, and
// every poll.
type round struct {
	poll  time.Duration
	pass  func(context.Context) error
	woken chan struct{}

	// What is logged when passes begin to fail, and when they no longer do.
	log            *slog.Logger
	fails, mending string

	trouble string // what was logged last
}

func newRound(poll time.Duration, log *slog.Logger, fails, mending string, pass func(context.Context) error) round {
	return round{poll: poll, pass: pass, woken: make(chan struct{}, 1), log: log, fails: fails, mending: mending}
}

// Wake has the forge looked at; it never waits.
func (r *round) Wake() {
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// Run makes passes until ctx ends.
func (r *round) Run(ctx context.Context) {
	next := time.NewTimer(0)
	defer next.Stop()
	woken := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.woken:
			if !woken { // what comes together is looked at together, and not put off by more
				woken = true
				next.Reset(soon)
			}
			continue
		case <-next.C:
			woken = false
		}
		err := r.pass(ctx)
		if ctx.Err() != nil {
			return
		}
		r.tell(err)
		next.Reset(r.poll)
	}
}

// tell logs a trouble once, and its end.
func (r *round) tell(err error) {
	switch {
	case err == nil && r.trouble != "":
		r.trouble = ""
		r.log.Info(r.mending)
	case err != nil && err.Error() != r.trouble:
		r.trouble = err.Error()
		r.log.Warn(r.fails, "error", err)
	}
}
