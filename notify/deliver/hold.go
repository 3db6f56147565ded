package deliver

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/notify"
)

// holdsKept bounds how many states of the holds are kept in memory.
const holdsKept = 64

// mark is where the main branch is: its tip, and which ends of the tip's holds
// have come. next is when the next one comes; zero: none does.
func (w *walks) mark(ctx context.Context, tip string, now time.Time) (mark string, next time.Time, err error) {
	c, err := w.mirror.Info(ctx, tip)
	if err != nil {
		return "", next, err
	}
	_, holds, err := w.holdsOf(ctx, tip)
	if err != nil {
		return "", next, err
	}
	var last time.Time
	for _, h := range holds {
		switch {
		case !h.Until.After(c.Committer.Time): // that was over, or there is no end
		case h.Until.After(now):
			if next.IsZero() || h.Until.Before(next) {
				next = h.Until
			}
		case h.Until.After(last):
			last = h.Until
		}
	}
	return notify.Mark(tip, last), next, nil
}

// holdsOf returns the holds of a commit, and the id of their folder.
func (w *walks) holdsOf(ctx context.Context, commit string) (string, map[desired.HoldName]*desired.Hold, error) {
	snap, err := w.mirror.Snapshot(ctx, commit)
	if err != nil {
		return "", nil, err
	}
	id, err := idOf(snap, "holds")
	if err != nil || id == "" {
		return id, nil, err
	}
	if holds, ok := w.cached[id]; ok {
		return id, holds, nil
	}
	repo, err := desired.Read(snap, w.holds)
	if err != nil {
		return "", nil, err
	}
	if w.cached == nil || len(w.cached) >= holdsKept {
		w.cached = map[string]map[desired.HoldName]*desired.Hold{}
	}
	w.holds, w.cached[id] = repo, repo.Holds
	return id, repo.Holds, nil
}

// step is a commit of the main branch.
type step struct {
	id, folder string // folder: of its holds
	info       gitstate.CommitInfo
}

// holdItems are the news of holds between two marks of the main branch, oldest
// first: by commits, and by the ends that came meanwhile. found tells whether the
// first mark is in the branch.
func (w *walks) holdItems(ctx context.Context, v view, until, after string) (items []notify.Item, found bool, err error) {
	last, end, err := notify.ParseMark(until)
	if err != nil {
		return nil, false, err
	}
	from, told, err := notify.ParseMark(after)
	if err != nil {
		return nil, false, err
	}
	var steps []step
	var failed error
	err = w.mirror.History(ctx, last, func(c gitstate.CommitInfo) bool {
		var id string
		if id, _, failed = w.holdsOf(ctx, c.ID); failed != nil {
			return false
		}
		found = c.ID == from
		// Of a commit that changes no holds, only the time counts.
		if n := len(steps); n > 0 && steps[n-1].folder == id {
			steps[n-1].info = gitstate.CommitInfo{Committer: gitstate.Signature{Time: steps[n-1].info.Committer.Time}}
		}
		steps = append(steps, step{c.ID, id, c})
		return !found
	})
	if err = errors.Join(failed, err); err != nil || !found && from != "" {
		return nil, found, err
	}
	slices.Reverse(steps)
	add := func(mark string, n []notify.Notification) {
		if n = slices.DeleteFunc(n, func(n notify.Notification) bool { return !v.wants(n) }); len(n) > 0 {
			items = append(items, notify.Item{Commit: mark, News: n})
		}
	}
	ended := told
	for i, s := range steps {
		at := notify.Reference{Branch: v.branch, Commit: s.id}
		_, holds, err := w.holdsOf(ctx, s.id)
		if err != nil {
			return nil, false, err
		}
		when := s.info.Committer.Time
		if i > 0 && s.folder != steps[i-1].folder {
			_, before, err := w.holdsOf(ctx, steps[i-1].id)
			if err != nil {
				return nil, false, err
			}
			by, _ := ledger.Authors(ledger.Person{Name: s.info.Author.Name, Email: s.info.Author.Email}, ledger.Person{Name: s.info.Committer.Name, Email: s.info.Committer.Email}, s.info.Message)
			add(s.id, notify.OfHolds(notify.Change{Before: before, After: holds, At: at, When: when, Ended: ended, By: by}))
		}
		if when.After(ended) {
			ended = when
		}
		upTo := end
		if i < len(steps)-1 {
			upTo = steps[i+1].info.Committer.Time
		}
		ends := notify.OfEnds(holds, ended, upTo, at)
		for len(ends) > 0 {
			t := ends[0].Time
			n := slices.IndexFunc(ends, func(n notify.Notification) bool { return !n.Time.Equal(t) })
			if n < 0 {
				n = len(ends)
			}
			add(notify.Mark(s.id, t), slices.Clone(ends[:n]))
			ends = ends[n:]
		}
		if upTo.After(ended) {
			ended = upTo
		}
	}
	return items, true, nil
}

// readHolds reads what a stream of the main branch needs.
func (w *walks) readHolds(ctx context.Context, v view, r notify.Reading) ([]notify.Item, string, error) {
	items, found, err := w.holdItems(ctx, v, r.Until, r.After)
	if err == nil && !found {
		err = errors.New("the branch was rewritten")
	}
	if err != nil {
		return nil, "", err
	}
	if len(items) > mostRead {
		items = items[:mostRead]
		return items, items[mostRead-1].Commit, nil
	}
	return items, r.Until, nil
}

// leftOfHolds counts what is to be told of the main branch after a position.
func (w *walks) leftOfHolds(ctx context.Context, v view, tip string, p notify.Position) (n int, found bool, err error) {
	n, found, err = w.between(ctx, v, tip, p.At)
	for _, at := range p.Behind { // there is one lane
		if err != nil || !found {
			break
		}
		var more int
		more, found, err = w.between(ctx, v, p.At, at)
		n += more
	}
	return n, found, err
}
