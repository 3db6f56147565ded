package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pinion-cd/pinion/render"
)

// selector finds what Pinion has applied.
const selector = render.LabelManagedBy + "=" + render.ManagedBy

// Watch sees to it that the kinds are watched for a scope, and waits until all
// have been listed, ctx ends, or a list or a watch fails; the watches go on
// trying in any case, and Changes tells when they succeed. Kinds that the API
// server does not serve count as read and empty, and are looked for again by
// the next call. What is watched already costs nothing.
//
// One call adds to what others asked for in the same scope.
func (c *Cluster) Watch(ctx context.Context, scope Scope, kinds []Kind) error {
	_, err := c.watch(ctx, scope, kinds)
	return err
}

// WatchObjects watches the kinds of objects, as Watch does. A kind that the API
// server does not serve is an *UnknownKindError, unless a
// CustomResourceDefinition among the objects defines it.
func (c *Cluster) WatchObjects(ctx context.Context, scope Scope, objects []render.Object) error {
	unknown, err := c.watch(ctx, scope, kindsOf(objects))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range unknown {
		if !slices.ContainsFunc(objects, func(o render.Object) bool { return defines(o, e.Group, e.Kind) }) {
			errs = append(errs, e)
		}
	}
	return errors.Join(errs...)
}

// kindsOf returns the kinds of objects, sorted, each once.
func kindsOf(objects []render.Object) []Kind {
	seen := map[Kind]struct{}{}
	for _, o := range objects {
		seen[Kind{Group: o.Ref.Group, Kind: o.Ref.Kind, Version: o.Version, Namespace: o.Ref.Namespace}] = struct{}{}
	}
	return slices.SortedFunc(maps.Keys(seen), Kind.Compare)
}

// defines tells whether an object is the definition of a kind.
func defines(o render.Object, group, kind string) bool {
	if o.Ref.Kind != "CustomResourceDefinition" {
		return false
	}
	var d struct {
		Spec struct {
			Group string
			Names struct{ Kind string }
		}
	}
	return json.Unmarshal(o.JSON, &d) == nil && d.Spec.Group == group && d.Spec.Names.Kind == kind
}

func (c *Cluster) watch(ctx context.Context, scope Scope, kinds []Kind) ([]*UnknownKindError, error) {
	// The inventory is a ConfigMap, so that its changes are seen.
	kinds = append([]Kind{{Kind: "ConfigMap", Version: "v1", Namespace: scope.Namespace}}, kinds...)
	var unknown []*UnknownKindError
	var errs []error
	views := map[*reflection]struct{}{}
	for _, k := range kinds {
		if k.Namespace == "" {
			k.Namespace = scope.Namespace
		}
		r, err := c.begin(ctx, scope, k)
		var u *UnknownKindError
		switch {
		case errors.As(err, &u):
			unknown = append(unknown, u)
		case err != nil:
			errs = append(errs, err)
		default:
			views[r] = struct{}{}
		}
	}
	for r := range views {
		if err := r.wait(ctx); err != nil {
			errs = append(errs, err)
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return compareText(a.Error(), b.Error()) })
	return unknown, errors.Join(errs...)
}

func (r *reflection) wait(ctx context.Context) error {
	for {
		state, signal := r.get()
		if state.err != nil {
			return state.err
		}
		if state.synced {
			return nil
		}
		select {
		case <-signal:
		case <-ctx.Done():
			return fmt.Errorf("list %s: %w", r.place.where(), ctx.Err())
		}
	}
}

// begin starts to watch a kind for a scope, if that is not done.
func (c *Cluster) begin(ctx context.Context, scope Scope, k Kind) (*reflection, error) {
	p := place{k.Group, k.Kind, k.Namespace}
	c.mu.Lock()
	r := c.places[p]
	if r == nil {
		q := p
		q.namespace = ""
		r = c.places[q] // if the kind is of the cluster's scope
	}
	if r != nil {
		if st, _ := r.get(); st.err == nil {
			c.join(scope, r.place)
			c.mu.Unlock()
			return r, nil
		}
	}
	c.mu.Unlock()

	// Any version will do, and the preferred one stays the longest; but rules of
	// health are written for one.
	version, _ := c.health.wants(p.String())
	ref := render.Ref{Group: k.Group, Kind: k.Kind, Namespace: k.Namespace}
	m, err := c.resolve(ctx, "watch "+p.where(), ref, version)
	if version != "" && errors.As(err, new(*UnknownKindError)) {
		m, err = c.resolve(ctx, "watch "+p.where(), ref, "")
	}
	var unknown *UnknownKindError
	if errors.As(err, &unknown) {
		unknown.Ref, unknown.Version = render.Ref{}, k.Version
		if r != nil { // it was served, and no longer is
			c.end(r)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.note(scope, k)
		return nil, unknown
	}
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.note(scope, k)
		c.unresolved[k] = err
		return nil, err
	}
	p.namespace = m.Ref.Namespace
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.absent[scope], k)
	delete(c.unresolved, k)
	if r = c.places[p]; r == nil || r.gvr != m.GVR {
		if r != nil {
			r.cancel()
		}
		r = c.start(p, m)
	}
	c.join(scope, p)
	return r, nil
}

