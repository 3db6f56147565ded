package reconcile

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// Outcome is what a job came to.
type Outcome struct {
	Target *Target
	// Commit is the commit on main that the deployment comes from; empty if
	// nothing had to be written.
	Commit   string
	Plan     Plan
	Created  int
	Changed  int      // of those that were there before
	Adopted  []string // objects that were there, and who manages them
	Replaced []string // objects, and why
	// Done are the Jobs of which the inventory says that they have completed.
	Done map[render.Ref]string
	// Hook has to complete before the rest is applied.
	Hook *render.Hook
	// Waits says that objects have to go before they can be made again.
	Waits    bool
	Warnings []string
	Err      error
	// Compared: nothing was written, for other services are waited for.
	Compared bool
	// Drift is what others did to objects of which nothing else was to be
	// corrected; Reported: nothing was written for it.
	Drift    []cluster.Drift
	Reported bool
	off      uint64 // the state in which others had left it

	unit *unit // that it was made for
}

// order is what a job is to do.
type order struct {
	target  *Target
	claims  map[render.Ref][]Key
	over    map[render.Ref]string
	bounds  Bounds
	compare bool // write nothing
	settled bool // all of the target was once in the cluster
	// tolerates: report drift, and write nothing for it.
	tolerates bool
	off       uint64
	// careful: nobody answered last time, so that one request is sent after the
	// other, and none after one that fails.
	careful bool
}

// deploy makes the cluster show what the target wants, and returns when all
// requests are answered; it does not wait for the rollout.
//
// The objects are validated together, by a dry run, before the first of them
// is written, so that no service is half applied for an object that the API
// server refuses. What can't be validated yet, because the namespace or the
// CustomResourceDefinition that it needs comes with it, is validated as soon
// as that is there.
func (e *Engine) deploy(ctx context.Context, cl *cluster.Cluster, order order) (out Outcome) {
	t := order.target
	out.Target, out.off = t, order.off
	if order.compare {
		defer func() {
			if out.Err != nil || out.Plan.Changes() > 0 {
				out = Outcome{Target: t, Compared: true}
			}
		}()
	}
	if refused := order.bounds.Refusals(t); len(refused) > 0 {
		out.Err = refusedError(refused)
		return out
	}
	scope := cluster.Scope{Environment: t.Environment, Namespace: t.Namespace}
	found := func() error {
		if err := cl.EnsureNamespace(ctx, t.Namespace); err != nil && !bringsNamespace(t) {
			return err
		}
		if err := cl.Enroll(ctx, scope, t.Result.Objects); err != nil {
			return fmt.Errorf("write the inventory of environment %s: %w", t.Environment, err)
		}
		return nil
	}
	// What was deleted of it may be drift, for which nothing is written.
	late := order.tolerates && order.settled
	if !late {
		if out.Err = found(); out.Err != nil {
			return out
		}
	}
	if err := cl.WatchObjects(ctx, scope, t.Result.Objects); err != nil {
		out.Err = err
		return out
	}
	if out.Done, out.Err = completed(ctx, cl, t); out.Err != nil {
		return out
	}
	for ref, digest := range out.Done {
		if _, ok := order.over[ref]; !ok {
			if order.over == nil {
				order.over = map[render.Ref]string{}
			}
			order.over[ref] = digest
		}
	}
	observed := cl.Lookup(t.Result.Objects)
	if out.Err = outOfBounds(ctx, cl, order.bounds, t, t.Result.Objects); out.Err != nil {
		return out
	}
	strangers, err := e.strangers(ctx, cl, t, observed)
	if err != nil {
		out.Err = err
		return out
	}
	in := PlanInput{Target: t, Observed: observed, Foreign: strangers, Claims: order.claims, Over: order.over, Settled: order.settled}
	out.Plan = MakePlan(in)
	out.Waits = out.Plan.Waits() > 0
	out.Warnings = append(out.Warnings, out.Plan.Warnings...)
	if len(out.Plan.Refused) > 0 {
		out.Err = refusedError(out.Plan.Refused)
		return out
	}
	if len(t.Result.Objects) == 0 && !order.compare {
		// Nothing but hooks.
		if hooks := due(t, t.Result.Digest, render.HookBefore, order.over); len(hooks) > 0 {
			out.Hook, out.Commit = &hooks[0], t.Result.Digest
		}
	}
	if out.Plan.Changes() == 0 || order.compare {
		return out
	}
	d := deployment{cl: cl, bounds: order.bounds, target: t, in: in, out: &out, careful: order.careful}
	if corrects(out.Plan) {
		err := d.examine(ctx)
		if order.tolerates {
			out.Reported, out.Err = true, err
			return out
		}
		if err != nil { // it is corrected all the same
			out.Warnings = append(out.Warnings, "what was changed is not known: "+err.Error())
		}
		out.Commit = out.Plan.commit // whatever came to main since, the objects stay of one
	}
	if late {
		if out.Err = found(); out.Err != nil {
			return out
		}
	}
	if out.Commit == "" {
		if out.Commit, err = e.lineage.origin(ctx, t); err != nil {
			out.Err = unreadError{err}
			return out
		}
	}
	d.commit = out.Commit
	d.before = due(t, out.Commit, render.HookBefore, order.over)
	out.Err = d.run(ctx)
	return out
}

