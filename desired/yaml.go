package desired

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

const (
	maxSize  = 1 << 20 // bytes of a file
	maxDepth = 64      // mappings and lists within each other
)

var byteOrderMark = []byte("\xef\xbb\xbf")

// fault is a place in a file and what is wrong there, before it is known to
// whom the file belongs.
type fault struct {
	line, column  int
	message, hint string
}

func faultAt(n *yaml.Node, message, hint string) *fault {
	return &fault{n.Line, n.Column, message, hint}
}

// parse returns the top mapping of the one document of a file, or what is
// wrong with it. The nodes hold no alias, anchor, tag or merge key.
func parse(data []byte) (root *yaml.Node, f *fault) {
	if f := screenBytes(data); f != nil {
		return nil, f
	}
	text := bytes.TrimPrefix(data, byteOrderMark)
	defer func() {
		// The parser is not ours, and the daemon must outlive what it does not
		// expect.
		if r := recover(); r != nil {
			root, f = nil, &fault{1, 1, fmt.Sprintf("not valid YAML: %v", r), ""}
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var first, second yaml.Node
	switch err := dec.Decode(&first); {
	case errors.Is(err, io.EOF):
		return nil, &fault{1, 1, "the file is empty", "write apiVersion: " + APIVersion + " and what follows it, or delete the file"}
	case err != nil:
		return nil, syntaxFault(text, err)
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		n := &second
		if len(n.Content) > 0 {
			n = n.Content[0]
		}
		return nil, faultAt(n, "the file has a second document", "a file is one thing: put each in a file of its own, and drop the line ---")
	case !errors.Is(err, io.EOF):
		return nil, syntaxFault(text, err)
	}
	root = first.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, &fault{1, 1, "the file is empty", "write apiVersion: " + APIVersion + " and what follows it, or delete the file"}
	}
	if f := screenNode(root, 1); f != nil {
		return nil, f
	}
	if root.Kind != yaml.MappingNode {
		return nil, faultAt(root, "the file is "+describe(root)+", not a mapping", "begin with apiVersion: "+APIVersion)
	}
	return root, nil
}

// screenBytes refuses what is not text.
func screenBytes(data []byte) *fault {
	if len(data) > maxSize {
		return tooLarge(int64(len(data)))
	}
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return &fault{1, 1, "the file is UTF-16, not UTF-8", "save it as UTF-8"}
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		line, column := place(data, i)
		return &fault{line, column, "the file holds a NUL byte: it is not text", "save it as UTF-8"}
	}
	if !utf8.Valid(data) {
		i := 0
		for i < len(data) {
			r, size := utf8.DecodeRune(data[i:])
			if r == utf8.RuneError && size == 1 {
				break
			}
			i += size
		}
		line, column := place(data, i)
		return &fault{line, column, fmt.Sprintf("the byte %#x is not UTF-8", data[i]), "save the file as UTF-8"}
	}
	return nil
}

func tooLarge(size int64) *fault {
	return &fault{0, 0, fmt.Sprintf("the file has %d bytes, more than %d", size, maxSize), "move what does not belong here to files of the manifests"}
}

// screenNode refuses what would make one line mean something elsewhere, and
// nesting that no reader follows. It comes before anything else looks at the
// nodes, so that no later walk has to end by itself.
func screenNode(n *yaml.Node, depth int) *fault {
	switch {
	case n.Kind == yaml.AliasNode:
		return faultAt(n, "an alias (*"+n.Value+") is not accepted", "write the value out: a line must mean what it says where it stands")
	case n.Anchor != "":
		return faultAt(n, "an anchor (&"+n.Anchor+") is not accepted", "remove it: aliases are not accepted either")
	case n.Tag == "!!merge":
		return faultAt(n, "a merge key (<<) is not accepted", "write the keys out: a line must mean what it says where it stands")
	case n.Style&yaml.TaggedStyle != 0:
		return faultAt(n, "a tag ("+n.Tag+") is not accepted", "remove it; to make a number or a boolean text, quote it")
	case depth > maxDepth:
		return faultAt(n, fmt.Sprintf("nested more than %d levels deep", maxDepth), "")
	}
	for _, c := range n.Content {
		if f := screenNode(c, depth+1); f != nil {
			return f
		}
	}
	return nil
}

