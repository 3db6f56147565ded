package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
	"github.com/pinion-cd/pinion/reconcile/check"
)

// checkKey names a check that is made: one policy for one deployment, or for
// one candidate.
type checkKey struct {
	Key
	subject string // the deployment's id, or the candidate's release
	policy  desired.PolicyName
	run     int // counted up by each rerun
}

// running is a check that is being made.
type running struct {
	cancel  context.CancelFunc
	request check.Request
}

// checked is what a check came to.
type checked struct {
	key       checkKey
	candidate bool
	request   check.Request
	result    check.Result
	secrets   []string // of the deployment, where it is not the newest target
	blind     error    // they can't be known
}

func (c checked) compare(o checked) int {
	return cmp.Or(c.key.Key.Compare(o.key.Key), cmp.Compare(c.key.policy, o.key.policy), cmp.Compare(c.key.run, o.key.run))
}

// checkDeployment makes the checks that a verification waits for, and ends
// those that nothing waits for any more.
func (c *Clerk) checkDeployment(ctx context.Context, k Key, f finding) {
	var run []desired.PolicyName
	if f.Judged != nil && f.Judged.State == ledger.StateCompleted {
		run = f.Judged.Run
	}
	d := c.record(k).Deployment
	if d.ID != f.Record.Deployment.ID || d.State != ledger.StateCompleted || !slices.Equal(d.Reruns, f.Record.Deployment.Reruns) {
		run = nil // not pushed yet
	}
	c.runChecks(ctx, k, d.ID, false, d.Commit, d.Release, d.Reruns, run)
}

// checkCandidate does the same for an admission.
func (c *Clerk) checkCandidate(ctx context.Context, k Key, d policy.Decision) {
	x := c.record(k).Candidate
	if x == nil || d.Candidate == nil || !x.Release.Equal(d.Candidate.Release) {
		c.runChecks(ctx, k, "", true, "", ledger.Release{}, nil, nil)
		return
	}
	run := d.Run
	if !slices.Equal(x.Reruns, d.Candidate.Reruns) {
		run = nil // not pushed yet
	}
	c.runChecks(ctx, k, candidateID(x), true, c.commit.ID, x.Release, x.Reruns, run)
}

// candidateID tells candidates apart, also the same release when it is offered
// once more.
func candidateID(x *ledger.Candidate) string {
	return fmt.Sprintf("candidate %s %s %s", x.Release.Version(), x.Release.Source, x.Offered.UTC().Format("20060102150405"))
}

func (c *Clerk) runChecks(ctx context.Context, k Key, subject string, candidate bool, commit string, release ledger.Release, reruns []desired.PolicyName, run []desired.PolicyName) {
	wanted := map[checkKey]bool{}
	for _, p := range run {
		wanted[checkKey{k, subject, p, count(reruns, p)}] = true
	}
	for key, r := range c.checks {
		if key.Key == k && strings.HasPrefix(key.subject, "candidate ") == candidate && !wanted[key] {
			r.cancel()
			delete(c.checks, key)
			if key.subject != subject || key.run != count(reruns, key.policy) {
				c.after(ctx, key.Environment, func(ctx context.Context) { c.options.Checks.Cancel(ctx, r.request) })
			}
		}
	}
	for key := range wanted {
		if c.checks[key] != nil {
			continue
		}
		if err := c.begin(ctx, key, candidate, commit, release); err != nil {
			c.complainOf(k, fmt.Errorf("check %s: %w", key.policy, err))
		}
	}
}

func count(names []desired.PolicyName, name desired.PolicyName) int {
	n := 0
	for _, x := range names {
		if x == name {
			n++
		}
	}
	return n
}

// begin starts a check.
func (c *Clerk) begin(ctx context.Context, key checkKey, candidate bool, commit string, release ledger.Release) error {
	rules, err := c.rulesAt(ctx, commit)
	if err != nil {
		return err
	}
	snap, err := c.options.Mirror.Snapshot(ctx, commit)
	if err != nil {
		return err
	}
	env, p := c.commit.Repository.Environments[key.Environment], rules.Repository.Policies[key.policy]
	if env == nil || p == nil {
		return errors.New("the environment or the policy is not there")
	}
	q := check.Request{
		Environment: env, Service: key.Service, Deployment: key.subject, Run: key.run, Policy: p, Tree: snap,
	}
	for _, pin := range release.Pins {
		image, err := desired.ParseImage(pin.Image)
		if err != nil {
			return err
		}
		q.Pins = append(q.Pins, desired.Pin{Artifact: pin.Artifact, Image: image})
	}
	if p.Timeout > 0 {
		since := c.record(key.Key).Deployment.Completed
		if candidate {
			since = c.record(key.Key).Candidate.Offered
		}
		q.Deadline = since.Add(p.Timeout)
	}
	made := c.record(key.Key).Deployment
	ctx, cancel := c.termOf(key.Environment).Context(ctx)
	r := &running{cancel: cancel, request: q}
	c.checks[key] = r
	begun := Event{Type: EventChecking, Environment: key.Environment, Service: key.Service, Version: release.Version(), Message: fmt.Sprintf("check %s (%s) begins", p.Name, p.Check)}
	if made.ID == key.subject {
		begun.Deployment, begun.Commit = made.ID, made.Commit
	}
	c.report(begun)
	c.jobs.Go(func() {
		defer cancel()
		result, err := c.options.Checks.Run(ctx, q, func(message string) {
			c.mu.Lock()
			ev := begun
			ev.Message = fmt.Sprintf("check %s: %s", p.Name, message)
			c.events = append(c.events, ev)
			c.mu.Unlock()
			c.wake()
		})
		if err != nil {
			if ctx.Err() == nil {
				c.mu.Lock()
				c.events = append(c.events, Event{Type: EventProblem, Environment: key.Environment, Service: key.Service,
					Message: fmt.Sprintf("check %s can't be made: %v", p.Name, err)})
				c.mu.Unlock()
				c.wake()
			}
			return // nothing is decided
		}
		x := checked{key: key, candidate: candidate, request: q, result: result}
		if x.secrets, x.blind = c.secretsOf(ctx, key.Key, made); x.blind != nil && ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		c.results = append(c.results, x)
		c.mu.Unlock()
		c.wake()
	})
	return nil
}

