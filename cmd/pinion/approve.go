package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/api"
	"github.com/pinion-cd/pinion/desired"
)

func newApproveCommand(g *globals) *cobra.Command {
	var c client
	var in api.Approval
	cmd := &cobra.Command{
		Use:   "approve ENV SERVICE [POLICY] --version V",
		Short: "Give your consent to a version",
		Long: `Give your consent to a version that waits for an approval: to enter an environment,
or to count as verified there. Without POLICY it is for each that waits for you.
Who you are is what the token says.

` + clientHelp,
		Example: `  pinion approve production web --version 1.4.3 --comment "release notes are out"`,
		Args:    cobra.RangeArgs(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Environment, in.Service = desired.EnvironmentName(args[0]), desired.ServiceName(args[1])
			if len(args) > 2 {
				in.Policy = desired.PolicyName(args[2])
			}
			return g.approve(cmd.Context(), &c, in)
		},
	}
	c.flags(cmd.Flags())
	cmd.Flags().StringVar(&in.Version, "version", "", "the version that you agree to")
	cmd.Flags().StringVar(&in.Comment, "comment", "", "what there is to say about it, in a line")
	return cmd
}

func (g *globals) approve(ctx context.Context, c *client, in api.Approval) error {
	format, err := g.format("text", "json")
	if err != nil {
		return err
	}
	if in.Version == "" {
		return errors.New("it is not said which version you agree to; give --version, so that it is not taken for another one's")
	}
	r, err := c.post(ctx, api.ApprovalsPath, in)
	if err != nil {
		return fmt.Errorf("approve %s %s in %s: %w", in.Service, in.Version, in.Environment, err)
	}
	return g.writeReceipt(format, r)
}
