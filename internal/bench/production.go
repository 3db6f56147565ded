package main

import (
	"context"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
)

// side is a tool that deploys the applications, in a way of its own.
type side interface {
	// prepare makes what is there before the clock runs.
	prepare(ctx context.Context, c *controlPlane) error
	// install asks for all applications, each with a request of 1m of CPU.
	install(ctx context.Context) error
	// change returns what asks for another request of CPU, in these applications
	// or, if there are none, in all.
	change(ctx context.Context, cpu string, applications ...int) (ask func() error, err error)
	// ready waits until the tool reports as ready all that was asked for, and
	// recorded until it has written that down for good.
	ready(ctx context.Context) error
	recorded(ctx context.Context) error
	// processes are those of the tool that run, and requests is the name under
	// which they count their requests to the API server.
	processes() (running []*daemon, requests string)
	// changes is how often it makes sense to change a single application.
	changes() int
	stop()
}

// The account in whose name each side applies, as in the benchmark of Flux.
const deployer = "flux"

// production measures the work of Flux's own benchmark, Mean Time To
// Production, with Pinion and with Flux: applications of four objects each
// (Deployment scaled to zero, Service, ServiceAccount, Ingress) are installed,
// then all of them are changed, then one at a time; and then nothing happens.
// Each side has a fresh control plane.
func (b *bench) production(ctx context.Context, flux *fluxSide) error {
	sides := []struct {
		name string
		side
	}{{"Pinion", &pinionSide{bench: b}}, {"Flux", flux}}
	var ours *production
	for _, s := range sides {
		p, err := b.produce(ctx, "production-"+s.name, s.side)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if ours == nil {
			ours = p
		}
		fmt.Printf("%s:\n", s.name)
		p.print(b, ours)
	}
	return nil
}

// production is what was measured of one side.
type production struct {
	install, upgrade step
	one              []step
	idle             spent
	peak             float64 // MiB
}

// step is one thing that was asked for.
type step struct {
	// Seconds until all objects were as asked for, until the tool said so, and
	// until it had written that down.
	applied, ready, recorded float64
	spent                    spent
}

// spent is what something took.
type spent struct {
	requests float64
	// CPU time of the tool, of what it has started and what has ended since (git,
	// that of the remote on this machine), and of the control plane.
	tool, git, plane time.Duration
}

func (u spent) since(v spent) spent {
	return spent{u.requests - v.requests, u.tool - v.tool, u.git - v.git, u.plane - v.plane}
}

// print also says what is times what of ours, unless it is ours.
func (p *production) print(b *bench, ours *production) {
	ratio := func(of func(*production) float64) string {
		if p == ours {
			return ""
		}
		return fmt.Sprintf(" (%.2f times Pinion's)", of(p)/of(ours))
	}
	for _, s := range []struct {
		what string
		of   func(*production) step
	}{{"install", func(p *production) step { return p.install }}, {"upgrade", func(p *production) step { return p.upgrade }}} {
		x := s.of(p)
		fmt.Printf("  %s of %d: applied after %s%s, ready after %s%s, recorded after %s%s; %.0f requests; CPU time %s, of git that it started %s, of the control plane %s\n", s.what, b.services,
			seconds(x.applied), ratio(func(p *production) float64 { return s.of(p).applied }),
			seconds(x.ready), ratio(func(p *production) float64 { return s.of(p).ready }),
			seconds(x.recorded), ratio(func(p *production) float64 { return s.of(p).recorded }),
			x.spent.requests, x.spent.tool, x.spent.git, x.spent.plane)
	}
	of := func(p *production, f func(step) float64) float64 {
		var xs []float64
		for _, s := range p.one {
			xs = append(xs, f(s))
		}
		return median(xs)
	}
	applied := func(p *production) float64 { return of(p, func(s step) float64 { return s.applied }) }
	ready := func(p *production) float64 { return of(p, func(s step) float64 { return s.ready }) }
	fmt.Printf("  one changed: applied after %s%s, ready after %s%s; %.0f requests; CPU time %s (medians of %d)\n",
		seconds(applied(p)), ratio(applied), seconds(ready(p)), ratio(ready),
		of(p, func(s step) float64 { return s.spent.requests }), seconds(of(p, func(s step) float64 { return s.spent.tool.Seconds() })), len(p.one))
	fmt.Printf("  idle for %s: %.0f requests, %.2f %% of a core; peak resident memory of its processes together %.0f MiB%s\n",
		b.idle, p.idle.requests, 100*p.idle.tool.Seconds()/b.idle.Seconds(), p.peak, ratio(func(p *production) float64 { return p.peak }))
}

