package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

// reporting is a report by CI of web in staging.
func reporting(version string, result ledger.Result) reconcile.ReportRequest {
	return reconcile.ReportRequest{Principal: reconcile.Principal{Name: "ci"}, Environment: "staging", Service: "web", Policy: "e2e",
		Version: version, Result: result, URL: "https://ci.shop.example/" + version, Description: "41 of 41"}
}

// reports sends a report, and returns what it is told: the code is "" if it moves
// something.
func (h *house) reports(q reconcile.ReportRequest) (reconcile.Receipt, reconcile.RejectionCode) {
	h.Helper()
	r, err := h.clerk.Report(context.Background(), q)
	return h.answered(r, err)
}

func (h *house) answered(r reconcile.Receipt, err error) (reconcile.Receipt, reconcile.RejectionCode) {
	h.Helper()
	var no *reconcile.Rejection
	switch {
	case err == nil:
		return r, ""
	case !errors.As(err, &no):
		h.Fatal(err)
	case no.Receipt != nil:
		r = *no.Receipt
	default:
		r = reconcile.Receipt{}
	}
	r.Message = no.Message
	return r, no.Code
}

// entries returns the entries of a ledger whose subjects have these words.
func (h *house) entries(environment string, words ...string) []told {
	h.Helper()
	var found []told
next:
	for _, c := range h.history("ledger/" + environment) {
		subject, _, _ := strings.Cut(c.message, "\n")
		for _, w := range words {
			if !strings.Contains(subject, w) {
				continue next
			}
		}
		found = append(found, c)
	}
	return found
}

// once checks that there is one such entry, and returns it.
func (h *house) once(environment string, words ...string) told {
	h.Helper()
	found := h.entries(environment, words...)
	if len(found) != 1 {
		h.Fatalf("ledger/%s has %d entries of %q:\n%s", environment, len(found), words, strings.Join(h.subjects("ledger/"+environment), "\n"))
	}
	return found[0]
}

func TestReportByGroup(t *testing.T) {
	t.Parallel()
	h := newRepository(t, threeStages)
	h.startOn(gitstate.Options{})
	h.runs("staging", "1.0.0", ledger.StateCompleted)
	q := reporting("1.0.0", ledger.Success)
	q.Principal = reconcile.Principal{Name: "ci-7", Groups: []string{"builders", "ci"}}
	if r, code := h.reports(q); code != "" {
		t.Fatalf("%s: %s", code, r.Message)
	}
	r := h.runs("staging", "1.0.0", ledger.StateVerified)
	if c := r.Deployment.Checks[0]; c.By != "ci-7" || fmt.Sprint(c.Groups) != "[builders ci]" {
		t.Errorf("what is recorded is %+v", c)
	}
	for _, event := range []string{"check", "verified"} {
		if c := h.once("staging", event+"(staging)"); !strings.Contains(c.message, "\nPinion-Groups: e2e builders,ci\n") {
			t.Errorf("the message is\n%s", c.message)
		}
	}
	// Whom the policy names needs no group.
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("staging", "1.1.0", ledger.StateCompleted)
	q = reporting("1.1.0", ledger.Success)
	q.Principal.Groups = []string{"builders", "ci"}
	h.reports(q)
	if r := h.runs("staging", "1.1.0", ledger.StateVerified); r.Deployment.Checks[0].Groups != nil {
		t.Errorf("what is recorded is %+v", r.Deployment.Checks[0])
	}
	q.Principal = reconcile.Principal{Name: "mallory", Groups: []string{"cider"}}
	if r, code := h.reports(q); code != reconcile.NotAReporter {
		t.Errorf("%s: %s", code, r.Message)
	}
	h.lawful()
}

// A result that counts for nothing any more keeps none out that does.
func TestResultThatDoesNotCountMakesRoom(t *testing.T) {
	t.Parallel()
	h := newRepository(t, strings.Replace(threeStages, "admit: [release]", "admit: [release, signoff]", 1)+
		"-- policies/signoff.yaml --\napiVersion: pinion.dev/v1\nkind: Policy\nreport: {by: [qa]}\n")
	h.startOn(gitstate.Options{})
	h.first()
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("staging", "1.1.0", ledger.StateCompleted)
	h.must(h.report("ci", "staging", "e2e", "1.1.0", ledger.Success))
	h.ends("ledger/production", "offered(production): web 1.0.0 → 1.1.0")
	h.must(h.report("qa", "production", "signoff", "1.1.0", ledger.Success))
	h.replace("policies/signoff.yaml", "[qa]", "[lead]")
	h.settled()
	h.must(h.report("lead", "production", "signoff", "1.1.0", ledger.Success))
	if c := h.once("production", "rerun(production)"); !strings.Contains(c.message, "The result by qa does not count") {
		t.Errorf("the message is\n%s", c.message)
	}
	h.admitted("1.1.0")
	h.lawful()
}

