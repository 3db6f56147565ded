package sops

import (
	"bytes"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Address is where the sops program sends its credentials to have the data key
// of a file opened.
type Address struct {
	Line, Column int    // 0: the whole file
	Field        string // of the metadata
	URL          *url.URL
}

// The fields of the metadata by which a file has a say in who is asked. The
// program takes their names in any case, and a mapping for a list of one, so
// they are looked for wherever they stand in the metadata.
var (
	addressFields = []string{"vault_address", "vault_url"}
	arnFields     = []string{"arn"}
	pathFields    = []string{"engine_path", "key_name"}
)

var (
	// What the programs read alike, whatever they cut at, unquote or escape.
	addressForm = regexp.MustCompile(`^https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$`)
	// The region becomes a part of the host's name.
	arnForm = regexp.MustCompile(`^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]+:(key|alias)/[A-Za-z0-9/_-]+$`)
	// A line of an INI file that no reader takes for anything else.
	iniForm = regexp.MustCompile(`^([A-Za-z0-9_]+)[ \t]*=[ \t]*([A-Za-z0-9:._~/\[\]-]*)[ \t\r]*$`)
)

// flatMapping stands before a key in the name of a flat value.
const flatMapping = "__map_"

// Reach returns the addresses that a file has the sops program ask when it
// decrypts it: of HashiCorp Vaults and of Azure's key vaults. Of all others the
// host is the provider's, and this is seen to: an AWS ARN whose region would
// lead elsewhere is an error, as is a path of a Vault's that leaves its engine.
// So is a file that the program could read in another way.
func Reach(name string, data []byte) ([]Address, error) {
	r := reach{}
	switch f := formatOf(name, data); f {
	case formatYAML:
		docs, err := parseYAML(data)
		if err != nil {
			return nil, err
		}
		r.documents(docs)
	case formatJSON, formatBinary:
		top, err := parseJSON(data)
		if err != nil {
			return nil, err
		}
		r.documents([]*node{top})
	case formatDotenv, formatINI:
		r.lines(f, data)
	default:
		return nil, &Error{Message: "is not encrypted with SOPS"}
	}
	if r.err != nil {
		return nil, r.err
	}
	return r.found, nil
}

type reach struct {
	found []Address
	err   *Error // the first
}

func (r *reach) documents(docs []*node) {
	for _, doc := range docs {
		for _, e := range doc.entries {
			if strings.EqualFold(e.key, metadataKey) {
				r.tree(e.value)
			}
		}
	}
}

func (r *reach) tree(n *node) {
	for _, e := range n.entries {
		is := func(field string) bool { return strings.EqualFold(e.key, field) }
		text, isText := e.value.value.(string)
		r.field(is, e.value, text, isText)
		r.tree(e.value)
	}
}

// lines reads the metadata of a flat file, where a name is the whole path to a
// value: hc_vault__list_0__map_vault_address.
func (r *reach) lines(f format, data []byte) {
	number := 0
	for line := range bytes.Lines(data) {
		number++
		at := &node{line: number, column: 1}
		text := strings.TrimRight(string(line), "\n")
		if f == formatDotenv {
			name, value, _ := strings.Cut(text, "=")
			if strings.HasPrefix(name, dotenvPrefix) {
				r.field(func(field string) bool { return endsFolded(name, flatMapping+field) }, at, value, true)
			}
			continue
		}
		m := iniForm.FindStringSubmatch(text)
		if m == nil {
			// Quotes, other delimiters and what else the form knows are not of sops.
			r.field(func(field string) bool { return containsFolded(text, flatMapping+field) }, at, "", false)
			continue
		}
		r.field(func(field string) bool { return endsFolded(m[1], flatMapping+field) }, at, m[2], true)
	}
}

// field looks at a value of the metadata whose name is tells.
func (r *reach) field(is func(field string) bool, at *node, text string, isText bool) {
	which := func(fields []string) (string, bool) {
		i := slices.IndexFunc(fields, is)
		if i < 0 {
			return "", false
		}
		return fields[i], true
	}
	if field, ok := which(addressFields); ok {
		u, err := url.Parse(text)
		if !isText || err != nil || !addressForm.MatchString(text) {
			r.fail(at, "write it as in https://vault.shop.example:8200", "its %s is not the address of a vault", field)
			return
		}
		r.found = append(r.found, Address{Line: at.line, Column: at.column, Field: field, URL: u})
	}
	if field, ok := which(arnFields); ok && (!isText || !arnForm.MatchString(text)) {
		r.fail(at, "write it as in arn:aws:kms:eu-west-1:123456789012:key/ID", "its %s is not that of an AWS key", field)
	}
	if field, ok := which(pathFields); ok && (!isText || slices.Contains(strings.Split(text, "/"), "..")) {
		r.fail(at, anew, "its %s leaves the engine", field)
	}
}

func (r *reach) fail(at *node, hint, format string, args ...any) {
	if r.err == nil {
		r.err = at.errorf(hint, format, args...)
	}
}

// endsFolded is HasSuffix in any case, by the rules of EqualFold.
func endsFolded(s, suffix string) bool {
	for range utf8.RuneCountInString(s) - utf8.RuneCountInString(suffix) {
		_, n := utf8.DecodeRuneInString(s)
		s = s[n:]
	}
	return strings.EqualFold(s, suffix)
}

func containsFolded(s, part string) bool {
	runes, n := []rune(s), utf8.RuneCountInString(part)
	for i := 0; i+n <= len(runes); i++ {
		if strings.EqualFold(string(runes[i:i+n]), part) {
			return true
		}
	}
	return false
}
