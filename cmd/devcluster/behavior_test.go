package main

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/kwok/pkg/utils/expression"
	"sigs.k8s.io/kwok/pkg/utils/lifecycle"
)

func TestBehavior(t *testing.T) {
	t.Parallel()
	client, namespace := sharedNamespace(t)
	for behavior, wanted := range map[string]func(*corev1.Pod) bool{
		run: func(pod *corev1.Pod) bool {
			web := pod.Status.ContainerStatuses[0]
			return pod.Status.Phase == corev1.PodRunning && isReady(pod) && web.Ready && *web.Started && web.State.Running != nil
		},
		neverReady: func(pod *corev1.Pod) bool {
			web := pod.Status.ContainerStatuses[0]
			return pod.Status.Phase == corev1.PodRunning && notReady(pod) && !web.Ready && web.State.Running != nil && pod.Status.PodIP != ""
		},
		"ready-after=50ms": func(pod *corev1.Pod) bool {
			web := pod.Status.ContainerStatuses[0]
			return pod.Status.Phase == corev1.PodRunning && isReady(pod) && web.Ready && pod.Status.PodIP != ""
		},
		"ready-after=1h": func(pod *corev1.Pod) bool {
			return pod.Status.Phase == corev1.PodRunning && notReady(pod) && !pod.Status.ContainerStatuses[0].Ready
		},
		crashLoop: func(pod *corev1.Pod) bool {
			web := pod.Status.ContainerStatuses[0]
			return pod.Status.Phase == corev1.PodRunning && notReady(pod) && !web.Ready &&
				web.RestartCount >= 3 && // it counts on
				web.State.Waiting != nil && web.State.Waiting.Reason == "CrashLoopBackOff" &&
				strings.HasPrefix(web.State.Waiting.Message, fmt.Sprintf("back-off %ds restarting failed container=web pod=crash-loop_", 1<<(web.RestartCount-1))) &&
				web.LastTerminationState.Terminated.ExitCode == 1 && web.LastTerminationState.Terminated.Reason == "Error"
		},
		imagePullError: func(pod *corev1.Pod) bool {
			web := pod.Status.ContainerStatuses[0]
			return pod.Status.Phase == corev1.PodPending && notReady(pod) && web.RestartCount == 0 &&
				web.State.Waiting != nil && web.State.Waiting.Reason == "ImagePullBackOff" &&
				strings.Contains(web.State.Waiting.Message, `"registry.example:5000/shop/web:1.4.2"`)
		},
		fail: func(pod *corev1.Pod) bool {
			ended := pod.Status.ContainerStatuses[0].State.Terminated
			return pod.Status.Phase == corev1.PodFailed && ended != nil && pod.Status.ContainerStatuses[0].Image != "" && ended.ExitCode == 1 && ended.Reason == "Error"
		},
		"nonsense": func(pod *corev1.Pod) bool {
			web := pod.Status.ContainerStatuses[0]
			return pod.Status.Phase == corev1.PodPending && web.State.Waiting != nil && strings.Contains(web.State.Waiting.Message, neverReady)
		},
	} {
		t.Run(behavior, func(t *testing.T) {
			t.Parallel()
			name := strings.ReplaceAll(behavior, "=", "-")
			template := podTemplate(name, behavior)
			if behavior == fail {
				template.Spec.RestartPolicy = corev1.RestartPolicyNever
			}
			createPod(t, client, namespace, name, template)
			eventually(t, podIs(client, namespace, name, func(pod *corev1.Pod) bool {
				return len(pod.Status.ContainerStatuses) > 0 && wanted(pod)
			}))
		})
	}
}

func TestBehaviorChanges(t *testing.T) {
	t.Parallel()
	client, namespace := sharedNamespace(t)
	createPod(t, client, namespace, "web", podTemplate("web", run))
	eventually(t, podIs(client, namespace, "web", isReady))
	for _, step := range []struct {
		behavior string
		wanted   func(*corev1.Pod) bool
	}{
		{crashLoop, func(pod *corev1.Pod) bool {
			return notReady(pod) && pod.Status.ContainerStatuses[0].State.Waiting != nil
		}},
		{run, func(pod *corev1.Pod) bool {
			web := pod.Status.ContainerStatuses[0]
			return isReady(pod) && web.State.Waiting == nil && web.State.Running != nil && web.RestartCount > 0
		}},
		{neverReady, notReady},
		{run, isReady},
	} {
		patch := fmt.Appendf(nil, `{"metadata": {"annotations": {%q: %q}}}`, behaviorAnnotation, step.behavior)
		if _, err := client.CoreV1().Pods(namespace).Patch(t.Context(), "web", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, podIs(client, namespace, "web", step.wanted))
	}
}

func isReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

func notReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionFalse && condition.Reason == "ContainersNotReady" &&
				condition.Message == "containers with unready status: [web]"
		}
	}
	return false
}

