package envoy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/forge"
	"github.com/pinion-cd/pinion/forge/rest"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
	"github.com/pinion-cd/pinion/reconcile"
)

// ProposerOptions are what a Proposer works with.
type ProposerOptions struct {
	Forge    *rest.Client
	Mirror   *gitstate.Mirror
	Branch   string        // main
	Identity ledger.Person // the author and committer of what is proposed
	// Sign and Signed sign our commits, and tell whether one of them has that
	// signature; nil: they are not signed.
	Sign   func(commit []byte) (string, error)
	Signed func(commit []byte) bool
	Ours   func(desired.EnvironmentName) bool
	// Approve records a person's consent.
	Approve func(context.Context, reconcile.ApprovalRequest) error
	// Users are who the forge's logins are, these in lower case.
	Users map[string]reconcile.Principal
	// Rendered shows what a commit renders otherwise than another, of one
	// service in one environment.
	Rendered func(ctx context.Context, before, after string, k reconcile.Key) (string, error)
	Method   rest.Method
	Poll     time.Duration // how often the forge is looked at
	Log      *slog.Logger
}

// Proposer keeps the pull requests of promotions.
type Proposer struct {
	round
	options ProposerOptions

	mu      sync.Mutex // guards what follows
	wanted  map[reconcile.Key]reconcile.Proposal
	settled map[reconcile.Key]bool // nothing is wanted, and nothing is there

	// What follows belongs to the goroutine in Run.

	heads    map[head]written
	gates    map[string]forge.Status
	approved map[string]bool
	rendered map[string]string
	edited   map[string]time.Time // by head, when its text was
	unsure   map[string]time.Time // heads of which it is not known whether they fit
	told     map[reconcile.Key]string
}

// The pace of a Proposer.
const (
	reviseEvery = 30 * time.Second
	// unsureFor is how long a forge may take to find out whether a branch can be
	// merged, before it is written anew.
	unsureFor = time.Minute
	mostHeads = 1000
	mostSteps = 6 // for one proposal in a row
	askTime   = 30 * time.Second
)

// NewProposer returns a Proposer.
func NewProposer(o ProposerOptions) *Proposer {
	p := &Proposer{
		options: o,
		wanted:  map[reconcile.Key]reconcile.Proposal{}, settled: map[reconcile.Key]bool{}, heads: map[head]written{}, gates: map[string]forge.Status{},
		approved: map[string]bool{}, rendered: map[string]string{}, edited: map[string]time.Time{},
		unsure: map[string]time.Time{}, told: map[reconcile.Key]string{},
	}
	p.round = newRound(o.Poll, o.Log, "pull requests can't be kept; it is tried again", "pull requests can be kept again", p.pass)
	return p
}

// Propose takes in what is to be proposed; it never waits.
func (p *Proposer) Propose(x reconcile.Proposal) {
	p.mu.Lock()
	old, known := p.wanted[x.Key]
	p.wanted[x.Key] = x
	if x.Promotion != nil {
		delete(p.settled, x.Key)
	}
	p.mu.Unlock()
	merges := x.Ready && x.Merge && old.Main != x.Main // which may have waited for that judgement
	if !known || old.Promotion != x.Promotion || old.Ready != x.Ready || merges {
		p.Wake()
	}
}

// pass looks at all proposals once.
func (p *Proposer) pass(ctx context.Context) error {
	p.mu.Lock()
	wanted := maps.Clone(p.wanted)
	maps.DeleteFunc(wanted, func(k reconcile.Key, _ reconcile.Proposal) bool {
		return p.settled[k] || !p.options.Ours(k.Environment)
	})
	p.mu.Unlock()
	if len(wanted) == 0 {
		return nil
	}
	refs, err := p.options.Mirror.References(ctx)
	if err != nil {
		return err
	}
	pulls, err := p.options.Forge.Pulls(ctx, p.options.Branch)
	if err != nil {
		return err
	}
	var errs []error
	for _, k := range slices.SortedFunc(maps.Keys(wanted), reconcile.Key.Compare) {
		x := wanted[k]
		branch := forge.Branch(k.Environment, k.Service)
		at := look{head: refs["refs/heads/"+branch], branch: branch}
		if i := slices.IndexFunc(pulls, func(q forge.Pull) bool { return q.Branch == branch && !q.Fork }); i >= 0 {
			at.pull = &pulls[i]
		}
		if x.Promotion == nil && at.head == "" && at.pull == nil {
			p.settle(k)
			continue
		}
		if err := p.keep(ctx, x, at); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", k, err))
			if errors.Is(err, rest.ErrResting) || errors.Is(err, rest.ErrDenied) {
				break
			}
		}
	}
	return errors.Join(errs...)
}

// settle notes that nothing is left of what is not wanted.
func (p *Proposer) settle(k reconcile.Key) {
	p.mu.Lock()
	if p.wanted[k].Promotion == nil {
		p.settled[k] = true
	}
	p.mu.Unlock()
	delete(p.told, k)
}

// look is what was seen of a proposal.
type look struct {
	branch, head string
	pull         *forge.Pull
}

