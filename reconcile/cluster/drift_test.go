package cluster_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// Fields that another manager changes are found by the watch, and after a
// restart; what we never set is no drift.
func TestDrift(t *testing.T) {
	s := newStand(t, "")
	objects := s.objects(strings.TrimPrefix(many, "\n"))
	s.apply(objects...)
	cm := s.admins("", "v1", "configmaps")
	deployments := s.admins("apps", "v1", "deployments")
	for _, test := range []struct {
		name   string
		ref    string
		change func()
		drift  bool
	}{
		{"an own label", "ConfigMap", func() { s.edit(cm, "settings", `{"metadata":{"labels":{"team":"a"}},"data":{"c":"3"}}`) }, false},
		{"replicas", "Deployment.apps", func() { s.edit(deployments, "web", `{"spec":{"replicas":1}}`) }, true},
		{"a value", "ConfigMap", func() { s.edit(cm, "settings", `{"data":{"a":"9"}}`) }, true},
		{"a list that we left empty", "Deployment.apps", func() {
			s.edit(deployments, "web", `{"spec":{"template":{"spec":{"tolerations":[{"key":"x","operator":"Exists"}]}}}}`)
		}, true},
		{"a label of ours", "Service", func() {
			s.edit(s.admins("", "v1", "services"), "web", `{"metadata":{"labels":{"pinion.dev/service":"api"}}}`)
		}, true},
		{"a Secret's value", "Secret", func() { s.edit(s.admins("", "v1", "secrets"), "key", `{"data":{"password":"eA=="}}`) }, true},
		{"a value that was given as text", "Secret", func() { s.edit(s.admins("", "v1", "secrets"), "key", `{"data":{"token":"eA=="}}`) }, true},
		{"a rule", "Role.rbac.authorization.k8s.io", func() {
			s.edit(s.admins("rbac.authorization.k8s.io", "v1", "roles"), "web", `{"rules":[]}`)
		}, true},
		{"a container's image", "Deployment.apps", func() {
			if _, err := deployments.Patch(s.ctx, "web", types.StrategicMergePatchType, []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"other"}]}}}}`), metav1.PatchOptions{FieldManager: "kubectl-set"}); err != nil {
				t.Fatal(err)
			}
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := slices.IndexFunc(objects, func(o render.Object) bool { return strings.HasPrefix(o.Ref.String(), test.ref+" ") })
			o := objects[i]
			before, _ := s.look(s.c, o)
			if _, err := s.c.Apply(s.ctx, o, commit, cluster.ApplyOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
			if have, _ := s.look(s.c, o); !cluster.InSync(have, o) {
				t.Fatal("not in sync before")
			}
			test.change()
			seen := func() string {
				have, ok := s.look(s.c, o)
				if !ok || have.ResourceVersion == before.ResourceVersion || have.Health.Message == "applied, not yet observed" {
					return "no event"
				}
				if test.drift && cluster.InSync(have, o) {
					return "drift not found: " + have.Fields.Value()
				}
				return ""
			}
			if test.drift {
				s.until(s.c, seen)
			} else {
				s.untilSeen(seen) // nobody needs to look again
			}
			again := connect(t, s.config)
			if err := again.WatchObjects(s.ctx, s.scope, objects); err != nil {
				t.Fatal(err)
			}
			have, _ := s.look(again, o)
			if cluster.InSync(have, o) == test.drift {
				t.Errorf("after a restart: drift is %v: %s", !test.drift, have.Fields.Value())
			}
		})
	}
}

// A free map whose only field is taken over, or taken out, by another is the
// case in which a leaf of the field set could mean both.
func TestDriftInFreeMap(t *testing.T) {
	s := newStand(t, "")
	group := s.namespace + ".example"
	crd := s.object(strings.ReplaceAll(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.GROUP}
spec:
  group: GROUP
  scope: Namespaced
  names: {kind: Thing, plural: things, singular: thing}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}`, "GROUP", group))
	thing := s.object("apiVersion: " + group + "/v1\nkind: Thing\nmetadata: {name: x}\nspec: {map: {only: 1}, list: [{a: b}], empty: {}}")
	s.foundation(crd, thing)
	if _, err := s.c.Apply(s.ctx, thing, commit, cluster.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	things := s.admins(group, "v1", "things")
	for _, patch := range []string{`{"spec":{"map":{"only":2}}}`, `{"spec":{"map":{"only":null}}}`} {
		if _, err := s.c.Apply(s.ctx, thing, commit, cluster.ApplyOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
		if have, ok := s.look(s.c, thing); !ok || !cluster.InSync(have, thing) {
			t.Fatalf("applied, but not in sync: %v %+v", ok, have)
		}
		s.edit(things, "x", patch)
		s.until(s.c, func() string {
			if have, _ := s.look(s.c, thing); cluster.InSync(have, thing) {
				return "drift not found after " + patch + ": " + have.Fields.Value()
			}
			return ""
		})
	}
}

// What carries our labels without our having applied it is not ours.
func TestOwned(t *testing.T) {
	s := newStand(t, "")
	objects := s.objects(`apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {a: "1"}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}`)
	s.apply(objects...)
	cm := s.admins("", "v1", "configmaps")
	live, err := cm.Get(s.ctx, "settings", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// One that was deleted, and that a backup brings back with managedFields.
	restored := s.object("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: restored}\ndata: {a: \"1\"}")
	s.apply(restored)
	saved, err := cm.Get(s.ctx, "restored", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := cm.Delete(s.ctx, "restored", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	// kubectl get | edit the name | kubectl create, without and with managedFields.
	plain := live.DeepCopy()
	plain.SetManagedFields(nil)
	for name, u := range map[string]*unstructured.Unstructured{"plain": plain, "full": live.DeepCopy(), "restored": saved} {
		u.SetName(name)
		u.SetResourceVersion("")
		u.SetUID("")
		entries := u.GetManagedFields()
		old := metav1.NewTime(time.Now().Add(-time.Hour))
		for i := range entries {
			entries[i].Time = &old
		}
		u.SetManagedFields(entries)
		made, err := cm.Create(s.ctx, u, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if name == "plain" {
			continue
		}
		made.SetManagedFields(entries)
		if made, err = cm.Update(s.ctx, made, metav1.UpdateOptions{}); err != nil || !slices.ContainsFunc(made.GetManagedFields(), func(e metav1.ManagedFieldsEntry) bool { return e.Manager == "pinion" }) {
			t.Fatalf("managedFields were not restored: %v", err)
		}
	}
	kinds := []cluster.Kind{{Kind: "ConfigMap"}, {Kind: "Endpoints"}, {Group: "discovery.k8s.io", Kind: "EndpointSlice"}}
	if err := s.c.Watch(s.ctx, s.scope, kinds); err != nil {
		t.Fatal(err)
	}
	s.until(s.c, func() string {
		seen := s.c.Observe(s.scope)
		count := map[string]int{}
		for _, o := range seen.Objects {
			if o.Owned != slices.ContainsFunc(objects, func(r render.Object) bool { return r.Ref == o.Ref }) {
				t.Fatalf("%s: owned %v", o.Ref, o.Owned)
			}
			count[o.Ref.Kind]++
		}
		if count["ConfigMap"] != 4 || count["Endpoints"] != 1 || count["EndpointSlice"] != 1 {
			return fmt.Sprint(count)
		}
		return ""
	})
	for _, o := range s.c.Observe(s.scope).Objects {
		if o.Owned {
			continue
		}
		var not *cluster.NotOursError
		if err := s.c.Delete(s.ctx, o, cluster.Background); !errors.As(err, &not) {
			t.Errorf("delete %s: %v", o.Ref, err)
		}
	}
	// One that a backup restored becomes ours by being applied.
	if a, err := s.c.Apply(s.ctx, restored, commit, cluster.ApplyOptions{}); err != nil || !a.Owned {
		t.Errorf("applied: %+v, %v", a, err)
	}
	if have, _ := s.look(s.c, restored); !have.Owned {
		t.Error("what was restored and then applied is not ours")
	}
}

// Only what was seen is deleted.
func TestDelete(t *testing.T) {
	s := newStand(t, "")
	manifest := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME}\ndata: {a: \"1\"}"
	named := func(name string) render.Object { return s.object(strings.Replace(manifest, "NAME", name, 1)) }
	s.apply(named("plain"), named("changed"), named("moved"), named("another"))
	cm := s.admins("", "v1", "configmaps")
	seen := s.c.Lookup([]render.Object{named("plain"), named("changed"), named("moved"), named("another")})
	s.edit(cm, "changed", `{"data":{"b":"2"}}`)
	s.edit(cm, "moved", `{"metadata":{"labels":{"pinion.dev/service":"api"}}}`)
	if err := cm.Delete(s.ctx, "another", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.c.Apply(s.ctx, named("another"), commit, cluster.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"plain": "", "changed": "", "another": "", "moved": "belongs to " + string(s.scope.Environment) + "/api now"} {
		err := s.c.Delete(s.ctx, seen[named(name).Ref], cluster.Background)
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("delete %s: %v, want %q", name, err, want)
		}
		_, err = cm.Get(s.ctx, name, metav1.GetOptions{})
		if there := err == nil; there != (name == "another" || name == "moved") {
			t.Errorf("%s is there: %v", name, there)
		}
	}
	s.until(s.c, func() string {
		if n := len(s.c.Observe(s.scope).Objects); n != 2 {
			return fmt.Sprintf("%d objects are seen", n)
		}
		return ""
	})
	if err := s.c.Delete(s.ctx, seen[named("plain").Ref], cluster.Background); err != nil {
		t.Errorf("delete what is gone: %v", err)
	}
}

// A drift says which fields, what they were and are, and who did it.
func TestDriftNamesFieldsAndManager(t *testing.T) {
	s := newStand(t, "")
	objects := s.objects(strings.TrimPrefix(many, "\n"))
	s.apply(objects...)
	deployments := s.admins("apps", "v1", "deployments")
	named := func(ref string) render.Object {
		return objects[slices.IndexFunc(objects, func(o render.Object) bool { return strings.HasPrefix(o.Ref.String(), ref+" ") })]
	}
	patch := func(manager, body string) {
		t.Helper()
		if _, err := deployments.Patch(s.ctx, "web", types.StrategicMergePatchType, []byte(body), metav1.PatchOptions{FieldManager: manager}); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name, ref string
		change    func()
		want      []string
	}{
		{"nothing", "Deployment.apps", func() {}, nil},
		{"a field of others", "Deployment.apps", func() { patch("injector", `{"metadata":{"annotations":{"mesh":"on"}}}`) }, nil},
		{"replicas", "Deployment.apps", func() { patch("kubectl-scale", `{"spec":{"replicas":1}}`) }, []string{".spec.replicas: 2 → 1 kubectl-scale"}},
		{"changed and changed back", "Deployment.apps", func() {
			patch("kubectl-scale", `{"spec":{"replicas":1}}`)
			patch("kubectl-scale", `{"spec":{"replicas":2}}`)
		}, nil},
		{"two managers", "Deployment.apps", func() {
			patch("kubectl-scale", `{"spec":{"replicas":1}}`)
			patch("kubectl-set", `{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"other"}]}}}}`)
		}, []string{".spec.replicas: 2 → 1 kubectl-scale", ".spec.template.spec.containers[name=web].image: registry.k8s.io/pause:3.10 → other kubectl-set"}},
		{"a list as a whole", "Deployment.apps", func() {
			patch("tainter", `{"spec":{"template":{"spec":{"tolerations":[{"key":"x","operator":"Exists"}]}}}}`)
		},
			[]string{`.spec.template.spec.tolerations:  → [{"key":"x","operator":"Exists"}] tainter`}},
		{"a removed label", "Deployment.apps", func() { patch("x", `{"metadata":{"labels":{"pinion.dev/service":null}}}`) },
			[]string{`.metadata.labels["pinion.dev/service"]: web →  `}},
		{"a Secret", "Secret", func() { s.edit(s.admins("", "v1", "secrets"), "key", `{"data":{"password":"b3RoZXI="}}`) },
			[]string{".data.password: (secret) → (secret) kubectl-edit"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := named(test.ref)
			if _, err := s.c.Apply(s.ctx, o, commit, cluster.ApplyOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
			test.change()
			d, err := s.c.Drift(s.ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range d.Changes {
				got = append(got, fmt.Sprintf("%s: %s → %s %s", c.Path, c.Old, c.New, c.Manager))
			}
			if !slices.Equal(got, test.want) || d.Deleted || !d.Ours {
				t.Errorf("got %q, %v, %v\nwant %q", got, d.Deleted, d.Ours, test.want)
			}
		})
	}
	if err := deployments.Delete(s.ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if d, err := s.c.Drift(s.ctx, named("Deployment.apps")); err != nil || !d.Deleted || d.Ours || len(d.Changes) > 0 {
		t.Errorf("deleted: %+v, %v", d, err)
	}
}
