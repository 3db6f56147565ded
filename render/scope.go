package render

import "strings"

// groupKind names a kind, whatever its version.
type groupKind struct{ group, kind string }

// The kinds that lie in no namespace: those of Kubernetes itself, of any
// version, and those of widely used extensions. Any other kind lies in one,
// unless its definition is among the objects and says otherwise.
var clusterScoped = map[string]string{
	"":                                "ComponentStatus Namespace Node PersistentVolume",
	"admissionregistration.k8s.io":    "MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration",
	"apiextensions.k8s.io":            "CustomResourceDefinition",
	"apiregistration.k8s.io":          "APIService",
	"certificates.k8s.io":             "CertificateSigningRequest ClusterTrustBundle",
	"flowcontrol.apiserver.k8s.io":    "FlowSchema PriorityLevelConfiguration",
	"internal.apiserver.k8s.io":       "StorageVersion",
	"networking.k8s.io":               "ClusterCIDR IPAddress IngressClass ServiceCIDR",
	"node.k8s.io":                     "RuntimeClass",
	"policy":                          "PodSecurityPolicy",
	"rbac.authorization.k8s.io":       "ClusterRole ClusterRoleBinding",
	"resource.k8s.io":                 "DeviceClass DeviceTaintRule ResourceSlice",
	"scheduling.k8s.io":               "PriorityClass",
	"storage.k8s.io":                  "CSIDriver CSINode StorageClass VolumeAttachment VolumeAttributesClass",
	"storagemigration.k8s.io":         "StorageVersionMigration",
	"snapshot.storage.k8s.io":         "VolumeSnapshotClass VolumeSnapshotContent",
	"gateway.networking.k8s.io":       "GatewayClass",
	"cert-manager.io":                 "ClusterIssuer",
	"trust.cert-manager.io":           "Bundle",
	"external-secrets.io":             "ClusterExternalSecret ClusterPushSecret ClusterSecretStore",
	"kyverno.io":                      "ClusterCleanupPolicy ClusterPolicy",
	"keda.sh":                         "ClusterTriggerAuthentication",
	"cilium.io":                       "CiliumBGPPeeringPolicy CiliumClusterwideEnvoyConfig CiliumClusterwideNetworkPolicy CiliumLoadBalancerIPPool CiliumNode",
	"crd.projectcalico.org":           "BGPConfiguration BGPPeer FelixConfiguration GlobalNetworkPolicy GlobalNetworkSet IPPool",
	"karpenter.sh":                    "NodeClaim NodePool",
	"karpenter.k8s.aws":               "EC2NodeClass",
	"templates.gatekeeper.sh":         "ConstraintTemplate",
	"pkg.crossplane.io":               "Configuration Function Provider",
	"apiextensions.crossplane.io":     "CompositeResourceDefinition Composition",
	"argoproj.io":                     "ClusterAnalysisTemplate ClusterWorkflowTemplate",
	"policy.networking.k8s.io":        "AdminNetworkPolicy BaselineAdminNetworkPolicy",
	"infrastructure.cluster.x-k8s.io": "AWSClusterControllerIdentity AWSClusterRoleIdentity AWSClusterStaticIdentity",
}

// isClusterScoped answers from what is known by heart.
func (k groupKind) isClusterScoped() bool {
	for kind := range strings.SplitSeq(clusterScoped[k.group], " ") {
		if kind == k.kind {
			return true
		}
	}
	return false
}

// definitions returns the kinds that the objects define, true for those of
// the cluster's scope.
func definitions(sources []source) map[groupKind]bool {
	defined := map[groupKind]bool{}
	for _, s := range sources {
		m, _ := s.value.(map[string]any)
		if m["kind"] != "CustomResourceDefinition" {
			continue
		}
		spec, _ := m["spec"].(map[string]any)
		names, _ := spec["names"].(map[string]any)
		group, _ := spec["group"].(string)
		kind, _ := names["kind"].(string)
		defined[groupKind{group, kind}] = spec["scope"] == "Cluster"
	}
	return defined
}
