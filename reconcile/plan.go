package reconcile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// Verb is what an action does to an object.
type Verb string

// The verbs of a plan.
const (
	Create  Verb = "create"  // the object is not there, as far as we see
	Update  Verb = "update"  // the object is ours and differs from the commit
	Correct Verb = "correct" // the object is as the commit wants it, but somebody has changed fields of it
	Restore Verb = "restore" // the object was there as the commit wants it, and somebody has deleted it
	Adopt   Verb = "adopt"   // the object is there, and not ours
	Replace Verb = "replace" // fields of the object can't be changed: it is deleted, and made anew
	Wait    Verb = "wait"    // the object is being deleted: it is made again when it is gone
	None    Verb = "none"    // in sync
)

// Action is one object and what is to be done with it.
type Action struct {
	Verb   Verb       `json:"verb"`
	Ref    render.Ref `json:"object"`
	Reason string     `json:"reason"`
	// Managers are those who have written to what is adopted.
	Managers []string `json:"managers,omitempty"`
	// Propagation says what becomes of what a replaced object owns.
	Propagation cluster.Propagation `json:"propagation,omitempty"`
	// Index is the object's place in the target's rendering.
	Index int `json:"-"`
}

// Plan is what is to be done for one service in one environment. It is a
// value: it can be printed, compared, and carried out by Engine.
type Plan struct {
	Key
	// Stages are applied one after the other; the actions of a stage may be
	// carried out side by side.
	Stages [][]Action `json:"stages"`
	// Refused says, if not empty, why nothing at all is applied.
	Refused  []string `json:"refused,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	// commit is what the objects that are in sync come from.
	commit string
}

// PlanInput is all that a plan is made from.
type PlanInput struct {
	Target *Target
	// Observed are the objects that the cluster shows with our labels, by Ref.
	Observed map[render.Ref]cluster.Observed
	// Claims are the other services that render an object of the target.
	Claims map[render.Ref][]Key
	// Foreign are the objects that belong to another deployment repository, with
	// words for it.
	Foreign map[render.Ref]string
	// Over are the Jobs that have run and removed themselves, with the digests
	// that they were applied with.
	Over map[render.Ref]string
	// Settled: all of the target was once in the cluster.
	Settled bool
}

// Empty tells whether the plan changes nothing and refuses nothing.
func (p Plan) Empty() bool { return len(p.Refused) == 0 && p.Changes() == 0 && p.Waits() == 0 }

// Changes counts the actions that write.
func (p Plan) Changes() int { return p.count(Action.writes) }

// Waits counts the objects that have to go before they can be made again.
func (p Plan) Waits() int { return p.count(func(a Action) bool { return a.Verb == Wait }) }

func (p Plan) count(which func(Action) bool) int {
	n := 0
	for _, s := range p.Stages {
		for _, a := range s {
			if which(a) {
				n++
			}
		}
	}
	return n
}

// writes tells whether an action sends anything.
func (a Action) writes() bool { return a.Verb != None && a.Verb != Wait }

// String writes the plan as text, one action a line.
func (p Plan) String() string {
	var b strings.Builder
	for _, r := range p.Refused {
		fmt.Fprintf(&b, "refused: %s\n", r)
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", w)
	}
	for i, s := range p.Stages {
		for _, a := range s {
			fmt.Fprintf(&b, "%d %s %s: %s\n", i+1, a.Verb, a.Ref, a.Reason)
		}
	}
	return b.String()
}

// MakePlan compares what a service wants with what the cluster shows.
//
// If one object differs from the commit, all of the service's objects are
// applied, for each carries the commit that the deployment comes from. So they
// are if they name several, as an apply that was cut short leaves them. If all
// are as the commit wants them and only fields were changed by others, just
// those objects are corrected.
func MakePlan(in PlanInput) Plan {
	t := in.Target
	p := Plan{Key: t.Key}
	actions := make([]Action, len(t.Result.Objects))
	moved, commit := false, ""
	for i, o := range t.Result.Objects {
		a := Action{Ref: o.Ref, Index: i}
		have, ok := in.Observed[o.Ref]
		owner := Key{}
		if ok && have.Owned {
			owner = Key{Environment: have.Environment, Service: have.Service}
		}
		if other := in.Foreign[o.Ref]; other != "" {
			p.Refused = append(p.Refused, foreignRefusal(o.Ref, owner, other))
		} else if why := refusal(t.Key, o.Ref, owner, in.Claims[o.Ref]); why != "" {
			p.Refused = append(p.Refused, why)
		}
		switch {
		case isOver(in.Over, o, have, ok):
			a.Verb, a.Reason = None, "has run, and removed itself"
		case !ok && in.Settled:
			a.Verb, a.Reason = Restore, "somebody has deleted it"
		case !ok:
			a.Verb, a.Reason = Create, "not in the cluster under our labels"
			moved = true
		case have.Deleting:
			a.Verb, a.Reason = Wait, cluster.Going(have.Gone, have.Finalizers)+"; then it is made again"
		case !have.Owned:
			a.Verb, a.Reason = Update, "carries our labels, but was not applied by us"
			moved = true
		case owner != t.Key:
			a.Verb, a.Reason = Update, fmt.Sprintf("moves here from %s, which no longer renders it", owner)
			moved = true
		case have.Digest != o.Digest:
			a.Verb, a.Reason = Update, "the commit changes it"
			moved = true
		case !cluster.InSync(have, o):
			a.Verb, a.Reason = Correct, "fields of it were changed by another manager"
		default:
			a.Verb, a.Reason = None, "in sync"
			if commit != "" && have.Commit != commit {
				moved = true
			}
			commit = have.Commit
		}
		actions[i] = a
	}
	p.commit = commit
	if !moved && commit != "" && len(due(t, commit, render.HookBefore, in.Over)) > 0 {
		moved = true // a hook that is new makes it another deployment
	}
	if moved {
		for i := range actions {
			o := t.Result.Objects[actions[i].Index]
			have, ok := in.Observed[o.Ref]
			if actions[i].Verb == None && !isOver(in.Over, o, have, ok) {
				actions[i].Verb = Update
				actions[i].Reason = "unchanged but for the commit that it comes from"
			}
		}
	}
	for i := range actions {
		s := stage(actions[i].Ref)
		for len(p.Stages) <= s {
			p.Stages = append(p.Stages, nil)
		}
		p.Stages[s] = append(p.Stages[s], actions[i])
	}
	p.Stages = slices.DeleteFunc(p.Stages, func(s []Action) bool { return len(s) == 0 })
	return p
}

// refusal says why an object can't be applied for key, or "". An object that
// two services render belongs to the one whose labels it carries in the
// cluster; as long as it carries none, to neither but the first by name.
func refusal(key Key, ref render.Ref, owner Key, claims []Key) string {
	for _, other := range claims {
		if other == key {
			continue
		}
		if owner == key || owner == (Key{}) && key.Compare(other) < 0 {
			continue
		}
		return fmt.Sprintf("%s is rendered by two services, %s and %s; rename it in one of them", ref, key, other)
	}
	if owner != (Key{}) && owner.Environment != key.Environment && !slices.Contains(claims, owner) {
		return fmt.Sprintf("%s belongs to %s; remove it there first, or rename it here", ref, owner)
	}
	return ""
}

// stageWorkloads is the stage of what runs; hooks come before it.
const stageWorkloads = 2

// foreignRefusal says that an object is another repository's, and what hands it
// over.
func foreignRefusal(ref render.Ref, owner Key, other string) string {
	where := ""
	if ref.Namespace != "" {
		where = "--namespace " + ref.Namespace + " "
	}
	kind := strings.ToLower(ref.Kind)
	if ref.Group != "" {
		kind += "." + ref.Group
	}
	return fmt.Sprintf("%s belongs to %s of %s; remove it there first, or rename it here, or, if nobody there renders it any more, hand it over: kubectl %sannotate %s %s %s-",
		ref, owner, other, where, kind, ref.Name, render.AnnotationCommit)
}

// stage returns the stage in which an object is applied: what others need in
// order to exist, then what workloads refer to, then the rest.
func stage(r render.Ref) int {
	if Foundation(r) {
		return 0
	}
	switch r.Group + "/" + r.Kind {
	case "/ServiceAccount", "/Secret", "/ConfigMap", "/Service", "/PersistentVolume", "/PersistentVolumeClaim",
		"/LimitRange", "/ResourceQuota", "storage.k8s.io/StorageClass", "scheduling.k8s.io/PriorityClass",
		"rbac.authorization.k8s.io/Role", "rbac.authorization.k8s.io/ClusterRole",
		"rbac.authorization.k8s.io/RoleBinding", "rbac.authorization.k8s.io/ClusterRoleBinding":
		return 1
	}
	return stageWorkloads
}

// Foundation tells whether an object has to be established before others can
// even be validated: a Namespace or a CustomResourceDefinition.
func Foundation(r render.Ref) bool {
	return r.Group == "" && r.Kind == "Namespace" ||
		r.Group == "apiextensions.k8s.io" && r.Kind == "CustomResourceDefinition"
}
