package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// daemon is a running `pinion run`.
type daemon struct {
	cmd     *exec.Cmd
	address string
}

func (b *bench) startDaemon(round int, remote, kubeconfig string) (*daemon, error) {
	config := b.path(fmt.Sprintf("config-%d.yaml", round))
	text := fmt.Sprintf("apiVersion: pinion.dev/v1\nkind: Config\nclusters:\n  default:\n    kubeconfig: %s\n    requests: %d\ntokens:\n- {principal: ci, sha256: %x}\n",
		kubeconfig, b.connections, sha256.Sum256([]byte(benchToken)))
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	return b.startDaemonWith(config, remote, b.path(fmt.Sprintf("data-%d", round)))
}

func (b *bench) startDaemonWith(config, remote, data string) (*daemon, error) {
	return startListening(exec.Command(filepath.Join(b.bin, "pinion"), "run", "--config", config, "--repo", remote,
		"--data-dir", data, "--listen", "127.0.0.1:0"))
}

// startListening starts a server that says where it listens.
func startListening(cmd *exec.Cmd) (*daemon, error) {
	d := &daemon{cmd: cmd}
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r, w := io.Pipe()
	d.cmd.Stdout, d.cmd.Stderr = w, w
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	found := make(chan string, 1)
	go func() {
		s := bufio.NewScanner(r)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			if _, rest, ok := strings.Cut(s.Text(), "listen="); ok && len(found) == 0 {
				address, _, _ := strings.Cut(rest, " ")
				select {
				case found <- address:
				default:
				}
			}
		}
	}()
	select {
	case d.address = <-found:
		return d, nil
	case <-time.After(30 * time.Second):
		d.stop()
		return nil, fmt.Errorf("the daemon did not say where it listens")
	}
}

func (d *daemon) stop() {
	d.cmd.Process.Signal(syscall.SIGTERM)
	d.cmd.Wait()
}

// metric adds up the samples of a metric, over all labels, whose line contains
// all of the words.
func (d *daemon) metric(name string, words ...string) (float64, error) {
	resp, err := http.Get("http://" + d.address + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for line := range strings.Lines(string(body)) {
		if slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			continue
		}
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == '{' || rest[0] == ' ') {
			fields := strings.Fields(line)
			v, err := strconv.ParseFloat(fields[len(fields)-1], 64)
			if err != nil {
				return 0, err
			}
			sum += v
		}
	}
	return sum, nil
}

// settled waits until all services are ready, and the counts stand still.
func (b *bench) settled(ctx context.Context, d *daemon) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	last := -1.0
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		requests, err := d.metric("pinion_kubernetes_requests_total")
		if err != nil {
			return err
		}
		renders, err := d.metric("pinion_renders_total")
		if err != nil {
			return err
		}
		if requests+renders == last {
			return nil
		}
		last = requests + renders
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the daemon does not come to rest: %w", ctx.Err())
		}
	}
}

// process returns the CPU time of the daemon with its workers, and the peak
// of its own resident memory in MiB.
func (d *daemon) process() (cpu time.Duration, peak float64, err error) {
	for _, p := range d.pids() {
		cpu += cpuTime(p)
	}
	peak = memory(d.cmd.Process.Pid, "VmHWM")
	if peak == 0 {
		err = fmt.Errorf("the daemon does not run any more")
	}
	return cpu, peak, err
}

// pids are those of the daemon and its workers.
func (d *daemon) pids() []int {
	pid := d.cmd.Process.Pid
	pids := []int{pid}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // each thread has its own
	for _, task := range tasks {
		children, _ := os.ReadFile(task)
		for _, f := range strings.Fields(string(children)) {
			n, _ := strconv.Atoi(f)
			pids = append(pids, n)
		}
	}
	return pids
}

// memory returns one of the figures that the system has about the memory of a
// process, in MiB; 0 if it has ended.
func memory(pid int, figure string) float64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, figure+":"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kb / 1024
		}
	}
	return 0
}

// cpuTime returns the CPU time that a process has taken; 0 if it has ended.
func cpuTime(pid int) time.Duration { return ticks(pid, 11) } // utime, stime

