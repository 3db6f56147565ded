package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/pinion-cd/pinion/render"
)

// The labels of a Job that is a check, and of its pods. A check is no object of
// the service, so it has none of the labels by which those are found: it is
// neither watched with them nor pruned.
const (
	LabelCheck            = "pinion.dev/check" // the policy
	LabelCheckEnvironment = "pinion.dev/check-environment"
	LabelCheckService     = "pinion.dev/check-service"
	LabelCheckDeployment  = "pinion.dev/check-deployment"
	LabelCheckRun         = "pinion.dev/check-run"
)

// The labels of a Job that is a hook, and of its pods; for the same reason.
const (
	LabelHook            = "pinion.dev/hook" // when it runs
	LabelHookEnvironment = "pinion.dev/hook-environment"
	LabelHookService     = "pinion.dev/hook-service"
	LabelHookRun         = "pinion.dev/hook-run" // its own name
)

var jobs = schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: "jobs"}

// JobPhase says how far a Job has come.
type JobPhase string

// The phases.
const (
	JobActive   JobPhase = "active" // or waiting to become so
	JobComplete JobPhase = "complete"
	JobFailed   JobPhase = "failed"
	JobGone     JobPhase = "gone" // somebody deleted it, and that is sure
)

// Job is what is known of a Job.
type Job struct {
	Ref             render.Ref
	UID             types.UID
	ResourceVersion string
	Labels          map[string]string
	Phase           JobPhase
	Reason          string // of a failure: "BackoffLimitExceeded: Job has reached …"
	Suspended       bool
	Deleting        bool
	Created         time.Time
	Started         time.Time // zero: not yet
	Ended           time.Time // zero: not yet
	Active          int       // pods that run or wait to run
	Failed          int       // pods that have failed
	// Trouble says what its newest pods suffer from: "pod x: container y:
	// ImagePullBackOff…". Only FollowJob and JobLogs find that out.
	Trouble string
	// Unseen says why what is known may be out of date; of FollowJob.
	Unseen error
}

// Done tells whether nothing more comes of it.
func (j *Job) Done() bool { return j.Phase != JobActive }

func jobRef(namespace, name string) render.Ref {
	return render.Ref{Group: "batch", Kind: "Job", Namespace: namespace, Name: name}
}

func jobFailure(op string, ref render.Ref) failure {
	return failure{op: op, ref: ref, group: "batch", version: "v1", kind: "Job"}
}

// FindJob reads a Job; nil, if it is surely not there.
func (c *Cluster) FindJob(ctx context.Context, namespace, name string) (*Job, error) {
	var k batchv1.Job
	err := c.send(ctx, func(ctx context.Context) error {
		raw, err := rawOf(c.client.Get().AbsPath("apis", "batch", "v1", "namespaces", namespace, "jobs", name).
			SetHeader("Accept", "application/json").MaxRetries(0).Do(ctx))
		if err != nil {
			return err
		}
		return json.Unmarshal(raw, &k)
	})
	var status apierrors.APIStatus
	if apierrors.IsNotFound(err) && errors.As(err, &status) {
		// What a proxy answers, or an API server that is about to begin, names nothing.
		if d := status.Status().Details; d != nil && d.Kind == "jobs" && d.Name == name {
			return nil, nil
		}
		return nil, &RetryableError{Op: "read", Ref: jobRef(namespace, name), Err: errors.New("the API server does not know of Jobs now")}
	}
	if err != nil {
		return nil, classify(jobFailure("read", jobRef(namespace, name)), err)
	}
	return jobOf(&k), nil
}

// CreateJob creates a Job from its JSON. If one of that name is there, whoever
// made it, that is returned, and created is false. After an error it may have
// been created all the same.
func (c *Cluster) CreateJob(ctx context.Context, namespace, name string, body []byte) (_ *Job, created bool, _ error) {
	ref := jobRef(namespace, name)
	var k batchv1.Job
	err := c.send(ctx, func(ctx context.Context) error {
		raw, err := rawOf(c.client.Post().AbsPath("apis", "batch", "v1", "namespaces", namespace, "jobs").
			Param("fieldManager", Manager).Param("fieldValidation", metav1.FieldValidationStrict).
			SetHeader("Content-Type", "application/json").SetHeader("Accept", "application/json").
			MaxRetries(0).Body(body).Do(ctx))
		if err != nil {
			return err
		}
		return json.Unmarshal(raw, &k)
	})
	if apierrors.IsAlreadyExists(err) {
		there, err := c.FindJob(ctx, namespace, name)
		if there == nil && err == nil {
			err = &RetryableError{Op: "create", Ref: ref, Err: errors.New("one of that name was there, and is gone")}
		}
		return there, false, err
	}
	if err != nil {
		err = classify(jobFailure("create", ref), err)
		c.learn(err)
		return nil, false, err
	}
	return jobOf(&k), true, nil
}

