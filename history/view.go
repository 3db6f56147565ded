package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
	"github.com/pinion-cd/pinion/reconcile"
)

// Archive is where commits are read from: a clone, or a mirror.
type Archive interface {
	reconcile.Commits
	Info(ctx context.Context, id string) (gitstate.CommitInfo, error)
}

// View is a deployment repository at one moment: the tip of main, and the
// ledgers. Nothing is read before it is asked for, and nothing twice. It is for
// one goroutine at a time.
type View struct {
	Archive   Archive
	Now       time.Time
	Tips      map[desired.EnvironmentName]string // of the ledgers
	Artifacts string                             // the tip of what is known of artifacts; "": there is no such branch
	// FindMain finds the commit at the tip of main, if somebody asks for it.
	FindMain func(ctx context.Context) (string, error)
	// Shallow: the history is cut off somewhere, and can be brought.
	Shallow bool

	main        string            // the full id of the tip; empty: not looked up yet
	commit      *reconcile.Commit // at the tip; nil: not read yet
	shelf       *artifact.Shelf   // at Artifacts; nil: not read yet
	rules       map[string]policy.Rules
	read        map[place]reading
	stand       map[desired.EnvironmentName][]Standing // whole environments that were read
	matrix      *Matrix                                // of all of them
	ages        map[[2]string]bool
	zones       map[string]*time.Location
	suspensions map[string]string // what is known of them, by the ids of their files
	failure     error             // of older
}

type place struct {
	env desired.EnvironmentName
	svc desired.ServiceName
}

// reading is a record, and the id of the file that it was read from.
type reading struct {
	blob   string
	record ledger.Record
}

// NewView returns a view of what the tips lead to.
func NewView(v View) *View {
	v.rules, v.read, v.stand = map[string]policy.Rules{}, map[place]reading{}, map[desired.EnvironmentName][]Standing{}
	v.ages, v.zones, v.suspensions = map[[2]string]bool{}, map[string]*time.Location{}, map[string]string{}
	return &v
}

// Tips finds the ledgers among branches.
func Tips(branches map[string]string) map[desired.EnvironmentName]string {
	tips := map[desired.EnvironmentName]string{}
	for branch, tip := range branches {
		if env, ok := strings.CutPrefix(branch, ledger.Branch("")); ok {
			tips[desired.EnvironmentName(env)] = tip
		}
	}
	return tips
}

// Main returns the commit at the tip of main.
func (view *View) Main(ctx context.Context) (id string, err error) {
	if view.main == "" {
		view.main, err = view.FindMain(ctx)
	}
	return view.main, err
}

// MainTip is what Main has found, or empty if nobody has asked.
func (view *View) MainTip() string { return view.main }

// Commit reads the commit at the tip of main.
func (view *View) Commit(ctx context.Context) (*reconcile.Commit, error) {
	if view.commit != nil {
		return view.commit, nil
	}
	id, err := view.Main(ctx)
	if err != nil {
		return nil, err
	}
	view.commit, err = reconcile.ReadCommit(ctx, view.Archive, id, nil)
	return view.commit, err
}

// Repository reads the files of main.
func (view *View) Repository(ctx context.Context) (*desired.Repository, error) {
	c, err := view.Commit(ctx)
	if err != nil {
		return nil, err
	}
	return c.Repository, nil
}

// Environments are those of main and of the ledgers, in the order of the
// pipelines.
func (view *View) Environments(ctx context.Context) ([]desired.EnvironmentName, error) {
	repo, err := view.Repository(ctx)
	if err != nil {
		return nil, err
	}
	return Order(repo, slices.Collect(maps.Keys(view.Tips))), nil
}

// KnowsEnvironment makes sure that main or a ledger has an environment.
func (view *View) KnowsEnvironment(ctx context.Context, env desired.EnvironmentName) error {
	envs, err := view.Environments(ctx)
	if err != nil || slices.Contains(envs, env) {
		return err
	}
	repo, err := view.Repository(ctx)
	if err != nil {
		return err
	}
	if ps := repo.Broken(desired.KindEnvironment, string(env)); len(ps) > 0 {
		return ps[0]
	}
	return Unknown("environment", string(env), envs, "there are")
}

// KnowsService makes sure that main or a ledger has a service.
func (view *View) KnowsService(ctx context.Context, svc desired.ServiceName) error {
	m, err := view.Matrix(ctx)
	if err != nil || m.Standings[svc] != nil {
		return err
	}
	repo, err := view.Repository(ctx)
	if err != nil || repo.Services[svc] != nil {
		return err
	}
	if ps := repo.Broken(desired.KindService, string(svc)); len(ps) > 0 {
		return ps[0]
	}
	return Unknown("service", string(svc), slices.Sorted(maps.Keys(repo.Services)), "there are")
}

// ErrNotFound is wrapped by errors about a name that is not there.
var ErrNotFound = errors.New("not found")

