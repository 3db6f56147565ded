package cluster

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Pods are watched, in a namespace, only while a workload there is waited for:
// from podPatience after it was first seen not to be Current, until podLinger
// after the last one is.
const (
	podPatience = time.Second
	podLinger   = 30 * time.Second
)

// pods knows why workloads are not ready: what their newest pods say.
type pods struct {
	mu         sync.Mutex
	waiting    map[types.UID]waiter     // guarded by mu; the workloads that are not Current
	namespaces map[string]*podNamespace // guarded by mu
}

type waiter struct {
	key       Key
	namespace string
}

type podNamespace struct {
	waiting int                // workloads
	timer   *time.Timer        // begins or ends the watch
	cancel  context.CancelFunc // nil: not watched
	sets    map[string]podSet  // ReplicaSets by name
	pods    map[string]pod     // by name
}

// podSet is what is kept of a ReplicaSet.
type podSet struct {
	uid, owner types.UID
	revision   int64
}

// pod is what is kept of a pod.
type pod struct {
	owner   types.UID
	hash    string // of the generation of the workload that made it
	created time.Time
	grade   int // how telling reason is; 0: nothing is wrong
	reason  string
}

func (p *pods) init() {
	p.waiting = map[types.UID]waiter{}
	p.namespaces = map[string]*podNamespace{}
}

// expectPods takes in how a workload does, and begins or ends to watch the pods
// of its namespace.
func (c *Cluster) expectPods(before, after *Observed) {
	p := &c.pods
	p.mu.Lock()
	defer p.mu.Unlock()
	if before != nil && (after == nil || after.UID != before.UID) {
		c.settlePods(before)
	}
	if after == nil {
		return
	}
	if after.Health.Status == Current || after.Deleting {
		c.settlePods(after)
		return
	}
	if _, ok := p.waiting[after.UID]; ok {
		return
	}
	ns := after.Ref.Namespace
	p.waiting[after.UID] = waiter{Key{after.Environment, after.Service}, ns}
	n := p.namespaces[ns]
	if n == nil {
		n = &podNamespace{sets: map[string]podSet{}, pods: map[string]pod{}}
		p.namespaces[ns] = n
	}
	n.waiting++
	c.schedulePods(ns, n)
}

// settlePods forgets a workload that is no longer waited for. pods.mu is held.
func (c *Cluster) settlePods(o *Observed) {
	w, ok := c.pods.waiting[o.UID]
	if !ok {
		return
	}
	delete(c.pods.waiting, o.UID)
	n := c.pods.namespaces[w.namespace]
	n.waiting--
	c.schedulePods(w.namespace, n)
}

// unexpect forgets the workloads of a place that is watched no longer.
func (c *Cluster) unexpect(r *reflection) {
	r.mu.Lock()
	objects := slices.Collect(maps.Values(r.objects))
	r.mu.Unlock()
	c.pods.mu.Lock()
	defer c.pods.mu.Unlock()
	for _, o := range objects {
		c.settlePods(o)
	}
}

// schedulePods sees to it that the pods are watched if something waits, and
// not otherwise, both after a while. pods.mu is held.
func (c *Cluster) schedulePods(ns string, n *podNamespace) {
	after := podPatience
	if n.cancel != nil {
		after = podLinger
	}
	if n.timer != nil || (n.waiting > 0) == (n.cancel != nil) {
		return
	}
	n.timer = time.AfterFunc(after, func() {
		c.pods.mu.Lock()
		defer c.pods.mu.Unlock()
		n.timer = nil
		switch {
		case c.ctx.Err() != nil:
		case n.waiting > 0 && n.cancel == nil:
			c.watchPods(ns, n)
		case n.waiting == 0 && n.cancel != nil:
			n.cancel()
			delete(c.pods.namespaces, ns)
		case n.waiting == 0:
			delete(c.pods.namespaces, ns)
		}
	})
}

