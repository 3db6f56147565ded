package render

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pinion-cd/pinion/render/sops"
)

// Program decrypts with the sops program what no key of ours opens. It is
// asked for a file of the tree by its name.
type Program func(name string) (plain []byte, err error)

// secrets is what one rendering has decrypted.
type secrets struct {
	keys    *sops.Keys
	program Program

	files  int
	values []string // each once; the longest first, after done
	data   [][]byte // the data keys
	blind  bool     // of a file there is no data key
	err    error    // the first file that could not be decrypted
}

// open returns the content of a file as it was before it was encrypted.
func (s *secrets) open(name string, data []byte) ([]byte, error) {
	if !sops.Encrypted(name, data) {
		return data, nil
	}
	f, err := sops.Open(name, data, s.keys)
	if e, ok := errors.AsType[*sops.Error](err); ok && e.Locked && s.program != nil {
		var plain []byte
		if plain, err = s.program(name); err == nil {
			f, err = sops.Accept(name, data, plain)
		}
	}
	if err != nil {
		if e, ok := errors.AsType[*sops.Error](err); ok {
			err = &Error{File: name, Line: e.Line, Column: e.Column, Message: e.Message, Hint: e.Hint, Locked: e.Locked}
		}
		if _, ok := errors.AsType[*Error](err); !ok {
			err = fmt.Errorf("%s: %w", name, err)
		}
		if s.err == nil {
			s.err = err
		}
		return nil, err
	}
	s.files++
	s.values = append(s.values, f.Values...)
	for _, v := range f.Values {
		if !utf8.ValidString(v) {
			s.values = append(s.values, string([]rune(v))) // as Jsonnet reads it
		}
	}
	if f.DataKey == nil {
		s.blind = true
	} else {
		s.data = append(s.data, f.DataKey)
	}
	return f.Plain, nil
}

// done sorts what was decrypted.
func (s *secrets) done() {
	slices.Sort(s.values)
	s.values = slices.Compact(s.values)
	slices.SortStableFunc(s.values, func(a, b string) int { return len(b) - len(a) })
	slices.SortFunc(s.data, bytes.Compare)
}

// shortest is the length of a decrypted value that is recognised within other
// text. A shorter one stands everywhere.
const shortest = 4

// covers says whether a text is a decrypted value, or contains one.
func (s *secrets) covers(text string) bool {
	return slices.ContainsFunc(s.values, func(v string) bool {
		return text == v || len(v) >= shortest && strings.Contains(text, v) || strings.EqualFold(text, v) && (v == "True" || v == "False")
	})
}

// key is the key under which the digests of secret objects are made. It comes
// from the data keys of the files: whoever can decrypt them has it, on every
// machine, and it stays when the recipients change. Without all data keys
// there is none.
func (s *secrets) key() []byte {
	if s.files == 0 || s.blind {
		return nil
	}
	mac := hmac.New(sha256.New, []byte("pinion.dev/digest"))
	for _, k := range slices.CompactFunc(slices.Clone(s.data), bytes.Equal) {
		mac.Write(k)
	}
	return mac.Sum(nil)
}

// isSecret says whether an object is a Secret.
func isSecret(ref Ref) bool { return ref.Kind == "Secret" && ref.Group == "" }

// sealed is how an encrypted value begins.
const sealed = "ENC[AES256_GCM,"

// plaintext refuses a Secret with a value that did not come from an encrypted
// file.
func (f *finisher) plaintext(at place, ref Ref, m map[string]any) error {
	for _, section := range []string{"data", "stringData"} {
		entries, ok := m[section].(map[string]any)
		if m[section] != nil && !ok && !f.req.Plaintext {
			return at.errorf("", "%s: .%s must be an object, not %s", ref, section, kindOf(m[section]))
		}
		for _, key := range slices.Sorted(maps.Keys(entries)) {
			text, ok := entries[key].(string)
			if !ok {
				text = fmt.Sprint(entries[key])
			}
			where := fmt.Sprintf("%s: .%s.%s", ref, section, key)
			if strings.HasPrefix(text, sealed) {
				return at.errorf("encrypt the file anew with sops", "%s is encrypted, but its file has no SOPS metadata", where)
			}
			if f.req.Plaintext || text == "" || entries[key] == nil || f.secrets.covers(text) {
				continue
			}
			if section == "data" {
				if raw, err := base64.StdEncoding.DecodeString(text); err == nil && (len(raw) == 0 || f.secrets.covers(string(raw))) {
					continue
				}
			}
			return at.errorf("encrypt it with SOPS, or write secrets: {plaintext: allow} into the service's file",
				"%s is in the clear, for everybody who can read the repository", where)
		}
	}
	return nil
}

