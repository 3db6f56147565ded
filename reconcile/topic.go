package reconcile

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
)

// topic is what an entry is about: a deployment, or a release that waits, or
// waited, to enter the environment.
type topic struct {
	candidate  bool
	deployment string
	commit     string
	release    ledger.Release
	manifests  string
	from       []string
}

func (s topic) means(version string) bool { return means(version, s.deployment, s.commit, s.release) }

func (s topic) same(o topic) bool {
	return s.candidate == o.candidate && s.deployment == o.deployment && s.release.Equal(o.release)
}

// put makes an entry be about it.
func (s topic) put(e *ledger.Entry) {
	e.Candidate, e.Deployment, e.Commit, e.Release, e.Manifests, e.From = s.candidate, s.deployment, s.commit, s.release, s.manifests, slices.Clone(s.from)
}

// asked is what a request is about: the deployment that is there, the candidate
// that waits, or what was there or waited before. gate is the policy as the
// stage that asks for it has it.
type asked struct {
	candidate bool
	gate      *desired.Policy
	current   bool   // the version that the request names is what the gate is for now
	meant     *topic // what is not current; nil: nothing is known of that version
}

// find looks for a policy in a stage's verify, for the deployment, and in its
// admit, for the candidate. A deployment is judged by the rules of its commit,
// whatever has become of them since; so is one of before, for which there may
// be a late word.
func (c *Clerk) find(ctx context.Context, b *batch, k Key, name desired.PolicyName, version string) (asked, *Rejection) {
	r := b.record(k)
	d := r.Deployment
	var options []asked
	known := c.commit.Repository.Policies[name] != nil || len(c.commit.Repository.Broken(desired.KindPolicy, string(name))) > 0
	var asks []desired.PolicyName // of the deployment
	if d.ID != "" {
		rules, err := c.rulesAt(ctx, d.Commit)
		if err != nil {
			return asked{}, reject(NotReady, "the policies of commit %.12s can't be read: %v", d.Commit, err)
		}
		known = known || rules.Repository.Policies[name] != nil
		if _, stage, _ := rules.Stage(k.Environment, k.Service); stage != nil {
			asks = stage.Verify
		}
		if gate := rules.Repository.Policies[name]; gate != nil && slices.Contains(asks, name) {
			options = append(options, asked{gate: gate, current: means(version, d.ID, d.Commit, d.Release)})
		}
	}
	tip := policy.Rules{Commit: c.commit.ID, Repository: c.commit.Repository}
	_, stage, why := tip.Stage(k.Environment, k.Service)
	if stage != nil && slices.Contains(stage.Admit, name) && tip.Repository.Policies[name] != nil {
		x := r.Candidate
		options = append(options, asked{candidate: true, gate: tip.Repository.Policies[name],
			current: x != nil && means(version, "", "", x.Release)})
	}
	for _, o := range options {
		if o.current {
			return o, nil
		}
	}
	meant, err := c.meant(ctx, b, k, version)
	if err != nil {
		return asked{}, reject(NotReady, "what %s tells of before can't be read: %v", ledger.Branch(k.Environment), err)
	}
	if meant != nil && meant.deployment != "" && meant.deployment != d.ID {
		rules, err := c.rulesAt(ctx, meant.commit)
		if err != nil && len(options) == 0 {
			return asked{}, reject(NotReady, "the policies of commit %.12s can't be read: %v", meant.commit, err)
		}
		if err == nil {
			gate := rules.Repository.Policies[name]
			known = known || gate != nil
			if _, then, _ := rules.Stage(k.Environment, k.Service); gate != nil && then != nil && slices.Contains(then.Verify, name) {
				return asked{gate: gate, meant: meant}, nil
			}
		}
	}
	switch {
	case len(options) > 0:
		options[0].meant = meant
		return options[0], nil
	case !known:
		return asked{}, reject(UnknownPolicy, "there is no policy %q; there are %s", name, names(tip.Repository.Policies))
	case stage == nil:
		return asked{}, reject(PolicyNotUsed, "policy %s is not used for %s in %s: %s", name, k.Service, k.Environment, why)
	case d.ID != "" && slices.Contains(stage.Verify, name):
		return asked{}, reject(PolicyNotUsed, "%s in %s is judged by the rules of its commit %.12s, which ask for %s, and not for policy %s; the next deployment is asked for that",
			d.ID, k.Environment, d.Commit, list(asks), name)
	}
	return asked{}, reject(PolicyNotUsed, "the stage %s does not use policy %s for %s; name it in its verify or admit", k.Environment, name, k.Service)
}

func list(policies []desired.PolicyName) string {
	if len(policies) == 0 {
		return "no check"
	}
	texts := make([]string, len(policies))
	for i, p := range policies {
		texts[i] = string(p)
	}
	return strings.Join(texts, ", ")
}

