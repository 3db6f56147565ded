package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pinion-cd/pinion/desired"
)

var epoch = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

// commit makes forty digits of a few.
func commit(digits string) string {
	return strings.Repeat(digits, 40)[:min(40, 40*len(digits))]
}

func release(version, source string) Release {
	return Release{[]Pin{{"web", "ghcr.io/acme/web:" + version}}, source}
}

// entry makes an entry about the deployment of web in staging that a commit
// leads to.
func entry(event Event, c string, change ...func(*Entry)) Entry {
	e := Entry{Event: event, Environment: "staging", Service: "web", Time: epoch, Deployment: DeploymentID("web", commit(c)), Commit: commit(c)}
	for _, f := range change {
		f(&e)
	}
	return e
}

func pinned(c, version string, change ...func(*Entry)) Entry {
	return entry(EventPinned, c, append([]func(*Entry){of(version, c), because(CausePin)}, change...)...)
}

func of(version, source string) func(*Entry) {
	return func(e *Entry) { e.Release = release(version, commit(source)) }
}
func because(c Cause) func(*Entry)    { return func(e *Entry) { e.Cause = c } }
func reason(s string) func(*Entry)    { return func(e *Entry) { e.Reason = s } }
func late(e *Entry)                   { e.Late = true }
func by(p Person) func(*Entry)        { return func(e *Entry) { e.Actor = p } }
func manifests(d string) func(*Entry) { return func(e *Entry) { e.Manifests = d } }
func minutes(n int) func(*Entry) {
	return func(e *Entry) { e.Time = e.Time.Add(time.Duration(n) * time.Minute) }
}
func rerun(policy string) func(*Entry) {
	return func(e *Entry) { e.Policy = desired.PolicyName(policy) }
}
func candidate(e *Entry) { e.Candidate, e.Deployment, e.Commit = true, "", "" }
func checked(policy string, r Result) func(*Entry) {
	return func(e *Entry) {
		e.Checks = append(e.Checks, Check{Policy: desired.PolicyName(policy), Result: r, By: "ci"})
	}
}
func approved(who, email string) func(*Entry) {
	return func(e *Entry) { e.Approval = &Approval{Policy: "go", By: who, Email: email} }
}

// after applies entries, all of which must be allowed.
func after(t testing.TB, r Record, entries ...Entry) Record {
	t.Helper()
	for _, e := range entries {
		next, err := r.Apply(e)
		if err != nil {
			t.Fatalf("%s: %v", e.Subject(), err)
		}
		r = next
	}
	return r
}

