package reconcile

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/pinion-cd/pinion/ledger"
)

// identifyAll has those sightings identified that are new. Nearly all of a large
// estate is what it was at the commit before, so only those are looked at that may
// not be.
func (c *Clerk) identifyAll(ctx context.Context) {
	type task struct {
		key    Key
		asked  sighted
		seen   Sighting
		record ledger.Record
		before func(commit string) []string
		// repinned is the newest commit up to the sighting's that changed its pins;
		// at, the sighting's, if all of them are known.
		repinned, at string
	}
	var tasks []task
	for k := range c.unsure {
		d := c.cards[k]
		if d != nil && time.Now().Before(d.retry) {
			continue
		}
		delete(c.unsure, k)
		if d == nil {
			continue
		}
		if d.retry = (time.Time{}); d.sighting == nil || d.asking { // what is found out will be looked at
			continue
		}
		asked := c.sighted(*d.sighting, d.asked)
		if asked == d.asked && c.asBefore(k, d) {
			continue
		}
		d.asked, d.asking = asked, true
		r, at := c.record(k), d.sighting.Tip
		repinned := c.repinned(k, at)
		c.mu.Lock()
		from, did := c.recordedUpTo(k), line.repins
		if d.tip != "" {
			from, did = d.tip, line.changes
		}
		if !c.journal.knows(at) {
			at, c.early[k] = "", true
		}
		c.mu.Unlock()
		tasks = append(tasks, task{k, asked, *d.sighting, r, func(commit string) []string { return c.changes(k, from, commit, did) }, repinned, at})
	}
	if len(tasks) == 0 {
		return
	}
	slices.SortFunc(tasks, func(a, b task) int { return a.key.Compare(b.key) })
	who := identifier{commits: c.options.Mirror, info: c.options.Mirror.Info, lineage: c.lineage, reader: c.reader, daemon: c.options.Identity}
	c.jobs.Go(func() {
		var wait sync.WaitGroup
		slots := make(chan struct{}, mostIdentified)
		for _, t := range tasks {
			slots <- struct{}{}
			wait.Go(func() {
				defer func() { <-slots }()
				id, err := who.identify(ctx, t.seen, t.record, t.before, t.repinned)
				c.mu.Lock()
				c.found = append(c.found, identified{t.key, t.asked, t.record.Deployment.ID, t.at, id, err})
				c.mu.Unlock()
			})
		}
		wait.Wait()
		c.wake()
	})
}

// asBefore tells whether what was identified is so at the sighting's commit, too,
// as far as both are known: a version may have been pinned and taken back since.
func (c *Clerk) asBefore(k Key, d *card) bool {
	at := d.sighting.Tip
	if d.identity == nil || at == d.at {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.journal.knows(at) {
		c.early[k] = true
		return true
	}
	if !c.journal.untouched(k, d.at, at) {
		return false
	}
	d.at = at
	return true
}

// settle notes how far the record tells what main has asked for.
func (c *Clerk) settle(k Key, d *card) {
	if d.identity != nil && d.identity.id == c.record(k).Deployment.ID && d.at != "" {
		d.tip = d.at
	}
}

// changes returns the commits after all that the record tells, and before another
// one, that changed a deployment. As long as nothing of it was identified in this
// process those are the ones that changed its pins.
func (c *Clerk) changes(k Key, from, before string, did func(line, Key) bool) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.journal.between(k, from, before, did)
}

// repinned returns the newest commit up to another that changed the pins of a
// deployment and that its record does not tell of, as far as that is known; "":
// there is none.
func (c *Clerk) repinned(k Key, upTo string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.journal.repinned(k, c.recordedUpTo(k), upTo)
}

// sighted is what a sighting's identity depends on. While it is of another commit
// than is judged on, the folder counts as it was before: what has become of it is
// seen when both have come to the same commit, and most commits change nothing of
// most services.
func (c *Clerk) sighted(s Sighting, before sighted) sighted {
	x := sighted{target: s.Target}
	if s.Problem != "" {
		return sighted{problem: s.Problem, commit: s.Tip}
	}
	switch {
	case s.Target == nil || s.Target.Pinned || c.commit == nil:
	case c.commit.ID == s.Tip:
		x.folder, _ = c.commit.Tree.ID(serviceFolder(s.Service))
	case before.target == s.Target:
		x.folder = before.folder
	}
	return x
}
