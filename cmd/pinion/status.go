package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile"
	"github.com/pinion-cd/pinion/reconcile/cluster"
)

func newStatusCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "status [ENV [SERVICE]]",
		Short: "Show where every service stands in every environment",
		Long: `Show where every service stands: the version that the commit pins, whether the
cluster shows it, and what it waits for. It reads a clone and the cluster, needs
no daemon, and changes nothing.

The commit is the one that is checked out, or --rev. Exit code 1 if a service is
not ready.`,
		Args: cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return g.status(cmd.Context(), args) },
	}
}

// statusTimeout bounds the whole look at the clusters.
const statusTimeout = time.Minute

func (g *globals) status(ctx context.Context, args []string) error {
	format, err := g.format("table", "json", "yaml")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	r, err := g.begin(ctx, head)
	if err != nil {
		return err
	}
	defer r.close()
	selection, err := r.selection(args)
	if err != nil {
		return err
	}
	if err := r.connect(ctx, g); err != nil {
		return err
	}
	all, err := r.render(ctx, r.repository, selection)
	if err != nil {
		return err
	}
	services := reconcile.Look(ctx, r.clusters, all)
	if err := g.writeStatus(format, services); err != nil {
		return err
	}
	for _, p := range r.commit.Repository.Problems {
		if p.Severity == desired.SeverityError {
			fmt.Fprintln(g.err, "error:", p.Error())
		}
	}
	if (reconcile.Status{Services: services, Problems: r.commit.Repository.Problems}).Failed() {
		return &exitError{code: exitDifferent}
	}
	return nil
}

// writeStatus writes where services stand.
func (g *globals) writeStatus(format string, services []reconcile.ServiceStatus) error {
	if services == nil {
		services = []reconcile.ServiceStatus{}
	}
	for i := range services {
		services[i].Since = services[i].Since.UTC().Truncate(time.Second)
	}
	switch format {
	case "json":
		return g.writeJSON(services)
	case "yaml":
		text, err := yaml.Marshal(services)
		if err != nil {
			return err
		}
		_, err = g.out.Write(text)
		return err
	}
	w := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ENVIRONMENT\tSERVICE\tVERSION\tSTATE\tAGE\tCOMMIT\tMESSAGE")
	for _, s := range services {
		age := "-"
		if !s.Since.IsZero() {
			age = shortAge(time.Since(s.Since))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%.12s\t%s\n", s.Environment, s.Service, dash(s.Version), s.Phase, age, dash(s.Commit), printable(firstLine(s.Message)))
	}
	return w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func firstLine(s string) string {
	for i, r := range s {
		if r == '\n' {
			return s[:i] + " …"
		}
	}
	return s
}

func closeClusters(clusters map[desired.ClusterName]*cluster.Cluster) {
	for _, c := range clusters {
		c.Close()
	}
}
