package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
	"github.com/pinion-cd/pinion/reconcile"
)

// archive is where commits are read from: a clone, or a mirror.
type archive interface {
	reconcile.Commits
	Info(ctx context.Context, id string) (gitstate.CommitInfo, error)
	Resolve(ctx context.Context, rev string) (string, error)
}

// ledgers is a deployment repository as the commands see it that look back, or
// that judge: the tip of main, and the ledgers, as far as this machine knows
// them. Nothing is read before it is asked for.
type ledgers struct {
	archive archive
	clone   *gitstate.Clone // nil: it is a mirror
	name    string          // the URL or folder, without user info
	now     time.Time
	tips    map[desired.EnvironmentName]string
	fetched time.Time // when the remote was last asked; zero: not known
	close   func()

	rev, branch string
	mainName    string            // what main was taken from: "origin/main"
	mainTip     string            // its full id; empty: not looked up yet
	commit      *reconcile.Commit // at the tip; nil: not read yet
	rules       map[string]policy.Rules
	read        map[place]ledger.Record
	zones       map[string]*time.Location
	suspensions map[string]string // what is known of them, by what their files say
	failure     error             // of older
}

type place struct {
	env desired.EnvironmentName
	svc desired.ServiceName
}

// openLedgers opens what --repo names. That there is no ledger is no error yet.
func (g *globals) openLedgers(ctx context.Context) (*ledgers, error) {
	// A command that looks and ends has no use for a tidy heap: a third of its
	// time would go there.
	debug.SetGCPercent(400)
	l := &ledgers{now: g.now, rev: g.rev, tips: map[desired.EnvironmentName]string{},
		rules: map[string]policy.Rules{}, read: map[place]ledger.Record{}, zones: map[string]*time.Location{}, suspensions: map[string]string{}}
	var branches map[string]string
	if isURL(g.repo) {
		m, tip, err := g.openMirror(ctx)
		if err != nil {
			return nil, err
		}
		l.archive, l.name, l.close = m, gitstate.Redact(g.repo), func() { m.Close() }
		branches, l.fetched = m.Branches(), l.now
		if l.rev == "" {
			l.mainName, l.mainTip = "the branch", tip.Commit
		}
	} else {
		clone, dir, err := g.openClone()
		if err != nil {
			return nil, err
		}
		l.archive, l.clone, l.name, l.close = clone, clone, dir, func() { clone.Close() }
		if url, err := clone.RemoteURL(); err == nil && url != "" {
			l.name = gitstate.Redact(url)
		}
		if branches, err = clone.Ledgers(); err != nil {
			clone.Close()
			return nil, err
		}
		l.fetched = clone.Fetched()
		if g.config != "" {
			c, err := g.readConfig()
			if err != nil {
				clone.Close()
				return nil, err
			}
			l.branch = c.Repository.Branch
		}
	}
	for branch, tip := range branches {
		if env, ok := strings.CutPrefix(branch, ledger.Branch("")); ok {
			l.tips[desired.EnvironmentName(env)] = tip
		}
	}
	return l, nil
}

// openClone opens the clone that --repo names, or that one stands in.
func (g *globals) openClone() (*gitstate.Clone, string, error) {
	dir, err := filepath.Abs(g.repo)
	if err != nil {
		return nil, "", err
	}
	if info, err := os.Stat(dir); err != nil {
		return nil, "", fmt.Errorf("open repository: %w; name a clone or a URL with --repo", err)
	} else if !info.IsDir() {
		return nil, "", fmt.Errorf("open repository: %s is not a folder; name a clone or a URL with --repo", dir)
	}
	clone, err := gitstate.OpenClone(dir)
	if err != nil {
		return nil, "", fmt.Errorf("no deployment repository here: %w\nstand in a clone, or name one with --repo; `pinion init` makes a new one", err)
	}
	return clone, dir, nil
}

