package reconcile

import (
	"testing"
	"unique"

	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// A hook is due once for each deployment, and what it is run for names its run.
func TestHooksAreDueOnce(t *testing.T) {
	o := object("", "ConfigMap", "web", "")
	o.JSON = []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"web"},"data":{}}`)
	hook := render.Hook{When: render.HookBefore, Object: render.Object{
		Ref: render.Ref{Group: "batch", Kind: "Job", Namespace: "shop", Name: "migrate"}, Digest: "sha256:1",
	}}
	target := &Target{Key: Key{"dev", "web"}, Result: &render.Result{Objects: []render.Object{o}, Hooks: []render.Hook{hook}}}
	run := hookRun(target, "c1", hook)
	if again := hookRun(target, "c1", hook); again != run {
		t.Errorf("%s and %s", run, again)
	}
	if other := hookRun(target, "c2", hook); other == run {
		t.Errorf("two deployments share the run %s", run)
	}
	observed := map[render.Ref]cluster.Observed{o.Ref: {
		Ref: o.Ref, Owned: true, Environment: "dev", Service: "web", Digest: o.Digest, Commit: "c1",
		Fields: unique.Make(`{"f:data":{}}`), Health: cluster.Health{Status: cluster.Current},
	}}
	for _, test := range []struct {
		name string
		done map[render.Ref]string
		want bool // nothing is to be done
	}{
		{"it has not run", nil, false},
		{"it has run", map[render.Ref]string{run: hook.Digest}, true},
		{"another one of its name has run", map[render.Ref]string{run: "sha256:0"}, false},
		{"it has run for another deployment", map[render.Ref]string{hookRun(target, "c0", hook): hook.Digest}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := &unit{key: target.Key, target: target, compared: true, over: test.done}
			u.inspect(observed)
			if u.inSync != test.want {
				t.Errorf("in sync: %v (%s)", u.inSync, u.outOfSync)
			}
			p := MakePlan(PlanInput{Target: target, Observed: observed, Over: test.done})
			if (p.Changes() == 0) != test.want {
				t.Errorf("%s", p)
			}
		})
	}
}
