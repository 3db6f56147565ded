package gitstate_test

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/pinion-cd/pinion/gitstate"
)

func allowedSigners(t testing.TB, text string) *gitstate.AllowedSigners {
	t.Helper()
	a, err := gitstate.ReadAllowedSigners("allowed", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func verify(t testing.TB, allowed string, raw []byte) gitstate.Signed {
	t.Helper()
	signed, err := allowedSigners(t, allowed).Verify(raw, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// payload is a commit that is not signed yet.
const payload = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor A Person <a@example.com> 1700000000 +0100\ncommitter C Person <c@example.com> 1700000000 -0130\n\nHello\n"

// inHeader puts a signature where git has it.
func inHeader(payload, signature string) []byte {
	head, message, _ := strings.Cut(payload, "\n\n")
	return []byte(head + "\ngpgsig " + strings.ReplaceAll(strings.TrimSuffix(signature, "\n"), "\n", "\n ") + "\n\n" + message)
}

func sign(t testing.TB, s *gitstate.Signer, payload string) string {
	t.Helper()
	signature, err := s.Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

// signedFor signs as ssh-keygen -Y sign -n does.
func signedFor(t testing.TB, keyFile, namespace, payload string) string {
	t.Helper()
	data, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParsePrivateKey(data)
	if err != nil {
		t.Fatal(err)
	}
	s, err := sshsig.Sign(strings.NewReader(payload), key, sshsig.HashSHA256, namespace)
	if err != nil {
		t.Fatal(err)
	}
	return string(sshsig.Armor(s))
}

// What git signs, we take for signed: each kind of key and of commit.
func TestVerifyWhatGitSigned(t *testing.T) {
	needKeygen(t)
	for _, kind := range keyKinds {
		t.Run(kind, func(t *testing.T) {
			file, _ := signingKey(t, kind)
			line := "a@example.com " + keygen(t, "", "-y", "-f", file) + "\n"
			dir := t.TempDir()
			run := func(args ...string) string {
				t.Helper()
				return git(t, dir, append([]string{"-c", "gpg.format=ssh", "-c", "user.signingKey=" + file, "-c", "commit.gpgSign=true"}, args...)...)
			}
			run("init", "--quiet", "--initial-branch=main")
			run("commit", "--quiet", "--allow-empty", "-m", "Start")
			run("commit", "--quiet", "--allow-empty", "--allow-empty-message", "-m", "")
			run("-c", "i18n.commitEncoding=ISO-8859-1", "commit", "--quiet", "--allow-empty", "-m", "caf\xe9\n\ngpgsig -----BEGIN SSH SIGNATURE-----\n not one")
			run("checkout", "--quiet", "-b", "side", "HEAD~1")
			run("commit", "--quiet", "--allow-empty", "-m", "Side")
			run("tag", "-s", "-m", "A tag", "v1")
			run("checkout", "--quiet", "main")
			run("merge", "--quiet", "--no-ff", "-m", "Merge a signed tag, which stays in the header", "v1")

			clone, err := gitstate.OpenClone(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer clone.Close()
			ids := strings.Fields(git(t, dir, "log", "--format=%H"))
			if len(ids) != 5 {
				t.Fatalf("%d commits", len(ids))
			}
			for _, id := range ids {
				raw, err := clone.Raw(t.Context(), id)
				if err != nil {
					t.Fatal(err)
				}
				if want := git(t, dir, "cat-file", "commit", id); strings.TrimSpace(string(raw)) != want {
					t.Error(cmp.Diff(want, string(raw)))
				}
				signed := verify(t, line, raw)
				if !slices.Equal(signed.Principals, []string{"a@example.com"}) || !signed.By(signed.Committer.Email) || signed.Committer.Name != "A Person" {
					t.Errorf("signed = %+v", signed)
				}
				git(t, dir, "-c", "gpg.ssh.allowedSignersFile="+tempFile(t, "allowed", []byte(line)), "verify-commit", id)
			}
			if raw, _ := clone.Raw(t.Context(), ids[0]); !bytes.Contains(raw, []byte("\nmergetag object ")) {
				t.Error("the merge has no mergetag")
			}
			if _, err := clone.Raw(t.Context(), strings.Repeat("1", 40)); !errors.Is(err, gitstate.ErrNoCommit) {
				t.Error(err)
			}
		})
	}
}

// Each way in which a commit may fail has its own error.
func TestVerifyRefuses(t *testing.T) {
	file, _ := signingKey(t, "ed25519")
	s := openSigner(t, file, "")
	rsaFile, _ := signingKey(t, "rsa")
	rsaSigner := openSigner(t, rsaFile, "")
	stranger, _ := signingKey(t, "ed25519")
	good := sign(t, s, payload)
	line := "c@example.com " + s.PublicKey() + "\nr@example.com " + rsaSigner.PublicKey() + "\n"
	edit := func(f func(*sshsig.Signature)) string {
		parsed, err := sshsig.Unarmor([]byte(good))
		if err != nil {
			t.Fatal(err)
		}
		f(parsed)
		return string(sshsig.Armor(parsed))
	}
	weak := func() string { // what x/crypto would still accept
		data, err := os.ReadFile(rsaFile)
		if err != nil {
			t.Fatal(err)
		}
		key, err := ssh.ParsePrivateKey(data)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := sshsig.Sign(strings.NewReader(payload), key, sshsig.HashSHA512, "git")
		if err != nil {
			t.Fatal(err)
		}
		parsed.Signature.Format = ssh.KeyAlgoRSA
		return string(sshsig.Armor(parsed))
	}
	all := []error{gitstate.ErrUnsigned, gitstate.ErrSignatureKind, gitstate.ErrSignatureMalformed, gitstate.ErrUnknownKey, gitstate.ErrKeyNotValid, gitstate.ErrSignatureNamespace, gitstate.ErrBadSignature}
	for _, c := range []struct {
		name    string
		allowed string // line if empty
		raw     []byte
		want    error // nil: it is sound
		text    string
	}{
		{"sound", "", inHeader(payload, good), nil, ""},
		{"sound, with the other hash's signature", "", []byte(strings.Replace(string(inHeader(payload, good)), "\ngpgsig ", "\ngpgsig-sha256 -----BEGIN\n x\ngpgsig ", 1)), nil, ""},
		{"unsigned", "", []byte(payload), gitstate.ErrUnsigned, "the commit is not signed; sign with git commit -S"},
		{"only the other hash's signature", "", []byte(strings.Replace(string(inHeader(payload, good)), "\ngpgsig ", "\ngpgsig-sha256 ", 1)), gitstate.ErrUnsigned, ""},
		{"signature in the message", "", []byte(payload + "gpgsig " + strings.ReplaceAll(good, "\n", "\n ")), gitstate.ErrUnsigned, ""},
		{"PGP", "", inHeader(payload, "-----BEGIN PGP SIGNATURE-----\n\niQ==\n-----END PGP SIGNATURE-----"), gitstate.ErrSignatureKind, "the signature is not of SSH: it is of PGP, which can't be judged here; sign with an SSH key: git config gpg.format ssh"},
		{"X.509", "", inHeader(payload, "-----BEGIN SIGNED MESSAGE-----\nMI==\n-----END SIGNED MESSAGE-----"), gitstate.ErrSignatureKind, "X.509"},
		{"not armored", "", inHeader(payload, "hello"), gitstate.ErrSignatureMalformed, "it does not begin with -----BEGIN SSH SIGNATURE-----"},
		{"empty armor", "", inHeader(payload, "-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----"), gitstate.ErrSignatureMalformed, ""},
		{"no end", "", inHeader(payload, strings.TrimSuffix(good, "-----END SSH SIGNATURE-----\n")), gitstate.ErrSignatureMalformed, "it is not one block from BEGIN to END"},
		{"something after the end", "", inHeader(payload, good+"more"), gitstate.ErrSignatureMalformed, "it is not one block"},
		{"two signatures in one", "", inHeader(payload, good+good), gitstate.ErrSignatureMalformed, "it is not one block"},
		{"two signatures", "", []byte(strings.Replace(string(inHeader(payload, good)), "\ngpgsig ", "\ngpgsig x\ngpgsig ", 1)), gitstate.ErrSignatureMalformed, "the commit has two signatures"},
		{"huge", "", inHeader(payload, "-----BEGIN SSH SIGNATURE-----\n"+strings.Repeat(strings.Repeat("A", 64)+"\n", 600)+"-----END SSH SIGNATURE-----"), gitstate.ErrSignatureMalformed, "it has 39058 bytes, more than 32768"},
		{"cut off", "", inHeader(payload, string(pem.EncodeToMemory(&pem.Block{Type: sshsig.PEMType, Bytes: []byte("SSHSIG\x00\x00\x00\x01")}))), gitstate.ErrSignatureMalformed, ""},
		{"version 2", "", inHeader(payload, edit(func(s *sshsig.Signature) { s.Version = 2 })), gitstate.ErrSignatureMalformed, "unsupported signature version 2"},
		{"md5", "", inHeader(payload, edit(func(s *sshsig.Signature) { s.HashAlgorithm = "md5" })), gitstate.ErrSignatureMalformed, `unsupported hash algorithm "md5"`},
		{"RSA with SHA-1", "", inHeader(payload, weak()), gitstate.ErrSignatureMalformed, `invalid signature format "ssh-rsa": expected "rsa-sha2-256" or "rsa-sha2-512"`},
		{"no end of the header", "", []byte("tree x\n"), gitstate.ErrSignatureMalformed, "the commit's header has no end"},
		{"nothing", "", nil, gitstate.ErrSignatureMalformed, ""},
		{"begins with a space", "", []byte(" tree x\n\n"), gitstate.ErrSignatureMalformed, "the commit begins with a space"},
		{"NUL in the header", "", []byte(strings.Replace(payload, "Person", "Per\x00son", 1)), gitstate.ErrSignatureMalformed, "NUL"},
		{"two committers", "", inHeader(strings.Replace(payload, "\n\n", "\ncommitter X <x@example.com> 1 +0000\n\n", 1), good), gitstate.ErrSignatureMalformed, "the commit has another committer after its committer"},
		{"committer first", "", []byte("tree x\ncommitter X <x@example.com> 1 +0000\nauthor X <x@example.com> 1 +0000\n\n"), gitstate.ErrSignatureMalformed, "does not begin with tree, parents, author and committer"},
		{"no time", "", []byte("tree x\nauthor X <x@example.com> 1 +0000\ncommitter X <x@example.com>\n\n"), gitstate.ErrSignatureMalformed, `the committer "X <x@example.com>" is not NAME <ADDRESS> SECONDS ZONE`},
		{"two addresses", "", []byte("tree x\nauthor X <x@example.com> 1 +0000\ncommitter X <c@example.com> <x@example.com> 1 +0000\n\n"), gitstate.ErrSignatureMalformed, ""},
		{"unknown key", "", inHeader(payload, signedFor(t, stranger, "git", payload)), gitstate.ErrUnknownKey, openSigner(t, stranger, "").Fingerprint() + " is not in allowed; if it is to be trusted, add a line with the signer's address and the key"},
		{"nobody is allowed", "# nobody\n", inHeader(payload, good), gitstate.ErrUnknownKey, ""},
		{"for a file", "", inHeader(payload, signedFor(t, file, "file", payload)), gitstate.ErrSignatureNamespace, `its namespace is "file", not "git"`},
		{"the key is for files", `c@example.com namespaces="file,!git,*" ` + s.PublicKey(), inHeader(payload, good), gitstate.ErrSignatureNamespace, `allowed:1: the signature is for something else: the line allows the key for file,!git,* only; add "git" to its namespaces`},
		{"the key is for git, too", `c@example.com namespaces="file,g?t" ` + s.PublicKey(), inHeader(payload, good), nil, ""},
		{"not yet", `c@example.com valid-after="20231114221321Z" ` + s.PublicKey(), inHeader(payload, good), gitstate.ErrKeyNotValid, "allowed:1: the key is not valid at that time: it was used at 2023-11-14T22:13:20Z, and is valid from 2023-11-14T22:13:21Z on"},
		{"from then on", `c@example.com valid-after="20231114221320Z" ` + s.PublicKey(), inHeader(payload, good), nil, ""},
		{"no more", `c@example.com valid-before="20231114221319Z" ` + s.PublicKey(), inHeader(payload, good), gitstate.ErrKeyNotValid, "it was used at 2023-11-14T22:13:20Z, and is valid until 2023-11-14T22:13:19Z; sign with a newer key"},
		{"until then", `c@example.com valid-before="20231114221320Z" ` + s.PublicKey(), inHeader(payload, good), nil, ""},
		{"another line allows it", `c@example.com valid-before="20200101Z" ` + s.PublicKey() + "\n" + line, inHeader(payload, good), nil, ""},
		{"other message", "", inHeader(payload+"!", good), gitstate.ErrBadSignature, "which did not sign it so"},
		{"other tree", "", inHeader(strings.Replace(payload, "tree 4", "tree 5", 1), good), gitstate.ErrBadSignature, ""},
		{"another header", "", []byte(strings.Replace(string(inHeader(payload, good)), "\ngpgsig ", "\nencoding x\ngpgsig ", 1)), gitstate.ErrBadSignature, ""},
		{"a header of a name like it", "", []byte(strings.Replace(string(inHeader(payload, good)), "\ngpgsig ", "\ngpgsigs x\ngpgsig ", 1)), gitstate.ErrBadSignature, ""},
		{"another's key", "", inHeader(payload, edit(func(x *sshsig.Signature) { x.PublicKey = parseKey(t, rsaSigner.PublicKey()) })), gitstate.ErrSignatureMalformed, ""},
		{"a flipped bit", "", inHeader(payload, edit(func(x *sshsig.Signature) { x.Signature.Blob[3] ^= 1 })), gitstate.ErrBadSignature, ""},
		{"for a file, renamed", "", inHeader(payload, rename(t, signedFor(t, file, "file", payload))), gitstate.ErrBadSignature, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			allowed := c.allowed
			if allowed == "" {
				allowed = line
			}
			signed, err := allowedSigners(t, allowed).Verify(c.raw, time.Time{})
			for _, e := range all {
				if errors.Is(err, e) != (e == c.want) {
					t.Errorf("got the error %v, want %v", err, c.want)
				}
			}
			if (err == nil) != (c.want == nil) || (err == nil) != (signed.Key != "") {
				t.Errorf("got %+v and the error %v, want %v", signed, err, c.want)
			}
			if err != nil && (!strings.Contains(err.Error(), c.text) || !strings.HasPrefix(err.Error(), "commit ")) {
				t.Errorf("got the error\n%v\nwant in it\n%s", err, c.text)
			}
		})
	}

	if got := verify(t, line, inHeader(payload, good)).Committer; got.String() != "C Person <c@example.com>" || got.Time.Format(time.RFC3339) != "2023-11-14T20:43:20-01:30" {
		t.Errorf("the committer is %s, %s", got, got.Time)
	}
	// Another time may be asked for than the one that the committer names.
	a := allowedSigners(t, `c@example.com valid-before="20240101Z" `+s.PublicKey())
	if _, err := a.Verify(inHeader(payload, good), time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)); !errors.Is(err, gitstate.ErrKeyNotValid) {
		t.Errorf("a key that has run out: %v", err)
	}
	var nobody gitstate.AllowedSigners
	if _, err := nobody.Verify(inHeader(payload, good), time.Time{}); !errors.Is(err, gitstate.ErrUnknownKey) {
		t.Errorf("the zero value: %v", err)
	}
}

func parseKey(t testing.TB, line string) ssh.PublicKey {
	t.Helper()
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// rename says that a signature was made for git.
func rename(t testing.TB, armored string) string {
	t.Helper()
	s, err := sshsig.Unarmor([]byte(armored))
	if err != nil {
		t.Fatal(err)
	}
	s.Namespace = "git"
	return string(sshsig.Armor(s))
}

// Lines that we accept mean what they mean to ssh-keygen, which is asked; and
// what it does not accept, we do not.
func TestAllowedSigners(t *testing.T) {
	file, _ := signingKey(t, "ed25519")
	s := openSigner(t, file, "")
	other, _ := signingKey(t, "p256")
	key, otherKey := s.PublicKey(), openSigner(t, other, "").PublicKey()
	raw := inHeader(payload, sign(t, s, payload))
	signature := tempFile(t, "sig", []byte(sign(t, s, payload)))
	_, noKeygen := exec.LookPath("ssh-keygen")
	for _, c := range []struct {
		name, text string
		who        string // c@example.com if empty
		want       bool
	}{
		{"plain", "c@example.com " + key, "", true},
		{"comment", "# c\n\n  \t\nc@example.com " + key + " a comment, with \"quotes\n", "", true},
		{"tabs", "\tc@example.com\t \t" + key, "", true},
		{"several principals", "a@example.com,c@example.com " + key, "", true},
		{"somebody else", "a@example.com " + key, "", false},
		{"quotes", `"c@example.com,a b" ` + key, "", true},
		{"a space in a name", `"c@example.com,a b" ` + key, "a b", true},
		{"wildcard", "*@example.com " + key, "", true},
		{"one character", "?@example.com " + key, "", true},
		{"one character is not two", "?@example.com " + key, "cc@example.com", false},
		{"case matters", "C@example.com " + key, "", false},
		{"all but", "*@example.com,!c@example.com " + key, "", false},
		{"all but another", "!a@example.com,* " + key, "", true},
		{"all but, of another line", "*@example.com,!c@example.com " + key + "\nc@* " + key, "", true},
		{"stars", "*c*@*.com* " + key, "", true},
		{"another key", "c@example.com " + otherKey, "", false},
		{"second line", "c@example.com " + otherKey + "\nc@example.com " + key, "", true},
		{"namespace", `c@example.com namespaces="git" ` + key, "", true},
		{"namespaces", `c@example.com NameSpaces="file,g*" ` + key, "", true},
		{"other namespace", `c@example.com namespaces="file" ` + key, "", false},
		{"after", `c@example.com valid-after="20231114Z" ` + key, "", true},
		{"after, minutes", `c@example.com valid-after="202311142214Z" ` + key, "", false},
		{"before", `c@example.com valid-before="20231114Z" ` + key, "", false},
		{"local time", `c@example.com valid-before="20231116" ` + key, "", true},
		{"local time, over", `c@example.com valid-before="20231112" ` + key, "", false},
		{"all options", `c@example.com namespaces="git",valid-after="20200101Z",valid-before="20300101utc" ` + key, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			who := c.who
			if who == "" {
				who = "c@example.com"
			}
			signed, err := allowedSigners(t, c.text).Verify(raw, time.Time{})
			if got := err == nil && signed.By(who); got != c.want {
				t.Errorf("allowed is %v: %+v, %v", got, signed, err)
			}
			if noKeygen != nil {
				return
			}
			cmd := exec.Command("ssh-keygen", "-Y", "verify", "-n", "git", "-I", who, "-s", signature, "-f", tempFile(t, "allowed", []byte(c.text)), "-Overify-time=20231114221320Z")
			cmd.Stdin = strings.NewReader(payload)
			if out, err := cmd.CombinedOutput(); (err == nil) != c.want {
				t.Errorf("ssh-keygen says %v: %s", err, out)
			}
		})
	}
	if signed := verify(t, "a@example.com,b@example.com "+key+"\nc@example.com valid-before=\"20200101Z\" "+key+"\n*,a@example.com,!x "+key, raw); !slices.Equal(signed.Principals, []string{"a@example.com", "b@example.com", "*", "!x"}) || signed.By("x") || signed.By("") || !signed.By("y") {
		t.Errorf("signed = %+v", signed)
	}

	t.Run("local time, two hours east", func(t *testing.T) {
		was := time.Local
		time.Local = time.FixedZone("", 2*60*60)
		t.Cleanup(func() { time.Local = was })
		t.Setenv("TZ", "XXX-2")
		for stamp, want := range map[string]bool{"20231115001320": true, "20231115001319": false} {
			text := `c@example.com valid-before="` + stamp + `" ` + key
			if _, err := allowedSigners(t, text).Verify(raw, time.Time{}); (err == nil) != want {
				t.Errorf("%s: %v", stamp, err)
			}
			if noKeygen != nil {
				continue
			}
			cmd := exec.Command("ssh-keygen", "-Y", "verify", "-n", "git", "-I", "c@example.com", "-s", signature, "-f", tempFile(t, "allowed", []byte(text)), "-Overify-time=20231114221320Z")
			cmd.Stdin = strings.NewReader(payload)
			if out, err := cmd.CombinedOutput(); (err == nil) != want {
				t.Errorf("%s: ssh-keygen says %v: %s", stamp, err, out)
			}
		}
	})

	const types = "ssh-ed25519, ecdsa-sha2-nistp256, ecdsa-sha2-nistp384, ecdsa-sha2-nistp521, ssh-rsa, sk-ssh-ed25519@openssh.com, sk-ecdsa-sha2-nistp256@openssh.com"
	encoded := strings.Fields(key)[1]
	for _, c := range []struct{ name, text, want string }{
		{"authority", "c@example.com cert-authority " + key, "allowed:1: certificates are not supported, so cert-authority can't be; list the public key of each signer"},
		{"authority among others", "# x\n\n" + `c@example.com namespaces="git",Cert-Authority ` + key, "allowed:3: certificates are not supported, so cert-authority can't be; list the public key of each signer"},
		{"certificate", "c@example.com ssh-ed25519-cert-v01@openssh.com AAAA", "allowed:1: certificates are not supported; write the public key itself (the file whose name ends in .pub without -cert)"},
		{"no principal", key, "allowed:1: the principals are missing; begin the line with the signer's address"},
		{"no type", "c@example.com " + encoded, `allowed:1: "` + encoded[:60] + `…" is neither an option nor a type of key; the options are namespaces=, valid-after= and valid-before=, and the types of key are ` + types},
		{"unknown option", "c@example.com namespace=\"git\" " + key, `allowed:1: "namespace" is neither an option nor a type of key; the options are namespaces=, valid-after= and valid-before=, and the types of key are ` + types},
		{"no quotes", "c@example.com namespaces=git " + key, `allowed:1: the option namespaces has no value in quotes; write namespaces="…"`},
		{"no value", "c@example.com namespaces " + key, `allowed:1: the option namespaces has no value in quotes; write namespaces="…"`},
		{"twice", `c@example.com valid-after="20200101Z",valid-after="20200101Z" ` + key, "allowed:1: the option valid-after is there twice; remove one"},
		{"no comma", `c@example.com valid-after="20200101Z"namespaces="git" ` + key, `allowed:1: after the option valid-after there is "namespaces=\"git\""; options are separated by one comma and no spaces`},
		{"comma at the end", `c@example.com valid-after="20200101Z", ` + key, `allowed:1: after the option valid-after there is ","; options are separated by one comma and no spaces`},
		{"open quote", `c@example.com valid-after="20200101Z ` + key, "allowed:1: an option has no closing quote; add it"},
		{"open quote of a name", `"c@example.com ` + key, "allowed:1: the principals: the closing quote is missing; add it"},
		{"empty name", "c@example.com,, " + key, `allowed:1: the principals: "c@example.com,," has an empty pattern; write alice@example.com, or several with commas and no spaces`},
		{"only taken out", "!c@example.com " + key, `allowed:1: the principals: "!c@example.com" only takes out, and lets nobody in; write alice@example.com, or several with commas and no spaces`},
		{"no time", `c@example.com valid-after="2020-01-01" ` + key, `allowed:1: the option valid-after: "2020-01-01" is not a time; write YYYYMMDDZ, YYYYMMDDHHMMZ or YYYYMMDDHHMMSSZ`},
		{"no such day", `c@example.com valid-after="20200230Z" ` + key, `allowed:1: the option valid-after: "20200230Z" is not a time; write YYYYMMDDZ, YYYYMMDDHHMMZ or YYYYMMDDHHMMSSZ`},
		{"never", `c@example.com valid-before="20200101Z",valid-after="20200101Z" ` + key, "allowed:1: valid-before is not after valid-after, so the key is never valid; change one of them"},
		{"no key", "c@example.com", "allowed:1: the key is missing; write principals, options if any, and the two words of the public key"},
		{"half a key", "c@example.com ssh-ed25519", "allowed:1: the key is missing; write principals, options if any, and the two words of the public key"},
		{"DSA", "c@example.com ssh-dss AAAA", `allowed:1: "ssh-dss" is not a type of key that may sign; it is one of ` + types},
		{"not base64", "c@example.com ssh-ed25519 AAA!", "allowed:1: the key is not base64: illegal base64 data at input byte 3; copy it again from the .pub file"},
		{"not a key", "c@example.com ssh-ed25519 AAAA", "allowed:1: the key can't be read: ssh: short read; copy it again from the .pub file"},
		{"another type", "c@example.com ssh-rsa " + encoded, "allowed:1: the key is of the type ssh-ed25519, and the line says ssh-rsa; copy both from the .pub file"},
		{"two lines", "c@example.com\n\nc@example.com ssh-dss AAAA", "allowed:1: the key is missing; write principals, options if any, and the two words of the public key\nallowed:3: \"ssh-dss\" is not a type of key that may sign; it is one of " + types},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := gitstate.ReadAllowedSigners("allowed", []byte(c.text))
			if err == nil || err.Error() != c.want || a != nil {
				t.Errorf("got the error\n%v\nwant\n%s", err, c.want)
			}
		})
	}
}

// A commit whose content is that of another is not handed out under its id.
func TestRawOfADamagedCommit(t *testing.T) {
	u := newUpstream(t, map[string]string{"a": "a\n"})
	first, second := u.tip("main"), u.commit("main", "Next", map[string]string{"a": "b\n"})
	file := func(id string) string { return filepath.Join(u.dir, "objects", id[:2], id[2:]) }
	data, err := os.ReadFile(file(first))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(file(second)), os.WriteFile(file(second), data, 0o444)); err != nil {
		t.Fatal(err)
	}
	clone, err := gitstate.OpenClone(u.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer clone.Close()
	if _, err := clone.Raw(t.Context(), first); err != nil {
		t.Error(err)
	}
	raw, err := clone.Raw(t.Context(), second)
	if err == nil || err.Error() != "object "+second+" can't be read: its content has another id" || errors.Is(err, fs.ErrNotExist) || raw != nil {
		t.Errorf("%q, %v", raw, err)
	}
	if _, err := clone.Raw(t.Context(), first[:8]); !errors.Is(err, gitstate.ErrNoCommit) {
		t.Errorf("an abbreviated id: %v", err)
	}
}

// gitPayload does what git does (commit.c) to find what was signed.
func gitPayload(raw []byte) []byte {
	var payload []byte
	skip := false
	for len(raw) > 0 {
		line := raw
		if i := bytes.IndexByte(raw, '\n'); i >= 0 {
			line = raw[:i+1]
		}
		raw = raw[len(line):]
		switch {
		case skip && line[0] == ' ':
			continue
		case bytes.HasPrefix(line, []byte("gpgsig")):
			skip = true
			continue
		}
		skip = false
		payload = append(payload, line...)
		if line[0] == '\n' {
			return append(payload, raw...)
		}
	}
	return payload
}

// Whatever is done to a commit, it counts as signed only if what git takes for
// signed is one of the texts that the key was used on.
func FuzzVerify(f *testing.F) {
	file, _ := signingKey(f, "ed25519")
	s := openSigner(f, file, "")
	a := allowedSigners(f, "c@example.com "+s.PublicKey())
	merge := strings.Replace(payload, "\n\n", "\nencoding x\nmergetag object 1\n type commit\n gpgsig x\n \n  y\n\n", 1)
	payloads := []string{payload, merge}
	for _, p := range payloads {
		f.Add(inHeader(p, sign(f, s, p)))
		f.Add(bytes.Replace(inHeader(p, sign(f, s, p)), []byte("\ngpgsig "), []byte("\ngpgsig-sha256 x\n y\ngpgsig "), 1))
		f.Add([]byte(strings.ReplaceAll(string(inHeader(p, sign(f, s, p))), "\n", "\r\n")))
	}
	f.Add([]byte(payload))
	f.Add([]byte("tree x\nparent y\ngpgsig \n\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		signed, err := a.Verify(raw, time.Time{})
		if err != nil {
			if signed.Key != "" {
				t.Error("an error, and a signer")
			}
			return
		}
		if !slices.Contains(payloads, string(gitPayload(raw))) {
			t.Errorf("nobody signed %q", raw)
		}
		if signed.Committer.Email != "c@example.com" || signed.Committer.Time.Unix() != 1700000000 {
			t.Errorf("the committer is %+v", signed.Committer)
		}
	})
}

// A file is read or refused with the lines that are wrong, and one that is read
// allows the key only if the key is in it.
func FuzzReadAllowedSigners(f *testing.F) {
	file, _ := signingKey(f, "ed25519")
	s := openSigner(f, file, "")
	raw := inHeader(payload, sign(f, s, payload))
	encoded := strings.Fields(s.PublicKey())[1]
	for _, line := range []string{
		"c@example.com KEY", `*@example.com,!a namespaces="git,!file",valid-after="20200101Z",valid-before="20300101" KEY x`, `"a b" KEY`,
		"c cert-authority KEY", `c namespaces="\"" KEY`, "# x\r\n\r\nc KEY\r\n", "!c KEY", `c valid-after="0" KEY`,
	} {
		f.Add([]byte(strings.ReplaceAll(line, "KEY", s.PublicKey())))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := gitstate.ReadAllowedSigners("allowed", data)
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				var n int
				if _, e := fmt.Sscanf(line, "allowed:%d: ", &n); e != nil || n < 1 || n > bytes.Count(data, []byte("\n"))+1 {
					t.Errorf("the error has no line of the file: %q", err)
				}
			}
			return
		}
		signed, err := a.Verify(raw, time.Time{})
		if err != nil {
			return
		}
		if !bytes.Contains(data, []byte(encoded)) {
			t.Errorf("%q lets in a key that it does not have", data)
		}
		if len(signed.Principals) == 0 {
			t.Errorf("%q lets in nobody", data)
		}
		for _, p := range signed.Principals {
			if p == "" || !bytes.Contains(data, []byte(p)) {
				t.Errorf("the principal %q is not in %q", p, data)
			}
		}
	})
}
