package gitstate_test

import (
	"crypto"
	//lint:ignore SA1019 to see such a key refused
	"crypto/dsa"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	number "math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/pinion-cd/pinion/gitstate"
)

// keygen runs ssh-keygen, without which git neither makes nor checks a
// signature of SSH.
func keygen(t testing.TB, in string, args ...string) string {
	t.Helper()
	needKeygen(t)
	cmd := exec.Command("ssh-keygen", args...)
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("ssh-keygen %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func needKeygen(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("there is no ssh-keygen on this machine, and git signs and checks with it")
	}
}

// signingKey makes a private key and its file.
func signingKey(t testing.TB, kind string) (file string, key crypto.Signer) {
	t.Helper()
	var err error
	switch kind {
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "p256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "p384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "p521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		t.Fatal(kind)
	}
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, kind)
	if err != nil {
		t.Fatal(err)
	}
	return tempFile(t, "key", pem.EncodeToMemory(block)), key
}

func tempFile(t testing.TB, name string, data []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func openSigner(t testing.TB, file, passphrase string) *gitstate.Signer {
	t.Helper()
	s, err := gitstate.OpenSigner(file, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var keyKinds = []string{"ed25519", "p256", "p384", "p521", "rsa"}

// What we sign, git takes for signed, and so do we.
func TestSign(t *testing.T) {
	for _, kind := range keyKinds {
		t.Run(kind, func(t *testing.T) {
			file, _ := signingKey(t, kind)
			s := openSigner(t, file, "")
			u := newUpstream(t, map[string]string{"a": "a\n"})
			m := open(t, gitstate.Options{URL: u.dir})
			tip, _ := m.Tip()
			c := change(tip, "promote: web\n\nBecause žluťoučký.\n\nPinion-Event: promoted\n", map[string]string{"a": "b\n"})
			c.Sign = s.Sign
			id, err := m.Commit(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			u.fsck()
			raw, err := m.Raw(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			line := "pinion@example.com " + s.PublicKey() + "\n"
			signed := verify(t, line, raw)
			if signed.Key != s.PublicKey() || signed.Fingerprint != s.Fingerprint() || !signed.By("pinion@example.com") || signed.Committer.String() != robot.String() || !signed.Committer.Time.Equal(robot.Time) {
				t.Errorf("signed = %+v", signed)
			}
			block, _ := pem.Decode([]byte(strings.ReplaceAll(string(raw), "\n ", "\n")[strings.Index(string(raw), "-----BEGIN"):]))
			parsed, err := sshsig.ParseSignature(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			if kind == "rsa" && parsed.Signature.Format != ssh.KeyAlgoRSASHA512 || parsed.HashAlgorithm != sshsig.HashSHA512 || parsed.Namespace != "git" {
				t.Errorf("signed as %s of %s for %s", parsed.Signature.Format, parsed.HashAlgorithm, parsed.Namespace)
			}

			needKeygen(t)
			allowed := tempFile(t, "allowed", []byte(line))
			git(t, u.dir, "-c", "gpg.ssh.allowedSignersFile="+allowed, "verify-commit", id)
			if got := git(t, u.dir, "-c", "gpg.ssh.allowedSignersFile="+allowed, "log", "-1", "--format=%G? %GS %GF", id); got != "G pinion@example.com "+s.Fingerprint() {
				t.Errorf("git says %q", got)
			}
			if got := keygen(t, "", "-y", "-f", file); strings.Join(strings.Fields(got)[:2], " ") != s.PublicKey() {
				t.Errorf("the public key is %s, ssh-keygen has %s", s.PublicKey(), got)
			}
			if got := keygen(t, "", "-l", "-f", file); !strings.Contains(got, " "+s.Fingerprint()+" ") {
				t.Errorf("the fingerprint is %s, ssh-keygen has %s", s.Fingerprint(), got)
			}
			plain := strings.ReplaceAll(string(parsed.Marshal()), "\x00", "")
			if !strings.HasPrefix(plain, "SSHSIG") {
				t.Errorf("the signature begins with %q", plain[:6])
			}
			file = tempFile(t, "sig", sshsig.Armor(parsed))
			keygen(t, "", "-Y", "find-principals", "-s", file, "-f", allowed)
		})
	}
}

// A key in each of its usual files.
func TestOpenSigner(t *testing.T) {
	for _, kind := range keyKinds {
		_, key := signingKey(t, kind)
		locked, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("open sesame"))
		if err != nil {
			t.Fatal(err)
		}
		pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		public, err := ssh.NewPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		for name, block := range map[string]*pem.Block{"encrypted": locked, "PKCS #8": {Type: "PRIVATE KEY", Bytes: pkcs8}} {
			file := tempFile(t, "key", pem.EncodeToMemory(block))
			if err := os.Chmod(file, 0o644); err != nil { // as a mounted secret often is
				t.Fatal(err)
			}
			s, err := gitstate.OpenSigner(file, "open sesame")
			if err != nil {
				t.Errorf("%s, %s: %v", kind, name, err)
				continue
			}
			if s.Fingerprint() != ssh.FingerprintSHA256(public) {
				t.Errorf("%s, %s: another key", kind, name)
			}
		}
	}
}

func TestOpenSignerRefuses(t *testing.T) {
	_, key := signingKey(t, "ed25519")
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("open sesame"))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	var old dsa.PrivateKey
	if err := dsa.GenerateParameters(&old.Parameters, rand.Reader, dsa.L1024N160); err != nil {
		t.Fatal(err)
	}
	if err := dsa.GenerateKey(&old, rand.Reader); err != nil {
		t.Fatal(err)
	}
	oldDER, err := asn1.Marshal(struct {
		Version       int
		P, Q, G, Y, X *number.Int
	}{0, old.P, old.Q, old.G, old.Y, old.X})
	if err != nil {
		t.Fatal(err)
	}
	text := func(b *pem.Block) string { return string(pem.EncodeToMemory(b)) }
	for _, c := range []struct{ name, data, passphrase, want string }{
		{"no passphrase", text(locked), "", "it is encrypted, and no passphrase was given; give it, or take it off: ssh-keygen -p -f FILE"},
		{"wrong passphrase", text(locked), "hunter22", "the passphrase is wrong; ssh-keygen -y -f FILE asks for the same"},
		{"public key", string(ssh.MarshalAuthorizedKey(public)), "", "it is a public key, not a private key; name the private one; its name is usually the same without .pub"},
		{"public key in PEM", text(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), "", "it is a public key, not a private key; name the private one; its name is usually the same without .pub"},
		{"empty", "\n", "", "it is empty, not a private key; make one with ssh-keygen -t ed25519"},
		{"text", "hello\n", "", "it is some other file, not a private key; name a file that begins with -----BEGIN OPENSSH PRIVATE KEY-----"},
		{"PGP", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nabcd\n-----END PGP PRIVATE KEY BLOCK-----\n", "", "it is of PGP or X.509, not a private key; commits are signed with SSH keys here: make one with ssh-keygen -t ed25519"},
		{"PuTTY", "PuTTY-User-Key-File-3: ssh-ed25519\n", "", "it is a key of PuTTY's, not a private key; convert it: puttygen FILE -O private-openssh -o NEW"},
		{"damaged", strings.Replace(text(plain), "b3BlbnNz", "b3BlbnNa", 1), "", "it can't be read as a private key: ssh: invalid openssh private key format; it may be damaged, or of a kind that can't sign here: make one with ssh-keygen -t ed25519"},
		{"DSA", text(&pem.Block{Type: "DSA PRIVATE KEY", Bytes: oldDER}), "", "keys of the type ssh-dss are not accepted; make one with ssh-keygen -t ed25519"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := tempFile(t, "key", []byte(c.data))
			s, err := gitstate.OpenSigner(file, c.passphrase)
			want := "open the signing key " + file + ": " + c.want
			if c.name != "PuTTY" {
				want = strings.ReplaceAll(want, "FILE", file)
			}
			if err == nil || err.Error() != want || s != nil {
				t.Errorf("got the error\n%v\nwant\n%s", err, want)
			}
		})
	}
	missing := filepath.Join(t.TempDir(), "none")
	if _, err := gitstate.OpenSigner(missing, ""); err == nil || err.Error() != "open the signing key: open "+missing+": no such file or directory; name a private key, as ssh-keygen -t ed25519 makes one" {
		t.Error(err)
	}
	if _, err := gitstate.OpenSigner("", ""); err == nil {
		t.Error("no file, and no error")
	}
}
