package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
)

// stock reads what is known of artifacts, if somebody else has added to it.
func (c *Clerk) stock(ctx context.Context, tip string) {
	if c.shelf != nil && c.shelf.At() == tip && c.shelfErr == nil || c.shelfErr != nil && c.untrue == tip && tip != "" {
		return
	}
	c.untrue = ""
	shelf, err := c.restock(ctx, tip)
	if err != nil && (c.shelfErr == nil || c.shelfErr.Error() != err.Error()) {
		text := err.Error()
		if shelf != nil {
			text += "; the rest of what is known goes on"
		}
		c.report(Event{Type: EventProblem, Message: text})
	}
	if c.shelfErr = nil; shelf == nil {
		c.shelfErr = err
		return
	}
	c.shelf = shelf
	for _, t := range c.tracked {
		c.stages[Key{t.Environment, t.Service}] = true
	}
	c.askedAgain(func(image desired.Image) bool { return len(shelf.Versions(image.Repository)) > 0 })
}

// restock reads what is known of artifacts, and holds it to what was known
// before: by this clerk, or, after a start, where a deployment began that rests
// on it. So neither who deletes the branch nor who writes it anew, or writes on
// it what is not true any more, has a version bound to something else. Nothing
// rests on such a branch, so the next clerk finds out, too.
func (c *Clerk) restock(ctx context.Context, tip string) (*artifact.Shelf, error) {
	if c.options.AllowRewrite {
		return ReadShelf(ctx, c.options.Mirror, tip)
	}
	known := c.shelf
	if known == nil {
		var err error
		if known, err = c.recall(ctx, tip); err != nil {
			return nil, err
		}
	}
	shelf, err := ReadShelf(ctx, c.options.Mirror, tip)
	if shelf == nil || known == nil {
		return shelf, err
	}
	if lost := known.Forgets(shelf); lost != nil {
		c.untrue = tip
		text := strings.ReplaceAll(lost.Error(), "\n", "; ")
		return nil, fmt.Errorf("%s at %s is not true to what was known: %s; nothing is published or tracked before a commit there restores it", artifact.Branch, short(tip), text)
	}
	return shelf.After(known), err
}

// recall finds what was known where the deployments that are there rest on it;
// nil: none does.
func (c *Clerk) recall(ctx context.Context, tip string) (*artifact.Shelf, error) {
	newest := ""
	for _, env := range slices.Sorted(maps.Keys(c.books)) {
		records := c.books[env].records
		for _, svc := range slices.Sorted(maps.Keys(records)) {
			from, commit, _ := strings.Cut(records[svc].Deployment.From, "@")
			if from != artifact.Branch || commit == newest {
				continue
			}
			there := tip != ""
			if there {
				var err error
				if there, err = c.options.Mirror.IsAncestor(ctx, commit, tip); err != nil && !errors.Is(err, gitstate.ErrNoCommit) {
					return nil, fmt.Errorf("read %s: %w", artifact.Branch, err)
				}
			}
			if !there {
				return nil, fmt.Errorf("the remote has %s, and %s in %s rests on %s of it, which is not there: what versions are bound to would be forgotten; nothing is published or tracked; "+
					"restore it with `git push origin %s:refs/heads/%s` from a clone that has it, or with a later commit of it; or let it begin anew with repository.allowRewrite",
					stockAt(tip), svc, env, short(commit), short(commit), artifact.Branch)
			}
			if newest != "" {
				older, err := c.options.Mirror.IsAncestor(ctx, commit, newest)
				if err != nil {
					return nil, fmt.Errorf("read %s: %w", artifact.Branch, err)
				}
				if older {
					continue
				}
			}
			newest = commit
		}
	}
	if newest == "" {
		return nil, nil
	}
	shelf, err := ReadShelf(ctx, c.options.Mirror, newest)
	if shelf != nil {
		return shelf, nil // what can't be read there is told of the tip, or was mended since
	}
	return nil, err
}

func stockAt(tip string) string {
	if tip == "" {
		return "no " + artifact.Branch
	}
	return artifact.Branch + " at " + short(tip)
}

// ReadShelf reads what is known of artifacts; "" is that there is no branch. A
// nil shelf could not be read at all.
func ReadShelf(ctx context.Context, commits Commits, tip string) (*artifact.Shelf, error) {
	if tip == "" {
		return &artifact.Shelf{}, nil
	}
	snap, err := commits.Snapshot(ctx, tip)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", artifact.Branch, err)
	}
	return artifact.ReadShelf(tip, snap)
}
