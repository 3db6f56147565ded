package reconcile

import (
	"slices"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
)

func TestPress(t *testing.T) {
	t0 := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }
	var p press
	for _, ms := range []int{0, 900} {
		p.saw(at(ms))
	}
	if p.busy(at(900)) {
		t.Error("two moves in a second count as busy")
	}
	for _, ms := range []int{950, 1050, 1150} {
		p.saw(at(ms))
	}
	if !p.busy(at(1200)) || p.busy(at(1950)) {
		t.Error("busy is not what three moves in a second are")
	}

	if p.lost(at(1200), fewMoves); p.share != 0 {
		t.Errorf("few moves are divided into shares of %d", p.share)
	}
	turns := func(ms int, want ...bool) {
		t.Helper()
		if moves, entries := p.turn(at(ms)); moves != want[0] || entries != want[1] {
			t.Errorf("at %d ms: moves %v, entries %v", ms, moves, entries)
		}
	}
	// But the entries that would make their push longer wait.
	turns(1200, true, false)
	p.put(at(1200), 0)
	turns(1200, true, true)
	if p.lost(at(1200), 0); p.left != 0 {
		t.Error("moves are waited for that there are not")
	}
	p.lost(at(1200), 1000)
	if p.share != 1000 {
		t.Errorf("a thousand moves are divided into shares of %d", p.share)
	}
	turns(1300, true, false)
	if p.lost(at(1400), 500); p.share != 1000 {
		t.Errorf("a share that was lost becomes one of %d", p.share)
	}
	turns(6199, true, false)
	// Nothing waits for ever because of moves that are refused again and again.
	turns(6200, true, false)
	turns(6300, false, true)
	turns(6400, true, false)
	starves := func(ms int) bool { _, say := p.starves(at(ms)); return say }
	if starves(31_199) || !starves(31_200) || starves(91_199) || !starves(91_200) {
		t.Error("that nothing has landed is not said after half a minute, and then every minute")
	}
	// Those that wait while others of ours land are not kept out.
	p.wrote(at(150_000), 300)
	if starves(179_999) || !starves(180_000) {
		t.Error("it does not count from what has landed last")
	}
	if p.put(at(6500), 0); p.share != 0 {
		t.Error("what has landed leaves its share behind")
	}
	turns(6600, true, true)
	if starves(400_000) {
		t.Error("what has landed is said to wait")
	}
}

// What waits is begun right behind a move of others, if these move all the time, but not
// while they fetch what has landed.
func TestPressWaits(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	var p press
	waits := func(what string, want bool) {
		t.Helper()
		if got := p.waits(now); got != want {
			t.Errorf("%s: it is %v that it is waited", what, got)
		}
	}
	p.lost(now, 1000)
	waits("nobody else moves main", false)
	for range busyMoves {
		p.saw(now)
	}
	waits("many wait", true)
	p.saw(now)
	p.wrote(now, 500)
	waits("half of them have landed, which the others have to fetch", false)
	p.missed()
	waits("the rest was late", true)
	now = now.Add(time.Minute)
	waits("a push takes long", true)
	p.wrote(now, 0)
	waits("all have landed", false)
	p.lost(now, 1)
	waits("somebody was in the way once", false)
}

// What else there is to do waits while many compete with others, for some seconds.
func TestPressHolds(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	var p press
	holds := func(what string, after time.Duration, want bool) {
		t.Helper()
		switch until := p.holds(now.Add(after)); {
		case until.IsZero() == want:
			t.Errorf("%s: until %s", what, until)
		case want && until != now.Add(longestPress):
			t.Errorf("%s: until %s", what, until)
		}
	}
	holds("nothing waits", 0, false)
	p.lost(now, 1000)
	holds("somebody was in the way once", 0, false)
	for range busyMoves {
		p.saw(now)
	}
	holds("others move main all the time", 0, true)
	p.wrote(now, 500)
	holds("half of them have landed", longestPress-1, true)
	holds("it takes too long", longestPress, false)
	p.wrote(now, 0)
	holds("all have landed", 0, false)
	p.lost(now, fewMoves)
	holds("few compete", 0, false)
}

