package cluster_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pinion-cd/pinion/internal/devtest"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

const left = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {team: a, tier: b}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "web:1", args: [one]}, {name: log, image: "log:1"}]}`

// What an ignored field is after its first apply is for others to say: they
// may change and remove it, before and after commits that render it otherwise,
// and neither a difference nor a conflict is seen.
func TestIgnoredFieldsBelongToOthers(t *testing.T) {
	const second = "/spec/template/spec/containers/1/image"
	for _, test := range []struct {
		name     string
		manifest string
		ignore   []string
		change   func(s *stand) // by somebody else
		next     func(string) string
		want     map[string]any // by path; nil: it is not there
	}{
		{"nobody changes it", left, []string{"/spec/replicas"}, func(*stand) {}, replace("replicas: 2", "replicas: 3"),
			map[string]any{"spec.replicas": int64(2)}},
		{"somebody changes it", left, []string{"/spec/replicas"}, func(s *stand) { s.edit(s.admins("apps", "v1", "deployments"), "web", `{"spec":{"replicas":5}}`) }, replace("replicas: 2", "replicas: 3"),
			map[string]any{"spec.replicas": int64(5)}},
		{"somebody applies it", left, []string{"/spec/replicas"}, func(s *stand) {
			s.take(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":7}}`)
		}, replace("replicas: 2", "replicas: 3"), map[string]any{"spec.replicas": int64(7)}},
		{"somebody removes it", left, []string{"/metadata/labels/team"}, func(s *stand) {
			s.edit(s.admins("apps", "v1", "deployments"), "web", `{"metadata":{"labels":{"team":null}}}`)
		}, replace("tier: b", "tier: c"), map[string]any{"metadata.labels.team": nil, "metadata.labels.tier": "c"}},
		{"it leaves the manifest", left, []string{"/metadata/labels/team"}, func(*stand) {}, replace("team: a, ", ""),
			map[string]any{"metadata.labels.team": "a"}},
		{"an item of a list that has moved", left, []string{second}, func(s *stand) {
			if _, err := s.admins("apps", "v1", "deployments").Patch(s.ctx, "web", types.JSONPatchType, []byte(`[
				{"op":"add","path":"/spec/template/spec/containers/0","value":{"name":"mesh","image":"mesh:1"}},
				{"op":"replace","path":"/spec/template/spec/containers/2/image","value":"log:9"}]`), metav1.PatchOptions{FieldManager: "mesh"}); err != nil {
				s.Fatal(err)
			}
		}, replace("web:1", "web:2"), map[string]any{"image web": "web:2", "image log": "log:9", "image mesh": "mesh:1"}},
		{"an item of a list that nobody changes", left, []string{second}, func(*stand) {}, replace(`log:1`, `log:2`),
			map[string]any{"image web": "web:1", "image log": "log:1"}},
		{"a whole item", left, []string{"/spec/template/spec/containers/1"}, func(s *stand) {
			if _, err := s.admins("apps", "v1", "deployments").Patch(s.ctx, "web", types.StrategicMergePatchType, []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"log","image":"log:9"}]}}}}`), metav1.PatchOptions{FieldManager: "logger"}); err != nil {
				s.Fatal(err)
			}
		}, replace(`log:1`, `log:2`), map[string]any{"image web": "web:1", "image log": "log:9"}},
		{"a list as a whole", left, []string{"/spec/template/spec/containers/0/args"}, func(s *stand) {
			if _, err := s.admins("apps", "v1", "deployments").Patch(s.ctx, "web", types.StrategicMergePatchType, []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"web","args":["two"]}]}}}}`), metav1.PatchOptions{FieldManager: "tuner"}); err != nil {
				s.Fatal(err)
			}
		}, replace(`[one]`, `[three]`), map[string]any{"args web": "[two]"}},
		{"a branch", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata: {a: \"1\", b: \"1\", c: \"1\"}", []string{"/data"}, func(s *stand) {
			s.edit(s.admins("", "v1", "configmaps"), "web", `{"data":{"a":"9","b":null,"d":"9"}}`)
		}, replace(`c: "1"`, `c: "2", e: "2"`), map[string]any{"data.a": "9", "data.b": nil, "data.c": "1", "data.d": "9", "data.e": nil}},
		{"all that there is in a branch", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata: {a: \"1\"}", []string{"/data/a"}, func(s *stand) {
			s.edit(s.admins("", "v1", "configmaps"), "web", `{"data":{"a":"9"}}`)
		}, replace(`a: "1"`, `a: "2"`), map[string]any{"data.a": "9"}},
		{"a Secret's text", "apiVersion: v1\nkind: Secret\nmetadata: {name: web}\nstringData: {a: one, b: one}", []string{"/stringData/a"}, func(s *stand) {
			s.edit(s.admins("", "v1", "secrets"), "web", `{"data":{"a":"dHdv"}}`)
		}, replace("a: one, b: one", "a: three, b: three"), map[string]any{"data.a": "dHdv", "data.b": "dGhyZWU="}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newStand(t, "")
			o := s.object(test.manifest)
			o.Ignore = test.ignore
			s.apply(o)
			version := s.version(o)
			test.change(s)
			changed := s.version(o)
			s.untilSeen(func() string {
				have, ok := s.look(s.c, o)
				if changed != version && (!ok || have.ResourceVersion == version) || have.Health.Message == "applied, not yet observed" {
					return "no event"
				}
				if !cluster.InSync(have, o) {
					return "it has drifted: " + have.Fields.Value()
				}
				return ""
			})
			if d, err := s.c.Diff(s.ctx, o); err != nil || len(d.Changes) > 0 || d.Conflict != nil {
				t.Errorf("the difference: %+v, %v", d.Changes, err)
			}
			// Nothing that is the same is written.
			if _, err := s.c.Apply(s.ctx, o, commit, cluster.ApplyOptions{}); err != nil {
				t.Fatal(err)
			}
			next := s.object(test.next(test.manifest))
			next.Ignore = test.ignore
			s.apply(next)
			s.apply(next) // by then nobody's ownership changes any more
			for path, want := range test.want {
				if got := s.value(o, path); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%s is %v, want %v", path, got, want)
				}
			}
			if have, _ := s.look(s.c, next); !cluster.InSync(have, next) {
				t.Errorf("not in sync with the next commit: %s", have.Fields.Value())
			}
			// Without the rules it is drift, and is taken back.
			strict := s.object(test.next(test.manifest))
			if d, err := s.c.Diff(s.ctx, strict); err != nil || len(d.Changes) == 0 && test.name != "it leaves the manifest" {
				t.Errorf("without the rules: %+v, %v", d.Changes, err)
			}
		})
	}
}

