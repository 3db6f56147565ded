package main

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/kwok/kustomize/stage/node/fast"
	heartbeat "sigs.k8s.io/kwok/kustomize/stage/node/heartbeat-with-lease"
	podfast "sigs.k8s.io/kwok/kustomize/stage/pod/fast"
	kwok "sigs.k8s.io/kwok/pkg/apis/internalversion"
	"sigs.k8s.io/kwok/pkg/apis/v1alpha1"
	"sigs.k8s.io/yaml"
)

// How a pod behaves is the value of an annotation on it. With "-<tag>" behind
// its name, the annotation holds only for a pod of which a container's image
// has that tag, and wins over the plain one: so a template can carry the
// misbehavior of a version that is pinned later. A change of the annotation on a
// running pod is obeyed, too, except that it can't go back to waiting for its
// image.
const behaviorAnnotation = "devcluster.pinion.dev/behavior"

const (
	run            = "run"              // ready at once; a Job's pod then succeeds
	neverReady     = "never-ready"      // runs, but its containers are not ready
	readyAfter     = "ready-after"      // "ready-after=5s": the same, for that long
	crashLoop      = "crash-loop"       // exits with 1 and is restarted, again and again
	imagePullError = "image-pull-error" // waits for an image that can't be pulled
	fail           = "fail"             // ends with exit code 1
)

// behaviorOf is a jq expression: the name of a pod's behavior. As with a real
// kubelet the restart policy decides what becomes of a container that exits.
const behaviorOf = behaviorValue + `
| if test("^ready-after=([0-9]+(\\.[0-9]+)?(ms|s|m|h))+$") then "ready-after" else . end
| if . == "fail" and $policy == "Always" then "crash-loop"
  elif . == "crash-loop" and $policy == "Never" then "fail"
  else . end`

// behaviorValue is the annotation's value that holds for a pod.
const behaviorValue = `
def tag: sub("@.*$"; "") | split("/")[-1] | split(":")[1] // empty;
.spec.restartPolicy as $policy
| (.metadata.annotations // {}) as $annotations
| [.spec.containers[].image | tag | $annotations["` + behaviorAnnotation + `-" + .] // empty]
| .[0] // $annotations["` + behaviorAnnotation + `"] // "run"`

// readyDelay is the parameter of ready-after; of any other behavior it is no
// duration, and KWOK does not wait.
const readyDelay = behaviorValue + ` | ltrimstr("ready-after=")`

// backOffDelay is how long a container that has crashed n times waits for its
// restart: 1s, doubled each time, 1m at most. (A kubelet starts from 10s unless
// it is configured otherwise, which is long for a test.)
const backOffDelay = `
([.status.containerStatuses[]?.restartCount] | max // 0) as $n
| if $n == 0 then 0 else [pow(2; $n - 1), 60] | min end
| "\(.)s"`

// kubeletStages are KWOK's own stages for nodes and for deleting pods, and ours
// for all else that happens to a pod.
func kubeletStages() (map[kwok.StageResourceRef][]*kwok.Stage, error) {
	stages := podStages()
	for _, stock := range []string{podfast.DefaultPodDelete, fast.DefaultNodeInit, heartbeat.DefaultNodeHeartbeatWithLease} {
		stage, err := decodeStage(stock)
		if err != nil {
			return nil, err
		}
		stages = append(stages, stage)
	}
	byResource := make(map[kwok.StageResourceRef][]*kwok.Stage)
	for _, stage := range stages {
		byResource[stage.Spec.ResourceRef] = append(byResource[stage.Spec.ResourceRef], stage)
	}
	return byResource, nil
}

func decodeStage(text string) (*kwok.Stage, error) {
	var stage v1alpha1.Stage
	if err := yaml.UnmarshalStrict([]byte(text), &stage); err != nil {
		return nil, fmt.Errorf("decode a stage of KWOK: %w", err)
	}
	return kwok.ConvertToInternalStage(&stage)
}

