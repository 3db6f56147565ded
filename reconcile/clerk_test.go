package reconcile_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

// threeStages is a service on its way from dev to production.
const threeStages = `
-- environments/dev.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: shop-dev
pins:
  web:
    image: registry.example/web:1.0.0
-- environments/staging.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: shop-staging
pins:
  web:
    image: registry.example/web:1.0.0
-- environments/production.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: shop-production
pins:
  web:
    image: registry.example/web:1.0.0
-- services/web/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/web/web.yaml --
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web}]}
-- pipelines/default.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: ["*"]
stages:
- environment: dev
- environment: staging
  verify: [e2e]
  onFailure: rollback
- environment: production
  admit: [release]
  onFailure: rollbackAll
-- policies/e2e.yaml --
apiVersion: pinion.dev/v1
kind: Policy
report: {by: [ci]}
-- policies/release.yaml --
apiVersion: pinion.dev/v1
kind: Policy
approval: {groups: [release-managers], count: 2}
`

// brought brings version 1.0.0 of threeStages to verified everywhere.
func brought(t *testing.T) *house {
	t.Helper()
	h := newHouse(t, threeStages)
	h.runs("dev", "1.0.0", ledger.StateVerified)
	h.runs("staging", "1.0.0", ledger.StateCompleted)
	h.must(h.report("ci", "staging", "e2e", "1.0.0", ledger.Success))
	h.runs("staging", "1.0.0", ledger.StateVerified)
	h.runs("production", "1.0.0", ledger.StateVerified)
	return h
}

func TestVersionReachesProduction(t *testing.T) {
	h := brought(t)
	pin := h.pin("dev", "1.0.0", "1.1.0")
	h.runs("staging", "1.1.0", ledger.StateCompleted)
	h.must(h.report("ci", "staging", "e2e", "1.1.0", ledger.Success))
	h.ends("ledger/production", "offered(production): web 1.0.0 → 1.1.0")
	h.must(h.approve("alice", "production", "1.1.0"))
	h.must(h.approve("bob", "production", "1.1.0"))
	r := h.runs("production", "1.1.0", ledger.StateVerified)
	if r.Deployment.Cause != ledger.CausePromotion || !strings.HasPrefix(r.Deployment.From, "staging@") {
		t.Errorf("production: cause %s, from %s", r.Deployment.Cause, r.Deployment.From)
	}
	if len(r.Deployment.Authors) != 1 || r.Deployment.Authors[0].Name != "Dana" {
		t.Errorf("the version was chosen by %v, not by Dana", r.Deployment.Authors)
	}
	if d, _ := h.record("dev", "web"); d.Deployment.Commit != pin {
		t.Errorf("dev comes from %s, not from %s", d.Deployment.Commit, pin)
	}
	h.ends("main", "promote(staging): web 1.0.0 → 1.1.0", "promote(production): web 1.0.0 → 1.1.0")
	h.sound()
}

func TestFailedVersionIsRolledBackAndStays(t *testing.T) {
	h := brought(t)
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("staging", "1.1.0", ledger.StateCompleted)
	h.must(h.report("ci", "staging", "e2e", "1.1.0", ledger.Failure))
	h.ends("main", "promote(staging): web 1.0.0 → 1.1.0", "rollback(staging): web 1.1.0 → 1.0.0")
	h.runs("staging", "1.0.0", ledger.StateVerified)
	h.settled()
	h.ends("main", "rollback(staging): web 1.1.0 → 1.0.0")
	h.pin("dev", "1.1.0", "1.2.0")
	h.runs("staging", "1.2.0", ledger.StateCompleted)
	h.sound()
}

func TestFailureInTheLastStageRollsAllBack(t *testing.T) {
	h := brought(t)
	h.is("production/web", "1.1.0", reconcile.Failed)
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("staging", "1.1.0", ledger.StateCompleted)
	h.must(h.report("ci", "staging", "e2e", "1.1.0", ledger.Success))
	h.ends("ledger/production", "offered(production)")
	h.must(h.approve("alice", "production", "1.1.0"))
	h.must(h.approve("bob", "production", "1.1.0"))
	for _, env := range []string{"dev", "staging", "production"} {
		h.runs(env, "1.0.0", ledger.StateVerified)
	}
	h.settled()
	h.sound()
}

func TestRevertByAPersonSticks(t *testing.T) {
	h := brought(t)
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("staging", "1.1.0", ledger.StateCompleted)
	h.must(h.report("ci", "staging", "e2e", "1.1.0", ledger.Success))
	h.ends("ledger/production", "offered(production)")
	h.change("Revert", func() { h.git("revert", "--no-edit", "HEAD") })
	r := h.runs("staging", "1.0.0", ledger.StateVerified)
	if r.Deployment.Cause != ledger.CauseRevert {
		t.Errorf("the cause is %s", r.Deployment.Cause)
	}
	h.settled()
	h.runs("staging", "1.0.0", ledger.StateVerified)
	if p, _ := h.record("production", "web"); p.Candidate != nil {
		t.Errorf("production still has the candidate %s", p.Candidate.Release.Version())
	}
	h.sound()
}

