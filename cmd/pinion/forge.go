package main

import (
	"bytes"
	"cmp"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/forge/envoy"
	"github.com/pinion-cd/pinion/forge/rest"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
	"github.com/pinion-cd/pinion/reconcile/cluster"
)

// atForge is what the daemon does at the forge; the zero value does nothing.
type atForge struct {
	teller   *envoy.Teller
	proposer *envoy.Proposer
	reviewer *envoy.Reviewer
	close    func()
	clerk    *reconcile.Clerk // from run on

	mu    sync.Mutex // guards first
	first desired.EnvironmentName
}

// forging is what atForge works with.
type forging struct {
	mirror   *gitstate.Mirror
	renderer reconcile.Renderer
	clusters map[desired.ClusterName]*cluster.Cluster
	tenure   *reconcile.Tenure
	log      *slog.Logger
	metrics  *metrics
}

func (c *config) atForge(with forging) (*atForge, error) {
	at := &atForge{close: func() {}}
	talk, err := c.dial(with.metrics.askedForge)
	if err != nil || talk == nil {
		return at, err
	}
	with.metrics.talksToForge()
	log := with.log.With("forge", string(c.Forge.Kind), "repository", c.Forge.Repository)
	if c.Forge.Statuses {
		at.teller = envoy.NewTeller(envoy.TellerOptions{Forge: talk, Ours: with.tenure.Has, Link: c.Forge.StatusURL, Log: log})
	}
	signer, err := c.Identity.signer()
	if err != nil {
		return nil, err
	}
	o := envoy.ProposerOptions{
		Forge: talk, Mirror: with.mirror, Branch: c.Repository.branch(), Identity: c.Identity.person(),
		Ours: with.tenure.Has, Users: map[string]reconcile.Principal{}, Method: cmp.Or(c.Forge.MergeMethod, rest.MethodMerge), Log: log, Poll: cmp.Or(c.Forge.Poll, 30*time.Second),
		Approve: func(ctx context.Context, r reconcile.ApprovalRequest) error {
			_, err := at.clerk.Approve(ctx, r)
			return err
		},
		Rendered: func(ctx context.Context, before, after string, k reconcile.Key) (string, error) {
			return renderedDifference(ctx, with.mirror, with.renderer, before, after, reconcile.Selection(k))
		},
	}
	if signer != nil {
		o.Sign = signer.Sign
		own, err := gitstate.ReadAllowedSigners("the daemon's own key", []byte("* "+signer.PublicKey()+"\n"))
		if err != nil {
			return nil, err
		}
		o.Signed = func(commit []byte) bool {
			_, err := own.Verify(commit, time.Time{})
			return err == nil
		}
	}
	for _, u := range c.Forge.Users {
		o.Users[strings.ToLower(u.Login)] = reconcile.Principal{Name: u.Principal, Email: u.Email, Groups: u.Groups}
	}
	at.proposer = envoy.NewProposer(o)
	if c.Forge.PullRequests {
		sealed := *c
		sealed.Secrets = secretsConfig{}
		sealed.Render.Processes = 1
		var x *examiner
		if x, at.close, err = sealed.examiner(with); err != nil {
			return nil, err
		}
		at.reviewer = envoy.NewReviewer(envoy.ReviewerOptions{Forge: talk, Mirror: with.mirror, Branch: o.Branch, Examine: x.examine, Poll: o.Poll, Log: log,
			Leads: func() bool { return at.leads(with.tenure) }})
	}
	return at, nil
}

// examiner makes who looks at pull requests; close ends its workers.
func (c *config) examiner(with forging) (*examiner, func(), error) {
	renderer, closePool, err := c.renderer()
	return &examiner{config: c, commits: with.mirror, renderer: renderer, clusters: with.clusters}, closePool, err
}

// leads tells whether this replica speaks of what belongs to no environment: it
// is the one that has the first of them.
func (a *atForge) leads(tenure *reconcile.Tenure) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return tenure == nil || a.first != "" && tenure.Has(a.first)
}

// know passes on what a ledger says.
func (a *atForge) know(r ledger.Record) {
	a.mu.Lock()
	if a.first == "" || r.Environment < a.first {
		a.first = r.Environment
	}
	a.mu.Unlock()
	if a.teller != nil {
		a.teller.Know(r, time.Now())
	}
}

// propose returns who opens pull requests; nil: nobody.
func (a *atForge) propose() func(reconcile.Proposal) {
	if a.proposer == nil {
		return nil
	}
	return a.proposer.Propose
}

// wake has the forge looked at.
func (a *atForge) wake() {
	if a.proposer != nil {
		a.proposer.Wake()
	}
	if a.reviewer != nil {
		a.reviewer.Wake()
	}
}

// run does it until ctx ends.
func (a *atForge) run(ctx context.Context, clerk *reconcile.Clerk, wait *sync.WaitGroup) {
	a.clerk = clerk
	if a.teller != nil {
		wait.Go(func() { a.teller.Run(ctx) })
	}
	if a.proposer != nil {
		wait.Go(func() { a.proposer.Run(ctx) })
	}
	if a.reviewer != nil {
		wait.Go(func() { a.reviewer.Run(ctx) })
	}
}

// renderedDifference says in text what a commit renders otherwise than another,
// as `pinion diff --against` does.
func renderedDifference(ctx context.Context, commits reconcile.Commits, renderer reconcile.Renderer, before, after string, s reconcile.Selection) (string, error) {
	var sides [2][]reconcile.Rendered
	for i, id := range []string{before, after} {
		c, err := reconcile.ReadCommit(ctx, commits, id, nil)
		if err != nil {
			return "", err
		}
		if sides[i], err = reconcile.Render(ctx, commits, renderer, c, s, 1); err != nil {
			return "", err
		}
	}
	changes, err := compareRenderings(sides[0], sides[1])
	var out bytes.Buffer
	writeChanges(&out, palette{}, changes)
	return out.String(), err
}
