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
	var lines []line
	var err error
	follows := false
	if old == nil {
		lines, err = readOwn(ctx, c.options.Mirror, c.options.Identity, commit.ID)
	} else {
		lines, follows, err = readLines(ctx, c.options.Mirror, c.reader, c.lineage.by, old.ID, commit.ID)
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
	case !follows:
		c.journal.begin(commit.ID)
		for k := range c.cards {
			c.unsure[k] = true
		}
	default:
		c.journal.add(lines)
	}
	maps.Copy(c.unsure, c.early)
	clear(c.early)
	return nil
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