// reapedTime returns the CPU time that processes have taken which a process had
// started, and which have ended.
func reapedTime(pid int) time.Duration { return ticks(pid, 13) } // cutime, cstime

// ticks adds up two fields of what the system says of a process, counted from
// after its name.
func ticks(pid, field int) (sum time.Duration) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, f := range fields[field : field+2] { // in ticks of 10 ms
		n, _ := strconv.Atoi(f)
		sum += time.Duration(n) * 10 * time.Millisecond
	}
	return sum
}

// daemonFromNothing starts the daemon against a fresh control plane, and
// returns how long it took until all objects were there. In the last round it
// stays, for the other measurements.
func (b *bench) daemonFromNothing(ctx context.Context, round int, remote, clone string, objects []object, last bool) (time.Duration, error) {
	c, err := b.startControlPlane(ctx, fmt.Sprintf("pinion-%d", round))
	if err != nil {
		return 0, err
	}
	defer c.stop()
	begun := time.Now()
	d, err := b.startDaemon(round, remote, c.kubeconfig)
	if err != nil {
		return 0, err
	}
	defer d.stop()
	waitCtx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := c.allApplied(waitCtx, objects); err != nil {
		return 0, err
	}
	took := time.Since(begun)
	cpu, _, err := d.process()
	if err != nil {
		return 0, err
	}
	fmt.Fprintf(os.Stderr, "round %d: pinion: the control plane took %s of CPU time, the daemon and its workers %s\n", round+1, cpuTime(c.cmd.Process.Pid), cpu)
	if !last {
		return took, nil
	}
	if err := b.settled(ctx, d); err != nil {
		return 0, err
	}
	requests, err := d.metric("pinion_kubernetes_requests_total")
	if err != nil {
		return 0, err
	}
	fmt.Printf("requests from nothing: %.0f for %d objects\n", requests, len(objects))
	for _, measure := range []func(context.Context, *controlPlane, *daemon, string) error{b.onePin, b.noPin, b.rest} {
		if err := measure(ctx, c, d, clone); err != nil {
			return 0, err
		}
	}
	return took, nil
}

