package reconcile

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// Standing is what is known of a service when its objects are to be pruned.
type Standing struct {
	// Gone says that the commit certainly does not ask for the service any more.
	Gone bool
	// Settled says that the service is rendered, applied and rolled out as the
	// commit wants it, so that what it no longer renders can go.
	Settled bool
	// Pending says that the service stays, and is not settled yet.
	Pending bool
	// Renders are the objects that the service's newest rendering has.
	Renders map[render.Ref]bool
	// Why says in words why the service is neither gone nor settled.
	Why string
}

// PruneInput is all that pruning is decided from.
type PruneInput struct {
	Environment desired.EnvironmentName
	Observation cluster.Observation
	// Services are all services of the environment that the commit asks for or
	// that the cluster shows; one that is missing here is kept.
	Services map[desired.ServiceName]Standing
	// Elsewhere tells whether a service of another environment renders the object.
	Elsewhere func(render.Ref) bool
	// Foreign tells whether an object may be another repository's, whose
	// environment has the same name; nil: none is.
	Foreign func(cluster.Observed) bool
	// Confirmed is the digest of the deletions that a person has confirmed, and
	// Agreed are the objects of those that were confirmed before: what is left of
	// them needs no other confirmation.
	Confirmed string
	Agreed    map[types.UID]bool
}

// Deletion is an object that is to go, with the reason.
type Deletion struct {
	Object cluster.Observed `json:"-"`
	Ref    render.Ref       `json:"object"`
	Reason string           `json:"reason"`
	// Waits says what has to be gone, or rolled out, before; "": nothing.
	Waits string `json:"waits,omitempty"`
	// Awaited: other deletions wait until the object is gone.
	Awaited bool `json:"-"`

	after []desired.ServiceName // that it waits for
}

// Kept is an object that the commit no longer has and that stays.
type Kept struct {
	Ref    render.Ref `json:"object"`
	Reason string     `json:"reason"`
}

// Going is an object that was deleted, and that stays until somebody has removed
// its finalizers.
type Going struct {
	Kept
	Service desired.ServiceName `json:"service"`
	Since   time.Time           `json:"since"`
}

// Pruning is the decision what to delete in an environment.
type Pruning struct {
	Environment desired.EnvironmentName `json:"environment"`
	Delete      []Deletion              `json:"delete,omitempty"`
	Keep        []Kept                  `json:"keep,omitempty"`
	// Going are the objects that are being deleted and that a finalizer holds,
	// with since when, and which. Nobody waits for them.
	Going []Going `json:"going,omitempty"`
	// Halt, if not empty, says why nothing is deleted until a person confirms.
	Halt string `json:"halt,omitempty"`
	// Digest stands for exactly the objects that would be deleted.
	Digest string `json:"digest,omitempty"`

	leaving map[desired.ServiceName]bool // of which anything is to go, or is going
	going   bool                         // anything is
}

// The guard against a commit that empties an environment by mistake: deleting
// more than pruneFloor objects that are more than half of the environment's
// waits for a person.
const pruneFloor = 10

// Prune decides which objects left the commit and may be deleted.
//
// On a view that is not complete it deletes nothing at all. A Namespace, a
// CustomResourceDefinition or a PersistentVolumeClaim goes only if its
// annotation pinion.dev/prune says "allow"; an object with "never" stays.
func Prune(in PruneInput) Pruning {
	p := Pruning{Environment: in.Environment, leaving: map[desired.ServiceName]bool{}}
	owned := 0
	for _, o := range in.Observation.Objects {
		if !o.Owned || o.Environment != in.Environment {
			continue
		}
		standing, known := in.Services[o.Service]
		if !standing.Renders[o.Ref] && in.Foreign != nil && in.Foreign(o) {
			p.Keep = append(p.Keep, Kept{o.Ref, fmt.Sprintf("commit %.12s, which it names, can't be found in this repository; it may be another's", o.Commit)})
			continue
		}
		owned++
		if o.Deleting && !standing.Renders[o.Ref] && o.Finalizers != "" {
			p.Going = append(p.Going, Going{Kept{o.Ref, cluster.Going(o.Gone, o.Finalizers)}, o.Service, o.Gone})
		}
		if standing.Renders[o.Ref] {
			continue
		}
		if o.Deleting {
			p.leaving[o.Service], p.going = true, true
			continue
		}
		switch {
		case !known:
			p.Keep = append(p.Keep, Kept{o.Ref, fmt.Sprintf("it is not known whether service %s is still wanted", o.Service)})
			continue
		case in.Elsewhere != nil && in.Elsewhere(o.Ref):
			p.Keep = append(p.Keep, Kept{o.Ref, "another service renders it"})
			continue
		case !standing.Gone && !standing.Settled:
			p.Keep = append(p.Keep, Kept{o.Ref, standing.Why})
			continue
		case o.Prune == render.PruneNever:
			p.Keep = append(p.Keep, Kept{o.Ref, "its annotation " + render.AnnotationPrune + " says never"})
			continue
		case precious(o.Ref) && o.Prune != render.PruneAllow:
			p.Keep = append(p.Keep, Kept{o.Ref, fmt.Sprintf("a %s is deleted only if its annotation %s says allow", o.Ref.Kind, render.AnnotationPrune)})
			continue
		}
		d := Deletion{Object: o, Ref: o.Ref, Reason: fmt.Sprintf("service %s no longer renders it", o.Service)}
		if standing.Gone {
			d.Reason = standing.Why
		}
		p.Delete = append(p.Delete, d)
		p.leaving[o.Service] = true
	}
	// What others stand on goes last.
	slices.SortFunc(p.Delete, func(a, b Deletion) int {
		if d := stage(b.Ref) - stage(a.Ref); d != 0 {
			return d
		}
		return a.Ref.Compare(b.Ref)
	})
	slices.SortFunc(p.Going, func(a, b Going) int { return a.Ref.Compare(b.Ref) })
	slices.SortFunc(p.Keep, func(a, b Kept) int { return a.Ref.Compare(b.Ref) })
	if len(p.Delete) == 0 {
		return p
	}
	if !in.Observation.Complete {
		p.Delete = nil
		p.Halt = "nothing is deleted while the cluster can't be seen in full: " + strings.Join(in.Observation.Incomplete, "; ")
		return p
	}
	p.Digest = deletionDigest(p.Delete)
	fresh := 0
	for _, d := range p.Delete {
		if !in.Agreed[d.Object.UID] {
			fresh++
		}
	}
	if fresh > pruneFloor && 2*fresh > owned && in.Confirmed != p.Digest {
		p.Halt = fmt.Sprintf("%d of the %d objects of environment %s would be deleted; to go on, run: pinion apply %s --confirm-prune %s",
			len(p.Delete), owned, in.Environment, in.Environment, p.Digest)
	}
	return p
}

// precious tells whether deleting the object takes along what no commit can
// bring back.
func precious(r render.Ref) bool {
	return Foundation(r) || r.Group == "" && r.Kind == "PersistentVolumeClaim"
}

// deletionDigest stands for a set of objects; the UIDs are part of it, so
// that a confirmation does not outlive the objects.
func deletionDigest(ds []Deletion) string {
	lines := make([]string, len(ds))
	for i, d := range ds {
		lines[i] = d.Ref.String() + " " + string(d.Object.UID)
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:6])
}
