package reconcile

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// unit is what the engine knows of one service in one environment. All of it
// can be found again from git and from the cluster.
type unit struct {
	key    Key
	term   *cluster.Term // under which it is ours; nil: nobody competes
	target *Target       // of the newest commit that could be had; nil: none yet
	at     string        // the newest commit that is known to want the target
	// problem says why the newest commit's wish can't be had.
	problem string
	// mistaken: its author alone can mend the problem, which the commit
	// problemAt has; wanted is what was asked for.
	mistaken  bool
	problemAt string
	wanted    *desired.Deployment
	// again is when the preparation is tried once more for a problem that may
	// pass by itself.
	again      time.Time
	tries      int
	generation int    // of the preparation that spoke of it last
	suspended  string // why nothing is written; "": it is

	compared  bool // with the cluster, by a job
	inSync    bool
	outOfSync string
	unready   []Unready
	commit    string // that what runs comes from

	phase    Phase
	base     Phase // of what runs; see Step
	message  string
	since    time.Time // of the phase
	applied  time.Time // when the target was applied, or first seen in sync
	wasReady bool
	healthy  time.Time // see soak; zero: what runs is not, or was not looked at
	unwell   bool      // it was seen to be other than healthy since it was last ready
	// written is when anybody last wrote an object of what runs, and lostAt when
	// one was last seen other than healthy.
	written, lostAt time.Time
	sight           sight
	failure         *Failure
	sighting        Sighting // the last that was told
	note            []string // what was done for the target besides what everybody expects
	going           bool     // it is not in sync for an object that is being deleted
	// over holds the Jobs that remove themselves and were seen complete, with
	// their digests: that they are not there is as the commit wants it.
	over map[render.Ref]string
	// unsaved are those that are to be written down, not before saveAt.
	unsaved []cluster.Done
	saveAt  time.Time
	saving  bool
	// after are the hooks that are due when the rollout is complete, hookDue is
	// the one to be run next, and hook the one that runs.
	after      []render.Hook
	hookDue    *render.Hook
	hookCommit string
	hook       *runningHook
	// inquired says that the cluster was asked why the rollout of the target has
	// failed, inquiring that it has not answered yet, and evidence what it has said.
	inquired, inquiring bool
	evidence            string
	// stuck says that the last apply succeeded, and that the cluster does not
	// show what it wrote: an object is being deleted, or others write it too.
	stuck bool
	// corrections counts how often what was applied before had to be applied
	// once more, or an apply left the service stuck, and damped is when it is
	// applied again.
	corrections int
	damped      time.Time

	// settled: all of the target was once in the cluster, so what is missing was
	// deleted. asked: the ledger was asked whether that is so.
	settled, asked bool
	// tolerates: drift is reported, and nothing is written for it.
	tolerates bool
	drifted   bool // others alone keep it out of sync
	changed   bool // and have changed fields
	// off stands for the state in which others have left it, and examined for
	// that in which found was made.
	off, examined uint64
	found         *Drift
	alike         map[string]int // drifts since there was peace, by signature
	contested     bool           // one of them came again and again

	cancel context.CancelCauseFunc // of the job, nil: none
	looks  bool                    // the job writes nothing, whatever it finds
}

// view gathers what Next decides from.
func (u *unit) view(now time.Time, dependencies []Dependency) View {
	v := View{
		Now:          now,
		Problem:      u.problem,
		Rendered:     u.target != nil,
		Suspended:    u.suspended,
		Busy:         u.cancel != nil,
		Dependencies: dependencies,
		InSync:       u.compared && u.inSync,
		OutOfSync:    u.outOfSync,
		Unready:      u.unready,
		Since:        u.applied,
		WasReady:     u.wasReady,
		Failure:      u.failure,
		Going:        u.going,
		HookDue:      hookName(u.after),
		Damped:       u.damped,
	}
	if u.target != nil {
		v.Timeout = u.target.Timeout
	}
	switch {
	case u.hookDue != nil:
		v.Hook = fmt.Sprintf("hook %s (%s) is to run", u.hookDue.Ref.Name, u.hookDue.When)
	case u.hook != nil:
		v.Hook = fmt.Sprintf("hook %s (%s): %s", u.hook.hook.Ref.Name, u.hook.hook.When, u.hook.message)
	}
	v.Tolerated, v.Contested = u.tolerates && u.drifted, u.contested
	if u.drifted && u.found != nil {
		v.Examined, v.Drift = u.off == u.examined, u.found.describe()
		if v.Examined && v.Drift != "" {
			v.OutOfSync = v.Drift
		}
	}
	if !u.compared {
		v.Uncompared, v.OutOfSync = true, "not yet compared with the cluster"
	}
	return v
}

