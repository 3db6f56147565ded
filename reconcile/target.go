package reconcile

import (
	"slices"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/health"
	"github.com/pinion-cd/pinion/render"
)

// Key names a service in an environment: the unit that is deployed.
type Key struct {
	Environment desired.EnvironmentName `json:"environment"`
	Service     desired.ServiceName     `json:"service"`
}

// String returns "environment/service".
func (k Key) String() string { return string(k.Environment) + "/" + string(k.Service) }

// Compare orders keys by environment and service.
func (k Key) Compare(o Key) int {
	if k.Environment != o.Environment {
		if k.Environment < o.Environment {
			return -1
		}
		return 1
	}
	switch {
	case k.Service < o.Service:
		return -1
	case k.Service > o.Service:
		return 1
	}
	return 0
}

// Place is where an environment runs.
type Place struct {
	Cluster   desired.ClusterName `json:"cluster"`
	Namespace string              `json:"namespace"`
}

// Target is what a commit wants of a service in an environment: everything
// that the rendering depends on, and the objects it came to.
type Target struct {
	Key
	Place
	// Account is the service account in whose name all is done; "": our own.
	Account string
	// Tip is the commit that was read.
	Tip string
	// Source is the commit that the manifests were read from.
	Source string
	// Pinned says that the environment's file names Source.
	Pinned    bool
	Request   render.Request
	DependsOn []desired.ServiceName
	Timeout   time.Duration // of the rollout
	// Take says that fields which another manager owns are taken from it.
	Take bool
	// Replace says that objects of which a field can't be changed are deleted and
	// made anew.
	Replace bool
	// Ignore is what of the objects is left to others; Result's objects have
	// the pointers that are about them.
	Ignore []desired.Ignore
	// Report says that drift is reported, and nothing is written for it.
	Report bool
	// Deploy is who deploys the service in the place of objects; nil: we do.
	Deploy *desired.Deploy
	// Health are the service's own rules of health; nil: it has none.
	Health *health.Rules
	// Result has no objects' bytes once they are packed; see pack.
	Result *render.Result

	packed []byte
	sizes  []int
	// former are values that the service's Secrets had before, the newest first.
	former [][]string
}

// leave returns a rendering with what is left to others written on its objects.
func leave(r *render.Result, rules []desired.Ignore) *render.Result {
	if len(rules) == 0 {
		return r
	}
	left := *r
	left.Objects = slices.Clone(r.Objects) // the cache has the other ones
	for i := range left.Objects {
		o := &left.Objects[i]
		o.Ignore = nil
		for _, rule := range rules {
			if rule.Matches(o.Ref.Group, o.Ref.Kind, o.Ref.Name) {
				o.Ignore = append(o.Ignore, rule.Pointers...)
			}
		}
		slices.Sort(o.Ignore)
		o.Ignore = slices.Compact(o.Ignore)
	}
	return &left
}

// Version returns what the pins say, as one reads it in a table: the version
// of the only artifact, or each artifact with its version.
func (t *Target) Version() string { return Versions(t.Request.Pins) }

// Versions writes pins as one reads them in a table.
func Versions(pins []desired.Pin) string {
	if len(pins) == 1 {
		return version(pins[0].Image)
	}
	var s string
	for i, p := range pins {
		if i > 0 {
			s += ", "
		}
		s += string(p.Artifact) + " " + version(p.Image)
	}
	return s
}

func version(i desired.Image) string {
	if i.Version != "" {
		return i.Version
	}
	if len(i.Digest) > 19 { // "sha256:" and twelve digits
		return i.Digest[:19]
	}
	return i.Digest
}
