package history

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile"
)

// Present is the view that goes along with the tips: what has not changed from
// one to the next is not read again. Any number of goroutines may look; one
// looks at a time.
type Present struct {
	archive  Archive
	main     string
	branches func() map[string]string

	mu   sync.Mutex // guards view
	view *View

	names atomic.Pointer[names] // nil: nobody has asked for one
}

// names are the environments that there are while the branches are somewhere.
type names struct {
	branches     map[string]string
	environments map[desired.EnvironmentName]bool
}

// NewPresent returns the present of a repository whose main branch has the name;
// branches tells where the branches are; nobody changes the map that it returns.
func NewPresent(archive Archive, main string, branches func() map[string]string) *Present {
	return &Present{archive: archive, main: main, branches: branches}
}

// Branches tells where the branches are. The map is everybody's.
func (p *Present) Branches() map[string]string { return p.branches() }

// KnowsEnvironment makes sure that main or a ledger has an environment. It waits for
// nobody who looks, unless a branch has moved.
func (p *Present) KnowsEnvironment(ctx context.Context, now time.Time, env desired.EnvironmentName) error {
	branches := p.branches()
	if n := p.names.Load(); n != nil && n.environments[env] && maps.Equal(n.branches, branches) {
		return nil
	}
	return p.Look(ctx, now, func(v *View) error {
		all, err := v.Environments(ctx)
		if err != nil {
			return err
		}
		n := &names{branches, make(map[desired.EnvironmentName]bool, len(all))}
		for _, name := range all {
			n.environments[name] = true
		}
		// The view may be of a later moment than branches, if one has moved meanwhile.
		if tips := Tips(branches); branches[p.main] == v.main && maps.Equal(tips, v.Tips) {
			p.names.Store(n)
		}
		return v.KnowsEnvironment(ctx, env)
	})
}

// Look shows the present, at a time, to f.
func (p *Present) Look(ctx context.Context, now time.Time, f func(*View) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	branches := p.branches()
	tip := branches[p.main]
	if tip == "" {
		return errors.New("the repository has not been fetched yet")
	}
	tips := Tips(branches)
	artifacts := branches[artifact.Branch]
	if p.view == nil || p.view.main != tip || p.view.Artifacts != artifacts || !maps.Equal(p.view.Tips, tips) {
		next, err := p.advance(ctx, tip, View{Archive: p.archive, Tips: tips, Artifacts: artifacts})
		if err != nil {
			return err
		}
		p.view = next
	}
	p.view.Now = now
	return f(p.view)
}

// Aside returns a view of the present for one caller alone, who may take long
// over it: nobody waits for her.
func (p *Present) Aside(ctx context.Context, now time.Time) (*View, error) {
	var aside *View
	err := p.Look(ctx, now, func(v *View) error {
		aside = NewView(View{Archive: v.Archive, Now: now, Tips: v.Tips})
		aside.main, aside.commit = v.main, v.commit
		return nil
	})
	return aside, err
}

// advance makes the next view, with what is the same in it as in the last one.
func (p *Present) advance(ctx context.Context, main string, v View) (*View, error) {
	next := NewView(v)
	next.main = main
	last := p.view
	if last == nil {
		c, err := reconcile.ReadCommit(ctx, p.archive, main, nil)
		next.commit = c
		return next, err
	}
	if next.commit = last.commit; last.Artifacts == v.Artifacts {
		next.shelf = last.shelf
	}
	if last.main != main {
		c, err := reconcile.ReadCommit(ctx, p.archive, main, last.commit)
		if err != nil {
			return nil, err
		}
		next.commit = c
	}
	next.rules, next.ages, next.zones, next.read, next.suspensions = last.rules, last.ages, last.zones, last.read, last.suspensions
	if last.main == main {
		for env, all := range last.stand {
			if v.Tips[env] == last.Tips[env] {
				next.stand[env] = all
			}
		}
	}
	return next, nil
}
