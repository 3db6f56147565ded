package deliver

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/notify"
)

// walks reads news from branches.
type walks struct {
	mirror *gitstate.Mirror
	holds  *desired.Repository                           // the last that was read for its holds
	cached map[string]map[desired.HoldName]*desired.Hold // by the id of their folder
}

// errStop ends a walk.
var errStop = errors.New("stop")

// back calls visit with the commits of a branch from tip on, newest first, up to
// and without after. It tells whether it has come to after, which "" is if the
// branch came to its first commit.
func (w *walks) back(ctx context.Context, tip, after string, visit func(gitstate.CommitInfo) error) (found bool, err error) {
	if tip == after {
		return true, nil
	}
	var failed error
	err = w.mirror.History(ctx, tip, func(c gitstate.CommitInfo) bool {
		if c.ID == after {
			found = true
			return false
		}
		failed = visit(c)
		return failed == nil
	})
	if errors.Is(failed, errStop) {
		return true, nil
	}
	return found || after == "", errors.Join(failed, err)
}

// news are those of one entry of a ledger.
func (w *walks) news(ctx context.Context, branch string, c gitstate.CommitInfo, newest *desired.Repository) ([]notify.Notification, error) {
	e, err := ledger.ParseMessage(c.Message, c.Committer.Time)
	if err != nil {
		return nil, nil // whatever it is, it tells nothing of a deployment
	}
	if e.Event == ledger.EventCompleted && e.Cause == "" {
		e.Cause = w.cause(ctx, c.ID, e)
	}
	return notify.OfEntry(e, notify.Reference{Branch: branch, Commit: c.ID}, newest), nil
}

// cause is why there is the deployment of an entry, as the record beside it says;
// "": it does not.
func (w *walks) cause(ctx context.Context, commit string, e ledger.Entry) ledger.Cause {
	snap, err := w.mirror.Snapshot(ctx, commit)
	if err != nil {
		return ""
	}
	name := ledger.RecordFile(e.Service)
	data, err := snap.ReadFile(name)
	if err != nil {
		return ""
	}
	r, err := ledger.DecodeRecord(name, data)
	if err != nil || r.Deployment.ID != e.Deployment {
		return ""
	}
	return r.Deployment.Cause
}

// before is the newest commit of a branch that is older than a time; "": none.
func (w *walks) before(ctx context.Context, tip string, at time.Time) (string, error) {
	tip, _, err := notify.ParseMark(tip)
	if err != nil {
		return "", err
	}
	older := ""
	_, err = w.back(ctx, tip, "", func(c gitstate.CommitInfo) error {
		if c.Committer.Time.Before(at) {
			older = c.ID
			return errStop
		}
		return nil
	})
	if errors.Is(err, gitstate.ErrShallow) {
		err = nil
	}
	return older, err
}

// view is what one sink wants of a branch.
type view struct {
	branch string
	wants  func(notify.Notification) bool
	newest *desired.Repository
}

func (v view) ledger() bool { return strings.HasPrefix(v.branch, gitstate.LedgerPrefix) }

// wanted are the news of a commit that are wanted of it, as an item.
func (w *walks) wanted(ctx context.Context, v view, c gitstate.CommitInfo) (notify.Item, error) {
	all, err := w.news(ctx, v.branch, c, v.newest)
	if err != nil || len(all) == 0 {
		return notify.Item{}, err
	}
	i := notify.Item{Commit: c.ID, Lane: all[0].Lane()}
	i.News = slices.DeleteFunc(all, func(n notify.Notification) bool { return !v.wants(n) })
	return i, nil
}

// read reads what a stream needs.
func (w *walks) read(ctx context.Context, v view, r notify.Reading) (items []notify.Item, upTo string, err error) {
	if !v.ledger() {
		return w.readHolds(ctx, v, r)
	}
	upTo = r.Until
	found, err := w.back(ctx, r.Until, r.After, func(c gitstate.CommitInfo) error {
		i, err := w.wanted(ctx, v, c)
		if err != nil || len(i.News) == 0 || !r.Of(i.Lane) {
			return err
		}
		if len(items) == mostRead { // the oldest count: they come last
			items = append(items[:0], items[1:]...)
			upTo = ""
		}
		items = append(items, i)
		return nil
	})
	if err == nil && !found {
		err = errors.New("the branch was rewritten")
	}
	if err != nil {
		return nil, "", err
	}
	slices.Reverse(items)
	if upTo == "" {
		upTo = items[len(items)-1].Commit
	}
	return items, upTo, nil
}

// between counts the news between two places of a branch.
func (w *walks) between(ctx context.Context, v view, tip, after string) (n int, found bool, err error) {
	if !v.ledger() {
		items, found, err := w.holdItems(ctx, v, tip, after)
		for _, i := range items {
			n += len(i.News)
		}
		return n, found, err
	}
	found, err = w.back(ctx, tip, after, func(c gitstate.CommitInfo) error {
		i, err := w.wanted(ctx, v, c)
		n += len(i.News)
		return err
	})
	return n, found, err
}

// left counts the news that are to be told after a position. It tells whether
// the position is in the branch.
func (w *walks) left(ctx context.Context, v view, tip string, p notify.Position) (n int, found bool, err error) {
	if !v.ledger() {
		return w.leftOfHolds(ctx, v, tip, p)
	}
	passed, behind := false, maps.Clone(p.Behind)
	found, err = w.back(ctx, tip, "", func(c gitstate.CommitInfo) error {
		passed = passed || c.ID == p.At
		maps.DeleteFunc(behind, func(_, at string) bool { return at == c.ID })
		if passed && len(behind) == 0 {
			return errStop
		}
		i, err := w.wanted(ctx, v, c)
		if !passed || slices.ContainsFunc(slices.Collect(maps.Keys(behind)), func(of string) bool { return notify.Within(i.Lane, of) }) {
			n += len(i.News)
		}
		return err
	})
	maps.DeleteFunc(behind, func(_, at string) bool { return at == "" })
	return n, found && (passed || p.At == "") && len(behind) == 0, err
}

// idOf is the id of a file or a folder; "": it is not there.
func idOf(s *gitstate.Snapshot, name string) (string, error) {
	id, err := s.ID(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return id, err
}
