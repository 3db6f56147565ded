package reconcile

import (
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

func object(group, kind, name, annotations string) render.Object {
	return render.Object{
		Ref:    render.Ref{Group: group, Kind: kind, Namespace: "shop", Name: name},
		Digest: "sha256:new",
		JSON:   []byte(`{"metadata":{"name":"` + name + `","annotations":{` + annotations + `}}}`),
	}
}

// What can't be changed is replaced only where somebody has said so, and only
// where no data go with it.
func TestAmendReplaces(t *testing.T) {
	const allow = `"pinion.dev/replace":"allow"`
	for _, test := range []struct {
		name    string
		object  render.Object
		service bool // it says replace: allow
		foreign bool // the object is not ours
		field   string
		want    string // the line of the plan, or the refusal
	}{
		{"a Deployment, of which nobody has said it", object("apps", "Deployment", "web", ""), false, false, "spec.selector",
			"refused: validate Deployment.apps shop/web: spec.selector: field is immutable; give it a new name, or allow that it is deleted and made anew by its annotation pinion.dev/replace: allow"},
		{"a Deployment with the annotation", object("apps", "Deployment", "web", allow), false, false, "spec.selector",
			"1 replace Deployment.apps shop/web: spec.selector can't be changed: it is deleted, and made anew when it is gone; its pods go with it (Foreground)"},
		{"a Deployment of a service that allows it", object("apps", "Deployment", "web", ""), true, false, "spec.selector",
			"1 replace Deployment.apps shop/web: spec.selector can't be changed: it is deleted, and made anew when it is gone; its pods go with it (Foreground)"},
		{"a Deployment of somebody else", object("apps", "Deployment", "web", allow), true, true, "spec.selector",
			"refused: validate Deployment.apps shop/web: spec.selector: field is immutable; it was not applied by us, so it is not replaced; give it a new name, or delete it yourself"},
		{"a Job, of which nobody has said it", object("batch", "Job", "migrate", ""), false, false, "spec.template",
			"refused: validate Job.batch shop/migrate: spec.template: field is immutable; a Job runs once: put the version into its name to run another one, or allow that it is deleted and made anew by its annotation pinion.dev/replace: allow"},
		{"a Job with the annotation", object("batch", "Job", "migrate", allow), false, false, "spec.template",
			"1 replace Job.batch shop/migrate: spec.template can't be changed: it is deleted, and made anew when it is gone; what it owns goes with it (Foreground)"},
		{"a Service", object("", "Service", "web", allow), false, false, "spec.clusterIPs[0]",
			"1 replace Service shop/web: spec.clusterIPs[0] can't be changed: it is deleted, and made anew when it is gone; what it owns goes with it (Foreground)"},
		{"a StatefulSet keeps its pods and volumes", object("apps", "StatefulSet", "db", allow), false, false, "spec.volumeClaimTemplates[0].spec",
			"1 replace StatefulSet.apps shop/db: spec.volumeClaimTemplates[0].spec can't be changed: it is deleted, and made anew; its pods and their volumes stay (Orphan)"},
		{"a StatefulSet with another selector", object("apps", "StatefulSet", "db", allow), true, false, "spec.selector.matchLabels.app",
			"refused: validate StatefulSet.apps shop/db: spec.selector.matchLabels.app: field is immutable; it is not replaced, for with another selector its pods would belong to nobody; give it a new name"},
		{"a claim never", object("", "PersistentVolumeClaim", "data", allow), true, false, "spec",
			"refused: validate PersistentVolumeClaim shop/data: spec: field is immutable; a PersistentVolumeClaim is never deleted in order to be made anew, for with it would go what no commit can bring back; give it a new name"},
		{"a definition never", object("apiextensions.k8s.io", "CustomResourceDefinition", "x", allow), true, false, "spec.scope",
			"refused: validate CustomResourceDefinition.apiextensions.k8s.io shop/x: spec.scope: field is immutable; a CustomResourceDefinition is never deleted in order to be made anew, for with it would go what no commit can bring back; give it a new name"},
		{"what is of an unknown kind, not for the service's word", object("db.example", "Database", "x", ""), true, false, "spec.size",
			"refused: validate Database.db.example shop/x: spec.size: field is immutable; give it a new name, or allow that it is deleted and made anew by its own annotation pinion.dev/replace: allow"},
		{"what is of an unknown kind, by its own annotation", object("db.example", "Database", "x", allow), false, false, "spec.size",
			"1 replace Database.db.example shop/x: spec.size can't be changed: it is deleted, and made anew when it is gone; what it owns goes with it (Foreground)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := Key{"dev", "web"}
			target := &Target{Key: k, Replace: test.service, Result: &render.Result{Objects: []render.Object{test.object}}}
			in := PlanInput{Target: target, Observed: map[render.Ref]cluster.Observed{test.object.Ref: {
				Ref: test.object.Ref, Owned: !test.foreign, Environment: "dev", Service: "web", Digest: "sha256:old",
			}}}
			before := MakePlan(in)
			text := before.String()
			p := Amend(before, in, map[render.Ref]Finding{test.object.Ref: {Exists: true, Immutable: &cluster.ImmutableError{
				Op: "validate", Ref: test.object.Ref, Message: test.field + ": field is immutable", Fields: []string{test.field},
			}}})
			got, _, _ := strings.Cut(p.String(), "\n")
			if a := p.Stages[0][0]; a.Propagation != "" {
				got += " (" + string(a.Propagation) + ")"
			}
			if got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if before.String() != text {
				t.Error("the plan of before has changed")
			}
		})
	}
}

func TestAmendAdopts(t *testing.T) {
	o := object("", "ConfigMap", "web", "")
	in := PlanInput{Target: &Target{Key: Key{"dev", "web"}, Result: &render.Result{Objects: []render.Object{o}}}}
	p := Amend(MakePlan(in), in, map[render.Ref]Finding{o.Ref: {Exists: true, Managers: []string{"helm", "kubectl-edit"}}})
	if want := "1 adopt ConfigMap shop/web: is there already, and not ours: it is managed by helm, kubectl-edit\n"; p.String() != want {
		t.Errorf("got %s, want %s", p, want)
	}
	if p := Amend(MakePlan(in), in, map[render.Ref]Finding{o.Ref: {}}); p.Stages[0][0].Verb != Create {
		t.Errorf("what is not there is adopted: %s", p)
	}
}

// What is being deleted is not written to, and says what it waits for.
func TestPlanWaitsForWhatIsBeingDeleted(t *testing.T) {
	o, other := object("", "ConfigMap", "web", ""), object("", "ConfigMap", "beside", "")
	in := PlanInput{Target: &Target{Key: Key{"dev", "web"}, Result: &render.Result{Objects: []render.Object{o, other}}}, Observed: map[render.Ref]cluster.Observed{
		o.Ref: {Ref: o.Ref, Owned: true, Deleting: true, Gone: noon, Finalizers: "a.example/x,b.example/y"},
	}}
	p := MakePlan(in)
	if p.Changes() != 1 || p.Waits() != 1 || p.Empty() {
		t.Errorf("%s", p)
	}
	want := "1 wait ConfigMap shop/web: it is being deleted since 2026-11-02T12:00:00Z, and waits for those who have to remove the finalizers a.example/x, b.example/y; then it is made again"
	if line, _, _ := strings.Cut(p.String(), "\n"); line != want {
		t.Errorf("got  %s\nwant %s", line, want)
	}
}
