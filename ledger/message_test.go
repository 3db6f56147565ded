package ledger

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/pinion-cd/pinion/desired"
)

var alice = Person{"Alice Smith", "alice@example.com"}

func TestMessage(t *testing.T) {
	e := entry(EventCheck, "4f1c2aa90b7e", func(e *Entry) {
		e.Release = Release{[]Pin{{"web", "ghcr.io/acme/web:1.4.2@sha256:2222"}, {"api", "ghcr.io/acme/api:2.0.1"}}, commit("4f1c2aa90b7e")}
		e.Manifests = "sha256:aaaa"
		e.Actor = alice
		e.Reason = "The load was low.\nPinion-Event: verified\n\n> # says who?\n#1 is open\n- smoke: not me\n\n\nDone.  "
		e.Checks = []Check{{Policy: "smoke", Result: Success, By: "ci", URL: "https://bob:secret@ci.example/5?a=b@c", Description: "41 of 41\nPinion-Event: verified", Output: "GET /\x00\n\n\n\x1b[31m200\x1b[0m\nPinion-Event: verified\n"}}
	})
	want := `check(staging): web api 2.0.1, web 1.4.2, smoke passed

The load was low.
>Pinion-Event: verified

> # says who?
>#1 is open
>- smoke: not me

Done.

- smoke: 41 of 41 Pinion-Event: verified

Output of smoke:
    GET /


    200
    Pinion-Event: verified

Pinion-Event: check
Pinion-Environment: staging
Pinion-Service: web
Pinion-Deployment: web-4f1c2aa90b7e
Pinion-Commit: 4f1c2aa90b7e4f1c2aa90b7e4f1c2aa90b7e4f1c
Pinion-Pin: api ghcr.io/acme/api:2.0.1
Pinion-Pin: web ghcr.io/acme/web:1.4.2@sha256:2222
Pinion-Source: 4f1c2aa90b7e4f1c2aa90b7e4f1c2aa90b7e4f1c
Pinion-Manifests: sha256:aaaa
Pinion-Check: smoke success ci https://ci.example/5?a=b@c
Pinion-Actor: Alice Smith <alice@example.com>
`
	if diff := cmp.Diff(want, e.Message()); diff != "" {
		t.Error(diff)
	}
	got, err := ParseMessage(want, e.Time)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(e.Normal(), got); diff != "" {
		t.Error(diff)
	}
}

