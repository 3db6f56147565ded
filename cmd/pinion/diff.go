package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/reconcile"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

func newDiffCommand(g *globals) *cobra.Command {
	var against string
	cmd := &cobra.Command{
		Use:   "diff ENV [SERVICE]",
		Short: "Show what applying would change, field by field",
		Long: `Compare what is rendered with what the cluster has, by a server-side dry run of
each object; defaults and fields of other managers are no differences. With
--against, compare with what another commit renders, without a cluster.

Without --rev the files are read as they lie in the working tree. Values of
Secrets are masked. Exit code 1 if there are differences.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error { return g.diff(cmd.Context(), args, against) },
	}
	cmd.Flags().StringVar(&against, "against", "", "compare with what this commit, branch or tag renders")
	return cmd
}

// change is one object that differs.
type change struct {
	reconcile.Key
	Object render.Ref            `json:"object"`
	Verb   string                `json:"change"` // create, update, adopt, replace, delete
	Reason string                `json:"reason,omitempty"`
	Fields []cluster.FieldChange `json:"fields,omitempty"`
}

func (g *globals) diff(ctx context.Context, args []string, against string) error {
	format, err := g.format("text", "json")
	if err != nil {
		return err
	}
	r, err := g.begin(ctx, workingTree)
	if err != nil {
		return err
	}
	defer r.close()
	selection, err := r.selection(args)
	if err != nil {
		return err
	}
	all, err := r.render(ctx, r.repository, selection)
	if err != nil {
		return err
	}
	var changes []change
	var failed error
	if against != "" {
		other := *g
		other.rev = against
		o, err := other.open(ctx, head)
		if err != nil {
			return err
		}
		defer o.close()
		before, err := r.render(ctx, o, selection)
		if err != nil {
			return err
		}
		changes, failed = compareRenderings(before, all)
	} else {
		if err := r.connect(ctx, g); err != nil {
			return err
		}
		var kept []string
		changes, kept, failed = compareLive(ctx, r, selection, all)
		for _, k := range kept {
			fmt.Fprintln(g.err, "kept:", k)
		}
	}
	if format == "json" {
		if changes == nil {
			changes = []change{}
		}
		err = g.writeJSON(changes)
	} else {
		writeChanges(g.out, paletteFor(g.out), changes)
	}
	switch {
	case failed != nil || err != nil:
		return errors.Join(failed, err)
	case len(changes) > 0:
		return &exitError{code: exitDifferent}
	}
	fmt.Fprintln(g.err, "no differences")
	return nil
}

// writeChanges writes changes for people to read.
func writeChanges(w io.Writer, color palette, changes []change) {
	last := reconcile.Key{}
	for _, c := range changes {
		if c.Key != last {
			fmt.Fprintf(w, "%s\n", c.Key)
			last = c.Key
		}
		sign := map[string]string{"create": "+", "delete": "-"}[c.Verb]
		head := fmt.Sprintf("%s %s", sign, c.Object)
		switch {
		case sign == "+":
			head = color.good(head)
		case sign == "-":
			head = color.bad(head)
		case c.Verb == "replace":
			head = color.bad("± " + c.Object.String())
		default:
			head = color.wait("~ " + c.Object.String())
		}
		if c.Reason != "" {
			head += color.dim(" (" + c.Reason + ")")
		}
		fmt.Fprintf(w, "  %s\n", head)
		for _, f := range c.Fields {
			fmt.Fprintf(w, "      %s\n", f.Path)
			if f.Old != "" {
				fmt.Fprintf(w, "        %s\n", color.bad("- "+f.Old))
			}
			if f.New != "" {
				fmt.Fprintf(w, "        %s\n", color.good("+ "+f.New))
			}
		}
	}
}