func TestRefusedMoves(t *testing.T) {
	run := func(c string) []Entry { return []Entry{entry(EventStarted, c), entry(EventCompleted, c)} }
	verified := append(append([]Entry{pinned("a", "1")}, run("a")...), entry(EventVerified, "a"))
	offered := entry(EventOffered, "", candidate, of("2", "b"))
	for _, test := range []struct {
		name  string
		given []Entry
		entry Entry
		want  string
	}{
		{"first", nil, entry(EventVerified, "a"),
			"there is no entry of web in staging yet: the first one pins a deployment or offers a candidate, and can't be verified"},
		{"first is late", nil, entry(EventCheck, "a", checked("e2e", Success), late),
			"there is no entry of web in staging yet: the first one pins a deployment or offers a candidate, and can't be check"},
		{"no deployment", []Entry{offered}, entry(EventStarted, "a"),
			"there is no deployment of web in staging yet: web-aaaaaaaaaaaa can't be started"},
		{"another service", verified, pinned("b", "2", func(e *Entry) { e.Service, e.Deployment = "api", "api-bbbbbbbbbbbb" }),
			"the entry is about api in staging, and the record of web in staging"},
		{"another environment", verified, pinned("b", "2", func(e *Entry) { e.Environment = "dev" }),
			"the entry is about web in dev, and the record of web in staging"},
		{"another commit", verified[:1], entry(EventStarted, "a", func(e *Entry) { e.Commit = "b" }),
			"web-aaaaaaaaaaaa in staging comes from the commit aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, not from b"},
		{"another release", verified[:1], entry(EventStarted, "a", of("2", "a")),
			"web-aaaaaaaaaaaa in staging is 1 (manifests of aaaaaaaaaaaa), not 2 (manifests of aaaaaaaaaaaa)"},
		{"completed skips", verified[:1], entry(EventCompleted, "a"),
			"web-aaaaaaaaaaaa in staging is pinned: it can't become completed before it is started"},
		{"verified skips", verified[:1], entry(EventVerified, "a"),
			"web-aaaaaaaaaaaa in staging is pinned: it can't become verified before it is completed"},
		{"verified skips one", verified[:2], entry(EventVerified, "a"),
			"web-aaaaaaaaaaaa in staging is started: it can't become verified before it is completed"},
		{"back", verified[:3], entry(EventStarted, "a"),
			"web-aaaaaaaaaaaa in staging is completed: it can't go back to started"},
		{"final", verified, entry(EventFailed, "a"),
			"web-aaaaaaaaaaaa in staging is verified, and that is final: it can't become failed"},
		{"final after failure", []Entry{pinned("a", "1"), entry(EventFailed, "a")}, entry(EventStarted, "a"),
			"web-aaaaaaaaaaaa in staging is failed, and that is final: it can't become started"},
		{"final after another", []Entry{pinned("a", "1"), entry(EventSuperseded, "a")}, entry(EventVerified, "a"),
			"web-aaaaaaaaaaaa in staging is superseded, and that is final: it can't become verified"},
		{"doubled", verified, entry(EventVerified, "a"),
			"web-aaaaaaaaaaaa in staging is already verified"},
		{"pinned twice", verified[:1], pinned("a", "1"),
			"web-aaaaaaaaaaaa in staging was pinned already, and is pinned"},
		{"pinned again", slices.Concat(verified, []Entry{pinned("b", "2"), entry(EventFailed, "b")}), pinned("a", "1"),
			"web-aaaaaaaaaaaa in staging was there before web-bbbbbbbbbbbb: a deployment comes once"},
		{"pinned over one that moves", verified[:3], pinned("b", "2"),
			"web-bbbbbbbbbbbb in staging can't take the place of web-aaaaaaaaaaaa while that is completed: it is to be superseded before"},
		{"another deployment", slices.Concat(verified, []Entry{pinned("b", "2")}), entry(EventFailed, "a"),
			"web-aaaaaaaaaaaa in staging is not the current deployment, that is web-bbbbbbbbbbbb, which is pinned: it can't become failed"},
		{"check of another", slices.Concat(verified, []Entry{pinned("b", "2")}), entry(EventCheck, "a", checked("e2e", Success)),
			"web-aaaaaaaaaaaa in staging is not the current deployment, that is web-bbbbbbbbbbbb, which is pinned: what comes for it is late"},
		{"doubled success", []Entry{pinned("a", "1"), entry(EventCheck, "a", checked("e2e", Success))}, entry(EventCheck, "a", checked("e2e", Success)),
			"the check e2e of web-aaaaaaaaaaaa in staging has the result success already, by ci: the first one counts"},
		{"success after failure", []Entry{pinned("a", "1"), entry(EventCheck, "a", checked("e2e", Failure))}, entry(EventCheck, "a", checked("e2e", Success)),
			"the check e2e of web-aaaaaaaaaaaa in staging has the result failure already, by ci: the first one counts"},
		{"rerun too early", []Entry{pinned("a", "1"), entry(EventCheck, "a", checked("e2e", Failure))}, entry(EventRerun, "a", rerun("e2e")),
			"web-aaaaaaaaaaaa in staging is pinned: a check can be made once more while it is completed"},
		{"rerun too late", verified, entry(EventRerun, "a", rerun("e2e")),
			"web-aaaaaaaaaaaa in staging is verified: a check can be made once more while it is completed"},
		{"rerun of nothing", verified[:3], entry(EventRerun, "a", rerun("e2e")),
			"the check e2e of web-aaaaaaaaaaaa in staging has no result that could be taken back"},
		{"approved twice", []Entry{pinned("a", "1"), entry(EventApproved, "a", approved("alice", "a@x"))}, entry(EventApproved, "a", approved("alice", "")),
			"alice has approved web-aaaaaaaaaaaa in staging for go already, at 2026-11-21T10:00:00Z"},
		{"approved by another name", []Entry{pinned("a", "1"), entry(EventApproved, "a", approved("alice", "a@x"))}, entry(EventApproved, "a", approved("bob", "A@X")),
			"alice has approved web-aaaaaaaaaaaa in staging for go already, at 2026-11-21T10:00:00Z"},
		{"verified by a failure", verified[:3], entry(EventVerified, "a", checked("e2e", Failure)),
			"web-aaaaaaaaaaaa in staging can't become verified by the check e2e, which failed"},
		{"verified against a failure", slices.Concat(verified[:3], []Entry{entry(EventCheck, "a", checked("e2e", Failure))}), entry(EventVerified, "a", checked("e2e", Success)),
			"the check e2e of web-aaaaaaaaaaaa in staging has the result failure already: success can't become of it"},
		{"verified with other objects", []Entry{pinned("a", "1"), entry(EventStarted, "a", manifests("sha256:1")), entry(EventCompleted, "a")}, entry(EventVerified, "a", manifests("sha256:2")),
			"web-aaaaaaaaaaaa in staging was checked with the objects sha256:1: it can't become verified with sha256:2"},
		{"retired twice", slices.Concat(verified, []Entry{entry(EventRetired, "a")}), entry(EventRetired, "a"),
			"web-aaaaaaaaaaaa in staging was retired already, at 2026-11-21T10:00:00Z"},
		{"verified after it was retired", slices.Concat(verified[:3], []Entry{entry(EventRetired, "a")}), entry(EventVerified, "a"),
			"web-aaaaaaaaaaaa in staging is retired since 2026-11-21T10:00:00Z: it can't become verified"},
		{"offered twice", []Entry{offered}, offered,
			"2 (manifests of bbbbbbbbbbbb) waits to enter staging already"},
		{"offered over another", []Entry{offered}, entry(EventOffered, "", candidate, of("3", "b")),
			"3 (manifests of bbbbbbbbbbbb) can't be offered to staging while 2 (manifests of bbbbbbbbbbbb) waits to enter it: that is to be superseded before"},
		{"no candidate", verified, entry(EventSuperseded, "", candidate, of("2", "b")),
			"nothing waits to enter staging: 2 (manifests of bbbbbbbbbbbb) can't be superseded"},
		{"another candidate", []Entry{offered}, entry(EventApproved, "", candidate, of("2", "c"), approved("alice", "")),
			"what waits to enter staging is 2 (manifests of bbbbbbbbbbbb): 2 (manifests of cccccccccccc) can't be approved"},
		{"candidate checked twice", []Entry{offered, entry(EventCheck, "", candidate, of("2", "b"), checked("smoke", Success))}, entry(EventCheck, "", candidate, of("2", "b"), checked("smoke", Failure)),
			"the check smoke of 2 (manifests of bbbbbbbbbbbb), the candidate for staging, has the result success already, by ci: the first one counts"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := after(t, Record{}, test.given...)
			_, err := r.Apply(test.entry)
			var move *MoveError
			if !errors.As(err, &move) {
				t.Fatalf("got %v, want a MoveError", err)
			}
			if err.Error() != test.want {
				t.Errorf("got  %s\nwant %s", err, test.want)
			}
			if move.Event != test.entry.Event || move.State != r.Deployment.State || move.Service != test.entry.Service || move.Deployment != test.entry.Deployment {
				t.Errorf("the error says %+v", move)
			}
		})
	}
}

