package check

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// Hook is a Job that is run once for one deployment.
type Hook struct {
	Environment desired.EnvironmentName
	Service     desired.ServiceName
	When        string // render.HookBefore or HookAfter
	Object      render.Object
	Run         render.Ref    // of the Job: the same for the same deployment
	Timeout     time.Duration // from now
	// Keep are the runs of the same deployment; those of others are removed
	// before this one begins.
	Keep map[render.Ref]bool
}

func (h Hook) labels() map[string]string {
	l := h.family()
	l[cluster.LabelHook], l[cluster.LabelHookRun] = h.When, labelValue(h.Run.Name)
	return l
}

// family are the labels of all hooks of the service.
func (h Hook) family() map[string]string { return hooksOf(h.Environment, h.Service) }

func hooksOf(env desired.EnvironmentName, svc desired.ServiceName) map[string]string {
	return map[string]string{cluster.LabelHookEnvironment: labelValue(string(env)), cluster.LabelHookService: labelValue(string(svc))}
}

// RemoveHooks removes the Jobs that ran the hooks of a service that has gone,
// those among them that still run.
func RemoveHooks(ctx context.Context, c *cluster.Cluster, namespace string, env desired.EnvironmentName, svc desired.ServiceName) error {
	old, err := c.FindJobs(ctx, namespace, hooksOf(env, svc))
	if err != nil {
		return err
	}
	for _, j := range old {
		if err := c.DeleteJob(ctx, j); err != nil {
			return err
		}
	}
	return nil
}

func (h Hook) job() (*Job, error) {
	d := json.NewDecoder(bytes.NewReader(h.Object.JSON))
	d.UseNumber()
	j := &Job{Namespace: h.Run.Namespace, Name: h.Run.Name, Labels: h.labels()}
	if err := d.Decode(&j.object); err != nil {
		return nil, fmt.Errorf("hook %s: %w", h.Object.Ref, err)
	}
	if spec, ok := j.object["spec"].(map[string]any); ok {
		if n, ok := spec["activeDeadlineSeconds"].(json.Number); ok {
			if seconds, err := n.Int64(); err == nil {
				spec["activeDeadlineSeconds"] = seconds
			}
		}
	}
	if wrong := j.shape(); wrong != nil {
		wrong.File = "hook " + h.Object.Ref.Name
		return nil, wrong
	}
	return j, nil
}

// Hook runs a hook, or takes over the run that there is, and returns when that
// has ended. It begins when those of other deployments have ended, and removes
// them. If ctx ends before, nothing is decided, and ctx's error comes back; the
// Job goes on.
func (r *Runner) Hook(ctx context.Context, c *cluster.Cluster, h Hook, progress func(string)) (Result, error) {
	said := ""
	say := func(words string) {
		if words = line(words); words != said {
			said = words
			progress(words)
		}
	}
	deadline := time.Now().Add(h.Timeout)
	limited, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	seed := fnv.New64a()
	binary.Write(seed, binary.BigEndian, []byte(h.Run.String()))
	p := &pace{first: r.interval, seed: seed.Sum64()}
	if there, err := look(ctx, c, &Job{Namespace: h.Run.Namespace, Name: h.Run.Name}); err != nil || there == nil {
		for {
			err := h.sweep(limited, c, say)
			if err == nil {
				break
			}
			say(err.Error())
			if !wait(limited, p.next()) {
				if ctx.Err() != nil {
					return Result{}, ctx.Err()
				}
				return failed("the hooks of the deployment before could not be removed within %s: %v", words(h.Timeout), err), nil
			}
		}
	}
	result, err := task{
		manifest: h.job, what: "hook " + h.Object.Ref.Name, within: words(h.Timeout), deadline: deadline, pace: p, say: say,
	}.run(ctx, limited, c)
	result.Description = line(result.Description)
	return result, err
}

// sweep removes the runs of other deployments, each when it has ended.
func (h Hook) sweep(ctx context.Context, c *cluster.Cluster, say func(string)) error {
	old, err := c.FindJobs(ctx, h.Run.Namespace, h.family())
	if err != nil {
		return err
	}
	for _, j := range old {
		if h.Keep[j.Ref] {
			continue
		}
		if !j.Done() && !j.Deleting {
			if _, err := c.FollowJob(ctx, j, func(now cluster.Job) { say("of the deployment before, " + waiting(&now)) }); err != nil {
				return fmt.Errorf("wait for the end of %s: %w", j.Ref, err)
			}
		}
		if err := c.DeleteJob(ctx, j); err != nil {
			return err
		}
	}
	return nil
}
