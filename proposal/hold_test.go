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

// Whoever lost the answer asks in the same words, which need not be those of the
// file.
func TestAHoldThatIsThere(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{}
	for _, env := range []string{"dev", "staging"} {
		files["environments/"+env+".yaml"] = &fstest.MapFile{Data: []byte("apiVersion: pinion.dev/v1\nkind: Environment\nnamespace: " + env + "\n")}
	}
	for _, svc := range []string{"api", "web"} {
		files["services/"+svc+"/service.yaml"] = &fstest.MapFile{Data: []byte("apiVersion: pinion.dev/v1\nkind: Service\nartifacts: []\n")}
	}
	ground := func() *Ground {
		t.Helper()
		repo, err := desired.Read(desired.Hashed(files), nil)
		if err != nil || len(repo.Problems) > 0 {
			t.Fatal(err, repo.Problems)
		}
		return &Ground{View: &history.View{}, Commit: &reconcile.Commit{Repository: repo}}
	}
	now := time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)
	asked := Hold{
		Name: "audit", Environments: []desired.EnvironmentName{"staging", "dev", "dev"}, Services: []desired.ServiceName{"web", "api", "web"},
		Reason: " the audit\nof this year\n", Owner: "dana", Until: now.Add(time.Hour + time.Millisecond).In(time.FixedZone("", 3600)), Now: now,
	}
	p, err := asked.Propose(t.Context(), ground())
	if err != nil {
		t.Fatal(err)
	}
	if want := "dev and staging, for api and web: the audit …"; p.Change.Summary != want {
		t.Errorf("got %q, want %q", p.Change.Summary, want)
	}
	if !slices.Equal(asked.Environments, []desired.EnvironmentName{"staging", "dev", "dev"}) {
		t.Errorf("what is asked for has become %v", asked.Environments)
	}
	file := p.Files["holds/audit.yaml"]
	byHand := []byte("apiVersion: pinion.dev/v1\nkind: Hold\nenvironments: [staging, dev]\nservices: [web, api]\nreason: |\n  the audit\n  of this year\nowner: dana\nuntil: 2026-11-28T10:00:00Z\n")
	for _, data := range [][]byte{file, byHand} {
		files["holds/audit.yaml"] = &fstest.MapFile{Data: data}
		if again, err := asked.Propose(t.Context(), ground()); err != nil || again.Nothing == "" {
			t.Errorf("over\n%s\ngot %+v, %v", data, again, err)
		}
	}
	var unfit *Unfit
	for what, other := range map[string]func(*Hold){
		"fewer environments": func(h *Hold) { h.Environments = h.Environments[:1] },
		"all services":       func(h *Hold) { h.Services = nil },
		"another reason":     func(h *Hold) { h.Reason = "the audit" },
		"another owner":      func(h *Hold) { h.Owner = "kim" },
		"for longer":         func(h *Hold) { h.Until = h.Until.Add(time.Second) },
	} {
		h := asked
		other(&h)
		if p, err := h.Propose(t.Context(), ground()); !errors.As(err, &unfit) {
			t.Errorf("%s: %+v, %v", what, p, err)
		}
	}
}
