package main

import (
	"encoding/json"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// row is a service as status and apply print it with -o json.
type row struct {
	Environment, Service, Version, Commit, State, Message, Since string
}

func TestApply(t *testing.T) {
	t.Parallel()
	w := newWorld(t, strings.NewReplacer("timeout: 60s", "timeout: 2s", "behavior-0.0.0-broken: image-pull-error", "behavior-2.0.0: never-ready").Replace(twoServices))
	first := w.git("rev-parse", "HEAD")
	// One service first; what it needs is not waited for.
	stdout, stderr, code := w.pinion("apply", "dev", "api", "-o", "json")
	var got []row
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != exitOK || len(got) != 1 || got[0].State != "ready" || got[0].Commit != first || got[0].Version != "1.0.0" {
		t.Fatalf("apply of one service ends with %d: %v\n%s%s", code, err, stdout, stderr)
	}
	if x, _ := w.deployment(t.Context(), "web"); x != nil {
		t.Error("a service was applied that was not asked for")
	}
	if stdout, stderr, code = w.pinion("apply", "dev"); code != exitOK || !strings.Contains(stdout, "web") || !strings.Contains(stderr, "[2/2 done]") {
		t.Fatalf("apply ends with %d:\n%s%s", code, stdout, stderr)
	}
	if strings.Contains(stderr, "applied dev/api") {
		t.Errorf("what is in sync was applied again:\n%s", stderr)
	}
	w.comesFrom("web", first)

	// The rollout fails.
	w.replace("environments/dev.yaml", "api:1.0.0", "api:2.0.0")
	stdout, stderr, code = w.pinion("apply", "dev", "-o", "yaml")
	got = nil
	if err := yaml.Unmarshal([]byte(stdout), &got); err != nil || code != exitDifferent || len(got) != 2 || got[0].State != "failed" || !strings.Contains(got[0].Message, "rollout") || got[1].State != "ready" {
		t.Errorf("apply of what does not roll out ends with %d: %v\n%s%s", code, err, stdout, stderr)
	}
	// The time for the whole pass is up before that of the rollout.
	w.replace("services/api/service.yaml", "timeout: 2s", "timeout: 60s")
	stdout, stderr, code = w.pinion("apply", "dev", "--timeout", "3s")
	if code != exitTimeout || !strings.Contains(stdout, "progressing") || !strings.Contains(stderr, "after 3s") {
		t.Errorf("apply ends with %d:\n%s%s", code, stdout, stderr)
	}
	// Back to the first commit, by its name.
	if stdout, stderr, code = w.pinion("apply", "dev", "--rev", first); code != exitOK {
		t.Errorf("apply of the first commit ends with %d:\n%s%s", code, stdout, stderr)
	}
	w.comesFrom("api", first)
	if _, stderr, code = w.pinion("apply", "prod"); code != exitFailed || !strings.Contains(stderr, "environment prod: not found") {
		t.Errorf("apply of an unknown environment ends with %d: %s", code, stderr)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t, twoServices)
	stdout, _, code := w.pinion("status", "--live")
	if code != exitDifferent || !strings.Contains(stdout, "is not there") {
		t.Errorf("status of what is not applied ends with %d:\n%s", code, stdout)
	}
	d := w.daemon(t.TempDir())
	d.line(0, "[2/2 done]")
	stdout, _, code = w.pinion("status", "--live", "dev", "-o", "json")
	var got []row
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != exitOK || len(got) != 2 || got[0].State != "ready" || got[0].Commit != w.git("rev-parse", "HEAD") || !strings.HasSuffix(got[0].Since, "Z") {
		t.Errorf("status ends with %d: %v\n%s", code, err, stdout)
	}
	stdout, _, code = w.pinion("status", "--live", "dev", "web")
	if lines := strings.Split(strings.TrimSpace(stdout), "\n"); code != exitOK || len(lines) != 2 || strings.Join(strings.Fields(lines[1])[:4], " ") != "dev web 1.0.0 ready" {
		t.Errorf("status of a service ends with %d:\n%s", code, stdout)
	}
	w.write("-- environments/dev.yaml --\napiVersion: pinion.dev/v1\n")
	w.git("commit", "-q", "-am", "break")
	if _, stderr, code := w.pinion("status", "--live"); code != exitDifferent || !strings.Contains(stderr, "environments/dev.yaml:1") {
		t.Errorf("status of a broken environment ends with %d: %s", code, stderr)
	}
}

func TestDiffLive(t *testing.T) {
	t.Parallel()
	w := newWorld(t, strings.Replace(twoServices, "data: {greeting: hello}", `data: {greeting: hello}
---
apiVersion: v1
kind: Secret
metadata: {name: api}
stringData: {password: first-password}
-- services/api/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
rollout: {timeout: 60s}
secrets: {plaintext: allow}`, 1))
	stdout, stderr, code := w.pinion("diff", "dev")
	if code != exitDifferent || !strings.Contains(stdout, "+ Deployment.apps "+w.namespace+"/web") || strings.Contains(stdout, "password") && strings.Contains(stdout, "first") {
		t.Errorf("diff of what is not there ends with %d:\n%s%s", code, stdout, stderr)
	}
	if w.here(t.Context(), namespaces, "/"+w.namespace) {
		t.Error("diff has made the namespace")
	}
	d := w.daemon(t.TempDir())
	d.line(0, "[2/2 done]")
	d.stop()
	if stdout, stderr, code = w.pinion("diff", "dev"); code != exitOK || stdout != "" || !strings.Contains(stderr, "no differences") {
		t.Errorf("diff of what is in sync ends with %d:\n%s%s", code, stdout, stderr)
	}
	// What lies in the working tree counts, committed or not.
	w.edit("environments/dev.yaml", "web:1.0.0", "web:1.1.0")
	w.edit("services/api/api.yaml", "first-password", "second-password")
	w.edit("services/api/api.yaml", "kind: ConfigMap\nmetadata: {name: api}", "kind: ConfigMap\nmetadata: {name: renamed}")
	stdout, stderr, code = w.pinion("diff", "dev")
	for _, want := range []string{
		"~ Deployment.apps " + w.namespace + "/web", "containers[name=main].image", "- registry.example/web:1.0.0", "+ registry.example/web:1.1.0",
		"~ Secret " + w.namespace + "/api", "+ ConfigMap " + w.namespace + "/renamed", "- ConfigMap " + w.namespace + "/api (service api no longer renders it)",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("diff does not show %q", want)
		}
	}
	for _, secret := range []string{"first-password", "second-password", "c2Vjb25kLXBhc3N3b3Jk", "Zmlyc3QtcGFzc3dvcmQ"} {
		if strings.Contains(stdout+stderr, secret) {
			t.Errorf("diff shows the secret %s", secret)
		}
	}
	if code != exitDifferent || t.Failed() {
		t.Errorf("diff ends with %d:\n%s%s", code, stdout, stderr)
	}
	var changes []struct{ Service, Change string }
	stdout, _, code = w.pinion("diff", "dev", "api", "-o", "json")
	if err := json.Unmarshal([]byte(stdout), &changes); err != nil || code != exitDifferent || len(changes) != 3 {
		t.Errorf("diff of a service ends with %d: %v\n%s", code, err, stdout)
	}
}