// main returns the commit at the tip of main: --rev; or else the branch as the
// remote has it, since that is what the daemon goes by; or else what is
// checked out.
func (l *ledgers) main(ctx context.Context) (id string, err error) {
	switch {
	case l.mainTip != "":
		return l.mainTip, nil
	case l.rev != "":
		l.mainName = l.rev
	case l.clone != nil:
		if l.mainName, l.mainTip, err = l.clone.Published(l.branch); err != nil || l.mainTip != "" {
			return l.mainTip, err
		}
		l.mainName = "HEAD"
	}
	l.mainTip, err = l.archive.Resolve(ctx, l.mainName)
	return l.mainTip, err
}

// repository reads the files of main.
func (l *ledgers) repository(ctx context.Context) (*desired.Repository, error) {
	if l.commit != nil {
		return l.commit.Repository, nil
	}
	id, err := l.main(ctx)
	if err != nil {
		return nil, err
	}
	if l.commit, err = reconcile.ReadCommit(ctx, l.archive, id, nil); err != nil {
		return nil, err
	}
	return l.commit.Repository, nil
}

// asOf says for the head of an output how new it is: when the remote was last
// asked, or, where nobody fetches, when something was last recorded.
func (l *ledgers) asOf(ctx context.Context) string {
	var parts []string
	if l.mainTip != "" {
		parts = append(parts, fmt.Sprintf("%s at %.12s", l.mainName, l.mainTip))
	}
	if l.fetched.IsZero() {
		var newest time.Time
		for _, tip := range l.tips {
			if c, err := l.archive.Info(ctx, tip); err == nil && c.Committer.Time.After(newest) {
				newest = c.Committer.Time
			}
		}
		if !newest.IsZero() {
			parts = append(parts, "the newest entry "+ageAt(l.now, newest)+" old")
		}
	} else if age := l.now.Sub(l.fetched); age >= time.Second {
		parts = append(parts, "fetched "+shortAge(age)+" ago")
	} else {
		parts = append(parts, "fetched now")
	}
	return strings.Join(parts, ", ")
}

// none is the error of a repository without ledgers.
func (l *ledgers) none() error {
	const first = "there is none before `pinion run` has recorded the first deployment"
	switch {
	case l.clone == nil:
		return fmt.Errorf("%s has no ledger\n%s", l.name, first)
	case !l.clone.FetchesLedgers():
		if url, err := l.clone.RemoteURL(); err == nil && url == "" {
			return fmt.Errorf("no ledger in %s\n%s", l.name, first)
		}
		return errors.New("no ledger in this clone, and `git fetch` does not bring them\n" +
			"run `git config --add remote.origin.fetch '+refs/heads/ledger/*:refs/remotes/origin/ledger/*'` and `git fetch origin`")
	}
	return errors.New("no ledger in this clone\nrun `git fetch origin`; " + first)
}

// tip returns the newest entry of an environment's ledger.
func (l *ledgers) tip(ctx context.Context, env desired.EnvironmentName) (string, error) {
	if tip, ok := l.tips[env]; ok {
		return tip, nil
	}
	if len(l.tips) == 0 {
		return "", l.none()
	}
	if repo, err := l.repository(ctx); err == nil && repo.Environments[env] != nil {
		return "", &exitError{code: exitDifferent, cause: fmt.Errorf("environment %s has no ledger yet; it begins with the first deployment, and `git fetch` brings it", env)}
	}
	return "", unknownName("environment", string(env), slices.Sorted(maps.Keys(l.tips)), "the ledgers are")
}

// unknownName is the error about a name that is not there.
func unknownName[N ~string](kind, name string, have []N, are string) error {
	names := make([]string, len(have))
	for i, n := range have {
		names[i] = string(n)
	}
	if near := desired.Nearest(name, names); near != "" {
		return fmt.Errorf("%s %s: %w; did you mean %q?", kind, name, errNotFound, near)
	}
	if len(names) == 0 {
		return fmt.Errorf("%s %s: %w", kind, name, errNotFound)
	}
	return fmt.Errorf("%s %s: %w; %s %s", kind, name, errNotFound, are, strings.Join(names, ", "))
}

