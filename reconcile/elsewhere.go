package reconcile

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/notify"
	"github.com/pinion-cd/pinion/policy"
	"github.com/pinion-cd/pinion/reconcile/trigger"
)

// DeployReport is what a report names in the place of a policy that is about a
// deployment by a webhook itself.
const DeployReport desired.PolicyName = "deploy"

// How often the engine asks the ledger of a deployment that somebody else makes,
// and of one that has ended, for the next may be asked for with the same.
const (
	lookElsewhere = time.Second
	lookAtEnded   = 10 * time.Second
)

// elsewhere decides where a service stands that somebody else deploys: the
// ledger knows. state is that of a deployment with the target's digest.
func elsewhere(v View, state ledger.State, known bool) Step {
	s := Step{Phase: Progressing, Message: "waits for the report that it is deployed", Again: v.Now.Add(lookElsewhere)}
	switch why := waitsFor(v.Dependencies); {
	case !v.Rendered:
		s = Step{Phase: Pending, Message: "not rendered yet"}
	case !known:
		s.Phase, s.Message = Pending, "the ledger is not read yet"
	case state == ledger.StateCompleted, state == ledger.StateVerified:
		s = Step{Phase: Ready, Again: v.Now.Add(lookAtEnded)}
	case state == ledger.StateFailed:
		s = Step{Phase: Failed, Message: "its deployment has failed; the ledger says why", Final: true, Again: v.Now.Add(lookAtEnded)}
	case v.Suspended != "":
		s = Step{Phase: Suspended, Message: v.Suspended}
	case why != "" && state == "":
		s = Step{Phase: Blocked, Message: why}
	}
	s.Base = s.Phase
	if v.Problem != "" {
		s.Phase, s.Message = Failed, v.Problem
	}
	return s
}

// followElsewhere records how far somebody else has come.
func followElsewhere(f *finding, s situation, add adder, about template) error {
	d, limit := f.Record.Deployment, s.Sighting.Target.Deploy.Timeout
	late := func(since time.Time, what string) (bool, error) {
		if since.IsZero() {
			return false, nil
		}
		if f.Wake = since.Add(limit); s.Now.Before(f.Wake) {
			return false, nil
		}
		f.Wake = time.Time{}
		return true, add(about(ledger.EventFailed, fmt.Sprintf("%s within %s.", what, limit)))
	}
	switch d.State {
	case ledger.StatePinned:
		if !s.Called {
			what := "Its webhook did not take it"
			if s.Refusal != "" {
				what = "Its webhook did not take it (" + s.Refusal + ")"
			}
			if s.Refusal == "" && s.Now.Sub(s.Calling) >= limit {
				return nil // the daemon was away meanwhile; what it says now counts
			}
			_, err := late(s.Calling, what)
			return err
		}
		e := about(ledger.EventStarted, "Its webhook has taken it.")
		e.Manifests = s.Sighting.Target.Result.Digest
		if err := add(e); err != nil {
			return err
		}
		f.Objects[len(f.Entries)-1] = s.Sighting.Target
		f.Wake = s.Now.Add(limit)
	case ledger.StateStarted:
		_, err := late(d.Started, "Nobody reported that it is deployed")
		return err
	}
	return judge(f, s, &policy.Health{Known: true, Healthy: true}, add, about)
}

// calledSince is from when on the time counts in which a webhook has to take a
// deployment: from its pin, whoever called first, but for one that was seen to be
// held back until now.
func calledSince(d ledger.Deployment, back string, now time.Time) time.Time {
	if back == d.ID || d.Pinned.IsZero() {
		return now
	}
	return d.Pinned
}

// calling is the call of a webhook for one deployment.
type calling struct {
	id      string
	since   time.Time
	cancel  context.CancelFunc
	taken   bool
	refusal string // why it was not taken last
}

// called is what came of one.
type called struct {
	key     Key
	id      string
	taken   bool
	refusal string
}

