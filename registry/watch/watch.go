// Package watch looks into the registries of what stages track.
//
// For each repository that a rule watches it lists the tags, and goes into the
// newest that the rule could choose and that is not known yet: to which digest
// it leads, and what the image says of its build. That, and nothing of other
// tags, is handed on to be recorded on the branch of artifacts, by the same
// function by which a publisher's word is; which version enters a stage is
// decided there. It also looks whether the tags that are pinned, and the newest
// that are known, still lead to the digests that they are bound to, and hands on
// if one does not. Where a rule wants versions to be signed, it looks for the
// signatures of those that the rule would choose, in all places where cosign puts
// them, and hands on by which keys of the repository they are.
//
// A repository whose tags could not all be read is as if it was not looked at:
// of half a list the newest is not the newest. A tag that can't be read, or whose
// content is not that of its digest, is told and left out, and the next newest
// one is gone into; but when the registry itself fails, the look is over. When
// the next one is, [agenda] decides.
//
// It keeps nothing but, in memory, which tags were gone into for nothing. After a
// crash it looks again, and what is recorded already is not recorded twice.
package watch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/registry"
	"github.com/pinion-cd/pinion/registry/agenda"
)

// DefaultPoll is the time between two looks at a repository.
const DefaultPoll = time.Minute

const (
	// What one look may go into, and how many known tags it asks for again.
	mostImages  = 20
	mostChecked = 5
	mostTried   = 10_000 // that are kept of one repository
	mostAgain   = 5      // of these, that one look asks for again
	mostFaults  = 5      // that are told of one repository
	// A tag that can't be read or taken is in nobody's way until the next poll, and
	// twice as long each time, up to this; or until somebody says that there is
	// something new.
	longestUnread = 10 * time.Minute
	// But when something was pushed just now, what could not be read may be it: less
	// than the agenda's time until its second look.
	askedLately = 4 * time.Second
	recordTime  = 2 * time.Minute
)

// Options are what a Watcher works with.
type Options struct {
	Client *registry.Client
	Poll   time.Duration // 0: DefaultPoll
	// Record has what was found pushed; it returns when that is so.
	Record func(context.Context, []artifact.Sighting) error
	// Tell is called, from any goroutine, with what somebody should know; bad, if
	// it stands in the way of something.
	Tell func(text string, bad bool)
}

// Watcher looks into registries. A nil one does nothing.
type Watcher struct {
	options Options
	woken   chan struct{} // capacity 1

	mu     sync.Mutex // guards what follows
	agenda *agenda.Agenda
	rules  map[string][]desired.Tracked // by repository
	shelf  *artifact.Shelf
	// tried are tags that were gone into for nothing, by repository.
	tried map[string]map[string]other
	// unread are tags that could not be read or taken, by repository.
	unread  map[string]map[string]fault
	news    map[string]bool                 // repositories that somebody has named since they were last looked at
	trouble map[string]string               // the last that was told of a repository
	looked  map[string]map[string]time.Time // when digests that lack a signature were last asked for one, by repository
	down    map[string]string               // what the last look at a registry that fails has met
	asked   map[string]bool                 // images that are asked for signatures
}

// New returns a watcher.
func New(o Options) *Watcher {
	if o.Poll <= 0 {
		o.Poll = DefaultPoll
	}
	return &Watcher{options: o, woken: make(chan struct{}, 1), agenda: agenda.Make(o.Poll),
		rules: map[string][]desired.Tracked{}, tried: map[string]map[string]other{}, unread: map[string]map[string]fault{}, news: map[string]bool{}, trouble: map[string]string{}, down: map[string]string{}, looked: map[string]map[string]time.Time{}}
}