func TestRefusedEntries(t *testing.T) {
	for want, e := range map[string]Entry{
		`there is no such event`:                           entry("verifyed", "a"),
		`"Web" is not the name of a service`:               entry(EventStarted, "a", func(e *Entry) { e.Service = "Web" }),
		`"" is not the name of an environment`:             entry(EventStarted, "a", func(e *Entry) { e.Environment = "" }),
		`it has no time that git could have`:               entry(EventStarted, "a", func(e *Entry) { e.Time = time.Time{} }),
		`it names neither a deployment nor a candidate`:    entry(EventStarted, "a", func(e *Entry) { e.Deployment = "" }),
		`it names a deployment and a candidate`:            entry(EventCheck, "a", func(e *Entry) { e.Candidate = true }),
		`it does not say which release the candidate is`:   entry(EventOffered, "", candidate),
		`a candidate can't be verified`:                    entry(EventVerified, "", candidate, of("1", "a")),
		`a deployment can't be offered`:                    entry(EventOffered, "a"),
		`it pins the artifact web twice`:                   entry(EventStarted, "a", func(e *Entry) { e.Release.Pins = []Pin{{"web", "a:1"}, {"web", "a:2"}} }),
		`"" is not the name of an artifact`:                entry(EventStarted, "a", func(e *Entry) { e.Release.Pins = []Pin{{"", "a:1"}} }),
		`it does not say the cause`:                        pinned("a", "1", because("")),
		`there is no cause "whim"`:                         pinned("a", "1", because("whim")),
		`it does not say the commit`:                       pinned("a", "1", func(e *Entry) { e.Commit = "" }),
		`the deployment of commit b is web-b`:              pinned("a", "1", func(e *Entry) { e.Commit = "b" }),
		`it has 0 results, not 1`:                          entry(EventCheck, "a"),
		`it has 2 results, not 1`:                          entry(EventCheck, "a", checked("e2e", Success), checked("soak", Success)),
		`e2e: there are two results`:                       entry(EventVerified, "a", checked("e2e", Success), checked("e2e", Success)),
		`e2e: there is no result "maybe"`:                  entry(EventCheck, "a", checked("e2e", "maybe")),
		`"E2E" is not the name of a policy`:                entry(EventCheck, "a", checked("E2E", Success)),
		`it can't have the result of a check`:              entry(EventStarted, "a", checked("e2e", Success)),
		`an approval belongs into an entry "approved"`:     entry(EventApproved, "a"),
		`a policy belongs into an entry "rerun"`:           entry(EventRerun, "a"),
		`only a check, an approval or a rerun can come la`: entry(EventVerified, "a", late),
	} {
		_, err := after(t, Record{}, pinned("a", "1")).Apply(e)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want … %s …", err, want)
		}
		var move *MoveError
		if errors.As(err, &move) {
			t.Errorf("%v: an entry that is wrong by itself is no wrong move", err)
		}
	}
}

