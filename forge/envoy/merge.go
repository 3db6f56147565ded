package envoy

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pinion-cd/pinion/forge/rest"
	"github.com/pinion-cd/pinion/reconcile"
)

// merge merges. What the forge does not take now is asked again by the next
// look, which also finds out what became of an answer that was lost. The head is
// judged anew here, and the forge is told which one it is: no other is merged.
func (p *Proposer) merge(ctx context.Context, x reconcile.Proposal, d *draft, at look) error {
	w, _, err := p.judge(ctx, head{x.Key, at.head})
	if err != nil {
		return err
	}
	if !w.ours || !w.change.Release.Equal(d.change.Release) {
		return fmt.Errorf("the head %.12s is not what is to be merged", at.head)
	}
	if stands, err := p.stands(ctx, x); err != nil || !stands {
		return err
	}
	subject, body, _ := strings.Cut(d.change.Message(), "\n")
	err = p.options.Forge.MergePull(ctx, at.pull.Number, rest.Merge{Head: at.head, Method: p.options.Method, Subject: subject, Message: strings.TrimSpace(body)})
	switch {
	case errors.Is(err, rest.ErrNotNow), errors.Is(err, rest.ErrConflict):
		p.options.Log.Debug("the forge does not merge it yet", "pullRequest", at.pull.Number, "reason", err)
		return nil
	case err != nil:
		return err
	}
	p.options.Log.Info("pull request merged", "environment", x.Environment, "service", x.Service, "pullRequest", at.pull.Number)
	p.options.Mirror.Poke()
	return nil
}

// stands tells whether what was judged ready still is. A forge merges onto
// whatever main is by then, and can't be told which one was judged. So main is
// looked at right before, and nothing is merged while it can't be, or after
// something that the judgement rests on has changed; that is judged anew first.
func (p *Proposer) stands(ctx context.Context, x reconcile.Proposal) (bool, error) {
	p.mu.Lock()
	now := p.wanted[x.Key]
	p.mu.Unlock()
	if !now.Ready || !now.Merge || now.Promotion == nil || !now.Promotion.Release.Equal(x.Promotion.Release) {
		return false, nil
	}
	tip, err := p.options.Mirror.Fetch(ctx)
	if err != nil {
		return false, fmt.Errorf("look at main before a merge: %w", err)
	}
	if tip.Commit == now.Main {
		return true, nil
	}
	p.options.Mirror.Poke() // whoever follows it finds it there
	judged, err := p.options.Mirror.Snapshot(ctx, now.Main)
	if err != nil {
		return false, err
	}
	is, err := p.options.Mirror.Snapshot(ctx, tip.Commit)
	if err != nil {
		return false, err
	}
	for _, name := range []string{"holds", "pipelines", "policies", environmentFile(x.Environment), "services/" + string(x.Service) + "/service.yaml"} {
		if same, err := reconcile.SameID(judged, is, name); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}
