package ledger

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pinion-cd/pinion/desired"
)

func TestChange(t *testing.T) {
	c := Change{
		Kind: ChangePromoted, Environment: "production", Service: "web", Before: "1.4.1", From: []string{"staging@" + commit("c")},
		Release: Release{[]Pin{{"web", "ghcr.io/acme/web:1.4.2@sha256:2222"}}, commit("b")}, Policy: "default@" + commit("d"),
		Reason: "Verified in staging: rollout complete, soaked 30m, e2e passed (ci, https://ci.example/5).",
		Checks: []Check{{Policy: "e2e", Result: Success, By: "ci", URL: "https://ci.example/5", Description: "41 of 41"}}, RequestedBy: []Person{alice}, CoAuthors: []Person{{"Bob", "bob@example.com"}},
	}
	want := `promote(production): web 1.4.1 → 1.4.2

Verified in staging: rollout complete, soaked 30m, e2e passed (ci, https://ci.example/5).

- e2e: 41 of 41

Pinion-Event: promoted
Pinion-Environment: production
Pinion-Service: web
Pinion-From: staging@cccccccccccccccccccccccccccccccccccccccc
Pinion-Pin: web ghcr.io/acme/web:1.4.2@sha256:2222
Pinion-Source: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
Pinion-Policy: default@dddddddddddddddddddddddddddddddddddddddd
Pinion-Before: 1.4.1
Pinion-Check: e2e success ci https://ci.example/5
Requested-By: Alice Smith <alice@example.com>
Co-authored-by: Bob <bob@example.com>
`
	if diff := cmp.Diff(want, c.Message()); diff != "" {
		t.Error(diff)
	}
	got, ok := ParseChange(want)
	if diff := cmp.Diff(c, got); !ok || diff != "" {
		t.Error(ok, diff)
	}
	for want, c := range map[string]Change{
		"rollback(production): web 1.4.2 → 1.4.1":                    {Kind: ChangeRolledBack, Environment: "production", Service: "web", Before: "1.4.2", Release: release("1.4.1", "")},
		"rollback(production): web 1.4.2, manifests of aaaaaaaaaaaa": {Kind: ChangeRolledBack, Environment: "production", Service: "web", Before: "1.4.2", Release: release("1.4.2", commit("a"))},
		"pin(dev): web 1.4.2 → 1.4.3":                                {Kind: ChangePinned, Environment: "dev", Service: "web", Before: "1.4.2", Release: release("1.4.3", "")},
		"hold(inc-431): INC-431, checkout errors":                    {Kind: ChangeHeld, Hold: "inc-431", Summary: "INC-431, checkout\nerrors"},
		"release(inc-431): mended":                                   {Kind: ChangeReleased, Hold: "inc-431", Summary: "mended"},
	} {
		if got := c.Subject(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if _, ok := ParseChange(c.Message()); !ok {
			t.Errorf("not read back: %s", c.Message())
		}
	}
	for _, m := range []string{
		"", "web 1.4.2", "promote(production): web 1.4.1 → 1.4.2\n\nIt is time.", want + "\nand more\n", want + "Pinion-Event: promoted\n",
		"Revert \"promote(production): web 1.4.1 → 1.4.2\"\n\nThis reverts commit aaaa.\n", pinned("a", "1").Message(),
		"x\n\nPinion-Event: verified\nPinion-Environment: production\nPinion-Service: web\nPinion-Pin: web acme/web:1\n",
		"x\n\nPinion-Event: promoted\nPinion-Environment: production\nPinion-Service: web\n",
		"x\n\nPinion-Event: promoted\nPinion-Environment: production\nPinion-Service: web\nPinion-Pin: web\n",
		"x\n\nPinion-Event: held\n",
	} {
		if c, ok := ParseChange(m); ok {
			t.Errorf("%q is taken for %+v", m, c)
		}
	}
}

// One policy may be asked for by several stages: a change says what it came to in
// each of them.
func TestChangeWithSeveralResultsOfAPolicy(t *testing.T) {
	result := func(url, description string) Check {
		return Check{Policy: "e2e", Result: Success, By: "ci", URL: url, Description: description}
	}
	c := Change{
		Kind: ChangePromoted, Environment: "production", Service: "web", Before: "1.4.1", From: []string{"qa@" + commit("c"), "staging@" + commit("d")},
		Release: Release{[]Pin{{"web", "ghcr.io/acme/web:1.4.2"}}, ""},
		Reason:  "Verified in qa: rollout complete, e2e passed (ci, https://ci.example/1). Verified in staging: rollout complete, e2e passed (ci, https://ci.example/2).",
		Checks:  []Check{result("https://ci.example/1", ""), result("https://ci.example/2", "41 of 41"), {Policy: "soak", Result: Success, By: "pinion", Description: "soaked 30m"}},
	}
	got, ok := ParseChange(c.Message())
	if diff := cmp.Diff(c, got); !ok || diff != "" {
		t.Fatal(ok, diff)
	}
	for _, line := range []string{"- e2e 2: 41 of 41", "Pinion-Check: e2e success ci https://ci.example/1", "Pinion-Check: e2e success ci https://ci.example/2"} {
		if !strings.Contains(c.Message(), "\n"+line+"\n") {
			t.Errorf("%q is not in\n%s", line, c.Message())
		}
	}
	// What is the same is said once, also where it was written twice.
	once := c.Message()
	twice := c
	twice.Checks = append(slices.Clone(c.Checks), c.Checks[2])
	if diff := cmp.Diff(once, twice.Message()); diff != "" {
		t.Error(diff)
	}
	got, ok = ParseChange(once + "Pinion-Check: e2e success ci https://ci.example/1\n")
	if !ok || len(got.Checks) != 3 {
		t.Error(ok, got.Checks)
	}
	// In a ledger a deployment has one result of each.
	e := pinned("a", "1.4.2")
	e.Event, e.Cause, e.Checks = EventVerified, "", c.Checks
	if _, err := ParseMessage(e.Message(), e.Time); err == nil || !strings.Contains(err.Error(), "e2e: there are two results") {
		t.Error(err)
	}
}

func randomChange(rnd *rand.Rand) Change {
	c := Change{
		Kind: pick(rnd, ChangePromoted, ChangeRolledBack, ChangePinned, ChangeHeld, ChangeReleased), Policy: pick(rnd, odd...), Before: pick(rnd, odd...), Reason: pick(rnd, odd...),
		Checks: randomChecks(rnd, rnd.IntN(4)), From: []string{pick(rnd, odd...)}, RequestedBy: []Person{randomPerson(rnd)}, CoAuthors: []Person{randomPerson(rnd)},
	}
	if rnd.IntN(2) == 0 {
		c.Checks = append(c.Checks, randomChecks(rnd, rnd.IntN(4))...) // of another stage
	}
	if c.Kind.hold() {
		c.Hold, c.Summary = "inc-431", pick(rnd, odd...)
	} else {
		c.Environment, c.Service, c.Release = "production", "web", Release{[]Pin{{"web", "x" + pick(rnd, odd...)}, {"api", "x:1"}}, pick(rnd, "", commit("a"))}
	}
	return c
}

func TestChangesAreReadBack(t *testing.T) {
	for seed := range uint64(3000) {
		c := randomChange(rand.New(rand.NewPCG(seed, 7)))
		got, ok := ParseChange(c.Message())
		if diff := cmp.Diff(c.normal(), got); !ok || diff != "" {
			t.Fatalf("seed %d: %v %s\n%s", seed, ok, diff, c.Message())
		}
	}
}

func FuzzParseChange(f *testing.F) {
	for seed := range uint64(30) {
		f.Add(randomChange(rand.New(rand.NewPCG(seed, 8))).Message())
	}
	f.Fuzz(func(t *testing.T, m string) {
		c, ok := ParseChange(m)
		if !ok {
			return
		}
		got, ok := ParseChange(c.Message())
		if diff := cmp.Diff(c, got); !ok || diff != "" {
			t.Fatalf("%v %s\n%q", ok, diff, c.Message())
		}
		Authors(alice, alice, m)
	})
}

func TestCauseOf(t *testing.T) {
	up := func(c string) []Entry {
		return []Entry{entry(EventStarted, c), entry(EventCompleted, c), entry(EventVerified, c)}
	}
	// 1.4.1 was verified, then 1.4.2, then 1.5.0, which failed.
	r := after(t, Record{}, slices.Concat([]Entry{pinned("a", "1.4.1")}, up("a"), []Entry{pinned("b", "1.4.2")}, up("b"), []Entry{pinned("c", "1.5.0"), entry(EventFailed, "c")})...)
	hashes := after(t, Record{}, slices.Concat([]Entry{pinned("a", "fa1")}, up("a"), []Entry{pinned("b", "ce2")}, up("b"))...)
	back := after(t, hashes, pinned("c", "fa1", because(CauseRollback)), entry(EventSuperseded, "c"))
	claim := func(kind ChangeKind, version, source string) Change {
		return Change{Kind: kind, Environment: "staging", Service: "web", Release: release(version, source)}
	}
	for _, test := range []struct {
		name   string
		record Record
		next   Release
		change Change
		pinion bool
		want   Cause
	}{
		{"first", Record{}, release("1", "x"), Change{}, false, CausePin},
		{"first, promoted", Record{}, release("1", "x"), claim(ChangePromoted, "1", ""), true, CausePromotion},
		{"higher", r, release("1.5.1", "x"), Change{}, false, CausePin},
		{"lower", r, release("1.3.0", "x"), Change{}, false, CauseRevert},
		{"lower, as before", r, release("1.4.2", "x"), Change{}, false, CauseRevert},
		{"the same", r, release("1.5.0", "x"), Change{}, false, CauseManifests},
		{"not a version", r, release("main", "x"), Change{}, false, CausePin},
		{"promoted", r, release("1.5.1", "x"), claim(ChangePromoted, "1.5.1", ""), true, CausePromotion},
		{"promoted with its manifests", r, release("1.5.0", "x"), claim(ChangePromoted, "1.5.0", "x"), true, CausePromotion},
		{"promoted to a lower one", r, release("1.4.2", "x"), claim(ChangePromoted, "1.4.2", ""), true, CausePromotion},
		{"rolled back", r, release("1.4.2", "x"), claim(ChangeRolledBack, "1.4.2", ""), true, CauseRollback},
		{"pinned by the command", r, release("1.4.2", "x"), claim(ChangePinned, "1.4.2", ""), true, CauseRevert},
		{"claims it only", r, release("1.5.1", "x"), claim(ChangePromoted, "1.5.1", ""), false, CausePin},
		{"claims another one", r, release("1.5.1", "x"), claim(ChangePromoted, "1.6.0", ""), true, CausePin},
		{"claims other manifests", r, release("1.5.1", "x"), claim(ChangePromoted, "1.5.1", "y"), true, CausePin},
		{"of another service", r, release("1.5.1", "x"), Change{Kind: ChangePromoted, Environment: "staging", Service: "api", Release: release("1.5.1", "")}, true, CausePin},
		{"of another environment", r, release("1.5.1", "x"), Change{Kind: ChangePromoted, Environment: "dev", Service: "web", Release: release("1.5.1", "")}, true, CausePin},
		{"no version, as before", hashes, release("fa1", "x"), Change{}, false, CauseRevert},
		{"no version, once more after it was refused", back, release("ce2", "x"), Change{}, false, CausePin},
	} {
		if got := CauseOf(test.record, test.next, test.change, test.pinion); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

func TestReleases(t *testing.T) {
	pins := func(images ...string) Release {
		var r Release
		for i, s := range images {
			r.Pins = append(r.Pins, Pin{desired.ArtifactName('a' + rune(i)), s})
		}
		return r
	}
	for _, test := range []struct {
		a, b              Release
		newer, comparable bool
	}{
		{pins("x:1.4.2"), pins("x:1.4.1"), true, true},
		{pins("x:1.4.1"), pins("x:1.4.2"), false, true},
		{pins("x:1.4.1"), pins("x:1.4.1"), false, true},
		{pins("x:v1.10"), pins("x:1.9.0"), true, true},
		{pins("x:1.4.2-rc.1"), pins("x:1.4.2"), false, true},
		{pins("x:1.4.2@sha256:2"), pins("y:5000/x:1.4.1@sha256:1"), true, true},
		{pins("x:2", "x:1"), pins("x:1", "x:1"), true, true},
		{pins("x:2", "x:1"), pins("x:1", "x:2"), false, true},
		{pins("x:2", "x:1"), pins("x:1"), false, false},
		{pins("x:main"), pins("x:1"), false, false},
		{pins("x@sha256:2"), pins("x@sha256:1"), false, false},
		{pins(), pins(), false, false},
	} {
		if newer, ok := Newer(test.a, test.b); newer != test.newer || ok != test.comparable {
			t.Errorf("Newer(%v, %v) = %v, %v", test.a, test.b, newer, ok)
		}
	}
	for want, r := range map[string]Release{
		"":                    pins(),
		"1.4.2":               pins("ghcr.io/acme/web:1.4.2@sha256:2222"),
		"sha256:222222222222": pins("host:5000/web@sha256:2222222222222222"),
		"a 1, b sha256:3":     pins("x:1", "x@sha256:3"),
	} {
		if got := r.Version(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	r := ReleaseOf([]desired.Pin{{Artifact: "web", Image: desired.Image{Reference: "x:1"}}, {Artifact: "api", Image: desired.Image{Reference: "y:1"}}}, "s")
	if want := (Release{[]Pin{{"api", "y:1"}, {"web", "x:1"}}, "s"}); !r.Equal(want) || r.Equal(Release{want.Pins, "t"}) || !r.SamePins(Release{want.Pins, "t"}) || r.SamePins(pins("x:1")) {
		t.Errorf("%v", r)
	}
	if got := DeploymentID("web", commit("4f1c2aa90b7e")); got != "web-4f1c2aa90b7e" {
		t.Error(got)
	}
}
