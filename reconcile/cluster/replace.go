package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/pinion-cd/pinion/render"
)

// Propagation says what becomes of what an object owns when it is deleted.
type Propagation string

// The propagations, as Kubernetes names them.
const (
	Foreground Propagation = "Foreground" // it goes first
	Background Propagation = "Background" // it goes after
	Orphan     Propagation = "Orphan"     // it stays
)

// GoingError says that an object is being deleted, and not gone.
type GoingError struct {
	Op         string
	Ref        render.Ref
	Since      time.Time
	Finalizers string // separated by commas; may be empty
}

func (e *GoingError) Error() string {
	s := e.Ref.String() + ": " + Going(e.Since, e.Finalizers)
	if e.Op != "" {
		s = e.Op + " " + s
	}
	return s
}

// Going says that something is being deleted, since when, and what it waits for.
func Going(since time.Time, finalizers string) string {
	s := "it is being deleted"
	if !since.IsZero() {
		s += " since " + since.UTC().Format(time.RFC3339)
	}
	switch {
	case finalizers == metav1.FinalizerDeleteDependents:
		return s + ", and waits until what it owns is gone"
	case strings.Contains(finalizers, ","):
		return s + ", and waits for those who have to remove the finalizers " + strings.ReplaceAll(finalizers, ",", ", ")
	case finalizers != "":
		return s + ", and waits for whoever has to remove the finalizer " + finalizers
	}
	return s
}

// Remove deletes the object that was observed, as Delete does, and waits until
// it is gone, or for at most patience: then the error is a *GoingError.
func (c *Cluster) Remove(ctx context.Context, o Observed, how Propagation, patience time.Duration) error {
	if err := c.Delete(ctx, o, how); err != nil {
		return err
	}
	r, ref := c.view(o.Ref)
	if r == nil {
		return fmt.Errorf("wait until %s is gone: it is not watched", o.Ref)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errImpatient)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		r.mu.Lock()
		now := r.objects[ref.Name]
		r.mu.Unlock()
		if now == nil || now.UID != o.UID {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if context.Cause(ctx) != errImpatient {
				return ctx.Err()
			}
			return &GoingError{Op: "replace", Ref: o.Ref, Since: now.Gone, Finalizers: now.Finalizers}
		}
	}
}

var errImpatient = fmt.Errorf("not gone in time")

// over lays a rendered object over the live one: what an apply would make of it
// if each field could be changed.
func over(live, rendered any) any {
	switch y := rendered.(type) {
	case map[string]any:
		x, ok := live.(map[string]any)
		if !ok {
			return rendered
		}
		merged := maps.Clone(x)
		for k, v := range y {
			if w, ok := x[k]; ok {
				v = over(w, v)
			}
			merged[k] = v
		}
		return merged
	case []any:
		x, ok := live.([]any)
		if !ok || len(x) != len(y) {
			return rendered
		}
		merged := make([]any, len(y))
		for i := range y {
			merged[i] = over(x[i], y[i])
		}
		return merged
	}
	return rendered
}

// mutable are the fields of a StatefulSet's spec that can be changed.
var mutable = []string{"replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit", "persistentVolumeClaimRetentionPolicy", "minReadySeconds"}

// pinpoint finds out which fields are meant where the API server only says that
// others than some can't be changed.
func (c *Cluster) pinpoint(ctx context.Context, m Mapped, o render.Object, e *ImmutableError) {
	if m.Ref.Kind != "StatefulSet" || m.Ref.Group != "apps" {
		return
	}
	var live *unstructured.Unstructured
	err := c.send(ctx, func(ctx context.Context) (err error) {
		live, err = c.dynamic.Resource(m.GVR).Namespace(m.Ref.Namespace).Get(ctx, m.Ref.Name, metav1.GetOptions{})
		return err
	})
	var rendered map[string]any
	if err == nil && json.Unmarshal(o.JSON, &rendered) == nil {
		e.pinpoint(live, rendered)
	}
}

func (e *ImmutableError) pinpoint(live *unstructured.Unstructured, rendered map[string]any) {
	if e.Ref.Kind != "StatefulSet" || e.Ref.Group != "apps" {
		return
	}
	was, _ := live.Object["spec"].(map[string]any)
	spec, _ := rendered["spec"].(map[string]any)
	var changes []FieldChange
	for _, k := range slices.Sorted(maps.Keys(spec)) {
		if !slices.Contains(mutable, k) {
			compareValues("spec"+step(k), was[k], over(was[k], spec[k]), &changes)
		}
	}
	if len(changes) == 0 {
		return
	}
	e.Fields = nil
	for _, x := range changes {
		e.Fields = append(e.Fields, x.Path)
	}
	e.Message = strings.Join(e.Fields, ", ") + ": field is immutable"
}

// changesTo says in which fields a rendered object differs from the live one.
func changesTo(live *unstructured.Unstructured, rendered map[string]any) *unstructured.Unstructured {
	merged, _ := over(live.Object, rendered).(map[string]any)
	return (&unstructured.Unstructured{Object: merged}).DeepCopy()
}