// produce has one side do it all.
func (b *bench) produce(ctx context.Context, name string, s side) (*production, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	c, err := b.startControlPlane(ctx, name)
	if err != nil {
		return nil, err
	}
	defer c.stop()
	if err := makeDeployer(ctx, c); err != nil {
		return nil, err
	}
	deployments, err := c.follow(ctx, "Deployment", requestOfCPU)
	if err != nil {
		return nil, err
	}
	defer deployments.stop()
	if err := s.prepare(ctx, c); err != nil {
		return nil, err
	}
	defer s.stop()
	// One step: what is asked for, and how many objects then have which CPU.
	take := func(n int, cpu string, ask func() error) (t step, err error) {
		before, err := used(c, s)
		if err != nil {
			return t, err
		}
		begun := time.Now()
		if err := ask(); err != nil {
			return t, err
		}
		if err := deployments.until(ctx, n, cpu); err != nil {
			return t, err
		}
		if n == b.services { // a Deployment may be there before its neighbours
			if err := c.allApplied(ctx, b.applications()); err != nil {
				return t, err
			}
		}
		t.applied = time.Since(begun).Seconds()
		if err := s.ready(ctx); err != nil {
			return t, err
		}
		t.ready = time.Since(begun).Seconds()
		if err := s.recorded(ctx); err != nil {
			return t, err
		}
		t.recorded = time.Since(begun).Seconds()
		if err := b.still(ctx, s); err != nil {
			return t, err
		}
		after, err := used(c, s)
		t.spent = after.since(before)
		fmt.Fprintf(os.Stderr, "%s: applied after %s, ready after %s\n", cpu, seconds(t.applied), seconds(t.ready))
		return t, err
	}
	p := &production{}
	if p.install, err = take(b.services, "1m", func() error { return s.install(ctx) }); err != nil {
		return nil, fmt.Errorf("install: %w", err)
	}
	ask, err := s.change(ctx, "2m")
	if err != nil {
		return nil, err
	}
	if p.upgrade, err = take(b.services, "2m", ask); err != nil {
		return nil, fmt.Errorf("upgrade: %w", err)
	}
	for n := range s.changes() {
		cpu := fmt.Sprintf("%dm", 3+n)
		if ask, err = s.change(ctx, cpu, (2*n+1)*b.services/(2*s.changes())); err != nil {
			return nil, err
		}
		t, err := take(1, cpu, ask)
		if err != nil {
			return nil, fmt.Errorf("change of one: %w", err)
		}
		p.one = append(p.one, t)
	}
	before, err := used(c, s)
	if err != nil {
		return nil, err
	}
	select {
	case <-time.After(b.idle):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	after, err := used(c, s)
	if err != nil {
		return nil, err
	}
	p.idle = after.since(before)
	running, _ := s.processes()
	for _, d := range running {
		for _, pid := range d.pids() {
			p.peak += memory(pid, "VmHWM")
		}
	}
	return p, nil
}

// used is what a side has used since it began, and its control plane.
func used(c *controlPlane, s side) (u spent, err error) {
	u.plane = cpuTime(c.cmd.Process.Pid)
	running, name := s.processes()
	for _, d := range running {
		n, err := d.metric(name)
		if err != nil {
			return u, err
		}
		u.requests += n
		u.git += reapedTime(d.cmd.Process.Pid)
		for _, pid := range d.pids() {
			u.tool += cpuTime(pid)
		}
	}
	return u, nil
}

// still waits until a side has sent no request for three seconds.
func (b *bench) still(ctx context.Context, s side) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for last, quiet := -1.0, 0; quiet < 3; {
		sum := 0.0
		running, name := s.processes()
		for _, d := range running {
			n, err := d.metric(name)
			if err != nil {
				return err
			}
			sum += n
		}
		if sum == last {
			quiet++
		} else {
			last, quiet = sum, 0
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("it does not come to rest: %w", ctx.Err())
		}
	}
	return nil
}

