package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
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
			in := releasing{name: desired.HoldName(args[0]), message: w.message, now: g.now}
			return g.write(cmd.Context(), &w, in.propose)
		},
	}
	w.flags(cmd.Flags())
	return cmd
}

// releasing is what `pinion release` was asked for.
type releasing struct {
	name    desired.HoldName
	message string
	now     time.Time
}

func (in releasing) propose(ctx context.Context, gr *ground) (*proposal, error) {
	repo := gr.commit.Repository
	file, there := holdFile(repo, in.name)
	if !there {
		known := map[desired.HoldName]bool{}
		for name := range repo.Holds {
			known[name] = true
		}
		for _, name := range repo.BrokenNames(desired.KindHold) {
			known[desired.HoldName(name)] = true
		}
		return nil, missing("hold", in.name, known)
	}
	p := &proposal{files: map[string][]byte{file: nil}}
	p.change = ledger.Change{Kind: ledger.ChangeReleased, Hold: in.name, Summary: "it could not be read", Reason: in.message}
	h := repo.Holds[in.name]
	if h == nil {
		p.next = []string{"it could not be read, and held everything; what waits moves again, if nothing else is in its way"}
		return p, nil
	}
	p.change.Summary = scope(h) + ": " + firstLine(h.Reason)
	p.next = []string{fmt.Sprintf("what waits to enter %s moves again, if nothing else is in its way", scope(h))}
	if h.Expired(in.now) {
		p.next = []string{"it ended at " + h.Until.UTC().Format(time.RFC3339) + ", and holds nothing back any more"}
	}
	waiting, err := gr.waiting(ctx, h)
	if err != nil {
		return nil, err
	}
	for _, c := range waiting {
		free := "it frees " + c.String()
		others := slices.DeleteFunc(holdsOn(repo, c.environment, c.service, in.now), func(o *desired.Hold) bool { return o == h })
		if len(others) > 0 {
			names := map[desired.HoldName]bool{}
			for _, o := range others {
				names[o.Name] = true
			}
			free = fmt.Sprintf("%s, is still held by %s", c, list(slices.Sorted(maps.Keys(names))))
		}
		p.next = append(p.next, free)
	}
	return p, nil
}
