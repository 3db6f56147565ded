package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/proposal"
)

func newPromoteCommand(g *globals) *cobra.Command {
	var w writing
	var in proposal.Promote
	var to string
	cmd := &cobra.Command{
		Use:   "promote SERVICE --to ENV",
		Short: "Commit a promotion, if policy allows it",
		Long: `Write the commit that the daemon would write: the newest release that is verified
in the stages before enters an environment. It is judged on the remote's main
branch and ledgers, by the same rules; what they refuse is refused, and said gate
by gate. --version asks for another verified release, also for one that ran there
before or is older than what is there.

` + writingHelp + `

Exit code 3 if it is refused.`,
		Example: `  pinion promote web --to production`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if to == "" {
				return fmt.Errorf("it is not said where %s is to go; give --to ENV", args[0])
			}
			in.Service, in.To, in.Message = desired.ServiceName(args[0]), desired.EnvironmentName(to), w.message
			return g.write(cmd.Context(), &w, asks(in))
		},
	}
	w.flags(cmd.Flags())
	cmd.Flags().StringVar(&to, "to", "", "the environment to enter")
	cmd.Flags().StringVar(&in.Version, "version", "", "the version, or a deployment's id, to promote (default: the newest that is verified)")
	return cmd
}
