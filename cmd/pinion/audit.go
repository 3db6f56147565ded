package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/audit"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/internal/grace"
	"github.com/pinion-cd/pinion/ledger"
)

type auditFlags struct {
	signers       string
	noSignatures  bool
	daemons       []string
	sinceTips     string
	baseline      []string
	writeBaseline string
	onlyNew       bool
	verbose       bool
}

func newAuditCommand(g *globals) *cobra.Command {
	var f auditFlags
	cmd := &cobra.Command{
		Use:   "audit [ENV]",
		Short: "Verify the ledgers, and that policy allowed every promotion",
		Long: `Replay the history and verify it, offline, on a plain clone: each entry of the
ledgers follows from those before it, its tree is what they lead to, the daemon
alone has written it; nothing that is known of artifacts was changed or removed;
what is verified has passed its policies; each promotion on main was allowed by
the policies, holds, windows and approvals of its moment, and changes what it
claims and nothing else.

A history that was made anew as a whole can be told by two things only: by
signatures, which are checked against --allowed-signers (see ssh-keygen(1)), and
by what was known before: the clone's own reflogs, or the tips that a former
audit has kept with --write-baseline.

Exit code 1 if something is wrong; warnings alone are no reason. What can't be
read is never fine: that is exit code 2.`,
		Example: `  pinion audit
  pinion audit production --allowed-signers allowed_signers
  pinion audit --since-tips audit.tips --only-new --write-baseline audit.tips`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return g.audit(cmd.Context(), args, f) },
	}
	s := cmd.Flags()
	s.StringVar(&f.signers, "allowed-signers", "", "file of the keys that may sign (default: git's gpg.ssh.allowedSignersFile)")
	s.BoolVar(&f.noSignatures, "no-signatures", false, "do not check signatures")
	s.StringArrayVar(&f.daemons, "daemon", nil, "the daemon's address or \"Name <address>\"; may be repeated (default: who has committed most entries)")
	s.StringVar(&f.sinceTips, "since-tips", "", "file that a former audit has written: nothing of before may be gone")
	s.StringArrayVar(&f.baseline, "baseline", nil, "revision that has to be in the history of its branch; may be repeated")
	s.StringVar(&f.writeBaseline, "write-baseline", "", "write where the branches are now to a file, for --since-tips")
	s.BoolVar(&f.onlyNew, "only-new", false, "leave out what is wrong with commits that --since-tips knows")
	s.BoolVarP(&f.verbose, "verbose", "v", false, "list the versions that people have changed, too")
	return cmd
}

// audited is what an audit comes to, for scripts.
type audited struct {
	Ledgers    int             `json:"ledgers"`
	Entries    int             `json:"entries"`
	Commits    int             `json:"commits"` // of main
	Promotions int             `json:"promotions"`
	Tracked    int             `json:"tracked"`   // versions that were brought to a first stage
	Versions   int             `json:"versions"`  // that are known
	Rollbacks  int             `json:"rollbacks"` // by the daemon
	Requests   int             `json:"requests"`  // commits that somebody has asked the daemon for, of any kind
	Daemon     []string        `json:"daemon,omitempty"`
	Signatures auditSignatures `json:"signatures"`
	Known      auditKnown      `json:"known"`
	Findings   []audit.Finding `json:"findings"`
	// LeftOut are the findings that --only-new has left out.
	LeftOut int `json:"leftOut,omitempty"`
}

type auditSignatures struct {
	Checked int    `json:"checked"` // commits
	File    string `json:"file,omitempty"`
	// Skipped says why none was checked.
	Skipped string `json:"skipped,omitempty"`
}

// auditKnown is what the branches were compared with, to see whether they have
// only grown.
type auditKnown struct {
	Tips int    `json:"tips"`
	From string `json:"from,omitempty"`
}

