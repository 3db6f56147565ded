package cluster_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pinion-cd/pinion/internal/devtest"
	"github.com/pinion-cd/pinion/reconcile/cluster"
)

// What a watch has silently lost is found by a comparison, in one request for
// each kind; where nothing was lost, nothing is told.
func TestCompareFindsWhatAWatchHasLost(t *testing.T) {
	s := newStand(t, "")
	proxy := devtest.NewProxy(t, devtest.Cluster(t))
	s.c = connect(t, restConfig(t, proxy.Kubeconfig))
	manifest := "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: NAME}\nspec: {replicas: 0, selector: {matchLabels: {app: NAME}}, template: {metadata: {labels: {app: NAME}}, spec: {containers: [{name: main, image: \"x:1\"}]}}}"
	changed, deleted, same := s.object(strings.ReplaceAll(manifest, "NAME", "changed")), s.object(strings.ReplaceAll(manifest, "NAME", "deleted")), s.object(strings.ReplaceAll(manifest, "NAME", "same"))
	s.apply(changed, deleted, same)
	s.untilHealthy(s.c, changed, deleted, same)
	proxy.Lose(func(event []byte) bool {
		return bytes.Contains(event, []byte(`"name":"changed"`)) || bytes.Contains(event, []byte(`"name":"deleted"`))
	})
	deployments := s.admins("apps", "v1", "deployments")
	s.edit(deployments, "changed", `{"metadata":{"annotations":{"x":"y"}},"spec":{"revisionHistoryLimit":3}}`)
	s.edit(deployments, "changed", `{"metadata":{"labels":{"pinion.dev/service":"other"}}}`)
	if err := deployments.Delete(s.ctx, "deleted", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.untilSeen(func() string { // its controller has written its status
		if s.value(changed, "status.observedGeneration") != s.value(changed, "metadata.generation") {
			return "not observed"
		}
		return ""
	})
	// The watch goes on: it tells of what came later.
	s.edit(deployments, "same", `{"metadata":{"annotations":{"x":"y"}}}`)
	later := s.version(same)
	s.untilSeen(func() string {
		if have, _ := s.look(s.c, same); have.ResourceVersion != later {
			return "the watch has not come that far"
		}
		return ""
	})
	if have, ok := s.look(s.c, deleted); !ok || !cluster.InSync(have, deleted) {
		t.Fatal("the deletion was not lost")
	}
	if have, ok := s.look(s.c, changed); !ok || !cluster.InSync(have, changed) {
		t.Fatal("the change was not lost")
	}
	s.c.Drain()
	lists := s.c.Requests()["list"]
	found, err := s.c.Compare(s.ctx, s.scope)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(found.Missed, changed.Ref) || slices.Contains(found.Missed, same.Ref) || found.Objects != 2+1 { // the inventory is one
		t.Errorf("found %+v", found)
	}
	if n := s.c.Requests()["list"] - lists; n != 2 { // Deployments, and ConfigMaps for the inventory
		t.Errorf("%d lists", n)
	}
	if keys := s.c.Drain(); len(keys) != 2 || keys[0].Service != "other" || keys[1].Service != "web" {
		t.Errorf("told of %v", keys)
	}
	if _, ok := s.look(s.c, deleted); ok {
		t.Error("what was deleted is still seen")
	}
	if have, _ := s.look(s.c, changed); cluster.InSync(have, changed) {
		t.Error("what was changed is still in sync")
	}
}

// A long list comes in pages.
func TestCompareInPages(t *testing.T) {
	s := newStand(t, "")
	var manifests []string
	for i := range 1100 {
		manifests = append(manifests, fmt.Sprintf("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: s%d}", i))
	}
	objects := s.objects(strings.Join(manifests, "\n---\n"))
	if err := s.c.WatchObjects(s.ctx, s.scope, objects); err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if _, err := s.c.Apply(s.ctx, o, commit, cluster.ApplyOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	s.untilSeen(func() string {
		for _, o := range objects {
			if have, _ := s.look(s.c, o); have.Health.Status != cluster.Current {
				return o.Ref.String()
			}
		}
		return ""
	})
	s.c.Drain()
	lists := s.c.Requests()["list"]
	found, err := s.c.Compare(s.ctx, s.scope)
	if err != nil || found.Objects != 1100 || len(found.Missed) > 0 {
		t.Errorf("%d objects, missed %v, %v", found.Objects, found.Missed, err)
	}
	if n := s.c.Requests()["list"] - lists; n != 3+1 {
		t.Errorf("%d pages", n)
	}
	if keys := s.c.Drain(); len(keys) > 0 {
		t.Errorf("told of %v", keys)
	}
}
