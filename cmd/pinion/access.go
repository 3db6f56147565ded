package main

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/pinion-cd/pinion/api"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/outbound"
	"github.com/pinion-cd/pinion/proposal"
	"github.com/pinion-cd/pinion/reconcile"
	"github.com/pinion-cd/pinion/reconcile/cluster"
)

// tokenConfig is somebody who may ask the daemon for something.
type tokenConfig struct {
	Principal    string                    `yaml:"principal"`
	Email        string                    `yaml:"email,omitempty"`
	Groups       []string                  `yaml:"groups,omitempty"`
	SHA256       string                    `yaml:"sha256"`
	Scopes       []api.Scope               `yaml:"scopes,omitempty"`
	Environments []desired.EnvironmentName `yaml:"environments,omitempty"`
}

// apiConfig is who else may ask the daemon for what, and how often.
type apiConfig struct {
	Anonymous  api.Scope             `yaml:"anonymous,omitempty"`
	Kubernetes *kubernetesAuthConfig `yaml:"kubernetes,omitempty"`
	OIDC       []oidcConfig          `yaml:"oidc,omitempty"`
	Grants     []grantConfig         `yaml:"grants,omitempty"`
	Limits     limitsConfig          `yaml:"limits,omitempty"`
	TLS        *tlsConfig            `yaml:"tls,omitempty"`
}

// kubernetesAuthConfig has tokens of a cluster's service accounts taken.
type kubernetesAuthConfig struct {
	Cluster   desired.ClusterName `yaml:"cluster,omitempty"`
	Audiences []string            `yaml:"audiences,omitempty"`
}

// oidcConfig has tokens of an identity provider taken.
type oidcConfig struct {
	Issuer    string `yaml:"issuer"`
	Audience  string `yaml:"audience"`
	Principal string `yaml:"principal,omitempty"`
	Groups    string `yaml:"groups,omitempty"`
	Prefix    string `yaml:"prefix,omitempty"`
	CAFile    string `yaml:"caFile,omitempty"`
}

// grantConfig is what principals and groups of those may do.
type grantConfig struct {
	Principals   []string                  `yaml:"principals,omitempty"`
	Groups       []string                  `yaml:"groups,omitempty"`
	Scopes       []api.Scope               `yaml:"scopes"`
	Environments []desired.EnvironmentName `yaml:"environments,omitempty"`
}

type limitsConfig struct {
	RequestsPerSecond float64 `yaml:"requestsPerSecond,omitempty"`
	Burst             int     `yaml:"burst,omitempty"`
}

// check refuses what means nothing.
func (c *apiConfig) check() error {
	if c == nil {
		return nil
	}
	if c.Anonymous != "" && c.Anonymous != api.ScopeRead {
		return fmt.Errorf("api.anonymous is %q; write read, or leave it out", c.Anonymous)
	}
	for i, o := range c.OIDC {
		u, err := url.Parse(o.Issuer)
		switch {
		case err != nil || u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())) || u.Host == "" || u.User != nil:
			return fmt.Errorf("api.oidc[%d].issuer is not an https URL without user info", i)
		case o.Audience == "":
			return fmt.Errorf("api.oidc[%d].audience is missing; write what the provider calls the daemon, or tokens for anything else would be taken", i)
		case o.Prefix != "" && !principalForm.MatchString(o.Prefix):
			return fmt.Errorf("api.oidc[%d].prefix is %q; write one such as sso: without spaces, commas and angle brackets", i, o.Prefix)
		}
		if slices.ContainsFunc(c.OIDC[:i], func(p oidcConfig) bool { return p.Issuer == o.Issuer && p.Audience == o.Audience }) {
			return fmt.Errorf("api.oidc[%d] is there twice", i)
		}
	}
	for i, g := range c.Grants {
		switch {
		case len(g.Principals)+len(g.Groups) == 0:
			return fmt.Errorf("api.grants[%d] names nobody; add principals or groups", i)
		case len(g.Scopes) == 0:
			return fmt.Errorf("api.grants[%d] grants nothing; add scopes", i)
		}
		if err := checkScopes(g.Scopes); err != nil {
			return fmt.Errorf("api.grants[%d]: %w", i, err)
		}
	}
	if c.Kubernetes == nil && c.OIDC == nil && c.Grants != nil {
		return errors.New("api.grants is for tokens of api.kubernetes and api.oidc, and neither is there; a token of the configuration has scopes: of its own")
	}
	if c.Limits.RequestsPerSecond < 0 || c.Limits.Burst < 0 {
		return errors.New("api.limits is negative; leave it out for the default")
	}
	return c.TLS.check()
}

// certificate returns that with which the daemon answers; nil: without TLS.
func (c *apiConfig) certificate(logger *slog.Logger) (*certificate, error) {
	if c == nil {
		return nil, nil
	}
	return c.TLS.open(logger)
}

