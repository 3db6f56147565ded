package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/pinion-cd/pinion/api"
	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/notify/deliver"
	"github.com/pinion-cd/pinion/reconcile"
	"github.com/pinion-cd/pinion/reconcile/check"
	"github.com/pinion-cd/pinion/reconcile/cluster"
)

func newRunCommand(g *globals) *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon",
		Long: `Watch a deployment repository and keep the clusters as its newest commit says.

It needs no configuration file: --repo, --branch and --kubeconfig are enough.
GET /healthz, /readyz and /metrics are served on --listen.

All that it keeps on disk is a mirror of the repository, which can be thrown
away. It runs until SIGTERM or SIGINT.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return g.daemon(cmd.Context(), cmd, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.branch, "branch", "main", "branch to follow")
	f.DurationVar(&o.poll, "poll", time.Minute, "time between two looks at the remote; a repository on this machine is watched as well")
	f.StringVar(&o.dataDir, "data-dir", "", "folder for the mirror (default: in the user's cache folder)")
	f.StringVar(&o.listen, "listen", "127.0.0.1:8080", "address of the HTTP server; port 0 takes a free one")
	f.BoolVar(&o.leaderElect, "leader-elect", false, "run beside other replicas: one leads, the others stand by")
	f.StringVar(&o.shard, "shard", "", "keep only this part of the environments beside other replicas: 0/3, or auto/3 in a StatefulSet")
	f.StringArrayVar(&o.allow, "outbound-allow", nil, "host that the repository may have asked, besides outbound.allow of the configuration: NAME, *.DOMAIN, either with :PORT, NETWORK/BITS, or *")
	f.BoolVar(&o.allowRewrite, "allow-rewrite", false, "follow the branch when it was force-pushed")
	return cmd
}

type runOptions struct {
	branch, dataDir, listen, shard string
	poll                           time.Duration
	allowRewrite, leaderElect      bool
	allow                          []string // hosts
}

// merge takes the flags that were given over into the configuration, and the
// defaults where neither says anything.
func (c *config) merge(g *globals, cmd *cobra.Command, o runOptions) {
	set := cmd.Flags().Changed
	if g.repo != "" {
		c.Repository.URL = g.repo
	}
	if set("branch") || c.Repository.Branch == "" {
		c.Repository.Branch = o.branch
	}
	if set("poll") || c.Repository.Poll == 0 {
		c.Repository.Poll = o.poll
	}
	if set("allow-rewrite") {
		c.Repository.AllowRewrite = o.allowRewrite
	}
	if set("listen") || c.Listen == "" {
		c.Listen = o.listen
	}
	if set("data-dir") {
		c.DataDir = o.dataDir
	}
	if set("shard") {
		c.Shard = o.shard
	}
	if set("outbound-allow") {
		c.Outbound.Allow = append(c.Outbound.Allow, o.allow...)
	}
	if set("leader-elect") {
		switch {
		case !o.leaderElect:
			c.LeaderElection = nil
		case c.LeaderElection == nil:
			c.LeaderElection = &leaderElectionConfig{}
		}
	}
}

func (g *globals) daemon(ctx context.Context, cmd *cobra.Command, o runOptions) error {
	config, err := g.readConfig()
	if err != nil {
		return err
	}
	if err := g.noFormat(); err != nil {
		return err
	}
	config.merge(g, cmd, o)
	if config.Repository.Poll < 0 {
		return fmt.Errorf("run: --poll %s is negative; give a time such as 1m", config.Repository.Poll)
	}
	if config.Repository.URL == "" {
		return errors.New("run: no repository; give --repo URL, or repository.url in the configuration")
	}
	logger, err := config.logger(g)
	if err != nil {
		return err
	}
	slog.SetDefault(logger)
	if logger.Enabled(ctx, slog.LevelDebug) {
		klog.SetSlogLogger(logger)
	}
	dir, err := config.dataDir()
	if err != nil {
		return err
	}
	options, err := config.Repository.options()
	if err != nil {
		return err
	}
	options.Dir = filepath.Join(dir, "mirror")
	options.Logger = logger
	name := gitstate.Redact(config.Repository.URL)

	ctx, stop := context.WithCancelCause(ctx)
	var wait sync.WaitGroup
	defer func() {
		stop(nil) // before the wait, for what is waited for ends with ctx
		wait.Wait()
	}()
	secure, err := config.API.certificate(logger)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", config.Listen)
	if err != nil {
		return fmt.Errorf("listen for HTTP: %w; choose another address with --listen", err)
	}
	m := newMetrics()
	known := &waitingClusters{ready: make(chan struct{})}
	access, err := config.access(known)
	if err != nil {
		return err
	}
	access.Log = logger
	answers, err := api.New(access)
	if err != nil {
		return err
	}
	s := newServer(m, answers, newHooks(config.Forge, logger), &registryHooks{turnstile: turnstile{log: logger}, config: config.Registry})
	s.alone = config.LeaderElection == nil && config.Shard == ""
	wait.Go(func() { stop(s.serve(ctx, listener, secure.server())) })
	wait.Go(func() { keepSmall(ctx) })
	logger.Info("pinion is up", "repository", name, "branch", config.Repository.Branch, "listen", listener.Addr().String(), "dataDir", dir)

	renderer, closePool, err := config.renderer()
	if err != nil {
		return err
	}
	defer closePool()
	clusters, err := g.clusters(ctx, config, connecting{repository: name, logger: logger, records: filepath.Join(dir, "clusters"), lenient: len(config.Clusters) > 1})
	if err != nil {
		return err
	}
	defer closeClusters(clusters)
	known.all = clusters
	close(known.ready)
	self, err := config.replica(clusters, listener.Addr(), logger)
	if err != nil {
		return err
	}
	self.secure(secure)
	s.replica.Store(self)
	s.hooks.self.Store(self)
	s.notices.self.Store(self)
	mirror, err := openMirror(ctx, options, logger)
	if err != nil {
		return err
	}
	defer mirror.Close()

	report := logEvents(logger)
	if config.Log.Format == "" {
		p := newProgress(g.err)
		defer p.start()()
		report = p.report
	}
	at, err := config.atForge(forging{mirror, renderer, clusters, self.terms(), logger, m})
	if err != nil {
		return err
	}
	defer func() { stop(nil); wait.Wait(); at.close() }() // its workers serve until it has ended
	tracer, err := newTracer(ctx, name)
	if err != nil {
		return err
	}
	defer func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := tracer.close(grace); err != nil {
			logger.Warn("the last traces could not be sent", "error", err)
		}
	}()
	report = tee(m.count, tracer.take, report)
	index := history.NewIndex(mirror, mirror.Heads)
	wait.Go(func() { index.Run(ctx) })
	// Clerk and courier are made after the engine, and hear nothing before that.
	var clerk *reconcile.Clerk
	var courier *deliver.Courier
	engine := reconcile.NewEngine(reconcile.Options{
		Commits:    mirror,
		Renderer:   renderer,
		Clusters:   clusters,
		Fences:     config.fences(),
		Repository: name,
		Tenure:     self.terms(),
		Report: func(ev reconcile.Event) {
			if ev.Type == reconcile.EventCommit {
				s.ready.Store(true)
				courier.Moved()
			}
			report(ev)
		},
		Sight:      func(seen reconcile.Sighting) { clerk.See(seen) },
		Drift:      func(d reconcile.Drift) { clerk.Drifted(d) },
		Completed:  func(k reconcile.Key, manifests string) (done, known bool) { return clerk.Completed(k, manifests) },
		State:      func(k reconcile.Key, manifests string) (ledger.State, bool) { return clerk.State(k, manifests) },
		Compare:    config.Apply.compare(),
		Jobs:       config.Apply.services(),
		Renderings: config.Render.processes(),
	})
	announcer := reconcile.NewAnnouncer(engine, logger)
	keeps, err := config.clerkOptions(clusters, dir)
	if err != nil {
		return err
	}
	keeps.Mirror, keeps.Tenure, keeps.Known, keeps.Propose = mirror, self.terms(), at.know, at.propose()
	settled := settledFile{filepath.Join(dir, "settled"), name, logger}
	if config.Repository.AllowRewrite {
		settled.remove() // what is known of a history may not be true of the next
	} else {
		keeps.Settled, keeps.Settle = settled.read(), settled.write
	}
	keeps.Report = func(ev reconcile.Event) { announcer.Tell(ev); report(ev) }
	keeps.Pushed = func(entries, moves int, took time.Duration) {
		m.pushed(entries, moves, took)
		courier.Moved()
		index.Poke()
	}
	registries, err := config.registries(m.asked)
	if err != nil {
		return err
	}
	defer registries.Close()
	watcher := config.watcher(registries, func(ctx context.Context, found []artifact.Sighting) error { return clerk.Found(ctx, found) }, report, logger)
	s.notices.watcher.Store(watcher)
	keeps.Tracked = watcher.Know
	clerk = reconcile.NewClerk(keeps, engine)
	if courier, err = config.courier(mirror, engine, self.terms(), logger); err != nil {
		return err
	}
	m.live.Store(&live{engine, renderer, clusters, mirror, self, courier, watcher})
	present := history.NewPresent(mirror, config.Repository.Branch, mirror.Heads)
	writer, err := config.writer(mirror, present, self)
	if err != nil {
		return err
	}
	s.api.Open(&api.Backend{Present: present, Index: index, Clerk: clerk, Writer: writer, Reconciler: sooner{mirror, engine}, Reading: reading(watcher), Forward: self.forwarder()})
	commits := make(chan string, 1)
	moved := func() { self.follow(ctx, mirror, logger); clerk.Moved(); courier.Moved(); index.Poke() }
	moved()
	at.run(ctx, clerk, &wait)
	wait.Go(func() { s.hooks.run(ctx, func() { mirror.Poke(); at.wake() }) })
	wait.Go(func() { self.relay(ctx, logger) })
	wait.Go(func() { announcer.Run(ctx) })
	wait.Go(func() { follow(ctx, mirror, commits, clerk.Busy, moved, m, logger) })
	var writers sync.WaitGroup
	self.run(ctx, &writers)
	writers.Go(func() { stop(clerk.Run(ctx)) })
	writers.Go(func() { courier.Run(ctx) })
	writers.Go(func() { watcher.Run(ctx) })
	err = engine.Run(ctx, commits)
	stop(err)
	writers.Wait()
	self.release(ctx, logger)
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	logger.Info("pinion is down")
	return nil
}

// clerkOptions are what the configuration says of who keeps the ledgers.
func (c *config) clerkOptions(clusters map[desired.ClusterName]*cluster.Cluster, dir string) (o reconcile.ClerkOptions, err error) {
	signer, err := c.Identity.signer()
	if err != nil {
		return o, err
	}
	if signer != nil {
		o.Sign = signer.Sign
	}
	o.AllowRewrite = c.Repository.AllowRewrite
	if o.Digests, err = c.digestKey(dir); err != nil {
		return o, err
	}
	if o.Trigger, err = c.trigger(); err != nil {
		return o, err
	}
	allow, err := c.Outbound.allow()
	o.Branch, o.Identity, o.Checks = c.Repository.Branch, c.Identity.person(), check.New(clusters, check.Options{Allow: allow})
	return o, err
}

// digestKey returns the key under which a ledger shows the values of Secrets.
// It is made at the first start. If it is lost, all of them look changed once;
// so replicas that take over from each other are given the same one.
func (c *config) digestKey(dir string) ([]byte, error) {
	if c.DigestKeyFile != "" {
		key, err := os.ReadFile(c.DigestKeyFile)
		if err == nil && len(key) < 32 {
			err = fmt.Errorf("%s has %d bytes; make one of 32 with: head -c 32 /dev/urandom", c.DigestKeyFile, len(key))
		}
		if err != nil {
			return nil, fmt.Errorf("read the key for the digests of Secrets: %w", err)
		}
		return key, nil
	}
	path := filepath.Join(dir, "digest.key")
	key, err := os.ReadFile(path)
	if err == nil && len(key) == 32 {
		return key, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the key for the digests of Secrets: %w", err)
	}
	key = make([]byte, 32)
	rand.Read(key)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("keep the key for the digests of Secrets: %w", err)
	}
	if err := os.WriteFile(path, key, 0o600); err != nil {
		return nil, fmt.Errorf("keep the key for the digests of Secrets: %w", err)
	}
	return key, nil
}

// openMirror opens the mirror, again and again until it succeeds: a daemon
// that starts while its remote is down waits for it.
func openMirror(ctx context.Context, options gitstate.Options, logger *slog.Logger) (*gitstate.Mirror, error) {
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		m, err := gitstate.Open(ctx, options)
		if err == nil {
			return m, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		logger.Error("the repository can't be mirrored", "error", err, "retry", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// follow fetches whenever the mirror says so, and sends the tip when it is
// another one. A tip that nobody has taken yet gives way to a newer one, and so does
// one that comes while the clerk is busy.
func follow(ctx context.Context, mirror *gitstate.Mirror, commits chan string, busy func() bool, moved func(), m *metrics, logger *slog.Logger) {
	last, failing := "", ""
	send := func(tip string) {
		if tip == "" || tip == last {
			return
		}
		last = tip
		select {
		case <-commits:
		default:
		}
		commits <- tip
	}
	if tip, ok := mirror.Tip(); ok {
		send(tip)
	}
	look := mirror.Watch(ctx)
	for {
		start := time.Now()
		tip, err := mirror.Fetch(ctx)
		if ctx.Err() != nil {
			return
		}
		m.fetched(time.Since(start), err)
		switch {
		case err != nil && err.Error() != failing:
			failing = err.Error()
			logger.Error("the repository can't be fetched; the last commit stays", "error", err)
		case err == nil:
			if failing != "" {
				logger.Info("the repository can be fetched again")
			}
			failing = ""
			if !busy() {
				send(tip.Commit)
			}
			moved()
		}
		select {
		case <-look:
		case <-ctx.Done():
			return
		}
	}
}

// tee passes an event on to each of those who listen.
func tee(all ...func(reconcile.Event)) func(reconcile.Event) {
	return func(ev reconcile.Event) {
		for _, f := range all {
			f(ev)
		}
	}
}

// logEvents writes events to the log.
func logEvents(logger *slog.Logger) func(reconcile.Event) { return logEventsAt(logger, time.Now) }

// logEventsAt is logEvents, with a clock.
func logEventsAt(logger *slog.Logger, now func() time.Time) func(reconcile.Event) {
	told := &repeats{}
	return func(ev reconcile.Event) {
		switch ev.Type {
		case reconcile.EventPhase:
			more, worth := told.worth(ev, now())
			if ev.Message += more; !worth {
				return
			}
		case reconcile.EventCommit:
			told.gone(reconcile.Key{Environment: ev.Environment, Service: ev.Service})
		}
		level := slog.LevelInfo
		switch {
		case ev.Type == reconcile.EventProblem && ev.Severity == desired.SeverityWarning:
			level = slog.LevelWarn
		case ev.Type == reconcile.EventProblem, ev.Type == reconcile.EventHalted, ev.Phase == reconcile.Failed:
			level = slog.LevelError
		case ev.Type == reconcile.EventWarning, ev.Type == reconcile.EventDrifted, ev.Phase == reconcile.Degraded:
			level = slog.LevelWarn
		}
		var attrs []any
		add := func(key, value string) {
			if value != "" {
				attrs = append(attrs, key, value)
			}
		}
		add("environment", string(ev.Environment))
		add("service", string(ev.Service))
		add("state", string(ev.Phase))
		add("version", ev.Version)
		add("deployment", ev.Deployment)
		add("commit", ev.Commit)
		add("entry", ev.Recorded)
		add("message", ev.Message)
		if ev.Entry != nil {
			add("event", string(ev.Entry.Event))
		}
		logger.Log(context.Background(), level, string(ev.Type), attrs...)
	}
}
