package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

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
