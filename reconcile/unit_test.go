package reconcile

import (
	"testing"
	"time"
	"unique"

	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

func jobUnit(spec string) (*unit, render.Object) {
	o := render.Object{
		Ref:    render.Ref{Group: "batch", Kind: "Job", Namespace: "shop", Name: "migrate"},
		Digest: "sha256:1",
		JSON:   []byte(`{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"migrate"},"spec":` + spec + `}`),
	}
	key := Key{"dev", "web"}
	t := &Target{Key: key, Result: &render.Result{Objects: []render.Object{o}}}
	return &unit{key: key, target: t, compared: true}, o
}

// A Job that removes itself when it is done is not made again, unless it was
// not seen to succeed.
func TestJobThatRemovesItself(t *testing.T) {
	for _, test := range []struct {
		name, spec string
		health     cluster.Status
		want       bool
	}{
		{"complete", `{"ttlSecondsAfterFinished":0}`, cluster.Current, true},
		{"failed", `{"ttlSecondsAfterFinished":0}`, cluster.Failed, false},
		{"never seen at its end", `{"ttlSecondsAfterFinished":0}`, cluster.InProgress, false},
		{"one that stays", `{}`, cluster.Current, false},
	} {
		u, o := jobUnit(test.spec)
		u.inspect(map[render.Ref]cluster.Observed{o.Ref: {
			Ref: o.Ref, Owned: true, Environment: "dev", Service: "web", Digest: o.Digest,
			Fields: unique.Make(`{"f:spec":{}}`), Health: cluster.Health{Status: test.health},
		}})
		if !u.inSync {
			t.Errorf("%s: %s", test.name, u.outOfSync)
		}
		u.inspect(nil)
		if u.inSync != test.want {
			t.Errorf("%s: in sync: %v (%s)", test.name, u.inSync, u.outOfSync)
		}
		p := MakePlan(PlanInput{Target: u.target, Over: u.over})
		if (p.Changes() == 0) != test.want {
			t.Errorf("%s: %s", test.name, p)
		}
	}
}

// What else changes does not run the Job again; a new Job of that name does.
func TestJobThatIsOverStaysSo(t *testing.T) {
	u, o := jobUnit(`{"ttlSecondsAfterFinished":0}`)
	other := render.Object{Ref: render.Ref{Kind: "ConfigMap", Namespace: "shop", Name: "a"}, Digest: "sha256:2", JSON: []byte(`{}`)}
	u.target.Result.Objects = append(u.target.Result.Objects, other)
	over := map[render.Ref]string{o.Ref: o.Digest}
	if p := MakePlan(PlanInput{Target: u.target, Over: over}); p.Changes() != 1 {
		t.Errorf("%s", p)
	}
	over[o.Ref] = "sha256:0"
	if p := MakePlan(PlanInput{Target: u.target, Over: over}); p.Changes() != 2 {
		t.Errorf("%s", p)
	}
}

// An apply of what was applied before waits longer each time, whatever it is
// that others undo.
func TestRepeatedApplyIsDamped(t *testing.T) {
	u, o := jobUnit(`{}`)
	create := Plan{Stages: [][]Action{{{Verb: Create, Ref: o.Ref}}}}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	u.inSync = true
	u.wrote(now, create, "c")
	if u.damped.After(now) {
		t.Errorf("the first apply makes the next wait until %s", u.damped)
	}
	var last time.Duration
	for i := range 6 {
		now = now.Add(10 * time.Second)
		u.inSync = true
		u.wrote(now, create, "c")
		if d := u.damped.Sub(now); d <= last {
			t.Errorf("apply %d: waits %s after %s", i, d, last)
		} else {
			last = d
		}
	}
}
