package main

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/outbound"
)

// outboundConfig says which addresses of the repository may be asked.
type outboundConfig struct {
	Allow []string `yaml:"allow,omitempty"`
}

func (c outboundConfig) allow() (outbound.Allow, error) {
	a, err := outbound.ParseAllow(c.Allow)
	if err != nil {
		err = fmt.Errorf("outbound.allow: %w", err)
	}
	return a, err
}

// unlisted finds policies and services whose addresses the daemon will not ask.
// An address whose host depends on the environment is left to the daemon.
func unlisted(repo *desired.Repository, allow outbound.Allow) []desired.Problem {
	var problems []desired.Problem
	look := func(text string, at desired.Position, kind desired.Kind, name string) {
		u, err := url.Parse(text)
		if text == "" || err != nil || strings.Contains(u.Host, "{") {
			return
		}
		if err := allow.Check(u); err != nil {
			what, hint, _ := strings.Cut(err.Error(), "; ")
			problems = append(problems, desired.Problem{
				Severity: desired.SeverityError, Position: at, Message: what, Hint: hint, Kind: kind, Name: name,
			})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(repo.Policies)) {
		switch p := repo.Policies[name]; {
		case p.HTTP != nil:
			look(p.HTTP.URL, p.HTTP.Position, desired.KindPolicy, string(name))
		case p.Prometheus != nil:
			look(p.Prometheus.URL, p.Prometheus.Position, desired.KindPolicy, string(name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(repo.Services)) {
		if d := repo.Services[name].Deploy; d != nil {
			look(d.Webhook, d.Position, desired.KindService, string(name))
		}
	}
	return problems
}
