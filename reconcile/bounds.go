package reconcile

import (
	"fmt"
	"slices"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// Bounds say what an environment may have besides objects in its own namespace.
type Bounds struct {
	Namespaces    []string // "*": all
	ClusterScoped []string // kinds, as in "ClusterRole.rbac.authorization.k8s.io"; "*": all
	// Key is where the daemon's configuration says so: "clusters.a.environments.b".
	Key string
}

// Fences are the bounds of the environments of each cluster. A cluster that is
// missing here says nothing about any.
type Fences map[desired.ClusterName]map[desired.EnvironmentName]Bounds

// Of returns the bounds of an environment. Where the configuration says nothing,
// kinds of the cluster's scope are anybody's who has no service account; in a
// cluster with tenants nobody has what is not written down.
func (f Fences) Of(name desired.ClusterName, env desired.EnvironmentName, account string) Bounds {
	var b Bounds
	environments, fenced := f[name]
	if fenced {
		b = environments[env]
	} else if account == "" {
		b.ClusterScoped = []string{"*"}
	}
	b.Key = fmt.Sprintf("clusters.%s.environments.%s", name, env)
	return b
}

// Refusal says why an object is out of bounds, what it is known by and what
// would let it in; "" if it is not. namespace is the environment's own.
func (b Bounds) Refusal(env desired.EnvironmentName, namespace string, r render.Ref) string {
	switch {
	case r.Namespace == namespace:
		return ""
	case r.Namespace == "":
		kind := kindName(r)
		if slices.Contains(b.ClusterScoped, "*") || slices.Contains(b.ClusterScoped, kind) {
			return ""
		}
		return fmt.Sprintf("is of the whole cluster, which environment %s may not have; if it may, write %s: {clusterScoped: [%s]} into the daemon's configuration", env, b.Key, kind)
	case slices.Contains(b.Namespaces, "*") || slices.Contains(b.Namespaces, r.Namespace):
		return ""
	}
	return fmt.Sprintf("is in the namespace %s, but the environment %s has the namespace %s; leave metadata.namespace out, or, if it may be there, write %s: {namespaces: [%s]} into the daemon's configuration",
		r.Namespace, env, namespace, b.Key, r.Namespace)
}

func kindName(r render.Ref) string { return cluster.Kind{Group: r.Group, Kind: r.Kind}.String() }

// Refusals says of which objects of a rendering an environment may not have
// any, with the file that each is from.
func (b Bounds) Refusals(t *Target) []string {
	var all []string
	for _, o := range t.Result.All() {
		if why := b.refuses(t, o, o.Ref); why != "" {
			all = append(all, why)
		}
	}
	return all
}

// refuses judges an object by where it really is.
func (b Bounds) refuses(t *Target, o render.Object, r render.Ref) string {
	why := b.Refusal(t.Environment, t.Namespace, r)
	if why == "" {
		return ""
	}
	e := render.Error{File: o.At.File, Line: o.At.Line, Column: o.At.Column, Message: fmt.Sprintf("%s %s", r, why)}
	return e.Error()
}

// within leaves out namespaces that an environment may not have: whoever may
// write its inventory has no say in that.
func (b Bounds) within(scope cluster.Scope, kinds []cluster.Kind) []cluster.Kind {
	return slices.DeleteFunc(slices.Clone(kinds), func(k cluster.Kind) bool {
		return k.Namespace != "" && b.Refusal(scope.Environment, scope.Namespace, render.Ref{Group: k.Group, Kind: k.Kind, Namespace: k.Namespace}) != ""
	})
}
