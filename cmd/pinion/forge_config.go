package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/forge"
	"github.com/pinion-cd/pinion/forge/rest"
	"github.com/pinion-cd/pinion/outbound"
)

// forgeConfig is the forge that has the deployment repository.
type forgeConfig struct {
	Kind              forge.Kind `yaml:"kind"`
	URL               string     `yaml:"url,omitempty"`
	Repository        string     `yaml:"repository,omitempty"`
	TokenFile         string     `yaml:"tokenFile,omitempty"`
	WebhookSecretFile string     `yaml:"webhookSecretFile,omitempty"`
	Statuses          bool       `yaml:"statuses,omitempty"`
	StatusURL         string     `yaml:"statusURL,omitempty"`
	// MergeMethod is how pull requests are merged that the daemon merges, and
	// Users are who approves them.
	MergeMethod rest.Method       `yaml:"mergeMethod,omitempty"`
	Users       []forgeUserConfig `yaml:"users,omitempty"`
	// PullRequests: each is told what it would do.
	PullRequests bool `yaml:"pullRequests,omitempty"`
	// Poll is how often the forge's pull requests are looked at.
	Poll time.Duration `yaml:"poll,omitempty"`
}

// forgeUserConfig is who somebody is whom the forge knows by a login.
type forgeUserConfig struct {
	Login     string   `yaml:"login"`
	Principal string   `yaml:"principal"`
	Email     string   `yaml:"email,omitempty"`
	Groups    []string `yaml:"groups,omitempty"`
}

func (c *forgeConfig) check() error {
	if c == nil {
		return nil
	}
	if err := c.Kind.Check(); err != nil {
		return fmt.Errorf("forge.kind: %w", err)
	}
	switch {
	case c.Statuses && c.TokenFile == "":
		return errors.New("forge.statuses: the forge takes them only with a token; add forge.tokenFile")
	case c.PullRequests && c.TokenFile == "":
		return errors.New("forge.pullRequests: the forge takes comments only with a token; add forge.tokenFile")
	case c.StatusURL != "" && !c.Statuses:
		return errors.New("forge.statusURL is given without forge.statuses: true, which it is for")
	case c.TokenFile == "" && (c.URL != "" || c.Repository != ""):
		return errors.New("forge.url and forge.repository are given without forge.tokenFile, with which they are used")
	case c.TokenFile == "" && c.WebhookSecretFile == "":
		return errors.New("forge: it says nothing but its kind; add tokenFile, webhookSecretFile, or both")
	}
	if c.MergeMethod != "" && !slices.Contains(rest.Methods, c.MergeMethod) {
		return fmt.Errorf("forge.mergeMethod is %q; write merge, squash or rebase", c.MergeMethod)
	}
	if c.Poll != 0 && c.Poll < time.Second {
		return fmt.Errorf("forge.poll is %s; write a second or more", c.Poll)
	}
	logins := map[string]bool{}
	for i, u := range c.Users {
		if u.Login == "" || logins[strings.ToLower(u.Login)] {
			return fmt.Errorf("forge.users[%d]: the login %q is missing or there twice", i, u.Login)
		}
		logins[strings.ToLower(u.Login)] = true
		for _, name := range append([]string{u.Principal}, u.Groups...) {
			if !principalForm.MatchString(name) {
				return fmt.Errorf("forge.users[%d]: %q can't be a principal or a group; write a name without spaces, commas and angle brackets", i, name)
			}
		}
	}
	if c.StatusURL != "" {
		if u, err := url.Parse(c.StatusURL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
			return fmt.Errorf("forge.statusURL: %q is not an http or https URL without user info", c.StatusURL)
		}
	}
	if c.TokenFile != "" {
		if _, err := c.client(nil, nil); err != nil {
			return fmt.Errorf("forge: %w", err)
		}
	}
	return nil
}

// dial returns who talks to the forge; nil: there is no token to do so.
func (c *config) dial(count func(rest.Result)) (*rest.Client, error) {
	if c.Forge == nil || c.Forge.TokenFile == "" {
		return nil, nil
	}
	over, err := c.forgeHTTP()
	if err != nil {
		return nil, err
	}
	return c.Forge.client(over, count)
}

func (c *forgeConfig) client(over *http.Client, count func(rest.Result)) (*rest.Client, error) {
	return rest.New(rest.Options{
		Kind: c.Kind, URL: c.URL, Repository: c.Repository, HTTP: over, Count: count,
		// A token may be exchanged while the daemon runs.
		Token: func() (string, error) {
			token, err := secret(c.TokenFile)
			if err == nil && token == "" {
				err = fmt.Errorf("%s is empty; put the forge's access token into it", c.TokenFile)
			}
			return token, err
		},
	})
}

// secrets reads those of the webhook.
func (c *forgeConfig) secrets() ([]string, error) { return webhookSecrets(c.WebhookSecretFile) }

// webhookSecrets reads the secrets of a webhook. They may change while the daemon
// runs.
func webhookSecrets(file string) ([]string, error) {
	text, err := secret(file)
	if err != nil {
		return nil, err
	}
	all, err := forge.Secrets(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return all, nil
}

// examineForge checks what the daemon needs of the forge.
func examineForge(ctx context.Context, c *config) []finding {
	f := c.Forge
	if f == nil {
		return nil
	}
	var findings []finding
	if f.WebhookSecretFile != "" {
		secrets, err := f.secrets()
		if err != nil {
			findings = append(findings, finding{"forge: webhook", false, err.Error(), "put the webhook's secret into that file; `openssl rand -hex 32` makes one"})
		} else {
			findings = append(findings, finding{Check: "forge: webhook", OK: true, Detail: fmt.Sprintf("%s in use; it is for POST %s%s", count(len(secrets), "secret"), webhookPath, f.Kind)})
		}
	}
	if f.TokenFile == "" {
		return findings
	}
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	talk, err := c.dial(nil)
	if err == nil {
		_, err = talk.Pulls(ctx, c.Repository.branch())
	}
	if err != nil {
		return append(findings, finding{"forge", false, err.Error(), "check forge.url, forge.repository, and what the token in forge.tokenFile may do"})
	}
	detail := fmt.Sprintf("%s can be asked about %s", f.Kind, f.Repository)
	// The token of an app has no user of its own.
	if me, err := talk.Whoami(ctx); err == nil {
		detail += ", as " + me
	}
	return append(findings, finding{Check: "forge", OK: true, Detail: detail + " (whether the token may write is not visible from here)"})
}

// branch is the one that is followed.
func (r repositoryConfig) branch() string { return cmp.Or(r.Branch, "main") }

// forgeHTTP returns the client of requests to the forge. It follows no redirect,
// for the token would go along. The forge's certificate may be signed by who
// signs that of the repository.
func (c *config) forgeHTTP() (*http.Client, error) {
	o := outbound.Options{Allow: outbound.Any(), Redirects: outbound.None, Timeout: -1, KeepAlive: true}
	if c.Repository.CAFile != "" {
		var err error
		if o.RootCAs, err = trusted("repository.caFile", c.Repository.CAFile); err != nil {
			return nil, err
		}
	}
	return outbound.NewClient(o), nil
}