// settledBefore tells whether a commit that wants the same is no news of the
// unit: it was told of, and nothing was wrong with what was wanted.
func (u *unit) settledBefore() bool {
	return u.target != nil && u.sighting.Target == u.target && u.problem == "" && u.wanted == nil && u.again.IsZero() && u.tries == 0
}

// inspect compares the target with what the cluster shows now.
func (u *unit) inspect(observed map[render.Ref]cluster.Observed) {
	u.inSync, u.outOfSync, u.unready, u.going = true, "", nil, false
	u.drifted, u.changed, u.off = true, false, 0
	u.written, u.lostAt = time.Time{}, time.Time{}
	commit := ""
	for i, o := range u.target.Result.Objects {
		have, ok := observed[o.Ref]
		if ok && o.JSON == nil && have.Digest == o.Digest && (o.Ref.Kind == "Job" || !cluster.Judged(have, o)) {
			o = u.target.object(i)
		}
		before := u.outOfSync
		u.written, u.lostAt = latest(u.written, have.Changed), latest(u.lostAt, have.Unwell)
		switch {
		case isOver(u.over, o, have, ok):
		case !ok:
			u.inSync, u.outOfSync = false, o.Ref.String()+" is not there"
		case have.Deleting:
			u.inSync, u.going, u.outOfSync = false, true, o.Ref.String()+": "+cluster.Going(have.Gone, have.Finalizers)
		case !have.Owned || have.Environment != u.key.Environment || have.Service != u.key.Service:
			u.inSync, u.outOfSync = false, o.Ref.String()+" belongs to somebody else"
		case have.Digest != o.Digest:
			u.inSync, u.outOfSync = false, o.Ref.String()+" differs from the commit"
		case !cluster.InSync(have, o):
			u.inSync, u.outOfSync = false, o.Ref.String()+" was changed by another manager"
		case commit != "" && have.Commit != commit:
			u.inSync, u.outOfSync = false, o.Ref.String()+" names another commit than the rest of the service"
		default:
			u.commit, commit = have.Commit, have.Commit
			if have.Health.Status == cluster.Current && removesItself(o) {
				if u.over[o.Ref] != o.Digest {
					u.complete(o.Ref, o.Digest)
					u.unsaved = append(u.unsaved, cluster.Done{Ref: o.Ref, Digest: o.Digest})
				}
			}
			if have.Health.Status != cluster.Current {
				u.unready = append(u.unready, Unready{o.Ref, have.Health})
			}
		}
		if u.outOfSync != before {
			lost := u.lost(o, have, ok)
			u.drifted, u.changed = u.drifted && lost, u.changed || lost && ok
			u.off ^= trace(o, have, ok)
		}
	}
	u.after = nil
	if id := u.deployed(); u.inSync && len(u.target.Result.Hooks) > 0 && id != "" {
		u.after = due(u.target, id, render.HookAfter, u.over)
		if before := due(u.target, id, render.HookBefore, u.over); len(before) > 0 {
			u.inSync, u.drifted, u.outOfSync = false, false, "the hook "+before[0].Ref.Name+" has not run"
		}
	}
	u.drifted = u.drifted && !u.inSync
	u.settled = u.settled || u.inSync
}