func (g *globals) audit(ctx context.Context, args []string, f auditFlags) error {
	format, err := g.format("table", "json", "yaml")
	if err != nil {
		return err
	}
	if f.onlyNew && f.sinceTips == "" {
		return errors.New("--only-new: nothing says what is new; give --since-tips FILE")
	}
	a, err := g.openAudit(ctx, args, f)
	if err != nil {
		return err
	}
	defer a.close()
	failure := a.run(ctx)
	if failure != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	out := a.result()
	switch format {
	case "json":
		err = g.writeJSON(out)
	case "yaml":
		var data []byte
		if data, err = json.Marshal(out); err == nil {
			err = g.writeYAML(data)
		}
	default:
		err = g.writeAudit(out.Findings)
	}
	if err != nil {
		return err
	}
	if failure != nil {
		return &exitError{exitFailed, failure}
	}
	if err := a.keepTips(); err != nil {
		return err
	}
	return a.summary(out)
}

func (g *globals) writeAudit(findings []audit.Finding) error {
	if len(findings) == 0 {
		return nil
	}
	p := paletteFor(g.out)
	rows := [][]cell{plain("SEVERITY", "COMMIT", "ENVIRONMENT", "SERVICE", "FINDING")}
	for _, f := range findings {
		text := f.Message
		if f.More > 0 {
			text += fmt.Sprintf("; the same is true of %s", grouped(f.More, "later commit"))
		}
		if f.Meaning != "" {
			text += " (" + f.Meaning + ")"
		}
		row := plain(string(f.Severity), fmt.Sprintf("%.12s", f.Commit), string(f.Environment), string(f.Service), strings.ReplaceAll(text, "\n", " "))
		switch f.Severity {
		case audit.Error:
			row[0].paint = p.bad
		case audit.Warning:
			row[0].paint = p.wait
		default:
			row[0].paint = p.dim
		}
		rows = append(rows, row)
	}
	return (&table{w: g.out}).write(rows...)
}

// summary says on standard error what was looked at, and what was not.
func (a *auditor) summary(out audited) error {
	w := a.g.err
	n := map[audit.Severity]int{}
	for _, f := range out.Findings {
		n[f.Severity]++
	}
	came := "nothing wrong"
	if n[audit.Error] > 0 {
		came = count(n[audit.Error], "finding")
	}
	if n[audit.Warning] > 0 {
		came += ", " + count(n[audit.Warning], "warning")
	}
	looked := []string{grouped(out.Ledgers, "ledger"), grouped(out.Entries, "entry"), grouped(out.Promotions, "promotion")}
	if out.Tracked > 0 {
		looked = append(looked, grouped(out.Tracked, "tracked version"))
	}
	if out.Versions > 0 {
		looked = append(looked, grouped(out.Versions, "known version"))
	}
	if out.Rollbacks > 0 {
		looked = append(looked, grouped(out.Rollbacks, "rollback"))
	}
	if out.Requests > 0 {
		looked = append(looked, grouped(out.Requests, "request"))
	}
	fmt.Fprintf(w, "%s: %s\n", strings.Join(looked, ", "), came)
	if out.LeftOut > 0 {
		fmt.Fprintf(w, "%s about commits that %s knows left out\n", count(out.LeftOut, "finding"), a.flags.sinceTips)
	}
	if out.Signatures.Skipped != "" {
		fmt.Fprintf(w, "signatures were not checked: %s\n", out.Signatures.Skipped)
	} else {
		fmt.Fprintf(w, "signatures: %s checked against %s\n", grouped(out.Signatures.Checked, "commit"), out.Signatures.File)
	}
	if out.Known.Tips == 0 {
		fmt.Fprintln(w, "nothing is known of where the branches were before: a history that was made anew as a whole would not be noticed; keep the tips with --write-baseline FILE")
	} else {
		fmt.Fprintf(w, "compared with %s\n", out.Known.From)
	}
	if n[audit.Error] > 0 {
		return &exitError{code: exitDifferent}
	}
	return nil
}

// grouped writes "12,345 entries".
func grouped(n int, noun string) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	switch {
	case n == 1:
	case strings.HasSuffix(noun, "y"):
		noun = strings.TrimSuffix(noun, "y") + "ies"
	default:
		noun += "s"
	}
	return digits + " " + noun
}