func jobOf(k *batchv1.Job) *Job {
	j := &Job{
		Ref: jobRef(k.Namespace, k.Name), UID: k.UID, ResourceVersion: k.ResourceVersion, Labels: k.Labels,
		Phase: JobActive, Deleting: k.DeletionTimestamp != nil, Created: k.CreationTimestamp.UTC(),
		Active: int(k.Status.Active), Failed: int(k.Status.Failed),
	}
	if k.Status.StartTime != nil {
		j.Started = k.Status.StartTime.UTC()
	}
	for _, c := range k.Status.Conditions {
		if c.Status != corev1.ConditionTrue {
			continue
		}
		switch c.Type {
		case batchv1.JobComplete:
			j.Phase, j.Ended = JobComplete, c.LastTransitionTime.UTC()
		case batchv1.JobFailed:
			j.Phase, j.Ended = JobFailed, c.LastTransitionTime.UTC()
			j.Reason = shorten(strings.TrimSuffix(cmp.Or(c.Reason, "Failed")+": "+c.Message, ": "))
		case batchv1.JobSuspended:
			j.Suspended = true
		}
	}
	return j
}

// FollowJob watches a Job until it is done, and returns its last state; seen,
// which is called from this very call, hears of each other one. That the API
// server can't be reached is told to seen, too, and waited out. The error is
// ctx's.
func (c *Cluster) FollowJob(ctx context.Context, job *Job, seen func(Job)) (Job, error) {
	if job.Done() {
		return *job, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	v := &jobView{job: *job, version: job.ResourceVersion, signal: make(chan struct{}, 1), pods: map[string]pod{}}
	s := v.source(jobFailure("watch", job.Ref))
	s.reduce = reduceJob
	only := fields.OneTermEqualSelector("metadata.name", job.Ref.Name).String()
	c.narrowed(s, jobs, job.Ref.Namespace, func(o *metav1.ListOptions) { o.FieldSelector = only })
	wg.Go(func() { runReflector(ctx, s, v, job.Ref.String()) })

	patience := time.NewTimer(podPatience)
	defer patience.Stop()
	for {
		select {
		case <-v.signal:
		case <-patience.C:
			// A Job that takes longer may have pods that can't start.
			p := &source{
				reduce: func(o runtime.Object) any { return reducePod(o.(*unstructured.Unstructured)) },
				failed: func(error) {}, opened: func() {}, ended: func() {}, // without it, only the words are fewer
			}
			chosen := podsOf(job)
			c.narrowed(p, schema.GroupVersionResource{Version: "v1", Resource: "pods"}, job.Ref.Namespace, func(o *metav1.ListOptions) { o.LabelSelector = chosen })
			wg.Go(func() { runReflector(ctx, p, (*jobPods)(v), "pods of "+job.Ref.String()) })
			continue
		case <-ctx.Done():
			return v.get(), ctx.Err()
		}
		now := v.get()
		if now.Phase == JobGone {
			// Only an answer about this very Job is sure.
			there, err := c.FindJob(ctx, job.Ref.Namespace, job.Ref.Name)
			switch {
			case err != nil:
				now.Phase, now.Unseen = JobActive, err
				after, _ := Retry(err)
				time.AfterFunc(max(after, time.Second), v.wake)
			case there != nil && there.UID == job.UID:
				v.put(there)
				continue
			default:
				now.Ended = time.Time{}
			}
		}
		if now.Done() {
			return now, nil
		}
		seen(now)
	}
}

// podsOf selects the pods of a check's Job. They have the Job's labels; a Job
// with a selector of its own has no others that are known.
func podsOf(job *Job) string {
	chosen := labels.Set{}
	for key, value := range job.Labels {
		if strings.HasPrefix(key, LabelCheck) || strings.HasPrefix(key, LabelHook) {
			chosen[key] = value
		}
	}
	return chosen.String()
}

// narrowed reads what narrow chooses.
func (c *Cluster) narrowed(s *source, gvr schema.GroupVersionResource, namespace string, narrow func(*metav1.ListOptions)) {
	r := c.dynamic.Resource(gvr).Namespace(namespace)
	s.list = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		narrow(&o)
		return r.List(ctx, o)
	}
	s.open = func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
		narrow(&o)
		return r.Watch(ctx, o)
	}
}

// jobView is what a reflector of one Job fills.
type jobView struct {
	signal chan struct{} // of capacity one: look again

	mu      sync.Mutex
	job     Job            // guarded by mu
	version string         // guarded by mu; the newest that was seen
	pods    map[string]pod // guarded by mu; by name
}

