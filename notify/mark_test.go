package notify

import (
	"strings"
	"testing"
	"time"
)

func TestMark(t *testing.T) {
	commit := strings.Repeat("4f", 20)
	for _, at := range []time.Time{{}, noon, noon.Add(time.Nanosecond)} {
		if c, ended, err := ParseMark(Mark(commit, at)); c != commit || !ended.Equal(at) || err != nil {
			t.Errorf("%s is %s, %s, %v", Mark(commit, at), c, ended, err)
		}
	}
	for _, s := range []string{"@2026-11-20T12:00:00Z", commit + "@", commit + "@noon", commit[1:], "x@2026-11-20T12:00:00Z", commit + "@2026-11-20T12:00:00Z@"} {
		if c, ended, err := ParseMark(s); err == nil {
			t.Errorf("%q is taken as %s, %s", s, c, ended)
		}
	}
	if c, ended, err := ParseMark(""); c != "" || !ended.IsZero() || err != nil {
		t.Errorf("nothing yet is %s, %s, %v", c, ended, err)
	}
}
