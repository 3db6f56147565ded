package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/outbound"
)

const (
	// mostRelayed is how many deliveries wait to be handed on; more are left to the
	// polls of the others.
	mostRelayed = 100
	// relayedBody is the size of a delivery that is handed on, in bytes.
	relayedBody = 1 << 20
	relayTime   = 5 * time.Second
)

// relayed is a delivery of a webhook, as it came.
type relayed struct {
	path   string // with the query
	header http.Header
	body   []byte
}

// handOn has those replicas get a delivery that have environments and got it not,
// for it came to this one. They verify it as if it had come to them. It never
// waits; a nil replica has nobody beside it.
func (r *replica) handOn(req *http.Request, body []byte) {
	if r == nil || req.Header.Get(forwardedBy) != "" || len(body) > relayedBody {
		return
	}
	header := signedBy(req.Header)
	header.Set(forwardedBy, r.leases.Identity())
	select {
	case r.deliveries <- relayed{req.URL.RequestURI(), header, body}:
	default:
	}
}

// signedBy returns what of a delivery's head says who sent it, and what it is.
func signedBy(h http.Header) http.Header {
	kept := http.Header{}
	for name, values := range h {
		if strings.HasPrefix(name, "X-") || strings.HasPrefix(name, "Webhook-") || slices.Contains([]string{"Authorization", "Content-Type", "User-Agent"}, name) {
			kept[name] = values
		}
	}
	return kept
}

// relay hands deliveries on until ctx ends.
func (r *replica) relay(ctx context.Context, logger *slog.Logger) {
	if r == nil {
		return
	}
	failing := map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-r.deliveries:
			for _, address := range r.others() {
				err := r.send(ctx, address, d)
				if err != nil && !failing[address] && ctx.Err() == nil {
					logger.Warn("another replica could not be told of a webhook; it looks at its next poll", "address", address, "error", err)
				}
				if failing[address] = err != nil; err == nil {
					delete(failing, address)
				}
			}
		}
	}
}

// send hands one delivery on. What the other one answers is its own business.
func (r *replica) send(ctx context.Context, address string, d relayed) error {
	ctx, cancel := context.WithTimeout(ctx, relayTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.scheme+"://"+address+d.path, bytes.NewReader(d.body))
	if err != nil {
		return outbound.Cause(err)
	}
	req.Header = d.header
	resp, err := r.client.Do(req)
	if err != nil {
		return outbound.Cause(err) // without the address, which may hold a secret
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, mostAnswer))
	return nil
}

// others are the addresses of the other replicas that have environments.
func (r *replica) others() []string {
	var all []string
	add := func(env desired.EnvironmentName) {
		h := r.tenure.Holder(env)
		if h.Address != "" && h.Identity != r.leases.Identity() && !slices.Contains(all, h.Address) {
			all = append(all, h.Address)
		}
	}
	if r.shard.Count == 0 {
		add("") // one lease is for all
		return all
	}
	for _, env := range *r.known.Load() {
		add(env)
	}
	return all
}