// Where each push takes longer than others leave between theirs, fewer and fewer go
// into one; and more again when they land.
func TestPressYields(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	var p press
	shares := func(what string, want int) {
		t.Helper()
		if p.share != want {
			t.Errorf("%s: %d go into one push, not %d", what, p.share, want)
		}
	}
	p.lost(now, 1000)
	p.missed()
	shares("one that was begun at any moment was late", 1000)
	p.ready = true
	for _, want := range []int{500, 250, 125, 62, 62, 62, 62, 31, 31, 31, 31, 15} {
		p.missed()
		shares("none has landed", want)
	}
	all := func(what string, want bool) {
		t.Helper()
		if got := p.most() > p.share; got != want {
			t.Errorf("%s: it is %v that all the rest goes", what, got)
		}
	}
	for _, want := range []int{30, 60} {
		p.wrote(now, 700)
		shares("few land", want)
		all("the others have to fetch", true)
		p.missed()
		shares("the rest was late", want)
		all("it was", false)
	}
	for _, want := range []int{120, 120, 240} {
		p.wrote(now, 600)
		shares("they land", want)
		all("others are as fast as before", false)
	}
	p.wrote(now, 500)
	p.missed()
	p.wrote(now, 400)
	shares("one lands, one does not", 120)
	for range 100 {
		p.missed()
	}
	shares("none lands any more", 1)
	// Few are no exception.
	p.put(now, 0)
	p.lost(now, 40)
	p.ready = true
	for range lateInRow {
		p.missed()
	}
	shares("few", 20)
	// What is not divided stays so.
	p.put(now, 0)
	p.lost(now, 40)
	for range inARow {
		p.wrote(now, 20)
	}
	shares("few that land", 0)
	all("they go as they come", true)
}

// What has failed is recorded, and taken back, while a thousand promotions wait.
func TestUrgent(t *testing.T) {
	of := func(s ledger.State, checks ...ledger.Check) ledger.Record {
		return ledger.Record{Deployment: ledger.Deployment{State: s, Checks: checks}}
	}
	failed, passed := ledger.Check{Result: ledger.Failure}, ledger.Check{Result: ledger.Success}
	for _, c := range []struct {
		name   string
		record ledger.Record
		seen   *Sighting
		want   bool
	}{
		{"nothing is known", ledger.Record{}, nil, false},
		{"a rollout", of(ledger.StateStarted), &Sighting{Phase: Progressing}, false},
		{"a rollout that tries again", of(ledger.StateStarted), &Sighting{Phase: Failed}, false},
		{"a rollout that has failed", of(ledger.StateStarted), &Sighting{Phase: Failed, Final: true}, true},
		{"a commit that can't be rendered", of(ledger.StatePinned), &Sighting{Problem: "no such file"}, true},
		{"a check that passed", of(ledger.StateCompleted, passed), &Sighting{Phase: Ready}, false},
		{"a check that failed", of(ledger.StateCompleted, passed, failed), &Sighting{Phase: Ready}, true},
		{"failed, and may have to go back", of(ledger.StateFailed, failed), nil, true},
		{"verified, and degraded since", of(ledger.StateVerified), &Sighting{Phase: Degraded, Final: true}, false},
	} {
		if got := urgent(c.record, c.seen); got != c.want {
			t.Errorf("%s: urgent is %v", c.name, got)
		}
	}
}

func TestMovesInOrder(t *testing.T) {
	ahead := func(s desired.ServiceName) move { return move{Key: Key{"production", s}} }
	back := func(s desired.ServiceName) move {
		return move{Key: Key{"production", s}, retreat: &policy.Retreat{}}
	}
	moves := []move{ahead("b"), back("d"), ahead("a"), back("c")}
	slices.SortFunc(moves, move.compare)
	var got string
	for _, m := range moves {
		got += string(m.Service)
	}
	if got != "cdab" {
		t.Errorf("the order is %s", got)
	}
}
