package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/render/sops"
	"github.com/pinion-cd/pinion/render/worker"
)

// secretsConfig is what encrypted files of the repository are opened with.
type secretsConfig struct {
	AgeKeyFiles []string   `yaml:"ageKeyFiles,omitempty"`
	Sops        sopsConfig `yaml:"sops,omitempty"`
}

// sopsConfig is the sops program, for what no age key opens.
type sopsConfig struct {
	Binary      string        `yaml:"binary,omitempty"`
	Environment []string      `yaml:"environment,omitempty"`
	Timeout     time.Duration `yaml:"timeout,omitempty"`
}

// keys reads the age keys of the configuration, and of more files.
func (c secretsConfig) keys(more ...string) (*sops.Keys, error) {
	var all []*sops.Keys
	for _, name := range append(more, c.AgeKeyFiles...) {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read age keys: %w", err)
		}
		k, err := sops.ParseKeys(name, data)
		clear(data)
		if err != nil {
			return nil, err
		}
		all = append(all, k)
	}
	return sops.Join(all...), nil
}

// program returns the sops program, or nil. It is only ever started for a
// configuration, whose list holds for a person's command as for the daemon.
func (c *config) program() (*worker.Sops, error) {
	s := c.Secrets.Sops
	if s.Binary == "" {
		return nil, nil
	}
	allow, err := c.Outbound.allow()
	if err != nil {
		return nil, err
	}
	return &worker.Sops{Binary: s.Binary, Environment: s.Environment, Timeout: s.Timeout, Allow: allow}, nil
}

func (c secretsConfig) check() error {
	switch {
	case c.Sops.Binary == "" && len(c.Sops.Environment) > 0:
		return errors.New("secrets.sops.environment is given without secrets.sops.binary, the program that it is for")
	case c.Sops.Binary != "" && !filepath.IsAbs(c.Sops.Binary):
		return fmt.Errorf("secrets.sops.binary is %q; write the whole path, for it is not looked for", c.Sops.Binary)
	}
	return nil
}

// rendering adds the flag of commands that render.
func (g *globals) rendering(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringArrayVar(&g.ageKeyFiles, "age-key-file", nil, "file of age keys that open encrypted files of the repository (default: $SOPS_AGE_KEY_FILE, and secrets.ageKeyFiles of the configuration)")
	return cmd
}

// keyFiles are the age key files that the command line names, or else the
// environment.
func (g *globals) keyFiles() []string {
	if name := os.Getenv("SOPS_AGE_KEY_FILE"); name != "" && len(g.ageKeyFiles) == 0 {
		return []string{name}
	}
	return g.ageKeyFiles
}
