package check

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

const (
	// keepJob is how long a Job stays after its result was recorded.
	keepJob = time.Hour
	// overtime is how much longer than the policy's time Kubernetes lets the Job
	// run, so that the logs can be read when we have given up.
	overtime = time.Minute
	// logTime bounds the reading of logs.
	logTime = 10 * time.Second
	// answerTime bounds a request that the end of the check's time or of its
	// context must not cut short.
	answerTime = 10 * time.Second
)

// Job is a Job to be run as a check.
type Job struct {
	Namespace string
	Name      string
	// Labels are those by which it is known to be the one.
	Labels map[string]string

	object map[string]any
}

// NewJob reads a policy's manifest and makes the Job of a check of it. The
// error is a *render.Error if the manifest's author can mend it.
func NewJob(q Request) (*Job, error) {
	file := q.Policy.Job.Manifest
	object, err := render.Manifest(q.Tree, file, "batch/v1", "Job", func(s string) string {
		return desired.Expand(s, q.Environment, q.Service)
	}, q.Pins)
	if err != nil {
		return nil, err
	}
	j := &Job{Namespace: q.Environment.Namespace, Name: q.jobName(), Labels: q.labels(), object: object}
	var wrong *render.Error
	if meta, ok := part(object, "metadata"); ok {
		switch v := meta["namespace"].(type) {
		case nil:
		case string:
			if v != "" && v != j.Namespace {
				wrong = &render.Error{Hint: "leave metadata.namespace out: it is set by the environment",
					Message: fmt.Sprintf("is for the namespace %s, but the environment %s has the namespace %s", v, q.Environment.Name, j.Namespace)}
			}
		default:
			wrong = &render.Error{Hint: "leave metadata.namespace out: it is set by the environment", Message: "metadata.namespace is not a string"}
		}
	}
	if wrong == nil {
		wrong = j.shape()
	}
	if wrong != nil {
		wrong.File = file
		return nil, wrong
	}
	return j, nil
}

// shape makes the object of the Job one that is run once, under its name and
// with its labels, and that is no object of a service.
func (j *Job) shape() *render.Error {
	wrong := func(format string, args ...any) *render.Error {
		return &render.Error{Message: fmt.Sprintf(format, args...)}
	}
	object := j.object
	meta, ok := part(object, "metadata")
	if !ok {
		return wrong("metadata is not an object")
	}
	for _, key := range []string{
		"generateName", "ownerReferences", // it has a name, and belongs to nobody
		"creationTimestamp", "managedFields", "resourceVersion", "uid", "generation", "selfLink",
	} {
		delete(meta, key)
	}
	delete(object, "status")
	meta["name"], meta["namespace"] = j.Name, j.Namespace

	spec, ok := part(object, "spec")
	if !ok {
		return wrong("spec is not an object")
	}
	delete(spec, "ttlSecondsAfterFinished") // it would be run again if it went before its result is recorded
	if spec["backoffLimit"] == nil && spec["backoffLimitPerIndex"] == nil {
		spec["backoffLimit"] = 0
	}
	template, ok := part(spec, "template")
	if !ok {
		return wrong("spec.template is not an object")
	}
	templateMeta, ok := part(template, "metadata")
	if !ok {
		return wrong("spec.template.metadata is not an object")
	}
	pod, ok := part(template, "spec")
	if !ok {
		return wrong("spec.template.spec is not an object")
	}
	if pod["restartPolicy"] == nil {
		pod["restartPolicy"] = "Never"
	}
	for _, x := range []struct {
		at   string
		meta map[string]any
	}{{"metadata", meta}, {"spec.template.metadata", templateMeta}} {
		for _, field := range []string{"labels", "annotations"} {
			marks, ok := part(x.meta, field)
			if !ok {
				return wrong("%s.%s is not an object", x.at, field)
			}
			for key, value := range marks {
				if strings.HasPrefix(key, "pinion.dev/") || key == render.LabelManagedBy && value == render.ManagedBy {
					delete(marks, key) // it is no object of the service
				}
			}
			if field == "labels" {
				for key, value := range j.Labels {
					marks[key] = value
				}
			}
			if len(marks) == 0 {
				delete(x.meta, field)
			}
		}
	}
	return nil
}

// part returns an object within an object, which is made if it is not there.
func part(of map[string]any, key string) (map[string]any, bool) {
	v, ok := of[key]
	if !ok || v == nil {
		made := map[string]any{}
		of[key] = made
		return made, true
	}
	m, ok := v.(map[string]any)
	return m, ok
}

// JSON returns the Job as it is to be created at a time; deadline, if not zero,
// is the end of the policy's time.
func (j *Job) JSON(now, deadline time.Time) ([]byte, error) {
	if !deadline.IsZero() {
		left := int64((max(deadline.Sub(now), 0) + overtime) / time.Second)
		spec := j.object["spec"].(map[string]any)
		if set, ok := spec["activeDeadlineSeconds"].(int64); !ok && spec["activeDeadlineSeconds"] == nil || ok && set > left {
			spec["activeDeadlineSeconds"] = left
		}
	}
	return json.Marshal(j.object)
}

