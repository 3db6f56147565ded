package main

import (
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pinion-cd/pinion/api"
)

// hookWarnings is how often it is logged that a delivery is not taken.
const hookWarnings = time.Minute

// turnstile refuses deliveries of webhooks.
type turnstile struct {
	log  *slog.Logger
	self atomic.Pointer[replica] // who hands deliveries on; nil: there are no others, or it is not known yet

	mu     sync.Mutex // guards warned
	warned time.Time
}

// turnAway refuses a delivery, and lets the operator know now and then: a wrong
// secret would go unseen, for the polls go on.
func (t *turnstile) turnAway(w http.ResponseWriter, r *http.Request, p *api.Problem) {
	if t.tells() {
		t.log.Warn("a webhook was refused", "from", r.RemoteAddr, "reason", p.Detail)
	}
	w.Header().Set("Connection", "close") // what is left of the body is not read
	p.Write(w)
}

// tells lets one line through at a time: whoever reaches us can send deliveries,
// and must not fill the log.
func (t *turnstile) tells() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.warned) < hookWarnings {
		return false
	}
	t.warned = time.Now()
	return true
}