func TestBehaviorOf(t *testing.T) {
	t.Parallel()
	plain, tagged := behaviorAnnotation, behaviorAnnotation+"-9.9.9"
	for _, test := range []struct {
		name        string
		images      string
		policy      corev1.RestartPolicy
		annotations map[string]string
		want        string
	}{
		{"no annotations", "web:1", "Always", nil, run},
		{"plain", "web:1", "Always", map[string]string{plain: neverReady}, neverReady},
		{"another tag", "web:1", "Always", map[string]string{tagged: neverReady}, run},
		{"the tag", "web:9.9.9", "Always", map[string]string{tagged: neverReady}, neverReady},
		{"the tag wins", "web:9.9.9", "Always", map[string]string{tagged: run, plain: neverReady}, run},
		{"the tag of a second container", "web:1 side:9.9.9", "Always", map[string]string{tagged: imagePullError}, imagePullError},
		{"tag and digest", "web:9.9.9@sha256:00", "Always", map[string]string{tagged: neverReady}, neverReady},
		{"digest alone", "web@sha256:9.9.9", "Always", map[string]string{tagged: neverReady}, run},
		{"a port is no tag", "registry:9.9.9/web", "Always", map[string]string{tagged: neverReady}, run},
		{"port and tag", "registry:5000/a/web:9.9.9", "Always", map[string]string{tagged: neverReady}, neverReady},
		{"delay", "web:1", "Always", map[string]string{plain: "ready-after=1m30.5s"}, readyAfter},
		{"delay without unit", "web:1", "Always", map[string]string{plain: "ready-after=5"}, "ready-after=5"},
		{"fail is restarted", "web:1", "Always", map[string]string{plain: fail}, crashLoop},
		{"fail ends a pod", "web:1", "OnFailure", map[string]string{plain: fail}, fail},
		{"a crash is restarted", "web:1", "OnFailure", map[string]string{plain: crashLoop}, crashLoop},
		{"a crash ends a pod", "web:1", "Never", map[string]string{plain: crashLoop}, fail},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: test.annotations}, Spec: corev1.PodSpec{RestartPolicy: test.policy}}
		for image := range strings.FieldsSeq(test.images) {
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Image: image})
		}
		if got := evaluate(t, behaviorOf, pod); got != test.want {
			t.Errorf("%s: behavior is %q, want %q", test.name, got, test.want)
		}
	}
}

func TestDelays(t *testing.T) {
	t.Parallel()
	template := podTemplate("web", "ready-after=1m30s")
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	if got := evaluate(t, readyDelay, pod); got != "1m30s" {
		t.Errorf("ready after %q, want 1m30s", got)
	}
	for count, want := range map[int32]string{0: "0s", 1: "1s", 2: "2s", 4: "8s", 6: "32s", 7: "60s", 500: "60s"} {
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: count}}
		if got := evaluate(t, backOffDelay, pod); got != want {
			t.Errorf("after %d crashes it waits %q, want %q", count, got, want)
		}
	}
}

// If two stages applied to a pod, KWOK would draw lots.
func TestStagesDoNotOverlap(t *testing.T) {
	t.Parallel()
	stages, err := lifecycle.NewLifecycle(podStages())
	if err != nil {
		t.Fatal(err)
	}
	played := make(map[string]bool)
	for _, behavior := range []string{run, neverReady, "ready-after=5s", crashLoop, imagePullError, fail, "nonsense"} {
		for _, phase := range []corev1.PodPhase{corev1.PodPending, corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed} {
			for _, ready := range []corev1.ConditionStatus{"", corev1.ConditionTrue, corev1.ConditionFalse} {
				for _, waiting := range []*corev1.ContainerStateWaiting{nil, {Reason: "Some"}} {
					for _, owner := range []string{"", "Job", "ReplicaSet"} {
						for _, deleted := range []bool{false, true} {
							pod := &corev1.Pod{
								ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{behaviorAnnotation: behavior}},
								Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyOnFailure, Containers: []corev1.Container{{Image: "web"}}},
								Status: corev1.PodStatus{
									Phase:             phase,
									ContainerStatuses: []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: waiting}}},
								},
							}
							if ready != "" {
								pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
							}
							if owner != "" {
								pod.OwnerReferences = []metav1.OwnerReference{{Kind: owner}}
							}
							if deleted {
								pod.DeletionTimestamp = ptr.To(metav1.Now())
							}
							possible, err := stages.ListAllPossible(t.Context(), &lifecycle.Event{Annotations: pod.Annotations, Data: pod})
							if err != nil {
								t.Fatal(err)
							}
							for _, stage := range possible {
								played[stage.Name()] = true
							}
							if len(possible) > 1 || deleted && len(possible) > 0 {
								t.Errorf("%s %s ready=%s waiting=%v owner=%s deleted=%v: %d stages apply",
									behavior, phase, ready, waiting, owner, deleted, len(possible))
							}
						}
					}
				}
			}
		}
	}
	for _, stage := range podStages() {
		if !played[stage.Name] {
			t.Errorf("stage %s never applies", stage.Name)
		}
	}
}

func evaluate(t *testing.T, jq string, pod *corev1.Pod) string {
	t.Helper()
	query, err := expression.NewQuery(jq)
	if err != nil {
		t.Fatalf("%v in %s", err, jq)
	}
	out, err := query.Execute(t.Context(), pod)
	if err != nil || len(out) != 1 {
		t.Fatalf("the result is %v, %v; want one value", out, err)
	}
	return fmt.Sprint(out[0])
}
