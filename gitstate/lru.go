package gitstate

import "container/list"

// lru is a map that forgets what was used least recently once the costs of
// its values exceed a limit. It is not safe for concurrent use.
type lru[K comparable, V any] struct {
	limit, used int
	order       *list.List // of *lruItem[K, V]; the front is the most recent
	items       map[K]*list.Element
}

type lruItem[K comparable, V any] struct {
	key   K
	value V
	cost  int
}

func newLRU[K comparable, V any](limit int) *lru[K, V] {
	return &lru[K, V]{limit: limit, order: list.New(), items: map[K]*list.Element{}}
}

func (c *lru[K, V]) get(key K) (V, bool) {
	e, ok := c.items[key]
	if !ok {
		var zero V
		return zero, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*lruItem[K, V]).value, true
}

func (c *lru[K, V]) put(key K, value V, cost int) {
	if _, ok := c.items[key]; ok || cost > c.limit {
		return
	}
	c.items[key] = c.order.PushFront(&lruItem[K, V]{key, value, cost})
	c.used += cost
	for c.used > c.limit {
		last := c.order.Remove(c.order.Back()).(*lruItem[K, V])
		delete(c.items, last.key)
		c.used -= last.cost
	}
}
