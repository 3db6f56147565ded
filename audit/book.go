package audit

import (
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// Book is a ledger as it was replayed: which entries it has, and which of them
// are about which service.
type Book struct {
	Environment desired.EnvironmentName
	positions   map[string]int // by entry, from 0
	marks       map[desired.ServiceName][]mark
}

// mark is an entry of a service.
type mark struct {
	position int
	entry    string
	event    ledger.Event
	time     time.Time
	commit   string // of a pinned entry
}

func newBook(env desired.EnvironmentName) *Book {
	return &Book{Environment: env, positions: map[string]int{}, marks: map[desired.ServiceName][]mark{}}
}

// Len is the number of entries.
func (b *Book) Len() int { return len(b.positions) }

// Has returns the position of an entry, counted from 0.
func (b *Book) Has(entry string) (int, bool) {
	i, ok := b.positions[entry]
	return i, ok
}

func (b *Book) add(c Commit) int {
	n := len(b.positions)
	b.positions[c.ID] = n
	return n
}

// mark notes what an entry is about. It keeps nothing of the message, of which
// there may be very many.
func (b *Book) mark(n int, c Commit, e ledger.Entry) {
	m := mark{position: n, entry: c.ID, event: e.Event, time: e.Time}
	if e.Event == ledger.EventPinned {
		m.commit = strings.Clone(e.Commit)
	}
	svc := e.Service
	if b.marks[svc] == nil {
		svc = desired.ServiceName(strings.Clone(string(svc)))
	}
	b.marks[svc] = append(b.marks[svc], m)
}

// Past is what a ledger knew of a service. The zero value is a ledger that is
// not there.
type Past struct {
	Book    *Book
	Service desired.ServiceName
	// Record returns the service's record as the tree of an entry has it; its
	// zero value if there is none.
	Record func(entry string) (ledger.Record, error)
}

func (p Past) marks() []mark {
	if p.Book == nil {
		return nil
	}
	return p.Book.marks[p.Service]
}

// moment is how many of a service's entries somebody had seen.
type moment int

// at returns the record of a moment; false if nothing was recorded yet.
func (p Past) at(m moment) (ledger.Record, bool, error) {
	if m == 0 {
		return ledger.Record{}, false, nil
	}
	r, err := p.Record(p.marks()[m-1].entry)
	return r, err == nil && r.Service != "", err
}

// skew is how far the clocks of who writes to main and of who writes the
// ledgers may be apart. A commit's time has a precision of a second, too, and
// within one the daemon may judge many times.
const skew = time.Minute

// mostMoments bounds how many of them are tried.
const mostMoments = 16

// moments are those in which a commit of main may have been judged, the most
// probable first: entries of well before its time had been written, those of
// well after it had not. What the commit names by its id was there before it,
// whatever the clocks say (seen); and what names the commit was not.
func (p Past) moments(at time.Time, seen moment, commit string) []moment {
	all := p.marks()
	low, high, likely := moment(len(all)), moment(0), moment(0)
	for i, m := range all {
		if !m.time.Before(at.Add(-skew)) {
			low = min(low, moment(i))
		}
		if !m.time.After(at.Add(skew)) {
			high = moment(i + 1)
		}
		if !m.time.After(at) {
			likely = moment(i + 1)
		}
	}
	low, high = max(low, seen), max(high, seen)
	if i := slices.IndexFunc(all, func(m mark) bool { return m.commit == commit }); i >= 0 {
		high = min(high, moment(i))
	}
	low = min(low, high)
	likely = min(max(likely, low), high)
	found := []moment{likely}
	for d := moment(1); len(found) < mostMoments && (likely-d >= low || likely+d <= high); d++ {
		if likely-d >= low {
			found = append(found, likely-d)
		}
		if likely+d <= high {
			found = append(found, likely+d)
		}
	}
	return found
}

// seen is the moment at which a service's entries up to a position had been
// written.
func (p Past) seen(position int) moment {
	n := moment(0)
	for _, m := range p.marks() {
		if m.position <= position {
			n++
		}
	}
	return n
}

// mostChoices bounds how many moments of several ledgers are tried together.
const mostChoices = 1024

// choose calls yield with one moment of each list, the first ones first, until
// it says that these are it.
func choose(lists [][]moment, yield func([]moment) (bool, error)) (bool, error) {
	tried := 0
	chosen := make([]moment, len(lists))
	var next func(i int) (bool, error)
	next = func(i int) (bool, error) {
		if i == len(lists) {
			tried++
			return yield(chosen)
		}
		for _, m := range lists[i] {
			if tried >= mostChoices {
				return false, nil
			}
			chosen[i] = m
			if ok, err := next(i + 1); ok || err != nil {
				return ok, err
			}
		}
		return false, nil
	}
	return next(0)
}
