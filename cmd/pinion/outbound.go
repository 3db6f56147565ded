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

// unlisted finds policies whose addresses the daemon will not ask. An address
// whose host depends on the environment is left to the daemon.
func unlisted(repo *desired.Repository, allow outbound.Allow) []desired.Problem {
	var problems []desired.Problem
	for _, name := range slices.Sorted(maps.Keys(repo.Policies)) {
		p := repo.Policies[name]
		var text string
		var at desired.Position
		switch {
		case p.HTTP != nil:
			text, at = p.HTTP.URL, p.HTTP.Position
		case p.Prometheus != nil:
			text, at = p.Prometheus.URL, p.Prometheus.Position
		}
		u, err := url.Parse(text)
		if text == "" || err != nil || strings.Contains(u.Host, "{") {
			continue
		}
		if err := allow.Check(u); err != nil {
			what, hint, _ := strings.Cut(err.Error(), "; ")
			problems = append(problems, desired.Problem{
				Severity: desired.SeverityError, Position: at, Message: what, Hint: hint, Kind: desired.KindPolicy, Name: string(name),
			})
		}
	}
	return problems
}
