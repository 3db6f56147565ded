package sops

import (
	"bytes"
	"strings"
)

const dotenvPrefix = metadataKey + "_"

// parseDotenv reads lines of name=value. The metadata, which stands among them
// under names that begin with sops_, is returned as the tree that it is
// elsewhere; whole are the lines that it takes.
func parseDotenv(data []byte) (values, metadata *node, whole []patch, err error) {
	values, metadata = &node{kind: mapping}, &node{kind: mapping}
	var pending []string
	offset, number := 0, 0
	for line := range bytes.Lines(data) {
		start := offset
		offset += len(line)
		number++
		line = bytes.TrimRight(line, "\n")
		if len(line) == 0 {
			continue
		}
		if line[0] == '#' {
			pending = append(pending, string(line[1:]))
			continue
		}
		i := bytes.IndexByte(line, '=')
		v := &node{line: number, column: i + 2, start: start + i + 1, end: start + len(line)}
		if i < 0 {
			v.column = 1
			return nil, nil, nil, v.errorf("", "is not a line of the form NAME=value")
		}
		name := string(line[:i])
		v.value = strings.ReplaceAll(string(line[i+1:]), `\n`, "\n")
		if rest, ok := strings.CutPrefix(name, dotenvPrefix); ok {
			v.column = 1
			metadata.line, metadata.column = number, 1
			insert(metadata, strings.Split(strings.ReplaceAll(rest, "__list_", "__map_"), "__map_"), v)
			whole = append(whole, patch{start, offset, ""})
			continue
		}
		if values.get(name) != nil {
			v.column = 1
			return nil, nil, nil, v.errorf("remove one", "%s is there twice", name)
		}
		values.entries = append(values.entries, entry{key: name, value: v, comments: pending})
		pending = nil
	}
	return values, metadata, whole, nil
}

// insert puts a value into a tree of mappings, below several names. Lists
// become mappings with the positions as names.
func insert(n *node, names []string, v *node) {
	for _, name := range names[:len(names)-1] {
		next := n.get(name)
		if next == nil || next.kind != mapping {
			next = &node{kind: mapping, line: v.line, column: v.column}
			n.entries = append(n.entries, entry{key: name, value: next})
		}
		n = next
	}
	n.entries = append(n.entries, entry{key: names[len(names)-1], value: v})
}
