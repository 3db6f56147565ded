package cluster

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pinion-cd/pinion/render"
)

// Only the pods of the newest generation speak.
func TestNewestPods(t *testing.T) {
	at := func(minute int) time.Time { return time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC) }
	broken := func(owner types.UID, hash string, minute int, reason string) pod {
		return pod{owner: owner, hash: hash, created: at(minute), grade: gradeBroken, reason: reason}
	}
	n := &podNamespace{
		sets: map[string]podSet{
			// A rollback brings back an old ReplicaSet as the newest revision.
			"web-a": {uid: "rs-a", owner: "web", revision: 3},
			"web-b": {uid: "rs-b", owner: "web", revision: 2},
			"api-a": {uid: "rs-api", owner: "api", revision: 9},
		},
		pods: map[string]pod{
			"web-a-1": {owner: "rs-a", hash: "a", created: at(1), grade: gradeNotReady, reason: "newest"},
			"web-b-1": broken("rs-b", "b", 2, "older"),
			"api-a-1": broken("rs-api", "x", 3, "another's"),
			"db-0":    broken("db", "new", 5, "updated"),
			"db-1":    broken("db", "old", 1, "not updated yet"),
			"agent-x": {owner: "agent", hash: "2", created: at(9), grade: gradeUnschedulable, reason: "of the newest"},
			"agent-y": broken("agent", "1", 1, "of the older"),
		},
	}
	p := &pods{namespaces: map[string]*podNamespace{"shop": n}}
	for _, test := range []struct {
		uid            types.UID
		revision, want string
	}{
		{"web", "", "pod web-a-1: newest"},
		{"db", "new", "pod db-0: updated"},
		{"db", "old", "pod db-1: not updated yet"},
		{"agent", "", "pod agent-x: of the newest"},
		{"nobody", "", ""},
	} {
		o := &Observed{UID: test.uid, revision: test.revision, pods: true, Ref: render.Ref{Namespace: "shop"}}
		for range 20 { // maps have no order
			if got := p.why(o); got != test.want {
				t.Fatalf("%s: %q, want %q", test.uid, got, test.want)
			}
		}
	}
}

func TestTroubleOfPod(t *testing.T) {
	waiting := func(reason, message string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	}
	for _, test := range []struct {
		name   string
		status corev1.PodStatus
		want   string
	}{
		{"fine", corev1.PodStatus{Phase: corev1.PodRunning}, ""},
		{"starting", corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{State: waiting("ContainerCreating", "")}}}, ""},
		{"out of memory", corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
			Name: "web", State: waiting("CrashLoopBackOff", "back-off 10s"),
			LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}},
		}}}, "container web: CrashLoopBackOff: back-off 10s (exit code 137, OOMKilled)"},
		{"an init container first", corev1.PodStatus{
			InitContainerStatuses: []corev1.ContainerStatus{{Name: "init", State: waiting("ErrImagePull", "denied"), Image: "i:1"}},
			ContainerStatuses:     []corev1.ContainerStatus{{Name: "web", State: waiting("PodInitializing", "")}},
		}, "container init: ErrImagePull: denied (i:1)"},
		{"evicted", corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "low on memory"}, "Evicted: low on memory"},
	} {
		_, got := trouble(&test.status)
		if !strings.Contains(got, test.want) || (got == "") != (test.want == "") {
			t.Errorf("%s: %q", test.name, got)
		}
	}
}
