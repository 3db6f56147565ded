package render

import (
	"container/list"
	"sync"

	"github.com/pinion-cd/pinion/desired"
)

// Cache keeps results, the newest one of each Request, up to a number of
// bytes; the one that was not asked for longest goes first. It may be used
// from many goroutines.
type Cache struct {
	limit int64

	mu      sync.Mutex
	size    int64                    // guarded by mu
	entries map[string]*list.Element // guarded by mu, by the request's digest
	order   *list.List               // guarded by mu; the front was used last
}

type cached struct {
	key    string
	size   int64
	result *Result
}

// NewCache returns a cache of about limit bytes.
func NewCache(limit int64) *Cache {
	return &Cache{limit: limit, entries: map[string]*list.Element{}, order: list.New()}
}

// Get returns the result of a request if all that it was made from is the
// same in tree, else nil. The result is shared: it must not be changed. An
// error means that the tree could not be read.
func (c *Cache) Get(req Request, tree desired.Tree) (*Result, error) {
	key, err := req.Digest()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	element, ok := c.entries[key]
	if !ok {
		c.mu.Unlock()
		return nil, nil
	}
	c.order.MoveToFront(element)
	result := element.Value.(*cached).result
	c.mu.Unlock()
	same, err := result.Same(tree) // which may take a while
	if err != nil || !same {
		return nil, err
	}
	return result, nil
}

// Put keeps a result. It must not be changed afterwards.
// One that was made of encrypted files is not kept, for it holds plaintext.
func (c *Cache) Put(req Request, result *Result) error {
	if result.Sealed {
		return nil
	}
	key, err := req.Digest()
	if err != nil {
		return err
	}
	entry := &cached{key: key, size: result.size(), result: result}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.entries[key]; ok {
		c.remove(old)
	}
	if entry.size > c.limit {
		return nil
	}
	c.entries[key] = c.order.PushFront(entry)
	for c.size += entry.size; c.size > c.limit; {
		c.remove(c.order.Back())
	}
	return nil
}

func (c *Cache) remove(element *list.Element) {
	entry := c.order.Remove(element).(*cached)
	delete(c.entries, entry.key)
	c.size -= entry.size
}

// size is about how many bytes of memory a result takes.
func (r *Result) size() int64 {
	const each = 200 // for the headers of strings, slices and maps
	n := each
	for _, o := range r.All() {
		n += each + len(o.JSON) + len(o.Ref.Group) + len(o.Ref.Kind) + len(o.Ref.Namespace) + len(o.Ref.Name) + len(o.Digest)
	}
	for _, read := range r.Reads {
		n += 64 + len(read.Path) + len(read.ID)
	}
	for _, w := range r.Warnings {
		n += 16 + len(w)
	}
	return int64(n)
}
