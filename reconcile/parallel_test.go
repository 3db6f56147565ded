package reconcile_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/ledger"
)

// twoWays is threeStages with a second stage beside staging; production comes
// after both.
var twoWays = strings.NewReplacer(
	"- environment: staging\n", "- environment: qa\n  after: [dev]\n  verify: [e2e]\n- environment: staging\n  after: [dev]\n",
	"- environment: production\n  admit: [release]\n", "- environment: production\n  after: [qa, staging]\n",
).Replace(threeStages) + `
-- environments/qa.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: shop-qa
pins:
  web:
    image: registry.example/web:1.0.0
`

// What is verified in one of two stages waits for the other, whichever is first,
// and enters by the evidence of both.
func TestPromotionAfterTwoStages(t *testing.T) {
	t.Parallel()
	h := newHouse(t, twoWays)
	verified := func(env, version string) {
		t.Helper()
		h.runs(env, version, ledger.StateCompleted)
		h.must(h.report("ci", env, "e2e", version, ledger.Success))
		h.runs(env, version, ledger.StateVerified)
	}
	verified("qa", "1.0.0")
	verified("staging", "1.0.0")
	h.runs("production", "1.0.0", ledger.StateVerified)
	for i, order := range [][]string{{"staging", "qa"}, {"qa", "staging"}} {
		from, to := fmt.Sprintf("1.%d.0", i), fmt.Sprintf("1.%d.0", i+1)
		h.pin("dev", from, to)
		verified(order[0], to)
		h.still("production", from, ledger.StateVerified)
		if n := h.times("main", "promote(production): web "+from+" → "+to); n != 0 {
			t.Errorf("%s entered production before %s had verified it", to, order[1])
		}
		if r, err := h.record("production", "web"); err != nil || r.Candidate != nil {
			t.Errorf("%s is offered to production before %s has verified it (%v)", to, order[1], err)
		}
		verified(order[1], to)
		h.runs("production", to, ledger.StateVerified)
		message := h.git("--git-dir="+h.remote, "log", "-1", "--format=%B", "--grep=^promote(production): web "+from+" → "+to, "main")
		for _, want := range []string{
			"Verified in qa: rollout complete, e2e passed (ci, https://ci.shop.example/" + to + ").",
			"Verified in staging: rollout complete, e2e passed (ci, https://ci.shop.example/" + to + ").",
			"Pinion-From: qa@", "Pinion-From: staging@",
		} {
			if !strings.Contains(message, want) {
				t.Errorf("the promotion does not say %q:\n%s", want, message)
			}
		}
	}
	// Where one fails it, it enters nowhere, and a later one does.
	h.pin("dev", "1.2.0", "1.3.0")
	verified("qa", "1.3.0")
	h.runs("staging", "1.3.0", ledger.StateCompleted)
	h.must(h.report("ci", "staging", "e2e", "1.3.0", ledger.Failure))
	h.runs("staging", "1.2.0", ledger.StateVerified)
	h.still("production", "1.2.0", ledger.StateVerified)
	h.pin("dev", "1.3.0", "1.4.0")
	verified("qa", "1.4.0")
	verified("staging", "1.4.0")
	h.runs("production", "1.4.0", ledger.StateVerified)
	h.settled()
	h.lawful()
}
