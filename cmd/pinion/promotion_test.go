package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pinion-cd/pinion/desired"
)

// story is a service on its way through three environments, with one gate of
// each kind that needs no other server.
const story = `
-- environments/dev.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: NAMESPACE
pins:
  web:
    image: registry.example/web:1.0.0
-- environments/staging.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: NAMESPACE-staging
pins:
  web:
    image: registry.example/web:1.0.0
-- environments/production.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: NAMESPACE-production
pins:
  web:
    image: registry.example/web:1.0.0
-- services/web/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
rollout: {timeout: 60s}
-- services/web/web.yaml --
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: web}]
-- pipelines/default.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: ["*"]
stages:
- environment: dev
  verify: [smoke]
  onFailure: rollback
- environment: staging
  verify: [e2e, soak]
- environment: production
  admit: [release]
-- policies/smoke.yaml --
apiVersion: pinion.dev/v1
kind: Policy
job: {manifest: jobs/smoke.yaml}
timeout: 60s
-- policies/jobs/smoke.yaml --
apiVersion: batch/v1
kind: Job
metadata: {name: smoke}
spec:
  template:
    metadata:
      annotations:
        devcluster.pinion.dev/behavior-1.2.0: fail
        devcluster.pinion.dev/logs-1.2.0: "GET /health: 500"
    spec:
      restartPolicy: Never
      containers: [{name: smoke, image: web}]
-- policies/soak.yaml --
apiVersion: pinion.dev/v1
kind: Policy
soak: 2s
-- policies/e2e.yaml --
apiVersion: pinion.dev/v1
kind: Policy
report: {by: [ci]}
-- policies/release.yaml --
apiVersion: pinion.dev/v1
kind: Policy
approval: {groups: [release-managers]}
`

