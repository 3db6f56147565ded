package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pinion-cd/pinion/api"
	"github.com/pinion-cd/pinion/forge"
	"github.com/pinion-cd/pinion/registry"
	"github.com/pinion-cd/pinion/registry/watch"
)

const (
	// registryHookPath is where registries tell of pushes.
	registryHookPath = webhookPath + "registry"
	// maxNotice is the size of a notification, in bytes. Registries send one to a
	// few events at a time, of a kilobyte each.
	maxNotice = 1 << 20
)

// registryHooks takes in the notifications of registries. All that one does is to
// have repositories looked at that are watched anyway.
type registryHooks struct {
	turnstile
	config  registryConfig
	watcher atomic.Pointer[watch.Watcher] // nil until the daemon has it
}

// ServeHTTP takes in a notification.
func (h *registryHooks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.config.WebhookSecretFile == "" {
		api.Refusal(api.NotFound, "no webhook of a registry is expected here; see registry.webhookSecretFile in the daemon's configuration").Write(w)
		return
	}
	if r.ContentLength > maxNotice {
		h.turnAway(w, r, api.Refusal(api.TooLarge, "the body has %d bytes, and may have %d", r.ContentLength, maxNotice))
		return
	}
	secrets, err := webhookSecrets(h.config.WebhookSecretFile)
	if err != nil {
		if h.tells() {
			h.log.Error("a registry's webhook can't be verified", "error", err)
		}
		api.Refusal(api.NotReady, "the daemon can't read the webhook's secret; its log says why").Write(w)
		return
	}
	var signed *forge.Delivery
	if signature := r.Header.Get("X-Hub-Signature-256"); signature != "" {
		if signed, err = forge.GitHub.Receive(secrets, r.Header.Get, time.Now()); err != nil {
			h.turnAway(w, r, api.Refusal(api.Unauthenticated, "%v", err))
			return
		}
	} else if !proven(r, secrets) {
		h.turnAway(w, r, api.Refusal(api.Unauthenticated, "it does not have the secret of the configuration's registry.webhookSecretFile: in the header Authorization, as the password of a user, or, from who can send neither, as ?token="))
		return
	}
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(deliveryTime)) // else the server's own is in force
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxNotice))
	if err != nil {
		p := api.Refusal(api.Invalid, "the body can't be read: %v", err)
		if tooLarge, ok := err.(*http.MaxBytesError); ok {
			p = api.Refusal(api.TooLarge, "the body has more than %d bytes", tooLarge.Limit)
		}
		h.turnAway(w, r, p)
		return
	}
	if signed != nil {
		signed.Write(body)
		if err := signed.Genuine(); err != nil {
			h.turnAway(w, r, api.Refusal(api.Unauthenticated, "%v", err))
			return
		}
	}
	h.watcher.Load().Notify(registry.Notice(body))
	h.self.Load().handOn(r, body)
	w.WriteHeader(http.StatusAccepted)
}

// proven tells whether a request has one of the secrets: as the whole header
// Authorization, as its bearer token, as its password, or in the address.
func proven(r *http.Request, secrets []string) bool {
	header := r.Header.Get("Authorization")
	_, password, _ := r.BasicAuth()
	token, _ := strings.CutPrefix(header, "Bearer ")
	ok := false
	for _, given := range []string{header, token, password, r.URL.Query().Get("token")} {
		for _, s := range secrets {
			// Hashed first, so that not even its length can be told by the time it takes.
			have, want := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(s))
			ok = hmac.Equal(have[:], want[:]) || ok
		}
	}
	return ok
}
