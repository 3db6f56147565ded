package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
)

const (
	startTimeout = 5 * time.Minute  // for each part; a start takes seconds unless the machine is busy
	stopTimeout  = 20 * time.Second // for each part
	pollInterval = 50 * time.Millisecond
)

// A cluster is the parts that run, in the order in which they were started.
type cluster struct {
	options options
	url     string     // of the API server
	failed  chan error // the first part that ended before it was told to

	data  dataDir
	log   *os.File
	parts []*part
}

// A part runs until its context is cancelled; then done is closed.
type part struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
}

// newCluster takes possession of the data folder.
func newCluster(opts options) (*cluster, error) {
	data, err := openDataDir(opts.dataDir)
	if err != nil {
		return nil, err
	}
	log, err := openLog(opts.log)
	if err != nil {
		return nil, err
	}
	return &cluster{options: opts, failed: make(chan error, 1), data: data, log: log}, nil
}

// start returns when the cluster can be used: pods can be created and scheduled.
// Its kubeconfig is written last.
func (c *cluster) start() error {
	p, err := openPKI(c.data)
	if err != nil {
		return err
	}
	listener, err := c.data.listen(c.options.port)
	if err != nil {
		return err
	}
	c.url = "https://" + listener.Addr().String()
	as := func(user string, groups ...string) (access, error) {
		id, err := p.client(user, groups...)
		return access{url: c.url, caPEM: p.caPEM, identity: id}, err
	}
	admin, err := as("devcluster-admin", "system:masters")
	if err != nil {
		return err
	}

	etcd, err := startEtcd(c.data, c.log)
	if err != nil {
		return err
	}
	c.run("etcd", func(ctx context.Context) error { return runEtcd(ctx, etcd) })

	ctx := context.Background()
	apiserver, err := newAPIServer(ctx, p, listener)
	if err != nil {
		return fmt.Errorf("set up kube-apiserver: %w", err)
	}
	c.run("kube-apiserver", apiserver)
	client, err := kubernetes.NewForConfig(admin.config("devcluster"))
	if err != nil {
		return err
	}
	if err := c.await("kube-apiserver answers /readyz", func(ctx context.Context) (bool, error) {
		_, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err == nil, err
	}); err != nil {
		return err
	}

	if err := c.startScheduler(as); err != nil {
		return fmt.Errorf("set up kube-scheduler: %w", err)
	}
	if err := c.startControllerManager(p, as); err != nil {
		return fmt.Errorf("set up kube-controller-manager: %w", err)
	}
	logs, err := listenLoopback(0)
	if err != nil {
		return fmt.Errorf("the kubelet's port: %w", err)
	}
	kubeletPort := logs.Addr().(*net.TCPAddr).Port
	logServer, err := newLogServer(p, client, logs)
	if err != nil {
		return fmt.Errorf("set up the log server: %w", err)
	}
	c.run("log server", logServer)
	if err := createNodes(ctx, client, c.options.nodes, kubeletPort); err != nil {
		return err
	}
	if err := createStorageClass(ctx, client); err != nil {
		return err
	}
	kubelet, err := newKubelet(admin, kubeletPort, c.log)
	if err != nil {
		return fmt.Errorf("set up the kubelet: %w", err)
	}
	c.run("kubelet", kubelet)
	c.run("volume controller", func(ctx context.Context) error { return runVolumes(ctx, client) })
	c.run("load balancer controller", func(ctx context.Context) error { return runLoadBalancers(ctx, client) })

	if err := c.await("the default service account exists", func(ctx context.Context) (bool, error) {
		_, err := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, err
	}); err != nil {
		return err
	}
	if err := c.await("every node is ready", func(ctx context.Context) (bool, error) {
		return nodesReady(ctx, client)
	}); err != nil {
		return err
	}
	return admin.writeKubeconfig(c.options.kubeconfig)
}

type asFunc func(user string, groups ...string) (access, error)

func (c *cluster) startScheduler(as asFunc) error {
	kubeconfig, err := c.componentKubeconfig("kube-scheduler", as)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	scheduler, err := newScheduler(ctx, kubeconfig)
	if err != nil {
		cancel()
		return err
	}
	c.runUntil("kube-scheduler", ctx, cancel, scheduler)
	return nil
}

func (c *cluster) startControllerManager(p *pki, as asFunc) error {
	kubeconfig, err := c.componentKubeconfig("kube-controller-manager", as)
	if err != nil {
		return err
	}
	manager, err := newControllerManager(context.Background(), c.data, p, kubeconfig)
	if err != nil {
		return err
	}
	c.run("kube-controller-manager", manager)
	return nil
}

func (c *cluster) componentKubeconfig(component string, as asFunc) (string, error) {
	access, err := as("system:" + component)
	if err != nil {
		return "", err
	}
	path := c.data.file(component + ".kubeconfig")
	return path, access.writeKubeconfig(path)
}

// run starts a part.
func (c *cluster) run(name string, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	c.runUntil(name, ctx, cancel, func() error { return f(ctx) })
}

func (c *cluster) runUntil(name string, ctx context.Context, cancel context.CancelFunc, f func() error) {
	p := &part{name: name, cancel: cancel, done: make(chan struct{})}
	c.parts = append(c.parts, p)
	go func() {
		defer close(p.done)
		err := f()
		if ctx.Err() != nil {
			return // it was told to
		}
		if err == nil {
			err = errors.New("no error was given")
		}
		select {
		case c.failed <- fmt.Errorf("%s ended by itself: %w; see %s", name, err, c.options.log):
		default:
		}
	}()
}

// await waits for a condition; what the condition says on the way is of use
// only if it never holds.
func (c *cluster) await(what string, holds func(context.Context) (bool, error)) error {
	var last error
	err := wait.PollUntilContextTimeout(context.Background(), pollInterval, startTimeout, true, func(ctx context.Context) (bool, error) {
		var ok bool
		ok, last = holds(ctx)
		return ok, nil
	})
	if err != nil {
		return fmt.Errorf("waited %v until %s: %w; see %s", startTimeout, what, errors.Join(err, last), c.options.log)
	}
	return nil
}

// stop ends the parts, the last one first.
func (c *cluster) stop() error {
	var errs []error
	for i := len(c.parts) - 1; i >= 0; i-- {
		p := c.parts[i]
		p.cancel()
		select {
		case <-p.done:
		case <-time.After(stopTimeout):
			errs = append(errs, fmt.Errorf("%s did not stop in %v; see %s", p.name, stopTimeout, c.options.log))
		}
	}
	return errors.Join(errs...)
}

func nodesReady(ctx context.Context, client kubernetes.Interface) (bool, error) {
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, err
	}
	for _, node := range nodes.Items {
		if !nodeReady(&node) {
			return false, fmt.Errorf("node %s is not ready", node.Name)
		}
	}
	return true, nil
}

// nodeReady says whether pods can be scheduled to the node.
func nodeReady(node *corev1.Node) bool {
	for _, taint := range node.Spec.Taints {
		if taint.Key == corev1.TaintNodeNotReady {
			return false
		}
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}
