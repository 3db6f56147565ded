package main

import (
	"context"
	"strings"
	"testing"
)

// entries returns the subjects of a ledger's entries on the remote, oldest
// first.
func (w *world) entries(environment string) []string {
	w.Helper()
	w.git("fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*")
	if w.git("for-each-ref", "refs/remotes/origin/ledger/"+environment) == "" {
		return nil
	}
	return strings.Split(w.git("log", "--reverse", "--format=%s", "origin/ledger/"+environment), "\n")
}

// recorded waits until a ledger ends with entries whose subjects begin as
// given.
func (w *world) recorded(environment string, want ...string) {
	w.Helper()
	w.until("ledger/"+environment+" ends with "+strings.Join(want, "; "), func(context.Context) string {
		all := w.entries(environment)
		if len(all) < len(want) {
			return "it has " + strings.Join(all, "; ")
		}
		for i, subject := range all[len(all)-len(want):] {
			if !strings.HasPrefix(subject, want[i]) {
				return "it has " + strings.Join(all, "; ")
			}
		}
		return ""
	})
}

func TestDeploymentsAreRecorded(t *testing.T) {
	w := newWorld(t, twoServices)
	d := w.daemon(t.TempDir())
	w.runs("api", "registry.example/api:1.0.0")
	w.until("both services are verified", func(context.Context) string {
		all := map[string]string{}
		for _, subject := range w.entries("dev") {
			event, rest, _ := strings.Cut(subject, "(dev): ")
			all[rest] += " " + event
		}
		for _, service := range []string{"api 1.0.0", "web 1.0.0"} {
			if all[service] != " pinned started completed verified" {
				return service + " has" + all[service]
			}
		}
		return ""
	})
	d.stop()
}
