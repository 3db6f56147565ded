package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/pinion-cd/pinion/internal/devtest"
)

// shop is a repository with one environment and services that do not wait for
// each other. Each has a Deployment, which its pin changes, and a ConfigMap
// and a second Deployment, which it does not.
func shop(names ...string) string {
	var b strings.Builder
	b.WriteString("-- environments/dev.yaml --\napiVersion: pinion.dev/v1\nkind: Environment\ncluster: default\nnamespace: NAMESPACE\npins:\n")
	for _, n := range names {
		fmt.Fprintf(&b, "  %s:\n    image: registry.example/%[1]s:1.0.0\n", n)
	}
	for _, n := range names {
		fmt.Fprintf(&b, `-- services/%[1]s/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
rollout: {timeout: 60s}
-- services/%[1]s/%[1]s.yaml --
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: 1
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata:
      labels: {app: %[1]s}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: %[1]s}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s-side}
spec:
  replicas: 0
  selector: {matchLabels: {app: %[1]s-side}}
  template:
    metadata:
      labels: {app: %[1]s-side}
    spec:
      containers: [{name: main, image: registry.example/side:1}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: %[1]s}
data: {greeting: hello}
`, n)
	}
	return b.String()
}

// bump pins a service to a version, and pushes the change.
func (w *world) bump(service, from, to string) string {
	w.Helper()
	return w.replace("environments/dev.yaml", "registry.example/"+service+":"+from, "registry.example/"+service+":"+to)
}

// wanted is what a service of a shop is to be.
type wanted struct{ version, commit string }

// shows waits until the cluster shows the services of a shop as they are to
// be, each object with the commit that it comes from, and nothing else.
func (w *world) shows(want map[string]wanted) {
	w.Helper()
	for name, s := range want {
		w.runs(name, "registry.example/"+name+":"+s.version)
	}
	ours := metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=pinion"}
	w.until("the cluster shows what the commit says", func(ctx context.Context) string {
		deployments, err := w.kube.AppsV1().Deployments(w.namespace).List(ctx, ours)
		if err != nil {
			return err.Error()
		}
		maps, err := w.kube.CoreV1().ConfigMaps(w.namespace).List(ctx, ours)
		if err != nil {
			return err.Error()
		}
		var wrong []string
		seen := 0
		check := func(kind string, m metav1.ObjectMeta) {
			if strings.HasPrefix(m.Name, "pinion-") {
				return // the inventory
			}
			seen++
			s, ok := want[strings.TrimSuffix(m.Name, "-side")]
			switch got := m.Annotations["pinion.dev/commit"]; {
			case !ok:
				wrong = append(wrong, fmt.Sprintf("%s %s should not be there", kind, m.Name))
			case s.commit != "" && got != s.commit:
				wrong = append(wrong, fmt.Sprintf("%s %s comes from commit %s, want %s", kind, m.Name, got, s.commit))
			}
		}
		for _, d := range deployments.Items {
			check("Deployment", d.ObjectMeta)
		}
		for _, m := range maps.Items {
			check("ConfigMap", m.ObjectMeta)
		}
		if seen != 3*len(want) && len(wrong) == 0 {
			wrong = append(wrong, fmt.Sprintf("%d objects, want %d", seen, 3*len(want)))
		}
		return strings.Join(wrong, "; ")
	})
}

// identities returns the UIDs of the shop's Deployments.
func (w *world) identities() map[string]types.UID {
	w.Helper()
	list, err := w.kube.AppsV1().Deployments(w.namespace).List(w.Context(), metav1.ListOptions{})
	w.must(err)
	ids := map[string]types.UID{}
	for _, d := range list.Items {
		ids[d.Name] = d.UID
	}
	return ids
}

// same checks that Deployments were neither deleted nor made again.
func (w *world) same(before map[string]types.UID) {
	w.Helper()
	now := w.identities()
	for name, id := range before {
		if now[name] != id {
			w.Errorf("Deployment %s was replaced: it was %s, now %q", name, id, now[name])
		}
	}
}

// revisions returns how many ReplicaSets a Deployment has had.
func (w *world) revisions(d *appsv1.Deployment) string {
	return d.Annotations["deployment.kubernetes.io/revision"]
}

// applies tells whether a request applies one of the objects with a name; dry
// says whether it only asks whether that would be accepted.
func applies(r *http.Request, dry bool, names ...string) bool {
	return r.Method == http.MethodPatch && strings.HasPrefix(r.Header.Get("Content-Type"), "application/apply-patch") &&
		(r.URL.Query().Get("dryRun") != "") == dry && slices.Contains(names, filepath.Base(r.URL.Path))
}