// compared sees to it that a target's objects are watched, and writes nothing.
func compared(ctx context.Context, cl *cluster.Cluster, t *Target) Outcome {
	scope := cluster.Scope{Environment: t.Environment, Namespace: t.Namespace}
	err := cl.WatchObjects(ctx, scope, t.Result.Objects)
	if errors.As(err, new(*cluster.UnknownKindError)) {
		err = nil // there is no object of such a kind
	}
	out := Outcome{Target: t, Compared: true, Err: err}
	if err == nil {
		out.Done, out.Err = completed(ctx, cl, t)
	}
	return out
}

// outOfBounds refuses objects that an environment may not have, by what the API
// server says of their kinds: one that rendering does not know may turn out to
// lie in no namespace. A kind that is not served yet is judged before it is
// written.
func outOfBounds(ctx context.Context, cl *cluster.Cluster, b Bounds, t *Target, objects []render.Object) error {
	var refused []string
	for _, o := range objects {
		if o.Ref.Namespace == "" {
			continue // judged as it was rendered
		}
		m, err := cl.Map(ctx, o)
		var unknown *cluster.UnknownKindError
		switch {
		case errors.As(err, &unknown):
		case err != nil:
			return err
		default:
			if why := b.refuses(t, o, m.Ref); why != "" {
				refused = append(refused, why)
			}
		}
	}
	if len(refused) > 0 {
		return refusedError(refused)
	}
	return nil
}

// strangers says which objects of a target are another deployment repository's,
// and whose: of those outside of the environment's namespace, which has its
// inventory, and of other environments that ours does not have.
func (e *Engine) strangers(ctx context.Context, cl *cluster.Cluster, t *Target, observed map[render.Ref]cluster.Observed) (map[render.Ref]string, error) {
	var found map[render.Ref]string
	var inventories []cluster.Inventory
	for ref, have := range observed {
		if !have.Owned {
			continue
		}
		why := ""
		if have.Environment == t.Environment {
			if have.Ref.Namespace == t.Namespace || have.Commit == "" {
				continue // nobody names a commit of what is handed over
			}
			_, err := e.options.Commits.Snapshot(ctx, have.Commit)
			if err == nil {
				continue
			}
			if !errors.Is(err, gitstate.ErrNoCommit) || errors.Is(err, gitstate.ErrShallow) {
				return nil, unreadError{err}
			}
			why = fmt.Sprintf("another repository, for commit %.12s, which it names, is not in this one", have.Commit)
		} else if repo := e.lineage.known.Load(); repo != nil && repo.Environments[have.Environment] != nil {
			continue // two environments of ours
		}
		if inventories == nil {
			var err error
			if inventories, err = cl.Inventories(ctx, []cluster.Account{{Namespace: cmp.Or(have.Ref.Namespace, t.Namespace), Name: t.Account}}); err != nil {
				inventories = []cluster.Inventory{} // then the other one has no name
			}
		}
		for _, inv := range inventories {
			if inv.Environment == have.Environment && cl.Foreign(inv) != nil {
				why = "the repository " + inv.Repository
			}
		}
		if why == "" {
			continue
		}
		if found == nil {
			found = map[render.Ref]string{}
		}
		found[ref] = why
	}
	return found, nil
}

// bringsNamespace tells whether the target renders its own namespace.
func bringsNamespace(t *Target) bool {
	for _, o := range t.Result.Objects {
		if o.Ref.Kind == "Namespace" && o.Ref.Group == "" && o.Ref.Name == t.Namespace {
			return true
		}
	}
	return false
}