// auditor is an audit under way.
type auditor struct {
	g       *globals
	flags   auditFlags
	ledgers *ledgers
	only    desired.EnvironmentName // "": all of them
	signers *gitstate.AllowedSigners
	file    string // of the signers
	skipped string // why signatures are not checked

	// main, newest first.
	line  []gitstate.CommitInfo
	place map[string]int
	since map[string]int // by branch, how many of its first commits are known
	// sides are, of the merges of main, the commits that they bring and that have
	// the look of promotions.
	sides map[string][]gitstate.CommitInfo

	shared  sharedRules
	readers []*auditReader
	idle    chan *auditReader

	mu         sync.Mutex // guards what follows
	books      map[desired.EnvironmentName]*audit.Book
	findings   []audit.Finding
	stock      *audit.Stock // nil: there is no such branch
	committed  map[committer][]committed
	claims     map[string][]audit.Claim // by the commit of main
	lost       map[string]bool          // commits that entries name, and that are beside main's line
	daemons    []ledger.Person
	entries    int
	promotions int
	tracked    int
	rollbacks  int
	requests   int
	checked    int
	known      auditKnown
	rewritten  bool
}

// committer is somebody who has committed to a ledger, or to what is known of
// artifacts.
type committer struct {
	ledger.Person
	branch string
	env    desired.EnvironmentName // of a ledger
}

// committed is a commit, in short.
type committed struct {
	id      string
	seconds int64
}

func (g *globals) openAudit(ctx context.Context, args []string, f auditFlags) (*auditor, error) {
	a := &auditor{g: g, flags: f, place: map[string]int{}, since: map[string]int{},
		books: map[desired.EnvironmentName]*audit.Book{}, committed: map[committer][]committed{}, claims: map[string][]audit.Claim{},
		sides: map[string][]gitstate.CommitInfo{}, lost: map[string]bool{}}
	people, err := people("daemon", f.daemons)
	if err != nil {
		return nil, err
	}
	a.daemons = people
	if a.ledgers, err = g.openLedgers(ctx); err != nil {
		return nil, err
	}
	grace.Percent(150) // it reads everything: what is left lying about would be very much
	if err := a.prepare(ctx, args); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

func (a *auditor) prepare(ctx context.Context, args []string) error {
	l := a.ledgers
	if l.clone != nil && l.clone.Shallow() {
		return errors.New("this clone is shallow: a part of the history is not there, and can't be verified; run `git fetch --unshallow`")
	}
	if len(l.Tips) == 0 {
		return l.none()
	}
	if len(args) > 0 {
		a.only = desired.EnvironmentName(args[0])
		if _, err := l.tip(ctx, a.only); err != nil {
			return err
		}
	}
	if _, err := l.Main(ctx); err != nil {
		return err
	}
	if err := a.readSigners(ctx); err != nil {
		return err
	}
	workers := max(1, runtime.GOMAXPROCS(0))
	a.idle = make(chan *auditReader, workers)
	for range workers {
		r := &auditReader{auditor: a, archive: l.archive, environments: map[string]*desired.Environment{}, edited: map[string]*edited{}, records: map[string]ledger.Record{}}
		if l.clone != nil {
			// One reads at a time through one clone.
			clone, _, err := a.g.openClone()
			if err != nil {
				return err
			}
			r.archive, r.clone = clone, clone
		}
		a.readers = append(a.readers, r)
		a.idle <- r
	}
	return nil
}

func (a *auditor) close() {
	for _, r := range a.readers {
		if r.clone != nil {
			r.clone.Close()
		}
	}
	a.ledgers.close()
}

// readSigners finds out who may sign.
func (a *auditor) readSigners(ctx context.Context) error {
	a.file = a.flags.signers
	switch {
	case a.flags.noSignatures && a.file != "":
		return errors.New("--allowed-signers and --no-signatures can't both be; leave one out")
	case a.flags.noSignatures:
		a.skipped = "--no-signatures"
		return nil
	case a.file == "" && a.ledgers.clone != nil:
		dir, err := filepath.Abs(a.g.repo)
		if err != nil {
			return err
		}
		if root := a.ledgers.clone.Root(); root != "" {
			dir = root
		}
		// Without the git program nothing is known of its configuration.
		if file, err := (git{dir: dir, err: a.g.err}).quiet(ctx, "config", "--type=path", "--get", "gpg.ssh.allowedSignersFile"); err == nil && file != "" {
			if !filepath.IsAbs(file) {
				file = filepath.Join(dir, file)
			}
			a.file = file
		}
	}
	if a.file == "" {
		a.skipped = "nothing says who may sign; name a file with --allowed-signers, or set gpg.ssh.allowedSignersFile"
		return nil
	}
	data, err := os.ReadFile(a.file)
	if err != nil {
		return fmt.Errorf("read the allowed signers: %w; name the file with --allowed-signers, or give --no-signatures", err)
	}
	a.signers, err = gitstate.ReadAllowedSigners(a.file, data)
	return err
}

// run looks at everything. The error is about what could not be read.
func (a *auditor) run(ctx context.Context) error {
	if err := a.readLine(ctx); err != nil {
		return err
	}
	envs := slices.Sorted(maps.Keys(a.ledgers.Tips))
	err := a.each(ctx, 1, func(r *auditReader, _ int) error { return r.replayArtifacts(ctx) })
	if err != nil {
		return err
	}
	err = a.each(ctx, len(envs), func(r *auditReader, i int) error { return r.replay(ctx, envs[i]) })
	if err != nil {
		return err
	}
	a.strangers()
	if err := a.compare(ctx); err != nil {
		return err
	}
	// A reader goes forward, for what one commit has read the next one needs.
	chunk := min(max(len(a.line)/cap(a.idle)/4, 64), 2048)
	return a.each(ctx, (len(a.line)+chunk-1)/chunk, func(r *auditReader, i int) error {
		for at := min((i+1)*chunk, len(a.line)) - 1; at >= i*chunk; at-- {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := r.claimed(ctx, at); err != nil {
				return fmt.Errorf("read commit %s: %w; `git fsck` tells what is missing", a.line[at].ID, err)
			}
			if err := r.judge(ctx, at); err != nil {
				return fmt.Errorf("judge commit %s: %w", a.line[at].ID, err)
			}
		}
		return nil
	})
}

// each has all tasks done, as many at a time as there are readers.
func (a *auditor) each(ctx context.Context, n int, do func(r *auditReader, i int) error) error {
	var wait sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		r := <-a.idle
		if ctx.Err() != nil {
			a.idle <- r
			break
		}
		wait.Go(func() {
			defer func() { a.idle <- r }()
			errs[i] = do(r, i)
		})
	}
	wait.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}