// join counts a place as the scope's. c.mu is held.
func (c *Cluster) join(scope Scope, p place) {
	if c.scopes[scope] == nil {
		c.scopes[scope] = map[place]struct{}{}
	}
	c.scopes[scope][p] = struct{}{}
}

// note remembers a kind that could not be watched. c.mu is held.
func (c *Cluster) note(scope Scope, k Kind) {
	if c.absent[scope] == nil {
		c.absent[scope] = map[Kind]struct{}{}
	}
	c.absent[scope][k] = struct{}{}
	delete(c.unresolved, k)
}

// start begins a watch. c.mu is held.
func (c *Cluster) start(p place, m Mapped) *reflection {
	r := newReflection(p, m.GVR)
	r.changed = func(before, after *Observed) { c.changed(r, before, after) }
	r.moved = func() { c.moved(p) }
	c.feed(r)
	c.places[p] = r
	return r
}

// vanished looks whether a kind whose list was answered by "not found" is no
// longer served; then its objects are gone too, and that is certain. One that is
// served in another version by now is watched in that.
func (c *Cluster) vanished(r *reflection) {
	if c.ctx.Err() != nil {
		return
	}
	c.mapper.forget(true)
	m, err := c.resolve(c.ctx, "watch "+r.place.where(), render.Ref{Group: r.place.group, Kind: r.place.kind, Namespace: r.place.namespace}, "")
	var unknown *UnknownKindError
	switch {
	case errors.As(err, &unknown):
		c.end(r)
	case err == nil:
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.places[r.place] == r && m.GVR != r.gvr && m.Ref.Namespace == r.place.namespace {
			r.gvr = m.GVR
			c.feed(r)
		}
	}
}

// end drops a place of a kind that is no longer served.
func (c *Cluster) end(r *reflection) {
	c.mu.Lock()
	if c.places[r.place] != r {
		c.mu.Unlock()
		return
	}
	r.cancel()
	delete(c.places, r.place)
	var keys []Key
	for scope, places := range c.scopes {
		if _, ok := places[r.place]; ok {
			delete(places, r.place)
			c.note(scope, Kind{Group: r.place.group, Kind: r.place.kind, Version: r.gvr.Version, Namespace: r.place.namespace})
			keys = append(keys, Key{Environment: scope.Environment})
		}
	}
	c.mu.Unlock()
	r.mu.Lock()
	for _, o := range r.objects {
		keys = append(keys, Key{o.Environment, o.Service})
	}
	r.mu.Unlock()
	c.changes.add(keys...)
}

// Unwatch ends what only this scope asked to be watched.
func (c *Cluster) Unwatch(scope Scope) {
	var ended []*reflection
	c.mu.Lock()
	places := c.scopes[scope]
	delete(c.scopes, scope)
	delete(c.absent, scope)
	delete(c.inventories, scope)
	for p := range places {
		used := false
		for _, others := range c.scopes {
			_, ok := others[p]
			used = used || ok
		}
		if r := c.places[p]; r != nil && !used {
			r.cancel()
			delete(c.places, p)
			ended = append(ended, r)
		}
	}
	c.mu.Unlock()
	for _, r := range ended {
		c.unexpect(r)
	}
}

// Watches returns what is watched, sorted: "Deployment.apps in namespace shop".
func (c *Cluster) Watches() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []string
	for p := range c.places {
		all = append(all, p.where())
	}
	slices.Sort(all)
	return all
}

// Observe returns what is known of a scope: the objects with its environment's
// label, of the kinds that were watched for it. It sends nothing.
func (c *Cluster) Observe(scope Scope) Observation {
	c.mu.Lock()
	views := make([]*reflection, 0, len(c.scopes[scope]))
	for p := range c.scopes[scope] {
		views = append(views, c.places[p])
	}
	o := Observation{Objects: map[render.Ref]Observed{}}
	for k := range c.absent[scope] {
		if err := c.unresolved[k]; err != nil {
			o.Incomplete = append(o.Incomplete, err.Error())
		}
	}
	c.mu.Unlock()
	if len(views) == 0 {
		o.Incomplete = append(o.Incomplete, fmt.Sprintf("nothing of environment %s is watched yet", scope.Environment))
	}
	now := time.Now()
	for _, r := range views {
		r.mu.Lock()
		if why := r.state.why(r.place, now); why != "" {
			o.Incomplete = append(o.Incomplete, why)
		}
		for _, object := range r.objects {
			if object.Environment == scope.Environment {
				o.Objects[object.Ref] = c.explained(object)
			}
		}
		r.mu.Unlock()
	}
	slices.Sort(o.Incomplete)
	o.Incomplete = slices.Compact(o.Incomplete)
	o.Complete = len(o.Incomplete) == 0
	return o
}

