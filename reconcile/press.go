package reconcile

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
)

// press is what is known of others who move the main branch while many moves
// of ours wait to be pushed. A push lands on exactly the tip that was judged or
// not at all, and one of a thousand commits takes as long as somebody with a
// script takes for several of theirs. So many moves go in parts, and nothing else
// goes with them: first a small one, begun right behind a move of the others, and
// then the rest, while these fetch that.
type press struct {
	seen  []time.Time // moves of main by others, the newest last
	share int         // how many of ours go into one push; 0: all
	left  int         // of ours that were refused, or put off, the last time
	since time.Time   // when that began
	other bool        // the last turn was for moves
	// landed is when some of ours did, while others still waited, and late how many
	// pushes have been too late since the first did.
	landed time.Time
	late   int
	misses int       // pushes in a row that were too late
	told   time.Time // when it was last said that others are always ahead
}

const (
	// fewMoves are pushed as they come.
	fewMoves = 64
	// Main is busy if others have moved it so often in so long.
	busyMoves = 3
	busyTime  = time.Second
	// firstPart is which part of many moves goes first: few enough to land between
	// two moves of others. These have to fetch them then, as a rule, which gives time
	// for all the rest.
	firstPart = 6
	// longestPress bounds for how long nothing but moves is written; after that,
	// the ledgers have every other turn.
	longestPress = 5 * time.Second
	// lateAgain is how many pushes behind one of ours have to be late until it is
	// known that the others need not fetch it.
	lateAgain = 2
	// After so many pushes in a row that were too late half as many go into one, for
	// nobody knows how long a push takes here.
	tooLate = 3
	// betweenLooks is how long after one the next look is whether others have moved.
	betweenLooks = 10 * time.Millisecond
	// Moves that others have kept out for so long are reported, so often.
	keptOut      = 30 * time.Second
	keptOutAgain = time.Minute
)

// saw notes that others have moved main.
func (p *press) saw(now time.Time) {
	p.seen = append(p.seen, now)
	if len(p.seen) > busyMoves {
		p.seen = slices.Clone(p.seen[1:])
	}
}

// busy tells whether others move main all the time.
func (p *press) busy(now time.Time) bool {
	return len(p.seen) == busyMoves && now.Sub(p.seen[0]) < busyTime
}

// lost notes that a push with n moves was, or would be, too late. Few of them go
// together, but without what else there is to write.
func (p *press) lost(now time.Time, n int) {
	if n == 0 {
		return
	}
	if n > fewMoves && p.share == 0 {
		p.share = part(n)
	}
	p.put(now, n)
}

// put notes that n moves of ours wait.
func (p *press) put(now time.Time, n int) {
	if p.left = n; n == 0 {
		p.share, p.since, p.landed, p.other, p.late, p.misses = 0, time.Time{}, time.Time{}, false, 0, 0
	} else if p.since.IsZero() {
		p.since = now
	}
}

// turn says what may be written now: moves, entries, or both.
func (p *press) turn(now time.Time) (moves, entries bool) {
	switch {
	case p.left == 0:
		return true, true
	case now.Sub(p.since) < longestPress:
		return true, false
	}
	p.other = !p.other
	return p.other, !p.other
}

// wrote notes that some of ours have landed, and that n wait.
func (p *press) wrote(now time.Time, n int) {
	p.put(now, n)
	if p.misses = 0; n == 0 {
		return
	}
	switch {
	case p.share == 0:
	case p.landed.IsZero():
		p.share = n
	default:
		p.share = max(p.share, min(2*p.share, part(n)))
	}
	p.landed = now
}

// starves tells whether others have been ahead of all our moves for long, since
// when, and whether it is time to say so.
func (p *press) starves(now time.Time) (since time.Time, say bool) {
	since = p.since
	if p.landed.After(since) {
		since = p.landed
	}
	if p.left == 0 || now.Sub(since) < keptOut || now.Sub(p.told) < keptOutAgain {
		return since, false
	}
	p.told = now
	return since, true
}

