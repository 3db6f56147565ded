package cluster_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/render"
)

// What says why a workload does not come up is found, and what runs fine is
// left alone.
func TestEvidence(t *testing.T) {
	s := newStand(t, "")
	logs := "annotations: {devcluster.pinion.dev/logs: \"one\\ntwo\\nthree\\n\", "
	crash := s.object(fill(deployment, "annotations: {", logs, "NAME", "crash", "BEHAVIOR", "crash-loop"))
	fine := s.object(fill(deployment, "annotations: {", logs, "NAME", "fine", "BEHAVIOR", "run"))
	pull := s.object(fill(deployment, "annotations: {", logs, "NAME", "pull", "BEHAVIOR", "image-pull-error"))
	big := s.object(fill(deployment, "NAME", "big", "BEHAVIOR", "run", "containers: [{", "containers: [{resources: {requests: {cpu: 100000}}, "))
	secret := s.object("apiVersion: v1\nkind: Secret\nmetadata: {name: key}\ndata: {password: aHVudGVyMg==}\n")
	s.apply(crash, fine, pull, big, secret)
	s.untilHealthy(s.c, fine)

	s.untilSeen(func() string {
		e := s.c.Evidence(s.ctx, crash.Ref, 2, 1000)
		switch {
		case !strings.HasPrefix(e.Pod, "crash-") || !strings.Contains(e.Trouble, "CrashLoopBackOff"):
			return "pod " + e.Pod + ": " + e.Trouble
		case e.PodsErr != nil || e.LogErr != nil || e.EventsErr != nil:
			t.Fatal(e.PodsErr, e.LogErr, e.EventsErr)
		case e.Container != "main" || !e.Previous || string(e.Log) != "two\nthree\n":
			t.Fatalf("container %q, previous %v: %q", e.Container, e.Previous, e.Log)
		}
		return ""
	})
	s.untilSeen(func() string {
		e := s.c.Evidence(s.ctx, pull.Ref, 2, 1000)
		if !strings.Contains(e.Trouble, "ImagePullBackOff") {
			return e.Trouble
		}
		if e.Container != "" || e.Log != nil || e.LogErr != nil { // it never ran
			t.Fatalf("%+v", e)
		}
		return ""
	})
	s.untilSeen(func() string {
		e := s.c.Evidence(s.ctx, big.Ref, 2, 1000)
		if e.Warning == nil || e.Warning.Reason != "FailedScheduling" || e.Warning.About.Kind != "Pod" || !strings.Contains(e.Warning.Message, "cpu") || e.Warning.Time.IsZero() {
			return "no warning"
		}
		return ""
	})
	if e := s.c.Evidence(s.ctx, fine.Ref, 2, 1000); e.Pod != "" || e.Log != nil || e.Warning != nil {
		t.Errorf("of what runs fine: %+v", e)
	}
	before := s.c.Requests()
	s.c.Evidence(s.ctx, secret.Ref, 2, 1000)
	if after := s.c.Requests(); after["get"] != before["get"] || after["list"] != before["list"] {
		t.Errorf("requests about a Secret: before %v, after %v", before, after)
	}

	// What may not be read is said, and all the rest is there.
	s.c = connect(t, s.as("blind", `[{apiGroups: [apps, ""], resources: [deployments, replicasets, pods, configmaps], verbs: [get, list, watch]}]`))
	s.granted("blind", "get", "pods")
	if err := s.c.WatchObjects(s.ctx, s.scope, []render.Object{crash}); err != nil {
		t.Fatal(err)
	}
	e := s.c.Evidence(s.ctx, crash.Ref, 2, 1000)
	if e.Pod == "" || e.LogErr == nil || !strings.Contains(e.LogErr.Error(), "blind may not get pods/log") || e.EventsErr == nil || !strings.Contains(e.EventsErr.Error(), "blind may not list events") {
		t.Errorf("pod %q, log: %v, events: %v", e.Pod, e.LogErr, e.EventsErr)
	}
	// Nothing is waited for longer than the caller does.
	late, cancel := context.WithDeadline(s.ctx, time.Now().Add(-time.Second))
	defer cancel()
	if e := s.c.Evidence(late, crash.Ref, 2, 1000); e.PodsErr == nil {
		t.Errorf("%+v", e)
	}
}
