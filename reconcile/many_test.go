package reconcile_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/reconcile"
)

// manyServices is a repository of n services in two environments; all wait for
// the same hold.
func manyServices(n int, version string) string {
	var b strings.Builder
	for _, env := range []string{"dev", "production"} {
		fmt.Fprintf(&b, "-- environments/%s.yaml --\napiVersion: pinion.dev/v1\nkind: Environment\nnamespace: shop-%s\npins:\n", env, env)
		for i := range n {
			fmt.Fprintf(&b, "  s%04d:\n    image: registry.example/s%04d:%s@sha256:%064x\n", i, i, version, i)
		}
	}
	for i := range n {
		fmt.Fprintf(&b, "-- services/s%04d/service.yaml --\napiVersion: pinion.dev/v1\nkind: Service\n", i)
		fmt.Fprintf(&b, "-- services/s%04d/x.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: s%04d}\ndata: {a: b}\n", i, i)
	}
	b.WriteString(`
-- pipelines/default.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: ["*"]
stages:
- environment: dev
- environment: production
`)
	return b.String()
}

const freeze = `
-- holds/freeze.yaml --
apiVersion: pinion.dev/v1
kind: Hold
reason: everything waits
owner: dana@shop.example
`

// What may enter in the same moment is pushed together, one commit for each.
func TestManyEnterTogether(t *testing.T) {
	const n = 60
	h := newRepository(t, manyServices(n, "1.0.0"))
	h.push("freeze", freeze)
	var mu sync.Mutex
	pushes := map[int]int{} // by the moves that they carried
	h.start(reconcile.ClerkOptions{Pushed: func(_, moves int, _ time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		pushes[moves]++
	}})
	all := func(branch, prefix string, want int) {
		t.Helper()
		h.until(fmt.Sprintf("%s has %d of %s", branch, want, prefix), func() string {
			c := 0
			for _, s := range h.subjects(branch) {
				if strings.HasPrefix(s, prefix) {
					c++
				}
			}
			if c != want {
				return fmt.Sprint(c)
			}
			return ""
		})
	}
	all("ledger/production", "verified", n)
	all("ledger/dev", "verified", n)
	h.change("bump all", func() { h.edit("environments/dev.yaml", ":1.0.0@", ":1.1.0@") })
	all("ledger/production", "offered", n)
	h.change("thaw", func() { h.git("rm", "-q", "holds/freeze.yaml") })
	all("main", "promote(production)", n)
	all("ledger/production", "verified", 2*n)
	h.settled()
	all("main", "promote(production)", n)
	mu.Lock()
	defer mu.Unlock()
	if pushes[n] == 0 {
		t.Errorf("no push carried all %d promotions; by the number of promotions there were %v pushes", n, pushes)
	}
	h.sound()
}
