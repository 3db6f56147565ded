package main

import (
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pinion-cd/pinion/reconcile/cluster"
)

// Somebody has a check made once more: its Job runs a second time, beside the
// first, and it is the second that the verification rests on.
func TestCheckIsMadeOnceMore(t *testing.T) {
	w := newWorld(t, strings.Replace(story, "verify: [smoke]", "verify: [smoke, e2e]", 1))
	d := w.daemon(t.TempDir(), "--config", configured(t, ""))
	w.recorded("dev", "completed(dev): web 1.0.0", "check(dev): web 1.0.0, smoke passed")
	jobs := func() map[string]batchv1.Job { // by run
		t.Helper()
		list, err := w.kube.BatchV1().Jobs(w.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: cluster.LabelCheck + "=smoke"})
		w.must(err)
		all := map[string]batchv1.Job{}
		for _, j := range list.Items {
			all[j.Labels[cluster.LabelCheckRun]] = j
		}
		return all
	}
	first := jobs()["0"]
	if first.UID == types.UID("") || len(jobs()) != 1 {
		t.Fatalf("there are %d Jobs, and that of the first run is %q", len(jobs()), first.Name)
	}
	stdout, stderr, code := d.as("ci", "report", "dev", "web", "smoke", "--version", "1.0.0", "--rerun")
	if code != 0 || !strings.Contains(stdout+stderr, "once more") {
		t.Fatalf("report --rerun ends with %d: %s%s", code, stdout, stderr)
	}
	w.recorded("dev", "check(dev): web 1.0.0, smoke passed", "rerun(dev): web 1.0.0, smoke once more", "check(dev): web 1.0.0, smoke passed")
	all := jobs()
	second := all["1"]
	if len(all) != 2 || second.UID == types.UID("") || second.Status.Succeeded != 1 || all["0"].UID != first.UID {
		t.Errorf("there are %d Jobs; that of the second run is %q, with %d pods that succeeded", len(all), second.Name, second.Status.Succeeded)
	}
	// Nobody reports a result of what the daemon finds out itself.
	if _, stderr, code := d.as("ci", "report", "dev", "web", "smoke", "success", "--version", "1.0.0", "--rerun"); code == 0 {
		t.Errorf("a result was reported of a Job: %s", stderr)
	}
	if _, stderr, code := d.as("ci", "report", "dev", "web", "e2e", "success", "--version", "1.0.0"); code != 0 {
		t.Fatalf("report: %d\n%s", code, stderr)
	}
	w.recorded("dev", "check(dev): web 1.0.0, e2e passed", "verified(dev): web 1.0.0")
	if _, _, code := d.as("ci", "report", "dev", "web", "smoke", "--version", "1.0.0", "--rerun"); code == 0 {
		t.Error("the check of what is verified was taken back")
	}
	if n := len(jobs()); n != 2 {
		t.Errorf("there are %d Jobs", n)
	}
	d.stop()
	w.git("fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*")
	if out, errs, code := w.pinion("audit"); code != 0 {
		t.Errorf("audit ends with %d: %s%s", code, out, errs)
	}
}