// Who reports by a group has its groups beside the result, in a trailer that
// may be missing: messages of before have none.
func TestGroupsOfWhoReports(t *testing.T) {
	e := entry(EventVerified, "4f1c2aa90b7e", checked("e2e", Success), checked("smoke", Failure), checked("load", Success))
	e.Checks[0].By, e.Checks[0].Groups = "ci-7", []string{"builders", "ci with, comma", ""}
	e.Checks[2].Groups = []string{"load"}
	m := e.Message()
	lines := "Pinion-Check: e2e success ci-7\nPinion-Check: smoke failure ci\nPinion-Check: load success ci\n"
	groups := "Pinion-Groups: e2e builders,ci_with__comma\nPinion-Groups: load load\n"
	if !strings.Contains(m, lines+groups) {
		t.Errorf("the message is\n%s", m)
	}
	got, err := ParseMessage(m, e.Time)
	if diff := cmp.Diff(e.Normal(), got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for i := range e.Checks {
		e.Checks[i].Groups = nil
	}
	got, err = ParseMessage(strings.Replace(m, groups, "", 1), e.Time)
	if diff := cmp.Diff(e.Normal(), got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for _, wrong := range []string{"Pinion-Groups: e2e\n", "Pinion-Groups: e2e a b\n", "Pinion-Groups: e2e a\nPinion-Groups: e2e b\n", "Pinion-Groups: unknown ci\n"} {
		if got, err := ParseMessage(strings.Replace(m, groups, wrong, 1), e.Time); err == nil {
			t.Errorf("%q was read: %+v", wrong, got.Checks)
		}
	}
}

// A record keeps the groups, and has no place for them where there are none.
func TestRecordKeepsGroups(t *testing.T) {
	grouped := func(e *Entry) { e.Checks[0].By, e.Checks[0].Groups = "ci-7", []string{"builders", "ci"} }
	r := after(t, Record{}, pinned("a", "1.4.2"), entry(EventStarted, "a"), entry(EventCompleted, "a"),
		entry(EventCheck, "a", checked("e2e", Success), grouped), entry(EventCheck, "a", checked("smoke", Success)))
	data := r.Encode()
	if strings.Count(string(data), "groups:") != 1 || !strings.Contains(string(data), "by: ci-7\n    groups:\n    - builders\n    - ci\n") {
		t.Errorf("the record is\n%s", data)
	}
	for what, read := range map[string]func() (Record, error){
		"simple": func() (Record, error) { return decodeSimple(string(data)) },
		"any":    func() (Record, error) { return decodeAny(data) },
	} {
		if got, err := read(); err != nil || !cmp.Equal(got, r) {
			t.Errorf("%s: %v\n%s", what, err, cmp.Diff(r, got))
		}
	}
}

func TestSubjects(t *testing.T) {
	before := func(s string) func(*Entry) { return func(e *Entry) { e.Before = s } }
	by := func(s string) func(*Entry) { return func(e *Entry) { e.After = s } }
	in := func(env desired.EnvironmentName) func(*Entry) { return func(e *Entry) { e.Environment = env } }
	many := func(e *Entry) {
		e.Release.Pins = nil
		for _, a := range "abcdefghijklmnop" {
			e.Release.Pins = append(e.Release.Pins, Pin{desired.ArtifactName(string(a)), "acme/x:1.2.3"})
		}
	}
	source := commit("4f1c2aa90b7e")
	for _, test := range []struct {
		entry Entry
		want  string
	}{
		{pinned("a", "1.4.2", before("1.4.1")), "pinned(staging): web 1.4.1 → 1.4.2"},
		{pinned("a", "1.4.2", in("dev")), "pinned(dev): web 1.4.2"},
		{pinned("a", "1.4.2", of("1.4.2", source), because(CauseManifests), before("1.4.2")), "pinned(staging): web 1.4.2, manifests of 4f1c2aa90b7e"},
		{entry(EventVerified, "a", of("1.4.2", source), before("1.4.2")), "verified(staging): web 1.4.2, manifests of 4f1c2aa90b7e"},
		{entry(EventVerified, "a", of("1.4.2", "a"), before("1.4.1")), "verified(staging): web 1.4.1 → 1.4.2"},
		{entry(EventVerified, "a"), "verified(staging): web with the manifests of aaaaaaaaaaaa"},
		{entry(EventCheck, "a", of("1.4.2", "a"), before("1.4.1"), checked("e2e", Success)), "check(staging): web 1.4.2, e2e passed"},
		{entry(EventCheck, "a", of("1.4.2", "a"), checked("e2e", Failure), late), "check(staging): web 1.4.2, e2e failed, late"},
		{entry(EventCheck, "", candidate, in("production"), of("1.4.2", "a"), checked("smoke", Failure)), "check(production): web 1.4.2, a candidate, smoke failed"},
		{entry(EventApproved, "a", of("1.4.2", "a"), in("production"), approved("alice", "")), "approved(production): web 1.4.2 by alice"},
		{entry(EventApproved, "", candidate, of("1.4.2", "a"), in("production"), approved("alice", "")), "approved(production): web 1.4.2 by alice"},
		{entry(EventOffered, "", candidate, in("production"), of("1.4.2", "a"), before("1.4.1")), "offered(production): web 1.4.1 → 1.4.2"},
		{entry(EventSuperseded, "", candidate, in("production"), of("1.4.2", "a"), by("1.4.3")), "superseded(production): web 1.4.2, a candidate, by 1.4.3"},
		{entry(EventSuperseded, "a", of("1.4.2", "a"), by("1.4.3")), "superseded(staging): web 1.4.2 by 1.4.3"},
		{entry(EventFailed, "", candidate, of("1.4.2", "a")), "failed(staging): web 1.4.2, a candidate"},
		{entry(EventRerun, "a", of("1.4.2", "a"), rerun("e2e")), "rerun(staging): web 1.4.2, e2e once more"},
		{entry(EventDrifted, "a", of("1.4.2", "a")), "drifted(staging): web 1.4.2"},
		{entry(EventDrifted, "a", of("1.4.2", "a"), drift(AnswerCorrected, scaled, deleted)), "drifted(staging): web 1.4.2 by kubectl-scale, corrected"},
		{entry(EventDrifted, "a", of("1.4.2", "a"), drift(AnswerReported, deleted)), "drifted(staging): web 1.4.2, reported"},
		{entry(EventDrifted, "a", of("1.4.2", "a"), drift(AnswerEnded)), "drifted(staging): web 1.4.2, ended"},
		{entry(EventRetired, "a", of("1.4.2", "a"), in("dev")), "retired(dev): web"},
		{entry(EventCompleted, "a", many), "completed(staging): web a 1.2.3, b 1.2.3, c 1.2.3, d 1.2.3, e 1.2.3 and 11 more"},
		{entry(EventApproved, "a", of("1.4.2", "a"), approved(strings.Repeat("x", 200), "")), "approved(staging): web 1.4.2 by " + strings.Repeat("x", 120-33) + "…"},
	} {
		if got := test.entry.Subject(); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
		if first, _, _ := strings.Cut(test.entry.Message(), "\n"); first != test.want {
			t.Errorf("the message begins with %s", first)
		}
	}
}

func TestLongTextsAreCut(t *testing.T) {
	e := entry(EventCheck, "a", checked("e2e", Failure), reason(strings.Repeat("wörter ", 3000)))
	e.Checks[0].Description = strings.Repeat("ü", 600)
	e.Checks[0].Output = strings.Repeat("line of output\n", 3000)
	e.Checks[0].URL = "https://ci.example/" + strings.Repeat("5", 4000)
	n := e.Normal()
	c := n.Checks[0]
	for what, got := range map[string]struct{ size, most int }{
		"reason": {len(n.Reason), maxReason}, "description": {len(c.Description), maxDescription}, "output": {len(c.Output), maxOutput}, "url": {len(c.URL), maxURL},
	} {
		if got.size > got.most || got.size < got.most*9/10 {
			t.Errorf("%s: %d bytes are kept of at most %d", what, got.size, got.most)
		}
	}
	if !strings.HasSuffix(n.Reason, " bytes more)") || !strings.HasSuffix(c.Description, "…") || !strings.HasPrefix(c.Output, "(the first 36855 bytes are not kept)\nline of") {
		t.Errorf("it is not said: %q, %q, %q", n.Reason[len(n.Reason)-30:], c.Description[490:], c.Output[:60])
	}
	if diff := cmp.Diff(n, n.Normal()); diff != "" {
		t.Error("cut twice", diff)
	}
}

var odd = []string{
	"", "x", "rollout complete, healthy for 30m", "a\nb", "a\n\nb", "\n\nlead and trail\n\n", "Pinion-Event: verified", "x\n\nPinion-Event: verified\nPinion-Service: api",
	"# comment", "#", "---", "--- a/x\n+++ b/x", "# ------------------------ >8 ------------------------\nbelow", ">quoted", ">> # x", ">#", "Conflicts:\n\tfile",
	"- e2e: 5 of 5", "- smoke: x\n\nOutput of smoke:\n    no", "Output of e2e:", "Signed-off-by: x <x@x>", "co-authored-by: M <m@x>", "nul\x00 bell\a esc\x1b[31mred\x1b[0m",
	"\u202eright to left", "line\u2028separator", "tab\tinside\n\tand before", "  spaces before", "cr\r\nlf\rcr", "\xff\xfe not utf-8", "日本語 → é", strings.Repeat("long ", 2000),
	strings.Repeat("\n>", 100), "(cherry picked from commit 4f1c)", "a:\n  b", "ends with colon:", "http://u:p@h/x y", "-", "- ", "\u00a0nbsp\u00a0", "\ufeffbom", "gpgsig -----BEGIN",
}

func pick[T any](rnd *rand.Rand, from ...T) T { return from[rnd.IntN(len(from))] }

func randomPerson(rnd *rand.Rand) Person { return Person{pick(rnd, odd...), pick(rnd, odd...)} }

func randomChecks(rnd *rand.Rand, n int) []Check {
	var checks []Check
	for _, p := range []desired.PolicyName{"e2e", "smoke", "pinion-event"}[:n] {
		checks = append(checks, Check{p, pick(rnd, Success, Failure), pick(rnd, odd...), []string{pick(rnd, odd...), pick(rnd, odd...)}[:rnd.IntN(3)], pick(rnd, odd...), pick(rnd, odd...), pick(rnd, odd...), time.Now()})
	}
	return checks
}

func randomDrift(rnd *rand.Rand) *Drift {
	d := &Drift{Answer: pick(rnd, AnswerCorrected, AnswerReported, AnswerContested, AnswerEnded)}
	if d.Answer == AnswerEnded {
		return d
	}
	for range 1 + rnd.IntN(4) {
		d.Changes = append(d.Changes, Drifted{"x" + pick(rnd, odd...), pick(rnd, odd...), pick(rnd, odd...), pick(rnd, odd...), pick(rnd, odd...)})
	}
	d.More = pick(rnd, "", "12")
	return d
}

// randomEntry makes a valid entry with odd texts.
func randomEntry(rnd *rand.Rand) Entry {
	events := []Event{EventPinned, EventStarted, EventCompleted, EventVerified, EventFailed, EventSuperseded, EventCheck, EventApproved, EventOffered, EventDrifted, EventRetired, EventRerun}
	e := Entry{
		Event: pick(rnd, events...), Environment: "staging", Service: "web", Time: epoch.Add(time.Duration(rnd.Int64N(1e18))),
		Commit: pick(rnd, commit("a"), commit("0")), Manifests: pick(rnd, "", "sha256:1"), Cause: CauseRevert,
		Reason: pick(rnd, odd...) + pick(rnd, "", "\n") + pick(rnd, odd...), Before: pick(rnd, odd...), After: pick(rnd, odd...),
		Actor: randomPerson(rnd),
	}
	for range rnd.IntN(3) {
		e.Authors = append(e.Authors, randomPerson(rnd))
		e.From = append(e.From, pick(rnd, odd...))
	}
	for _, a := range []desired.ArtifactName{"web", "api", "db"}[:rnd.IntN(4)] {
		e.Release.Pins = append(e.Release.Pins, Pin{a, "x" + pick(rnd, odd...)})
	}
	e.Release.Source = pick(rnd, "", commit("b"))
	e.Deployment = DeploymentID("web", e.Commit)
	switch e.Event {
	case EventCheck:
		e.Checks = randomChecks(rnd, 1)
	case EventVerified, EventFailed:
		e.Checks = randomChecks(rnd, rnd.IntN(4))
	case EventApproved:
		e.Approval = &Approval{Policy: pick[desired.PolicyName](rnd, "go", "pinion-late"), By: pick(rnd, odd...), Email: pick(rnd, odd...), Comment: pick(rnd, odd...), Groups: []string{pick(rnd, odd...), pick(rnd, odd...)}[:rnd.IntN(3)]}
	case EventRerun:
		e.Policy = "e2e"
	case EventDrifted:
		e.Drift = randomDrift(rnd)
	}
	switch e.Event {
	case EventOffered, EventCheck, EventApproved, EventSuperseded, EventFailed, EventRerun:
		if e.Event == EventOffered || rnd.IntN(2) == 0 {
			e.Candidate, e.Deployment, e.Release.Source = true, "", commit("b")
		}
	}
	if e.Event == EventCheck || e.Event == EventApproved || e.Event == EventRerun {
		e.Late = rnd.IntN(2) == 0
	}
	return e
}

func TestMessagesAreReadBack(t *testing.T) {
	for seed := range uint64(5000) {
		e := randomEntry(rand.New(rand.NewPCG(seed, 3)))
		n := e.Normal()
		if diff := cmp.Diff(n, n.Normal()); diff != "" {
			t.Fatalf("seed %d: normal twice: %s", seed, diff)
		}
		m := e.Message()
		got, err := ParseMessage(m, e.Time)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, m)
		}
		if diff := cmp.Diff(n, got); diff != "" {
			t.Fatalf("seed %d: %s\n%s", seed, diff, m)
		}
		if again := got.Message(); again != m {
			t.Fatalf("seed %d: %s", seed, cmp.Diff(m, again))
		}
		if i := strings.IndexFunc(m, func(r rune) bool {
			return unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r)
		}); i >= 0 {
			t.Fatalf("seed %d: what can't be shown stands at %d: %q", seed, i, m)
		}
		// Nobody who looks for our lines finds another one.
		for l := range strings.SplitSeq(m[:strings.LastIndex(m, "\n\n")], "\n") {
			if hasPrefixFold(l, "pinion-") {
				t.Fatalf("seed %d: %q stands in the body", seed, l)
			}
		}
	}
}