// unreadError says that the repository could not be read. It may be read
// again: a mirror that is damaged is mended by the next fetch.
type unreadError struct{ error }

func (e unreadError) Unwrap() error { return e.error }

type refusedError []string

func (r refusedError) Error() string {
	var errs []error
	for _, s := range r {
		errs = append(errs, errors.New(s))
	}
	return errors.Join(errs...).Error()
}

// deployment is the writing part of one job.
type deployment struct {
	bounds Bounds
	cl     *cluster.Cluster
	target *Target
	commit string
	in     PlanInput
	before []render.Hook // that have to complete before the workloads are applied
	// careful: one request after the other, and none after one that fails.
	careful bool

	// drift is what was found of objects that others have changed.
	drift map[render.Ref]cluster.Drift

	mu    sync.Mutex // guards out, found, force and, while it is made, drift
	out   *Outcome
	found map[render.Ref]Finding // by the dry runs
	// force holds the objects whose fields are taken from another manager.
	force map[render.Ref]bool
}

// run validates and applies the plan, stage by stage.
func (d *deployment) run(ctx context.Context) error {
	d.force, d.found = map[render.Ref]bool{}, map[render.Ref]Finding{}
	validated := map[render.Ref]bool{}
	var early []Action
	for _, s := range d.out.Plan.Stages {
		for _, a := range s {
			if a.writes() && !d.waitsForFoundation(a) {
				early = append(early, a)
				validated[a.Ref] = true
			}
		}
	}
	if err := d.try(ctx, early); err != nil {
		return err
	}
	for i, s := range d.out.Plan.Stages {
		if len(d.before) > 0 && stage(s[0].Ref) >= stageWorkloads {
			break
		}
		var late []Action
		for _, a := range d.out.Plan.Stages[i] {
			if a.writes() && !validated[a.Ref] {
				late = append(late, a)
			}
		}
		if err := d.try(ctx, late); err != nil {
			return err
		}
		write := slices.DeleteFunc(slices.Clone(d.out.Plan.Stages[i]), func(a Action) bool { return !a.writes() })
		if err := d.each(ctx, write, d.apply); err != nil {
			return err
		}
		if err := d.established(ctx, write); err != nil {
			return err
		}
	}
	if len(d.before) > 0 {
		d.out.Hook = &d.before[0]
	}
	return nil
}

