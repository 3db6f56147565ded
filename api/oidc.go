package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/pinion-cd/pinion/reconcile"
)

// Issuer is an identity provider whose tokens are taken.
type Issuer struct {
	URL, Audience string
	// Principal and Groups are the claims that have the name and the groups.
	Principal, Groups string
	// Prefix stands before each name and group, so that none is taken for one of
	// the configuration.
	Prefix string
	Client *http.Client

	mu       sync.Mutex // guards what follows
	verifier *oidc.IDTokenVerifier
	failed   error
	again    time.Time
}

// discoverAgain is for how long an issuer that could not be asked is left alone.
const discoverAgain = 5 * time.Second

// open asks the issuer once where its keys are.
func (i *Issuer) open(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.verifier != nil {
		return i.verifier, nil
	}
	if time.Now().Before(i.again) {
		return nil, i.failed
	}
	client := *i.Client
	client.Transport = bounded{client.Transport}
	p, err := oidc.NewProvider(oidc.ClientContext(ctx, &client), i.URL)
	if err != nil {
		i.failed, i.again = fmt.Errorf("ask %s for its keys: %s", i.URL, cut(err.Error())), time.Now().Add(discoverAgain)
		return nil, i.failed
	}
	// The keys are read again when a token names one that is not known.
	i.verifier = p.VerifierContext(oidc.ClientContext(context.WithoutCancel(ctx), &client), &oidc.Config{ClientID: i.Audience})
	return i.verifier, nil
}

// Verify verifies a token's signature, issuer, audience and times.
func (i *Issuer) Verify(ctx context.Context, token string) (p reconcile.Principal, until time.Time, ok bool, err error) {
	if issuer, isJWT := issuerOf(token); !isJWT || issuer != i.URL {
		return p, until, false, nil // another's, or no such token at all
	}
	v, err := i.open(ctx)
	if err != nil {
		return p, until, false, err
	}
	t, err := v.Verify(ctx, token)
	if err != nil {
		if strings.Contains(err.Error(), "fetching keys") { // no verdict on the token
			return p, until, false, fmt.Errorf("read the keys of %s: %w", i.URL, err)
		}
		return p, until, false, nil
	}
	var claims map[string]any
	if err := t.Claims(&claims); err != nil {
		return p, until, false, nil
	}
	name, _ := claims[i.Principal].(string)
	if name == "" {
		return p, until, false, Refusal(Unauthenticated, "the token has no claim %s; see api.oidc in the daemon's configuration", i.Principal)
	}
	p.Name = i.Prefix + name
	// An address that is not said to be proved may be anybody's.
	if v := claims["email_verified"]; v == true || v == "true" {
		p.Email, _ = claims["email"].(string)
	}
	switch groups := claims[i.Groups].(type) {
	case []any:
		for _, g := range groups {
			if s, ok := g.(string); ok {
				p.Groups = append(p.Groups, i.Prefix+s)
			}
		}
	case string:
		p.Groups = append(p.Groups, i.Prefix+groups)
	}
	return p, t.Expiry, true, nil
}

// maxKeys bounds what an issuer answers, in bytes.
const maxKeys = 1 << 20

// bounded reads no more of an answer than that.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	next := b.next
	if next == nil {
		next = http.DefaultTransport
	}
	resp, err := next.RoundTrip(r)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxKeys)
	}
	return resp, err
}

// issuerOf reads who claims to have issued a token. It verifies nothing.
func issuerOf(token string) (issuer string, ok bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", false
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", false
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	return claims.Issuer, json.Unmarshal(data, &claims) == nil
}