// configured returns the path of a configuration with a token for each of the
// principals; the token is the principal's name and "-token".
func configured(t *testing.T, more string) string {
	t.Helper()
	token := func(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s+"-token"))) }
	path := filepath.Join(t.TempDir(), "config.yaml")
	text := `apiVersion: pinion.dev/v1
kind: Config
` + more + `
tokens:
- {principal: ci, sha256: ` + token("ci") + `}
- {principal: alice, email: alice@shop.example, groups: [release-managers], sha256: ` + token("alice") + `}
- {principal: dana, email: dana@shop.example, groups: [release-managers], sha256: ` + token("dana") + `}
- {principal: mallory, sha256: ` + token("mallory") + `}
- {principal: kim, email: kim@shop.example, scopes: [admin], sha256: ` + token("kim") + `}
- {principal: devs, scopes: [pin, hold], environments: [dev], sha256: ` + token("devs") + `}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// as runs a command that asks the daemon, as a principal.
func (d *daemon) as(principal string, args ...string) (stdout, stderr string, code int) {
	d.Helper()
	d.Setenv("PINION_TOKEN", principal+"-token")
	d.Setenv("PINION_SERVER", "http://"+d.address)
	return d.pinion(args...)
}

func TestStory(t *testing.T) {
	w := newWorld(t, story)
	news := newBoard(t)
	traces := collectSpans(t)
	w.env = append(w.env, "OTEL_EXPORTER_OTLP_ENDPOINT="+traces.url)
	d := w.daemon(t.TempDir(), "--config", configured(t, "sinks: {board: {url: "+news.URL+"}}\n"+serviceAccountsRead))
	w.recorded("production", "pinned(production): web 1.0.0", "started", "completed", "verified(production): web 1.0.0")
	w.recorded("staging", "completed(staging): web 1.0.0")
	if _, stderr, code := d.as("ci", "report", "staging", "web", "e2e", "success", "--version", "1.0.0"); code != 0 {
		t.Fatalf("report: %d\n%s", code, stderr)
	}
	w.recorded("staging", "check(staging): web 1.0.0, e2e passed", "verified(staging): web 1.0.0")

	w.replace("environments/dev.yaml", "web:1.0.0", "web:1.1.0")
	w.recorded("staging", "pinned(staging): web 1.0.0 → 1.1.0", "started", "completed")
	if _, stderr, code := d.as("ci", "report", "staging", "web", "e2e", "SUCCESS", "--version", "1.1.0"); code != 0 {
		t.Fatalf("report: %d\n%s", code, stderr)
	}
	w.recorded("production", "offered(production): web 1.0.0 → 1.1.0")
	if _, stderr, code := d.as("dana", "approve", "production", "web", "--version", "1.1.0"); code != 4 || !strings.Contains(stderr, "chose") {
		t.Fatalf("Dana approves her own version: %d\n%s", code, stderr)
	}
	if _, stderr, code := d.as("alice", "approve", "production", "web", "--version", "1.1.0"); code != 0 {
		t.Fatalf("approve: %d\n%s", code, stderr)
	}
	w.recorded("production", "pinned(production): web 1.0.0 → 1.1.0", "started", "completed", "verified(production)")
	w.until("production runs 1.1.0", func(ctx context.Context) string {
		return w.image(ctx, w.namespace+"-production", "web", "registry.example/web:1.1.0")
	})

	w.git("pull", "-q", "origin", "main")
	w.replace("environments/dev.yaml", "web:1.1.0", "web:1.2.0")
	w.recorded("dev", "failed(dev): web 1.1.0 → 1.2.0", "pinned(dev): web 1.2.0 → 1.1.0", "started", "completed", "verified(dev): web 1.2.0 → 1.1.0")
	if log := w.git("log", "--format=%B", "origin/ledger/dev"); !strings.Contains(log, "GET /health: 500") {
		t.Errorf("the ledger does not have what the Job wrote:\n%s", log)
	}
	for env, least := range map[string]int{"dev": 9, "staging": 5, "production": 6} {
		news.tells(w, env, least)
	}
	if got := slices.Concat(news.summaries("production", desired.NewsWanted, desired.NewsPromoted), news.summaries("dev", desired.NewsRolledBack)); !slices.Equal(got, []string{
		"approval wanted(production): web 1.1.0, release by release-managers",
		"promoted(production): web 1.0.0 → 1.1.0",
		"rolled back(dev): web 1.2.0 → 1.1.0",
	}) {
		t.Errorf("told besides: %q", got)
	}
	w.until("Kubernetes Events tell what has become of it", func(ctx context.Context) string {
		list, err := w.kube.EventsV1().Events(w.namespace).List(ctx, metav1.ListOptions{FieldSelector: "reportingController=pinion.dev/pinion"})
		if err != nil {
			return err.Error()
		}
		var all []string
		for _, e := range list.Items {
			subject, _, _ := strings.Cut(e.Note, "\n")
			all = append(all, e.Type+" "+e.Reason+" "+e.Regarding.Name+" "+subject)
		}
		for _, want := range []string{
			"Normal Verified pinion-dev verified(dev): web 1.0.0 → 1.1.0",
			"Warning Failed pinion-dev failed(dev): web 1.1.0 → 1.2.0",
		} {
			if !slices.Contains(all, want) {
				return fmt.Sprintf("%q is not among %q", want, all)
			}
		}
		return ""
	})
	if got := d.metric("pinion_news_waiting", `"board"`); got != 0 {
		t.Errorf("%v news wait", got)
	}
	d.apiTellsTheStory()
	d.monitored()
	d.stop()

	for _, want := range []struct {
		environment, version string
		failed               bool
		parts                []string
	}{
		{"dev", "1.1.0", false, []string{"prepare", "apply", "rollout", "check smoke"}},
		{"dev", "1.2.0", true, []string{"prepare", "apply", "rollout", "check smoke"}},
		{"staging", "1.1.0", false, []string{"prepare", "apply", "rollout", "check e2e", "check soak"}},
		{"production", "1.1.0", false, []string{"prepare", "apply", "rollout"}},
	} {
		got := traces.parts(t, want.environment, want.version, want.failed)
		want.parts = append(want.parts, "deploy web to "+want.environment)
		slices.Sort(want.parts)
		if !slices.Equal(got, want.parts) {
			t.Errorf("the trace of %s in %s is %q", want.version, want.environment, got)
		}
	}
}

// image says what is missing until a Deployment runs an image.
func (w *world) image(ctx context.Context, namespace, name, image string) string {
	x, err := w.kube.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case err != nil:
		return err.Error()
	case x.Spec.Template.Spec.Containers[0].Image != image:
		return "it runs " + x.Spec.Template.Spec.Containers[0].Image
	case x.Status.AvailableReplicas == 0:
		return "it is not available"
	}
	return ""
}
