package reconcile

import (
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/render"
)

// A log tells which deployment a phase is of, as soon as what runs is of the one
// that is wanted.
func TestAPhaseNamesItsDeployment(t *testing.T) {
	commit := strings.Repeat("4f1c2aa90b7e", 4)[:40]
	for name, c := range map[string]struct {
		commit  string
		applied time.Time
		want    string
	}{
		"applied":                     {commit, time.Unix(1, 0), "web-4f1c2aa90b7e"},
		"what runs is the one before": {commit, time.Time{}, ""},
		"nothing runs":                {"", time.Unix(1, 0), ""},
		"without objects":             {"sha256:" + commit, time.Unix(1, 0), ""},
	} {
		var told []Event
		e := NewEngine(Options{Report: func(ev Event) { told = append(told, ev) }})
		u := &unit{key: Key{"dev", "web"}, target: &Target{Result: &render.Result{}}, commit: c.commit, applied: c.applied}
		e.units[u.key] = u
		e.enter(time.Unix(2, 0), u, Step{Phase: Ready})
		if len(told) != 1 || told[0].Deployment != c.want || told[0].Commit != c.commit {
			t.Errorf("%s: %+v", name, told)
		}
	}
}
