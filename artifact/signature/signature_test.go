package signature_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/pinion-cd/pinion/artifact/signature"
)

var digest = "sha256:" + strings.Repeat("2", 64)

func encode(t testing.TB, public crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func parse(t testing.TB, text string) signature.Key {
	t.Helper()
	k, err := signature.ParseKey([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// bundled puts an envelope into a bundle, as cosign does.
func bundled(envelope string) []byte {
	return []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"x"},"tlogEntries":[]},"dsseEnvelope":` + envelope + `}`)
}

// What the library of cosign has signed is verified, by its key and no other,
// and for its digest and no other.
func TestSignaturesOfSigstore(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/sigstore.txtar")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, f := range archive.Files {
		files[f.Name] = strings.TrimSuffix(string(f.Data), "\n")
	}
	kinds := []string{"ecdsa-p256", "ed25519", "rsa-2048"}
	var all []signature.Key
	for _, k := range kinds {
		all = append(all, parse(t, files[k+".pub"]))
	}
	payload := []byte(files["payload.json"])
	for i, k := range kinds {
		others := slices.Delete(slices.Clone(all), i, i+1)
		checks := map[string]func(digest string, keys []signature.Key) ([]string, error){
			"payload": func(digest string, keys []signature.Key) ([]string, error) {
				return signature.Payload(payload, files[k+".sig"], digest, keys)
			},
			"bundle": func(digest string, keys []signature.Key) ([]string, error) {
				return signature.Bundle(bundled(files[k+".dsse.json"]), digest, keys)
			},
		}
		for form, check := range checks {
			if got, err := check(digest, all); err != nil || !slices.Equal(got, []string{all[i].Fingerprint}) {
				t.Errorf("%s of %s: %v, %v", form, k, got, err)
			}
			if got, err := check(digest, others); len(got) > 0 || !errors.Is(err, signature.ErrUnknownKey) {
				t.Errorf("%s of %s by the others: %v, %v", form, k, got, err)
			}
			if got, err := check(strings.Replace(digest, "2", "3", 1), all); len(got) > 0 || err == nil || errors.Is(err, signature.ErrUnknownKey) {
				t.Errorf("%s of %s for another digest: %v, %v", form, k, got, err)
			}
		}
		// One bit of what is signed, and the signature is none.
		for _, at := range []int{0, len(payload) / 2, len(payload) - 1} {
			bent := slices.Clone(payload)
			bent[at] ^= 1
			if got, err := signature.Payload(bent, files[k+".sig"], digest, all); len(got) > 0 || !errors.Is(err, signature.ErrUnknownKey) {
				t.Errorf("a payload bent at %d: %v, %v", at, got, err)
			}
		}
	}
}

func TestKeysThatAreNotTaken(t *testing.T) {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	private, err := x509.MarshalPKCS8PrivateKey(p256)
	if err != nil {
		t.Fatal(err)
	}
	good := encode(t, &p256.PublicKey)
	for want, text := range map[string]string{
		"it is no public key in PEM":        "ssh-ed25519 AAAA release",
		"it is a private key, which is no":  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
		"it is a private key":               string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED SIGSTORE PRIVATE KEY", Bytes: private})),
		`it is a "CERTIFICATE", not`:        string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: private})),
		"something else than one key":       good + good,
		"its curve is P-384":                encode(t, &p384.PublicKey),
		"it is no public key that can be r": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: private})),
	} {
		if _, err := signature.ParseKey([]byte(text)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := signature.ParseKey([]byte("the key of releases\n" + good)); err == nil {
		t.Error("a key with text before it is taken")
	}
	if k := parse(t, good+"\n\n"); len(k.Fingerprint) != 64 {
		t.Errorf("the fingerprint is %q", k.Fingerprint)
	}
}

// Who has the key may sign other things with it; these are no signatures of the
// image.
func TestWhatIsSignedIsNoSignature(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := []signature.Key{parse(t, encode(t, public))}
	simple := func(text string) error {
		_, err := signature.Payload([]byte(text), base64.StdEncoding.EncodeToString(ed25519.Sign(private, []byte(text))), digest, keys)
		return err
	}
	wrapped := func(kind, text string) error {
		signed := fmt.Sprintf("DSSEv1 %d %s %d %s", len(kind), kind, len(text), text)
		e, _ := json.Marshal(map[string]any{"payload": []byte(text), "payloadType": kind, "signatures": []any{map[string]any{"sig": ed25519.Sign(private, []byte(signed))}}})
		_, err := signature.Bundle(bundled(string(e)), digest, keys)
		return err
	}
	const intoto = "application/vnd.in-toto+json"
	hex := strings.TrimPrefix(digest, "sha256:")
	statement := func(predicate, subject string) string {
		return fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":%s,"predicateType":%q,"predicate":{}}`, subject, predicate)
	}
	const sign = "https://sigstore.dev/cosign/sign/v1"
	for _, test := range []struct {
		err  error
		want string
	}{
		{simple(`{"critical":{"image":{"docker-manifest-digest":"` + digest + `"},"type":"cosign container image signature"}}`), ""},
		{simple(`{"critical":{"image":{"docker-manifest-digest":"` + digest + `"},"type":"atomic container signature"}}`), `what is signed is a "atomic container signature", no signature of an image`},
		{simple(`{"critical":{"image":{"docker-manifest-digest":"sha256:33"},"type":"cosign container image signature"}}`), `it signs "sha256:33", not ` + digest},
		{simple(`{}`), `what is signed is a "", no signature`},
		{simple(`hello`), "what is signed is no simple signing payload"},
		{wrapped(intoto, statement(sign, `[{"digest":{"sha256":"`+hex+`"}}]`)), ""},
		{wrapped(intoto, statement("https://slsa.dev/provenance/v1", `[{"digest":{"sha256":"`+hex+`"}}]`)), `what is signed is a "https://slsa.dev/provenance/v1", no signature of an image`},
		{wrapped(intoto, statement(sign, `[{"digest":{"sha512":"`+hex+`"}}]`)), "it signs something else than " + digest},
		{wrapped(intoto, statement(sign, `[]`)), "it signs something else than " + digest},
		{wrapped("text/plain", statement(sign, `[{"digest":{"sha256":"`+hex+`"}}]`)), `the bundle is about a "text/plain"`},
		{wrapped(intoto, `{}`), `what is signed is a "", no statement`},
	} {
		if got := fmt.Sprint(test.err); test.want == "" && test.err != nil || !strings.HasPrefix(got, test.want) {
			t.Errorf("%s, want %s", got, test.want)
		}
	}
	for text, want := range map[string]string{
		`[]`: "it is no bundle", `{"mediaType":"text/plain"}`: `it is a "text/plain", no bundle`,
		`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}`: "the bundle has no envelope",
	} {
		if _, err := signature.Bundle([]byte(text), digest, keys); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	if _, err := signature.Payload(nil, "%%", digest, keys); err == nil || err.Error() != "the signature is not base64" {
		t.Errorf("%v", err)
	}
	if got := signature.Tag(digest); got != "sha256-"+hex+".sig" {
		t.Errorf("the tag is %s", got)
	}
}

// Nothing that is not signed by the key is verified, whatever it is.
func FuzzSignature(f *testing.F) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		f.Fatal(err)
	}
	keys := []signature.Key{parse(f, encode(f, &private.PublicKey))}
	sum := sha256.Sum256([]byte("hello"))
	made, err := rsa.SignPKCS1v15(rand.Reader, private, crypto.SHA256, sum[:])
	if err != nil {
		f.Fatal(err)
	}
	archive, err := txtar.ParseFile("testdata/sigstore.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, x := range archive.Files {
		f.Add(x.Data, string(x.Data))
		f.Add(bundled(string(x.Data)), base64.StdEncoding.EncodeToString(made))
	}
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		if got, err := signature.Payload(data, text, digest, keys); len(got) > 0 || err == nil {
			t.Errorf("payload: %v", got)
		}
		if got, err := signature.Bundle(data, digest, keys); len(got) > 0 || err == nil {
			t.Errorf("bundle: %v", got)
		}
		if k, err := signature.ParseKey(data); err == nil && len(k.Fingerprint) != 64 {
			t.Errorf("key: %+v", k)
		}
	})
}
