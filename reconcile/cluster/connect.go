package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Manager is the field manager under which everything is applied.
const Manager = "pinion"

// Config says how to reach one cluster.
type Config struct {
	Name        string       // as environments name it; only for messages
	REST        *rest.Config // not modified
	Concurrency int          // requests in flight, watches not counted; 0 means 16
	// Timeout bounds one request other than a watch; 0 means 30 s. A request
	// that takes longer ends as a *RetryableError.
	Timeout    time.Duration
	Logger     *slog.Logger // nil means silence
	Repository string       // the deployment repository's URL without user info, recorded in inventories
}

// Cluster is a connection to one cluster and what is known of it. Its methods
// may be called from many goroutines. Close ends its watches.
type Cluster struct {
	config    Config
	client    *rest.RESTClient // sends raw bytes, asks for metadata
	dynamic   *dynamic.DynamicClient
	metadata  metadata.Interface
	discovery *discovery.DiscoveryClient
	slots     chan struct{} // one for each request in flight
	requests  *requestCounter
	mapper    mapper
	changes   changes
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
}

// Connect prepares a connection. It sends nothing, so it does not fail when the
// API server is down. ctx bounds the watches: when it ends, they end.
func Connect(ctx context.Context, config Config) (*Cluster, error) {
	if config.REST == nil {
		return nil, fmt.Errorf("connect to cluster %q: no REST configuration", config.Name)
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
	requests := new(requestCounter)
	rc := rest.CopyConfig(config.REST)
	rc.QPS, rc.Burst, rc.RateLimiter = -1, 0, nil                            // the slots bound us, and the API server's own fairness does
	rc.Timeout = 0                                                           // would cut watches; each request has its own
	rc.WarningHandler, rc.WarningHandlerWithContext = rest.NoWarnings{}, nil // Applied has them
	if rc.UserAgent == "" {
		rc.UserAgent = "pinion"
	}
	rc.Wrap(func(rt http.RoundTripper) http.RoundTripper { return fence(requests.wrap(rt)) })

	fail := func(err error) (*Cluster, error) {
		return nil, fmt.Errorf("connect to cluster %q: %w", config.Name, err)
	}
	httpClient, err := rest.HTTPClientFor(rc)
	if err != nil {
		return fail(err)
	}
	raw := metadata.ConfigFor(rc)
	raw.APIPath = "/never-sent"
	raw.GroupVersion = &schema.GroupVersion{}
	client, err := rest.RESTClientForConfigAndClient(raw, httpClient)
	if err != nil {
		return fail(err)
	}
	meta, err := metadata.NewForConfigAndClient(rc, httpClient)
	if err != nil {
		return fail(err)
	}
	dyn, err := dynamic.NewForConfigAndClient(rc, httpClient)
	if err != nil {
		return fail(err)
	}
	disco, err := discovery.NewDiscoveryClientForConfigAndClient(rc, httpClient)
	if err != nil {
		return fail(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	c := &Cluster{
		config: config, client: client, dynamic: dyn, metadata: meta, discovery: disco,
		slots: make(chan struct{}, config.Concurrency), requests: requests,
		mapper:  mapper{lock: make(chan struct{}, 1)},
		changes: changes{signal: make(chan struct{}, 1), keys: map[Key]struct{}{}},
		ctx:     ctx, cancel: cancel,
		places:      map[place]*reflection{},
		scopes:      map[Scope]map[place]struct{}{},
		absent:      map[Scope]map[Kind]struct{}{},
		unresolved:  map[Kind]error{},
		namespaces:  map[string]struct{}{},
		inventories: map[Scope]*inventory{},
	}
	c.pods.init()
	c.health.init()
	return c, nil
}

// Close ends all watches and waits until they have ended.
func (c *Cluster) Close() {
	c.cancel()
	c.wg.Wait()
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

// FromKubeconfig reads a kubeconfig as kubectl does: path, else $KUBECONFIG,
// else ~/.kube/config, else the service account of the pod that we run in.
// context "" means the current one. It returns the context's namespace too.
func FromKubeconfig(path, context string) (*rest.Config, string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = path
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: context})
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, "", fmt.Errorf("read kubeconfig: %w", err)
	}
	namespace, _, err := loader.Namespace()
	if err != nil {
		return nil, "", fmt.Errorf("read kubeconfig: %w", err)
	}
	return config, namespace, nil
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
	return ctx, func() { cancel(); <-c.slots }, nil
}