// jobName is the same for the same check, however often it is begun.
func (q Request) jobName() string {
	key := q.key()
	name := fmt.Sprintf("%s-%s", q.Service, q.Policy.Name)
	if most := 63 - 9; len(name) > most {
		name = strings.TrimRight(name[:most], "-")
	}
	return name + "-" + hex.EncodeToString(key[:4])
}

func (q Request) labels() map[string]string {
	return map[string]string{
		cluster.LabelCheck:            labelValue(string(q.Policy.Name)),
		cluster.LabelCheckEnvironment: labelValue(string(q.Environment.Name)),
		cluster.LabelCheckService:     labelValue(string(q.Service)),
		cluster.LabelCheckDeployment:  labelValue(q.Deployment),
		cluster.LabelCheckRun:         strconv.Itoa(q.Run),
	}
}

var labelPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)

// labelValue returns text if it can be a label's value, else a digest of it.
func labelValue(text string) string {
	if labelPattern.MatchString(text) {
		return text
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:16])
}

func (r *Runner) cluster(q Request) (*cluster.Cluster, error) {
	c := r.clusters[q.Environment.Cluster]
	if c == nil {
		return nil, fmt.Errorf("check %s in %s: the daemon's configuration has no cluster %q", q.Policy.Name, q.Environment.Name, q.Environment.Cluster)
	}
	if name := q.Environment.ServiceAccount; name != "" {
		return c.As(cluster.Account{Namespace: q.Environment.Namespace, Name: name}), nil
	}
	return c, nil
}

// job runs a Job, or takes over the one that runs already.
func (r *Runner) job(ctx context.Context, q Request, say func(string)) (Result, error) {
	c, err := r.cluster(q)
	if err != nil {
		return Result{}, err
	}
	limited, within, cancel := q.bounded(ctx, 0)
	defer cancel()
	return task{
		manifest: func() (*Job, error) { return NewJob(q) },
		what:     q.Policy.Job.Manifest,
		within:   within,
		deadline: q.Deadline,
		pace:     r.pace(q),
		say:      say,
	}.run(ctx, limited, c)
}

// task is a Job to be run to its end.
type task struct {
	manifest func() (*Job, error)
	what     string // names it in messages
	within   string // what bounds it, in words
	deadline time.Time
	pace     *pace
	say      func(string)
}

// run runs a Job, or takes over the one that runs already. limited ends when
// the task's time is up.
func (t task) run(ctx, limited context.Context, c *cluster.Cluster) (Result, error) {
	var manifest *Job
	var found *cluster.Job
	var said string // why there is no Job yet
	for found == nil {
		var err error
		if manifest == nil {
			manifest, err = t.manifest()
			var wrong *render.Error
			if errors.As(err, &wrong) {
				return failed("%s", wrong), nil
			}
		}
		if manifest != nil {
			var decided *Result
			found, decided, err = t.start(ctx, limited, c, manifest)
			if decided != nil {
				return *decided, nil
			}
		}
		if ctx.Err() != nil {
			return Result{}, ctx.Err()
		}
		if err == nil {
			continue
		}
		if limited.Err() == nil || said == "" {
			said = err.Error()
		}
		t.say(said)
		pause, retry := cluster.Retry(err)
		if !retry { // an operator has to act
			pause = t.pace.most()
		}
		if !wait(limited, max(pause, t.pace.next())) {
			if ctx.Err() != nil {
				return Result{}, ctx.Err()
			}
			return failed("the Job could not be run within %s: %s", t.within, said), nil
		}
	}
	if !same(found, manifest) {
		return failed("%s is there already, and is not this check's: delete it or let it have another name, then run the check again", found.Ref), nil
	}

	last, err := c.FollowJob(limited, found, func(j cluster.Job) { t.say(waiting(&j)) })
	if ctx.Err() != nil {
		return Result{}, ctx.Err()
	}
	if err != nil && last.Unseen != nil {
		// It may have ended while nobody could see it.
		if j, err := look(ctx, c, manifest); err == nil && j != nil && j.UID == last.UID {
			j.Trouble, last = last.Trouble, *j
		}
	}
	result := Result{Result: ledger.Failure}
	switch last.Phase {
	case cluster.JobGone:
		result.Description = fmt.Sprintf("the Job was deleted before it had ended (%s)", last.Ref)
		return result, nil
	case cluster.JobComplete:
		result = passed("%s completed%s", last.Ref, took(&last))
	case cluster.JobFailed:
		result = failed("%s failed%s: %s", last.Ref, took(&last), last.Reason)
	case cluster.JobActive:
		result = failed("not done within %s: %s", t.within, waiting(&last))
	default:
		return Result{}, fmt.Errorf("%s: there is no phase %q of a Job", t.what, last.Phase)
	}
	trouble := ""
	result.Output, trouble = output(ctx, c, &last)
	if last.Phase == cluster.JobFailed && trouble != "" {
		result.Description += "; " + trouble
	}
	return result, ctx.Err()
}

