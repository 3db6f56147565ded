package main

import (
	"context"
	"strings"
	"testing"
)

// A rollout that fails by its time says in the ledger, and to who asks, what
// its pod, its log and the events say; the daemon's other services say nothing.
func TestARolloutThatFailsSaysWhy(t *testing.T) {
	const deployment = `apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME}
spec:
  replicas: 1
  selector: {matchLabels: {app: NAME}}
  template:
    metadata:
      labels: {app: NAME}
      annotations: {devcluster.pinion.dev/behavior: BEHAVIOR, devcluster.pinion.dev/logs: "open /etc/app.yaml\n\e[31mpanic: no database\e[0m\nof NAME"}
    spec: {NODES terminationGracePeriodSeconds: 1, containers: [{name: main, image: "registry.example/NAME:1"}]}
`
	manifest := func(name, behavior, nodes string) string {
		return strings.NewReplacer("NAME", name, "BEHAVIOR", behavior, "NODES", nodes).Replace(deployment)
	}
	files := "-- environments/dev.yaml --\napiVersion: pinion.dev/v1\nkind: Environment\nnamespace: NAMESPACE\n"
	for name, m := range map[string]string{
		"crash": manifest("crash", "crash-loop", ""),
		"stuck": manifest("stuck", "run", "nodeSelector: {nowhere: here},"),
		"fine":  manifest("fine", "run", ""),
	} {
		files += "-- services/" + name + "/service.yaml --\napiVersion: pinion.dev/v1\nkind: Service\nartifacts: []\nrollout: {timeout: 6s}\n-- services/" + name + "/app.yaml --\n" + m
	}
	w := newWorld(t, files)
	d := w.daemon(t.TempDir())
	entry := func(service string) string {
		w.Helper()
		w.until(service+" has failed", func(context.Context) string {
			for _, subject := range w.entries("dev") {
				if strings.HasPrefix(subject, "failed(dev): "+service) {
					return ""
				}
			}
			return "it has " + strings.Join(w.entries("dev"), "; ")
		})
		return w.git("log", "-1", "--format=%B", "--grep=^failed(dev): "+service, "origin/ledger/dev")
	}
	crash := entry("crash")
	for _, words := range []string{
		"Rollout not complete after 6s: Deployment.apps " + w.namespace + "/crash: ",
		"; pod crash-", "CrashLoopBackOff", "exit code 1", "\n\nNewest warning, of Pod ",
		"\n\nThe last lines of container main of pod crash-", ", before it was started again:\n    open /etc/app.yaml\n    panic: no database\n    of crash\n",
	} {
		if !strings.Contains(crash, words) {
			t.Errorf("the entry does not say %q:\n%s", words, crash)
		}
	}
	stuck := entry("stuck")
	for _, words := range []string{"\n\nNewest warning, of Pod " + w.namespace + "/stuck-", ": FailedScheduling: ", "node"} {
		if !strings.Contains(stuck, words) {
			t.Errorf("the entry does not say %q:\n%s", words, stuck)
		}
	}
	if strings.Contains(crash+stuck, "of fine") || strings.Contains(stuck, "panic") {
		t.Error("the log of a pod that runs fine is in an entry")
	}

	// The commands show it, one line where there is room for one.
	out, _, _ := w.pinion("why", "dev", "crash", "--repo", w.remote)
	for _, words := range []string{"which failed", "\n      panic: no database\n"} {
		if !strings.Contains(out, words) {
			t.Errorf("why does not say %q:\n%s", words, out)
		}
	}
	out, _, _ = w.pinion("status", "dev", "crash", "--repo", w.remote)
	if !strings.Contains(out, "panic: no database") {
		t.Errorf("status says:\n%s", out)
	}
	out, _, _ = w.pinion("status", "--repo", w.remote)
	if strings.Contains(out, "panic") || !strings.Contains(out, "failed") {
		t.Errorf("status of all says:\n%s", out)
	}
	d.stop()
}
