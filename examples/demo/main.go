// Command demo plays Pinion's whole job on a real control plane and tells what
// happens: a version goes from dev by staging to production, past a smoke test,
// a soak, a report of CI and an approval; one that fails its smoke test goes
// back; one that can't start is named with its reason, and nothing else is
// touched; a freeze keeps one out of production until it ends; and git has the
// record of it all.
//
// Commands are shown as people type them, with what they print. What the demo
// says besides, it has seen in the API server. If it does not see a step within
// its time, it says so and exits with 1.
//
// It starts a throw-away control plane (bin/devcluster) unless -kubeconfig
// names a cluster, a bare git repository made from the folder shop, and the
// daemon; and it stops what it started, unless -keep is given.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "folder of the binaries pinion and devcluster")
	flag.StringVar(&o.kubeconfig, "kubeconfig", "", "use this cluster instead of a throw-away one")
	flag.StringVar(&o.context, "context", "", "context of the kubeconfig")
	flag.StringVar(&o.namespace, "namespace", "", "use only this namespace, which must exist, of the cluster: for all environments")
	flag.BoolVar(&o.keep, "keep", false, "leave everything running at the end, until interrupted")
	flag.DurationVar(&o.patience, "patience", 3*time.Minute, "time for each step")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, o); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

type options struct {
	bin, kubeconfig, context, namespace string
	keep                                bool
	patience                            time.Duration
}

// run plays the whole demo.
func run(ctx context.Context, out io.Writer, o options) (err error) {
	dir, err := os.MkdirTemp("", "pinion-demo-")
	if err != nil {
		return err
	}
	d := &demo{options: o, out: out, bold: bold(out), dir: dir, started: time.Now(), own: o.kubeconfig != ""}
	defer func() {
		if stopErr := d.stop(); err == nil {
			err = stopErr
		}
	}()
	if d.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{
		d.startCluster,
		d.makeRepository,
		d.startDaemon,
		d.bump,
		d.report,
		d.approve,
		d.failSmoke,
		d.failStart,
		d.freeze,
		d.release,
		d.record,
		d.verify,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "\nThat was all, in %s. The record is in git; what the daemon holds besides can be thrown away.\n", time.Since(d.started).Round(time.Second))
	if o.keep {
		return d.linger(ctx)
	}
	return nil
}
