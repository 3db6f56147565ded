package cluster_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/reconcile/health"
	"github.com/pinion-cd/pinion/render"
)

// definition is a CustomResourceDefinition of the kind Database with a status,
// in the stand's own group and in the versions that are given.
func (s *stand) definition(versions ...string) render.Object {
	var list strings.Builder
	for i, v := range versions {
		fmt.Fprintf(&list, `
  - name: %s
    served: true
    storage: %t
    subresources: {status: {}}
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}`, v, i == 0)
	}
	return s.object(strings.NewReplacer("GROUP", s.namespace+".example", "VERSIONS", list.String()).Replace(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: databases.GROUP}
spec:
  group: GROUP
  names: {kind: Database, plural: databases, singular: database}
  scope: Namespaced
  versions:VERSIONS
`))
}

// define applies a definition, and takes it away when the test ends.
func (s *stand) define(definition render.Object) {
	s.Helper()
	s.apply(definition)
	if err := s.c.Established(s.ctx, []render.Object{definition}); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		s.admin.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}).
			Delete(context.Background(), definition.Ref.Name, metav1.DeleteOptions{})
	})
}

// setStatus writes a status as a controller would.
func (s *stand) setStatus(version, name, status string) {
	s.Helper()
	r := s.admins(s.namespace+".example", version, "databases")
	if _, err := r.Patch(s.ctx, name, types.MergePatchType, []byte(`{"status":`+status+`}`), metav1.PatchOptions{FieldManager: "controller"}, "status"); err != nil {
		s.Fatal(err)
	}
}

// rules gives a service health rules.
func (s *stand) rules(service string, rules ...desired.HealthRule) {
	s.Helper()
	compiled, err := health.Compile(rules)
	if err != nil {
		s.Fatal(err)
	}
	s.c.SetHealth(cluster.Key{Environment: s.scope.Environment, Service: desired.ServiceName(service)}, compiled)
}

func (s *stand) rule(version, current string) desired.HealthRule {
	return desired.HealthRule{Group: s.namespace + ".example", Version: version, Kind: "Database", Current: desired.Expression{Text: current}}
}

// untilHealth waits until an object does as is said.
func (s *stand) untilHealth(o render.Object, status cluster.Status, words string) {
	s.Helper()
	s.until(s.c, func() string {
		have, ok := s.look(s.c, o)
		if ok && have.Health.Status == status && strings.Contains(have.Health.Message, words) {
			return ""
		}
		return fmt.Sprintf("%s is %+v", o.Ref, have.Health)
	})
}

func TestHealthRules(t *testing.T) {
	s := newStand(t, "")
	s.define(s.definition("v1", "v1beta1"))
	database := func(service, name string) render.Object {
		s.service = service
		return s.object("apiVersion: " + s.namespace + ".example/v1\nkind: Database\nmetadata: {name: " + name + "}\nspec: {size: 1}\n")
	}
	a, b, plain := database("web", "a"), database("api", "b"), database("plain", "c")
	s.rules("web", s.rule("v1", "object.status.phase == 'Ready'"))
	s.rules("api", s.rule("v1", "object.status.phase in ['Ready', 'Warm']"))
	s.apply(a, b, plain)

	// What a service says holds for its own objects: the rules of two differ.
	s.untilHealth(a, cluster.InProgress, "no such key: status")
	s.untilHealth(b, cluster.InProgress, "no such key: status")
	s.untilHealth(plain, cluster.Current, "")
	s.setStatus("v1", "a", `{"phase":"Warm"}`)
	s.setStatus("v1", "b", `{"phase":"Warm"}`)
	s.untilHealth(a, cluster.InProgress, "is not satisfied: object.status.phase == 'Ready' (Warm)")
	s.untilHealth(b, cluster.Current, "")

	// A rule that comes later is applied to what is there, and until then
	// nothing counts as healthy. It costs one list, however many objects.
	before := s.c.Requests()
	s.rules("web", s.rule("v1", "object.status.phase == 'Warm'"))
	if have, _ := s.look(s.c, a); have.Health.Status == cluster.Current && have.Health.Message != "" {
		t.Errorf("before it is judged: %+v", have.Health)
	}
	s.untilHealth(a, cluster.Current, "")
	if after := s.c.Requests(); after["list"] != before["list"]+1 || after["patch"] != before["patch"] {
		t.Errorf("requests before %v, after %v", before, after)
	}
	s.rules("api", s.rule("v1", "object.status.phase == 'Ready'"))
	s.untilHealth(b, cluster.InProgress, "is not satisfied")

	// The same rule again is nothing new.
	s.rules("api", s.rule("v1", "object.status.phase == 'Ready'"))
	if have, _ := s.look(s.c, b); !strings.Contains(have.Health.Message, "is not satisfied") {
		t.Errorf("after the same rule: %+v", have.Health)
	}

	// Without a rule, kstatus judges.
	s.rules("web")
	s.untilHealth(a, cluster.Current, "Resource is current")
	s.setStatus("v1", "a", `{"conditions":[{"type":"Ready","status":"False","reason":"Gone"}]}`)
	s.untilHealth(a, cluster.InProgress, "")

	// Rules for another version have the kind watched in that version.
	s.rules("api", s.rule("v1beta1", "object.apiVersion.endsWith('/v1beta1') && object.status.phase == 'Warm'"))
	s.untilHealth(b, cluster.Current, "")
	s.rules("api", s.rule("v3", "object.status.phase == 'Warm'"))
	s.untilHealth(b, cluster.InProgress, "and the service's health rule is for v3")
}

// A kind of which only the metadata is watched is watched in full for a rule,
// and nothing is missing meanwhile.
func TestHealthRuleForMetadata(t *testing.T) {
	s := newStand(t, "")
	o := s.object("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\n")
	other := s.object("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\ndata: {a: b}\n")
	s.apply(o, other)
	s.untilHealthy(s.c, o, other)
	s.rules("web", desired.HealthRule{Version: "v1", Kind: "ConfigMap", Current: desired.Expression{Text: "object.metadata.name != 'settings' || has(object.data) && object.data.ready == 'yes'"}})
	if _, there := s.look(s.c, o); !there {
		t.Error("it is not shown while it is watched anew")
	}
	s.untilHealth(o, cluster.InProgress, "is not satisfied")
	s.untilHealth(other, cluster.Current, "")
	s.edit(s.admins("", "v1", "configmaps"), "settings", `{"data":{"ready":"yes"}}`)
	s.untilHealth(o, cluster.Current, "")
	if seen := s.c.Observe(s.scope); !seen.Complete {
		t.Error(seen.Incomplete)
	}
	// The inventory is a ConfigMap, too, and still seen to change.
	s.apply(s.object("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: x}\n"))
	s.rules("web")
	s.untilHealthy(s.c, o, other)
}

func TestClaimsThatWaitForAPod(t *testing.T) {
	s := newStand(t, "")
	classes := s.admin.Resource(schema.GroupVersionResource{Group: "storage.k8s.io", Version: "v1", Resource: "storageclasses"})
	for name, mode := range map[string]string{"waits": "WaitForFirstConsumer", "hurries": "Immediate"} {
		class := s.object("apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: " + s.namespace + "-" + name + "}\nprovisioner: nobody.example\nvolumeBindingMode: " + mode + "\n")
		if _, err := classes.Patch(s.ctx, s.namespace+"-"+name, types.ApplyPatchType, class.JSON, metav1.PatchOptions{FieldManager: "kubectl"}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { classes.Delete(context.Background(), s.namespace+"-"+name, metav1.DeleteOptions{}) })
	}
	claim := func(name string) render.Object {
		return s.object("apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: " + name + "}\nspec: {storageClassName: " + s.namespace + "-" + name +
			", accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n")
	}
	waits, hurries, lost := claim("waits"), claim("hurries"), claim("none")
	s.apply(waits, hurries, lost)
	s.untilHealth(waits, cluster.Current, "")
	s.untilHealth(hurries, cluster.InProgress, "PVC is not Bound. phase: Pending")
	s.untilHealth(lost, cluster.InProgress, "there is no StorageClass "+s.namespace+"-none")
}

// A definition whose names are taken is named as the reason, and not waited for.
func TestDefinitionThatIsNotEstablished(t *testing.T) {
	s := newStand(t, "")
	s.define(s.definition("v1"))
	other := s.object(strings.NewReplacer("GROUP", s.namespace+".example").Replace(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: bases.GROUP}
spec:
  group: GROUP
  names: {kind: Database, plural: bases, singular: base, shortNames: [bs]}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
`))
	s.apply(other)
	t.Cleanup(func() {
		s.admin.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}).
			Delete(context.Background(), other.Ref.Name, metav1.DeleteOptions{})
	})
	as[*cluster.NotEstablishedError](t, s.c.Established(s.ctx, []render.Object{other}), "bases."+s.namespace+".example", "is already in use")
}

