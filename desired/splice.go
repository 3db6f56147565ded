package desired

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// ErrNotPinned says that a file has no pin of the artifact, so that there is
// no reference to replace.
var ErrNotPinned = errors.New("the artifact is not pinned there")

// SetPin returns the environment's file with another reference for an
// artifact. Only the reference's own bytes change: comments, order, spacing,
// quotes and ends of lines stay. What can't be changed so, or does not read as
// wanted afterwards, is refused with a [Problem] at its place; a pin that is
// not there with [ErrNotPinned].
func SetPin(file string, data []byte, artifact ArtifactName, reference string) ([]byte, error) {
	if _, err := ParseImage(reference); err != nil {
		return nil, fmt.Errorf("pin %s in %s: %w", artifact, file, err)
	}
	s, err := openSplice(file, data)
	if err != nil {
		return nil, err
	}
	n := s.root
	for _, key := range []string{"pins", string(artifact), "image"} {
		_, next, err := s.lookup(n, key)
		if err != nil {
			return nil, err
		}
		if next == nil || next.Kind == yaml.ScalarNode && next.Tag == "!!null" {
			return nil, fmt.Errorf("pin %s in %s: %w: add pins.%s.image by hand once", artifact, file, ErrNotPinned, artifact)
		}
		n = next
	}
	return s.replace(n, reference)
}

// SetManifests returns the environment's file with the commit that a service's
// manifests are read from. It replaces the commit's bytes as [SetPin] does, or
// adds one line to manifests: in the order of the names, or manifests: itself
// at the end of the file.
func SetManifests(file string, data []byte, service ServiceName, commit string) ([]byte, error) {
	if message, hint := checkLabel(string(service)); message != "" {
		return nil, fmt.Errorf("set the manifests of a service in %s: %w", file, &hinted{message, hint})
	}
	if message, hint := checkCommit(commit); message != "" {
		return nil, fmt.Errorf("set the manifests of %s in %s: %w", service, file, &hinted{message, hint})
	}
	s, err := openSplice(file, data)
	if err != nil {
		return nil, err
	}
	key, manifests, err := s.lookup(s.root, "manifests")
	if err != nil {
		return nil, err
	}
	switch {
	case key == nil:
		return s.addTable("manifests", string(service), commit)
	case manifests.Kind == yaml.ScalarNode && manifests.Tag == "!!null" && manifests.Value == "":
		return s.addFirst(key, manifests, string(service), commit)
	case manifests.Kind != yaml.MappingNode:
		return nil, s.refuse(manifests, "manifests is "+describe(manifests)+", not a mapping", "remove what follows manifests:")
	}
	_, old, err := s.lookup(manifests, string(service))
	if err != nil {
		return nil, err
	}
	if old != nil {
		return s.replace(old, commit)
	}
	if manifests.Style&yaml.FlowStyle != 0 {
		return nil, s.refuse(manifests, "manifests is written between braces, and a line can't be added to it", "write it in lines, without { and }")
	}
	return s.addSorted(key, manifests, string(service), commit)
}

// splice is a file that is about to be edited.
type splice struct {
	file  string
	mark  []byte // the byte order mark, if there is one
	text  []byte // without it
	lines []lineSpan
	root  *yaml.Node
}

func openSplice(file string, data []byte) (*splice, error) {
	s := &splice{file: file, text: data}
	root, f := parse(data)
	if f != nil {
		return nil, s.refuse(&yaml.Node{Line: f.line, Column: f.column}, f.message, f.hint)
	}
	s.root = root
	s.text = bytes.TrimPrefix(data, byteOrderMark)
	s.mark = data[:len(data)-len(s.text)]
	s.lines = splitLines(s.text)
	return s, nil
}

func (s *splice) refuse(n *yaml.Node, message, hint string) error {
	name := strings.TrimSuffix(path.Base(s.file), path.Ext(s.file))
	return Problem{SeverityError, Position{s.file, n.Line, n.Column}, message, hint, KindEnvironment, name}
}

// lookup returns a mapping's key and value, or nil if there is no such key.
func (s *splice) lookup(n *yaml.Node, key string) (k, v *yaml.Node, err error) {
	if n.Kind != yaml.MappingNode {
		return nil, nil, s.refuse(n, "this is "+describe(n)+", not a mapping", "")
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Kind != yaml.ScalarNode || n.Content[i].Value != key {
			continue
		}
		if k != nil {
			return nil, nil, s.refuse(n.Content[i], fmt.Sprintf("the key %q is there twice", key), fmt.Sprintf("remove it here or in line %d", k.Line))
		}
		k, v = n.Content[i], n.Content[i+1]
	}
	return k, v, nil
}