// book returns the tree of an environment's ledger; nil if it has none.
func (l *ledgers) book(ctx context.Context, env desired.EnvironmentName) (*gitstate.Snapshot, error) {
	tip, ok := l.tips[env]
	if !ok {
		return nil, nil
	}
	s, err := l.archive.Snapshot(ctx, tip)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", ledger.Branch(env), err)
	}
	return s, nil
}

// record returns the record of one service in one environment; ok is false if
// there is none.
func (l *ledgers) record(ctx context.Context, env desired.EnvironmentName, svc desired.ServiceName) (r ledger.Record, ok bool, err error) {
	if r, ok := l.read[place{env, svc}]; ok {
		return r, r.Service != "", nil
	}
	book, err := l.book(ctx, env)
	if err != nil || book == nil {
		return r, false, err
	}
	r, ok, err = readRecord(book, env, svc)
	if err == nil {
		l.read[place{env, svc}] = r
	}
	return r, ok, err
}

func readRecord(book *gitstate.Snapshot, env desired.EnvironmentName, svc desired.ServiceName) (ledger.Record, bool, error) {
	file := ledger.RecordFile(svc)
	fail := func(err error) (ledger.Record, bool, error) {
		return ledger.Record{}, false, fmt.Errorf("read %s: %w", ledger.Branch(env), err)
	}
	data, err := book.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return ledger.Record{}, false, nil
	}
	if err != nil {
		return fail(err)
	}
	r, err := ledger.DecodeRecord(file, data)
	switch {
	case err != nil:
		return fail(err)
	case r.Service != svc || r.Environment != env:
		return fail(fmt.Errorf("%s: it is the record of %s in %s; `git log` of the branch tells who put it there", file, r.Service, r.Environment))
	}
	return r, true, nil
}

// records returns all records of an environment. One that can't be read is in
// the error, and the others come all the same.
func (l *ledgers) records(ctx context.Context, env desired.EnvironmentName) (map[desired.ServiceName]ledger.Record, error) {
	book, err := l.book(ctx, env)
	if err != nil || book == nil {
		return nil, err
	}
	all, err := ledger.Read(book)
	if err != nil {
		err = fmt.Errorf("%s: %w", ledger.Branch(env), err)
	}
	for svc, r := range all {
		if r.Environment != env {
			delete(all, svc)
			err = errors.Join(err, fmt.Errorf("read %s: %s: it is a record of %s", ledger.Branch(env), ledger.RecordFile(svc), r.Environment))
			continue
		}
		l.read[place{env, svc}] = r
	}
	return all, err
}

// rulesAt returns the rules of a commit on main.
func (l *ledgers) rulesAt(ctx context.Context, commit string) (policy.Rules, error) {
	if r, ok := l.rules[commit]; ok {
		return r, nil
	}
	if l.commit != nil && l.commit.ID == commit {
		return l.keep(policy.Rules{Commit: commit, Repository: l.commit.Repository}), nil
	}
	// What is the same as on main is not read twice.
	if _, err := l.repository(ctx); err != nil {
		return policy.Rules{}, err
	}
	c, err := reconcile.ReadCommit(ctx, l.archive, commit, l.commit)
	if err != nil {
		return policy.Rules{}, l.cutOff(err)
	}
	return l.keep(policy.Rules{Commit: commit, Repository: c.Repository}), nil
}

func (l *ledgers) keep(r policy.Rules) policy.Rules {
	for _, p := range r.Repository.Policies {
		if p.Window == nil || l.zones[p.Window.Timezone] != nil {
			continue
		}
		// One that is not known stays out: the window is closed then, and says so.
		if loc, err := time.LoadLocation(p.Window.Timezone); err == nil {
			l.zones[p.Window.Timezone] = loc
		}
	}
	l.rules[r.Commit] = r
	return r
}

// cutOff says of an error that may come from a shallow clone how to mend it.
func (l *ledgers) cutOff(err error) error {
	if err != nil && l.clone != nil && l.clone.Shallow() && errors.Is(err, gitstate.ErrNoCommit) {
		return fmt.Errorf("%w: this clone is shallow; run `git fetch --unshallow`", err)
	}
	return err
}

