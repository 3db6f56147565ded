package desired

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Edit is what one commit changes in an environment's file.
type Edit struct {
	Service ServiceName // whose manifests are meant
	Pins    []PinEdit
	// Manifests is the commit that the service's manifests are read from; empty
	// leaves what is there.
	Manifests string
	// Add lets pins be added that are not there, as [AddPin] does; otherwise
	// they are an [ErrNotPinned].
	Add bool
}

// Equal tells whether two edits are the same.
func (e Edit) Equal(o Edit) bool {
	return e.Service == o.Service && e.Manifests == o.Manifests && e.Add == o.Add && slices.Equal(e.Pins, o.Pins)
}

// PinEdit is another reference for an artifact.
type PinEdit struct {
	Artifact  ArtifactName
	Reference string
}

// Editor edits one environment's file many times. It gives byte for byte what
// [SetPin], [AddPin] and [SetManifests] in a row would give, and refuses what
// they refuse, but it parses the file once: an edit then costs about a copy of
// the file. It may be used by one goroutine at a time.
//
// What an edit does is worked out on the parsed file only where nothing can be
// in doubt: the new text is of letters, digits and a few signs that mean nothing
// to YAML, the old one is found in the bytes as the parser has read it, a new
// line stands between lines that end what is on them, and the file has no end
// of line that other readers do not see. All else is parsed and compared, as the
// functions do it.
type Editor struct {
	splice *splice
}

// NewEditor takes an environment's file as it is. A file that does not parse is
// refused with a [Problem].
func NewEditor(file string, data []byte) (*Editor, error) {
	s, err := openKept(file, slices.Clone(data))
	if err != nil {
		return nil, err
	}
	return &Editor{s}, nil
}

func openKept(file string, data []byte) (*splice, error) {
	s, err := openSplice(file, data)
	if err != nil {
		return nil, err
	}
	s.kept, s.calm = true, calm(s.text, s.root)
	return s, nil
}

// Apply edits the file and returns all of it, as it is after this edit and all
// before. The bytes must not be changed. An edit that is refused, even in part,
// leaves the editor as it was.
func (e *Editor) Apply(edit Edit) ([]byte, error) {
	before := e.splice.text
	e.splice.shown = true // others may have it
	err := e.apply(edit)
	if err == nil {
		return e.splice.bytes(), nil
	}
	if !bytes.Equal(e.splice.text, before) {
		s, again := openKept(e.splice.file, slices.Concat(e.splice.mark, before))
		if again != nil { // it was parsed before
			return nil, fmt.Errorf("%w; and going back: %w", err, again)
		}
		e.splice = s
	}
	return nil, err
}

func (e *Editor) apply(edit Edit) error {
	for _, p := range edit.Pins {
		if err := e.splice.setPin(p.Artifact, p.Reference, edit.Add); err != nil {
			return err
		}
	}
	if edit.Manifests == "" {
		return nil
	}
	return e.splice.setManifests(edit.Service, edit.Manifests)
}

// harmless is a text that YAML reads as it stands, inside and outside of quotes
// and braces.
var harmless = regexp.MustCompile(`^[0-9A-Za-z]([-0-9A-Za-z._/:@+]*[-0-9A-Za-z._])?$`)

// calm reports whether the places of a parsed file's nodes can be kept when
// other bytes move: lines end where everybody sees it, and each value that is
// left out stands behind its key, not before whatever comes next.
func calm(text []byte, root *yaml.Node) bool {
	for i, c := range text {
		if c == '\r' && (i+1 == len(text) || text[i+1] != '\n') {
			return false
		}
	}
	for _, s := range []string{"\u0085", "\u2028", "\u2029", "\ufeff"} {
		if bytes.Contains(text, []byte(s)) {
			return false
		}
	}
	return calmNode(root)
}

func calmNode(n *yaml.Node) bool {
	absent := func(n *yaml.Node) bool { return isNull(n) && n.Value == "" }
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && (i%2 == 0 && absent(c) || i%2 == 1 && absent(c) && c.Line != n.Content[i-1].Line) || !calmNode(c) {
			return false
		}
	}
	return true
}

