package cluster

import "github.com/pinion-cd/pinion/render"

// place is where objects of a kind are: what one watch shows.
type place struct {
	group, kind string
	namespace   string // empty for the whole cluster
}

func placeOf(r render.Ref) place { return place{r.Group, r.Kind, r.Namespace} }

// String returns "Deployment.apps".
func (p place) String() string { return Kind{Group: p.group, Kind: p.kind}.String() }

func (p place) where() string {
	if p.namespace == "" {
		return p.String()
	}
	return p.String() + " in namespace " + p.namespace
}
