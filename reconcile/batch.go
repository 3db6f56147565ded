package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// batch is what one push writes.
type batch struct {
	ctx     context.Context // of the turn that makes it
	clerk   *Clerk
	now     time.Time
	records map[Key]ledger.Record // after the entries
	pages   map[desired.EnvironmentName][]page
	moves   []move
	// finds are what came to be known of artifacts.
	finds []artifact.Taken
	// withheld: moves have to wait for another batch.
	withheld bool
	// answers are the requests that are answered when the batch is pushed.
	answers []answer
	// taken are the results of checks that are recorded by it.
	taken []checked
	// said is what the entries say that move nothing.
	said map[statement]bool
}

// page is one entry and the files that it changes.
type page struct {
	entry   ledger.Entry
	record  ledger.Record
	objects *Target // what was applied, if the entry says so
}

// move is one commit on the main branch.
type move struct {
	Key
	origin    Key // whose review or admission has led to it
	promotion *policy.Promotion
	retreat   *policy.Retreat
}

// compare puts the ways back before those ahead.
func (m move) compare(other move) int {
	if back := m.retreat != nil; back != (other.retreat != nil) {
		if back {
			return -1
		}
		return 1
	}
	return m.Key.Compare(other.Key)
}

func newBatch(ctx context.Context, c *Clerk, now time.Time) *batch {
	return &batch{
		ctx: ctx, clerk: c, now: now,
		records: map[Key]ledger.Record{},
		pages:   map[desired.EnvironmentName][]page{},
		said:    map[statement]bool{},
	}
}

// record returns a service's record as the batch leaves it.
func (b *batch) record(k Key) ledger.Record {
	if r, ok := b.records[k]; ok {
		return r
	}
	return b.clerk.record(k)
}

// changes tells whether the batch changes a service's record.
func (b *batch) changes(k Key) bool {
	_, ok := b.records[k]
	return ok
}

// add puts an entry into the batch; one that the record does not allow is an
// error, and nothing is added.
func (b *batch) add(k Key, e ledger.Entry) error {
	e.Environment, e.Service, e.Time = k.Environment, k.Service, b.now
	r, err := b.record(k).Apply(e)
	if err != nil {
		return err
	}
	b.put(k, page{entry: e, record: r})
	return nil
}

func (b *batch) put(k Key, p page) {
	b.records[k] = p.record
	b.pages[k.Environment] = append(b.pages[k.Environment], p)
}

func (b *batch) empty() bool {
	return len(b.pages) == 0 && len(b.moves) == 0 && len(b.finds) == 0
}

// signature is the author and committer of what a batch writes.
func (c *Clerk) signature(b *batch) gitstate.Signature {
	return gitstate.Signature{Name: c.options.Identity.Name, Email: c.options.Identity.Email, Time: b.now}
}

// changesOf returns the commits of the ledgers, then what is known of artifacts,
// and then those of the main branch with the deployment that each of them changes.
func (c *Clerk) changesOf(b *batch) ([]gitstate.Change, []Key, error) {
	who := c.signature(b)
	var all []gitstate.Change
	for _, env := range slices.Sorted(maps.Keys(b.pages)) {
		expected := ""
		if book := c.books[env]; book != nil {
			expected = book.tip
		}
		for i, p := range b.pages[env] {
			files := map[string][]byte{ledger.RecordFile(p.record.Service): p.record.Encode()}
			if p.objects != nil {
				var objects [][]byte
				full, err := p.objects.whole()
				if err != nil {
					return nil, nil, err
				}
				for _, o := range full.Result.All() {
					object := o.JSON
					if len(o.Hidden) > 0 {
						if object, err = render.MaskJSON(o.JSON, o.Hidden); err != nil {
							return nil, nil, fmt.Errorf("write down what was applied of %s/%s: %w", env, p.record.Service, err)
						}
					}
					objects = append(objects, object)
				}
				data, err := ledger.EncodeManifests(objects, c.options.Digests)
				if err != nil {
					return nil, nil, fmt.Errorf("write down what was applied of %s/%s: %w", env, p.record.Service, err)
				}
				files[ledger.ManifestsFile(p.record.Service)] = data
			}
			change := gitstate.Change{
				Branch: ledger.Branch(env), Files: files, Message: p.entry.Message(),
				Author: who, Committer: who, AllowEmpty: true, Sign: c.options.Sign,
				Guard: c.termOf(env).Check,
			}
			if i == 0 {
				change.Expected = expected
			}
			all = append(all, change)
		}
	}
	all = append(all, c.finds(b, who)...)
	first := len(all)
	var keys []Key
	drafts := map[desired.EnvironmentName]*draft{}
	for _, m := range b.moves {
		file := environmentFile(m.Environment)
		d := drafts[m.Environment]
		if d == nil {
			var err error
			if d, err = c.draft(m.Environment); err != nil {
				return nil, nil, err
			}
			drafts[m.Environment] = d
		}
		blob, message, err := m.write(d)
		if err != nil {
			// Somebody has to mend the file; the others move on.
			c.report(Event{Type: EventProblem, Environment: m.Environment, Service: m.Service, Message: "the promotion can't be written: " + err.Error()})
			continue
		}
		commit := gitstate.Change{
			Blobs: map[string]*gitstate.Blob{file: blob}, Message: message,
			Author: who, Committer: who, Sign: c.options.Sign,
			Guard: c.termOf(m.Environment).Check,
		}
		if len(all) == first {
			commit.Expected = c.commit.ID
		}
		all = append(all, commit)
		keys = append(keys, m.Key)
	}
	return all, keys, nil
}

