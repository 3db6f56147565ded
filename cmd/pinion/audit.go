package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/audit"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
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
alone has written it; what is verified has passed its policies; each promotion on
main was allowed by the policies, holds, windows and approvals of its moment, and
changes what it claims and nothing else.

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
	Rollbacks  int             `json:"rollbacks"` // by the daemon
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
	if out.Rollbacks > 0 {
		looked = append(looked, grouped(out.Rollbacks, "rollback"))
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

	shared  sharedRules
	readers []*auditReader
	idle    chan *auditReader

	mu         sync.Mutex // guards what follows
	books      map[desired.EnvironmentName]*audit.Book
	findings   []audit.Finding
	committed  map[committer][]committed
	claims     map[string][]audit.Claim // by the commit of main
	daemons    []ledger.Person
	entries    int
	promotions int
	rollbacks  int
	checked    int
	known      auditKnown
	rewritten  bool
}

// committer is somebody who has committed entries of a ledger.
type committer struct {
	ledger.Person
	env desired.EnvironmentName
}

// committed is a commit, in short.
type committed struct {
	id      string
	seconds int64
}

func (g *globals) openAudit(ctx context.Context, args []string, f auditFlags) (*auditor, error) {
	a := &auditor{g: g, flags: f, place: map[string]int{}, since: map[string]int{},
		books: map[desired.EnvironmentName]*audit.Book{}, committed: map[committer][]committed{}, claims: map[string][]audit.Claim{}}
	people, err := people("daemon", f.daemons)
	if err != nil {
		return nil, err
	}
	a.daemons = people
	if a.ledgers, err = g.openLedgers(ctx); err != nil {
		return nil, err
	}
	debug.SetGCPercent(150) // it reads everything: what is left lying about would be very much
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
	if len(l.tips) == 0 {
		return l.none()
	}
	if len(args) > 0 {
		a.only = desired.EnvironmentName(args[0])
		if _, err := l.tip(ctx, a.only); err != nil {
			return err
		}
	}
	if _, err := l.main(ctx); err != nil {
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
	envs := slices.Sorted(maps.Keys(a.ledgers.tips))
	err := a.each(ctx, len(envs), func(r *auditReader, i int) error { return r.replay(ctx, envs[i]) })
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
	err := a.ledgers.archive.History(ctx, a.ledgers.mainTip, func(c gitstate.CommitInfo) bool {
		a.place[c.ID] = len(a.line)
		a.line = append(a.line, c)
		return true
	})
	if err != nil {
		return fmt.Errorf("read %s: %w; `git fsck` tells what is missing", a.ledgers.mainName, err)
	}
	return nil
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
	out := audited{Ledgers: len(a.ledgers.tips), Entries: a.entries, Commits: len(a.line), Promotions: a.promotions, Rollbacks: a.rollbacks,
		Signatures: auditSignatures{Checked: a.checked, File: a.file, Skipped: a.skipped}, Known: a.known, Findings: []audit.Finding{}}
	if a.only != "" {
		out.Ledgers, out.Entries = 1, 0
		if b := a.books[a.only]; b != nil {
			out.Entries = b.Len()
		}
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

// strangers finds out who the daemon is, and tells of entries by others.
func (a *auditor) strangers() {
	if len(a.daemons) == 0 {
		entries := map[ledger.Person]int{}
		for by, commits := range a.committed {
			entries[by.Person] += len(commits)
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
			a.tell(audit.Finding{Severity: audit.Error, Rule: audit.RuleCommitter, Branch: ledger.Branch(by.env), Commit: c.id, Time: time.Unix(c.seconds, 0).UTC(), Environment: by.env,
				Message: fmt.Sprintf("it was committed by %s, and the daemon is %s", by.Person, strings.Join(names, " or ")),
				Meaning: "somebody else has written to the branch; if the daemon had another name then, say so with --daemon"})
		}
	}
}

// A place where a branch was, as somebody has kept it.
type keptTip struct {
	branch, tip string
	count       int
	from        string // who says so
}

// compare looks whether what was known of the branches is still in them.
func (a *auditor) compare(ctx context.Context) error {
	var kept []keptTip
	var from []string
	if a.flags.sinceTips != "" {
		tips, err := readTips(a.flags.sinceTips)
		if err != nil {
			return err
		}
		kept, from = append(kept, tips...), append(from, a.flags.sinceTips)
	}
	for _, rev := range a.flags.baseline {
		id, err := a.ledgers.archive.Resolve(ctx, rev)
		if err != nil {
			return fmt.Errorf("--baseline %s: %w", rev, err)
		}
		info, err := a.ledgers.archive.Info(ctx, id)
		if err != nil {
			return fmt.Errorf("--baseline %s: %w", rev, err)
		}
		branch := a.mainBranch()
		if e, err := ledger.ParseMessage(info.Message, info.Committer.Time); err == nil {
			branch = ledger.Branch(e.Environment)
		}
		kept, from = append(kept, keptTip{branch: branch, tip: id, from: rev}), append(from, rev)
	}
	logs, err := a.reflogs(ctx)
	if err != nil {
		return err
	}
	if len(logs) > 0 {
		kept, from = append(kept, logs...), append(from, "the clone's reflogs")
	}
	a.known = auditKnown{len(kept), strings.Join(from, ", ")}
	lost := map[string]int{}
	for _, k := range kept {
		there, err := a.inBranch(ctx, k)
		if err != nil {
			return err
		}
		env, isLedger := strings.CutPrefix(k.branch, ledger.Branch(""))
		if isLedger && a.only != "" && string(a.only) != env {
			continue
		}
		if there {
			if k.count > 0 {
				a.since[k.branch] = k.count
			}
			continue
		}
		key := k.branch + " " + k.from
		if lost[key]++; lost[key] > 1 {
			continue // the newest says it
		}
		a.rewritten = true
		f := audit.Finding{Severity: audit.Error, Rule: audit.RuleRewritten, Branch: k.branch, Commit: k.tip,
			Message: fmt.Sprintf("%s was at %.12s, as %s says, and that is not in its history any more", k.branch, k.tip, k.from),
			Meaning: "the branch was rewritten or restored from a copy; what was there is gone"}
		if isLedger {
			f.Environment = desired.EnvironmentName(env)
			if a.books[f.Environment] == nil {
				f.Message = fmt.Sprintf("%s was at %.12s, as %s says, and there is no such branch any more", k.branch, k.tip, k.from)
			}
		}
		a.tell(f)
	}
	return nil
}

func (a *auditor) inBranch(ctx context.Context, k keptTip) (bool, error) {
	if env, ok := strings.CutPrefix(k.branch, ledger.Branch("")); ok {
		b := a.books[desired.EnvironmentName(env)]
		if b == nil {
			return false, nil
		}
		_, ok := b.Has(k.tip)
		return ok, nil
	}
	if _, ok := a.place[k.tip]; ok {
		return true, nil
	}
	if _, err := a.ledgers.archive.Info(ctx, k.tip); err != nil {
		if errors.Is(err, gitstate.ErrNoCommit) {
			return false, nil // main's history is whole, so it is not in it
		}
		return false, err
	}
	return a.ledgers.archive.IsAncestor(ctx, k.tip, a.ledgers.mainTip)
}

const tipsHead = "# pinion audit: where the branches were, and how many commits they had"

func readTips(file string) ([]keptTip, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the tips of before: %w; --write-baseline writes such a file", err)
	}
	var tips []keptTip
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		w := strings.Fields(line)
		if len(w) == 0 || strings.HasPrefix(w[0], "#") {
			continue
		}
		var count int
		if len(w) == 3 {
			count, err = strconv.Atoi(w[2])
		}
		if len(w) != 3 || err != nil || len(w[1]) != 40 || count < 1 {
			return nil, fmt.Errorf("%s:%d: %q is not a branch, the id of its tip and a number of commits; --write-baseline writes such lines", file, n, strings.TrimSpace(line))
		}
		tips = append(tips, keptTip{w[0], strings.ToLower(w[1]), count, file})
	}
	if len(tips) == 0 {
		return nil, fmt.Errorf("%s: no branch is in it; --write-baseline writes such a file", file)
	}
	return tips, nil
}

// keepTips writes where the branches are. What says that a branch was rewritten
// is not written over.
func (a *auditor) keepTips() error {
	if a.flags.writeBaseline == "" {
		return nil
	}
	if a.rewritten {
		return fmt.Errorf("%s is not written: a branch was rewritten, and the tips of before are the proof; write another file once that is cleared up", a.flags.writeBaseline)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s\n", tipsHead, rfc3339(a.g.now))
	for _, env := range slices.Sorted(maps.Keys(a.books)) {
		fmt.Fprintf(&b, "%s %s %d\n", ledger.Branch(env), a.ledgers.tips[env], a.books[env].Len())
	}
	fmt.Fprintf(&b, "%s %s %d\n", a.mainBranch(), a.ledgers.mainTip, len(a.line))
	tmp := a.flags.writeBaseline + ".new"
	if err := os.WriteFile(tmp, []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("write the tips: %w", err)
	}
	if err := os.Rename(tmp, a.flags.writeBaseline); err != nil {
		return fmt.Errorf("write the tips: %w", err)
	}
	return nil
}

// reflogs are the places where the clone has seen the branches before, of each
// the newest first.
func (a *auditor) reflogs(ctx context.Context) ([]keptTip, error) {
	if a.ledgers.clone == nil {
		return nil, nil
	}
	dir, err := filepath.Abs(a.g.repo)
	if err != nil {
		return nil, err
	}
	common, err := (git{dir: dir, err: a.g.err}).quiet(ctx, "rev-parse", "--git-common-dir")
	if err != nil {
		return nil, ctx.Err() // without the git program there is nothing to compare with
	}
	if !filepath.IsAbs(common) {
		common = filepath.Join(dir, common)
	}
	remote := "origin"
	if name, _, ok := strings.Cut(a.ledgers.mainName, "/"); ok && a.ledgers.rev == "" {
		remote = name
	}
	var all []keptTip
	read := func(branch, tip string) error {
		for _, ref := range []string{"refs/remotes/" + remote + "/" + branch, "refs/heads/" + branch} {
			// Only of the reference that the tip was taken from.
			if id, err := a.ledgers.archive.Resolve(ctx, ref); err != nil || id != tip {
				continue
			}
			ids, err := readReflog(filepath.Join(common, "logs", filepath.FromSlash(ref)))
			if err != nil {
				return err
			}
			for _, id := range ids {
				all = append(all, keptTip{branch: branch, tip: id, from: "the reflog of " + strings.TrimPrefix(strings.TrimPrefix(ref, "refs/remotes/"), "refs/heads/")})
			}
			return nil
		}
		return nil
	}
	for _, env := range slices.Sorted(maps.Keys(a.ledgers.tips)) {
		if err := read(ledger.Branch(env), a.ledgers.tips[env]); err != nil {
			return nil, err
		}
	}
	// What is checked out here may be rebased: that is nobody else's main.
	if strings.HasPrefix(a.ledgers.mainName, remote+"/") {
		if err := read(a.mainBranch(), a.ledgers.mainTip); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// readReflog returns the ids in a reflog, newest first.
func readReflog(file string) ([]string, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read a reflog: %w", err)
	}
	defer f.Close()
	var ids []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		w := strings.SplitN(lines.Text(), " ", 3)
		if len(w) < 3 {
			continue
		}
		for _, id := range w[:2] {
			if len(id) == 40 && strings.Trim(id, "0") != "" && !slices.Contains(ids[max(0, len(ids)-2):], id) {
				ids = append(ids, id)
			}
		}
	}
	slices.Reverse(ids)
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the reflog %s: %w", file, err)
	}
	return ids, nil
}

// auditReader reads for one goroutine.
type auditReader struct {
	*auditor
	archive      archive
	clone        *gitstate.Clone                 // to be closed; nil: it is shared
	environments map[string]*desired.Environment // by name and id of the file
	edited       map[string]*edited              // by name of the file
	records      map[string]ledger.Record        // by service and entry
}

func commitOf(c gitstate.CommitInfo) audit.Commit {
	return audit.Commit{ID: c.ID, Parents: c.Parents, Message: c.Message, Time: c.Committer.Time,
		Author: ledger.Person{Name: c.Author.Name, Email: c.Author.Email}, Committer: ledger.Person{Name: c.Committer.Name, Email: c.Committer.Email}}
}

// replay verifies a ledger.
func (r *auditReader) replay(ctx context.Context, env desired.EnvironmentName) error {
	fail := func(err error) error {
		return fmt.Errorf("read %s: %w; `git fsck` tells what is missing", ledger.Branch(env), err)
	}
	// From the newest back to the first, and then forward. A ledger may be too
	// long to keep all that it says.
	const mostKept = 20_000
	var all []gitstate.CommitInfo
	err := r.archive.History(ctx, r.ledgers.tips[env], func(c gitstate.CommitInfo) bool {
		if len(all) >= mostKept {
			c = gitstate.CommitInfo{ID: c.ID}
		}
		all = append(all, c)
		return true
	})
	if err != nil {
		return fail(err)
	}
	replay := audit.NewReplay(env)
	mine := map[committer][]committed{}
	checked := 0
	var before *gitstate.Snapshot
	for _, info := range slices.Backward(all) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if info.Tree == "" {
			if info, err = r.archive.Info(ctx, info.ID); err != nil {
				return fail(err)
			}
		}
		snap, err := r.archive.Snapshot(ctx, info.ID)
		if err != nil {
			return fail(err)
		}
		c := commitOf(info)
		files := audit.Files{ID: func(name string) (string, error) { return idOf(snap, name) }, Read: snap.ReadFile}
		if files.Changed, err = changed(snap, before); err != nil {
			return fail(err)
		}
		before = snap
		step, found, err := replay.Next(c, files)
		if err != nil {
			return fail(err)
		}
		r.tell(found...)
		by := committer{c.Committer, env}
		mine[by] = append(mine[by], committed{c.ID, c.Time.Unix()})
		if r.only != "" && env != r.only {
			continue // it is needed for what comes from there
		}
		if r.signers != nil {
			checked++
			if err := r.signature(ctx, ledger.Branch(env), env, step.Entry.Service, c); err != nil {
				return fail(err)
			}
		}
		if !step.Sound {
			continue
		}
		if err := r.entry(ctx, c, step); err != nil {
			return fail(err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.books[env] = replay.Book()
	r.entries += replay.Book().Len()
	r.checked += checked
	maps.Copy(r.committed, mine)
	return nil
}

// changed lists the files that differ from those of the commit before; nil:
// there is none.
func changed(snap, before *gitstate.Snapshot) ([]string, error) {
	if before != nil {
		return snap.Changed(before)
	}
	var all []string
	err := fs.WalkDir(snap, ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			all = append(all, name)
		}
		return err
	})
	return all, err
}

func idOf(snap *gitstate.Snapshot, name string) (string, error) {
	id, err := snap.ID(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return id, err
}

// signature tells what is wrong with a commit's signature.
func (r *auditReader) signature(ctx context.Context, branch string, env desired.EnvironmentName, svc desired.ServiceName, c audit.Commit) error {
	raw, err := r.archive.(interface {
		Raw(ctx context.Context, id string) ([]byte, error)
	}).Raw(ctx, c.ID)
	if err != nil {
		return err
	}
	problem := ""
	signed, err := r.signers.Verify(raw, time.Time{})
	switch {
	case err != nil:
		problem = strings.TrimPrefix(err.Error(), "commit "+c.ID+": ")
	case !signed.By(c.Committer.Email) && !signed.By(c.Committer.Name):
		problem = fmt.Sprintf("it is signed by %s (%s), and committed by %s", strings.Join(signed.Principals, ", "), signed.Fingerprint, c.Committer)
	default:
		return nil
	}
	r.tell(audit.Finding{Severity: audit.Error, Rule: audit.RuleSignature, Branch: branch, Commit: c.ID, Time: c.Time, Environment: env, Service: svc,
		Message: problem, Meaning: "somebody else than the daemon has written it, or it was changed since"})
	return nil
}

// entry judges what an entry says of main.
func (r *auditReader) entry(ctx context.Context, c audit.Commit, s audit.Step) error {
	switch s.Entry.Event {
	case ledger.EventPinned:
		return r.pinned(ctx, c, s)
	case ledger.EventVerified:
		commit := s.Before.Deployment.Commit
		if _, ok := r.place[commit]; !ok {
			return nil // which was told of the entry that pins it
		}
		rules, zones, err := r.rulesAt(ctx, commit)
		if err != nil {
			return err
		}
		r.tell(audit.Verified(c, s, rules, zones)...)
	}
	return nil
}

func (r *auditReader) pinned(ctx context.Context, c audit.Commit, s audit.Step) error {
	e := s.Entry
	at, ok := r.place[e.Commit]
	if !ok {
		f := audit.Finding{Severity: audit.Error, Rule: audit.RuleDeployment, Branch: ledger.Branch(e.Environment), Commit: c.ID, Time: c.Time, Environment: e.Environment, Service: e.Service,
			Message: fmt.Sprintf("it says that commit %.12s asked for the deployment, and %s has no such commit", e.Commit, r.ledgers.mainName),
			Meaning: "the entry was put in by hand, or main was rewritten"}
		older, err := r.archive.IsAncestor(ctx, e.Commit, r.ledgers.mainTip)
		switch {
		case err == nil && older:
			f.Severity = audit.Warning
			f.Message = fmt.Sprintf("commit %.12s, which asked for the deployment, is not on the line of first parents of %s", e.Commit, r.ledgers.mainName)
			f.Meaning = "main was merged into another branch, which became main: what is beside the line is not judged"
		case err != nil && !errors.Is(err, gitstate.ErrNoCommit):
			return err
		}
		r.tell(f)
		return nil
	}
	r.tell(audit.Pinned(c, s, commitOf(r.line[at]))...)
	// What the files say is looked at when main is.
	r.mu.Lock()
	defer r.mu.Unlock()
	r.claims[e.Commit] = append(r.claims[e.Commit], audit.ClaimOf(c, e))
	return nil
}

// claimed looks whether a commit of main asked for what the ledgers say.
func (r *auditReader) claimed(ctx context.Context, at int) error {
	claims := r.claims[r.line[at].ID]
	if len(claims) == 0 {
		return nil
	}
	snap, err := r.archive.Snapshot(ctx, r.line[at].ID)
	if err != nil {
		return err
	}
	rules, _, err := r.rulesAt(ctx, r.line[at].ID)
	if err != nil {
		return err
	}
	for _, k := range claims {
		var asked audit.Asked
		if asked.Deployment, err = r.deployment(snap, rules.Repository, k.Environment(), k.Service()); err != nil {
			return err
		}
		folder := "services/" + string(k.Service())
		if asked.Folder, err = idOf(snap, folder); err != nil {
			return err
		}
		if source, ok := r.place[k.Source()]; ok && source >= at {
			asked.Before, asked.Source = true, asked.Folder
			if source != at {
				then, err := r.archive.Snapshot(ctx, k.Source())
				if err != nil {
					return err
				}
				if asked.Source, err = idOf(then, folder); err != nil {
					return err
				}
			}
		}
		r.tell(k.Judge(asked)...)
	}
	return nil
}

// judge looks at a commit of main.
func (r *auditReader) judge(ctx context.Context, at int) error {
	c := commitOf(r.line[at])
	change, claimed := ledger.ParseChange(c.Message)
	daemon := r.isDaemon(c.Committer)
	branch := r.mainBranch()
	tell := func(severity audit.Severity, rule audit.Rule, env desired.EnvironmentName, svc desired.ServiceName, meaning, format string, args ...any) {
		r.tell(audit.Finding{Severity: severity, Rule: rule, Branch: branch, Commit: c.ID, Time: c.Time, Environment: env, Service: svc, Message: fmt.Sprintf(format, args...), Meaning: meaning})
	}
	moves := claimed && (change.Kind == ledger.ChangePromoted || change.Kind == ledger.ChangeRolledBack && daemon)
	if daemon && !moves {
		tell(audit.Error, audit.RuleDaemon, "", "", "somebody has used the daemon's name", "it was committed by %s, the daemon, and is neither a promotion nor a rollback", c.Committer)
	}
	if moves && r.only != "" && change.Environment != r.only || !moves && !r.flags.verbose {
		return nil
	}
	if daemon && r.signers != nil {
		if err := r.signature(ctx, branch, change.Environment, change.Service, c); err != nil {
			return err
		}
		r.mu.Lock()
		r.checked++
		r.mu.Unlock()
	}
	snap, err := r.archive.Snapshot(ctx, c.ID)
	if err != nil {
		return err
	}
	var parent *gitstate.Snapshot
	if at+1 < len(r.line) {
		if parent, err = r.archive.Snapshot(ctx, r.line[at+1].ID); err != nil {
			return err
		}
	}
	if !moves {
		return r.pins(snap, parent, tell)
	}
	m := audit.Move{Branch: branch, Commit: c, Change: change, ByDaemon: daemon, Past: r.past(ctx, change.Service)}
	r.mu.Lock()
	if change.Kind == ledger.ChangePromoted {
		r.promotions++
	} else {
		r.rollbacks++
	}
	r.mu.Unlock()
	if parent == nil {
		tell(audit.Error, ruleOf(change), change.Environment, change.Service, "", "it is the first commit of %s, and claims to be a move", r.ledgers.mainName)
		return nil
	}
	if m.Changed, err = snap.Changed(parent); err != nil {
		return err
	}
	file := "environments/" + string(change.Environment) + ".yaml"
	if m.Is, err = contentOf(snap, file); err != nil {
		return err
	}
	var wrong error
	if m.Editor, wrong, err = r.editor(parent, file); err != nil {
		return err
	}
	if wrong != nil {
		tell(audit.Error, ruleOf(change), change.Environment, change.Service, "the file was broken, and somebody has changed it by hand", "what it claims can't be done to %s: %v", file, wrong)
		return nil
	}
	if m.Rules, m.Locations, err = r.rulesAt(ctx, parent.Commit()); err != nil {
		return err
	}
	if m.Pinned, err = r.deployment(parent, m.Rules.Repository, change.Environment, change.Service); err != nil {
		return err
	}
	if p, _, _ := m.Rules.Stage(change.Environment, change.Service); p != nil {
		if m.Rules.PipelineBlob, err = idOf(parent, p.File); err != nil {
			return err
		}
	}
	m.RulesOf = func(commit string) (policy.Rules, error) {
		if _, ok := r.place[commit]; !ok {
			return policy.Rules{}, nil // told of the entry that pins it
		}
		rules, _, err := r.rulesAt(ctx, commit)
		return rules, err
	}
	judge := audit.Promotion
	if change.Kind == ledger.ChangeRolledBack {
		judge = audit.Rollback
	}
	var failure error
	m.Older = func(commit, than string) bool {
		older, err := r.before(ctx, commit, than)
		failure = errors.Join(failure, err)
		return older
	}
	found, err := judge(m)
	if err = errors.Join(err, failure); err != nil {
		return err
	}
	r.tell(found...)
	if r.edited[file].id, err = idOf(snap, file); err != nil {
		return err
	}
	if slices.ContainsFunc(found, func(f audit.Finding) bool { return f.Severity == audit.Error }) {
		delete(r.edited, file) // it may have something else in it
	}
	return nil
}

func ruleOf(c ledger.Change) audit.Rule {
	if c.Kind == ledger.ChangeRolledBack {
		return audit.RuleRollback
	}
	return audit.RulePromotion
}

// edited is an environment's file that was parsed for one commit, and that a
// later one goes on with.
type edited struct {
	id     string
	editor *desired.Editor
}

// editor has a file as a commit has it; or else it says what is wrong with it.
func (r *auditReader) editor(snap *gitstate.Snapshot, file string) (ed *desired.Editor, wrong, err error) {
	id, err := idOf(snap, file)
	if err != nil {
		return nil, nil, err
	}
	if x := r.edited[file]; x != nil && x.id == id {
		return x.editor, nil, nil
	}
	data, err := contentOf(snap, file)
	if err != nil {
		return nil, nil, err
	}
	if ed, wrong = desired.NewEditor(file, data); wrong == nil {
		r.edited[file] = &edited{id, ed}
	}
	return ed, wrong, nil
}

func contentOf(snap *gitstate.Snapshot, name string) ([]byte, error) {
	data, err := snap.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// pins notes which versions a person has changed.
func (r *auditReader) pins(snap, parent *gitstate.Snapshot, tell func(audit.Severity, audit.Rule, desired.EnvironmentName, desired.ServiceName, string, string, ...any)) error {
	names, err := changed(snap, parent)
	if err != nil {
		return err
	}
	for _, file := range names {
		name, ok := strings.CutPrefix(file, "environments/")
		env := desired.EnvironmentName(strings.TrimSuffix(name, ".yaml"))
		if !ok || !strings.HasSuffix(name, ".yaml") || strings.Contains(name, "/") || r.only != "" && env != r.only {
			continue
		}
		now, err := r.environment(snap, env)
		if err != nil {
			return err
		}
		then := &desired.Environment{}
		if parent != nil {
			if then, err = r.environment(parent, env); err != nil {
				return err
			}
		}
		for _, line := range pinChanges(then, now) {
			tell(audit.Note, audit.RulePin, env, desired.ServiceName(line.of), "", "a person has changed %s", line.text)
		}
	}
	return nil
}

type pinChange struct{ of, text string }

// pinChanges says what two versions of an environment's file pin otherwise. An
// artifact has its service's name as a rule.
func pinChanges(then, now *desired.Environment) []pinChange {
	if then == nil {
		then = &desired.Environment{}
	}
	if now == nil {
		now = &desired.Environment{}
	}
	var all []pinChange
	seen := map[desired.ArtifactName]bool{}
	for _, pins := range []map[desired.ArtifactName]desired.Pin{then.Pins, now.Pins} {
		for _, a := range slices.Sorted(maps.Keys(pins)) {
			x, y := dash(then.Pins[a].Image.Reference), dash(now.Pins[a].Image.Reference)
			if x != y && !seen[a] {
				seen[a] = true
				all = append(all, pinChange{string(a), fmt.Sprintf("%s: %s → %s", a, x, y)})
			}
		}
	}
	told := map[desired.ServiceName]bool{}
	for _, sources := range []map[desired.ServiceName]string{then.Manifests, now.Manifests} {
		for _, svc := range slices.Sorted(maps.Keys(sources)) {
			x, y := dash(then.Manifests[svc]), dash(now.Manifests[svc])
			if x != y && !told[svc] {
				told[svc] = true
				all = append(all, pinChange{string(svc), fmt.Sprintf("the manifests of %s: %.12s → %.12s", svc, x, y)})
			}
		}
	}
	return all
}

// past reads what a ledger knew of a service.
func (r *auditReader) past(ctx context.Context, svc desired.ServiceName) func(desired.EnvironmentName) audit.Past {
	return func(env desired.EnvironmentName) audit.Past {
		return audit.Past{Book: r.books[env], Service: svc, Record: func(entry string) (ledger.Record, error) {
			key := string(svc) + " " + entry
			if record, ok := r.records[key]; ok {
				return record, nil
			}
			snap, err := r.archive.Snapshot(ctx, entry)
			if err != nil {
				return ledger.Record{}, err
			}
			file := ledger.RecordFile(svc)
			data, err := contentOf(snap, file)
			if err != nil || data == nil {
				return ledger.Record{}, err
			}
			record, err := ledger.DecodeRecord(file, data)
			if err != nil {
				return ledger.Record{}, nil // told of that entry: it is as if it were not there
			}
			if len(r.records) >= 100 {
				clear(r.records)
			}
			r.records[key] = record
			return record, nil
		}}
	}
}

// before tells whether a commit of main comes before another.
func (r *auditReader) before(ctx context.Context, commit, than string) (bool, error) {
	if commit == than {
		return false, nil
	}
	a, ok := r.place[commit]
	b, also := r.place[than]
	if ok && also {
		return a > b, nil
	}
	older, err := r.archive.IsAncestor(ctx, commit, than)
	if errors.Is(err, gitstate.ErrNoCommit) {
		return false, nil // told of the entry that names it
	}
	return older, err
}

// sharedRules are the rules of commits, by what they are read from.
type sharedRules struct {
	mu   sync.Mutex // guards what follows, and is held while reading
	read map[string]*readRules
	last *desired.Repository
}

type readRules struct {
	repository *desired.Repository
	zones      map[string]*time.Location
}

// mostSharedRules bounds how many are kept.
const mostSharedRules = 500

// rulesAt returns the rules of a commit of main. Those that have the same
// pipelines, policies, holds and services, and environments of the same names,
// share what was read; so what the files of the environments say is not to be
// taken from it.
func (r *auditReader) rulesAt(ctx context.Context, commit string) (policy.Rules, map[string]*time.Location, error) {
	snap, err := r.archive.Snapshot(ctx, commit)
	if err != nil {
		return policy.Rules{}, nil, err
	}
	var key strings.Builder
	for _, folder := range []string{"pipelines", "policies", "holds", "services"} {
		id, err := idOf(snap, folder)
		if err != nil {
			return policy.Rules{}, nil, err
		}
		key.WriteString(id + " ")
	}
	entries, err := fs.ReadDir(snap, "environments")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return policy.Rules{}, nil, err
	}
	for _, e := range entries {
		key.WriteString(e.Name() + " ")
	}
	exact, err := idOf(snap, "environments")
	if err != nil {
		return policy.Rules{}, nil, err
	}
	shared, alone := key.String(), key.String()+exact
	s := &r.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.read[alone]
	if x == nil {
		x = s.read[shared]
	}
	if x == nil {
		x = &readRules{zones: map[string]*time.Location{}}
		if x.repository, err = desired.Read(snap, s.last); err != nil {
			return policy.Rules{}, nil, err
		}
		s.last = x.repository
		if len(x.repository.BrokenNames(desired.KindEnvironment)) > 0 {
			shared = alone // a stage can't be used as long as its environment is broken
		}
		for _, p := range x.repository.Policies {
			if p.Window == nil {
				continue
			}
			// One that is not known stays out: the window is closed then, and says so.
			if loc, err := time.LoadLocation(p.Window.Timezone); err == nil {
				x.zones[p.Window.Timezone] = loc
			}
		}
		if s.read == nil || len(s.read) >= mostSharedRules {
			s.read = map[string]*readRules{}
		}
		s.read[shared] = x
	}
	return policy.Rules{Commit: commit, Repository: x.repository}, x.zones, nil
}

// environment reads the file of one environment; nil: it is not there, or not
// sound.
func (r *auditReader) environment(snap *gitstate.Snapshot, env desired.EnvironmentName) (*desired.Environment, error) {
	file := "environments/" + string(env) + ".yaml"
	id, err := idOf(snap, file)
	if err != nil || id == "" {
		return nil, err
	}
	key := file + " " + id
	if e, ok := r.environments[key]; ok {
		return e, nil
	}
	repo, err := desired.Read(oneFile{snap, "environments", string(env) + ".yaml"}, nil)
	if err != nil {
		return nil, err
	}
	if len(r.environments) >= 100 {
		clear(r.environments)
	}
	r.environments[key] = repo.Environments[env]
	return repo.Environments[env], nil
}

// deployment is what a commit asks for; the repository has its services and
// pipelines. Mistakes in the files are not looked for: they keep a release from
// moving, and say nothing against one that has moved.
func (r *auditReader) deployment(snap *gitstate.Snapshot, repo *desired.Repository, env desired.EnvironmentName, svc desired.ServiceName) (*desired.Deployment, error) {
	s := repo.Services[svc]
	e, err := r.environment(snap, env)
	if err != nil || e == nil || s == nil {
		return nil, err
	}
	d := &desired.Deployment{Environment: e, Service: s, Source: e.Manifests[svc]}
	for _, a := range s.Artifacts {
		if pin, ok := e.Pins[a]; ok {
			d.Pins = append(d.Pins, pin)
		}
	}
	if len(s.Artifacts) == 0 {
		if p, _ := repo.PipelineOf(svc); p == nil || p.Stage(env) != nil {
			return d, nil
		}
	}
	if len(d.Pins) == 0 {
		return nil, nil
	}
	return d, nil
}

// oneFile is a tree of which one file in one folder is seen.
type oneFile struct {
	*gitstate.Snapshot
	folder, name string
}

func (o oneFile) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := o.Snapshot.ReadDir(name)
	return slices.DeleteFunc(all, func(e fs.DirEntry) bool {
		return name == "." && e.Name() != o.folder || name == o.folder && e.Name() != o.name
	}), err
}