func TestWhatIsKept(t *testing.T) {
	alice := Person{"Alice", "alice@example.com"}
	r := after(t, Record{},
		pinned("a", "1", by(alice), reason("the pin was changed")),
		entry(EventStarted, "a", minutes(1), manifests("sha256:1")),
		entry(EventCheck, "a", minutes(2), checked("e2e", Success)),
		entry(EventApproved, "a", minutes(2), approved("alice", "alice@example.com")),
		entry(EventCompleted, "a", minutes(3)),
		entry(EventVerified, "a", minutes(4), checked("soak", Success), checked("e2e", Success), reason("healthy for 30m"), func(e *Entry) { e.Time = e.Time.Add(999 * time.Millisecond).Local() }),
		entry(EventDrifted, "a", minutes(5)),
	)
	check := func(policy desired.PolicyName, at int) Check {
		return Check{Policy: policy, Result: Success, By: "ci", Time: epoch.Add(time.Duration(at) * time.Minute)}
	}
	v := Past{ID: "web-aaaaaaaaaaaa", Commit: commit("a"), Release: release("1", commit("a")), Manifests: "sha256:1", State: StateVerified,
		Started: epoch.Add(time.Minute), Ended: epoch.Add(4 * time.Minute)}
	want := Record{
		Environment: "staging", Service: "web",
		Deployment: Deployment{
			ID: "web-aaaaaaaaaaaa", Commit: commit("a"), Release: release("1", commit("a")), Manifests: "sha256:1",
			State: StateVerified, Reason: "healthy for 30m", Cause: CausePin, Actor: alice,
			Pinned: epoch, Started: epoch.Add(time.Minute), Completed: epoch.Add(3 * time.Minute), Ended: epoch.Add(4 * time.Minute),
			Checks:    []Check{check("e2e", 2), check("soak", 4)},
			Approvals: []Approval{{Policy: "go", By: "alice", Email: "alice@example.com", Time: epoch.Add(2 * time.Minute)}},
		},
		Verified: &v,
		Drifted:  epoch.Add(5 * time.Minute),
	}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Fatal(diff)
	}
	// What is late is in the history only.
	if diff := cmp.Diff(r, after(t, r, entry(EventCheck, "9", late, checked("e2e", Failure)), entry(EventApproved, "", candidate, of("9", "9"), late, approved("bob", "")))); diff != "" {
		t.Error(diff)
	}
	next := after(t, r, entry(EventRetired, "a", minutes(6)), pinned("b", "2", minutes(7)))
	v.Left = epoch.Add(7 * time.Minute)
	if diff := cmp.Diff([]Past{v}, next.Previous); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(&v, next.Verified); diff != "" {
		t.Error(diff)
	}
	if !next.Retired.IsZero() || !next.Drifted.IsZero() {
		t.Errorf("the new deployment has what came to the old one: %v, %v", next.Retired, next.Drifted)
	}
	if past, ok := next.RanBefore(release("1", "x")); !ok || past.ID != v.ID {
		t.Errorf("RanBefore: %v, %v", past, ok)
	}
	if past, ok := next.RanBefore(release("2", "x")); ok {
		t.Errorf("RanBefore takes the current deployment for one of before: %v", past)
	}
	if r.Verified.Left != (time.Time{}) {
		t.Error("the record of before was changed")
	}
}

