package health

import "fmt"

// table has the kinds that are judged by a function of their own, by
// "Kind.group".
var table = map[string]func(object) (Health, bool){
	"Deployment.apps":                     deployment,
	"StatefulSet.apps":                    statefulSet,
	"DaemonSet.apps":                      daemonSet,
	"Pod":                                 pod,
	"Job.batch":                           job,
	"CronJob.batch":                       always,
	"Service":                             service,
	"Ingress.networking.k8s.io":           always, // many controllers never write an address
	"HorizontalPodAutoscaler.autoscaling": autoscaler,
	"APIService.apiregistration.k8s.io":   apiService,

	"Rollout.argoproj.io": argoRollout,

	"Certificate.cert-manager.io":        certificate,
	"CertificateRequest.cert-manager.io": certificateRequest,
	"Issuer.cert-manager.io":             ready,
	"ClusterIssuer.cert-manager.io":      ready,

	"GatewayClass.gateway.networking.k8s.io": gatewayClass,
	"Gateway.gateway.networking.k8s.io":      gateway,
	"HTTPRoute.gateway.networking.k8s.io":    route,
	"GRPCRoute.gateway.networking.k8s.io":    route,
	"TLSRoute.gateway.networking.k8s.io":     route,
	"TCPRoute.gateway.networking.k8s.io":     route,
	"UDPRoute.gateway.networking.k8s.io":     route,

	"ExternalSecret.external-secrets.io":        ready,
	"ClusterExternalSecret.external-secrets.io": ready,
	"PushSecret.external-secrets.io":            ready,
	"SecretStore.external-secrets.io":           ready,
	"ClusterSecretStore.external-secrets.io":    ready,

	"ScaledObject.keda.sh": ready,
	"ScaledJob.keda.sh":    ready,

	"Kustomization.kustomize.toolkit.fluxcd.io":     ready,
	"HelmRelease.helm.toolkit.fluxcd.io":            ready,
	"GitRepository.source.toolkit.fluxcd.io":        ready,
	"HelmChart.source.toolkit.fluxcd.io":            ready,
	"Bucket.source.toolkit.fluxcd.io":               ready,
	"OCIRepository.source.toolkit.fluxcd.io":        ready,
	"ImageRepository.image.toolkit.fluxcd.io":       ready,
	"ImagePolicy.image.toolkit.fluxcd.io":           ready,
	"ImageUpdateAutomation.image.toolkit.fluxcd.io": ready,
	"Receiver.notification.toolkit.fluxcd.io":       ready,
	"SealedSecret.bitnami.com":                      synced,
}

// styles are judged by what an object looks like, whatever its kind.
var styles = []func(object) (Health, bool){crossplane, knative, readyGeneration}

func always(object) (Health, bool) { return current() }

// deployment judges one that is paused: its controller says of it neither that
// it progresses nor that it is done.
func deployment(o object) (Health, bool) {
	if !o.flag("spec", "paused") || o.unseen() {
		return undecided()
	}
	want := o.number(1, "spec", "replicas")
	updated, all := o.number(0, "status", "updatedReplicas"), o.number(0, "status", "replicas")
	if updated < want || all > updated {
		return progressing(fmt.Sprintf("it is paused with %d of %d pods of its newest template; it goes on when spec.paused is false", updated, want))
	}
	return enough(o.number(0, "status", "availableReplicas"), want)
}

func enough(available, want int64) (Health, bool) {
	if available < want {
		return progressing(fmt.Sprintf("Available: %d/%d", available, want))
	}
	return current()
}

// statefulSet judges what is replaced only when somebody deletes a pod, and
// pods that have to be ready for a while.
func statefulSet(o object) (Health, bool) {
	want := o.number(1, "spec", "replicas")
	if o.text("spec", "updateStrategy", "type") != "OnDelete" {
		// Ready is not yet available.
		if o.number(0, "spec", "minReadySeconds") > 0 && !o.unseen() && o.number(0, "status", "readyReplicas") >= want {
			if h, _ := enough(o.number(0, "status", "availableReplicas"), want); h.Status != Current {
				return h, true
			}
		}
		return undecided()
	}
	if o.number(-1, "status", "observedGeneration") < o.generation() {
		return progressing(outrun)
	}
	if all := o.number(0, "status", "replicas"); all != want {
		return progressing(fmt.Sprintf("Replicas: %d/%d", all, want))
	}
	if n := o.number(0, "status", "readyReplicas"); n < want {
		return progressing(fmt.Sprintf("Ready: %d/%d", n, want))
	}
	return enough(o.number(want, "status", "availableReplicas"), want)
}

