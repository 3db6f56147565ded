package watch_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	server "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/pinion-cd/pinion/artifact/signature"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/internal/devtest"
)

// referred is a signature that refers to an image: its type, and its only layer.
type referred struct {
	kind  string
	layer mutate.Addendum
}

// layered is one that is no bundle.
func layered(digest string, key ed25519.PrivateKey) referred {
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"any"},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, digest)
	return referred{signature.OldType, mutate.Addendum{Layer: static.NewLayer(payload, signature.PayloadType),
		Annotations: map[string]string{signature.Annotation: base64.StdEncoding.EncodeToString(ed25519.Sign(key, payload))}}}
}

// bundled is one in a bundle.
func bundled(t *testing.T, digest string, key ed25519.PrivateKey) referred {
	t.Helper()
	const kind, version = "application/vnd.in-toto+json", signature.BundleType + ".v0.3+json"
	statement := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`, strings.TrimPrefix(digest, "sha256:"))
	signed := ed25519.Sign(key, fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(statement), statement))
	type object = map[string]any
	data, err := json.Marshal(object{"mediaType": version, "verificationMaterial": object{"publicKey": object{"hint": "x"}},
		"dsseEnvelope": object{"payload": []byte(statement), "payloadType": kind, "signatures": []any{object{"sig": signed}}}})
	if err != nil {
		t.Fatal(err)
	}
	return referred{version, mutate.Addendum{Layer: static.NewLayer(data, version)}}
}

// A registry that lists what refers to an image is asked for that, and needs no
// tag that stands in for the list.
func TestSignaturesThatARegistryLists(t *testing.T) {
	t.Parallel()
	var listed, instead atomic.Int32
	api := server.New(server.WithReferrersSupport(true), server.Logger(log.New(io.Discard, "", 0)))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.URL.Path, "/referrers/"):
			listed.Add(1)
		case strings.Contains(r.URL.Path, "/manifests/sha256-") && !strings.HasSuffix(r.URL.Path, ".sig"):
			instead.Add(1)
		}
		api.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	host := strings.TrimPrefix(s.URL, "http://")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var rules []desired.Tracked
	// put pushes an image with what refers to it.
	put := func(path string, by func(digest string, release ed25519.PrivateKey) []referred) {
		t.Helper()
		image := devtest.Image(t, nil)
		digest, err := image.Digest()
		must(err)
		size, err := image.Size()
		must(err)
		kind, err := image.MediaType()
		must(err)
		ref, err := name.ParseReference(host + "/" + path + ":1.2.10")
		must(err)
		must(remote.Write(ref, image))
		rule := tracks(t, host+"/"+path, "1.2.9", semantic)
		for _, x := range by(digest.String(), signs(t, &rule)) {
			made, err := mutate.Append(empty.Image, x.layer)
			must(err)
			made = mutate.MediaType(mutate.ConfigMediaType(made, types.MediaType(x.kind)), types.OCIManifestSchema1)
			made = mutate.Subject(made, v1.Descriptor{MediaType: kind, Digest: digest, Size: size}).(v1.Image)
			id, err := made.Digest()
			must(err)
			must(remote.Write(ref.Context().Digest(id.String()), made))
		}
		rules = append(rules, rule)
	}
	_, stranger, err := ed25519.GenerateKey(nil)
	must(err)
	other := strings.Replace("sha256:x", "x", strings.Repeat("a", 64), 1)
	put("acme/layered", func(d string, k ed25519.PrivateKey) []referred { return []referred{layered(d, k)} })
	put("acme/bundled", func(d string, k ed25519.PrivateKey) []referred { return []referred{bundled(t, d, k)} })
	put("acme/among", func(d string, k ed25519.PrivateKey) []referred {
		return []referred{{"application/spdx+json", layered(d, k).layer}, layered(d, stranger), bundled(t, d, stranger), bundled(t, d, k)}
	})
	put("acme/strange", func(d string, _ ed25519.PrivateKey) []referred {
		return []referred{layered(d, stranger), bundled(t, d, stranger)}
	})
	put("acme/moved", func(_ string, k ed25519.PrivateKey) []referred {
		return []referred{layered(other, k), bundled(t, other, k)}
	})
	put("acme/bare", func(string, ed25519.PrivateKey) []referred { return nil })
	before := listed.Load() // whoever pushes looks, too

	k := watches(t, time.Hour, rules...)
	k.until(func() string {
		for _, rule := range rules {
			if at, _ := k.watcher.Reading(rule.Pin.Image.Repository); at.Success.IsZero() {
				return fmt.Sprintf("%s was not looked at: %+v", rule.Pin.Image.Repository, at)
			}
		}
		return ""
	})
	for _, rule := range rules {
		path := strings.TrimPrefix(rule.Pin.Image.Repository, host+"/acme/")
		x, known := k.shelf.Lookup(rule.Pin.Image.Repository, "1.2.10")
		var want []string
		if slices.Contains([]string{"layered", "bundled", "among"}, path) {
			want = []string{rule.Keys[0].Key.Fingerprint}
		}
		if !known || !slices.Equal(x.Signed, want) {
			at, _ := k.watcher.Reading(rule.Pin.Image.Repository)
			t.Errorf("%s is signed by %v, want %v; told is %q", path, x.Signed, want, at.Problem)
		}
	}
	if listed.Load() == before || instead.Load() > 0 {
		t.Errorf("the list was asked for %d times, what stands in for it %d times", listed.Load()-before, instead.Load())
	}
}
