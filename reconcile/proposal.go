package reconcile

import (
	"errors"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/policy"
)

// Proposal is what a pull request is to bring into a stage.
type Proposal struct {
	Key
	// Promotion is what the commit does; nil: nothing is to be proposed.
	Promotion *policy.Promotion
	// Verdicts are how it is with the stage's gates, and Ready says that all
	// are passed; Reason says it in words.
	Verdicts []policy.Verdict
	Ready    bool
	Reason   string
	// Merge: the daemon is to merge it when it is ready.
	Merge bool
	// Main is the commit that it was judged on.
	Main string
}

// errNoForge says why nothing enters a stage.
var errNoForge = errors.New("the stage is entered by pull requests (by: pullRequest), and the daemon's configuration has no forge to open them at; add forge: with kind, repository and tokenFile")

// propose has a stage's pull request opened, kept up to date, or withdrawn, as
// was decided on what is on the remote.
func (c *Clerk) propose(k Key, stage *desired.Stage, d *policy.Decision) {
	if c.options.Propose == nil {
		if stage != nil && stage.ByPullRequest && d != nil && d.Proposal != nil {
			c.complainOf(k, errNoForge)
		}
		return
	}
	by := stage != nil && stage.ByPullRequest
	if !by && !c.proposed[k] {
		return
	}
	if c.proposed[k] = by; !by {
		delete(c.proposed, k)
	}
	p := Proposal{Key: k}
	if by && d != nil && d.Proposal != nil {
		p.Promotion, p.Verdicts, p.Reason = d.Proposal, d.Verdicts, d.Reason
		p.Ready, p.Merge, p.Main = d.Move == policy.Promote, stage.Merge, c.commit.ID
	}
	c.options.Propose(p)
}
