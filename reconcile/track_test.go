package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

const trackShop = `
-- environments/dev.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: shop-dev
pins:
  web:
    image: registry.example/web:1.2.9
-- environments/production.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: shop
pins:
  web:
    image: registry.example/web:1.2.9
-- environments/canary.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: shop-canary
pins:
  web:
    image: registry.example/web:1.2.9
-- services/web/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/web/config.yaml --
apiVersion: v1
kind: ConfigMap
metadata: {name: web}
-- pipelines/default.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: [web]
stages:
- environment: dev
  track:
  - semver: ">=1.0.0 <2"
    publishers: [ci]
  onFailure: rollback
- environment: production
- environment: canary
  after: []
  track:
  - semver: 1.x
    publishers: [releasers]
`

// digest returns a digest that is told apart by its first digit.
func digest(first string) string { return "sha256:" + first + strings.Repeat("0", 64-len(first)) }

// publish publishes a version of web as CI does.
func (h *house) publish(by, version, digest string, facts artifact.Facts) (reconcile.Receipt, error) {
	return h.clerk.Publish(context.Background(), reconcile.PublishRequest{
		Principal: reconcile.Principal{Name: by}, Repository: "registry.example/web", Version: version, Digest: digest, Facts: facts,
	})
}

// refuses makes sure that publishing is refused with a code.
func (h *house) refuses(code reconcile.RejectionCode, by, version, digest string) {
	h.Helper()
	_, err := h.publish(by, version, digest, artifact.Facts{})
	var r *reconcile.Rejection
	if !errors.As(err, &r) || r.Code != code {
		h.Errorf("publish %s by %s: %v, want it refused as %s", version, by, err, code)
	}
}