func TestRerun(t *testing.T) {
	r := after(t, Record{}, pinned("a", "1"), entry(EventStarted, "a"), entry(EventCompleted, "a"), entry(EventCheck, "a", checked("e2e", Failure)),
		entry(EventRerun, "a", rerun("e2e")))
	if len(r.Deployment.Checks) != 0 {
		t.Errorf("the result is still there: %v", r.Deployment.Checks)
	}
	after(t, r, entry(EventCheck, "a", checked("e2e", Success)), entry(EventVerified, "a", checked("e2e", Success)))
	after(t, Record{}, entry(EventOffered, "", candidate, of("2", "b")), entry(EventCheck, "", candidate, of("2", "b"), checked("e2e", Failure)),
		entry(EventRerun, "", candidate, of("2", "b"), rerun("e2e")), entry(EventCheck, "", candidate, of("2", "b"), checked("e2e", Success)))
}

func TestRefusals(t *testing.T) {
	up := func(c string) []Entry {
		return []Entry{entry(EventStarted, c), entry(EventCompleted, c), entry(EventVerified, c)}
	}
	verified := slices.Concat([]Entry{pinned("a", "1.4.1")}, up("a"))
	offered := entry(EventOffered, "", candidate, of("1.4.2", "b"))
	for _, test := range []struct {
		name  string
		given []Entry
		want  string // version, source, reason
	}{
		{"failed", slices.Concat(verified, []Entry{pinned("b", "1.4.2"), entry(EventFailed, "b", reason("e2e failed"))}),
			"1.4.2 * e2e failed"},
		{"failed without anything before", []Entry{pinned("b", "1.4.2"), entry(EventFailed, "b")},
			"1.4.2 * it failed"},
		{"manifests failed", slices.Concat(verified, []Entry{pinned("b", "1.4.1", because(CauseManifests)), entry(EventFailed, "b")}),
			"1.4.1 bbbbbbbbbbbb it failed"},
		{"parameters failed", slices.Concat(verified, []Entry{pinned("b", "1.4.1", of("1.4.1", "a"), because(CauseManifests)), entry(EventFailed, "b")}),
			""},
		{"rolled back", slices.Concat(verified, []Entry{pinned("b", "1.4.2")}, up("b"), []Entry{pinned("c", "1.4.1", because(CauseRollback), by(Person{"Alice", "a@x"}), reason("INC-1"))}),
			"1.4.2 * rolled back by Alice <a@x>: INC-1"},
		{"reverted", slices.Concat(verified, []Entry{pinned("b", "1.4.2")}, up("b"), []Entry{pinned("c", "1.4.1", because(CauseRevert))}),
			"1.4.2 * rolled back by pinion"},
		{"manifests rolled back", slices.Concat(verified, []Entry{pinned("b", "1.4.1")}, up("b"), []Entry{pinned("c", "1.4.1", of("1.4.1", "a"), because(CauseRollback))}),
			"1.4.1 bbbbbbbbbbbb rolled back by pinion"},
		{"rolled back to the same", slices.Concat(verified, []Entry{pinned("c", "1.4.1", of("1.4.1", "a"), because(CauseRollback))}),
			""},
		{"failed and rolled back", slices.Concat(verified, []Entry{pinned("b", "1.4.2"), entry(EventFailed, "b", reason("e2e failed")), pinned("c", "1.4.1", because(CauseRollback))}),
			"1.4.2 * rolled back by pinion: e2e failed"},
		{"pinned again by a person", slices.Concat(verified, []Entry{pinned("b", "1.4.2"), entry(EventFailed, "b"), pinned("c", "1.4.2")}),
			""},
		{"promoted again", slices.Concat(verified, []Entry{pinned("b", "1.4.2"), entry(EventFailed, "b"), pinned("c", "1.4.2", because(CausePromotion))}),
			"1.4.2 * it failed"},
		{"good after all", slices.Concat(verified, []Entry{pinned("b", "1.4.2"), entry(EventFailed, "b"), pinned("c", "1.4.2", because(CausePromotion))}, up("c")),
			""},
		{"another one pinned", slices.Concat(verified, []Entry{pinned("b", "1.4.2"), entry(EventFailed, "b"), pinned("c", "1.4.3")}),
			"1.4.2 * it failed"},
		{"candidate failed", slices.Concat(verified, []Entry{offered, entry(EventFailed, "", candidate, of("1.4.2", "b"), reason("refused by go"))}),
			"1.4.2 * refused by go"},
		{"candidate's manifests failed", slices.Concat(verified, []Entry{entry(EventOffered, "", candidate, of("1.4.1", "b")), entry(EventFailed, "", candidate, of("1.4.1", "b"))}),
			"1.4.1 bbbbbbbbbbbb it failed"},
		{"candidate superseded", slices.Concat(verified, []Entry{offered, entry(EventSuperseded, "", candidate, of("1.4.2", "b"))}),
			""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := after(t, Record{}, test.given...)
			var got []string
			for _, f := range r.Refused {
				source := short(f.Release.Source)
				if source == "" {
					source = "*"
				}
				got = append(got, f.Release.Version()+" "+source+" "+f.Reason)
			}
			if strings.Join(got, "; ") != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if r.Candidate != nil {
				t.Error("the candidate is still there")
			}
		})
	}

	// A service without artifacts is its manifests.
	bare := func(e *Entry) { e.Release.Pins = nil }
	r := after(t, Record{}, pinned("a", "", bare), entry(EventFailed, "a"), pinned("b", "", bare))
	if f, ok := r.Refuses(Release{nil, commit("a")}); !ok {
		t.Errorf("Refuses: %v, %v", f, ok)
	}
	if f, ok := r.Refuses(Release{nil, commit("b")}); ok {
		t.Errorf("Refuses: %v", f)
	}
	if _, ok := r.RanBefore(Release{nil, commit("a")}); !ok {
		t.Error("RanBefore does not know the manifests")
	}
	if p, ok := r.RanBefore(Release{nil, commit("c")}); ok {
		t.Errorf("RanBefore: %v", p)
	}

	r = after(t, Record{}, pinned("a", "1.4.2"), entry(EventFailed, "a"))
	if f, ok := r.Refuses(release("1.4.2", "x")); !ok || f.Reason != "it failed" {
		t.Errorf("Refuses: %v, %v", f, ok)
	}
	if f, ok := r.Refuses(release("1.4.3", commit("a"))); ok {
		t.Errorf("Refuses: %v", f)
	}
}