// draft is what a proposal's commit does.
type draft struct {
	tip    string
	file   string
	before string // the content of the file on main, and its id
	id     string
	data   []byte
	change ledger.Change
}

// draft works out what a promotion makes of main as it is.
func (p *Proposer) draft(ctx context.Context, x reconcile.Proposal) (*draft, error) {
	tip, ok := p.options.Mirror.Tip()
	if !ok {
		return nil, errors.New("the repository has not been fetched yet")
	}
	snap, err := p.options.Mirror.Snapshot(ctx, tip)
	if err != nil {
		return nil, err
	}
	d := &draft{tip: tip, file: environmentFile(x.Environment)}
	before, err := snap.ReadFile(d.file)
	if err != nil {
		return nil, err
	}
	if d.id, err = snap.ID(d.file); err != nil {
		return nil, err
	}
	d.before = string(before)
	ed, err := desired.NewEditor(d.file, before)
	if err != nil {
		return nil, err
	}
	d.data, d.change, err = reconcile.Promote(*x.Promotion, ed)
	return d, err
}

// keep does what is to be done about one proposal.
func (p *Proposer) keep(ctx context.Context, x reconcile.Proposal, at look) error {
	var d *draft
	var err error
	if x.Promotion != nil {
		if d, err = p.draft(ctx, x); err != nil {
			return err
		}
		if d.before == string(d.data) {
			x.Promotion, d = nil, nil // main has it; the clerk is about to see that
		}
	}
	for range mostSteps {
		seen, err := p.see(ctx, x, d, at)
		if err != nil {
			return err
		}
		wish, err := p.wish(ctx, x, d, at, seen)
		if err != nil {
			return err
		}
		step := forge.Next(wish, seen)
		p.tell(x.Key, step, at)
		if err := p.attend(ctx, x, at, seen); err != nil {
			return err
		}
		switch step.Verb {
		case forge.Rest, forge.Leave:
			return nil
		case forge.Write:
			if at.head, err = p.write(ctx, d, at); err != nil {
				return err
			}
			if at.pull != nil && at.pull.State != forge.Open {
				at.pull = nil
			}
			if at.pull != nil {
				moved := *at.pull
				moved.Head, moved.Mergeable, moved.Fits = at.head, forge.Undecided, forge.Undecided
				at.pull = &moved
			}
		case forge.Create:
			opened, err := p.options.Forge.OpenPull(ctx, forge.Pull{Title: wish.Title, Body: wish.Body, Branch: at.branch, Base: p.options.Branch})
			if err != nil {
				return err // also of one that may be there: the next look tells
			}
			p.options.Log.Info("pull request opened", "environment", x.Environment, "service", x.Service, "pullRequest", opened.Number, "title", wish.Title)
			at.pull = &opened
			return nil
		case forge.Revise:
			if time.Since(p.edited[at.head]) < reviseEvery {
				return nil
			}
			if err := p.options.Forge.EditPull(ctx, at.pull.Number, wish.Title, wish.Body); err != nil {
				return err // the next look tells whether it has another text
			}
			if len(p.edited) >= mostHeads {
				clear(p.edited)
			}
			p.edited[at.head] = time.Now()
			changed := *at.pull
			changed.Title, changed.Body = wish.Title, wish.Body
			at.pull = &changed
		case forge.Finish:
			return p.merge(ctx, x, d, at)
		case forge.Retire:
			body := strings.TrimSpace(at.pull.Body) + "\n\n" + forge.Withdrawn + "\n"
			if err := p.options.Forge.EditPull(ctx, at.pull.Number, at.pull.Title, body); err != nil {
				return err
			}
			if err := p.options.Forge.ClosePull(ctx, at.pull.Number); err != nil {
				return err
			}
			p.options.Log.Info("pull request closed", "environment", x.Environment, "service", x.Service, "pullRequest", at.pull.Number, "reason", step.Reason)
			at.pull = nil
		case forge.Remove:
			return p.options.Mirror.Remove(ctx, at.branch, at.head)
		default:
			return fmt.Errorf("the step %q is none that can be taken", step.Verb)
		}
	}
	return nil
}

// tell says once why a proposal is left alone.
func (p *Proposer) tell(k reconcile.Key, s forge.Step, at look) {
	if s.Verb != forge.Leave {
		delete(p.told, k)
		return
	}
	if p.told[k] != s.Reason {
		p.told[k] = s.Reason
		p.options.Log.Warn("a promotion is not proposed", "environment", k.Environment, "service", k.Service, "branch", at.branch, "reason", s.Reason)
	}
}

// see finds out what is there.
func (p *Proposer) see(ctx context.Context, x reconcile.Proposal, d *draft, at look) (forge.Seen, error) {
	s := forge.Seen{Head: at.head, Pull: at.pull}
	if at.head != "" {
		w, err := p.read(ctx, "refs/heads/"+at.branch, at.head, x.Key)
		if err != nil {
			return s, err
		}
		s.Ours = w.ours
		if d != nil && w.ours && w.change.Release.Equal(d.change.Release) {
			if s.Current, err = p.applies(ctx, d, w, at); err != nil {
				return s, err
			}
		}
	}
	if d == nil || at.pull != nil {
		return s, nil
	}
	last, err := p.options.Forge.PullOf(ctx, p.options.Branch, at.branch)
	if err != nil || last == nil || last.State == forge.Open {
		return s, err
	}
	s.Pull = last
	if last.State == forge.Closed && !strings.Contains(last.Body, forge.Withdrawn) {
		w, err := p.read(ctx, p.options.Forge.HeadRef(last.Number), last.Head, x.Key)
		if err != nil {
			return s, err
		}
		s.Declined = w.change.Release.Equal(d.change.Release)
	}
	return s, nil
}

