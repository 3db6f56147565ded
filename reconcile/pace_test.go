package reconcile

import (
	"testing"
	"time"
)

// A clerk pushes as it likes for a while, and then no more often than it should.
func TestPace(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	var p pace
	for i := range atWill {
		if wait := p.wait(now); wait != 0 {
			t.Fatalf("push %d waits for %s", i, wait)
		}
		p.push(now)
	}
	pushes, end := 0, now.Add(time.Minute)
	for now.Before(end) {
		wait := p.wait(now)
		if wait > every+time.Millisecond {
			t.Fatalf("the next push waits for %s", wait)
		}
		if wait == 0 {
			p.push(now)
			pushes++
			continue
		}
		now = now.Add(wait)
	}
	if pushes < 59 || pushes > 61 {
		t.Errorf("%d pushes in a minute", pushes)
	}
	// Pushes for those who ask do not wait, and what comes after them does not wait
	// for all of them.
	for range 10 * atWill {
		p.push(now)
	}
	if wait := p.wait(now); wait == 0 || wait > every+time.Millisecond {
		t.Errorf("after many pushes for others, the next one waits for %s", wait)
	}
	// A pause gives them back.
	now = now.Add((atWill + 1) * every)
	for i := range atWill {
		if wait := p.wait(now); wait != 0 {
			t.Fatalf("after a pause, push %d waits for %s", i, wait)
		}
		p.push(now)
	}
}
