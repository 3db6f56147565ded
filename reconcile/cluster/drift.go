package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pinion-cd/pinion/render"
)

// Drift is how an object differs from what was applied.
type Drift struct {
	Ref     render.Ref
	Deleted bool // it is not there
	// Ours: it is there, and our Apply entry is on it, whatever its labels say.
	Ours bool
	// Changes are sorted by path. There are none if fields were changed and
	// changed back, or only deleted.
	Changes []FieldDrift
}

// FieldDrift is one field that somebody else has changed.
type FieldDrift struct {
	Path string
	Old  string // as it was applied; empty: it was not there
	New  string // as it is; empty: it is gone
	// Manager is the field manager that owns the field now; empty if none does,
	// as when it was removed.
	Manager string
}

// hiddenValue stands for what a Secret holds.
const hiddenValue = "(secret)"

// Drift compares an object with what was applied, field by field: it reads the
// object, and asks the API server by a dry run what an apply would make of it.
// So defaults, fields of others and ignored ones are no differences. Nothing is
// written.
func (c *Cluster) Drift(ctx context.Context, o render.Object) (Drift, error) {
	m, err := c.resolve(ctx, "compare", o.Ref, o.Version)
	if err != nil {
		return Drift{}, err
	}
	f := failure{op: "compare", ref: m.Ref, body: o.JSON, group: m.GVR.Group, version: m.GVR.Version, kind: m.Ref.Kind}
	for n := 1; ; n++ {
		d, err := c.driftOnce(ctx, f, m, o)
		if n == mostYields || !wasModified(err) {
			return d, err
		}
	}
}

func (c *Cluster) driftOnce(ctx context.Context, f failure, m Mapped, o render.Object) (Drift, error) {
	d := Drift{Ref: o.Ref}
	live, err := c.read(ctx, f, m)
	if err != nil {
		return d, err
	}
	if live == nil || live.GetDeletionTimestamp() != nil {
		d.Deleted = true
		return d, nil
	}
	all := managers(live)
	d.Ours = slices.ContainsFunc(all, managed.ours)
	body := plainSecret(o.Ref, o.JSON)
	if len(o.Ignore) > 0 {
		if body, err = leaveTo(body, pointersOf(o), live); err != nil {
			return d, fmt.Errorf("compare %s: %w", o.Ref, err)
		}
	} else if body, err = atVersion(body, live.GetResourceVersion()); err != nil {
		return d, fmt.Errorf("compare %s: %w", o.Ref, err)
	}
	force := true
	var merged *unstructured.Unstructured
	err = c.send(ctx, func(ctx context.Context) (err error) {
		merged, err = c.dynamic.Resource(m.GVR).Namespace(m.Ref.Namespace).Patch(ctx, m.Ref.Name, types.ApplyPatchType, body, metav1.PatchOptions{
			FieldManager: Manager, Force: &force, DryRun: []string{metav1.DryRunAll},
		})
		return err
	})
	if err != nil {
		err = classify(f, err)
		c.learn(err)
		return d, err
	}
	secret := isSecret(live) || len(o.Hidden) > 0
	for _, u := range []*unstructured.Unstructured{live, merged} {
		bare(u)
	}
	eachDifference("", nil, merged.Object, live.Object, func(path string, way []hop, old, now any) {
		x := FieldDrift{Path: path, Old: shown(old), New: shown(now), Manager: ownerOf(all, way)}
		if secret && !strings.HasPrefix(path, ".metadata.labels") && path != ".type" && path != ".immutable" {
			x.Old, x.New = hidden(x.Old), hidden(x.New)
		}
		d.Changes = append(d.Changes, x)
	})
	slices.SortStableFunc(d.Changes, func(a, b FieldDrift) int { return strings.Compare(a.Path, b.Path) })
	return d, nil
}

func hidden(value string) string {
	if value == "" {
		return ""
	}
	return hiddenValue
}

// shown writes a value that is there, even if it is empty.
func shown(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		if v == "" {
			return `""`
		}
		return v
	case map[string]any, []any:
		if data, err := json.Marshal(v); err == nil {
			return string(data)
		}
	}
	return show(v)
}

// atVersion has an apply refused if the object is another version by then.
func atVersion(body []byte, version string) ([]byte, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(body, &object); err != nil {
		return nil, err
	}
	var meta map[string]json.RawMessage
	if err := json.Unmarshal(object["metadata"], &meta); err != nil {
		return nil, err
	}
	var err error
	if meta["resourceVersion"], err = json.Marshal(version); err != nil {
		return nil, err
	}
	if object["metadata"], err = json.Marshal(meta); err != nil {
		return nil, err
	}
	return json.Marshal(object)
}

// ownerOf returns the manager that owns a field; the one that came last, if
// several do.
func ownerOf(all []managed, way []hop) string {
	var last managed
	for _, m := range all {
		if m.ours() || m.subresource == "status" || !owns(m.fields, way) || last.manager != "" && m.at.Before(last.at) {
			continue
		}
		last = m
	}
	return last.manager
}

// owns tells whether a set has what is at the end of a way, or all that is
// somewhere before it.
func owns(node map[string]any, way []hop) bool {
	for i, h := range way {
		if len(node) == 0 {
			return node != nil && i > 0
		}
		if h.list {
			found := false
			for _, item := range []any{h.now, h.old} {
				if item == nil {
					continue
				}
				if c, ok := itemNode(node, h.index, item); ok {
					node, found = c, true
					break
				}
			}
			if !found {
				return false
			}
			continue
		}
		if node = child(node, "f:"+h.field); node == nil {
			return false
		}
	}
	return node != nil
}
