package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"strings"
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

	mu      sync.Mutex // guards waiting and written
	waiting []*question
	// written are the commits that we have written ourselves, and the only
	// deployment that each of them changes: nothing has to be read to know.
	written map[string]Key
}

func newLineage(commits Commits) *lineage {
	return &lineage{commits: commits, lead: make(chan struct{}, 1)}
}

type question struct {
	target *Target
	// manifests: not the deployment is asked about, but only its manifests.
	manifests bool
	answer    chan string // capacity 1
	failed    chan error  // capacity 1
}

// origin returns the commit on main that t comes from.
func (l *lineage) origin(ctx context.Context, t *Target) (string, error) {
	return l.find(ctx, &question{target: t})
}

// source returns the commit on main that the manifests of t come from: the
// newest one that changed the service's folder or a file that the rendering
// read. It is the same in each environment that renders from the same files.
func (l *lineage) source(ctx context.Context, t *Target) (string, error) {
	if t.Pinned {
		return t.Source, nil
	}
	return l.find(ctx, &question{target: t, manifests: true})
}

// wrote notes a commit that changes nothing but one deployment's lines.
func (l *lineage) wrote(commit string, k Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.written == nil || len(l.written) > 100_000 {
		l.written = map[string]Key{}
	}
	l.written[commit] = k
}

// by returns the deployment that a commit of ours changes.
func (l *lineage) by(commit string) (Key, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k, ok := l.written[commit]
	return k, ok
}

func (l *lineage) find(ctx context.Context, q *question) (string, error) {
	t := q.target
	q.answer, q.failed = make(chan string, 1), make(chan error, 1)
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
		if key, ours := l.by(child.Commit()); ours {
			open = slices.DeleteFunc(open, func(q *question) bool {
				about := q.target.Key == key && !q.manifests
				if about {
					q.answer <- child.Commit()
				}
				return about
			})
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
			if failure == nil && q.manifests {
				touched := touchesManifests(q.target, changed)
				if touched {
					q.answer <- child.Commit()
				}
				return touched
			}
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
	service := serviceFolder(t.Service) + "/service.yaml"
	if slices.Contains(changed, environment) || slices.Contains(changed, service) {
		return true
	}
	return !t.Pinned && touchesManifests(t, changed)
}

// touchesManifests tells whether one of the changed paths is part of a
// service's manifests: those of all environments, so that a change of one
// moves through the stages as every other does.
func touchesManifests(t *Target, changed []string) bool {
	folder := serviceFolder(t.Service) + "/"
	return slices.ContainsFunc(changed, func(name string) bool { return strings.HasPrefix(name, folder) }) ||
		render.Touched(t.Result.Reads, changed)
}

// serviceFolder is where a service's file lies, and all or most of its
// manifests.
func serviceFolder(name desired.ServiceName) string { return "services/" + string(name) }

// sameManifests tells whether a service's manifests are the same at another
// commit.
func sameManifests(t *Target, folder string, other desired.Tree) (bool, error) {
	id, err := other.ID(serviceFolder(t.Service))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil || id != folder:
		return false, err
	}
	return t.Result.Same(other)
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
		now, err := commits.Snapshot(ctx, t.Tip)
		if err != nil {
			return false, err
		}
		folder, err := now.ID(serviceFolder(t.Service))
		if err != nil {
			return false, err
		}
		same, err := sameManifests(t, folder, tree)
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
	r := render.Request{
		Environment: d.Environment.Name,
		Namespace:   d.Environment.Namespace,
		Service:     service.Name,
		Folder:      render.Folder(service, d.Environment.Name),
		Parameters:  d.Environment.Parameters,
		Pins:        d.Pins,
		Plaintext:   service.Plaintext == desired.PlaintextAllow,
	}
	if service.Deploy != nil {
		r.Webhook = service.Deploy.Webhook
	}
	return r
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
