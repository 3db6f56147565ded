package gitstate

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// sshNamespace is what a signature over a commit is for, in git's words; one
// that was made over a file is for something else.
const sshNamespace = "git"

// sshKeyTypes are the keys with which commits may be signed. DSA is broken, and
// certificates would need authorities.
var sshKeyTypes = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSA,
	ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256,
}

// Signer signs commits with an SSH key, as git does with gpg.format=ssh. Its
// methods may be called from any goroutine.
type Signer struct {
	key ssh.Signer
}

// OpenSigner reads a private key in OpenSSH's format (or a PEM file of PKCS #1,
// PKCS #8 or SEC 1): Ed25519, ECDSA or RSA. The passphrase is for a key that is
// encrypted, and is not looked at otherwise. The file is read once, and whoever
// else may read it is not asked: a mounted secret is often readable by a group.
func OpenSigner(keyFile, passphrase string) (*Signer, error) {
	fail := func(format string, args ...any) (*Signer, error) {
		return nil, fmt.Errorf("open the signing key %s: %w", keyFile, fmt.Errorf(format, args...))
	}
	if keyFile == "" {
		return nil, errors.New("open the signing key: no file is named; ssh-keygen -t ed25519 makes one")
	}
	data, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("open the signing key: %w; name a private key, as ssh-keygen -t ed25519 makes one", err)
	}
	key, err := ssh.ParsePrivateKey(data)
	if _, encrypted := errors.AsType[*ssh.PassphraseMissingError](err); encrypted {
		if passphrase == "" {
			return fail("it is encrypted, and no passphrase was given; give it, or take it off: ssh-keygen -p -f %s", keyFile)
		}
		key, err = ssh.ParsePrivateKeyWithPassphrase(data, []byte(passphrase))
		if errors.Is(err, x509.IncorrectPasswordError) {
			return fail("the passphrase is wrong; ssh-keygen -y -f %s asks for the same", keyFile)
		}
	}
	if err != nil {
		if what, mend := notPrivateKey(data); what != "" {
			return fail("it is %s, not a private key; %s", what, mend)
		}
		return fail("it can't be read as a private key: %w; it may be damaged, or of a kind that can't sign here: make one with ssh-keygen -t ed25519", err)
	}
	if t := key.PublicKey().Type(); !supportedKey(t) {
		return fail("keys of the type %s are not accepted; make one with ssh-keygen -t ed25519", t)
	}
	s := &Signer{key}
	// A key that is too weak to sign shall be known now, not at the first commit.
	if _, err := s.Sign(nil); err != nil {
		return fail("it does not sign: %w; make one with ssh-keygen -t ed25519", err)
	}
	return s, nil
}

// notPrivateKey names what was given by mistake; empty if that can't be told.
func notPrivateKey(data []byte) (what, mend string) {
	text := bytes.TrimSpace(data)
	begins := func(prefix string) bool { return bytes.HasPrefix(text, []byte(prefix)) }
	const private = "name the private one; its name is usually the same without .pub"
	switch {
	case len(text) == 0:
		return "empty", "make one with ssh-keygen -t ed25519"
	case begins("-----BEGIN SSH SIGNATURE"):
		return "a signature", "name the key that made it"
	case begins("-----BEGIN PGP"), begins("-----BEGIN CERTIFICATE"):
		return "of PGP or X.509", "commits are signed with SSH keys here: make one with ssh-keygen -t ed25519"
	case begins("PuTTY-User-Key-File"):
		return "a key of PuTTY's", "convert it: puttygen FILE -O private-openssh -o NEW"
	case bytes.Contains(text, []byte("PUBLIC KEY-----")), begins("---- BEGIN SSH2 PUBLIC KEY"):
		return "a public key", private
	}
	if _, _, _, _, err := ssh.ParseAuthorizedKey(text); err == nil {
		return "a public key", private
	}
	if !bytes.Contains(text, []byte("-----BEGIN ")) {
		return "some other file", "name a file that begins with -----BEGIN OPENSSH PRIVATE KEY-----"
	}
	return "", ""
}

// Sign returns the armored signature over the bytes of a commit that has none
// yet, for [Change.Sign]: SSHSIG with the namespace "git" and SHA-512 (see
// OpenSSH's PROTOCOL.sshsig). An RSA key signs as rsa-sha2-512.
func (s *Signer) Sign(commit []byte) (string, error) {
	signature, err := sshsig.Sign(bytes.NewReader(commit), s.key, sshsig.HashSHA512, sshNamespace)
	if err != nil {
		return "", fmt.Errorf("sign with %s: %w", s.Fingerprint(), err)
	}
	return string(sshsig.Armor(signature)), nil
}

// PublicKey is the public key as a line of authorized_keys, without a comment
// and without an end of line: what follows the principal in a line of an
// allowed_signers file.
func (s *Signer) PublicKey() string { return authorizedKey(s.key.PublicKey()) }

// Fingerprint is "SHA256:…", as ssh-keygen -l shows it.
func (s *Signer) Fingerprint() string { return ssh.FingerprintSHA256(s.key.PublicKey()) }

func authorizedKey(key ssh.PublicKey) string {
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(key)), "\n")
}
