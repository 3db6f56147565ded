package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
)

// review puts into the batch what is to be recorded of one service, and has
// the checks made that it needs.
func (c *Clerk) review(ctx context.Context, b *batch, k Key) error {
	if c.unreadable(k) {
		return nil
	}
	d := c.card(k)
	s := situation{Key: k, Now: b.now, Record: b.record(k), Sighting: d.sighting, Identity: d.identity, Drifts: d.drifts, Locations: c.zones}
	if c.shelfErr == nil {
		s.Shelf = c.shelf
	}
	var failure error
	if x := c.calls[k]; x != nil && x.id == s.Record.Deployment.ID {
		s.Calling, s.Called, s.Refusal = x.since, x.taken, x.refusal
	}
	s.Rules = func(commit string) *policy.Rules {
		r, err := c.rulesAt(ctx, commit)
		failure = errors.Join(failure, err)
		return r
	}
	if book := c.books[k.Environment]; book != nil {
		if _, recorded := book.records[k.Service]; recorded {
			s.Gone = c.gone(k)
		}
	}
	if at := s.Record.Deployment.ID; d.identity != nil && at != d.identity.id && at != d.against {
		// The ledger is not what it was when the sighting was identified.
		d.identity, d.asked = nil, sighted{}
		s.Identity, c.unsure[k] = nil, true
	}
	f, err := review(s)
	if failure != nil {
		return failure
	}
	if err != nil {
		var move *ledger.MoveError
		if !errors.As(err, &move) {
			return err
		}
		c.report(Event{Type: EventProblem, Environment: k.Environment, Service: k.Service, Message: "not recorded: " + err.Error()})
		return nil
	}
	d.judged, d.wake = f.Judged, f.Wake
	for _, x := range f.Passed {
		d.forget(x.Record(), x.Time)
	}
	if len(f.Entries) > 0 {
		// Work the records out once more, one by one, for the tree of each entry.
		for i, e := range f.Entries {
			r, err := b.record(k).Apply(e)
			if err != nil {
				return err
			}
			b.put(k, page{entry: e, record: r, objects: f.Objects[i]})
		}
	}
	c.checkDeployment(ctx, k, f)
	c.callElsewhere(ctx, k)
	return c.retreat(ctx, b, k)
}

// gone says why the tip does not ask for a service any more, or "".
func (c *Clerk) gone(k Key) string {
	repo := c.commit.Repository
	if _, wanted := repo.Deployment(k.Environment, k.Service); wanted {
		return ""
	}
	gone, why := repo.Gone(k.Environment, k.Service)
	if !gone {
		return ""
	}
	return sentenceless(why)
}

func sentenceless(s string) string { return strings.TrimRight(s, ".") }

// rulesAt returns the rules of a commit on main. What matters of it is the
// pipelines, the policies and the services; commits that have the same ones
// share their rules.
func (c *Clerk) rulesAt(ctx context.Context, commit string) (*policy.Rules, error) {
	if r, ok := c.rules[commit]; ok {
		return r, nil
	}
	snap, err := c.options.Mirror.Snapshot(ctx, commit)
	if err != nil {
		return nil, err
	}
	key, err := RulesKey(snap)
	if err != nil {
		return nil, err
	}
	r := c.rules[key]
	if r == nil {
		read, err := c.reader.read(ctx, commit)
		if err != nil {
			return nil, err
		}
		r = &policy.Rules{Commit: commit, Repository: read.Repository}
		c.locate(read.Repository)
	}
	if len(c.rules) > mostRules {
		clear(c.rules)
	}
	c.rules[commit] = r
	if !Faulty(r.Repository) {
		c.rules[key] = r
	}
	return r, nil
}

// RulesKey is the same for two commits that have the same pipelines, policies
// and keys, and so the same rules; but see Faulty.
func RulesKey(tree desired.Tree) (string, error) {
	var ids []string
	for _, folder := range []string{"pipelines", "policies", "keys"} {
		id, err := tree.ID(folder)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		ids = append(ids, id)
	}
	return strings.Join(ids, " "), nil
}

// Faulty tells whether a stage is at fault. That may be for an environment's
// file, and another commit has another one.
func Faulty(repo *desired.Repository) bool {
	for _, p := range repo.Pipelines {
		if slices.ContainsFunc(p.Stages, func(s desired.Stage) bool { return len(s.Problems) > 0 }) {
			return true
		}
	}
	return false
}

