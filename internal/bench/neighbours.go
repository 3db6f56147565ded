package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
)

// neighbours measures how late one pin is while others are in trouble: a
// service that never becomes ready, one that renders for a minute, and a
// cluster that answers nothing; beside a run in which all are well.
func (b *bench) neighbours(ctx context.Context) error {
	remote, clone, err := b.makeRepository(ctx)
	if err != nil {
		return err
	}
	c, err := b.startControlPlane(ctx, "neighbours")
	if err != nil {
		return err
	}
	defer c.stop()
	far, silence, err := b.silentCluster(c.kubeconfig)
	if err != nil {
		return err
	}
	defer silence()
	config := b.path("neighbours.yaml")
	text := fmt.Sprintf("apiVersion: pinion.dev/v1\nkind: Config\nclusters:\n  default: {kubeconfig: %s, requests: %d}\n  far: {kubeconfig: %s}\nrender: {timeout: 60s}\ntokens:\n- {principal: ci, sha256: %x}\n",
		c.kubeconfig, b.connections, far, sha256.Sum256([]byte(benchToken)))
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	d, err := b.startDaemonWith(config, remote, b.path("neighbours-data"))
	if err != nil {
		return err
	}
	defer d.stop()
	if err := b.settled(ctx, d); err != nil {
		return err
	}
	quiet, err := b.latency(ctx, c, d, clone, 1)
	if err != nil {
		return err
	}
	// All the trouble, in one commit.
	b.more = "  stuck:\n    image: registry.example/stuck:1.0.0\n  endless:\n    image: registry.example/endless:1.0.0\n"
	defer func() { b.more = "" }()
	files := map[string]string{
		"environments/bench.yaml":       b.environment(nil),
		"environments/far.yaml":         "apiVersion: pinion.dev/v1\nkind: Environment\ncluster: far\nnamespace: far\npins:\n  stuck:\n    image: registry.example/stuck:1.0.0\n",
		"services/stuck/service.yaml":   "apiVersion: pinion.dev/v1\nkind: Service\n",
		"services/stuck/objects.yaml":   neverReady,
		"services/endless/service.yaml": "apiVersion: pinion.dev/v1\nkind: Service\n",
		"services/endless/main.jsonnet": "local f(n) = if n > 1e12 then n else f(n + 1) tailstrict; {apiVersion: 'v1', kind: 'ConfigMap', metadata: {name: 'endless'}, data: {n: '' + f(0)}}\n",
	}
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(clone, path)), 0o755); err != nil {
			return err
		}
		if err := b.commit(ctx, clone, path, text); err != nil {
			return err
		}
	}
	if err := b.git(ctx, "-C", clone, "push", "-q", "origin", "main"); err != nil {
		return err
	}
	troubled, err := b.latency(ctx, c, d, clone, 2)
	if err != nil {
		return err
	}
	fmt.Printf("one pin, from git push to the object changed, of %d services: %s; beside a service that is never ready, one that renders for a minute, and a cluster that answers nothing: %s; ratio %.2f (medians of %d)\n",
		b.services, seconds(median(quiet)), seconds(median(troubled)), median(troubled)/median(quiet), b.bumps)
	return nil
}

const neverReady = `apiVersion: apps/v1
kind: Deployment
metadata: {name: stuck}
spec:
  replicas: 1
  selector: {matchLabels: {app: stuck}}
  template:
    metadata:
      labels: {app: stuck}
      annotations: {devcluster.pinion.dev/behavior: never-ready}
    spec:
      containers: [{name: main, image: stuck}]
`

// latency measures the time from a push of one pin to the changed object, some
// times in a row. The versions of another series begin with another number.
func (b *bench) latency(ctx context.Context, c *controlPlane, d *daemon, clone string, series int) ([]float64, error) {
	w, err := c.meta.Resource(resources["Deployment"]).Namespace("bench").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	defer w.Stop()
	versions := map[int]string{}
	var took []float64
	for n := range b.bumps {
		i := n % b.services
		versions[i] = fmt.Sprintf("%d.%d.0", series, n+1)
		if err := b.commit(ctx, clone, "environments/bench.yaml", b.environment(versions)); err != nil {
			return nil, err
		}
		out, err := exec.CommandContext(ctx, "git", "-C", clone, "rev-parse", "HEAD").Output()
		if err != nil {
			return nil, err
		}
		begun := time.Now()
		if err := b.git(ctx, "-C", clone, "push", "-q", "origin", "main"); err != nil {
			return nil, err
		}
		waitCtx, cancel := context.WithTimeout(ctx, 2*time.Minute)
		err = c.changed(waitCtx, w, service(i), strings.TrimSpace(string(out)))
		cancel()
		if err != nil {
			return nil, err
		}
		took = append(took, time.Since(begun).Seconds())
		if _, err := d.metric("pinion_commits_total"); err != nil {
			return nil, err // it has died
		}
	}
	return took, nil
}

// silentCluster returns a kubeconfig that leads to a server which accepts
// connections and says nothing.
func (b *bench) silentCluster(kubeconfig string) (path string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	go func() {
		var held []net.Conn
		for {
			conn, err := l.Accept()
			if err != nil {
				for _, c := range held {
					c.Close()
				}
				return
			}
			held = append(held, conn)
		}
	}()
	config, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		return "", nil, err
	}
	for _, c := range config.Clusters {
		c.Server = "https://" + l.Addr().String()
	}
	path = b.path("far-kubeconfig")
	return path, func() { l.Close() }, clientcmd.WriteToFile(*config, path)
}
