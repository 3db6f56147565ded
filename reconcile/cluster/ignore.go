package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unique"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/pinion-cd/pinion/render"
)

// What is rendered for an ignored field (render.Object's Ignore) is its first
// value only. An object that exists is applied without it if somebody else owns
// the field or has removed it: so there can be no conflict, and nothing is taken
// back. If we alone own it, leaving it out would delete it, so it is sent as it
// is now. That holds only for the version of the object that was read, so the
// request names it, and if somebody came in between all begins anew.

// mostYields is how often an object is read and applied again because others,
// such as a controller that writes its status, change it at the same time.
const mostYields = 10

// modifiedError says that the object is not the version that a request names.
type modifiedError string

func (e modifiedError) Error() string { return string(e) }

func wasModified(err error) bool {
	var modified modifiedError
	return errors.As(err, &modified)
}

// yield returns the body of an apply with the ignored fields as they are to be
// left.
func (c *Cluster) yield(ctx context.Context, f failure, m Mapped, o render.Object, body []byte) ([]byte, error) {
	if len(o.Ignore) == 0 {
		return body, nil
	}
	live, err := c.read(ctx, f, m)
	if err != nil || live == nil {
		return body, err
	}
	return leaveTo(body, pointersOf(o), live)
}

// read returns an object as it is now; nil: it is not there.
func (c *Cluster) read(ctx context.Context, f failure, m Mapped) (*unstructured.Unstructured, error) {
	var live *unstructured.Unstructured
	err := c.send(ctx, func(ctx context.Context) (err error) {
		live, err = c.dynamic.Resource(m.GVR).Namespace(m.Ref.Namespace).Get(ctx, m.Ref.Name, metav1.GetOptions{})
		return err
	})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, classify(f, err)
	}
	return live, nil
}

// pointersOf returns the pointers to an object's ignored fields, each taken
// apart. What a Secret gives as stringData is sent, and lives, as data.
func pointersOf(o render.Object) [][]string {
	pointers := make([][]string, 0, len(o.Ignore))
	for _, p := range o.Ignore {
		tokens := strings.Split(strings.TrimPrefix(p, "/"), "/")
		for i, t := range tokens {
			tokens[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(t)
		}
		if o.Ref.Kind == "Secret" && o.Ref.Group == "" && tokens[0] == "stringData" {
			tokens[0] = "data"
		}
		pointers = append(pointers, tokens)
	}
	return pointers
}

// hole stands where something was taken out, until all is done.
type hole struct{}

// strip takes the ignored fields out of a rendered object.
func strip(object map[string]any, pointers [][]string) {
	for _, p := range pointers {
		var at any = object
		for i, token := range p {
			last := i == len(p)-1
			switch x := at.(type) {
			case map[string]any:
				v, ok := x[token]
				if ok && last {
					x[token] = hole{}
				}
				at = v
			case []any:
				n, ok := index(x, token)
				if !ok {
					at = nil
					break
				}
				if at = x[n]; last {
					x[n] = hole{}
				}
			default:
				at = nil
			}
		}
	}
	fill(object)
}

func index(list []any, token string) (int, bool) {
	n, err := strconv.Atoi(token)
	return n, err == nil && n >= 0 && n < len(list)
}

// fill closes the holes. What has nothing but holes is one itself, for nobody
// asks that it be there and empty.
func fill(v any) any {
	holes, kept := false, 0
	switch x := v.(type) {
	case map[string]any:
		for k, inner := range x {
			if inner = fill(inner); inner == (hole{}) {
				holes = true
				delete(x, k)
				continue
			}
			x[k] = inner
		}
		kept = len(x)
	case []any:
		whole := x[:0]
		for _, inner := range x {
			if inner = fill(inner); inner == (hole{}) {
				holes = true
				continue
			}
			whole = append(whole, inner)
		}
		v, kept = whole, len(whole)
	}
	if holes && kept == 0 {
		return hole{}
	}
	return v
}

// leaveTo returns an apply's body in which each ignored field is as the live
// object has it, where we alone own it, and is left out else.
func leaveTo(body []byte, pointers [][]string, live *unstructured.Unstructured) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var object map[string]any
	if err := d.Decode(&object); err != nil {
		return nil, fmt.Errorf("leave fields to others: %w", err)
	}
	ours, others := owners(live)
	for _, p := range pointers {
		putBack(object, p, ours, others, live.Object)
	}
	fill(object)
	meta, _ := object["metadata"].(map[string]any)
	if meta == nil {
		return nil, errors.New("leave fields to others: the object has no metadata")
	}
	meta["resourceVersion"] = live.GetResourceVersion()
	return json.Marshal(object)
}

// owners returns the fields that our Apply entry holds, and those of each other
// manager.
func owners(u *unstructured.Unstructured) (ours map[string]any, others []map[string]any) {
	for _, m := range managers(u) {
		if m.ours() {
			ours = m.fields
		} else {
			others = append(others, m.fields)
		}
	}
	return ours, others
}