// mostRules bounds how many commits' rules are kept.
const mostRules = 20_000

// locate loads the time zones that the windows of a repository name.
func (c *Clerk) locate(repo *desired.Repository) {
	for _, p := range repo.Policies {
		if p.Window == nil || c.zones[p.Window.Timezone] != nil {
			continue
		}
		loc, err := c.options.Location(p.Window.Timezone)
		if err != nil {
			c.report(Event{Type: EventProblem, Message: fmt.Sprintf("%s: time zone %s can't be loaded: %v", p.File, p.Window.Timezone, err)})
			continue
		}
		c.zones[p.Window.Timezone] = loc
	}
}

// retreat goes back where the stage of a failed deployment asks for it.
func (c *Clerk) retreat(ctx context.Context, b *batch, k Key) error {
	r := c.record(k)
	if r.Deployment.State != ledger.StateFailed || b.changes(k) {
		return nil
	}
	if c.refused(b.now) {
		c.waiting[k] = true
		return nil
	}
	rules, err := c.rulesAt(ctx, r.Deployment.Commit)
	if err != nil {
		return err
	}
	all := map[desired.EnvironmentName]ledger.Record{}
	for env, book := range c.books {
		if other, ok := book.records[k.Service]; ok {
			all[env] = other
		}
	}
	retreats, _ := policy.Fall(b.now, r, *rules, all)
	for _, to := range retreats {
		target := Key{to.Environment, to.Service}
		now, ok := c.commit.Repository.Deployment(to.Environment, to.Service)
		if !ok || len(now.Problems) > 0 || b.moving(target) || !c.ours(to.Environment) {
			continue
		}
		if c.commit.Repository.Suspended(to.Environment, to.Service) != "" {
			continue // looked at again when its file has changed
		}
		pins := ledger.ReleaseOf(now.Pins, now.Source)
		if !pins.SamePins(all[to.Environment].Deployment.Release) || c.repinned(target, c.commit.ID) != "" {
			continue // somebody has changed it already, or has there and back
		}
		if to.Manifests && now.Source == "" {
			to.Manifests = false // that environment reads the newest ones
		}
		if pins.SamePins(to.To) && (!to.Manifests || pins.Source == to.To.Source) {
			continue
		}
		b.moves = append(b.moves, move{Key: target, origin: k, retreat: &to})
	}
	return nil
}

// moving tells whether the batch moves a service already.
func (b *batch) moving(k Key) bool {
	return slices.ContainsFunc(b.moves, func(m move) bool { return m.Key == k })
}

// refused tells whether the main branch has lately refused what we push.
func (c *Clerk) refused(now time.Time) bool {
	return now.Before(c.stuck) && c.stuck.Sub(now) <= refusedForNow // a clock may jump back
}

// admission gathers what Admit judges from, as the batch leaves it.
func (c *Clerk) admission(ctx context.Context, b *batch, k Key) (policy.Admission, *desired.Stage, error) {
	a := policy.Admission{
		Now: b.now, Service: k.Service, Environment: k.Environment, Target: b.record(k),
		Rules:     policy.Rules{Commit: c.commit.ID, Repository: c.commit.Repository},
		Before:    map[desired.EnvironmentName]ledger.Record{},
		Entries:   map[desired.EnvironmentName]string{},
		Locations: c.zones,
		Shelf:     c.shelf,
	}
	c.locate(c.commit.Repository)
	pipeline, stage, _ := a.Rules.Stage(k.Environment, k.Service)
	if stage == nil {
		return a, nil, nil
	}
	var err error
	if a.Rules.PipelineBlob, err = c.commit.Tree.ID(pipeline.File); err != nil {
		return a, nil, err
	}
	if d, ok := c.commit.Repository.Deployment(k.Environment, k.Service); ok {
		a.Pinned = &d
	}
	a.Unrecorded = c.repinned(k, c.commit.ID)
	for _, env := range stage.After {
		if before := (Key{env, k.Service}); c.books[env] != nil && !c.unreadable(before) {
			a.Before[env], a.Entries[env] = b.record(before), c.books[env].tip
		}
	}
	return a, stage, nil
}

