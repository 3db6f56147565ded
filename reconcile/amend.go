package reconcile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// Finding is what the API server has said to the dry run of an action, as far
// as that makes it another one.
type Finding struct {
	// Exists: the object is there, and is not ours; Managers have written to it.
	Exists   bool
	Managers []string
	// Immutable says that fields of it can't be changed.
	Immutable *cluster.ImmutableError
}

// Amend takes into a plan what the dry runs have found: what exists already is
// adopted, and what can't be changed is replaced, or refused.
func Amend(p Plan, in PlanInput, found map[render.Ref]Finding) Plan {
	out := p
	out.Stages = make([][]Action, len(p.Stages))
	for i, s := range p.Stages {
		out.Stages[i] = slices.Clone(s)
		for j := range out.Stages[i] {
			a := &out.Stages[i][j]
			f, ok := found[a.Ref]
			if !ok {
				continue
			}
			have, seen := in.Observed[a.Ref]
			switch {
			case f.Immutable != nil:
				how, why := Replacement(in.Target, in.Target.Result.Objects[a.Index], seen && have.Owned, f.Immutable)
				if how == "" {
					out.Refused = append(slices.Clip(out.Refused), why)
					continue
				}
				a.Verb, a.Propagation, a.Reason = Replace, how, why
			case f.Exists && !(seen && have.Owned):
				a.Verb, a.Managers, a.Reason = Adopt, f.Managers, Adoption(f.Managers)
			}
		}
	}
	return out
}

// Adoption says in words whose an object is that is about to become ours.
func Adoption(managers []string) string {
	if len(managers) == 0 {
		return "is there already, and not ours"
	}
	return "is there already, and not ours: it is managed by " + strings.Join(managers, ", ")
}

// builtIn are the API groups that Kubernetes itself serves, of which it is known
// what the deletion of an object leads to.
var builtIn = map[string]bool{
	"": true, "apps": true, "batch": true, "autoscaling": true, "policy": true,
	"admissionregistration.k8s.io": true, "apiregistration.k8s.io": true, "flowcontrol.apiserver.k8s.io": true,
	"networking.k8s.io": true, "node.k8s.io": true, "rbac.authorization.k8s.io": true,
	"scheduling.k8s.io": true, "storage.k8s.io": true,
}

// Replacement decides whether an object of which a field can't be changed is
// deleted and made anew, and what becomes of what it owns. The text says why, or
// why not; then the propagation is empty.
func Replacement(t *Target, o render.Object, owned bool, e *cluster.ImmutableError) (how cluster.Propagation, why string) {
	annotated := o.Annotation(render.AnnotationReplace) == render.ReplaceAllow
	no := func(format string, args ...any) (cluster.Propagation, string) {
		return "", e.Error() + "; " + fmt.Sprintf(format, args...)
	}
	switch {
	case render.NeverReplaced(o.Ref):
		return no("a %s is never deleted in order to be made anew, for with it would go what no commit can bring back; give it a new name", o.Ref.Kind)
	case !owned:
		return no("it was not applied by us, so it is not replaced; give it a new name, or delete it yourself")
	case !builtIn[o.Ref.Group] && !annotated:
		return no("give it a new name, or allow that it is deleted and made anew by its own annotation %s: %s", render.AnnotationReplace, render.ReplaceAllow)
	case !annotated && !t.Replace && o.Ref.Group == "batch" && o.Ref.Kind == "Job":
		return no("a Job runs once: put the version into its name to run another one, or allow that it is deleted and made anew by its annotation %s: %s", render.AnnotationReplace, render.ReplaceAllow)
	case !annotated && !t.Replace:
		return no("give it a new name, or allow that it is deleted and made anew by its annotation %s: %s", render.AnnotationReplace, render.ReplaceAllow)
	}
	fields := strings.Join(e.Fields, ", ")
	if fields == "" {
		fields = "a field"
	}
	if o.Ref.Group == "apps" && o.Ref.Kind == "StatefulSet" {
		if slices.ContainsFunc(e.Fields, func(f string) bool { return strings.HasPrefix(f, "spec.selector") }) {
			return no("it is not replaced, for with another selector its pods would belong to nobody; give it a new name")
		}
		return cluster.Orphan, fields + " can't be changed: it is deleted, and made anew; its pods and their volumes stay"
	}
	what := "what it owns goes with it"
	if o.Ref.Group == "apps" {
		what = "its pods go with it"
	}
	return cluster.Foreground, fmt.Sprintf("%s can't be changed: it is deleted, and made anew when it is gone; %s", fields, what)
}
