package history

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// Position is how far somebody has followed the ledgers: the newest entry of
// each. As text it is durable, for it names commits and nothing of this process.
type Position map[desired.EnvironmentName]string

// String writes a position: "dev:1a2b3c4d5e6f7081,staging:…".
func (p Position) String() string {
	var parts []string
	for _, env := range slices.Sorted(maps.Keys(p)) {
		parts = append(parts, string(env)+":"+p[env][:min(16, len(p[env]))])
	}
	if len(parts) == 0 {
		return nowhere
	}
	return strings.Join(parts, ",")
}

// nowhere is the position before there is any ledger.
const nowhere = "-"

// ErrPosition says that a position is none that was ever given.
var ErrPosition = errors.New("that is no position in the ledgers")

// ParsePosition reads what String has written.
func ParsePosition(s string) (Position, error) {
	p := Position{}
	if s == nowhere {
		return p, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		env, id, ok := strings.Cut(part, ":")
		if _, isID := keyOf(id); !ok || env == "" || !isID || len(id) != 16 {
			return nil, fmt.Errorf("%w: %q is not ENVIRONMENT:ENTRY", ErrPosition, part)
		}
		p[desired.EnvironmentName(env)] = id
	}
	return p, nil
}

// Followed is an entry, as the JSON of an [Entry], and the position behind it.
type Followed struct {
	Event    ledger.Event
	Entry    json.RawMessage
	Position Position
}

// Here is the position of the present, of one environment or of all.
func (x *Index) Here(ctx context.Context, env desired.EnvironmentName) (p Position, err error) {
	err = x.wait(ctx, func() bool {
		p = Position{}
		for _, b := range x.books {
			if env == "" || b.env == env {
				p[b.env] = b.tip
			}
		}
		return true
	})
	return p, err
}

// Poke says that a ledger may have moved.
func (x *Index) Poke() {
	if x.asked.Load() {
		x.rouse()
	}
}

func (x *Index) rouse() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// Follow waits until there are entries that a query wants behind a position, and
// returns those, at most limit of them: of each ledger in its order, and of
// several by their times. The position is set behind all that was looked at. That
// the ledgers do not have the position (any more) is an ErrPosition.
func (x *Index) Follow(ctx context.Context, q EntryQuery, p Position, limit int) ([]Followed, Position, error) {
	var found []line
	var envs []desired.EnvironmentName
	var failure error
	at := maps.Clone(p)
	err := x.await(ctx, func() bool {
		found, envs, failure = nil, nil, nil
		for _, b := range x.books {
			if q.Environment != "" && b.env != q.Environment {
				continue
			}
			id, known := p[b.env]
			from := -len(b.older)
			if known {
				k, _ := keyOf(id)
				place, read := b.at[k]
				if !read && b.tip[:16] == id[:min(16, len(id))] {
					continue // nothing of it was read, for nothing is new
				}
				if !read && b.next != "" && x.lines < MaxEntries {
					return false
				}
				if !read {
					failure = fmt.Errorf("%w: the ledger of %s does not go on from %s", ErrPosition, b.env, id)
					return true
				}
				from = place + 1
			} else if b.next != "" && x.lines < MaxEntries {
				return false // it began after the position, so all of it is new
			}
			for place := from; place < min(len(b.newer), from+limit); place++ {
				found, envs = append(found, b.line(place)), append(envs, b.env)
			}
		}
		return len(found) > 0
	})
	if err = errors.Join(err, failure); err != nil {
		return nil, p, err
	}
	order := make([]int, len(found))
	for i := range order {
		order[i] = i
	}
	// Of one ledger they stay as they are: a time never goes before one that
	// came earlier.
	latest := map[desired.EnvironmentName]int64{}
	for i, l := range found {
		latest[envs[i]] = max(latest[envs[i]], l.when)
		found[i].when = latest[envs[i]]
	}
	slices.SortStableFunc(order, func(a, b int) int { return int(found[a].when - found[b].when) })
	var all []Followed
	for _, i := range order {
		l := found[i]
		at = maps.Clone(at)
		if at == nil {
			at = Position{}
		}
		at[envs[i]] = l.hex()
		if !q.wants(l) {
			continue
		}
		text, err := x.told(ctx, l)
		if err != nil {
			return nil, p, err
		}
		if all = append(all, Followed{l.event, text, at}); len(all) == limit {
			break
		}
	}
	return all, at, nil
}
