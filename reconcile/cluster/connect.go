package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
)

// Manager is the field manager under which everything is applied.
const Manager = "pinion"

// Config says how to reach one cluster: by Kubeconfig, which is read again
// whenever it changes, or by REST.
type Config struct {
	Name       string // as environments name it; only for messages
	Kubeconfig *Kubeconfig
	REST       *rest.Config // not modified
	// Lenient has Connect succeed though the kubeconfig can't be used; requests
	// then fail until it can.
	Lenient bool
	// Concurrency bounds the requests in flight, watches not counted; 0 means
	// 16. One that has had no answer for two seconds no longer counts, as long
	// as there are at most three times as many of those.
	Concurrency int
	PerSecond   int // requests, watches not counted; 0: as many as the API server takes
	// Timeout bounds one request other than a watch; 0 means 30 s. A request
	// that takes longer ends as a *RetryableError.
	Timeout time.Duration
	// Identity is the UID of the namespace kube-system by which the cluster is
	// known to be the one that is meant; "": the one that is seen first.
	Identity string
	// Record is a file that keeps which cluster was seen first; "": that is
	// known as long as this process lives.
	Record     string
	Logger     *slog.Logger // nil means silence
	Repository string       // the deployment repository's URL without user info, recorded in inventories
}

// Cluster is a connection to one cluster, in the name of one account, and what
// is known of it. Its methods may be called from many goroutines. Close ends
// its watches.
type Cluster struct {
	config    Config
	account   Account  // zero: that of the kubeconfig
	parent    *Cluster // of an account's
	route     *route
	client    *rest.RESTClient // sends raw bytes, asks for metadata
	dynamic   *dynamic.DynamicClient
	metadata  metadata.Interface
	discovery *discovery.DiscoveryClient
	slots     chan struct{} // one for each request in flight
	lent      chan struct{} // one for each that has given its slot away
	mapper    mapper
	changes   *changes
	pods      pods
	health    rulebook

	ctx    context.Context // of the watches; ended by Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // the watches' goroutines

	mu          sync.Mutex
	places      map[place]*reflection        // guarded by mu
	scopes      map[Scope]map[place]struct{} // guarded by mu
	absent      map[Scope]map[Kind]struct{}  // guarded by mu; kinds that could not be watched,
	unresolved  map[Kind]error               // guarded by mu; and for which of them it is not sure that they are not served
	namespaces  map[string]struct{}          // guarded by mu; seen to exist, and not refuted since
	inventories map[Scope]*inventory         // guarded by mu
	tenants     map[Account]*Cluster         // guarded by mu
}

