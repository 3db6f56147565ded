package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/policy"
)

func newWhyCommand(g *globals) *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use:   "why ENV SERVICE",
		Short: "Show each gate with its value, since when, when it opens, and what would open it",
		Long: `Show why a version is, or is not, in an environment: what is there and in which
state, each gate of its verification, and, if the environment comes after others
in its pipeline, what waits to enter and each gate that it has to pass.

It judges as the daemon does, from the ledgers and from main as the clone has
them, so ` + "`git fetch`" + ` comes first. What only the daemon can see, such as health,
is not known here. With --server the daemon there is asked instead, who also tells
how its looks at registries go: whether one can't be read, since when, and why.`,
		Example: `  pinion why production web
  pinion why dev web --server https://pinion.example`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			env, svc := desired.EnvironmentName(args[0]), desired.ServiceName(args[1])
			if cmd.Flags().Changed("server") {
				if g.repo != "" || g.rev != "" {
					return errors.New("--server is given with --repo or --rev, and the daemon answers from what it follows; leave out one of them")
				}
				return g.whyOf(cmd.Context(), c, env, svc)
			}
			return g.why(cmd.Context(), env, svc)
		},
	}
	c.flags(cmd.Flags())
	cmd.Flags().Lookup("server").Usage = "ask the daemon at this address, instead of reading a clone"
	return cmd
}

// whyOf has a daemon explain.
func (g *globals) whyOf(ctx context.Context, c client, env desired.EnvironmentName, svc desired.ServiceName) error {
	format, err := g.format("table", "json", "yaml")
	if err != nil {
		return err
	}
	x := &history.Explanation{}
	if err := c.get(ctx, "/api/v1/why", url.Values{"environment": {string(env)}, "service": {string(svc)}}, x); err != nil {
		return err
	}
	return g.tellWhy(format, x.Now.Local(), x)
}

func (g *globals) why(ctx context.Context, env desired.EnvironmentName, svc desired.ServiceName) error {
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
	if err := l.KnowsEnvironment(ctx, env); err != nil {
		return err
	}
	x, err := l.Explain(ctx, env, svc)
	if err != nil {
		return err
	}
	fmt.Fprintln(g.err, l.asOf(ctx))
	return g.tellWhy(format, l.Now, x)
}

func (g *globals) tellWhy(format string, now time.Time, x *history.Explanation) error {
	switch format {
	case "json":
		return g.writeJSON(x)
	case "yaml":
		return g.writeValue(x)
	}
	return g.writeWhy(now, x)
}

func (g *globals) writeWhy(now time.Time, x *history.Explanation) error {
	p := paletteFor(g.out)
	fmt.Fprintln(g.out, printable(x.Answer)+".")
	if d := x.Deployment; d != nil {
		fmt.Fprintf(g.out, "\n%s: %s since %s (%s)\n", d.ID, p.state(string(d.State))(string(d.State)), rfc3339(x.Standing.Since), history.Age(now, x.Standing.Since))
		by := fmt.Sprintf("  %s by %s, commit %.12s", d.Cause, cmp.Or(d.Actor.String(), "pinion"), d.Commit)
		if d.From != "" {
			by += ", from " + d.From
		}
		fmt.Fprintln(g.out, printable(by))
		if d.Reason != "" {
			fmt.Fprintln(g.out, "  "+printable(strings.ReplaceAll(d.Reason, "\n", "\n  ")))
		}
	}
	if s := x.Standing; s != nil && s.Drift != nil {
		fmt.Fprintf(g.out, "\nDrift, %s since %s (%s):\n", s.Drift.Answer, rfc3339(s.Drifted), history.Age(now, s.Drifted))
		for _, c := range s.Drift.Changes {
			fmt.Fprintln(g.out, "  "+printable(c.String()))
		}
		if s.Drift.More != "" {
			fmt.Fprintf(g.out, "  and %s that are not listed\n", printable(s.Drift.More))
		}
	}
	if v := x.Verification; v != nil {
		fmt.Fprintf(g.out, "\nVerification, by the rules of %.12s:\n", v.Rules)
		if err := g.writeGates(now, v.Gates); err != nil {
			return err
		}
	}
	switch a := x.Admission; {
	case a != nil:
		what := "nothing"
		if a.Candidate != nil {
			what = a.Version + " from " + strings.Join(a.Candidate.From, ", ")
		}
		fmt.Fprintf(g.out, "\nTo enter %s, by the rules of %.12s: %s\n", x.Environment, x.Main, printable(what))
		if err := g.writeGates(now, a.Gates); err != nil {
			return err
		}
	case x.Route != "":
		fmt.Fprintf(g.out, "\nNothing is promoted into %s: %s\n", x.Environment, printable(x.Route))
	}
	if len(x.Registries) > 0 {
		fmt.Fprintln(g.out, "\nRegistries that are watched for new versions:")
		t := &table{w: g.out, indent: "  "}
		rows := [][]cell{plain("REPOSITORY", "READ", "FAILS SINCE", "LOOKED AT AGAIN", "PROBLEM")}
		for _, r := range x.Registries {
			problem := r.Problem
			if r.Elsewhere {
				problem = "another replica looks at it; ask that one"
			}
			rows = append(rows, plain(r.Repository, g.moment(now, r.Read), g.moment(now, r.Failing), g.upcoming(now, r.Next), problem))
		}
		if err := t.write(filled(rows)...); err != nil {
			return err
		}
	}
	if len(x.Refused) > 0 {
		fmt.Fprintln(g.out, "\nRefused, until a person pins it again:")
		t := &table{w: g.out, indent: "  "}
		rows := [][]cell{plain("VERSION", "SINCE", "WHY")}
		for _, r := range x.Refused {
			rows = append(rows, plain(r.Release.Version(), g.moment(now, r.Time), r.Reason))
		}
		return t.write(rows...)
	}
	return nil
}

func (g *globals) writeGates(now time.Time, verdicts []policy.Verdict) error {
	p := paletteFor(g.out)
	t := &table{w: g.out, indent: "  "}
	rows := [][]cell{plain("GATE", "VALUE", "SINCE", "OPENS", "FAILS", "WHY", "WHAT OPENS IT")}
	for _, v := range verdicts {
		row := plain(v.Gate, string(v.Outcome), g.moment(now, v.Since), g.upcoming(now, v.Opens), g.upcoming(now, v.Deadline), v.Reason, v.Needs)
		row[1].paint = p.state(string(v.Outcome))
		rows = append(rows, row)
	}
	return t.write(filled(rows)...)
}

// upcoming writes when something will be.
func (g *globals) upcoming(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	if _, tty := terminal(g.out); tty {
		return history.Clock(now, t)
	}
	return rfc3339(t)
}
