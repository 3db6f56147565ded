package deliver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/notify"
)

// Options are what a Courier works with.
type Options struct {
	Mirror *gitstate.Mirror
	Branch string // the main one
	Sinks  []Sink
	// Newest is the newest commit that was read; it may return nil.
	Newest func() *desired.Repository
	// Has tells whether an environment is ours; nil: all are.
	Has func(desired.EnvironmentName) bool
	// Identity is who the commits that keep the positions are by.
	Identity gitstate.Signature
	Sign     func(commit []byte) (string, error) // nil: they are not signed
	Logger   *slog.Logger
	// KeepEvery is how often positions are pushed while there is much to tell;
	// 0: every half minute.
	KeepEvery time.Duration
	// Clock tells the time; nil: time.Now.
	Clock func() time.Time
}

// Courier tells sinks the news.
type Courier struct {
	options Options
	sender  *sender
	sinks   []*sink
	woken   chan struct{} // capacity 1
	answers chan answer
	jobs    sync.WaitGroup
	walks   walks

	// What follows belongs to the goroutine in Run.

	streams map[key]*stream
	order   []*stream    // the same, sorted
	next    int          // of order, whose turn it is
	refetch time.Time    // not before
	opening map[key]bool // for which the remote is asked; nil: it is not
	fetched chan error
	since   map[string]time.Time // from when on a sink is told, on branches that are new
	keeping bool
	kept    chan keeping
	keepAt  time.Time
	failing string              // why positions can't be kept
	newest  *desired.Repository // whose sinks were checked
	// holdEnds is when a hold comes to its end next; zero: none does.
	holdEnds time.Time

	mu     sync.Mutex
	counts map[string]Counts // guarded by mu
}

// Counts are what has become of the news of a sink.
type Counts struct {
	Waiting int
	Sent    uint64
	Failed  uint64 // requests
	GivenUp uint64
	Shut    int // branches of which it can't be read how far the sink was told
}

// key names a stream.
type key struct{ sink, branch string }

// stream is one sink's share of a branch.
type stream struct {
	*notify.Stream
	key
	sink    *sink
	tip     string
	kept    string // the position as it was last pushed, encoded
	waiting int
	again   time.Time
}

// sink is one receiver.
type sink struct {
	Sink
	notify.Receiver
	underWay int
	told     bool // that it takes nothing
}

type answer struct {
	stream *stream
	lane   string
	id     string
	sent   time.Time
	ruling notify.Ruling
}

// The pace of a courier.
const (
	mostRead    = 256 // items of a reading
	keepEvery   = 30 * time.Second
	keepAtRest  = 2 * time.Second
	lookAgain   = 10 * time.Second // for environments that have become ours
	finishTime  = 5 * time.Second
	fetchTime   = 30 * time.Second
	refetchTime = 5 * time.Second
	closedTime  = time.Minute // until it is looked whether somebody has mended a position
)

// New returns a courier.
func New(o Options) *Courier {
	if o.Has == nil {
		o.Has = func(desired.EnvironmentName) bool { return true }
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.KeepEvery == 0 {
		o.KeepEvery = keepEvery
	}
	c := &Courier{
		options: o,
		sender:  newSender(),
		woken:   make(chan struct{}, 1),
		answers: make(chan answer),
		kept:    make(chan keeping),
		fetched: make(chan error),
		streams: map[key]*stream{},
		since:   map[string]time.Time{},
		counts:  map[string]Counts{},
	}
	c.walks = walks{mirror: o.Mirror}
	for _, s := range o.Sinks {
		c.sinks = append(c.sinks, &sink{Sink: s})
		c.counts[s.Name] = Counts{}
	}
	return c
}

// Moved says that a branch may have moved, or that something has become ours.
func (c *Courier) Moved() {
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

// Counts returns what has become of the news, by sink.
func (c *Courier) Counts() map[string]Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.counts)
}

func (c *Courier) count(sink string, change func(*Counts)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.counts[sink]
	change(&n)
	c.counts[sink] = n
}

// Run tells the news until ctx ends, and keeps the positions then.
func (c *Courier) Run(ctx context.Context) {
	if len(c.sinks) == 0 {
		return
	}
	work, stop := context.WithCancel(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		look := true
		select {
		case <-ctx.Done():
		case <-c.woken:
		case <-timer.C:
		case a := <-c.answers:
			c.answered(a)
			look = false
		case k := <-c.kept:
			c.wasKept(k)
			look = false
		case err := <-c.fetched:
			c.wasFetched(work, err)
		}
		if ctx.Err() == nil {
			timer.Reset(c.turn(work, look))
		}
	}
	stop()
	c.drain()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTime)
	defer cancel()
	if k := c.toKeep(); len(k.files) > 0 {
		c.push(last, &k)
		c.wasKept(k)
	}
}

