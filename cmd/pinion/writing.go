package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
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

// proposal is a commit that a command would push.
type proposal struct {
	files  map[string][]byte // by name; nil: removed
	change ledger.Change
	// warnings are what may surprise, and next is what will happen then.
	warnings, next []string
	// nothing says why there is nothing to do; the rest is empty then.
	nothing string
	// refused says why a policy, a hold or a guard forbids it, and verdicts how
	// it is with each gate; the rest is empty then.
	refused  error
	verdicts []policy.Verdict
}

// ground is what a proposal is judged on: the tip of the remote's branch, and
// the ledgers as they were fetched with it.
type ground struct {
	*ledgers
	site   *site
	tip    string
	commit *reconcile.Commit // at the tip
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
func (g *globals) write(ctx context.Context, w *writing, judge func(context.Context, *ground) (*proposal, error)) error {
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
	judge func(context.Context, *ground) (*proposal, error)
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
	p, err := a.judge(ctx, gr)
	if err != nil {
		return err
	}
	a.outcome = outcome{Branch: a.s.branch, Warnings: p.warnings, Next: p.next, Nothing: p.nothing}
	switch {
	case p.nothing != "":
		fmt.Fprintln(a.g.err, printable(p.nothing)+"; nothing to do")
		return nil
	case p.refused != nil:
		a.refused = p.refused
		a.outcome.Refused, a.outcome.Verdicts = p.refused.Error(), p.verdicts
		if len(p.verdicts) > 0 && a.text {
			here := *a.g
			here.out = a.g.err
			return here.writeGates(a.g.now, p.verdicts)
		}
		return nil
	}
	message := p.change.Message()
	draft, err := a.s.draft(ctx, gr.tip, p.files, message)
	if err != nil {
		return err
	}
	if err := gr.sound(ctx, draft); err != nil {
		return err
	}
	diff, err := a.s.git.output(ctx, "diff-tree", "-p", "--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/", gr.tip, draft)
	if err != nil {
		return err
	}
	if diff == "" {
		return fmt.Errorf("%s would change nothing, and is not pushed", strings.Join(slices.Sorted(maps.Keys(p.files)), ", "))
	}
	a.outcome.Subject, _, _ = strings.Cut(message, "\n")
	a.outcome.Diff = diff
	// Who has agreed to a change is asked again only if it is another one.
	if shown := diff + strings.Join(p.warnings, "\n"); a.agreed != shown {
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
	commit, err := a.s.finish(ctx, gr.tip, draft, message)
	if err != nil {
		return err
	}
	if err := a.s.push(ctx, gr.tip, commit); err != nil {
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
func (a *attempt) show(p *proposal, diff string) {
	if a.agreed != "" {
		fmt.Fprintln(a.g.err, "the change is another one now")
	}
	if a.text {
		a.g.writeDiff(diff)
	}
	for _, l := range p.warnings {
		fmt.Fprintln(a.g.err, paletteFor(a.g.err).wait("warning:"), printable(l))
	}
	for i, l := range p.next {
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
	after, err := reconcile.ReadCommit(ctx, gr.archive, draft, gr.commit)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, p := range gr.commit.Repository.Problems {
		known[p.File+"\x00"+p.Message] = true // lines move
	}
	var errs []error
	for _, p := range after.Repository.Problems {
		if p.Severity == desired.SeverityError && !known[p.File+"\x00"+p.Message] {
			errs = append(errs, fmt.Errorf("the change would not be read: %w", p))
		}
	}
	return errors.Join(errs...)
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

// site is a repository on this machine with a remote to push to.
type site struct {
	globals *globals
	git     git
	dir     string // the repository
	remote  string
	branch  string // of the remote
	name    string // the remote's URL, without user info
	// temporary: the repository was made for this command, and is removed.
	temporary bool
}

// openSite opens the clone that --repo names, or, if that is a URL, makes one
// for as long as the command runs.
func (g *globals) openSite(ctx context.Context, branch string) (*site, error) {
	if _, err := exec.LookPath("git"); err != nil {
		return nil, errors.New("the git program is not there, and pushing is its work; install it: https://git-scm.com/downloads")
	}
	if isURL(g.repo) {
		return g.openTemporary(ctx, g.repo, branch)
	}
	dir, err := filepath.Abs(g.repo)
	if err != nil {
		return nil, err
	}
	clone, err := gitstate.OpenClone(dir)
	if err != nil {
		return nil, fmt.Errorf("no clone here: %w\nstand in a clone, or name one or a URL with --repo", err)
	}
	root := clone.Root()
	clone.Close()
	if root != "" {
		dir = root
	}
	s := &site{globals: g, git: git{dir: dir, err: g.err}, dir: dir}
	if s.remote, err = s.findRemote(ctx); err != nil {
		if root == "" {
			return g.openTemporary(ctx, dir, branch) // it is a remote itself
		}
		return nil, err
	}
	url, err := s.git.output(ctx, "remote", "get-url", "--push", s.remote)
	if err != nil {
		return nil, err
	}
	s.name = gitstate.Redact(strings.TrimSpace(url))
	if s.branch = branch; s.branch == "" {
		s.branch = "main"
		prefix := "refs/remotes/" + s.remote + "/"
		if head, err := s.git.quiet(ctx, "symbolic-ref", "--quiet", prefix+"HEAD"); err == nil && strings.HasPrefix(head, prefix) {
			s.branch = strings.TrimPrefix(head, prefix)
		}
	}
	return s, s.checkBranch(ctx)
}

// openTemporary makes a bare repository that has a URL as its remote.
func (g *globals) openTemporary(ctx context.Context, url, branch string) (*site, error) {
	dir, err := os.MkdirTemp("", "pinion-")
	if err != nil {
		return nil, err
	}
	s := &site{globals: g, git: git{dir: dir, err: g.err}, dir: dir, remote: "origin", branch: branch, name: gitstate.Redact(url), temporary: true}
	fail := func(err error) (*site, error) {
		s.close()
		return nil, err
	}
	if !strings.Contains(url, "://") && exists(url) {
		if url, err = filepath.Abs(url); err != nil {
			return fail(err)
		}
	}
	if _, err := s.git.output(ctx, "init", "--quiet", "--bare"); err != nil {
		return fail(err)
	}
	if _, err := s.git.output(ctx, "config", "remote.origin.url", url); err != nil {
		return fail(err)
	}
	if s.branch == "" {
		s.branch = "main"
		heads, err := s.git.talk(ctx, "ls-remote", "--symref", "origin", "HEAD")
		if err != nil {
			return fail(fmt.Errorf("read %s: %w; check the address, and your access to it", s.name, err))
		}
		if rest, ok := strings.CutPrefix(heads, "ref: refs/heads/"); ok {
			s.branch, _, _ = strings.Cut(rest, "\t")
		}
	}
	if err := s.checkBranch(ctx); err != nil {
		return fail(err)
	}
	return s, nil
}

func (s *site) checkBranch(ctx context.Context) error {
	if _, err := s.git.quiet(ctx, "check-ref-format", "refs/heads/"+s.branch); err != nil {
		return fmt.Errorf("%q can't be the name of a branch; name another one with --branch", s.branch)
	}
	return nil
}

func (s *site) close() {
	if s.temporary {
		os.RemoveAll(s.dir)
	}
}

// findRemote returns the remote that the present branch follows, else origin,
// else the only one.
func (s *site) findRemote(ctx context.Context) (string, error) {
	text, err := s.git.output(ctx, "remote")
	if err != nil {
		return "", err
	}
	remotes := strings.Fields(text)
	if b, err := s.git.quiet(ctx, "symbolic-ref", "--quiet", "--short", "HEAD"); err == nil {
		if r, err := s.git.quiet(ctx, "config", "branch."+b+".remote"); err == nil && slices.Contains(remotes, r) {
			return r, nil
		}
	}
	switch {
	case slices.Contains(remotes, "origin"):
		return "origin", nil
	case len(remotes) == 1:
		return remotes[0], nil
	case len(remotes) > 1:
		return "", fmt.Errorf("%s has the remotes %s, and its branch follows none of them; git branch --set-upstream-to=REMOTE/main says which one it is", s.dir, strings.Join(remotes, ", "))
	}
	return "", fmt.Errorf("%s has no remote to push to; git remote add origin URL", s.dir)
}

// tracking is the reference that stands for a branch of the remote.
func (s *site) tracking(branch string) string { return "refs/remotes/" + s.remote + "/" + branch }

// fetch brings the remote's branch and the ledgers, and reads the branch's tip.
func (s *site) fetch(ctx context.Context) (*ground, error) {
	_, err := s.git.talk(ctx, "fetch", "--quiet", "--no-tags", "--no-recurse-submodules", s.remote,
		"+refs/heads/"+s.branch+":"+s.tracking(s.branch),
		"+refs/heads/ledger/*:"+s.tracking("ledger/*"))
	if err != nil {
		return nil, fmt.Errorf("fetch %s of %s: %w; check the remote's address, your access to it, and whether it has that branch (--branch names another one)", s.branch, s.name, err)
	}
	tip, err := s.git.output(ctx, "rev-parse", "--verify", s.tracking(s.branch)+"^{commit}")
	if err != nil {
		return nil, err
	}
	here := *s.globals
	here.repo, here.rev = s.dir, strings.TrimSpace(tip)
	l, err := here.openLedgers(ctx)
	if err != nil {
		return nil, err
	}
	l.name = s.name
	if l.tips, err = s.ledgers(ctx); err != nil {
		l.close()
		return nil, err
	}
	if _, err := l.repository(ctx); err != nil {
		l.close()
		return nil, err
	}
	return &ground{ledgers: l, site: s, tip: here.rev, commit: l.commit}, nil
}

// ledgers returns the tips of the ledgers as they were fetched.
func (s *site) ledgers(ctx context.Context) (map[desired.EnvironmentName]string, error) {
	prefix := s.tracking(ledger.Branch(""))
	text, err := s.git.output(ctx, "for-each-ref", "--format=%(objectname) %(refname)", prefix)
	if err != nil {
		return nil, err
	}
	tips := map[desired.EnvironmentName]string{}
	for line := range strings.Lines(text) {
		id, ref, _ := strings.Cut(strings.TrimSpace(line), " ")
		tips[desired.EnvironmentName(strings.TrimPrefix(ref, prefix))] = id
	}
	return tips, nil
}

// draft makes the commit without a signature, for who wants to look at it.
func (s *site) draft(ctx context.Context, parent string, files map[string][]byte, message string) (string, error) {
	tmp, err := os.MkdirTemp("", "pinion-index-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	index := s.git
	index.env = append(slices.Clone(index.env), "GIT_INDEX_FILE="+filepath.Join(tmp, "index"))
	if _, err := index.output(ctx, "read-tree", parent); err != nil {
		return "", err
	}
	var info bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(files)) {
		data := files[name]
		if data == nil {
			fmt.Fprintf(&info, "0 %040d\t%s\x00", 0, name)
			continue
		}
		id, err := index.input(ctx, data, "hash-object", "-w", "--no-filters", "--stdin")
		if err != nil {
			return "", err
		}
		mode := "100644"
		if was, err := index.output(ctx, "ls-files", "--stage", "-z", "--", name); err != nil {
			return "", err
		} else if was != "" {
			mode, _, _ = strings.Cut(was, " ")
		}
		fmt.Fprintf(&info, "%s %s\t%s\x00", mode, strings.TrimSpace(id), name)
	}
	if _, err := index.input(ctx, info.Bytes(), "update-index", "-z", "--index-info"); err != nil {
		return "", err
	}
	tree, err := index.output(ctx, "write-tree")
	if err != nil {
		return "", err
	}
	return s.commitTree(ctx, strings.TrimSpace(tree), parent, message, false)
}

func (s *site) commitTree(ctx context.Context, tree, parent, message string, sign bool) (string, error) {
	args := []string{"commit-tree", "-p", parent, "-F", "-"}
	if sign {
		args = append(args, "-S") // unlike git commit, it does not look at commit.gpgSign
	}
	id, err := s.git.run(ctx, []byte(message), s.git.err, append(args, tree))
	if err != nil {
		return "", fmt.Errorf("make the commit: %w", err)
	}
	return strings.TrimSpace(id), nil
}

// finish makes the commit out of its draft as `git commit` would: the
// commit-msg hook may change the message, and it is signed if the user's
// commits are.
func (s *site) finish(ctx context.Context, parent, draft, message string) (string, error) {
	hooked, err := s.commitMsg(ctx, message)
	if err != nil {
		return "", err
	}
	v, err := s.git.quiet(ctx, "config", "--type=bool", "commit.gpgSign")
	sign := err == nil && v == "true"
	if !sign && hooked == message {
		return draft, nil
	}
	return s.commitTree(ctx, draft+"^{tree}", parent, hooked, sign)
}

// commitMsg runs the hook that may change a message or refuse it.
func (s *site) commitMsg(ctx context.Context, message string) (string, error) {
	hook, err := s.git.output(ctx, "rev-parse", "--git-path", "hooks/commit-msg")
	if err != nil {
		return "", err
	}
	hook = strings.TrimSuffix(hook, "\n")
	if !filepath.IsAbs(hook) {
		hook = filepath.Join(s.dir, hook)
	}
	if info, err := os.Stat(hook); err != nil || info.Mode()&0o111 == 0 {
		return message, nil
	}
	tmp, err := os.CreateTemp("", "pinion-message-")
	if err != nil {
		return "", err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(message)
	if err = errors.Join(err, tmp.Close()); err != nil {
		return "", err
	}
	if _, err := s.git.talk(ctx, "hook", "run", "commit-msg", "--", tmp.Name()); err != nil {
		return "", fmt.Errorf("the hook commit-msg refuses the message: %w; it is %s", err, hook)
	}
	data, err := os.ReadFile(tmp.Name())
	return string(data), err
}

// errMoved says that the branch is not at the tip that was judged any more.
var errMoved = errors.New("the branch has moved")

// push pushes a commit onto the tip that it was made on, and onto nothing
// else: without force, git and the remote take it only if the branch is there.
func (s *site) push(ctx context.Context, tip, commit string) error {
	_, err := s.git.talk(ctx, "push", "--quiet", "--no-follow-tags", "--recurse-submodules=no", s.remote, commit+":refs/heads/"+s.branch)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// Whether it was refused or the answer was lost, the remote knows.
	gr, fetchErr := s.fetch(ctx)
	if fetchErr != nil {
		return errors.Join(fmt.Errorf("push %.12s to %s of %s: %w; it may have arrived all the same: look there before you try again", commit, s.branch, s.name, err), fetchErr)
	}
	defer gr.close()
	arrived, ancestryErr := gr.archive.IsAncestor(ctx, commit, gr.tip)
	switch {
	case ancestryErr != nil:
		return ancestryErr
	case arrived:
		return nil
	case gr.tip != tip:
		return errMoved
	}
	hint := "see whether you may push to that branch"
	if !s.temporary {
		hint = fmt.Sprintf("if it takes only pull requests, open one: git push %s %.12s:refs/heads/NAME", s.remote, commit)
	}
	return fmt.Errorf("push %.12s to %s of %s: %w; %s", commit, s.branch, s.name, err, hint)
}

// follow moves the branch that is checked out to the commit, if it follows the
// remote's and nothing is in the way. It says what was done.
func (s *site) follow(ctx context.Context, commit string) string {
	if bare, err := s.git.quiet(ctx, "rev-parse", "--is-bare-repository"); err != nil || bare == "true" {
		return ""
	}
	b, err := s.git.quiet(ctx, "symbolic-ref", "--quiet", "--short", "HEAD")
	if err != nil {
		return "no branch is checked out here, so the working tree stays as it is"
	}
	remote, _ := s.git.quiet(ctx, "config", "branch."+b+".remote")
	merge, _ := s.git.quiet(ctx, "config", "branch."+b+".merge")
	if remote != s.remote || merge != "refs/heads/"+s.branch {
		return fmt.Sprintf("the branch that is checked out here, %s, does not follow %s, and stays as it is", b, s.branch)
	}
	if _, err := s.git.quiet(ctx, "merge", "--ff-only", "--no-autostash", "--quiet", commit); err != nil {
		return fmt.Sprintf("the working tree stays as it is, for what you have changed is in the way; `git pull` brings the commit into %s", b)
	}
	return fmt.Sprintf("%s is at it here, too", b)
}

// git is the git program, in a repository.
type git struct {
	dir string
	env []string  // besides that of this process
	err io.Writer // for what git says while it talks to others
}

// output runs git and returns what it prints.
func (p git) output(ctx context.Context, args ...string) (string, error) {
	return p.run(ctx, nil, nil, args)
}

// quiet is output without the last end of line, for a question whose answer
// may be no.
func (p git) quiet(ctx context.Context, args ...string) (string, error) {
	out, err := p.run(ctx, nil, nil, args)
	return strings.TrimSuffix(out, "\n"), err
}

// input is output with something to read.
func (p git) input(ctx context.Context, data []byte, args ...string) (string, error) {
	return p.run(ctx, data, nil, args)
}

// talk is output where others may have a word: a remote, a hook, who asks for
// a passphrase. What they say is passed on.
func (p git) talk(ctx context.Context, args ...string) (string, error) {
	return p.run(ctx, nil, p.err, args)
}

func (p git) run(ctx context.Context, stdin []byte, relay io.Writer, args []string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = p.dir
	cmd.Env = append(localless(os.Environ()), p.env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	var out bytes.Buffer
	said := &lines{to: relay}
	cmd.Stdout, cmd.Stderr = &out, said
	err := cmd.Run()
	said.flush()
	if err == nil {
		return out.String(), nil
	}
	if ctx.Err() != nil {
		return out.String(), context.Cause(ctx)
	}
	return out.String(), &gitError{args[0], said.cause(), err}
}

// gitError is a git that has failed.
type gitError struct {
	command, said string
	err           error
}

func (e *gitError) Error() string {
	if e.said == "" {
		return fmt.Sprintf("git %s: %v", e.command, e.err)
	}
	return fmt.Sprintf("git %s: %s", e.command, e.said)
}

func (e *gitError) Unwrap() error { return nil }

// localless leaves out what would lead git to another repository than that of
// its folder: a hook of git's has these in its environment.
func localless(env []string) []string {
	local := []string{
		"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
		"GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX", "GIT_GRAFT_FILE", "GIT_SHALLOW_FILE", "GIT_REPLACE_REF_BASE",
		"GIT_QUARANTINE_PATH",
	}
	return slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(local, name)
	})
}

// lines passes on what is written, line by line and without user info, and
// keeps it.
type lines struct {
	to io.Writer // nil: nobody

	mu   sync.Mutex // guards what follows
	rest []byte
	all  []string
}

func (l *lines) Write(data []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, data...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(data), nil
		}
		l.rest = rest
		l.line(string(line))
	}
}

func (l *lines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.rest) > 0 {
		l.line(string(l.rest))
		l.rest = nil
	}
}

func (l *lines) line(s string) {
	s = printable(gitstate.Redact(strings.TrimRight(s, " \r")))
	if len(l.all) < 1000 {
		l.all = append(l.all, s)
	}
	if l.to != nil {
		fmt.Fprintln(l.to, s)
	}
}

// cause is the line that most probably says why.
func (l *lines) cause() string {
	for _, prefix := range []string{"fatal: ", "! ", "error: "} { // "! " is of a push
		for _, s := range l.all {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(s), prefix); ok {
				return rest
			}
		}
	}
	for _, s := range slices.Backward(l.all) {
		if s != "" {
			return s
		}
	}
	return ""
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

// missing is the error about a name that the repository does not have.
func missing[N ~string, V any](kind string, name N, have map[N]V) error {
	return unknownName(kind, string(name), slices.Sorted(maps.Keys(have)), "the repository has")
}

// texts are names as strings.
func texts[S ~string](names []S) []string {
	var all []string
	for _, n := range names {
		all = append(all, string(n))
	}
	return all
}
