package history

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// What is looked up is what looking at each deployment finds, whatever a person
// calls a version, and also after a ledger was written anew.
func TestLookedUpIsWhatIsThere(t *testing.T) {
	t.Parallel()
	o := newOffice(t, 3)
	o.write(150)
	x := o.index()
	check := func() {
		t.Helper()
		entries := func(all []*Deployment) string {
			var s strings.Builder
			for _, d := range all {
				fmt.Fprintf(&s, "%s %s\n", d.Environment, d.Entry)
			}
			return s.String()
		}
		all := o.all(x, DeploymentQuery{}, 1000, func() {})
		versions := map[string]bool{"": true, "sha256:0": true, "sha256:": true, "sha256:000000000000": true, "none": true, "1.": true, "1.3.0@": true}
		for _, d := range all {
			versions[d.Version], versions[d.Commit], versions[strings.ToUpper(d.Commit[:9])], versions[d.Commit[:6]] = true, true, true, true
			image, err := desired.ParseImage(d.Pins[0].Image)
			if err != nil {
				t.Fatal(err)
			}
			versions[image.Reference], versions[image.Version+"@"+image.Digest] = true, true
			if image.Digest != "" {
				versions[image.Digest], versions[image.Digest[:20]] = true, true
			}
		}
		for version := range versions {
			for _, q := range []DeploymentQuery{{}, {Service: "web"}, {Environment: "dev"}, {Service: "api", Environment: "staging", State: ledger.StateSuperseded}, {Since: all[len(all)/2].Pinned}} {
				q.Version = version
				var want []*Deployment
				for _, d := range all {
					if (q.Environment == "" || d.Environment == q.Environment) && q.wants(d) {
						want = append(want, d)
					}
				}
				if diff := cmp.Diff(entries(want), entries(o.all(x, q, 4, func() {}))); diff != "" {
					t.Fatalf("%+v: looked up (+), and there (-):\n%s", q, diff)
				}
			}
		}
	}
	check()
	o.write(60)
	check()
	o.git("", "update-ref", "refs/heads/"+ledger.Branch("dev"), "refs/heads/"+ledger.Branch("dev")+"~5")
	check()
}
