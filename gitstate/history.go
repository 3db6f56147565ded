package gitstate

import (
	"container/heap"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// lookup finds a commit that somebody named by its full id: that it is not
// there is an answer.
func (s *store) lookup(id string) (*commit, error) {
	h, ok := parseID(id)
	if !ok {
		return nil, fmt.Errorf("%q is not a full commit id (40 hexadecimal digits): %w", id, ErrNoCommit)
	}
	c, err := s.commit(h)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w: %w", id, ErrNoCommit, err)
	}
	return c, nil
}

// isAncestor tells whether one can walk from descendant to ancestor; a commit
// is its own ancestor. The newest commits are looked at first.
func (s *store) isAncestor(ctx context.Context, ancestor, descendant plumbing.Hash) (bool, error) {
	start, err := s.commit(descendant)
	if err != nil {
		return false, s.harmed(err)
	}
	queue := &byTime{start}
	seen := map[plumbing.Hash]bool{descendant: true}
	cutOff := false
	for queue.Len() > 0 {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		c := heap.Pop(queue).(*commit)
		if c.id == ancestor {
			return true, nil
		}
		parents, cut := s.parents(c)
		cutOff = cutOff || cut
		for _, id := range parents {
			if seen[id] {
				continue
			}
			if id == ancestor {
				return true, nil
			}
			seen[id] = true
			p, err := s.commit(id)
			if err != nil {
				return false, s.harmed(err)
			}
			heap.Push(queue, p)
		}
	}
	if cutOff {
		return false, fmt.Errorf("look for %s before %s: %w: its history is cut off; run git fetch --unshallow", ancestor, descendant, ErrShallow)
	}
	return false, nil
}

type byTime []*commit

func (q byTime) Len() int           { return len(q) }
func (q byTime) Less(i, j int) bool { return q[i].when > q[j].when }
func (q byTime) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *byTime) Push(x any)        { *q = append(*q, x.(*commit)) }
func (q *byTime) Pop() any {
	old := *q
	c := old[len(old)-1]
	*q = old[:len(old)-1]
	return c
}

// history walks the first parents.
func (s *store) history(ctx context.Context, from plumbing.Hash, yield func(CommitInfo) bool) error {
	for id := from; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		c, err := s.commit(id)
		if err != nil {
			return s.harmed(err)
		}
		info, err := s.info(id)
		if err != nil {
			return s.harmed(err)
		}
		if !yield(info) {
			return nil
		}
		parents, cut := s.parents(c)
		if cut {
			return fmt.Errorf("history of %s: %w: it ends at %s; run git fetch --unshallow", from, ErrShallow, id)
		}
		if len(parents) == 0 {
			return nil
		}
		id = parents[0]
	}
}

// resolve turns a revision into a commit: a name that ref knows, a full or an
// abbreviated id, each with any number of ~N and ^N behind it.
func (s *store) resolve(ctx context.Context, rev string, ref func(name string) (plumbing.Hash, bool, error)) (plumbing.Hash, error) {
	base, steps := rev, ""
	if i := strings.IndexAny(rev, "~^"); i >= 0 {
		base, steps = rev[:i], rev[i:]
	}
	id, err := s.resolveBase(base, ref)
	if err != nil {
		return id, err
	}
	for steps != "" {
		op := steps[0]
		n := len(steps) - len(strings.TrimLeft(steps[1:], "0123456789"))
		count := 1
		if n > 1 {
			if count, err = strconv.Atoi(steps[1:n]); err != nil {
				return id, fmt.Errorf("revision %q: %w", rev, err)
			}
		}
		if op != '~' && op != '^' {
			return id, fmt.Errorf("revision %q: only ~N and ^N may follow a name", rev)
		}
		steps = steps[n:]
		which, times := 1, count // ~N: the first parent, N times
		if op == '^' {           // ^N: the Nth parent
			which, times = count, min(count, 1)
		}
		for range times {
			if err := ctx.Err(); err != nil {
				return id, err
			}
			c, err := s.commit(id)
			if err != nil {
				return id, s.harmed(err)
			}
			parents, cut := s.parents(c)
			if cut {
				return id, fmt.Errorf("revision %q: %w: run git fetch --unshallow", rev, ErrShallow)
			}
			if len(parents) < which {
				return id, fmt.Errorf("revision %q: %w: %s has %d parents", rev, ErrNoCommit, id, len(parents))
			}
			id = parents[which-1]
		}
	}
	return id, nil
}

func (s *store) resolveBase(base string, ref func(string) (plumbing.Hash, bool, error)) (plumbing.Hash, error) {
	id, ok, err := ref(base)
	if err != nil {
		return id, fmt.Errorf("revision %q: %w", base, err)
	}
	if !ok && len(base) == 40 && isHex(base) {
		id, ok = parseID(base)
	}
	if ok {
		peeled, err := s.peel(id)
		if err != nil {
			return id, fmt.Errorf("revision %q: %w: %w", base, ErrNoCommit, err)
		}
		return peeled, nil
	}
	if len(base) >= 4 && len(base) < 40 && isHex(base) {
		ids, err := s.commitsWithPrefix(base)
		switch {
		case err != nil:
			return id, fmt.Errorf("revision %q: %w", base, err)
		case len(ids) == 1:
			return ids[0], nil
		case len(ids) > 1:
			return id, fmt.Errorf("revision %q is ambiguous: %s and %s begin so: %w", base, ids[0], ids[1], ErrNoCommit)
		}
	}
	return id, fmt.Errorf("revision %q: %w: there is no branch, tag or commit of that name", base, ErrNoCommit)
}

func (s *store) ancestry(ctx context.Context, ancestor, descendant string) (bool, error) {
	a, err := s.lookup(ancestor)
	if err != nil {
		return false, err
	}
	d, err := s.lookup(descendant)
	if err != nil {
		return false, err
	}
	return s.isAncestor(ctx, a.id, d.id)
}

func (s *store) describe(ctx context.Context, id string) (CommitInfo, error) {
	if err := ctx.Err(); err != nil {
		return CommitInfo{}, err
	}
	c, err := s.lookup(id)
	if err != nil {
		return CommitInfo{}, err
	}
	info, err := s.info(c.id)
	return info, s.harmed(err)
}

func (s *store) walk(ctx context.Context, from string, yield func(CommitInfo) bool) error {
	c, err := s.lookup(from)
	if err != nil {
		return err
	}
	return s.history(ctx, c.id, yield)
}
