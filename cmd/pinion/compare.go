package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// compareLive compares renderings with what the clusters have. It also says
// what has left the commit and is kept all the same, and why.
func compareLive(ctx context.Context, in *session, s reconcile.Selection, all []reconcile.Rendered) (changes []change, kept []string, err error) {
	var errs []error
	for _, r := range all {
		if r.Err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.Key, r.Err))
			continue
		}
		cl := reconcile.Connection(in.clusters, r.Target.Place, r.Target.Account)
		if cl == nil {
			errs = append(errs, fmt.Errorf("%s: cluster %q is not in the configuration", r.Key, r.Target.Cluster))
			continue
		}
		bounds := in.config.fences().Of(r.Target.Cluster, r.Environment, r.Target.Account)
		for _, why := range bounds.Refusals(r.Target) {
			errs = append(errs, fmt.Errorf("%s: %s", r.Key, why))
		}
		for _, o := range r.Target.Result.Objects {
			if bounds.Refusal(r.Environment, r.Target.Namespace, o.Ref) != "" {
				continue
			}
			d, err := cl.Diff(ctx, o)
			hideFields(d.Changes, o)
			var unknown *cluster.UnknownKindError
			switch {
			case errors.As(err, &unknown) && brings(all, r.Target.Cluster, o.Ref):
				changes = append(changes, change{Key: r.Key, Object: o.Ref, Verb: "create"})
			case err != nil:
				errs = append(errs, fmt.Errorf("%s: %w", r.Key, r.Target.Hide(err)))
			case !d.Exists:
				changes = append(changes, change{Key: r.Key, Object: o.Ref, Verb: "create"})
			case d.Immutable != nil:
				c := change{Key: r.Key, Object: o.Ref, Verb: "replace", Fields: d.Changes}
				var how cluster.Propagation
				if how, c.Reason = reconcile.Replacement(r.Target, o, !d.Adopts, d.Immutable); how == "" {
					c.Verb, c.Reason = "update", "apply refuses it: "+c.Reason
				}
				c.Reason = r.Target.Result.Mask().Hide(c.Reason)
				changes = append(changes, c)
			case d.Adopts:
				changes = append(changes, change{Key: r.Key, Object: o.Ref, Verb: "adopt", Reason: reconcile.Adoption(d.Managers), Fields: d.Changes})
			case len(d.Changes) > 0:
				changes = append(changes, change{Key: r.Key, Object: o.Ref, Verb: "update", Fields: d.Changes})
			}
			if d.Conflict != nil && d.Adopts && !r.Target.Take {
				changes[len(changes)-1].Reason += "; apply refuses it: " + d.Conflict.Error()
			}
		}
	}
	for _, env := range in.commit.Repository.Environments {
		if !s.HasEnvironment(env.Name) || in.clusters[env.Cluster] == nil {
			continue
		}
		cl := reconcile.Connection(in.clusters, reconcile.Place{Cluster: env.Cluster, Namespace: env.Namespace}, env.ServiceAccount)
		p, err := reconcile.Leftovers(ctx, in.commits, cl, in.commit.Repository, env, s, all)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, k := range p.Keep {
			kept = append(kept, k.Ref.String()+": "+k.Reason)
		}
		for _, d := range p.Delete {
			changes = append(changes, change{Key: reconcile.Key{Environment: env.Name, Service: d.Object.Service}, Object: d.Ref, Verb: "delete", Reason: d.Reason})
		}
		switch {
		case p.Halt == "":
		case len(p.Delete) > 0: // they wait for a person
			for i := range changes[len(changes)-len(p.Delete):] {
				changes[len(changes)-1-i].Reason += "; not before it is confirmed: " + p.Halt
			}
		default:
			errs = append(errs, errors.New(p.Halt))
		}
	}
	slices.SortStableFunc(changes, func(a, b change) int { return a.Key.Compare(b.Key) })
	return changes, kept, errors.Join(errs...)
}

// hideFields hides all values of an object in which one was decrypted: what it
// was before can't be told from the others.
func hideFields(fields []cluster.FieldChange, o render.Object) {
	if len(o.Hidden) == 0 {
		return
	}
	for i := range fields {
		if fields[i].Old != "" {
			fields[i].Old = render.Masked + " (before)"
		}
		if fields[i].New != "" {
			fields[i].New = render.Masked + " (after)"
		}
	}
}

// brings tells whether one of the renderings defines an object's kind.
func brings(all []reconcile.Rendered, cluster desired.ClusterName, ref render.Ref) bool {
	return slices.ContainsFunc(all, func(r reconcile.Rendered) bool {
		return r.Err == nil && r.Target.Cluster == cluster &&
			slices.ContainsFunc(r.Target.Result.Objects, func(o render.Object) bool { return reconcile.Defines(o, ref) })
	})
}

// compareRenderings compares what two commits render.
func compareRenderings(before, after []reconcile.Rendered) ([]change, error) {
	type object struct {
		key reconcile.Key
		ref render.Ref
	}
	var errs []error
	old := map[object]render.Object{}
	for _, r := range before {
		if r.Err != nil {
			errs = append(errs, fmt.Errorf("%s, before: %w", r.Key, r.Err))
			continue
		}
		for _, o := range r.Target.Result.All() {
			old[object{r.Key, o.Ref}] = o
		}
	}
	var changes []change
	for _, r := range after {
		if r.Err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.Key, r.Err))
			continue
		}
		for _, o := range r.Target.Result.All() {
			id := object{r.Key, o.Ref}
			was, ok := old[id]
			delete(old, id)
			if !ok {
				changes = append(changes, change{Key: r.Key, Object: o.Ref, Verb: "create"})
				continue
			}
			if was.Digest == o.Digest {
				continue
			}
			fields, err := cluster.Compare(was, o)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			hideFields(fields, o)
			hideFields(fields, was)
			changes = append(changes, change{Key: r.Key, Object: o.Ref, Verb: "update", Fields: fields})
		}
	}
	for id := range old {
		changes = append(changes, change{Key: id.key, Object: id.ref, Verb: "delete"})
	}
	slices.SortStableFunc(changes, func(a, b change) int {
		if c := a.Key.Compare(b.Key); c != 0 {
			return c
		}
		return a.Object.Compare(b.Object)
	})
	return changes, errors.Join(errs...)
}
