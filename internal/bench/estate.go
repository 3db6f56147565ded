package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// estateServices is how many services there are in all environments together,
// if -services does not say otherwise.
const estateServices = 10_000

// estate measures what a large estate costs that is at rest: services in
// several environments of one cluster, each with four objects. Then one pin is
// bumped, and then the daemon is started anew.
func (b *bench) estate(ctx context.Context) error {
	services := estateServices
	if b.given {
		services = b.services
	}
	each := services / b.environments
	services = each * b.environments
	remote, clone := b.path("estate.git"), b.path("estate")
	if err := b.makeEstate(ctx, remote, clone, each); err != nil {
		return err
	}
	c, err := b.startControlPlane(ctx, "estate-plane")
	if err != nil {
		return err
	}
	defer c.stop()
	kube, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return err
	}
	for i := range b.environments {
		if _, err := kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: estateEnvironment(i)}}, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	config := b.path("estate.yaml")
	text := fmt.Sprintf("apiVersion: pinion.dev/v1\nkind: Config\nlog: {format: text, level: info}\nclusters:\n  default:\n    kubeconfig: %s\n    requests: %d\n", c.kubeconfig, b.connections)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	fmt.Printf("%d services in %d environments, %d objects\n", services, b.environments, 4*services)
	begun := time.Now()
	d, err := b.startDaemonWith(config, remote, b.path("estate-data"))
	if err != nil {
		return err
	}
	defer func() { d.stop() }()
	if err := b.allReady(ctx, d, services); err != nil {
		return err
	}
	fmt.Printf("from nothing to all ready: %s\n", seconds(time.Since(begun).Seconds()))
	if err := b.atRest(ctx, d); err != nil {
		return err
	}
	_, peak, err := d.process()
	if err != nil {
		return err
	}
	fmt.Printf("after it, all recorded: resident memory %.0f MiB, at its peak %.0f MiB\n", d.resident(), peak)
	if err := b.steady(ctx, d); err != nil {
		return err
	}
	if err := b.bumpEstate(ctx, c, d, clone, each); err != nil {
		return err
	}

	d.stop()
	begun = time.Now()
	if d, err = b.startDaemonWith(config, remote, b.path("estate-data")); err != nil {
		return err
	}
	if err := b.allReady(ctx, d, services); err != nil {
		return err
	}
	took := time.Since(begun)
	counts, err := d.counts()
	if err != nil {
		return err
	}
	renders, err := d.metric("pinion_renders_total")
	if err != nil {
		return err
	}
	kinds := 4 + 1 // and the inventory
	fmt.Printf("a restart with all applied: %s to all ready; %.0f lists (pages of 500 at least needed: %d), %.0f watches, %.0f other reads, %.0f writes; %.0f renderings\n",
		seconds(took.Seconds()), counts.lists, b.environments*((each+499)/500*4+kinds-4), counts.watches, counts.others, counts.writes, renders)
	if err := b.atRest(ctx, d); err != nil {
		return err
	}
	_, peak, err = d.process()
	if err != nil {
		return err
	}
	fmt.Printf("after it: resident memory %.0f MiB, at its peak %.0f MiB\n", d.resident(), peak)
	return b.steady(ctx, d)
}

func estateEnvironment(i int) string { return fmt.Sprintf("estate-%02d", i) }

// makeEstate writes the deployment repository: each service is in each
// environment.
func (b *bench) makeEstate(ctx context.Context, remote, clone string, each int) error {
	files := map[string]string{}
	for i := range b.environments {
		files["environments/"+estateEnvironment(i)+".yaml"] = estateFile(i, each, nil)
	}
	for i := range each {
		name := service(i)
		files["services/"+name+"/service.yaml"] = "apiVersion: pinion.dev/v1\nkind: Service\n"
		files["services/"+name+"/objects.yaml"] = fmt.Sprintf(objectsYAML, name)
	}
	return b.publish(ctx, remote, clone, files)
}

func estateFile(env, each int, versions map[int]string) string {
	var s strings.Builder
	fmt.Fprintf(&s, "apiVersion: pinion.dev/v1\nkind: Environment\nnamespace: %s\npins:\n", estateEnvironment(env))
	for i := range each {
		v := "1.0.0"
		if versions[i] != "" {
			v = versions[i]
		}
		fmt.Fprintf(&s, "  %[1]s:\n    image: registry.example/%[1]s:%[2]s\n", service(i), v)
	}
	return s.String()
}

// allReady waits until all services are ready.
func (b *bench) allReady(ctx context.Context, d *daemon, services int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	tick := time.NewTicker(500 * time.Millisecond) // each look costs the daemon, too
	defer tick.Stop()
	for {
		n, err := d.metric("pinion_services", `state="ready"`)
		if err != nil {
			return err
		}
		if n >= float64(services) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%.0f of %d services were ready in time: %w", n, services, ctx.Err())
		}
	}
}

