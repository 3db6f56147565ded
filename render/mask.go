package render

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Mask cuts secret values out of texts. It knows a value as it is, each of its
// lines, and what is usually made of it on the way into a message: quoted, in
// hexadecimal digits, in base64, also as a part of what was encoded. A value
// of fewer than four characters is cut out where it stands as a word. Of a value
// that whoever wrote the text has cut short, it knows what an ellipsis stands
// beside. The zero value and nil cut nothing.
type Mask struct {
	forms []string // the longest first
	words []string
}

// NewMask returns a mask for values.
func NewMask(values []string) *Mask {
	m := &Mask{}
	seen := map[string]bool{}
	add := func(form string) {
		if len(form) >= shortest && !seen[form] {
			seen[form] = true
			m.forms = append(m.forms, form)
		}
	}
	for _, v := range values {
		trimmed := strings.TrimSpace(v)
		if _, err := strconv.ParseBool(trimmed); err == nil {
			continue // of two, one knows the other
		}
		if len(trimmed) < shortest {
			if trimmed != "" && !seen[trimmed] {
				seen[trimmed] = true
				m.words = append(m.words, trimmed)
			}
			continue
		}
		pieces := []string{v, strings.TrimSpace(v)}
		for line := range strings.Lines(v) {
			if line = strings.TrimSpace(line); len(line) >= 6 {
				pieces = append(pieces, line)
			}
		}
		for _, p := range pieces {
			add(p)
			if escaped, err := json.Marshal(p); err == nil {
				add(string(escaped[1 : len(escaped)-1]))
			}
			for _, quoted := range []string{strconv.Quote(p), strconv.QuoteToASCII(p)} {
				add(quoted[1 : len(quoted)-1])
			}
			if len(p) < 6 {
				continue // its codes are too short to be told
			}
			add(hex.EncodeToString([]byte(p)))
			add(strings.ToUpper(hex.EncodeToString([]byte(p))))
			for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
				for shift := range 3 {
					add(inner(e, p, shift))
				}
			}
		}
	}
	slices.SortStableFunc(m.forms, func(a, b string) int { return len(b) - len(a) })
	return m
}

// inner is the part of a text's base64 that does not depend on what stands
// before and after it, if so many bytes of a group of three stand before.
func inner(e *base64.Encoding, text string, shift int) string {
	code := e.EncodeToString(append(make([]byte, shift), text...))
	start := (shift*8 + 5) / 6
	end := (shift + len(text)) * 8 / 6
	return code[start:end]
}

// Hide returns a text without the values.
func (m *Mask) Hide(text string) string {
	if m == nil || text == "" {
		return text
	}
	for _, form := range m.forms {
		text = strings.ReplaceAll(text, form, Masked)
	}
	for _, w := range m.words {
		text = hideWord(text, w)
	}
	for _, mark := range []string{"…", "..."} {
		text = m.hideCut(text, mark)
	}
	return text
}

// hideCut cuts out what is left of a value before and behind an ellipsis.
func (m *Mask) hideCut(text, mark string) string {
	for from := 0; ; {
		i := strings.Index(text[from:], mark)
		if i < 0 {
			return text
		}
		head, tail := text[:from+i], text[from+i+len(mark):]
		if n := m.left(func(form string, n int) bool { return strings.HasSuffix(head, form[:n]) }); n > 0 {
			head = head[:len(head)-n] + Masked
		}
		if n := m.left(func(form string, n int) bool { return strings.HasPrefix(tail, form[len(form)-n:]) }); n > 0 {
			tail = Masked + tail[n:]
		}
		text, from = head+mark+tail, len(head)+len(mark)
	}
}

// left returns how many bytes of a form are there, at most: fewer than all, and
// enough to be recognised.
func (m *Mask) left(there func(form string, n int) bool) int {
	most := 0
	for _, form := range m.forms {
		for n := len(form) - 1; n >= max(shortest, most+1); n-- {
			if there(form, n) {
				most = n
			}
		}
	}
	return most
}

// hideWord cuts a word out, and leaves it where it is a part of another.
func hideWord(text, word string) string {
	var b strings.Builder
	for {
		i := strings.Index(text, word)
		if i < 0 {
			b.WriteString(text)
			return b.String()
		}
		end := i + len(word)
		b.WriteString(text[:i])
		if i > 0 && letter(text[i-1]) && letter(word[0]) || end < len(text) && letter(text[end]) && letter(word[len(word)-1]) {
			b.WriteString(word)
		} else {
			b.WriteString(Masked)
		}
		text = text[end:]
	}
}

func letter(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80 || c == '_'
}

// hide returns an error without the values.
func (m *Mask) hide(err error) error {
	switch e := err.(type) {
	case nil:
		return nil
	case *Error:
		masked := *e
		masked.Message, masked.Hint = m.Hide(e.Message), m.Hide(e.Hint)
		return &masked
	default:
		if text := m.Hide(err.Error()); text != err.Error() {
			return fmt.Errorf("%s", text)
		}
		return err
	}
}

// SecretValues returns the values that an object holds and that are not to be
// shown: those of a Secret, as they are and decoded, and those of Hidden.
func (o Object) SecretValues() []string {
	secret := isSecret(o.Ref)
	if !secret && len(o.Hidden) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(o.JSON))
	d.UseNumber()
	var m map[string]any
	if d.Decode(&m) != nil {
		return nil
	}
	var values []string
	var all func(v any)
	all = func(v any) {
		switch v := v.(type) {
		case nil, bool:
		case map[string]any:
			for _, x := range v {
				all(x)
			}
		case []any:
			for _, x := range v {
				all(x)
			}
		default:
			text := fmt.Sprint(v)
			values = append(values, text)
			if plain, err := base64.StdEncoding.DecodeString(text); err == nil && secret {
				values = append(values, string(plain))
			}
		}
	}
	if secret {
		all(m["data"])
		all(m["stringData"])
	}
	for _, p := range o.Hidden {
		all(at(m, p))
	}
	return slices.DeleteFunc(values, func(v string) bool { return v == "" })
}

// at returns what a JSON pointer leads to, or nil.
func at(v any, pointer string) any {
	for token := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		switch x := v.(type) {
		case map[string]any:
			v = x[unescape.Replace(token)]
		case []any:
			n, err := strconv.Atoi(token)
			if err != nil || n < 0 || n >= len(x) {
				return nil
			}
			v = x[n]
		default:
			return nil
		}
	}
	return v
}

// SecretValues returns those of all its objects.
func (r *Result) SecretValues() []string {
	if r == nil {
		return nil
	}
	var values []string
	for _, o := range r.All() {
		values = append(values, o.SecretValues()...)
	}
	return values
}

// Mask returns what cuts the result's secret values out of texts; nil if it has
// none.
func (r *Result) Mask() *Mask {
	values := r.SecretValues()
	if len(values) == 0 {
		return nil
	}
	return NewMask(values)
}