// readLine reads the first-parent line of main.
func (a *auditor) readLine(ctx context.Context) error {
	err := a.ledgers.archive.History(ctx, a.ledgers.MainTip(), func(c gitstate.CommitInfo) bool {
		a.place[c.ID] = len(a.line)
		a.line = append(a.line, c)
		return true
	})
	if err != nil {
		return fmt.Errorf("read %s: %w; `git fsck` tells what is missing", a.ledgers.mainName, err)
	}
	return a.readSides(ctx)
}

// readSides reads what the merges of main bring, each commit once.
func (a *auditor) readSides(ctx context.Context) error {
	read := map[string]bool{}
	for at, merge := range slices.Backward(a.line) {
		if len(merge.Parents) < 2 {
			continue
		}
		for next := slices.Clone(merge.Parents[1:]); len(next) > 0; {
			id := next[len(next)-1]
			next = next[:len(next)-1]
			if i, ok := a.place[id]; ok && i > at || read[id] {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			c, err := a.ledgers.archive.Info(ctx, id)
			if err != nil {
				return fmt.Errorf("read what %s merges: %w; `git fsck` tells what is missing", merge.ID, err)
			}
			read[id] = true
			next = append(next, c.Parents...)
			if _, ok := ledger.Imitates(c.Message); ok {
				a.sides[merge.ID] = append(a.sides[merge.ID], c)
			}
		}
	}
	return nil
}

func (a *auditor) isLost(commit string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lost[commit]
}

// mainBranch is how findings name the main branch.
func (a *auditor) mainBranch() string {
	_, name, ok := strings.Cut(a.ledgers.mainName, "/")
	if ok && a.ledgers.rev == "" {
		return name
	}
	return "main"
}

func (a *auditor) tell(found ...audit.Finding) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range found {
		if a.only == "" || f.Environment == a.only || f.Environment == "" {
			a.findings = append(a.findings, f)
		}
	}
}

