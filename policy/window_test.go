package policy_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/policy"
)

// window reads a window as a file says it.
func window(t testing.TB, allow, zone string) (*desired.Window, *time.Location) {
	t.Helper()
	text := fmt.Sprintf("apiVersion: pinion.dev/v1\nkind: Policy\nwindow: {allow: %q, timezone: %s}\n", allow, zone)
	r := read(t, fstest.MapFS{"policies/w.yaml": {Data: []byte(text)}})
	if r.Policies["w"] == nil {
		t.Fatal(r.Problems)
	}
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	return r.Policies["w"].Window, loc
}

func TestOpenAt(t *testing.T) {
	for _, test := range []struct {
		name, allow, zone string
		now               string // with the offset, for an hour that comes twice
		open              bool
		change            string // "": never
	}{
		{"before", "Mon-Thu 09:00-16:00", "Europe/Prague", "2026-11-19T08:59:59+01:00", false, "2026-11-19T09:00:00+01:00"},
		{"first moment", "Mon-Thu 09:00-16:00", "Europe/Prague", "2026-11-19T09:00:00+01:00", true, "2026-11-19T16:00:00+01:00"},
		{"last moment", "Mon-Thu 09:00-16:00", "Europe/Prague", "2026-11-19T15:59:59+01:00", true, "2026-11-19T16:00:00+01:00"},
		{"after", "Mon-Thu 09:00-16:00", "Europe/Prague", "2026-11-19T16:00:00+01:00", false, "2026-11-23T09:00:00+01:00"},
		{"told in another zone", "Mon-Thu 09:00-16:00", "Europe/Prague", "2026-11-19T08:00:00Z", true, "2026-11-19T15:00:00Z"},
		{"always", "Mon-Sun 00:00-24:00", "Europe/Prague", "2026-11-19T08:00:00Z", true, ""},
		{"always, from any day", "Wed-Tue 00:00-24:00", "America/New_York", "2026-03-08T06:59:59Z", true, ""},
		{"always, in two halves", "Mon-Sun 00:00-12:00, Mon-Sun 12:00-24:00", "UTC", "2026-11-19T12:00:00Z", true, ""},
		{"over the weekend", "Fri-Mon 10:00-12:00", "UTC", "2026-11-22T11:00:00Z", true, "2026-11-22T12:00:00Z"},
		{"over the weekend, Tuesday", "Fri-Mon 10:00-12:00", "UTC", "2026-11-24T11:00:00Z", false, "2026-11-27T10:00:00Z"},
		{"over the weekend, all day", "Fri-Mon 00:00-24:00", "UTC", "2026-11-21T11:00:00Z", true, "2026-11-24T00:00:00Z"},
		{"past midnight", "Mon 22:00-24:00, Tue 00:00-04:00", "UTC", "2026-11-23T23:00:00Z", true, "2026-11-24T04:00:00Z"},
		{"past the end of the week", "Sat 22:00-24:00, Sun 00:00-04:00", "UTC", "2026-11-21T23:00:00Z", true, "2026-11-22T04:00:00Z"},
		{"overlapping", "Mon 09:00-12:00, Mon 11:00-14:00", "UTC", "2026-11-23T10:00:00Z", true, "2026-11-23T14:00:00Z"},

		// 2026-03-29 02:00 +01:00 becomes 03:00 +02:00 in Prague.
		{"opens after the clock has jumped", "Mon-Sun 09:00-16:00", "Europe/Prague", "2026-03-28T16:00:00+01:00", false, "2026-03-29T09:00:00+02:00"},
		{"within the hour that is not", "Sun 02:15-02:45", "Europe/Prague", "2026-03-29T01:59:59+01:00", false, "2026-04-05T02:15:00+02:00"},
		{"begins in the hour that is not", "Sun 02:30-04:00", "Europe/Prague", "2026-03-29T01:59:59+01:00", false, "2026-03-29T03:00:00+02:00"},
		{"ends in the hour that is not", "Sun 01:00-02:30", "Europe/Prague", "2026-03-29T01:30:00+01:00", true, "2026-03-29T03:00:00+02:00"},
		{"spans the hour that is not", "Sun 01:00-04:00", "Europe/Prague", "2026-03-29T01:30:00+01:00", true, "2026-03-29T04:00:00+02:00"},
		{"begins as the clock jumps", "Sun 03:00-04:00", "Europe/Prague", "2026-03-29T01:30:00+01:00", false, "2026-03-29T03:00:00+02:00"},
		// 2026-10-25 03:00 +02:00 becomes 02:00 +01:00.
		{"opens after the clock was set back", "Mon-Sun 09:00-16:00", "Europe/Prague", "2026-10-24T16:00:00+02:00", false, "2026-10-25T09:00:00+01:00"},
		{"the hour that comes twice, once", "Sun 02:15-02:45", "Europe/Prague", "2026-10-25T02:30:00+02:00", true, "2026-10-25T02:45:00+02:00"},
		{"between the two", "Sun 02:15-02:45", "Europe/Prague", "2026-10-25T02:50:00+02:00", false, "2026-10-25T02:15:00+01:00"},
		{"and twice", "Sun 02:15-02:45", "Europe/Prague", "2026-10-25T02:30:00+01:00", true, "2026-10-25T02:45:00+01:00"},
		{"until the clock is set back", "Sun 01:00-02:30", "Europe/Prague", "2026-10-25T02:29:00+02:00", true, "2026-10-25T02:30:00+02:00"},
		{"and opens as it is", "Sun 01:00-02:30", "Europe/Prague", "2026-10-25T02:45:00+02:00", false, "2026-10-25T02:00:00+01:00"},
		{"spans the hour that comes twice", "Sun 01:00-04:00", "Europe/Prague", "2026-10-25T01:30:00+02:00", true, "2026-10-25T04:00:00+01:00"},
		// 2026-03-08 and 2026-11-01 in New York.
		{"New York, spring", "Sun 02:30-03:30", "America/New_York", "2026-03-08T01:59:00-05:00", false, "2026-03-08T03:00:00-04:00"},
		{"New York, autumn", "Sun 01:30-01:45", "America/New_York", "2026-11-01T01:50:00-04:00", false, "2026-11-01T01:30:00-05:00"},
		// Half an hour on Lord Howe: 2026-10-04 02:00 becomes 02:30, 2026-04-05 02:00 becomes 01:30.
		{"Lord Howe, spring", "Sun 02:15-02:45", "Australia/Lord_Howe", "2026-10-04T01:59:00+10:30", false, "2026-10-04T02:30:00+11:00"},
		{"Lord Howe, spring, within", "Sun 02:10-02:20", "Australia/Lord_Howe", "2026-10-04T01:59:00+10:30", false, "2026-10-11T02:10:00+11:00"},
		{"Lord Howe, autumn", "Sun 01:40-01:50", "Australia/Lord_Howe", "2026-04-05T01:55:00+11:00", false, "2026-04-05T01:40:00+10:30"},
		// There was no Friday 2011-12-30 in Apia.
		{"a day that is not", "Fri 09:00-16:00", "Pacific/Apia", "2011-12-29T17:00:00-10:00", false, "2012-01-06T09:00:00+14:00"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, loc := window(t, test.allow, test.zone)
			now, err := time.Parse(time.RFC3339, test.now)
			if err != nil {
				t.Fatal(err)
			}
			open, change := policy.OpenAt(w, loc, now)
			if open != test.open {
				t.Errorf("open: %v, want %v", open, test.open)
			}
			if test.change == "" {
				if !change.IsZero() {
					t.Errorf("changes at %s, want never", change)
				}
				return
			}
			want, err := time.Parse(time.RFC3339, test.change)
			if err != nil {
				t.Fatal(err)
			}
			if !change.Equal(want) {
				t.Errorf("changes at %s, want %s", change, want.In(loc))
			}
		})
	}
}

