// Command pinion is a declarative GitOps reconciler: it renders what a commit
// of a deployment repository says, applies it to Kubernetes with server-side
// apply, and watches the rollout.
//
// Each command is one file. Standard output is data, standard error is
// progress and messages. The exit codes are in exit.go.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/pinion-cd/pinion/render/worker"
)

func main() {
	worker.Hook() // does not return in a process that is a worker
	os.Exit(run(os.Args[1:], time.Now()))
}

// run is main without the exit.
func run(args []string, now time.Time) int {
	if err := protectMemory(); err != nil {
		fmt.Fprintln(os.Stderr, "pinion:", err)
		return exitFailed
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	out := &output{file: os.Stdout}
	g := &globals{in: os.Stdin, out: out, err: os.Stderr, now: now}
	root := newRootCommand(g)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if out.err != nil && (err == nil || codeOf(err) == exitDifferent) {
		err = fmt.Errorf("write standard output: %w", out.err)
	}
	return g.exit(err)
}

// output keeps the first error of writing, so that data which did not arrive
// is an error whatever it would have said.
type output struct {
	file *os.File
	err  error
}

// Fd is for who asks whether it is a terminal.
func (o *output) Fd() uintptr { return o.file.Fd() }

func (o *output) Write(data []byte) (int, error) {
	n, err := o.file.Write(data)
	if o.err == nil {
		o.err = err
	}
	return n, err
}
