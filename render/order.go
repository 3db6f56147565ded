package render

import "cmp"

// The order in which objects are applied: first what others need to exist,
// last what stands in the way of others. It is the order of fluxcd/pkg/ssa
// (ReconcileOrder), by which other tools of the field apply, too; kinds that
// are not listed come in between.
var (
	first = []string{
		"CustomResourceDefinition",
		"Namespace",
		"ClusterRole",
		"ClusterClass",
		"RuntimeClass",
		"PriorityClass",
		"StorageClass",
		"VolumeSnapshotClass",
		"IngressClass",
		"GatewayClass",
		"ClusterRoleBinding",
		"ResourceQuota",
		"ServiceAccount",
		"Role",
		"RoleBinding",
		"ConfigMap",
		"Secret",
		"Service",
		"LimitRange",
		"Deployment",
		"StatefulSet",
		"CronJob",
		"PodDisruptionBudget",
	}
	last = []string{
		"MutatingWebhookConfiguration",
		"ValidatingWebhookConfiguration",
	}
	rank = ranks()
)

func ranks() map[string]int {
	m := make(map[string]int, len(first)+len(last))
	for i, kind := range first {
		m[kind] = i - len(first)
	}
	for i, kind := range last {
		m[kind] = i + 1
	}
	return m
}

// CompareOrder orders refs as they are to be applied. The reverse is the
// order in which they are to be deleted.
func CompareOrder(a, b Ref) int {
	return cmp.Or(cmp.Compare(rank[a.Kind], rank[b.Kind]), a.Compare(b))
}
