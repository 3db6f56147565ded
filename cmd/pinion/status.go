package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
	"github.com/pinion-cd/pinion/reconcile/cluster"
)

func newStatusCommand(g *globals) *cobra.Command {
	var live bool
	cmd := &cobra.Command{
		Use:   "status [ENV [SERVICE]]",
		Short: "Show where every service stands: version, state, age, what comes next",
		Long: `Show where services stand, as the ledgers have it: of all environments, in the
order of the pipelines; of one, with what comes next; or of one service there,
in detail. It reads a clone, so ` + "`git fetch`" + ` comes first, and neither the daemon
nor a cluster is needed. "wanted" is what main asks for and nothing is recorded
of yet.

Main is the remote's, or --rev. Exit code 1 if a deployment has failed, still
moves, or has drifted and stays so; a version that waits to enter the next environment is no reason.

With --live, what a commit says is compared with what the clusters have: the one
that is checked out, or --rev. Exit code 1 if a service is not ready.`,
		Example: `  pinion status production
  pinion status dev --live`,
		Args: cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if live {
				return g.liveStatus(cmd.Context(), args)
			}
			return g.status(cmd.Context(), args)
		},
	}
	cmd.Flags().BoolVar(&live, "live", false, "compare a commit with the clusters, instead of reading the ledgers")
	return cmd
}

