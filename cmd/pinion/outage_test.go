package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pinion-cd/pinion/internal/devtest"
)

// many returns the names of n services.
func many(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("s%02d", i)
	}
	return names
}

// all is what the services of a shop are to be after its first commit.
func (w *world) all(names []string) map[string]wanted {
	w.Helper()
	want, first := map[string]wanted{}, w.git("rev-parse", "HEAD")
	for _, n := range names {
		want[n] = wanted{"1.0.0", first}
	}
	return want
}

func TestDaemonOutlastsAnAPIServerThatIsDown(t *testing.T) {
	t.Parallel()
	c := devtest.Start(t)
	names := many(20)
	w := newWorldOn(t, c.Kubeconfig, shop(names...))
	want := w.all(names)

	// Down before the first apply.
	c.Kill()
	d := w.daemon(t.TempDir())
	d.line(0, "failed dev/s00", "can't reach the API server")
	c.Restart(t)

	// Down in the middle of it.
	d.line(0, "applied dev/")
	c.Kill()
	mark := d.mark()
	d.line(mark, "can't reach the API server")
	c.Restart(t)
	w.shows(want)
	d.line(0, "[20/20 done]")
	d.never(0, "] deleted ")
}

func TestDaemonOutlastsAPauseOfTheAPIServer(t *testing.T) {
	t.Parallel()
	c := devtest.Start(t)
	names := many(3)
	w := newWorldOn(t, c.Kubeconfig, strings.ReplaceAll(shop(names...), "labels: {app: s00}", "labels: {app: s00}\n      annotations: {devcluster.pinion.dev/behavior-1.1.0: never-ready}"))
	want := w.all(names)
	d := w.daemon(t.TempDir())
	d.line(0, "[3/3 done]")
	before := w.identities()

	// Down in the middle of a rollout, while a service leaves the repository.
	mark := d.mark()
	w.bump("s00", "1.0.0", "1.1.0")
	d.line(mark, "applied dev/s00 1.1.0")
	c.Kill()
	mark = d.mark()
	w.git("rm", "-q", "-r", "services/s02")
	env := "environments/dev.yaml"
	gone := w.replace(env, "  s02:\n    image: registry.example/s02:1.0.0\n", "")
	d.line(mark, "commit "+gone[:12])
	c.Restart(t)
	delete(want, "s02")
	want["s00"] = wanted{"1.2.0", w.bump("s00", "1.1.0", "1.2.0")}
	w.shows(want)
	for name := range before {
		if strings.HasPrefix(name, "s02") {
			delete(before, name)
		}
	}
	w.same(before)

	// Stopped, and going on.
	mark = d.mark()
	c.Pause()
	want["s01"] = wanted{"1.1.0", w.bump("s01", "1.0.0", "1.1.0")}
	d.line(mark, "commit "+want["s01"].commit[:12])
	c.Resume()
	w.shows(want)
	w.same(before)
	d.line(mark, "[2/2 done]")
}

// As long as a kind can't be listed, nothing is deleted.
func TestDaemonDeletesNothingUnseen(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop("api", "old", "web"))
	first := w.git("rev-parse", "HEAD")
	p := devtest.NewProxy(t, w.kubeconfig)
	w.kubeconfig = p.Kubeconfig
	d := w.daemon(t.TempDir())
	d.line(0, "[3/3 done]")
	before := w.identities()
	d.stop()

	p.Do(func(rw http.ResponseWriter, r *http.Request) bool {
		return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/deployments") && devtest.Status(500)(rw, r)
	})
	w.git("rm", "-q", "-r", "services/old")
	w.replace("environments/dev.yaml", "  old:\n    image: registry.example/old:1.0.0\n", "")
	d = w.daemon(t.TempDir())
	d.line(0, "failed dev/api", "Deployment")
	w.same(before)
	d.never(0, "] deleted ")
	if _, err := w.kube.CoreV1().ConfigMaps(w.namespace).Get(t.Context(), "old", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	p.Do(nil)
	w.shows(map[string]wanted{"api": {"1.0.0", first}, "web": {"1.0.0", first}})
	d.line(0, "[2/2 done]")
}

// terminating waits until the namespace is being deleted.
func (w *world) terminating() {
	w.Helper()
	w.until("the namespace is being deleted", func(ctx context.Context) string {
		ns, err := w.kube.CoreV1().Namespaces().Get(ctx, w.namespace, metav1.GetOptions{})
		switch {
		case err != nil:
			return err.Error()
		case ns.DeletionTimestamp == nil:
			return "it is not"
		}
		return ""
	})
}

func TestDaemonOutlastsANamespace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop("api", "web"))
	first := w.git("rev-parse", "HEAD")
	want := map[string]wanted{"api": {"1.0.0", first}, "web": {"1.0.0", first}}

	// Terminating when the first apply comes.
	namespaces := w.kube.CoreV1().Namespaces()
	w.makeHeldNamespace()
	w.must(namespaces.Delete(t.Context(), w.namespace, metav1.DeleteOptions{}))
	w.terminating()
	d := w.daemon(t.TempDir())
	d.line(0, "failed dev/api", "namespace "+w.namespace+" is being deleted")
	w.release("held")
	w.shows(want)
	d.line(0, "[2/2 done]")

	// And when it is deleted below what runs.
	mark := d.mark()
	w.hold("web")
	w.must(namespaces.Delete(t.Context(), w.namespace, metav1.DeleteOptions{}))
	d.line(mark, "dev/api", "namespace "+w.namespace+" is being deleted")
	w.release("web")
	w.shows(want)
	d.line(mark, "[2/2 done]")
	d.never(0, "] deleted ")
}

// makeHeldNamespace makes the world's namespace, with a ConfigMap that keeps it
// from going.
func (w *world) makeHeldNamespace() {
	w.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}
	_, err := w.kube.CoreV1().Namespaces().Create(w.Context(), namespace, metav1.CreateOptions{})
	w.must(err)
	held := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "held", Finalizers: []string{"shop.example/hold"}}}
	_, err = w.kube.CoreV1().ConfigMaps(w.namespace).Create(w.Context(), held, metav1.CreateOptions{})
	w.must(err)
	w.Cleanup(func() { w.release("held") })
}