func TestHoldWins(t *testing.T) {
	h := brought(t)
	h.push("hold", `
-- holds/freeze.yaml --
apiVersion: pinion.dev/v1
kind: Hold
environments: [staging]
reason: INC-431
owner: dana@shop.example
`)
	h.pin("dev", "1.0.0", "1.1.0")
	h.ends("ledger/staging", "offered(staging): web 1.0.0 → 1.1.0")
	h.pin("dev", "1.1.0", "1.2.0")
	h.ends("ledger/staging", "superseded(staging): web 1.1.0", "offered(staging): web 1.0.0 → 1.2.0")
	h.settled()
	if r, _ := h.record("staging", "web"); r.Deployment.Release.Version() != "1.0.0" {
		t.Errorf("staging has %s in spite of the hold", r.Deployment.Release.Version())
	}
	h.change("release", func() { h.git("rm", "-q", "holds/freeze.yaml") })
	h.runs("staging", "1.2.0", ledger.StateCompleted)
	h.sound()
}

func TestSeveralCommitsInOnePush(t *testing.T) {
	h := brought(t)
	h.change("the third", func() {
		for _, v := range [][2]string{{"1.0.0", "1.1.0"}, {"1.1.0", "1.2.0"}} {
			h.git("-c", "core.editor=true", "commit", "-q", "--allow-empty", "-m", "nothing")
			h.edit("environments/dev.yaml", "web:"+v[0], "web:"+v[1])
			h.git("commit", "-qam", "bump to "+v[1])
		}
	})
	h.runs("staging", "1.2.0", ledger.StateCompleted)
	all := strings.Join(h.subjects("ledger/dev"), "\n")
	if !strings.Contains(all, "pinned(dev): web 1.0.0 → 1.1.0\nsuperseded(dev): web 1.0.0 → 1.1.0 by 1.2.0\npinned(dev): web 1.1.0 → 1.2.0") {
		t.Errorf("the ledger has\n%s", all)
	}
	h.sound()
}

// A change of manifests is none of an environment that reads them from another
// commit, also where a pin of it comes in the same push.
func TestManifestsOfAnotherCommitAreNoDeployment(t *testing.T) {
	h := brought(t)
	h.pin("dev", "1.0.0", "1.1.0")
	h.runs("staging", "1.1.0", ledger.StateCompleted) // from here on it names the commit of its manifests
	before := len(h.subjects("ledger/staging"))
	h.change("the third", func() {
		h.edit("services/web/web.yaml", "containers:", "terminationGracePeriodSeconds: 5, containers:")
		h.git("commit", "-qam", "manifests")
		h.edit("environments/staging.yaml", "web:1.1.0", "web:1.2.0")
		h.git("commit", "-qam", "bump to 1.2.0")
	})
	h.until("staging is asked for 1.2.0", func() string {
		if all := h.subjects("ledger/staging"); !slices.Contains(all, "started(staging): web 1.1.0 → 1.2.0") {
			return strings.Join(all, "\n")
		}
		return ""
	})
	for _, s := range h.subjects("ledger/staging")[before:] {
		if strings.Contains(s, "manifests of") {
			t.Errorf("the ledger tells of a deployment that nobody asked for: %s", s)
		}
	}
	h.sound()
}

// Who merges a branch did not choose the version; who wrote its commits did.
func TestMergeIsToldByItsCommits(t *testing.T) {
	h := brought(t)
	h.change("Merge the bump", func() {
		h.git("checkout", "-q", "-B", "bump")
		h.edit("environments/dev.yaml", "web:1.0.0", "web:1.1.0")
		h.git("commit", "-qam", "bump\n\nCo-authored-by: Carol <carol@shop.example>", "--author", "Bob <bob@shop.example>")
		h.edit("environments/production.yaml", "kind: Environment", "kind: Environment # the last")
		h.git("commit", "-qam", "other", "--author", "Mallory <mallory@shop.example>")
		h.git("checkout", "-q", "-B", "main", "FETCH_HEAD")
		h.git("merge", "-q", "--no-ff", "-m", "Merge branch bump", "bump")
	})
	r := h.runs("dev", "1.1.0", ledger.StateVerified)
	var names []string
	for _, p := range r.Deployment.Authors {
		names = append(names, p.Name)
	}
	if got := strings.Join(names, " "); r.Deployment.Actor.Name != "Dana" || got != "Dana Bob Carol" {
		t.Errorf("the actor is %s, and the authors are %s", r.Deployment.Actor.Name, got)
	}
}

func TestManifestsMoveLikeVersions(t *testing.T) {
	h := brought(t)
	change := h.replace("services/web/web.yaml", "containers:", "terminationGracePeriodSeconds: 5, containers:")
	r := h.runs("staging", "1.0.0", ledger.StateCompleted)
	if r.Deployment.Release.Source != change {
		h.until("staging reads its manifests from the change", func() string {
			r, _ := h.record("staging", "web")
			if r.Deployment.Release.Source != change {
				return "it reads " + r.Deployment.Release.Source
			}
			return ""
		})
	}
	h.sound()
}
