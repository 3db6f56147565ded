package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/pinion-cd/pinion/api"
	"github.com/pinion-cd/pinion/forge"
)

const (
	// webhookPath is where a forge tells of pushes; its kind follows.
	webhookPath = "/api/v1/webhooks/"
	// deliveryTime is how long a delivery may take to come in.
	deliveryTime = 20 * time.Second
	// hookPause is the time between two looks that deliveries lead to: whoever
	// replays them can't make us ask the forge more often.
	hookPause = time.Second
)

// hooks takes in the deliveries of the forge's webhook. All that one does is to
// have the repository looked at.
type hooks struct {
	turnstile
	forge   *forgeConfig  // nil: there is none
	arrived chan struct{} // capacity 1
}

func newHooks(c *forgeConfig, log *slog.Logger) *hooks {
	return &hooks{turnstile: turnstile{log: log}, forge: c, arrived: make(chan struct{}, 1)}
}

// run calls look after deliveries, until ctx ends. Several that come at the same
// time are one reason to look.
func (h *hooks) run(ctx context.Context, look func()) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
		select {
		case <-h.arrived:
			look()
		case <-ctx.Done():
			return
		}
		pause.Reset(hookPause)
	}
}

// start keeps what is written to it, up to a byte more than is handed on.
type start struct{ data []byte }

func (s *start) Write(p []byte) (int, error) {
	s.data = append(s.data, p[:min(len(p), relayedBody+1-len(s.data))]...)
	return len(p), nil
}

// ServeHTTP takes in a delivery. Its body is read once, into the signature that
// is computed of it, and kept only to be handed on to other replicas.
func (h *hooks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind := forge.Kind(r.PathValue("forge"))
	if h.forge == nil || h.forge.Kind != kind || h.forge.WebhookSecretFile == "" {
		api.Refusal(api.UnknownForge, "no webhook of %q is expected here; see forge: in the daemon's configuration", kind).Write(w)
		return
	}
	if r.ContentLength > forge.MaxDelivery {
		h.turnAway(w, r, api.Refusal(api.TooLarge, "the body has %d bytes, and may have %d", r.ContentLength, int64(forge.MaxDelivery)))
		return
	}
	secrets, err := h.forge.secrets()
	if err != nil {
		if h.tells() {
			h.log.Error("a webhook can't be verified", "error", err)
		}
		api.Refusal(api.NotReady, "the daemon can't read the webhook's secret; its log says why").Write(w)
		return
	}
	delivery, err := kind.Receive(secrets, r.Header.Get, time.Now())
	if err != nil {
		h.turnAway(w, r, api.Refusal(api.Unauthenticated, "%v", err))
		return
	}
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(deliveryTime)) // else the server's own is in force
	kept := &start{}
	if _, err := io.Copy(io.MultiWriter(delivery, kept), http.MaxBytesReader(w, r.Body, forge.MaxDelivery)); err != nil {
		p := api.Refusal(api.Invalid, "the body can't be read: %v", err)
		if tooLarge, ok := err.(*http.MaxBytesError); ok {
			p = api.Refusal(api.TooLarge, "the body has more than %d bytes", tooLarge.Limit)
		}
		h.turnAway(w, r, p)
		return
	}
	if err := delivery.Genuine(); err != nil {
		h.turnAway(w, r, api.Refusal(api.Unauthenticated, "%v", err))
		return
	}
	select {
	case h.arrived <- struct{}{}:
	default: // a look is to come anyway; the others may have had theirs
	}
	h.self.Load().handOn(r, kept.data)
	w.WriteHeader(http.StatusAccepted)
}
