package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/notify"
	"github.com/pinion-cd/pinion/notify/deliver"
	"github.com/pinion-cd/pinion/reconcile"
)

// sinkConfig is somebody who is told the news.
type sinkConfig struct {
	URL          string                    `yaml:"url,omitempty"`
	URLFile      string                    `yaml:"urlFile,omitempty"`
	SecretFile   string                    `yaml:"secretFile,omitempty"`
	Format       notify.Format             `yaml:"format,omitempty"`
	Events       []desired.News            `yaml:"events,omitempty"`
	Environments []desired.EnvironmentName `yaml:"environments,omitempty"`
	Services     []desired.ServiceName     `yaml:"services,omitempty"`
	OnRequest    bool                      `yaml:"onRequest,omitempty"`
}

var sinkForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// checkSinks refuses what means nothing.
func (c *config) checkSinks() error {
	for _, name := range slices.Sorted(maps.Keys(c.Sinks)) {
		if !sinkForm.MatchString(name) {
			return fmt.Errorf("sinks: %q is not a name; write at most 63 lower-case letters, digits and hyphens", name)
		}
		if err := c.Sinks[name].check(); err != nil {
			return fmt.Errorf("sinks.%s: %w", name, err)
		}
	}
	return nil
}

func (s sinkConfig) check() error {
	if (s.URL == "") == (s.URLFile == "") {
		return errors.New("write url, or urlFile where the address is itself a secret, as Slack's is")
	}
	if s.URL != "" {
		if err := checkSinkURL(s.URL); err != nil {
			return fmt.Errorf("url: %w", err)
		}
	}
	if s.Format != "" && !slices.Contains(notify.Formats, s.Format) {
		return fmt.Errorf("there is no format %q; write %s", s.Format, strings.Join(formatNames(), ", "))
	}
	for _, e := range s.Events {
		if _, err := desired.ParseNews(string(e)); err != nil {
			return fmt.Errorf("events: %w", err)
		}
	}
	return nil
}

func formatNames() []string {
	var names []string
	for _, f := range notify.Formats {
		names = append(names, string(f))
	}
	return names
}

// checkSinkURL refuses what is not an address, and does not show it.
func checkSinkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return errors.New("this is not an address; write http://HOST/PATH or https://HOST/PATH")
	}
	return nil
}

// sinks reads the files that the sinks name.
func (c *config) sinks() ([]deliver.Sink, error) {
	var all []deliver.Sink
	for _, name := range slices.Sorted(maps.Keys(c.Sinks)) {
		s, err := c.Sinks[name].open(name)
		if err != nil {
			return nil, fmt.Errorf("sinks.%s: %w", name, err)
		}
		all = append(all, s)
	}
	return all, nil
}

func (s sinkConfig) open(name string) (deliver.Sink, error) {
	x := deliver.Sink{URL: s.URL, Sink: notify.Sink{
		Name: name, Format: s.Format, Events: s.Events, Environments: s.Environments, Services: s.Services, OnRequest: s.OnRequest,
	}}
	if s.URLFile != "" {
		text, err := secret(s.URLFile)
		if err != nil {
			return x, err
		}
		if err := checkSinkURL(text); err != nil {
			return x, fmt.Errorf("%s: %w", s.URLFile, err)
		}
		x.URL = text
	}
	if s.SecretFile != "" {
		data, err := os.ReadFile(s.SecretFile)
		if err != nil {
			return x, fmt.Errorf("read secret: %w", err)
		}
		if x.Secrets, err = notify.ParseSecrets(string(data)); err != nil {
			return x, fmt.Errorf("%s: %w", s.SecretFile, err)
		}
	}
	return x, nil
}

// requestable are the sinks that an environment's file can name.
func (c *config) requestable() []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(c.Sinks)) {
		if c.Sinks[name].OnRequest {
			names = append(names, name)
		}
	}
	return names
}

// courier makes who tells the news.
func (c *config) courier(mirror *gitstate.Mirror, engine *reconcile.Engine, tenure *reconcile.Tenure, logger *slog.Logger) (*deliver.Courier, error) {
	sinks, err := c.sinks()
	if err != nil {
		return nil, err
	}
	signer, err := c.Identity.signer()
	if err != nil {
		return nil, err
	}
	who := c.Identity.person()
	o := deliver.Options{
		Mirror: mirror, Branch: c.Repository.Branch, Sinks: sinks, Newest: engine.Newest, Has: tenure.Has,
		Identity: gitstate.Signature{Name: who.Name, Email: who.Email}, Logger: logger,
	}
	if signer != nil {
		o.Sign = signer.Sign
	}
	return deliver.New(o), nil
}