// watchPods watches the pods and the ReplicaSets of a namespace. pods.mu is held.
func (c *Cluster) watchPods(ns string, n *podNamespace) {
	var ctx context.Context
	ctx, n.cancel = context.WithCancel(c.ctx)
	begin := func(kind Kind, resource string, s *source, read func(*schema.GroupVersionResource)) {
		gvr := schema.GroupVersionResource{Group: kind.Group, Version: "v1", Resource: resource}
		read(&gvr)
		s.opened, s.ended = func() {}, func() {}
		told := false
		s.failed = func(err error) {
			if !told {
				told = true
				err = classify(failure{op: "watch " + resource + " in namespace " + ns}, err)
				c.config.Logger.Warn("pods can't be read, so a rollout's failure has no reason", "cluster", c.config.Name, "error", err)
			}
		}
		v := &podView{c: c, ns: ns, n: n, pods: resource == "pods"}
		r := newReflection(place{kind.Group, kind.Kind, ns}, gvr)
		c.wg.Go(func() { runReflector(ctx, s, v, r.place.where()) })
	}
	s := &source{reduce: func(o runtime.Object) any { return reducePod(o.(*unstructured.Unstructured)) }}
	begin(Kind{Kind: "Pod"}, "pods", s, func(gvr *schema.GroupVersionResource) { c.full(s, *gvr, ns, "") })
	t := &source{reduce: func(o runtime.Object) any { return reduceSet(o.(*metav1.PartialObjectMetadata)) }}
	begin(Kind{Group: "apps", Kind: "ReplicaSet"}, "replicasets", t, func(gvr *schema.GroupVersionResource) { c.partial(t, *gvr, ns, "") })
}

// podView is what a reflector of pods or of ReplicaSets fills.
type podView struct {
	c    *Cluster
	ns   string
	n    *podNamespace
	pods bool
}

func (v *podView) take(name string, value any) {
	p := &v.c.pods
	p.mu.Lock()
	var owner types.UID
	switch x := value.(type) {
	case pod:
		v.n.pods[name], owner = x, x.owner
	case podSet:
		v.n.sets[name], owner = x, x.owner
	case nil:
		if v.pods {
			owner = v.n.pods[name].owner
			delete(v.n.pods, name)
		} else {
			owner = v.n.sets[name].owner
			delete(v.n.sets, name)
		}
	}
	var keys []Key
	for _, uid := range append(v.n.parents(owner), owner) {
		if w, ok := p.waiting[uid]; ok {
			keys = append(keys, w.key)
		}
	}
	p.mu.Unlock()
	if len(keys) > 0 {
		v.c.changes.add(keys...)
	}
}

func (n *podNamespace) parents(uid types.UID) []types.UID {
	for _, s := range n.sets {
		if s.uid == uid && s.owner != "" {
			return []types.UID{s.owner}
		}
	}
	return nil
}

// Add implements [cache.ReflectorStore].
func (v *podView) Add(x any) error { return v.Update(x) }

// Update implements [cache.ReflectorStore].
func (v *podView) Update(x any) error {
	i := x.(*item)
	v.take(i.Name, i.value)
	return nil
}

// Delete implements [cache.ReflectorStore].
func (v *podView) Delete(x any) error {
	v.take(x.(*item).Name, nil)
	return nil
}

// Replace implements [cache.ReflectorStore].
func (v *podView) Replace(list []any, _ string) error {
	v.c.pods.mu.Lock()
	if v.pods {
		clear(v.n.pods)
	} else {
		clear(v.n.sets)
	}
	v.c.pods.mu.Unlock()
	for _, x := range list {
		i := x.(*item)
		v.take(i.Name, i.value)
	}
	return nil
}

// Resync implements [cache.ReflectorStore].
func (v *podView) Resync() error { return nil }

func reduceSet(m *metav1.PartialObjectMetadata) podSet {
	s := podSet{uid: m.UID}
	if o := metav1.GetControllerOfNoCopy(m); o != nil {
		s.owner = o.UID
	}
	s.revision, _ = strconv.ParseInt(m.Annotations["deployment.kubernetes.io/revision"], 10, 64)
	return s
}

// explained returns an object with what its pods say, if it is waited for. One
// that was not yet judged by its service's rules is in progress.
func (c *Cluster) explained(o *Observed) Observed {
	if c.unjudged(o) {
		x := *o
		x.Health = Health{Status: InProgress, Message: "it has not been judged by its service's health rule yet"}
		return x
	}
	if !o.pods || o.Health.Status == Current {
		return *o
	}
	x := *o
	if why := c.pods.why(o); why != "" {
		x.Health.Reason = why
	}
	return x
}

