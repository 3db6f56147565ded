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
	select {
	case err := <-errs:
		return 0, err
	default:
	}
	took := time.Since(begun)
	fmt.Fprintf(os.Stderr, "round %d: floor: the control plane took %s of CPU time\n", round+1, cpuTime(c.cmd.Process.Pid))
	return took, nil
}

// allApplied waits until every object is there. It only asks for numbers, so
// that looking costs the control plane next to nothing.
func (c *controlPlane) allApplied(ctx context.Context, objects []object) error {
	want := map[string]int64{}
	for _, o := range objects {
		want[o.Kind]++
	}
	want["ServiceAccount"]++ // "default" is there in every namespace
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for kind, n := range want {
		for {
			list, err := c.meta.Resource(resources[kind]).Namespace("bench").List(ctx, metav1.ListOptions{Limit: 1})
			if err != nil {
				return err
			}
			have := int64(len(list.Items))
			if list.RemainingItemCount != nil {
				have += *list.RemainingItemCount
			}
			if have >= n {
				break
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return fmt.Errorf("%d of %d objects of kind %s were there in time: %w", have, n, kind, ctx.Err())
			}
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
			return fmt.Errorf("deployment %s was not changed in time: %w", name, ctx.Err())
		}
	}
}
