package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
)

// Needs says on which services others depended as they were applied.
type Needs map[desired.ServiceName][]desired.ServiceName

// InOrder has dependents leave first: what leaves a service waits until all is
// gone that leaves the services which depended on it, and until those of them
// that stay are rolled out. What needs does not tell of waits for nothing and is
// waited for by nobody. Services that depend on each other in a circle, as those
// of several commits may, do not wait for each other.
func (p Pruning) InOrder(services map[desired.ServiceName]Standing, needs Needs) Pruning {
	present := maps.Clone(p.leaving)
	for name, s := range services {
		if s.Pending {
			present[name] = true
		}
	}
	dependents := map[desired.ServiceName][]desired.ServiceName{} // of those that are present
	for _, d := range slices.Sorted(maps.Keys(present)) {
		for _, s := range needs[d] {
			if s != d && present[s] && !slices.Contains(dependents[s], d) {
				dependents[s] = append(dependents[s], d)
			}
		}
	}
	turn := turns(present, dependents)
	p.Delete = slices.Clone(p.Delete)
	awaited := map[desired.ServiceName]bool{}
	for i := range p.Delete {
		d := &p.Delete[i]
		var first []string
		for _, x := range dependents[d.Object.Service] {
			if turn[x] >= turn[d.Object.Service] {
				continue // in a circle
			}
			awaited[x] = true
			d.after = append(d.after, x)
			if p.leaving[x] {
				first = append(first, fmt.Sprintf("what leaves service %s, which depended on it, goes first", x))
			} else {
				first = append(first, fmt.Sprintf("service %s, which depended on it, is to be ready first", x))
			}
		}
		d.Waits = strings.Join(first, "; ")
	}
	for i := range p.Delete {
		p.Delete[i].Awaited = awaited[p.Delete[i].Object.Service]
	}
	slices.SortStableFunc(p.Delete, func(a, b Deletion) int {
		return cmp.Compare(turn[a.Object.Service], turn[b.Object.Service])
	})
	return p
}

// turns numbers services so that each has a higher number than its dependents.
// Those in a circle, and what only they depend on, share the highest.
func turns(present map[desired.ServiceName]bool, dependents map[desired.ServiceName][]desired.ServiceName) map[desired.ServiceName]int {
	turn := map[desired.ServiceName]int{}
	for n := 0; len(turn) < len(present); n++ {
		var next []desired.ServiceName
		for s := range present {
			_, has := turn[s]
			if !has && !slices.ContainsFunc(dependents[s], func(d desired.ServiceName) bool { _, ok := turn[d]; return !ok }) {
				next = append(next, s)
			}
		}
		if len(next) == 0 { // a circle
			for s := range present {
				if _, has := turn[s]; !has {
					turn[s] = n
				}
			}
		}
		for _, s := range next {
			turn[s] = n
		}
	}
	return turn
}

// behind says what waits until a service is gone, or "".
func (p Pruning) behind(name desired.ServiceName) string {
	waits := map[string]bool{}
	for _, d := range p.Delete {
		if slices.Contains(d.after, name) {
			waits[string(d.Object.Service)] = true
		}
	}
	if len(waits) == 0 {
		return ""
	}
	return "what leaves service " + strings.Join(slices.Sorted(maps.Keys(waits)), ", ") + ", on which it depended, goes after it"
}

// ready returns the deletions that wait for nothing.
func (p Pruning) ready() []Deletion {
	return slices.DeleteFunc(slices.Clone(p.Delete), func(d Deletion) bool { return d.Waits != "" })
}

// origin is a service as a commit has it; before: and as it was before, too.
type origin struct {
	service desired.ServiceName
	commit  string
	before  bool
}

// needs reads on which services those depended whose objects leave a site, or
// that are not settled. Each object names the commit that it comes from, so that
// is known when the commit that removes the service is the newest one, and after
// a restart. Of what is not settled, pods of before may be there: what those
// depended on is what the deployment before did, and all that are seen until it
// is settled.
func (e *Engine) needs(ctx context.Context, est *estate, in PruneInput, p Pruning) (Needs, error) {
	if est.origins == nil {
		est.origins, est.unsettled = map[origin][]desired.ServiceName{}, Needs{}
	}
	needs := Needs{}
	seen := map[origin]bool{}
	for _, o := range in.Observation.Objects {
		pending := in.Services[o.Service].Pending
		from := origin{o.Service, o.Commit, pending}
		if seen[from] || !o.Owned || o.Environment != est.environment || o.Commit == "" || !p.leaving[o.Service] && !pending {
			continue
		}
		seen[from] = true
		on, known := est.origins[from]
		if !known {
			var err error
			if on, err = dependsOn(ctx, e.options.Commits, est.environment, from); err != nil {
				return nil, fmt.Errorf("read on what service %s depended at commit %.12s: %w", from.service, from.commit, err)
			}
			est.origins[from] = on
		}
		needs[o.Service] = append(needs[o.Service], on...)
	}
	for name, s := range in.Services {
		if !s.Pending {
			delete(est.unsettled, name)
			continue
		}
		needs[name] = append(needs[name], est.unsettled[name]...)
		slices.Sort(needs[name])
		needs[name] = slices.Compact(needs[name])
		est.unsettled[name] = needs[name]
	}
	return needs, nil
}

// dependsOn reads on which services one depended in an environment.
func dependsOn(ctx context.Context, commits Commits, env desired.EnvironmentName, from origin) ([]desired.ServiceName, error) {
	on, err := dependsAt(ctx, commits, env, from)
	if err != nil || !from.before {
		return on, err
	}
	parent := ""
	err = commits.History(ctx, from.commit, func(c gitstate.CommitInfo) bool {
		if c.ID != from.commit {
			parent = c.ID
		}
		return parent == ""
	})
	if err != nil && !errors.Is(err, gitstate.ErrShallow) && !errors.Is(err, gitstate.ErrNoCommit) {
		return nil, err
	}
	if parent == "" {
		return on, nil
	}
	more, err := dependsAt(ctx, commits, env, origin{service: from.service, commit: parent})
	return slices.Concat(on, more), err
}

// dependsAt reads on which services one depended at a commit; on none, if that is
// not there any more or has no such service.
func dependsAt(ctx context.Context, commits Commits, env desired.EnvironmentName, from origin) ([]desired.ServiceName, error) {
	at := func(commit string) (*gitstate.Snapshot, error) {
		snap, err := commits.Snapshot(ctx, commit)
		if errors.Is(err, gitstate.ErrNoCommit) {
			return nil, nil
		}
		return snap, err
	}
	snap, err := at(from.commit)
	if snap == nil {
		return nil, err
	}
	e, _, err := desired.ReadEnvironment(snap, env)
	if err != nil {
		return nil, err
	}
	if e != nil && e.Manifests[from.service] != "" {
		if snap, err = at(e.Manifests[from.service]); snap == nil {
			return nil, err
		}
	}
	s, _, err := desired.ReadService(snap, from.service)
	if s == nil {
		return nil, err
	}
	return s.DependsOn, nil
}
