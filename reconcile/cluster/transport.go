package cluster

import (
	"maps"
	"net/http"
	"strings"
	"sync"
)

// requestCounter counts requests by what Kubernetes calls the verb, with
// "apply" for a server-side apply patch, "dry-run" for what writes nothing,
// "discovery" for what asks which kinds there are, "event" for an Event that is
// made, and "identity" for what asks again which cluster it is: how often that
// is done follows time and connections, not what is reconciled.
type requestCounter struct {
	mu    sync.Mutex
	count map[string]uint64 // guarded by mu
}

// Requests returns how many requests were sent since Connect, by verb: apply,
// dry-run, get, list, watch, create, patch, update, delete, discovery, event,
// identity.
func (c *Cluster) Requests() map[string]uint64 {
	n := c.route.requests
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.count == nil {
		return map[string]uint64{}
	}
	return maps.Clone(n.count)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (n *requestCounter) add(verb string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.count == nil {
		n.count = map[string]uint64{}
	}
	n.count[verb]++
}

func verbOf(r *http.Request) string {
	query := r.URL.Query()
	switch {
	case query.Get("dryRun") != "":
		return "dry-run"
	case r.Method == http.MethodPatch && strings.HasPrefix(r.Header.Get("Content-Type"), "application/apply-patch"):
		return "apply"
	case r.Method == http.MethodPatch:
		return "patch"
	case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/events"):
		return "event" // tells something, and changes nothing that is applied
	case r.Method == http.MethodPost:
		return "create"
	case r.Method == http.MethodPut:
		return "update"
	case r.Method == http.MethodDelete:
		return "delete"
	case query.Get("watch") != "":
		return "watch"
	}
	// GET /api/v1/namespaces/NS/pods/NAME, /apis/GROUP/VERSION/…; the host may
	// have a path before these.
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	for i, part := range path {
		if part == "api" || part == "apis" {
			path = path[i:]
			break
		}
	}
	skip := 3
	if path[0] == "api" {
		skip = 2
	} else if path[0] != "apis" {
		return "discovery"
	}
	if len(path) <= skip {
		return "discovery"
	}
	rest := path[skip:]
	if rest[0] == "namespaces" && len(rest) > 2 {
		rest = rest[2:]
	}
	if len(rest) == 1 {
		return "list"
	}
	return "get"
}