// why says what is wrong with the newest pods of a workload.
func (p *pods) why(o *Observed) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.namespaces[o.Ref.Namespace]
	if n == nil {
		return ""
	}
	owner := o.UID
	newest := int64(-1)
	for _, s := range n.sets {
		if s.owner == o.UID && s.revision > newest {
			newest, owner = s.revision, s.uid
		}
	}
	type named struct {
		name string
		pod
	}
	var all []named
	for name, p := range n.pods {
		if p.owner == owner {
			all = append(all, named{name, p})
		}
	}
	hash := o.revision
	if hash == "" && len(all) > 0 {
		hash = slices.MaxFunc(all, func(a, b named) int { return a.created.Compare(b.created) }).hash
	}
	var worst *named
	same := 0
	for i, p := range all {
		if p.grade == 0 || p.hash != hash {
			continue
		}
		if worst == nil || cmp.Or(cmp.Compare(worst.grade, p.grade), cmp.Compare(p.name, worst.name)) < 0 {
			if worst == nil || worst.grade < p.grade {
				same = 0
			}
			worst = &all[i]
		}
		if p.grade == worst.grade {
			same++
		}
	}
	if worst == nil {
		return ""
	}
	reason := "pod " + worst.name + ": " + worst.reason
	if same > 1 {
		reason += fmt.Sprintf(" (and %d more)", same-1)
	}
	return reason
}

// The grades of a pod's trouble.
const (
	gradeNotReady      = 1
	gradeUnschedulable = 2
	gradeBroken        = 3
)

func reducePod(u *unstructured.Unstructured) pod {
	var k corev1.Pod
	delete(u.Object, "spec") // not looked at
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &k); err != nil {
		return pod{}
	}
	p := pod{created: k.CreationTimestamp.Time, hash: cmp.Or(k.Labels["controller-revision-hash"], k.Labels["pod-template-hash"])}
	if o := metav1.GetControllerOfNoCopy(&k); o != nil {
		p.owner = o.UID
	}
	if k.DeletionTimestamp == nil {
		p.grade, p.reason = trouble(&k.Status)
		p.reason = shorten(p.reason)
	}
	return p
}

// trouble says what is wrong with a pod, the cause first: a container before
// the pod's conditions, which only say that containers are not ready.
func trouble(s *corev1.PodStatus) (int, string) {
	for _, c := range slices.Concat(s.InitContainerStatuses, s.ContainerStatuses) {
		last := ""
		if t := c.LastTerminationState.Terminated; t != nil {
			last = fmt.Sprintf(" (exit code %d", t.ExitCode)
			if t.Reason != "" && t.Reason != "Error" {
				last += ", " + t.Reason
			}
			last += ")"
		}
		if w := c.State.Waiting; w != nil && w.Reason != "" && w.Reason != "ContainerCreating" && w.Reason != "PodInitializing" {
			reason := "container " + c.Name + ": " + w.Reason
			if w.Message != "" {
				reason += ": " + w.Message
			}
			if strings.Contains(w.Reason, "Image") && !strings.Contains(w.Message, c.Image) {
				reason += " (" + c.Image + ")"
			}
			return gradeBroken, reason + last
		}
		if t := c.State.Terminated; t != nil && t.ExitCode != 0 {
			return gradeBroken, fmt.Sprintf("container %s: %s (exit code %d)", c.Name, cmp.Or(t.Reason, "ended"), t.ExitCode)
		}
	}
	if s.Phase == corev1.PodFailed {
		return gradeBroken, strings.TrimSuffix(cmp.Or(s.Reason, "Failed")+": "+s.Message, ": ")
	}
	for _, c := range s.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return gradeUnschedulable, strings.TrimSuffix(cmp.Or(c.Reason, "not scheduled")+": "+c.Message, ": ")
		}
	}
	if s.Phase == corev1.PodRunning {
		for _, c := range s.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionFalse && c.Reason != "PodCompleted" {
				return gradeNotReady, strings.TrimSuffix("running, but "+cmp.Or(c.Reason, "not ready")+": "+c.Message, ": ")
			}
		}
	}
	return 0, ""
}
