package reconcile

import (
	"cmp"
	"context"
	"maps"
	"math"
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
// script takes for several of theirs. So nothing else goes with many moves, they are
// begun right behind a move of the others, which leaves as much time as there is,
// and if that is too short, fewer of them go. When some have landed all the rest
// follows, while the others fetch those.
type press struct {
	seen   []time.Time // moves of main by others, the newest last
	share  int         // how many of ours go into one push; 0: all, and entries with them
	left   int         // of ours that were refused, or put off, the last time
	since  time.Time   // when that began
	other  bool        // the last turn was for moves
	landed time.Time   // when some of ours did, while others still waited
	behind bool        // some did just now, and the rest shall be behind them
	vain   int         // how many times the rest was too late
	row    int         // pushes in a row that landed, or, below zero, that were too late
	crowd  bool        // main was busy since then
	ready  bool        // a move of others was waited for, and has come
	told   time.Time   // when it was last said that others are always ahead
}

const (
	// fewMoves are pushed as they come.
	fewMoves = 64
	// Main is busy if others have moved it so often in so long.
	busyMoves = 3
	busyTime  = time.Second
	// longestPress bounds for how long nothing but moves is written; after that,
	// the ledgers have every other turn.
	longestPress = 5 * time.Second
	// When the rest was too late so often, others need not fetch what has landed.
	enough = 2
	// A push that was too late is followed by one of half as many moves, and so many
	// that landed by one of twice as many: nobody knows how long a push takes here, and
	// how much time others leave. Few moves take as long as fewer, as a rule, so these
	// are divided when so many in a row were too late.
	inARow    = 2
	lateInRow = 4
	// longestAwait bounds how long a move of others is waited for.
	longestAwait = busyTime / busyMoves
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
	p.crowd = p.crowd || p.left > 0 && p.busy(now)
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
		p.share = n
	}
	p.crowd = p.crowd || p.busy(now)
	p.put(now, n)
}

// put notes that n moves of ours wait.
func (p *press) put(now time.Time, n int) {
	if p.left = n; n == 0 {
		*p = press{seen: p.seen, told: p.told}
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
	if p.put(now, n); n == 0 {
		return
	}
	p.landed, p.behind = now, p.share > 0 && p.vain < enough
	if p.row = max(p.row, 0) + 1; p.row == inARow || p.share < fewMoves {
		p.row, p.share = 0, 2*p.share
	}
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

// missed notes that a push with moves was too late. One that was begun at any
// moment tells nothing.
func (p *press) missed() {
	if p.behind {
		p.behind = false
		p.vain++
		return
	}
	if !p.ready {
		return
	}
	n := cmp.Or(p.share, p.left)
	if p.row = min(p.row, 0) - 1; n > fewMoves || -p.row == lateInRow {
		p.row, p.share = 0, max(1, n/2)
	}
}

// holds says until when all else waits for many moves of ours that compete with
// others; zero: it does not wait.
func (p *press) holds(now time.Time) time.Time {
	if until := p.since.Add(longestPress); p.share > 0 && p.crowd && now.Before(until) {
		return until
	}
	return time.Time{}
}

func (c *Clerk) hold() {
	until := c.press.holds(time.Now())
	c.mu.Lock()
	held := !c.until.IsZero()
	c.until = until
	c.mu.Unlock()
	if held && until.IsZero() {
		c.options.Mirror.Poke()
	}
}

// Busy tells whether the clerk competes with others for the main branch, with many
// promotions. Whoever rolls out what main asks for had better wait: what it takes of
// the processors makes the others win, and the first of many can so be kept from
// being the last of them. It is so for no longer than a few seconds; when it ends,
// the mirror says that it is time to look.
func (c *Clerk) Busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Before(c.until)
}

// most is how many moves go into the next push.
func (p *press) most() int {
	if p.share == 0 || p.behind {
		return math.MaxInt
	}
	return p.share
}

// waits tells whether it is worth while to begin right behind a move of others.
func (p *press) waits(now time.Time) bool {
	return p.left > 0 && !p.behind && (p.crowd || p.busy(now))
}

// await returns right behind a move of main by others, or when there was none for long.
func (c *Clerk) await(ctx context.Context) {
	now := time.Now()
	if c.press.ready = false; !c.press.waits(now) {
		return
	}
	// When they have come to where they are is not known.
	from := ""
	// Who looks all the time keeps the others from what is waited for.
	pause := time.NewTicker(betweenLooks)
	defer pause.Stop()
	for time.Since(now) < longestAwait {
		tip, err := c.options.Mirror.Fetch(ctx)
		if err != nil {
			return
		}
		if c.press.ready = from != "" && tip.Commit != from; c.press.ready {
			return
		}
		from = tip.Commit
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
