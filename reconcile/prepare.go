package reconcile

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/reconcile/health"
	"github.com/pinion-cd/pinion/render"
	"github.com/pinion-cd/pinion/render/worker"
)

// Renderer turns services into objects: in worker processes, with the results
// of before kept.
type Renderer struct {
	Pool  *worker.Pool
	Cache *render.Cache
	// Renderings counts those that no result of before could stand for.
	Renderings *atomic.Uint64
}

// render returns the objects of a request, from the cache if nothing that
// they were made from has changed.
func (r Renderer) render(ctx context.Context, tree desired.Tree, req render.Request) (*render.Result, error) {
	if res, err := r.Cache.Get(req, tree); res != nil || err != nil {
		return res, err
	}
	r.Renderings.Add(1)
	res, err := r.Pool.Render(ctx, tree, req)
	if err != nil {
		return nil, err
	}
	return res, r.Cache.Put(req, res)
}

// Resolve says what a commit wants of one deployment, without rendering it:
// the target that it returns has no Result. The tree is the one to render
// from. A mistake of the file's author comes back as an error too.
func Resolve(ctx context.Context, commits Commits, c *Commit, d desired.Deployment) (*Target, desired.Tree, error) {
	if len(d.Problems) > 0 {
		return nil, nil, problemsError(d.Problems)
	}
	t := &Target{
		Key:     Key{d.Environment.Name, d.Service.Name},
		Place:   Place{d.Environment.Cluster, d.Environment.Namespace},
		Account: d.Environment.ServiceAccount,
		Tip:     c.ID,
		Source:  c.ID,
	}
	service, tree := d.Service, c.Tree
	if d.Source != "" {
		t.Source, t.Pinned = d.Source, true
		ok, err := c.contains(ctx, commits, d.Source)
		switch {
		case errors.Is(err, gitstate.ErrNoCommit) && !errors.Is(err, gitstate.ErrShallow), err == nil && !ok:
			return nil, nil, mistake{fmt.Errorf("%s: manifests of service %s: commit %.12s is not part of this branch's history; name a commit that is",
				d.Environment.ManifestsAt[d.Service.Name], d.Service.Name, d.Source)}
		case err != nil:
			return nil, nil, fmt.Errorf("%s: manifests of service %s: %w", d.Environment.ManifestsAt[d.Service.Name], d.Service.Name, err)
		}
		source, err := commits.Snapshot(ctx, d.Source)
		if err != nil {
			return nil, nil, err
		}
		s, problems, err := desired.ReadService(source, d.Service.Name)
		if err != nil {
			return nil, nil, err
		}
		if len(problems) > 0 {
			return nil, nil, fmt.Errorf("at commit %.12s, which %s names for service %s: %w", d.Source, d.Environment.File, d.Service.Name, problemsError(problems))
		}
		service, tree = s, source
	}
	t.Request = requestFor(d, service)
	t.DependsOn = service.DependsOn
	t.Timeout = service.Rollout.Timeout
	t.Deploy = service.Deploy
	t.Take = service.Conflicts == desired.ConflictsTake
	t.Replace = service.Replace == desired.ReplaceAllow
	t.Ignore = slices.Concat(d.Environment.Ignore, service.Ignore)
	t.Report = d.Environment.Drift == desired.DriftReport
	var err error
	if t.Health, err = health.Compile(service.Health); err != nil {
		return nil, nil, mistake{err}
	}
	return t, tree, nil
}

// mistake is an error that its author alone can mend, in the repository.
type mistake struct{ error }

// problemsError makes one mistake of the problems of a deployment.
func problemsError(ps []desired.Problem) error {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return mistake{errors.New(strings.Join(lines, "\n"))}
}

// wish is what a commit was found to want of one service.
type wish struct {
	key Key
	// target is set if the service could be rendered; unchanged says that it
	// is the one of before.
	target    *Target
	unchanged bool
	// err says why the newest wish can't be had.
	err error
	// retry says that err may pass by itself.
	retry bool
}

// reading is what the engine is told of a commit, in this order: one message
// with commit or err set, then some with wishes, then one with done set.
type reading struct {
	generation int
	commit     *Commit
	err        error
	wishes     []wish
	done       bool
	passed     []Key // at the end: those that were not ours when their turn came
}

// mostAtOnce is how many services that want what they wanted before are told
// together: what has changed is told at once, and waits for few of the others.
const mostAtOnce = 256

// known is the target of a service, and the newest commit of which it is
// certain that it wants the same.
type known struct {
	target *Target
	at     string
}

// preparation reads a commit and renders what it changes.
type preparation struct {
	generation int
	id         string
	previous   *Commit
	known      map[Key]known // not of services whose newest wish was not to be had
	commits    Commits
	renderer   Renderer
	has        func(Key) bool
	parallel   int
	progress   *progress
	suspects   map[Key]bool
}

