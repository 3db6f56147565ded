package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/pinion-cd/pinion/reconcile/health"
	"github.com/pinion-cd/pinion/render"
)

// Diff says what an apply would change: it reads the object, and asks the API
// server by a dry run what would come of it, so defaults and the fields of
// other managers are no differences. Values of Secrets are masked; Pinion's
// own annotations are left out.
func (c *Cluster) Diff(ctx context.Context, o render.Object) (Difference, error) {
	m, err := c.resolve(ctx, "compare", o.Ref, o.Version)
	if err != nil {
		return Difference{}, err
	}
	f := failure{op: "compare", ref: m.Ref, body: o.JSON, group: m.GVR.Group, version: m.GVR.Version, kind: m.Ref.Kind}
	body := plainSecret(o.Ref, o.JSON)
	var d Difference
	var live, merged *unstructured.Unstructured
	for n := 1; n <= mostYields; n++ {
		asLeft, err := c.yield(ctx, f, m, o, body)
		if err == nil {
			live, merged, err = c.dryRun(ctx, f, m, asLeft, &d)
		}
		if wasModified(err) && n < mostYields {
			continue
		}
		if err != nil {
			return Difference{}, err
		}
		if live == nil || merged == nil || live.GetResourceVersion() == merged.GetResourceVersion() {
			break
		}
		// Someone wrote in between, and that would be taken for our doing.
	}
	d.Exists = live != nil
	if live != nil {
		seen := observeObject(placeOf(m.Ref), live.DeepCopy(), nil, health.Fact{})
		d.Managers = otherManagers(live)
		d.Adopts = !seen.Owned && (seen.Applied.IsZero() || seen.controlled)
	}
	if live == nil {
		// Nobody wants to read the defaults of something new.
		merged = &unstructured.Unstructured{}
		if err := json.Unmarshal(body, &merged.Object); err != nil {
			return Difference{}, fmt.Errorf("compare %s: %w", o.Ref, err)
		}
	}
	if err := d.fill(live, merged); err != nil {
		return Difference{}, fmt.Errorf("compare %s: %w", o.Ref, err)
	}
	return d, nil
}

// dryRun reads an object, and asks what an apply would make of it; by force, if
// it must be. live is nil if there is none, and then merged is nil if the
// namespace is not there either.
func (c *Cluster) dryRun(ctx context.Context, f failure, m Mapped, body []byte, d *Difference) (live, merged *unstructured.Unstructured, err error) {
	resource := c.dynamic.Resource(m.GVR).Namespace(m.Ref.Namespace)
	err = c.send(ctx, func(ctx context.Context) (err error) {
		live, err = resource.Get(ctx, m.Ref.Name, metav1.GetOptions{})
		return err
	})
	if apierrors.IsNotFound(err) {
		live, err = nil, nil
	}
	if err != nil {
		return nil, nil, classify(f, err)
	}
	d.Conflict = nil
	for _, force := range []bool{false, true} {
		err = c.send(ctx, func(ctx context.Context) (err error) {
			merged, err = resource.Patch(ctx, m.Ref.Name, types.ApplyPatchType, body, metav1.PatchOptions{
				FieldManager: Manager, Force: &force, DryRun: []string{metav1.DryRunAll},
			})
			return err
		})
		if err = classify(f, err); !errors.As(err, &d.Conflict) {
			break
		}
	}
	d.Immutable = nil
	if live != nil && errors.As(err, &d.Immutable) {
		var rendered map[string]any
		if err := json.Unmarshal(body, &rendered); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", f.what(), err)
		}
		d.Immutable.pinpoint(live, rendered)
		return live, changesTo(live, rendered), nil
	}
	if err != nil {
		c.learn(err)
		var namespace *NamespaceError
		if live != nil || !errors.As(err, &namespace) || namespace.Terminating {
			return nil, nil, err
		}
		merged = nil
	}
	return live, merged, nil
}

// Compare says what differs between two renderings of an object.
func Compare(before, after render.Object) ([]FieldChange, error) {
	var a, b unstructured.Unstructured
	if err := errors.Join(
		json.Unmarshal(plainSecret(before.Ref, before.JSON), &a.Object),
		json.Unmarshal(plainSecret(after.Ref, after.JSON), &b.Object)); err != nil {
		return nil, fmt.Errorf("compare %s: %w", after.Ref, err)
	}
	var d Difference
	if err := d.fill(&a, &b); err != nil {
		return nil, fmt.Errorf("compare %s: %w", after.Ref, err)
	}
	return d.Changes, nil
}