// drain waits for what is under way.
func (c *Courier) drain() {
	done := make(chan struct{})
	go func() { c.jobs.Wait(); close(done) }()
	for {
		select {
		case <-done:
			return
		case a := <-c.answers:
			if a.ruling.Taken {
				c.answered(a)
			}
		case k := <-c.kept:
			c.wasKept(k)
		case <-c.fetched:
		}
	}
}

// turn does what is due, and returns when to look again. look says that branches
// may have moved.
func (c *Courier) turn(ctx context.Context, look bool) time.Duration {
	if c.options.Newest() == nil {
		return lookAgain // it is not known yet who wants what
	}
	if look {
		c.catchUp(ctx)
	}
	now := c.options.Clock()
	wake := now.Add(lookAgain)
	wake = earlier(wake, c.holdEnds)
	if c.refetch.After(now) {
		wake = earlier(wake, c.refetch)
	}
	// Each time another one is the first, for there are few places.
	c.next++
	for i := range c.order {
		wake = earlier(wake, c.advance(ctx, now, c.order[(c.next+i)%len(c.order)]))
	}
	wake = earlier(wake, c.keep(ctx, now))
	return max(wake.Sub(now), 0)
}

func compareKeys(a, b key) int {
	return cmp.Or(strings.Compare(a.sink, b.sink), strings.Compare(a.branch, b.branch))
}

func earlier(a, b time.Time) time.Time {
	if b.IsZero() || a.Before(b) {
		return a
	}
	return b
}

// catchUp opens a stream for each sink on each branch that is ours, drops those
// on branches that are not any more, and takes in where the branches are.
func (c *Courier) catchUp(ctx context.Context) {
	c.checkNames()
	ours := c.ours()
	for _, s := range c.order {
		if _, ok := ours[s.branch]; !ok {
			c.close(s)
		}
	}
	c.fetch(ctx, ours)
	branches := c.places(ctx)
	for _, s := range c.order {
		c.moved(ctx, s, branches[s.branch])
	}
}

// places are where the branches are. The main one goes on when a hold comes to
// its end, too.
func (c *Courier) places(ctx context.Context) map[string]string {
	branches := maps.Clone(c.options.Mirror.Branches())
	if c.walks.holds == nil {
		c.walks.holds = c.options.Newest() // what has not changed since is not read again
	}
	if tip := branches[c.options.Branch]; tip != "" {
		mark, next, err := c.walks.mark(ctx, tip, c.options.Clock())
		if err != nil {
			c.trouble("which holds have come to their end can't be read", err)
			delete(branches, c.options.Branch)
			c.holdEnds = time.Time{}
			return branches
		}
		branches[c.options.Branch], c.holdEnds = mark, next
	}
	return branches
}

// ours are the branches whose news are ours to tell.
func (c *Courier) ours() map[string]bool {
	ours := map[string]bool{}
	for name := range c.options.Mirror.Branches() {
		if env, ok := strings.CutPrefix(name, gitstate.LedgerPrefix); ok && c.options.Has(desired.EnvironmentName(env)) {
			ours[name] = true
		}
	}
	newest := slices.Sorted(maps.Keys(c.options.Newest().Environments))
	if len(newest) > 0 && c.options.Has(newest[0]) {
		ours[c.options.Branch] = true
	}
	return ours
}

// fetch asks the remote, beside all else, if there are streams to be opened:
// another replica, or a daemon before this one, may have told more than the
// mirror knows.
func (c *Courier) fetch(ctx context.Context, ours map[string]bool) {
	if c.opening != nil || c.refetch.After(c.options.Clock()) {
		return
	}
	missing := map[key]bool{}
	for name := range ours {
		for _, s := range c.sinks {
			if k := (key{s.Name, name}); c.streams[k] == nil {
				missing[k] = true
			}
		}
	}
	if len(missing) == 0 { // so nothing of ours is shut
		for _, s := range c.sinks {
			c.count(s.Name, func(k *Counts) { k.Shut = 0 })
		}
		return
	}
	c.opening = missing
	c.jobs.Go(func() {
		at, cancel := context.WithTimeout(ctx, fetchTime)
		defer cancel()
		_, err := c.options.Mirror.Fetch(at)
		if errors.Is(err, gitstate.ErrRewritten) {
			err = nil
		}
		c.fetched <- err
	})
}

