package main

import (
	"testing"
	"time"
)

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
