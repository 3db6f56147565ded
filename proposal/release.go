package proposal

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// Release is what `pinion release` was asked for.
type Release struct {
	Name    desired.HoldName
	Message string
	Now     time.Time
	// MayEnd judges whether who asks may end a hold that covers environments, none
	// standing for all, as for one that can't be read. It is asked about the hold of
	// the commit that the release is judged on. nil: everybody may.
	MayEnd func(covers []desired.EnvironmentName) error
}

func (in Release) Propose(ctx context.Context, gr *Ground) (*Proposal, error) {
	repo := gr.Commit.Repository
	file, there := holdFile(repo, in.Name)
	if !there {
		known := map[desired.HoldName]bool{}
		for name := range repo.Holds {
			known[name] = true
		}
		for _, name := range repo.BrokenNames(desired.KindHold) {
			known[desired.HoldName(name)] = true
		}
		return nil, missing("hold", in.Name, known)
	}
	if err := mayEnd(repo, in.Name, in.MayEnd); err != nil {
		return nil, err
	}
	p := &Proposal{Files: map[string][]byte{file: nil}}
	p.Change = ledger.Change{Kind: ledger.ChangeReleased, Hold: in.Name, Summary: "it could not be read", Reason: in.Message}
	h := repo.Holds[in.Name]
	if h == nil {
		p.Next = []string{"it could not be read, and held everything; what waits moves again, if nothing else is in its way"}
		return p, nil
	}
	p.Change.Summary = scope(h) + ": " + firstLine(h.Reason)
	p.Next = []string{fmt.Sprintf("what waits to enter %s moves again, if nothing else is in its way", scope(h))}
	if h.Expired(in.Now) {
		p.Next = []string{"it ended at " + h.Until.UTC().Format(time.RFC3339) + ", and holds nothing back any more"}
	}
	waiting, err := gr.waiting(ctx, h)
	if err != nil {
		return nil, err
	}
	for _, c := range waiting {
		free := "it frees " + c.String()
		others := slices.DeleteFunc(holdsOn(repo, c.environment, c.service, in.Now), func(o *desired.Hold) bool { return o == h })
		if len(others) > 0 {
			names := map[desired.HoldName]bool{}
			for _, o := range others {
				names[o.Name] = true
			}
			free = fmt.Sprintf("%s, is still held by %s", c, list(slices.Sorted(maps.Keys(names))))
		}
		p.Next = append(p.Next, free)
	}
	return p, nil
}
