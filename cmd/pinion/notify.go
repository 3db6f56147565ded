package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/notify/deliver"
)

func newNotifyCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "notify",
		Short: "Try the receivers of news",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "test SINK",
		Short: "Send a sink a message that tells nothing",
		Long: `Send a sink of the daemon's configuration (--config) one message with the event
"test", signed and written as it will be told the news, and say what it answers.
The daemon need not run.`,
		Example: `  pinion notify test chat --config /etc/pinion/config.yaml`,
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return g.notifyTest(cmd.Context(), args[0]) },
	})
	return cmd
}

func (g *globals) notifyTest(ctx context.Context, name string) error {
	if err := g.noFormat(); err != nil {
		return err
	}
	config, err := g.readConfig()
	if err != nil {
		return err
	}
	s, ok := config.Sinks[name]
	if !ok {
		has := "add it under sinks: in the file that --config names"
		if names := slices.Sorted(maps.Keys(config.Sinks)); len(names) > 0 {
			has = "there is " + strings.Join(names, ", ")
		}
		return fmt.Errorf("notify test: there is no sink %s; %s", name, has)
	}
	to, err := s.open(name)
	if err != nil {
		return fmt.Errorf("notify test: sinks.%s: %w", name, err)
	}
	if err := deliver.Test(ctx, to, "test-"+strings.ToLower(rand.Text()), time.Now()); err != nil {
		return fmt.Errorf("notify test: %s has not taken it: %w", name, err)
	}
	_, err = fmt.Fprintf(g.out, "%s has taken it\n", name)
	return err
}
