package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

// sharing is what a promotion to production is to say that rests on several
// results of one policy.
func (o *office) sharing(version string, lines ...string) {
	o.Helper()
	o.stop()
	change := o.git("--git-dir="+o.remote, "log", "-1", "--format=%B", "--grep=^promote(production): web 1.0.0 → "+version, "main")
	claim, ok := ledger.ParseChange(change + "\n")
	if !ok || claim.Release.Version() != version {
		o.Fatalf("the daemon's own promotion can't be read:\n%s", change)
	}
	for _, line := range lines {
		if !strings.Contains(change, line) {
			o.Errorf("%q is not in\n%s", line, change)
		}
	}
	entry := o.git("--git-dir="+o.remote, "log", "-1", "--format=%B", "--grep=^pinned(production): web 1.0.0 → "+version, "ledger/production")
	for _, line := range []string{"Pinion-Cause: promotion", "Pinion-From: staging@"} {
		if !strings.Contains(entry, line) {
			o.Errorf("%q is not in\n%s", line, entry)
		}
	}
	o.git("fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*")
	cmd := pinionCommand("why", "production", "web", "--repo", o.clone)
	cmd.Env = append(cmd.Env, nowIs+"="+rfc3339(o.clock()))
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "pin by Pinion") {
		o.Errorf("why: %v\n%s", err, out)
	}
	auditOf(o.T, o.remote, "--no-signatures").found(o.T, 0)
}

// Two stages before production ask for the same policy.
func TestAuditPolicyOfTwoStages(t *testing.T) {
	t.Parallel()
	o := newOffice(t, strings.Replace(gatedShop, `- environment: staging
  verify: [e2e, soak]
  onFailure: rollback
- environment: production
  admit: [release, office-hours]
  onFailure: rollbackAll
`, `- environment: staging
  after: [dev]
  verify: [e2e]
- environment: qa
  after: [dev]
  verify: [e2e]
- environment: production
  after: [staging, qa]
`, 1)+`-- environments/qa.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: shop-qa
pins:
  web:
    image: registry.example/web:1.0.0
`)
	o.open()
	report := func(env, version string) {
		o.is(env, version, ledger.StateCompleted)
		_, err := o.clerk.Report(context.Background(), reconcile.ReportRequest{Principal: reconcile.Principal{Name: "ci"}, Environment: desired.EnvironmentName(env), Service: "web",
			Policy: "e2e", Version: version, Result: ledger.Success, URL: "https://ci.shop.example/" + env + "/" + version})
		o.must(err)
		o.is(env, version, ledger.StateVerified)
	}
	report("staging", "1.0.0")
	report("qa", "1.0.0")
	o.is("production", "1.0.0", ledger.StateVerified)
	o.replace("environments/dev.yaml", "web:1.0.0", "web:1.1.0")
	report("staging", "1.1.0")
	report("qa", "1.1.0")
	o.is("production", "1.1.0", ledger.StateVerified)
	o.sharing("1.1.0", "Pinion-Check: e2e success ci https://ci.shop.example/qa/1.1.0", "Pinion-Check: e2e success ci https://ci.shop.example/staging/1.1.0")
}

// A policy is asked for where a version is verified, and where it enters.
func TestAuditPolicyOfVerifyAndAdmit(t *testing.T) {
	t.Parallel()
	o := newOffice(t, strings.Replace(gatedShop, "admit: [release, office-hours]", "admit: [soak]", 1))
	o.open()
	o.is("staging", "1.0.0", ledger.StateCompleted)
	o.report("1.0.0", ledger.Success)
	o.later(31 * time.Minute)
	o.is("production", "1.0.0", ledger.StateVerified)
	o.bump("1.0.0", "1.1.0")
	o.offered("production", "1.1.0")
	o.later(31 * time.Minute)
	o.is("production", "1.1.0", ledger.StateVerified)
	o.sharing("1.1.0", "soaked 30m", "Pinion-Check: soak success pinion")
}

// A person's commit with a promotion's title is a person's pin: no forge writes
// titles where nothing is entered by pull requests.
func TestAuditTitleOfAPromotion(t *testing.T) {
	t.Parallel()
	o := newOffice(t, gatedShop)
	o.open()
	o.is("staging", "1.0.0", ledger.StateCompleted)
	o.report("1.0.0", ledger.Success)
	o.later(31 * time.Minute)
	o.is("production", "1.0.0", ledger.StateVerified)
	o.bump("1.0.0", "1.1.0")
	o.offered("production", "1.1.0")
	o.change("promote(production): web 1.0.0 → 1.1.0", func() {
		name := filepath.Join(o.clone, "environments/production.yaml")
		data, err := os.ReadFile(name)
		o.must(err)
		o.must(os.WriteFile(name, bytes.ReplaceAll(data, []byte("web:1.0.0"), []byte("web:1.1.0")), 0o644))
	})
	o.is("production", "1.1.0", ledger.StateVerified)
	o.stop()
	entry := o.git("--git-dir="+o.remote, "log", "-1", "--format=%B", "--grep=^pinned(production): web 1.0.0 → 1.1.0", "ledger/production")
	if !strings.Contains(entry, "Pinion-Cause: pin\n") || strings.Contains(entry, "Pinion-From") || !strings.Contains(entry, "Pinion-Actor: Dana <dana@shop.example>") {
		t.Errorf("it is recorded as\n%s", entry)
	}
	auditOf(t, o.remote, "--no-signatures").found(t, 1,
		`error promotion production: its message has the look of a promotion, and it is none: Dana <dana@shop.example> has changed what it changes`)
}