func (a *auditor) result() audited {
	out := audited{Ledgers: len(a.ledgers.Tips), Entries: a.entries, Commits: len(a.line), Promotions: a.promotions, Tracked: a.tracked, Rollbacks: a.rollbacks, Requests: a.requests,
		Signatures: auditSignatures{Checked: a.checked, File: a.file, Skipped: a.skipped}, Known: a.known, Findings: []audit.Finding{}}
	if a.only != "" {
		out.Ledgers, out.Entries = 1, 0
		if b := a.books[a.only]; b != nil {
			out.Entries = b.Len()
		}
	}
	if a.stock != nil {
		out.Versions = a.stock.Versions()
	}
	for _, p := range a.daemons {
		out.Daemon = append(out.Daemon, p.String())
	}
	for _, f := range a.findings {
		switch {
		case f.Severity == audit.Note && !a.flags.verbose:
		case a.flags.onlyNew && f.Rule != audit.RuleRewritten && a.isKnown(f):
			if f.Severity == audit.Error {
				out.LeftOut++
			}
		default:
			out.Findings = append(out.Findings, f)
		}
	}
	out.Findings = append([]audit.Finding{}, audit.Sort(out.Findings)...)
	return out
}

// isKnown tells whether a finding is about a commit that a former audit has seen.
func (a *auditor) isKnown(f audit.Finding) bool {
	n := a.since[f.Branch]
	if env, ok := strings.CutPrefix(f.Branch, ledger.Branch("")); ok {
		b := a.books[desired.EnvironmentName(env)]
		if b == nil {
			return false
		}
		i, ok := b.Has(f.Commit)
		return ok && i < n
	}
	if f.Branch == artifact.Branch {
		i, ok := a.stock.Has(f.Commit)
		return ok && i < n
	}
	i, ok := a.place[f.Commit]
	return ok && len(a.line)-1-i < n
}

// isDaemon tells whether somebody is the daemon.
func (a *auditor) isDaemon(p ledger.Person) bool {
	return slices.ContainsFunc(a.daemons, func(d ledger.Person) bool {
		if d.Name == "" || d.Email == "" { // as much as was said
			return d.Email != "" && strings.EqualFold(d.Email, p.Email) || d.Name != "" && d.Name == p.Name
		}
		return d == p
	})
}

// usesDaemon tells whether somebody has the daemon's name, or its address: who
// reads a history tells the two apart by nothing else.
func (a *auditor) usesDaemon(p ledger.Person) bool {
	same := func(x, y string) bool {
		x, y = strings.TrimSpace(x), strings.TrimSpace(y)
		return x != "" && strings.EqualFold(x, y)
	}
	return slices.ContainsFunc(a.daemons, func(d ledger.Person) bool { return same(d.Name, p.Name) || same(d.Email, p.Email) })
}

// strangers finds out who the daemon is, and tells of entries by others.
func (a *auditor) strangers() {
	if len(a.daemons) == 0 {
		entries := map[ledger.Person]int{}
		for by, commits := range a.committed {
			if by.env != "" {
				entries[by.Person] += len(commits)
			}
		}
		if p := audit.Daemon(entries); p != (ledger.Person{}) {
			a.daemons = []ledger.Person{p}
		}
	}
	names := make([]string, len(a.daemons))
	for i, d := range a.daemons {
		names[i] = d.String()
	}
	for by, commits := range a.committed {
		if a.isDaemon(by.Person) {
			continue
		}
		for _, c := range commits {
			a.tell(audit.Finding{Severity: audit.Error, Rule: audit.RuleCommitter, Branch: by.branch, Commit: c.id, Time: time.Unix(c.seconds, 0).UTC(), Environment: by.env,
				Message: fmt.Sprintf("it was committed by %s, and the daemon is %s", by.Person, strings.Join(names, " or ")),
				Meaning: "somebody else has written to the branch; if the daemon had another name then, say so with --daemon"})
		}
	}
}