// A definition that gets another version is followed, with the objects that are
// stored; a version that objects are stored in can't be taken away, and that is
// said before anything is written.
func TestDefinitionChangesVersion(t *testing.T) {
	s := newStand(t, "")
	old, both := s.definition("v1alpha1"), s.definition("v1", "v1alpha1")
	s.define(old)
	database := func(version string) render.Object {
		return s.object("apiVersion: " + s.namespace + ".example/" + version + "\nkind: Database\nmetadata: {name: a}\nspec: {size: 1}\n")
	}
	s.apply(database("v1alpha1"))
	s.untilHealthy(s.c, database("v1alpha1"))

	_, err := s.c.DryRun(s.ctx, s.definition("v1"), commit, cluster.ApplyOptions{})
	as[*cluster.InvalidError](t, err, "status.storedVersions")

	s.apply(both)
	if err := s.c.Established(s.ctx, []render.Object{both}); err != nil {
		t.Fatal(err)
	}
	s.apply(database("v1"))
	s.until(s.c, func() string {
		if have, ok := s.look(s.c, database("v1")); !ok || have.Health.Status != cluster.Current || have.Digest != database("v1").Digest {
			return "the object is not seen as it was applied"
		}
		return ""
	})

	// The old version is served no longer: the watch goes on in the new one.
	crds := s.admin.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	if _, err := crds.Patch(s.ctx, both.Ref.Name, types.JSONPatchType, []byte(`[{"op":"replace","path":"/spec/versions/1/served","value":false}]`), metav1.PatchOptions{FieldManager: "kubectl"}); err != nil {
		t.Fatal(err)
	}
	s.until(s.c, func() string {
		s.edit(s.admins(s.namespace+".example", "v1", "databases"), "a", `{"metadata":{"labels":{"seen":"`+fmt.Sprint(time.Now().UnixNano())+`"}}}`)
		if seen := s.c.Observe(s.scope); !seen.Complete {
			return strings.Join(seen.Incomplete, "; ")
		}
		if have, ok := s.look(s.c, database("v1")); !ok || have.Version != "v1" {
			return "it is not seen in version v1"
		}
		return ""
	})
}
