package envoy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/forge"
	"github.com/pinion-cd/pinion/forge/rest"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
)

// ReviewerOptions are what a Reviewer works with.
type ReviewerOptions struct {
	Forge  *rest.Client
	Mirror *gitstate.Mirror
	Branch string // main
	// Leads tells whether this replica is the one that speaks; nil: there are no
	// others.
	Leads func() bool
	// Examine looks at what a head makes of the repository. Base is the commit of
	// main that it began at, or has taken in last.
	Examine func(context.Context, forge.Subject) (forge.Examination, error)
	Poll    time.Duration
	Log     *slog.Logger
}

// Reviewer says of each open pull request what it would do.
type Reviewer struct {
	round
	options ReviewerOptions

	// What follows belongs to the goroutine in Run.

	me   string
	done map[int]reviewed
}

// reviewed is what was said of a pull request.
type reviewed struct {
	head, tip string
	at        time.Time
	failures  int
}

// liveAgain is how often what a pull request would change is looked at anew
// though nothing has moved: clusters do.
const liveAgain = time.Hour

// mostBack bounds how far back it is looked where a branch began.
const mostBack = 2000

// NewReviewer returns a Reviewer.
func NewReviewer(o ReviewerOptions) *Reviewer {
	r := &Reviewer{options: o, done: map[int]reviewed{}}
	r.round = newRound(o.Poll, o.Log, "a pull request can't be looked at; it is tried again", "pull requests can be looked at again", r.pass)
	return r
}

func (r *Reviewer) pass(ctx context.Context) error {
	tip, ok := r.options.Mirror.Tip()
	if !ok || r.options.Leads != nil && !r.options.Leads() {
		return nil
	}
	pulls, err := r.options.Forge.Pulls(ctx, r.options.Branch)
	if err != nil {
		return err
	}
	for n := range r.done {
		if !slices.ContainsFunc(pulls, func(p forge.Pull) bool { return p.Number == n }) {
			delete(r.done, n)
		}
	}
	var errs []error
	for _, p := range pulls {
		was := r.done[p.Number]
		wait := liveAgain
		if was.failures > 0 {
			wait = min(r.options.Poll<<min(was.failures, 10), liveAgain)
		}
		if was.head == p.Head && was.tip == tip && time.Since(was.at) < wait {
			continue
		}
		now := reviewed{head: p.Head, tip: tip, at: time.Now()}
		if err := r.review(ctx, p, tip); err != nil {
			if ctx.Err() != nil || errors.Is(err, rest.ErrResting) {
				return err
			}
			now.failures = was.failures + 1
			errs = append(errs, fmt.Errorf("pull request #%d: %w", p.Number, err))
		}
		r.done[p.Number] = now
	}
	return errors.Join(errs...)
}

// review looks at one pull request, and says what it sees. A forge may require
// our statuses of every head, so every head gets them: also where there is
// nothing to say.
func (r *Reviewer) review(ctx context.Context, p forge.Pull, tip string) error {
	ref := r.options.Forge.HeadRef(p.Number)
	got, err := r.options.Mirror.Bring(ctx, ref)
	if err != nil {
		return err
	}
	if got[ref] != p.Head {
		return fmt.Errorf("%s leads to %.12s, and the forge says %.12s", ref, got[ref], p.Head)
	}
	base, err := r.began(ctx, p.Head, tip)
	if err != nil {
		return err
	}
	proposed := !p.Fork && strings.HasPrefix(p.Branch, forge.BranchPrefix)
	// The text of a proposal says what it does: it is not compared once more.
	seen, err := r.options.Examine(ctx, forge.Subject{Base: base, Head: p.Head, Trusted: !p.Fork && !proposed})
	if err != nil {
		return err
	}
	statuses := []forge.Status{seen.Status()}
	info, err := r.options.Mirror.Info(ctx, p.Head)
	if err != nil {
		return err
	}
	if change, ok := ledger.ParseChange(info.Message); !proposed && (!ok || change.Kind != ledger.ChangePromoted) {
		// The commit of a proposal has the proposer's status, also where
		// another branch leads to it.
		statuses = append(statuses, forge.Status{Context: forge.GateContext, State: forge.Success, Description: "it promotes nothing"})
	}
	there, err := r.options.Forge.Statuses(ctx, p.Head)
	if err != nil {
		return err
	}
	for _, status := range statuses {
		if there[status.Context] == status {
			continue
		}
		if err := r.options.Forge.SetStatus(ctx, p.Head, status); err != nil {
			return err
		}
	}
	if proposed {
		return nil
	}
	return r.comment(ctx, p, seen.Comment(p.Head, base), !seen.Untouched)
}

// began finds the newest commit of a head's that main has.
func (r *Reviewer) began(ctx context.Context, head, tip string) (string, error) {
	base, count := "", 0
	var failure error
	err := r.options.Mirror.History(ctx, head, func(c gitstate.CommitInfo) bool {
		for _, id := range append([]string{c.ID}, c.Parents[min(1, len(c.Parents)):]...) { // what it has merged, too
			known, err := r.options.Mirror.IsAncestor(ctx, id, tip)
			if err != nil {
				failure = err
				return false
			}
			if known {
				base = id
				return false
			}
		}
		count++
		return count < mostBack
	})
	if err = errors.Join(failure, err); err != nil {
		return "", err
	}
	if base == "" {
		return "", errors.New("it has no commit in common with the branch that it is to be merged into, or one that is too far back")
	}
	return base, nil
}

// comment brings the one comment up to date. If there is none, begin tells whether
// it is written.
func (r *Reviewer) comment(ctx context.Context, p forge.Pull, body string, begin bool) error {
	if r.me == "" {
		// The token of an app has no user; then what has our mark is ours.
		me, err := r.options.Forge.Whoami(ctx)
		if err != nil && !errors.Is(err, rest.ErrDenied) && !errors.Is(err, rest.ErrNotFound) {
			return err
		}
		r.me = me
	}
	all, err := r.options.Forge.Comments(ctx, p.Number)
	if err != nil {
		return err
	}
	for _, c := range all {
		if !strings.Contains(c.Body, forge.CommentMark) || r.me != "" && !strings.EqualFold(c.User, r.me) {
			continue
		}
		if strings.Join(strings.Fields(c.Body), " ") == strings.Join(strings.Fields(body), " ") {
			return nil
		}
		return r.options.Forge.EditComment(ctx, p.Number, c.ID, body)
	}
	if !begin {
		return nil
	}
	return r.options.Forge.AddComment(ctx, p.Number, body)
}
