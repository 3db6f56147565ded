package reconcile

import (
	"testing"
	"time"
)

// What could not be taken in when it came is put back, but not over what has come
// since.
func TestSeenAgainIsNotNewer(t *testing.T) {
	k := Key{"dev", "web"}
	c := NewClerk(ClerkOptions{}, NewEngine(Options{}))
	older, newer := Sighting{Key: k, Phase: Progressing}, Sighting{Key: k, Phase: Ready}
	c.See(older)
	c.seen, c.news = map[Key]Sighting{}, map[Key]bool{} // a turn has taken it in
	c.See(newer)
	c.seeAgain(older, true)
	if got := c.seen[k]; got != newer {
		t.Errorf("what was put back has taken the place of what came since: it is %s", got.Phase)
	}
	c.seen, c.news = map[Key]Sighting{}, map[Key]bool{}
	c.seeAgain(newer, true)
	if c.seen[k] != newer || !c.news[k] {
		t.Error("what was put back is not news")
	}
}

// A time to try again that has come leaves the clerk nothing to wake for.
func TestRetryThatHasPassed(t *testing.T) {
	k := Key{"dev", "web"}
	c := NewClerk(ClerkOptions{}, NewEngine(Options{}))
	c.cards[k] = &card{sighting: &Sighting{Key: k}, retry: time.Now().Add(-time.Second)}
	c.unsure[k] = true
	c.identifyAll(t.Context())
	if nap := c.nap(); nap < time.Second || len(c.unsure) > 0 {
		t.Errorf("the clerk looks again in %s, at %d services", nap, len(c.unsure))
	}
}
