package history

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
)

// Index holds the newest part of the ledgers, so that what happened can be
// listed without walking through git each time.
//
// Nothing is read before somebody asks. From then on new entries come in from
// the tips, and old ones from the newest on, in the background; a question
// waits for as much as it needs. What is held is bounded by [MaxEntries] and
// [MaxText]; what is older is in git alone.
type Index struct {
	archive  Archive
	branches func() map[string]string
	wake     chan struct{} // capacity 1: somebody asks
	asked    atomic.Bool   // somebody has

	mu      sync.Mutex // guards what follows
	books   map[desired.EnvironmentName]*book
	lines   int               // in all books
	text    int               // bytes of what is told of them
	names   map[string]string // each once
	failure error             // of the last reading; nil: it went well
	more    chan struct{}     // closed when something was read
	filed   catalogue
	had     map[string]string // branches whose tips were all read, and none since
}

// The bounds of what an Index holds: entries, and bytes of what is told of them.
// What is told of an entry without it is read from git. With its deployments that
// is at most some 150 MiB.
const (
	MaxEntries = 250_000
	MaxText    = 48 << 20
)

// chunk is how many older entries are read at once.
const chunk = 1000

// book is one environment's ledger, as far as it was read.
type book struct {
	env desired.EnvironmentName
	tip string
	// newer are the entries since it was opened, oldest first, and older those
	// before, newest first: each grows at its end. A place counts from the
	// first of newer on, and is negative in older.
	newer, older []line
	at           map[uint64]int // the place of an entry, by the beginning of its id
	next         string         // the id of the entry before all of these; empty: there is none

	begun  map[int]*slot                     // deployments, by the place of their pinned entry
	open   map[string]*slot                  // the newest deployment of each id
	latest map[desired.ServiceName]*slot     // the newest deployment of each service
	parts  map[string][]Entry                // of deployments whose beginning was not read yet, newest first
	left   map[desired.ServiceName]time.Time // when the oldest deployment that is known was pinned, or none was wanted any more
}

// line is an entry in short.
type line struct {
	id         [20]byte
	when       int64
	event      ledger.Event
	service    desired.ServiceName
	deployment string
	text       json.RawMessage // the [Entry], as it is told each time; empty: it is in git
}

// slot is where a deployment stands in the order.
type slot struct {
	place int         // of its pinned entry
	now   *Deployment // replaced, never changed
}

// NewIndex returns an index of the ledgers among branches, which is asked for
// the tips; nobody changes the map that it returns. [Index.Run] has to run beside who asks.
func NewIndex(archive Archive, branches func() map[string]string) *Index {
	return &Index{archive: archive, branches: branches, wake: make(chan struct{}, 1),
		books: map[desired.EnvironmentName]*book{}, names: map[string]string{}, more: make(chan struct{}), filed: newCatalogue()}
}

// Run reads until ctx ends. It is the only one that does.
func (x *Index) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-x.wake:
		}
		for again := true; again && ctx.Err() == nil; {
			err := x.advance(ctx)
			if err == nil {
				again, err = x.reach(ctx)
			}
			x.mu.Lock()
			x.failure = err
			close(x.more)
			x.more = make(chan struct{})
			x.mu.Unlock()
			if err != nil {
				break
			}
		}
	}
}

// wait has f look at what was read until it is content, and reading go on in
// between. f has to be content once nothing is left to be read.
func (x *Index) wait(ctx context.Context, f func() bool) error { return x.watch(ctx, true, f) }

// await is wait for what may come at any time: once all is read, it waits for a
// ledger to move.
func (x *Index) await(ctx context.Context, f func() bool) error { return x.watch(ctx, false, f) }

