package render

import (
	"bytes"
	"cmp"
	"encoding/json"
	"strings"

	"github.com/pinion-cd/pinion/desired"
)

// The labels and annotations that every rendered object carries.
const (
	LabelManagedBy   = "app.kubernetes.io/managed-by" // always ManagedBy
	LabelEnvironment = "pinion.dev/environment"
	LabelService     = "pinion.dev/service"
	AnnotationCommit = "pinion.dev/commit" // the commit on main that the deployment comes from
	AnnotationDigest = "pinion.dev/digest" // of the object, as rendered
	ManagedBy        = "pinion"
	AnnotationPrune  = "pinion.dev/prune" // on an object of the repository: PruneAllow or PruneNever
	PruneAllow       = "allow"            // a Namespace, CustomResourceDefinition or PersistentVolumeClaim may be deleted
	PruneNever       = "never"            // the object is left behind when it leaves the commit

	AnnotationHook = "pinion.dev/hook" // on a Job of the repository: HookBefore or HookAfter
	HookBefore     = "before"          // it runs before the workloads of a deployment are applied
	HookAfter      = "after"           // it runs when a deployment's rollout is complete

	AnnotationReplace = "pinion.dev/replace" // on an object of the repository: ReplaceAllow
	ReplaceAllow      = "allow"              // it may be deleted and made anew if a field can't be changed
)

// Ref names one object of a cluster, whatever the version of its kind.
type Ref struct {
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// String returns the object's name as kubectl's users read it:
// "Deployment.apps shop-dev/web", "Namespace shop-dev".
func (r Ref) String() string {
	var b strings.Builder
	b.WriteString(r.Kind)
	if r.Group != "" {
		b.WriteString("." + r.Group)
	}
	b.WriteByte(' ')
	if r.Namespace != "" {
		b.WriteString(r.Namespace + "/")
	}
	b.WriteString(r.Name)
	return b.String()
}

// Compare orders refs by group, kind, namespace and name.
func (r Ref) Compare(o Ref) int {
	return cmp.Or(
		cmp.Compare(r.Group, o.Group),
		cmp.Compare(r.Kind, o.Kind),
		cmp.Compare(r.Namespace, o.Namespace),
		cmp.Compare(r.Name, o.Name),
	)
}

// Object is one rendered object: exact bytes that are the same on any machine.
type Object struct {
	Ref     Ref    `json:"ref"`
	Version string `json:"version"` // of the kind: "v1"
	// JSON is the object with sorted keys and with the labels and AnnotationDigest,
	// but without AnnotationCommit: that is set by Stamp.
	JSON []byte `json:"json"`
	// Digest is "sha256:…" over JSON before AnnotationDigest was set. Where it
	// would let one try out decrypted values it is "hmac-sha256:…", under a key
	// that who can decrypt them has, or covers all that was read in their place.
	Digest string `json:"digest"`
	// Hidden are JSON pointers to the fields that hold a decrypted value, of an
	// object that is no Secret: they are shown to nobody.
	Hidden []string `json:"hidden,omitempty"`
	// Ignore are JSON pointers to the fields of which JSON has the first value
	// only, and that belong to others from then on. No renderer sets it.
	Ignore []string `json:"-"`
	// At is where it was read, or the file that made it.
	At desired.Position `json:"at,omitzero"`
}

// Stamp returns the object's JSON with the commit on main that its deployment
// comes from, which is what is applied and printed.
func (o Object) Stamp(commit string) []byte {
	d := json.NewDecoder(bytes.NewReader(o.JSON))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		return o.JSON // not ours
	}
	meta, _ := m["metadata"].(map[string]any)
	if meta == nil {
		return o.JSON
	}
	annotations, _ := meta["annotations"].(map[string]any)
	if annotations == nil {
		annotations = map[string]any{}
		meta["annotations"] = annotations
	}
	annotations[AnnotationCommit] = commit
	data, err := canonical(m)
	if err != nil {
		return o.JSON
	}
	return data
}

// Annotation returns an annotation of the object, or "".
func (o Object) Annotation(key string) string {
	var m struct {
		Metadata struct {
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
	}
	if !bytes.Contains(o.JSON, []byte(key)) || json.Unmarshal(o.JSON, &m) != nil {
		return ""
	}
	return m.Metadata.Annotations[key]
}
