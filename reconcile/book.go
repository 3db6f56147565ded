package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
)

// book is one ledger as it was read.
type book struct {
	tip     string
	records map[desired.ServiceName]ledger.Record
	// broken are the services whose record is there and can't be read: nothing
	// is recorded or decided of them. Of a ledger that is closed, that is so of
	// all.
	broken map[desired.ServiceName]bool
	closed bool
	err    error
	memory *memory // nil: nobody has asked for it
}

// record returns a service's record as it was pushed.
func (c *Clerk) record(k Key) ledger.Record {
	if b := c.books[k.Environment]; b != nil {
		if r, ok := b.records[k.Service]; ok {
			return r
		}
	}
	return ledger.Record{Environment: k.Environment, Service: k.Service}
}

// unreadable tells whether there is a record of a service that can't be read.
func (c *Clerk) unreadable(k Key) bool {
	b := c.books[k.Environment]
	return b != nil && (b.closed || b.broken[k.Service])
}

// catchUp reads the main branch and the ledgers where the mirror has something
// newer than what was judged on.
func (c *Clerk) catchUp(ctx context.Context) error {
	if !c.fetched {
		// A clerk before this one may have pushed more than the mirror has.
		if _, err := c.options.Mirror.Fetch(ctx); err != nil && !errors.Is(err, gitstate.ErrRewritten) {
			return err
		}
		c.fetched = true
	}
	tip, ok := c.options.Mirror.Tip()
	if !ok {
		return errors.New("the repository has not been fetched yet")
	}
	if c.commit == nil || c.commit.ID != tip {
		if _, ours := c.lineage.by(tip); !ours && c.commit != nil {
			c.press.saw(time.Now())
		}
		commit, err := c.reader.read(ctx, tip)
		if err != nil {
			return err
		}
		if err := c.advance(ctx, commit); err != nil {
			return err
		}
	}
	branches := c.options.Mirror.Branches()
	for name, at := range branches {
		env, ok := ledgerOf(name)
		if !ok {
			continue
		}
		// What can't be read for the disk's sake may be mended by now.
		if b := c.books[env]; b == nil || b.tip != at || b.err != nil {
			c.open(ctx, env, at)
		}
	}
	c.stock(ctx, branches[artifact.Branch])
	c.mu.Lock()
	c.caughtUp = true
	c.mu.Unlock()
	return nil
}

// open reads a ledger that somebody else, or a clerk of before, has written.
func (c *Clerk) open(ctx context.Context, env desired.EnvironmentName, tip string) {
	old := c.books[env]
	if old != nil && old.tip != tip && c.ours(env) {
		c.strangers(ctx, env, old.tip, tip)
	}
	b := c.readBook(ctx, env, tip)
	if b.err != nil && (old == nil || old.err == nil || old.err.Error() != b.err.Error()) {
		c.report(Event{Type: EventProblem, Environment: env, Message: fmt.Sprintf(
			"%v; nothing is recorded or decided of it before a commit on %s mends it", b.err, ledger.Branch(env))})
	}
	if old != nil {
		b.memory = old.memory
	}
	c.books[env] = b
	c.noteWhole(env, b)
	if old != nil && old.tip == tip && old.err != nil && b.err != nil && old.err.Error() == b.err.Error() {
		return // nothing is new
	}
	for svc, r := range b.records {
		c.touch(Key{env, svc})
		c.options.Known(r)
	}
	if old != nil {
		for svc := range old.records {
			c.touch(Key{env, svc})
		}
	}
}

// readBook reads a ledger. What can't be read is not the same as what is not
// there.
func (c *Clerk) readBook(ctx context.Context, env desired.EnvironmentName, tip string) *book {
	b := &book{tip: tip, broken: map[desired.ServiceName]bool{}}
	closed := func(err error) *book {
		b.closed, b.err = true, fmt.Errorf("%s at %.12s: %w", ledger.Branch(env), tip, err)
		return b
	}
	snap, err := c.options.Mirror.Snapshot(ctx, tip)
	if err != nil {
		return closed(err)
	}
	entries, err := snap.ReadDir(".")
	if err != nil {
		return closed(err)
	}
	if b.records, err = ledger.Read(snap); err == nil {
		return b
	}
	if b.records == nil {
		return closed(err)
	}
	b.err = fmt.Errorf("%s at %.12s: %w", ledger.Branch(env), tip, err)
	for _, e := range entries {
		svc := desired.ServiceName(e.Name())
		if _, ok := b.records[svc]; !ok && e.IsDir() {
			b.broken[svc] = true
		}
	}
	return b
}