// podStages never overlap: in each state of a pod at most one of them applies.
func podStages() []*kwok.Stage {
	pending := where(".status.phase", kwok.SelectorOpIn, "Pending")
	running := where(".status.phase", kwok.SelectorOpIn, "Running")
	ready := where(`.status.conditions[]? | select(.type == "Ready") | .status`, kwok.SelectorOpIn, "True")
	unready := where(`.status.conditions[]? | select(.type == "Ready") | .status`, kwok.SelectorOpNotIn, "True")
	notWaiting := where(".status.containerStatuses[]?.state.waiting.reason", kwok.SelectorOpDoesNotExist)
	ofJob := where(".metadata.ownerReferences[]?.kind", kwok.SelectorOpIn, "Job")
	is := func(behaviors ...string) kwok.MatchExpression {
		return where(behaviorOf, kwok.SelectorOpIn, behaviors...)
	}
	known := []string{run, neverReady, readyAfter, crashLoop, imagePullError, fail}

	return []*kwok.Stage{
		podStage("run", "", status(runningStatus(true)), pending, is(run, fail)),
		podStage("run-unready", "", status(runningStatus(false)), pending, is(neverReady, readyAfter)),
		podStage("become-ready", readyDelay, status(runningStatus(true)), running, unready, is(run, readyAfter)),
		podStage("become-unready", "", status(runningStatus(false)), running, ready, is(neverReady)),
		podStage("succeed", "", status(endedStatus("Succeeded", "Completed", "PodCompleted", 0)), running, ready, ofJob, is(run, readyAfter)),
		podStage("fail", "", status(endedStatus("Failed", "Error", "PodFailed", 1)), running, is(fail)),
		podStage("crash", backOffDelay,
			append(status(crashStatus), warning("BackOff", "Back-off restarting failed container")...),
			where(".status.phase", kwok.SelectorOpIn, "Pending", "Running"), is(crashLoop)),
		podStage("fail-to-pull", "",
			append(status(waitingStatus("ImagePullBackOff", `Back-off pulling image \"{{ .image }}\": not found`)),
				warning("Failed", "Error: ImagePullBackOff")...),
			pending, notWaiting, is(imagePullError)),
		podStage("refuse", "",
			status(waitingStatus("CreateContainerConfigError", "annotation "+behaviorAnnotation+": unknown value; use "+
				strings.Join(known, ", ")+" (ready-after=5s)")),
			pending, notWaiting, where(behaviorOf, kwok.SelectorOpNotIn, known...)),
	}
}

// podStage makes a stage that is played on pods for which all of when holds,
// after the time that the jq expression gives.
func podStage(name, delay string, steps []kwok.StageStep, when ...kwok.MatchExpression) *kwok.Stage {
	stage := &kwok.Stage{
		ObjectMeta: metav1.ObjectMeta{Name: "devcluster-pod-" + name},
		Spec: kwok.StageSpec{
			ResourceRef: kwok.StageResourceRef{APIGroup: "v1", Kind: "Pod"},
			Selector: &kwok.StageSelector{
				MatchExpressions: append(when, where(".metadata.deletionTimestamp", kwok.SelectorOpDoesNotExist)),
			},
			Steps: steps,
		},
	}
	if delay != "" {
		stage.Spec.Delay = &kwok.StageDelay{
			DurationMilliseconds: ptr.To[int64](0),
			DurationFrom:         &kwok.ExpressionFrom{JQ: &kwok.ExpressionJQ{Expression: delay}},
		}
	}
	return stage
}

func where(jq string, operator kwok.SelectorOperator, values ...string) kwok.MatchExpression {
	return kwok.MatchExpression{JQ: &kwok.SelectorJQ{Key: jq, Operator: operator, Values: values}}
}

func status(template string) []kwok.StageStep {
	return []kwok.StageStep{{Patch: &kwok.StagePatch{Subresource: "status", Root: "status", Template: template}}}
}

func warning(reason, message string) []kwok.StageStep {
	return []kwok.StageStep{{Event: &kwok.StageEvent{Type: corev1.EventTypeWarning, Reason: reason, Message: message}}}
}

// The templates below are merged into a pod's status: its conditions by their
// types, while the lists of containers are replaced.

// runningStatus has all containers running.
func runningStatus(ready bool) string {
	conditions := readyConditions
	if !ready {
		conditions = unreadyConditions
	}
	return placed + conditions + fmt.Sprintf(`
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: {{ ImageID .image | Quote }}
  ready: %[1]t
  started: %[1]t
  restartCount: {{ $restarts }}
  state: {running: {startedAt: {{ $now | Quote }}}}
{{ end }}
phase: Running
`, ready)
}

