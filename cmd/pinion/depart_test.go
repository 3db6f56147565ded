package main

import (
	"context"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// chain is db, api, which depends on it, and web, which depends on api; each
// has n ConfigMaps, whose names are in that order, too.
func chain(n int) string {
	return settingsOf(n, "api", "db", "web") +
		"-- services/api/service.yaml --\napiVersion: pinion.dev/v1\nkind: Service\ndependsOn: [db]\n" +
		"-- services/web/service.yaml --\napiVersion: pinion.dev/v1\nkind: Service\ndependsOn: [api]\n"
}

// turns checks that the daemon has deleted all objects of one service before the
// first of the next.
func (d *daemon) turns(from int, services ...string) {
	d.Helper()
	first, last := map[string]int{}, map[string]int{}
	for i, l := range d.said(from) {
		for _, s := range services {
			if !strings.Contains(l, "deleted dev/"+s+":") {
				continue
			}
			if _, ok := first[s]; !ok {
				first[s] = i
			}
			last[s] = i
		}
	}
	for i, s := range services {
		if _, ok := last[s]; !ok {
			d.Errorf("nothing of %s was deleted", s)
		}
		if i > 0 && first[s] < last[services[i-1]] {
			d.Errorf("%s was deleted before %s, which depends on it", s, services[i-1])
		}
	}
}

// What leaves a commit goes in the reverse order of dependsOn, and what depends
// on it has to be gone, not only deleted; after a restart, too.
func TestDepartureOfServices(t *testing.T) {
	eachWay(t, func(t *testing.T, restart bool) {
		for _, test := range []struct{ name, change string }{
			{"environment", "-- environments/dev.yaml --\n"},
			{"services", strings.Split(environment("dev", "NAMESPACE"), "-- services")[0] + "-- services/api --\n-- services/db --\n-- services/web --\n"},
		} {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, chain(3))
				d := w.daemon(t.TempDir())
				d.line(0, "[3/3 done]")
				w.hold("web-1")
				d = d.across(restart, func() { w.push("remove", test.change) })
				w.goes(configMaps, "web-0", "web-1", "web-2")
				d.line(0, "warning", "web-1: it is being deleted", "shop.example/hold", "what leaves service api, on which it depended, goes after it")
				w.stays(configMaps, "api-0", "api-2", "db-0")
				w.release("web-1")
				w.goes(configMaps, "api-0", "api-1", "api-2", "db-0", "db-1", "db-2")
				d.line(0, "deleted dev/db", "db-2")
				d.turns(0, "web", "api", "db")
			})
		}
	})
}

// Where manifests are read from an earlier commit, that one says who depends on
// whom.
func TestDepartureOfPinnedManifests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, chain(1))
	first := w.git("rev-parse", "HEAD")
	w.write("-- services/api/service.yaml --\napiVersion: pinion.dev/v1\nkind: Service\n-- services/web/service.yaml --\napiVersion: pinion.dev/v1\nkind: Service\n")
	w.replace("environments/dev.yaml", "pins:", "manifests: {api: "+first+", web: "+first+"}\npins:")
	d := w.daemon(t.TempDir())
	d.line(0, "[3/3 done]")
	d = d.across(true, func() { w.push("remove", "-- environments/dev.yaml --\n") })
	w.goes(configMaps, "db-0")
	d.line(0, "deleted dev/db")
	d.turns(0, "web", "api", "db")
}