// verification gathers what [policy.Verify] judges from. Nobody watches the
// cluster here, so health is not known.
func (l *ledgers) verification(ctx context.Context, env desired.EnvironmentName, svc desired.ServiceName) (policy.Verification, error) {
	v := policy.Verification{Now: l.now, Locations: l.zones}
	r, ok, err := l.record(ctx, env, svc)
	if err != nil {
		return v, err
	}
	if !ok || r.Deployment.ID == "" {
		return v, fmt.Errorf("service %s in environment %s: %w: no deployment is recorded", svc, env, errNotFound)
	}
	v.Record = r
	v.Rules, err = l.rulesAt(ctx, r.Deployment.Commit)
	return v, err
}

// admission gathers what [policy.Admit] judges from, by the rules of main.
// Without a stage, or without stages before it, nothing is admitted; see
// [policy.Rules.Stage]. Hand it to admit, which knows whether the history could
// be read.
func (l *ledgers) admission(ctx context.Context, env desired.EnvironmentName, svc desired.ServiceName) (policy.Admission, error) {
	a := policy.Admission{Now: l.now, Service: svc, Environment: env, Locations: l.zones,
		Before:  map[desired.EnvironmentName]ledger.Record{},
		Entries: map[desired.EnvironmentName]string{},
		Older:   func(commit, than string) bool { return l.older(ctx, commit, than) },
	}
	id, err := l.main(ctx)
	if err != nil {
		return a, err
	}
	if a.Rules, err = l.rulesAt(ctx, id); err != nil {
		return a, err
	}
	if a.Target, _, err = l.record(ctx, env, svc); err != nil {
		return a, err
	}
	if d, ok := a.Rules.Repository.Deployment(env, svc); ok {
		a.Pinned = &d
	}
	pipeline, stage, _ := a.Rules.Stage(env, svc)
	if stage == nil {
		return a, nil
	}
	snapshot, err := l.archive.Snapshot(ctx, id)
	if err != nil {
		return a, err
	}
	if a.Rules.PipelineBlob, err = snapshot.ID(pipeline.File); err != nil {
		return a, err
	}
	for _, before := range stage.After {
		r, ok, err := l.record(ctx, before, svc)
		if err != nil {
			return a, err
		}
		if ok {
			a.Before[before], a.Entries[before] = r, l.tips[before]
		}
	}
	return a, nil
}

// admit judges. What could not be looked up is an error, not a judgement.
func (l *ledgers) admit(a policy.Admission) (policy.Decision, error) {
	l.failure = nil
	d := policy.Admit(a)
	if l.failure != nil {
		return policy.Decision{}, l.failure
	}
	return d, nil
}

func (l *ledgers) older(ctx context.Context, commit, than string) bool {
	if commit == than {
		return false
	}
	older, err := l.archive.IsAncestor(ctx, commit, than)
	if err != nil {
		l.failure = errors.Join(l.failure, l.cutOff(err))
	}
	return older
}

// order returns the environments as the pipelines have them: a stage after
// those that it comes after, and what is in no pipeline at the end.
func order(repo *desired.Repository, more []desired.EnvironmentName) []desired.EnvironmentName {
	var all []desired.EnvironmentName
	seen := map[desired.EnvironmentName]bool{}
	add := func(env desired.EnvironmentName) {
		if !seen[env] {
			seen[env] = true
			all = append(all, env)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(repo.Pipelines)) {
		p := repo.Pipelines[name]
		entered := map[desired.EnvironmentName]bool{}
		var visit func(s *desired.Stage)
		visit = func(s *desired.Stage) {
			if entered[s.Environment] {
				return
			}
			entered[s.Environment] = true
			for _, before := range s.After {
				if b := p.Stage(before); b != nil {
					visit(b)
				}
			}
			add(s.Environment)
		}
		for i := range p.Stages {
			visit(&p.Stages[i])
		}
	}
	for _, env := range slices.Sorted(maps.Keys(repo.Environments)) {
		add(env)
	}
	for _, env := range slices.Sorted(slices.Values(more)) {
		add(env)
	}
	return all
}
