package ledger

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// A record's file is YAML of a simple kind: mappings in the order of the
// types, lists, and texts that are plain, in quotation marks, or a block. A
// reader for just that takes a hundredth of what a reader for all of YAML
// takes, and a daemon reads all records when it starts. What the simple reader
// does not know, the other one reads.

// shape is how a type is written.
type shape struct {
	kind   shapeKind
	of     *shape  // of a list's element
	fields []field // of a mapping
}

type shapeKind string

const (
	isText    shapeKind = "text"
	isTime    shapeKind = "time"
	isMapping shapeKind = "mapping"
	isPointer shapeKind = "pointer" // to a mapping
	isList    shapeKind = "list"
)

type field struct {
	name  string
	index int
	shape *shape
}

var recordShape = sync.OnceValue(func() *shape { return shapeOf(reflect.TypeFor[Record]()) })

func shapeOf(t reflect.Type) *shape {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return &shape{kind: isTime}
	case t.Kind() == reflect.String:
		return &shape{kind: isText}
	case t.Kind() == reflect.Slice:
		return &shape{kind: isList, of: shapeOf(t.Elem())}
	case t.Kind() == reflect.Pointer:
		return &shape{kind: isPointer, of: shapeOf(t.Elem())}
	case t.Kind() == reflect.Struct:
		s := &shape{kind: isMapping}
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			s.fields = append(s.fields, field{name, i, shapeOf(t.Field(i).Type)})
		}
		return s
	}
	panic("ledger: a record can't have a " + t.String())
}

func appendMapping(b []byte, v reflect.Value, s *shape, depth int, begun bool) []byte {
	for _, f := range s.fields {
		x := v.Field(f.index)
		if empty(x, f.shape) {
			continue
		}
		if !begun {
			b = spaces(b, depth)
		}
		begun = false
		b = append(append(b, f.name...), ':')
		b = appendValue(b, x, f.shape, depth)
	}
	return b
}

func empty(v reflect.Value, s *shape) bool {
	switch s.kind {
	case isTime:
		return v.Addr().Interface().(*time.Time).IsZero()
	case isList:
		return v.Len() == 0
	case isMapping:
		for _, f := range s.fields {
			if !empty(v.Field(f.index), f.shape) {
				return false
			}
		}
		return true
	}
	return v.IsZero()
}

// appendValue writes what follows a key.
func appendValue(b []byte, v reflect.Value, s *shape, depth int) []byte {
	if s.kind == isPointer {
		v, s = v.Elem(), s.of
	}
	switch {
	case s.kind == isMapping && empty(v, s):
		return append(b, " {}\n"...)
	case s.kind == isMapping:
		return appendMapping(append(b, '\n'), v, s, depth+1, false)
	case s.kind == isList:
		b = append(b, '\n')
		for i := range v.Len() {
			b = append(spaces(b, depth), '-')
			x := v.Index(i)
			if s.of.kind == isMapping && !empty(x, s.of) {
				b = appendMapping(append(b, ' '), x, s.of, depth+1, true)
			} else {
				b = appendValue(b, x, s.of, depth)
			}
		}
		return b
	case s.kind == isTime:
		b = v.Addr().Interface().(*time.Time).UTC().AppendFormat(append(b, ' '), time.RFC3339)
		return append(b, '\n')
	}
	return appendText(append(b, ' '), v.String(), depth)
}

func spaces(b []byte, depth int) []byte {
	for range depth {
		b = append(b, "  "...)
	}
	return b
}

func appendText(b []byte, s string, depth int) []byte {
	switch {
	case plain(s):
		return append(append(b, s...), '\n')
	case block(s):
		b = append(b, "|-\n"...)
		for l := range strings.SplitSeq(s, "\n") {
			if l != "" {
				b = append(spaces(b, depth+1), l...)
			}
			b = append(b, '\n')
		}
		return b
	}
	return append(quote(b, s), '\n')
}

// plain tells whether a text can stand without quotation marks, and means
// itself to any reader of YAML. It is stricter than it had to be.
func plain(s string) bool {
	if s == "" || s[len(s)-1] == ' ' || s[len(s)-1] == ':' {
		return false
	}
	switch c := s[0]; {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
		if len(s) <= 5 {
			switch strings.ToLower(s) {
			case "y", "n", "yes", "no", "on", "off", "true", "false", "null":
				return false
			}
		}
	case '0' <= c && c <= '9': // a commit, but not 1234, 12e4 or 0b10
		if !strings.ContainsAny(s, "acdf") || strings.Trim(s, "0123456789abcdef") != "" {
			return false
		}
	default:
		return false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case ordinary[c]:
		case c == ':' && s[i+1] != ' ', c == '#' && s[i-1] != ' ':
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRuneInString(s[i:])
			if !unicode.IsPrint(r) || r == utf8.RuneError {
				return false
			}
			i += size - 1
		default:
			return false
		}
	}
	return true
}

