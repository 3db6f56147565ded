package main

import (
	"testing"
	"time"
)

func TestShortAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59 * time.Second: "59s", 119 * time.Second: "119s", 2 * time.Minute: "2m",
		119 * time.Minute: "119m", 2 * time.Hour: "2h", 47 * time.Hour: "47h", 48 * time.Hour: "2d", 400 * 24 * time.Hour: "400d",
	} {
		if got := shortAge(d); got != want {
			t.Errorf("%s is %s, want %s", d, got, want)
		}
	}
}

func TestParseWhen(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"2026-11-01":                "2026-11-01T00:00:00Z",
		"2026-11-01T09:00:00+02:00": "2026-11-01T07:00:00Z",
		"36h":                       "2026-11-19T00:00:00Z",
		"90m":                       "2026-11-20T10:30:00Z",
		"3d":                        "2026-11-17T12:00:00Z",
		"0s":                        "2026-11-20T12:00:00Z",
	} {
		if got, err := parseWhen(now, "since", text); err != nil || rfc3339(got) != want {
			t.Errorf("%s is %s, %v; want %s", text, got, err, want)
		}
	}
	if got, err := parseWhen(now, "since", ""); err != nil || !got.IsZero() {
		t.Errorf("nothing is %s, %v", got, err)
	}
	for _, text := range []string{"yesterday", "-3h", "-1d", "3", "d", "3w", "2026-13-01", "99999999999999999999d", "1000000000d"} {
		if got, err := parseWhen(now, "since", text); err == nil {
			t.Errorf("%s is %s", text, got)
		}
	}
}

func TestClockAt(t *testing.T) {
	local := time.Local
	time.Local = time.UTC
	defer func() { time.Local = local }()
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC) // a Friday
	for d, want := range map[time.Duration]string{
		2*time.Hour + 30*time.Minute: "14:30 UTC",
		13 * time.Hour:               "Sat 01:00 UTC",
		69 * time.Hour:               "Mon 09:00 UTC",
		11 * 24 * time.Hour:          "2026-12-01 12:00 UTC",
		-3 * 24 * time.Hour:          "2026-11-17 12:00 UTC",
	} {
		if got := clockAt(now, now.Add(d)); got != want {
			t.Errorf("in %s is %s, want %s", d, got, want)
		}
	}
}