// makeDeployer makes the account in whose name all is applied, with all rights
// in the namespace that an administrator of it has.
func makeDeployer(ctx context.Context, c *controlPlane) error {
	kube, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return err
	}
	if _, err := kube.CoreV1().ServiceAccounts("bench").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: deployer}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	_, err = kube.RbacV1().RoleBindings("bench").Create(ctx, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: deployer},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: deployer, Namespace: "bench"}}}, metav1.CreateOptions{})
	return err
}

func requestOfCPU(u *unstructured.Unstructured) string {
	containers, _, _ := unstructured.NestedSlice(u.Object, "spec", "template", "spec", "containers")
	if len(containers) == 0 {
		return ""
	}
	first, _ := containers[0].(map[string]any)
	cpu, _, _ := unstructured.NestedString(first, "resources", "requests", "cpu")
	return cpu
}

// pinionSide reads a git repository on this machine.
type pinionSide struct {
	bench         *bench
	remote, clone string
	config        string
	d             *daemon
	asked         int // deployments so far
}

func (s *pinionSide) prepare(ctx context.Context, c *controlPlane) error {
	s.remote, s.clone, s.config = s.bench.path("applications.git"), s.bench.path("applications"), s.bench.path("applications.yaml")
	if err := s.bench.publishApplications(ctx, s.remote, s.clone, "1m"); err != nil {
		return err
	}
	text := fmt.Sprintf("apiVersion: pinion.dev/v1\nkind: Config\nclusters:\n  default: {kubeconfig: %s, requests: %d}\n", c.kubeconfig, s.bench.connections)
	return os.WriteFile(s.config, []byte(text), 0o644)
}

func (s *pinionSide) install(context.Context) (err error) {
	s.asked = s.bench.services
	s.d, err = s.bench.startDaemonWith(s.config, s.remote, s.bench.path("applications-data"))
	return err
}

func (s *pinionSide) change(ctx context.Context, cpu string, applications ...int) (func() error, error) {
	n, err := s.bench.commitApplications(ctx, s.clone, cpu, applications)
	return func() error {
		s.asked += n
		return s.bench.git(ctx, "-C", s.clone, "push", "-q", "origin", "main")
	}, err
}

func (s *pinionSide) ready(ctx context.Context) error {
	return s.counts(ctx, s.bench.services, "pinion_services", `state="ready"`)
}

// A deployment's end is on the ledger.
func (s *pinionSide) recorded(ctx context.Context) error {
	return s.counts(ctx, s.asked, "pinion_ledger_entries_total", `event="completed"`)
}

// counts waits until a metric has come to a number.
func (s *pinionSide) counts(ctx context.Context, want int, metric, label string) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		have, err := s.d.metric(metric, label)
		if err != nil || have >= float64(want) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s with %s was %.0f of %d in time: %w", metric, label, have, want, ctx.Err())
		}
	}
}

func (s *pinionSide) processes() ([]*daemon, string) {
	if s.d == nil {
		return nil, ""
	}
	return []*daemon{s.d}, "pinion_kubernetes_requests_total"
}

func (s *pinionSide) changes() int { return 5 }

func (s *pinionSide) stop() {
	if s.d != nil {
		s.d.stop()
	}
}
