package audit

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// What may have been known at a time is what going through all commits says, however
// the clocks were that they were written by.
func TestWhatWasKnownAround(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for round := range 200 {
		s := NewStock()
		var times []time.Time
		for i := range random.IntN(40) {
			at := start.Add(time.Duration(i*20+random.IntN(1+round)) * time.Second)
			if random.IntN(10) == 0 {
				at = at.Add(-time.Duration(random.IntN(600)) * time.Second)
			}
			times = append(times, at)
			if _, err := s.Next(Commit{ID: fmt.Sprint(i), Time: at}, Files{}); err != nil {
				t.Fatal(err)
			}
		}
		last := func(ok func(time.Time) bool) int {
			n := 0
			for i, at := range times {
				if ok(at) {
					n = i + 1
				}
			}
			return n
		}
		for range 50 {
			at := start.Add(time.Duration(random.IntN(1100)-150) * time.Second)
			low := last(func(x time.Time) bool { return x.Before(at.Add(-skew)) })
			high := last(func(x time.Time) bool { return !x.After(at.Add(skew)) })
			likely := last(func(x time.Time) bool { return !x.After(at) })
			var want []string
			for n := low; n <= high; n++ {
				if n == 0 {
					want = append(want, "")
				} else {
					want = append(want, fmt.Sprint(n-1))
				}
			}
			got := s.Around(at)
			if len(got) == 0 || len(want) == 0 || got[0] != want[likely-low] {
				t.Fatalf("at %s of %v: %q, and %q is the most probable", at, times, got, want)
			}
			if len(want) > mostMoments {
				continue // not all of them
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Fatalf("at %s of %v: %q, want %q", at, times, got, want)
			}
		}
	}
}
