package reconcile

import (
	"context"
	"sync"
)

// reader reads commits, and keeps the newest few: what is the same in two of
// them is read once.
type reader struct {
	commits Commits

	mu   sync.Mutex // guards kept, and is held while reading
	kept []*Commit  // newest last
}

const mostKept = 4

func (r *reader) read(ctx context.Context, id string) (*Commit, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.kept {
		if c.ID == id {
			return c, nil
		}
	}
	var previous *Commit
	if n := len(r.kept); n > 0 {
		previous = r.kept[n-1]
	}
	c, err := ReadCommit(ctx, r.commits, id, previous)
	if err != nil {
		return nil, err
	}
	r.kept = append(r.kept, c)
	if len(r.kept) > mostKept {
		r.kept = append([]*Commit(nil), r.kept[1:]...)
	}
	return c, nil
}
