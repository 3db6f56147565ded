package history_test

import (
	"errors"
	"maps"
	"testing"

	"github.com/pinion-cd/pinion/history"
)

// What a reader sends as its position is a position, or is refused as none; and one
// that is taken means the same when it is written again.
func FuzzParsePosition(f *testing.F) {
	for _, s := range []string{"-", "", ",", "dev:1a2b3c4d5e6f7081", "dev:1a2b3c4d5e6f7081,staging:0000000000000000",
		"dev:1a2b3c4d5e6f7081,dev:ffffffffffffffff", "dev:1A2B3C4D5E6F7081", ":1a2b3c4d5e6f7081", "dev:1a2b3c4d5e6f708", "dev:1a2b:3c4d5e6f7081",
		"dev:1a2b3c4d5e6f7081,", "dev\n:1a2b3c4d5e6f7081"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := history.ParsePosition(s)
		if err != nil {
			if !errors.Is(err, history.ErrPosition) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		again, err := history.ParsePosition(p.String())
		if err != nil || !maps.Equal(p, again) {
			t.Errorf("%q is %v, and written again %v, %v", s, p, again, err)
		}
	})
}
