package gitstate

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
)

// renew clones into a new generation and swaps it in. known are the branches
// that must not have been rewritten.
func (m *Mirror) renew(ctx context.Context, known map[string]plumbing.Hash) (err error) {
	g, s, err := m.clone(ctx)
	if err != nil {
		return err
	}
	return m.swap(ctx, g, s, known)
}

// clone makes a new generation, complete, and not yet in use.
func (m *Mirror) clone(ctx context.Context) (*generation, *store, error) {
	g, err := createGeneration(m.options.Dir, m.options.URL, m.options.Branch)
	if err != nil {
		os.RemoveAll(g.dir)
		return nil, nil, spelled(m.options.Dir, fmt.Errorf("clone: %w", err))
	}
	s := newStore(openODB(g.dir))
	refs, err := m.remote.download(ctx, g, s)
	if err == nil {
		err = m.remote.advance(ctx, g, s, refs, true)
	}
	if err != nil {
		s.close()
		os.RemoveAll(g.dir)
		return nil, nil, err
	}
	return g, s, nil
}

// swap makes a new generation the present one, if each known branch is still
// in it.
func (m *Mirror) swap(ctx context.Context, g *generation, s *store, known map[string]plumbing.Hash) error {
	whole := true
	err := func() error {
		for name, old := range known {
			id, ok := g.refs[name]
			found := false
			if ok {
				var err error
				if found, err = s.isAncestor(ctx, old, id); err != nil {
					return err
				}
			}
			if found {
				continue
			}
			whole = false
			if !m.options.AllowRewrite {
				e := &RewrittenError{Branch: name, Old: old.String()}
				if ok {
					e.New = id.String()
				}
				return e
			}
		}
		return spelled(m.options.Dir, g.makeCurrent())
	}()
	if err != nil {
		s.close()
		os.RemoveAll(g.dir)
		return err
	}
	// What a rewritten branch had is still read from the old generation, until
	// the next swap.
	keep := !whole || m.present != nil && m.present.rewritten
	m.store.replace(s.odbs[0], keep)
	last := m.present
	m.use(g)
	if !keep {
		last = nil
	}
	m.sweep(g, last)
	return nil
}

// sweep removes the generations but these, any of which may be nil.
func (m *Mirror) sweep(but ...*generation) {
	for _, name := range generations(m.options.Dir) {
		dir := filepath.Join(m.options.Dir, name)
		if slices.ContainsFunc(but, func(g *generation) bool { return g != nil && g.dir == dir }) {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			m.log.Warn("could not remove an old copy", "dir", dir, "error", err)
		}
	}
	files, _ := filepath.Glob(filepath.Join(m.options.Dir, "tmp_*"))
	for _, f := range files {
		os.Remove(f)
	}
}

// compact merges packs, if there are many.
func (m *Mirror) compact() {
	useless, err := m.present.merge()
	if err != nil {
		m.log.Warn("could not merge packs; they stay as they are", "error", spelled(m.options.Dir, err))
	}
	if len(useless) > 0 {
		m.store.reindex(useless)
	}
}

// thin starts to clone anew in the background if the mirror is crowded, and packs of
// earlier processes can't be merged either.
func (m *Mirror) thin() {
	packs := m.present.packs()
	if packs <= m.options.MaxPacks {
		return
	}
	m.present.recall()
	m.compact()
	if packs = m.present.packs(); packs <= m.options.MaxPacks {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.renewing || m.closed {
		return
	}
	m.renewing = true
	m.log.Info("cloning anew, to tidy up", "packs", packs)
	m.running.Go(func() {
		err := m.tidy(m.done)
		m.mu.Lock()
		m.renewing = false
		m.mu.Unlock()
		if err != nil && m.done.Err() == nil {
			m.log.Warn("could not tidy up; the next fetch tries again", "error", err)
		}
	})
}

// tidy clones without holding anybody up, and only then waits for its turn to
// catch up and swap.
func (m *Mirror) tidy(ctx context.Context) error {
	g, s, err := m.clone(ctx)
	if err != nil {
		return err
	}
	drop := func(err error) error {
		s.close()
		os.RemoveAll(g.dir)
		return err
	}
	ctx, release, err := m.acquire(ctx)
	if err != nil {
		return drop(err)
	}
	defer release()
	if err := g.standing(); err != nil { // who cloned anew meanwhile has removed it
		return drop(err)
	}
	refs, err := m.remote.download(ctx, g, s)
	if err == nil {
		err = m.remote.advance(ctx, g, s, refs, m.options.AllowRewrite)
	}
	if err != nil {
		return drop(err)
	}
	return m.swap(ctx, g, s, m.present.refs)
}
