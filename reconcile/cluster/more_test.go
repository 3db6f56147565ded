package cluster_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pinion-cd/pinion/internal/devtest"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

const deployment = `apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME}
spec:
  replicas: 2
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}, annotations: {devcluster.pinion.dev/behavior: BEHAVIOR}}
    spec: {containers: [{name: main, image: "registry.example/app:BEHAVIOR"}]}`

func fill(manifest string, pairs ...string) string {
	return strings.NewReplacer(pairs...).Replace(manifest)
}

// An object that is not healthy says what its newest pods suffer from.
func TestPods(t *testing.T) {
	s := newStand(t, "")
	cases := []struct {
		object string
		words  []string
	}{
		{fill(deployment, "NAME", "crash", "BEHAVIOR", "crash-loop"), []string{"pod crash-", "container main: CrashLoopBackOff", "exit code 1", "and 1 more"}},
		{fill(deployment, "NAME", "pull", "BEHAVIOR", "image-pull-error"), []string{"pod pull-", "ImagePullBackOff", "registry.example/app:image-pull-error"}},
		{fill(deployment, "NAME", "slow", "BEHAVIOR", "never-ready"), []string{"pod slow-", "running, but ContainersNotReady"}},
		{fill(deployment, "NAME", "big", "BEHAVIOR", "run", "containers: [{", "containers: [{resources: {requests: {cpu: 100000}}, "), []string{"pod big-", "Unschedulable", "cpu"}},
		{fill(deployment, "NAME", "set", "BEHAVIOR", "crash-loop", "kind: Deployment", "kind: StatefulSet", "spec:\n  replicas", "spec:\n  serviceName: set\n  replicas"), []string{"pod set-0", "CrashLoopBackOff"}},
		{fill(deployment, "NAME", "all", "BEHAVIOR", "crash-loop", "kind: Deployment", "kind: DaemonSet", "  replicas: 2\n", ""), []string{"pod all-", "CrashLoopBackOff"}},
		{"apiVersion: batch/v1\nkind: Job\nmetadata: {name: once}\nspec: {backoffLimit: 0, template: {metadata: {annotations: {devcluster.pinion.dev/behavior: fail}}, spec: {restartPolicy: Never, containers: [{name: main, image: a}]}}}", []string{"pod once-", "container main", "exit code 1"}},
	}
	var objects []render.Object
	for _, c := range cases {
		objects = append(objects, s.object(c.object))
	}
	s.apply(objects...)
	for i, c := range cases {
		s.until(s.c, func() string {
			have, _ := s.look(s.c, objects[i])
			for _, w := range c.words {
				if have.Health.Status == cluster.Current || !strings.Contains(have.Health.Reason, w) {
					return fmt.Sprintf("%s: %+v does not say %q", objects[i].Ref, have.Health, w)
				}
			}
			return ""
		})
	}
	if have := s.c.Observe(s.scope).Objects[objects[0].Ref]; have.Health.Reason == "" {
		t.Error("Observe has no reason")
	}
	// The pods of an older generation don't matter.
	good := s.object(fill(deployment, "NAME", "crash", "BEHAVIOR", "never-ready"))
	s.apply(good)
	s.until(s.c, func() string {
		have, _ := s.look(s.c, good)
		if strings.Contains(have.Health.Reason, "CrashLoop") || !strings.Contains(have.Health.Reason, "running, but") {
			return have.Health.Reason
		}
		return ""
	})
	healed := s.object(fill(deployment, "NAME", "crash", "BEHAVIOR", "run"))
	s.apply(healed)
	s.untilHealthy(s.c, healed)
	if have, _ := s.look(s.c, healed); have.Health.Reason != "" {
		t.Errorf("%+v", have.Health)
	}
}

