package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/artifact/signature"
	"github.com/pinion-cd/pinion/internal/devtest"
	"github.com/pinion-cd/pinion/ledger"
)

// cosigner puts signatures into a registry, as `cosign sign --key` does.
type cosigner struct {
	*testing.T
	url string // of the repository
	key crypto.Signer
}

func (c cosigner) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func (c cosigner) pem() string {
	c.Helper()
	der, err := x509.MarshalPKIXPublicKey(c.key.Public())
	c.must(err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func (c cosigner) sign(message []byte) []byte {
	c.Helper()
	var made []byte
	var err error
	if _, ok := c.key.(ed25519.PrivateKey); ok {
		made, err = c.key.Sign(rand.Reader, message, crypto.Hash(0))
	} else {
		sum := sha256.Sum256(message)
		made, err = c.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	}
	c.must(err)
	return made
}

func (c cosigner) send(method, url, kind string, body []byte) http.Header {
	c.Helper()
	req, err := http.NewRequestWithContext(c.Context(), method, url, bytes.NewReader(body))
	c.must(err)
	req.Header.Set("Content-Type", kind)
	resp, err := http.DefaultClient.Do(req)
	c.must(err)
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode/100 != 2 {
		c.Fatalf("%s %s: %s\n%s", method, url, resp.Status, text)
	}
	return resp.Header
}

func sumOf(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

type object = map[string]any

func (c cosigner) blob(kind string, data []byte) object {
	c.Helper()
	to := c.send(http.MethodPost, c.url+"/blobs/uploads/", "", nil).Get("Location")
	c.send(http.MethodPut, to+"&digest="+sumOf(data), "application/octet-stream", data)
	return object{"mediaType": kind, "digest": sumOf(data), "size": len(data)}
}

// manifest puts a manifest under a reference, or under its digest.
func (c cosigner) manifest(reference string, m object) object {
	c.Helper()
	data, err := json.Marshal(m)
	c.must(err)
	if reference == "" {
		reference = sumOf(data)
	}
	kind := m["mediaType"].(string)
	c.send(http.MethodPut, c.url+"/manifests/"+reference, kind, data)
	return object{"mediaType": kind, "digest": sumOf(data), "size": len(data)}
}

const imageType = "application/vnd.oci.image.manifest.v1+json"

// layers is a manifest of signatures that are no bundle.
func (c cosigner) layers(digest string) object {
	c.Helper()
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"any"},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, digest)
	layer := c.blob(signature.PayloadType, payload)
	layer["annotations"] = object{signature.Annotation: base64.StdEncoding.EncodeToString(c.sign(payload))}
	return object{"schemaVersion": 2, "mediaType": imageType, "config": c.blob("application/vnd.oci.image.config.v1+json", []byte("{}")), "layers": []any{layer}}
}

// byTag signs a digest under the tag of another one, which is its own as a rule.
func (c cosigner) byTag(digest, under string) {
	c.Helper()
	c.manifest(signature.Tag(under), c.layers(digest))
}

// byReferrer lets a signature refer to the image; the registry does not know of
// referrers, so an index under a tag lists them.
func (c cosigner) byReferrer(digest, artifactType string, m object) {
	c.Helper()
	m["subject"] = object{"mediaType": imageType, "digest": digest, "size": 1}
	m["artifactType"] = artifactType
	d := c.manifest("", m)
	d["artifactType"] = artifactType
	c.manifest(strings.Replace(digest, ":", "-", 1), object{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []any{d}})
}

// bundle is a manifest of a signature in a bundle.
func (c cosigner) bundle(digest string) object {
	c.Helper()
	const kind = "application/vnd.in-toto+json"
	statement := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`, strings.TrimPrefix(digest, "sha256:"))
	signed := c.sign(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(statement), statement))
	data, err := json.Marshal(object{"mediaType": signature.BundleType + ".v0.3+json", "verificationMaterial": object{"publicKey": object{"hint": "x"}},
		"dsseEnvelope": object{"payload": []byte(statement), "payloadType": kind, "signatures": []any{object{"sig": signed}}}})
	c.must(err)
	return object{"schemaVersion": 2, "mediaType": imageType, "config": c.blob("application/vnd.oci.empty.v1+json", []byte("{}")),
		"layers": []any{c.blob(signature.BundleType+".v0.3+json", data)}}
}

// Only what the key has signed enters the stage, in whatever form cosign has put
// the signature into the registry.
func TestOnlyWhatIsSignedIsTracked(t *testing.T) {
	t.Parallel()
	r := devtest.Registry(t, devtest.RegistryOptions{})
	r.Push(t, "acme/web:1.2.9", nil)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, foreign, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	release := cosigner{t, "http://" + r.Host + "/v2/acme/web", key}
	stranger := cosigner{t, release.url, foreign}

	w := newWorld(t, strings.NewReplacer("registry.example/web", r.Host+"/acme/web", "\n    publishers: [ci]", "\n    publishers: [ci]\n    watch: true\n    signed: {keys: [release]}\n  verify: [signed]").Replace(tracking)+
		"-- policies/signed.yaml --\napiVersion: pinion.dev/v1\nkind: Policy\ncel: \"'release' in artifact.signed || artifact.version == '1.2.9'\"\n-- keys/release.pub --\n"+release.pem())
	config := configured(t, "outbound: {allow: [127.0.0.1]}\nregistry: {poll: 1s}")
	d := w.daemon(t.TempDir(), "--config", config)
	w.recorded("dev", "completed(dev): web 1.2.9")
	image := r.Host + "/acme/web"

	second := r.Push(t, "acme/web:1.2.10", nil)
	explained := func(version string) {
		t.Helper()
		w.until("why says that "+version+" is not signed", func(context.Context) string {
			w.git("fetch", "-q")
			out, _, _ := w.pinion("why", "dev", "web")
			if !strings.Contains(out, version+": no signature by release was found") {
				return out
			}
			return ""
		})
	}
	explained("1.2.10")
	stranger.byTag(second, second)
	d.line(0, "no key of keys/ has signed "+image+":1.2.10, which has 1 signatures: none of the keys has signed it")
	explained("1.2.10")
	release.byTag(second, second)
	tracked := func(version, digest string) {
		t.Helper()
		w.until(version+" is verified", func(context.Context) string {
			w.git("fetch", "-q")
			if subject := w.git("log", "-1", "--format=%s", "origin/ledger/dev"); !strings.HasPrefix(subject, "verified(dev): web 1.2.") || !strings.HasSuffix(subject, " → "+version) {
				return subject
			}
			return ""
		})
		message := w.git("log", "-1", "--format=%B", "origin/main")
		for _, want := range []string{"found in the registry, signed by release.", "Pinion-Pin: web " + image + ":" + version + "@" + digest, "Pinion-Artifact: web signed=release"} {
			if !strings.Contains(message, want) {
				t.Errorf("the commit says\n%s\nwant %q", message, want)
			}
		}
	}
	tracked("1.2.10", second)

	third := r.Push(t, "acme/web:1.2.11", nil)
	// cosign lists a bundle as this where the registry does not; see make cosign.
	release.byReferrer(third, "application/vnd.oci.empty.v1+json", release.bundle(third))
	tracked("1.2.11", third)

	// A signature of another image is none.
	fourth := r.Push(t, "acme/web:1.2.12", nil)
	release.byTag(third, fourth)
	d.line(0, "no key of keys/ has signed "+image+":1.2.12, which has 1 signatures: it signs \""+third+"\", not "+fourth)
	explained("1.2.12")
	release.byReferrer(fourth, signature.OldType, release.layers(fourth))
	tracked("1.2.12", fourth)

	// What CI publishes is signed, too.
	fifth := r.Push(t, "acme/web:1.2.13", nil)
	// Somebody has put something beside the signature that nobody reads.
	beside := release.layers(fifth)
	beside["layers"] = append([]any{release.blob(signature.PayloadType, make([]byte, signature.MaxSize+1))}, beside["layers"].([]any)...)
	release.manifest(signature.Tag(fifth), beside)
	d.says("ci", 0, `is recorded`, "artifact", "publish", image+":1.2.13@"+fifth, "--tests", "passed")
	w.until("1.2.13 is verified", func(context.Context) string {
		w.git("fetch", "-q")
		if subject := w.git("log", "-1", "--format=%s", "origin/ledger/dev"); subject != "verified(dev): web 1.2.12 → 1.2.13" {
			return subject
		}
		return ""
	})
	d.answers("mallory", "/api/v1/artifacts", `"version":"1\.2\.13",[^}]*"signed":\["release"\]`)
	w.git("pull", "-q", "origin", "main")
	w.tells(0, `4 known versions: nothing wrong`, "audit", "--no-signatures")
	d.stop()

	// A record that says so in the daemon's place convinces nobody who looks at who
	// has committed it; and without the rule's key in it, policy has not led there.
	was := w.git("rev-parse", "HEAD")
	to := image + ":1.2.14@" + sumOf([]byte("x"))
	w.git("fetch", "-q")
	w.replaceAs("environments/dev.yaml", image+":1.2.13@"+fifth, to, ledger.Change{
		Kind: ledger.ChangeTracked, Environment: "dev", Service: "web", From: []string{artifact.Branch + "@" + w.git("rev-parse", "origin/"+artifact.Branch)}, Before: "1.2.13",
		Release: ledger.Release{Pins: []ledger.Pin{{Artifact: "web", Image: to}}}, Policy: "default@" + w.git("rev-parse", "HEAD:pipelines/default.yaml"),
	}.Message())
	w.tells(1, `was not allowed: track web: nothing newer than 1.2.13 is known`, "audit", "--no-signatures", "--rev", "HEAD")
	w.git("reset", "-q", "--hard", was)

	// A key that is gone, or is none, keeps everything out, and lint says where.
	w.must(os.WriteFile(filepath.Join(w.clone, "keys", "release.pub"), []byte("ssh-ed25519 AAAA\n"), 0o644))
	w.tells(1, `keys/release.pub: error: the key can't be used: it is no public key in PEM`, "lint")
	w.must(os.Remove(filepath.Join(w.clone, "keys", "release.pub")))
	w.tells(1, `pipelines/default.yaml:\d+:\d+: error: there is no key release`, "lint")
}
