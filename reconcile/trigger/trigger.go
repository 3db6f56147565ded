// Package trigger asks other tools to deploy: it calls the webhook of a service
// that is not applied from manifests.
//
// It decides which addresses may be called, for they stand in the repository:
// only those of hosts that the operator lists, and for which the operator has
// given a secret, so that what is called can tell who calls. A call is signed as
// news are, and its id is the same however often one deployment is asked for.
//
// It tries once; whether and when again is for reconcile to say. It follows no
// redirect, keeps nothing, and a crash leaves nothing behind but a call that
// may have been heard.
package trigger

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/notify"
	"github.com/pinion-cd/pinion/outbound"
)

// Call is what a tool is told. Its JSON is the body.
type Call struct {
	Environment desired.EnvironmentName `json:"environment"`
	Namespace   string                  `json:"namespace"`
	Service     desired.ServiceName     `json:"service"`
	// Deployment is the id, by which the tool reports.
	Deployment string         `json:"deployment"`
	Version    string         `json:"version,omitempty"`
	Commit     string         `json:"commit"` // on main
	Source     string         `json:"source,omitempty"`
	Pins       []ledger.Pin   `json:"pins,omitempty"`
	Parameters map[string]any `json:"parameters,omitempty"`
	Cause      ledger.Cause   `json:"cause,omitempty"`
	URL        string         `json:"-"`
}

// Caller calls webhooks.
type Caller struct {
	client  *http.Client
	allow   outbound.Allow
	secrets map[string][]notify.Secret // by host, and port if it has one
}

// New returns a caller of the hosts that are allowed and have secrets.
func New(allow outbound.Allow, secrets map[string][]notify.Secret) *Caller {
	return &Caller{outbound.NewClient(outbound.Options{Allow: allow, Redirects: outbound.None}), allow, secrets}
}

const maxAnswer = 64 << 10

// Call asks once.
func (c *Caller) Call(ctx context.Context, call Call, now time.Time) notify.Ruling {
	u, err := url.Parse(call.URL)
	if err != nil || u.Hostname() == "" {
		return notify.Ruling{Reason: "the address of the webhook can't be used"}
	}
	if err := c.allow.Check(u); err != nil { // said before what else may be missing
		return notify.Ruling{Reason: err.Error()}
	}
	secrets := c.secrets[strings.ToLower(u.Host)]
	if len(secrets) == 0 {
		return notify.Ruling{Reason: fmt.Sprintf("there is no secret to sign calls of %s with; the daemon's operator writes it under triggers: in the configuration", u.Host)}
	}
	body, err := json.Marshal(call)
	if err != nil {
		return notify.Ruling{Reason: fmt.Sprintf("the call can't be written: %v", err)}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, call.URL, bytes.NewReader(body))
	if err != nil {
		return notify.Ruling{Reason: "the address of the webhook can't be used"}
	}
	id := string(call.Environment) + "_" + call.Deployment // neither has one, and a full stop ends the id where it is signed
	r.Header.Set("User-Agent", "pinion")
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", id)
	for name, value := range notify.Sign(secrets, id, now, body) {
		r.Header.Set(name, value)
	}
	response, err := c.client.Do(r)
	if err != nil {
		return notify.Answer{Trouble: outbound.Cause(err).Error()}.Judge(now)
	}
	defer response.Body.Close()
	io.Copy(io.Discard, io.LimitReader(response.Body, maxAnswer)) // only the status counts
	return notify.Answer{Status: response.StatusCode, RetryAfter: response.Header.Get("Retry-After")}.Judge(now)
}
