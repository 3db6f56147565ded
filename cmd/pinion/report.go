package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/api"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
)

func newReportCommand(g *globals) *cobra.Command {
	var c client
	var in api.Report
	cmd := &cobra.Command{
		Use:   "report ENV SERVICE POLICY RESULT --version V",
		Short: "Tell the daemon the result of a check",
		Long: `Tell the daemon the result of a check that a policy (report:) waits for. The RESULT
is success or failure, and of one version: if another one runs by then, it is
recorded and moves nothing; of a version that was never there, nothing is recorded. With --rerun it takes the place of the result that is
there; without a RESULT, --rerun takes that one back, so that the check is made
once more.

` + clientHelp,
		Example: `  pinion report staging web e2e success --version 1.4.3 --url https://ci.example/5`,
		Args:    cobra.RangeArgs(3, 4),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Environment, in.Service = desired.EnvironmentName(args[0]), desired.ServiceName(args[1])
			in.Policy = desired.PolicyName(args[2])
			if len(args) > 3 {
				in.Status = args[3]
			}
			return g.report(cmd.Context(), &c, in)
		},
	}
	cmd.AddCommand(newDoraCommand(g))
	c.flags(cmd.Flags())
	f := cmd.Flags()
	f.StringVar(&in.Version, "version", "", "the version that was checked")
	f.StringVar(&in.Description, "description", "", "what there is to say about it, in a line")
	f.StringVar(&in.URL, "url", "", "where to read more")
	f.BoolVar(&in.Rerun, "rerun", false, "put this result in the place of the one that is there")
	return cmd
}

func (g *globals) report(ctx context.Context, c *client, in api.Report) error {
	format, err := g.format("text", "json")
	if err != nil {
		return err
	}
	r, known := api.ResultOf(in.Status)
	switch {
	case known:
		in.Status = string(r)
	case in.Status == "" && in.Rerun:
	case in.Status == "":
		return fmt.Errorf("the result is missing; write %s or %s after %s", ledger.Success, ledger.Failure, in.Policy)
	default:
		return fmt.Errorf("%q is not a result; write %s or %s", in.Status, ledger.Success, ledger.Failure)
	}
	if in.Version == "" {
		return errors.New("it is not said which version was checked; give --version, so that the result is not taken for another one's")
	}
	in.URL = gitstate.Redact(in.URL)
	receipt, err := c.post(ctx, api.ReportsPath, in)
	if err != nil {
		return fmt.Errorf("report %s of %s %s in %s: %w", in.Policy, in.Service, in.Version, in.Environment, err)
	}
	return g.writeReceipt(format, receipt)
}