func git(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "LC_ALL=C")
	cmd.Dir = t.TempDir()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %v: %v", args, err)
	}
	return string(out)
}

// git reads the same trailers as we do, and no others.
func TestGitReadsTheTrailers(t *testing.T) {
	messages := []string{}
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		messages = append(messages, randomEntry(rnd).Message(), randomChange(rnd).Message())
	}
	for _, o := range odd {
		messages = append(messages, pinned("a", "1", reason(o)).Message(), pinned("a", "1", reason("x\n\n"+o)).Message())
	}
	for _, m := range messages {
		want := m[strings.LastIndex(m[:len(m)-1], "\n\n")+2:]
		if got := git(t, m, "interpret-trailers", "--parse"); got != want {
			t.Errorf("git reads\n%s\nfrom\n%s", got, m)
		}
	}
}

// A commit object keeps the message as it is.
func TestGitKeepsTheMessage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "r.git")
	git(t, "", "init", "-q", "--bare", dir)
	for seed := range uint64(10) {
		m := randomEntry(rand.New(rand.NewPCG(seed, 5))).Message()
		tree := strings.TrimSpace(git(t, "", "--git-dir", dir, "hash-object", "-w", "-t", "tree", "--stdin"))
		id := strings.TrimSpace(git(t, m, "-c", "user.name=x", "-c", "user.email=x@x", "--git-dir", dir, "commit-tree", tree))
		if got := git(t, "", "--git-dir", dir, "log", "-1", "--format=%B", id); strings.TrimRight(got, "\n") != strings.TrimRight(m, "\n") {
			t.Errorf("git returns %s", cmp.Diff(m, got))
		}
	}
}

