package history

import (
	"fmt"
	"time"
)

// ShortAge writes a duration as kubectl does: its largest unit.
func ShortAge(d time.Duration) string {
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

// Age writes how long ago something was.
func Age(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return ShortAge(now.Sub(t))
}

// Clock writes when something will be, in the time zone of now.
func Clock(now, t time.Time) string {
	t = t.In(now.Location())
	switch d := t.Sub(now); {
	case d >= 0 && d < 12*time.Hour && t.Day() == now.Day():
		return t.Format("15:04 MST")
	case d >= 0 && d < 6*24*time.Hour:
		return t.Format("Mon 15:04 MST")
	}
	return t.Format("2006-01-02 15:04 MST")
}

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }
