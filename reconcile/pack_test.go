package reconcile

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pinion-cd/pinion/render"
)

func TestTargetIsPacked(t *testing.T) {
	result := &render.Result{Digest: "sha256:1", Reads: []render.Read{{Path: "services/web/web.yaml", ID: "abc"}}}
	size := 0
	for i := range 4 {
		o := render.Object{
			Ref: render.Ref{Kind: "ConfigMap", Namespace: "shop", Name: fmt.Sprint("web-", i)}, Version: "v1", Digest: fmt.Sprint("sha256:", i), Ignore: []string{"/data/x"},
			JSON: fmt.Appendf(nil, `{"apiVersion":"v1","data":{"a":%q},"kind":"ConfigMap","metadata":{"name":"web-%d"}}`, bytes.Repeat([]byte("word "), 100), i),
		}
		size += len(o.JSON)
		result.Objects = append(result.Objects, o)
	}
	was := *result
	want := &Target{Key: Key{"dev", "web"}, Result: &was}
	packed := &Target{Key: Key{"dev", "web"}, Result: result}
	packed.pack()
	if result.Objects[0].JSON == nil {
		t.Error("the rendering, which others have too, was changed")
	}
	for _, o := range packed.Result.Objects {
		if o.JSON != nil || o.Digest == "" {
			t.Errorf("%s is kept as %+v", o.Ref, o)
		}
	}
	if len(packed.packed) > size/4 {
		t.Errorf("%d bytes are packed into %d", size, len(packed.packed))
	}
	for range 2 { // packing once more changes nothing
		got, err := packed.whole()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(Target{})); d != "" {
			t.Error(d)
		}
		packed.pack()
	}
	if got := packed.object(2); !cmp.Equal(got, was.Objects[2]) {
		t.Errorf("object 2 is %+v", got)
	}
	packed.packed = packed.packed[:len(packed.packed)/2]
	if got, err := packed.whole(); err == nil {
		t.Errorf("what is damaged is unpacked as %+v", got)
	}
}
