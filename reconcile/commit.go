package reconcile

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
)

// Commit is the files of a deployment repository as they were read.
type Commit struct {
	ID   string
	Tree desired.Tree
	// Snapshot is the Tree, if it is that of a commit; nil for a working tree.
	Snapshot   *gitstate.Snapshot
	Repository *desired.Repository

	mu      sync.Mutex
	history map[string]bool // guarded by mu; commits that are known to be in its history
}

// contains tells whether another commit is in this one's history.
func (c *Commit) contains(ctx context.Context, commits Commits, other string) (bool, error) {
	if c.knows(other) {
		return true, nil
	}
	ok, err := commits.IsAncestor(ctx, other, c.ID)
	if ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.history == nil {
			c.history = map[string]bool{}
		}
		c.history[other] = true
	}
	return ok, err
}

// knows tells whether another commit is known to be in this one's history.
func (c *Commit) knows(other string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.history[other]
}

// inherit takes over what is known of the history of the commit before.
func (c *Commit) inherit(ctx context.Context, commits Commits, previous *Commit) error {
	previous.mu.Lock()
	history := maps.Clone(previous.history)
	previous.mu.Unlock()
	if len(history) == 0 {
		return nil
	}
	ok, err := commits.IsAncestor(ctx, previous.ID, c.ID)
	if ok {
		c.history = history
	}
	return err
}

// ReadCommit reads the files of a commit; what has not changed since previous
// is taken over from it.
func ReadCommit(ctx context.Context, commits Commits, id string, previous *Commit) (*Commit, error) {
	snap, err := commits.Snapshot(ctx, id)
	if err != nil {
		return nil, err
	}
	c, err := ReadTree(snap, id, previous)
	if err != nil {
		return nil, fmt.Errorf("read commit %.12s: %w", id, err)
	}
	c.Snapshot = snap
	if previous != nil {
		if err := c.inherit(ctx, commits, previous); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// ReadTree reads files that need not be a commit's; id is the commit whose
// history they continue.
func ReadTree(tree desired.Tree, id string, previous *Commit) (*Commit, error) {
	var known *desired.Repository
	if previous != nil {
		known = previous.Repository
	}
	repo, err := desired.Read(tree, known)
	if err != nil {
		return nil, err
	}
	return &Commit{ID: id, Tree: tree, Repository: repo}, nil
}