// admit decides whether a stage is entered.
func (c *Clerk) admit(ctx context.Context, b *batch, k Key) error {
	if c.unreadable(k) {
		return nil
	}
	a, stage, err := c.admission(ctx, b, k)
	if err != nil {
		return err
	}
	d := c.card(k)
	d.decision, d.enter = nil, time.Time{}
	if stage == nil || len(stage.After) == 0 && len(stage.Track) == 0 && a.Target.Candidate == nil {
		c.propose(k, nil, nil)
		return nil
	}
	if c.shelfErr != nil && (len(stage.Track) > 0 || a.Rules.AsksArtifacts(k.Environment, k.Service)) {
		return fmt.Errorf("what is known of artifacts can't be used: %w", c.shelfErr)
	}
	for env := range a.Before {
		if b.changes(Key{env, k.Service}) {
			return nil // looked at again when that is pushed
		}
	}
	grounds, err := c.grounds(a)
	if err != nil {
		return err
	}
	if b.changes(k) || d.admitted == nil || !d.admitted.stands(b.now, grounds) {
		decision, err := c.decision(ctx, a)
		if err != nil {
			return err
		}
		d.admitted = &admitted{decision: decision, grounds: grounds, at: b.now}
		if b.changes(k) {
			d.admitted.grounds = "" // as good as none once it is pushed
		}
	}
	d.decision, d.enter = &d.admitted.decision, d.admitted.decision.Wake
	if !b.changes(k) {
		c.propose(k, stage, d.decision)
	}
	if stage.ByPullRequest && d.decision.Move == policy.Promote {
		c.checkCandidate(ctx, k, *d.decision)
		return nil // the rest is for who merges the pull request
	}
	return c.enact(ctx, b, k, d.admitted.decision)
}

// admitted is a decision, and what it was made from.
type admitted struct {
	decision policy.Decision
	grounds  string
	at       time.Time
}

// grounds are the ids of all that an admission is judged from, but for the time:
// the tips of the ledgers, and what of main can matter to it.
func (c *Clerk) grounds(a policy.Admission) (string, error) {
	var ids []string
	for _, env := range slices.Sorted(maps.Keys(a.Before)) {
		ids = append(ids, string(env), a.Entries[env])
	}
	if book := c.books[a.Environment]; book != nil {
		ids = append(ids, book.tip)
	}
	ids = append(ids, a.Shelf.At(), a.Unrecorded)
	for _, folder := range []string{"environments", "pipelines", "policies", "holds", "keys", serviceFolder(a.Service)} {
		id, err := c.commit.Snapshot.ID(folder)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		ids = append(ids, id)
	}
	return strings.Join(ids, " "), nil
}

// stands tells whether it would be decided again in the same way: the grounds
// are the same, and the moment is. A push that lost a race against a commit that
// has nothing to do with it is so judged again in no time.
func (x *admitted) stands(now time.Time, grounds string) bool {
	return x.grounds == grounds && !now.Before(x.at) && now.Sub(x.at) < sameMoment
}

// sameMoment is what a push may take anyway after it was decided on.
const sameMoment = 500 * time.Millisecond

// decision judges an admission with the order of commits that the mirror has.
func (c *Clerk) decision(ctx context.Context, a policy.Admission) (policy.Decision, error) {
	var failure error
	a.Older = func(commit, than string) bool {
		if commit == than {
			return false
		}
		older, err := c.options.Mirror.IsAncestor(ctx, commit, than)
		if err != nil {
			failure = errors.Join(failure, err)
		}
		return older
	}
	return policy.Admit(a), failure
}

// enact puts into the batch what a decision asks for.
func (c *Clerk) enact(ctx context.Context, b *batch, k Key, d policy.Decision) error {
	target := b.record(k)
	leave := func(event ledger.Event, after, reason string) error {
		old := target.Candidate
		return b.add(k, ledger.Entry{Event: event, Candidate: true, Release: old.Release, From: old.From, After: after, Reason: sentence(reason), Checks: old.Checks})
	}
	version := func(r ledger.Release) string {
		if target.Candidate.Release.SamePins(r) {
			return r.Version() + " with the manifests of " + short(r.Source)
		}
		return r.Version()
	}
	switch d.Move {
	case policy.Stay:
	case policy.Offer:
		if d.Supersedes && target.Candidate != nil {
			if err := leave(ledger.EventSuperseded, d.Candidate.Release.Version(), version(d.Candidate.Release)+" is newer, and verified"); err != nil {
				return err
			}
		}
		x := d.Candidate
		return b.add(k, ledger.Entry{Event: ledger.EventOffered, Candidate: true, Release: x.Release, From: x.From, Authors: x.Authors,
			Before: target.Deployment.Release.Version(), Reason: sentence(d.Reason)})
	case policy.Dismiss:
		event := ledger.EventSuperseded
		if d.Failed {
			event = ledger.EventFailed
		}
		return leave(event, "", d.Reason)
	case policy.Promote:
		if d.Supersedes && target.Candidate != nil {
			return leave(ledger.EventSuperseded, d.Promotion.Release.Version(), version(d.Promotion.Release)+" is newer, and verified")
		}
		if c.refused(b.now) {
			c.waiting[k] = true
			return nil
		}
		if !b.moving(k) && !b.changes(k) {
			b.moves = append(b.moves, move{Key: k, origin: k, promotion: d.Promotion})
		}
		return nil
	default:
		return fmt.Errorf("promote %s: the decision %q is none that can be carried out", k, d.Move)
	}
	c.checkCandidate(ctx, k, d)
	return nil
}

