package gitstate

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// What [AllowedSigners.Verify] may say of a commit; ask with errors.Is.
var (
	// ErrUnsigned says that the commit has no signature.
	ErrUnsigned = errors.New("the commit is not signed")
	// ErrSignatureKind says that it is signed with something else than an SSH
	// key (PGP, X.509), about which nothing can be said here.
	ErrSignatureKind = errors.New("the signature is not of SSH")
	// ErrSignatureMalformed says that the commit or its signature is not of the
	// form that git gives it, or uses an algorithm that the form forbids.
	ErrSignatureMalformed = errors.New("the signature is malformed")
	// ErrUnknownKey says that nobody is allowed to sign with the key.
	ErrUnknownKey = errors.New("the key is not allowed to sign")
	// ErrKeyNotValid says that the key is allowed at another time only.
	ErrKeyNotValid = errors.New("the key is not valid at that time")
	// ErrSignatureNamespace says that the signature was made for something else
	// than git, or that the key is allowed to sign other things only.
	ErrSignatureNamespace = errors.New("the signature is for something else")
	// ErrBadSignature says that the key did not sign this commit: the commit, or
	// its signature, is not what it was.
	ErrBadSignature = errors.New("the signature does not belong to the commit")
)

// maxSignature bounds what is parsed of a signature; one of the longest RSA key
// has some 6 KB.
const maxSignature = 32 << 10

// Signed says who signed a commit.
type Signed struct {
	// Committer is as the signed bytes have it. That it is the signer has to be
	// asked: see By.
	Committer   Signature
	Key         string // as a line of authorized_keys
	Fingerprint string // "SHA256:…"
	// Principals are those of the lines that allow the key, in the order of the
	// file. They are patterns: usually an address, but "*@example.com" or
	// "!ci@example.com" may be among them.
	Principals []string

	lists []patterns
}

// By tells whether an identity, such as the committer's address, is one of the
// key's principals. Case matters, as it does to ssh-keygen.
func (s Signed) By(identity string) bool {
	return identity != "" && slices.ContainsFunc(s.lists, func(l patterns) bool { return l.match(identity) })
}

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

// Verify judges the signature of a commit, given as git cat-file commit prints
// it (see [Mirror.Raw]). The key has to be allowed at the time at; if that is
// zero, at the committer's time, as git verify-commit has it. A committer's time
// is what the committer says: who wants to know that a key which has run out is
// used no more, gives the time at which the commit was first seen.
//
// Like git, it does not compare the committer with the principals; see
// [Signed.By]. Unlike git, it takes all lines with the key that allow it, not
// only the first.
func (a *AllowedSigners) Verify(raw []byte, at time.Time) (Signed, error) {
	signed, err := a.verify(raw, at)
	if err != nil {
		return Signed{}, fmt.Errorf("commit %s: %w", plumbing.ComputeHash(plumbing.CommitObject, raw), err)
	}
	return signed, nil
}