// write puts the move into an environment's file, and returns that and the
// message of the commit.
func (m move) write(d *draft) (*gitstate.Blob, string, error) {
	if m.promotion != nil {
		return d.promote(m.promotion)
	}
	edit, change := retreat(*m.retreat)
	blob, err := d.write(edit)
	return blob, change.Message(), err
}

// push writes the batch onto the tips that it was decided on. It says whether
// anything was written, or is to be judged again at once.
func (c *Clerk) push(ctx context.Context, b *batch) (bool, error) {
	c.divide(b)
	moving, rest := len(b.moves) > 0, 0
	switch {
	case moving && c.press.share > 0:
		rest = len(c.stages)
	case !moving && !b.withheld:
		c.press.put(time.Now(), 0)
		clear(c.drafts) // they are as large as all that was pushed
	}
	if b.empty() {
		c.answer(b)
		return false, nil
	}
	changes, keys, err := c.changesOf(b)
	if err != nil {
		c.abandon(b)
		return false, err
	}
	if len(changes) == 0 {
		b.moves = nil
		c.answer(b)
		return false, nil
	}
	// Only one of both works on what is the clerk's, for the push waits.
	ahead := func() []gitstate.Change { return c.foresee(ctx, b) }
	groups := [][]gitstate.Change{changes}
	if time.Now().Before(c.apart) {
		groups = byBranch(changes)
	}
	var ids []string
	var errs []error
	for _, group := range groups {
		start := time.Now()
		got, err := c.options.Mirror.PushAhead(ctx, group, ahead)
		ahead = func() []gitstate.Change { return nil }
		entries, moves := 0, 0
		for i, change := range group {
			switch {
			case got[i] != "" && change.Branch == "":
				moves++
			case got[i] != "" && change.Branch != artifact.Branch:
				entries++
			case got[i] != "":
			case errors.Is(err, gitstate.ErrUnknown):
				c.claim(change.Message)
			}
		}
		c.pace.push(time.Now())
		c.options.Pushed(entries, moves, time.Since(start))
		ids = append(ids, got...)
		errs = append(errs, err)
	}
	wrote := c.written(ctx, b, ids, keys)
	if err := errors.Join(errs...); err != nil {
		var ofMain error // if nothing else can be meant
		if last := groups[len(groups)-1]; last[0].Branch == "" {
			ofMain = errs[len(errs)-1]
		}
		return c.failed(ctx, b, wrote, len(byBranch(changes)) > len(groups), ofMain, err)
	}
	if moving {
		c.press.wrote(time.Now(), rest)
	}
	return true, nil
}

// divide leaves as many moves in the batch as can be pushed before others move
// main again. The rest is judged by the next one.
func (c *Clerk) divide(b *batch) {
	slices.SortFunc(b.moves, move.compare)
	now := time.Now()
	if c.press.share == 0 && c.press.busy(now) {
		c.press.lost(now, len(b.moves))
	}
	if most := c.press.most(); len(b.moves) > most {
		for _, m := range b.moves[most:] {
			c.again(m)
		}
		b.moves = b.moves[:most]
	}
}

// byBranch takes a push apart.
func byBranch(changes []gitstate.Change) [][]gitstate.Change {
	var groups [][]gitstate.Change
	for i, change := range changes {
		if i == 0 || change.Branch != changes[i-1].Branch {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], change)
	}
	return groups
}

// claim notes the message of a commit that may be on the remote.
func (c *Clerk) claim(message string) {
	if len(c.claimed) > mostClaimed {
		clear(c.claimed)
	}
	c.claimed[asCommitted(message)] = ""
}

// asCommitted is a message as a commit has it.
func asCommitted(message string) string { return strings.TrimRight(message, "\n") + "\n" }

// mostClaimed bounds what is kept of pushes whose fate is not known.
const mostClaimed = 20_000

// abandon makes what a batch was about be judged again, from what is true then.
func (c *Clerk) abandon(b *batch) {
	for k := range b.records {
		c.touch(k)
	}
	for _, m := range b.moves {
		c.again(m)
	}
	c.putBack(b)
}

// again makes a move be judged again.
func (c *Clerk) again(m move) {
	c.stages[m.Key] = true
	if m.retreat != nil {
		c.dirty[m.Key], c.dirty[m.origin] = true, true
	}
}

