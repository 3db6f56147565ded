package reconcile

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/render"
)

// Commits is where commits are read from: the daemon's mirror, or the clone
// that a person stands in.
type Commits interface {
	Snapshot(ctx context.Context, commit string) (*gitstate.Snapshot, error)
	IsAncestor(ctx context.Context, ancestor, descendant string) (bool, error)
	History(ctx context.Context, from string, yield func(gitstate.CommitInfo) bool) error
}

// lineage finds the commit that a deployment comes from: the newest one on
// the first-parent line that changed anything of what the deployment is made
// from. It depends on history alone, so every clone comes to the same answer.
//
// Those who ask at the same time share one walk: one of them leads it.
type lineage struct {
	commits Commits
	lead    chan struct{} // capacity 1: held by the one who walks
	// known is the newest commit's files, from which what has not changed
	// since is taken over.
	known atomic.Pointer[desired.Repository]

	mu      sync.Mutex // guards waiting
	waiting []*question
}

func newLineage(commits Commits) *lineage {
	return &lineage{commits: commits, lead: make(chan struct{}, 1)}
}

type question struct {
	target *Target
	answer chan string // capacity 1
	failed chan error  // capacity 1
}

// origin returns the commit on main that t comes from.
func (l *lineage) origin(ctx context.Context, t *Target) (string, error) {
	q := &question{target: t, answer: make(chan string, 1), failed: make(chan error, 1)}
	l.ask(q)
	for {
		select {
		case c := <-q.answer:
			return c, nil
		case err := <-q.failed:
			return "", fmt.Errorf("find the commit that %s comes from: %w", t.Key, err)
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case l.lead <- struct{}{}:
			l.walk(ctx)
			<-l.lead
		}
	}
}

func (l *lineage) ask(qs ...*question) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, qs...)
}

// walk answers the questions that wait. If the leader is called off, they wait
// for another.
func (l *lineage) walk(ctx context.Context) {
	l.mu.Lock()
	batch := l.waiting
	l.waiting = nil
	l.mu.Unlock()
	byTip := map[string][]*question{}
	for _, q := range batch {
		byTip[q.target.Tip] = append(byTip[q.target.Tip], q)
	}
	for tip, qs := range byTip {
		rest, err := l.answer(ctx, tip, qs)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			l.ask(rest...)
		default:
			for _, q := range rest {
				q.failed <- err
			}
		}
	}
}

// answer walks from tip towards the root. It returns the questions that it
// could not answer, with the reason.
func (l *lineage) answer(ctx context.Context, tip string, open []*question) ([]*question, error) {
	var child *gitstate.Snapshot
	repo := l.known.Load()
	var failure error
	err := l.commits.History(ctx, tip, func(c gitstate.CommitInfo) bool {
		snap, err := l.commits.Snapshot(ctx, c.ID)
		if err != nil {
			failure = err
			return false
		}
		if child == nil {
			child = snap
			return len(open) > 0
		}
		changed, err := child.Changed(snap)
		if err != nil {
			failure = err
			return false
		}
		var read bool
		open = slices.DeleteFunc(open, func(q *question) bool {
			if failure != nil || !touches(q.target, changed) {
				return false
			}
			if !read {
				if repo, err = desired.Read(snap, repo); err != nil {
					failure = err
					return false
				}
				read = true
			}
			same, err := sameInputs(ctx, l.commits, q.target, repo, snap)
			if err != nil {
				failure = err
				return false
			}
			if !same {
				q.answer <- child.Commit()
			}
			return !same
		})
		child = snap
		return failure == nil && len(open) > 0
	})
	if failure == nil {
		failure = err
	}
	if failure != nil {
		return open, failure
	}
	for _, q := range open { // as old as the history
		q.answer <- child.Commit()
	}
	return nil, nil
}

// touches tells whether one of the changed paths can matter to the target.
func touches(t *Target, changed []string) bool {
	environment := "environments/" + string(t.Environment) + ".yaml"
	service := "services/" + string(t.Service) + "/service.yaml"
	if slices.Contains(changed, environment) || slices.Contains(changed, service) {
		return true
	}
	return !t.Pinned && render.Touched(t.Result.Reads, changed)
}

// sameInputs tells whether the target would be made from the same inputs at
// another commit, whose files are repo and tree.
func sameInputs(ctx context.Context, commits Commits, t *Target, repo *desired.Repository, tree *gitstate.Snapshot) (bool, error) {
	d, ok := repo.Deployment(t.Environment, t.Service)
	if !ok || len(d.Problems) > 0 {
		return false, nil
	}
	if (d.Source != "") != t.Pinned || t.Pinned && d.Source != t.Source {
		return false, nil
	}
	service := d.Service
	if !t.Pinned {
		same, err := t.Result.Same(tree)
		if err != nil || !same {
			return false, err
		}
	} else {
		source, err := commits.Snapshot(ctx, d.Source)
		if err != nil {
			return false, err
		}
		s, problems, err := desired.ReadService(source, t.Service)
		if err != nil {
			return false, err
		}
		if len(problems) > 0 {
			return false, nil
		}
		service = s
	}
	return reflect.DeepEqual(withoutPositions(requestFor(d, service)), withoutPositions(t.Request)), nil
}

// requestFor says what is to be rendered for a deployment.
func requestFor(d desired.Deployment, service *desired.Service) render.Request {
	return render.Request{
		Environment: d.Environment.Name,
		Namespace:   d.Environment.Namespace,
		Service:     service.Name,
		Folder:      render.Folder(service, d.Environment.Name),
		Parameters:  d.Environment.Parameters,
		Pins:        d.Pins,
	}
}

// withoutPositions returns the request as it is compared: where in the file a
// pin stands makes no difference.
func withoutPositions(r render.Request) render.Request {
	pins := make([]desired.Pin, len(r.Pins))
	for i, p := range r.Pins {
		p.Position = desired.Position{}
		pins[i] = p
	}
	r.Pins = pins
	return r
}