// run sends what it finds to out; it ends early when ctx does.
func (p preparation) run(ctx context.Context, out chan<- reading) {
	send := func(r reading) bool {
		r.generation = p.generation
		select {
		case out <- r:
			return true
		case <-ctx.Done():
			return false
		}
	}
	c, err := ReadCommit(ctx, p.commits, p.id, p.previous)
	if err != nil {
		send(reading{err: err, done: true})
		return
	}
	var changed []string
	if p.previous != nil {
		if changed, err = c.Snapshot.Changed(p.previous.Snapshot); err != nil {
			send(reading{err: err, done: true})
			return
		}
	}
	if !send(reading{commit: c}) {
		return
	}
	var passed []Key
	has := func(k Key) bool {
		ours := p.has(k)
		if !ours {
			passed = append(passed, k)
		}
		return ours
	}
	r := rendering{commits: p.commits, renderer: p.renderer, has: has, parallel: p.parallel, progress: p.progress, suspects: p.suspects, changed: changed}
	touch := render.MakeTouch(changed)
	if p.previous != nil {
		r.steady = func(k Key, d desired.Deployment) *Target { return p.steady(c, k, d, touch) }
	}
	r.reuse = func(t *Target, tree desired.Tree) (*Target, error) {
		old, ok := p.known[t.Key]
		if !ok {
			return nil, nil
		}
		same, err := p.same(old, t, tree, touch)
		if err != nil || !same {
			return nil, err
		}
		return old.target, nil
	}
	var mu sync.Mutex // guards same
	var same []wish
	r.run(ctx, c, func(w wish) bool {
		if !w.unchanged {
			if w.target != nil {
				w.target.pack()
			}
			return send(reading{wishes: []wish{w}})
		}
		mu.Lock()
		defer mu.Unlock()
		if same = append(same, w); len(same) < mostAtOnce {
			return true
		}
		all := same
		same = nil
		return send(reading{wishes: all})
	})
	send(reading{wishes: same, done: true, passed: passed})
}

// rendering turns the deployments of a commit into targets.
type rendering struct {
	commits  Commits
	renderer Renderer
	has      func(Key) bool
	parallel int
	progress *progress // nil: nobody asks
	// suspects are those that took long before: they are rendered when all
	// others are.
	suspects map[Key]bool
	// changed are the files that the commit has changed, as far as that is known:
	// what they are of comes first.
	changed []string
	// steady returns the target of before of a deployment of which the commit has
	// changed nothing, or nil; nil: none is known.
	steady func(Key, desired.Deployment) *Target
	// reuse returns the target of before that stands for an unrendered one,
	// or nil.
	reuse func(*Target, desired.Tree) (*Target, error)
}

// quick is the time that a rendering gets while others wait for a place. One
// that needs longer begins anew, with all the time that the limits give it,
// when the others are done: so a file that loops for ever delays no other
// service by more than this.
const quick = 2 * time.Second

// run calls found for each deployment, from several goroutines, until it
// returns false.
func (r rendering) run(ctx context.Context, c *Commit, found func(wish) bool) {
	type task struct {
		target *Target
		tree   desired.Tree
	}
	var mu sync.Mutex // guards slow
	var slow []task
	var wait sync.WaitGroup
	defer wait.Wait()
	slots := make(chan struct{}, r.parallel)
	begin := func(t task, limit time.Duration) bool {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return false
		}
		wait.Go(func() {
			defer func() { <-slots }()
			renderCtx, cancel := ctx, context.CancelFunc(func() {})
			if limit > 0 {
				renderCtx, cancel = context.WithTimeout(ctx, limit)
			}
			defer cancel()
			result, err := r.renderer.render(renderCtx, t.tree, t.target.Request)
			if limit > 0 && err != nil && renderCtx.Err() != nil && ctx.Err() == nil {
				mu.Lock()
				slow = append(slow, t)
				mu.Unlock()
				return
			}
			if ctx.Err() == nil { // else it was called off, and has not ended
				r.progress.end(t.target.Key)
			}
			w := wish{key: t.target.Key, err: err, retry: !isAuthorError(err)}
			if err == nil {
				t.target.Result = leave(result, t.target.Ignore)
				w = wish{key: t.target.Key, target: t.target}
			}
			found(w)
		})
		return true
	}
	for _, d := range touchedFirst(c.Repository.Deployments(), r.changed) {
		key := Key{d.Environment.Name, d.Service.Name}
		if !r.has(key) {
			continue
		}
		if r.steady != nil {
			if old := r.steady(key, d); old != nil {
				if !found(wish{key: key, target: old, unchanged: true}) {
					return
				}
				continue
			}
		}
		t, tree, err := Resolve(ctx, r.commits, c, d)
		if err != nil {
			if !found(wish{key: key, err: err, retry: !isAuthorError(err)}) {
				return
			}
			continue
		}
		if r.reuse != nil {
			old, err := r.reuse(t, tree)
			if err != nil {
				if !found(wish{key: key, err: err, retry: true}) {
					return
				}
				continue
			}
			if old != nil {
				if !found(wish{key: key, target: old, unchanged: true}) {
					return
				}
				continue
			}
		}
		if r.suspects[key] {
			mu.Lock()
			slow = append(slow, task{t, tree})
			mu.Unlock()
			continue
		}
		if !begin(task{t, tree}, quick) {
			return
		}
	}
	wait.Wait()
	for _, t := range slow { // nobody adds to it any more
		r.progress.begin(t.target.Key)
	}
	for _, t := range slow {
		if !begin(t, 0) {
			return
		}
	}
}