func TestCandidateEnters(t *testing.T) {
	offer := func(version, source string) Entry { return entry(EventOffered, "", candidate, of(version, source)) }
	for _, test := range []struct {
		name    string
		offered Entry
		pin     Entry
		enters  bool
	}{
		{"the same", offer("2", "9"), pinned("a", "2", of("2", "9")), true},
		{"pins, the manifests are the commit's own", offer("2", "9"), pinned("a", "2", of("2", "a")), true},
		{"other manifests", offer("2", "9"), pinned("a", "2", of("2", "8")), false},
		{"other pins", offer("2", "9"), pinned("a", "3", of("3", "9")), false},
	} {
		r := after(t, Record{}, test.offered, test.pin)
		if entered := r.Candidate == nil; entered != test.enters {
			t.Errorf("%s: it has entered: %v", test.name, entered)
		}
	}
}

// story makes entries at random, most of which a record allows.
func story(rnd *rand.Rand, svc desired.ServiceName, n int) []Entry {
	events := []Event{EventPinned, EventStarted, EventCompleted, EventVerified, EventFailed, EventSuperseded, EventCheck, EventApproved, EventOffered, EventDrifted, EventRetired, EventRerun}
	causes := []Cause{CausePin, CauseManifests, CausePromotion, CauseRollback, CauseRevert}
	var entries []Entry
	cur := 0
	for i := range n {
		e := Entry{Event: events[rnd.IntN(len(events))], Environment: "staging", Service: svc, Time: epoch.Add(time.Duration(i) * time.Second)}
		if rnd.IntN(3) > 0 { // go on, so that all states are reached
			e.Event = []Event{EventPinned, EventStarted, EventCompleted, EventVerified, EventSuperseded}[i%5]
		}
		which := cur
		if e.Event == EventPinned && rnd.IntN(4) > 0 {
			cur++
			which = cur
		} else if rnd.IntN(8) == 0 {
			which = rnd.IntN(cur + 1)
		}
		e.Commit = fmt.Sprintf("%012x", which)
		e.Deployment = DeploymentID(svc, e.Commit)
		version := release(fmt.Sprintf("1.%d", which%7), fmt.Sprint(which%3))
		switch e.Event {
		case EventPinned:
			e.Cause, e.Release = causes[rnd.IntN(len(causes))], version
		case EventCheck:
			e.Checks = []Check{{Policy: desired.PolicyName(fmt.Sprint("p", rnd.IntN(3))), Result: []Result{Success, Failure}[rnd.IntN(2)], By: "ci"}}
		case EventApproved:
			e.Approval = &Approval{Policy: "go", By: fmt.Sprint("user", rnd.IntN(3))}
		case EventRerun:
			e.Policy = desired.PolicyName(fmt.Sprint("p", rnd.IntN(3)))
		case EventDrifted:
			if rnd.IntN(4) > 0 {
				e.Drift = randomDrift(rnd)
			}
		}
		switch e.Event {
		case EventOffered, EventCheck, EventApproved, EventSuperseded, EventFailed, EventRerun:
			if e.Event == EventOffered || rnd.IntN(4) == 0 {
				candidate(&e)
				e.Release = version
			}
		}
		if e.Checks != nil || e.Approval != nil {
			e.Late = rnd.IntN(4) == 0
		}
		entries = append(entries, e)
	}
	return entries
}

