package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/forge/rest"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/notify/deliver"
	"github.com/pinion-cd/pinion/reconcile"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/registry"
	"github.com/pinion-cd/pinion/registry/watch"
)

// metrics are the daemon's figures for Prometheus. docs/metrics.md lists them.
type metrics struct {
	registry   *prometheus.Registry
	fetches    *prometheus.CounterVec
	fetch      prometheus.Histogram
	events     *prometheus.CounterVec
	commits    prometheus.Counter
	entries    *prometheus.CounterVec
	moves      prometheus.Counter
	push       prometheus.Histogram
	registries *prometheus.CounterVec
	forge      *prometheus.CounterVec

	seen  sync.Map             // the environments that have been seen
	hosts sync.Map             // the registries that have been asked
	live  atomic.Pointer[live] // nil until the daemon has them
}

// live is what is asked at each scrape.
type live struct {
	engine   *reconcile.Engine
	renderer reconcile.Renderer
	clusters map[desired.ClusterName]*cluster.Cluster
	mirror   *gitstate.Mirror
	replica  *replica // nil: there are no others
	courier  *deliver.Courier
	watcher  *watch.Watcher
}

var (
	servicesDesc = prometheus.NewDesc("pinion_services", "Services by environment and state.", []string{"environment", "state"}, nil)
	rendersDesc  = prometheus.NewDesc("pinion_renders_total", "Renderings of a service that no earlier result could stand for.", nil, nil)
	pushesDesc   = prometheus.NewDesc("pinion_git_pushes_total", "Requests to move branches that were sent to the remote.", nil, nil)
	newsDesc     = prometheus.NewDesc("pinion_news_waiting", "News that wait to be told, by sink.", []string{"sink"}, nil)
	toldDesc     = prometheus.NewDesc("pinion_news_sent_total", "News that were taken, by sink.", []string{"sink"}, nil)
	untakenDesc  = prometheus.NewDesc("pinion_news_failures_total", "Requests to sinks whose news were not taken, by sink.", []string{"sink"}, nil)
	shutDesc     = prometheus.NewDesc("pinion_news_shut", "Branches of whose news a sink is told nothing, for how far it was told can't be read, by sink.", []string{"sink"}, nil)
	givenUpDesc  = prometheus.NewDesc("pinion_news_given_up_total", "News that were tried in vain for three days, by sink.", []string{"sink"}, nil)
	leaderDesc   = prometheus.NewDesc("pinion_leader", "Whether this replica holds a lease that it competes for, by lease.", []string{"lease"}, nil)
	lookedDesc   = prometheus.NewDesc("pinion_registry_last_success_timestamp_seconds", "When a repository of a registry was last read, by host.", []string{"host"}, nil)
	failsDesc    = prometheus.NewDesc("pinion_registry_failing_since_timestamp_seconds", "Since when a registry, or a repository of it, can't be read; 0 if it can, by host.", []string{"host"}, nil)
	restsDesc    = prometheus.NewDesc("pinion_registry_backoff_seconds", "For how long a registry is left alone from now on, by host.", []string{"host"}, nil)
	requestsDesc = prometheus.NewDesc("pinion_kubernetes_requests_total", "Requests sent to the API server, by cluster and verb.", []string{"cluster", "verb"}, nil)
)

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pinion_git_fetches_total", Help: "Fetches from the deployment repository, by result.",
		}, []string{"result"}),
		fetch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pinion_git_fetch_duration_seconds", Help: "Time that a fetch from the deployment repository took, in seconds.",
			Buckets: []float64{.01, .03, .1, .3, 1, 3, 10, 30, 60},
		}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pinion_events_total", Help: "What the reconciler has reported, by type.",
		}, []string{"type"}),
		commits: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pinion_commits_total", Help: "Commits of the deployment repository that were read.",
		}),
	}
	m.entries = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pinion_ledger_entries_total", Help: "Entries that were pushed to the ledgers, by environment and event.",
	}, []string{"environment", "event"})
	m.moves = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "pinion_promotions_total", Help: "Promotions and rollbacks that were pushed to the main branch.",
	})
	m.push = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "pinion_git_push_duration_seconds", Help: "Time that a push of entries, promotions and rollbacks took, in seconds.",
		Buckets: []float64{.01, .03, .1, .3, 1, 3, 10, 30, 60},
	})
	m.registries = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pinion_registry_requests_total", Help: "Requests to registries of artifacts, by host and result.",
	}, []string{"host", "result"})
	m.forge = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pinion_forge_requests_total", Help: "Requests to the forge of the deployment repository, by result.",
	}, []string{"result"})
	m.registry.MustRegister(m.registries, m.forge, m.fetches, m.fetch, m.events, m.commits, m.entries, m.moves, m.push, liveMetrics{m},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) fetched(took time.Duration, err error) {
	result := "success"
	if err != nil {
		result = "failure"
	}
	m.fetches.WithLabelValues(result).Inc()
	m.fetch.Observe(took.Seconds())
}

