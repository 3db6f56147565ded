package reconcile

import (
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

var noon = time.Date(2026, 11, 2, 12, 0, 0, 0, time.UTC)

func TestNext(t *testing.T) {
	waiting := Unready{render.Ref{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "web"},
		cluster.Health{Status: cluster.InProgress, Message: "Available: 1/3", Reason: "pod web-1: CrashLoopBackOff"}}
	broken := waiting
	broken.Health.Status = cluster.Failed
	rendered := View{Now: noon, Rendered: true, Timeout: 10 * time.Minute, Since: noon.Add(-time.Minute)}
	with := func(f func(*View)) View {
		v := rendered
		f(&v)
		return v
	}
	for _, test := range []struct {
		name string
		view View
		want Step
	}{
		{"the zero view does nothing", View{}, Step{Phase: Pending, Message: "not rendered yet"}},
		{"never rendered, a mistake", View{Problem: "services/web/main.jsonnet:1:2: oops"}, Step{Phase: Failed, Message: "services/web/main.jsonnet:1:2: oops"}},
		{"out of sync is applied", with(func(v *View) { v.OutOfSync = "it differs" }), Step{Phase: Pending, Apply: true, Message: "it differs"}},
		{"what is busy is left alone", with(func(v *View) { v.Busy = true }), Step{Phase: Applying}},
		{"what is busy is left alone, mistake or not", with(func(v *View) { v.Busy, v.Problem = true, "oops" }), Step{Phase: Applying}},
		{"a dependency comes first", with(func(v *View) {
			v.Dependencies = []Dependency{{"db", Progressing, "0/1"}, {"cache", Ready, ""}}
		}), Step{Phase: Blocked, Message: "waits for db, which is progressing (0/1)"}},
		{"a dependency that is ready does not block", with(func(v *View) {
			v.Dependencies = []Dependency{{"db", Ready, ""}}
		}), Step{Phase: Pending, Apply: true}},
		{"in sync is not blocked", with(func(v *View) {
			v.InSync, v.Dependencies = true, []Dependency{{"db", Failed, ""}}
		}), Step{Phase: Ready}},
		{"in sync and healthy", with(func(v *View) { v.InSync = true }), Step{Phase: Ready}},
		{"a rollout under way", with(func(v *View) { v.InSync, v.Unready = true, []Unready{waiting} }),
			Step{Phase: Progressing, Message: waiting.String(), Again: noon.Add(9 * time.Minute)}},
		{"a rollout that takes too long", with(func(v *View) {
			v.InSync, v.Unready, v.Since = true, []Unready{waiting}, noon.Add(-10*time.Minute)
		}), Step{Phase: Failed, Message: "rollout not complete after 10m0s: " + waiting.String(), Final: true, Inquire: true}},
		{"a rollout that has failed", with(func(v *View) { v.InSync, v.Unready = true, []Unready{broken} }),
			Step{Phase: Failed, Message: "rollout failed: " + broken.String(), Final: true, Inquire: true}},
		{"health that was lost", with(func(v *View) {
			v.InSync, v.WasReady, v.Unready = true, true, []Unready{broken}
		}), Step{Phase: Degraded, Message: broken.String()}},
		{"a failure waits for its retry", with(func(v *View) {
			v.Failure = &Failure{Message: "refused", Since: noon, Retry: noon.Add(time.Second)}
		}), Step{Phase: Failed, Message: "refused", Again: noon.Add(time.Second)}},
		{"what is refused for as long as a rollout may take has failed for good", with(func(v *View) {
			v.Failure = &Failure{Message: "refused", Since: noon.Add(-10 * time.Minute), Retry: noon.Add(time.Second)}
		}), Step{Phase: Failed, Message: "refused", Again: noon.Add(time.Second), Final: true}},
		{"what may pass by itself never fails for good", with(func(v *View) {
			v.Failure = &Failure{Message: "no answer", Passing: true, Since: noon.Add(-10 * time.Hour), Retry: noon.Add(time.Second)}
		}), Step{Phase: Failed, Message: "no answer", Again: noon.Add(time.Second)}},
		{"a failure is tried again", with(func(v *View) {
			v.Failure = &Failure{Message: "refused", Retry: noon}
		}), Step{Phase: Pending, Apply: true}},
		{"a failure for good stays", with(func(v *View) { v.Failure = &Failure{Message: "refused"} }), Step{Phase: Failed, Message: "refused", Final: true}},
		{"a manager that fights us is not met at once", with(func(v *View) {
			v.WasReady, v.OutOfSync, v.Damped = true, "replicas was changed", noon.Add(time.Minute)
		}), Step{Phase: Degraded, Message: "replicas was changed again, after it was corrected", Again: noon.Add(time.Minute)}},
		{"a hook that runs is waited for", with(func(v *View) { v.OutOfSync, v.Hook = "it differs", "hook migrate: runs" }),
			Step{Phase: Progressing, Message: "hook migrate: runs"}},
		{"a hook comes after the rollout", with(func(v *View) { v.InSync, v.HookDue, v.Unready = true, "warm", []Unready{waiting} }),
			Step{Phase: Progressing, Message: waiting.String(), Again: noon.Add(9 * time.Minute)}},
		{"and before it counts as complete", with(func(v *View) { v.InSync, v.HookDue = true, "warm" }),
			Step{Phase: Progressing, Hook: true, Message: "the hook warm is to run"}},
		{"but not of what is suspended", with(func(v *View) { v.InSync, v.HookDue, v.Suspended = true, "warm", "frozen" }),
			Step{Phase: Suspended, Message: "frozen; the hook warm is to run"}},
		{"what is being deleted is waited for", with(func(v *View) {
			v.OutOfSync, v.Going, v.Damped = "it is being deleted", true, noon.Add(time.Minute)
		}), Step{Phase: Progressing, Message: "it is being deleted", Again: noon.Add(time.Minute)}},
		{"what is suspended is not applied", with(func(v *View) { v.Suspended, v.OutOfSync = "frozen", "it differs" }),
			Step{Phase: Suspended, Message: "frozen; it differs"}},
		{"what is suspended is looked at", with(func(v *View) { v.Suspended, v.Uncompared, v.OutOfSync = "frozen", true, "not compared" }),
			Step{Phase: Suspended, Apply: true, Message: "frozen; not compared"}},
		{"what is suspended and can't be looked at waits", with(func(v *View) {
			v.Suspended, v.Uncompared, v.Failure = "frozen", true, &Failure{Message: "no answer", Retry: noon.Add(time.Second)}
		}), Step{Phase: Suspended, Message: "frozen; it can't be compared with the cluster: no answer", Again: noon.Add(time.Second)}},
		{"what is suspended and in sync is ready", with(func(v *View) { v.Suspended, v.InSync = "frozen", true }),
			Step{Phase: Ready, Message: "frozen"}},
		{"what is suspended rolls out what was applied", with(func(v *View) { v.Suspended, v.InSync, v.Unready = "frozen", true, []Unready{waiting} }),
			Step{Phase: Progressing, Message: waiting.String() + "; frozen", Again: noon.Add(9 * time.Minute)}},
		{"what is suspended is not kept from that by what it depends on", with(func(v *View) {
			v.Suspended, v.OutOfSync, v.Dependencies = "frozen", "it differs", []Dependency{{"db", Failed, ""}}
		}), Step{Phase: Suspended, Message: "frozen; it differs"}},
		{"what runs is cared for while the newest wish is wrong", with(func(v *View) { v.Problem = "oops" }), Step{Phase: Failed, Apply: true, Message: "oops"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := Next(test.view)
			if test.view.Problem == "" && got.Base != got.Phase {
				t.Errorf("without a mistake, base %s differs from phase %s", got.Base, got.Phase)
			}
			if got.Base = ""; got != test.want {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

// A step that applies never comes from a view in which a job runs, nothing is
// rendered, or a failure is not due; whatever else the view says.
func FuzzNext(f *testing.F) {
	f.Add(uint16(0), int64(0))
	f.Fuzz(func(t *testing.T, bits uint16, retry int64) {
		bit := func(n int) bool { return bits&(1<<n) != 0 }
		v := View{Now: noon, Rendered: bit(0), Busy: bit(1), InSync: bit(2), WasReady: bit(3), Timeout: time.Minute, Since: noon}
		if bit(4) {
			v.Problem = "a mistake"
		}
		if bit(5) {
			v.Failure = &Failure{Message: "refused", Retry: noon.Add(time.Duration(retry))}
		}
		if bit(6) {
			v.Dependencies = []Dependency{{"db", Failed, ""}}
		}
		if bit(8) {
			v.Suspended = "frozen"
		}
		if bit(7) {
			v.Unready = []Unready{{Health: cluster.Health{Status: cluster.InProgress}}}
		}
		s := Next(v)
		if v.Suspended != "" && s.Apply && !v.Uncompared {
			t.Errorf("%+v writes: %+v", v, s)
		}
		if s.Apply && (v.Busy || !v.Rendered || v.InSync || bit(6) || v.Failure != nil && v.Failure.Retry.After(noon)) {
			t.Errorf("%+v applies: %+v", v, s)
		}
		if s.Phase == Ready && (v.Problem != "" || !v.InSync || len(v.Unready) > 0) {
			t.Errorf("%+v is ready: %+v", v, s)
		}
		if s.Phase != Ready && s.Phase != Applying && s.Message == "" && !s.Apply {
			t.Errorf("%+v gives no reason: %+v", v, s)
		}
		if !s.Again.IsZero() && !s.Again.After(noon) {
			t.Errorf("%+v looks again in the past: %+v", v, s)
		}
	})
}

func TestUnreadyNamesObjectAndReason(t *testing.T) {
	u := Unready{render.Ref{Kind: "Pod", Namespace: "shop", Name: "x"}, cluster.Health{Status: cluster.InProgress}}
	if got := u.String(); !strings.Contains(got, "Pod shop/x") {
		t.Error(got)
	}
}

func TestDelay(t *testing.T) {
	k := Key{"dev", "web"}
	last := time.Duration(0)
	for n := 1; n < 30; n++ {
		d := delay(k, n, firstRetry)
		if d < min(firstRetry<<(n-1), longestRetry) && n < 20 || d > longestRetry+longestRetry/5 {
			t.Errorf("attempt %d waits %s", n, d)
		}
		if d < last && last < longestRetry {
			t.Errorf("attempt %d waits %s, less than the one before (%s)", n, d, last)
		}
		last = d
	}
}