// ordinary are the characters that mean nothing within a plain text.
var ordinary = func() (table [256]bool) {
	for c := ' '; c < 0x7f; c++ {
		table[c] = c != ':' && c != '#'
	}
	return table
}()

// block tells whether a text of several lines can be written line by line.
func block(s string) bool {
	if !strings.Contains(s, "\n") || strings.ContainsAny(s[:1], " \t\n") || strings.HasSuffix(s, "\n") {
		return false
	}
	for l := range strings.SplitSeq(s, "\n") {
		if l != "" && strings.Trim(l, " \t") == "" {
			return false
		}
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return r != '\n' && r != '\t' && (!unicode.IsPrint(r) || r == utf8.RuneError)
	}) < 0
}

// quote writes a text in quotation marks, as YAML 1.2 and, but for \U, JSON
// have them.
func quote(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\t':
			b = append(b, `\t`...)
		case unicode.IsPrint(r):
			b = utf8.AppendRune(b, r)
		case r > 0xffff:
			b = fmt.Appendf(b, `\U%08X`, r)
		default:
			b = fmt.Appendf(b, `\u%04X`, r)
		}
	}
	return append(b, '"')
}

// errOther says that a file is not of the simple kind.
var errOther = errors.New("not written by Encode")

// lines reads a file of the simple kind.
type lines struct {
	rest  string // after the current line
	depth int    // of the current line, in spaces
	text  string // the current line, without the spaces before it
	end   bool
}

func (l *lines) next() {
	if l.rest == "" {
		l.depth, l.text, l.end = -1, "", true
		return
	}
	line, rest, _ := strings.Cut(l.rest, "\n")
	l.rest = rest
	for l.depth = 0; l.depth < len(line) && line[l.depth] == ' '; {
		l.depth++
	}
	l.text = line[l.depth:]
}

func (l *lines) mapping(v reflect.Value, s *shape, depth int) error {
	next := 0 // fields come in order, and thereby once
	for l.depth == depth && !strings.HasPrefix(l.text, "- ") {
		key, rest, ok := strings.Cut(l.text, ":")
		if !ok {
			return errOther
		}
		for next < len(s.fields) && s.fields[next].name != key {
			next++
		}
		if next == len(s.fields) {
			return errOther
		}
		f := s.fields[next]
		next++
		if err := l.value(v.Field(f.index), f.shape, rest, depth); err != nil {
			return err
		}
	}
	if next == 0 {
		return errOther
	}
	return nil
}

// value reads what follows a key in its line, and below it.
func (l *lines) value(v reflect.Value, s *shape, rest string, depth int) error {
	if s.kind == isPointer {
		v.Set(reflect.New(v.Type().Elem()))
		v, s = v.Elem(), s.of
	}
	if s.kind == isText || s.kind == isTime {
		text, ok := strings.CutPrefix(rest, " ")
		if !ok {
			return errOther
		}
		return l.scalar(v, s, text, depth)
	}
	if rest == " {}" && s.kind == isMapping {
		l.next()
		return nil
	}
	if rest != "" {
		return errOther
	}
	l.next()
	if s.kind == isMapping {
		return l.mapping(v, s, depth+2)
	}
	v.Grow(l.items())
	for n := 0; ; n++ {
		if l.depth != depth || !strings.HasPrefix(l.text, "- ") {
			if n == 0 {
				return errOther
			}
			return nil
		}
		v.Grow(1)
		v.SetLen(n + 1)
		x := v.Index(n)
		x.SetZero()
		text := l.text[2:]
		var err error
		switch {
		case s.of.kind == isMapping && text == "{}":
			l.next()
		case s.of.kind == isMapping:
			l.depth, l.text = depth+2, text
			err = l.mapping(x, s.of, depth+2)
		default:
			err = l.scalar(x, s.of, text, depth)
		}
		if err != nil {
			return err
		}
	}
}

// items counts the items of a list that begins with the current line, but not many,
// for there may be no more behind what looks like them.
func (l *lines) items() int {
	n := 1
	for rest := l.rest; rest != "" && n < 2*MaxPrevious; {
		line, after, _ := strings.Cut(rest, "\n")
		if len(line) <= l.depth || line[l.depth] != ' ' {
			if !strings.HasPrefix(line[min(l.depth, len(line)):], "- ") {
				break
			}
			n++
		}
		rest = after
	}
	return n
}

