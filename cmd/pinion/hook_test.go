package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// hookJobs returns the Jobs that ran hooks, by when they were made.
func (w *world) hookJobs(ctx context.Context) []batchv1.Job {
	w.Helper()
	list, err := w.kube.BatchV1().Jobs(w.namespace).List(ctx, metav1.ListOptions{LabelSelector: "pinion.dev/hook"})
	w.must(err)
	slices.SortFunc(list.Items, func(a, b batchv1.Job) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	return list.Items
}

// hookNamed waits until a hook has a Job other than some, and returns it.
func (w *world) hookNamed(name string, but ...string) batchv1.Job {
	w.Helper()
	var found batchv1.Job
	w.until("the hook "+name+" runs", func(ctx context.Context) string {
		for _, j := range w.hookJobs(ctx) {
			if strings.HasPrefix(j.Name, name+"-") && !slices.Contains(but, string(j.UID)) {
				found = j
				return ""
			}
		}
		return "it has no Job"
	})
	return found
}

const hooked = `
-- services/app/app.yaml --
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {greeting: hello}
---
apiVersion: batch/v1
kind: Job
metadata: {name: migrate, annotations: {pinion.dev/hook: before}}
spec:
  ttlSecondsAfterFinished: 0
  template:
    metadata: {annotations: {devcluster.pinion.dev/behavior: "BEFORE"}}
    spec: {restartPolicy: Never, containers: [{name: main, image: app, envFrom: [{configMapRef: {name: settings}}]}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: warm, annotations: {pinion.dev/hook: after}}
spec:
  template:
    metadata: {annotations: {devcluster.pinion.dev/behavior: "AFTER"}}
    spec: {restartPolicy: Never, containers: [{name: main, image: app}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, image: app}]}
`

func hooksThat(before, after string) string {
	return strings.NewReplacer("BEFORE", before, "AFTER", after).Replace(hooked)
}

// Hooks run once for each deployment, before and after the rest, and not for a
// drift or a restart.
func TestHooks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, environment("dev", "NAMESPACE", "app")+hooksThat("never-ready", "never-ready"))
	data := t.TempDir()
	d := w.daemon(data)
	migrate := w.hookNamed("migrate")
	w.stays(configMaps, "settings")
	d.line(0, "hook migrate (before)")
	if w.here(t.Context(), deployments, "web") {
		t.Error("the Deployment was applied before the hook has completed")
	}
	if got := migrate.Labels["pinion.dev/service"]; got != "" || migrate.Spec.TTLSecondsAfterFinished != nil {
		t.Errorf("the hook's Job is labelled %v, TTL %v", migrate.Labels, migrate.Spec.TTLSecondsAfterFinished)
	}
	// A crash in the middle of it: the same Job is waited for.
	d.kill()
	d = w.daemon(data)
	d.line(0, "hook migrate (before)")
	w.finishJob(migrate.Name)
	w.appears(deployments, "web")
	warm := w.hookNamed("warm")
	w.never(func() string {
		if log := w.ledgerLog("dev"); strings.Contains(log, "completed(dev)") {
			return log
		}
		return ""
	})
	d.stop()
	d = w.daemon(data)
	d.line(0, "hook warm (after)")
	w.finishJob(warm.Name)
	d.line(0, "[1/1 done] ready dev/app")
	w.until("it is verified", func(context.Context) string {
		if log := w.ledgerLog("dev"); !strings.Contains(log, "verified(dev)") {
			return log
		}
		return ""
	})

	// Drift is corrected without them, also after a restart, and also if somebody
	// has removed the Jobs.
	background := metav1.DeletePropagationBackground
	for _, j := range []string{migrate.Name, warm.Name} {
		w.must(w.kube.BatchV1().Jobs(w.namespace).Delete(t.Context(), j, metav1.DeleteOptions{PropagationPolicy: &background}))
	}
	d.stop()
	uid := w.uid(t.Context(), deployments, "web")
	w.must(w.kube.AppsV1().Deployments(w.namespace).Delete(t.Context(), "web", metav1.DeleteOptions{PropagationPolicy: &background}))
	d = w.daemon(data)
	w.renewed(deployments, "web", uid)
	d.line(0, "[1/1 done] ready dev/app")
	w.patch(configMaps, "settings", `{"data":{"greeting":"changed"}}`)
	w.hasData("settings", "greeting", "hello")
	d.stop()
	d = w.daemon(data)
	d.line(0, "[1/1 done] ready dev/app")
	if left := w.hookJobs(t.Context()); len(left) > 0 {
		t.Errorf("hooks were run again: %s", left[0].Name)
	}

	// Another deployment runs its own, and the old ones go.
	w.replace("environments/dev.yaml", "app:1.0.0", "app:1.1.0")
	again := w.hookNamed("migrate", string(migrate.UID))
	w.finishJob(again.Name)
	w.finishJob(w.hookNamed("warm", string(warm.UID)).Name)
	w.runs("web", "registry.example/app:1.1.0")
	d.line(0, "verified(dev): app 1.0.0 → 1.1.0")
	w.replace("environments/dev.yaml", "app:1.1.0", "app:1.2.0")
	third := w.hookNamed("migrate", string(migrate.UID), string(again.UID))
	if all := w.hookJobs(t.Context()); len(all) != 1 || all[0].UID != third.UID {
		t.Errorf("there are %d hook Jobs", len(all))
	}

	// They go with the service, the one that still runs, too.
	w.replace("environments/dev.yaml", "pins:\n  app:\n    image: registry.example/app:1.2.0\n", "pins: {}\n")
	w.goes(deployments, "web")
	w.until("the hooks are gone", func(ctx context.Context) string {
		if left := w.hookJobs(ctx); len(left) > 0 {
			return left[0].Name
		}
		return ""
	})
}