// takeIn takes in all news.
func (c *Clerk) takeIn(ctx context.Context, b *batch) {
	c.mu.Lock()
	seen, news, found, requests, results, events, drifts := c.seen, c.news, c.found, c.requests, c.results, c.events, c.drifts
	c.seen, c.news, c.found, c.requests, c.results, c.events, c.drifts = map[Key]Sighting{}, map[Key]bool{}, nil, nil, nil, nil, nil
	c.mu.Unlock()
	c.heardElsewhere()
	for _, ev := range events {
		beside, _ := c.beside(ev.Environment)
		ev.Message = hide(ev.Message, beside)
		c.report(ev)
	}
	for _, x := range drifts {
		if !c.ours(x.Environment) {
			continue
		}
		d := c.card(x.Key)
		d.drifts = append(d.drifts, x)
		if n := len(d.drifts) - mostDrifts; n > 0 {
			c.report(Event{Type: EventProblem, Environment: x.Environment, Service: x.Service, Message: "drift is not recorded, for what was seen before it can't be either: " + d.drifts[0].describe()})
			d.drifts = d.drifts[n:]
		}
		c.dirty[x.Key] = true
	}
	for k, s := range seen {
		if have, ok := c.held[k.Environment]; c.options.Tenure != nil && (!ok || have.term != s.term) {
			if now, ok := c.options.Tenure.term(k.Environment); ok && now == s.term {
				c.seeAgain(s, news[k]) // we have yet to notice that it is ours
			}
			continue
		}
		d := c.card(k)
		d.sighting = &s
		x := c.sighted(s, d.asked)
		if x != d.asked {
			c.settle(k, d)
			d.identity = nil
		}
		// Of a commit that wants the same there is nothing to review.
		if news[k] || x != d.asked {
			c.dirty[k] = true
		}
		if x != d.asked || !c.asBefore(k, d) {
			c.unsure[k] = true
		}
	}
	for _, f := range found {
		if !c.ours(f.key.Environment) {
			continue
		}
		d := c.card(f.key)
		d.asking, c.unsure[f.key] = false, true
		switch {
		case d.asked != f.asked || d.sighting == nil || c.sighted(*d.sighting, f.asked) != f.asked:
			d.asked = sighted{} // something newer has been seen since
		case f.err != nil:
			d.asked = sighted{}
			d.retry = time.Now().Add(min(firstAsk<<min(d.failures, 5), longestWait))
			d.failures++
			if ctx.Err() == nil {
				c.complainOf(f.key, f.err)
			}
		default:
			d.failures, d.retry, d.trouble = 0, time.Time{}, ""
			c.settle(f.key, d)
			d.identity, d.against, d.at = &f.identity, f.against, f.tip
			c.dirty[f.key], c.stages[f.key] = true, true
		}
	}
	for _, r := range slices.SortedFunc(slices.Values(results), checked.compare) {
		c.recordCheck(b, r)
	}
	for _, r := range requests {
		c.serve(b, r)
	}
}

// putBack keeps what a batch that was not pushed had taken in.
func (c *Clerk) putBack(b *batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range b.answers {
		a.request.sent = &a
		c.requests = append(c.requests, a.request)
	}
	c.results = append(c.results, b.taken...)
	b.answers, b.taken = nil, nil
}

// ledgerOf returns the environment that a branch is the ledger of.
func ledgerOf(branch string) (desired.EnvironmentName, bool) {
	name, ok := strings.CutPrefix(branch, "ledger/")
	return desired.EnvironmentName(name), ok
}
