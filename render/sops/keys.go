package sops

import (
	"fmt"
	"strings"

	"filippo.io/age"
)

// Keys are age identities: the secret keys that files are opened with. The
// zero value and nil are no keys.
type Keys struct {
	identities []age.Identity
	texts      []string
}

// ParseKeys reads a file of age identities, as age-keygen writes it: one a
// line, and comments. The error holds nothing of what the file does.
func ParseKeys(name string, data []byte) (*Keys, error) {
	k := &Keys{}
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		ids, err := age.ParseIdentities(strings.NewReader(line))
		if err != nil {
			return nil, fmt.Errorf("%s:%d: is no age identity; write AGE-SECRET-KEY-1… as age-keygen prints it, without a passphrase and without a plugin", name, number)
		}
		k.identities = append(k.identities, ids...)
		k.texts = append(k.texts, line)
	}
	if len(k.texts) == 0 {
		return nil, fmt.Errorf("%s: holds no age identity; write one a line, as age-keygen prints it", name)
	}
	return k, nil
}

// Join returns all keys of several.
func Join(all ...*Keys) *Keys {
	joined := &Keys{}
	for _, k := range all {
		if k != nil {
			joined.identities = append(joined.identities, k.identities...)
			joined.texts = append(joined.texts, k.texts...)
		}
	}
	return joined
}

// Text returns the keys in the form that ParseKeys reads.
func (k *Keys) Text() []byte {
	if k == nil {
		return nil
	}
	return []byte(strings.Join(k.texts, "\n"))
}

// Len is the number of keys.
func (k *Keys) Len() int {
	if k == nil {
		return 0
	}
	return len(k.texts)
}

// String keeps the keys out of whatever is printed.
func (k *Keys) String() string { return fmt.Sprintf("%d age keys", k.Len()) }

// GoString is like String.
func (k *Keys) GoString() string { return k.String() }
