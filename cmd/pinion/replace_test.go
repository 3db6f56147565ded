package main

import (
	"context"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

var (
	deployments  = resource{Group: "apps", Version: "v1", Resource: "deployments"}
	statefulSets = resource{Group: "apps", Version: "v1", Resource: "statefulsets"}
	jobs         = resource{Group: "batch", Version: "v1", Resource: "jobs"}
	pods         = resource{Version: "v1", Resource: "pods"}
)

// uid returns what tells an object from another one of its name; "" if there
// is none.
func (w *world) uid(ctx context.Context, r resource, name string) types.UID {
	w.Helper()
	x, err := w.dynamic.Resource(schema.GroupVersionResource(r)).Namespace(w.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return ""
	}
	return x.GetUID()
}

// renewed waits until an object is another one than that of before.
func (w *world) renewed(r resource, name string, before types.UID) {
	w.Helper()
	w.until(r.Resource+" "+name+" is made anew", func(ctx context.Context) string {
		if now := w.uid(ctx, r, name); now == "" || now == before {
			return "it has the UID " + string(now)
		}
		return ""
	})
}

const workloads = `
-- services/app/app.yaml --
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, tier: web}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, image: web}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: seed}
spec:
  template: {spec: {restartPolicy: Never, containers: [{name: main, image: seed, args: [one]}]}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: beside}
data: {greeting: hello}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 1
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, image: db, volumeMounts: [{name: data, mountPath: /data}]}]}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
`

func TestReplace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, environment("dev", "NAMESPACE", "app")+workloads)
	d := w.daemon(t.TempDir())
	w.appears(deployments, "web")
	w.appears(pods, "db-0")
	w.appears(jobs, "seed")
	w.appears(configMaps, "beside")
	before := map[string]types.UID{}
	for name, r := range map[string]resource{"web": deployments, "seed": jobs, "db": statefulSets, "db-0": pods, "data-db-0": claims} {
		before[name] = w.uid(t.Context(), r, name)
	}

	// Without anybody's word, nothing of the service is applied.
	from := d.mark()
	w.edit("services/app/app.yaml", "hello", "goodbye")
	w.edit("services/app/app.yaml", "matchLabels: {app: web}", "matchLabels: {tier: web}")
	w.edit("services/app/app.yaml", "args: [one]", "args: [two]")
	w.edit("services/app/app.yaml", "storage: 1Mi", "storage: 2Mi")
	w.push("what can't be changed", "")
	d.line(from, "failed dev/app", "Deployment.apps "+w.namespace+"/web", "spec.selector")
	d.line(from, "a Job runs once: put the version into its name")
	d.line(from, "StatefulSet.apps "+w.namespace+"/db: spec.volumeClaimTemplates[0].spec.resources.requests.storage")
	w.hasData("beside", "greeting", "hello")
	stdout, _, code := w.pinion("diff", "dev")
	if code != exitDifferent || !strings.Contains(stdout, "apply refuses it") || strings.Contains(stdout, "±") {
		t.Errorf("diff ends with %d: %s", code, stdout)
	}

	// The claim alone says no, whatever the service says.
	w.edit("services/app/service.yaml", "kind: Service", "kind: Service\nreplace: allow")
	stdout, stderr, code := w.pinion("diff", "dev")
	if code != exitDifferent || strings.Count(stdout, "± ") != 3 || !strings.Contains(stdout, "its pods and their volumes stay") {
		t.Errorf("diff ends with %d: %s%s", code, stdout, stderr)
	}
	from = d.mark()
	w.push("allow it", "")
	w.renewed(deployments, "web", before["web"])
	w.renewed(jobs, "seed", before["seed"])
	w.renewed(statefulSets, "db", before["db"])
	w.hasData("beside", "greeting", "goodbye")
	d.line(from, "applied dev/app", "replaced StatefulSet.apps", "replaced Deployment.apps", "replaced Job.batch")
	w.until("the pod belongs to the new set", func(ctx context.Context) string {
		pod, err := w.kube.CoreV1().Pods(w.namespace).Get(ctx, "db-0", metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		if len(pod.OwnerReferences) == 0 || pod.OwnerReferences[0].UID != w.uid(ctx, statefulSets, "db") {
			return "it does not"
		}
		return ""
	})
	if got := w.uid(t.Context(), claims, "data-db-0"); got != before["data-db-0"] {
		t.Errorf("the claim is another one: %q, was %q", got, before["data-db-0"])
	}
	w.until("the ledger says it", func(context.Context) string {
		w.git("fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*")
		log := w.git("log", "-3", "--format=%B", "origin/ledger/dev")
		if !strings.Contains(log, "Besides: replaced Deployment.apps") {
			return log
		}
		return ""
	})
}

// The daemon dies between the deletion and the creation: the next one makes
// what is missing.
func TestReplaceIsCutShort(t *testing.T) {
	t.Parallel()
	w := newWorld(t, environment("dev", "NAMESPACE", "app")+`
-- services/app/app.yaml --
apiVersion: v1
kind: ConfigMap
metadata: {name: app, annotations: {pinion.dev/replace: allow}}
immutable: true
data: {greeting: hello}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: beside}
data: {greeting: hello}
`)
	data := t.TempDir()
	d := w.daemon(data)
	d.line(0, "[1/1 done]")
	before := w.uid(t.Context(), configMaps, "app")
	w.patch(configMaps, "app", `{"metadata":{"finalizers":["test.example/hold"]}}`)
	from := d.mark()
	w.edit("services/app/app.yaml", "hello", "goodbye")
	w.push("change", "")
	w.goes(configMaps, "app")
	// It holds up nothing else, and it is said what it waits for.
	w.hasData("beside", "greeting", "goodbye")
	w.until("status says it", func(context.Context) string {
		stdout, _, _ := w.pinion("status", "dev", "--live")
		if !strings.Contains(stdout, "is being deleted since") || !strings.Contains(stdout, "the finalizer test.example/hold") {
			return stdout
		}
		return ""
	})
	d.never(from, "failed dev/app")
	d.kill()
	w.patch(configMaps, "app", `{"metadata":{"finalizers":null}}`)
	w.until("it is gone", func(ctx context.Context) string { return string(w.uid(ctx, configMaps, "app")) })
	d = w.daemon(data)
	w.renewed(configMaps, "app", before)
	w.hasData("app", "greeting", "goodbye")
	d.line(0, "[1/1 done] ready dev/app")
}