// failed finds out what is true now. What of the batch is not on the remote is
// judged again.
func (c *Clerk) failed(ctx context.Context, b *batch, wrote, together bool, ofMain, err error) (bool, error) {
	c.abandon(b)
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	_, fetchErr := c.options.Mirror.Fetch(ctx)
	lost := errors.Is(err, gitstate.ErrMoved)
	refused := errors.Is(err, gitstate.ErrRefused)
	var over *cluster.LostError
	switch {
	case errors.As(err, &over):
		return true, nil // what is ours still is judged again
	case lost && c.overtaken(b):
		now := time.Now()
		if c.press.lost(now, len(b.moves)); len(b.moves) > 0 {
			c.press.missed()
		}
		if since, say := c.press.starves(now); say {
			c.report(Event{Type: EventWarning, Message: fmt.Sprintf("%d or more promotions and rollbacks wait, and none has landed since %s: whenever one of them is pushed, others have moved %s meanwhile; they are tried again, and land when the others pause for as long as a push takes",
				c.press.left, since.UTC().Format(time.RFC3339), c.options.Branch)})
		}
		return true, nil
	case together && (lost || refused):
		// One branch keeps the others out, it is not always known which.
		c.apart = time.Now().Add(apartFor)
		return true, nil
	case errors.Is(ofMain, gitstate.ErrRefused):
		// The ledgers go on without the main branch.
		c.stuck, c.barred = c.options.Clock().Add(refusedForNow), ofMain
		return true, nil
	case wrote:
		return true, nil
	case refused:
		err = fmt.Errorf("allow the daemon's account to create the branches %s* and %s, and to push to them: %w", gitstate.LedgerPrefix, artifact.Branch, err)
	}
	return false, errors.Join(err, fetchErr)
}

// overtaken tells whether any of the branches that the batch was judged on is
// elsewhere now.
func (c *Clerk) overtaken(b *batch) bool {
	if tip, ok := c.options.Mirror.Tip(); len(b.moves) > 0 && (!ok || tip != c.commit.ID) {
		return true
	}
	tips := c.options.Mirror.Branches()
	if len(b.finds) > 0 && tips[artifact.Branch] != c.shelf.At() {
		return true
	}
	for env := range b.pages {
		judged := ""
		if book := c.books[env]; book != nil {
			judged = book.tip
		}
		if tips[ledger.Branch(env)] != judged {
			return true
		}
	}
	return false
}

// written takes in what of a batch is on the remote, and leaves the rest of it.
func (c *Clerk) written(ctx context.Context, b *batch, ids []string, keys []Key) bool {
	n, any := 0, false
	for _, env := range slices.Sorted(maps.Keys(b.pages)) {
		pages := b.pages[env]
		landed := ids[n : n+len(pages)]
		n += len(pages)
		if landed[0] == "" {
			continue
		}
		any = true
		next := &book{records: map[desired.ServiceName]ledger.Record{}}
		if old := c.books[env]; old != nil {
			*next = *old
		}
		for i, p := range pages {
			next.memory.wrote(next.tip, landed[i], p.entry)
			next.tip = landed[i]
			next.records[p.record.Service] = p.record
			c.options.Known(p.record)
			k := Key{env, p.record.Service}
			c.touch(k)
			delete(b.records, k)
			if p.entry.Drift != nil {
				c.card(k).forget(p.entry.Drift, time.Time{})
			}
			if isAnnouncement(p.entry) {
				c.stranger, c.told = nil, time.Now()
			}
			c.report(Event{Type: EventRecorded, Environment: env, Service: k.Service, Version: p.entry.Release.Version(),
				Commit: commitOf(p.entry, p.record), Deployment: p.entry.Deployment, Recorded: next.tip, Entry: &p.entry, Record: &p.record, Message: subject(p.entry.Message())})
		}
		c.books[env] = next
		c.noteWhole(env, next)
		delete(b.pages, env)
	}
	n, any = c.shelved(b, ids, n, any)
	for i, k := range keys {
		id := ids[n+i]
		if id == "" {
			continue
		}
		any = true
		c.lineage.wrote(id, k)
		c.stages[k] = true
		b.moves = slices.DeleteFunc(b.moves, func(m move) bool { return m.Key == k })
		c.report(Event{Type: EventMoved, Environment: k.Environment, Service: k.Service, Commit: id, Message: "committed " + short(id) + " to " + c.options.Branch})
		c.options.Mirror.Poke()
	}
	c.answer(b)
	c.recorded(ctx, b)
	return any
}

// commitOf is the commit that the deployment of an entry comes from; "": it is
// that of a candidate, or of a deployment that the record has no longer.
func commitOf(e ledger.Entry, r ledger.Record) string {
	if e.Commit == "" && e.Deployment != "" && e.Deployment == r.Deployment.ID {
		return r.Deployment.Commit
	}
	return e.Commit
}

func subject(message string) string {
	first, _, _ := strings.Cut(message, "\n")
	return first
}
