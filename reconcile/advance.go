package reconcile

import (
	"context"
	"maps"

	"github.com/pinion-cd/pinion/desired"
)

// advance makes a commit the one that is judged on.
func (c *Clerk) advance(ctx context.Context, commit *Commit) error {
	old := c.commit
	if err := c.note(ctx, old, commit); err != nil {
		return err
	}
	c.commit, c.tracked = commit, commit.Repository.Tracked()
	if old == nil {
		for _, d := range commit.Repository.Deployments() {
			c.touch(Key{d.Environment.Name, d.Service.Name})
		}
		c.everyStage()
		return nil
	}
	changed, err := commit.Snapshot.Changed(old.Snapshot)
	if err != nil {
		c.commit, c.tracked = old, old.Repository.Tracked()
		return err
	}
	folders := map[string]bool{}
	for _, name := range changed {
		folder, rest := cut(name)
		switch folder {
		case "environments":
			folders["environments"] = true
			if env, ok := stem(rest); ok {
				for _, r := range []*desired.Repository{old.Repository, commit.Repository} {
					if e := r.Environments[env]; e != nil {
						c.touchEnvironment(env)
					}
				}
			}
		case "services":
			svc, _ := cut(rest)
			for env := range commit.Repository.Environments {
				c.touch(Key{env, desired.ServiceName(svc)})
			}
		case "pipelines", "policies", "holds", "keys":
			folders[folder] = true
		}
	}
	if folders["pipelines"] || folders["policies"] || folders["holds"] || folders["keys"] {
		c.everyStage()
	}
	return nil
}

// note keeps the journal.
func (c *Clerk) note(ctx context.Context, old, commit *Commit) error {
	var lines, older []line
	var err error
	short, follows := false, false
	from := lineReader{c.options.Mirror, c.reader, c.options.Identity, c.lineage.by}
	if old == nil {
		lines, short, err = from.newest(ctx, c.options.Settled, commit.ID)
	} else {
		lines, follows, err = from.since(ctx, old.ID, commit.ID)
	}
	if err == nil && follows && c.needsOlder(lines) {
		older, _, err = from.newest(ctx, "", c.journal.lines[0].commit)
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case old == nil:
		c.journal.begin(lines[0].commit)
		c.journal.add(lines[1:])
		c.journal.short = short
	case !follows:
		c.journal.begin(commit.ID)
		c.journal.broken = true
		for k := range c.cards {
			c.unsure[k] = true
		}
	default:
		if len(older) > 0 {
			c.journal.recall(older[:len(older)-1])
		}
		c.journal.add(lines)
	}
	maps.Copy(c.unsure, c.early)
	clear(c.early)
	return nil
}

// needsOlder tells whether new lines change a deployment whose record tells of no
// commit that is in the journal, which is shorter than it might be.
func (c *Clerk) needsOlder(lines []line) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.journal.short {
		return false
	}
	for _, l := range lines {
		for k := range l.keys {
			if !c.journal.knows(c.recordedUpTo(k)) {
				return true
			}
		}
	}
	return false
}

// recordedUpTo returns the newest commit of which the record of a deployment tells, as far as
// the journal knows them; mu is held.
func (c *Clerk) recordedUpTo(k Key) string {
	d, at := c.cards[k], c.record(k).Deployment.Commit
	if d == nil {
		return at
	}
	c.settle(k, d)
	return c.journal.later(c.journal.later(d.told, d.tip), at)
}

// noteSettled tells up to which commit of main a later start need not ask what
// daemons have written.
func (c *Clerk) noteSettled() {
	if c.commit == nil {
		return
	}
	c.mu.Lock()
	at := c.journal.settled(c.recordedUpTo)
	c.mu.Unlock()
	if at != "" && at != c.settledAt {
		c.settledAt = at
		c.options.Settle(at)
	}
}

// touch marks a service for review, and the stages that it may matter to.
func (c *Clerk) touch(k Key) {
	c.dirty[k] = true
	c.stages[k] = true
	if c.commit == nil {
		return
	}
	if p := c.commit.Repository.StagesOf(k.Service); p != nil {
		for _, s := range p.Next(k.Environment) {
			c.stages[Key{s.Environment, k.Service}] = true
		}
	}
}

func (c *Clerk) touchEnvironment(env desired.EnvironmentName) {
	for _, d := range c.commit.Repository.Deployments() {
		if d.Environment.Name == env {
			c.touch(Key{env, d.Service.Name})
		}
	}
	if b := c.books[env]; b != nil {
		for svc := range b.records {
			c.touch(Key{env, svc})
		}
	}
}

// everyStage marks all stages of all services.
func (c *Clerk) everyStage() {
	for svc := range c.commit.Repository.Services {
		p := c.commit.Repository.StagesOf(svc)
		if p == nil {
			continue
		}
		for _, s := range p.Stages {
			c.stages[Key{s.Environment, svc}] = true
			c.dirty[Key{s.Environment, svc}] = true
		}
	}
}
