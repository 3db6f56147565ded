package cluster_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/internal/devtest"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// dry is what the API server says to a dry run.
func (s *stand) dry(manifest string) error {
	s.Helper()
	_, err := s.c.DryRun(s.ctx, s.object(manifest), commit, cluster.ApplyOptions{})
	return err
}

// The API server has many words for a field that can't be changed.
func TestImmutableFields(t *testing.T) {
	s := newStand(t, devtest.Cluster(t))
	for _, test := range []struct {
		name, manifest, old, new string
		field                    string
	}{
		{"selector of a Deployment", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {replicas: 0, selector: {matchLabels: {x: w}}, template: {metadata: {labels: {x: w, z: z}}, spec: {containers: [{name: a, image: a}]}}}",
			"matchLabels: {x: w}", "matchLabels: {z: z}", "spec.selector"},
		{"template of a Job", "apiVersion: batch/v1\nkind: Job\nmetadata: {name: a}\nspec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: a, image: a}]}}}",
			"image: a", "image: b", "spec.template.spec"},
		{"address of a Service", "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: None, ipFamilyPolicy: SingleStack, ipFamilies: [IPv4], ports: [{port: 80}]}",
			"clusterIP: None", "clusterIP: 10.96.7.77", "spec.clusterIPs[0]"},
		{"an immutable ConfigMap", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nimmutable: true\ndata: {a: b}", "a: b", "a: c", "data"},
		{"type of a Secret", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ntype: example.com/a", "com/a", "com/b", "type"},
		{"role of a RoleBinding", "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: a}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}",
			"name: view", "name: edit", "roleRef"},
		{"provisioner of a StorageClass", "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: NAME}\nprovisioner: example.com/a", "com/a", "com/b", "provisioner"},
		{"class of a claim", "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: a}\nspec: {storageClassName: a, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}",
			"storageClassName: a", "storageClassName: b", "spec"},
		{"volumes of a StatefulSet", "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: a}\nspec: {replicas: 0, serviceName: a, selector: {matchLabels: {x: w}}, template: {metadata: {labels: {x: w}}, spec: {containers: [{name: a, image: a}]}}, volumeClaimTemplates: [{metadata: {name: d}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}]}",
			"storage: 1Mi", "storage: 2Mi", "spec.volumeClaimTemplates[0].spec.resources.requests.storage"},
	} {
		t.Run(test.name, func(t *testing.T) {
			manifest := strings.ReplaceAll(test.manifest, "NAME", s.namespace)
			s.apply(s.object(manifest))
			changed := strings.Replace(manifest, test.old, test.new, 1)
			e := as[*cluster.ImmutableError](t, s.dry(changed))
			if fmt.Sprint(e.Fields) != "["+test.field+"]" {
				t.Errorf("fields %q of %s", e.Fields, e)
			}
		})
	}
	// If something else is wrong besides, it is not replaced for nothing.
	s.apply(s.object("apiVersion: batch/v1\nkind: Job\nmetadata: {name: b}\nspec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: a, image: a}]}}}"))
	as[*cluster.InvalidError](t, s.dry("apiVersion: batch/v1\nkind: Job\nmetadata: {name: b}\nspec: {suspend: true, backoffLimit: -1, template: {spec: {restartPolicy: Never, containers: [{name: a, image: b}]}}}"), "immutable", "backoffLimit")
}

// What is too large for the cluster's store is known before anything is written.
func TestObjectsThatAreLarge(t *testing.T) {
	s := newStand(t, devtest.Cluster(t))
	configMap := func(kib int) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: large}\ndata: {a: " + strings.Repeat("x", kib<<10) + "}"
	}
	s.apply(s.object(configMap(900)))
	if err := s.dry(configMap(901)); err != nil {
		t.Error(err)
	}
	as[*cluster.InvalidError](t, s.dry(configMap(1025)), "1048576")
	as[*cluster.InvalidError](t, s.dry("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: noted, annotations: {a: "+strings.Repeat("x", 257<<10)+"}}"), "metadata.annotations", "262144")
	definition := func(kib int) render.Object {
		return s.object("apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: larges." + s.namespace + ".example}\nspec: {group: " + s.namespace +
			".example, scope: Namespaced, names: {kind: Large, plural: larges}, versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, description: " + strings.Repeat("x", kib<<10) + "}}}]}")
	}
	if _, err := s.c.DryRun(s.ctx, definition(1100), commit, cluster.ApplyOptions{}); err != nil {
		t.Error(err)
	}
	_, err := s.c.DryRun(s.ctx, definition(1550), commit, cluster.ApplyOptions{})
	as[*cluster.TooLargeError](t, err, "it has 155", "no object of more than 1536 KiB")
	_, err = s.c.DryRun(s.ctx, definition(3100), commit, cluster.ApplyOptions{})
	as[*cluster.TooLargeError](t, err, "larger than the cluster keeps")
	_, err = s.c.Apply(s.ctx, definition(1550), commit, cluster.ApplyOptions{})
	as[*cluster.TooLargeError](t, err)
}
