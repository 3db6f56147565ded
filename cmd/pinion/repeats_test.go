package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/reconcile"
)

// A service that is tried again and again, and fails as before, is told once, and
// then seldom; what is new is told at once.
func TestRepeatedFailuresAreToldSeldom(t *testing.T) {
	var lines, records bytes.Buffer
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	p := newProgress(&lines)
	p.now = func() time.Time { return now }
	log := logEventsAt(slog.New(slog.NewJSONHandler(&records, nil)), p.now)
	tell := func(phase reconcile.Phase, version, message string) {
		now = now.Add(time.Second)
		ev := reconcile.Event{Type: reconcile.EventPhase, Environment: "dev", Service: "web", Phase: phase, Version: version, Message: message}
		p.report(ev)
		log(ev)
		now = now.Add(2 * time.Second)
		p.remind()
	}
	try := func(version, message string) {
		tell(reconcile.Applying, version, "")
		tell(reconcile.Progressing, version, "0 of 1 are ready")
		tell(reconcile.Failed, version, message)
	}
	counted := func(want map[string]int) {
		t.Helper()
		for text, n := range want {
			if got := strings.Count(lines.String(), "failed dev/web "+text); got != n {
				t.Errorf("%q is told %d times, want %d:\n%s", text, got, n, &lines)
			}
		}
		sums := map[string]int{}
		for text, n := range want {
			_, message, _ := strings.Cut(text, ": ")
			sums[message] += n
		}
		for message, n := range sums {
			if got := strings.Count(records.String(), `"message":"`+message); got != n {
				t.Errorf("%q is logged %d times, want %d:\n%s", message, got, n, &records)
			}
		}
	}
	for range 10 {
		try("1.0.0", "no such image")
	}
	counted(map[string]int{"1.0.0 after 6s: no such image": 1})
	if got := strings.Count(lines.String(), "\n"); got != 2 {
		t.Errorf("%d lines are told:\n%s", got, &lines)
	}
	now = now.Add(sayAgain)
	try("1.0.0", "no such image")
	counted(map[string]int{"1.0.0 after 6s: no such image": 2})
	if want := "no such image (still, after 10 more tries)"; !strings.Contains(lines.String(), want) || !strings.Contains(records.String(), want) {
		t.Errorf("want %q:\n%s%s", want, &lines, &records)
	}
	try("1.0.0", "crashes")
	try("1.1.0", "crashes")
	tell(reconcile.Ready, "1.1.0", "")
	try("1.1.0", "crashes")
	counted(map[string]int{"1.0.0 after 6s: no such image": 2, "1.0.0 after 6s: crashes": 1, "1.1.0 after 6s: crashes": 2})
	p.report(reconcile.Event{Type: reconcile.EventCommit, Environment: "dev", Service: "web", Message: "removed"})
	try("1.1.0", "crashes")
	if got := strings.Count(lines.String(), "failed dev/web 1.1.0 after 6s: crashes"); got != 3 {
		t.Errorf("of one that was gone it is told %d times:\n%s", got, &lines)
	}
}