var (
	errorLine     = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	parserError   = regexp.MustCompile(`^(did not find expected ([',]|<document start>|'-'|key$|node content)|found (duplicate|incompatible|undefined) )`)
	unknownAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
)

// syntaxFault turns the parser's error, which knows at most a line, into a
// fault at the first character of that line.
func syntaxFault(data []byte, err error) *fault {
	text := err.Error()
	m := errorLine.FindStringSubmatch(text)
	f := &fault{line: 1, column: 1, message: "not valid YAML: " + text}
	if m == nil {
		return f
	}
	message := text[len(m[0]):]
	f.message = "not valid YAML: " + message
	lines := splitLines(data)
	line, _ := strconv.Atoi(m[1])
	if m[1] == "" {
		// It is in the first line, or only the content tells where.
		line = 1
		if a := unknownAnchor.FindStringSubmatch(message); a != nil {
			f.message = "an alias (*" + a[1] + ") is not accepted"
			f.hint = "write the value out"
			if i := bytes.Index(data, []byte("*"+a[1])); i >= 0 {
				f.line, f.column = place(data, i)
			}
			return f
		}
		if i := bytes.IndexFunc(data, isControl); i >= 0 && strings.Contains(message, "control characters") {
			f.line, f.column = place(data, i)
			return f
		}
	} else if parserError.MatchString(message) {
		line++ // these count from 0, see the parser's fail
	}
	f.line = max(1, min(line, len(lines)))
	content := string(data[lines[f.line-1].start:lines[f.line-1].end])
	indent := len(content) - len(strings.TrimLeft(content, " \t"))
	f.column = indent + 1
	if indent == len(content) {
		f.column = 1
	}
	switch {
	case strings.Contains(content[:indent], "\t"):
		f.hint = "indent with spaces, not with tabs"
	case strings.Contains(message, "mapping values are not allowed"):
		f.hint = `quote a value that holds ": ", and check the indentation`
	case strings.Contains(message, "cannot start any token"):
		f.hint = "quote a value that begins with @, ` or %"
	case strings.Contains(message, "did not find expected"):
		f.hint = "check the indentation of this line and of the one before, and that brackets and quotes are closed"
	}
	return f
}

func isControl(r rune) bool {
	return r < ' ' && r != '\n' && r != '\r' && r != '\t' || r == 0x7f || 0x80 <= r && r < 0xa0 && r != 0x85
}

// span is a line of a file without its end.
type lineSpan struct{ start, end int }

// splitLines cuts where YAML 1.1, and so the parser, ends a line: besides the
// usual three, at U+0085, U+2028 and U+2029.
func splitLines(data []byte) []lineSpan {
	var lines []lineSpan
	start := 0
	for i := 0; i < len(data); {
		width := 0
		switch c := data[i]; {
		case c == '\n':
			width = 1
		case c == '\r':
			width = 1
			if i+1 < len(data) && data[i+1] == '\n' {
				width = 2
			}
		case c == 0xc2 && i+1 < len(data) && data[i+1] == 0x85:
			width = 2
		case c == 0xe2 && i+2 < len(data) && data[i+1] == 0x80 && (data[i+2] == 0xa8 || data[i+2] == 0xa9):
			width = 3
		}
		if width == 0 {
			i++
			continue
		}
		lines = append(lines, lineSpan{start, i})
		i += width
		start = i
	}
	return append(lines, lineSpan{start, len(data)})
}

// place returns the line and the column, in characters, of a byte.
func place(data []byte, offset int) (line, column int) {
	lines := splitLines(data[:offset])
	last := lines[len(lines)-1]
	start := last.start
	if start == 0 && bytes.HasPrefix(data, byteOrderMark) && offset >= len(byteOrderMark) {
		start = len(byteOrderMark)
	}
	return len(lines), utf8.RuneCount(data[start:offset]) + 1
}

// describe names a node as a reader sees it.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case "!!null":
		return "empty"
	case "!!int", "!!float":
		return "the number " + n.Value
	case "!!bool":
		return "the boolean " + n.Value
	case "!!timestamp":
		return "the date " + n.Value
	}
	return "text"
}
