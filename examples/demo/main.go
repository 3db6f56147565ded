// Command demo plays Pinion's main job on a real control plane and tells what
// happens: a developer bumps a version, and it rolls out; another bumps one
// that is broken, and it is named with its reason; nothing else is touched.
//
// What it tells is what it has seen in the API server. If it does not see a
// step within its time, it says so and exits with 1.
//
// It starts a throw-away control plane (bin/devcluster) unless -kubeconfig
// names a cluster, a bare git repository made from examples/shop, and the
// daemon; and it stops what it started, unless -keep is given.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "folder of the binaries pinion and devcluster")
	flag.StringVar(&o.shop, "shop", "examples/shop", "the deployment repository to start from")
	flag.StringVar(&o.kubeconfig, "kubeconfig", "", "use this cluster instead of a throw-away one")
	flag.StringVar(&o.context, "context", "", "context of the kubeconfig")
	flag.StringVar(&o.namespace, "namespace", "", "use only this namespace, which must exist, of the cluster: one environment, and nothing that is cluster-scoped")
	flag.BoolVar(&o.keep, "keep", false, "leave everything running at the end, until interrupted")
	flag.DurationVar(&o.patience, "patience", 3*time.Minute, "time for each step")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		if errors.Is(err, context.Canceled) {
			err = errors.New("interrupted")
		}
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

type options struct {
	bin, shop, kubeconfig, context, namespace string
	keep                                      bool
	patience                                  time.Duration
}

// run plays the whole demo.
func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "pinion-demo-")
	if err != nil {
		return err
	}
	d := &demo{options: o, dir: dir, started: time.Now()}
	defer func() {
		if stopErr := d.stop(); err == nil {
			err = stopErr
		}
	}()
	for _, step := range []func(context.Context) error{
		d.startCluster,
		d.makeRemote,
		d.startDaemon,
		d.firstRollout,
		d.goodBump,
		d.brokenBump,
		d.summary,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	d.say("All of this was seen in the API server. It took %s.", d.since(d.started))
	if !o.keep {
		return nil
	}
	d.say("Everything keeps running until you press Ctrl-C. Look around with:")
	d.tell("kubectl --kubeconfig %s get deployments -A", d.kubeconfig)
	d.tell("git clone %s shop && cd shop", d.remote)
	d.tell("%s status --repo %s --kubeconfig %s", filepath.Join(o.bin, "pinion"), d.clone, d.kubeconfig)
	<-ctx.Done()
	return nil
}