// fill compares two objects, of which before may be nil, and changes both.
func (d *Difference) fill(before, after *unstructured.Unstructured) error {
	for _, u := range []*unstructured.Unstructured{before, after} {
		if u != nil {
			bare(u)
		}
	}
	mask(before, after)
	var err error
	if before != nil {
		compareValues("", before.Object, after.Object, &d.Changes)
		if d.Live, err = yaml.Marshal(before.Object); err != nil {
			return err
		}
	}
	slices.SortStableFunc(d.Changes, func(a, b FieldChange) int { return strings.Compare(a.Path, b.Path) })
	d.Merged, err = yaml.Marshal(after.Object)
	return err
}

// bare cuts what the API server and Pinion keep book with.
func bare(u *unstructured.Unstructured) {
	for _, f := range []string{"managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink"} {
		unstructured.RemoveNestedField(u.Object, "metadata", f)
	}
	for _, a := range []string{render.AnnotationCommit, render.AnnotationDigest} {
		unstructured.RemoveNestedField(u.Object, "metadata", "annotations", a)
	}
	if a, found, err := unstructured.NestedMap(u.Object, "metadata", "annotations"); err == nil && found && len(a) == 0 {
		unstructured.RemoveNestedField(u.Object, "metadata", "annotations")
	}
	unstructured.RemoveNestedField(u.Object, "status")
}

func compareValues(path string, a, b any, changes *[]FieldChange) {
	eachDifference(path, nil, a, b, func(path string, _ []hop, a, b any) {
		c := FieldChange{Path: path}
		if a != nil {
			c.Old = show(a)
		}
		if b != nil {
			c.New = show(b)
		}
		*changes = append(*changes, c)
	})
}

// hop is one step on the way to a field: into a map, or into a list. There,
// old and now are the item as it is on either side, or nil.
type hop struct {
	field    string
	list     bool
	index    int
	old, now any
}

// eachDifference calls differs for each field in which two values differ; what
// is not there is nil.
func eachDifference(path string, way []hop, a, b any, differs func(path string, way []hop, a, b any)) {
	way = slices.Clip(way)
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok {
			break
		}
		for k, v := range x {
			if w, ok := y[k]; ok {
				eachDifference(path+step(k), append(way, hop{field: k}), v, w, differs)
			} else {
				differs(path+step(k), append(way, hop{field: k}), v, nil)
			}
		}
		for k, w := range y {
			if _, ok := x[k]; !ok {
				differs(path+step(k), append(way, hop{field: k}), nil, w)
			}
		}
		return
	case []any:
		y, ok := b.([]any)
		if !ok {
			break
		}
		if names, others := byName(x), byName(y); names != nil && others != nil {
			for name, v := range names {
				at := path + "[name=" + name + "]"
				w, ok := others[name]
				to := append(way, hop{list: true, old: v, now: w})
				if ok {
					eachDifference(at, to, v, w, differs)
				} else {
					differs(at, to, v, nil)
				}
			}
			for name, w := range others {
				if _, ok := names[name]; !ok {
					differs(path+"[name="+name+"]", append(way, hop{list: true, now: w}), nil, w)
				}
			}
			return
		}
		for i := range max(len(x), len(y)) {
			at := path + "[" + strconv.Itoa(i) + "]"
			switch {
			case i >= len(y):
				differs(at, append(way, hop{list: true, index: i, old: x[i]}), x[i], nil)
			case i >= len(x):
				differs(at, append(way, hop{list: true, index: i, now: y[i]}), nil, y[i])
			default:
				eachDifference(at, append(way, hop{list: true, index: i, old: x[i], now: y[i]}), x[i], y[i], differs)
			}
		}
		return
	}
	if !equal(a, b) {
		differs(path, way, a, b)
	}
}

// equal compares two scalars; 1 and 1.0 are the same in JSON.
func equal(a, b any) bool {
	return reflect.DeepEqual(a, b) || number(a) != "" && number(a) == number(b)
}

func number(v any) string {
	switch v := v.(type) {
	case int64:
		return strconv.FormatFloat(float64(v), 'g', -1, 64)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	return ""
}

// byName indexes a list whose items all have different names.
func byName(list []any) map[string]any {
	names := make(map[string]any, len(list))
	for _, item := range list {
		m, _ := item.(map[string]any)
		name, ok := m["name"].(string)
		if _, twice := names[name]; !ok || twice {
			return nil
		}
		names[name] = item
	}
	return names
}

// step writes one field of a path: ".spec", or ["a.b/c"] for what is no word.
func step(key string) string {
	for i, r := range key {
		if !(r == '_' || r == '-' && i > 0 || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9') {
			return "[" + strconv.Quote(key) + "]"
		}
	}
	return "." + key
}

// show writes a value as YAML; a text that can't be confused stays as it is.
func show(v any) string {
	if s, ok := v.(string); ok && s != "" {
		return s
	}
	data, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSuffix(string(data), "\n")
}