// UnknownError is the error about a name that is not there.
type UnknownError struct {
	Kind, Name string
	Hint       string // the nearest name, or which ones there are; may be empty
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("%s %s: %v%s", e.Kind, e.Name, ErrNotFound, e.Hint)
}

// Unwrap returns ErrNotFound.
func (e *UnknownError) Unwrap() error { return ErrNotFound }

// Unknown is the error about a name that is not there: have are those that
// are, and are says so of them.
func Unknown[N ~string](kind, name string, have []N, are string) error {
	names := make([]string, len(have))
	for i, n := range have {
		names[i] = string(n)
	}
	e := &UnknownError{Kind: kind, Name: name}
	if near := desired.Nearest(name, names); near != "" {
		e.Hint = fmt.Sprintf("; did you mean %q?", near)
	} else if len(names) > 0 {
		e.Hint = fmt.Sprintf("; %s %s", are, strings.Join(names, ", "))
	}
	return e
}

// book returns the tree of an environment's ledger; nil if it has none.
func (view *View) book(ctx context.Context, env desired.EnvironmentName) (*gitstate.Snapshot, error) {
	tip, ok := view.Tips[env]
	if !ok {
		return nil, nil
	}
	s, err := view.Archive.Snapshot(ctx, tip)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", ledger.Branch(env), err)
	}
	return s, nil
}

// Record returns the record of one service in one environment; ok is false if
// there is none.
func (view *View) Record(ctx context.Context, env desired.EnvironmentName, svc desired.ServiceName) (r ledger.Record, ok bool, err error) {
	book, err := view.book(ctx, env)
	if err != nil || book == nil {
		return r, false, err
	}
	return view.recordIn(book, env, svc)
}

// has tells whether a record was read and has not changed.
func (view *View) has(book *gitstate.Snapshot, env desired.EnvironmentName, svc desired.ServiceName) bool {
	blob, err := book.ID(ledger.RecordFile(svc))
	return err == nil && view.read[place{env, svc}].blob == blob
}

