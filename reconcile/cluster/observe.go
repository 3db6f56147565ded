package cluster

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strings"
	"time"
	"unique"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/health"
	"github.com/pinion-cd/pinion/render"
)

// copyTolerance is how much older than the object our Apply entry may be and
// still be of this object: the API server stamps the one at the start of a
// request and the other at its end. In an older entry someone copied an object
// together with its managedFields.
const copyTolerance = time.Minute

// noStatus are kinds whose health never says more than that they are there.
// Only their metadata is watched.
var noStatus = map[string]bool{
	"ConfigMap":                                                     true,
	"Secret":                                                        true,
	"ServiceAccount":                                                true,
	"LimitRange":                                                    true,
	"Role.rbac.authorization.k8s.io":                                true,
	"RoleBinding.rbac.authorization.k8s.io":                         true,
	"ClusterRole.rbac.authorization.k8s.io":                         true,
	"ClusterRoleBinding.rbac.authorization.k8s.io":                  true,
	"NetworkPolicy.networking.k8s.io":                               true,
	"IngressClass.networking.k8s.io":                                true,
	"PriorityClass.scheduling.k8s.io":                               true,
	"StorageClass.storage.k8s.io":                                   true,
	"RuntimeClass.node.k8s.io":                                      true,
	"MutatingWebhookConfiguration.admissionregistration.k8s.io":     true,
	"ValidatingWebhookConfiguration.admissionregistration.k8s.io":   true,
	"ValidatingAdmissionPolicyBinding.admissionregistration.k8s.io": true,
}

// podOwners are kinds whose health depends on pods below them.
var podOwners = map[string]bool{
	"Deployment.apps":  true,
	"StatefulSet.apps": true,
	"DaemonSet.apps":   true,
	"ReplicaSet.apps":  true,
	"Job.batch":        true,
}

// managed is an entry of managedFields.
type managed struct {
	manager, operation, subresource string
	at                              time.Time
	fields                          map[string]any
}

// ours tells whether it is that of our applies.
func (m managed) ours() bool {
	return m.manager == Manager && m.operation == string(metav1.ManagedFieldsOperationApply) && m.subresource == ""
}

// managers returns who manages which fields of an object.
func managers(u *unstructured.Unstructured) []managed {
	var entries []managed
	meta, _ := u.Object["metadata"].(map[string]any)
	list, _ := meta["managedFields"].([]any)
	for _, e := range list {
		entry, _ := e.(map[string]any)
		m := managed{}
		m.manager, _ = entry["manager"].(string)
		m.operation, _ = entry["operation"].(string)
		m.subresource, _ = entry["subresource"].(string)
		if at, _ := entry["time"].(string); at != "" {
			m.at, _ = time.Parse(time.RFC3339, at)
		}
		m.fields, _ = entry["fieldsV1"].(map[string]any)
		entries = append(entries, m)
	}
	return entries
}

func intern(s string) string {
	if s == "" {
		return ""
	}
	return unique.Make(s).Value()
}

// observeObject reduces a full object to what is kept of it. u is not kept, but
// it is changed. rule is its service's, nil if there is none for the kind.
func observeObject(p place, u *unstructured.Unstructured, rule *health.Rule, fact health.Fact) *Observed {
	meta, _ := u.Object["metadata"].(map[string]any)
	o := observeMeta(p, u.GroupVersionKind().Version, u, managers(u), u.Object)
	o.pods, o.rule = podOwners[p.String()], rule
	if o.pods {
		o.revision, _, _ = unstructured.NestedString(u.Object, "status", "updateRevision")
		o.revision = intern(o.revision)
	}
	if o.Deleting {
		return o
	}
	delete(meta, "managedFields") // kstatus copies the object more than once
	o.Health = health.Of(u.Object, rule, fact)
	o.Health.Message = intern(o.Health.Message)
	if o.Health.Status != Current {
		o.Health.Reason = creationFailure(u)
	}
	return o
}

