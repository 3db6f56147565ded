package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pinion-cd/pinion/render"
)

// Evidence is what the cluster can still say of an object that does not become
// healthy. What could not be read is said by an error, and the rest is there.
type Evidence struct {
	Pod string // of those of the object, the one that is worst off; "": none suffers
	// Trouble says what that is.
	Trouble string
	PodsErr error // the pods could not be looked at

	// Log is the end of what the pod's failing container wrote; Container is
	// empty if none has run and failed.
	Container string
	Previous  bool // what it wrote before it was started again
	Log       []byte
	LogErr    error

	// Warning is the newest one about the object, its newest ReplicaSet, or the
	// pod; nil, if there is none.
	Warning   *Warning
	EventsErr error
}

// Warning is an event of the type Warning.
type Warning struct {
	About   render.Ref
	Reason  string
	Message string
	Time    time.Time
}

// The bounds of what is looked through.
const (
	mostPods   = 500
	mostEvents = 200
)

// Evidence looks for what says why an object does not become healthy: its pod
// that is worst off, with the last lines and of these the last bytes of its
// log, and the newest warning. It sends some seven requests at most. Nothing is
// asked about a Secret.
func (c *Cluster) Evidence(ctx context.Context, ref render.Ref, lines, size int) Evidence {
	var e Evidence
	r, ref := c.view(ref)
	if r == nil || ref.Group == "" && ref.Kind == "Secret" {
		return e
	}
	r.mu.Lock()
	o := r.objects[ref.Name]
	r.mu.Unlock()
	if o == nil {
		return e
	}
	about := map[types.UID]render.Ref{o.UID: ref}
	var pods []corev1.Pod
	pods, e.PodsErr = c.podsBelow(ctx, o, about)
	if pod := worstPod(pods); pod != nil {
		_, e.Trouble = trouble(&pod.Status)
		e.Pod, e.Trouble = pod.Name, shorten(e.Trouble)
		about[pod.UID] = render.Ref{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name}
		c.readLog(ctx, &e, pod, lines, size)
	}
	e.Warning, e.EventsErr = c.newestWarning(ctx, ref.Namespace, about)
	return e
}

// podsBelow lists the pods that an object's selector chooses, and notes its
// newest ReplicaSet in about.
func (c *Cluster) podsBelow(ctx context.Context, o *Observed, about map[types.UID]render.Ref) ([]corev1.Pod, error) {
	if o.Ref.Group == "" && o.Ref.Kind == "Pod" {
		var pod corev1.Pod
		err := c.readJSON(ctx, &pod, "read "+o.Ref.String(), nil, "api", "v1", "namespaces", o.Ref.Namespace, "pods", o.Ref.Name)
		return []corev1.Pod{pod}, err
	}
	if !o.pods && o.Ref.Kind != "Rollout" {
		return nil, nil
	}
	m, err := c.resolve(ctx, "read", o.Ref, o.Version)
	if err != nil {
		return nil, err
	}
	var owner struct {
		Spec struct {
			Selector *metav1.LabelSelector `json:"selector"`
		} `json:"spec"`
	}
	if err := c.readJSON(ctx, &owner, "read "+o.Ref.String(), nil, pathOf(m)...); err != nil {
		return nil, err
	}
	selector, err := metav1.LabelSelectorAsSelector(owner.Spec.Selector)
	if err != nil || selector.Empty() || selector.String() == labels.Nothing().String() {
		return nil, err
	}
	chosen := map[string]string{"labelSelector": selector.String(), "limit": fmt.Sprint(mostPods)}
	if o.Ref.Kind == "Deployment" || o.Ref.Kind == "Rollout" {
		var sets metav1.PartialObjectMetadataList
		if err := c.readJSON(ctx, &sets, "list the ReplicaSets of "+o.Ref.String(), chosen, "apis", "apps", "v1", "namespaces", o.Ref.Namespace, "replicasets"); err != nil {
			return nil, err
		}
		var newest *metav1.PartialObjectMetadata
		for i := range sets.Items {
			s := &sets.Items[i]
			if by := metav1.GetControllerOfNoCopy(s); by != nil && by.UID == o.UID && (newest == nil || reduceSet(s).revision > reduceSet(newest).revision) {
				newest = s
			}
		}
		if newest != nil {
			about[newest.UID] = render.Ref{Group: "apps", Kind: "ReplicaSet", Namespace: newest.Namespace, Name: newest.Name}
		}
	}
	var list corev1.PodList
	err = c.readJSON(ctx, &list, "list the pods of "+o.Ref.String(), chosen, "api", "v1", "namespaces", o.Ref.Namespace, "pods")
	// A selector may choose another's pods, too.
	list.Items = slices.DeleteFunc(list.Items, func(p corev1.Pod) bool {
		by := metav1.GetControllerOfNoCopy(&p)
		if by == nil {
			return true
		}
		_, ours := about[by.UID]
		return !ours
	})
	return list.Items, err
}

