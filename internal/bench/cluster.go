package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

var resources = map[string]schema.GroupVersionResource{
	"Deployment":     {Group: "apps", Version: "v1", Resource: "deployments"},
	"Service":        {Version: "v1", Resource: "services"},
	"ServiceAccount": {Version: "v1", Resource: "serviceaccounts"},
	"Ingress":        {Group: "networking.k8s.io", Version: "v1", Resource: "ingresses"},
}

// controlPlane is a running devcluster.
type controlPlane struct {
	cmd        *exec.Cmd
	kubeconfig string
	config     *rest.Config
	meta       metadata.Interface
}

// startControlPlane starts a fresh one, with the namespace.
func (b *bench) startControlPlane(ctx context.Context, name string) (*controlPlane, error) {
	c := &controlPlane{kubeconfig: b.path(name, "kubeconfig")}
	if err := os.MkdirAll(b.path(name), 0o755); err != nil {
		return nil, err
	}
	c.cmd = exec.Command(filepath.Join(b.bin, "devcluster"), "up", "--data-dir", b.path(name, "data"), "--kubeconfig", c.kubeconfig)
	c.cmd.Stderr = os.Stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start devcluster: %w; build it with: make build", err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.Contains(line, "ready") {
		c.stop()
		return nil, fmt.Errorf("devcluster did not become ready: %q %v", line, err)
	}
	if c.config, err = clientcmd.BuildConfigFromFlags("", c.kubeconfig); err != nil {
		return nil, err
	}
	c.config.QPS = -1
	if c.meta, err = metadata.NewForConfig(c.config); err != nil {
		return nil, err
	}
	kube, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return nil, err
	}
	_, err = kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "bench"}}, metav1.CreateOptions{})
	return c, err
}

func (c *controlPlane) stop() {
	c.cmd.Process.Signal(syscall.SIGTERM)
	c.cmd.Wait()
}

// apply sends one object by server-side apply: the floor's only request.
func (c *controlPlane) apply(ctx context.Context, o object) error {
	force := true
	_, err := c.meta.Resource(resources[o.Kind]).Namespace(o.Metadata.Namespace).Patch(ctx, o.Metadata.Name, types.ApplyPatchType, o.data,
		metav1.PatchOptions{FieldManager: "floor", Force: &force})
	return err
}

// floorFromNothing sends all objects, and returns how long that took.
func (b *bench) floorFromNothing(ctx context.Context, round int, objects []object) (time.Duration, error) {
	c, err := b.startControlPlane(ctx, fmt.Sprintf("floor-%d", round))
	if err != nil {
		return 0, err
	}
	defer c.stop()
	begun := time.Now()
	work := make(chan object)
	errs := make(chan error, b.connections)
	var wait sync.WaitGroup
	for range b.connections {
		wait.Go(func() {
			for o := range work {
				if err := c.apply(ctx, o); err != nil {
					select {
					case errs <- fmt.Errorf("apply %s %s: %w", o.Kind, o.Metadata.Name, err):
					default:
					}
				}
			}
		})
	}
	for _, o := range objects {
		work <- o
	}
	close(work)
	wait.Wait()
	took := time.Since(begun)
	select {
	case err := <-errs:
		return 0, err
	default:
		return took, nil
	}
}

// allApplied waits until every object has been seen by a watch.
func (c *controlPlane) allApplied(ctx context.Context, objects []object) error {
	want := map[string]int{}
	for _, o := range objects {
		want[o.Kind]++
	}
	errs := make(chan error, len(want))
	for kind, n := range want {
		go func() { errs <- c.count(ctx, kind, n) }()
	}
	for range want {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

// count waits until n objects of a kind that pinion applied have been seen.
func (c *controlPlane) count(ctx context.Context, kind string, n int) error {
	r := c.meta.Resource(resources[kind]).Namespace("bench")
	opts := metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=pinion"}
	list, err := r.List(ctx, opts)
	if err != nil {
		return err
	}
	seen := map[types.UID]bool{}
	for _, x := range list.Items {
		seen[x.UID] = true
	}
	opts.ResourceVersion = list.ResourceVersion
	w, err := r.Watch(ctx, opts)
	if err != nil {
		return err
	}
	defer w.Stop()
	for len(seen) < n {
		ev, ok := <-w.ResultChan()
		if !ok {
			return fmt.Errorf("watch of %s ended after %d of %d", kind, len(seen), n)
		}
		if x, ok := ev.Object.(metav1.Object); ok && ev.Type == watch.Added {
			seen[x.GetUID()] = true
		}
	}
	return nil
}

// changed waits until a Deployment comes from another commit than before.
func (c *controlPlane) changed(ctx context.Context, w watch.Interface, name, commit string) error {
	for {
		select {
		case ev, ok := <-w.ResultChan():
			if !ok {
				return fmt.Errorf("watch of Deployments ended")
			}
			if x, ok := ev.Object.(metav1.Object); ok && x.GetName() == name && x.GetAnnotations()["pinion.dev/commit"] == commit {
				return nil
			}
		case <-ctx.Done():
			return fmt.Errorf("Deployment %s was not changed in time: %w", name, ctx.Err())
		}
	}
}
