package cluster

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
)

// lookInterval is how often a kubeconfig is looked at for changes.
const lookInterval = time.Second

// route leads all requests for a cluster to the API server that its kubeconfig
// names now: it reads the file anew when that has changed, and lets nothing be
// written before the cluster has shown that it is the expected one.
type route struct {
	name     string
	source   *Kubeconfig // nil: the REST configuration never changes
	logger   *slog.Logger
	requests *requestCounter
	limit    flowcontrol.RateLimiter // nil: none
	identity *identity
	host     *url.URL // as the clients write their requests

	mu     sync.Mutex
	leg    *leg    // guarded by mu; nil: the kubeconfig could not be read yet
	broken error   // guarded by mu; why the newest kubeconfig can't be used
	files  []stamp // guarded by mu; as they were when it was read last
}

// leg is one reading of a kubeconfig: an address, credentials, and connections.
type leg struct {
	base      *url.URL
	transport http.RoundTripper
	conns     *conns
	proof     proof
}

// prepared is how requests are sent, whatever the kubeconfig says.
func prepared(from *rest.Config) *rest.Config {
	c := rest.CopyConfig(from)
	c.QPS, c.Burst, c.RateLimiter = -1, 0, nil                             // the slots bound us, and the API server's own fairness does
	c.Timeout = 0                                                          // would cut watches; each request has its own
	c.WarningHandler, c.WarningHandlerWithContext = rest.NoWarnings{}, nil // Applied has them
	if c.UserAgent == "" {
		c.UserAgent = "pinion"
	}
	return c
}

func newLeg(from *rest.Config) (*leg, error) {
	c := prepared(from)
	s := &conns{dial: plainDialer, open: map[string]*conn{}}
	if c.Dial != nil {
		s.dial = c.Dial
	}
	c.Dial = s.DialContext
	c.Wrap(fence)
	base, _, err := rest.DefaultServerUrlFor(c)
	if err != nil {
		return nil, err
	}
	transport, err := rest.TransportFor(c)
	if err != nil {
		return nil, err
	}
	return &leg{base: base, transport: transport, conns: s, proof: proof{lock: make(chan struct{}, 1)}}, nil
}

// read reads the kubeconfig, and takes over what it says.
func (r *route) read() error {
	c, err := r.source.read(r.name)
	files := stamps(c.files)
	var l *leg
	if err == nil {
		l, err = newLeg(c.rest)
	}
	r.mu.Lock()
	r.files = files
	old := r.leg
	if r.broken = err; err == nil {
		r.leg = l
	}
	r.mu.Unlock()
	if err == nil && old != nil {
		old.conns.end()
	}
	return err
}

// follow looks for changes of the kubeconfig until ctx ends. One that can't be
// used is reported, and what was known before stays.
func (r *route) follow(ctx context.Context) {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.mu.Lock()
		changed := slices.ContainsFunc(r.files, stamp.changed)
		r.mu.Unlock()
		if !changed {
			continue
		}
		if err := r.read(); err != nil {
			r.logger.Error("the kubeconfig has changed and can't be used; what it said before stays", "cluster", r.name, "error", err)
			continue
		}
		r.logger.Info("the kubeconfig has changed and was read again", "cluster", r.name)
	}
}

// end closes the connections when nobody sends any more.
func (r *route) end() {
	if l, err := r.present(); err == nil {
		l.conns.end()
	}
}

// unreadableError says that there is no kubeconfig that could be used.
type unreadableError struct{ error }

func (r *route) present() (*leg, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.leg == nil {
		return nil, unreadableError{r.broken}
	}
	return r.leg, nil
}

// RoundTrip sends a request to where the kubeconfig leads now.
func (r *route) RoundTrip(q *http.Request) (*http.Response, error) {
	l, err := r.present()
	if err != nil {
		return nil, err
	}
	verb := verbOf(q)
	if r.limit != nil && verb != "watch" {
		if err := r.limit.Wait(q.Context()); err != nil {
			return nil, err
		}
	}
	r.requests.add(verb)
	return r.guard(l, l.address(q, r.host))
}

// address makes a request that was written for one host one for another.
func (l *leg) address(q *http.Request, from *url.URL) *http.Request {
	if from == nil || from.Scheme == l.base.Scheme && from.Host == l.base.Host && trimmed(from) == trimmed(l.base) {
		return q
	}
	to := q.Clone(q.Context())
	to.URL.Scheme, to.URL.Host, to.Host = l.base.Scheme, l.base.Host, ""
	to.URL.Path = trimmed(l.base) + "/" + strings.TrimPrefix(strings.TrimPrefix(q.URL.Path, trimmed(from)), "/")
	to.URL.RawPath = ""
	return to
}

func trimmed(u *url.URL) string { return strings.TrimSuffix(u.Path, "/") }
