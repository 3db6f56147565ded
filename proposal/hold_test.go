package proposal

import (
	"errors"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/reconcile"
)

// Who may end a hold is asked about the hold of the very commit that its end is
// judged on, which may cover more than it did when she asked.
func TestWhoMayEndAHold(t *testing.T) {
	t.Parallel()
	denied := errors.New("denied")
	staging := func(covers []desired.EnvironmentName) error {
		if slices.Equal(covers, []desired.EnvironmentName{"staging"}) {
			return nil
		}
		return denied
	}
	ground := func(hold desired.HoldName, covers ...desired.EnvironmentName) *Ground {
		h := &desired.Hold{Name: hold, Environments: covers, Reason: "audit"}
		repo := &desired.Repository{Holds: map[desired.HoldName]*desired.Hold{hold: h}}
		return &Ground{View: &history.View{}, Commit: &reconcile.Commit{Repository: repo}}
	}
	broken, err := desired.Read(desired.Hashed(fstest.MapFS{"holds/audit.yaml": {Data: []byte("kind: Hold\n")}}), nil)
	if err != nil {
		t.Fatal(err)
	}
	unreadable := &Ground{View: &history.View{}, Commit: &reconcile.Commit{Repository: broken}}
	now := time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)
	for what, x := range map[string]struct {
		gr   *Ground
		want error
	}{
		"that covers what she may write to": {ground("audit", "staging"), nil},
		"that covers more":                  {ground("audit", "staging", "production"), denied},
		"that covers all":                   {ground("audit"), denied},
		"that can't be read":                {unreadable, denied},
	} {
		for how, asked := range map[string]Asked{
			"end":        Release{Name: "audit", Now: now, MayEnd: staging},
			"write over": Hold{Name: "audit", Reason: "audit", Owner: "dana", Replace: true, Now: now, MayEnd: staging},
		} {
			if _, err := asked.Propose(t.Context(), x.gr); err != x.want {
				t.Errorf("%s a hold %s: %v, want %v", how, what, err, x.want)
			}
		}
	}
	if _, err := (Hold{Name: "audit", Reason: "audit", Owner: "dana", Now: now, MayEnd: staging}).Propose(t.Context(), ground("other")); err != nil {
		t.Errorf("a new hold: %v", err)
	}
}