func (v *jobView) source(f failure) *source {
	tell := func(err error) {
		v.mu.Lock()
		changed := fmt.Sprint(v.job.Unseen) != fmt.Sprint(err)
		v.job.Unseen = err
		v.mu.Unlock()
		if changed {
			v.wake()
		}
	}
	return &source{
		failed: func(err error) { tell(classify(f, err)) },
		opened: func() { tell(nil) },
		ended:  func() {},
	}
}

func (v *jobView) wake() {
	select {
	case v.signal <- struct{}{}:
	default:
	}
}

func (v *jobView) get() Job {
	v.mu.Lock()
	defer v.mu.Unlock()
	j := v.job
	j.Trouble = v.trouble()
	return j
}

// trouble says what is wrong with the pod that is worst off. v.mu is held.
func (v *jobView) trouble() string {
	worst := ""
	for _, name := range slices.Sorted(maps.Keys(v.pods)) {
		p := v.pods[name]
		if p.owner == v.job.UID && p.grade > gradeNotReady && (worst == "" || p.grade > v.pods[worst].grade) {
			worst = name
		}
	}
	if worst == "" {
		return ""
	}
	return "pod " + worst + ": " + v.pods[worst].reason
}

// put takes over what was read, if it is of this Job and not older than what is
// known.
func (v *jobView) put(j *Job) {
	v.mu.Lock()
	switch {
	case j.UID != v.job.UID:
		v.job.Phase = JobGone // another one has taken the name
	case v.job.Phase != JobGone && newer(v.version, j.ResourceVersion):
	default:
		unseen := v.job.Unseen
		v.job, v.version = *j, j.ResourceVersion
		v.job.Unseen = unseen
	}
	v.mu.Unlock()
	v.wake()
}

func (v *jobView) gone(version string) {
	v.mu.Lock()
	if version == "" || !newer(v.version, version) {
		v.job.Phase = JobGone
	}
	v.mu.Unlock()
	v.wake()
}

func reduceJob(o runtime.Object) any {
	u := o.(*unstructured.Unstructured)
	delete(u.Object, "spec") // not looked at
	var k batchv1.Job
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &k); err != nil {
		return (*Job)(nil)
	}
	return jobOf(&k)
}

// Add implements [cache.ReflectorStore].
func (v *jobView) Add(x any) error { return v.Update(x) }

// Update implements [cache.ReflectorStore].
func (v *jobView) Update(x any) error {
	if j := x.(*item).value.(*Job); j != nil {
		v.put(j)
	}
	return nil
}

// Delete implements [cache.ReflectorStore].
func (v *jobView) Delete(x any) error {
	v.gone(x.(*item).ResourceVersion)
	return nil
}

// Replace implements [cache.ReflectorStore].
func (v *jobView) Replace(list []any, version string) error {
	for _, x := range list {
		v.Update(x)
	}
	if len(list) == 0 {
		v.gone(version) // unless the list is older than the Job
	}
	v.mu.Lock()
	v.job.Unseen = nil
	v.mu.Unlock()
	v.wake()
	return nil
}

// Resync implements [cache.ReflectorStore].
func (v *jobView) Resync() error { return nil }

// jobPods is a jobView that a reflector of the Job's pods fills.
type jobPods jobView

func (v *jobPods) take(change func(map[string]pod)) error {
	v.mu.Lock()
	change(v.pods)
	v.mu.Unlock()
	(*jobView)(v).wake()
	return nil
}

// Add implements [cache.ReflectorStore].
func (v *jobPods) Add(x any) error { return v.Update(x) }

// Update implements [cache.ReflectorStore].
func (v *jobPods) Update(x any) error {
	i := x.(*item)
	return v.take(func(pods map[string]pod) { pods[i.Name] = i.value.(pod) })
}

// Delete implements [cache.ReflectorStore].
func (v *jobPods) Delete(x any) error {
	return v.take(func(pods map[string]pod) { delete(pods, x.(*item).Name) })
}

// Replace implements [cache.ReflectorStore].
func (v *jobPods) Replace(list []any, _ string) error {
	return v.take(func(pods map[string]pod) {
		clear(pods)
		for _, x := range list {
			pods[x.(*item).Name] = x.(*item).value.(pod)
		}
	})
}

// Resync implements [cache.ReflectorStore].
func (v *jobPods) Resync() error { return nil }