// A large deletion is confirmed once, however many turns it takes.
func TestDepartureIsConfirmedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, chain(7))
	d := w.daemon(t.TempDir())
	d.line(0, "[3/3 done]")
	w.push("remove", "-- environments/dev.yaml --\n")
	digest := d.halts(0, "21 of the 21 objects of environment dev")
	w.stays(configMaps, "web-0", "api-0", "db-0")
	d.stop() // it is one pass that does all of it
	stdout, stderr, code := w.pinion("apply", "dev", "--confirm-prune", digest)
	if code != exitOK {
		t.Errorf("apply ends with %d: %s%s", code, stdout, stderr)
	}
	for _, name := range []string{"web-0", "api-0", "db-0", "db-6", "pinion-dev"} {
		if w.here(t.Context(), configMaps, name) {
			t.Errorf("%s is still there", name)
		}
	}

	w.push("bring it back", chain(7))
	d = w.daemon(t.TempDir())
	d.line(0, "[3/3 done]")
	mark := d.mark()
	w.push("remove", "-- environments/dev.yaml --\n")
	d.halts(mark, "21 of the 21 objects of environment dev")
	w.confirm(d.halts(mark))
	w.goes(configMaps, "db-6")
	d.line(mark, "deleted dev/db", "db-6")
	d.turns(mark, "web", "api", "db")
}

// confirm annotates the inventory of dev with a digest, as a person may.
func (w *world) confirm(digest string) {
	w.Helper()
	w.patch(configMaps, "pinion-dev", `{"metadata":{"annotations":{"pinion.dev/confirm-prune":"`+digest+`"}}}`)
}

// The pods of what depended on a service are gone before it goes.
func TestDepartureOfPods(t *testing.T) {
	t.Parallel()
	w := newWorld(t, twoServices)
	d := w.daemon(t.TempDir())
	d.line(0, "[2/2 done]")
	pods, err := w.kube.CoreV1().Pods(w.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
	w.must(err)
	finalizers := func(ctx context.Context, now string) {
		for _, pod := range pods.Items {
			w.kube.CoreV1().Pods(w.namespace).Patch(ctx, pod.Name, types.MergePatchType, []byte(`{"metadata":{"finalizers":`+now+`}}`), metav1.PatchOptions{})
		}
	}
	t.Cleanup(func() { finalizers(context.Background(), "null") })
	finalizers(t.Context(), `["shop.example/hold"]`)
	mark := d.mark()
	w.push("remove", "-- environments/dev.yaml --\n")
	d.line(mark, "Deployment.apps", "/web: it is being deleted since", "waits until what it owns is gone; what leaves service api, on which it depended, goes after it")
	w.stays(deployments, "api")
	w.stays(configMaps, "api")
	finalizers(t.Context(), "null")
	w.goes(deployments, "api")
	w.goes(configMaps, "api", "pinion-dev")
}

// A service that nobody is to depend on any more goes when those that did are
// rolled out without it.
func TestDepartureAfterTheRolloutOfOthers(t *testing.T) {
	eachWay(t, func(t *testing.T, restart bool) {
		w := newWorld(t, strings.Replace(twoServices, "metadata: { labels: { app: 'web' } }",
			"metadata: { labels: { app: 'web' }, annotations: { 'devcluster.pinion.dev/behavior-2.0.0': 'never-ready' } }", 1))
		d := w.daemon(t.TempDir())
		d.line(0, "[2/2 done]")
		d = d.across(restart, func() {
			w.write("-- services/api --\n-- services/web/service.yaml --\napiVersion: pinion.dev/v1\nkind: Service\n")
			w.write(strings.Split(environment("dev", "NAMESPACE", "web"), "-- services")[0])
			w.replace("environments/dev.yaml", "web:1.0.0", "web:2.0.0")
		})
		d.line(0, "progressing dev/web 2.0.0")
		// In the commit of web's objects it does not depend on api any more; its
		// pods of before do.
		w.stays(deployments, "api")
		w.replace("environments/dev.yaml", "web:2.0.0", "web:3.0.0")
		w.goes(deployments, "api")
		d.line(0, "deleted dev/api", "Deployment")
		lines := d.said(0)
		ready := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "ready dev/web 3.0.0") })
		gone := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "deleted dev/api") })
		if ready < 0 || gone < ready {
			t.Error("api went before web was rolled out without it")
		}
	})
}
