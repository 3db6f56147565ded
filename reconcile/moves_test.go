package reconcile

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
)

const production = `apiVersion: pinion.dev/v1
kind: Environment
namespace: shop-production
pins:
  api:
    image: registry.example/api:2.0.0
  web:
    image: registry.example/web:1.4.1 # the shop window
`

const verifiedSource = "4f1c2aa90b7e4f1c2aa90b7e4f1c2aa90b7e4f1c"

func editor(t *testing.T, text string) *desired.Editor {
	t.Helper()
	ed, err := desired.NewEditor("environments/production.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return ed
}

func webRelease(version string) ledger.Release {
	return ledger.Release{Pins: []ledger.Pin{{Artifact: "web", Image: "registry.example/web:" + version}}, Source: verifiedSource}
}

// A promotion changes the lines that it moves, and no other.
func TestPromotionIsItsLinesAndItsMessage(t *testing.T) {
	p := policy.Promotion{
		Service: "web", Environment: "production", Release: webRelease("1.4.2"), Manifests: true,
		From: []string{"staging@0123456789ab"}, Authors: []ledger.Person{{Name: "Kim", Email: "kim@shop.example"}},
		Evidence: "Verified in staging: rollout complete.",
		Checks:   []ledger.Check{{Policy: "e2e", Result: ledger.Success, By: "ci"}},
		Before:   "1.4.1", Pipeline: "default@abc",
	}
	data, change, err := Promote(p, editor(t, production))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(production, "1.4.1", "1.4.2", 1) + "manifests:\n  web: " + verifiedSource + "\n"
	if diff := cmp.Diff(want, string(data)); diff != "" {
		t.Error(diff)
	}
	wantChange := ledger.Change{
		Kind: ledger.ChangePromoted, Environment: "production", Service: "web", From: p.From, Release: p.Release,
		Policy: "default@abc", Before: "1.4.1", Reason: p.Evidence, Checks: p.Checks, CoAuthors: p.Authors,
	}
	if diff := cmp.Diff(wantChange, change); diff != "" {
		t.Error(diff)
	}
	if read, ok := ledger.ParseChange(change.Message()); !ok || !read.Release.Equal(p.Release) {
		t.Errorf("the message reads as %+v, %t", read, ok)
	}

	// Where the manifests do not move, nothing says that they do.
	p.Manifests = false
	data, change, err = Promote(p, editor(t, production))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Replace(production, "1.4.1", "1.4.2", 1), string(data)); diff != "" {
		t.Error(diff)
	}
	if change.Release.Source != "" || p.Release.Source == "" {
		t.Errorf("the message has the source %q, the promotion %q", change.Release.Source, p.Release.Source)
	}
}

// A stage that is entered for the first time gets its pin; a rollback brings
// back none that somebody has removed.
func TestOnlyAPromotionAddsPins(t *testing.T) {
	without, _, _ := strings.Cut(production, "  web:\n")
	data, _, err := Promote(policy.Promotion{Service: "web", Environment: "production", Release: webRelease("1.4.2")}, editor(t, without))
	if err != nil || !strings.Contains(string(data), "  web:\n    image: registry.example/web:1.4.2\n") {
		t.Errorf("%v\n%s", err, data)
	}
	r := policy.Retreat{Service: "web", Environment: "production", To: webRelease("1.4.0"), Before: "1.4.1", Reason: "It failed."}
	if _, _, err := GoBack(r, editor(t, without)); !errors.Is(err, desired.ErrNotPinned) {
		t.Errorf("a pin that is not there is gone back to: %v", err)
	}
	data, change, err := GoBack(r, editor(t, production))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Replace(production, "1.4.1", "1.4.0", 1), string(data)); diff != "" {
		t.Error(diff)
	}
	if want := "rollback(production): web 1.4.1 → 1.4.0\n"; !strings.HasPrefix(change.Message(), want) {
		t.Errorf("the message is %q, want %q", change.Message(), want)
	}
}

// What the commit of a promotion says is enough to write it once more.
func TestPromotionRedoneByItsMessage(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("0123456789abcdef", 4)
	for _, p := range []policy.Promotion{
		{Release: webRelease("1.4.2")},
		{Release: webRelease("1.4.2"), Manifests: true},
		{Release: webRelease("1.4.2" + digest), Manifests: true},
		{Release: ledger.Release{Source: verifiedSource}, Manifests: true},
		{Release: ledger.Release{Pins: []ledger.Pin{{Artifact: "web", Image: "registry.example/web:1.4.2"}, {Artifact: "worker", Image: "registry.example:5000/a/worker:7" + digest}}}},
	} {
		p.Service, p.Environment, p.Evidence, p.Pipeline = "web", "production", "Verified in staging: rollout complete.", "default@abc"
		p.From = []string{"staging@0123456789ab"}
		data, change, err := Promote(p, editor(t, production))
		if err != nil {
			t.Fatal(err)
		}
		said, ok := ledger.ParseChange(change.Message())
		if !ok {
			t.Fatalf("its message can't be read:\n%s", change.Message())
		}
		again, err := Redo(said, editor(t, production))
		if err != nil || string(again) != string(data) {
			t.Errorf("%v: %s", err, cmp.Diff(string(data), string(again)))
		}
	}
	for _, kind := range []ledger.ChangeKind{ledger.ChangeTracked, ledger.ChangeRolledBack, ledger.ChangePinned} {
		if _, err := Redo(ledger.Change{Kind: kind, Service: "web", Environment: "production", Release: webRelease("1.4.2")}, editor(t, production)); err == nil {
			t.Errorf("%s is redone as a promotion", kind)
		}
	}
}