// A hook that fails fails the deployment, with what it wrote, and is not tried
// again.
func TestHookFails(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, before, after, failed string }{
		{"before", "fail", "run", "he hook migrate (before) failed"},
		{"after", "run", "fail", "he hook warm (after) failed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, environment("dev", "NAMESPACE", "app")+hooksThat(test.before, test.after))
			data := t.TempDir()
			d := w.daemon(data)
			d.line(0, "failed dev/app", test.failed)
			w.until("the ledger says why", func(context.Context) string {
				log := w.ledgerLog("dev")
				if !strings.Contains(log, "failed(dev): app 1.0.0") || !strings.Contains(log, test.failed) || !strings.Contains(log, "    ") {
					return log
				}
				return ""
			})
			if test.name == "before" && w.here(t.Context(), deployments, "web") {
				t.Error("the rest was applied all the same")
			}
			jobs := fmt.Sprint(len(w.hookJobs(t.Context())))
			d.stop()
			d = w.daemon(data)
			d.line(0, "failed dev/app", test.failed)
			if now := fmt.Sprint(len(w.hookJobs(t.Context()))); now != jobs {
				t.Errorf("there were %s hook Jobs, and are %s", jobs, now)
			}
		})
	}
}

func (w *world) ledgerLog(env string) string {
	w.Helper()
	w.git("fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*")
	if w.git("ls-remote", "origin", "ledger/"+env) == "" {
		return "there is no ledger"
	}
	return w.git("log", "--format=%B", "origin/ledger/"+env)
}

// never checks a condition that must not come about, for as long as the daemon
// would need to bring it about.
func (w *world) never(f func() string) {
	w.Helper()
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		if why := f(); why != "" {
			w.Fatal(why)
		}
	}
}

// finishJob has the pod of a Job that hangs succeed.
func (w *world) finishJob(name string) {
	w.Helper()
	w.until("the Job "+name+" completes", func(ctx context.Context) string {
		list, err := w.kube.CoreV1().Pods(w.namespace).List(ctx, metav1.ListOptions{LabelSelector: "job-name=" + name})
		w.must(err)
		for _, p := range list.Items {
			w.kube.CoreV1().Pods(w.namespace).Patch(ctx, p.Name, types.MergePatchType,
				[]byte(`{"metadata":{"annotations":{"devcluster.pinion.dev/behavior":"run"}}}`), metav1.PatchOptions{})
		}
		job, err := w.kube.BatchV1().Jobs(w.namespace).Get(ctx, name, metav1.GetOptions{})
		w.must(err)
		if job.Status.Succeeded == 0 {
			return fmt.Sprintf("%d pods, %+v", len(list.Items), job.Status)
		}
		return ""
	})
}

// A Job that has completed and removed itself runs once, whoever looks.
func TestJobThatRemovedItselfStaysOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, environment("dev", "NAMESPACE", "app")+`
-- services/app/app.yaml --
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  ttlSecondsAfterFinished: 3
  template: {spec: {restartPolicy: Never, containers: [{name: main, image: app}]}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: beside}
`)
	data := t.TempDir()
	d := w.daemon(data)
	d.line(0, "[1/1 done] ready dev/app")
	w.until("it is gone", func(ctx context.Context) string { return string(w.uid(ctx, jobs, "once")) })
	w.until("it is written down", func(ctx context.Context) string {
		return map[bool]string{false: "it is not"}[strings.Contains(w.configMap("pinion-dev").Data["done"], w.namespace+"/once sha256:")]
	})
	d.stop()
	d = w.daemon(data)
	d.line(0, "[1/1 done] ready dev/app")
	if stdout, stderr, code := w.pinion("apply", "dev"); code != 0 {
		t.Errorf("apply ends with %d: %s%s", code, stdout, stderr)
	}
	if got := d.metric("pinion_kubernetes_requests_total", `verb="apply"`); got != 0 || w.uid(t.Context(), jobs, "once") != "" {
		t.Errorf("it was run again: %v applies", got)
	}
}
