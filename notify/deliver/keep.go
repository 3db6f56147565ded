package deliver

import (
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

// readPositions returns what was kept, by branch. What can't be read is not the
// same as what is not there.
func (c *Courier) readPositions(ctx context.Context) (map[string]notify.Positions, error) {
	all := map[string]notify.Positions{}
	tip, ok := c.options.Mirror.Branch(gitstate.SinksBranch)
	if !ok {
		return all, nil
	}
	snap, err := c.options.Mirror.Snapshot(ctx, tip)
	if err != nil {
		return nil, err
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
		p, err := notify.DecodePositions(data)
		if err != nil {
			return fmt.Errorf("%s of branch %s: %w; put back what an earlier commit of the branch has, or delete the file: its sinks are then told once more what has happened there since they were new", name, gitstate.SinksBranch, err)
		}
		all[branch] = p
		return nil
	})
	return all, err
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
		all, err := c.readPositions(ctx)
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
		for branch, sinks := range k.files {
			p := notify.Positions{Sinks: map[string]notify.Position{}}
			for name, x := range all[branch].Sinks {
				if slices.ContainsFunc(c.options.Sinks, func(s Sink) bool { return s.Name == name }) {
					p.Sinks[name] = x
				}
			}
			maps.Copy(p.Sinks, sinks)
			change.Files[positionsFile(branch)] = p.Encode()
		}
		_, err = c.options.Mirror.Commit(ctx, change)
		if errors.Is(err, gitstate.ErrUnchanged) {
			err = nil
		}
		k.err = err
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
