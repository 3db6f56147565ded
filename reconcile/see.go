package reconcile

import "time"

const (
	// What counts as a flood of news, how long it has to be calm after one, and
	// how long one is waited for.
	flood        = 64
	calm         = 300 * time.Millisecond
	longestFlood = 10 * time.Second

	// gathering is for how long services are gathered of which nothing is new but
	// the commit.
	gathering = 20 * time.Millisecond
)

// See takes in what an engine sees; it never waits.
func (c *Clerk) See(s Sighting) {
	now := time.Now()
	c.mu.Lock()
	old := c.latest[s.Key]
	c.seen[s.Key], c.latest[s.Key] = s, s
	if old.Tip = s.Tip; old != s || s.Problem != "" {
		if len(c.news) == 0 {
			c.first = now
		}
		c.news[s.Key], c.last = true, now
	}
	soon := len(c.news) == 0
	waking := c.waking
	c.waking = waking || soon
	c.mu.Unlock()
	switch {
	case !soon:
		c.wake()
	case !waking: // that a commit wants the same of one is told of all others, too
		time.AfterFunc(gathering, func() {
			c.mu.Lock()
			c.waking = false
			c.mu.Unlock()
			c.wake()
		})
	}
}

// seeAgain puts back what could not be taken in yet, unless there is newer.
func (c *Clerk) seeAgain(s Sighting, news bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, newer := c.seen[s.Key]; newer {
		return
	}
	c.seen[s.Key] = s
	if news {
		if len(c.news) == 0 {
			c.first = time.Now()
		}
		c.news[s.Key] = true
	}
	c.wake()
}

// flooded tells for how long to wait because a great many services are on the
// move: when they have come to rest, much is written at once, and the cluster
// comes first. Nobody who asks is kept waiting.
func (c *Clerk) flooded() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.news) < flood || len(c.requests) > 0 || len(c.results) > 0 {
		return 0
	}
	now := time.Now()
	return min(c.last.Add(calm).Sub(now), c.first.Add(longestFlood).Sub(now))
}

// unhurried tells for how long to wait because there was much to push lately.
// Nobody who asks is kept waiting, and nothing that has begun to move.
func (c *Clerk) unhurried() time.Duration {
	c.mu.Lock()
	asked := len(c.requests) > 0 || len(c.results) > 0
	c.mu.Unlock()
	if asked || c.press.left > 0 {
		return 0
	}
	return c.pace.wait(time.Now())
}
