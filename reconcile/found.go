package reconcile

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
)

// Found records what looks at registries have found. It returns when that is
// pushed; the error has a *Rejection for each that was not taken. What no rule watches any
// more, and what none could choose, is left out without a word.
func (c *Clerk) Found(ctx context.Context, all []artifact.Sighting) error {
	_, err := c.ask(ctx, &request{ctx: ctx, found: all})
	return err
}

// serveFound takes up what was found.
func (c *Clerk) serveFound(b *batch, r *request) {
	a := answer{request: r}
	if c.shelfErr != nil {
		a.err = reject(NotReady, "what is known of artifacts can't be used; somebody has to mend %s: %v", artifact.Branch, c.shelfErr)
	} else {
		for _, x := range r.found {
			if err := c.takeFound(b, x); err != nil {
				a.err = errors.Join(a.err, reject(Invalid, "%s:%s is not recorded: %v", x.Repository, x.Version, err))
			}
		}
	}
	b.answers = append(b.answers, a)
}

func (c *Clerk) takeFound(b *batch, x artifact.Sighting) error {
	signature := x.Origin == artifact.FromSignature
	watching := slices.DeleteFunc(c.rulesFor(x.Repository), func(t desired.Tracked) bool { return !t.Watch && (!signature || len(t.Keys) == 0) })
	shelf := b.shelf(c)
	if _, known := shelf.Lookup(x.Repository, x.Version); len(watching) == 0 || !known && choosable(watching, x.Version, x.Branch) != nil {
		return nil
	}
	if x.By, x.As, x.Time = "", nil, b.now; !signature {
		x.Origin = artifact.FromRegistry
	}
	t, err := shelf.Take(x)
	if err == nil {
		b.find(t)
	}
	return err
}

// tellTracked lets who watches registries know what is tracked where we keep the
// ledger, and what is known, if that is news.
func (c *Clerk) tellTracked() {
	if c.shelf == nil {
		return
	}
	text := c.commit.ID + " " + c.shelf.At()
	for _, env := range slices.Sorted(maps.Keys(c.held)) {
		text += " " + string(env)
	}
	if text == c.toldTracked {
		return
	}
	c.toldTracked = text
	ours := slices.DeleteFunc(slices.Clone(c.tracked), func(t desired.Tracked) bool { return !c.ours(t.Environment) })
	c.options.Tracked(ours, c.shelf)
}
