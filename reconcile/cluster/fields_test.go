package cluster

import (
	"encoding/json"
	"strings"
	"testing"

	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

func TestCovers(t *testing.T) {
	for _, test := range []struct {
		name, fields, object string
		want                 bool
	}{
		{"a field", `{"f:a":{}}`, `{"a":1}`, true},
		{"another", `{"f:b":{}}`, `{"a":1}`, false},
		{"nothing", `{}`, `{"a":1}`, false},
		{"no set", `null`, `{"a":1}`, false},
		{"null asks for nothing", `{"f:b":{}}`, `{"a":null,"b":1}`, true},
		{"a leaf has all below", `{"f:a":{}}`, `{"a":{"b":{"c":1}}}`, true},
		{"only its existence", `{"f:a":{".":{}}}`, `{"a":{"b":1}}`, false},
		{"an empty map", `{"f:a":{".":{}}}`, `{"a":{}}`, true},
		{"an empty map that is not there", `{"f:b":{}}`, `{"a":{},"b":1}`, false},
		{"a part of a map", `{"f:a":{"f:b":{}}}`, `{"a":{"b":1,"c":2}}`, false},
		{"what the API server never records", `{"f:a":{}}`, `{"apiVersion":"v1","kind":"K","metadata":{"name":"n","namespace":"s"},"status":{"x":1},"a":1}`, true},
		{"labels", `{"f:metadata":{"f:labels":{"f:x":{}}}}`, `{"metadata":{"name":"n","labels":{"x":"1","y":"2"}}}`, false},
		{"an item by key", `{"f:l":{"k:{\"name\":\"a\"}":{".":{},"f:name":{},"f:v":{}}}}`, `{"l":[{"name":"a","v":1}]}`, true},
		{"an item's field", `{"f:l":{"k:{\"name\":\"a\"}":{".":{},"f:name":{}}}}`, `{"l":[{"name":"a","v":1}]}`, false},
		{"an item that is not there", `{"f:l":{"k:{\"name\":\"a\"}":{".":{},"f:name":{}}}}`, `{"l":[{"name":"a"},{"name":"b"}]}`, false},
		{"a key with a default", `{"f:l":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}},"k:{\"containerPort\":80,\"protocol\":\"UDP\"}":{".":{},"f:containerPort":{},"f:protocol":{}}}}`, `{"l":[{"containerPort":80},{"containerPort":80,"protocol":"UDP"}]}`, true},
		{"an item by value", `{"f:l":{"v:\"a\"":{}}}`, `{"l":["a"]}`, true},
		{"another value", `{"f:l":{"v:\"a\"":{}}}`, `{"l":["b"]}`, false},
		{"an item by place", `{"f:l":{"i:0":{}}}`, `{"l":["a"]}`, true},
		{"a place that is not there", `{"f:l":{"i:0":{}}}`, `{"l":["a","b"]}`, false},
		{"an empty list has no items to own", `{"f:b":{}}`, `{"a":[],"b":1}`, true},
		{"so in an item", `{"f:l":{"k:{\"name\":\"a\"}":{".":{},"f:name":{}}}}`, `{"l":[{"name":"a","env":[]}]}`, true},
		{"an empty list that another has taken", `{"f:a":{"!":{}},"f:b":{}}`, `{"a":[],"b":1}`, false},
		{"no JSON", `{"f:a"`, `{"a":1}`, false},
	} {
		if got := coversAll(test.fields, []byte(test.object), nil); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

const sample = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","labels":{"a":"b","c.d/e":"f"}},
"spec":{"replicas":2,"template":{"spec":{"containers":[{"name":"web","image":"i:1","args":["a","b"],"ports":[{"name":"http","containerPort":80}]},
{"name":"log","image":"i:2","env":[{"name":"A","value":"1"}]}],"weights":[1,2.5,true]}}}}`

// What Kubernetes' own code computes as an object's set covers it, and a set
// that lacks any one of its leaves does not.
func TestCoversAgreesWithFieldpath(t *testing.T) {
	var object map[string]any
	if err := json.Unmarshal([]byte(sample), &object); err != nil {
		t.Fatal(err)
	}
	delete(object, "apiVersion")
	delete(object, "kind")
	delete(object["metadata"].(map[string]any), "name")
	whole := fieldpath.SetFromValue(value.NewValueInterface(object))
	text := func(s *fieldpath.Set) string {
		data, err := s.ToJSON()
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	if !coversAll(text(whole), []byte(sample), nil) {
		t.Errorf("not covered by %s", text(whole))
	}
	leaves := 0
	whole.Leaves().Iterate(func(p fieldpath.Path) {
		leaves++
		without := whole.Difference(fieldpath.NewSet(p))
		if coversAll(text(without), []byte(sample), nil) {
			t.Errorf("covered without %s", p)
		}
	})
	if leaves < 15 {
		t.Errorf("%d leaves only", leaves)
	}
}

func TestCanonicalFields(t *testing.T) {
	for _, test := range []struct{ name, ours, others, live, want string }{
		{"sorted", `{"f:b":{},"f:a":{"f:d":{},"f:c":{}}}`, `{}`, `{"a":{"c":1,"d":1},"b":1}`, `{"f:a":{"f:c":{},"f:d":{}},"f:b":{}}`},
		{"no escapes", `{"f:<&>":{}}`, `{}`, `{"<&>":1}`, `{"f:<&>":{}}`},
		{"an atomic map", `{"f:a":{}}`, `{}`, `{"a":{"x":1}}`, `{"f:a":{}}`},
		{"shared with another", `{"f:a":{}}`, `{"f:a":{}}`, `{"a":{"x":1}}`, `{"f:a":{}}`},
		{"taken by another", `{"f:a":{}}`, `{"f:a":{"f:x":{}}}`, `{"a":{"x":1}}`, `{"f:a":{".":{}}}`},
		{"emptied by another", `{"f:a":{}}`, `{}`, `{"a":{}}`, `{"f:a":{".":{}}}`},
		{"a leaf of another's", `{"f:b":{}}`, `{"f:a":{},"f:c":{"f:d":{}}}`, `{"a":[1],"b":1}`, `{"f:a":{"!":{}},"f:b":{}}`},
		{"not below what is all ours", `{"f:b":{}}`, `{"f:b":{"f:a":{}}}`, `{"b":[]}`, `{"f:b":{}}`},
		{"further down", `{"f:s":{"f:a":{}}}`, `{"f:s":{"f:a":{"f:x":{}}}}`, `{"s":{"a":{"x":1}}}`, `{"f:s":{"f:a":{".":{}}}}`},
	} {
		var ours, others, live map[string]any
		for text, to := range map[string]*map[string]any{test.ours: &ours, test.live: &live} {
			if err := json.Unmarshal([]byte(text), to); err != nil {
				t.Fatal(err)
			}
		}
		if err := json.Unmarshal([]byte(test.others), &others); err != nil {
			t.Fatal(err)
		}
		if got := canonicalFields(ours, []map[string]any{others}, live).Value(); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

func FuzzCovers(f *testing.F) {
	f.Add(`{"f:l":{"k:{\"name\":\"a\"}":{".":{},"f:name":{}}}}`, sample)
	f.Add(`{"f:l":{"v:1":{},"i:0":{}}}`, `{"l":[1]}`)
	f.Add(`{"f:a":{"f:b":null}}`, `{"a":{"b":{}}}`)
	f.Fuzz(func(t *testing.T, fields, object string) {
		coversAll(fields, []byte(object), nil)
	})
}

func FuzzClean(f *testing.F) {
	f.Add(`Secret "x" is invalid: data[a]: Invalid value: "hunter2": must not`, "hunter2")
	f.Fuzz(func(t *testing.T, message, secret string) {
		if len(secret) < 4 || strings.Contains("***…", secret) {
			return
		}
		body, err := json.Marshal(map[string]any{"stringData": map[string]string{"a": secret}})
		if err != nil || !strings.Contains(string(body), secret) {
			return
		}
		fail := failure{op: "apply", body: body}
		fail.ref.Kind, fail.ref.Name = "Secret", "x"
		if got := fail.clean(message); strings.Contains(got, secret) {
			t.Errorf("%q has %q", got, secret)
		}
	})
}