// Connect prepares a connection. It sends nothing, so it does not fail when the
// API server is down. ctx bounds the watches: when it ends, they end.
func Connect(ctx context.Context, config Config) (*Cluster, error) {
	if config.REST == nil && config.Kubeconfig == nil {
		return nil, fmt.Errorf("connect to cluster %q: no kubeconfig", config.Name)
	}
	if config.Concurrency <= 0 {
		config.Concurrency = 16
	}
	if config.Timeout <= 0 {
		config.Timeout = 30 * time.Second
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	fail := func(err error) (*Cluster, error) {
		return nil, fmt.Errorf("cluster %s: %w", config.Name, err)
	}
	identity, err := newIdentity(config)
	if err != nil {
		return fail(err)
	}
	r := &route{name: config.Name, source: config.Kubeconfig, logger: config.Logger, requests: new(requestCounter), identity: identity}
	if config.PerSecond > 0 {
		r.limit = flowcontrol.NewTokenBucketRateLimiter(float32(config.PerSecond), config.PerSecond)
	}
	if r.source == nil {
		r.leg, err = newLeg(config.REST)
	} else {
		err = r.read()
	}
	switch {
	case err == nil:
		r.host = r.leg.base
	case config.Lenient && r.source != nil:
		r.host = &url.URL{Scheme: "https", Host: "kubeconfig.invalid"} // replaced when it can be read
		config.Logger.Error("the kubeconfig can't be used; it is read again when it changes", "cluster", config.Name, "error", err)
	default:
		return fail(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	c := &Cluster{
		config: config, route: r, slots: make(chan struct{}, config.Concurrency), lent: make(chan struct{}, 3*config.Concurrency),
		changes: &changes{signal: make(chan struct{}, 1), keys: map[Key]struct{}{}},
		ctx:     ctx, cancel: cancel,
	}
	if err := c.open(r); err != nil {
		cancel()
		return fail(err)
	}
	if r.source != nil {
		c.wg.Go(func() { r.follow(ctx) })
	}
	return c, nil
}

// open makes the clients, which send by transport, and empty views.
func (c *Cluster) open(transport http.RoundTripper) error {
	rc := prepared(&rest.Config{Host: c.route.host.String()})
	httpClient := &http.Client{Transport: transport}
	raw := metadata.ConfigFor(rc)
	raw.APIPath = "/never-sent"
	raw.GroupVersion = &schema.GroupVersion{}
	var err error
	if c.client, err = rest.RESTClientForConfigAndClient(raw, httpClient); err != nil {
		return err
	}
	if c.metadata, err = metadata.NewForConfigAndClient(rc, httpClient); err != nil {
		return err
	}
	if c.dynamic, err = dynamic.NewForConfigAndClient(rc, httpClient); err != nil {
		return err
	}
	if c.discovery, err = discovery.NewDiscoveryClientForConfigAndClient(rc, httpClient); err != nil {
		return err
	}
	c.mapper = mapper{lock: make(chan struct{}, 1)}
	c.places = map[place]*reflection{}
	c.scopes = map[Scope]map[place]struct{}{}
	c.absent = map[Scope]map[Kind]struct{}{}
	c.unresolved = map[Kind]error{}
	c.namespaces = map[string]struct{}{}
	c.inventories = map[Scope]*inventory{}
	c.tenants = map[Account]*Cluster{}
	c.pods.init()
	c.health.init()
	return nil
}

// derive returns a cluster that sends by another transport.
func (c *Cluster) derive(transport http.RoundTripper) (*Cluster, error) {
	d := &Cluster{config: c.config, route: c.route, slots: c.slots, lent: c.lent, changes: c.changes}
	d.ctx, d.cancel = context.WithCancel(c.ctx)
	if err := d.open(transport); err != nil {
		d.cancel()
		return nil, err
	}
	return d, nil
}

// Close ends all watches and waits until they have ended.
func (c *Cluster) Close() {
	c.cancel()
	c.wg.Wait()
	c.mu.Lock()
	tenants := slices.Collect(maps.Values(c.tenants))
	c.mu.Unlock()
	for _, t := range tenants {
		t.Close()
	}
	if c.parent == nil {
		c.route.end()
	}
}

// Name returns the name that the configuration gave to the cluster.
func (c *Cluster) Name() string { return c.config.Name }

// Concurrency returns how many requests may be in flight, watches not counted.
func (c *Cluster) Concurrency() int { return c.config.Concurrency }

// Reach asks the API server for its version, and fails as that does.
func (c *Cluster) Reach(ctx context.Context) error {
	_, err := c.ServerVersion(ctx)
	return err
}

// ServerVersion asks the API server for its version.
func (c *Cluster) ServerVersion(ctx context.Context) (*version.Info, error) {
	ctx, done, err := c.slot(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	info, err := c.discovery.ServerVersionWithContext(ctx)
	if err != nil {
		return nil, classify(failure{op: "reach cluster " + c.config.Name}, err)
	}
	return info, nil
}

// slot waits for one of the requests in flight to end, and bounds the time of
// the one that takes its place. done must be called.
func (c *Cluster) slot(ctx context.Context) (_ context.Context, done func(), _ error) {
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	p := &flight{slots: c.slots, lent: c.lent}
	timer := time.AfterFunc(Slow, p.lend)
	return ctx, func() { cancel(); timer.Stop(); p.end() }, nil
}

// Slow is how long a request may be without an answer before it gives its place
// away: it may wait for an admission webhook that hangs, and the API server
// answers others all the same.
const Slow = 2 * time.Second

// flight is the place of one request in flight.
type flight struct {
	slots, lent chan struct{}

	mu    sync.Mutex    // guards place
	place chan struct{} // nil: in slots
	ended bool          // guarded by mu
}

// lend gives the slot to another request, unless too many have done so.
func (h *flight) lend() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return
	}
	select {
	case h.lent <- struct{}{}:
		h.place = h.lent
		<-h.slots
	default:
	}
}

func (h *flight) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended = true; h.place == nil {
		h.place = h.slots
	}
	<-h.place
}
