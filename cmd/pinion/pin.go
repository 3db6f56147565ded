package main

import (
	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/proposal"
)

func newPinCommand(g *globals) *cobra.Command {
	var w writing
	var add bool
	var requestedBy []string
	cmd := &cobra.Command{
		Use:   "pin ENV ARTIFACT VERSION",
		Short: "Commit a bump: pin another version of an artifact in an environment",
		Long: `Pin another version of an artifact in an environment. VERSION is a tag, a
tag@digest, a digest, or a whole reference; without a repository in it, that of
the present pin stays.

` + writingHelp + `

Exit code 0 also if that version is pinned already.`,
		Example: `  pinion pin dev web 1.4.3
  pinion pin dev web 1.4.3@sha256:2222…
  pinion pin dev web ghcr.io/acme/web:1.4.3 --add --requested-by "Kim <kim@shop.example>"`,
		Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			persons, err := people("requested-by", requestedBy)
			if err != nil {
				return err
			}
			in := proposal.Pin{
				Environment: desired.EnvironmentName(args[0]), Artifact: desired.ArtifactName(args[1]), Version: args[2],
				Add: add, Reason: w.message, RequestedBy: persons,
			}
			return g.write(cmd.Context(), &w, asks(in))
		},
	}
	w.flags(cmd.Flags())
	cmd.Flags().BoolVar(&add, "add", false, "pin an artifact that is not pinned there yet")
	cmd.Flags().StringArrayVar(&requestedBy, "requested-by", nil, `for whom this is done, "Name <name@example.com>"; may be given several times`)
	return cmd
}
