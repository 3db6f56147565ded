package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/reconcile"
	"github.com/pinion-cd/pinion/reconcile/cluster"
)

func newApplyCommand(g *globals) *cobra.Command {
	var o applyOptions
	cmd := &cobra.Command{
		Use:   "apply ENV [SERVICE]",
		Short: "Bring one commit to the cluster, without the daemon",
		Long: `Bring an environment, or one service of it, to what a commit says, and wait for
the rollouts: one pass of the engine that the daemon runs.

The commit is the one that is checked out, or --rev; changes that are not
committed are not applied, for each deployment comes from exactly one commit.

Exit code 1 if a service is not ready at the end, 3 if a deletion was refused
until it is confirmed or if something is suspended, 124 if --timeout has passed.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error { return g.apply(cmd.Context(), args, o) },
	}
	f := cmd.Flags()
	f.DurationVar(&o.timeout, "timeout", 30*time.Minute, "time for the whole pass")
	f.StringVar(&o.confirm, "confirm-prune", "", "confirm the deletions that this digest stands for")
	return cmd
}

type applyOptions struct {
	timeout time.Duration
	confirm string
}

// applyAttempts is how often one pass tries to apply a service.
const applyAttempts = 5

func (g *globals) apply(ctx context.Context, args []string, o applyOptions) error {
	format, err := g.format("table", "json", "yaml")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	r, err := g.begin(ctx, head)
	if err != nil {
		return err
	}
	defer r.close()
	selection, unknown := r.selection(args)
	if unknown != nil && (len(args) != 1 || !errors.Is(unknown, history.ErrNotFound)) {
		return unknown
	}
	if err := r.connect(ctx, g); err != nil {
		return err
	}
	if unknown != nil {
		// Its file may have been removed, and its objects are still there.
		if left, err := leftBehind(ctx, r.clusters, r.name, selection.Environment); err != nil || !left {
			return errors.Join(unknown, err)
		}
	}
	p := newProgress(g.err)
	stop := p.start()
	e := reconcile.NewEngine(reconcile.Options{
		Commits:    r.commits,
		Renderer:   r.renderer,
		Clusters:   r.clusters,
		Fences:     r.config.fences(),
		Selection:  selection,
		Repository: r.name,
		Report:     p.report,
		Attempts:   applyAttempts,
		Jobs:       r.config.Apply.services(),
		Renderings: r.config.Render.processes(),
		Confirmed:  o.confirm,
		Correct:    true,
	})
	status, err := e.Settle(ctx, r.commit.ID)
	stop()
	if err := g.writeStatus(format, status.Services); err != nil {
		return err
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return &exitError{exitTimeout, fmt.Errorf("not all services were ready after %s", o.timeout)}
	case err != nil:
		return err
	case len(status.Halts) > 0:
		return &exitError{code: exitRefused}
	case slices.ContainsFunc(status.Services, func(s reconcile.ServiceStatus) bool { return s.Phase == reconcile.Suspended }):
		return &exitError{code: exitRefused}
	case status.Failed():
		return &exitError{code: exitDifferent}
	}
	return nil
}

// leftBehind tells whether a cluster still has the inventory of an environment
// of this repository.
func leftBehind(ctx context.Context, clusters map[desired.ClusterName]*cluster.Cluster, repository string, env desired.EnvironmentName) (bool, error) {
	var errs []error
	for _, c := range clusters {
		found, err := c.Inventories(ctx, nil)
		if err != nil {
			errs = append(errs, err)
		}
		for _, inv := range found {
			if inv.Environment == env && inv.Repository == repository {
				return true, nil
			}
		}
	}
	return false, errors.Join(errs...)
}