func (m *metrics) count(ev reconcile.Event) {
	if _, known := m.seen.LoadOrStore(ev.Environment, true); !known && ev.Environment != "" {
		// A counter that begins at 1 shows no increase, and no alert fires.
		for _, e := range ledger.Events {
			m.entries.WithLabelValues(string(ev.Environment), string(e))
		}
	}
	m.events.WithLabelValues(string(ev.Type)).Inc()
	if ev.Type == reconcile.EventCommit && ev.Service == "" {
		m.commits.Inc()
	}
	switch {
	case ev.Entry != nil:
		m.entries.WithLabelValues(string(ev.Environment), string(ev.Entry.Event)).Inc()
	case ev.Type == reconcile.EventMoved:
		m.moves.Inc()
	}
}

// pushed notes a push, whatever became of it.
func (m *metrics) pushed(_, _ int, took time.Duration) { m.push.Observe(took.Seconds()) }

// asked notes a request to a registry. A redirect may lead to any host that the
// operator admits, and so to ever new ones: these are counted together.
func (m *metrics) asked(host string, r registry.Result) {
	now := m.live.Load()
	if now == nil {
		host = "other"
	} else if _, known := now.watcher.Hosts()[registry.Known(host)]; !known {
		host = "other"
	} else {
		host = registry.Known(host)
	}
	if _, known := m.hosts.LoadOrStore(host, true); !known {
		for _, r := range registry.Results {
			m.registries.WithLabelValues(host, string(r))
		}
	}
	m.registries.WithLabelValues(host, string(r)).Inc()
}

// talksToForge has the requests to the forge shown before there was one.
func (m *metrics) talksToForge() {
	for _, r := range rest.Results {
		m.forge.WithLabelValues(string(r))
	}
}

// askedForge notes a request to the forge.
func (m *metrics) askedForge(r rest.Result) { m.forge.WithLabelValues(string(r)).Inc() }

// liveMetrics asks the engine and the clusters at each scrape.
type liveMetrics struct{ m *metrics }

func (l liveMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- servicesDesc
	ch <- leaderDesc
	ch <- newsDesc
	ch <- toldDesc
	ch <- untakenDesc
	ch <- givenUpDesc
	ch <- shutDesc
	ch <- lookedDesc
	ch <- failsDesc
	ch <- restsDesc
	ch <- requestsDesc
	ch <- rendersDesc
	ch <- pushesDesc
}

func (l liveMetrics) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	now := l.m.live.Load()
	if now == nil {
		return
	}
	ch <- prometheus.MustNewConstMetric(pushesDesc, prometheus.CounterValue, float64(now.mirror.Pushes()))
	ch <- prometheus.MustNewConstMetric(rendersDesc, prometheus.CounterValue, float64(now.renderer.Renderings.Load()))
	if now.replica != nil {
		for name, held := range now.replica.held() {
			ch <- prometheus.MustNewConstMetric(leaderDesc, prometheus.GaugeValue, held, name)
		}
	}
	for name, n := range now.courier.Counts() {
		ch <- prometheus.MustNewConstMetric(newsDesc, prometheus.GaugeValue, float64(n.Waiting), name)
		ch <- prometheus.MustNewConstMetric(toldDesc, prometheus.CounterValue, float64(n.Sent), name)
		ch <- prometheus.MustNewConstMetric(untakenDesc, prometheus.CounterValue, float64(n.Failed), name)
		ch <- prometheus.MustNewConstMetric(givenUpDesc, prometheus.CounterValue, float64(n.GivenUp), name)
		ch <- prometheus.MustNewConstMetric(shutDesc, prometheus.GaugeValue, float64(n.Shut), name)
	}
	at := time.Now()
	for name, h := range now.watcher.Hosts() {
		if !h.Success.IsZero() {
			ch <- prometheus.MustNewConstMetric(lookedDesc, prometheus.GaugeValue, float64(h.Success.UnixMilli())/1000, name)
		}
		failing := 0.0
		if !h.Failing.IsZero() {
			failing = float64(h.Failing.UnixMilli()) / 1000
		}
		ch <- prometheus.MustNewConstMetric(failsDesc, prometheus.GaugeValue, failing, name)
		ch <- prometheus.MustNewConstMetric(restsDesc, prometheus.GaugeValue, max(0, h.Until.Sub(at).Seconds()), name)
	}
	for name, c := range now.clusters {
		for verb, n := range c.Requests() {
			ch <- prometheus.MustNewConstMetric(requestsDesc, prometheus.CounterValue, float64(n), string(name), verb)
		}
	}
	status, err := now.engine.Status(ctx)
	if err != nil {
		return // shutting down
	}
	type group struct{ environment, state string }
	counts := map[group]int{}
	for _, s := range status.Services {
		counts[group{string(s.Environment), string(s.Phase)}]++
	}
	for g, n := range counts {
		ch <- prometheus.MustNewConstMetric(servicesDesc, prometheus.GaugeValue, float64(n), g.environment, g.state)
	}
}
