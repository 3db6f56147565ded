package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
	"github.com/pinion-cd/pinion/reconcile/check"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/reconcile/trigger"
)

// ClerkOptions are what a Clerk works with.
type ClerkOptions struct {
	Mirror *gitstate.Mirror
	// Branch is the name of the main branch, for messages.
	Branch string
	// Identity is the author and committer of all that the clerk writes.
	Identity ledger.Person
	// Name tells this daemon from another one that runs by mistake; "": the
	// machine's and the process's.
	Name string
	Sign func(commit []byte) (string, error) // nil: commits are not signed
	// Tenure says of which environments the ledger is ours to keep, where
	// several replicas run; nil: of all.
	Tenure *Tenure
	// AllowRewrite takes what is known of artifacts as the remote has it, whatever
	// was known before.
	AllowRewrite bool
	// Digests is the key under which the values of Secrets are digested.
	Digests []byte
	Checks  *check.Runner
	Trigger *trigger.Caller // nil: no webhook is called
	// Report is called from the clerk's own goroutine; nil: nobody listens.
	Report func(Event)
	// Propose is called from the clerk's own goroutine with what is to be
	// proposed for a stage that is entered by pull requests, whenever it was
	// judged; nil: there is no forge to do so. It must not wait.
	Propose func(Proposal)
	// Known is called from the clerk's own goroutine with each record of a
	// ledger as it is on the remote, when it is first read and when it has
	// changed; nil: nobody wants to know. It must not wait.
	Known func(ledger.Record)
	// Tracked is called from the clerk's own goroutine with the artifacts that are
	// tracked where the ledger is ours to keep, and with what is known, when either
	// has changed; nil: nobody wants to know. It must not wait.
	Tracked func([]desired.Tracked, *artifact.Shelf)
	// Settled is the newest commit of main that Settle was ever called with for this
	// repository; "": it is not known, and the start reads more of main's history.
	Settled string
	// Settle is called from the clerk's own goroutine with the commit of main up to
	// which all that daemons have written there is on the ledgers, when that is
	// another one; nil: nobody remembers it. It must not wait.
	Settle func(commit string)
	// Pushed is called after a push with what was written; nil: nobody counts.
	Pushed func(entries, moves int, took time.Duration)
	// Clock tells the time; nil: time.Now.
	Clock func() time.Time
	// Location finds a time zone; nil: time.LoadLocation.
	Location func(name string) (*time.Location, error)
}

