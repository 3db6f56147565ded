package reconcile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile/check"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// hookRun names the Job that runs a hook for the deployment that comes from a
// commit. It follows from what is run for what, so that a run is found again
// and never made twice.
func hookRun(t *Target, commit string, h render.Hook) render.Ref {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q %q", t.Environment, t.Service, commit, h.When, h.Ref.Name, h.Digest))
	name := h.Ref.Name
	if most := 63 - 9; len(name) > most {
		name = name[:most]
	}
	return render.Ref{Group: h.Ref.Group, Kind: h.Ref.Kind, Namespace: h.Ref.Namespace, Name: strings.TrimRight(name, "-.") + "-" + hex.EncodeToString(sum[:4])}
}

// due returns the hooks of a deployment that have not run, in their order. done
// are the Jobs that have completed, with the digests that they were made from.
func due(t *Target, commit, when string, done map[render.Ref]string) []render.Hook {
	var hooks []render.Hook
	for _, h := range t.Result.Hooks {
		if h.When == when && done[hookRun(t, commit, h)] != h.Digest {
			hooks = append(hooks, h)
		}
	}
	return hooks
}

// once tells whether a target has Jobs of which it has to be known whether they
// have completed, also when they are gone.
func once(t *Target) bool {
	if len(t.Result.Hooks) > 0 {
		return true
	}
	for _, o := range t.Result.Objects {
		if removesItself(o) {
			return true
		}
	}
	return false
}

// completed reads which Jobs of a target have completed, as the inventory has
// it; nil, if the target has none for which that matters.
func completed(ctx context.Context, cl *cluster.Cluster, t *Target) (map[render.Ref]string, error) {
	if !once(t) {
		return nil, nil
	}
	inv, err := cl.Inventory(ctx, cluster.Scope{Environment: t.Environment, Namespace: t.Namespace})
	if err != nil {
		return nil, err
	}
	done := map[render.Ref]string{}
	for _, d := range inv.Done {
		done[d.Ref] = d.Digest
	}
	return done, nil
}

// knows takes over which Jobs have completed; what was seen here is newer.
func (u *unit) knows(done map[render.Ref]string) {
	for ref, digest := range done {
		if _, ok := u.over[ref]; !ok {
			u.complete(ref, digest)
		}
	}
}

func (u *unit) complete(ref render.Ref, digest string) {
	if u.over == nil {
		u.over = map[render.Ref]string{}
	}
	u.over[ref] = digest
}

// runningHook is a hook that is run.
type runningHook struct {
	hook    render.Hook
	run     render.Ref
	cancel  context.CancelFunc
	message string
}

// hookNews is what is heard of a hook: what it waits for, or what it came to.
type hookNews struct {
	key     Key
	hook    *runningHook
	message string
	result  *check.Result
	err     error
}

// startHooks starts those hooks that are due.
func (e *Engine) startHooks(ctx context.Context) {
	for k := range e.hooksDue {
		delete(e.hooksDue, k)
		u := e.units[k]
		if u == nil || u.hookDue == nil {
			continue
		}
		h := *u.hookDue
		if u.hookDue = nil; u.hook == nil && u.cancel == nil && u.suspended == "" {
			e.startHook(ctx, u, h, u.hookCommit)
		}
	}
}

// startHook runs a hook for the deployment that comes from a commit.
func (e *Engine) startHook(ctx context.Context, u *unit, h render.Hook, commit string) {
	t, cl := u.target, e.connection(u.target)
	q := check.Hook{
		Environment: t.Environment, Service: t.Service, When: h.When, Object: h.Object, Run: hookRun(t, commit, h),
		Timeout: t.Timeout, Keep: map[render.Ref]bool{},
	}
	for _, other := range t.Result.Hooks {
		q.Keep[hookRun(t, commit, other)] = true
	}
	termCtx, done := u.term.Context(ctx)
	ctx, cancel := context.WithCancel(termCtx)
	u.hook = &runningHook{hook: h, run: q.Run, cancel: cancel, message: q.Run.String() + " begins"}
	e.dirty[u.key] = true
	news := hookNews{key: u.key, hook: u.hook}
	e.jobs.Go(func() {
		defer done()
		defer cancel()
		result, err := e.hooks.Hook(ctx, cl, q, func(message string) {
			say := news
			say.message = message
			e.hookNews <- say
		})
		end := news
		end.result, end.err = &result, err
		e.hookNews <- end
	})
}

// heard takes in what is heard of a hook.
func (e *Engine) heard(now time.Time, n hookNews) {
	u := e.units[n.key]
	if u == nil || u.hook == nil || u.hook != n.hook {
		return // of a deployment that is no longer wanted
	}
	e.dirty[u.key] = true
	if n.result == nil {
		u.hook.message = n.message
		return
	}
	h, run := u.hook.hook, u.hook.run
	u.hook = nil
	beside := e.beside(u.target.Place)
	n.result.Description, n.result.Output = hide(n.result.Description, beside), hide(n.result.Output, beside)
	switch {
	case n.err != nil:
		u.failure = e.failure(now, u, fmt.Errorf("hook %s: %w", h.Ref.Name, n.err))
	case n.result.Result == ledger.Success:
		u.complete(run, h.Digest)
		u.unsaved = append(u.unsaved, cluster.Done{Ref: run, Digest: h.Digest})
		e.report(Event{Type: EventHook, Environment: u.key.Environment, Service: u.key.Service, Version: u.target.Version(),
			Message: fmt.Sprintf("hook %s (%s): %s", h.Ref.Name, h.When, n.result.Description)})
		e.inspect(u)
	default:
		// Once for each deployment: only another one, or a person, runs it again.
		message := fmt.Sprintf("the hook %s (%s) failed: %s; delete the Job to have it run again", h.Ref.Name, h.When, n.result.Description)
		if n.result.Output != "" {
			message += "\n    " + strings.ReplaceAll(n.result.Output, "\n", "\n    ")
		}
		u.failure = &Failure{Message: message, Attempts: 1, Since: now}
	}
}

// saved is what became of the writing down of completions.
type saved struct {
	key  Key
	done []cluster.Done
	err  error
}

// saveAgain is when the writing down of completions is tried again.
const saveAgain = 10 * time.Second

// save has it written down which Jobs have completed.
func (e *Engine) save(ctx context.Context, now time.Time, u *unit) {
	if len(u.unsaved) == 0 || u.saving || u.target == nil || u.suspended != "" || now.Before(u.saveAt) {
		return
	}
	cl := e.connection(u.target)
	scope := cluster.Scope{Environment: u.key.Environment, Namespace: u.target.Namespace}
	s := saved{key: u.key, done: u.unsaved}
	u.unsaved, u.saving = nil, true
	for i := range s.done {
		s.done[i].At = now
	}
	ctx, done := u.term.Context(ctx)
	e.jobs.Go(func() {
		defer done()
		s.err = cl.Remember(ctx, scope, s.done)
		e.saves <- s
	})
}

func (e *Engine) wasSaved(now time.Time, s saved) {
	u := e.units[s.key]
	if u == nil {
		return
	}
	u.saving = false
	e.dirty[u.key] = true
	if s.err == nil {
		return
	}
	e.report(Event{Type: EventWarning, Environment: u.key.Environment, Service: u.key.Service,
		Message: fmt.Sprintf("that Jobs have completed is not written down: %v", s.err)})
	if e.options.Attempts > 0 {
		return
	}
	u.unsaved, u.saveAt = append(s.done, u.unsaved...), now.Add(saveAgain)
}
