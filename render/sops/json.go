package sops

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// parseJSON reads a file that holds one object.
func parseJSON(data []byte) (*node, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	j := jsonFile{data: data, d: d}
	n, err := j.value(0)
	if err != nil {
		return nil, err
	}
	if n.kind != mapping {
		return nil, n.errorf("", "an encrypted file must hold an object")
	}
	if rest := bytes.TrimSpace(data[d.InputOffset():]); len(rest) > 0 {
		return nil, j.here("", "something follows the object")
	}
	return n, nil
}

type jsonFile struct {
	data []byte
	d    *json.Decoder
}

// here is an error at the decoder's place.
func (j jsonFile) here(hint, format string, args ...any) *Error {
	n := &node{}
	n.line, n.column = place(j.data, int(j.d.InputOffset()))
	return n.errorf(hint, format, args...)
}

func (j jsonFile) value(depth int) (*node, error) {
	if depth > maxDepth {
		return nil, j.here("", "is nested too deep")
	}
	before := int(j.d.InputOffset())
	token, err := j.d.Token()
	if err != nil {
		return nil, j.here("", "is not JSON")
	}
	n := &node{start: before, end: int(j.d.InputOffset())}
	for n.start < n.end && strings.IndexByte(" \t\r\n:,", j.data[n.start]) >= 0 {
		n.start++
	}
	n.line, n.column = place(j.data, n.start)
	switch t := token.(type) {
	case json.Delim:
		if t == '[' {
			n.kind = list
			for j.d.More() {
				v, err := j.value(depth + 1)
				if err != nil {
					return nil, err
				}
				n.entries = append(n.entries, entry{value: v})
			}
		} else {
			n.kind = mapping
			for j.d.More() {
				if err := j.entry(n, depth); err != nil {
					return nil, err
				}
			}
		}
		if _, err := j.d.Token(); err != nil {
			return nil, j.here("", "is not JSON")
		}
		n.end = int(j.d.InputOffset())
	case json.Number:
		if i, err := t.Int64(); err == nil {
			n.value = int(i)
		} else if f, err := t.Float64(); err == nil {
			n.value = f
		} else {
			return nil, n.errorf("", "is a number out of range")
		}
	default:
		n.value = t
	}
	return n, nil
}

func (j jsonFile) entry(n *node, depth int) error {
	key, err := j.d.Token()
	if err != nil {
		return j.here("", "is not JSON")
	}
	name := fmt.Sprint(key)
	if n.get(name) != nil {
		return j.here("remove one", "the key %q is there twice", name)
	}
	v, err := j.value(depth + 1)
	if err != nil {
		return err
	}
	n.entries = append(n.entries, entry{key: name, value: v})
	return nil
}

// blankJSON returns the patch that takes the metadata out of a JSON object, and
// leaves its lines empty.
func blankJSON(data []byte, top *node) patch {
	n := top.get(metadataKey)
	start := bytes.LastIndex(data[:n.start], []byte(`"`+metadataKey+`"`))
	end := n.end
	if before := bytes.TrimRight(data[:start], " \t\r\n"); bytes.HasSuffix(before, []byte(",")) {
		start = len(before) - 1
	} else if after := bytes.TrimLeft(data[end:], " \t\r\n"); bytes.HasPrefix(after, []byte(",")) {
		end = len(data) - len(after) + 1
	}
	return patch{start, end, strings.Repeat("\n", bytes.Count(data[start:end], []byte("\n")))}
}