func rank(s State) int {
	return map[State]int{StatePinned: 1, StateStarted: 2, StateCompleted: 3, StateVerified: 4, StateFailed: 4, StateSuperseded: 4}[s]
}

func TestRandomStories(t *testing.T) {
	reached := map[State]int{}
	refused := 0
	for seed := range uint64(100) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var r, told Record // told: from the messages alone
		ended := map[string]State{}
		for _, e := range story(rnd, "web", 120) {
			before := r.Encode()
			kept := reflect.ValueOf(r).Interface().(Record)
			next, err := r.Apply(e)
			again, errAgain := r.Apply(e)
			if !reflect.DeepEqual(next, again) || fmt.Sprint(err) != fmt.Sprint(errAgain) {
				t.Fatalf("%s: not the same twice: %s", e.Subject(), cmp.Diff(next, again))
			}
			if !bytes.Equal(before, r.Encode()) || !reflect.DeepEqual(kept, r) {
				t.Fatalf("%s: the record was changed", e.Subject())
			}
			if err != nil {
				refused++
				if !reflect.DeepEqual(next, Record{}) {
					t.Fatalf("%s: refused, and yet there is %v", e.Subject(), next)
				}
				continue
			}
			was, is := r.Deployment, next.Deployment
			switch {
			case e.Late:
				if r.Environment != "" && !reflect.DeepEqual(r, next) {
					t.Fatalf("%s: what is late moves something: %s", e.Subject(), cmp.Diff(r, next))
				}
			case is.ID != was.ID:
				if was.ID != "" && !was.State.Final() {
					t.Fatalf("%s: %s was left as %s", e.Subject(), was.ID, was.State)
				}
				if is.State != StatePinned || ended[is.ID] != "" {
					t.Fatalf("%s: %s begins as %s; it had ended as %q", e.Subject(), is.ID, is.State, ended[is.ID])
				}
			case is.State != was.State:
				if rank(is.State) <= rank(was.State) || was.State.Final() {
					t.Fatalf("%s: from %s to %s", e.Subject(), was.State, is.State)
				}
				if is.State == StateVerified && (was.State != StateCompleted || next.Verified == nil || next.Verified.ID != is.ID) {
					t.Fatalf("%s: from %s", e.Subject(), was.State)
				}
			}
			if is.State.Final() {
				if ended[is.ID] != "" && ended[is.ID] != is.State {
					t.Fatalf("%s: it had ended as %s", e.Subject(), ended[is.ID])
				}
				ended[is.ID] = is.State
			}
			if len(next.Previous) > MaxPrevious || len(next.Refused) > MaxRefused {
				t.Fatalf("%s: %d previous, %d refused", e.Subject(), len(next.Previous), len(next.Refused))
			}
			decoded, err := DecodeRecord("web/deployment.yaml", next.Encode())
			if err != nil || !reflect.DeepEqual(decoded, next) {
				t.Fatalf("%s: read back: %v %s", e.Subject(), err, cmp.Diff(next, decoded))
			}
			parsed, err := ParseMessage(e.Message(), e.Time)
			if err == nil {
				told, err = told.Apply(parsed)
			}
			if err != nil || !bytes.Equal(told.Encode(), next.Encode()) {
				t.Fatalf("%s: the messages lead to something else: %v %s", e.Subject(), err, cmp.Diff(next, told))
			}
			// An entry that was recorded is refused when it comes again, but for
			// those that say only that something is so once more.
			if _, err := next.Apply(e); err == nil && !e.Late && e.Event != EventDrifted {
				t.Fatalf("%s: came twice", e.Subject())
			}
			r = next
			reached[is.State]++
		}
	}
	for _, s := range []State{StatePinned, StateStarted, StateCompleted, StateVerified, StateFailed, StateSuperseded} {
		if reached[s] < 50 {
			t.Errorf("the stories reach %s only %d times", s, reached[s])
		}
	}
	if refused < 1000 {
		t.Errorf("the stories have only %d moves that are refused", refused)
	}
}

// What happens to one service does not depend on what happens to another in
// between.
func TestServicesAreIndependent(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		tell := func(entries []Entry) map[desired.ServiceName]string {
			records := map[desired.ServiceName]Record{}
			for _, e := range entries {
				if next, err := records[e.Service].Apply(e); err == nil {
					records[e.Service] = next
				}
			}
			told := map[desired.ServiceName]string{}
			for svc, r := range records {
				told[svc] = string(r.Encode())
			}
			return told
		}
		web, api := story(rnd, "web", 60), story(rnd, "api", 60)
		var mixed []Entry
		for i, j := 0, 0; i < len(web) || j < len(api); {
			if j == len(api) || i < len(web) && rnd.IntN(2) == 0 {
				mixed = append(mixed, web[i])
				i++
			} else {
				mixed = append(mixed, api[j])
				j++
			}
		}
		if diff := cmp.Diff(tell(slices.Concat(web, api)), tell(mixed)); diff != "" {
			t.Fatal(diff)
		}
	}
}