// JobLogs reads the last lines, and of these the last bytes, that the
// containers of a Job's telling pod wrote: the newest one that failed, or else
// the newest one. trouble says what is wrong with that pod.
func (c *Cluster) JobLogs(ctx context.Context, job *Job, lines, size int) (logs []Log, trouble string, _ error) {
	f := failure{op: "list the pods of " + job.Ref.String()}
	var list corev1.PodList
	err := c.send(ctx, func(ctx context.Context) error {
		raw, err := rawOf(c.client.Get().AbsPath("api", "v1", "namespaces", job.Ref.Namespace, "pods").
			Param("labelSelector", podsOf(job)).SetHeader("Accept", "application/json").MaxRetries(0).Do(ctx))
		if err != nil {
			return err
		}
		return json.Unmarshal(raw, &list)
	})
	if err != nil {
		return nil, "", classify(f, err)
	}
	pod := tellingPod(list.Items, job.UID)
	if pod == nil {
		return nil, "", fmt.Errorf("%s: there are none any more", f.op)
	}
	if _, why := troubleOf(pod); why != "" {
		trouble = "pod " + pod.Name + ": " + shorten(why)
	}
	for _, name := range containersOf(pod) {
		text, err := c.log(ctx, pod, name, false, lines, size)
		logs = append(logs, Log{Container: name, Text: text, Err: err})
	}
	return logs, trouble, nil
}

func troubleOf(pod *corev1.Pod) (int, string) {
	grade, why := trouble(&pod.Status)
	if grade <= gradeNotReady {
		return 0, ""
	}
	return grade, why
}

func tellingPod(pods []corev1.Pod, owner types.UID) *corev1.Pod {
	var best *corev1.Pod
	for i := range pods {
		p := &pods[i]
		if o := metav1.GetControllerOfNoCopy(p); o == nil || o.UID != owner {
			continue
		}
		if best == nil {
			best = p
			continue
		}
		failed, bestFailed := p.Status.Phase == corev1.PodFailed, best.Status.Phase == corev1.PodFailed
		later := cmp.Or(p.CreationTimestamp.Compare(best.CreationTimestamp.Time), cmp.Compare(best.Name, p.Name)) > 0
		if failed && !bestFailed || failed == bestFailed && later {
			best = p
		}
	}
	return best
}

// ExpireJob has Kubernetes delete a Job some time after its end. One that has
// not ended is ended.
func (c *Cluster) ExpireJob(ctx context.Context, job *Job, after time.Duration) error {
	if !job.Done() && job.Started.IsZero() {
		return c.DeleteJob(ctx, job) // it has nothing to show
	}
	spec := map[string]any{"ttlSecondsAfterFinished": int(after / time.Second)}
	if !job.Done() {
		spec["activeDeadlineSeconds"] = 1
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": job.UID}, "spec": spec})
	if err != nil {
		return err
	}
	err = c.send(ctx, func(ctx context.Context) error {
		_, err := c.metadata.Resource(jobs).Namespace(job.Ref.Namespace).Patch(ctx, job.Ref.Name, types.MergePatchType, body, metav1.PatchOptions{FieldManager: Manager})
		return err
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return classify(jobFailure("let expire", job.Ref), err)
}

// DeleteJob deletes this very Job, and its pods in the background.
func (c *Cluster) DeleteJob(ctx context.Context, job *Job) error {
	background := metav1.DeletePropagationBackground
	err := c.send(ctx, func(ctx context.Context) error {
		return c.metadata.Resource(jobs).Namespace(job.Ref.Namespace).Delete(ctx, job.Ref.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &job.UID}, PropagationPolicy: &background,
		})
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // it is gone, and another one is not ours to delete
	}
	return classify(jobFailure("delete", job.Ref), err)
}

// DeniedJobs says what our account may not do in a namespace and must be able
// to, if Jobs are to be run there as checks.
func (c *Cluster) DeniedJobs(ctx context.Context, namespace string) ([]string, error) {
	denied, err := c.denied(ctx, "batch", "jobs", namespace, "get", "list", "watch", "create", "patch", "delete")
	if err != nil {
		return denied, err
	}
	more, err := c.denied(ctx, "", "pods", namespace, "list", "watch")
	return append(denied, more...), err
}

// FindJobs lists the Jobs of a namespace that have all of some labels.
func (c *Cluster) FindJobs(ctx context.Context, namespace string, chosen map[string]string) ([]*Job, error) {
	f := failure{op: "list Jobs in namespace " + namespace, group: "batch", version: "v1", kind: "Job"}
	var list batchv1.JobList
	err := c.send(ctx, func(ctx context.Context) error {
		raw, err := rawOf(c.client.Get().AbsPath("apis", "batch", "v1", "namespaces", namespace, "jobs").
			Param("labelSelector", labels.Set(chosen).String()).SetHeader("Accept", "application/json").MaxRetries(0).Do(ctx))
		if err != nil {
			return err
		}
		return json.Unmarshal(raw, &list)
	})
	if err != nil {
		return nil, classify(f, err)
	}
	var found []*Job
	for i := range list.Items {
		found = append(found, jobOf(&list.Items[i]))
	}
	return found, nil
}
