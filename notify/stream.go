package notify

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Item is a commit of a branch of which a sink is to be told something.
type Item struct {
	Commit string
	Lane   string
	News   []Notification // one at least
}

// The bounds of a Stream.
const (
	// mostLanes is how many lanes of a branch can be behind. If there are more,
	// it is the receiver that is in trouble, and no more is read.
	mostLanes = 64
	mostKept  = 8 // items of a lane in memory
)

// Stream is what is to be told to one sink of one branch. It says what to read
// and what to send, one at a time, and is told what came of it. A lane whose
// news are not taken falls behind, and the others go on without it.
//
// What it holds in memory is bounded, however much waits.
type Stream struct {
	at     string // all up to here was told, but for the lanes
	since  time.Time
	tip    string // of the branch
	ahead  []Item // after at, oldest first
	upTo   string // all that is wanted up to here is in ahead; "": nothing was read
	lanes  map[string]*lane
	flying bool
	in     string // of which lane, if it is behind
	behind bool
	turn   bool // of what is new, before what is behind
}

// lane is one that is behind.
type lane struct {
	at       string    // told up to here
	items    []Item    // after that
	whole    bool      // items are all up to the stream's at
	failures int       // in a row
	since    time.Time // of the first of them
	retry    time.Time
	refused  bool // the last time, for what it says
}

// Open returns the stream of a sink that was told so far.
func Open(p Position) *Stream {
	s := &Stream{at: p.At, since: p.Since, lanes: map[string]*lane{}}
	for name, at := range p.Behind {
		s.lanes[name] = &lane{at: at}
	}
	return s
}

// Position is how far the sink was told.
func (s *Stream) Position() Position {
	p := Position{Since: s.since, At: s.at}
	for name, l := range s.lanes {
		if p.Behind == nil {
			p.Behind = map[string]string{}
		}
		p.Behind[name] = l.at
	}
	return p
}

// SetTip says where the branch is.
func (s *Stream) SetTip(tip string) { s.tip = tip }

// Idle tells whether all was told.
func (s *Stream) Idle() bool { return len(s.lanes) == 0 && len(s.ahead) == 0 && s.at == s.tip }

// Reading is a part of the branch: what comes after After, up to Until, of one
// lane or of all.
type Reading struct {
	After, Until string
	Lane         string
	behind       bool
}

// Of tells whether a lane is read.
func (r Reading) Of(lane string) bool { return !r.behind || Within(lane, r.Lane) }

// Needs is what is to be read before anything else can be sent; ok is false if
// there is nothing.
func (s *Stream) Needs() (r Reading, ok bool) {
	if s.flying {
		return Reading{}, false
	}
	for _, name := range slices.Sorted(maps.Keys(s.lanes)) {
		if l := s.lanes[name]; len(l.items) == 0 && !l.whole {
			return Reading{After: l.at, Until: s.at, Lane: name, behind: true}, true
		}
	}
	if len(s.ahead) == 0 && s.at != s.tip && len(s.lanes) < mostLanes {
		return Reading{After: s.at, Until: s.tip}, true
	}
	return Reading{}, false
}

// Feed takes in what was read: the items that are wanted, oldest first, and all
// of them up to a commit, which is r.Until unless there were too many.
func (s *Stream) Feed(r Reading, items []Item, upTo string) {
	if !r.behind {
		if s.ahead, s.upTo = items, upTo; len(items) == 0 {
			s.at = upTo
		}
		return
	}
	if l := s.lanes[r.Lane]; l != nil {
		l.items, l.whole = items, upTo == r.Until
		s.settle(r.Lane)
	}
}

// settle takes a lane that has caught up off the list.
func (s *Stream) settle(name string) {
	if l := s.lanes[name]; len(l.items) == 0 && l.whole {
		delete(s.lanes, name)
	}
}