// putBack follows a pointer through the rendered object, and through what is
// live and who owns it, and puts what we have to hold on to at its end.
func putBack(object map[string]any, pointer []string, ours map[string]any, others []map[string]any, live any) {
	var at any = object
	for i, token := range pointer {
		last := i == len(pointer)-1
		var key string
		switch x := at.(type) {
		case map[string]any:
			key = "f:" + token
			m, _ := live.(map[string]any)
			live = m[token]
			ours, others = child(ours, key), children(others, key)
			if last {
				if v, keep := held(ours, others, live); keep {
					x[token] = v
				} else if _, there := x[token]; there {
					x[token] = hole{}
				}
				return
			}
			if _, there := x[token]; !there {
				if held, keep := held(ours, others, live); !keep || held == nil {
					return // nothing there is ours alone
				}
				x[token] = map[string]any{}
			}
			at = x[token]
		case []any:
			n, ok := index(x, token)
			if !ok {
				return
			}
			key = keyOf(ours, others, n, x[n])
			list, _ := live.([]any)
			live = itemAt(list, key)
			ours, others = child(ours, key), children(others, key)
			if last {
				if v, keep := held(ours, others, live); keep {
					x[n] = v
				} else {
					x[n] = hole{}
				}
				return
			}
			at = x[n]
		default:
			return
		}
	}
}

// keyOf returns the key under which the sets have a list's item; "" if none
// has it.
func keyOf(ours map[string]any, others []map[string]any, n int, item any) string {
	for _, node := range append([]map[string]any{ours}, others...) {
		found, ok := itemNode(node, n, item)
		if !ok {
			continue
		}
		for key, child := range node {
			if child, ok := child.(map[string]any); ok && reflect.ValueOf(child).Pointer() == reflect.ValueOf(found).Pointer() {
				return key
			}
		}
	}
	return ""
}

// itemAt finds the item of a live list that a set's key names.
func itemAt(list []any, key string) any {
	switch kind, text, _ := strings.Cut(key, ":"); kind {
	case "i":
		if n, ok := index(list, text); ok {
			return list[n]
		}
	case "v":
		var v any
		if json.Unmarshal([]byte(text), &v) != nil {
			return nil
		}
		for _, item := range list {
			if equal(item, v) {
				return item
			}
		}
	case "k":
		var keys map[string]any
		if json.Unmarshal([]byte(text), &keys) != nil {
			return nil
		}
		for _, item := range list {
			fields, ok := item.(map[string]any)
			for name, want := range keys {
				ok = ok && equal(fields[name], want)
			}
			if ok {
				return item
			}
		}
	}
	return nil
}

func child(node map[string]any, key string) map[string]any {
	c, _ := node[key].(map[string]any)
	return c
}

func children(nodes []map[string]any, key string) []map[string]any {
	var all []map[string]any
	for _, n := range nodes {
		if c, ok := n[key].(map[string]any); ok {
			all = append(all, c)
		}
	}
	return all
}

// held returns the part of a live value that we own and nobody else does.
func held(ours map[string]any, others []map[string]any, live any) (any, bool) {
	if ours == nil || live == nil {
		return nil, false
	}
	below := len(ours)
	if _, existence := ours["."]; existence {
		below--
	}
	if below == 0 {
		return live, len(others) == 0
	}
	switch live := live.(type) {
	case map[string]any:
		out := map[string]any{}
		for key := range ours {
			name, ok := strings.CutPrefix(key, "f:")
			if !ok {
				continue
			}
			if v, keep := held(child(ours, key), children(others, key), live[name]); keep {
				out[name] = v
			}
		}
		return out, len(out) > 0
	case []any:
		var out []any
		for _, item := range live {
			for key := range ours {
				if key == "." || !reflect.DeepEqual(itemAt(live, key), item) {
					continue
				}
				theirs := children(others, key)
				v, keep := held(child(ours, key), theirs, item)
				fields, isMap := v.(map[string]any)
				if !keep && len(theirs) == 0 { // else it would go
					keep, fields, isMap, v = true, map[string]any{}, true, nil
				}
				if !keep {
					break
				}
				var keys map[string]any
				if text, ok := strings.CutPrefix(key, "k:"); ok && isMap && json.Unmarshal([]byte(text), &keys) == nil {
					for name, value := range keys {
						fields[name] = value
					}
					v = fields
				}
				out = append(out, v)
				break
			}
		}
		return out, len(out) > 0
	}
	return live, len(others) == 0
}

// ignoring is the rules of an object as part of a key.
func ignoring(o render.Object) unique.Handle[string] {
	if len(o.Ignore) == 0 {
		return unique.Handle[string]{}
	}
	return unique.Make(strings.Join(o.Ignore, "\n"))
}