// atRest waits until nothing was sent or recorded for five seconds.
func (b *bench) atRest(ctx context.Context, d *daemon) error {
	ctx, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for last, still := -1.0, 0; still < 5; {
		sum := 0.0
		for _, name := range []string{"pinion_kubernetes_requests_total", "pinion_renders_total", "pinion_ledger_entries_total"} {
			n, err := d.metric(name)
			if err != nil {
				return err
			}
			sum += n
		}
		if sum == last {
			still++
		} else {
			last, still = sum, 0
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the daemon does not come to rest: %w", ctx.Err())
		}
	}
	return nil
}

// steady measures what the daemon costs when nothing happens.
func (b *bench) steady(ctx context.Context, d *daemon) error {
	before, err := d.counts()
	if err != nil {
		return err
	}
	cpu, _, err := d.process()
	if err != nil {
		return err
	}
	select {
	case <-time.After(b.idle):
	case <-ctx.Done():
		return ctx.Err()
	}
	cpuAfter, _, err := d.process()
	if err != nil {
		return err
	}
	after, err := d.counts()
	if err != nil {
		return err
	}
	heap, err := d.metric("go_memstats_heap_alloc_bytes")
	if err != nil {
		return err
	}
	fmt.Printf("steady for %s: resident memory %.0f MiB (heap %.0f MiB), %.2f %% of a core, %.0f writes to the cluster, %.0f pushes\n",
		b.idle, d.resident(), heap/(1<<20), 100*float64(cpuAfter-cpu)/float64(b.idle), after.writes-before.writes, after.pushes-before.pushes)
	return nil
}

// counts are requests since the start.
type counts struct{ lists, watches, others, writes, pushes float64 }

func (d *daemon) counts() (n counts, err error) {
	sum := func(into *float64, verbs ...string) {
		for _, v := range verbs {
			x, e := d.metric("pinion_kubernetes_requests_total", `verb="`+v+`"`)
			if e != nil {
				err = e
			}
			*into += x
		}
	}
	sum(&n.lists, "list")
	sum(&n.watches, "watch")
	sum(&n.others, "get", "discovery")
	sum(&n.writes, "apply", "dry-run", "create", "patch", "update", "delete")
	if err == nil {
		n.pushes, err = d.metric("pinion_git_pushes_total")
	}
	return n, err
}

// resident is the daemon's resident memory in MiB, without its workers.
func (d *daemon) resident() float64 { return memory(d.cmd.Process.Pid, "VmRSS") }

// bumpEstate measures the time from a push of one pin to the changed object,
// beside the floor: a fetch and four applies.
func (b *bench) bumpEstate(ctx context.Context, c *controlPlane, d *daemon, clone string, each int) error {
	observer := b.path("estate-observer.git")
	if err := b.git(ctx, "clone", "-q", "--bare", b.path("estate.git"), observer); err != nil {
		return err
	}
	var ours, floors []float64
	for n := range b.bumps {
		env, i := n%b.environments, n%each
		version := fmt.Sprintf("1.%d.0", n+1)
		w, err := c.meta.Resource(resources["Deployment"]).Namespace(estateEnvironment(env)).Watch(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if err := b.commit(ctx, clone, "environments/"+estateEnvironment(env)+".yaml", estateFile(env, each, map[int]string{i: version})); err != nil {
			return err
		}
		out, err := exec.CommandContext(ctx, "git", "-C", clone, "rev-parse", "HEAD").Output()
		if err != nil {
			return err
		}
		begun := time.Now()
		if err := b.git(ctx, "-C", clone, "push", "-q", "origin", "main"); err != nil {
			return err
		}
		push := time.Since(begun)
		waitCtx, cancel := context.WithTimeout(ctx, time.Minute)
		err = c.changed(waitCtx, w, service(i), strings.TrimSpace(string(out)))
		cancel()
		w.Stop()
		if err != nil {
			return err
		}
		ours = append(ours, time.Since(begun).Seconds())
		if err := b.atRest(ctx, d); err != nil {
			return err
		}
		begun = time.Now()
		if err := b.git(ctx, "-C", observer, "fetch", "-q", "origin", "main"); err != nil {
			return err
		}
		for _, o := range floorObjects(service(i), version) {
			if err := c.apply(ctx, o); err != nil {
				return fmt.Errorf("floor of one pin: %w", err)
			}
		}
		floors = append(floors, (push + time.Since(begun)).Seconds())
	}
	fmt.Printf("one pin among them, from git push to the object changed: floor %s, pinion %s, %s above the floor (medians of %d; both with the push)\n",
		seconds(median(floors)), seconds(median(ours)), seconds(median(ours)-median(floors)), b.bumps)
	return nil
}
