package policy

import (
	"cmp"
	"slices"
	"time"

	"github.com/pinion-cd/pinion/desired"
)

const (
	day  = 24 * time.Hour
	week = 7 * day
	// horizon is how far ahead a change of a window is looked for.
	horizon = 366 * day
)

// OpenAt tells whether a window is open, and when it next opens or closes:
// never within a year, if that is zero.
//
// A window means the clock on the wall. An hour that a change of the clock
// skips is not there, so a window within it does not open that day, and one
// that begins or ends within it does so when the clock jumps. An hour that
// comes twice is open both times. Without a location a window is closed.
func OpenAt(w *desired.Window, loc *time.Location, now time.Time) (open bool, change time.Time) {
	if w == nil || loc == nil {
		return false, time.Time{}
	}
	hours := schedule(w.Spans)
	local := now.In(loc)
	open = hours.has(wall(local))
	if len(hours) == 0 || len(hours) == 1 && hours[0] == (stretch{0, week}) {
		return open, time.Time{}
	}
	// Between two changes of the clock the wall's time runs as time does, so
	// the next boundary is as far away as it looks.
	for at := local; at.Sub(now) < horizon; {
		next := at.Add(hours.until(wall(at)))
		if _, jump := at.ZoneBounds(); !jump.IsZero() && !next.Before(jump) {
			next = jump.In(loc)
		}
		if at = next; hours.has(wall(at)) != open {
			return open, at
		}
	}
	return open, time.Time{}
}

// wall is the time since Sunday 00:00 by the clock on the wall.
func wall(t time.Time) time.Duration {
	h, m, s := t.Clock()
	return time.Duration(t.Weekday())*day + time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(s)*time.Second + time.Duration(t.Nanosecond())
}

// stretch is a part of the week, since Sunday 00:00; until is not within.
type stretch struct{ from, until time.Duration }

// stretches are sorted, and do not touch each other.
type stretches []stretch

func schedule(spans []desired.Span) stretches {
	var all stretches
	for _, s := range spans {
		for d := time.Sunday; d <= time.Saturday; d++ {
			// A span has the same hours on each of its days.
			if s.Until > s.From && s.Has(d, s.From) {
				all = append(all, stretch{time.Duration(d)*day + s.From, time.Duration(d)*day + s.Until})
			}
		}
	}
	slices.SortFunc(all, func(a, b stretch) int { return cmp.Compare(a.from, b.from) })
	var merged stretches
	for _, s := range all {
		if n := len(merged); n > 0 && s.from <= merged[n-1].until {
			merged[n-1].until = max(merged[n-1].until, s.until)
			continue
		}
		merged = append(merged, s)
	}
	return merged
}

func (all stretches) has(at time.Duration) bool {
	for _, s := range all {
		if s.from <= at && at < s.until {
			return true
		}
	}
	return false
}

// until returns how long it is to the next beginning or end of a stretch, or
// to the end of the week.
func (all stretches) until(at time.Duration) time.Duration {
	for _, s := range all {
		if at < s.from {
			return s.from - at
		}
		if at < s.until {
			return s.until - at
		}
	}
	return week - at
}