func (g *globals) status(ctx context.Context, args []string) error {
	format, err := g.format("table", "json", "yaml")
	if err != nil {
		return err
	}
	l, err := g.openLedgers(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	if len(l.Tips) == 0 {
		return l.none()
	}
	if len(args) == 0 {
		l.Preload(ctx)
	}
	repo, err := l.Repository(ctx)
	if err != nil {
		return err
	}
	envs, err := l.Environments(ctx)
	if err != nil {
		return err
	}
	if len(args) > 0 {
		env := desired.EnvironmentName(args[0])
		if err := l.KnowsEnvironment(ctx, env); err != nil {
			return err
		}
		envs = []desired.EnvironmentName{env}
	}
	var failures []error
	all := []history.Standing{}
	for _, env := range envs {
		var only desired.ServiceName
		if len(args) > 1 {
			only = desired.ServiceName(args[1])
		}
		here, err := l.Standings(ctx, env, only)
		if err != nil {
			failures = append(failures, err)
		}
		all = append(all, here...)
	}
	if len(args) > 1 && len(all) == 0 && len(failures) == 0 {
		here, err := l.Standings(ctx, envs[0], "")
		if err != nil {
			return err
		}
		var names []desired.ServiceName
		for _, s := range here {
			names = append(names, s.Service)
		}
		return history.Unknown("service", args[1], names, string(envs[0])+" has")
	}
	if len(args) > 0 {
		for i := range all {
			if all[i].Next, err = l.Next(ctx, all[i]); err != nil {
				failures = append(failures, fmt.Errorf("judge %s in %s: %w", all[i].Service, all[i].Environment, err))
			}
		}
	}
	fmt.Fprintln(g.err, l.asOf(ctx))
	switch {
	case format == "json":
		err = g.writeJSON(all)
	case format == "yaml":
		err = g.writeValue(all)
	case len(args) == 0:
		err = g.writeMatrix(l.Now, envs, all)
	case len(args) == 1:
		err = g.writeEnvironment(l.Now, all)
	default:
		for _, s := range all {
			err = g.writeService(l.Now, s)
		}
	}
	if err != nil {
		return err
	}
	unsettled := slices.ContainsFunc(all, history.Standing.Unsettled)
	for _, p := range repo.Problems {
		if p.Severity == desired.SeverityError {
			unsettled = true
			fmt.Fprintln(g.err, "error:", printable(p.Error()))
		}
	}
	switch {
	case len(failures) > 0:
		return errors.Join(failures...)
	case unsettled:
		return &exitError{code: exitDifferent}
	}
	return nil
}

// summary is what a cell of the matrix says: "1.4.2 verified 3d".
func summary(now time.Time, s history.Standing) string {
	var parts []string
	if s.State != "" && s.State != history.StateWanted {
		parts = append(parts, strings.Join(strings.Fields(s.Version+" "+s.State+" "+history.Age(now, s.Since)), " "))
	}
	if s.Wanted != "" {
		parts = append(parts, s.Wanted+" wanted")
	}
	if s.Drift != nil {
		parts = append(parts, "drifted")
	}
	if s.Candidate != nil {
		parts = append(parts, s.Candidate.Version+" waits")
	}
	if s.Problem != "" {
		parts = append(parts, "main can't be followed")
	}
	if s.Suspended != "" {
		parts = append(parts, "suspended")
	}
	return strings.Join(parts, ", ")
}

func (g *globals) writeMatrix(now time.Time, envs []desired.EnvironmentName, all []history.Standing) error {
	p := paletteFor(g.out)
	column := map[desired.EnvironmentName]int{}
	head := plain("SERVICE")
	for i, env := range envs {
		column[env] = i + 1
		head = append(head, cell{text: string(env)})
	}
	rows := map[desired.ServiceName][]cell{}
	for _, s := range all {
		row := rows[s.Service]
		if row == nil {
			row = make([]cell, len(head))
			row[0].text = string(s.Service)
			rows[s.Service] = row
		}
		row[column[s.Environment]] = cell{summary(now, s), p.state(mark(s))}
	}
	t := &table{w: g.out}
	lines := [][]cell{head}
	for _, svc := range slices.Sorted(maps.Keys(rows)) {
		lines = append(lines, rows[svc])
	}
	return t.write(lines...)
}

// mark is the state by which a standing is coloured.
func mark(s history.Standing) string {
	if s.State == string(ledger.StateVerified) && s.Unsettled() {
		return history.StateWanted
	}
	return dash(s.State)
}

func (g *globals) writeEnvironment(now time.Time, all []history.Standing) error {
	if len(all) == 0 {
		return nil
	}
	p := paletteFor(g.out)
	rows := [][]cell{plain("SERVICE", "VERSION", "STATE", "AGE", "NEXT")}
	for _, s := range all {
		row := plain(string(s.Service), s.Version, s.State, history.Age(now, s.Since), strings.Join(s.Next, "; "))
		row[2].paint = p.state(mark(s))
		rows = append(rows, row)
	}
	return (&table{w: g.out}).write(rows...)
}

func (g *globals) writeService(now time.Time, s history.Standing) error {
	p := paletteFor(g.out)
	t := &table{w: g.out}
	d := s.Record.Deployment
	var rows [][]cell
	add := func(key, value string) {
		if value != "" {
			if key != "" {
				key += ":"
			}
			rows = append(rows, plain(key, value))
		}
	}
	when := func(at time.Time) string {
		if at.IsZero() {
			return ""
		}
		return rfc3339(at) + " (" + history.Age(now, at) + ")"
	}
	add("service", string(s.Service))
	add("environment", string(s.Environment))
	add("version", s.Version)
	add("state", s.State)
	rows[len(rows)-1][1].paint = p.state(mark(s))
	add("since", when(s.Since))
	reason, evidence, _ := strings.Cut(s.Reason, "\n")
	add("reason", reason)
	for _, pin := range s.Pins {
		add("pin "+string(pin.Artifact), pin.Image)
	}
	add("manifests of", s.Source)
	add("deployment", s.Deployment)
	add("commit", s.Commit)
	add("cause", string(d.Cause))
	add("from", d.From)
	if d.ID != "" {
		add("by", d.Actor.String())
	}
	add("drifted", when(s.Drifted))
	if s.Drift != nil {
		add("drift", string(s.Drift.Answer))
		for _, c := range s.Drift.Changes {
			add("", c.String())
		}
	}
	if v := s.Record.Verified; v != nil && v.ID != d.ID {
		add("last verified", v.Release.Version()+" "+when(v.Ended))
	}
	add("wanted", s.Wanted)
	add("problem", s.Problem)
	add("suspended", s.Suspended)
	if s.Candidate != nil {
		add("candidate", s.Candidate.Version+" since "+when(s.Candidate.Offered))
	}
	for _, n := range s.Next {
		add("next", n)
	}
	if err := t.write(rows...); err != nil {
		return err
	}
	if evidence = strings.TrimSpace(evidence); evidence != "" {
		fmt.Fprintf(g.out, "\n%s\n", printable(evidence))
	}
	if len(s.Record.Previous) == 0 {
		return nil
	}
	rows = [][]cell{plain("BEFORE", "STATE", "STARTED", "LEFT", "DEPLOYMENT")}
	for _, x := range s.Record.Previous {
		row := plain(x.Release.Version(), string(x.State), g.moment(now, x.Started), g.moment(now, x.Left), x.ID)
		row[1].paint = p.state(string(x.State))
		rows = append(rows, row)
	}
	fmt.Fprintln(g.out)
	return (&table{w: g.out}).write(rows...)
}

// statusTimeout bounds the whole look at the clusters.
const statusTimeout = time.Minute

// liveStatus compares what a commit says with what the clusters have.
func (g *globals) liveStatus(ctx context.Context, args []string) error {
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
	for _, line := range r.going(ctx, selection, all) {
		fmt.Fprintln(g.err, "note:", printable(line))
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

// going says what is being deleted in the environments and held by finalizers.
func (s *session) going(ctx context.Context, selection reconcile.Selection, all []reconcile.Rendered) (lines []string) {
	repo := s.commit.Repository
	for _, name := range slices.Sorted(maps.Keys(repo.Environments)) {
		env := repo.Environments[name]
		cl := reconcile.Connection(s.clusters, reconcile.Place{Cluster: env.Cluster, Namespace: env.Namespace}, env.ServiceAccount)
		if !selection.HasEnvironment(name) || cl == nil {
			continue
		}
		p, err := reconcile.Leftovers(ctx, s.commits, cl, repo, env, selection, all)
		if err != nil {
			lines = append(lines, fmt.Sprintf("%s: whether anything is still being deleted is not known: %v", name, err))
		}
		for _, g := range p.Going {
			lines = append(lines, fmt.Sprintf("%s: %s: %s", name, g.Ref, g.Reason))
		}
	}
	return lines
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
		return g.writeValue(services)
	}
	w := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ENVIRONMENT\tSERVICE\tVERSION\tSTATE\tAGE\tCOMMIT\tMESSAGE")
	for _, s := range services {
		age := "-"
		if !s.Since.IsZero() {
			age = history.ShortAge(time.Since(s.Since))
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
