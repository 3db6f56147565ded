package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pinion-cd/pinion/api"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
	"github.com/pinion-cd/pinion/reconcile/cluster"
)

// leaderElectionConfig says how several replicas share the work.
type leaderElectionConfig struct {
	Cluster       desired.ClusterName `yaml:"cluster,omitempty"`
	Namespace     string              `yaml:"namespace,omitempty"`
	Name          string              `yaml:"name,omitempty"`
	Address       string              `yaml:"address,omitempty"`
	LeaseDuration time.Duration       `yaml:"leaseDuration,omitempty"`
	RenewDeadline time.Duration       `yaml:"renewDeadline,omitempty"`
	RetryPeriod   time.Duration       `yaml:"retryPeriod,omitempty"`
}

// complete puts the defaults in, and refuses what can't be kept.
func (c *leaderElectionConfig) complete() error {
	c.Cluster = cmp.Or(c.Cluster, "default")
	c.Namespace = cmp.Or(c.Namespace, "pinion")
	c.Name = cmp.Or(c.Name, "pinion")
	c.LeaseDuration = cmp.Or(c.LeaseDuration, 15*time.Second)
	c.RenewDeadline = cmp.Or(c.RenewDeadline, 10*time.Second)
	c.RetryPeriod = cmp.Or(c.RetryPeriod, 2*time.Second)
	switch {
	case c.RetryPeriod < 0 || c.LeaseDuration < time.Second:
		return fmt.Errorf("leaderElection: leaseDuration is %s and retryPeriod %s; leave them out for 15s and 2s, a lease lasts 1s at least", c.LeaseDuration, c.RetryPeriod)
	case c.LeaseDuration <= c.RenewDeadline:
		return fmt.Errorf("leaderElection: leaseDuration %s is not longer than renewDeadline %s; the difference is what a late request has to arrive", c.LeaseDuration, c.RenewDeadline)
	case c.RenewDeadline <= c.RetryPeriod:
		return fmt.Errorf("leaderElection: renewDeadline %s is not longer than retryPeriod %s; no lease could be kept", c.RenewDeadline, c.RetryPeriod)
	}
	return nil
}

// replica is what a daemon is beside others that follow the same repository.
// Its nil value is a daemon that is alone.
type replica struct {
	leases *cluster.Leases
	tenure *reconcile.Tenure
	shard  reconcile.Shard // zero: one replica leads, the others stand by
	name   string          // of the lease, or what their names begin with
	client *http.Client
	scheme string                                    // by which the others answer
	known  atomic.Pointer[[]desired.EnvironmentName] // of all shards, as far as they are known

	deliveries chan relayed // to be handed on
}

// replica makes one, if the configuration or a flag asks for it.
func (c *config) replica(clusters map[desired.ClusterName]*cluster.Cluster, listener net.Addr, logger *slog.Logger) (*replica, error) {
	if c.LeaderElection == nil && c.Shard == "" {
		return nil, nil
	}
	e := leaderElectionConfig{}
	if c.LeaderElection != nil {
		e = *c.LeaderElection
	}
	if err := e.complete(); err != nil {
		return nil, err
	}
	cl := clusters[e.Cluster]
	if cl == nil {
		return nil, fmt.Errorf("leaderElection: cluster %q is not in the configuration", e.Cluster)
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("leaderElection: find this replica's name: %w", err)
	}
	r := &replica{name: e.Name, client: peerClient(nil), scheme: "http", deliveries: make(chan relayed, mostRelayed)}
	r.known.Store(&[]desired.EnvironmentName{})
	if c.Shard != "" {
		if r.shard, err = reconcile.ParseShard(c.Shard, host); err != nil {
			return nil, err
		}
	}
	random := make([]byte, 4)
	rand.Read(random)
	o := cluster.LeaseOptions{
		Namespace: e.Namespace, Name: e.Name, Identity: host + "_" + hex.EncodeToString(random), Address: addressOf(e.Address, listener),
		Duration: e.LeaseDuration, Deadline: e.RenewDeadline, Retry: e.RetryPeriod,
	}
	r.leases = cl.Leases(o)
	r.tenure = reconcile.NewTenure(r.leases, r.lease)
	if r.shard.Count == 0 {
		r.leases.Want(e.Name)
		logger.Info("one replica leads", "identity", o.Identity, "lease", e.Namespace+"/"+e.Name, "address", o.Address)
	} else {
		logger.Info("the environments are shared", "identity", o.Identity, "shard", r.shard.String(), "leases", e.Namespace+"/"+e.Name+"-*", "address", o.Address)
	}
	return r, nil
}

// peerClient returns what asks other replicas. A caller's token goes with the
// request, so it goes straight there: through no proxy, and after no redirect.
func peerClient(t *tls.Config) *http.Client {
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: t, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// secure has the others asked over TLS, if this one answers so.
func (r *replica) secure(x *certificate) {
	if r != nil && x != nil {
		r.scheme = "https"
		r.client = peerClient(x.peer())
	}
}

// lease names the lease of an environment.
func (r *replica) lease(env desired.EnvironmentName) string {
	if r.shard.Count == 0 {
		return r.name
	}
	return r.name + "-" + string(env)
}

// addressOf is where other replicas reach this one.
func addressOf(configured string, listener net.Addr) string {
	if configured != "" {
		return configured
	}
	host, port, err := net.SplitHostPort(listener.String())
	if err != nil {
		return ""
	}
	if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
		return listener.String()
	}
	if pod := os.Getenv("POD_IP"); pod != "" {
		return net.JoinHostPort(pod, port)
	}
	addresses, _ := net.InterfaceAddrs()
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			return net.JoinHostPort(n.IP.String(), port)
		}
	}
	return ""
}

