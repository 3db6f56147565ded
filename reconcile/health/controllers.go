package health

import (
	"fmt"
	"strings"
)

// ready judges by the condition Ready, and by those that say that a controller
// is at it or has given up (https://github.com/kubernetes-sigs/cli-utils, Flux).
func ready(o object) (Health, bool) {
	if c, _ := o.condition("Stalled"); c.status == "True" && !o.stale(c) {
		return failed(c.about())
	}
	if c, _ := o.condition("Reconciling"); c.status == "True" && !o.stale(c) {
		return progressing(c.or("its controller is at it"))
	}
	return conditionTrue(o, "Ready")
}

func synced(o object) (Health, bool) { return conditionTrue(o, "Synced") }

// argoRollout judges a Rollout of Argo Rollouts, which writes its observed
// generation as text.
func argoRollout(o object) (Health, bool) {
	phase, message := o.text("status", "phase"), o.text("status", "message")
	said := condition{reason: phase, message: message}.words()
	switch {
	case phase == "":
		return progressing(silent)
	case o.unseen():
		return progressing(outrun)
	case phase == "Healthy":
		return current()
	case phase == "Degraded":
		return failed(said)
	case phase == "Paused":
		return progressing(said + "; it goes on when it is promoted, or its pause ends")
	}
	return progressing(said)
}

// certificate has failed when its last issuance has, and nothing valid is there
// from before: the next try is an hour away, or more.
func certificate(o object) (Health, bool) {
	h, _ := ready(o)
	if h.Status == Current {
		return h, true
	}
	issuing, _ := o.condition("Issuing")
	if o.at("status", "lastFailureTime") != nil && issuing.status != "True" && !o.stale(issuing) {
		return failed("the certificate was not issued: " + issuing.or("its CertificateRequest has failed"))
	}
	if issuing.status == "True" && issuing.words() != "" {
		h.Message += "; " + issuing.about()
	}
	return h, true
}

// certificateRequest is never tried again.
func certificateRequest(o object) (Health, bool) {
	for _, kind := range []string{"Denied", "InvalidRequest"} {
		if c, _ := o.condition(kind); c.status == "True" {
			return failed(c.about())
		}
	}
	if c, _ := o.condition("Ready"); c.status == "False" && (c.reason == "Failed" || c.reason == "Denied") {
		return failed(c.about())
	}
	return ready(o)
}

func gatewayClass(o object) (Health, bool) { return conditionTrue(o, "Accepted") }

// gateway is there when what it asks for is programmed into the data plane.
func gateway(o object) (Health, bool) {
	// The API server writes both with the reason Pending when it is made.
	if h, _ := conditionTrue(o, "Accepted"); h.Status != Current {
		return h, true
	}
	return conditionTrue(o, "Programmed")
}

// route is there when each parent that it names has accepted it.
func route(o object) (Health, bool) {
	parents := o.list("status", "parents")
	for _, x := range o.list("spec", "parentRefs") {
		m, _ := x.(map[string]any)
		want := object(m)
		name := want.text("name")
		if section := want.text("sectionName"); section != "" {
			name += "/" + section
		}
		found := false
		for _, y := range parents {
			m, _ := y.(map[string]any)
			parent := object(m)
			if !sameParent(want, parent) {
				continue
			}
			found = true
			conditions := conditionsOf(parent.list("conditions"))
			accepted, said := find(conditions, "Accepted")
			switch {
			case !said:
				return progressing(fmt.Sprintf("%s has not said yet whether it accepts it", name))
			case o.stale(accepted):
				return progressing(outrun)
			case accepted.status != "True":
				return progressing(name + ": " + accepted.about())
			}
			if resolved, _ := find(conditions, "ResolvedRefs"); resolved.status == "False" {
				return progressing(name + ": " + resolved.about())
			}
		}
		if !found {
			return progressing(fmt.Sprintf("no controller has taken it up for %s", name))
		}
	}
	return current()
}

// sameParent tells whether a status is that of a reference: what the one leaves
// out, a controller may write.
func sameParent(want, status object) bool {
	for _, key := range []string{"name", "sectionName"} {
		if want.text(key) != status.text("parentRef", key) {
			return false
		}
	}
	if ns := want.text("namespace"); ns != "" && status.text("parentRef", "namespace") != ns {
		return false
	}
	return want.number(0, "port") == status.number(0, "parentRef", "port")
}

// crossplane judges what has both of Crossplane's conditions, or is told to be
// its by its spec.
func crossplane(o object) (Health, bool) {
	sync, hasSync := o.condition("Synced")
	is, hasReady := o.condition("Ready")
	managed := o.at("spec", "forProvider") != nil
	if o.group() == "" || !managed && !(hasSync && hasReady) {
		return undecided()
	}
	switch {
	case !hasSync && !hasReady:
		return progressing(silent)
	case o.stale(sync) || o.stale(is):
		return progressing(outrun)
	case hasSync && sync.status != "True":
		return progressing(sync.about())
	case !hasReady:
		return progressing(pending + "ready")
	case is.status != "True":
		return progressing(is.about())
	case !hasSync:
		return progressing(pending + "synced")
	}
	return current()
}

// knative judges the kinds of Knative, where False says that it has failed, and
// Unknown that it is on its way.
func knative(o object) (Health, bool) {
	if !strings.HasSuffix(o.group(), ".knative.dev") {
		return undecided()
	}
	c, said := o.condition("Ready")
	switch {
	case !said && o.at("spec") == nil:
		return undecided() // it has nothing to become
	case !said:
		return progressing(silent)
	case o.number(-1, "status", "observedGeneration") >= 0 && o.unseen():
		return progressing(outrun)
	case c.status == "True":
		return current()
	case c.status == "False":
		return failed(c.about())
	}
	return progressing(c.about())
}

// readyGeneration keeps a condition Ready of an older generation from counting,
// which kstatus does not look at.
func readyGeneration(o object) (Health, bool) {
	if c, said := o.condition("Ready"); said && o.stale(c) {
		return progressing(outrun)
	}
	return undecided()
}