func (a *AllowedSigners) verify(raw []byte, at time.Time) (Signed, error) {
	c, err := splitCommit(raw)
	if err != nil {
		return Signed{}, fmt.Errorf("%w: %w", ErrSignatureMalformed, err)
	}
	signature, err := parseSignature(c.signature)
	if err != nil {
		return Signed{}, err
	}
	if signature.Namespace != sshNamespace {
		return Signed{}, fmt.Errorf("%w: its namespace is %q, not %q; sign with git, not with ssh-keygen -n", ErrSignatureNamespace, abridged(signature.Namespace), sshNamespace)
	}
	if at.IsZero() {
		at = c.committer.Time
	}
	s := Signed{Committer: c.committer, Key: authorizedKey(signature.PublicKey), Fingerprint: ssh.FingerprintSHA256(signature.PublicKey)}
	blob := signature.PublicKey.Marshal()
	var lines []allowedSigner
	for _, l := range a.signers {
		if bytes.Equal(l.key, blob) {
			lines = append(lines, l)
		}
	}
	// Before anything is calculated with a key that whoever made the commit chose.
	if len(lines) == 0 {
		return Signed{}, fmt.Errorf("%w: %s %s is not in %s; if it is to be trusted, add a line with the signer's address and the key", ErrUnknownKey, signature.PublicKey.Type(), s.Fingerprint, a.name())
	}
	if err := sshsig.Verify(bytes.NewReader(c.payload), signature, signature.PublicKey, signature.HashAlgorithm, sshNamespace); err != nil {
		return Signed{}, fmt.Errorf("%w: it names the key %s, which did not sign it so (%w)", ErrBadSignature, s.Fingerprint, err)
	}
	var why error
	for _, l := range lines {
		if err := l.allows(at); err != nil {
			why = errors.Join(why, fmt.Errorf("%s:%d: %w", a.name(), l.line, err))
			continue
		}
		s.lists = append(s.lists, l.principals)
		for _, p := range l.principals {
			if !slices.Contains(s.Principals, p) {
				s.Principals = append(s.Principals, p)
			}
		}
	}
	if len(s.lists) == 0 {
		return Signed{}, why
	}
	return s, nil
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

// signedCommit is a commit taken apart.
type signedCommit struct {
	payload   []byte // what is signed: all but the signatures
	signature string // without the spaces of its lines; empty: there is none
	committer Signature
}

// splitCommit takes the signature out of a commit, as git does it: a header
// "gpgsig" and the lines after it that begin with a space. gpgsig-sha256 is a
// signature over the same commit with other ids; it is neither signed nor looked
// at. The rest has to be as git writes it, so that no two readers can find
// another committer in it.
func splitCommit(raw []byte) (signedCommit, error) {
	const (
		other = iota
		ours
		dropped
	)
	var c signedCommit
	var signature strings.Builder
	var keys []string
	c.payload = make([]byte, 0, len(raw))
	in := other
	for rest := raw; ; {
		line, after, found := bytes.Cut(rest, []byte("\n"))
		if !found {
			return c, errors.New("the commit's header has no end")
		}
		if len(line) == 0 {
			c.payload = append(c.payload, rest...)
			break
		}
		rest = after
		if bytes.IndexByte(line, 0) >= 0 {
			return c, errors.New("the commit's header has a NUL character")
		}
		if line[0] == ' ' {
			switch {
			case len(keys) == 0:
				return c, errors.New("the commit begins with a space")
			case in == ours:
				signature.Write(line[1:])
				signature.WriteByte('\n')
			case in == other:
				c.payload = append(append(c.payload, line...), '\n')
			}
			continue
		}
		key, value, _ := strings.Cut(string(line), " ")
		switch key {
		case "gpgsig":
			if signature.Len() > 0 {
				return c, errors.New("the commit has two signatures")
			}
			in = ours
			signature.WriteString(value + "\n")
			keys = append(keys, key)
			continue
		case "gpgsig-sha256":
			in = dropped
			keys = append(keys, key)
			continue
		case "committer":
			var err error
			if c.committer, err = parseCommitter(value); err != nil {
				return c, err
			}
		}
		in = other
		keys = append(keys, key)
		c.payload = append(append(c.payload, line...), '\n')
	}
	if err := orderly(keys); err != nil {
		return c, err
	}
	c.signature = signature.String()
	return c, nil
}

// orderly checks that tree, parents, author and committer come first, and come
// once.
func orderly(keys []string) error {
	i := 0
	take := func(key string) bool {
		if i < len(keys) && keys[i] == key {
			i++
			return true
		}
		return false
	}
	ok := take("tree")
	for take("parent") {
	}
	ok = ok && take("author") && take("committer")
	if !ok {
		return errors.New("the commit does not begin with tree, parents, author and committer")
	}
	for _, key := range keys[i:] {
		if slices.Contains([]string{"tree", "parent", "author", "committer"}, key) {
			return fmt.Errorf("the commit has another %s after its committer", key)
		}
	}
	return nil
}

var committerLine = regexp.MustCompile(`^(?:([^<>]*) )?<([^<>]*)> ([0-9]{1,12}) ([+-])([0-9]{2})([0-9]{2})$`)

func parseCommitter(value string) (Signature, error) {
	m := committerLine.FindStringSubmatch(value)
	if m == nil {
		return Signature{}, fmt.Errorf("the committer %q is not NAME <ADDRESS> SECONDS ZONE", abridged(value))
	}
	seconds, _ := strconv.ParseInt(m[3], 10, 64)
	hours, _ := strconv.Atoi(m[5])
	minutes, _ := strconv.Atoi(m[6])
	offset := (hours*60 + minutes) * 60
	if m[4] == "-" {
		offset = -offset
	}
	return Signature{m[1], m[2], time.Unix(seconds, 0).In(time.FixedZone("", offset))}, nil
}

// parseSignature reads an armored SSHSIG.
func parseSignature(text string) (*sshsig.Signature, error) {
	malformed := func(format string, args ...any) error {
		return fmt.Errorf("%w: %w; sign it again", ErrSignatureMalformed, fmt.Errorf(format, args...))
	}
	begins := func(kind string) bool { return strings.HasPrefix(text, "-----BEGIN "+kind+"-----") }
	switch {
	case text == "":
		return nil, fmt.Errorf("%w; sign with git commit -S", ErrUnsigned)
	case begins("PGP SIGNATURE"), begins("PGP MESSAGE"):
		return nil, fmt.Errorf("%w: it is of PGP, which can't be judged here; sign with an SSH key: git config gpg.format ssh", ErrSignatureKind)
	case begins("SIGNED MESSAGE"):
		return nil, fmt.Errorf("%w: it is of X.509, which can't be judged here; sign with an SSH key: git config gpg.format ssh", ErrSignatureKind)
	case !begins(sshsig.PEMType):
		return nil, malformed("it does not begin with -----BEGIN %s-----", sshsig.PEMType)
	case len(text) > maxSignature:
		return nil, malformed("it has %d bytes, more than %d", len(text), maxSignature)
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != sshsig.PEMType || len(block.Headers) > 0 || strings.TrimSpace(string(rest)) != "" {
		return nil, malformed("it is not one block from BEGIN to END")
	}
	signature, err := sshsig.ParseSignature(block.Bytes)
	if err != nil {
		return nil, malformed("%w", err)
	}
	if kind := signature.PublicKey.Type(); !supportedKey(kind) {
		return nil, malformed("keys of the type %s may not sign", abridged(kind))
	}
	return signature, nil
}

// Raw is a commit as git cat-file commit prints it, by the full id.
func (m *Mirror) Raw(ctx context.Context, id string) ([]byte, error) { return m.store.raw(ctx, id) }

// Raw is a commit as git cat-file commit prints it, by the full id.
func (c *Clone) Raw(ctx context.Context, id string) ([]byte, error) { return c.store.raw(ctx, id) }

func (s *store) raw(ctx context.Context, id string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, err := s.lookup(id)
	if err != nil {
		return nil, err
	}
	data, err := s.object(c.id, plumbing.CommitObject)
	if err != nil {
		return nil, s.harmed(err)
	}
	// Reading does not check it, and a signature says nothing of the id.
	if plumbing.ComputeHash(plumbing.CommitObject, data) != c.id {
		return nil, s.harmed(&missing{c.id, errors.New("its content has another id")})
	}
	return data, nil
}
