package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/ledger"
)

type logFlags struct {
	limit        int
	all, verbose bool
	since, until string
}

func newLogCommand(g *globals) *cobra.Command {
	var f logFlags
	cmd := &cobra.Command{
		Use:   "log ENV [SERVICE]",
		Short: "Show what happened in an environment: who, what, when, why, how verified",
		Long: `Show the ledger of an environment, newest entry first: what happened, to which
version, by whom, and why. It reads the ledger's branch as the clone has it, so
` + "`git fetch`" + ` comes first, and neither the daemon nor a cluster is needed.

--since and --until take a moment (2026-12-01T09:00:00Z), a day (2026-12-01, its
beginning in UTC), or how long ago (36h, 3d).`,
		Example: `  pinion log production web
  pinion log staging --since 3d --all -o json`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error { return g.log(cmd.Context(), args, f) },
	}
	cmd.Flags().IntVarP(&f.limit, "limit", "n", 30, "how many entries to show at most")
	cmd.Flags().BoolVar(&f.all, "all", false, "show all entries")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "show each entry whole, with its body and trailers")
	cmd.Flags().StringVar(&f.since, "since", "", "show no entries before a moment")
	cmd.Flags().StringVar(&f.until, "until", "", "show no entries after a moment")
	return cmd
}

func (g *globals) log(ctx context.Context, args []string, f logFlags) error {
	format, err := g.format("table", "json", "yaml")
	if err != nil {
		return err
	}
	if f.limit < 1 {
		return fmt.Errorf("log: -n %d; show 1 entry at least, or --all", f.limit)
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
	env := desired.EnvironmentName(args[0])
	tip, err := l.tip(ctx, env)
	if err != nil {
		return err
	}
	var svc desired.ServiceName
	if len(args) > 1 {
		svc = desired.ServiceName(args[1])
		if err := l.Holds(ctx, env, svc); err != nil {
			return err
		}
	}
	if at := l.asOf(ctx); at != "" {
		fmt.Fprintf(g.err, "%s, %s\n", ledger.Branch(env), at)
	}
	out := g.logWriter(format, f.verbose, l.Now)
	shown, more := 0, false
	var last time.Time
	var failure error
	err = l.Archive.History(ctx, tip, func(c gitstate.CommitInfo) bool {
		when := c.Committer.Time
		switch {
		case !until.IsZero() && when.After(until):
			return true
		case !since.IsZero() && when.Before(since):
			// A clock that was set back may have left a later one before it.
			return when.After(since.Add(-24 * time.Hour))
		case svc != "" && !strings.Contains(c.Message, "\nPinion-Service: "+string(svc)+"\n"):
			return true
		}
		x := history.ReadEntry(c)
		if svc != "" && x.Service != svc {
			return true
		}
		if shown == f.limit && !f.all {
			more = true
			return false
		}
		shown++
		last = when
		failure = out.add(x)
		return failure == nil
	})
	if failure == nil {
		failure = out.end()
	}
	switch {
	case failure != nil:
		return failure
	case err != nil:
		return fmt.Errorf("read %s: %w", ledger.Branch(env), err)
	case more:
		fmt.Fprintf(g.err, "there are older entries: add --until %s, -n, or --all\n", rfc3339(last))
	case shown == 0:
		fmt.Fprintln(g.err, "no entries")
	}
	return nil
}

// versions says in one cell what the entry moves.
func versionsOf(x history.Entry) string {
	switch {
	case x.Event == ledger.EventRetired:
		return ""
	case x.Before != "" && x.Before != x.Version && (x.Deployment != "" || x.Event == ledger.EventOffered) && x.Event != ledger.EventCheck && x.Event != ledger.EventApproved:
		return x.Before + " → " + x.Version
	case x.Version == "" && x.Source != "":
		return fmt.Sprintf("manifests of %.12s", x.Source)
	}
	return x.Version
}

// why says in one cell what the entry is founded on.
func whyOf(x history.Entry) string {
	if x.Error != "" {
		return "not an entry: " + x.Subject
	}
	var parts []string
	add := func(s string) {
		if s != "" {
			parts = append(parts, s)
		}
	}
	switch x.Event {
	case ledger.EventPinned:
		add(string(x.Cause))
		if len(x.From) > 0 {
			from := make([]string, len(x.From))
			for i, f := range x.From {
				from[i], _, _ = strings.Cut(f, "@")
			}
			add("from " + strings.Join(from, ", "))
		}
	case ledger.EventCheck:
		for _, c := range x.Checks {
			add(checkText(c))
		}
	case ledger.EventApproved:
		if x.Approval != nil {
			text := string(x.Approval.Policy)
			if x.Approval.Comment != "" {
				text += ": " + x.Approval.Comment
			}
			add(text)
		}
	case ledger.EventRerun:
		add(string(x.Policy) + " is checked once more")
	case ledger.EventSuperseded:
		if x.After != "" {
			add("by " + x.After)
		}
	case ledger.EventDrifted:
		if x.Drift == nil {
			break
		}
		if len(x.Drift.Changes) == 0 {
			add(string(x.Drift.Answer))
			break
		}
		return string(x.Drift.Answer) + ": " + x.Drift.String() // what the reason says, too
	}
	if x.Candidate && x.Event != ledger.EventOffered && x.Event != ledger.EventApproved {
		add("a candidate")
	}
	if x.Late {
		add("late")
	}
	reason := history.Clause(x.Reason)
	text := strings.Join(parts, ", ")
	if text == "" || reason == "" {
		return text + reason
	}
	return text + ": " + reason
}

// checkText says what a check came to: "e2e passed (ci, https://ci.example/5)".
func checkText(c ledger.Check) string {
	word := "failed"
	if c.Result == ledger.Success {
		word = "passed"
	}
	text := string(c.Policy) + " " + word
	switch {
	case c.URL != "":
		text += " (" + c.By + ", " + c.URL + ")"
	case c.By != "pinion":
		text += " (" + c.By + ")"
	}
	if c.Description != "" {
		text += ": " + c.Description
	}
	return text
}

// logWriter writes entries as they come.
type logWriter struct {
	add func(history.Entry) error
	end func() error
}

// A page of the table has so many rows at most: its columns fit these.
const logPage = 200

func (g *globals) logWriter(format string, verbose bool, now time.Time) logWriter {
	p := paletteFor(g.out)
	switch {
	case format == "json":
		n := 0
		return logWriter{func(x history.Entry) error {
			var b bytes.Buffer
			enc := json.NewEncoder(&b)
			enc.SetIndent("  ", "  ")
			enc.SetEscapeHTML(false)
			if err := enc.Encode(x); err != nil {
				return err
			}
			begin := ",\n  "
			if n++; n == 1 {
				begin = "[\n  "
			}
			_, err := fmt.Fprintf(g.out, "%s%s", begin, bytes.TrimSpace(b.Bytes()))
			return err
		}, func() error {
			end := "\n]\n"
			if n == 0 {
				end = "[]\n"
			}
			_, err := io.WriteString(g.out, end)
			return err
		}}
	case format == "yaml":
		n := 0
		return logWriter{func(x history.Entry) error {
			n++
			text, err := yaml.Marshal([]history.Entry{x})
			if err != nil {
				return err
			}
			_, err = g.out.Write(text)
			return err
		}, func() error {
			if n > 0 {
				return nil
			}
			_, err := io.WriteString(g.out, "[]\n")
			return err
		}}
	case verbose:
		n := 0
		return logWriter{func(x history.Entry) error {
			var b strings.Builder
			if n++; n > 1 {
				b.WriteByte('\n')
			}
			fmt.Fprintf(&b, "%s  %s  by %s\n", p.wait("entry "+x.Entry), x.Time, printable(x.By))
			for line := range strings.SplitSeq(strings.TrimRight(printable(x.Message), "\n"), "\n") {
				b.WriteString(strings.TrimRight("    "+line, " ") + "\n")
			}
			_, err := io.WriteString(g.out, b.String())
			return err
		}, func() error { return nil }}
	}
	_, tty := terminal(g.out)
	t := &table{w: g.out}
	var rows [][]cell
	flush := func() error {
		defer func() { rows = rows[:0] }()
		return t.write(rows...)
	}
	return logWriter{func(x history.Entry) error {
		when := x.Time
		if tty {
			when = history.Age(now, x.When)
		}
		if t.widths == nil && rows == nil {
			rows = append(rows, plain("WHEN", "EVENT", "SERVICE", "VERSION", "BY", "WHY"))
		}
		row := plain(when, string(x.Event), string(x.Service), versionsOf(x), x.By, whyOf(x))
		row[1].paint = p.state(dash(string(x.Event)))
		if rows = append(rows, row); len(rows) < logPage {
			return nil
		}
		return flush()
	}, flush}
}
