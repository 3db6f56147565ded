package cluster

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pinion-cd/pinion/desired"
)

// changes collects what has changed until someone drains it.
type changes struct {
	signal chan struct{} // of capacity one
	mu     sync.Mutex
	keys   map[Key]struct{} // guarded by mu
}

// Changes delivers after anything has changed that Drain would name.
func (c *Cluster) Changes() <-chan struct{} { return c.changes.signal }

// Drain returns the services of which an object has come, gone or changed since
// the last call, sorted, and with service "" the environments of which the
// inventory or the view as such has changed. Look at what is there now: how
// often and how it changed is not told.
func (c *Cluster) Drain() []Key {
	c.changes.mu.Lock()
	keys := c.changes.keys
	c.changes.keys = map[Key]struct{}{}
	c.changes.mu.Unlock()
	return slices.SortedFunc(maps.Keys(keys), func(a, b Key) int {
		if a.Environment != b.Environment {
			return compareText(string(a.Environment), string(b.Environment))
		}
		return compareText(string(a.Service), string(b.Service))
	})
}

func (c *changes) add(keys ...Key) {
	c.mu.Lock()
	for _, k := range keys {
		if k.Environment != "" {
			c.keys[k] = struct{}{}
		}
	}
	any := len(c.keys) > 0
	c.mu.Unlock()
	if !any {
		return
	}
	select {
	case c.signal <- struct{}{}:
	default:
	}
}

// changed takes in that the watch has shown an object anew.
func (c *Cluster) changed(r *reflection, before, after *Observed) {
	if (after != nil && after.pods) || (before != nil && before.pods) {
		c.expectPods(before, after)
	}
	if after != nil && c.unjudged(after) {
		c.judgeAgain(r.place) // its rule has come while it was on its way
	}
	var keys []Key
	for _, o := range []*Observed{before, after} {
		if o != nil {
			keys = append(keys, Key{o.Environment, o.Service})
		}
	}
	if before != nil && after != nil && sameToReaders(before, after) {
		return
	}
	if after == nil && r.place.group == "" && r.place.kind == "ConfigMap" {
		if env, ok := strings.CutPrefix(before.Ref.Name, inventoryPrefix); ok && before.Environment == "" {
			c.lostInventory(Scope{desired.EnvironmentName(env), before.Ref.Namespace})
		}
	}
	c.changes.add(keys...)
}

// sameToReaders tells whether nothing differs but versions and times, which
// change with every write of a controller.
func sameToReaders(a, b *Observed) bool {
	x, y := *a, *b
	x.ResourceVersion, y.ResourceVersion = "", ""
	x.Generation, y.Generation = 0, 0
	x.Applied, y.Applied = time.Time{}, time.Time{}
	x.Changed, y.Changed = time.Time{}, time.Time{}
	return x == y
}

// moved takes in that a place can, or can't, be believed.
func (c *Cluster) moved(p place) {
	var keys []Key
	c.mu.Lock()
	for scope, places := range c.scopes {
		if _, ok := places[p]; ok {
			keys = append(keys, Key{Environment: scope.Environment})
		}
	}
	c.mu.Unlock()
	c.changes.add(keys...)
}

func compareText(a, b string) int { return strings.Compare(a, b) }
