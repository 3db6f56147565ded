package sops

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

type kind int

const (
	scalar kind = iota
	mapping
	list
)

// node is a value of a file, with where it stands.
type node struct {
	kind         kind
	line, column int
	start, end   int // of a scalar, in bytes of the file
	value        any // of a scalar: nil, string, int, float64, bool or time.Time
	entries      []entry
}

// entry is an element of a mapping, or, without a key, of a list.
type entry struct {
	key      string
	value    *node
	comments []string // those right before it, without the "#"
}

// get returns what a mapping has under a key, or nil.
func (n *node) get(key string) *node {
	if n == nil || n.kind != mapping {
		return nil
	}
	for _, e := range n.entries {
		if e.key == key {
			return e.value
		}
	}
	return nil
}

// text returns a scalar as it was written, more or less; "" if it is no scalar.
func (n *node) text() string {
	if n == nil || n.kind != scalar {
		return ""
	}
	return string(inMAC(n.value))
}

// without returns a mapping that lacks a key.
func (n *node) without(key string) *node {
	less := *n
	less.entries = nil
	for _, e := range n.entries {
		if e.key != key {
			less.entries = append(less.entries, e)
		}
	}
	return &less
}

// inMAC returns a value as it goes into the checksum. SOPS began as a program
// in Python, whose booleans these are.
func inMAC(v any) []byte {
	switch v := v.(type) {
	case string:
		return []byte(v)
	case int:
		return strconv.AppendInt(nil, int64(v), 10)
	case float64:
		return strconv.AppendFloat(nil, v, 'f', -1, 64)
	case bool:
		if v {
			return []byte("True")
		}
		return []byte("False")
	case time.Time:
		text, _ := v.MarshalText() // no year that was parsed is out of range
		return text
	default:
		return nil
	}
}

// written returns a decrypted value as YAML and JSON write it, on one line.
func written(v any) string {
	switch v := v.(type) {
	case string:
		return quote(v)
	case int:
		return strconv.Itoa(v)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case bool:
		return strconv.FormatBool(v)
	case time.Time:
		return v.Format(time.RFC3339Nano)
	default:
		return "null"
	}
}

// quote writes a string so that YAML and JSON read the same.
func quote(s string) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r == 0xfeff || r == 0xfffe || r == 0xffff:
			b.WriteString(`\u`)
			for shift := 12; shift >= 0; shift -= 4 {
				b.WriteByte(digits[r>>shift&15])
			}
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// place returns the line and column of an offset.
func place(data []byte, offset int) (line, column int) {
	before := data[:min(offset, len(data))]
	last := strings.LastIndexByte(string(before), '\n')
	return 1 + strings.Count(string(before), "\n"), 1 + utf8.RuneCount(before[last+1:])
}

// patch puts texts in the places of others. The places are in order.
type patch struct {
	start, end int
	text       string
}

func apply(data []byte, patches []patch) []byte {
	var out []byte
	at := 0
	for _, p := range patches {
		out = append(out, data[at:p.start]...)
		out = append(out, p.text...)
		at = p.end
	}
	return append(out, data[at:]...)
}
