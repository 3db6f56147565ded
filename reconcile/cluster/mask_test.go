package cluster

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestMask(t *testing.T) {
	for _, c := range []struct{ name, before, after, wantBefore, wantAfter string }{
		{"what differs, and what does not", `"data": {"a": "1", "b": "2", "gone": "3"}`, `"data": {"a": "1", "b": "3", "new": "4"}`,
			`"data": {"a": "***", "b": "*** (before)", "gone": "***"}`, `"data": {"a": "***", "b": "*** (after)", "new": "***"}`},
		{"a new one", ``, `"data": {"a": "1"}`, ``, `"data": {"a": "***"}`},
		{"nothing in it", `"data": {}`, `"type": "Opaque"`, `"data": {}`, `"type": "Opaque"`},
		{"in the clear", `"data": {"a": "1"}`, `"stringData": {"a": "1", "b": 2}`, `"data": {"a": "***"}`, `"stringData": {"a": "***", "b": "***"}`},
		{"of the wrong form", `"data": ["1"]`, `"data": "1", "stringData": 1`, `"data": "***"`, `"data": "***", "stringData": "***"`},
		{"what kubectl keeps", `"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "1"}}`, `"data": null`,
			`"metadata": {"annotations": {}}`, `"data": null`},
	} {
		object := func(fields string) *unstructured.Unstructured {
			u := &unstructured.Unstructured{}
			if err := json.Unmarshal([]byte(`{"apiVersion": "v1", "kind": "Secret"`+strings.TrimSuffix(", "+fields, ", ")+`}`), &u.Object); err != nil {
				t.Fatal(err)
			}
			return u
		}
		before, after := object(c.before), object(c.after)
		mask(before, after)
		if d := cmp.Diff(object(c.wantBefore).Object, before.Object) + cmp.Diff(object(c.wantAfter).Object, after.Object); d != "" {
			t.Errorf("%s (-want, +got):\n%s", c.name, d)
		}
	}
	first := &unstructured.Unstructured{Object: map[string]any{"kind": "Secret", "data": map[string]any{"a": "1"}}}
	mask(nil, first)
	if first.Object["data"].(map[string]any)["a"] != "***" {
		t.Errorf("%v", first)
	}
	other := &unstructured.Unstructured{Object: map[string]any{"kind": "ConfigMap", "data": map[string]any{"a": "1"}}}
	mask(other, other)
	if other.Object["data"].(map[string]any)["a"] != "1" {
		t.Errorf("a ConfigMap is masked: %v", other)
	}
}
