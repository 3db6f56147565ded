package history

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
)

// Page is a part of a list. The next page begins behind an item and not at a
// number, so it stays right while more comes in.
type Page[T any] struct {
	Items []T `json:"items"`
	// Next is the cursor of the next page; empty: this is the last one.
	Next string `json:"next,omitempty"`
	// Truncated: there may be older ones, which are in the ledgers' entries alone.
	Truncated bool `json:"truncated,omitempty"`
}

// ErrCursor says that a cursor is none that a page has given.
var ErrCursor = errors.New("the cursor is none that a page has given")

// cursor names an item by the entry that it begins with.
func cursor(env desired.EnvironmentName, entry string) string { return string(env) + "@" + entry }

// Deployments lists the deployments that a query wants, the newest first, behind
// the cursor.
func (x *Index) Deployments(ctx context.Context, q DeploymentQuery, after string, limit int) (Page[*Deployment], error) {
	p := Page[*Deployment]{}
	var failure error
	err := x.wait(ctx, func() bool {
		p = Page[*Deployment]{Items: []*Deployment{}}
		all := x.filed.among(q)
		if after != "" {
			var last *slot
			if last, failure = x.behind(after); failure != nil || last == nil {
				return failure != nil
			}
			from, found := slices.BinarySearchFunc(all, last, (*slot).before)
			if found {
				from++
			}
			all = all[from:]
		}
		for _, s := range all {
			if !q.Since.IsZero() && s.now.Pinned.Before(q.Since) {
				break // so are all that follow
			}
			if q.Environment != "" && s.now.Environment != q.Environment || !q.wants(s.now) {
				continue
			}
			if len(p.Items) == limit {
				last := p.Items[limit-1]
				p.Next = cursor(last.Environment, last.Entry)
				break
			}
			p.Items = append(p.Items, s.now)
		}
		// What was not read yet must not belong before the last one of the page.
		oldest := int64(-1 << 62)
		if p.Next != "" {
			oldest = p.Items[limit-1].Pinned.Unix()
		}
		if !q.Since.IsZero() {
			oldest = max(oldest, q.Since.Unix())
		}
		done, bounded := x.reached(q.Environment, oldest)
		p.Truncated = bounded && p.Next == ""
		return done
	})
	return p, errors.Join(err, failure)
}

// behind finds a cursor's item, or nil if it may be among what was not read yet.
// mu is held.
func (x *Index) behind(after string) (*slot, error) {
	name, id, ok := strings.Cut(after, "@")
	k, isID := keyOf(id)
	if !ok || !isID || len(id) != 40 {
		return nil, fmt.Errorf("%w: it has another form", ErrCursor)
	}
	b := x.books[desired.EnvironmentName(name)]
	if b == nil {
		return nil, fmt.Errorf("%w: there is no ledger of %s", ErrCursor, name)
	}
	place, known := b.at[k]
	if !known && b.next != "" && x.lines < MaxEntries {
		return nil, nil
	}
	if s := b.begun[place]; known && s != nil && s.now.Entry == id {
		return s, nil
	}
	return nil, fmt.Errorf("%w: no deployment begins with that entry", ErrCursor)
}

// reached tells whether all was read that is as new as a time, in one
// environment or in all; bounded: some of it will not be. mu is held.
func (x *Index) reached(env desired.EnvironmentName, oldest int64) (done, bounded bool) {
	for _, b := range x.books {
		if env != "" && b.env != env || b.next == "" || b.horizon() < oldest {
			continue
		}
		if x.lines < MaxEntries {
			return false, false
		}
		bounded = true
	}
	return true, bounded
}

// Deployment returns the newest deployment of an id in an environment; nil if
// there is none.
func (x *Index) Deployment(ctx context.Context, env desired.EnvironmentName, id string) (d *Deployment, err error) {
	err = x.wait(ctx, func() bool {
		if b := x.books[env]; b != nil {
			if s := b.open[id]; s != nil {
				d = s.now
				return true
			}
		}
		done, _ := x.reached(env, -1<<62)
		return done
	})
	return d, err
}

// EntryQuery says which entries of a ledger are asked for. What is empty asks
// for nothing in particular.
type EntryQuery struct {
	Environment desired.EnvironmentName
	Service     desired.ServiceName
	Deployment  string
	Event       ledger.Event
	Since       time.Time
	Until       time.Time
}

func (q EntryQuery) wants(l line) bool {
	return (q.Service == "" || l.service == q.Service) && (q.Deployment == "" || l.deployment == q.Deployment) &&
		(q.Event == "" || l.event == q.Event) &&
		(q.Since.IsZero() || l.when >= q.Since.Unix()) && (q.Until.IsZero() || l.when <= q.Until.Unix())
}

// mostWalked bounds how many entries are read from git for one page.
const mostWalked = 20_000