// secretsOf returns the values of a deployment's Secrets, if the engine does not
// have it as its newest target: a text about it may quote them.
func (c *Clerk) secretsOf(ctx context.Context, k Key, d ledger.Deployment) ([]string, error) {
	c.mu.Lock()
	now := c.latest[k].Target
	c.mu.Unlock()
	if d.ID == "" || now != nil && now.Result.Digest == d.Manifests {
		return nil, nil
	}
	commit, err := c.reader.read(ctx, d.Commit)
	if err != nil {
		return nil, err
	}
	wanted, ok := commit.Repository.Deployment(k.Environment, k.Service)
	if !ok {
		return nil, fmt.Errorf("commit %.12s does not have the service", d.Commit)
	}
	t, tree, err := Resolve(ctx, c.options.Mirror, commit, wanted)
	if err != nil {
		return nil, err
	}
	if t.Result, err = c.renderer.render(ctx, tree, t.Request); err != nil {
		return nil, err
	}
	return t.secrets()
}

// beside returns the targets of an environment's services, and whether the
// engine has looked at all of them.
func (c *Clerk) beside(env desired.EnvironmentName) (all []*Target, complete bool) {
	complete = true
	for _, d := range c.commit.Repository.Deployments() {
		if d.Environment.Name != env {
			continue
		}
		if seen := c.card(Key{env, d.Service.Name}).sighting; seen != nil {
			all = append(all, seen.Target)
		} else {
			complete = false
		}
	}
	return all, complete
}

// hide cuts the values of an environment's Secrets out of what a check came to:
// a Job may have them at hand, and may write them. It says whether they are
// known; what has come before the engine has looked waits for it.
func (c *Clerk) hide(r *checked) bool {
	beside, known := c.beside(r.key.Environment)
	if !known {
		return false
	}
	if seen := c.card(r.key.Key).sighting; r.blind != nil && (seen == nil || seen.Target == nil || seen.Target.Result.Digest != c.record(r.key.Key).Deployment.Manifests) {
		r.result.Description, r.result.Output = fmt.Sprintf("what it says is left out, for it may quote Secrets that are not known any more: %v", r.blind), ""
	}
	r.result.Description, r.result.Output = hide(r.result.Description, beside, r.secrets...), hide(r.result.Output, beside, r.secrets...)
	return true
}

// recordCheck puts what a check came to into the batch.
func (c *Clerk) recordCheck(b *batch, r checked) {
	if c.checks[r.key] == nil {
		return // nothing waits for it any more
	}
	if c.unreadable(r.key.Key) || !c.hide(&r) {
		c.mu.Lock()
		c.results = append(c.results, r)
		c.mu.Unlock()
		return
	}
	record := b.record(r.key.Key)
	e := ledger.Entry{Event: ledger.EventCheck, Checks: []ledger.Check{{
		Policy: r.key.policy, Result: r.result.Result, By: daemonName, URL: r.result.URL, Description: r.result.Description, Output: r.result.Output,
	}}}
	if r.candidate {
		if record.Candidate == nil || candidateID(record.Candidate) != r.key.subject || count(record.Candidate.Reruns, r.key.policy) != r.key.run {
			return
		}
		aboutCandidate(&e, record)
	} else {
		if record.Deployment.ID != r.key.subject || count(record.Deployment.Reruns, r.key.policy) != r.key.run {
			return // it was taken back before it came
		}
		aboutDeployment(&e, record)
	}
	if err := b.add(r.key.Key, e); err != nil {
		c.report(Event{Type: EventProblem, Environment: r.key.Environment, Service: r.key.Service, Message: "not recorded: " + err.Error()})
		return
	}
	c.dirty[r.key.Key], c.stages[r.key.Key] = true, true
	b.taken = append(b.taken, r)
}

// daemonName is who made a check that the daemon made itself.
const daemonName = "pinion"

func aboutDeployment(e *ledger.Entry, r ledger.Record) {
	d := r.Deployment
	e.Deployment, e.Commit, e.Release, e.Manifests = d.ID, d.Commit, d.Release, d.Manifests
}

func aboutCandidate(e *ledger.Entry, r ledger.Record) {
	e.Candidate, e.Release, e.From = true, r.Candidate.Release, slices.Clone(r.Candidate.From)
}

// recorded tells the checks whose results are on the remote.
func (c *Clerk) recorded(ctx context.Context, b *batch) {
	taken := b.taken
	b.taken = nil
	for _, r := range taken {
		if len(b.pages[r.key.Environment]) > 0 {
			b.taken = append(b.taken, r)
			continue
		}
		if run := c.checks[r.key]; run != nil {
			delete(c.checks, r.key)
		}
		c.after(ctx, r.key.Environment, func(ctx context.Context) { c.options.Checks.Recorded(ctx, r.request) })
	}
}