// daemonSet judges one whose pods are replaced only when somebody deletes them.
func daemonSet(o object) (Health, bool) {
	if o.text("spec", "updateStrategy", "type") != "OnDelete" {
		return undecided()
	}
	if o.number(-1, "status", "observedGeneration") < o.generation() {
		return progressing(outrun)
	}
	want := o.number(0, "status", "desiredNumberScheduled")
	if n := o.number(0, "status", "currentNumberScheduled"); n < want {
		return progressing(fmt.Sprintf("Current: %d/%d", n, want))
	}
	return enough(o.number(0, "status", "numberAvailable"), want)
}

// pod does not fail for what its kubelet tries again, nor is it well because it
// has ended.
func pod(o object) (Health, bool) {
	why := ""
	for _, list := range []string{"initContainerStatuses", "containerStatuses"} {
		for _, x := range o.list("status", list) {
			m, _ := x.(map[string]any)
			c := object(m)
			if r := c.text("state", "waiting", "reason"); why == "" && r != "" && r != "ContainerCreating" && r != "PodInitializing" {
				why = condition{reason: r, message: c.text("state", "waiting", "message")}.words()
				why = "container " + c.text("name") + ": " + why
			}
		}
	}
	switch phase := o.text("status", "phase"); phase {
	case "Succeeded":
		return current()
	case "Failed":
		return failed(condition{reason: o.text("status", "reason"), message: o.text("status", "message")}.or("it has ended, and not successfully"))
	case "Running":
		if c, _ := o.condition("Ready"); c.status == "True" {
			return current()
		} else if why == "" {
			why = c.or("it is not ready")
		}
	default:
		if c, _ := o.condition("PodScheduled"); why == "" && c.status == "False" {
			why = c.or("it is not scheduled")
		}
	}
	if why == "" {
		why = "it is not running yet"
	}
	return progressing(why)
}

// or returns the condition's words, or others if it has none.
func (c condition) or(otherwise string) string {
	if words := c.words(); words != "" {
		return words
	}
	return otherwise
}

// job is done when it is complete: one that runs may still fail.
func job(o object) (Health, bool) {
	if c, _ := o.condition("Complete"); c.status == "True" {
		return current()
	}
	if c, _ := o.condition("Failed"); c.status == "True" {
		return failed("the Job has failed: " + c.or("it does not say why"))
	}
	active, bad := o.number(0, "status", "active"), o.number(0, "status", "failed")
	switch {
	case o.flag("spec", "suspend"):
		return progressing("it is suspended")
	case active == 0 && bad == 0:
		return progressing("it has not started yet")
	case bad > 0:
		return progressing(fmt.Sprintf("it runs (active: %d, failed: %d)", active, bad))
	}
	return progressing(fmt.Sprintf("it runs (active: %d)", active))
}

// ClassOf returns the storage class on which it depends how a claim is judged:
// that of one that is not bound, and for which nothing is provisioned yet.
func ClassOf(content map[string]any) string {
	o := object(content)
	if o.kind() != "PersistentVolumeClaim" || o.text("status", "phase") == "Bound" || o.text("spec", "volumeName") != "" {
		return ""
	}
	marks, _ := o.at("metadata", "annotations").(map[string]any)
	if marks["volume.kubernetes.io/selected-node"] != nil {
		return ""
	}
	return o.text("spec", "storageClassName")
}

// claim does not hold up a rollout because no pod uses it yet, if its class
// waits for one: it would wait for ever.
func claim(o object, fact Fact) Health {
	phase := o.text("status", "phase")
	switch {
	case phase == "Bound":
		return Health{Status: Current}
	case phase == "Lost":
		return Health{Status: Failed, Message: "its volume is lost"}
	case ClassOf(o) != "" && fact.Binding == "WaitForFirstConsumer":
		return Health{Status: Current, Message: "it is bound when a pod uses it"}
	}
	if phase == "" {
		phase = "unknown"
	}
	h := Health{Status: InProgress, Message: "PVC is not Bound. phase: " + phase}
	if ClassOf(o) != "" && fact.Unread != "" {
		h.Message += "; whether its class waits for a pod is not known: " + fact.Unread
	}
	return h
}

// service waits for the address of a load balancer.
func service(o object) (Health, bool) {
	if o.text("spec", "type") != "LoadBalancer" || len(o.list("status", "loadBalancer", "ingress")) > 0 {
		return current()
	}
	return progressing("it waits for the address of its load balancer")
}

// autoscaler is well without metrics, which come only some time after the pods.
// One whose target is not there is not.
func autoscaler(o object) (Health, bool) {
	if c, _ := o.condition("AbleToScale"); c.status == "False" {
		return progressing(c.about())
	}
	return current()
}

func apiService(o object) (Health, bool) { return conditionTrue(o, "Available") }

// conditionTrue judges by one condition.
func conditionTrue(o object, kind string) (Health, bool) {
	if o.unseen() {
		return progressing(outrun)
	}
	c, said := o.condition(kind)
	switch {
	case !said:
		return progressing(silent)
	case o.stale(c):
		return progressing(outrun)
	case c.status == "True":
		return current()
	}
	return progressing(c.about())
}