func TestRefusedMessages(t *testing.T) {
	good := pinned("a", "1.4.2").Message()
	if _, err := ParseMessage(good, epoch); err != nil {
		t.Fatal(err)
	}
	for want, m := range map[string]string{
		"it is not a subject, an empty line, and trailers in the end": "pinned(staging): web",
		`is not a trailer`:                           good + "\nand a last word",
		"Pinion-Event stands there twice":            good + "Pinion-Event: verified\n",
		"Pinion-Deployment stands there twice":       good + "Pinion-Deployment: web-b\n",
		`Pinion-Late is "yes"`:                       good + "Pinion-Late: yes\n",
		`there is no such event`:                     strings.Replace(good, "Event: pinned", "Event: guessed", 1),
		`there is no cause`:                          strings.Replace(good, "Cause: pin", "Cause: whim", 1),
		"it names neither":                           strings.Replace(good, "Pinion-Deployment: web-aaaaaaaaaaaa\n", "", 1),
		"is not a policy, its result":                good + "Pinion-Check: e2e success\n",
		"is not a policy, by whom":                   good + "Pinion-Approval: go\n",
		`the artifact web has no image`:              strings.Replace(good, "Pin: web ghcr.io/acme/web:1.4.2", "Pin: web", 1),
		`the deployment of commit`:                   strings.Replace(good, "web-aaaaaaaaaaaa", "web-bbbbbbbbbbbb", 1),
		`"" is not the name of an environment`:       strings.Replace(good, "Pinion-Environment: staging\n", "", 1),
		`"production web" is not the name of an env`: strings.Replace(good, ": staging\n", ": production web\n", 1),
	} {
		if e, err := ParseMessage(m, epoch); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, %v, want … %s …", e, err, want)
		}
	}
	// What a later version may add, or somebody who signs off.
	got, err := ParseMessage(good+"Pinion-Weather: fair\nSigned-off-by: A <a@x>\n", epoch)
	if diff := cmp.Diff(pinned("a", "1.4.2").Normal(), got); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func FuzzParseMessage(f *testing.F) {
	for seed := range uint64(30) {
		f.Add(randomEntry(rand.New(rand.NewPCG(seed, 6))).Message(), "x\n- e2e: y")
	}
	f.Fuzz(func(t *testing.T, m, reason string) {
		e, err := ParseMessage(m, epoch)
		if err != nil {
			e = pinned("a", "1.4.2")
			e.Reason = reason
			e = e.Normal()
		}
		for range 2 {
			got, err := ParseMessage(e.Message(), epoch)
			if err != nil {
				t.Fatalf("%v\n%s", err, e.Message())
			}
			if diff := cmp.Diff(e, got); diff != "" {
				t.Fatalf("%s\n%q", diff, e.Message())
			}
			e.Reason = reason
			e = e.Normal()
		}
	})
}

