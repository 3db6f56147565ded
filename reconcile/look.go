package reconcile

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// Look says where services stand, and changes nothing.
func Look(ctx context.Context, clusters map[desired.ClusterName]*cluster.Cluster, all []Rendered) []ServiceStatus {
	statuses := make([]ServiceStatus, len(all))
	for i, r := range all {
		statuses[i] = look(ctx, clusters, r)
	}
	return statuses
}

func look(ctx context.Context, clusters map[desired.ClusterName]*cluster.Cluster, r Rendered) ServiceStatus {
	u := &unit{key: r.Key, target: r.Target, phase: Pending}
	if r.Err != nil {
		u.phase, u.message = Failed, r.Err.Error()
		return u.status()
	}
	cl := clusters[r.Target.Cluster]
	if cl == nil {
		u.phase, u.message = Failed, fmt.Sprintf("cluster %q is not in the configuration", r.Target.Cluster)
		return u.status()
	}
	scope := cluster.Scope{Environment: r.Environment, Namespace: r.Target.Namespace}
	var unknown *cluster.UnknownKindError
	if err := cl.WatchObjects(ctx, scope, r.Target.Result.Objects); err != nil && !errors.As(err, &unknown) {
		u.message = err.Error()
		return u.status()
	}
	observed := cl.Lookup(r.Target.Result.Objects)
	u.compared = true
	u.inspect(observed)
	for _, have := range observed {
		if have.Owned && have.Applied.After(u.since) {
			u.since = have.Applied
		}
	}
	switch {
	case !u.inSync:
		u.message = u.outOfSync
	case len(u.unready) == 0:
		u.phase = Ready
	default:
		// The rollout's deadline counts from the last write.
		u.applied = u.since
		s := Next(u.view(time.Now(), nil))
		u.phase, u.message = s.Phase, s.Message
	}
	return u.status()
}

// Leftovers decides what would be pruned in an environment if all its
// services were as the commit wants them.
func Leftovers(ctx context.Context, cl *cluster.Cluster, repo *desired.Repository, env *desired.Environment, s Selection, all []Rendered) (Pruning, error) {
	scope := cluster.Scope{Environment: env.Name, Namespace: env.Namespace}
	inv, err := cl.Inventory(ctx, scope)
	if err != nil {
		return Pruning{}, err
	}
	if err := cl.Watch(ctx, scope, inv.Kinds); err != nil {
		return Pruning{}, err
	}
	in := PruneInput{
		Environment: env.Name,
		Observation: cl.Observe(scope),
		Services:    map[desired.ServiceName]Standing{},
		Confirmed:   inv.Confirmed,
	}
	elsewhere := map[render.Ref]bool{}
	for _, r := range all {
		standing := Standing{Settled: r.Err == nil, Renders: map[render.Ref]bool{}}
		if r.Err != nil {
			standing.Why = "its service could not be rendered: " + strings.TrimSpace(r.Err.Error())
		} else {
			for _, o := range r.Target.Result.Objects {
				standing.Renders[o.Ref] = true
				if r.Environment != env.Name {
					elsewhere[o.Ref] = true
				}
			}
		}
		if r.Environment == env.Name {
			in.Services[r.Service] = standing
		}
	}
	in.Elsewhere = func(r render.Ref) bool { return elsewhere[r] }
	for _, o := range in.Observation.Objects {
		if _, known := in.Services[o.Service]; known {
			continue
		}
		standing := Standing{Why: "its service was not looked at"}
		if s.Has(Key{env.Name, o.Service}) {
			standing.Gone, standing.Why = repo.Gone(env.Name, o.Service)
		}
		in.Services[o.Service] = standing
	}
	return Prune(in), nil
}