// offset returns the byte at which a node begins.
func (s *splice) offset(n *yaml.Node) (int, bool) {
	if n.Line < 1 || n.Line > len(s.lines) {
		return 0, false
	}
	line := s.lines[n.Line-1]
	at := line.start
	for range n.Column - 1 {
		_, size := utf8.DecodeRune(s.text[at:line.end])
		if size == 0 {
			return 0, false
		}
		at += size
	}
	return at, true
}

// inner returns where the text of a scalar stands, without its quotes.
func (s *splice) inner(n *yaml.Node) (start, end int, err error) {
	const hint = "write it in one line, plain or in quotes"
	start, ok := s.offset(n)
	if n.Kind != yaml.ScalarNode || !ok {
		return 0, 0, s.refuse(n, "this is "+describe(n)+", and can't be edited in place", hint)
	}
	rest := s.text[start:s.lines[n.Line-1].end]
	multi := s.refuse(n, "this goes over several lines, and can't be edited in place", hint)
	switch {
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return 0, 0, multi
	case n.Style&yaml.SingleQuotedStyle != 0 && len(rest) > 0 && rest[0] == '\'':
		for i := 1; i < len(rest); i++ {
			if rest[i] != '\'' {
				continue
			}
			if i+1 < len(rest) && rest[i+1] == '\'' {
				i++
				continue
			}
			return start + 1, start + i, nil
		}
		return 0, 0, multi
	case n.Style&yaml.DoubleQuotedStyle != 0 && len(rest) > 0 && rest[0] == '"':
		for i := 1; i < len(rest); i++ {
			switch rest[i] {
			case '\\':
				i++
			case '"':
				return start + 1, start + i, nil
			}
		}
		return 0, 0, multi
	case n.Style == 0 && n.Value != "" && bytes.HasPrefix(rest, []byte(n.Value)):
		return start, start + len(n.Value), nil
	}
	return 0, 0, multi
}

// replace puts another text into a scalar.
func (s *splice) replace(n *yaml.Node, text string) ([]byte, error) {
	start, end, err := s.inner(n)
	if err != nil {
		return nil, err
	}
	if n.Style == 0 && !plain(text) {
		text = `"` + text + `"`
	}
	after := slices.Concat(s.text[:start], []byte(text), s.text[end:])
	root, f := parse(after)
	if f != nil || !same(s.root, root, n, strings.Trim(text, `"`)) {
		return nil, s.refuse(n, "to edit this in place would change more than this", "edit it by hand")
	}
	return slices.Concat(s.mark, after), nil
}

// plain reports whether YAML takes a text for text without quotes.
func plain(text string) bool {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte("k: "+text), &doc); err != nil || len(doc.Content) != 1 || len(doc.Content[0].Content) != 2 {
		return false
	}
	n := doc.Content[0].Content[1]
	return n.Kind == yaml.ScalarNode && n.Tag == "!!str" && n.Value == text
}

// same reports whether b is a, but for one scalar of a whose text is another.
func same(a, b, changed *yaml.Node, text string) bool {
	if a == changed {
		return b.Kind == yaml.ScalarNode && b.Tag == "!!str" && b.Value == text && b.Style&yaml.TaggedStyle == 0
	}
	if a.Kind != b.Kind || a.Tag != b.Tag || a.Value != b.Value || a.Style != b.Style || len(a.Content) != len(b.Content) {
		return false
	}
	for i := range a.Content {
		if !same(a.Content[i], b.Content[i], changed, text) {
			return false
		}
	}
	return true
}

// addSorted adds an entry to a mapping before the first key that comes after it.
func (s *splice) addSorted(key, m *yaml.Node, name, value string) ([]byte, error) {
	i := 0
	for i < len(m.Content) && m.Content[i].Value < name {
		i += 2
	}
	if len(m.Content) == 0 {
		return nil, s.refuse(m, "this mapping can't be edited in place", "")
	}
	first, ok := s.offset(m.Content[0])
	start := s.lines[m.Content[0].Line-1].start
	if !ok || strings.Trim(string(s.text[start:first]), " ") != "" {
		return nil, s.refuse(m.Content[0], "a line can't be added here", "begin the entries in lines of their own")
	}
	line := key.Line // the entry comes after this line, which counts from 1
	if i > 0 {
		before := m.Content[i-1]
		if _, _, err := s.inner(before); err != nil {
			return nil, err
		}
		line = before.Line
	}
	return s.insert(line, string(s.text[start:first]), name, value, m, i)
}