// What a policy was called when a deployment was pinned is what it is reported
// by, whatever has become of the file.
func TestReportByTheRulesOfItsTime(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(h *house){
		"removed": func(h *house) {
			h.push("no e2e any more", "-- policies/e2e.yaml --\n")
			h.replace("pipelines/default.yaml", "  verify: [e2e]\n", "")
		},
		"renamed": func(h *house) {
			h.change("call it by its name", func() {
				h.git("mv", "policies/e2e.yaml", "policies/end-to-end.yaml")
				h.edit("pipelines/default.yaml", "[e2e]", "[end-to-end]")
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newRepository(t, threeStages)
			h.startOn(gitstate.Options{})
			h.first()
			h.pin("dev", "1.0.0", "1.1.0")
			h.runs("staging", "1.1.0", ledger.StateCompleted)
			h.pin("dev", "1.1.0", "1.2.0")
			h.runs("staging", "1.2.0", ledger.StateCompleted)
			edit(h)
			h.still("staging", "1.2.0", ledger.StateCompleted)
			h.stop()
			h.startOn(gitstate.Options{})
			h.still("staging", "1.2.0", ledger.StateCompleted)
			q := reporting("1.2.0", ledger.Success)
			q.Policy = "end-to-end"
			if r, code := h.reports(q); name == "renamed" && (code != reconcile.PolicyNotUsed || !strings.Contains(r.Message, "which ask for e2e,")) || name == "removed" && code != reconcile.UnknownPolicy {
				t.Errorf("the new name: %s: %s", code, r.Message)
			}
			if r, code := h.reports(reporting("1.1.0", ledger.Success)); code != reconcile.NotCurrent || r.Commit == "" {
				t.Errorf("a late one: %s: %s", code, r.Message)
			}
			if r, code := h.reports(reporting("1.2.0", ledger.Success)); code != "" {
				t.Errorf("%s: %s", code, r.Message)
			}
			h.runs("staging", "1.2.0", ledger.StateVerified)
			// By the next one it is forgotten, and what was before is not.
			h.pin("dev", "1.2.0", "1.3.0")
			want := ledger.StateVerified
			if name == "renamed" {
				want = ledger.StateCompleted
			}
			h.runs("staging", "1.3.0", want)
			if r, code := h.reports(reporting("1.3.0", ledger.Success)); code != reconcile.UnknownPolicy {
				t.Errorf("the next one: %s: %s", code, r.Message)
			}
			if r, code := h.reports(reporting("1.2.0", ledger.Failure)); code != reconcile.NotCurrent || r.Commit == "" {
				t.Errorf("the one before: %s: %s", code, r.Message)
			}
			h.lawful()
		})
	}
}

// An approval that a deployment waits for can be given when its policy is gone.
func TestApprovalByTheRulesOfItsTime(t *testing.T) {
	t.Parallel()
	h := newRepository(t, strings.Replace(threeStages, "verify: [e2e]", "verify: [look]", 1)+
		"-- policies/look.yaml --\napiVersion: pinion.dev/v1\nkind: Policy\napproval: {groups: [release-managers]}\n")
	h.startOn(gitstate.Options{})
	h.runs("staging", "1.0.0", ledger.StateCompleted)
	h.push("nobody looks any more", "-- policies/look.yaml --\n")
	h.replace("pipelines/default.yaml", "  verify: [look]\n", "")
	h.still("staging", "1.0.0", ledger.StateCompleted)
	r, err := h.clerk.Approve(context.Background(), reconcile.ApprovalRequest{
		Principal:   reconcile.Principal{Name: "alice", Groups: []string{"release-managers"}},
		Environment: "staging", Service: "web", Policy: "look", Version: "1.0.0",
	})
	if r, code := h.answered(r, err); code != "" {
		t.Errorf("%s: %s", code, r.Message)
	}
	h.runs("staging", "1.0.0", ledger.StateVerified)
	h.lawful()
}

// A report for a service that main has no more is one for what the ledger has.
func TestReportOfWhatLeftMain(t *testing.T) {
	t.Parallel()
	h := newRepository(t, threeStages)
	h.startOn(gitstate.Options{})
	h.runs("staging", "1.0.0", ledger.StateCompleted)
	h.push("no web any more", "-- services/web --\n-- pipelines/default.yaml --\n")
	for _, env := range []string{"dev", "staging", "production"} {
		h.replace("environments/"+env+".yaml", "pins:\n  web:\n    image: registry.example/web:1.0.0\n", "")
	}
	h.settled()
	if r, code := h.reports(reporting("1.0.0", ledger.Success)); code != reconcile.NotCurrent {
		t.Errorf("%s: %s", code, r.Message)
	}
	h.once("staging", "check(staging): web 1.0.0, e2e passed, late")
	q := reporting("1.0.0", ledger.Success)
	q.Service = "wob"
	if r, code := h.reports(q); code != reconcile.UnknownService {
		t.Errorf("%s: %s", code, r.Message)
	}
}

// What comes for something else than what is there is recorded about what it
// was about, and about nothing else.
func TestReportOfAnotherVersion(t *testing.T) {
	t.Parallel()
	h := newRepository(t, threeStages)
	h.startOn(gitstate.Options{})
	h.first()
	h.push("freeze", "-- holds/freeze.yaml --\napiVersion: pinion.dev/v1\nkind: Hold\nenvironments: [staging]\nreason: INC-431\nowner: dana@shop.example\n")
	h.pin("dev", "1.0.0", "1.1.0")
	h.ends("ledger/staging", "offered(staging): web 1.0.0 → 1.1.0")
	h.pin("dev", "1.1.0", "1.2.0")
	h.ends("ledger/staging", "superseded(staging): web 1.1.0, a candidate, by 1.2.0", "offered(staging): web 1.0.0 → 1.2.0")
	about := func(version string) {
		t.Helper()
		for _, rerun := range []bool{false, true} {
			q := reporting(version, ledger.Success)
			want := "check(staging): web " + version + ", a candidate, e2e passed, late"
			if q.Rerun = rerun; rerun {
				q.Result = ""
				want = "rerun(staging): web " + version + ", a candidate, e2e once more, late"
			}
			r, code := h.reports(q)
			if code != reconcile.NotCurrent || !strings.Contains(r.Message, "it is recorded, and moves nothing") {
				t.Fatalf("%s of %s: %s", code, version, r.Message)
			}
			if c := h.once("staging", want); c.id != r.Commit || !strings.Contains(c.message, fmt.Sprintf("It came for version %q.", version)) {
				t.Errorf("the answer names %s, and the entry is %s\n%s", r.Commit, c.id, c.message)
			}
		}
	}
	about("1.1.0") // superseded
	about("1.2.0") // it waits still
	for _, rerun := range []bool{false, true} {
		before := h.git("--git-dir="+h.remote, "rev-parse", "ledger/staging")
		q := reporting("0.9.0", ledger.Success)
		q.Rerun = rerun
		r, code := h.reports(q)
		if code != reconcile.UnknownDeployment || !strings.Contains(r.Message, "nothing is recorded") || strings.Contains(r.Message, "ledger entry") || r.Commit != "" {
			t.Errorf("what never was there: %s %+v", code, r)
		}
		if after := h.git("--git-dir="+h.remote, "rev-parse", "ledger/staging"); after != before {
			t.Error("something is recorded")
		}
	}
	h.stop()
	h.startOn(gitstate.Options{})
	about("1.1.0")
	// One that the record has no more among the twenty of before.
	h.push("thaw", "-- holds/freeze.yaml --\n")
	h.runs("staging", "1.2.0", ledger.StateCompleted)
	from := "1.2.0"
	for i := range ledger.MaxPrevious + 1 {
		to := fmt.Sprintf("2.%d.0", i)
		h.replace("environments/staging.yaml", "web:"+from, "web:"+to)
		h.runs("staging", to, ledger.StateCompleted)
		from = to
	}
	for _, version := range []string{"1.0.0", "1.2.0"} { // verified last, and only in the ledger's entries
		if r, code := h.reports(reporting(version, ledger.Failure)); code != reconcile.NotCurrent {
			t.Errorf("%s of %s: %s", code, version, r.Message)
		}
		h.once("staging", "check(staging): web "+version+", e2e failed, late")
	}
	h.still("staging", from, ledger.StateCompleted)
	h.lawful()
}

// Who asks once more, as when an answer was lost, is answered with the entry
// that is there, after a restart, too.
func TestReportAskedTwiceIsRecordedOnce(t *testing.T) {
	t.Parallel()
	h := newRepository(t, threeStages)
	h.startOn(gitstate.Options{})
	h.first()
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("staging", "1.1.0", ledger.StateCompleted)
	h.must(h.report("ci", "staging", "e2e", "1.1.0", ledger.Success))
	h.runs("staging", "1.1.0", ledger.StateVerified)

	again := func(what string, q reconcile.ReportRequest, want reconcile.RejectionCode, entry string) string {
		t.Helper()
		first := ""
		for i := range 3 {
			r, code := h.reports(q)
			if code != want {
				t.Fatalf("%s: %s: %s", what, code, r.Message)
			}
			c := h.once("staging", entry)
			if first = c.id; r.Commit != c.id {
				t.Errorf("%s, asked the %d. time: the answer names %s, and the entry is %s", what, i+1, r.Commit, c.id)
			}
			// Something else is written in between.
			other := reporting("1.0.0", ledger.Success)
			other.URL = fmt.Sprintf("https://ci.shop.example/%s/%d", strings.ReplaceAll(what, " ", "-"), i)
			if r, code := h.reports(other); code != reconcile.NotCurrent {
				t.Fatalf("%s: %s", code, r.Message)
			}
		}
		return first
	}
	late, decided := reporting("1.0.0", ledger.Failure), reporting("1.1.0", ledger.Failure)
	a := again("a late one", late, reconcile.NotCurrent, "check(staging): web 1.0.0, e2e failed, late")
	b := again("a decided one", decided, reconcile.Decided, "check(staging): web 1.1.0, e2e failed, late")

	// Side by side, in one push.
	q := reporting("1.0.0", ledger.Failure)
	q.Description = "40 of 41"
	answers := make(chan string, 8)
	for range cap(answers) {
		go func() {
			r, err := h.clerk.Report(context.Background(), q)
			var no *reconcile.Rejection
			if !errors.As(err, &no) || no.Receipt == nil {
				answers <- fmt.Sprint(r, err)
				return
			}
			answers <- ""
		}()
	}
	for range cap(answers) {
		if wrong := <-answers; wrong != "" {
			t.Error(wrong)
		}
	}
	if n := len(h.entries("staging", "check(staging): web 1.0.0, e2e failed, late")); n != 2 {
		t.Errorf("%d entries, want one more", n)
	}

	h.stop()
	h.startOn(gitstate.Options{})
	for what, x := range map[string]struct {
		q    reconcile.ReportRequest
		code reconcile.RejectionCode
		want string
	}{"late": {late, reconcile.NotCurrent, a}, "decided": {decided, reconcile.Decided, b}} {
		if r, code := h.reports(x.q); code != x.code || r.Commit != x.want {
			t.Errorf("%s, after a restart: %s, and it names %s, want %s", what, code, r.Commit, x.want)
		}
	}

	// One that counted when it came is answered so when it is over.
	h.pin("dev", "1.1.0", "1.2.0")
	h.runs("staging", "1.2.0", ledger.StateCompleted)
	counted := reporting("1.2.0", ledger.Success)
	if r, code := h.reports(counted); code != "" {
		t.Fatalf("%s: %s", code, r.Message)
	}
	c := h.once("staging", "check(staging): web 1.2.0, e2e passed")
	h.runs("staging", "1.2.0", ledger.StateVerified)
	h.pin("dev", "1.2.0", "1.3.0")
	h.runs("staging", "1.3.0", ledger.StateCompleted)
	if r, code := h.reports(counted); code != "" || r.Commit != c.id || r.Late {
		t.Errorf("%s: it names %s, want %s: %s", code, r.Commit, c.id, r.Message)
	}
	h.once("staging", "check(staging): web 1.2.0, e2e passed")
	// Without a URL it may be of another run, and is late, once.
	h.replace("environments/staging.yaml", "web:1.3.0", "web:1.3.1")
	h.runs("staging", "1.3.1", ledger.StateCompleted)
	counted = reporting("1.3.1", ledger.Success)
	counted.URL = ""
	h.reports(counted)
	h.replace("environments/staging.yaml", "web:1.3.1", "web:1.3.2")
	h.runs("staging", "1.3.2", ledger.StateCompleted)
	for range 2 {
		if r, code := h.reports(counted); code != reconcile.NotCurrent {
			t.Errorf("%s: %s", code, r.Message)
		}
		h.once("staging", "check(staging): web 1.3.1, e2e passed, late")
	}

	// A result that was taken back can be reported anew, and once.
	h.replace("pipelines/default.yaml", "verify: [e2e]", "verify: [e2e, load]")
	h.push("load", "-- policies/load.yaml --\napiVersion: pinion.dev/v1\nkind: Policy\nreport: {by: [ci]}\n")
	h.pin("dev", "1.3.0", "1.4.0")
	h.runs("staging", "1.4.0", ledger.StateCompleted)
	q = reporting("1.4.0", ledger.Success)
	h.reports(q)
	rerun := q
	rerun.Rerun, rerun.Result = true, ""
	for range 2 {
		if r, code := h.reports(rerun); code != "" {
			t.Errorf("%s: %s", code, r.Message)
		}
	}
	h.once("staging", "rerun(staging): web 1.4.0")
	q.Rerun = true
	for range 2 {
		if r, code := h.reports(q); code != "" {
			t.Errorf("%s: %s", code, r.Message)
		}
	}
	h.once("staging", "rerun(staging): web 1.4.0")
	if n := len(h.entries("staging", "check(staging): web 1.4.0, e2e passed")); n != 2 {
		t.Errorf("%d results, want that of before and that of after", n)
	}
	h.lawful()
}
