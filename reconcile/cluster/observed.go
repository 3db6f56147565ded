package cluster

import (
	"cmp"
	"time"
	"unique"

	"k8s.io/apimachinery/pkg/types"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/health"
	"github.com/pinion-cd/pinion/render"
)

// LabelInventory is on the ConfigMap that holds an environment's inventory;
// its value is the environment.
const LabelInventory = "pinion.dev/inventory"

// AnnotationConfirmPrune is on an inventory's ConfigMap: the digest of the
// deletions that a person has confirmed.
const AnnotationConfirmPrune = "pinion.dev/confirm-prune"

// Scope is an environment at the place where it runs, or ran.
type Scope struct {
	Environment desired.EnvironmentName
	Namespace   string
}

// Kind is a kind as an environment uses it.
type Kind struct {
	Group   string `json:"group,omitempty"`
	Kind    string `json:"kind"`
	Version string `json:"version,omitempty"` // as last applied; "" means the API server's preferred one
	// Namespace is where objects of it were applied. For a kind of the
	// cluster's scope it means nothing; for any other, "" means the scope's.
	Namespace string `json:"namespace,omitempty"`
}

// String returns "Deployment.apps".
func (k Kind) String() string {
	if k.Group == "" {
		return k.Kind
	}
	return k.Kind + "." + k.Group
}

// Compare orders kinds by group, kind, namespace and version.
func (k Kind) Compare(o Kind) int {
	return cmp.Or(
		cmp.Compare(k.Group, o.Group),
		cmp.Compare(k.Kind, o.Kind),
		cmp.Compare(k.Namespace, o.Namespace),
		cmp.Compare(k.Version, o.Version),
	)
}

// Status and Health say how an object does; package health judges.
type (
	Status = health.Status
	Health = health.Health
)

// The statuses.
const (
	Current     = health.Current
	InProgress  = health.InProgress
	Failed      = health.Failed
	Terminating = health.Terminating
	NotFound    = health.NotFound
	Unknown     = health.Unknown
)

// Observed is all that is kept of an object.
type Observed struct {
	Ref             render.Ref
	Version         string // of the kind, as it was read
	UID             types.UID
	ResourceVersion string
	Generation      int64
	Environment     desired.EnvironmentName // label
	Service         desired.ServiceName     // label
	Commit          string                  // annotation
	Digest          string                  // annotation
	Prune           string                  // annotation
	// Owned says that we applied this very object: our manager's Apply entry is
	// there and is not older than the object, and no controller owns it.
	Owned bool
	// Fields are those that our Apply entry holds, as fieldsV1 with sorted keys.
	Fields unique.Handle[string]
	// Others changes whenever somebody else writes anything but a status.
	Others uint64
	// Applied is when an apply of ours last changed it, by the API server's clock.
	Applied  time.Time
	Health   Health
	Deleting bool
	// Gone is since when it is being deleted, and Finalizers what that waits for,
	// separated by commas.
	Gone       time.Time
	Finalizers string
	Created    time.Time
	// Changed is when anybody last wrote it, a controller its status included, by
	// the API server's clock, to the second: since then it is as it is now. What
	// only takes fields away is not told.
	Changed time.Time
	// Unwell is when this process last saw it other than healthy, by our clock;
	// zero: never. Lookups see only the newest state, so it is kept.
	Unwell time.Time

	controlled bool                  // by a controller
	ignoring   unique.Handle[string] // what of it the apply left to others; of a pending one
	pending    bool                  // its health is that of an apply which no watch has confirmed
	rule       *health.Rule          // of its service, by which its health was judged; nil: none
	pods       bool                  // its health depends on pods
	revision   string                // of the pods that its newest generation makes, if it says so
}

// Observation is what is known of a scope.
type Observation struct {
	// Objects are those with the environment's label, ours or not.
	Objects map[render.Ref]Observed
	// Complete says that every kind in the inventory has been listed, and that
	// no list or watch of it has failed since. The zero value is not.
	Complete   bool
	Incomplete []string // why not
}

// Key names a service of an environment. Service "" means the environment as
// such: its inventory, or whether it can be seen.
type Key struct {
	Environment desired.EnvironmentName
	Service     desired.ServiceName
}

// Inventory is what the cluster keeps of an environment.
type Inventory struct {
	Environment desired.EnvironmentName `json:"environment"`
	Namespace   string                  `json:"namespace"`
	Repository  string                  `json:"repository,omitempty"`
	// Account is the service account in whose name it was written; "": our own.
	Account   string `json:"serviceAccount,omitempty"`
	Kinds     []Kind `json:"kinds"` // sorted
	Confirmed string `json:"confirmed,omitempty"`
	Done      []Done `json:"done,omitempty"` // the oldest first
	Found     bool   `json:"found"`          // false: there is none yet, and that is certain
}

// ApplyOptions say how to apply.
type ApplyOptions struct {
	// Force takes fields from other managers. It never deletes anything.
	Force bool
}

// Trial is what a dry run came to.
type Trial struct {
	Exists   bool
	Managers []string // others who have written to what exists, sorted
}

// Applied is what an apply came to.
type Applied struct {
	Observed
	Created  bool
	Changed  bool // something was written; also when created
	Warnings []string
}

// FieldChange is one field that differs. Old is empty if the field is new, New
// if it is gone.
type FieldChange struct {
	Path string `json:"path"`
	Old  string `json:"old,omitempty"`
	New  string `json:"new,omitempty"`
}

// Difference is what an apply would change.
type Difference struct {
	Exists bool
	Adopts bool // it exists and is not ours
	// Managers are those who have written to it besides us, sorted.
	Managers []string
	// Immutable, if not nil, says that an apply is refused for fields that can't
	// be changed.
	Immutable *ImmutableError
	// Conflict, if not nil, says whose fields an apply without force is refused
	// for. Changes are those of an apply with force.
	Conflict *ConflictError
	Changes  []FieldChange // sorted by path
	Live     []byte        // YAML; empty if it does not exist
	Merged   []byte        // YAML
}
