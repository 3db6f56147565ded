package deliver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/notify"
)

// keeping is a push of positions: of the streams that it has, by the branch
// whose news they are about.
type keeping struct {
	files map[string]map[string]notify.Position // by branch and sink
	err   error
}

// encode is a position as one tells whether it has changed.
func encode(p notify.Position) []byte {
	return notify.Positions{Sinks: map[string]notify.Position{"": p}}.Encode()
}

func positionsFile(branch string) string { return branch + ".json" }

// positions are what was kept, by branch.
type positions struct {
	all    map[string]notify.Positions
	broken map[string]error // files that can't be read
}

// unread says why the position of a sink on a branch can't be read; nil: it can,
// or there is none.
func (p positions) unread(sink, branch string) error {
	err := p.broken[branch]
	if err == nil {
		err = p.all[branch].Unread[sink].Err
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s of branch %s: %w; put back what an earlier commit of the branch has, or take it out of there: the sink is then told once more what has happened since it was new",
		positionsFile(branch), gitstate.SinksBranch, err)
}

// since is from when on a sink is told; ok is false if it was never told
// anything. An error says that this can't be known.
func (p positions) since(sink string) (since time.Time, ok bool, err error) {
	for _, branch := range slices.Sorted(maps.Keys(p.all)) {
		if x, is := p.all[branch].Sinks[sink]; is && (!ok || x.Since.Before(since)) {
			since, ok = x.Since, true
		}
		err = cmp.Or(err, p.unread(sink, branch))
	}
	if len(p.all) == 0 { // else it would be there, for each is on all branches
		for _, branch := range slices.Sorted(maps.Keys(p.broken)) {
			err = cmp.Or(err, p.unread(sink, branch))
		}
	}
	if ok {
		err = nil
	}
	return since, ok, err
}

// readPositions returns what was kept. What can't be read is not the same as what
// is not there, and it is in nobody else's way.
func (c *Courier) readPositions(ctx context.Context) (positions, error) {
	p := positions{map[string]notify.Positions{}, map[string]error{}}
	tip, ok := c.options.Mirror.Branch(gitstate.SinksBranch)
	if !ok {
		return p, nil
	}
	snap, err := c.options.Mirror.Snapshot(ctx, tip)
	if err != nil {
		return p, err
	}
	err = fs.WalkDir(snap, ".", func(name string, d fs.DirEntry, err error) error {
		branch, ok := strings.CutSuffix(name, ".json")
		if err != nil || d.IsDir() || !ok {
			return err
		}
		data, err := snap.ReadFile(name)
		if err != nil {
			return err
		}
		x, err := notify.DecodePositions(data)
		if err != nil {
			p.broken[branch] = err
			return nil
		}
		p.all[branch] = x
		return nil
	})
	return p, err
}

// toKeep is what is not kept yet.
func (c *Courier) toKeep() keeping {
	k := keeping{files: map[string]map[string]notify.Position{}}
	for _, s := range c.streams {
		if p := s.Position(); string(encode(p)) != s.kept {
			if k.files[s.branch] == nil {
				k.files[s.branch] = map[string]notify.Position{}
			}
			k.files[s.branch][s.key.sink] = p
		}
	}
	return k
}

// keep pushes the positions if it is time to, and returns when it will be.
func (c *Courier) keep(ctx context.Context, now time.Time) time.Time {
	if c.keeping {
		return time.Time{}
	}
	k := c.toKeep()
	if len(k.files) == 0 {
		return time.Time{}
	}
	due := c.keepAt
	if c.atRest() {
		due = earlier(due, c.keepAt.Add(min(0, keepAtRest-c.options.KeepEvery)))
	}
	if due.After(now) {
		return due
	}
	c.keeping, c.keepAt = true, now.Add(c.options.KeepEvery)
	c.jobs.Go(func() {
		c.push(ctx, &k)
		c.kept <- k
	})
	return time.Time{}
}

// atRest tells whether nothing is to be told for now.
func (c *Courier) atRest() bool {
	for _, s := range c.streams {
		if !s.Idle() {
			return false
		}
	}
	return true
}

// push adds a commit to the branch of positions. Files of others stay.
func (c *Courier) push(ctx context.Context, k *keeping) {
	const tries = 4
	for range tries {
		tip, _ := c.options.Mirror.Branch(gitstate.SinksBranch)
		known, err := c.readPositions(ctx)
		if err != nil {
			k.err = err
			return
		}
		change := gitstate.Change{
			Branch: gitstate.SinksBranch, Expected: tip, Files: map[string][]byte{},
			Message: "Keep how far the sinks were told",
			Author:  c.options.Identity, Committer: c.options.Identity, Sign: c.options.Sign,
			Guard: func() error { return c.guard(k) },
		}
		change.Author.Time = c.options.Clock()
		change.Committer.Time = change.Author.Time
		var shut error
		for branch, sinks := range k.files {
			if err := known.broken[branch]; err != nil { // what it says of others would be lost
				shut = errors.Join(shut, fmt.Errorf("%s: %w", positionsFile(branch), err))
				continue
			}
			was := known.all[branch]
			p := notify.Positions{Sinks: map[string]notify.Position{}, Unread: was.Unread}
			for name, x := range was.Sinks {
				if slices.ContainsFunc(c.options.Sinks, func(s Sink) bool { return s.Name == name }) {
					p.Sinks[name] = x
				}
			}
			maps.Copy(p.Sinks, sinks)
			change.Files[positionsFile(branch)] = p.Encode()
		}
		if len(change.Files) == 0 {
			k.err = shut
			return
		}
		_, err = c.options.Mirror.Commit(ctx, change)
		if errors.Is(err, gitstate.ErrUnchanged) {
			err = nil
		}
		k.err = errors.Join(err, shut)
		if err == nil || !errors.Is(err, gitstate.ErrMoved) && !errors.Is(err, gitstate.ErrUnknown) {
			return
		}
		if _, err := c.options.Mirror.Fetch(ctx); err != nil && !errors.Is(err, gitstate.ErrRewritten) {
			return
		}
	}
}

// errNotOurs ends a push of positions of which another replica takes care now.
var errNotOurs = errors.New("an environment has another owner")

// guard is asked right before a push.
func (c *Courier) guard(k *keeping) error {
	for branch := range k.files {
		if env, ok := strings.CutPrefix(branch, gitstate.LedgerPrefix); ok && !c.options.Has(desired.EnvironmentName(env)) {
			return errNotOurs
		}
	}
	return nil
}

// wasKept takes in what came of a push.
func (c *Courier) wasKept(k keeping) {
	c.keeping = false
	switch {
	case errors.Is(k.err, errNotOurs):
	case k.err != nil && !errors.Is(k.err, context.Canceled):
		c.trouble(fmt.Sprintf("how far the sinks were told can't be kept; news go on, and a restart sends them again. Let the daemon's account push to %s", gitstate.SinksBranch), k.err)
	case k.err == nil:
		c.failing = ""
		for branch, sinks := range k.files {
			for name, p := range sinks {
				if s := c.streams[key{name, branch}]; s != nil {
					s.kept = string(encode(p))
				}
			}
		}
	}
}
