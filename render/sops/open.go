package sops

import (
	"bytes"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// File is a file that was decrypted.
type File struct {
	// Plain is the file as it was before, but for the metadata, whose lines are
	// empty, and for comments, which stay as they are.
	Plain []byte
	// Values are the texts of what was encrypted, each once. What a Kubernetes
	// object is known by (apiVersion, kind, metadata, type) is not among them.
	Values []string
	// DataKey is the key of this file's values; nil after Accept.
	DataKey []byte
}

// format is how a file is written.
type format int

const (
	formatNone format = iota // SOPS did not encrypt it
	formatYAML
	formatJSON
	formatBinary
	formatDotenv
	formatINI
)

// formatOf finds the format of a file from its content, and from its name
// where the content is not enough.
func formatOf(name string, data []byte) format {
	// The words are in all of them; a look costs less than parsing.
	if !bytes.Contains(data, []byte("lastmodified")) || !bytes.Contains(data, []byte(metadataKey)) {
		return formatNone
	}
	ext := path.Ext(name)
	switch trimmed := bytes.TrimLeft(data, " \t\r\n\ufeff"); {
	case ext == ".libsonnet" || ext == ".jsonnet":
		return formatNone
	case bytes.HasPrefix(trimmed, []byte("{")):
		top, err := parseJSON(data)
		if err != nil || top.get(metadataKey).get("lastmodified") == nil {
			return formatNone
		}
		if ext != ".json" && len(top.entries) == 2 && top.get("data") != nil {
			return formatBinary
		}
		return formatJSON
	case hasLine(data, metadataKey+":"):
		return formatYAML
	case hasLine(data, dotenvPrefix+"lastmodified="):
		return formatDotenv
	case hasLine(data, "["+metadataKey+"]"):
		return formatINI
	}
	return formatNone
}

func hasLine(data []byte, prefix string) bool {
	return bytes.HasPrefix(data, []byte(prefix)) || bytes.Contains(data, []byte("\n"+prefix))
}

// Encrypted says whether SOPS has encrypted a file.
func Encrypted(name string, data []byte) bool { return formatOf(name, data) != formatNone }

// Type is the name that the sops program has for the format of a file.
func Type(name string, data []byte) string {
	switch formatOf(name, data) {
	case formatYAML:
		return "yaml"
	case formatJSON:
		return "json"
	case formatDotenv:
		return "dotenv"
	case formatINI:
		return "ini"
	default:
		return "binary"
	}
}

// parsed is a file with its values and its metadata apart.
type parsed struct {
	docs  []*node
	meta  *node
	blank []patch
}

func parse(f format, data []byte) (p parsed, err error) {
	switch f {
	case formatYAML:
		if p.docs, err = parseYAML(data); err != nil {
			return p, err
		}
		y := yamlFile{data: data, lines: lineStarts(data)}
		for i, doc := range p.docs {
			n := doc.get(metadataKey)
			if n == nil {
				continue
			}
			if i == 0 {
				p.meta = n
			}
			blank, e := y.blankMetadata(doc)
			if e != nil {
				return p, e
			}
			p.blank = append(p.blank, blank)
			p.docs[i] = doc.without(metadataKey)
		}
	case formatJSON, formatBinary:
		top, err := parseJSON(data)
		if err != nil {
			return p, err
		}
		p.meta = top.get(metadataKey)
		p.blank = []patch{blankJSON(data, top)}
		p.docs = []*node{top.without(metadataKey)}
	case formatDotenv:
		values, meta, blank, err := parseDotenv(data)
		if err != nil {
			return p, err
		}
		p.docs, p.meta, p.blank = []*node{values}, meta, blank
	default:
		return p, &Error{Message: "is an INI file, which only the sops program decrypts", Hint: "write it as YAML, JSON or NAME=value lines", Program: true, Locked: true}
	}
	if p.meta == nil {
		return p, &Error{Message: "has no SOPS metadata in its first document", Hint: anew}
	}
	return p, nil
}

// Open decrypts a file with one of the keys. The error is an *Error.
func Open(name string, data []byte, keys *Keys) (*File, error) {
	f := formatOf(name, data)
	p, err := parse(f, data)
	if err != nil {
		return nil, err
	}
	m, err := readMetadata(p.meta)
	if err != nil {
		return nil, err
	}
	key, err := m.dataKey(keys)
	if err != nil {
		return nil, err
	}
	o := opener{meta: m, key: key, mac: sha512.New(), format: f, data: data, file: &File{DataKey: key}}
	if m.onlyEncrypted {
		o.mac.Write(onlyEncryptedStart)
	}
	for _, doc := range p.docs {
		if err := o.walk(doc, nil, nil, isObject(doc)); err != nil {
			return nil, err
		}
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	o.file.collect()
	if f == formatBinary {
		text, _ := o.binary.(string)
		o.file.Plain = []byte(text)
		return o.file, nil
	}
	patches := slices.Concat(o.patches, p.blank)
	slices.SortFunc(patches, func(a, b patch) int { return a.start - b.start })
	o.file.Plain = apply(data, patches)
	return o.file, nil
}

// onlyEncryptedStart begins the checksum of a file in which only what is
// encrypted counts, so that it never equals one of the other sort. It is the
// SHA-256 of "sops".
var onlyEncryptedStart, _ = hex.DecodeString("8a3fd2ad54ce66527b1034f3d147be0b0b975b3bf44f72c6fdadec8176f27d69")

type opener struct {
	meta    *metadata
	key     []byte
	mac     hash.Hash
	format  format
	data    []byte
	file    *File
	patches []patch
	binary  any // the only value of a binary file
}

// walk decrypts what is below a node, in the order of the file. Around are the
// comments before each value on the way.
func (o *opener) walk(n *node, path []string, around [][]string, object bool) error {
	if n.kind == scalar {
		return o.scalar(n, path, around, object)
	}
	for _, e := range n.entries {
		below := path
		if n.kind == mapping {
			below = append(slices.Clip(path), e.key)
		}
		if err := o.walk(e.value, below, append(slices.Clip(around), e.comments), object); err != nil {
			return err
		}
	}
	return nil
}

func (o *opener) scalar(n *node, path []string, around [][]string, object bool) error {
	if n.value == nil {
		return nil
	}
	secret := o.meta.encrypts(path, around)
	v := n.value
	if secret {
		text, ok := v.(string)
		if !ok {
			return n.errorf("edit the file with sops", "%s %v", name(path), errNotEncrypted)
		}
		var err error
		if v, err = opened(text, o.key, strings.Join(path, ":")+":"); err != nil {
			return &Error{Line: n.line, Column: n.column, Message: name(path) + " " + err.Error(), Hint: "edit the file with sops, or take it back from git's history"}
		}
		if c, ok := v.(comment); ok {
			return o.restore(n, path, c)
		}
		if text != "" {
			if err := o.replace(n, path, v); err != nil {
				return err
			}
			if !object || !known(path) {
				o.file.Values = append(o.file.Values, string(inMAC(v)))
			}
		}
	}
	if secret || !o.meta.onlyEncrypted {
		o.mac.Write(inMAC(v))
	}
	return nil
}

// withoutComments returns a list without the elements that were comments.
func (n *node) withoutComments() *node {
	less := *n
	less.entries = slices.DeleteFunc(slices.Clone(n.entries), func(e entry) bool {
		return n.kind == list && strings.HasPrefix(e.value.text(), prefix) && strings.HasSuffix(e.value.text(), ",type:comment]")
	})
	return &less
}

// restore makes a comment of an element that was one. It is no part of the
// checksum.
func (o *opener) restore(n *node, path []string, c comment) error {
	dash := bytes.LastIndexByte(o.data[:n.start], '-')
	if o.format != formatYAML || n.start == n.end || dash < 0 || strings.Trim(string(o.data[dash+1:n.start]), " ") != "" {
		return n.errorf(anew, "%s is a comment where none can be", name(path))
	}
	text := strings.Map(func(r rune) rune {
		if r < 0x20 {
			return ' '
		}
		return r
	}, string(c))
	o.patches = append(o.patches, patch{dash, n.end, "#" + text})
	return nil
}

// replace notes where the plaintext goes.
func (o *opener) replace(n *node, path []string, v any) error {
	text := ""
	switch o.format {
	case formatBinary:
		o.binary = v
		return nil
	case formatDotenv:
		text = strings.ReplaceAll(string(inMAC(v)), "\n", `\n`)
		o.file.Values = append(o.file.Values, text)
	default:
		if n.start == n.end {
			return n.errorf(anew, "%s is written over several lines, as sops does not", name(path))
		}
		s, isText := v.(string)
		if text = written(v); isText && !utf8.ValidString(s) {
			if o.format == formatJSON {
				return n.errorf("encrypt it as a file of its own", "%s is not UTF-8 text, and JSON knows nothing else", name(path))
			}
			text = "!!binary " + base64.StdEncoding.EncodeToString([]byte(s))
		}
	}
	o.patches = append(o.patches, patch{n.start, n.end, text})
	return nil
}

// check compares the checksum.
func (o *opener) check() error {
	at := o.meta.at.get("mac").orElse(o.meta.at)
	said, err := opened(o.meta.mac, o.key, o.meta.lastModified)
	if err != nil {
		return at.errorf("edit the file with sops, or take it back from git's history", "the mac %s", err)
	}
	if text, ok := said.(string); !ok || !strings.EqualFold(text, hex.EncodeToString(o.mac.Sum(nil))) {
		return at.errorf("edit the file with sops, or take it back from git's history", "the file was changed since it was encrypted: its mac is another one")
	}
	return nil
}

// collect leaves each value once.
func (f *File) collect() {
	slices.Sort(f.Values)
	f.Values = slices.DeleteFunc(slices.Compact(f.Values), func(v string) bool { return v == "" })
}

// isObject says whether a document is a Kubernetes object.
func isObject(n *node) bool { return n.get("apiVersion") != nil && n.get("kind") != nil }

// known says whether a path of an object leads to what it is known by.
func known(path []string) bool {
	return slices.Contains([]string{"apiVersion", "kind", "metadata", "type", "immutable"}, path[0])
}

// name writes a path as one reads it.
func name(path []string) string { return "." + strings.Join(path, ".") }

// Accept makes a File of what the sops program has decrypted.
func Accept(name string, data, plain []byte) (*File, error) {
	f := formatOf(name, data)
	out := &File{Plain: plain}
	if f == formatBinary || f == formatINI {
		out.Values = []string{string(plain)}
		return out, nil
	}
	before, err := parse(f, data)
	if err != nil {
		return nil, err
	}
	var after []*node
	switch f {
	case formatYAML:
		after, err = parseYAML(plain)
	case formatJSON:
		var top *node
		top, err = parseJSON(plain)
		after = []*node{top}
	default:
		var values *node
		values, _, _, err = parseDotenv(plain)
		after = []*node{values}
	}
	if err != nil || len(after) != len(before.docs) {
		return nil, &Error{Message: "what the sops program made of it can't be read"}
	}
	for i := range after {
		if !out.pair(before.docs[i], after[i], nil, isObject(after[i])) {
			return nil, &Error{Message: "what the sops program made of it has another form"}
		}
	}
	out.collect()
	return out, nil
}

// pair adds what was encrypted before to the values; false: the two differ in
// more than that.
func (f *File) pair(before, after *node, path []string, object bool) bool {
	before = before.withoutComments()
	if before.kind != after.kind || len(before.entries) != len(after.entries) {
		return false
	}
	if text, ok := before.value.(string); ok && strings.HasPrefix(text, prefix) && (!object || !known(path)) {
		f.Values = append(f.Values, string(inMAC(after.value)))
	}
	for i, e := range before.entries {
		if e.key != after.entries[i].key || !f.pair(e.value, after.entries[i].value, append(slices.Clip(path), e.key), object) {
			return false
		}
	}
	return true
}