// Somebody who changes the field between our look and our apply is not
// overwritten.
func TestIgnoredFieldThatChangesMeanwhile(t *testing.T) {
	s := newStand(t, "")
	o := s.object(left)
	o.Ignore = []string{"/spec/replicas"}
	s.apply(o)
	proxy := devtest.NewProxy(t, devtest.Cluster(t))
	c := connect(t, restConfig(t, proxy.Kubeconfig))
	var changes atomic.Int32
	proxy.Do(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPatch && changes.Add(1) == 1 {
			s.edit(s.admins("apps", "v1", "deployments"), "web", `{"spec":{"replicas":6}}`)
		}
		return false
	})
	next := s.object(strings.Replace(left, "tier: b", "tier: c", 1))
	next.Ignore = o.Ignore
	if _, err := c.Apply(s.ctx, next, commit, cluster.ApplyOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if got := s.value(o, "spec.replicas"); got != int64(6) || changes.Load() < 2 {
		t.Errorf("replicas are %v after %d applies", got, changes.Load())
	}
}

func replace(old, next string) func(string) string {
	return func(s string) string { return strings.Replace(s, old, next, 1) }
}

// take has another manager own fields of a Deployment by server-side apply.
func (s *stand) take(body string) {
	s.Helper()
	force := true
	if _, err := s.admins("apps", "v1", "deployments").Patch(s.ctx, "web", types.ApplyPatchType, []byte(body), metav1.PatchOptions{FieldManager: "autoscaler", Force: &force}); err != nil {
		s.Fatal(err)
	}
}

func (s *stand) live(o render.Object) *unstructured.Unstructured {
	s.Helper()
	m, err := s.c.Map(s.ctx, o)
	if err != nil {
		s.Fatal(err)
	}
	u, err := s.admin.Resource(m.GVR).Namespace(m.Ref.Namespace).Get(s.ctx, o.Ref.Name, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return u
}

func (s *stand) version(o render.Object) string { return s.live(o).GetResourceVersion() }

// value returns a field of the live object: "spec.replicas", or "image web"
// of a container.
func (s *stand) value(o render.Object, path string) any {
	s.Helper()
	u := s.live(o)
	if field, name, ok := strings.Cut(path, " "); ok {
		containers, _, _ := unstructured.NestedSlice(u.Object, "spec", "template", "spec", "containers")
		for _, c := range containers {
			if c := c.(map[string]any); c["name"] == name {
				return c[field]
			}
		}
		return nil
	}
	v, _, err := unstructured.NestedFieldNoCopy(u.Object, strings.Split(path, ".")...)
	if err != nil {
		s.Fatal(err)
	}
	return v
}
