package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/dora"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/ledger"
)

type doraFlags struct {
	environments []string
	since, until string
}

func newDoraCommand(g *globals) *cobra.Command {
	var f doraFlags
	cmd := &cobra.Command{
		Use:   "dora [SERVICE]",
		Short: "Show the five figures of DORA: how often, how fast, how safely",
		Long: `Show deployment frequency, lead time for changes, change failure rate, time to
restore and rework rate (https://dora.dev/guides/dora-metrics/), from the ledgers
as the clone has them, and for the time before there were any from the pins on
main. Neither the daemon nor a cluster is needed.

A deployment is what was begun to be applied. It failed if its rollout or its
verification did, or if what came right after it went back. The lead time is from
when the commit of the artifact was made, as far as that is known, else from when
it was built, else from the first pin of the version anywhere, to the end of the
rollout; that of a rollback does not count. A failure is restored when something is rolled out that does not fail.
Rework is what came because the deployment before it had failed. Before the
ledger, a pin counts as rolled out at once, and as failed only if it was taken
back.

Without --environment, it is the environments with which the pipelines end.
--since and --until take a moment, a day, or how long ago, as those of log do.`,
		Example: `  pinion report dora --since 30d
  pinion report dora web --environment production -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return g.dora(cmd.Context(), args, f) },
	}
	cmd.Flags().StringSliceVarP(&f.environments, "environment", "e", nil, "environment to look at; may be given several times")
	cmd.Flags().StringVar(&f.since, "since", "90d", "the beginning of the time that is measured")
	cmd.Flags().StringVar(&f.until, "until", "", "its end (default: now)")
	return cmd
}

// doraOutput is the JSON and YAML form.
type doraOutput struct {
	Environments []desired.EnvironmentName `json:"environments"`
	dora.Report  `json:",inline"`
	Truncated    bool `json:"truncated,omitempty"` // older entries were left out
}

func (g *globals) dora(ctx context.Context, args []string, f doraFlags) error {
	format, err := g.format("table", "json", "yaml")
	if err != nil {
		return err
	}
	l, err := g.openLedgers(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	since, err := parseWhen(l.Now, "since", f.since)
	if err != nil {
		return err
	}
	until, err := parseWhen(l.Now, "until", f.until)
	if err != nil {
		return err
	}
	if until.IsZero() {
		until = l.Now
	}
	if !since.Before(until) {
		return fmt.Errorf("dora: --since %s is not before --until %s", rfc3339(since), rfc3339(until))
	}
	repo, err := l.Repository(ctx)
	if err != nil {
		return err
	}
	var envs []desired.EnvironmentName
	for _, e := range f.environments {
		env := desired.EnvironmentName(e)
		if err := l.KnowsEnvironment(ctx, env); err != nil {
			return err
		}
		envs = append(envs, env)
	}
	if len(envs) == 0 {
		if envs = lastStages(repo); len(envs) == 0 {
			return errors.New("dora: no pipeline says which environment is the last one; name it with --environment")
		}
	}
	var only desired.ServiceName
	if len(args) > 0 {
		only = desired.ServiceName(args[0])
		if err := l.KnowsService(ctx, only); err != nil {
			return err
		}
	}
	changes, truncated, err := l.changes(ctx, envs, since)
	if err != nil {
		return err
	}
	if only != "" {
		changes = slices.DeleteFunc(changes, func(c dora.Change) bool { return c.Service != only })
	}
	out := doraOutput{envs, dora.Measure(changes, since, until), truncated}
	switch format {
	case "json":
		return g.writeJSON(out)
	case "yaml":
		return g.writeValue(out)
	}
	return g.writeDora(out, l.Shallow)
}

// changes reads what changed in environments.
func (l *ledgers) changes(ctx context.Context, envs []desired.EnvironmentName, since time.Time) ([]dora.Change, bool, error) {
	branches := map[string]string{}
	for env, tip := range l.Tips {
		branches[ledger.Branch(env)] = tip
	}
	index := history.NewIndex(l.archive, func() map[string]string { return branches })
	ctx, stop := context.WithCancel(ctx)
	var reading sync.WaitGroup
	reading.Go(func() { index.Run(ctx) })
	defer reading.Wait()
	defer stop()
	return l.Changes(ctx, index, envs, since)
}

// lastStages are the environments with which the pipelines end.
func lastStages(repo *desired.Repository) []desired.EnvironmentName {
	last := map[desired.EnvironmentName]bool{}
	for _, p := range repo.Pipelines {
		for _, s := range p.Stages {
			if len(p.Next(s.Environment)) == 0 {
				last[s.Environment] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(last))
}

func (g *globals) writeDora(out doraOutput, shallow bool) error {
	t := &table{w: g.out}
	rows := [][]cell{plain("SERVICE", "DEPLOYMENTS", "PER DAY", "LEAD TIME", "FAILED", "RESTORED IN", "REWORK")}
	add := func(name string, f dora.Figures) {
		failed := fmt.Sprintf("%d (%s)", f.Failures, percent(f.FailureRate))
		if f.Unrestored > 0 {
			failed += fmt.Sprintf(", %d not restored", f.Unrestored)
		}
		rows = append(rows, plain(name, fmt.Sprint(f.Deployments), fmt.Sprintf("%.2f", f.PerDay), span(f.LeadTime), failed, span(f.TimeToRestore), percent(f.ReworkRate)))
	}
	for _, svc := range slices.Sorted(maps.Keys(out.Services)) {
		add(string(svc), out.Services[svc])
	}
	add("all", out.All)
	if err := t.write(rows...); err != nil {
		return err
	}
	fmt.Fprintf(g.err, "%s, from %s to %s; times are the median, and what nine of ten do not exceed\n", joined(out.Environments), rfc3339(out.Since), rfc3339(out.Until))
	if n := out.All.FromPinsAlone; n > 0 {
		fmt.Fprintf(g.err, "%s of before the ledger, from the pins alone: what failed then is seen only where it was taken back\n", count(n, "deployment"))
	}
	if n := out.All.LeadTime.Count - out.All.FromBuilds - out.All.FromCommits; n > 0 {
		fmt.Fprintf(g.err, "%s from the first pin of the version, for nobody has said when it was built\n", count(n, "lead time"))
	}
	switch {
	case out.Truncated:
		fmt.Fprintln(g.err, "there are more entries than are looked at; give a later --since")
	case shallow:
		fmt.Fprintln(g.err, "this clone is shallow, and what it does not have is not counted; git fetch --unshallow brings it")
	}
	return nil
}

func joined[N ~string](names []N) string {
	text := ""
	for i, n := range names {
		if i > 0 {
			text += ", "
		}
		text += string(n)
	}
	return text
}

// percent writes a rate: 0.125 is "13 %".
func percent(rate float64) string { return fmt.Sprintf("%.0f %%", math.Round(100*rate)) }

// span writes how times are spread, for people.
func span(s dora.Spread) string {
	if s.Count == 0 {
		return ""
	}
	short := func(seconds float64) string { return history.ShortAge(time.Duration(seconds * float64(time.Second))) }
	if s.Count == 1 {
		return short(s.Median)
	}
	return short(s.Median) + " (" + short(s.P90) + ")"
}
