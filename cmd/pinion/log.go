package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
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

// logged is an entry of a ledger, for scripts.
type logged struct {
	Entry       string                  `json:"entry"` // the commit on the ledger
	Time        string                  `json:"time"`
	Event       ledger.Event            `json:"event,omitempty"`
	Environment desired.EnvironmentName `json:"environment,omitempty"`
	Service     desired.ServiceName     `json:"service,omitempty"`
	Version     string                  `json:"version,omitempty"`
	Before      string                  `json:"before,omitempty"`
	After       string                  `json:"after,omitempty"`
	Deployment  string                  `json:"deployment,omitempty"`
	Candidate   bool                    `json:"candidate,omitempty"`
	Late        bool                    `json:"late,omitempty"`
	Commit      string                  `json:"commit,omitempty"`
	Pins        []ledger.Pin            `json:"pins,omitempty"`
	Source      string                  `json:"source,omitempty"`
	Manifests   string                  `json:"manifests,omitempty"`
	From        []string                `json:"from,omitempty"`
	Cause       ledger.Cause            `json:"cause,omitempty"`
	By          string                  `json:"by"`
	Actor       *ledger.Person          `json:"actor,omitempty"`
	Authors     []ledger.Person         `json:"authors,omitempty"`
	Checks      []ledger.Check          `json:"checks,omitempty"`
	Approval    *ledger.Approval        `json:"approval,omitempty"`
	Policy      desired.PolicyName      `json:"policy,omitempty"`
	Drift       *ledger.Drift           `json:"drift,omitempty"`
	Reason      string                  `json:"reason,omitempty"`
	Subject     string                  `json:"subject"`
	// Error: the commit is no entry of Pinion's, and why.
	Error string `json:"error,omitempty"`

	when    time.Time
	message string
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
	since, err := parseWhen(l.now, "since", f.since)
	if err != nil {
		return err
	}
	until, err := parseWhen(l.now, "until", f.until)
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
		if err := l.inLedger(ctx, env, svc); err != nil {
			return err
		}
	}
	if at := l.asOf(ctx); at != "" {
		fmt.Fprintf(g.err, "%s, %s\n", ledger.Branch(env), at)
	}
	out := g.logWriter(format, f.verbose, l.now)
	shown, more := 0, false
	var last time.Time
	var failure error
	err = l.archive.History(ctx, tip, func(c gitstate.CommitInfo) bool {
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
		x := logEntry(c)
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

// inLedger makes sure that an environment's ledger knows a service.
func (l *ledgers) inLedger(ctx context.Context, env desired.EnvironmentName, svc desired.ServiceName) error {
	_, ok, err := l.record(ctx, env, svc)
	if ok || err != nil {
		return err
	}
	all, err := l.records(ctx, env)
	if err != nil {
		return err
	}
	return unknownName("service", string(svc), slices.Sorted(maps.Keys(all)), ledger.Branch(env)+" has")
}

// logEntry reads an entry. A commit that is none is shown as what it is.
func logEntry(c gitstate.CommitInfo) logged {
	x := logged{Entry: c.ID, Time: rfc3339(c.Committer.Time), when: c.Committer.Time, message: c.Message, By: c.Author.String()}
	x.Subject, _, _ = strings.Cut(c.Message, "\n")
	e, err := ledger.ParseMessage(c.Message, c.Committer.Time)
	if err != nil {
		x.Error = err.Error()
		return x
	}
	x.Event, x.Environment, x.Service = e.Event, e.Environment, e.Service
	x.Version, x.Before, x.After = e.Release.Version(), e.Before, e.After
	x.Deployment, x.Candidate, x.Late, x.Commit = e.Deployment, e.Candidate, e.Late, e.Commit
	x.Pins, x.Source, x.Manifests, x.From = e.Release.Pins, e.Release.Source, e.Manifests, e.From
	x.Cause, x.Authors, x.Checks, x.Approval, x.Policy, x.Reason = e.Cause, e.Authors, e.Checks, e.Approval, e.Policy, e.Reason
	x.Drift = e.Drift
	if e.Actor != (ledger.Person{}) {
		x.Actor = &e.Actor
	}
	switch {
	case e.Actor != (ledger.Person{}):
		x.By = cmp.Or(e.Actor.Name, e.Actor.Email)
	case e.Approval != nil:
		x.By = e.Approval.By
	case e.Event == ledger.EventCheck && len(e.Checks) > 0:
		x.By = e.Checks[0].By
	case e.Drift != nil && len(e.Drift.By()) > 0:
		x.By = strings.Join(e.Drift.By(), ", ")
	default:
		x.By = "pinion"
	}
	return x
}

// versions says in one cell what the entry moves.
func (x logged) versions() string {
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
func (x logged) why() string {
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
	reason := clause(x.Reason)
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
	add func(logged) error
	end func() error
}

// A page of the table has so many rows at most: its columns fit these.
const logPage = 200

func (g *globals) logWriter(format string, verbose bool, now time.Time) logWriter {
	p := paletteFor(g.out)
	switch {
	case format == "json":
		n := 0
		return logWriter{func(x logged) error {
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
		return logWriter{func(x logged) error {
			n++
			text, err := yaml.Marshal([]logged{x})
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
		return logWriter{func(x logged) error {
			var b strings.Builder
			if n++; n > 1 {
				b.WriteByte('\n')
			}
			fmt.Fprintf(&b, "%s  %s  by %s\n", p.wait("entry "+x.Entry), x.Time, printable(x.By))
			for line := range strings.SplitSeq(strings.TrimRight(printable(x.message), "\n"), "\n") {
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
	return logWriter{func(x logged) error {
		when := x.Time
		if tty {
			when = ageAt(now, x.when)
		}
		if t.widths == nil && rows == nil {
			rows = append(rows, plain("WHEN", "EVENT", "SERVICE", "VERSION", "BY", "WHY"))
		}
		row := plain(when, string(x.Event), string(x.Service), x.versions(), x.By, x.why())
		row[1].paint = p.state(dash(string(x.Event)))
		if rows = append(rows, row); len(rows) < logPage {
			return nil
		}
		return flush()
	}, flush}
}