// meant returns what a version means that is not what a gate is for now: the
// newest deployment or release of that name that the record, or one of the
// ledger's newest entries, knows; nil if none does.
func (c *Clerk) meant(ctx context.Context, b *batch, k Key, version string) (*topic, error) {
	r := b.record(k)
	if d := r.Deployment; d.ID != "" && means(version, d.ID, d.Commit, d.Release) {
		return &topic{false, d.ID, d.Commit, d.Release, d.Manifests, nil}, nil
	}
	if x := r.Candidate; x != nil && means(version, "", "", x.Release) {
		return &topic{candidate: true, release: x.Release, from: x.From}, nil
	}
	past, ok := lookBack(r, version)
	if v := r.Verified; !ok && v != nil && means(version, v.ID, v.Commit, v.Release) {
		past, ok = *v, true
	}
	if ok {
		return &topic{false, past.ID, past.Commit, past.Release, past.Manifests, nil}, nil
	}
	m, err := c.memory(ctx, k.Environment)
	if err != nil {
		return nil, err
	}
	if s, ok := m.find(k.Service, version); ok {
		return &s, nil
	}
	return nil, nil
}

// lookBack finds a deployment of before by what a person says.
func lookBack(r ledger.Record, version string) (ledger.Past, bool) {
	for _, p := range r.Previous {
		if means(version, p.ID, p.Commit, p.Release) {
			return p, true
		}
	}
	return ledger.Past{}, false
}

// means tells whether a person who says version can mean a release.
func means(version, id, commit string, r ledger.Release) bool {
	switch {
	case version == "":
		return false
	case version == id, version == r.Version():
		return true
	case len(version) >= 7 && commit != "" && strings.HasPrefix(commit, strings.ToLower(version)):
		return true
	case len(r.Pins) == 1:
		image, err := desired.ParseImage(r.Pins[0].Image)
		return version == r.Pins[0].Image || err == nil && (version == image.Version || version == image.Digest || version == image.Version+"@"+image.Digest)
	}
	return false
}

// late records what came for something else than what is there, or for what is
// over.
func (c *Clerk) late(b *batch, k Key, e ledger.Entry, on asked, version string) (Receipt, *Rejection) {
	record := b.record(k)
	about := on.meant
	if on.current {
		d := record.Deployment
		about = &topic{false, d.ID, d.Commit, d.Release, d.Manifests, nil}
	}
	now := "nothing waits there"
	switch d := record.Deployment; {
	case on.candidate && record.Candidate != nil:
		now = "the candidate is " + record.Candidate.Release.Version()
	case !on.candidate && d.ID != "":
		now = fmt.Sprintf("%s is there, and %s", d.Release.Version(), d.State)
	}
	if about == nil {
		return Receipt{}, reject(UnknownDeployment, "nothing is known of %s %s in %s: its ledger tells of no deployment and of no offer of that version, and %s; nothing is recorded",
			k.Service, version, k.Environment, now)
	}
	about.put(&e)
	e.Reason = strings.TrimSpace(fmt.Sprintf("It came for version %q. ", version) + e.Reason)
	first, rejection := c.once(b, k, e)
	switch {
	case rejection != nil:
		return Receipt{}, rejection
	case first != nil && !first.late:
		return Receipt{Commit: first.commit, Message: fmt.Sprintf("%s of %s in %s is recorded already", first.policy, version, k.Environment)}, nil
	}
	return Receipt{}, &Rejection{Code: NotCurrent, Receipt: first.receipt(), Message: fmt.Sprintf(
		"%s %s is not what waits for it in %s: %s; it is recorded, and moves nothing", k.Service, version, k.Environment, now)}
}

// once puts an entry that moves nothing into the batch, unless one says the same
// already: then that one is returned. Its commit is "" if it is in this batch.
func (c *Clerk) once(b *batch, k Key, e ledger.Entry) (*remembered, *Rejection) {
	e.Environment, e.Service, e.Time, e.Late = k.Environment, k.Service, b.now, true
	e = e.Normal()
	said := statementOf(e)
	if b.said[said] {
		return &remembered{late: true}, nil
	}
	m, err := c.memory(b.ctx, k.Environment)
	if err != nil {
		return nil, reject(NotReady, "what %s tells of before can't be read: %v", ledger.Branch(k.Environment), err)
	}
	if r, ok := m.first(e); ok {
		return &r, nil
	}
	if err := b.add(k, e); err != nil {
		return nil, reject(NotReady, "it can't be recorded: %v", err)
	}
	b.said[said] = true
	return nil, nil
}

// receipt is what is known of an entry before it is pushed.
func (r *remembered) receipt() *Receipt {
	if r == nil {
		return &Receipt{}
	}
	return &Receipt{Commit: r.commit}
}