func TestDiff(t *testing.T) {
	s := newStand(t, "")
	web := fill(deployment, "NAME", "web", "BEHAVIOR", "run")
	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {password: PASSWORD, same: equal}"
	d, err := s.c.Diff(s.ctx, s.object(web))
	if err != nil || d.Exists || len(d.Changes) != 0 || !strings.Contains(string(d.Merged), "replicas: 2") {
		t.Fatalf("%+v %v", d, err)
	}
	if d, err = s.c.Diff(s.ctx, s.object(fill(secret, "PASSWORD", "hunter1"))); err != nil || d.Exists || strings.Contains(string(d.Merged), "aHVud") || strings.Contains(string(d.Merged), "hunter1") {
		t.Errorf("%s %v", d.Merged, err)
	}
	if d, err = s.c.Diff(s.ctx, s.object(fill(web, "metadata: {name: web}", "metadata: {name: web, namespace: not-yet-there}"))); err != nil || d.Exists {
		t.Errorf("in a namespace that comes with it: %+v %v", d, err)
	}
	s.apply(s.object(web), s.object(fill(secret, "PASSWORD", "hunter1")))
	// The defaults and what others set are no differences.
	s.edit(s.admins("apps", "v1", "deployments"), "web", `{"metadata":{"annotations":{"a":"b"}}}`)
	if d, err = s.c.Diff(s.ctx, s.object(web)); err != nil || !d.Exists || d.Adopts || len(d.Changes) != 0 {
		t.Errorf("no difference: %+v %v", d, err)
	}
	d, err = s.c.Diff(s.ctx, s.object(fill(web, "replicas: 2", "replicas: 3", "app:run", "app:2")))
	want := `[{.spec.replicas 2 3} {.spec.template.spec.containers[name=main].image registry.example/app:run registry.example/app:2}]`
	if err != nil || fmt.Sprint(d.Changes) != want {
		t.Errorf("%v %v", d.Changes, err)
	}
	d, err = s.c.Diff(s.ctx, s.object(fill(secret, "PASSWORD", "hunter2")))
	if err != nil || fmt.Sprint(d.Changes) != `[{.data.password *** (before) *** (after)}]` {
		t.Errorf("%v %v", d.Changes, err)
	}
	for _, value := range []string{"hunter", "aHVudGVy", "equal", "ZXF1YWw"} {
		if strings.Contains(string(d.Live)+string(d.Merged), value) {
			t.Errorf("a Secret's value is shown:\n%s\n%s", d.Live, d.Merged)
		}
	}
	s.edit(s.admins("apps", "v1", "deployments"), "web", `{"spec":{"replicas":5}}`)
	d, err = s.c.Diff(s.ctx, s.object(web))
	if err != nil || d.Conflict == nil || fmt.Sprint(d.Conflict.Managers, d.Changes) != "[kubectl-edit] [{.spec.replicas 5 2}]" {
		t.Errorf("%+v %v", d, err)
	}
	// Someone who writes between our two looks is not us.
	proxy := devtest.NewProxy(t, devtest.Cluster(t))
	through := connect(t, restConfig(t, proxy.Kubeconfig))
	s.edit(s.admins("apps", "v1", "deployments"), "web", `{"spec":{"replicas":2}}`)
	var once sync.Once
	proxy.Do(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPatch {
			once.Do(func() { s.edit(s.admins("apps", "v1", "deployments"), "web", `{"metadata":{"annotations":{"a":"c"}}}`) })
		}
		return false
	})
	if d, err := through.Diff(s.ctx, s.object(web)); err != nil || len(d.Changes) != 0 {
		t.Errorf("%v %v", d.Changes, err)
	}
	if changes, err := cluster.Compare(s.object(fill(secret, "PASSWORD", "hunter1")), s.object(fill(secret, "PASSWORD", "hunter2"))); err != nil || fmt.Sprint(changes) != `[{.data.password *** (before) *** (after)}]` {
		t.Errorf("%v %v", changes, err)
	}
	before := s.c.Requests()
	if n := before["apply"]; n != 2 {
		t.Errorf("%d applies: a comparison wrote something", n)
	}
}

// An inventory is written once for what is new, by whoever asks, and read again
// when someone else has changed it.
func TestInventory(t *testing.T) {
	s := newStand(t, "")
	if inv, err := s.c.Inventory(s.ctx, s.scope); err != nil || inv.Found {
		t.Errorf("%+v %v", inv, err)
	}
	var wait sync.WaitGroup
	for i := range 20 {
		wait.Go(func() {
			o := render.Object{Ref: render.Ref{Group: fmt.Sprintf("g%02d", i), Kind: "K", Namespace: s.namespace, Name: "x"}, Version: "v1"}
			if err := s.c.Enroll(s.ctx, s.scope, []render.Object{o}); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if n := s.c.Requests(); n["create"]+n["patch"] > 4 { // the namespace, and two or three of twenty
		t.Errorf("20 services took %v", n)
	}
	inv, err := s.c.Inventory(s.ctx, s.scope)
	if err != nil || len(inv.Kinds) != 20 {
		t.Errorf("%+v %v", inv, err)
	}
	if err := s.c.Watch(s.ctx, s.scope, nil); err != nil {
		t.Fatal(err)
	}
	other := connect(t, s.config)
	more := render.Object{Ref: render.Ref{Kind: "Namespace", Name: "x"}, Version: "v1"}
	if err := other.Enroll(s.ctx, s.scope, []render.Object{more}); err != nil {
		t.Fatal(err)
	}
	if err := other.ConfirmPrune(s.ctx, s.scope, "abc"); err != nil {
		t.Fatal(err)
	}
	s.until(s.c, func() string {
		if inv, err := s.c.Inventory(s.ctx, s.scope); err != nil || len(inv.Kinds) != 21 || inv.Confirmed != "abc" {
			return fmt.Sprintf("%+v %v", inv, err)
		}
		return ""
	})
	if err := s.admins("", "v1", "configmaps").Delete(s.ctx, "pinion-"+string(s.scope.Environment), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.until(s.c, func() string {
		if inv, err := s.c.Inventory(s.ctx, s.scope); err != nil || inv.Found {
			return fmt.Sprintf("%+v %v", inv, err)
		}
		return ""
	})
	if err := s.c.Enroll(s.ctx, s.scope, []render.Object{more}); err != nil {
		t.Fatal(err)
	}
	if len(s.c.Observe(s.scope).Objects) != 0 {
		t.Error("the inventory is one of the environment's objects")
	}
	if all, err := other.Inventories(s.ctx, nil); err != nil || len(all) == 0 {
		t.Errorf("%v %v", all, err)
	}
}

func TestClock(t *testing.T) {
	s := newStand(t, "")
	at, err := s.c.Clock(s.ctx)
	if err != nil || time.Since(at).Abs() > time.Minute {
		t.Errorf("%s %v", at, err)
	}
	if v, err := s.c.ServerVersion(s.ctx); err != nil || v.Major != "1" {
		t.Errorf("%v %v", v, err)
	}
}
