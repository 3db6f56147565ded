package main

import (
	"context"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Nothing of a suspended environment or service is written, whatever happens,
// and all that was missed is made up for when that ends.
func TestSuspended(t *testing.T) {
	t.Parallel()
	w := newWorld(t, environment("dev", "NAMESPACE", "app", "other")+greeting+
		"-- services/other/other.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\ndata: {a: b}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: going}\n")
	data := t.TempDir()
	d := w.daemon(data)
	d.line(0, "[2/2 done]")

	w.edit("environments/dev.yaml", "pins:", "suspend: {reason: the database moves}\npins:")
	from := d.mark()
	w.push("suspend", "")
	d.line(from, "environment dev is suspended: the database moves")
	w.edit("services/app/app.yaml", "hello", "goodbye")
	w.push("change", "-- services/other/other.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\ndata: {a: b}\n")
	d.line(from, "suspended dev/app", "the database moves", "differs from the commit")
	w.must(w.kube.CoreV1().ConfigMaps(w.namespace).Delete(w.Context(), "other", metav1.DeleteOptions{}))
	d.line(from, "suspended dev/other", "is not there")

	stdout, _, code := w.pinion("apply", "dev")
	if code != exitRefused || !strings.Contains(stdout, "the database moves") {
		t.Errorf("apply ends with %d: %s", code, stdout)
	}
	stdout, _, _ = w.pinion("status", "dev", "--live")
	if !strings.Contains(stdout, "the database moves") || !strings.Contains(stdout, "suspended") {
		t.Errorf("status --live does not say it: %s", stdout)
	}
	// After a restart, too.
	d.stop()
	d = w.daemon(data)
	d.line(0, "suspended dev/app", "the database moves", "differs from the commit")
	d.line(0, "suspended dev/other", "is not there")
	w.hasData("app", "greeting", "hello")
	if w.here(t.Context(), configMaps, "other") || !w.here(t.Context(), configMaps, "going") {
		t.Error("something was written while the environment was suspended")
	}
	if got := d.metric("pinion_kubernetes_requests_total", `verb="apply"`) + d.metric("pinion_kubernetes_requests_total", `verb="delete"`) + d.metric("pinion_kubernetes_requests_total", `verb="create"`); got != 0 {
		t.Errorf("%v requests that write", got)
	}

	// From the environment to one service.
	w.edit("environments/dev.yaml", "suspend: {reason: the database moves}\n", "")
	w.edit("services/app/service.yaml", "kind: Service", "kind: Service\nsuspend: {reason: INC-431}")
	w.push("resume", "")
	w.appears(configMaps, "other")
	w.goes(configMaps, "going")
	d.line(0, "service app is suspended: INC-431")
	w.hasData("app", "greeting", "hello")
	w.until("why says it", func(context.Context) string {
		w.git("fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*")
		stdout, stderr, _ := w.pinion("why", "dev", "app")
		if !strings.Contains(stdout, "nothing is written there: service app is suspended: INC-431") {
			return stdout + stderr
		}
		return ""
	})
	w.edit("services/app/service.yaml", "\nsuspend: {reason: INC-431}", "")
	w.push("resume", "")
	w.hasData("app", "greeting", "goodbye")
}
