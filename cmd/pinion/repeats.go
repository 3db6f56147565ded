package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/pinion-cd/pinion/reconcile"
)

// sayAgain is how often it is said again of a service that it still fails for the
// same reason; each retry comes to that.
const sayAgain = 30 * time.Minute

// repeats finds what is not worth a line, for it was said: that a service which
// is tried again fails as it did before, and all in between. The zero value knows
// of nothing that was said. Its methods may be called at the same time.
type repeats struct {
	mu      sync.Mutex                 // guards what follows
	failing map[reconcile.Key]repeated // services that did not recover since
}

// repeated is what was said of a service that fails.
type repeated struct {
	of, text string
	said     time.Time
	untold   int // how often it has come to that since
}

// of names what is tried.
func of(ev reconcile.Event) string { return ev.Version + " " + ev.Commit }

// worth tells whether the event of a phase is worth a line, and what belongs
// behind it.
func (r *repeats) worth(ev reconcile.Event, now time.Time) (more string, ok bool) {
	key := reconcile.Key{Environment: ev.Environment, Service: ev.Service}
	r.mu.Lock()
	defer r.mu.Unlock()
	before, known := r.failing[key]
	switch ev.Phase {
	case reconcile.Ready, reconcile.Suspended:
		delete(r.failing, key)
		return "", true
	case reconcile.Failed, reconcile.Degraded:
	default:
		return "", !known || before.of != of(ev)
	}
	text := string(ev.Phase) + " " + ev.Message
	if known && before.of == of(ev) && before.text == text {
		if now.Sub(before.said) < sayAgain {
			before.untold++
			r.failing[key] = before
			return "", false
		}
		more = fmt.Sprintf(" (still, after %d more tries)", before.untold+1)
	}
	if r.failing == nil {
		r.failing = map[reconcile.Key]repeated{}
	}
	r.failing[key] = repeated{of: of(ev), text: text, said: now}
	return more, true
}

// gone forgets a service.
func (r *repeats) gone(key reconcile.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.failing, key)
}
