package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// Look says where services stand, and changes nothing.
func Look(ctx context.Context, clusters map[desired.ClusterName]*cluster.Cluster, all []Rendered) []ServiceStatus {
	units := make([]*unit, len(all))
	for i, r := range all {
		units[i] = look(ctx, reach(clusters, r), r)
	}
	awaitReasons(ctx, clusters, units)
	statuses := make([]ServiceStatus, len(all))
	for i, u := range units {
		if u.compared {
			// The rollout's deadline counts from the last write.
			u.applied = u.since
			s := Next(u.view(time.Now(), nil))
			u.phase, u.message = s.Phase, s.Message
		}
		statuses[i] = u.status()
	}
	return statuses
}

// reach returns the cluster of what was rendered; nil if there is none.
func reach(clusters map[desired.ClusterName]*cluster.Cluster, r Rendered) *cluster.Cluster {
	if r.Target == nil {
		return nil
	}
	return Connection(clusters, r.Target.Place, r.Target.Account)
}

// look compares one service with the cluster, which may be nil.
func look(ctx context.Context, cl *cluster.Cluster, r Rendered) *unit {
	u := &unit{key: r.Key, target: r.Target, phase: Pending, suspended: r.Suspended}
	if r.Err != nil {
		u.phase, u.message = Failed, r.Err.Error()
		return u
	}
	if cl == nil {
		u.phase, u.message = Failed, fmt.Sprintf("cluster %q is not in the configuration", r.Target.Cluster)
		return u
	}
	scope := cluster.Scope{Environment: r.Environment, Namespace: r.Target.Namespace}
	cl.SetHealth(cluster.Key{Environment: r.Environment, Service: r.Service}, r.Target.Health)
	var unknown *cluster.UnknownKindError
	if err := cl.WatchObjects(ctx, scope, r.Target.Result.Objects); err != nil && !errors.As(err, &unknown) {
		u.message = err.Error()
		return u
	}
	observed := cl.Lookup(r.Target.Result.Objects)
	done, err := completed(ctx, cl, r.Target)
	if err != nil {
		u.message = err.Error()
		return u
	}
	u.knows(done)
	u.compared = true
	u.inspect(observed)
	if u.drifted {
		u.drift(ctx, cl)
	}
	for _, have := range observed {
		if have.Owned && have.Applied.After(u.since) {
			u.since = have.Applied
		}
	}
	return u
}

// drift finds out what others did, to show it.
func (u *unit) drift(ctx context.Context, cl *cluster.Cluster) {
	u.tolerates = u.target.Report
	d := Drift{Key: u.key, Target: u.target}
	for _, o := range u.target.Result.Objects {
		have, ok := cl.Lookup([]render.Object{o})[o.Ref]
		if !u.lost(o, have, ok) {
			continue
		}
		x, err := cl.Drift(ctx, o)
		if err != nil {
			return // what is known without it is shown
		}
		d.Objects = append(d.Objects, x)
	}
	u.found, u.examined = &d, u.off
	if !empty(d.Objects) {
		u.outOfSync = d.describe()
	}
}

// explanation is how long Look waits for the pods of workloads that are not
// ready to say why. They are watched from a second after that is seen.
const explanation = 3 * time.Second

// awaitReasons waits until each workload that is not ready has a reason, or
// for as long as explanation.
func awaitReasons(ctx context.Context, clusters map[desired.ClusterName]*cluster.Cluster, units []*unit) {
	ctx, cancel := context.WithTimeout(ctx, explanation)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		waiting := false
		for _, u := range units {
			if !u.compared || len(u.unready) == 0 {
				continue
			}
			u.inspect(Connection(clusters, u.target.Place, u.target.Account).Lookup(u.target.Result.Objects))
			waiting = waiting || slices.ContainsFunc(u.unready, func(x Unready) bool { return x.Health.Reason == "" })
		}
		if !waiting {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Leftovers decides what would be pruned in an environment if all its
// services were as the commit wants them.
func Leftovers(ctx context.Context, commits Commits, cl *cluster.Cluster, repo *desired.Repository, env *desired.Environment, s Selection, all []Rendered) (Pruning, error) {
	scope := cluster.Scope{Environment: env.Name, Namespace: env.Namespace}
	inv, err := cl.Inventory(ctx, scope)
	if err == nil {
		err = cl.Foreign(inv)
	}
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
		Foreign:     foreign(ctx, commits, env.Namespace),
		Confirmed:   inv.Confirmed,
	}
	elsewhere := map[render.Ref]bool{}
	for _, r := range all {
		standing := Standing{Settled: r.Err == nil, Renders: map[render.Ref]bool{}}
		if r.Suspended != "" {
			standing.Settled, standing.Why = false, r.Suspended
		}
		if r.Err != nil {
			standing.Why = "its service could not be rendered: " + strings.TrimSpace(r.Err.Error())
		} else {
			standing.renders(cl, r.Target)
			for _, o := range r.Target.Result.Objects {
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
		if why := repo.Suspended(env.Name, o.Service); why != "" {
			standing.Why = why
		} else if s.Has(Key{env.Name, o.Service}) {
			standing.Gone, standing.Why = repo.Gone(env.Name, o.Service)
		}
		in.Services[o.Service] = standing
	}
	return Prune(in), nil
}
