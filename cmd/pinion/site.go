package main

import (
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

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/proposal"
)

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
		"+refs/heads/ledger/*:"+s.tracking("ledger/*"),
		"+refs/heads/pinion/*:"+s.tracking("pinion/*"))
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
	if l.Tips, err = s.ledgers(ctx); err != nil {
		l.close()
		return nil, err
	}
	commit, err := l.Commit(ctx)
	if err != nil {
		l.close()
		return nil, err
	}
	return &ground{l, &proposal.Ground{View: l.View, Commit: commit, Branch: s.branch, Name: s.name}}, nil
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
	arrived, ancestryErr := gr.archive.IsAncestor(ctx, commit, gr.Ground.Commit.ID)
	switch {
	case ancestryErr != nil:
		return ancestryErr
	case arrived:
		return nil
	case gr.Ground.Commit.ID != tip:
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