// Clerk keeps the ledgers: it records what an Engine sees, has the checks made
// that policies ask for, takes in reports and approvals, and writes promotions
// and rollbacks to the main branch.
//
// It decides on what has been pushed, and on nothing else: the ledgers' tips
// and the main branch's. All that it decides at one moment is one push, onto
// the very tips that were judged. If the push is refused because one of them
// has moved, or its fate is not known, everything is read again and judged
// from nothing. So a crash between any two steps loses nothing that was
// acknowledged and repeats nothing that was written, and of two clerks that
// run by mistake only one can write each entry.
type Clerk struct {
	options ClerkOptions
	reader  *reader
	lineage *lineage
	// renderer renders again what a check was made for; see secretsOf.
	renderer Renderer

	mu       sync.Mutex // guards what follows
	seen     map[Key]Sighting
	latest   map[Key]Sighting // the last of each
	news     map[Key]bool     // whose last one says more than that another commit wants the same
	first    time.Time        // when the oldest and the newest news came
	last     time.Time
	requests []*request
	results  []checked
	events   []Event // of the checks
	drifts   []Drift
	// whole are the digests of the objects that the ledgers have as completed,
	// and caughtUp says that they were read.
	whole    map[Key]string
	caughtUp bool
	stands   map[Key]stand
	called   []called
	blind    map[Key]bool // what can't be read of them; of an environment without a service, all
	found    []identified
	journal  journal
	closed   bool
	until    time.Time // until then all else waits for promotions
	woken    chan struct{}
	waking   bool // it is going to wake

	// What follows belongs to the goroutine in Run.

	fetched bool      // since the start, or since something became ours
	looked  time.Time // at the clock
	held    map[desired.EnvironmentName]holding
	commit  *Commit           // the tip of main that is judged on
	tracked []desired.Tracked // of the commit
	books   map[desired.EnvironmentName]*book
	// shelf is what is known of artifacts, as it was pushed; shelfErr, that it
	// can't be read, or is not true any more, as it is at the commit untrue.
	shelf    *artifact.Shelf
	shelfErr error
	untrue   string
	// toldTracked is what Tracked was called for last.
	toldTracked string
	cards       map[Key]*card
	// unsure are those whose identity may be another one by now, and early those
	// that were seen at a commit that is not in the journal yet.
	unsure, early map[Key]bool
	rules         map[string]*policy.Rules // by pipelines and policies
	checks        map[checkKey]*running
	zones         map[string]*time.Location
	calls         map[Key]*calling // of webhooks that deploy
	dirty         map[Key]bool     // to be reviewed
	stages        map[Key]bool     // stages that may be entered
	drafts        map[desired.EnvironmentName]*draft
	press         press
	pace          pace
	// claimed are the messages of pushes whose fate was not known, each with
	// the commit that it turned out to be in, or "".
	claimed  map[string]string
	proposed map[Key]bool // stages for which pull requests may be open
	apart    time.Time    // until then each branch is pushed by itself
	stuck    time.Time    // main refuses our pushes until then,
	barred   error        // with this,
	waiting  map[Key]bool // and these would move
	stranger *stranger
	warned   time.Time // of another daemon
	told     time.Time // it was told of us
	trouble  string    // the last that was reported
	fails    int
	// settledAt is what Settle was called with last.
	settledAt string
	jobs      sync.WaitGroup
}

// holding is since when an environment is ours.
type holding struct {
	term    *cluster.Term // nil: nobody competes
	began   time.Time     // by the clock that stamps entries, and by the system's
	started time.Time
}

// NewClerk returns a clerk for an engine that reads from the same mirror.
func NewClerk(o ClerkOptions, e *Engine) *Clerk {
	if o.Report == nil {
		o.Report = func(Event) {}
	}
	if o.Known == nil {
		o.Known = func(ledger.Record) {}
	}
	if o.Tracked == nil {
		o.Tracked = func([]desired.Tracked, *artifact.Shelf) {}
	}
	if o.Settle == nil {
		o.Settle = func(string) {}
	}
	if o.Pushed == nil {
		o.Pushed = func(int, int, time.Duration) {}
	}
	if o.Name == "" {
		host, _ := os.Hostname()
		o.Name = fmt.Sprintf("process %d of %s", os.Getpid(), host)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Location == nil {
		o.Location = time.LoadLocation
	}
	return &Clerk{
		options:  o,
		reader:   &reader{commits: o.Mirror},
		lineage:  e.lineage,
		renderer: e.options.Renderer,
		seen:     map[Key]Sighting{},
		latest:   map[Key]Sighting{},
		news:     map[Key]bool{},
		woken:    make(chan struct{}, 1),
		whole:    map[Key]string{},
		stands:   map[Key]stand{},
		calls:    map[Key]*calling{},
		blind:    map[Key]bool{},
		books:    map[desired.EnvironmentName]*book{},
		cards:    map[Key]*card{},
		unsure:   map[Key]bool{},
		early:    map[Key]bool{},
		rules:    map[string]*policy.Rules{},
		checks:   map[checkKey]*running{},
		zones:    map[string]*time.Location{},
		dirty:    map[Key]bool{},
		stages:   map[Key]bool{},
		drafts:   map[desired.EnvironmentName]*draft{},
		claimed:  map[string]string{},
		proposed: map[Key]bool{},
		waiting:  map[Key]bool{},
		held:     map[desired.EnvironmentName]holding{},
	}
}

// Moved says that the repository was fetched.
func (c *Clerk) Moved() {
	c.wake()
}

func (c *Clerk) wake() {
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

// The pace of a clerk.
const (
	// longestNap bounds how long a change of the system's clock goes unseen.
	longestNap = 30 * time.Second
	// handover is for how long a push of a clerk that has ended may be on its way.
	handover = 2 * time.Minute
	// apartFor is for how long branches that kept each other out are pushed one
	// by one.
	apartFor = 10 * time.Minute
	// What another daemon that does not see us is given to see us, how often one
	// is reported, and how often it is told of us.
	unseen     = 5 * time.Second
	warnAgain  = time.Minute
	tellAgain  = time.Hour
	lostInARow = 3 // pushes, before it is reported
	firstAsk   = time.Second

	firstWait      = 100 * time.Millisecond
	longestWait    = 30 * time.Second
	refusedForNow  = time.Minute
	postponed      = 15 * time.Second
	mostIdentified = 4096 // side by side, so that they share a walk
)

// Run keeps the ledgers until ctx ends.
func (c *Clerk) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer func() {
		stop()
		c.jobs.Wait()
		c.turnAway()
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	moved := c.options.Tenure.changes()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.woken:
		case <-moved:
			c.fetched = false // who had it before may have pushed more than we know
		case <-timer.C:
		}
		if wait := max(c.flooded(), c.unhurried()); wait > 0 {
			timer.Reset(wait)
			continue
		}
		timer.Reset(c.work(ctx))
	}
}