// Lookup returns what is known of rendered objects, by the refs that they were
// rendered with; what is not there, or not watched, is missing. It sends
// nothing.
func (c *Cluster) Lookup(objects []render.Object) map[render.Ref]Observed {
	found := make(map[render.Ref]Observed, len(objects))
	for _, o := range objects {
		if r, ref := c.view(o.Ref); r != nil {
			r.mu.Lock()
			object := r.objects[ref.Name]
			r.mu.Unlock()
			if object != nil {
				found[o.Ref] = c.explained(object)
			}
		}
	}
	return found
}

// Sight tells whether what Lookup says of objects can be believed now, and since
// when without a gap: what changed before, and changed back, may not have been
// seen. It sends nothing.
func (c *Cluster) Sight(objects []render.Object) (since time.Time, seen bool) {
	now, seen := time.Now(), true
	var last *reflection
	for _, o := range objects {
		r, _ := c.view(o.Ref)
		if r == nil {
			seen = false
			continue
		}
		if r == last { // they are sorted
			continue
		}
		last = r
		r.mu.Lock()
		if r.sound.After(since) {
			since = r.sound
		}
		seen = seen && r.state.why(r.place, now) == ""
		r.mu.Unlock()
	}
	return since, seen
}

// view finds the place that shows an object, and the object's ref there.
func (c *Cluster) view(ref render.Ref) (*reflection, render.Ref) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.places[placeOf(ref)]; r != nil {
		return r, ref
	}
	ref.Namespace = "" // if it is of the cluster's scope
	return c.places[placeOf(ref)], ref
}

// establishTime is how long a namespace or a definition is waited for by one
// attempt; it takes well under a second.
const establishTime = 30 * time.Second

// Established waits until namespaces and CustomResourceDefinitions that were
// just applied can carry other objects. Others it does not wait for. One that
// the API server will not establish, since its names are taken, is a
// *NotEstablishedError.
func (c *Cluster) Established(ctx context.Context, objects []render.Object) error {
	ctx, cancel := context.WithTimeout(ctx, establishTime)
	defer cancel()
	for _, o := range objects {
		if o.Ref.Kind != "CustomResourceDefinition" && o.Ref.Kind != "Namespace" {
			continue
		}
		r, ref := c.view(o.Ref)
		if r == nil {
			return fmt.Errorf("wait for %s: it is not watched", o.Ref)
		}
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			r.mu.Lock()
			object, failed := r.objects[ref.Name], r.state.err
			r.mu.Unlock()
			if object != nil && object.Health.Status == Current {
				tick.Stop()
				break
			}
			if object != nil && object.Health.Status == Failed && !c.unjudged(object) {
				tick.Stop()
				return &NotEstablishedError{Ref: o.Ref, Message: object.Health.Message}
			}
			select {
			case <-tick.C:
				continue
			case <-ctx.Done():
				tick.Stop()
				if failed != nil {
					return failed
				}
				if object != nil && object.Health.Message != "" {
					return &RetryableError{Op: "wait for", Ref: o.Ref, Err: fmt.Errorf("%w: %s", ctx.Err(), object.Health.Message)}
				}
				return fmt.Errorf("wait for %s: %w", o.Ref, ctx.Err())
			}
		}
	}
	c.mapper.forget(false)
	for _, o := range objects {
		if err := c.served(ctx, o); err != nil {
			return err
		}
	}
	return c.resume(ctx)
}

// served waits until the API server says that it has the kinds that an object
// defines, which it does a moment after they are established.
func (c *Cluster) served(ctx context.Context, o render.Object) error {
	if o.Ref.Kind != "CustomResourceDefinition" {
		return nil
	}
	var d struct {
		Spec struct {
			Group    string
			Names    struct{ Kind string }
			Versions []struct {
				Name   string
				Served bool
			}
		}
	}
	if err := json.Unmarshal(o.JSON, &d); err != nil {
		return fmt.Errorf("wait for %s: %w", o.Ref, err)
	}
	for _, v := range d.Spec.Versions {
		for v.Served {
			_, err := c.resolve(ctx, "wait for", render.Ref{Group: d.Spec.Group, Kind: d.Spec.Names.Kind}, v.Name)
			var unknown *UnknownKindError
			if err == nil {
				break
			}
			if !errors.As(err, &unknown) {
				return err
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return fmt.Errorf("wait for %s: %w", o.Ref, ctx.Err())
			}
			c.mapper.forget(false)
		}
	}
	return nil
}

// resume looks again for kinds that were not served when they were to be
// watched.
func (c *Cluster) resume(ctx context.Context) error {
	type missing struct {
		scope Scope
		kind  Kind
	}
	var all []missing
	c.mu.Lock()
	for s, kinds := range c.absent {
		for k := range kinds {
			all = append(all, missing{s, k})
		}
	}
	c.mu.Unlock()
	for _, m := range all {
		var unknown *UnknownKindError
		if _, err := c.begin(ctx, m.scope, m.kind); err != nil && !errors.As(err, &unknown) {
			return err
		}
	}
	return nil
}
