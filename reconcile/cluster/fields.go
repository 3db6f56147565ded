package cluster

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"unique"

	"github.com/pinion-cd/pinion/render"
)

// A set of owned fields is written as Kubernetes writes it (fieldsV1, see
// sigs.k8s.io/structured-merge-diff/v6/fieldpath): a JSON object whose keys are
// "f:<name>" for a field, `k:{…}` for a list's item by its key fields, `v:…` for
// one by its value, "i:<n>" for one by its place, and "." for the thing itself.
// An empty object is a leaf: all that is below it is owned together.

// InSync tells whether an object is as it was rendered: the digest that we
// left on it is the rendering's, and our Apply entry still holds every field
// that the rendering sets and does not ignore. Fields that others own and we
// never set don't matter. It does not ask whether the object is Owned, or how it does.
func InSync(o Observed, object render.Object) bool {
	if o.Digest == "" || o.Digest != object.Digest || o.Fields == (unique.Handle[string]{}) {
		return false
	}
	key := coverage{o.Fields, unique.Make(object.Digest), ignoring(object)}
	if covered, ok := remembered.get(key); ok {
		return covered
	}
	if object.JSON == nil {
		return false // not known, and nothing to find it out from
	}
	covered := coversAll(o.Fields.Value(), plainSecret(object.Ref, object.JSON), pointersOf(object))
	remembered.put(key, covered)
	return covered
}

// Judged tells whether InSync knows its answer without the object's bytes.
func Judged(o Observed, object render.Object) bool {
	if o.Digest == "" || o.Digest != object.Digest || o.Fields == (unique.Handle[string]{}) {
		return true
	}
	_, ok := remembered.get(coverage{o.Fields, unique.Make(object.Digest), ignoring(object)})
	return ok
}

// coverage asks whether a set of fields covers a rendering.
type coverage struct {
	fields unique.Handle[string]
	digest unique.Handle[string]
	ignore unique.Handle[string] // what of the rendering is left to others
}

// remembered holds answers, which can't change: both sides of the question are
// values. The API server's own answer to an apply is one of them too.
var remembered memory

// remember takes note that the fields are all that an apply of the object's
// digest sets: nobody came between the apply and this version of the object.
func (o *Observed) remember() {
	if o.Digest != "" && o.Fields != (unique.Handle[string]{}) {
		remembered.put(coverage{o.Fields, unique.Make(o.Digest), o.ignoring}, true)
	}
}

const mostRemembered = 1 << 16

type memory struct {
	mu    sync.Mutex
	known map[coverage]bool // guarded by mu
}

func (m *memory) get(k coverage) (bool, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.known[k]
	return v, ok
}

func (m *memory) put(k coverage, v bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil || len(m.known) >= mostRemembered {
		m.known = map[coverage]bool{}
	}
	m.known[k] = v
}

// coversAll tells whether a set of fields has every field of an object that an
// apply can own, but for what is ignored.
func coversAll(fields string, object []byte, ignored [][]string) bool {
	var set, value map[string]any
	if json.Unmarshal([]byte(fields), &set) != nil || json.Unmarshal(object, &value) != nil {
		return false
	}
	strip(value, ignored)
	// What fieldpath strips from every set, and the status, which no apply to
	// the main resource sets if it has a subresource.
	delete(value, "apiVersion")
	delete(value, "kind")
	delete(value, "status")
	if meta, ok := value["metadata"].(map[string]any); ok {
		for _, name := range []string{"name", "namespace", "creationTimestamp", "generateName", "generation", "managedFields", "resourceVersion", "selfLink", "uid"} {
			delete(meta, name)
		}
		if len(meta) == 0 {
			delete(value, "metadata")
		}
	}
	return len(set) > 0 && covers(set, value)
}