// work does all that is due, and returns after which time to look again.
func (c *Clerk) work(ctx context.Context) time.Duration {
	for ctx.Err() == nil {
		wrote, err := c.turn(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			c.fails++
			if !errors.Is(err, gitstate.ErrMoved) || c.fails >= lostInARow {
				c.complain("the ledgers can't be kept; it is tried again: " + err.Error())
			}
			return min(firstWait<<min(c.fails-1, 10), longestWait)
		case wrote:
			c.fails = 0
			if wait := c.unhurried(); wait > 0 {
				return wait
			}
			continue // what was written may allow the next step
		default:
			c.fails = 0
			if c.refused(c.options.Clock()) {
				c.complain(fmt.Sprintf("promotions and rollbacks wait, and the ledgers go on: allow the daemon's account to push to %s, or have the stages entered by pull requests (by: pullRequest): %v", c.options.Branch, c.barred))
			} else {
				c.relieved()
			}
			c.noteSettled()
			return c.nap()
		}
	}
	return longestNap
}

// nap is how long nothing is due.
func (c *Clerk) nap() time.Duration {
	now := c.options.Clock()
	wait := longestNap
	for _, d := range c.cards {
		for _, at := range []time.Time{d.wake, d.enter} {
			if !at.IsZero() {
				wait = min(wait, max(0, at.Sub(now)))
			}
		}
		if !d.retry.IsZero() {
			wait = min(wait, max(0, time.Until(d.retry)))
		}
	}
	if !c.stuck.IsZero() {
		wait = min(wait, max(0, c.stuck.Sub(now)))
	}
	if c.stranger != nil {
		wait = min(wait, max(0, time.Until(c.stranger.since.Add(unseen))))
	}
	return max(wait, time.Millisecond)
}

// turn takes in the news, decides, and pushes once. It says whether anything
// was written.
func (c *Clerk) turn(ctx context.Context) (bool, error) {
	c.await(ctx)
	c.survey()
	if err := c.catchUp(ctx); err != nil {
		return false, err
	}
	c.survey()
	c.tellTracked()
	now := c.options.Clock().Round(0)
	c.due(now)
	b := newBatch(ctx, c, now)
	c.takeIn(ctx, b)
	if err := c.decide(ctx, b); err != nil {
		c.abandon(b)
		return false, err
	}
	defer c.hold()
	return c.push(ctx, b)
}

