package reconcile

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/gitstate"
)

type unreadable struct{ Commits }

func (unreadable) Snapshot(context.Context, string) (*gitstate.Snapshot, error) {
	return nil, errors.New("not here")
}

// An environment that becomes ours while a commit is read has its estate from then
// on, so the change of terms does not show it; who passed its services over does.
func TestWhatBecomesOursWhileACommitIsRead(t *testing.T) {
	for _, x := range []struct {
		passed []Key
		again  bool
	}{
		{nil, false},
		{[]Key{{"e7", "web"}}, false},
		{[]Key{{"e7", "web"}, {"e4", "web"}}, true},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		e := NewEngine(Options{Commits: unreadable{}, Selection: Selection{Environment: "e4"}})
		e.preparing = true
		e.read(ctx, time.Now(), reading{generation: e.generation, done: true, passed: x.passed})
		if again := e.generation == 1; again != x.again || e.preparing != x.again {
			t.Errorf("with %v it is read again: %t, and being read: %t", x.passed, again, e.preparing)
		}
		cancel()
		e.jobs.Wait()
	}
}