// touchedFirst puts those deployments first whose environment's file or service's
// folder has changed. The others are most probably what they were.
func touchedFirst(all []desired.Deployment, changed []string) []desired.Deployment {
	environments, services := map[desired.EnvironmentName]bool{}, map[desired.ServiceName]bool{}
	for _, name := range changed {
		switch folder, rest := cut(name); folder {
		case "environments":
			if env, ok := stem(rest); ok {
				environments[env] = true
			}
		case "services":
			svc, _ := cut(rest)
			services[desired.ServiceName(svc)] = true
		}
	}
	if len(environments) == 0 && len(services) == 0 {
		return all
	}
	first, rest := make([]desired.Deployment, 0, len(all)), make([]desired.Deployment, 0, len(all))
	for _, d := range all {
		if environments[d.Environment.Name] || services[d.Service.Name] {
			first = append(first, d)
		} else {
			rest = append(rest, d)
		}
	}
	return append(first, rest...)
}

// Rendered is a service of a commit with its objects, or the reason why it
// has none.
type Rendered struct {
	Key
	Target *Target
	Err    error
	// Suspended says, if not empty, why nothing of it is written.
	Suspended string
}

// Render renders the selected deployments of a commit, and returns them by
// environment and service.
func Render(ctx context.Context, commits Commits, renderer Renderer, c *Commit, s Selection, parallel int) ([]Rendered, error) {
	var mu sync.Mutex
	var all []Rendered
	rendering{commits: commits, renderer: renderer, has: s.Has, parallel: max(parallel, 1)}.run(ctx, c, func(w wish) bool {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, Rendered{w.key, w.target, w.err, c.Repository.Suspended(w.key.Environment, w.key.Service)})
		return true
	})
	slices.SortFunc(all, func(a, b Rendered) int { return a.Key.Compare(b.Key) })
	return all, ctx.Err()
}

// Origin returns the commit on main that a target comes from: the newest one
// that changed anything of what it is made from.
func Origin(ctx context.Context, commits Commits, t *Target) (string, error) {
	return newLineage(commits).origin(ctx, t)
}

// steady returns the target of a deployment that is certain to be what it was at
// the previous commit: it is of the same files, and of nothing that has changed.
// That is nearly all there is, so it has to cost next to nothing.
func (p preparation) steady(c *Commit, k Key, d desired.Deployment, touch render.Touch) *Target {
	was := p.known[k]
	if was.target == nil || was.at != p.previous.ID || len(d.Problems) > 0 {
		return nil
	}
	old, ok := p.previous.Repository.Deployment(k.Environment, k.Service)
	if !ok || len(old.Problems) > 0 || old.Environment != d.Environment || old.Service != d.Service || old.Source != d.Source || !slices.Equal(old.Pins, d.Pins) {
		return nil
	}
	if d.Source != "" && !c.knows(d.Source) || d.Source == "" && touch.Touches(was.target.Result.Reads) {
		return nil
	}
	return was.target
}

// same tells whether a target of before stands for the one of now. If it was
// certain at the previous commit, what has changed since is enough to know.
func (p preparation) same(k known, t *Target, tree desired.Tree, touch render.Touch) (bool, error) {
	old := k.target
	if old.Place != t.Place || old.Account != t.Account || old.Pinned != t.Pinned || t.Pinned && old.Source != t.Source ||
		old.Timeout != t.Timeout || old.Take != t.Take || old.Replace != t.Replace || old.Report != t.Report || !desired.SameIgnores(old.Ignore, t.Ignore) ||
		!old.Health.Same(t.Health) || !slices.Equal(old.DependsOn, t.DependsOn) ||
		!reflect.DeepEqual(withoutPositions(old.Request), withoutPositions(t.Request)) {
		return false, nil
	}
	switch {
	case t.Pinned:
		return true, nil
	case p.previous != nil && k.at == p.previous.ID:
		return !touch.Touches(old.Result.Reads), nil
	}
	return old.Result.Same(tree)
}

// isAuthorError tells whether an error is a mistake in the repository, which
// no retry mends.
func isAuthorError(err error) bool {
	var re *render.Error
	var m mistake
	return errors.As(err, &re) || errors.As(err, &m)
}