// Know takes in what is tracked and what is known; it never waits.
func (w *Watcher) Know(tracked []desired.Tracked, shelf *artifact.Shelf) {
	if w == nil {
		return
	}
	rules := map[string][]desired.Tracked{}
	for _, t := range tracked {
		if r := artifact.Normal(t.Pin.Image.Repository); t.Watches() {
			rules[r] = append(rules[r], t)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for r := range w.rules {
		if rules[r] == nil {
			delete(w.tried, r)
			delete(w.unread, r)
			delete(w.news, r)
			delete(w.trouble, r)
			delete(w.looked, r)
		}
	}
	w.rules, w.shelf = rules, shelf
	w.agenda.Set(time.Now(), slices.Collect(maps.Keys(rules)))
	hosts := w.agenda.Hosts()
	maps.DeleteFunc(w.down, func(host, _ string) bool { _, there := hosts[host]; return !there })
	asked := map[string]bool{}
	for r, all := range rules {
		for _, t := range all {
			near, _ := unsigned(t, shelf)
			for _, x := range near {
				image := x.Reference()
				if asked[image] = true; !w.asked[image] {
					w.agenda.Wake(time.Now(), r) // nobody has looked yet whether it is signed
				}
			}
		}
	}
	w.asked = asked
	w.wake()
}

// Notify has the repositories looked at that a notification names, with their
// registry or without. Others are nothing to it.
func (w *Watcher) Notify(named []string) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for repository := range w.rules {
		_, path, _ := strings.Cut(repository, "/")
		if slices.ContainsFunc(named, func(n string) bool { return n == path || artifact.Normal(n) == repository }) {
			w.agenda.News(time.Now(), repository)
			delete(w.unread, repository)
			w.news[repository] = true
		}
	}
	w.wake()
}

func (w *Watcher) wake() {
	select {
	case w.woken <- struct{}{}:
	default:
	}
}

// Hosts returns how it is with each registry.
func (w *Watcher) Hosts() map[string]agenda.Host {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.agenda.Hosts()
}

// Reading is how the looks at a repository go.
type Reading struct {
	agenda.State
	// Problem is why it can't be read, or, if it can, what is wrong with single
	// tags of it; "": nothing.
	Problem string
}

// Reading returns how the looks at a repository go; ok is false if it is not
// looked at here.
func (w *Watcher) Reading(repository string) (r Reading, ok bool) {
	if w == nil {
		return r, false
	}
	repository = artifact.Normal(repository)
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.State, ok = w.agenda.State(repository); !ok {
		return r, false
	}
	if r.Problem = w.trouble[repository]; r.Problem == "" && !r.Failing.IsZero() {
		r.Problem = w.down[agenda.HostOf(repository)]
	}
	return r, true
}

// Run looks until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	if w == nil {
		return
	}
	var looks sync.WaitGroup
	defer looks.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.woken:
		case <-timer.C:
		}
		for {
			l, at := w.next(time.Now())
			if l == nil {
				if !at.IsZero() {
					timer.Reset(time.Until(at))
				}
				break
			}
			looks.Go(func() {
				err := l.look(ctx)
				if ctx.Err() != nil {
					return
				}
				w.done(l, err)
			})
		}
	}
}

// next returns the look that is due, or when the next one is.
func (w *Watcher) next(now time.Time) (*look, time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	repository, ok, at := w.agenda.Next(now)
	if !ok {
		return nil, at
	}
	delete(w.news, repository)
	l := &look{options: w.options, repository: repository, eager: w.agenda.Fresh(now, repository), rules: w.rules[repository], shelf: w.shelf,
		tried: maps.Clone(w.tried[repository]), unread: maps.Clone(w.unread[repository]),
		asked: map[string]bool{}, looked: map[string]time.Time{}, lack: map[string]time.Time{}}
	maps.Copy(l.looked, w.looked[repository])
	return l, at
}

