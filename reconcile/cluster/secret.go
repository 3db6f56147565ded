package cluster

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fluxcd/pkg/ssa"
)

// annotationLastApplied holds a whole object, with its values, as kubectl's
// client-side apply left it.
const annotationLastApplied = "kubectl.kubernetes.io/last-applied-configuration"

func isSecret(u *unstructured.Unstructured) bool {
	return u != nil && u.GetKind() == "Secret" && u.GroupVersionKind().Group == ""
}

// mask hides the values of two versions of a Secret; what differs is shown as
// "*** (before)" and "*** (after)". Either may be nil.
func mask(before, after *unstructured.Unstructured) error {
	if !isSecret(before) && !isSecret(after) {
		return nil
	}
	for _, u := range []*unstructured.Unstructured{before, after} {
		if u == nil {
			continue
		}
		// What is to be sent is not yet what will be there.
		given, _, _ := unstructured.NestedMap(u.Object, "stringData")
		for k, v := range given {
			if s, ok := v.(string); ok {
				_ = unstructured.SetNestedField(u.Object, base64.StdEncoding.EncodeToString([]byte(s)), "data", k)
			}
		}
		unstructured.RemoveNestedField(u.Object, "stringData")
		unstructured.RemoveNestedField(u.Object, "metadata", "annotations", annotationLastApplied)
	}
	return ssa.SanitizeUnstructuredData(before, after)
}

// secretValues returns the values that a Secret's JSON holds, encoded and
// decoded, the longest first.
func secretValues(body []byte) []string {
	var s struct {
		Data       map[string]any
		StringData map[string]any
	}
	if json.Unmarshal(body, &s) != nil {
		return nil
	}
	var values []string
	add := func(v any) {
		text, ok := v.(string)
		if !ok {
			raw, err := json.Marshal(v)
			if err != nil {
				return
			}
			text = string(raw)
		}
		values = append(values, text)
		if plain, err := base64.StdEncoding.DecodeString(text); err == nil {
			values = append(values, string(plain))
		}
	}
	for _, v := range s.Data {
		add(v)
	}
	for _, v := range s.StringData {
		add(v)
	}
	values = slices.DeleteFunc(values, func(v string) bool { return v == "" })
	slices.SortFunc(values, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return values
}
