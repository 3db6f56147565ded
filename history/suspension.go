package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
)

// mostSearched bounds how many commits are looked through for the one that
// suspended something.
const mostSearched = 5000

// suspended says why nothing of a service is written in an environment, and as
// far as the history tells since when that is, and by whom; "": it is written.
func (view *View) suspended(ctx context.Context, repo *desired.Repository, env desired.EnvironmentName, svc desired.ServiceName) (string, error) {
	why := repo.Suspended(env, svc)
	if why == "" {
		return "", nil
	}
	file := ""
	var suspension func(snap *gitstate.Snapshot) (*desired.Suspension, error)
	if e := repo.Environments[env]; e != nil && e.Suspend != nil {
		file = e.File
		suspension = func(snap *gitstate.Snapshot) (*desired.Suspension, error) {
			e, _, err := desired.ReadEnvironment(snap, env)
			if e == nil {
				return nil, err
			}
			return e.Suspend, err
		}
	} else {
		file = repo.Services[svc].File
		suspension = func(snap *gitstate.Snapshot) (*desired.Suspension, error) {
			s, _, err := desired.ReadService(snap, svc)
			if s == nil {
				return nil, err
			}
			return s.Suspend, err
		}
	}
	blob, err := view.commit.Snapshot.ID(file)
	if err != nil {
		return "", fmt.Errorf("find out who suspended %s: %w", file, err)
	}
	if text, ok := view.suspensions[blob]; ok {
		return text, nil
	}
	began, err := view.suspendedBy(ctx, file, suspension)
	if err != nil {
		return "", fmt.Errorf("find out who suspended %s: %w", file, err)
	}
	text := why
	if began.ID != "" {
		text += fmt.Sprintf(" (since %s, by %s <%s> with commit %.12s)", rfc3339(began.Committer.Time), began.Author.Name, began.Author.Email, began.ID)
	}
	view.suspensions[blob] = text
	return text, nil
}

// suspendedBy returns the commit of main since which a file suspends something
// for the reason that it has now; none if it is too far back, or not at hand.
func (view *View) suspendedBy(ctx context.Context, file string, suspension func(*gitstate.Snapshot) (*desired.Suspension, error)) (began gitstate.CommitInfo, err error) {
	var now *desired.Suspension
	last, count := "", 0
	found := false
	var failure error
	err = view.Archive.History(ctx, view.main, func(c gitstate.CommitInfo) bool {
		if count++; count > mostSearched {
			return false
		}
		same, id, err := func() (bool, string, error) {
			snap, err := view.Archive.Snapshot(ctx, c.ID)
			if err != nil {
				return false, "", err
			}
			id, err := snap.ID(file)
			if err != nil || id == last {
				return err == nil, id, err
			}
			s, err := suspension(snap)
			if now == nil {
				now = s
			}
			return s != nil && now != nil && *s == *now, id, err
		}()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failure = err
			return false
		}
		if found = !same; found {
			return false
		}
		last, began = id, c
		return true
	})
	if err = errors.Join(err, failure); err != nil && !errors.Is(err, gitstate.ErrShallow) && !errors.Is(err, gitstate.ErrNoCommit) {
		return gitstate.CommitInfo{}, err
	}
	if !found && (count > mostSearched || err != nil) {
		return gitstate.CommitInfo{}, nil
	}
	return began, nil
}