// done takes in what became of a look, and tells what is new of it.
func (w *Watcher) done(l *look, err error) {
	o := agenda.Outcome{Failed: err != nil}
	if err != nil {
		l.lack = l.looked // not all of it was found out
	}
	failed, ok := errors.AsType[*registry.Error](err)
	o.Host = ok && failed.Host
	if busy, ok := errors.AsType[*registry.BusyError](err); ok {
		o.Until = busy.Until
	}
	text := ""
	if err = errors.Join(append(l.wrong(), err)...); err != nil {
		text = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	w.mu.Lock()
	w.agenda.Done(time.Now(), l.repository, o, rand.Float64())
	if l.more && l.further { // else the next look would come no further
		w.agenda.Wake(time.Now(), l.repository)
	}
	if delete(w.down, agenda.HostOf(l.repository)); o.Host {
		w.down[agenda.HostOf(l.repository)] = failed.Error()
	}
	before := w.trouble[l.repository]
	if w.rules[l.repository] != nil {
		w.tried[l.repository], w.trouble[l.repository], w.looked[l.repository] = l.tried, text, l.lack
		if !w.news[l.repository] {
			w.unread[l.repository] = l.unread
		}
	}
	w.wake()
	w.mu.Unlock()
	switch {
	case text == before:
	case text != "":
		w.options.Tell("watch registries: "+text, true)
	default:
		w.options.Tell(l.repository+" can be read again", false)
	}
}

// look is one look at one repository.
type look struct {
	options    Options
	repository string
	rules      []desired.Tracked
	shelf      *artifact.Shelf
	tried      map[string]other
	unread     map[string]fault
	eager      bool    // something was pushed just now
	faults     []error // of tags that are asked for each time
	images     int
	asked      map[string]bool      // digests, for their signatures
	looked     map[string]time.Time // digests, when they were last asked for one
	lack       map[string]time.Time // those of them that lack one still
	further    bool                 // something was gone into that the next look need not
	more       bool                 // there was no place for all that is new
	sightings  []artifact.Sighting
}

// fault is what is wrong with a tag, and when that is looked at again.
type fault struct {
	err   error
	times int // in a row
	at    time.Time
	until time.Time
}

// spares tells whether a tag is not asked for, since it could not be read lately.
func (l *look) spares(tag string, now time.Time) bool {
	f, ok := l.unread[tag]
	return ok && now.Before(f.until) && !(l.eager && now.Sub(f.at) >= askedLately)
}

// fault keeps what is wrong with a tag.
func (l *look) fault(tag string, err error) {
	if l.unread == nil {
		l.unread = map[string]fault{}
	}
	f, known := l.unread[tag]
	if !known && len(l.unread) >= mostTried {
		return
	}
	wait := l.options.Poll
	if wait < longestUnread {
		wait = min(wait<<min(f.times, 10), longestUnread)
	}
	now := time.Now()
	l.unread[tag], l.further = fault{err, f.times + 1, now, now.Add(wait)}, true
}

// wrong is what is wrong with single tags.
func (l *look) wrong() []error {
	all := slices.Clone(l.faults)
	for _, tag := range slices.Sorted(maps.Keys(l.unread)) {
		all = append(all, l.unread[tag].err)
	}
	if n := len(all) - mostFaults; n > 0 {
		all = append(all[:mostFaults], fmt.Errorf("and %d more tags", n))
	}
	return all
}

// look finds what is new in the repository, and has it recorded. Even if that
// fails, or something was found before the registry failed, what has been found
// is the truth.
func (l *look) look(ctx context.Context) error {
	var err error
	if slices.ContainsFunc(l.rules, func(t desired.Tracked) bool { return t.Watch }) {
		err = l.versions(ctx)
	}
	for _, t := range l.rules {
		if err == nil {
			err = l.signatures(ctx, t)
		}
	}
	if len(l.sightings) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, recordTime)
	defer cancel()
	if no := l.options.Record(ctx, l.sightings); no != nil {
		err = errors.Join(err, fmt.Errorf("record what was found in %s: %w", l.repository, no))
	}
	return err
}

// versions finds what is new of versions.
func (l *look) versions(ctx context.Context) error {
	tags, err := l.options.Client.Tags(ctx, l.repository)
	if err != nil {
		return err
	}
	listed := map[string]bool{}
	for _, t := range tags {
		listed[t] = true
	}
	for t := range l.tried {
		if !listed[t] {
			delete(l.tried, t)
		}
	}
	maps.DeleteFunc(l.unread, func(tag string, _ fault) bool { return !listed[tag] })
	if err = l.check(ctx, listed); err == nil {
		err = l.again(ctx)
	}
	for _, t := range l.rules {
		if err == nil && t.Watch {
			err = l.find(ctx, t, tags)
		}
	}
	return err
}

// other is a tag that was built from a branch which no rule wanted: to what it led
// then, and when it was last asked whether it does.
type other struct {
	branch, digest string
	asked          time.Time
}

// again asks whether tags that were gone into for nothing lead elsewhere by now,
// those first that were not asked for the longest: one that was pushed anew, from
// another branch, is bound to nothing yet, and may be gone into once more.
func (l *look) again(ctx context.Context) error {
	tags := slices.SortedFunc(maps.Keys(l.tried), func(a, b string) int {
		return cmp.Or(l.tried[a].asked.Compare(l.tried[b].asked), cmp.Compare(a, b))
	})
	for _, tag := range tags[:min(len(tags), mostAgain)] {
		if !l.eager && time.Since(l.tried[tag].asked) < l.options.Poll {
			return nil
		}
		got, err := l.options.Client.Head(ctx, l.repository, tag)
		if e, ok := errors.AsType[*registry.Error](err); err != nil && (ctx.Err() != nil || ok && e.Host) {
			return err
		}
		x := l.tried[tag]
		if x.asked = time.Now(); err == nil && got.Digest != x.digest {
			delete(l.tried, tag)
			continue
		}
		l.tried[tag] = x // what can't be read of a tag that nobody wants is nobody's trouble
	}
	return nil
}

