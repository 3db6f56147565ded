package cluster

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/render"
)

// Done is a Job that has completed, as it was applied. That outlives the Job,
// which may remove itself, and whoever saw it complete.
type Done struct {
	Ref    render.Ref `json:"object"`
	Digest string     `json:"digest"`
	At     time.Time  `json:"at"`
}

// mostDone bounds how many are kept of an environment: some 60 KiB.
const mostDone = 500

func parseDone(text string) ([]Done, error) {
	var all []Done
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		bad := fmt.Errorf("line %q of %s is not \"time namespace/name digest\"; mend it, or remove it if the Job may be run again", strings.TrimSpace(line), inventoryDone)
		if len(words) != 3 {
			return nil, bad
		}
		at, err := time.Parse(time.RFC3339, words[0])
		namespace, name, ok := strings.Cut(words[1], "/")
		if err != nil || !ok {
			return nil, bad
		}
		all = append(all, Done{Ref: jobRef(namespace, name), Digest: words[2], At: at})
	}
	return all, nil
}

func writeDone(all []Done) string {
	var b strings.Builder
	for _, d := range all {
		fmt.Fprintf(&b, "%s %s/%s %s\n", d.At.UTC().Format(time.RFC3339), d.Ref.Namespace, d.Ref.Name, d.Digest)
	}
	return b.String()
}

// remember adds what has completed; the oldest are forgotten when there are too
// many.
func (i *Inventory) remember(done []Done) (changed bool) {
	for _, d := range done {
		at := slices.IndexFunc(i.Done, func(x Done) bool { return x.Ref == d.Ref })
		switch {
		case at < 0:
			i.Done = append(i.Done, d)
		case i.Done[at].Digest == d.Digest:
			continue
		default:
			i.Done[at] = d
		}
		changed = true
	}
	slices.SortStableFunc(i.Done, func(a, b Done) int { return cmp.Or(a.At.Compare(b.At), a.Ref.Compare(b.Ref)) })
	if n := len(i.Done) - mostDone; n > 0 {
		i.Done = slices.Delete(i.Done, 0, n)
	}
	return changed
}

// Remember keeps in an environment's inventory that Jobs have completed.
func (c *Cluster) Remember(ctx context.Context, scope Scope, done []Done) error {
	return c.changeInventory(ctx, scope, c.inventoryOf(scope), func(known *Inventory) bool { return known.remember(done) })
}