// carryOut passes a request on to the world's API server, and cuts the
// connection instead of answering.
func (w *world) carryOut() devtest.Harm {
	w.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", w.kubeconfig)
	w.must(err)
	transport, err := rest.TransportFor(config)
	w.must(err)
	return func(rw http.ResponseWriter, r *http.Request) bool {
		out, err := http.NewRequestWithContext(r.Context(), r.Method, config.Host+r.URL.RequestURI(), r.Body)
		if err == nil {
			out.Header = r.Header
			if resp, err := transport.RoundTrip(out); err == nil {
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		}
		return devtest.Reset(rw, r)
	}
}

func TestDaemonOutlastsRequestsThatFail(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		harm func(w *world, heal <-chan struct{}) devtest.Harm
		said string // by the daemon, meanwhile; empty: nothing
	}{
		{"429", func(*world, <-chan struct{}) devtest.Harm { return devtest.Status(429, "Retry-After", "1") }, "failed dev/api"},
		{"500", func(*world, <-chan struct{}) devtest.Harm { return devtest.Status(500) }, "failed dev/api"},
		{"503", func(*world, <-chan struct{}) devtest.Harm { return devtest.Status(503) }, "failed dev/api"},
		{"no answer", func(_ *world, heal <-chan struct{}) devtest.Harm {
			return func(w http.ResponseWriter, r *http.Request) bool {
				select {
				case <-heal:
				case <-r.Context().Done():
				}
				return devtest.Reset(w, r)
			}
		}, ""},
		{"reset before", func(*world, <-chan struct{}) devtest.Harm { return devtest.Reset }, "failed dev/api"},
		{"reset after", func(w *world, _ <-chan struct{}) devtest.Harm { return w.carryOut() }, ""},
	} {
		for _, dry := range []bool{true, false} {
			name := c.name + " to an apply"
			if dry {
				name = c.name + " to a dry run"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, shop("api", "web"))
				first := w.git("rev-parse", "HEAD")
				heal := make(chan struct{})
				harm := c.harm(w, heal)
				p := devtest.NewProxy(t, w.kubeconfig)
				w.kubeconfig = p.Kubeconfig
				d := w.daemon(t.TempDir())
				d.line(0, "[2/2 done]")
				w.shows(map[string]wanted{"api": {"1.0.0", first}, "web": {"1.0.0", first}})
				before, mark := w.identities(), d.mark()

				met := make(chan struct{}, 1)
				p.Do(func(rw http.ResponseWriter, r *http.Request) bool {
					if !applies(r, dry, "api", "api-side") {
						return false
					}
					select {
					case met <- struct{}{}:
					default:
					}
					return harm(rw, r)
				})
				api := w.bump("api", "1.0.0", "1.1.0")
				<-met
				web := w.bump("web", "1.0.0", "1.1.0")
				w.runs("web", "registry.example/web:1.1.0")
				d.line(mark, "ready dev/web 1.1.0")
				if c.said != "" {
					d.line(mark, c.said, "dev/api")
				}
				d.never(mark, "ready dev/api 1.1.0")
				p.Do(nil)
				close(heal)

				w.shows(map[string]wanted{"api": {"1.1.0", api}, "web": {"1.1.0", web}})
				d.line(mark, "[2/2 done] ready dev/api 1.1.0")
				w.same(before)
				d.never(0, "] deleted ")
				if x, _ := w.deployment(t.Context(), "api"); w.revisions(x) != "2" {
					t.Errorf("api has had %s revisions, want 2", w.revisions(x))
				}
			})
		}
	}
}

// What is applied in parts, because one object's request failed, carries one
// commit in the end.
func TestDaemonCompletesHalfAnApply(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop("api"))
	p := devtest.NewProxy(t, w.kubeconfig)
	w.kubeconfig = p.Kubeconfig
	d := w.daemon(t.TempDir())
	d.line(0, "[1/1 done]")
	mark := d.mark()
	// api-side is the same in both commits, but for the commit that it names.
	p.Do(func(rw http.ResponseWriter, r *http.Request) bool {
		return applies(r, false, "api-side") && devtest.Status(500)(rw, r)
	})
	second := w.bump("api", "1.0.0", "1.1.0")
	d.line(mark, "failed dev/api", "api-side")
	w.runs("api", "registry.example/api:1.1.0")
	p.Do(nil)
	w.shows(map[string]wanted{"api": {"1.1.0", second}})
}

// An object that is being deleted, and that a finalizer holds, is waited for,
// and not applied again and again.
func TestDaemonWaitsForADeletion(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop("api", "web"))
	first := w.git("rev-parse", "HEAD")
	d := w.daemon(t.TempDir())
	d.line(0, "[2/2 done]")
	held := w.hold("api")
	mark, applied := d.mark(), d.metric("pinion_kubernetes_requests_total", `"apply"`)
	w.must(w.kube.CoreV1().ConfigMaps(w.namespace).Delete(t.Context(), "api", metav1.DeleteOptions{}))
	d.line(mark, "dev/api", "is being deleted")
	// Meanwhile others are served, and much could go round.
	web := ""
	for i := range 4 {
		web = w.bump("web", fmt.Sprintf("1.%d.0", i), fmt.Sprintf("1.%d.0", i+1))
		w.runs("web", fmt.Sprintf("registry.example/web:1.%d.0", i+1))
	}
	if got := d.metric("pinion_kubernetes_requests_total", `"apply"`) - applied; got > 4*3+5*3 {
		t.Errorf("%v objects were applied, 12 of them for web", got)
	}
	w.release("api")
	w.until("the ConfigMap is made again", func(ctx context.Context) string {
		m, err := w.kube.CoreV1().ConfigMaps(w.namespace).Get(ctx, "api", metav1.GetOptions{})
		switch {
		case err != nil:
			return err.Error()
		case m.UID == held:
			return "it is the old one"
		}
		return ""
	})
	w.shows(map[string]wanted{"api": {"1.0.0", first}, "web": {"1.4.0", web}})
}

// hold puts a finalizer on a ConfigMap, and returns its UID.
func (w *world) hold(name string) types.UID {
	w.Helper()
	m, err := w.kube.CoreV1().ConfigMaps(w.namespace).Patch(w.Context(), name, types.MergePatchType, []byte(`{"metadata": {"finalizers": ["shop.example/hold"]}}`), metav1.PatchOptions{})
	w.must(err)
	w.Cleanup(func() { w.release(name) })
	return m.UID
}

// release takes the finalizers away from a ConfigMap, if it is still there.
func (w *world) release(name string) {
	w.kube.CoreV1().ConfigMaps(w.namespace).Patch(context.Background(), name, types.MergePatchType, []byte(`{"metadata": {"finalizers": null}}`), metav1.PatchOptions{})
}
