package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/api"
	"github.com/pinion-cd/pinion/desired"
)

func newReconcileCommand(g *globals) *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use:   "reconcile [ENV]",
		Short: "Have the daemon look now",
		Long: `Have the daemon fetch the repository, and compare all objects of an environment with
the cluster, now, and not when it is time to. Without ENV it is all environments that
the replica keeps which answers.

It asks the daemon, and ends when the repository has been fetched. While the daemon
can't be reached, or if its answer is lost, it is asked again until --timeout.

Exit code 4 if the token does not allow it: it needs the scope reconcile.`,
		Example: `  pinion reconcile production`,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var in api.Reconciliation
			if len(args) > 0 {
				if args[0] == "" {
					return errors.New("the environment has no name; leave it out for all of them")
				}
				in.Environment = desired.EnvironmentName(args[0])
			}
			return g.reconcile(cmd.Context(), &c, in)
		},
	}
	c.flags(cmd.Flags())
	return cmd
}

func (g *globals) reconcile(ctx context.Context, c *client, in api.Reconciliation) error {
	format, err := g.format("text", "json")
	if err != nil {
		return err
	}
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	var answer api.Reconciling
	err = c.ask(ctx, question{method: http.MethodPost, path: api.ReconciliationsPath, body: body}, func(data []byte) bool {
		return json.Unmarshal(data, &answer) == nil && answer.Main != ""
	})
	where := "all environments"
	if in.Environment != "" {
		where = string(in.Environment)
	}
	if err != nil {
		return fmt.Errorf("reconcile %s: %w", where, err)
	}
	if format == "json" {
		return g.writeJSON(answer)
	}
	fmt.Fprintf(g.out, "main is at %s; %s: compared with the cluster now\n", printable(answer.Main), where)
	return nil
}