// onePin measures the time from a push of one pin to the changed object, and
// the floor of it: a fetch and four applies.
func (b *bench) onePin(ctx context.Context, c *controlPlane, d *daemon, clone string) error {
	w, err := c.meta.Resource(resources["Deployment"]).Namespace("bench").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	defer w.Stop()
	observer := b.path("observer.git")
	if err := b.git(ctx, "clone", "-q", "--bare", b.path("remote.git"), observer); err != nil {
		return err
	}
	requests, err := d.metric("pinion_kubernetes_requests_total")
	if err != nil {
		return err
	}
	renders, err := d.metric("pinion_renders_total")
	if err != nil {
		return err
	}
	versions := map[int]string{}
	var ours, floors []float64
	for n := range b.bumps {
		i := n % b.services
		versions[i] = fmt.Sprintf("1.%d.0", n+1)
		if err := b.commit(ctx, clone, "environments/bench.yaml", b.environment(versions)); err != nil {
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
		pushed := time.Now()
		waitCtx, cancel := context.WithTimeout(ctx, time.Minute)
		err = c.changed(waitCtx, w, service(i), strings.TrimSpace(string(out)))
		cancel()
		if err != nil {
			return err
		}
		ours = append(ours, time.Since(begun).Seconds())
		push := pushed.Sub(begun)
		if err := b.settled(ctx, d); err != nil {
			return err
		}
		// The floor: the push that anyone needs, a fetch, and the same four
		// objects changed once more.
		begun = time.Now()
		if err := b.git(ctx, "-C", observer, "fetch", "-q", "origin", "main"); err != nil {
			return err
		}
		for _, o := range floorObjects(service(i), versions[i]) {
			if err := c.apply(ctx, o); err != nil {
				return fmt.Errorf("floor of one pin: %w", err)
			}
		}
		floors = append(floors, (push + time.Since(begun)).Seconds())
	}
	after, err := d.metric("pinion_kubernetes_requests_total")
	if err != nil {
		return err
	}
	rendered, err := d.metric("pinion_renders_total")
	if err != nil {
		return err
	}
	fmt.Printf("one pin, from git push to the object changed: floor %s, pinion %s, %s above the floor (medians of %d; both with the push)\n",
		seconds(median(floors)), seconds(median(ours)), seconds(median(ours)-median(floors)), b.bumps)
	fmt.Printf("one pin: %.1f requests and %.1f renderings for each commit\n", (after-requests)/float64(b.bumps), (rendered-renders)/float64(b.bumps))
	return nil
}

// floorObjects are four small objects like those of a service, under names of
// their own, that differ with the version.
func floorObjects(name, version string) []object {
	name = "floor-" + name
	var objects []object
	for _, text := range []string{
		`{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":%[1]q,"namespace":"bench","annotations":{"v":%[2]q}}}`,
		`{"apiVersion":"v1","kind":"Service","metadata":{"name":%[1]q,"namespace":"bench","annotations":{"v":%[2]q}},"spec":{"selector":{"app":%[1]q},"ports":[{"port":80,"targetPort":8080}]}}`,
		`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":%[1]q,"namespace":"bench","annotations":{"v":%[2]q}},"spec":{"replicas":0,"selector":{"matchLabels":{"app":%[1]q}},"template":{"metadata":{"labels":{"app":%[1]q}},"spec":{"serviceAccountName":%[1]q,"containers":[{"name":"main","image":"registry.example/floor:%[3]s","ports":[{"containerPort":8080}]}]}}}}`,
		`{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"name":%[1]q,"namespace":"bench","annotations":{"v":%[2]q}},"spec":{"rules":[{"host":"%[1]s.example","http":{"paths":[{"path":"/","pathType":"Prefix","backend":{"service":{"name":%[1]q,"port":{"number":80}}}}]}}]}}`,
	} {
		var o object
		o.data = fmt.Appendf(nil, text, name, version, version)
		o.Kind = map[int]string{0: "ServiceAccount", 1: "Service", 2: "Deployment", 3: "Ingress"}[len(objects)]
		o.Metadata.Name, o.Metadata.Namespace = name, "bench"
		objects = append(objects, o)
	}
	return objects
}

// noPin measures what a commit costs that changes nothing of any service.
func (b *bench) noPin(ctx context.Context, _ *controlPlane, d *daemon, clone string) error {
	if err := b.settled(ctx, d); err != nil {
		return err
	}
	var before [3]float64
	names := [3]string{"pinion_kubernetes_requests_total", "pinion_renders_total", "pinion_commits_total"}
	for i, name := range names {
		var err error
		if before[i], err = d.metric(name); err != nil {
			return err
		}
	}
	if err := b.commit(ctx, clone, "README.md", "Nothing that a service reads.\n"); err != nil {
		return err
	}
	if err := b.git(ctx, "-C", clone, "push", "-q", "origin", "main"); err != nil {
		return err
	}
	for deadline := time.Now().Add(time.Minute); ; {
		commits, err := d.metric(names[2])
		if err != nil {
			return err
		}
		if commits > before[2] {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the daemon did not read the commit")
		}
	}
	if err := b.settled(ctx, d); err != nil {
		return err
	}
	requests, err := d.metric(names[0])
	if err != nil {
		return err
	}
	renders, err := d.metric(names[1])
	if err != nil {
		return err
	}
	fmt.Printf("a commit that changes no pin: %.0f requests, %.0f renderings\n", requests-before[0], renders-before[1])
	return nil
}

// rest measures what the daemon costs when nothing happens.
func (b *bench) rest(ctx context.Context, _ *controlPlane, d *daemon, _ string) error {
	requests, err := d.metric("pinion_kubernetes_requests_total")
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
	cpuAfter, peak, err := d.process()
	if err != nil {
		return err
	}
	after, err := d.metric("pinion_kubernetes_requests_total")
	if err != nil {
		return err
	}
	fmt.Printf("idle for %s: %.0f requests, %.2f %% of a core; peak resident memory of the daemon %.0f MiB\n",
		b.idle, after-requests, 100*float64(cpuAfter-cpu)/float64(b.idle), peak)
	return nil
}
