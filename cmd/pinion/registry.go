package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/outbound"
	"github.com/pinion-cd/pinion/reconcile"
	"github.com/pinion-cd/pinion/registry"
	"github.com/pinion-cd/pinion/registry/watch"
)

// registryConfig is how registries are asked for what stages track.
type registryConfig struct {
	CredentialsFile   string        `yaml:"credentialsFile,omitempty"`
	Helpers           []string      `yaml:"helpers,omitempty"`
	Insecure          []string      `yaml:"insecure,omitempty"`
	CAFile            string        `yaml:"caFile,omitempty"`
	Poll              time.Duration `yaml:"poll,omitempty"`
	RequestsPerSecond int           `yaml:"requestsPerSecond,omitempty"`
	WebhookSecretFile string        `yaml:"webhookSecretFile,omitempty"`
}

var registryHostForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$|^\[[0-9a-fA-F:.]+\](:[0-9]{1,5})?$`)

func (c registryConfig) check() error {
	if c.Poll != 0 && c.Poll < time.Second {
		return fmt.Errorf("registry.poll is %s; write a second or more", c.Poll)
	}
	if c.RequestsPerSecond < 0 {
		return errors.New("registry.requestsPerSecond is negative; leave it out for the default")
	}
	for _, h := range c.Insecure {
		if !registryHostForm.MatchString(h) {
			return fmt.Errorf("registry.insecure has %q; write the hosts of registries as references to images do, with the port if there is one", h)
		}
	}
	if len(c.Helpers) > 0 && c.CredentialsFile == "" {
		return errors.New("registry.helpers is given without registry.credentialsFile, which names the registries that they are for")
	}
	if err := c.credentials().Check(); err != nil {
		return fmt.Errorf("registry.credentialsFile: %w", err)
	}
	_, err := c.roots()
	return err
}

func (c registryConfig) credentials() registry.Credentials {
	return registry.Credentials{File: c.CredentialsFile, Helpers: c.Helpers}
}

// roots are who may sign the certificates of registries.
func (c registryConfig) roots() (*x509.CertPool, error) {
	if c.CAFile == "" {
		return nil, nil
	}
	return trusted("registry.caFile", c.CAFile)
}

// trusted adds the certificates of a file, which a key of the configuration
// names, to those of the system.
func trusted(key, file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: %s holds no certificate", key, file)
	}
	return pool, nil
}

// registries returns who reads registries.
func (c *config) registries(count func(string, registry.Result)) (*registry.Client, error) {
	allow, err := c.Outbound.allow()
	if err != nil {
		return nil, err
	}
	roots, err := c.Registry.roots()
	if err != nil {
		return nil, err
	}
	return registry.New(registry.Options{
		Allow: allow, Insecure: c.Registry.Insecure, Credentials: c.Registry.credentials(), Rate: float64(c.Registry.RequestsPerSecond),
		RootCAs: roots, Agent: strings.TrimSuffix("pinion/"+version, "/"), Count: count,
	}), nil
}

// watcher returns who looks for new versions. The clerk, which is made later,
// records what it finds.
func (c *config) watcher(client *registry.Client, record func(context.Context, []artifact.Sighting) error, report func(reconcile.Event), log *slog.Logger) *watch.Watcher {
	return watch.New(watch.Options{Client: client, Poll: c.Registry.Poll, Record: record, Tell: func(text string, bad bool) {
		if bad {
			report(reconcile.Event{Type: reconcile.EventWarning, Message: text})
			return
		}
		log.Info(text)
	}})
}

// reading tells how the looks of a watcher go.
func reading(w *watch.Watcher) func(*history.Registry) bool {
	return func(r *history.Registry) bool {
		now, ok := w.Reading(r.Repository)
		whole := func(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
		r.Read, r.Failing, r.Next, r.Problem = whole(now.Success), whole(now.Failing), whole(now.Next), now.Problem
		return ok
	}
}

// watched returns the repositories that a commit's stages watch, each with the
// first rule that does.
func watched(repo *desired.Repository) map[string]desired.Tracked {
	all := map[string]desired.Tracked{}
	for _, t := range repo.Tracked() {
		r := artifact.Normal(t.Pin.Image.Repository)
		if _, ok := all[r]; t.Watch && !ok {
			all[r] = t
		}
	}
	return all
}

// unlistedRegistries finds rules whose registries the daemon will not ask.
func unlistedRegistries(repo *desired.Repository, allow outbound.Allow) []desired.Problem {
	var problems []desired.Problem
	all := watched(repo)
	for _, r := range slices.Sorted(maps.Keys(all)) {
		host, _, _ := strings.Cut(r, "/")
		if err := allow.Check(&url.URL{Scheme: "https", Host: registry.Address(host)}); err != nil {
			what, hint, _ := strings.Cut(err.Error(), "; ")
			problems = append(problems, desired.Problem{
				Severity: desired.SeverityError, Position: all[r].Track.Position, Message: fmt.Sprintf("track: the registry of %s can't be watched: %s", all[r].Pin.Artifact, what),
				Hint: hint + ", or name publishers", Kind: desired.KindPipeline,
			})
		}
	}
	return problems
}

// examineRegistries checks whether what is watched can be read.
func examineRegistries(ctx context.Context, c *config, r *repository) []finding {
	var findings []finding
	if c.Registry.WebhookSecretFile != "" {
		f := finding{Check: "registry: webhook", OK: true}
		if secrets, err := webhookSecrets(c.Registry.WebhookSecretFile); err != nil {
			f.OK, f.Detail, f.Hint = false, err.Error(), "put the webhook's secret into that file; `openssl rand -hex 32` makes one"
		} else {
			f.Detail = fmt.Sprintf("%s in use; it is for POST %s", count(len(secrets), "secret"), registryHookPath)
		}
		findings = append(findings, f)
	}
	if r == nil {
		return findings
	}
	client, err := c.registries(nil)
	if err != nil {
		return append(findings, finding{"registries", false, err.Error(), ""})
	}
	defer client.Close()
	all := watched(r.commit.Repository)
	down := map[string]bool{} // registries that have not answered
	for _, name := range slices.Sorted(maps.Keys(all)) {
		f := finding{Check: "registry: " + name, OK: true}
		host, _, _ := strings.Cut(name, "/")
		if down[host] {
			findings = append(findings, finding{f.Check, false, host + " was not asked again", ""})
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
		tags, err := client.Tags(ctx, name)
		cancel()
		if err != nil {
			e, ok := errors.AsType[*registry.Error](err)
			down[host] = ok && e.Host
			f.OK, f.Detail = false, err.Error()
		} else {
			f.Detail = fmt.Sprintf("%s can be read; %s watches it", count(len(tags), "tag"), all[name].Environment)
		}
		findings = append(findings, f)
	}
	return findings
}