// start finds the Job of a task, or else creates it if there is time left. A
// result says that there can't be one.
func (t task) start(ctx, limited context.Context, c *cluster.Cluster, manifest *Job) (*cluster.Job, *Result, error) {
	found, err := look(ctx, c, manifest)
	if found != nil || err != nil || limited.Err() != nil {
		if err == nil && found == nil {
			err = errors.New("there was no time left to create it")
		}
		return found, nil, err
	}
	if err := c.EnsureNamespace(limited, manifest.Namespace); err != nil {
		return nil, nil, err
	}
	body, err := manifest.JSON(time.Now(), t.deadline)
	if err != nil {
		return nil, nil, err
	}
	// A request that is cut short may still be carried out, after Cancel has
	// found no Job.
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
	defer cancel()
	found, _, err = c.CreateJob(whole, manifest.Namespace, manifest.Name, body)
	var invalid *cluster.InvalidError
	if errors.As(err, &invalid) && !strings.Contains(invalid.Message, "exceeded quota") {
		result := failed("%s: the API server refuses the Job: %s", t.what, invalid.Message)
		return nil, &result, nil
	}
	return found, nil, err
}

// look finds the Job of a check, also when the check's time is up.
func look(ctx context.Context, c *cluster.Cluster, manifest *Job) (*cluster.Job, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return c.FindJob(ctx, manifest.Namespace, manifest.Name)
}

// same tells whether a Job is the check's, and not another one of its name.
func same(found *cluster.Job, manifest *Job) bool {
	for key, value := range manifest.Labels {
		if found.Labels[key] != value {
			return false
		}
	}
	return true
}

func waiting(j *cluster.Job) string {
	var s string
	switch {
	case j.Deleting:
		s = fmt.Sprintf("%s is being deleted", j.Ref)
	case j.Suspended:
		s = fmt.Sprintf("%s is suspended", j.Ref)
	case j.Active > 0:
		s = fmt.Sprintf("%s runs", j.Ref)
	default:
		s = fmt.Sprintf("%s waits for a pod", j.Ref)
	}
	if j.Failed > 0 {
		s += fmt.Sprintf(" (failed so far: %d)", j.Failed)
	}
	if j.Trouble != "" {
		s += ": " + j.Trouble
	}
	if j.Unseen != nil {
		s += fmt.Sprintf(" (as last seen: %v)", j.Unseen)
	}
	return s
}

func took(j *cluster.Job) string {
	if j.Started.IsZero() || j.Ended.IsZero() {
		return ""
	}
	return " after " + words(j.Ended.Sub(j.Started))
}

// output returns the end of what a Job wrote, and what is wrong with its pod.
func output(ctx context.Context, c *cluster.Cluster, j *cluster.Job) (text, trouble string) {
	ctx, cancel := context.WithTimeout(ctx, logTime)
	defer cancel()
	// Escape sequences go yet, so a little more is read than is kept.
	logs, trouble, err := c.JobLogs(ctx, j, maxOutputLines, 4*maxOutput)
	if err != nil {
		return line("no logs: " + err.Error()), trouble
	}
	return joined(logs), trouble
}

// joined makes one text of the logs of a pod's containers, each of which gets
// the same share.
func joined(logs []cluster.Log) string {
	var parts []string
	for _, log := range logs {
		text := ""
		switch {
		case log.Err != nil:
			text = line("no logs: " + log.Err.Error())
		case len(logs) == 1:
			text = tail(plain(string(log.Text)), maxOutputLines, maxOutput)
		default:
			head := "container " + log.Container + ":\n"
			text = tail(plain(string(log.Text)), maxOutputLines/len(logs)-1, maxOutput/len(logs)-len(head)-1)
			if text != "" {
				text = head + text
			}
		}
		if text != "" {
			parts = append(parts, text)
		}
	}
	return tail(strings.Join(parts, "\n"), maxOutputLines, maxOutput)
}

// Recorded is to be called when the result of a check has been recorded: from
// then on its Job may go, and does so after an hour; one that still runs is
// ended. It is no harm to call it twice, or for a check without a Job.
func (r *Runner) Recorded(ctx context.Context, q Request) error {
	return r.tidy(ctx, q, func(c *cluster.Cluster, j *cluster.Job) error {
		return c.ExpireJob(ctx, j, keepJob)
	})
}

// Cancel is to be called when nobody wants a check's result any more, and the
// context of its Run was ended: it waits for that Run, and deletes the Job if
// it still runs.
func (r *Runner) Cancel(ctx context.Context, q Request) error {
	if err := r.ended(ctx, q); err != nil {
		return err
	}
	return r.tidy(ctx, q, func(c *cluster.Cluster, j *cluster.Job) error {
		if j.Done() {
			return c.ExpireJob(ctx, j, keepJob)
		}
		return c.DeleteJob(ctx, j)
	})
}

func (r *Runner) tidy(ctx context.Context, q Request, do func(*cluster.Cluster, *cluster.Job) error) error {
	if q.Policy.Check != desired.CheckJob {
		return nil
	}
	c, err := r.cluster(q)
	if err != nil {
		return err
	}
	found, err := c.FindJob(ctx, q.Environment.Namespace, q.jobName())
	if err != nil || found == nil || !same(found, &Job{Labels: q.labels()}) {
		return err
	}
	return do(c, found)
}
