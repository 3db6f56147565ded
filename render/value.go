package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
)

// The values of manifests are nil, bool, int64, uint64, float64, string,
// []any and map[string]any.

// canonical returns a value as JSON with sorted keys, without spaces, with
// whole numbers in full and other numbers in their shortest form.
func canonical(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// number reads a JSON number: int64 if it is whole and fits, else uint64,
// else float64.
func number(s string) (any, error) {
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return i, nil
	}
	if u, err := strconv.ParseUint(s, 10, 64); err == nil {
		return u, nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return nil, fmt.Errorf("the number %s is out of range", s)
	}
	return whole(f), nil
}

// whole returns a float64 that is a whole number as an int64: 3.0 is 3.
func whole(f float64) any {
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return int64(f)
	}
	return f
}

var errDepth = fmt.Errorf("is nested deeper than %d levels", maxDepth)

// decodeJSON reads the next JSON value, refusing duplicate keys.
func decodeJSON(d *json.Decoder, depth int) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, errDepth
	}
	switch t := token.(type) {
	case json.Number:
		return number(t.String())
	case json.Delim:
		if t == '[' {
			list := []any{}
			for d.More() {
				v, err := decodeJSON(d, depth+1)
				if err != nil {
					return nil, unexpectedEnd(err)
				}
				list = append(list, v)
			}
			_, err := d.Token()
			return list, unexpectedEnd(err)
		}
		m := map[string]any{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, unexpectedEnd(err)
			}
			name, ok := key.(string)
			if !ok {
				return nil, fmt.Errorf("a key must be a string, not %v", key)
			}
			if _, ok := m[name]; ok {
				return nil, fmt.Errorf("the key %q is there twice", name)
			}
			if m[name], err = decodeJSON(d, depth+1); err != nil {
				return nil, unexpectedEnd(err)
			}
		}
		_, err := d.Token()
		return m, unexpectedEnd(err)
	default:
		return t, nil
	}
}

func unexpectedEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// kindOf names a value's type as its author would.
func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case int64, uint64, float64:
		return "a number"
	case string:
		return "a string"
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	default:
		return fmt.Sprintf("a %T", v)
	}
}
