package ledger

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var key = []byte("0123456789abcdef0123456789abcdef")

func TestEncodeManifests(t *testing.T) {
	const password = "correct horse\n\"battery\" <staple>"
	raw, _ := json.Marshal(password)
	coded := base64.StdEncoding.EncodeToString([]byte(password))
	objects := func(other string) [][]byte {
		return [][]byte{
			[]byte(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"web"},"data":{"big":"yes","n":"1e3"},"x":12345678901234567890}`),
			[]byte(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"web","namespace":"shop","annotations":{
				"kubectl.kubernetes.io/last-applied-configuration":"{}","note":"kept","seen":` + string(raw) + `,"coded":"x` + coded + `x"}},
				"type":"Opaque","data":{"password":"` + coded + `","pin":"MTIzNA==","broken":"%%%","null":null,"number":5},"stringData":{"token":` + string(raw) + `,"other":"` + other + `"},"datta":{"oops":"sesame"}}`),
			[]byte(`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Secret","metadata":{"name":"listed"},"stringData":{"a":"open sesame"}}]}`),
		}
	}
	out, err := EncodeManifests(objects("one"), key)
	if err != nil {
		t.Fatal(err)
	}
	text := string(out)
	for _, secret := range []string{"correct", "horse", "battery", "MTIzNA", coded, "sesame", "%%%", "one", "last-applied"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is there:\n%s", secret, text)
		}
	}
	for _, want := range []string{"\"n\": \"1e3\"", "big: \"yes\"", "x: 12345678901234567890", "note: kept", "name: listed", "  namespace: shop", "type: Opaque", "\"null\": null", "password: hmac-sha256:"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not there:\n%s", want, text)
		}
	}
	if n := strings.Count(text, "---\n"); n != 2 || strings.Index(text, "ConfigMap") > strings.Index(text, "Opaque") {
		t.Errorf("%d documents, or in another order:\n%s", n+1, text)
	}
	if again, _ := EncodeManifests(objects("one"), key); string(again) != text {
		t.Error("not the same twice", cmp.Diff(text, string(again)))
	}
	// One value changes one line.
	changed, _ := EncodeManifests(objects("two"), key)
	var lines []string
	for i, l := range strings.Split(string(changed), "\n") {
		if l != strings.Split(text, "\n")[i] {
			lines = append(lines, l)
		}
	}
	if len(lines) != 1 || !strings.HasPrefix(lines[0], "  other: hmac-sha256:") {
		t.Errorf("what has changed: %q", lines)
	}
	if other, _ := EncodeManifests(objects("one"), []byte("another key")); string(other) == text {
		t.Error("the key does not matter")
	}
	if hidden, _ := EncodeManifests(objects("one"), nil); strings.Contains(string(hidden), "sha256") || !strings.Contains(string(hidden), "password: hidden") {
		t.Errorf("without a key:\n%s", hidden)
	}
	if _, err := EncodeManifests([][]byte{[]byte(`{"a":1}`), []byte(`{"kind":"Secret","data":{"a":"c2VzYW1l"`)}, key); err == nil || strings.Contains(err.Error(), "c2VzYW1l") || !strings.Contains(err.Error(), "object 2") {
		t.Errorf("got %v", err)
	}
}

// Two keys, or two Secrets, with the same value don't show that it is the same.
func TestSameValuesLookDifferent(t *testing.T) {
	out, err := EncodeManifests([][]byte{
		[]byte(`{"kind":"Secret","metadata":{"name":"a"},"data":{"x":"c2VzYW1l","y":"c2VzYW1l"}}`),
		[]byte(`{"kind":"Secret","metadata":{"name":"b"},"data":{"x":"c2VzYW1l"}}`),
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	for l := range strings.SplitSeq(string(out), "\n") {
		if _, d, ok := strings.Cut(l, "hmac-sha256:"); ok {
			if slices.Contains(seen, d) {
				t.Errorf("%s is there twice", d)
			}
			seen = append(seen, d)
		}
	}
	if len(seen) != 3 {
		t.Errorf("there are %d values", len(seen))
	}
	// Whether it is written as data or as stringData is not a change.
	other, _ := EncodeManifests([][]byte{[]byte(`{"kind":"Secret","metadata":{"name":"b"},"stringData":{"x":"sesame"}}`)}, key)
	if !strings.Contains(string(other), seen[2]) {
		t.Errorf("%s is not in %s", seen[2], other)
	}
}

// Wherever a Secret stands and whatever it holds, its values are not written.
func TestNoSecretGetsOut(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 12))
		canary := fmt.Sprintf("canary%d", rnd.Uint64())
		value := func() any {
			return pick[any](rnd, canary, canary+"\n\"<x>", "x"+canary, base64.StdEncoding.EncodeToString([]byte(canary)), []any{canary}, map[string]any{"deep": canary})
		}
		secret := map[string]any{"kind": "Secret", "metadata": map[string]any{"name": "s", "annotations": map[string]any{"kubectl.kubernetes.io/last-applied-configuration": canary}}}
		for _, section := range []string{"data", "stringData", "Data"} {
			if rnd.IntN(2) == 0 {
				secret[section] = map[string]any{"a": value(), "b": value()}
			}
		}
		object := any(secret)
		for range rnd.IntN(4) {
			object = pick[any](rnd, map[string]any{"kind": "List", "items": []any{object}}, map[string]any{"kind": "Wrapper", "spec": object})
		}
		data, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		out, err := EncodeManifests([][]byte{data}, key)
		if err != nil {
			t.Fatal(err)
		}
		coded := base64.StdEncoding.EncodeToString([]byte(canary))
		if s := string(out); strings.Contains(s, canary) || strings.Contains(s, coded[:len(coded)-4]) {
			t.Fatalf("%s\nfrom %s", s, data)
		}
	}
}