func TestPublishedVersionsEnterTheirStage(t *testing.T) {
	t.Parallel()
	h := newHouse(t, trackShop)
	h.runs("dev", "1.2.9", ledger.StateVerified)

	facts := artifact.Facts{Commit: "4f1c2aa90b7e", Branch: "main", Build: "https://ci.shop.example/7", Tests: artifact.Passed}
	got, err := h.publish("ci", "1.2.10", digest("a"), facts)
	h.must(err)
	if got.Branch != artifact.Branch || h.git("--git-dir="+h.remote, "rev-parse", artifact.Branch) != got.Commit {
		t.Errorf("the receipt is %+v, and the branch is elsewhere", got)
	}
	r := h.runs("dev", "1.2.10", ledger.StateVerified)
	if r.Deployment.Cause != ledger.CauseTracking || r.Deployment.From != artifact.Branch+"@"+got.Commit {
		t.Errorf("it is there for %q, from %q", r.Deployment.Cause, r.Deployment.From)
	}
	h.runs("production", "1.2.10", ledger.StateVerified)
	message := h.git("--git-dir="+h.remote, "log", "-1", "--grep=^Pinion-Event: tracked", "--format=%B", "main")
	for _, want := range []string{
		"track(dev): web 1.2.9 → 1.2.10", "web 1.2.10 is the newest of registry.example/web that is >=1.0.0 <2; published by ci, built from 4f1c2aa90b7e of main (https://ci.shop.example/7), tests passed.",
		"Pinion-Pin: web registry.example/web:1.2.10@" + digest("a"),
		"Pinion-Artifact: web commit=4f1c2aa90b7e branch=main build=https://ci.shop.example/7 tests=passed",
		"Pinion-From: pinion/artifacts@" + got.Commit,
	} {
		if !strings.Contains(message, want) {
			t.Errorf("the commit says\n%s\nwant %q", message, want)
		}
	}

	// The same again is recorded once, and more of it is added.
	again, err := h.publish("ci", "1.2.10", digest("a"), facts)
	if err != nil || again.Commit != got.Commit {
		t.Errorf("published again: %+v, %v; want what was recorded, %s", again, err, got.Commit)
	}
	_, err = h.publish("ci", "1.2.10", digest("a"), artifact.Facts{Quality: artifact.Failed})
	h.must(err)
	// What was found in a registry that no rule watches is nothing.
	before := h.git("--git-dir="+h.remote, "rev-parse", artifact.Branch)
	h.must(h.clerk.Found(context.Background(), []artifact.Sighting{{Repository: "registry.example/web", Version: "1.9.9", Digest: digest("9")}}))
	if after := h.git("--git-dir="+h.remote, "rev-parse", artifact.Branch); after != before {
		t.Errorf("it was recorded in %s", after)
	}
	// A moved tag is refused, and said once.
	h.refuses(reconcile.MovedTag, "ci", "1.2.10", digest("b"))
	h.refuses(reconcile.MovedTag, "ci", "1.2.10", digest("b"))
	h.refuses(reconcile.NotAPublisher, "mallory", "1.2.11", digest("c"))
	// Nobody brings a version to where that one may not write.
	for _, within := range [][]desired.EnvironmentName{{}, {"production"}} {
		_, err = h.clerk.Publish(context.Background(), reconcile.PublishRequest{Principal: reconcile.Principal{Name: "ci"},
			Repository: "registry.example/web", Version: "1.2.11", Digest: digest("c"), Within: within})
		var r *reconcile.Rejection
		if !errors.As(err, &r) || r.Code != reconcile.NotAPublisher || !strings.Contains(r.Message, "it would enter dev, too") {
			t.Errorf("within %v: %v", within, err)
		}
	}
	// Another stage's publisher does not change what is known of it.
	h.refuses(reconcile.NotAPublisher, "releasers", "1.2.10", digest("a"))
	h.refuses(reconcile.NotAPublisher, "releasers", "1.2.10", digest("c"))
	h.refuses(reconcile.NotTracked, "ci", "2.0.0", digest("c"))
	h.refuses(reconcile.NotTracked, "ci", "1.3.0-rc.1", digest("c"))
	h.refuses(reconcile.NotTracked, "ci", "latest", digest("c"))
	h.refuses(reconcile.Invalid, "ci", "1.2.11", "sha256:short")
	h.ends(artifact.Branch, "published(registry.example/web): 1.2.10", "updated(registry.example/web): 1.2.10", "moved(registry.example/web): 1.2.10")

	// What fails is rolled back, and does not come again; what is newer does.
	h.is("dev/web", "1.3.0", reconcile.Failed)
	_, err = h.publish("ci", "1.3.0", digest("d"), artifact.Facts{})
	h.must(err)
	h.ends("main", "track(dev): web 1.2.10 → 1.3.0", "rollback(dev): web 1.3.0 → 1.2.10")
	h.runs("dev", "1.2.10", ledger.StateVerified)
	h.settled()
	h.ends("main", "track(dev): web 1.2.10 → 1.3.0", "rollback(dev): web 1.3.0 → 1.2.10")
	_, err = h.publish("ci", "1.3.1", digest("e"), artifact.Facts{})
	h.must(err)
	h.runs("dev", "1.3.1", ledger.StateVerified)

	// A person's pin of what is newer, or of what the rule can't read, stays.
	h.pin("dev", "1.3.1@"+digest("e"), "1.9.0")
	h.runs("dev", "1.9.0", ledger.StateVerified)
	_, err = h.publish("ci", "1.4.0", digest("f"), artifact.Facts{})
	h.must(err)
	h.settled()
	h.runs("dev", "1.9.0", ledger.StateVerified)
	h.pin("dev", "1.9.0", "my-fix")
	h.runs("dev", "my-fix", ledger.StateVerified)
	_, err = h.publish("ci", "1.9.1", digest("1"), artifact.Facts{})
	h.must(err)
	h.settled()
	h.runs("dev", "my-fix", ledger.StateVerified)
	// Back on a version, the newest comes, but not into a hold.
	h.push("freeze", `
-- holds/inc.yaml --
apiVersion: pinion.dev/v1
kind: Hold
environments: [dev]
reason: INC-1
owner: dana
`)
	h.pin("dev", "my-fix", "1.4.0")
	h.until("1.9.1 is offered", func() string {
		r, err := h.record("dev", "web")
		if err != nil || r.Candidate == nil || r.Candidate.Release.Version() != "1.9.1" {
			return fmt.Sprintf("it is %+v, %v", r.Candidate, err)
		}
		return ""
	})
	h.settled()
	h.runs("dev", "1.4.0", ledger.StateVerified)
	h.change("thaw", func() { h.git("rm", "-q", "holds/inc.yaml") })
	h.runs("dev", "1.9.1", ledger.StateVerified)
	h.runs("production", "1.9.1", ledger.StateVerified)

	// Each stage takes what its own publishers say.
	h.runs("canary", "1.2.9", ledger.StateVerified)
	_, err = h.clerk.Publish(context.Background(), reconcile.PublishRequest{
		Principal: reconcile.Principal{Name: "erin", Groups: []string{"staff", "releasers"}}, Repository: "registry.example/web", Version: "1.9.2", Digest: digest("2"),
		Within: []desired.EnvironmentName{"canary"},
	})
	h.must(err)
	h.runs("canary", "1.9.2", ledger.StateVerified)
	h.settled()
	h.runs("dev", "1.9.1", ledger.StateVerified)
	if file := h.git("--git-dir="+h.remote, "show", artifact.Branch+":"+artifact.File("registry.example/web", "1.9.2")); !strings.Contains(file, "as:\n- releasers\n") || strings.Contains(file, "staff") {
		t.Errorf("it is recorded as\n%s", file)
	}
	h.sound()
}
