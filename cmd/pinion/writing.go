package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
	"github.com/pinion-cd/pinion/proposal"
	"github.com/pinion-cd/pinion/reconcile"
)

// writing is how a command writes to the main branch: the flags of each
// command that does.
//
// It is done by the git program, so that the user's credentials, identity,
// signing key and hooks count. What is judged is the tip of the remote's
// branch, never the working tree; the commit is made beside the index and the
// working tree, and pushed onto the very tip that was judged.
type writing struct {
	branch, message string
	yes, dryRun     bool
}

// ground is what a proposal is judged on, at the site.
type ground struct {
	*ledgers
	*proposal.Ground
}

// attempts is how often a commit is made again because the branch has moved.
const attempts = 6

func (w *writing) flags(f *pflag.FlagSet) {
	f.StringVarP(&w.message, "message", "m", "", "the reason, for the commit's message")
	f.StringVar(&w.branch, "branch", "", "the branch to push to (default: the remote's default branch, or main)")
	f.BoolVarP(&w.yes, "yes", "y", false, "push without asking")
	f.BoolVar(&w.dryRun, "dry-run", false, "show the change and stop")
}

// writingHelp is what the commands that write have in common.
const writingHelp = `The commit is made on the tip of the remote's main branch, whatever the working
tree holds, and pushed by git with your credentials, identity, signing key and
hooks. The change is shown first, on standard output. On a terminal you are
asked; elsewhere give --yes. If the branch moves in between, all is judged again.`

// write has a proposal judged, shown, confirmed and pushed.
func (g *globals) write(ctx context.Context, w *writing, judge func(context.Context, *site, *proposal.Ground) (*proposal.Proposal, error)) error {
	format, err := g.format("text", "json")
	if err != nil {
		return err
	}
	if g.rev != "" {
		return fmt.Errorf("--rev %s: this command writes onto the tip of the remote's branch; leave --rev out", g.rev)
	}
	if !w.yes && !w.dryRun && !g.canAsk() {
		return errors.New("there is no terminal to ask on, so nothing is pushed; give --yes to push without being asked, or --dry-run to see the change")
	}
	branch := w.branch
	if branch == "" {
		c, err := g.readConfig()
		if err != nil {
			return err
		}
		branch = c.Repository.Branch
	}
	s, err := g.openSite(ctx, branch)
	if err != nil {
		return err
	}
	defer s.close()
	a := attempt{g: g, w: w, s: s, judge: judge, text: format == "text"}
	for try := 1; ; try++ {
		if err = a.make(ctx); !errors.Is(err, errMoved) {
			break
		}
		if try == attempts {
			return fmt.Errorf("push to %s of %s: %w %d times while the commit was made; try again when there is less going on", s.branch, s.name, errMoved, attempts)
		}
		fmt.Fprintf(g.err, "%s has moved in the meantime; judging again\n", s.branch)
	}
	if err != nil {
		return err
	}
	if format == "json" {
		err = g.writeJSON(a.outcome)
	}
	if a.refused != nil && err == nil {
		return &exitError{exitRefused, a.refused}
	}
	return err
}

// asks has judged what somebody asks for.
func asks(in proposal.Asked) func(context.Context, *site, *proposal.Ground) (*proposal.Proposal, error) {
	return func(ctx context.Context, _ *site, gr *proposal.Ground) (*proposal.Proposal, error) {
		return in.Propose(ctx, gr)
	}
}

