package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
)

// batch is what one push writes.
type batch struct {
	ctx     context.Context // of the turn that makes it
	clerk   *Clerk
	now     time.Time
	records map[Key]ledger.Record // after the entries
	pages   map[desired.EnvironmentName][]page
	moves   []move
	// answers are the requests that are answered when the batch is pushed.
	answers []answer
	// taken are the results of checks that are recorded by it.
	taken []checked
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
	promotion *policy.Promotion
	retreat   *policy.Retreat
}

func newBatch(ctx context.Context, c *Clerk, now time.Time) *batch {
	return &batch{
		ctx: ctx, clerk: c, now: now,
		records: map[Key]ledger.Record{},
		pages:   map[desired.EnvironmentName][]page{},
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

func (b *batch) empty() bool { return len(b.pages) == 0 && len(b.moves) == 0 }

// entries counts them.
func (b *batch) entries() int {
	n := 0
	for _, ps := range b.pages {
		n += len(ps)
	}
	return n
}

// changesOf returns the commits of the ledgers, and then those of the main
// branch with the deployment that each of them changes.
func (c *Clerk) changesOf(b *batch) ([]gitstate.Change, []Key, error) {
	who := gitstate.Signature{Name: c.options.Identity.Name, Email: c.options.Identity.Email, Time: b.now}
	var all []gitstate.Change
	for _, env := range slices.Sorted(maps.Keys(b.pages)) {
		expected := ""
		if book := c.books[env]; book != nil {
			expected = book.tip
		}
		for i, p := range b.pages[env] {
			files := map[string][]byte{ledger.RecordFile(p.record.Service): p.record.Encode()}
			if p.objects != nil {
				objects := make([][]byte, len(p.objects.Result.Objects))
				for i, o := range p.objects.Result.Objects {
					objects[i] = o.JSON
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
			}
			if i == 0 {
				change.Expected = expected
			}
			all = append(all, change)
		}
	}
	first := len(all)
	var keys []Key
	slices.SortFunc(b.moves, func(x, y move) int { return x.Key.Compare(y.Key) })
	editors := map[desired.EnvironmentName]*desired.Editor{}
	for _, m := range b.moves {
		file := environmentFile(m.Environment)
		ed := editors[m.Environment]
		if ed == nil {
			data, err := c.commit.Snapshot.ReadFile(file)
			if err != nil {
				return nil, nil, err
			}
			if ed, err = desired.NewEditor(file, data); err != nil {
				return nil, nil, err
			}
			editors[m.Environment] = ed
		}
		data, change, err := m.edit(ed)
		if err != nil {
			// Somebody has to mend the file; the others move on.
			c.report(Event{Type: EventProblem, Environment: m.Environment, Service: m.Service, Message: "the promotion can't be written: " + err.Error()})
			continue
		}
		commit := gitstate.Change{
			Files: map[string][]byte{file: data}, Message: change.Message(),
			Author: who, Committer: who, Sign: c.options.Sign,
		}
		if len(all) == first {
			commit.Expected = c.commit.ID
		}
		all = append(all, commit)
		keys = append(keys, m.Key)
	}
	return all, keys, nil
}

func (m move) edit(ed *desired.Editor) ([]byte, ledger.Change, error) {
	if m.promotion != nil {
		return Promote(*m.promotion, ed)
	}
	return GoBack(*m.retreat, ed)
}

// push writes the batch onto the tips that it was decided on. It says whether
// anything was written.
func (c *Clerk) push(ctx context.Context, b *batch) (bool, error) {
	if b.empty() {
		c.answer(b)
		return false, nil
	}
	changes, keys, err := c.changesOf(b)
	if err != nil {
		return false, err
	}
	if len(changes) == 0 {
		c.answer(b)
		return false, nil
	}
	start := time.Now()
	ids, err := c.options.Mirror.Push(ctx, changes)
	entries := len(changes) - len(keys)
	c.options.Pushed(entries, len(keys), time.Since(start))
	if err != nil {
		clear(c.claimed)
		for i, ch := range changes {
			if ids[i] != "" || errors.Is(err, gitstate.ErrUnknown) {
				c.claimed[strings.TrimRight(ch.Message, "\n")+"\n"] = true
			}
		}
		return c.failed(ctx, b, keys, err)
	}
	c.written(ctx, b, ids, keys)
	return true, nil
}

// failed makes everything be judged again, from what is true now.
func (c *Clerk) failed(ctx context.Context, b *batch, keys []Key, err error) (bool, error) {
	for k := range b.records {
		c.touch(k)
	}
	for _, m := range b.moves {
		c.dirty[m.Key], c.stages[m.Key] = true, true
	}
	c.putBack(b)
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if errors.Is(err, gitstate.ErrRefused) && len(keys) > 0 {
		// The ledgers go on without the main branch.
		c.stuck = c.options.Clock().Add(refusedForNow)
		c.complain(fmt.Errorf("%s refuses promotions and rollbacks: %w", c.options.Branch, err))
		return true, nil
	}
	if _, fetchErr := c.options.Mirror.Fetch(ctx); fetchErr != nil {
		return false, errors.Join(err, fetchErr)
	}
	if errors.Is(err, gitstate.ErrMoved) {
		return true, nil
	}
	return false, err
}

// written takes in that a batch is on the remote.
func (c *Clerk) written(ctx context.Context, b *batch, ids []string, keys []Key) {
	clear(c.claimed)
	n := 0
	for _, env := range slices.Sorted(maps.Keys(b.pages)) {
		old := c.books[env]
		next := &book{records: map[desired.ServiceName]ledger.Record{}}
		if old != nil {
			next.records = old.records
		}
		for _, p := range b.pages[env] {
			next.tip = ids[n]
			n++
			next.records[p.record.Service] = p.record
			k := Key{env, p.record.Service}
			c.touch(k)
			c.report(Event{Type: EventRecorded, Environment: env, Service: k.Service, Version: p.entry.Release.Version(),
				Commit: next.tip, Entry: &p.entry, Message: subject(p.entry.Message())})
		}
		c.books[env] = next
	}
	for i, k := range keys {
		id := ids[n+i]
		c.lineage.wrote(id, k)
		c.stages[k] = true
		c.report(Event{Type: EventMoved, Environment: k.Environment, Service: k.Service, Commit: id, Message: "committed " + short(id) + " to " + c.options.Branch})
	}
	c.answer(b)
	c.recorded(ctx, b)
	if len(keys) > 0 {
		c.options.Mirror.Poke()
	}
}

func subject(message string) string {
	first, _, _ := strings.Cut(message, "\n")
	return first
}