// opens reports whether a key has a line of its own, "key:", perhaps with a
// comment, so that what is below it is its value.
func (s *splice) opens(key *yaml.Node) bool {
	start, end, err := s.inner(key)
	if err != nil {
		return false
	}
	if key.Style != 0 { // the quotes
		start--
		end++
	}
	line := s.lines[key.Line-1]
	rest, colon := bytes.CutPrefix(bytes.TrimLeft(s.text[end:line.end], " \t"), []byte(":"))
	comment := bytes.TrimLeft(rest, " \t")
	return strings.Trim(string(s.text[line.start:start]), " ") == "" && colon &&
		(len(comment) == 0 || comment[0] == '#' && len(comment) < len(rest))
}

// evidentlyReplaces reports whether to put a text between two offsets changes
// the scalar that stands there, and nothing else.
func (s *splice) evidentlyReplaces(n *yaml.Node, start, end int, put string) bool {
	if !s.calm || !harmless.MatchString(strings.Trim(put, `"`)) {
		return false
	}
	old := string(s.text[start:end])
	switch {
	case n.Style == 0:
		return old == n.Value
	case n.Style == yaml.SingleQuotedStyle:
		return strings.ReplaceAll(old, "''", "'") == n.Value
	case n.Style == yaml.DoubleQuotedStyle:
		return old == n.Value && !strings.Contains(old, `\`)
	}
	return false
}

// replaced brings the tree and the lines up to date.
func (s *splice) replaced(n *yaml.Node, text string, style yaml.Style, after []byte, start, end, length int) {
	bytesMore := length - (end - start)
	more := length - utf8.RuneCount(s.text[start:end])
	if more != 0 {
		visit(s.root, func(x *yaml.Node) {
			if x.Line == n.Line && x.Column > n.Column {
				x.Column += more
			}
		})
	}
	n.Value, n.Tag, n.Style = text, "!!str", style
	s.put(after)
	s.lines[n.Line-1].end += bytesMore
	for i := n.Line; i < len(s.lines) && bytesMore != 0; i++ {
		s.lines[i].start += bytesMore
		s.lines[i].end += bytesMore
	}
}

// evidentlyAdds reports whether lines of these names and this value, between
// lines that end what is on them, are an entry and nothing else.
func (s *splice) evidentlyAdds(names []string, value string) bool {
	return s.calm && harmless.MatchString(value) && !slices.ContainsFunc(names, func(name string) bool { return !harmless.MatchString(name) })
}

// inserted brings the tree and the lines up to date.
func (s *splice) inserted(line, indent int, names []string, value string, m *yaml.Node, i int, after []byte, added string) {
	step := s.step()
	visit(s.root, func(x *yaml.Node) {
		if x.Line > line {
			x.Line += len(names)
		}
	})
	entry := scalar(value)
	for j := len(names) - 1; j >= 0; j-- {
		key := scalar(names[j])
		key.Line, key.Column = line+1+j, indent+j*step+1
		if j == len(names)-1 {
			entry.Line, entry.Column = key.Line, key.Column+len(quoted(names[j]))+2
		}
		if j == 0 {
			m.Content = slices.Insert(m.Content, i, key, entry)
		} else {
			entry = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: key.Line, Column: key.Column, Content: []*yaml.Node{key, entry}}
		}
	}
	if i == 0 { // a mapping is where its first key is
		m.Kind, m.Tag, m.Value = yaml.MappingNode, "!!map", ""
		m.Line, m.Column = line+1, indent+1
	}
	at := s.lines[line].start
	fresh := splitLines([]byte(added))
	fresh = fresh[:len(fresh)-1]
	for j := range fresh {
		fresh[j].start += at
		fresh[j].end += at
	}
	for j := line; j < len(s.lines); j++ {
		s.lines[j].start += len(added)
		s.lines[j].end += len(added)
	}
	s.lines = slices.Insert(s.lines, line, fresh...)
	s.put(after)
}

// scalar is a text as it is written by quoted.
func scalar(text string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
	if !plain(text) {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

func visit(n *yaml.Node, f func(*yaml.Node)) {
	f(n)
	for _, c := range n.Content {
		visit(c, f)
	}
}
