package sops

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// prefix is how each encrypted value begins.
const prefix = "ENC[AES256_GCM,"

var encrypted = regexp.MustCompile(`^ENC\[AES256_GCM,data:([^,]+),iv:([^,]+),tag:([^,]+),type:([a-z]+)\]$`)

// What is wrong with a value, in words that hold nothing of it.
var (
	errNotEncrypted = errors.New("is not encrypted, and by the file's rules should be")
	errForm         = errors.New("is not written as sops writes an encrypted value")
	errTampered     = errors.New("can't be decrypted: it was changed, or moved here from another place, or encrypted with another data key")
	errKind         = errors.New("has a type that is not known, or that its content does not have")
)

// opened decrypts a value; path is the additional data. An empty value is not
// encrypted.
func opened(text string, key []byte, path string) (any, error) {
	if text == "" {
		return "", nil
	}
	m := encrypted.FindStringSubmatch(text)
	if m == nil {
		if strings.HasPrefix(text, prefix) {
			return nil, errForm
		}
		return nil, errNotEncrypted
	}
	var parts [3][]byte
	for i := range parts {
		var err error
		if parts[i], err = base64.StdEncoding.DecodeString(m[i+1]); err != nil {
			return nil, errForm
		}
	}
	data, iv, tag := parts[0], parts[1], parts[2]
	block, err := aes.NewCipher(key)
	if err != nil || len(iv) == 0 || len(tag) != aes.BlockSize {
		return nil, errForm
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, len(iv))
	if err != nil {
		return nil, errForm
	}
	plain, err := gcm.Open(nil, iv, append(data, tag...), []byte(path))
	if err != nil {
		return nil, errTampered
	}
	return typed(string(plain), m[4])
}

// comment is a comment in a list, which SOPS makes an element of it.
type comment string

// typed makes a value of its text. The errors of what is called here quote it.
func typed(text, kind string) (any, error) {
	switch kind {
	case "str", "bytes":
		return text, nil
	case "comment":
		return comment(text), nil
	case "int":
		if i, err := strconv.Atoi(text); err == nil {
			return i, nil
		}
	case "float":
		if f, err := strconv.ParseFloat(text, 64); err == nil {
			return f, nil
		}
	case "bool":
		if b, err := strconv.ParseBool(text); err == nil {
			return b, nil
		}
	case "time":
		var t time.Time
		if t.UnmarshalText([]byte(text)) == nil {
			return t, nil
		}
	}
	return nil, errKind
}