// deployed is the commit that what runs comes from. Without objects there is
// none that says so, and the rendering stands for it.
func (u *unit) deployed() string {
	if len(u.target.Result.Objects) == 0 {
		return u.target.Result.Digest
	}
	return u.commit
}

// removesItself tells whether an object is a Job that goes when it is done.
func removesItself(o render.Object) bool {
	if o.Ref.Group != "batch" || o.Ref.Kind != "Job" {
		return false
	}
	var job struct {
		Spec struct {
			TTL *int64 `json:"ttlSecondsAfterFinished"`
		} `json:"spec"`
	}
	return json.Unmarshal(o.JSON, &job) == nil && job.Spec.TTL != nil
}

// isOver tells whether an object is a Job that has run and removed, or is
// removing, itself.
func isOver(over map[render.Ref]string, o render.Object, have cluster.Observed, there bool) bool {
	digest, ok := over[o.Ref]
	return ok && digest == o.Digest && (!there || have.Deleting)
}

// wrote notes an apply that has written something. One that repeats what was
// applied or seen in sync before, because others change fields or delete
// objects, makes the next one wait.
func (u *unit) wrote(now time.Time, p Plan, commit string) {
	again := !u.applied.IsZero()
	u.applied = now
	u.commit = commit
	u.stuck = !u.inSync
	if u.stuck || again || corrects(p) {
		u.damp(now)
	}
	if !corrects(p) {
		u.wasReady = false
	}
}

// setTarget takes a new target over; what was known of the old one is void.
func (u *unit) setTarget(t *Target) {
	if u.target != nil && u.target.Deploy != nil {
		u.compared = false // with no cluster
	}
	u.target = t
	u.inquired, u.inquiring, u.evidence = false, false, ""
	u.inSync, u.outOfSync, u.unready = false, "", nil
	u.note, u.after, u.hookDue = nil, nil, nil
	if u.hook != nil {
		u.hook.cancel() // the Job goes on, and the next deployment's waits for it
		u.hook = nil
	}
	u.applied, u.wasReady, u.failure = time.Time{}, false, nil
	u.healthy, u.unwell = time.Time{}, false
	u.stuck, u.damped = false, time.Time{}
	u.settled, u.asked, u.drifted, u.examined, u.found = false, false, false, 0, nil
	u.calm()
	if u.cancel != nil {
		u.cancel(errPreempted)
	}
}

func (u *unit) status() ServiceStatus {
	s := ServiceStatus{Key: u.key, Commit: u.commit, Phase: u.phase, Message: u.hide(u.message), Since: u.since}
	if u.target != nil {
		s.Version = u.target.Version()
	}
	return s
}

// The delays between attempts.
const (
	firstRetry   = time.Second
	longestRetry = 5 * time.Minute
	// A namespace that is being deleted is not watched.
	longestNamespace = 10 * time.Second
	// A kind that is installed is found by one request for all who miss one.
	longestUnknown     = 5 * time.Second
	longestUnavailable = 10 * time.Second // a webhook, or what is behind an APIService
	firstRefusal       = 15 * time.Second // what the API server has refused is not tried as often
	firstCorrection    = time.Second
	quietCorrection    = 10 * time.Minute // after that long, a manager no longer counts as fighting us
)

// delay returns how long to wait before attempt n+1: first doubled n-1 times,
// at most longestRetry, and up to a fifth longer by a share that depends on
// the key, so that a thousand services do not come back in the same moment.
func delay(k Key, n int, first time.Duration) time.Duration {
	d := first
	for i := 1; i < n && d < longestRetry; i++ {
		d *= 2
	}
	d = min(d, longestRetry)
	h := fnv.New32a()
	h.Write([]byte(k.String()))
	h.Write([]byte{byte(n)})
	return d + d/5*time.Duration(h.Sum32()%1000)/1000
}

// hookName names the first of some hooks, or "".
func hookName(hooks []render.Hook) string {
	if len(hooks) == 0 {
		return ""
	}
	return hooks[0].Ref.Name
}
