package devtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"time"
)

// tokens gives out the tokens that a registry asks for, as
// https://distribution.github.io/distribution/spec/auth/token/ has it, and over
// OAuth2 to who has an identity token.
type tokens struct {
	*httptest.Server
	// Cert is what the registry verifies them by.
	cert    []byte
	key     *ecdsa.PrivateKey
	writer  Reader // of everything
	readers []Reader
	given   atomic.Int64
}

// Reader is somebody to whom a registry gives tokens.
type Reader struct {
	Name, Password string
	// Identity is a token in the place of the password, as `docker login` keeps it.
	Identity string
	Folder   string // whose repositories can be pulled
}

// The names that the registry and its tokens go by.
const (
	tokenIssuer  = "tokens of a test"
	tokenService = "registry of a test"
)

func newTokens(writer Reader, readers []Reader) (*tokens, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	t := &tokens{key: key, writer: writer, readers: readers}
	if t.cert, err = x509.CreateCertificate(rand.Reader, template, template, key.Public(), key); err != nil {
		return nil, err
	}
	t.Server = httptest.NewServer(t)
	return t, nil
}

// bundle is the file by which a registry knows the tokens.
func (t *tokens) bundle() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: t.cert})
}

// realm is where one asks for tokens. By its number, as an address that is
// nobody's from outside, the client would not ask there.
func (t *tokens) realm() string {
	return strings.Replace(t.URL, "127.0.0.1", "localhost", 1) + "/token"
}

// ServeHTTP gives a token to who is known, for what she may do of what she wants.
func (t *tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
	name, password, _ := r.BasicAuth()
	var who *Reader
	for _, x := range append([]Reader{t.writer}, t.readers...) {
		if x.Password != "" && x.Name == name && x.Password == password ||
			r.Method == http.MethodPost && x.Identity != "" && r.FormValue("grant_type") == "refresh_token" && r.FormValue("refresh_token") == x.Identity {
			who = &x
		}
	}
	if who == nil || r.FormValue("service") != tokenService {
		w.WriteHeader(http.StatusUnauthorized)
		json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]string{"code": "UNAUTHORIZED", "message": "incorrect username or password"}}})
		return
	}
	type access struct {
		Type    string   `json:"type"`
		Name    string   `json:"name"`
		Actions []string `json:"actions"`
	}
	granted := []access{}
	var wanted []string
	for _, s := range r.Form["scope"] { // each is one scope, or several
		wanted = append(wanted, strings.Fields(s)...)
	}
	for _, s := range wanted {
		parts := strings.Split(s, ":")
		if len(parts) != 3 || parts[0] != "repository" {
			continue
		}
		a := access{parts[0], parts[1], nil}
		for action := range strings.SplitSeq(parts[2], ",") {
			if who.Name == t.writer.Name || action == "pull" && strings.HasPrefix(a.Name, who.Folder+"/") {
				a.Actions = append(a.Actions, action)
			}
		}
		if a.Actions != nil {
			granted = append(granted, a)
		}
	}
	now := time.Now()
	token, err := t.sign(map[string]any{"iss": tokenIssuer, "sub": who.Name, "aud": tokenService, "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(5 * time.Minute).Unix(), "access": granted})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	t.given.Add(1)
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"token": token, "access_token": token, "expires_in": 300})
}

// sign makes a token as https://www.rfc-editor.org/rfc/rfc7515 has it.
func (t *tokens) sign(claims map[string]any) (string, error) {
	header, err := json.Marshal(map[string]any{"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(t.cert)}})
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(body)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, t.key, sum[:])
	if err != nil {
		return "", err
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}
