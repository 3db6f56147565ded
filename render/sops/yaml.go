package sops

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// parseYAML reads all documents of a file. Comments are kept where SOPS looks
// for them.
func parseYAML(data []byte) (docs []*node, err error) {
	defer func() {
		if recover() != nil { // the parser panics on some broken input
			err = &Error{Message: "is not YAML"}
		}
	}()
	y := yamlFile{data: data, lines: lineStarts(data)}
	d := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var root yaml.Node
		err := d.Decode(&root)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, yamlError(err)
		}
		if len(root.Content) != 1 {
			continue
		}
		top := root.Content[0]
		switch {
		case top.Kind == yaml.ScalarNode && top.ShortTag() == "!!null":
			continue
		case top.Kind != yaml.MappingNode:
			return nil, (&node{line: top.Line, column: top.Column}).errorf("", "a document of an encrypted file must be a mapping")
		}
		pending := comments(root.HeadComment, root.LineComment)
		n, err := y.mapping(top, pending, false, 0)
		if err != nil {
			return nil, err
		}
		docs = append(docs, n)
	}
}

type yamlFile struct {
	data  []byte
	lines []int // the offset of each line
}

const maxDepth = 1000

func lineStarts(data []byte) []int {
	starts := []int{0}
	for i, c := range data {
		if c == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}

// offset returns the byte at a line and a column, which counts characters.
func (y yamlFile) offset(line, column int) int {
	if line < 1 || line > len(y.lines) {
		return len(y.data)
	}
	at := y.lines[line-1]
	rest := string(y.data[at:])
	for i := range rest {
		if column--; column == 0 {
			return at + i
		}
	}
	return len(y.data)
}

func (y yamlFile) value(n *yaml.Node, handled bool, depth int) (*node, error) {
	out := &node{line: n.Line, column: n.Column}
	if depth > maxDepth {
		return nil, out.errorf("", "is nested too deep")
	}
	switch n.Kind {
	case yaml.MappingNode:
		return y.mapping(n, nil, handled, depth)
	case yaml.SequenceNode:
		out.kind = list
		var pending []string
		if !handled {
			pending = comments(n.HeadComment, n.LineComment)
		}
		for _, item := range n.Content {
			pending = append(pending, comments(item.HeadComment, item.LineComment)...)
			v, err := y.value(item, true, depth+1)
			if err != nil {
				return nil, err
			}
			out.entries = append(out.entries, entry{value: v, comments: pending})
			pending = comments(item.FootComment)
		}
		return out, nil
	case yaml.ScalarNode:
		if err := n.Decode(&out.value); err != nil {
			return nil, out.errorf("", "is a value that SOPS does not know")
		}
		out.start = y.offset(n.Line, n.Column)
		out.end = out.start + y.length(n, out.start)
		return out, nil
	default:
		return nil, out.errorf("write the value itself", "an encrypted file can't have anchors and aliases")
	}
}

// length returns how long a scalar is in the file, if it stands there as it
// is, quoted or not; else 0. SOPS writes what it encrypts on one line.
func (y yamlFile) length(n *yaml.Node, start int) int {
	for _, quote := range []string{"", `"`, "'"} {
		if text := quote + n.Value + quote; bytes.HasPrefix(y.data[start:], []byte(text)) {
			return len(text)
		}
	}
	return 0
}

func (y yamlFile) mapping(n *yaml.Node, pending []string, handled bool, depth int) (*node, error) {
	out := &node{kind: mapping, line: n.Line, column: n.Column}
	if !handled {
		pending = append(pending, comments(n.HeadComment, n.LineComment)...)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := &node{line: key.Line, column: key.Column}
		if key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" {
			return nil, at.errorf("quote it if it is meant as text", "a key of an encrypted file must be a string")
		}
		if seen[key.Value] {
			return nil, at.errorf("remove one", "the key %q is there twice", key.Value)
		}
		seen[key.Value] = true
		pending = append(pending, comments(key.HeadComment, key.LineComment)...)
		own := value.Kind == yaml.ScalarNode
		if own {
			pending = append(pending, comments(value.HeadComment, value.LineComment)...)
		}
		v, err := y.value(value, own, depth+1)
		if err != nil {
			return nil, err
		}
		if v.kind != scalar && key.Value == metadataKey {
			v.line, v.column = key.Line, key.Column
		}
		out.entries = append(out.entries, entry{key: key.Value, value: v, comments: pending})
		pending = nil
		if own {
			pending = comments(value.FootComment)
		}
		pending = append(pending, comments(key.FootComment)...)
	}
	return out, nil
}

// comments takes comments apart into lines, without the "#".
func comments(texts ...string) []string {
	var out []string
	for _, text := range texts {
		for line := range strings.SplitSeq(text, "\n") {
			if line != "" {
				out = append(out, line[1:])
			}
		}
	}
	return out
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

// yamlError keeps the line of an error, and not its text, which may quote.
func yamlError(err error) *Error {
	e := &Error{Message: "is not YAML"}
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		e.Line, _ = strconv.Atoi(m[1])
		e.Column = 1
	}
	return e
}

// blankMetadata returns the patch that takes the metadata out of a YAML
// document, and leaves its lines empty.
func (y yamlFile) blankMetadata(doc *node) (patch, *Error) {
	n := doc.get(metadataKey)
	if n.column != 1 {
		return patch{}, n.errorf("encrypt the file anew with sops", "the metadata is not where sops writes it")
	}
	start := y.lines[n.line-1]
	end, count := start, 0
	for i := n.line - 1; i < len(y.lines); i++ {
		line := y.data[y.lines[i]:]
		if i > n.line-1 && len(line) > 0 && line[0] != ' ' && line[0] != '\n' && line[0] != '\r' {
			break
		}
		next := bytes.IndexByte(line, '\n')
		if next < 0 {
			end = len(y.data)
			break
		}
		end = y.lines[i] + next + 1
		count++
	}
	return patch{start, end, strings.Repeat("\n", count)}, nil
}
