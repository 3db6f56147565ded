package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// document is one document of a file, decoded.
type document struct {
	value any
	place place
}

// parseFile decodes a YAML or JSON file of one or more documents. Documents
// without content are left out.
func parseFile(name string, data []byte) ([]document, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	at := place{file: name}
	if i := invalidUTF8(data); i >= 0 {
		at.line, at.column = position(data, i)
		return nil, at.errorf("save it as UTF-8", "is not UTF-8 text")
	}
	if strings.HasSuffix(name, ".json") {
		return parseJSONFile(name, data)
	}
	var docs []document
	d := yaml.NewDecoder(bytes.NewReader(data))
	b := &builder{file: name, left: MaxOutput}
	for {
		var root yaml.Node
		err := decodeNode(d, &root)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, syntaxError(name, err)
		}
		node := &root
		if node.Kind == yaml.DocumentNode {
			node = node.Content[0]
		}
		v, err := b.build(node, 0)
		if err != nil {
			return nil, err
		}
		if v != nil {
			docs = append(docs, document{value: v, place: place{file: name, line: node.Line, column: node.Column}})
		}
	}
}

// decodeNode reads the next document. The parser panics on some broken input
// that its own decoder would recover from; a node is decoded past that.
func decodeNode(d *yaml.Decoder, into *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("yaml: the parser gave up on this file")
		}
	}()
	return d.Decode(into)
}

func parseJSONFile(name string, data []byte) ([]document, error) {
	var docs []document
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	for {
		for int(d.InputOffset()) < len(data) && strings.IndexByte(" \t\r\n", data[d.InputOffset()]) >= 0 && !d.More() {
			break
		}
		start := int(d.InputOffset())
		v, err := decodeJSON(d, 0)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			at := place{file: name}
			offset := int(d.InputOffset())
			if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
				offset = int(syntax.Offset)
			}
			at.line, at.column = position(data, max(offset-1, 0))
			return nil, at.errorf("", "is not JSON: %s", unexpectedEnd(err))
		}
		for start < len(data) && strings.IndexByte(" \t\r\n", data[start]) >= 0 {
			start++
		}
		if v == nil {
			continue
		}
		at := place{file: name}
		at.line, at.column = position(data, start)
		docs = append(docs, document{value: v, place: at})
	}
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// syntaxError puts the position that the YAML parser found into an Error.
func syntaxError(name string, err error) *Error {
	at := place{file: name}
	text := err.Error()
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		at.line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	hint := ""
	if strings.Contains(text, "cannot start any token") || strings.Contains(text, "tab character") {
		hint = "indent with spaces; quote a value that starts with a special character"
	}
	return at.errorf(hint, "is not YAML: %s", text)
}

// builder turns nodes into values. Aliases are copied out, so what is built
// may be far larger than the file: left bounds it, in bytes of output.
type builder struct {
	file string
	left int
	open []*yaml.Node // the aliases that are being copied out
}

func (b *builder) at(n *yaml.Node) place {
	return place{file: b.file, line: n.Line, column: n.Column}
}

func (b *builder) build(n *yaml.Node, depth int) (any, error) {
	if depth > maxDepth {
		return nil, b.at(n).errorf("", "%s", errDepth)
	}
	b.left -= 1 + len(n.Value)
	if len(b.open) > 0 {
		b.left -= 32 // what a value takes in memory; it has no text of its own in the file
	}
	if b.left < 0 {
		return nil, b.at(n).errorf("use fewer aliases", "is larger than %d MiB when its aliases are copied out", MaxOutput>>20)
	}
	switch n.Kind {
	case yaml.AliasNode:
		for _, o := range b.open {
			if o == n.Alias {
				return nil, b.at(n).errorf("", "the anchor %q contains itself", n.Value)
			}
		}
		b.open = append(b.open, n.Alias)
		v, err := b.build(n.Alias, depth+1)
		b.open = b.open[:len(b.open)-1]
		return v, err
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, item := range n.Content {
			var err error
			if list[i], err = b.build(item, depth+1); err != nil {
				return nil, err
			}
		}
		return list, nil
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		return m, b.mapping(n, m, depth)
	case yaml.ScalarNode:
		return b.scalar(n)
	default:
		return nil, nil // an empty document
	}
}

func (b *builder) mapping(n *yaml.Node, m map[string]any, depth int) error {
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge" {
			merges = append(merges, value)
			continue
		}
		if key.Kind != yaml.ScalarNode || key.ShortTag() == "!!null" {
			return b.at(n.Content[i]).errorf("quote it if it is meant as text", "a key must be a string")
		}
		if _, ok := m[key.Value]; ok {
			return b.at(n.Content[i]).errorf("remove one", "the key %q is there twice", key.Value)
		}
		b.left -= len(key.Value)
		v, err := b.build(value, depth+1)
		if err != nil {
			return err
		}
		m[key.Value] = v
	}
	for _, merge := range merges {
		if err := b.merge(merge, m, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// merge adds what "<<" names and m does not have yet.
func (b *builder) merge(n *yaml.Node, m map[string]any, depth int) error {
	v, err := b.build(n, depth)
	if err != nil {
		return err
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	for _, item := range list {
		from, ok := item.(map[string]any)
		if !ok {
			return b.at(n).errorf("", "<< takes an object or a list of objects, not %s", kindOf(item))
		}
		for k, v := range from {
			if _, ok := m[k]; !ok {
				m[k] = v
			}
		}
	}
	return nil
}

func (b *builder) scalar(n *yaml.Node) (any, error) {
	switch n.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!str", "!!timestamp":
		return n.Value, nil
	case "!!bool", "!!int", "!!float":
		var v any
		if err := n.Decode(&v); err != nil {
			return nil, b.at(n).errorf("quote it if it is meant as text", "%q is not a %s", n.Value, strings.TrimPrefix(n.ShortTag(), "!!"))
		}
		switch v := v.(type) {
		case bool:
			return v, nil
		case int:
			return int64(v), nil
		case int64:
			return v, nil
		case uint64:
			return v, nil
		case float64:
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, b.at(n).errorf("quote it if it is meant as text", "%s is a number that JSON does not know", n.Value)
			}
			return whole(v), nil
		}
		return nil, b.at(n).errorf("quote it if it is meant as text", "%q is neither text nor a number", n.Value)
	default:
		return nil, b.at(n).errorf("remove the tag", "the tag %s is not known", n.Tag)
	}
}

// invalidUTF8 returns the offset of the first byte that is not UTF-8, or -1.
func invalidUTF8(data []byte) int {
	if utf8.Valid(data) {
		return -1
	}
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// position returns the line and column of an offset.
func position(data []byte, offset int) (line, column int) {
	offset = min(offset, len(data))
	before := data[:offset]
	return 1 + bytes.Count(before, []byte("\n")), 1 + utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])
}