// urgent tells whether a service has failed, or is about to: that is recorded,
// and what brings it back is committed, before a thousand promotions are.
func urgent(r ledger.Record, seen *Sighting) bool {
	switch d := r.Deployment; d.State {
	case ledger.StateFailed:
		return true
	case ledger.StateCompleted:
		return slices.ContainsFunc(d.Checks, func(c ledger.Check) bool { return c.Result == ledger.Failure })
	case ledger.StatePinned, ledger.StateStarted:
		return seen != nil && (seen.Final || seen.Problem != "")
	}
	return false
}

// missed notes that a push with moves was too late.
func (p *press) missed() {
	if !p.landed.IsZero() {
		if p.late++; p.late == lateAgain {
			p.share = max(part(p.left), fewMoves)
		}
	}
	if p.misses++; p.misses == tooLate {
		p.misses = 0
		p.share = max(1, cmp.Or(p.share, p.left)/2)
	}
}

func part(n int) int { return (n + firstPart - 1) / firstPart }

// waits tells whether it is worth while to begin right behind a move of others.
// When many moves of ours have landed the others have to fetch them first, as a rule,
// and do not move at once.
func (p *press) waits(now time.Time) bool {
	return p.left > 0 && (p.landed.IsZero() || p.late >= lateAgain) && p.busy(now)
}

// await returns right behind a move of main by others, or when there was none
// for as long as one usually takes.
func (c *Clerk) await(ctx context.Context) {
	now := time.Now()
	if !c.press.waits(now) {
		return
	}
	usual := now.Sub(c.press.seen[0])
	from, _ := c.options.Mirror.Tip()
	pause := time.NewTicker(betweenLooks) // who looks all the time keeps the others from what is waited for
	defer pause.Stop()
	for time.Since(now) < usual {
		if tip, err := c.options.Mirror.Fetch(ctx); err != nil || tip.Commit != from {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
	}
}

// foresee returns the promotions for which the batch makes way, if they are
// many: their files and folders, sent ahead with the ledgers, for which nobody
// races, need no time when the promotions do. What is decided then may be
// something else; nobody will have missed them.
func (c *Clerk) foresee(ctx context.Context, b *batch) []gitstate.Change {
	if len(b.moves) > 0 {
		return nil
	}
	stages := map[Key]bool{}
	for env, pages := range b.pages {
		for _, p := range pages {
			if s := c.commit.Repository.StagesOf(p.record.Service); p.entry.Event == ledger.EventVerified && s != nil {
				for _, next := range s.Next(env) {
					stages[Key{next.Environment, p.record.Service}] = true
				}
			}
		}
	}
	if len(stages) <= fewMoves {
		return nil
	}
	who := c.signature(b)
	var all []gitstate.Change
	drafts := map[desired.EnvironmentName]*draft{}
	for _, k := range slices.SortedFunc(maps.Keys(stages), Key.Compare) {
		a, stage, err := c.admission(ctx, b, k)
		if err != nil || stage == nil || c.unreadable(k) || !c.ours(k.Environment) {
			continue
		}
		d, err := c.decision(ctx, a)
		if err != nil || d.Move != policy.Promote {
			continue
		}
		draft := drafts[k.Environment]
		if draft == nil {
			if draft, err = c.draft(k.Environment); err != nil {
				return nil
			}
			drafts[k.Environment] = draft
		}
		if blob, message, err := draft.promote(d.Promotion); err == nil {
			all = append(all, gitstate.Change{Blobs: map[string]*gitstate.Blob{environmentFile(k.Environment): blob}, Message: message, Author: who, Committer: who})
		}
	}
	if now := time.Now(); c.press.busy(now) {
		c.press.lost(now, len(all))
	}
	if len(all) > 0 {
		all[0].Expected = c.commit.ID
	}
	return all
}