// observePartial reduces an object's metadata to what is kept of it.
func observePartial(p place, version string, m *metav1.PartialObjectMetadata) *Observed {
	var entries []managed
	for _, e := range m.ManagedFields {
		entry := managed{manager: e.Manager, operation: string(e.Operation), subresource: e.Subresource}
		if e.Time != nil {
			entry.at = e.Time.Time
		}
		if !entry.ours() {
			entries = append(entries, entry) // which fields they have does not matter here
			continue
		}
		if e.FieldsV1 == nil {
			continue
		}
		if json.Unmarshal(e.FieldsV1.GetRawBytes(), &entry.fields) == nil {
			entries = append(entries, entry)
		}
	}
	o := observeMeta(p, version, m, entries, nil)
	o.pods = podOwners[p.String()]
	return o
}

func observeMeta(p place, version string, m metav1.Object, entries []managed, live map[string]any) *Observed {
	labels, annotations := m.GetLabels(), m.GetAnnotations()
	o := &Observed{
		Ref:             render.Ref{Group: p.group, Kind: p.kind, Namespace: p.namespace, Name: m.GetName()},
		Version:         intern(version),
		UID:             types.UID(m.GetUID()),
		ResourceVersion: m.GetResourceVersion(),
		Generation:      m.GetGeneration(),
		Environment:     desired.EnvironmentName(intern(labels[render.LabelEnvironment])),
		Service:         desired.ServiceName(intern(labels[render.LabelService])),
		Commit:          intern(annotations[render.AnnotationCommit]),
		Digest:          intern(annotations[render.AnnotationDigest]),
		Prune:           intern(annotations[render.AnnotationPrune]),
		Deleting:        m.GetDeletionTimestamp() != nil,
		Created:         m.GetCreationTimestamp().UTC(),
		Health:          Health{Status: Current},
		controlled:      metav1.GetControllerOfNoCopy(m) != nil,
	}
	o.Changed = o.Created
	for _, e := range entries {
		if e.at.After(o.Changed) {
			o.Changed = e.at.UTC()
		}
	}
	if o.Deleting {
		o.Gone = m.GetDeletionTimestamp().UTC()
		// The timestamp is when its grace is over; what is left of that is no news.
		if grace := m.GetDeletionGracePeriodSeconds(); grace != nil {
			o.Gone = o.Gone.Add(-time.Duration(*grace) * time.Second)
		}
		o.Finalizers = intern(strings.Join(m.GetFinalizers(), ","))
		o.Health = Health{Status: Terminating, Message: Going(o.Gone, o.Finalizers)}
	}
	var ours *managed
	var others []map[string]any
	for i, e := range entries {
		if e.ours() {
			ours = &entries[i]
		} else {
			others = append(others, e.fields)
		}
	}
	if ours == nil || labels[render.LabelManagedBy] != render.ManagedBy {
		return o
	}
	o.Others = o.trace(entries)
	o.Fields = canonicalFields(ours.fields, others, live)
	o.Applied = ours.at.UTC()
	o.Owned = !o.controlled && !o.copied()
	return o
}

// trace stands for what others than us, and controllers that write a status,
// have written.
func (o *Observed) trace(entries []managed) uint64 {
	h := fnv.New64a()
	for _, e := range entries {
		if !e.ours() && e.subresource != "status" {
			fmt.Fprintln(h, e.manager, e.operation, e.subresource, e.at.Unix())
		}
	}
	if o.Generation > 0 {
		fmt.Fprintln(h, o.Generation)
	} else {
		fmt.Fprintln(h, o.ResourceVersion)
	}
	return h.Sum64()
}

// copied tells whether our Apply entry must be another object's.
func (o *Observed) copied() bool {
	return !o.Applied.IsZero() && o.Applied.Before(o.Created.Add(-copyTolerance))
}

// creationFailure says why a controller can't even create the pods.
func creationFailure(u *unstructured.Unstructured) string {
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	for _, c := range conditions {
		condition, _ := c.(map[string]any)
		if condition["type"] == "ReplicaFailure" && condition["status"] == "True" {
			message, _ := condition["message"].(string)
			return shorten(message)
		}
	}
	return ""
}

func shorten(s string) string {
	const most = 500
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
