// Command pinion is a declarative GitOps reconciler: it renders what a commit
// of a deployment repository says, applies it to Kubernetes with server-side
// apply, and watches the rollout.
//
// Each command is one file. Standard output is data, standard error is
// progress and messages. The exit codes are in exit.go.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/pinion-cd/pinion/render/worker"
)

func main() {
	worker.Hook() // does not return in a process that is a worker
	os.Exit(run(os.Args[1:]))
}

// run is main without the exit.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	g := &globals{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	root := newRootCommand(g)
	root.SetArgs(args)
	return g.exit(root.ExecuteContext(ctx))
}