// readJSON gets JSON.
func (c *Cluster) readJSON(ctx context.Context, into any, op string, params map[string]string, path ...string) error {
	err := c.send(ctx, func(ctx context.Context) error {
		request := c.client.Get().AbsPath(path...).SetHeader("Accept", "application/json").MaxRetries(0)
		for k, v := range params {
			request.Param(k, v)
		}
		raw, err := rawOf(request.Do(ctx))
		if err != nil {
			return err
		}
		return json.Unmarshal(raw, into)
	})
	return classify(failure{op: op}, err)
}

// worstPod returns the pod with the most telling trouble, the newest of several;
// nil, if all are well.
func worstPod(pods []corev1.Pod) *corev1.Pod {
	var worst *corev1.Pod
	most := 0
	for i := range pods {
		p := &pods[i]
		if p.DeletionTimestamp != nil {
			continue
		}
		grade, _ := trouble(&p.Status)
		if grade == 0 || grade < most {
			continue
		}
		if grade > most || cmp.Or(p.CreationTimestamp.Compare(worst.CreationTimestamp.Time), strings.Compare(worst.Name, p.Name)) > 0 {
			worst, most = p, grade
		}
	}
	return worst
}

// readLog reads what a pod's failing container wrote: if it was started again,
// what it wrote before, which says why.
func (c *Cluster) readLog(ctx context.Context, e *Evidence, pod *corev1.Pod, lines, size int) {
	s := failingContainer(pod)
	if s == nil {
		return
	}
	e.Container = s.Name
	crashed := s.LastTerminationState.Terminated != nil && s.LastTerminationState.Terminated.ExitCode != 0
	if crashed {
		if e.Log, e.LogErr = c.log(ctx, pod, s.Name, true, lines, size); e.LogErr == nil && len(e.Log) > 0 {
			e.Previous = true
			return
		}
		if s.State.Running == nil && s.State.Terminated == nil && e.LogErr == nil {
			return
		}
	}
	if text, err := c.log(ctx, pod, s.Name, false, lines, size); err == nil || !crashed {
		e.Log, e.LogErr = text, err
	}
}

// failingContainer returns the first container that has run and does not do
// what it should; nil, if there is none.
func failingContainer(pod *corev1.Pod) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range list {
			s := &list[i]
			ended, before := s.State.Terminated, s.LastTerminationState.Terminated
			switch {
			case ended != nil && ended.ExitCode != 0:
				return s
			case ended != nil || s.Ready:
			case s.State.Running != nil || before != nil:
				return s
			}
		}
	}
	return nil
}

// newestWarning returns the newest event of the type Warning about any of the
// objects.
func (c *Cluster) newestWarning(ctx context.Context, namespace string, about map[types.UID]render.Ref) (*Warning, error) {
	if namespace == "" {
		namespace = metav1.NamespaceDefault // where those of objects without one are
	}
	var newest *Warning
	for uid, ref := range about {
		var list corev1.EventList
		err := c.readJSON(ctx, &list, "list the events of "+ref.String(), map[string]string{
			"fieldSelector": fields.Set{"type": corev1.EventTypeWarning, "involvedObject.uid": string(uid)}.String(),
			"limit":         fmt.Sprint(mostEvents),
		}, "api", "v1", "namespaces", namespace, "events")
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return newest, err
		}
		for i := range list.Items {
			x := &list.Items[i]
			w := Warning{About: ref, Reason: x.Reason, Message: shorten(strings.Join(strings.Fields(x.Message), " ")), Time: newestTime(x)}
			if newest == nil || cmp.Or(w.Time.Compare(newest.Time), strings.Compare(w.Message, newest.Message)) > 0 {
				newest = &w
			}
		}
	}
	return newest, nil
}

func newestTime(x *corev1.Event) time.Time {
	at := x.CreationTimestamp.Time
	for _, t := range []time.Time{x.FirstTimestamp.Time, x.LastTimestamp.Time, x.EventTime.Time} {
		if t.After(at) {
			at = t
		}
	}
	if x.Series != nil && x.Series.LastObservedTime.After(at) {
		at = x.Series.LastObservedTime.Time
	}
	return at.UTC()
}