func TestOpenAtOfNothing(t *testing.T) {
	w, loc := window(t, "Mon-Sun 00:00-24:00", "UTC")
	now := time.Date(2026, 11, 19, 10, 0, 0, 0, time.UTC)
	for name, open := range map[string]func() (bool, time.Time){
		"no location": func() (bool, time.Time) { return policy.OpenAt(w, nil, now) },
		"no window":   func() (bool, time.Time) { return policy.OpenAt(nil, loc, now) },
		"no hours":    func() (bool, time.Time) { return policy.OpenAt(&desired.Window{}, loc, now) },
	} {
		if is, change := open(); is || !change.IsZero() {
			t.Errorf("%s: open %v, %s", name, is, change)
		}
	}
}

// Whether a window is open is what the clock on the wall says, minute by minute;
// and the change that is told is the next minute at which that differs.
func TestOpenAtAgainstTheWall(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	days := []string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}
	for range 60 {
		var parts []string
		for range 1 + r.IntN(3) {
			from := r.IntN(24 * 4)
			until := from + 1 + r.IntN(24*4-from)
			parts = append(parts, fmt.Sprintf("%s-%s %02d:%02d-%02d:%02d", days[r.IntN(7)], days[r.IntN(7)], from/4, from%4*15, until/4, until%4*15))
		}
		zone := []string{"Europe/Prague", "America/New_York", "Australia/Lord_Howe", "UTC"}[r.IntN(4)]
		w, loc := window(t, strings.Join(parts, ", "), zone)
		wall := func(at time.Time) bool {
			at = at.In(loc)
			h, m, _ := at.Clock()
			for _, s := range w.Spans {
				if s.Has(at.Weekday(), time.Duration(h)*time.Hour+time.Duration(m)*time.Minute) {
					return true
				}
			}
			return false
		}
		start := []time.Time{
			time.Date(2026, 3, 6, 0, 0, 0, 0, time.UTC), time.Date(2026, 3, 27, 0, 0, 0, 0, time.UTC), time.Date(2026, 4, 3, 0, 0, 0, 0, time.UTC),
			time.Date(2026, 10, 2, 0, 0, 0, 0, time.UTC), time.Date(2026, 10, 23, 0, 0, 0, 0, time.UTC), time.Date(2026, 10, 30, 0, 0, 0, 0, time.UTC),
		}[r.IntN(6)]
		now := start.Add(time.Duration(r.IntN(3*24*60)) * time.Minute)
		open, change := policy.OpenAt(w, loc, now)
		if open != wall(now) {
			t.Fatalf("%s %s at %s: open %v", w.Allow, zone, now.In(loc), open)
		}
		var want time.Time
		for at := now; at.Before(now.Add(10 * 24 * time.Hour)); at = at.Add(time.Minute) {
			if wall(at) != open {
				want = at
				break
			}
		}
		if !change.Equal(want) {
			t.Fatalf("%s %s at %s: changes at %s, want %s", w.Allow, zone, now.In(loc), change, want.In(loc))
		}
	}
}
