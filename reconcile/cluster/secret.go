package cluster

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/pinion-cd/pinion/render"
)

// annotationLastApplied holds a whole object, with its values, as kubectl's
// client-side apply left it.
const annotationLastApplied = "kubectl.kubernetes.io/last-applied-configuration"

func isSecret(u *unstructured.Unstructured) bool {
	return u != nil && u.GetKind() == "Secret" && u.GroupVersionKind().Group == ""
}

// plainSecret turns a Secret's stringData into data, as the API server does, but
// before the request. Owned are the fields as they were sent, and stringData
// is never there to be owned: changes of the data by others would not be seen,
// and what leaves the manifest would stay. Any other object stays as it is.
func plainSecret(ref render.Ref, body []byte) []byte {
	if ref.Kind != "Secret" || ref.Group != "" || !bytes.Contains(body, []byte(`"stringData"`)) {
		return body
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var object map[string]any
	if d.Decode(&object) != nil {
		return body
	}
	given, ok := object["stringData"].(map[string]any)
	if !ok {
		return body
	}
	data, _ := object["data"].(map[string]any)
	if data == nil {
		data = map[string]any{}
	}
	for k, v := range given {
		text, ok := v.(string)
		if !ok {
			return body // the API server says what is wrong with it
		}
		data[k] = base64.StdEncoding.EncodeToString([]byte(text))
	}
	object["data"] = data
	delete(object, "stringData")
	plain, err := json.Marshal(object)
	if err != nil {
		return body
	}
	return plain
}

// mask hides the values of two versions of a Secret; what differs is shown as
// "*** (before)" and "*** (after)". Either may be nil.
func mask(before, after *unstructured.Unstructured) {
	if !isSecret(before) && !isSecret(after) {
		return
	}
	for _, u := range []*unstructured.Unstructured{before, after} {
		if u != nil {
			unstructured.RemoveNestedField(u.Object, "metadata", "annotations", annotationLastApplied)
		}
	}
	for _, field := range []string{"data", "stringData"} {
		maskField(before, after, field)
	}
}

// maskField hides what a field holds, a value for each key, or all of it where an
// author has put something else there.
func maskField(before, after *unstructured.Unstructured, field string) {
	was, had := valuesOf(before, field)
	is, has := valuesOf(after, field)
	for key, value := range was {
		next, both := is[key]
		if both && !reflect.DeepEqual(value, next) {
			was[key], is[key] = "*** (before)", "*** (after)"
			continue
		}
		was[key] = "***"
		if both {
			is[key] = "***"
		}
	}
	for key := range is {
		if _, both := was[key]; !both {
			is[key] = "***"
		}
	}
	set := func(u *unstructured.Unstructured, values map[string]any, there bool) {
		switch {
		case values != nil:
			u.Object[field] = values
		case there:
			u.Object[field] = "***"
		}
	}
	set(before, was, had)
	set(after, is, has)
}

// valuesOf copies a map that a field is; nil if it is none, though it is there.
func valuesOf(u *unstructured.Unstructured, field string) (values map[string]any, there bool) {
	if u == nil || u.Object[field] == nil {
		return nil, false
	}
	m, ok := u.Object[field].(map[string]any)
	if !ok {
		return nil, true
	}
	return maps.Clone(m), true
}

// secretValues returns the values that a Secret's JSON holds, at any depth, for
// an author may have put them wrong; encoded and decoded, the longest first.
func secretValues(body []byte) []string {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var object map[string]any
	if d.Decode(&object) != nil {
		return nil
	}
	var values []string
	var add func(v any)
	add = func(v any) {
		switch v := v.(type) {
		case nil, bool:
		case map[string]any:
			for _, inner := range v {
				add(inner)
			}
		case []any:
			for _, inner := range v {
				add(inner)
			}
		default: // a string or a number
			text := fmt.Sprint(v)
			values = append(values, text)
			if plain, err := base64.StdEncoding.DecodeString(text); err == nil {
				values = append(values, string(plain))
			}
		}
	}
	add(object["data"])
	add(object["stringData"])
	values = slices.DeleteFunc(values, func(v string) bool { return v == "" })
	slices.SortFunc(values, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return values
}
