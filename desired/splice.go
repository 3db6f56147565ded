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
// not there with [ErrNotPinned]. For many edits of one file there is [Editor].
func SetPin(file string, data []byte, artifact ArtifactName, reference string) ([]byte, error) {
	return once(file, data, func(s *splice) error { return s.setPin(artifact, reference, false) })
}

// AddPin returns the environment's file with a reference for an artifact that
// may not have had one. If it has, that is [SetPin]; otherwise two lines are
// added, in the order of the names and indented as the file does it, and pins:
// itself at the end of the file if need be. A comment that is indented deeper
// than the entry before counts as that entry's. Pins that are written between
// braces are refused with a [Problem].
func AddPin(file string, data []byte, artifact ArtifactName, reference string) ([]byte, error) {
	return once(file, data, func(s *splice) error { return s.setPin(artifact, reference, true) })
}

// SetManifests returns the environment's file with the commit that a service's
// manifests are read from. It replaces the commit's bytes as [SetPin] does, or
// adds one line to manifests: in the order of the names, or manifests: itself
// at the end of the file.
func SetManifests(file string, data []byte, service ServiceName, commit string) ([]byte, error) {
	return once(file, data, func(s *splice) error { return s.setManifests(service, commit) })
}

func once(file string, data []byte, edit func(*splice) error) ([]byte, error) {
	s, err := openSplice(file, data)
	if err != nil {
		return nil, err
	}
	if err := edit(s); err != nil {
		return nil, err
	}
	return s.bytes(), nil
}

// splice is a file that is edited. An edit that is refused leaves it as it was.
type splice struct {
	file  string
	mark  []byte // the byte order mark, if there is one
	text  []byte // without it; replaced, never changed
	lines []lineSpan
	root  *yaml.Node
	// kept says that where it is evident what an edit does to the tree, that is
	// done to the tree, rather than to parse the file again and to compare.
	kept bool
	calm bool // see calm
	// shown says that others may have the text; spare is one that nobody has any
	// more, to write the next one into.
	shown bool
	spare []byte
}

func openSplice(file string, data []byte) (*splice, error) {
	s := &splice{file: file, text: bytes.TrimPrefix(data, byteOrderMark), shown: true}
	s.mark = data[:len(data)-len(s.text)]
	root, f := parse(data)
	if f != nil {
		return nil, s.refuse(&yaml.Node{Line: f.line, Column: f.column}, f.message, f.hint)
	}
	s.root = root
	s.lines = splitLines(s.text)
	return s, nil
}

// bytes returns the file, which must not be changed.
func (s *splice) bytes() []byte {
	if len(s.mark) == 0 {
		return s.text
	}
	return slices.Concat(s.mark, s.text)
}

// put takes another text in the place of the present one.
func (s *splice) put(after []byte) {
	if !s.shown {
		s.spare = s.text
	}
	s.text, s.shown = after, false
}

// with returns the text with another one between two offsets.
func (s *splice) with(put string, start, end int) []byte {
	after := s.spare
	if s.spare = nil; cap(after) < len(s.text)+len(put)-(end-start) {
		return slices.Concat(s.text[:start], []byte(put), s.text[end:])
	}
	return append(append(append(after[:0], s.text[:start]...), put...), s.text[end:]...)
}

// setPin replaces a pin's reference, or, if add says so, adds the pin.
func (s *splice) setPin(artifact ArtifactName, reference string, add bool) error {
	if _, err := ParseImage(reference); err != nil {
		return fmt.Errorf("pin %s in %s: %w", artifact, s.file, err)
	}
	if message, hint := checkLabel(string(artifact)); add && message != "" {
		return fmt.Errorf("pin an artifact in %s: %w", s.file, &hinted{message, hint})
	}
	names := []string{"pins", string(artifact), "image"}
	n := s.root
	for depth, name := range names {
		key, next, err := s.lookup(n, name)
		switch {
		case err != nil:
			return err
		case next != nil && !isNull(next):
			n = next
			continue
		case !add:
			return fmt.Errorf("pin %s in %s: %w: add pins.%s.image by hand once", artifact, s.file, ErrNotPinned, artifact)
		case name == "image" && next != nil:
			return s.refuse(next, "the image is empty", "write a reference after image:")
		case name == "image":
			return s.refuse(n, fmt.Sprintf("the pin of %s has no image", artifact), "add image: to it by hand once")
		case next != nil && next.Value != "":
			return s.refuse(next, name+" is empty, not a mapping", "remove what follows "+name+":")
		case next == nil && depth == 0:
			return s.addTable(names, reference)
		case n.Style&yaml.FlowStyle != 0:
			return s.refuse(n, "pins is written between braces, and a pin can't be added to it", "write it in lines, without { and }")
		case next == nil:
			pins, _, _ := s.lookup(s.root, "pins")
			return s.addSorted(pins, n, names[depth:], reference)
		case depth == 0:
			return s.addFirst(key, next, s.indent(), names[1:], reference)
		default:
			return s.addFirst(key, next, key.Column-1+s.step(), names[depth+1:], reference)
		}
	}
	return s.replace(n, reference)
}

