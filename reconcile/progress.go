package reconcile

import (
	"maps"
	"slices"
	"sync"
)

// progress knows what takes long to render. A nil one forgets.
type progress struct {
	mu   sync.Mutex
	keys map[Key]bool // guarded by mu
}

func newProgress() *progress { return &progress{keys: map[Key]bool{}} }

func (p *progress) begin(k Key) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys[k] = true
}

func (p *progress) end(k Key) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.keys, k)
}

// open returns what has begun and not ended.
func (p *progress) open() []Key {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.keys))
}
