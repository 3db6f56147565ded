package gitstate

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// AllowedSigners is who may sign with which key. The zero value allows nobody.
// Its methods may be called from any goroutine.
type AllowedSigners struct {
	file    string
	signers []allowedSigner
}

// allowedSigner is a line of the file.
type allowedSigner struct {
	line          int
	principals    patterns
	key           []byte    // as it goes over the wire
	namespaces    patterns  // nil: any
	after, before time.Time // both may sign; zero: no limit
}

// ReadAllowedSigners reads a file in the format of git's
// gpg.ssh.allowedSignersFile, which is that of ssh-keygen(1), ALLOWED SIGNERS:
//
//	alice@example.com,*@ops.example.com namespaces="git",valid-before="20270101Z" ssh-ed25519 AAAA… comment
//
// A time without Z is in this machine's time zone, as it is to ssh-keygen;
// write the Z, so that everybody reads the same. The option cert-authority and
// keys that are certificates are errors: certificates are not supported, and
// to skip such a line would be to lose somebody without a word. The name is
// used for errors only; each bad line is one, as file:line.
func ReadAllowedSigners(file string, data []byte) (*AllowedSigners, error) {
	a := &AllowedSigners{file: file}
	var errs []error
	number := 0
	for line := range bytes.Lines(data) {
		number++
		text := strings.Trim(string(line), " \t\r\n")
		if text == "" || text[0] == '#' {
			continue
		}
		s, err := parseSigner(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", file, number, err))
			continue
		}
		s.line = number
		a.signers = append(a.signers, s)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return a, nil
}

// parseSigner reads a line: principals, perhaps options, a type, a key.
func parseSigner(line string) (allowedSigner, error) {
	var s allowedSigner
	if strings.ContainsRune(line, 0) {
		return s, errors.New("the line has a NUL character; save the file as text")
	}
	names, rest, err := firstWord(line)
	if err != nil {
		return s, fmt.Errorf("the principals: %w", err)
	}
	if supportedKey(names) {
		return s, errors.New("the principals are missing; begin the line with the signer's address")
	}
	if s.principals, err = parsePatterns(names); err != nil {
		return s, fmt.Errorf("the principals: %w; write alice@example.com, or several with commas and no spaces", err)
	}
	kind, encoded, _ := cutBlank(rest)
	if !isKeyType(kind) {
		var options string
		if options, rest, err = cutOptions(rest); err != nil {
			return s, err
		}
		if err := s.options(options); err != nil {
			return s, err
		}
		kind, encoded, _ = cutBlank(rest)
	}
	encoded, _, _ = cutBlank(encoded) // a comment may follow
	switch {
	case kind == "" || encoded == "":
		return s, errors.New("the key is missing; write principals, options if any, and the two words of the public key")
	case strings.Contains(kind, "-cert-v"):
		return s, errors.New("certificates are not supported; write the public key itself (the file whose name ends in .pub without -cert)")
	case !supportedKey(kind):
		return s, fmt.Errorf("%q is not a type of key that may sign; it is one of %s", abridged(kind), strings.Join(sshKeyTypes, ", "))
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return s, fmt.Errorf("the key is not base64: %w; copy it again from the .pub file", err)
	}
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return s, fmt.Errorf("the key can't be read: %w; copy it again from the .pub file", err)
	}
	if key.Type() != kind {
		return s, fmt.Errorf("the key is of the type %s, and the line says %s; copy both from the .pub file", key.Type(), kind)
	}
	s.key = key.Marshal()
	return s, nil
}

// options reads a line's options.
func (s *allowedSigner) options(text string) error {
	const known = "the options are namespaces=, valid-after= and valid-before="
	seen := map[string]bool{}
	for text != "" {
		end := strings.IndexAny(text, "=,")
		if end < 0 {
			end = len(text)
		}
		word := text[:end]
		name := strings.ToLower(word)
		text = text[end:]
		switch name {
		case "cert-authority":
			return errors.New("certificates are not supported, so cert-authority can't be; list the public key of each signer")
		case "namespaces", "valid-after", "valid-before":
		default:
			return fmt.Errorf("%q is neither an option nor a type of key; %s, and the types of key are %s", abridged(word), known, strings.Join(sshKeyTypes, ", "))
		}
		if seen[name] {
			return fmt.Errorf("the option %s is there twice; remove one", name)
		}
		seen[name] = true
		value, rest, err := cutQuoted(strings.TrimPrefix(text, "="))
		if err != nil || !strings.HasPrefix(text, "=") {
			return fmt.Errorf(`the option %s has no value in quotes; write %s="…"`, name, name)
		}
		switch name {
		case "namespaces":
			s.namespaces, err = parsePatterns(value)
		case "valid-after":
			s.after, err = parseTimestamp(value)
		case "valid-before":
			s.before, err = parseTimestamp(value)
		}
		if err != nil {
			return fmt.Errorf("the option %s: %w", name, err)
		}
		text = rest
		if text == "" {
			break
		}
		var comma bool
		if text, comma = strings.CutPrefix(text, ","); !comma || text == "" {
			return fmt.Errorf("after the option %s there is %q; options are separated by one comma and no spaces", name, abridged(rest))
		}
	}
	if !s.after.IsZero() && !s.before.IsZero() && !s.before.After(s.after) {
		return errors.New("valid-before is not after valid-after, so the key is never valid; change one of them")
	}
	return nil
}