// wish is what the pull request is to be.
func (p *Proposer) wish(ctx context.Context, x reconcile.Proposal, d *draft, at look, seen forge.Seen) (forge.Wish, error) {
	if d == nil {
		return forge.Wish{}, nil
	}
	w := forge.Wish{Wanted: true, Ready: x.Ready, Merge: x.Merge, Title: d.change.Subject()}
	if !seen.Current {
		return w, nil // the body says what the branch does, which has to be written first
	}
	rendered, ok := p.rendered[at.head]
	if !ok {
		if _, err := p.options.Mirror.Bring(ctx, "refs/heads/"+at.branch); err != nil {
			return w, err
		}
		var err error
		if rendered, err = p.options.Rendered(ctx, p.heads[head{x.Key, at.head}].parent, at.head, x.Key); err != nil {
			if ctx.Err() != nil {
				return w, err
			}
			rendered = "It can't be told what differs: " + err.Error()
		}
		if len(p.rendered) >= mostHeads {
			clear(p.rendered)
		}
		p.rendered[at.head] = rendered
	}
	w.Body = forge.ProposalBody(forge.Text{Promotion: x.Promotion, Verdicts: x.Verdicts, Ready: x.Ready, Merge: x.Merge,
		Pins: forge.LineDiff(d.before, string(d.data)), Rendered: rendered})
	return w, nil
}

// write takes the branch to what is to be promoted.
func (p *Proposer) write(ctx context.Context, d *draft, at look) (string, error) {
	who := gitstate.Signature{Name: p.options.Identity.Name, Email: p.options.Identity.Email, Time: time.Now().Round(0)}
	return p.options.Mirror.Commit(ctx, gitstate.Change{
		Branch: at.branch, Expected: at.head, Parent: d.tip, Files: map[string][]byte{d.file: d.data},
		Message: d.change.Message(), Author: who, Committer: who, Sign: p.options.Sign,
		Guard: func() error {
			if !p.options.Ours(d.change.Environment) {
				return fmt.Errorf("environment %s is another replica's by now", d.change.Environment)
			}
			return nil
		},
	})
}

// attend says on the head how it is with the gates, and takes in the approvals
// that were given there.
func (p *Proposer) attend(ctx context.Context, x reconcile.Proposal, at look, seen forge.Seen) error {
	if x.Promotion == nil || at.pull == nil || at.pull.State != forge.Open || !seen.Current || at.pull.Head != at.head {
		return nil
	}
	gate := forge.Status{Context: forge.GateContext, State: forge.Success, Description: "every gate is passed", URL: ""}
	asks := false
	if !x.Ready {
		gate.State = forge.Pending
		var open []string
		for _, v := range x.Verdicts {
			if v.Outcome != policy.Passed {
				open = append(open, v.Gate+": "+v.Reason)
				asks = asks || v.Check == desired.CheckApproval
			}
		}
		gate.Description = forge.Short(strings.Join(open, "; "))
	}
	if p.gates[at.head] != gate {
		if err := p.options.Forge.SetStatus(ctx, at.head, gate); err != nil {
			return err
		}
		if len(p.gates) >= mostHeads {
			clear(p.gates)
		}
		p.gates[at.head] = gate
	}
	if !asks || len(p.options.Users) == 0 {
		return nil
	}
	reviews, err := p.options.Forge.Reviews(ctx, *at.pull)
	if err != nil {
		return err
	}
	for _, r := range reviews {
		who, known := p.options.Users[strings.ToLower(r.User)]
		key := r.User + " " + at.head
		if !known || !r.Approved || r.Commit != at.head || p.approved[key] {
			continue
		}
		if err := p.approve(ctx, x, who, at.pull.Number); err != nil {
			if rejection, ok := errors.AsType[*reconcile.Rejection](err); !ok || rejection.Code == reconcile.NotReady || rejection.Code == reconcile.NotOurs {
				return err
			}
			p.options.Log.Warn("an approval at the forge does not count", "environment", x.Environment, "service", x.Service, "pullRequest", at.pull.Number, "user", r.User, "reason", err)
		}
		if len(p.approved) >= mostHeads {
			clear(p.approved)
		}
		p.approved[key] = true
	}
	return nil
}

func (p *Proposer) approve(ctx context.Context, x reconcile.Proposal, who reconcile.Principal, number int) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return p.options.Approve(ctx, reconcile.ApprovalRequest{
		Principal: who, Environment: x.Environment, Service: x.Service,
		Version: x.Promotion.Release.Version(), Comment: fmt.Sprintf("approved in pull request #%d", number),
	})
}