// outcome is what a command that writes tells a script.
type outcome struct {
	Branch   string   `json:"branch"`
	Commit   string   `json:"commit,omitempty"` // as it was pushed
	Pushed   bool     `json:"pushed"`
	Subject  string   `json:"subject,omitempty"`
	Diff     string   `json:"diff,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	Next     []string `json:"next,omitempty"`
	Nothing  string   `json:"nothing,omitempty"` // why there was nothing to do
	// Refused says why it may not be, and Verdicts how it is with each gate.
	Refused  string           `json:"refused,omitempty"`
	Verdicts []policy.Verdict `json:"verdicts,omitempty"`
}

// attempt is one way from the judgement to the push, and what is left of those
// before it.
type attempt struct {
	g     *globals
	w     *writing
	s     *site
	judge func(context.Context, *site, *proposal.Ground) (*proposal.Proposal, error)
	text  bool // the change goes to standard output

	agreed  string // what was shown and confirmed
	outcome outcome
	refused error
}

// make judges, shows, asks, and pushes. errMoved says that the branch has moved
// in between.
func (a *attempt) make(ctx context.Context) error {
	gr, err := a.s.fetch(ctx)
	if err != nil {
		return err
	}
	defer gr.close()
	p, err := a.judge(ctx, a.s, gr.Ground)
	if err != nil {
		return err
	}
	a.outcome = outcome{Branch: a.s.branch, Warnings: p.Warnings, Next: p.Next, Nothing: p.Nothing}
	switch {
	case p.Nothing != "":
		fmt.Fprintln(a.g.err, printable(p.Nothing)+"; nothing to do")
		return nil
	case p.Refused != nil:
		a.refused = p.Refused
		a.outcome.Refused, a.outcome.Verdicts = p.Refused.Error(), p.Verdicts
		if len(p.Verdicts) > 0 && a.text {
			here := *a.g
			here.out = a.g.err
			return here.writeGates(a.g.now, p.Verdicts)
		}
		return nil
	}
	message := p.Change.Message()
	draft, err := a.s.draft(ctx, gr.Ground.Commit.ID, p.Files, message)
	if err != nil {
		return err
	}
	if err := gr.sound(ctx, draft); err != nil {
		return err
	}
	diff, err := a.s.git.output(ctx, "diff-tree", "-p", "--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/", gr.Ground.Commit.ID, draft)
	if err != nil {
		return err
	}
	if diff == "" {
		return fmt.Errorf("%s would change nothing, and is not pushed", strings.Join(slices.Sorted(maps.Keys(p.Files)), ", "))
	}
	a.outcome.Subject, _, _ = strings.Cut(message, "\n")
	a.outcome.Diff = diff
	// Who has agreed to a change is asked again only if it is another one.
	if shown := diff + strings.Join(p.Warnings, "\n"); a.agreed != shown {
		a.show(p, diff)
		if a.w.dryRun {
			fmt.Fprintf(a.g.err, "a dry run: nothing was pushed to %s of %s\n", a.s.branch, a.s.name)
			return nil
		}
		if !a.w.yes {
			if err := a.g.ask(ctx, fmt.Sprintf("Push this to %s of %s? [y/N] ", a.s.branch, a.s.name)); err != nil {
				return err
			}
		}
		a.agreed = shown
	}
	commit, err := a.s.finish(ctx, gr.Ground.Commit.ID, draft, message)
	if err != nil {
		return err
	}
	if err := a.s.push(ctx, gr.Ground.Commit.ID, commit); err != nil {
		return err
	}
	a.outcome.Commit, a.outcome.Pushed = commit, true
	fmt.Fprintf(a.g.err, "pushed %.12s to %s of %s\n", commit, a.s.branch, a.s.name)
	if note := a.s.follow(ctx, commit); note != "" {
		fmt.Fprintln(a.g.err, note)
	}
	return nil
}

// show writes what would be done, and what comes then.
func (a *attempt) show(p *proposal.Proposal, diff string) {
	if a.agreed != "" {
		fmt.Fprintln(a.g.err, "the change is another one now")
	}
	if a.text {
		a.g.writeDiff(diff)
	}
	for _, l := range p.Warnings {
		fmt.Fprintln(a.g.err, paletteFor(a.g.err).wait("warning:"), printable(l))
	}
	for i, l := range p.Next {
		if i == 0 {
			l = "next: " + l
		} else {
			l = "  " + l
		}
		fmt.Fprintln(a.g.err, printable(l))
	}
}

// sound makes sure that a commit has no mistake that its parent does not have.
func (gr *ground) sound(ctx context.Context, draft string) error {
	after, err := reconcile.ReadCommit(ctx, gr.archive, draft, gr.Ground.Commit)
	if err != nil {
		return err
	}
	return gr.Sound(after.Repository)
}

// writeDiff writes a unified diff, coloured on a terminal.
func (g *globals) writeDiff(diff string) {
	color := paletteFor(g.out)
	for line := range strings.Lines(diff) {
		line = printable(strings.TrimSuffix(line, "\n"))
		switch {
		case strings.HasPrefix(line, "diff "), strings.HasPrefix(line, "index "), strings.HasPrefix(line, "+++ "), strings.HasPrefix(line, "--- "):
			line = color.dim(line)
		case strings.HasPrefix(line, "@@"):
			line = color.wait(line)
		case strings.HasPrefix(line, "+"):
			line = color.good(line)
		case strings.HasPrefix(line, "-"):
			line = color.bad(line)
		}
		fmt.Fprintln(g.out, line)
	}
}

// canAsk tells whether there is somebody to ask.
func (g *globals) canAsk() bool {
	f, ok := g.in.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// ask asks a question; any answer but yes is an error.
func (g *globals) ask(ctx context.Context, question string) error {
	fmt.Fprint(g.err, question)
	answer := make(chan string, 1)
	go func() { // reading can't be called off: it ends with the process
		line, _ := bufio.NewReader(g.in).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case a := <-answer:
		if a == "y" || a == "yes" {
			return nil
		}
		return &exitError{exitDifferent, errors.New("not confirmed: nothing was pushed")}
	case <-ctx.Done():
		fmt.Fprintln(g.err)
		return fmt.Errorf("nothing was pushed: %w", context.Cause(ctx))
	}
}

// people reads the persons that flags name.
func people(flag string, values []string) ([]ledger.Person, error) {
	var all []ledger.Person
	for _, v := range values {
		p := ledger.ParsePerson(v)
		if p == (ledger.Person{}) || strings.ContainsAny(v, "\r\n") {
			return nil, fmt.Errorf(`--%s %q: nobody is named; write "Name <name@example.com>"`, flag, v)
		}
		all = append(all, p)
	}
	return all, nil
}