func (x *Index) watch(ctx context.Context, eager bool, f func() bool) error {
	x.asked.Store(true)
	for first := true; ; first = false {
		x.mu.Lock()
		current := x.current()
		if current && f() {
			x.mu.Unlock()
			return nil
		}
		failure, more := x.failure, x.more
		x.mu.Unlock()
		if failure != nil && !first {
			return fmt.Errorf("read the ledgers: %w", failure)
		}
		if eager || first || !current {
			x.rouse()
		}
		select {
		case <-more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// current tells whether all tips were read; mu is held.
func (x *Index) current() bool {
	branches := x.branches()
	if x.had != nil && maps.Equal(branches, x.had) {
		return true
	}
	tips := Tips(branches)
	for env, tip := range tips {
		if b := x.books[env]; b == nil || b.tip != tip {
			return false
		}
	}
	if len(tips) != len(x.books) {
		return false
	}
	x.had = branches
	return true
}

// advance takes in what is new at the tips.
func (x *Index) advance(ctx context.Context) error {
	tips := Tips(x.branches())
	x.mu.Lock()
	x.had = nil
	maps.DeleteFunc(x.books, func(env desired.EnvironmentName, b *book) bool {
		if _, ok := tips[env]; ok {
			return false
		}
		x.forget(b)
		return true
	})
	x.mu.Unlock()
	for _, env := range slices.Sorted(maps.Keys(tips)) {
		x.mu.Lock()
		b := x.books[env]
		x.mu.Unlock()
		if b != nil && b.tip == tips[env] {
			continue
		}
		var fresh []gitstate.CommitInfo
		if b != nil && len(b.newer)+len(b.older) > 0 {
			found := false
			err := x.archive.History(ctx, tips[env], func(c gitstate.CommitInfo) bool {
				if found = c.ID == b.tip; found || len(fresh) > MaxEntries/2 {
					return false
				}
				fresh = append(fresh, c)
				return true
			})
			if err != nil {
				return err
			}
			if !found {
				b = nil // it was rewritten, or so much is new that it begins anew
			}
		} else {
			b = nil
		}
		x.mu.Lock()
		x.had = nil
		if b == nil || x.lines > MaxEntries+MaxEntries/10 {
			if old := x.books[env]; old != nil {
				x.forget(old)
			}
			x.books[env] = &book{env: env, tip: tips[env], next: tips[env], at: map[uint64]int{}, begun: map[int]*slot{}, open: map[string]*slot{},
				latest: map[desired.ServiceName]*slot{}, parts: map[string][]Entry{}, left: map[desired.ServiceName]time.Time{}}
			x.mu.Unlock()
			continue
		}
		for _, c := range slices.Backward(fresh) {
			x.append(b, c)
		}
		b.tip = tips[env]
		x.mu.Unlock()
	}
	return nil
}

// forget takes a book out of the counts; mu is held.
func (x *Index) forget(b *book) {
	x.lines -= len(b.newer) + len(b.older)
	for _, l := range slices.Concat(b.newer, b.older) {
		x.text -= len(l.text)
	}
	x.filed.remove(b.env)
}

// reach reads some more of the past, of the ledger that is the least far back.
// It returns false if there is nothing left to be read, or no place for it.
func (x *Index) reach(ctx context.Context) (bool, error) {
	x.mu.Lock()
	var b *book
	for _, o := range x.books {
		if o.next != "" && (b == nil || o.horizon() > b.horizon() || o.horizon() == b.horizon() && o.env < b.env) {
			b = o
		}
	}
	if b == nil || x.lines >= MaxEntries {
		x.mu.Unlock()
		return false, nil
	}
	from := b.next
	x.mu.Unlock()
	var past []gitstate.CommitInfo
	next := ""
	err := x.archive.History(ctx, from, func(c gitstate.CommitInfo) bool {
		if len(past) == chunk {
			next = c.ID
			return false
		}
		past = append(past, c)
		return true
	})
	if err != nil {
		return false, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range past {
		x.prepend(b, c)
	}
	b.next = next
	return true, nil
}

// horizon is the time of the oldest entry that was read.
func (b *book) horizon() int64 {
	switch n := len(b.older); {
	case n > 0:
		return b.older[n-1].when
	case len(b.newer) > 0:
		return b.newer[0].when
	}
	return 1 << 62 // nothing was read
}

func key(id [20]byte) uint64 { return binary.BigEndian.Uint64(id[:8]) }

// keyOf reads a whole id, or as much of it as a cursor has.
func keyOf(id string) (uint64, bool) {
	if len(id) < 16 {
		return 0, false
	}
	var k [8]byte
	_, err := hex.Decode(k[:], []byte(id[:16]))
	return binary.BigEndian.Uint64(k[:]), err == nil
}

// lineOf is an entry in short, without its text.
func lineOf(e Entry) line {
	l := line{when: e.When.Unix(), event: e.Event, service: e.Service, deployment: e.Deployment}
	hex.Decode(l.id[:], []byte(e.Entry))
	return l
}

// line takes in one entry; mu is held.
func (x *Index) line(e Entry) line {
	l := lineOf(e)
	l.event, l.service, l.deployment = ledger.Event(x.name(string(e.Event))), desired.ServiceName(x.name(string(e.Service))), x.name(e.Deployment)
	if text, err := json.Marshal(e); err == nil && x.text+len(text) <= MaxText {
		l.text = text
		x.text += len(text)
	}
	x.lines++
	return l
}

func (x *Index) name(s string) string {
	if n, ok := x.names[s]; ok {
		return n
	}
	if len(x.names) > MaxEntries {
		clear(x.names)
	}
	s = strings.Clone(s)
	x.names[s] = s
	return s
}

// append takes in a new entry; mu is held.
func (x *Index) append(b *book, c gitstate.CommitInfo) {
	e := ReadEntry(c)
	l := x.line(e)
	place := len(b.newer)
	b.newer = append(b.newer, l)
	b.at[key(l.id)] = place
	switch {
	case e.Event == ledger.EventPinned && !e.Late && e.Deployment != "":
		s := &slot{place, began(e)}
		b.leave(e.Service, e.When)
		b.begun[place], b.open[l.deployment], b.latest[e.Service] = s, s, s
		delete(b.parts, l.deployment) // what was before is another deployment of this id
		x.filed.add(s, x.name)
		return
	case e.Event == ledger.EventRetired:
		b.leave(e.Service, e.When)
	}
	if e.Deployment == "" {
		return
	}
	if s := b.open[l.deployment]; s != nil {
		s.now = s.now.apply(e)
	} else if b.next != "" {
		b.parts[l.deployment] = slices.Insert(b.parts[l.deployment], 0, e)
	}
}

// leave says that another deployment of a service, or none, takes the place of
// the newest one.
func (b *book) leave(svc desired.ServiceName, when time.Time) {
	if s := b.latest[svc]; s != nil {
		if s.now.Left.IsZero() {
			d := *s.now
			d.Left, s.now = when, &d
		}
	} else if b.left[svc].IsZero() {
		b.left[svc] = when
	}
}

// prepend takes in an entry of before; mu is held.
func (x *Index) prepend(b *book, c gitstate.CommitInfo) {
	e := ReadEntry(c)
	l := x.line(e)
	b.older = append(b.older, l)
	place := -len(b.older)
	b.at[key(l.id)] = place
	if e.Event == ledger.EventRetired {
		b.left[e.Service] = e.When
	}
	if e.Deployment == "" {
		return
	}
	if e.Event != ledger.EventPinned || e.Late {
		b.parts[l.deployment] = append(b.parts[l.deployment], e)
		return
	}
	d := began(e)
	for _, later := range slices.Backward(b.parts[l.deployment]) {
		d.take(d.record(), later)
	}
	delete(b.parts, l.deployment)
	d.Left = b.left[e.Service]
	b.left[e.Service] = e.When
	s := &slot{place, d}
	b.begun[place] = s
	if b.open[l.deployment] == nil {
		b.open[l.deployment] = s
	}
	if b.latest[e.Service] == nil {
		b.latest[e.Service] = s
	}
	x.filed.add(s, x.name)
}