// examine finds out what others did, one by one.
func (d *deployment) examine(ctx context.Context) error {
	d.drift = map[render.Ref]cluster.Drift{}
	var actions []Action
	for _, s := range d.out.Plan.Stages {
		for _, a := range s {
			if a.Verb == Correct || a.Verb == Restore {
				actions = append(actions, a)
			}
		}
	}
	err := d.each(ctx, actions, func(ctx context.Context, a Action) error {
		x, err := d.cl.Drift(ctx, d.target.Result.Objects[a.Index])
		if err != nil {
			return err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.drift[a.Ref] = x
		return nil
	})
	for _, a := range actions {
		if x, ok := d.drift[a.Ref]; ok {
			d.out.Drift = append(d.out.Drift, x)
		}
	}
	return err
}

// try validates actions, and takes into the plan what that finds. If any of
// them can't be carried out, none is.
func (d *deployment) try(ctx context.Context, actions []Action) error {
	if len(actions) == 0 {
		return nil
	}
	err := d.each(ctx, actions, d.validate)
	d.out.Plan = Amend(d.out.Plan, d.in, d.found)
	clear(d.found)
	if len(d.out.Plan.Refused) > 0 {
		err = errors.Join(err, refusedError(d.out.Plan.Refused))
	}
	return err
}

// waitsForFoundation tells whether an object can't be validated before a
// namespace or a definition of the same service is there.
func (d *deployment) waitsForFoundation(a Action) bool {
	if Foundation(a.Ref) {
		return false
	}
	for _, o := range d.target.Result.Objects {
		if !Foundation(o.Ref) {
			continue
		}
		if _, there := d.in.Observed[o.Ref]; there {
			continue
		}
		if o.Ref.Kind == "Namespace" && o.Ref.Name == a.Ref.Namespace {
			return true
		}
		if o.Ref.Kind == "CustomResourceDefinition" && Defines(o, a.Ref) {
			return true
		}
	}
	return false
}

// Defines tells whether a CustomResourceDefinition defines an object's kind.
func Defines(crd render.Object, r render.Ref) bool {
	var def struct {
		Spec struct {
			Group string
			Names struct{ Kind string }
		}
	}
	return json.Unmarshal(crd.JSON, &def) == nil && def.Spec.Group == r.Group && def.Spec.Names.Kind == r.Kind
}

// each carries out f for all actions side by side, and joins the errors. It
// leaves half of the requests that may be in flight to other services, for an
// API server that does not answer one may answer another.
func (d *deployment) each(ctx context.Context, actions []Action, f func(context.Context, Action) error) error {
	if d.careful {
		for _, a := range actions {
			if err := f(ctx, a); err != nil {
				return err
			}
		}
		return nil
	}
	errs := make([]error, len(actions))
	var wait sync.WaitGroup
	places := make(chan struct{}, max(1, d.cl.Concurrency()/2))
	for i, a := range actions {
		places <- struct{}{}
		wait.Go(func() {
			defer func() { <-places }()
			errs[i] = f(ctx, a)
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// validate sends a dry run. A conflict with another manager is reported; the
// fields are taken only from objects that are ours already, or where the
// service says so.
func (d *deployment) validate(ctx context.Context, a Action) error {
	if x, ok := d.drift[a.Ref]; ok && x.Ours {
		d.mu.Lock()
		d.force[a.Ref] = true // it was ours, and was compared by a dry run that took the fields
		d.mu.Unlock()
		return nil
	}
	o := d.target.Result.Objects[a.Index]
	if err := outOfBounds(ctx, d.cl, d.bounds, d.target, []render.Object{o}); err != nil {
		return err
	}
	trial, err := d.cl.DryRun(ctx, o, d.commit, cluster.ApplyOptions{})
	var conflict *cluster.ConflictError
	if errors.As(err, &conflict) {
		if have, ours := d.in.Observed[a.Ref]; !d.target.Take && !(ours && have.Owned) {
			return err
		}
		d.mu.Lock()
		d.force[a.Ref] = true
		d.out.Warnings = append(d.out.Warnings, "takes over: "+conflict.Error())
		d.mu.Unlock()
		trial, err = d.cl.DryRun(ctx, o, d.commit, cluster.ApplyOptions{Force: true})
	}
	f := Finding{Exists: trial.Exists, Managers: trial.Managers}
	if errors.As(err, &f.Immutable) {
		err = nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.found[a.Ref] = f
	return err
}

// vanishing is how long a job waits for what it replaces to be gone. What takes
// longer is made when a watch shows that it is gone.
const vanishing = 10 * time.Second

func (d *deployment) apply(ctx context.Context, a Action) error {
	o := d.target.Result.Objects[a.Index]
	if a.Verb == Replace {
		err := d.cl.Remove(ctx, d.in.Observed[a.Ref], a.Propagation, vanishing)
		if errors.As(err, new(*cluster.GoingError)) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.out.Waits = true
			return nil
		}
		if err != nil {
			return err
		}
	}
	d.mu.Lock()
	force := d.force[a.Ref] && a.Verb != Replace
	d.mu.Unlock()
	applied, err := d.cl.Apply(ctx, o, d.commit, cluster.ApplyOptions{Force: force})
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case a.Verb == Replace:
		d.out.Replaced = append(d.out.Replaced, fmt.Sprintf("%s: %s", a.Ref, a.Reason))
		d.out.Created++
	case applied.Created:
		d.out.Created++
	case applied.Changed:
		d.out.Changed++
		if _, seen := d.in.Observed[a.Ref]; !seen || a.Verb == Adopt {
			was := a.Ref.String() + ", which was there before"
			if len(a.Managers) > 0 {
				was += ", managed by " + strings.Join(a.Managers, ", ")
			}
			d.out.Adopted = append(d.out.Adopted, was)
		}
	}
	return nil
}

// established waits until the foundations among the actions can carry others.
func (d *deployment) established(ctx context.Context, actions []Action) error {
	var wait []render.Object
	for _, a := range actions {
		if Foundation(a.Ref) {
			wait = append(wait, d.target.Result.Objects[a.Index])
		}
	}
	if len(wait) == 0 {
		return nil
	}
	return d.cl.Established(ctx, wait)
}