// setManifests replaces or adds the commit of a service's manifests.
func (s *splice) setManifests(service ServiceName, commit string) error {
	if message, hint := checkLabel(string(service)); message != "" {
		return fmt.Errorf("set the manifests of a service in %s: %w", s.file, &hinted{message, hint})
	}
	if message, hint := checkCommit(commit); message != "" {
		return fmt.Errorf("set the manifests of %s in %s: %w", service, s.file, &hinted{message, hint})
	}
	key, manifests, err := s.lookup(s.root, "manifests")
	if err != nil {
		return err
	}
	switch {
	case key == nil:
		return s.addTable([]string{"manifests", string(service)}, commit)
	case isNull(manifests) && manifests.Value == "":
		return s.addFirst(key, manifests, s.indent(), []string{string(service)}, commit)
	case manifests.Kind != yaml.MappingNode:
		return s.refuse(manifests, "manifests is "+describe(manifests)+", not a mapping", "remove what follows manifests:")
	}
	_, old, err := s.lookup(manifests, string(service))
	if err != nil {
		return err
	}
	if old != nil {
		return s.replace(old, commit)
	}
	if manifests.Style&yaml.FlowStyle != 0 {
		return s.refuse(manifests, "manifests is written between braces, and a line can't be added to it", "write it in lines, without { and }")
	}
	return s.addSorted(key, manifests, []string{string(service)}, commit)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

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
func (s *splice) replace(n *yaml.Node, text string) error {
	start, end, err := s.inner(n)
	if err != nil {
		return err
	}
	put, style := text, n.Style
	if style == 0 && !plain(text) {
		put, style = quoted(text), yaml.DoubleQuotedStyle
	}
	after := s.with(put, start, end)
	if s.kept && s.evidentlyReplaces(n, start, end, put) && s.fits(after) {
		s.replaced(n, text, style, after, start, end, len(put))
		return nil
	}
	return s.take(after, n, "to edit this in place would change more than this", "edit it by hand", func(root *yaml.Node) bool {
		return same(s.root, root, n, text)
	})
}

// take puts another text in the place of the present one, if it reads as it
// shall.
func (s *splice) take(after []byte, at *yaml.Node, message, hint string, as func(*yaml.Node) bool) error {
	data := slices.Concat(s.mark, after)
	root, f := parse(data)
	if f != nil || !as(root) {
		return s.refuse(at, message, hint)
	}
	if s.kept {
		s.root, _ = parse(data) // the comparison has taken the other one apart
		s.lines = splitLines(after)
		s.calm = calm(after, s.root)
	}
	s.put(after)
	return nil
}

func (s *splice) fits(text []byte) bool { return len(s.mark)+len(text) <= maxSize }

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

// addSorted adds an entry to a mapping before the first key that comes after
// it. The names are the entry's key and those of the mappings in it.
func (s *splice) addSorted(key, m *yaml.Node, names []string, value string) error {
	i := 0
	for i < len(m.Content) && m.Content[i].Value < names[0] {
		i += 2
	}
	if len(m.Content) == 0 {
		return s.refuse(m, "this mapping can't be edited in place", "")
	}
	first, ok := s.offset(m.Content[0])
	start := s.lines[m.Content[0].Line-1].start
	if !ok || strings.Trim(string(s.text[start:first]), " ") != "" {
		return s.refuse(m.Content[0], "a line can't be added here", "begin the entries in lines of their own")
	}
	line, block := key.Line, s.opens(key) // the entry comes after this line, which counts from 1
	if i > 0 {
		var err error
		if line, block, err = s.lastLine(m.Content[i-2], m.Content[i-1]); err != nil {
			return err
		}
		if len(names) > 1 {
			line = s.afterComments(line, first-start)
		}
	}
	return s.insert(line, block, first-start, names, value, m, i)
}

// addFirst adds an entry to a key that has none, to be indented by so much.
func (s *splice) addFirst(key, null *yaml.Node, indent int, names []string, value string) error {
	return s.insert(key.Line, s.opens(key), indent, names, value, null, 0)
}

// addTable adds a key with one entry at the end of the file.
func (s *splice) addTable(names []string, value string) error {
	if s.root.Style&yaml.FlowStyle != 0 {
		return s.refuse(s.root, "the file is written between braces, and a line can't be added to it", "write it in lines, without { and }")
	}
	eol := s.eol(1)
	after := slices.Clone(s.text)
	if last := s.lines[len(s.lines)-1]; last.start != last.end {
		after = append(after, eol...)
	}
	after = append(after, strings.Repeat(" ", s.root.Column-1)+names[0]+":"+eol...)
	after = append(after, s.block(s.indent(), names[1:], value, eol)...)
	return s.take(after, s.root, "to add "+names[0]+": at the end of the file would change more than this", "add it by hand once", func(root *yaml.Node) bool {
		n := len(s.root.Content)
		if len(root.Content) != n+2 || !isEntry(root.Content, n, names, value) {
			return false
		}
		root.Content = root.Content[:n]
		return same(s.root, root, nil, "")
	})
}

// block writes an entry, a line for each name.
func (s *splice) block(indent int, names []string, value, eol string) string {
	var b strings.Builder
	for i, name := range names {
		b.WriteString(strings.Repeat(" ", indent+i*s.step()) + quoted(name) + ":")
		if i == len(names)-1 {
			b.WriteString(" " + quoted(value))
		}
		b.WriteString(eol)
	}
	return b.String()
}

// insert adds an entry after a line, and checks that it became the entry at i
// of a mapping, which is null so far if i is 0 and it has no entries. That the
// line ends a block says that nothing of the line reaches into the next.
func (s *splice) insert(line int, block bool, indent int, names []string, value string, m *yaml.Node, i int) error {
	eol := s.eol(line)
	added := s.block(indent, names, value, eol)
	if line < len(s.lines) {
		at := s.lines[line].start
		after := s.with(added, at, at)
		if s.kept && block && s.evidentlyAdds(names, value) && s.fits(after) {
			s.inserted(line, indent, names, value, m, i, after, added)
			return nil
		}
		return s.insertAt(after, names, value, m, i)
	}
	return s.insertAt(slices.Concat(s.text, []byte(eol+added)), names, value, m, i)
}

func (s *splice) insertAt(after []byte, names []string, value string, m *yaml.Node, i int) error {
	return s.take(after, m, "to add a line here would change more than this", "add it by hand once", func(root *yaml.Node) bool {
		grown := counterpart(s.root, root, m)
		if grown == nil || !isEntry(grown.Content, i, names, value) {
			return false
		}
		if len(m.Content) == 0 && len(grown.Content) == 2 {
			*grown = *m
		} else {
			grown.Content = slices.Delete(grown.Content, i, i+2)
		}
		return same(s.root, root, nil, "")
	})
}

// isEntry reports whether a mapping's content has an entry at i, with mappings
// of one entry in it as there are more names.
func isEntry(content []*yaml.Node, i int, names []string, value string) bool {
	if i+1 >= len(content) || content[i].Kind != yaml.ScalarNode || content[i].Value != names[0] {
		return false
	}
	n := content[i+1]
	if len(names) > 1 {
		return n.Kind == yaml.MappingNode && len(n.Content) == 2 && isEntry(n.Content, 0, names[1:], value)
	}
	return n.Kind == yaml.ScalarNode && n.Tag == "!!str" && n.Value == value
}

// counterpart returns the node of b that stands where n does in a, or nil. Up
// to there they have to be alike.
func counterpart(a, b, n *yaml.Node) *yaml.Node {
	if a == n {
		return b
	}
	if len(a.Content) != len(b.Content) {
		return nil
	}
	for i := range a.Content {
		if c := counterpart(a.Content[i], b.Content[i], n); c != nil {
			return c
		}
	}
	return nil
}

// lastLine returns the line in which an entry ends, and whether it is known to
// end there: what is written between braces may go on.
func (s *splice) lastLine(key, value *yaml.Node) (line int, known bool, err error) {
	switch {
	case isNull(value) && value.Value == "":
		return key.Line, false, nil
	case value.Kind == yaml.ScalarNode:
		_, _, err := s.inner(value)
		return value.Line, true, err
	case value.Style&yaml.FlowStyle != 0 || len(value.Content) == 0:
		return deepest(value), false, nil
	}
	n := len(value.Content)
	return s.lastLine(value.Content[max(n-2, 0)], value.Content[n-1])
}

func deepest(n *yaml.Node) int {
	line := n.Line
	for _, c := range n.Content {
		line = max(line, deepest(c))
	}
	return line
}

// afterComments returns the last of the comments below a line that are indented
// by more than so much, or the line.
func (s *splice) afterComments(line, indent int) int {
	for i := line; i < len(s.lines); i++ {
		text := string(s.text[s.lines[i].start:s.lines[i].end])
		content := strings.TrimLeft(text, " ")
		switch {
		case content == "":
		case content[0] == '#' && len(text)-len(content) > indent:
			line = i + 1
		default:
			return line
		}
	}
	return line
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

// inLines reports whether a node is a mapping whose entries have lines of their
// own.
func inLines(n *yaml.Node) bool {
	return n != nil && n.Kind == yaml.MappingNode && n.Style&yaml.FlowStyle == 0 && len(n.Content) > 0
}

// indent returns how far the entries of pins are indented, or else those of
// another mapping of the file, or else two spaces.
func (s *splice) indent() int {
	if _, pins, err := s.lookup(s.root, "pins"); err == nil && inLines(pins) {
		return pins.Content[0].Column - 1
	}
	for i := 1; i < len(s.root.Content); i += 2 {
		if v := s.root.Content[i]; inLines(v) && v.Column > s.root.Column {
			return v.Column - 1
		}
	}
	return s.root.Column + 1
}

// step returns how much further what is in a pin is indented.
func (s *splice) step() int {
	if _, pins, err := s.lookup(s.root, "pins"); err == nil && inLines(pins) {
		for i := 1; i < len(pins.Content); i += 2 {
			if v := pins.Content[i]; inLines(v) && v.Column > pins.Content[0].Column {
				return v.Column - pins.Content[0].Column
			}
		}
	}
	return s.indent() - (s.root.Column - 1)
}