func supportedKey(kind string) bool { return slices.Contains(sshKeyTypes, kind) }

// isKeyType tells a type of key, supported or not, from options.
func isKeyType(word string) bool {
	return !strings.ContainsAny(word, `=",`) && (supportedKey(word) || strings.HasPrefix(word, "ssh-") || strings.HasSuffix(word, "@openssh.com"))
}

// cutBlank cuts at the first spaces or tabs.
func cutBlank(s string) (word, rest string, found bool) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, "", false
	}
	return s[:i], strings.TrimLeft(s[i:], " \t"), true
}

// firstWord cuts a word, which may stand in quotes, and the blanks after it.
func firstWord(s string) (word, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		word, rest, _ = cutBlank(s)
		return word, rest, nil
	}
	word, rest, found := strings.Cut(s[1:], `"`)
	if !found {
		return "", "", errors.New("the closing quote is missing; add it")
	}
	return word, strings.TrimLeft(rest, " \t"), nil
}

// cutOptions cuts at the first blank that is not in quotes.
func cutOptions(s string) (options, rest string, err error) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s) && s[i+1] == '"':
			i++
		case c == '"':
			quoted = !quoted
		case (c == ' ' || c == '\t') && !quoted:
			return s[:i], strings.TrimLeft(s[i:], " \t"), nil
		}
	}
	if quoted {
		return "", "", errors.New("an option has no closing quote; add it")
	}
	return s, "", nil
}

// cutQuoted cuts a text in quotes; in it, \" is a quote.
func cutQuoted(s string) (value, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		return "", "", errors.New("no quote")
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], nil
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == '"':
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", errors.New("no closing quote")
}

// parseTimestamp reads YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, in the local
// time zone unless Z follows.
func parseTimestamp(s string) (time.Time, error) {
	zone, digits := time.Local, s
	for _, suffix := range []string{"Z", "UTC"} {
		if n := len(s) - len(suffix); n > 0 && strings.EqualFold(s[n:], suffix) {
			zone, digits = time.UTC, s[:n]
			break
		}
	}
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(digits) != len(layout) || strings.Trim(digits, "0123456789") != "" {
			continue
		}
		t, err := time.ParseInLocation(layout, digits, zone)
		if err == nil && t.Unix() <= 0 { // which ssh-keygen can't tell from none
			break
		}
		if err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time; write YYYYMMDDZ, YYYYMMDDHHMMZ or YYYYMMDDHHMMSSZ", abridged(s))
}

// patterns is a list of patterns as OpenSSH has them: * stands for anything, ?
// for one character, and ! before a pattern takes out what it matches.
type patterns []string

func parsePatterns(s string) (patterns, error) {
	list := patterns(strings.Split(s, ","))
	positive := false
	for _, p := range list {
		if strings.TrimPrefix(p, "!") == "" {
			return nil, fmt.Errorf("%q has an empty pattern", abridged(s))
		}
		positive = positive || p[0] != '!'
	}
	if !positive {
		return nil, fmt.Errorf("%q only takes out, and lets nobody in", abridged(s))
	}
	return list, nil
}

func (l patterns) match(s string) bool {
	found := false
	for _, p := range l {
		p, not := strings.CutPrefix(p, "!")
		if !glob(p, s) {
			continue
		}
		if not {
			return false
		}
		found = true
	}
	return found
}

// glob matches in time that grows with the product of the lengths.
func glob(pattern, s string) bool {
	star, tried := -1, 0 // the last *, and what it has taken up to
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, tried = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			tried++
			p, i = star+1, tried
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

func abridged(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}

func (a *AllowedSigners) name() string {
	if a.file == "" {
		return "the list of allowed signers"
	}
	return a.file
}

// allows says why a line does not allow its key to sign commits at a time.
func (l allowedSigner) allows(at time.Time) error {
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch {
	case l.namespaces != nil && !l.namespaces.match(sshNamespace):
		return fmt.Errorf("%w: the line allows the key for %s only; add %q to its namespaces", ErrSignatureNamespace, strings.Join(l.namespaces, ","), sshNamespace)
	case !l.after.IsZero() && at.Before(l.after):
		return fmt.Errorf("%w: it was used at %s, and is valid from %s on", ErrKeyNotValid, stamp(at), stamp(l.after))
	case !l.before.IsZero() && at.After(l.before):
		return fmt.Errorf("%w: it was used at %s, and is valid until %s; sign with a newer key", ErrKeyNotValid, stamp(at), stamp(l.before))
	}
	return nil
}