// addFirst adds an entry to a key that has none.
func (s *splice) addFirst(key, null *yaml.Node, name, value string) ([]byte, error) {
	return s.insert(key.Line, strings.Repeat(" ", s.indent()), name, value, null, 0)
}

// addTable adds a key with one entry at the end of the file.
func (s *splice) addTable(key, name, value string) ([]byte, error) {
	if s.root.Style&yaml.FlowStyle != 0 {
		return nil, s.refuse(s.root, "the file is written between braces, and a line can't be added to it", "write it in lines, without { and }")
	}
	eol := s.eol(1)
	outer := strings.Repeat(" ", s.root.Column-1)
	inner := strings.Repeat(" ", s.indent())
	after := slices.Clone(s.text)
	if last := s.lines[len(s.lines)-1]; last.start != last.end {
		after = append(after, eol...)
	}
	after = append(after, outer+key+":"+eol+inner+name+": "+quoted(value)+eol...)
	root, f := parse(after)
	if f == nil && len(root.Content) == len(s.root.Content)+2 {
		n := len(s.root.Content)
		added := root.Content[n+1]
		root.Content = root.Content[:n]
		if same(s.root, root, nil, "") && added.Kind == yaml.MappingNode && isEntry(added.Content, 0, name, value) && len(added.Content) == 2 {
			return slices.Concat(s.mark, after), nil
		}
	}
	return nil, s.refuse(s.root, "to add manifests: at the end of the file would change more than this", "add it by hand once")
}

// insert adds a line after another, and checks that it became the entry at i
// of a mapping, which is null so far if i is 0 and it has no entries.
func (s *splice) insert(line int, indent, name, value string, m *yaml.Node, i int) ([]byte, error) {
	eol := s.eol(line)
	added := indent + name + ": " + quoted(value) + eol
	var after []byte
	if line < len(s.lines) {
		at := s.lines[line].start
		after = slices.Concat(s.text[:at], []byte(added), s.text[at:])
	} else {
		after = slices.Concat(s.text, []byte(eol+added))
	}
	root, f := parse(after)
	if f == nil {
		if grown := counterpart(s.root, root, m); grown != nil && isEntry(grown.Content, i, name, value) {
			if len(m.Content) == 0 && len(grown.Content) == 2 {
				*grown = *m
			} else {
				grown.Content = slices.Delete(grown.Content, i, i+2)
			}
			if same(s.root, root, nil, "") {
				return slices.Concat(s.mark, after), nil
			}
		}
	}
	return nil, s.refuse(m, "to add a line here would change more than this", "add it by hand once")
}

func isEntry(content []*yaml.Node, i int, name, value string) bool {
	return i+1 < len(content) && content[i].Value == name && content[i+1].Kind == yaml.ScalarNode && content[i+1].Tag == "!!str" && content[i+1].Value == value
}

// counterpart returns the node of b that stands where n does in the top of a.
func counterpart(a, b, n *yaml.Node) *yaml.Node {
	if i := slices.Index(a.Content, n); i >= 0 && len(a.Content) == len(b.Content) {
		return b.Content[i]
	}
	return nil
}

func quoted(value string) string {
	if plain(value) {
		return value
	}
	return `"` + value + `"`
}

// eol returns how the given line, or else the first one, ends.
func (s *splice) eol(line int) string {
	for _, i := range []int{line, 1} {
		if i < len(s.lines) {
			return string(s.text[s.lines[i-1].end:s.lines[i].start])
		}
	}
	return "\n"
}

// indent returns how far the entries of pins are indented, or two spaces.
func (s *splice) indent() int {
	if _, pins, err := s.lookup(s.root, "pins"); err == nil && pins != nil && pins.Kind == yaml.MappingNode && pins.Style&yaml.FlowStyle == 0 && len(pins.Content) > 0 {
		return pins.Content[0].Column - 1
	}
	return s.root.Column + 1
}