// decide puts into the batch what is to be recorded and to be moved.
func (c *Clerk) decide(ctx context.Context, b *batch) error {
	moves, entries := c.press.turn(time.Now())
	b.withheld = !moves
	if moves && !entries {
		if b.withheld = c.hurry(ctx, b); b.withheld {
			return nil
		}
		if c.admitAll(ctx, b); len(b.moves) > 0 {
			return nil
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(c.dirty), Key.Compare) {
		c.reviewOne(ctx, b, k)
	}
	clear(c.dirty)
	if moves {
		c.admitAll(ctx, b)
	}
	c.announce(b)
	c.identifyAll(ctx)
	return nil
}

// reviewOne looks at one service; the others go on whatever comes of it.
func (c *Clerk) reviewOne(ctx context.Context, b *batch, k Key) {
	var err error
	if c.ours(k.Environment) {
		err = c.review(ctx, b, k)
	} else {
		err = c.retreat(ctx, b, k) // an environment of ours may have to go back for it
	}
	if err != nil {
		c.postpone(&c.card(k).wake, b.now, k, err)
	}
}

// hurry looks at the services for which the promotions of others have to wait,
// and says whether anything is to be recorded of them, before all else.
func (c *Clerk) hurry(ctx context.Context, b *batch) bool {
	before := len(b.records)
	for _, k := range slices.SortedFunc(maps.Keys(c.dirty), Key.Compare) {
		if urgent(c.record(k), c.card(k).sighting) {
			delete(c.dirty, k)
			c.reviewOne(ctx, b, k)
		}
	}
	return len(b.records) > before
}

// admitAll decides which stages are entered. Those for which there is no place
// in the batch are left for the next one.
func (c *Clerk) admitAll(ctx context.Context, b *batch) {
	for _, k := range slices.SortedFunc(maps.Keys(c.stages), Key.Compare) {
		if len(b.moves) >= c.press.most() {
			return
		}
		delete(c.stages, k)
		if !c.ours(k.Environment) {
			continue
		}
		if err := c.admit(ctx, b, k); err != nil {
			c.postpone(&c.card(k).enter, b.now, k, err)
		}
	}
}

// postpone has one service looked at again later; the others go on.
func (c *Clerk) postpone(wake *time.Time, now time.Time, k Key, err error) {
	*wake = now.Add(postponed)
	c.complainOf(k, fmt.Errorf("not judged; it is tried again: %w", err))
}

// complain reports a trouble once.
func (c *Clerk) complain(trouble string) {
	if trouble == c.trouble {
		return
	}
	c.trouble = trouble
	c.report(Event{Type: EventProblem, Message: trouble})
}

func (c *Clerk) relieved() {
	if c.trouble == "" {
		return
	}
	c.trouble = ""
	c.report(Event{Type: EventRecorded, Message: "the ledgers can be kept again"})
}

// complainOf reports a trouble with one service once.
func (c *Clerk) complainOf(k Key, err error) {
	if d := c.card(k); d.trouble != err.Error() {
		d.trouble = err.Error()
		c.report(Event{Type: EventProblem, Environment: k.Environment, Service: k.Service, Message: d.trouble})
	}
}

func (c *Clerk) report(ev Event) {
	ev.Time = c.options.Clock()
	c.options.Report(ev)
}

// due marks what time has come to.
func (c *Clerk) due(now time.Time) {
	if !c.refused(now) {
		c.stuck = time.Time{}
		for k := range c.waiting {
			c.dirty[k], c.stages[k] = true, true
		}
		clear(c.waiting)
	}
	// What was waited for by a clock that was set back may come sooner.
	back := now.Before(c.looked)
	c.looked = now
	for k, d := range c.cards {
		if !d.wake.IsZero() && (back || !now.Before(d.wake)) {
			d.wake = time.Time{}
			c.dirty[k] = true
		}
		if !d.enter.IsZero() && (back || !now.Before(d.enter)) {
			d.enter = time.Time{}
			c.stages[k] = true
		}
	}
}
