package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/proposal"
)

func newRollbackCommand(g *globals) *cobra.Command {
	var w writing
	var in proposal.Rollback
	cmd := &cobra.Command{
		Use:   "rollback ENV SERVICE [--to VERSION]",
		Short: "Commit a way back to the last verified version, which sticks",
		Long: `Go back to the version that was verified last in an environment, or with --to to
one that ran there before. It sticks: the version that is left does not come back
there by automation, until a person pins it. No hold stops it.

` + writingHelp + `

Exit code 3 if the version never ran there; --force goes to it all the same.`,
		Example: `  pinion rollback production web -m "checkout errors since 1.4.3"
  pinion rollback production web --to 1.4.0`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Environment, in.Service, in.Message = desired.EnvironmentName(args[0]), desired.ServiceName(args[1]), w.message
			if in.Force && in.To == "" {
				return errors.New("--force goes to a version that never ran there, and none is named; give --to VERSION")
			}
			return g.write(cmd.Context(), &w, asks(in))
		},
	}
	w.flags(cmd.Flags())
	cmd.Flags().StringVar(&in.To, "to", "", "the version, or a deployment's id, to go back to (default: what was verified there last)")
	cmd.Flags().BoolVar(&in.Force, "force", false, "go to a version that never ran there, too")
	return cmd
}