// hidden returns the JSON pointers to the fields of an object, other than a
// Secret, that hold a decrypted value.
func (s *secrets) hidden(m map[string]any) []string {
	if len(s.values) == 0 {
		return nil
	}
	var out []string
	var walk func(v any, pointer string)
	walk = func(v any, pointer string) {
		switch v := v.(type) {
		case string:
			if slices.ContainsFunc(s.values, func(x string) bool { return len(x) >= shortest && strings.Contains(v, x) }) {
				out = append(out, pointer)
			}
		case []any:
			for i, x := range v {
				walk(x, fmt.Sprintf("%s/%d", pointer, i))
			}
		case map[string]any:
			for _, k := range slices.Sorted(maps.Keys(v)) {
				below := pointer + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(k)
				switch below {
				case "/apiVersion", "/kind", "/metadata/name", "/metadata/namespace", "/metadata/labels":
					continue
				}
				walk(v[k], below)
			}
		}
	}
	walk(m, "")
	return out
}

// digest returns the digest of an object, whose JSON is data. That of an object
// with secret values is keyed, so that nobody can try out values; and where
// there is no key, it covers all that the rendering read in their place.
func (f *finisher) digest(ref Ref, m map[string]any, data []byte, hidden []string) (string, error) {
	if f.secrets.files == 0 || len(hidden) == 0 && (!isSecret(ref) || m["data"] == nil && m["stringData"] == nil) {
		return digest(data), nil
	}
	if key := f.secrets.key(); key != nil {
		mac := hmac.New(sha256.New, key)
		mac.Write(data)
		return "hmac-sha256:" + hex.EncodeToString(mac.Sum(nil)), nil
	}
	masked, err := MaskJSON(data, hidden)
	if err != nil {
		return "", err
	}
	request, err := f.req.Digest()
	if err != nil {
		return "", err
	}
	reads, err := json.Marshal(f.reads)
	if err != nil {
		return "", err
	}
	return digest(slices.Concat(masked, []byte(request), reads)), nil
}

// Masked stands in the place of a value that is not shown.
const Masked = "***"

// Masked returns the object's JSON as Stamp does, without the values of a
// Secret and those of Hidden.
func (o Object) Masked(commit string) []byte {
	data, err := MaskJSON(o.Stamp(commit), o.Hidden)
	if err != nil {
		return []byte("{}") // not ours
	}
	return data
}

// MaskJSON returns an object's JSON without the values of a Secret, and without
// what the JSON pointers lead to.
func MaskJSON(data []byte, pointers []string) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		return nil, errors.New("is no JSON object") // the cause may quote it
	}
	if m["kind"] == "Secret" && m["apiVersion"] == "v1" {
		for _, section := range []string{"data", "stringData"} {
			switch v := m[section].(type) {
			case nil:
			case map[string]any:
				for k := range v {
					v[k] = Masked
				}
			default:
				m[section] = Masked
			}
		}
	}
	for _, p := range pointers {
		maskAt(m, strings.Split(strings.TrimPrefix(p, "/"), "/"))
	}
	return canonical(m)
}

var unescape = strings.NewReplacer("~1", "/", "~0", "~")

func maskAt(v any, tokens []string) {
	for i, token := range tokens {
		last := i == len(tokens)-1
		switch x := v.(type) {
		case map[string]any:
			token = unescape.Replace(token)
			if last {
				if _, ok := x[token]; ok {
					x[token] = Masked
				}
				return
			}
			v = x[token]
		case []any:
			var n int
			if _, err := fmt.Sscanf(token, "%d", &n); err != nil || n < 0 || n >= len(x) {
				return
			}
			if last {
				x[n] = Masked
				return
			}
			v = x[n]
		default:
			return
		}
	}
}