// Entries lists the entries of a ledger that a query wants, each as the JSON of an
// [Entry], the newest first, behind the cursor, which is the id of an entry. Of what
// is not held, so many are looked through for a page, which may have less than limit
// entries then.
func (x *Index) Entries(ctx context.Context, q EntryQuery, after string, limit int) (Page[json.RawMessage], error) {
	found := make([]line, 0, min(limit, chunk))
	var failure error
	from := "" // where git has to go on
	more := false
	if _, ok := keyOf(after); after != "" && (!ok || len(after) != 40) {
		return Page[json.RawMessage]{}, fmt.Errorf("%w: it has another form", ErrCursor)
	}
	err := x.wait(ctx, func() bool {
		found, failure, from, more = found[:0], nil, "", false
		b := x.books[q.Environment]
		if b == nil {
			return true
		}
		newest := len(b.newer) - 1
		if after != "" {
			k, _ := keyOf(after)
			place, known := b.at[k]
			if !known && b.next != "" {
				if x.lines < MaxEntries {
					return false
				}
				from = after
				return true
			}
			if !known || b.line(place).hex() != after {
				failure = fmt.Errorf("%w: %s has no such entry", ErrCursor, ledger.Branch(q.Environment))
				return true
			}
			newest = place - 1
		}
		for place := newest; place >= -len(b.older); place-- {
			l := b.line(place)
			if !q.Since.IsZero() && l.when < q.Since.Add(-clockSkew).Unix() {
				return true
			}
			if !q.wants(l) {
				continue
			}
			if more = len(found) == limit; more {
				return true
			}
			found = append(found, l)
		}
		if b.next != "" && x.lines >= MaxEntries {
			from = b.next
			return true
		}
		return b.next == ""
	})
	if err = errors.Join(err, failure); err != nil {
		return Page[json.RawMessage]{}, err
	}
	p := Page[json.RawMessage]{}
	if more {
		p.Next = found[limit-1].hex()
	}
	if from != "" {
		if found, p.Next, err = x.walk(ctx, q, from, after, limit, found); err != nil {
			return p, err
		}
	}
	p.Items = make([]json.RawMessage, len(found))
	for i, l := range found {
		if p.Items[i], err = x.told(ctx, l); err != nil {
			return p, err
		}
	}
	return p, nil
}

// clockSkew is how far back a clock may have been set between two entries.
const clockSkew = 24 * time.Hour

// walk goes on with a page in git.
func (x *Index) walk(ctx context.Context, q EntryQuery, from, after string, limit int, found []line) (_ []line, next string, err error) {
	n, last := 0, ""
	err = x.archive.History(ctx, from, func(c gitstate.CommitInfo) bool {
		if c.ID == after {
			return true
		}
		if n++; n > mostWalked {
			next = last
			return false
		}
		last = c.ID
		e := ReadEntry(c)
		l := lineOf(e)
		if !q.wants(l) {
			return q.Since.IsZero() || e.When.After(q.Since.Add(-clockSkew))
		}
		if len(found) == limit {
			next = found[limit-1].hex()
			return false
		}
		l.text, _ = json.Marshal(e) // told tries again, and says why not
		found = append(found, l)
		return true
	})
	return found, next, err
}

func (b *book) line(place int) line {
	if place < 0 {
		return b.older[-place-1]
	}
	return b.newer[place]
}

func (l line) hex() string { return hex.EncodeToString(l.id[:]) }

// told returns a line's entry as it is told.
func (x *Index) told(ctx context.Context, l line) (json.RawMessage, error) {
	if l.text != nil {
		return l.text, nil
	}
	return x.read(ctx, l.hex())
}

// read reads an entry from git.
func (x *Index) read(ctx context.Context, id string) (json.RawMessage, error) {
	c, err := x.archive.Info(ctx, id)
	if err != nil {
		return nil, err
	}
	return json.Marshal(ReadEntry(c))
}

// Entry returns one entry of a ledger by its whole id, as the JSON of an [Entry]; ok
// is false if the ledger has none of that id.
func (x *Index) Entry(ctx context.Context, env desired.EnvironmentName, id string) (text json.RawMessage, ok bool, err error) {
	k, isID := keyOf(id)
	if !isID || len(id) != 40 {
		return nil, false, nil
	}
	var l line
	bounded := false
	err = x.wait(ctx, func() bool {
		b := x.books[env]
		if b == nil {
			return true
		}
		if place, known := b.at[k]; known {
			l = b.line(place)
			ok = l.hex() == id
			return true
		}
		var done bool
		done, bounded = x.reached(env, -1<<62)
		return done
	})
	switch {
	case err != nil:
		return nil, false, err
	case ok:
		text, err = x.told(ctx, l)
		return text, err == nil, err
	case bounded: // it may be older than what is held
		tip, has := Tips(x.branches())[env]
		if !has {
			return nil, false, nil
		}
		older, err := x.archive.IsAncestor(ctx, id, tip)
		if errors.Is(err, gitstate.ErrNoCommit) || err == nil && !older {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		text, err = x.read(ctx, id)
		return text, err == nil, err
	}
	return nil, false, nil
}
