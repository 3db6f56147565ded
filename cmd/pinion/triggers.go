package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/notify"
	"github.com/pinion-cd/pinion/reconcile/trigger"
)

// triggerConfig is what calls of a host's webhooks are signed with.
type triggerConfig struct {
	SecretFile string `yaml:"secretFile"`
}

func (c *config) checkTriggers() error {
	for _, host := range slices.Sorted(maps.Keys(c.Triggers)) {
		switch {
		case host == "" || strings.ContainsAny(host, "/@ "):
			return fmt.Errorf("triggers: %q is not a host; write its name, with the port if the addresses have one", host)
		case c.Triggers[host].SecretFile == "":
			return fmt.Errorf("triggers.%s: secretFile is missing", host)
		}
	}
	return nil
}

// trigger makes who calls webhooks that deploy.
func (c *config) trigger() (*trigger.Caller, error) {
	allow, err := c.Outbound.allow()
	if err != nil {
		return nil, err
	}
	secrets := map[string][]notify.Secret{}
	for _, host := range slices.Sorted(maps.Keys(c.Triggers)) {
		data, err := os.ReadFile(c.Triggers[host].SecretFile)
		if err != nil {
			return nil, fmt.Errorf("triggers.%s: read secret: %w", host, err)
		}
		if secrets[strings.ToLower(host)], err = notify.ParseSecrets(string(data)); err != nil {
			return nil, fmt.Errorf("triggers.%s: %s: %w", host, c.Triggers[host].SecretFile, err)
		}
	}
	return trigger.New(allow, secrets), nil
}