// callElsewhere calls the webhook of a deployment that waits for it, until it is
// taken, and ends a call that nothing waits for any more. That a call was taken
// is recorded as started; until then it is called again, also after a restart.
func (c *Clerk) callElsewhere(ctx context.Context, k Key) {
	d, r := c.card(k), c.record(k)
	at := r.Deployment
	x := c.calls[k]
	if x != nil && (x.id != at.ID || at.State != ledger.StatePinned) {
		x.cancel()
		delete(c.calls, k)
		x = nil
	}
	seen := d.sighting
	if seen != nil && (seen.Phase == Blocked || seen.Phase == Suspended) {
		d.back = at.ID
	}
	switch {
	case x != nil, c.options.Trigger == nil, seen == nil || seen.Target == nil || seen.Target.Deploy == nil || seen.Problem != "",
		seen.Phase != Progressing && seen.Phase != Ready, at.State != ledger.StatePinned, d.identity == nil || d.identity.id != at.ID:
		return
	}
	env := c.commit.Repository.Environments[k.Environment]
	if env == nil {
		return
	}
	call := trigger.Call{
		Environment: k.Environment, Namespace: env.Namespace, Service: k.Service, Deployment: at.ID, Version: at.Release.Version(),
		Commit: at.Commit, Source: at.Release.Source, Pins: at.Release.Pins, Parameters: seen.Target.Request.Parameters, Cause: at.Cause,
		URL: desired.Expand(seen.Target.Deploy.Webhook, env, k.Service),
	}
	ctx, cancel := c.termOf(k.Environment).Context(ctx)
	c.calls[k] = &calling{id: at.ID, since: calledSince(at, d.back, c.options.Clock()), cancel: cancel}
	c.report(Event{Type: EventChecking, Environment: k.Environment, Service: k.Service, Version: call.Version, Commit: call.Commit, Deployment: call.Deployment, Message: "its webhook is called"})
	c.jobs.Go(func() {
		defer cancel()
		for n := 1; ; n++ {
			is := c.options.Trigger.Call(ctx, call, time.Now())
			if ctx.Err() != nil {
				return
			}
			c.mu.Lock()
			c.called = append(c.called, called{k, call.Deployment, is.Taken, is.Reason})
			c.mu.Unlock()
			c.wake()
			if is.Taken {
				return
			}
			timer := time.NewTimer(max(is.Pause, notify.Wait(n, rand.Float64())))
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return
			}
		}
	})
}

// heardElsewhere takes in what came of calls.
func (c *Clerk) heardElsewhere() {
	c.mu.Lock()
	all := c.called
	c.called = nil
	c.mu.Unlock()
	for _, x := range all {
		now := c.calls[x.key]
		if now == nil || now.id != x.id {
			continue
		}
		if !x.taken && x.refusal != now.refusal {
			c.report(Event{Type: EventProblem, Environment: x.key.Environment, Service: x.key.Service, Deployment: x.id, Message: "its webhook has not taken it, and is called again: " + x.refusal})
		}
		now.taken, now.refusal = x.taken, x.refusal
		c.dirty[x.key] = true
	}
}

// deployOf is what a service's file says of its deployment by a webhook: as it
// is deployed, or as the newest commit has it; nil: it is not deployed so.
func (c *Clerk) deployOf(k Key) *desired.Deploy {
	if seen := c.card(k).sighting; seen != nil && seen.Target != nil {
		return seen.Target.Deploy
	}
	if s := c.commit.Repository.Services[k.Service]; s != nil {
		return s.Deploy
	}
	return nil
}

// reportable tells whether what a record has can be reported as version, and
// as nothing else. taken says that its webhook has taken it, which the record may
// not have yet: nobody can have deployed what no webhook has taken.
func reportable(r ledger.Record, version string, taken bool) *Rejection {
	d := r.Deployment
	if !means(version, d.ID, d.Commit, d.Release) {
		return reject(NotCurrent, "%s is not what is being deployed in %s, that is %s (%s), which is %s; nothing is recorded", version, r.Environment, d.ID, d.Release.Version(), d.State)
	}
	if past, twice := lookBack(r, version); twice && version != d.ID {
		return reject(NotCurrent, "%s was deployed in %s before, as %s, so this may be a late report of that; report %s, the deployment that is there; nothing is recorded", version, r.Environment, past.ID, d.ID)
	}
	if d.State == ledger.StatePinned && !taken {
		return reject(NotReady, "the webhook of %s has not taken %s yet, so nobody can have deployed it; nothing is recorded; report it again once the call is answered", r.Service, d.ID)
	}
	return nil
}