// follow competes for the environments that the repository has, or had: what
// was removed has to be cleaned up by somebody.
func (r *replica) follow(ctx context.Context, mirror *gitstate.Mirror, logger *slog.Logger) {
	if r == nil || r.shard.Count == 0 {
		return
	}
	var names []string
	var known []desired.EnvironmentName
	want := func(env string) {
		known = append(known, desired.EnvironmentName(env))
		if env != "" && r.shard.Wants(desired.EnvironmentName(env)) {
			names = append(names, r.lease(desired.EnvironmentName(env)))
		}
	}
	for branch := range mirror.Branches() {
		if env, ok := strings.CutPrefix(branch, ledger.Branch("")); ok {
			want(env)
		}
	}
	tip, ok := mirror.Tip()
	if !ok {
		return
	}
	snap, err := mirror.Snapshot(ctx, tip)
	if err == nil {
		entries, dirErr := snap.ReadDir("environments")
		err = dirErr
		for _, e := range entries {
			if env, ok := strings.CutSuffix(e.Name(), ".yaml"); ok && !e.IsDir() {
				want(env)
			}
		}
	}
	if err != nil && ctx.Err() == nil {
		logger.Error("the environments of the newest commit can't be listed; those that are known stay", "error", err)
	}
	slices.Sort(known)
	known = slices.Compact(known)
	r.known.Store(&known)
	r.leases.Want(names...)
}

// terms says which environments are this replica's.
func (r *replica) terms() *reconcile.Tenure {
	if r == nil {
		return nil
	}
	return r.tenure
}

// run has the leases competed for until ctx ends.
func (r *replica) run(ctx context.Context, wait *sync.WaitGroup) {
	if r != nil {
		wait.Go(func() { r.leases.Run(ctx) })
	}
}

// release gives up what this replica has, now that it writes no more.
func (r *replica) release(ctx context.Context, logger *slog.Logger) {
	if r == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	if err := r.leases.Release(ctx); err != nil {
		logger.Warn("a lease could not be released; others take it when it has run out", "error", err)
	}
}

// releaseTime bounds how long a daemon that ends tries to give up its leases.
const releaseTime = 5 * time.Second

// held returns 1 for each lease that this replica has, and 0 for each other one
// that it competes for.
func (r *replica) held() map[string]float64 {
	all := map[string]float64{}
	for _, name := range r.leases.Wanted() {
		all[name] = 0
		if r.leases.Term(name) != nil {
			all[name] = 1
		}
	}
	return all
}

// ready tells whether this replica can take over, if it does not lead.
func (r *replica) ready() bool { return r.leases.Ready() }

// forwardedBy is on a request that one replica passes on to another. It is
// passed on once: who gets it and has not the environment says so.
const forwardedBy = "Pinion-Forwarded-By"

// forwarder passes requests on; nil for a daemon that is alone.
func (r *replica) forwarder() api.Forwarder {
	if r == nil {
		return nil
	}
	return r
}

// Forward passes a request on to the replica that has its environment. It
// returns false if the environment is ours.
func (r *replica) Forward(w http.ResponseWriter, req *http.Request, env desired.EnvironmentName, body []byte) (bool, *api.Problem) {
	if r.tenure.Has(env) {
		return false, nil
	}
	h := r.tenure.Holder(env)
	switch {
	case h.Identity == "" || h.Identity == r.leases.Identity():
		return true, api.Refusal(api.NotOurs, "no replica has environment %s now; ask again when one has taken it over", env)
	case h.Address == "" || req.Header.Get(forwardedBy) != "":
		return true, api.Refusal(api.NotOurs, "environment %s is kept by replica %s; ask that one", env, h.Identity)
	}
	ctx, cancel := context.WithTimeout(req.Context(), api.AnswerTime)
	defer cancel()
	again, err := http.NewRequestWithContext(ctx, req.Method, r.scheme+"://"+h.Address+req.URL.Path, bytes.NewReader(body))
	if err == nil {
		for _, name := range []string{"Authorization", "Content-Type"} {
			if v := req.Header.Get(name); v != "" {
				again.Header.Set(name, v)
			}
		}
		again.Header.Set(forwardedBy, r.leases.Identity())
		var resp *http.Response
		if resp, err = r.client.Do(again); err == nil {
			defer resp.Body.Close()
			for _, name := range []string{"Content-Type", "Cache-Control", "WWW-Authenticate", "Retry-After"} {
				if v := resp.Header.Get(name); v != "" {
					w.Header().Set(name, v)
				}
			}
			w.WriteHeader(resp.StatusCode)
			io.Copy(w, io.LimitReader(resp.Body, mostAnswer))
			return true, nil
		}
	}
	return true, api.Refusal(api.NotOurs,
		"environment %s is kept by replica %s at %s, which could not be asked; whether it was recorded is not known: ask again, nothing is recorded twice", env, h.Identity, h.Address)
}