// covers tells whether a node of a set has all of a value.
func covers(node map[string]any, value any) bool {
	if len(node) == 0 {
		return true
	}
	switch value := value.(type) {
	case map[string]any:
		for name, v := range value {
			if v == nil {
				continue // "leave it out"
			}
			child, ok := node["f:"+name].(map[string]any)
			// An empty list is recorded only if it is atomic, and who
			// can't tell must not ask for it.
			if list, isList := v.([]any); !ok && isList && len(list) == 0 {
				continue
			}
			if _, theirs := child[taken]; !ok || theirs || !covers(child, v) {
				return false
			}
		}
	case []any:
		for i, item := range value {
			child, ok := itemNode(node, i, item)
			if !ok || !covers(child, item) {
				return false
			}
		}
	}
	return true
}

// itemNode finds a list's item among a node's children. A key field that the
// item does not have is one with a default.
func itemNode(node map[string]any, index int, item any) (map[string]any, bool) {
	if child, ok := node["i:"+strconv.Itoa(index)].(map[string]any); ok {
		return child, true
	}
	fields, isMap := item.(map[string]any)
	var found map[string]any
	best := 0
	for key, child := range node {
		child, ok := child.(map[string]any)
		if !ok {
			continue
		}
		if text, ok := strings.CutPrefix(key, "v:"); ok {
			var v any
			if json.Unmarshal([]byte(text), &v) == nil && reflect.DeepEqual(v, item) {
				return child, true
			}
			continue
		}
		text, ok := strings.CutPrefix(key, "k:")
		if !ok || !isMap {
			continue
		}
		var keys map[string]any
		if json.Unmarshal([]byte(text), &keys) != nil {
			continue
		}
		equal := 0
		for name, want := range keys {
			have, ok := fields[name]
			if !ok {
				continue
			}
			if !reflect.DeepEqual(have, want) {
				equal = 0
				break
			}
			equal++
		}
		if equal > best {
			found, best = child, equal
		}
	}
	return found, found != nil
}

// canonicalFields writes our set with sorted keys, so that one set is one
// string however it came.
//
// A leaf for a map is ambiguous: it may own the map as a whole, or the map's
// existence only, when all that we had set in it was taken by others. The
// live object and the others' sets tell which, and the latter is written as
// {".":{}}.
//
// That an empty list is not recorded is ambiguous too: that of a map or a set
// never is, and one that is owned as a whole is not once another has taken it.
// What others own as a whole and we don't is therefore written as {"!":{}}.
func canonicalFields(ours map[string]any, others []map[string]any, live map[string]any) unique.Handle[string] {
	for _, o := range others {
		markTaken(ours, o)
	}
	if live != nil {
		settle(ours, others, live)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(ours); err != nil {
		return unique.Handle[string]{}
	}
	return unique.Make(strings.TrimSuffix(b.String(), "\n"))
}

func settle(ours map[string]any, others []map[string]any, live any) {
	object, ok := live.(map[string]any)
	if !ok {
		return
	}
	for key, child := range ours {
		name, ok := strings.CutPrefix(key, "f:")
		if !ok {
			continue
		}
		node, ok := child.(map[string]any)
		if !ok {
			continue
		}
		value, isMap := object[name].(map[string]any)
		if !isMap {
			continue
		}
		var below []map[string]any
		for _, o := range others {
			if n, ok := o[key].(map[string]any); ok {
				below = append(below, n)
			}
		}
		if len(node) > 0 {
			settle(node, below, value)
			continue
		}
		emptied := len(value) == 0
		for _, n := range below {
			for k := range n {
				emptied = emptied || k != "."
			}
		}
		if emptied {
			ours[key] = map[string]any{".": map[string]any{}}
		}
	}
}

// taken marks what others own as a whole and we don't.
const taken = "!"

func markTaken(ours, other map[string]any) {
	if len(ours) == 0 {
		return // all below is ours
	}
	for key, child := range other {
		theirs, ok := child.(map[string]any)
		if !ok || !strings.HasPrefix(key, "f:") && !strings.HasPrefix(key, "k:") {
			continue
		}
		mine, known := ours[key].(map[string]any)
		switch {
		case known:
			markTaken(mine, theirs)
		case len(theirs) == 0 && strings.HasPrefix(key, "f:"):
			ours[key] = map[string]any{taken: map[string]any{}}
		}
	}
}
