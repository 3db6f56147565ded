package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// shortAge writes a duration as kubectl does: its largest unit.
func shortAge(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// ageAt writes how long ago something was.
func ageAt(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return shortAge(now.Sub(t))
}

// clockAt writes when something will be, by the clock on this machine's wall.
func clockAt(now, t time.Time) string {
	t = t.Local()
	switch d := t.Sub(now); {
	case d >= 0 && d < 12*time.Hour && t.Day() == now.Local().Day():
		return t.Format("15:04 MST")
	case d >= 0 && d < 6*24*time.Hour:
		return t.Format("Mon 15:04 MST")
	}
	return t.Format("2006-01-02 15:04 MST")
}

// parseWhen reads a moment: RFC 3339, a day (its beginning in UTC), or how long
// ago: "36h", "90m", "3d".
func parseWhen(now time.Time, flag, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return t, nil
	}
	ago, err := time.ParseDuration(s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		err = cmp.Or(err, rangeOf(n))
		ago = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || ago < 0 {
		return time.Time{}, fmt.Errorf("--%s %s is no moment; write 2026-12-01T09:00:00Z, 2026-12-01, or how long ago: 36h, 3d", flag, s)
	}
	return now.Add(-ago), nil
}

func rangeOf(days int) error {
	if days > 100_000 {
		return strconv.ErrRange
	}
	return nil
}

// rfc3339 writes a moment for scripts.
func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }
