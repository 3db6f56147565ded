package proposal

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

// oneCommit is a history of one.
type oneCommit struct {
	history.Archive
	commit gitstate.CommitInfo
}

func (o oneCommit) History(_ context.Context, _ string, yield func(gitstate.CommitInfo) bool) error {
	yield(o.commit)
	return nil
}

// Who asks for the same once more goes back no further, but for what has failed.
func TestRollbackAskedForAgain(t *testing.T) {
	now := time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)
	kim, lee := ledger.Person{Name: "kim", Email: "kim@shop.example"}, ledger.Person{Name: "lee", Email: "lee@shop.example"}
	release := func(version string) ledger.Release {
		return ledger.Release{Pins: []ledger.Pin{{Artifact: "web", Image: "registry.example/web:" + version}}}
	}
	change := ledger.Change{Kind: ledger.ChangeRolledBack, Environment: "dev", Service: "web", Release: release("1.1.0"), Before: "1.2.0", Reason: "It fails.",
		RequestedBy: []ledger.Person{kim}}
	c := gitstate.CommitInfo{ID: strings.Repeat("a", 40), Message: change.Message()}
	c.Committer.Time = now.Add(-2 * time.Minute)
	gr := &Ground{View: &history.View{Archive: oneCommit{commit: c}}, Commit: &reconcile.Commit{ID: c.ID}}
	for name, x := range map[string]struct {
		by      ledger.Person
		to      string
		here    string
		state   ledger.State
		version string // of the record
		later   time.Duration
		repeats bool
	}{
		"before the ledger has it":  {kim, "", "1.1.0", ledger.StateFailed, "1.2.0", 0, true},
		"while it is on its way":    {kim, "", "1.1.0", ledger.StateStarted, "1.1.0", 0, true},
		"when it is verified":       {kim, "", "1.1.0", ledger.StateVerified, "1.1.0", 0, true},
		"when it has failed, too":   {kim, "", "1.1.0", ledger.StateFailed, "1.1.0", 0, false},
		"by somebody else":          {lee, "", "1.1.0", ledger.StateVerified, "1.1.0", 0, false},
		"with a version":            {kim, "1.0.0", "1.1.0", ledger.StateVerified, "1.1.0", 0, false},
		"when there is another one": {kim, "", "1.3.0", ledger.StateVerified, "1.3.0", 0, false},
		"when it is long ago":       {kim, "", "1.1.0", ledger.StateVerified, "1.1.0", time.Hour, false},
	} {
		in := Rollback{Environment: "dev", Service: "web", To: x.to, By: x.by, Now: now.Add(x.later)}
		record := ledger.Record{Deployment: ledger.Deployment{Release: release(x.version), State: x.state}}
		why, err := in.repeats(t.Context(), gr, record, release(x.here))
		if err != nil || (why != "") != x.repeats {
			t.Errorf("%s: %q, %v; want a repetition: %t", name, why, err, x.repeats)
		}
	}
}

// As long as the ledger does not know that main has gone back, nobody goes forth
// by going back once more, whoever asks.
func TestRollbackBeforeTheLedgerKnows(t *testing.T) {
	release := func(version string) ledger.Release {
		return ledger.Release{Pins: []ledger.Pin{{Artifact: "web", Image: "registry.example/web:" + version}}}
	}
	ran := time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)
	record := ledger.Record{
		Deployment: ledger.Deployment{ID: "web-c3", Commit: "c3", Release: release("1.2.0"), State: ledger.StateVerified, Started: ran},
		Previous: []ledger.Past{
			{ID: "web-c2", Release: release("1.9.0"), State: ledger.StateSuperseded},
			{ID: "web-c1", Release: release("1.1.0"), State: ledger.StateVerified, Started: ran},
			{ID: "web-c0", Release: release("1.3.0"), State: ledger.StateFailed, Started: ran},
		},
	}
	back := func(version string) string {
		return ledger.Change{Kind: ledger.ChangeRolledBack, Environment: "dev", Service: "web", Release: release(version), Before: "1.2.0", Reason: "It fails."}.Message()
	}
	for name, x := range map[string]struct {
		here, to, message string
		back              bool
	}{
		"nothing has changed":                          {"1.2.0", "", "a word", false},
		"by a rollback":                                {"1.1.0", "", back("1.1.0"), true},
		"by a rollback, and a version is named":        {"1.1.0", "1.0.0", back("1.1.0"), false},
		"by a person's own commit":                     {"1.1.0", "", "back", true},
		"by a rollback to what no record keeps":        {"0.9.0", "", back("0.9.0"), true},
		"by a rollback to a newer one":                 {"1.3.0", "", back("1.3.0"), true},
		"by a rollback to what never ran":              {"1.9.0", "", back("1.9.0"), false},
		"to a newer one that ran, by a person":         {"1.3.0", "", "once more", false},
		"to a new one":                                 {"1.4.0", "", "a bump", false},
		"to a new one, after a rollback to another":    {"1.4.0", "", back("1.1.0"), false},
		"by the rollback of another service, to a new": {"1.4.0", "", strings.ReplaceAll(back("1.4.0"), "Service: web", "Service: api"), false},
	} {
		gr := &Ground{View: &history.View{Archive: oneCommit{commit: gitstate.CommitInfo{ID: strings.Repeat("a", 40), Message: x.message}}}, Commit: &reconcile.Commit{ID: strings.Repeat("a", 40)}}
		in := Rollback{Environment: "dev", Service: "web", To: x.to}
		why, err := in.wentBack(t.Context(), gr, record, release(x.here), false)
		if err != nil || (why != "") != x.back {
			t.Errorf("%s: %q, %v; want that main has gone back: %t", name, why, err, x.back)
		}
	}
	// The ledger has it: what it has for verified is what was before.
	record.Deployment.Release = release("1.1.0")
	gr := &Ground{View: &history.View{Archive: oneCommit{commit: gitstate.CommitInfo{Message: back("1.1.0")}}}, Commit: &reconcile.Commit{}}
	if why, err := (Rollback{Environment: "dev", Service: "web"}).wentBack(t.Context(), gr, record, release("1.1.0"), false); why != "" || err != nil {
		t.Errorf("%q, %v", why, err)
	}
}

func TestVersionsThatNameADeployment(t *testing.T) {
	digest := "sha256:" + strings.Repeat("2", 64)
	one := ledger.Release{Pins: []ledger.Pin{{Artifact: "web", Image: "registry.example/web:1.4.2@" + digest}}}
	two := ledger.Release{Pins: append([]ledger.Pin{{Artifact: "db", Image: "registry.example/db:3"}}, one.Pins...)}
	commit := "4f1c2aa90b7e4f1c2aa90b7e4f1c2aa90b7e4f1c"
	for _, c := range []struct {
		version string
		release ledger.Release
		want    bool
	}{
		{"1.4.2", one, true},
		{digest, one, true},
		{"1.4.2@" + digest, one, true},
		{"registry.example/web:1.4.2@" + digest, one, true},
		{"web-4f1c2aa90b7e", one, true},
		{"4F1C2AA", one, true},
		{"4f1c2a", one, false}, // too short to be told from a tag
		{"1.4", one, false},
		{"1.4.2", two, false}, // which of the two?
		{"db 3, web 1.4.2", two, true},
	} {
		if got := names(c.version, ledger.DeploymentID("web", commit), commit, c.release); got != c.want {
			t.Errorf("%s: %t, want %t", c.version, got, c.want)
		}
	}
}