// takeDeployed takes in the report of the tool that deploys.
func (c *Clerk) takeDeployed(b *batch, k Key, by *desired.Deploy, r ReportRequest) (string, *Rejection) {
	if err := c.known(k, false); err != nil {
		return "", err
	}
	who := append([]string{r.Principal.Name}, r.Principal.Groups...)
	if !slices.ContainsFunc(who, func(n string) bool { return slices.Contains(by.By, n) }) {
		return "", reject(NotAReporter, "%s may not report deployments of %s; its deploy.by lets %s do that", r.Principal.Name, k.Service, strings.Join(by.By, ", "))
	}
	if r.Rerun {
		return "", reject(Invalid, "what was reported of a deployment can't be taken back; pin the version anew")
	}
	record := b.record(k)
	d := record.Deployment
	x := c.calls[k]
	if err := reportable(record, r.Version, x != nil && x.id == d.ID && x.taken); err != nil {
		return "", err
	}
	e := ledger.Entry{Event: ledger.EventCompleted, Actor: ledger.Person{Name: r.Principal.Name, Email: r.Principal.Email}}
	e.Reason = fmt.Sprintf("%s reports that it is deployed.", r.Principal.Name)
	if r.Result == ledger.Failure {
		e.Event, e.Reason = ledger.EventFailed, fmt.Sprintf("%s reports that its deployment has failed.", r.Principal.Name)
	}
	for _, more := range []string{sentence(r.Description), r.URL} {
		if more != "" {
			e.Reason += " " + more
		}
	}
	failed := d.State == ledger.StateFailed
	switch {
	case d.State == ledger.StatePinned, d.State == ledger.StateStarted:
	case r.Result == ledger.Failure == failed:
		return fmt.Sprintf("%s in %s is %s already", d.ID, k.Environment, d.State), nil
	default:
		return "", reject(Decided, "%s in %s is %s already; the report moves nothing, and nothing is recorded", d.ID, k.Environment, d.State)
	}
	before := ""
	if len(record.Previous) > 0 {
		before = record.Previous[0].Release.Version()
	}
	if d.State == ledger.StatePinned {
		// The call was taken, and that is not recorded yet.
		s := ledger.Entry{Event: ledger.EventStarted, Before: before, Reason: "Its webhook has taken it."}
		aboutDeployment(&s, record)
		if seen := c.card(k).sighting; seen != nil && seen.Target != nil && seen.Target.Result != nil {
			s.Manifests = seen.Target.Result.Digest
		}
		if err := b.add(k, s); err != nil {
			return "", reject(Decided, "%v", err)
		}
	}
	aboutDeployment(&e, b.record(k))
	e.Before = before
	if err := b.add(k, e); err != nil {
		return "", reject(Decided, "%v", err)
	}
	c.dirty[k], c.stages[k] = true, true
	return fmt.Sprintf("the deployment of %s in %s is recorded: %s", r.Version, k.Environment, r.Result), nil
}

// dropCalls ends the calls for an environment that is not ours any more.
func (c *Clerk) dropCalls(env desired.EnvironmentName) {
	maps.DeleteFunc(c.calls, func(k Key, x *calling) bool {
		if k.Environment == env {
			x.cancel()
		}
		return k.Environment == env
	})
}

// State is what a ledger says of a deployment whose objects have a digest; "":
// it is about another one. Where it can't be read, that is not known.
func (c *Clerk) State(k Key, manifests string) (state ledger.State, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.blind[k] || c.blind[Key{Environment: k.Environment}] {
		return "", false
	}
	if d := c.stands[k]; d.manifests == manifests && manifests != "" {
		state = d.state
	}
	return state, c.caughtUp
}

// stand is how a deployment stands in a ledger.
type stand struct {
	manifests string
	state     ledger.State
}
