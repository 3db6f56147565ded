package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/history"
)

func newWhereCommand(g *globals) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "where ARTIFACT [VERSION]",
		Short: "Show which environments run an artifact's version, or ran it, and when",
		Long: `Show which environments run an artifact, or one version of it: now, or before
and when; where it waits to enter; and where it is refused, because it failed
there or was rolled back. A version is a tag, a digest (or the beginning of one,
sha256:2222), or the whole image.

It reads the newest records of the ledgers, which go back some 20 deployments
of a service; --all reads their whole history. Exit code 1 if there is nothing
to show.`,
		Example: `  pinion where web
  pinion where web 1.4.2 --all`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error { return g.where(cmd.Context(), args, all) },
	}
	cmd.Flags().BoolVar(&all, "all", false, "look through the whole history of the ledgers")
	return cmd
}

func (g *globals) where(ctx context.Context, args []string, all bool) error {
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
	w := history.Sought{Artifact: desired.ArtifactName(args[0])}
	if len(args) > 1 {
		w.Version = args[1]
	}
	found, err := l.Where(ctx, w, all)
	if err != nil {
		return err
	}
	if at := l.asOf(ctx); at != "" {
		fmt.Fprintln(g.err, "ledgers,", at)
	}
	if err := g.writeWhere(format, l.Now, found.Presences); err != nil {
		return err
	}
	if len(found.Failures) > 0 { // what is missing may be in what could not be read
		return errors.Join(found.Failures...)
	}
	if len(found.Presences) == 0 {
		what := string(w.Artifact)
		if w.Version != "" {
			what += " " + w.Version
		}
		hint := "`pinion log` tells what there was"
		if !all {
			hint = "--all looks through the whole history"
		}
		return &exitError{code: exitDifferent, cause: fmt.Errorf("no environment runs or ran %s; %s", what, hint)}
	}
	return nil
}

func (g *globals) writeWhere(format string, now time.Time, found []history.Presence) error {
	switch format {
	case "json":
		return g.writeJSON(found)
	case "yaml":
		return g.writeValue(found)
	}
	if len(found) == 0 {
		return nil
	}
	p := paletteFor(g.out)
	rows := [][]cell{plain("ENVIRONMENT", "SERVICE", "VERSION", "PRESENCE", "STATE", "SINCE", "UNTIL", "WHY")}
	for _, f := range found {
		row := plain(string(f.Environment), string(f.Service), f.Version, f.Presence, string(f.State), g.moment(now, f.Since), g.moment(now, f.Until), f.Reason)
		row[3].paint, row[4].paint = p.state(f.Presence), p.state(dash(string(f.State)))
		rows = append(rows, row)
	}
	return (&table{w: g.out}).write(rows...)
}

// moment writes when something was: how long ago on a terminal, where somebody
// reads it now, and else the time, for it may be kept.
func (g *globals) moment(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	if _, tty := terminal(g.out); tty {
		return history.Age(now, t) + " ago"
	}
	return rfc3339(t)
}

// writeValue writes a value as YAML to standard output.
func (g *globals) writeValue(v any) error {
	text, err := yaml.Marshal(v)
	if err != nil {
		return err
	}
	_, err = g.out.Write(text)
	return err
}