// endedStatus has all containers exited for good.
func endedStatus(phase, containerReason, podReason string, exitCode int) string {
	return common + fmt.Sprintf(`
conditions:
- {type: ContainersReady, status: "False", reason: %[3]s, lastTransitionTime: {{ $now | Quote }}}
- {type: Ready, status: "False", reason: %[3]s, lastTransitionTime: {{ $now | Quote }}}
containerStatuses:
{{ range .status.containerStatuses }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: {{ ImageID .image | Quote }}
  ready: false
  started: false
  restartCount: {{ $restarts }}
  state:
    terminated:
      exitCode: %[4]d
      reason: %[2]s
      {{ with .state.running }}startedAt: {{ .startedAt | Quote }}{{ end }}
      finishedAt: {{ $now | Quote }}
{{ end }}
phase: %[1]s
`, phase, containerReason, podReason, exitCode)
}

// crashStatus has all containers crashed once more, and waiting for a restart.
const crashStatus = placed + unreadyConditions + `
{{ $crashes := add 1 $restarts }}
{{ $seconds := 1 }}
{{ range until (int (sub $crashes 1)) }}{{ $seconds = min 60 (mul 2 $seconds) }}{{ end }}
{{ $pod := printf "%s_%s(%s)" .metadata.name .metadata.namespace .metadata.uid }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: {{ ImageID .image | Quote }}
  ready: false
  started: false
  restartCount: {{ $crashes }}
  lastState:
    terminated: {exitCode: 1, reason: Error, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}
  state:
    waiting:
      reason: CrashLoopBackOff
      message: {{ printf "back-off %ds restarting failed container=%s pod=%s" $seconds .name $pod | Quote }}
{{ end }}
phase: Running
`

// waitingStatus has no container started yet. The message may name the
// container's fields.
func waitingStatus(reason, message string) string {
	return placed + unreadyConditions + `
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  ready: false
  started: false
  restartCount: 0
  state: {waiting: {reason: ` + reason + `, message: "` + message + `"}}
{{ end }}
phase: Pending
`
}

const readyConditions = `
conditions:
- {type: PodReadyToStartContainers, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: Initialized, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: ContainersReady, status: "True", reason: null, message: null, lastTransitionTime: {{ $now | Quote }}}
- {type: Ready, status: "True", reason: null, message: null, lastTransitionTime: {{ $now | Quote }}}
{{ range .spec.readinessGates }}
- {type: {{ .conditionType | Quote }}, status: "True", lastTransitionTime: {{ $now | Quote }}}
{{ end }}
`

const unreadyConditions = `
{{ $names := list }}{{ range .spec.containers }}{{ $names = append $names .name }}{{ end }}
{{ $message := printf "containers with unready status: %v" $names }}
conditions:
- {type: PodReadyToStartContainers, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: Initialized, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: ContainersReady, status: "False", reason: ContainersNotReady, message: {{ $message | Quote }}, lastTransitionTime: {{ $now | Quote }}}
- {type: Ready, status: "False", reason: ContainersNotReady, message: {{ $message | Quote }}, lastTransitionTime: {{ $now | Quote }}}
`

// placed gives a pod, once, its addresses, and ends its init containers.
const placed = common + `
{{ if not .status.startTime }}
startTime: {{ $now | Quote }}
{{ with NodeIPWith .spec.nodeName }}
hostIP: {{ . | Quote }}
hostIPs: [{ip: {{ . | Quote }}}]
{{ end }}
{{ with PodIPWith .spec.nodeName (or .spec.hostNetwork false) .metadata.uid .metadata.name .metadata.namespace }}
podIP: {{ . | Quote }}
podIPs: [{ip: {{ . | Quote }}}]
{{ end }}
initContainerStatuses:
{{ range .spec.initContainers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: {{ ImageID .image | Quote }}
  ready: true
  restartCount: 0
  {{ if eq .restartPolicy "Always" }}
  started: true
  state: {running: {startedAt: {{ $now | Quote }}}}
  {{ else }}
  started: false
  state: {terminated: {exitCode: 0, reason: Completed, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}}
  {{ end }}
{{ end }}
{{ end }}
`

// common names the present moment, and how often the containers were restarted:
// they share all that happens to them.
const common = `
{{ $now := Now }}
{{ $restarts := 0 }}
{{ range .status.containerStatuses }}{{ $restarts = .restartCount }}{{ end }}
`