// wasFetched opens the streams for which the remote was asked.
func (c *Courier) wasFetched(ctx context.Context, err error) {
	missing := c.opening
	c.opening = nil
	if err == nil {
		err = c.openAll(ctx, missing)
	}
	if err != nil && ctx.Err() == nil {
		if soon := c.options.Clock().Add(refetchTime); soon.After(c.refetch) {
			c.refetch = soon
		}
		c.trouble("news wait: how far the sinks were told can't be read", err)
	}
}

// openAll opens the streams that are missing, as far as they are ours still.
func (c *Courier) openAll(ctx context.Context, missing map[key]bool) error {
	kept, err := c.readPositions(ctx)
	if err != nil {
		return err
	}
	// A sink that is new begins where the branches are now. One that is known
	// is told all of a branch that is new.
	now := c.options.Clock().UTC().Truncate(time.Second)
	fresh, shut := map[string]bool{}, map[string]error{}
	for _, s := range c.sinks {
		since, known, err := kept.since(s.Name)
		before, told := c.since[s.Name]
		switch {
		case told && (!known || before.Before(since)):
		case known:
			c.since[s.Name] = since
		case err != nil:
			shut[s.Name] = err
		default:
			c.since[s.Name], fresh[s.Name] = now, true
		}
	}
	var errs []error
	closed := map[string]int{}
	branches := c.places(ctx)
	for name := range c.ours() {
		for _, s := range c.sinks {
			tip := branches[name]
			if !missing[key{s.Name, name}] || c.streams[key{s.Name, name}] != nil || tip == "" {
				continue
			}
			// One that can't be opened keeps no other one shut.
			if err := cmp.Or(kept.unread(s.Name, name), shut[s.Name]); err != nil {
				errs = append(errs, fmt.Errorf("%s is told nothing of %s: %w", s.Name, name, err))
				closed[s.Name]++
				continue
			}
			p, known := kept.all[name].Sinks[s.Name]
			at := place{branch: name, tip: tip, kept: known, fresh: fresh[s.Name]}
			if !known {
				p = notify.Position{Since: c.since[s.Name], At: tip}
			}
			if err := c.open(ctx, s, at, p); err != nil {
				errs = append(errs, fmt.Errorf("%s on %s: %w", s.Name, name, err))
			}
		}
	}
	for _, s := range c.sinks {
		c.count(s.Name, func(k *Counts) { k.Shut = closed[s.Name] })
	}
	if len(closed) > 0 {
		c.refetch = c.options.Clock().Add(closedTime)
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// checkNames tells, once for each commit, of sinks that an environment's file
// names and that can't be named there.
func (c *Courier) checkNames() {
	newest := c.options.Newest()
	if newest == nil || newest == c.newest {
		return
	}
	said := map[string]bool{}
	known := c.onRequest()
	if c.newest != nil {
		for _, p := range c.newest.CheckSinks(known) {
			said[p.Error()] = true
		}
	}
	c.newest = newest
	for _, p := range newest.CheckSinks(known) {
		if !said[p.Error()] {
			c.options.Logger.Error("an environment asks for news that nobody is sent", "error", p.Error())
		}
	}
}

// onRequest are the sinks that an environment's file can name.
func (c *Courier) onRequest() []string {
	var names []string
	for _, s := range c.sinks {
		if s.OnRequest {
			names = append(names, s.Name)
		}
	}
	return names
}

// place is where a branch is.
type place struct {
	branch, tip string
	kept        bool // the position was read
	fresh       bool // the sink is new
}

// open begins the stream of a sink on a branch where it was told so far.
func (c *Courier) open(ctx context.Context, s *sink, at place, p notify.Position) error {
	if !at.kept && !at.fresh {
		before, err := c.walks.before(ctx, at.tip, p.Since)
		if err != nil {
			return err
		}
		if p.At = before; before != "" && at.branch == c.options.Branch {
			p.At = notify.Mark(before, p.Since) // what ended before that is none of its news
		}
	}
	x := &stream{Stream: notify.Open(p), key: key{s.Name, at.branch}, sink: s}
	if at.kept {
		x.kept = string(encode(p))
	}
	n, found, err := c.walks.left(ctx, c.view(s, at.branch), at.tip, p)
	if err != nil {
		return err
	}
	if !found {
		c.options.Logger.Error("how far a sink was told is not in the history of the branch any more; it is told what happens from now on",
			"sink", s.Name, "branch", at.branch, "position", p.At)
		x.Stream, n = notify.Open(notify.Position{Since: p.Since, At: at.tip}), 0
	}
	x.waiting = n
	c.add(x, at.tip)
	return nil
}

func (c *Courier) add(x *stream, tip string) {
	x.tip = tip
	x.SetTip(tip)
	c.streams[x.key] = x
	c.sort()
	c.count(x.key.sink, func(k *Counts) { k.Waiting += x.waiting })
}

func (c *Courier) sort() {
	c.order = slices.SortedFunc(maps.Values(c.streams), func(a, b *stream) int { return compareKeys(a.key, b.key) })
}

func (c *Courier) close(s *stream) {
	c.count(s.key.sink, func(k *Counts) { k.Waiting -= s.waiting })
	delete(c.streams, s.key)
	c.sort()
}

// moved takes in where a branch is now.
func (c *Courier) moved(ctx context.Context, s *stream, tip string) {
	if tip == s.tip || tip == "" && s.branch == c.options.Branch {
		return
	}
	n, found, err := c.walks.between(ctx, c.view(s.sink, s.branch), tip, s.tip)
	if err != nil {
		c.trouble("the news of "+s.branch+" can't be read", err)
		return
	}
	if !found {
		c.options.Logger.Error("a branch was rewritten; its sinks are told what happens from now on", "sink", s.key.sink, "branch", s.branch)
		c.close(s)
		c.add(&stream{Stream: notify.Open(notify.Position{Since: s.Position().Since, At: tip}), key: s.key, sink: s.sink}, tip)
		return
	}
	s.tip = tip
	s.SetTip(tip)
	s.waiting += n
	c.count(s.key.sink, func(k *Counts) { k.Waiting += n })
}

// view is what a sink wants of a branch, by the newest commit.
func (c *Courier) view(s *sink, branch string) view {
	newest := c.options.Newest()
	return view{branch, func(n notify.Notification) bool { return s.Wants(n, newest) }, newest}
}

// advance reads and sends what can be read and sent now for one stream.
func (c *Courier) advance(ctx context.Context, now time.Time, s *stream) (wake time.Time) {
	if s.again.After(now) {
		return s.again
	}
	for {
		if r, ok := s.Needs(); ok {
			items, upTo, err := c.walks.read(ctx, c.view(s.sink, s.branch), r)
			if err != nil {
				if ctx.Err() == nil {
					c.trouble("the news of "+s.branch+" can't be read", err)
				}
				s.again = now.Add(lookAgain)
				return s.again
			}
			s.Feed(r, items, upTo)
			continue
		}
		if s.Idle() && s.waiting != 0 { // what is wanted has changed meanwhile
			n := s.waiting
			s.waiting = 0
			c.count(s.key.sink, func(k *Counts) { k.Waiting -= n })
		}
		may, again := s.sink.May(now, s.sink.underWay)
		if !may {
			return again
		}
		n, ok, again := s.Next(now)
		if !ok {
			if _, more := s.Needs(); more {
				continue
			}
			return again
		}
		s.sink.underWay++
		to := s.sink.Sink
		c.jobs.Go(func() {
			c.answers <- answer{s, s.branch + " " + n.Lane(), n.ID, now, c.sender.send(ctx, to, n, now)}
		})
		return time.Time{}
	}
}

// answered takes in what came of a request.
func (c *Courier) answered(a answer) {
	now := c.options.Clock()
	s, to := a.stream, a.stream.sink
	to.underWay--
	if c.streams[s.key] != s {
		return // not ours any more
	}
	share := rand.Float64()
	if to.Heard(a.lane, a.ruling, a.sent, now, share) {
		for _, x := range c.order {
			if x.sink == to {
				x.Hurry()
			}
		}
	}
	result := s.Done(a.ruling, now, share)
	switch {
	case result.Taken:
		c.count(to.Name, func(k *Counts) { k.Sent++ })
	case result.Dropped:
		c.count(to.Name, func(k *Counts) { k.Failed++; k.GivenUp++ })
		c.options.Logger.Error("news were given up", "sink", to.Name, "id", a.id, "error", a.ruling.Reason)
	default:
		c.count(to.Name, func(k *Counts) { k.Failed++ })
		c.options.Logger.Debug("news were not taken; they are sent again", "sink", to.Name, "id", a.id, "error", a.ruling.Reason)
	}
	if (result.Taken || result.Dropped) && s.waiting > 0 {
		s.waiting--
		c.count(to.Name, func(k *Counts) { k.Waiting-- })
	}
	down, reason := to.Down()
	switch {
	case down && !to.told:
		c.options.Logger.Error("a sink takes no news; they wait, and are sent again and again", "sink", to.Name, "error", reason)
	case !down && to.told:
		c.options.Logger.Info("a sink takes news again", "sink", to.Name)
	}
	to.told = down
}

// trouble tells of something that keeps news from being told, once.
func (c *Courier) trouble(what string, err error) {
	text := what + ": " + err.Error()
	if text != c.failing {
		c.failing = text
		c.options.Logger.Error(what, "error", err)
	}
}
