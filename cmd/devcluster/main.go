// Command devcluster runs a real Kubernetes control plane in one process, for
// demonstrations and tests that need a cluster but no containers.
//
// What runs: etcd, kube-apiserver with RBAC, kube-scheduler and
// kube-controller-manager, all unmodified, and KWOK in the kubelet's place.
// Beside them a few small controllers of our own do what a cluster's
// surroundings would: they bind volume claims and give load balancers an
// address. So a Deployment rolls out, a Job completes, a namespace terminates
// and RBAC refuses, but no image is pulled and no container runs: a pod's
// status is played, and an annotation on the pod chooses the play (behavior.go);
// another is what its containers have written (logs.go).
//
// The process owns one data folder. It holds a lock on it, works in it (so that
// etcd's sockets have short relative names), and keeps in it etcd's data, the
// certificate authority and the port; so the next start has the same objects
// behind the same kubeconfig. It listens on loopback alone.
//
// The parts start in the order etcd, kube-apiserver, kube-scheduler,
// kube-controller-manager, the kubelet's logs, kubelet, controllers, and stop in
// the opposite one, each with a context of its own. If one ends before it was told to, the whole
// process stops with an error.
//
// A crash leaves the data folder as it was: the lock dies with the process, and
// etcd and the small files (each replaced atomically) are read again by the next
// start. etcd does not sync to disk, so a crash of the machine can lose it.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/component-base/version"
)

const usage = `devcluster runs a Kubernetes control plane in one process, without containers.

Usage:
  devcluster up --data-dir DIR [--kubeconfig FILE] [--nodes N] [--port P] [--log FILE]
  devcluster version
`

func main() {
	if err := runCommand(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "devcluster:", err)
		os.Exit(1)
	}
}

func runCommand(args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return errors.New("no command: use up or version (devcluster help explains them)")
	}
	switch args[0] {
	case "up":
		return runUp(args[1:], stdout, stderr)
	case "version":
		fmt.Fprintln(stdout, version.Get().GitVersion)
		return nil
	case "help", "-h", "--help":
		fmt.Fprint(stdout, usage)
		return nil
	default:
		return fmt.Errorf("unknown command %q: use up or version (devcluster help explains them)", args[0])
	}
}

// runUp runs a cluster until a signal or a failure ends it.
func runUp(args []string, stdout, stderr io.Writer) error {
	began := time.Now()
	opts, err := parseUp(args, stderr)
	if errors.Is(err, pflag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)

	c, err := newCluster(opts)
	if err != nil {
		return err
	}
	started := make(chan error, 1)
	go func() { started <- c.start() }()
	select {
	case s := <-signals:
		// kube-apiserver can't be cancelled in the middle of its start: some
		// of its hooks take that for a fatal error. Leaving is safe, though.
		return fmt.Errorf("stopped by signal (%v) before the cluster was ready", s)
	case err := <-c.failed:
		return err
	case err := <-started:
		if err != nil {
			return err
		}
	}
	fmt.Fprintf(stdout, "ready %s kubeconfig %s in %.1fs\n", c.url, opts.kubeconfig, time.Since(began).Seconds())

	var failure error
	select {
	case <-signals:
	case failure = <-c.failed:
	}
	go func() {
		s := <-signals
		fmt.Fprintf(stderr, "devcluster: stopped by a second signal (%v) before the cluster had stopped cleanly\n", s)
		os.Exit(1)
	}()
	return errors.Join(failure, c.stop())
}

// options are what the user asked for; all paths are absolute.
type options struct {
	dataDir    string
	kubeconfig string
	log        string
	nodes      int
	port       int
}

func parseUp(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := pflag.NewFlagSet("devcluster up", pflag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.dataDir, "data-dir", "", "folder that keeps the cluster's data; created if absent (required)")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "file to write the administrator's kubeconfig to (default DATA-DIR/kubeconfig)")
	flags.StringVar(&o.log, "log", "", "file that the components' logs are appended to (default DATA-DIR/devcluster.log)")
	flags.IntVar(&o.nodes, "nodes", 1, "nodes to create, if there are fewer; those that exist are kept")
	flags.IntVar(&o.port, "port", 0, "port on 127.0.0.1; 0 takes the one of the last run if it is free, else any")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("up: unexpected argument %q: it takes flags only", flags.Arg(0))
	case o.dataDir == "":
		return o, errors.New("up: --data-dir is required: name a folder for the cluster's data")
	case o.nodes < 1:
		return o, fmt.Errorf("up: --nodes %d: at least 1 is needed", o.nodes)
	case o.port < 0 || o.port > 65535:
		return o, fmt.Errorf("up: --port %d: not a port; use 1 to 65535, or 0 for a free one", o.port)
	}
	if o.kubeconfig == "" {
		o.kubeconfig = filepath.Join(o.dataDir, "kubeconfig")
	}
	if o.log == "" {
		o.log = filepath.Join(o.dataDir, "devcluster.log")
	}
	for _, path := range []*string{&o.dataDir, &o.kubeconfig, &o.log} {
		abs, err := filepath.Abs(*path)
		if err != nil {
			return o, fmt.Errorf("up: %s: %w", *path, err)
		}
		*path = abs
	}
	return o, nil
}