// find goes into the newest tags that a rule could choose, until one is the
// newest indeed.
func (l *look) find(ctx context.Context, t desired.Tracked, tags []string) error {
	image := t.Pin.Image
	present, err := t.Rule.Read(l.shelf.Tag(image.Repository, image.Version, image.Digest))
	if err != nil {
		return nil // whether anything is newer can't be told, as the stage says itself
	}
	tried := map[string]bool{}
	for {
		tag, ok := l.shelf.Next(t.Rule, t.Sources(), l.repository, present, tags, func(tag string) bool {
			x, known := l.tried[tag]
			return tried[tag] || known && refusesBranch(t.Rule, tag, x.branch) || l.spares(tag, time.Now())
		})
		if !ok {
			return nil
		}
		if l.images++; l.images > mostImages {
			l.more = true
			return nil
		}
		found, err := l.options.Client.Image(ctx, l.repository, tag)
		if err != nil {
			if e, ok := errors.AsType[*registry.Error](err); ctx.Err() != nil || ok && e.Host {
				return err
			}
			tried[tag] = true
			l.fault(tag, err)
			continue
		}
		facts, unsound := artifact.FactsOf(found.Labels, found.Created)
		if refusesBranch(t.Rule, tag, facts.Branch) {
			delete(l.unread, tag)
			if l.tried == nil {
				l.tried = map[string]other{}
			}
			if tried[tag] = true; len(l.tried) < mostTried {
				l.tried[tag], l.further = other{facts.Branch, found.Digest, time.Now()}, true
			}
			continue
		}
		for _, text := range unsound {
			l.options.Tell(fmt.Sprintf("a label of %s:%s is left out: %s", l.repository, tag, text), true)
		}
		tried[tag] = true // whatever comes of it, it was gone into
		if err := l.sight(artifact.Sighting{Version: tag, Digest: found.Digest, Facts: facts, Origin: artifact.FromRegistry}); err != nil {
			l.fault(tag, err)
			continue
		}
		delete(l.unread, tag)
		if r, ok := l.shelf.Lookup(l.repository, tag); ok && len(t.Keys) > 0 {
			if err := l.sign(ctx, t, r); err != nil {
				return err
			}
		}
	}
}

func refusesBranch(r artifact.Rule, tag, branch string) bool {
	v, err := r.Read(tag)
	return err != nil || r.Allows(v, branch) != nil
}

// sight keeps what is to be recorded, and goes on as if it was.
func (l *look) sight(x artifact.Sighting) error {
	x.Repository, x.Time = l.repository, time.Now()
	taken, err := l.shelf.Take(x)
	if err != nil {
		return err
	}
	if taken.Event == "" {
		if taken.Refused != "" {
			return errors.New(taken.Refused)
		}
		return nil
	}
	l.sightings, l.further = append(l.sightings, x), true
	l.shelf = l.shelf.With(l.shelf.At(), taken.Record)
	return nil
}

// check asks whether known tags lead where they led: those that are pinned, and
// the newest.
func (l *look) check(ctx context.Context, listed map[string]bool) error {
	for _, tag := range l.known() {
		known, _ := l.shelf.Lookup(l.repository, tag)
		if !listed[tag] {
			continue // it was deleted, and stays bound
		}
		got, err := l.options.Client.Head(ctx, l.repository, tag)
		switch e, ok := errors.AsType[*registry.Error](err); {
		case registry.NotFound(err):
			continue
		case err != nil && (ctx.Err() != nil || ok && e.Host):
			return err
		case err != nil:
			l.faults = append(l.faults, err)
			continue
		case got.Digest == known.Digest:
			continue
		}
		// That it leads elsewhere is for ever, so there has to be something.
		if _, err := l.options.Client.Manifest(ctx, l.repository, got.Digest); err != nil {
			l.faults = append(l.faults, err)
			continue
		}
		if err := l.sight(artifact.Sighting{Version: tag, Digest: got.Digest, Origin: artifact.FromRegistry}); err != nil {
			l.faults = append(l.faults, err)
		}
	}
	return nil
}

// known returns the known tags that are pinned, or the newest of a rule.
func (l *look) known() []string {
	var all []string
	for _, t := range l.rules {
		image := t.Pin.Image
		tag := l.shelf.Tag(image.Repository, image.Version, image.Digest)
		if _, ok := l.shelf.Lookup(l.repository, tag); ok {
			all = append(all, tag)
		}
		var newest []artifact.Version
		for _, r := range l.shelf.Versions(l.repository) {
			if v, err := t.Rule.Read(r.Version); err == nil {
				newest = append(newest, v)
			}
		}
		slices.SortFunc(newest, func(a, b artifact.Version) int { return b.Compare(a) })
		for _, v := range newest[:min(len(newest), mostChecked)] {
			all = append(all, v.Tag)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