// Next returns what is to be sent now, or when to ask again; zero: when
// something else happens. What it returns is under way until Done.
func (s *Stream) Next(now time.Time) (n Notification, ok bool, again time.Time) {
	if s.flying {
		return n, false, again
	}
	// By turns, so that much that is refused again and again holds nothing up.
	if s.turn {
		n, ok = s.nextAhead()
	}
	if !ok {
		n, ok, again = s.nextBehind(now)
	}
	if !ok && !s.turn {
		n, ok = s.nextAhead()
	}
	if ok {
		s.flying, s.turn, again = true, s.behind, time.Time{}
	}
	return n, ok, again
}

// nextBehind is what a lane that is behind is to be told.
func (s *Stream) nextBehind(now time.Time) (n Notification, ok bool, again time.Time) {
	for _, name := range slices.Sorted(maps.Keys(s.lanes)) {
		l := s.lanes[name]
		switch {
		case l.retry.After(now):
			if again.IsZero() || l.retry.Before(again) {
				again = l.retry
			}
		case len(l.items) == 0:
			s.settle(name)
		default:
			s.behind, s.in = true, name
			return l.items[0].News[0], true, time.Time{}
		}
	}
	return n, false, again
}

// nextAhead is what comes after all that was told. What is of a lane that is
// behind goes there.
func (s *Stream) nextAhead() (n Notification, ok bool) {
	for len(s.ahead) > 0 && len(s.lanes) < mostLanes {
		first := s.ahead[0]
		l := s.laneOf(first.Lane)
		if l == nil {
			s.behind, s.in = false, first.Lane
			return first.News[0], true
		}
		if l.whole && len(l.items) < mostKept {
			l.items = append(l.items, first)
		} else {
			l.whole = false
		}
		s.pass()
	}
	return n, false
}

// laneOf is the lane that is behind in which news are; nil: none.
func (s *Stream) laneOf(lane string) *lane {
	if l := s.lanes[lane]; l != nil {
		return l
	}
	service, _, _ := strings.Cut(lane, laneMark)
	return s.lanes[service]
}

// pass moves on behind the first item.
func (s *Stream) pass() {
	s.at = s.ahead[0].Commit
	if s.ahead = s.ahead[1:]; len(s.ahead) == 0 {
		s.at = s.upTo
	}
}

// Result is what became of the notification that was under way.
type Result struct {
	Taken bool
	// Dropped: it was tried in vain for long enough, and is not tried once more.
	Dropped bool
}

// Done says what came of what Next has returned. share is from 0 to 1.
func (s *Stream) Done(is Ruling, now time.Time, share float64) Result {
	if !s.flying {
		return Result{}
	}
	s.flying = false
	if !s.behind {
		first := &s.ahead[0]
		if is.Taken {
			if first.News = first.News[1:]; len(first.News) == 0 {
				s.pass()
			}
			return Result{Taken: true}
		}
		l := &lane{at: s.at, items: []Item{*first}, whole: true}
		s.lanes[first.Lane] = l
		s.pass()
		return l.failed(is, now, share)
	}
	l := s.lanes[s.in]
	if is.Taken {
		l.failures, l.since, l.retry = 0, time.Time{}, time.Time{}
		l.told()
		s.settle(s.in)
		return Result{Taken: true}
	}
	return l.failed(is, now, share)
}

// told moves a lane on behind what was sent.
func (l *lane) told() {
	if l.items[0].News = l.items[0].News[1:]; len(l.items[0].News) > 0 {
		return
	}
	l.at = l.items[0].Commit
	l.items = l.items[1:]
}

// failed has a lane tried again later, also if what it was to be told is dropped.
// What is old because nobody was there to tell it has its time as well, and what
// is new behind much that is old.
func (l *lane) failed(is Ruling, now time.Time, share float64) Result {
	l.refused = is.Refused
	if l.failures++; l.failures == 1 {
		l.since = now
	}
	l.retry = now.Add(Wait(l.failures, share))
	if now.Sub(l.since) <= GiveUp || now.Sub(l.items[0].News[0].Time) <= GiveUp {
		return Result{}
	}
	l.told()
	return Result{Dropped: true}
}

// Hurry has everything tried at once that waits for its time: the receiver
// takes news again. What it has refused for what it says can wait.
func (s *Stream) Hurry() {
	for _, l := range s.lanes {
		if !l.refused {
			l.retry = time.Time{}
		}
	}
}
