package devtest

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// IdentityProvider is one of OpenID Connect, with real keys. It signs whatever a
// test asks for.
type IdentityProvider struct {
	*httptest.Server
	Down  atomic.Bool
	Flood atomic.Bool // it answers with more than anybody reads
	Asked atomic.Int64

	t   testing.TB
	key atomic.Pointer[rsa.PrivateKey]
	kid atomic.Value // string
}

// NewIdentityProvider starts one, over TLS if that is wanted.
func NewIdentityProvider(t testing.TB, secure bool) *IdentityProvider {
	t.Helper()
	p := &IdentityProvider{t: t}
	p.Turn("one")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		p.Asked.Add(1)
		if p.Down.Load() {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		if p.Flood.Load() {
			w.Write(bytes.Repeat([]byte(" "), 2<<20))
		}
		json.NewEncoder(w).Encode(map[string]any{"issuer": p.URL, "jwks_uri": p.URL + "/keys", "authorization_endpoint": p.URL, "token_endpoint": p.URL,
			"id_token_signing_alg_values_supported": []string{"RS256"}})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		if p.Down.Load() {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		k := p.key.Load().PublicKey
		json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]string{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": p.kid.Load().(string),
			"n": b64(k.N.Bytes()), "e": b64(big.NewInt(int64(k.E)).Bytes())}}})
	})
	p.Server = httptest.NewUnstartedServer(mux)
	if secure {
		p.StartTLS()
	} else {
		p.Start()
	}
	t.Cleanup(p.Close)
	return p
}

// Turn gives the provider a new key.
func (p *IdentityProvider) Turn(kid string) {
	p.t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		p.t.Fatal(err)
	}
	p.key.Store(k)
	p.kid.Store(kid)
}

func b64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// Token signs claims, besides those that any token has.
func (p *IdentityProvider) Token(change map[string]any) string {
	p.t.Helper()
	claims := map[string]any{"iss": p.URL, "aud": "pinion", "sub": "4711", "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(),
		"email": "kim@shop.example", "email_verified": true, "name": "Kim", "groups": []string{"release managers", "release-managers", "dev"}}
	for k, v := range change {
		claims[k] = v
	}
	return p.Sign(map[string]any{"alg": "RS256", "kid": p.kid.Load()}, claims)
}

// Sign signs claims under a header, which may say that they are not.
func (p *IdentityProvider) Sign(header, claims map[string]any) string {
	p.t.Helper()
	k := p.key.Load()
	h, _ := json.Marshal(header)
	c, _ := json.Marshal(claims)
	text := b64(h) + "." + b64(c)
	switch header["alg"] {
	case "none":
		return text + "."
	case "HS256": // with the public key, which everybody knows
		mac := hmac.New(sha256.New, k.PublicKey.N.Bytes())
		mac.Write([]byte(text))
		return text + "." + b64(mac.Sum(nil))
	}
	sum := sha256.Sum256([]byte(text))
	s, err := rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, sum[:])
	if err != nil {
		p.t.Fatal(err)
	}
	return text + "." + b64(s)
}
