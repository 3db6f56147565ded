package cluster

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pinion-cd/pinion/render"
)

func view() *reflection {
	r := newReflection(place{kind: "ConfigMap", namespace: "shop"}, schema.GroupVersionResource{Version: "v1", Resource: "configmaps"})
	r.changed = func(_, _ *Observed) {}
	return r
}

func seen(name, version string, h Status) *Observed {
	return &Observed{Ref: render.Ref{Kind: "ConfigMap", Namespace: "shop", Name: name}, UID: types.UID(name), ResourceVersion: version, Health: Health{Status: h}}
}

func event(o *Observed) *item {
	i := &item{value: o}
	i.Name, i.ResourceVersion = o.Ref.Name, o.ResourceVersion
	return i
}

// The answer to an apply and the watch's events come in any order.
func TestReflectionOrder(t *testing.T) {
	show := func(r *reflection) string {
		s := ""
		for _, name := range []string{"a", "b"} {
			if o := r.objects[name]; o != nil {
				s += fmt.Sprintf("%s@%s %s;", name, o.ResourceVersion, o.Health.Status)
			}
		}
		return s
	}
	for _, test := range []struct {
		name string
		do   func(r *reflection)
		want string
	}{
		{"the answer, then the event", func(r *reflection) {
			r.applied(seen("a", "20", InProgress))
			r.Update(event(seen("a", "20", Current)))
		}, "a@20 Current;"},
		{"the event, then the answer", func(r *reflection) {
			r.Update(event(seen("a", "20", Current)))
			r.applied(seen("a", "20", InProgress))
		}, "a@20 Current;"},
		{"an older event after the answer", func(r *reflection) {
			r.applied(seen("a", "100", InProgress))
			r.Update(event(seen("a", "99", Current)))
		}, "a@100 InProgress;"},
		{"a later event before the answer", func(r *reflection) {
			r.Update(event(seen("a", "100", Current)))
			r.applied(seen("a", "99", InProgress))
		}, "a@100 Current;"},
		{"gone before the answer comes", func(r *reflection) {
			r.Replace(nil, "10")
			r.Update(event(seen("a", "20", Current)))
			r.Delete(event(seen("a", "30", Current)))
			r.UpdateResourceVersion("30")
			r.applied(seen("a", "20", InProgress))
		}, ""},
		{"made again before the deletion is seen", func(r *reflection) {
			r.Update(event(seen("a", "20", Current)))
			r.applied(seen("a", "40", InProgress))
			r.Delete(event(seen("a", "30", Current)))
		}, "a@40 InProgress;"},
		{"a list that is older than the answer", func(r *reflection) {
			r.applied(seen("a", "40", InProgress))
			r.Replace([]any{event(seen("b", "5", Current))}, "30")
		}, "a@40 InProgress;b@5 Current;"},
		{"a list that no longer has it", func(r *reflection) {
			r.applied(seen("a", "40", InProgress))
			r.Replace(nil, "50")
		}, ""},
	} {
		r := view()
		test.do(r)
		if got := show(r); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestReflectionState(t *testing.T) {
	r := view()
	s := &source{}
	gone := 0
	r.attach(s, func() { gone++ })
	now := func() string { return r.state.why(r.place, time.Now()) }
	expect := func(what string, believed bool) {
		t.Helper()
		if (now() == "") != believed {
			t.Errorf("%s: %q", what, now())
		}
	}
	expect("before the first list", false)
	r.Replace(nil, "1")
	expect("listed", true)
	s.ended()
	expect("the stream has just ended", true)
	r.state.lost = time.Now().Add(-time.Minute)
	expect("the stream ended and none is open", false)
	s.opened()
	expect("it is open again", true)
	s.failed(errors.New("no"))
	expect("a watch failed", false)
	r.Replace(nil, "2")
	expect("listed again", true)
	for range 2 {
		s.failed(apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, ""))
	}
	if gone != 1 {
		t.Errorf("told %d times that the kind is not found", gone)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := view().wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("wait: %v", err)
	}
}

// BenchmarkObserved tells what an object costs in memory, and to reduce it.
func BenchmarkObserved(b *testing.B) {
	fields := `{"f:data":{"f:a":{},"f:b":{}},"f:metadata":{"f:annotations":{"f:pinion.dev/commit":{},"f:pinion.dev/digest":{}},"f:labels":{"f:app.kubernetes.io/managed-by":{},"f:pinion.dev/environment":{},"f:pinion.dev/service":{}}}}`
	kept := make([]*Observed, 0, b.N)
	p := place{kind: "ConfigMap", namespace: "shop"}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range b.N {
		m := &metav1.PartialObjectMetadata{}
		m.Name, m.Namespace = fmt.Sprintf("settings-%d", i), "shop"
		m.UID, m.ResourceVersion = types.UID(fmt.Sprintf("0d0a3bb4-7a4c-4f5e-9d55-%012d", i)), fmt.Sprint(1000000+i)
		m.Labels = map[string]string{render.LabelManagedBy: render.ManagedBy, render.LabelEnvironment: "staging", render.LabelService: "web"}
		m.Annotations = map[string]string{render.AnnotationCommit: "4f1c2aa90b7e4f1c2aa90b7e4f1c2aa90b7e4f1c", render.AnnotationDigest: fmt.Sprintf("sha256:%064d", i)}
		m.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: Manager, Operation: metav1.ManagedFieldsOperationApply, Time: &metav1.Time{Time: time.Now()}, FieldsV1: metav1.NewFieldsV1(fields)}}
		kept = append(kept, observePartial(p, "v1", m))
	}
	b.StopTimer()
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(b.N), "B/object")
	runtime.KeepAlive(kept)
}

// BenchmarkInSync tells what a look costs that was not looked before.
func BenchmarkInSync(b *testing.B) {
	fields := `{"f:spec":{"f:replicas":{},"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"web\"}":{".":{},"f:name":{},"f:image":{},"f:args":{},"f:ports":{}},"k:{\"name\":\"log\"}":{}},"f:nodeSelector":{},"f:weights":{}}}},"f:metadata":{"f:labels":{"f:a":{},"f:c.d/e":{}}}}`
	for b.Loop() {
		if !coversAll(fields, []byte(sample), nil) {
			b.Fatal("not covered")
		}
	}
}
