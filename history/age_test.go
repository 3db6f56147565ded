package history

import (
	"testing"
	"time"
)

func TestShortAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59 * time.Second: "59s", 119 * time.Second: "119s", 2 * time.Minute: "2m",
		119 * time.Minute: "119m", 2 * time.Hour: "2h", 47 * time.Hour: "47h", 48 * time.Hour: "2d", 400 * 24 * time.Hour: "400d",
	} {
		if got := ShortAge(d); got != want {
			t.Errorf("%s is %s, want %s", d, got, want)
		}
	}
}

func TestClock(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC) // a Friday
	for d, want := range map[time.Duration]string{
		2*time.Hour + 30*time.Minute: "14:30 UTC",
		13 * time.Hour:               "Sat 01:00 UTC",
		69 * time.Hour:               "Mon 09:00 UTC",
		11 * 24 * time.Hour:          "2026-12-01 12:00 UTC",
		-3 * 24 * time.Hour:          "2026-11-17 12:00 UTC",
	} {
		if got := Clock(now, now.Add(d)); got != want {
			t.Errorf("in %s is %s, want %s", d, got, want)
		}
	}
}