func TestPersons(t *testing.T) {
	for s, p := range map[string]Person{
		"Alice Smith <alice@example.com>": alice,
		"alice@example.com":               {"", "alice@example.com"},
		"Alice":                           {"Alice", ""},
		"bob@home <>":                     {"bob@home", ""},
		"<bob>":                           {"", "bob"},
		"":                                {},
	} {
		if got := ParsePerson(s); got != p {
			t.Errorf("ParsePerson(%q) = %#v", s, got)
		}
		if s != "" && p.String() != s {
			t.Errorf("%#v is written %q, want %q", p, p.String(), s)
		}
	}
	if got := ParsePerson(" Alice Smith  < alice@example.com > "); got != alice {
		t.Errorf("%#v", got)
	}
}

func TestAuthors(t *testing.T) {
	bob, carol := Person{"Bob", "bob@example.com"}, Person{"Carol", "carol@example.com"}
	forge := Person{"GitHub", "noreply@github.com"}
	for _, test := range []struct {
		name              string
		author, committer Person
		message           string
		actor             Person
		authors           []Person
	}{
		{"alone", alice, alice, "web 1.4.2", alice, []Person{alice}},
		{"merged on a forge", alice, forge, "web 1.4.2", alice, []Person{alice}},
		{"with others", alice, forge, "web\n\nRequested-By: Bob <bob@example.com>\nco-authored-BY: Carol <carol@example.com>\n", alice, []Person{alice, bob, carol}},
		{"each once", alice, alice, "web\n\nCo-authored-by: A. <ALICE@example.com>\nCo-authored-by: Bob <bob@example.com>\nRequested-by: Bob <BOB@example.com>\n", alice, []Person{alice, bob}},
		{"a squash", alice, forge, "web\n\n* one\n\nCo-authored-by: Bob <bob@example.com>\n\n* two\n\n---------\n\nCo-authored-by: Carol <carol@example.com>\n\nlast words", alice, []Person{alice, bob, carol}},
		{"only asked for", alice, alice, "web\n\n> Co-authored-by: Bob <bob@example.com>\n Co-authored-by: Bob <bob@example.com>", alice, []Person{alice}},
		{"no author", Person{}, forge, "web", forge, []Person{forge}},
	} {
		actor, authors := Authors(test.author, test.committer, test.message)
		if actor != test.actor || !slices.Equal(authors, test.authors) {
			t.Errorf("%s: %v, %v", test.name, actor, authors)
		}
	}
}
