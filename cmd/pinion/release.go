package main

import (
	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/proposal"
)

func newReleaseCommand(g *globals) *cobra.Command {
	var w writing
	cmd := &cobra.Command{
		Use:   "release NAME",
		Short: "End a freeze: remove a hold",
		Long: `Remove holds/NAME.yaml. What waited for it may move again, if nothing else is in
its way.

` + writingHelp,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := proposal.Release{Name: desired.HoldName(args[0]), Message: w.message, Now: g.now}
			return g.write(cmd.Context(), &w, asks(in))
		},
	}
	w.flags(cmd.Flags())
	return cmd
}
