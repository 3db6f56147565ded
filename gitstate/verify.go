package gitstate

import (
	"bytes"
	"context"
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