func (l *lines) scalar(v reflect.Value, s *shape, text string, depth int) error {
	if s.kind == isTime {
		t, err := time.Parse(time.RFC3339, text)
		if err != nil || len(text) != len("2006-01-02T15:04:05Z") {
			return errOther
		}
		l.next()
		*v.Addr().Interface().(*time.Time) = t.UTC()
		return nil
	}
	switch {
	case text == "|-":
		return l.block(v, depth+2)
	case strings.HasPrefix(text, `"`):
		s, ok := unquote(text)
		if !ok {
			return errOther
		}
		text = s
	case !plain(text):
		return errOther
	}
	l.next()
	v.SetString(text)
	return nil
}

// block reads a text line by line, down to one that is further out.
func (l *lines) block(v reflect.Value, depth int) error {
	var b strings.Builder
	for n := 0; ; n++ {
		l.next()
		if l.end || l.text != "" && l.depth < depth {
			break
		}
		if n > 0 {
			b.WriteByte('\n')
		}
		if l.text == "" {
			if l.depth > 0 {
				return errOther
			}
			continue
		}
		for range l.depth - depth {
			b.WriteByte(' ')
		}
		b.WriteString(l.text)
	}
	if !block(b.String()) {
		return errOther
	}
	v.SetString(b.String())
	return nil
}

func unquote(s string) (string, bool) {
	if len(s) < 2 || s[len(s)-1] != '"' {
		return "", false
	}
	s = s[1 : len(s)-1]
	if strings.IndexFunc(s, func(r rune) bool { return r == '"' || r == '\\' || !unicode.IsPrint(r) || r == utf8.RuneError }) < 0 {
		return s, true
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		i += size
		switch {
		case r == '"' || !unicode.IsPrint(r) || r == utf8.RuneError && size == 1:
			return "", false
		case r != '\\':
			b.WriteRune(r)
			continue
		case i == len(s):
			return "", false
		}
		c := s[i]
		i++
		switch c {
		case '"', '\\':
			b.WriteByte(c)
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 'u', 'U':
			digits := 4
			if c == 'U' {
				digits = 8
			}
			if i+digits > len(s) {
				return "", false
			}
			var n rune
			for _, d := range []byte(s[i : i+digits]) {
				x := strings.IndexByte("0123456789ABCDEF", d)
				if x < 0 {
					return "", false
				}
				n = n<<4 | rune(x)
			}
			if !utf8.ValidRune(n) {
				return "", false
			}
			b.WriteRune(n)
			i += digits
		default:
			return "", false
		}
	}
	return b.String(), true
}

// place is an error at a line and a column.
type place struct {
	line, column int
	message      string
}

func (p *place) Error() string { return fmt.Sprintf("%d:%d: %s", p.line, p.column, p.message) }

func at(n *yaml.Node, format string, args ...any) error {
	return &place{n.Line, n.Column, fmt.Sprintf(format, args...)}
}

// decodeNode reads a value of any YAML.
func decodeNode(v reflect.Value, s *shape, n *yaml.Node) error {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return at(n, "an alias is not accepted")
	}
	switch s.kind {
	case isPointer:
		v.Set(reflect.New(v.Type().Elem()))
		return decodeNode(v.Elem(), s.of, n)
	case isText:
		if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
			return at(n, "%q is not a text", brief(n.Value, 100))
		}
		v.SetString(n.Value)
		return nil
	case isTime:
		t, err := time.Parse(time.RFC3339, n.Value)
		if n.Kind != yaml.ScalarNode || err != nil {
			return at(n, "%q is not a time", brief(n.Value, 100))
		}
		*v.Addr().Interface().(*time.Time) = second(t)
		return nil
	case isList:
		if n.Kind != yaml.SequenceNode {
			return at(n, "this is not a list")
		}
		for i, c := range n.Content {
			v.Grow(1)
			v.SetLen(i + 1)
			if err := decodeNode(v.Index(i), s.of, c); err != nil {
				return err
			}
		}
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return at(n, "this is not a mapping")
	}
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		if seen[key.Value] {
			return at(key, "the key %q is there twice", key.Value)
		}
		seen[key.Value] = true
		known := false
		for _, f := range s.fields {
			if known = f.name == key.Value; known {
				if err := decodeNode(v.Field(f.index), f.shape, n.Content[i+1]); err != nil {
					return err
				}
				break
			}
		}
		if !known {
			return at(key, "there is no key %q here", brief(key.Value, 100))
		}
	}
	return nil
}