// recordIn reads a record, unless it was read and has not changed.
func (view *View) recordIn(book *gitstate.Snapshot, env desired.EnvironmentName, svc desired.ServiceName) (ledger.Record, bool, error) {
	blob, err := book.ID(ledger.RecordFile(svc))
	was := view.read[place{env, svc}]
	if err == nil && was.blob == blob {
		return was.record, true, nil
	}
	r, ok, err := readRecord(book, env, svc)
	if err == nil && ok {
		view.read[place{env, svc}] = reading{blob, r}
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

// Records returns all records of an environment. One that can't be read is in
// the error, and the others come all the same.
func (view *View) Records(ctx context.Context, env desired.EnvironmentName) (map[desired.ServiceName]ledger.Record, error) {
	book, err := view.book(ctx, env)
	if err != nil || book == nil {
		return nil, err
	}
	folders, err := book.ReadDir(".")
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", ledger.Branch(env), err)
	}
	all := make(map[desired.ServiceName]ledger.Record, len(folders))
	var errs []error
	for _, f := range folders {
		if !f.IsDir() {
			continue // a README, perhaps
		}
		svc := desired.ServiceName(f.Name())
		r, ok, err := view.recordIn(book, env, svc)
		if err == nil && !ok {
			err = fmt.Errorf("read %s: %s is not there", ledger.Branch(env), ledger.RecordFile(svc))
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all[svc] = r
	}
	return all, errors.Join(errs...)
}

// What is kept at most: rules, and which commit is older than which.
const (
	mostRules = 256
	mostAges  = 10_000
)

// rulesAt returns the rules of a commit on main.
func (view *View) rulesAt(ctx context.Context, commit string) (policy.Rules, error) {
	if r, ok := view.rules[commit]; ok {
		return r, nil
	}
	if view.commit != nil && view.commit.ID == commit {
		return view.keep("", policy.Rules{Commit: commit, Repository: view.commit.Repository}), nil
	}
	snap, err := view.Archive.Snapshot(ctx, commit)
	if err != nil {
		return policy.Rules{}, view.cutOff(err)
	}
	key, err := reconcile.RulesKey(snap)
	if err != nil {
		return policy.Rules{}, err
	}
	if r, ok := view.rules[key]; ok {
		return view.keep("", policy.Rules{Commit: commit, Repository: r.Repository}), nil
	}
	// What is the same as on main is not read twice.
	if _, err := view.Repository(ctx); err != nil {
		return policy.Rules{}, err
	}
	c, err := reconcile.ReadCommit(ctx, view.Archive, commit, view.commit)
	if err != nil {
		return policy.Rules{}, view.cutOff(err)
	}
	return view.keep(key, policy.Rules{Commit: commit, Repository: c.Repository}), nil
}

// keep keeps the rules of a commit; with a key, for each that has the same.
func (view *View) keep(key string, r policy.Rules) policy.Rules {
	if len(view.rules) > mostRules {
		clear(view.rules)
	}
	for _, p := range r.Repository.Policies {
		if p.Window == nil || view.zones[p.Window.Timezone] != nil {
			continue
		}
		// One that is not known stays out: the window is closed then, and says so.
		if loc, err := time.LoadLocation(p.Window.Timezone); err == nil {
			view.zones[p.Window.Timezone] = loc
		}
	}
	view.rules[r.Commit] = r
	if key != "" && !reconcile.Faulty(r.Repository) {
		view.rules[key] = r
	}
	return r
}

// cutOff says of an error that may come from a shallow clone how to mend it.
func (view *View) cutOff(err error) error {
	if err != nil && view.Shallow && errors.Is(err, gitstate.ErrNoCommit) {
		return fmt.Errorf("%w: this clone is shallow; run `git fetch --unshallow`", err)
	}
	return err
}

// verification gathers what [policy.Verify] judges from. Nobody watches the
// cluster here, so health is not known.
func (view *View) verification(ctx context.Context, env desired.EnvironmentName, svc desired.ServiceName) (policy.Verification, error) {
	v := policy.Verification{Now: view.Now, Locations: view.zones}
	r, ok, err := view.Record(ctx, env, svc)
	if err != nil {
		return v, err
	}
	if !ok || r.Deployment.ID == "" {
		return v, fmt.Errorf("service %s in environment %s: %w: no deployment is recorded", svc, env, ErrNotFound)
	}
	v.Record = r
	if v.Rules, err = view.rulesAt(ctx, r.Deployment.Commit); err != nil {
		return v, err
	}
	if v.Rules.AsksArtifacts(env, svc) {
		v.Shelf, err = view.Shelf(ctx)
	}
	return v, err
}

// Admission gathers what [policy.Admit] judges from, by the rules of main.
// Without a stage, or without stages before it, nothing is admitted; see
// [policy.Rules.Stage]. Hand it to Admit, which knows whether the history could
// be read.
func (view *View) Admission(ctx context.Context, env desired.EnvironmentName, svc desired.ServiceName) (policy.Admission, error) {
	a := policy.Admission{Now: view.Now, Service: svc, Environment: env, Locations: view.zones,
		Before:  map[desired.EnvironmentName]ledger.Record{},
		Entries: map[desired.EnvironmentName]string{},
		Older:   func(commit, than string) bool { return view.older(ctx, commit, than) },
	}
	id, err := view.Main(ctx)
	if err != nil {
		return a, err
	}
	if a.Rules, err = view.rulesAt(ctx, id); err != nil {
		return a, err
	}
	if a.Target, _, err = view.Record(ctx, env, svc); err != nil {
		return a, err
	}
	if d, ok := a.Rules.Repository.Deployment(env, svc); ok {
		a.Pinned = &d
	}
	pipeline, stage, _ := a.Rules.Stage(env, svc)
	if stage == nil {
		return a, nil
	}
	snapshot, err := view.Archive.Snapshot(ctx, id)
	if err != nil {
		return a, err
	}
	if a.Rules.PipelineBlob, err = snapshot.ID(pipeline.File); err != nil {
		return a, err
	}
	if len(stage.Track) > 0 || a.Rules.AsksArtifacts(env, svc) {
		if a.Shelf, err = view.Shelf(ctx); err != nil {
			return a, err
		}
	}
	for _, before := range stage.After {
		r, ok, err := view.Record(ctx, before, svc)
		if err != nil {
			return a, err
		}
		if ok {
			a.Before[before], a.Entries[before] = r, view.Tips[before]
		}
	}
	return a, nil
}

// Shelf reads what is known of artifacts. A record that can't be read is in the
// error, and nothing else is.
func (view *View) Shelf(ctx context.Context) (*artifact.Shelf, error) {
	if view.shelf != nil {
		return view.shelf, nil
	}
	shelf, err := reconcile.ReadShelf(ctx, view.Archive, view.Artifacts)
	if err == nil {
		view.shelf = shelf
	}
	return shelf, err
}

// Admit judges. What could not be looked up is an error, not a judgement.
func (view *View) Admit(a policy.Admission) (policy.Decision, error) {
	view.failure = nil
	d := policy.Admit(a)
	if view.failure != nil {
		return policy.Decision{}, view.failure
	}
	return d, nil
}

func (view *View) older(ctx context.Context, commit, than string) bool {
	if commit == than {
		return false
	}
	if older, known := view.ages[[2]string{commit, than}]; known {
		return older
	}
	older, err := view.Archive.IsAncestor(ctx, commit, than)
	if err != nil {
		view.failure = errors.Join(view.failure, view.cutOff(err))
		return older
	}
	if len(view.ages) > mostAges {
		clear(view.ages)
	}
	view.ages[[2]string{commit, than}] = older
	return older
}

// Order returns the environments as the pipelines have them: a stage after
// those that it comes after, and what is in no pipeline at the end.
func Order(repo *desired.Repository, more []desired.EnvironmentName) []desired.EnvironmentName {
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
