package main

import (
	"context"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

// Offline, a report by a member of a group that the policy names counts as it
// did for the daemon, by the groups that the entry has.
func TestAuditJudgesReportsByGroup(t *testing.T) {
	t.Parallel()
	o := newOffice(t, gatedShop)
	o.open()
	o.is("staging", "1.0.0", ledger.StateCompleted)
	_, err := o.clerk.Report(context.Background(), reconcile.ReportRequest{
		Principal: reconcile.Principal{Name: "ci-7", Groups: []string{"builders", "ci"}}, Environment: "staging", Service: "web", Policy: "e2e", Version: "1.0.0", Result: ledger.Success})
	o.must(err)
	o.later(31 * time.Minute)
	o.is("staging", "1.0.0", ledger.StateVerified)
	o.is("production", "1.0.0", ledger.StateVerified)
	o.stop()
	auditOf(t, o.remote, "--allowed-signers="+filepath.Join(o.dir, "allowed_signers")).found(t, 0)

	// Without them it does not, however well all else is made anew.
	f := o.forger(t)
	var r ledger.Record
	f.rewrite("staging", func(_ int, raw string) string {
		head, message, _ := strings.Cut(raw, "\n\n")
		var seconds int64
		for _, d := range regexp.MustCompile(`(?m)^committer .*> (\d+) `).FindStringSubmatch(head)[1] {
			seconds = seconds*10 + int64(d-'0')
		}
		e, err := ledger.ParseMessage(message, time.Unix(seconds, 0))
		f.o.must(err)
		for i := range e.Checks {
			e.Checks[i].Groups = nil
		}
		r, err = r.Apply(e)
		f.o.must(err)
		tree := strings.Fields(head)[1]
		return strings.Replace(head, tree, f.treeWith(tree, "web/deployment.yaml", string(r.Encode())), 1) + "\n\n" + e.Message()
	})
	v := auditOf(t, f.dir, "--no-signatures")
	if text := v.text(); v.code != 1 || !strings.Contains(text, "e2e: waits for a report by ci; that of ci-7 does not count") || strings.Count(text, "\nerror") > 1 {
		t.Errorf("exit code %d\n%s", v.code, text)
	}
}
