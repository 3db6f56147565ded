package reconcile

import (
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/cluster"
)

// Connection returns the cluster of a place as an environment sees it and may
// change it: in the name of its service account, if it has one. It returns nil
// if there is no such cluster. Nothing of an environment reaches its cluster by
// another way.
func Connection(clusters map[desired.ClusterName]*cluster.Cluster, p Place, account string) *cluster.Cluster {
	c := clusters[p.Cluster]
	if c == nil || account == "" {
		return c
	}
	return c.As(cluster.Account{Namespace: p.Namespace, Name: account})
}

// connection returns the cluster of a target; nil if there is none.
func (e *Engine) connection(t *Target) *cluster.Cluster {
	return Connection(e.options.Clusters, t.Place, t.Account)
}

// reach returns the cluster of a site; nil if there is none.
func (e *Engine) reach(est *estate) *cluster.Cluster {
	return Connection(e.options.Clusters, est.place, est.account)
}

// unwatch ends the watches of a site.
func (e *Engine) unwatch(est *estate) {
	if cl := e.reach(est); cl != nil {
		cl.Unwatch(cluster.Scope{Environment: est.environment, Namespace: est.place.Namespace})
	}
}