func checkScopes(scopes []api.Scope) error {
	for _, s := range scopes {
		if !slices.Contains(api.Scopes, s) {
			names := make([]string, len(api.Scopes))
			for i, known := range api.Scopes {
				names[i] = string(known)
			}
			if near := desired.Nearest(string(s), names); near != "" {
				return fmt.Errorf("there is no scope %q; did you mean %q?", s, near)
			}
			return fmt.Errorf("there is no scope %q; there are %v", s, api.Scopes)
		}
	}
	return nil
}

// access returns who may ask the daemon for what. The clusters are there when a
// token is reviewed.
func (c *config) access(clusters *waitingClusters) (api.Options, error) {
	o := api.Options{}
	var tokens api.Tokens
	for _, t := range c.Tokens {
		scopes := t.Scopes
		if scopes == nil {
			scopes = api.DefaultScopes
		}
		x := api.Token{Caller: api.Caller{
			Principal: reconcile.Principal{Name: t.Principal, Email: t.Email, Groups: t.Groups},
			Grants:    []api.Grant{{Scopes: scopes, Environments: t.Environments}}, Known: true,
		}}
		hex.Decode(x.Hash[:], []byte(t.SHA256)) // its form was checked
		tokens = append(tokens, x)
	}
	o.Authenticators = []api.Authenticator{tokens}
	if c.API == nil {
		return o, nil
	}
	o.Anonymous = c.API.Anonymous == api.ScopeRead
	o.Limits = api.Limits{PerSecond: c.API.Limits.RequestsPerSecond, Burst: c.API.Limits.Burst}
	var rules api.Rules
	for _, g := range c.API.Grants {
		rules = append(rules, api.Rule{Grant: api.Grant{Scopes: g.Scopes, Environments: g.Environments}, Principals: g.Principals, Groups: g.Groups})
	}
	for _, i := range c.API.OIDC {
		client, err := i.client()
		if err != nil {
			return o, err
		}
		issuer := &api.Issuer{URL: i.Issuer, Audience: i.Audience, Principal: i.Principal, Groups: i.Groups, Prefix: i.Prefix, Client: client}
		if issuer.Principal == "" {
			issuer.Principal = "sub"
		}
		if issuer.Groups == "" {
			issuer.Groups = "groups"
		}
		o.Authenticators = append(o.Authenticators, api.Remember(issuer, rules, time.Now))
	}
	if k := c.API.Kubernetes; k != nil {
		o.Authenticators = append(o.Authenticators, api.Remember(&serviceAccounts{clusters, *k}, rules, time.Now))
	}
	return o, nil
}

// client asks an identity provider.
func (o oidcConfig) client() (*http.Client, error) {
	var pool *x509.CertPool // nil: the system's
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read api.oidc's caFile: %w", err)
		}
		pool = x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read api.oidc's caFile: %s has no certificate in PEM", o.CAFile)
		}
	}
	return outbound.NewClient(outbound.Options{Allow: outbound.Any(), RootCAs: pool}), nil
}

// waitingClusters are the clusters, once they are there.
type waitingClusters struct {
	ready chan struct{} // closed then
	all   map[desired.ClusterName]*cluster.Cluster
}

// serviceAccounts reviews tokens of a cluster's service accounts.
type serviceAccounts struct {
	clusters *waitingClusters
	config   kubernetesAuthConfig
}

// Verify asks the cluster's API server.
func (s *serviceAccounts) Verify(ctx context.Context, token string) (p reconcile.Principal, until time.Time, ok bool, err error) {
	select {
	case <-s.clusters.ready:
	default:
		return p, until, false, errors.New("the clusters are not known yet")
	}
	name := s.config.Cluster
	if name == "" {
		name = "default"
	}
	c := s.clusters.all[name]
	if c == nil {
		return p, until, false, fmt.Errorf("api.kubernetes: cluster %q is not in the configuration", name)
	}
	u, ok, err := c.ReviewToken(ctx, token, s.config.Audiences)
	return reconcile.Principal{Name: u.Name, Groups: u.Groups}, until, ok, err
}

// writer returns who commits to main what callers ask for.
func (c *config) writer(mirror *gitstate.Mirror, present *history.Present, self *replica) (*proposal.Writer, error) {
	signer, err := c.Identity.signer()
	if err != nil {
		return nil, err
	}
	w := &proposal.Writer{Mirror: mirror, Present: present, Branch: c.Repository.Branch, Name: gitstate.Redact(c.Repository.URL), Identity: c.Identity.person()}
	if signer != nil {
		w.Sign = signer.Sign
	}
	if self != nil {
		w.Guard = func(env desired.EnvironmentName) error {
			if self.tenure.Has(env) {
				return nil
			}
			return api.Refusal(api.NotOurs, "environment %s was taken over by another replica; ask again", env)
		}
	}
	return w, nil
}

// sooner has things looked at now.
type sooner struct {
	mirror *gitstate.Mirror
	engine *reconcile.Engine
}

// Reconcile fetches, and has the engine compare.
func (s sooner) Reconcile(ctx context.Context, env desired.EnvironmentName) (string, error) {
	tip, err := s.mirror.Fetch(ctx)
	if err != nil {
		return "", err
	}
	s.mirror.Poke() // whoever follows it fetches again, and finds it there
	s.engine.CompareSoon(env)
	return tip.Commit, nil
}
