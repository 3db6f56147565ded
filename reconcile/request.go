package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
)

// Principal is who asks, as the daemon's configuration knows it.
type Principal struct {
	Name   string
	Email  string
	Groups []string
}

// ReportRequest is the result of a check that an outside system has made.
type ReportRequest struct {
	Principal   Principal
	Environment desired.EnvironmentName
	Service     desired.ServiceName
	Policy      desired.PolicyName
	Result      ledger.Result // may be empty in a rerun
	Version     string        // that was checked, or the deployment's id
	Description string
	URL         string
	// Rerun takes the policy's result back: for that of Result, or so that it
	// is checked once more.
	Rerun bool
}

// ApprovalRequest is a person's consent.
type ApprovalRequest struct {
	Principal   Principal
	Environment desired.EnvironmentName
	Service     desired.ServiceName
	Policy      desired.PolicyName // "": each that waits for the person
	Version     string
	Comment     string
}

// Receipt says what has become of a request. It is given when the entry is on
// the remote.
type Receipt struct {
	Commit  string // the ledger's tip that has it
	Branch  string
	Late    bool
	State   ledger.State
	Message string
}

// RejectionCode says why a request was not taken.
type RejectionCode string

// The codes.
const (
	UnknownEnvironment RejectionCode = "unknown-environment"
	UnknownService     RejectionCode = "unknown-service"
	UnknownPolicy      RejectionCode = "unknown-policy"
	NotCurrent         RejectionCode = "not-current" // recorded, and moves nothing
	Decided            RejectionCode = "decided"
	PolicyNotUsed      RejectionCode = "policy-not-used"
	NotAReporter       RejectionCode = "not-a-reporter"
	NotInGroup         RejectionCode = "not-in-group"
	OwnRelease         RejectionCode = "own-release"
	Invalid            RejectionCode = "invalid"
	NotReady           RejectionCode = "not-ready"
	UnknownArtifact    RejectionCode = "unknown-artifact" // no stage tracks it
	NotTracked         RejectionCode = "not-tracked"      // no rule can choose the version
	NotAPublisher      RejectionCode = "not-a-publisher"
	MovedTag           RejectionCode = "moved-tag" // the version is bound to another digest
	NotOurs            RejectionCode = "not-ours"  // another replica has the environment
)

// Rejection is a request that was not taken, or that moves nothing.
type Rejection struct {
	Code    RejectionCode
	Message string
	Receipt *Receipt // of what was recorded all the same
}

func (r *Rejection) Error() string { return r.Message }

func reject(code RejectionCode, format string, args ...any) *Rejection {
	return &Rejection{Code: code, Message: fmt.Sprintf(format, args...)}
}

// request is one that waits for its answer.
type request struct {
	ctx      context.Context
	report   *ReportRequest
	approval *ApprovalRequest
	publish  *PublishRequest
	found    []artifact.Sighting
	reply    chan answer // capacity 1
	// sent is the answer that was to be given when a push was made whose fate
	// was not known; nil: there was none.
	sent *answer
}

func (r *request) key() Key {
	switch {
	case r.report != nil:
		return Key{r.report.Environment, r.report.Service}
	case r.publish != nil, r.found != nil:
		return Key{} // what is known of artifacts is of no environment
	}
	return Key{r.approval.Environment, r.approval.Service}
}

// answer is what a request is told once the batch is pushed.
type answer struct {
	request *request
	key     Key
	entries []string // the messages of the entries that it adds
	receipt Receipt
	err     error // *Rejection
}

// Report records the result of a check. It returns when that is pushed; the
// error is a *Rejection if the request was not taken.
func (c *Clerk) Report(ctx context.Context, r ReportRequest) (Receipt, error) {
	return c.ask(ctx, &request{ctx: ctx, report: &r})
}

// Approve records a person's consent, like Report.
func (c *Clerk) Approve(ctx context.Context, r ApprovalRequest) (Receipt, error) {
	return c.ask(ctx, &request{ctx: ctx, approval: &r})
}

func (c *Clerk) ask(ctx context.Context, r *request) (Receipt, error) {
	r.reply = make(chan answer, 1)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return Receipt{}, reject(NotReady, "the daemon is stopping; ask again")
	}
	c.requests = append(c.requests, r)
	c.mu.Unlock()
	c.wake()
	select {
	case a := <-r.reply:
		return a.receipt, a.err
	case <-ctx.Done():
		return Receipt{}, context.Cause(ctx)
	}
}

// turnAway answers what nobody will take up any more.
func (c *Clerk) turnAway() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, r := range c.requests {
		r.reply <- answer{err: reject(NotReady, "the daemon is stopping; whether it was recorded is not known: ask again")}
	}
	c.requests = nil
}

// answer tells the requests of a batch that it is pushed, those whose ledger
// has nothing left to be pushed.
func (c *Clerk) answer(b *batch) {
	answers := b.answers
	b.answers = nil
	for _, a := range answers {
		if a.request.publish != nil || a.request.found != nil {
			c.answerPublish(b, a)
			continue
		}
		if len(b.pages[a.key.Environment]) > 0 {
			b.answers = append(b.answers, a)
			continue
		}
		if book := c.books[a.key.Environment]; book != nil {
			a.receipt.Commit, a.receipt.Branch = book.tip, gitstate.LedgerPrefix+string(a.key.Environment)
			a.receipt.State = c.record(a.key).Deployment.State
		}
		var r *Rejection
		if errors.As(a.err, &r) && r.Receipt != nil {
			r.Receipt = &a.receipt
		}
		a.request.reply <- a
	}
}

// serve takes a request up.
func (c *Clerk) serve(b *batch, r *request) {
	if r.ctx.Err() != nil {
		return // whoever asked has gone; nothing was acknowledged
	}
	if r.sent != nil && c.landed(r.sent.entries) {
		b.answers = append(b.answers, *r.sent)
		return
	}
	switch {
	case r.publish != nil:
		c.servePublish(b, r)
		return
	case r.found != nil:
		c.serveFound(b, r)
		return
	}
	a := answer{request: r, key: r.key()}
	var rejection *Rejection
	n := len(b.pages[a.key.Environment])
	switch {
	case !c.ours(a.key.Environment):
		rejection = c.elsewhere(a.key.Environment)
	case c.unreadable(a.key):
		rejection = reject(NotReady, "the record of %s in %s can't be read: %v", a.key.Service, a.key.Environment, c.books[a.key.Environment].err)
	case r.report != nil:
		a.receipt.Message, rejection = c.takeReport(b, a.key, *r.report)
	default:
		a.receipt.Message, rejection = c.takeApproval(b, a.key, *r.approval)
	}
	if rejection != nil {
		a.err = rejection
		a.receipt.Late = rejection.Code == NotCurrent
	}
	for _, p := range b.pages[a.key.Environment][n:] {
		a.entries = append(a.entries, asCommitted(p.entry.Message()))
	}
	b.answers = append(b.answers, a)
}

// elsewhere says who has an environment that is not ours.
func (c *Clerk) elsewhere(env desired.EnvironmentName) *Rejection {
	if h := c.options.Tenure.Holder(env); h.Identity != "" {
		return reject(NotOurs, "environment %s is kept by replica %s; ask that one", env, h.Identity)
	}
	return reject(NotOurs, "no replica has environment %s now; ask again when one has taken it over", env)
}

// landed tells whether entries of a push whose fate was not known are on the
// remote.
func (c *Clerk) landed(messages []string) bool {
	for _, m := range messages {
		if c.claimed[m] == "" {
			return false
		}
	}
	return len(messages) > 0
}

// known makes sure that what a request names is there.
func (c *Clerk) known(k Key, p desired.PolicyName) *Rejection {
	repo := c.commit.Repository
	switch {
	case c.unreadable(k):
		return reject(NotReady, "what %s has of %s can't be read; somebody has to mend it", ledger.Branch(k.Environment), k.Service)
	case repo.Environments[k.Environment] == nil && len(repo.Broken(desired.KindEnvironment, string(k.Environment))) == 0:
		return reject(UnknownEnvironment, "there is no environment %q; there are %s", k.Environment, names(repo.Environments))
	case repo.Services[k.Service] == nil && len(repo.Broken(desired.KindService, string(k.Service))) == 0:
		return reject(UnknownService, "there is no service %q; there are %s", k.Service, names(repo.Services))
	case p != "" && repo.Policies[p] == nil && len(repo.Broken(desired.KindPolicy, string(p))) == 0:
		return reject(UnknownPolicy, "there is no policy %q; there are %s", p, names(repo.Policies))
	}
	return nil
}

func names[N ~string, V any](m map[N]V) string {
	all := make([]string, 0, len(m))
	for n := range m {
		all = append(all, string(n))
	}
	slices.Sort(all)
	if len(all) > 20 {
		return strings.Join(all[:20], ", ") + fmt.Sprintf(" and %d more", len(all)-20)
	}
	return strings.Join(all, ", ")
}

// subjectOf finds what a request is about: the deployment that is there, or
// the candidate that waits. gate is the policy as the stage that asks for it
// has it.
type subjectOf struct {
	candidate bool
	gate      *desired.Policy
	current   bool // the version that the request names is this one's
}

// find looks for a policy in a stage's verify, for the deployment, and in its
// admit, for the candidate.
func (c *Clerk) find(ctx context.Context, b *batch, k Key, name desired.PolicyName, version string) (subjectOf, *Rejection) {
	r := b.record(k)
	var options []subjectOf
	if rules, err := c.rulesAt(ctx, r.Deployment.Commit); r.Deployment.ID != "" {
		if err != nil {
			return subjectOf{}, reject(NotReady, "the policies of commit %.12s can't be read: %v", r.Deployment.Commit, err)
		}
		if _, stage, _ := rules.Stage(k.Environment, k.Service); stage != nil && slices.Contains(stage.Verify, name) && rules.Repository.Policies[name] != nil {
			d := r.Deployment
			options = append(options, subjectOf{gate: rules.Repository.Policies[name], current: means(version, d.ID, d.Commit, d.Release)})
		}
	}
	tip := policy.Rules{Commit: c.commit.ID, Repository: c.commit.Repository}
	if _, stage, _ := tip.Stage(k.Environment, k.Service); stage != nil && slices.Contains(stage.Admit, name) && tip.Repository.Policies[name] != nil {
		x := r.Candidate
		options = append(options, subjectOf{candidate: true, gate: tip.Repository.Policies[name],
			current: x != nil && means(version, "", "", x.Release)})
	}
	for _, o := range options {
		if o.current {
			return o, nil
		}
	}
	if len(options) > 0 {
		return options[0], nil
	}
	if _, stage, why := tip.Stage(k.Environment, k.Service); stage == nil {
		return subjectOf{}, reject(PolicyNotUsed, "policy %s is not used for %s in %s: %s", name, k.Service, k.Environment, why)
	}
	return subjectOf{}, reject(PolicyNotUsed, "the stage %s does not use policy %s for %s; name it in its verify or admit", k.Environment, name, k.Service)
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

func (c *Clerk) takeReport(b *batch, k Key, r ReportRequest) (string, *Rejection) {
	if by := c.deployOf(k); by != nil && r.Policy == DeployReport {
		return c.takeDeployed(b, k, by, r)
	}
	if err := c.known(k, r.Policy); err != nil {
		return "", err
	}
	on, err := c.find(b.ctx, b, k, r.Policy, r.Version)
	if err != nil {
		return "", err
	}
	by := append([]string{r.Principal.Name}, r.Principal.Groups...)
	switch {
	case on.gate.Report == nil && r.Result != "":
		return "", reject(PolicyNotUsed, "policy %s is a %s check, which nobody reports", r.Policy, on.gate.Check)
	case on.gate.Report != nil && !slices.ContainsFunc(by, func(n string) bool { return slices.Contains(on.gate.Report.By, n) }):
		return "", reject(NotAReporter, "%s may not report %s; policy %s lets %s do that", r.Principal.Name, r.Policy, r.Policy, strings.Join(on.gate.Report.By, ", "))
	}
	if r.Rerun && on.current {
		if err := c.takeBack(b, k, on, r); err != nil || r.Result == "" {
			return fmt.Sprintf("%s of %s in %s is checked once more", r.Policy, r.Version, k.Environment), err
		}
	}
	record := b.record(k)
	e := ledger.Entry{Event: ledger.EventCheck, Actor: ledger.Person{Name: r.Principal.Name, Email: r.Principal.Email}}
	if r.Result == "" {
		e.Event, e.Policy = ledger.EventRerun, r.Policy
	} else {
		e.Checks = []ledger.Check{{Policy: r.Policy, Result: r.Result, By: r.Principal.Name, URL: r.URL, Description: r.Description}}
	}
	if !on.current {
		return c.late(b, k, e, on, r.Version)
	}
	var before []ledger.Check
	if on.candidate {
		aboutCandidate(&e, record)
		before = record.Candidate.Checks
	} else {
		aboutDeployment(&e, record)
		before = record.Deployment.Checks
	}
	for _, x := range before {
		if x.Policy != r.Policy {
			continue
		}
		if x.Result == r.Result {
			return fmt.Sprintf("%s of %s in %s is recorded already, by %s", r.Policy, r.Version, k.Environment, x.By), nil
		}
		e.Late = true
		if err := b.add(k, e); err != nil {
			return "", reject(Decided, "%v", err)
		}
		return "", &Rejection{Code: Decided, Receipt: &Receipt{}, Message: fmt.Sprintf(
			"%s of %s in %s is decided: %s, by %s; the report is recorded and moves nothing (--rerun takes the result back while the verification is under way)", r.Policy, r.Version, k.Environment, x.Result, x.By)}
	}
	if !on.candidate && record.Deployment.State.Final() {
		return c.late(b, k, e, on, r.Version)
	}
	if err := b.add(k, e); err != nil {
		return "", reject(Decided, "%v", err)
	}
	c.dirty[k], c.stages[k] = true, true
	return fmt.Sprintf("%s of %s in %s is recorded: %s", r.Policy, r.Version, k.Environment, r.Result), nil
}

// takeBack takes the result of a policy back, if there is one.
func (c *Clerk) takeBack(b *batch, k Key, on subjectOf, r ReportRequest) *Rejection {
	record := b.record(k)
	e := ledger.Entry{Event: ledger.EventRerun, Policy: r.Policy, Reason: sentence(r.Description),
		Actor: ledger.Person{Name: r.Principal.Name, Email: r.Principal.Email}}
	checks := record.Deployment.Checks
	if on.candidate {
		aboutCandidate(&e, record)
		checks = record.Candidate.Checks
	} else {
		aboutDeployment(&e, record)
	}
	if r.Result != "" && !slices.ContainsFunc(checks, func(x ledger.Check) bool { return x.Policy == r.Policy }) {
		return nil // there is none
	}
	if err := b.add(k, e); err != nil {
		return reject(Decided, "%v", err)
	}
	c.dirty[k], c.stages[k] = true, true
	return nil
}

// late records what came for another version than the one that is there.
func (c *Clerk) late(b *batch, k Key, e ledger.Entry, on subjectOf, version string) (string, *Rejection) {
	record := b.record(k)
	e.Late = true
	said := fmt.Sprintf("It came for version %q.", version)
	now := "nothing waits there"
	switch {
	case on.candidate && record.Candidate != nil:
		now = "the candidate is " + record.Candidate.Release.Version()
	case !on.candidate && record.Deployment.ID != "":
		d := record.Deployment
		now = fmt.Sprintf("%s is there, and %s", d.Release.Version(), d.State)
	}
	e.Reason = strings.TrimSpace(said + " " + e.Reason)
	e.Candidate = on.candidate
	if past, ok := lookBack(record, version); ok {
		e.Deployment, e.Commit, e.Release, e.Manifests, e.Candidate = past.ID, past.Commit, past.Release, past.Manifests, false
	}
	if record.Deployment.ID != "" && means(version, record.Deployment.ID, record.Deployment.Commit, record.Deployment.Release) {
		aboutDeployment(&e, record)
		e.Candidate = false
	}
	if e.Deployment == "" && e.Release.Source == "" && len(e.Release.Pins) == 0 {
		e.Candidate = false
	}
	if err := b.add(k, e); err != nil {
		return "", reject(NotCurrent, "%s: %s is not the version that is current in %s: %s; not recorded: %v", k.Service, version, k.Environment, now, err)
	}
	return "", &Rejection{Code: NotCurrent, Receipt: &Receipt{}, Message: fmt.Sprintf(
		"%s %s is not what waits for it in %s: %s; it is recorded, and moves nothing", k.Service, version, k.Environment, now)}
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

func (c *Clerk) takeApproval(b *batch, k Key, r ApprovalRequest) (string, *Rejection) {
	if err := c.known(k, r.Policy); err != nil {
		return "", err
	}
	asked := []desired.PolicyName{r.Policy}
	if r.Policy == "" {
		asked = c.approvals(b, k)
		if len(asked) == 0 {
			return "", reject(PolicyNotUsed, "nothing in %s asks for an approval of %s", k.Environment, k.Service)
		}
	}
	var said []string
	var first *Rejection
	for _, name := range asked {
		text, err := c.approve(b, k, name, r)
		if err != nil && first == nil {
			first = err
		}
		if err == nil {
			said = append(said, text)
		}
	}
	if len(said) == 0 {
		return "", first
	}
	return strings.Join(said, "; "), nil
}

// approvals returns the approval policies that a service's stage names.
func (c *Clerk) approvals(b *batch, k Key) []desired.PolicyName {
	var all []desired.PolicyName
	collect := func(rules policy.Rules, list func(*desired.Stage) []desired.PolicyName) {
		_, stage, _ := rules.Stage(k.Environment, k.Service)
		if stage == nil {
			return
		}
		for _, name := range list(stage) {
			if p := rules.Repository.Policies[name]; p != nil && p.Approval != nil && !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	collect(policy.Rules{Commit: c.commit.ID, Repository: c.commit.Repository}, func(s *desired.Stage) []desired.PolicyName { return s.Admit })
	if d := b.record(k).Deployment; d.ID != "" {
		if rules, err := c.rulesAt(b.ctx, d.Commit); err == nil {
			collect(*rules, func(s *desired.Stage) []desired.PolicyName { return s.Verify })
		}
	}
	return all
}

func (c *Clerk) approve(b *batch, k Key, name desired.PolicyName, r ApprovalRequest) (string, *Rejection) {
	on, err := c.find(b.ctx, b, k, name, r.Version)
	if err != nil {
		return "", err
	}
	who := r.Principal
	if on.gate.Approval == nil {
		return "", reject(PolicyNotUsed, "policy %s is a %s check, which nobody approves", name, on.gate.Check)
	}
	if !slices.ContainsFunc(who.Groups, func(g string) bool { return slices.Contains(on.gate.Approval.Groups, g) }) {
		return "", reject(NotInGroup, "%s may not approve: policy %s asks for somebody of %s", who.Name, name, strings.Join(on.gate.Approval.Groups, ", "))
	}
	record := b.record(k)
	e := ledger.Entry{Event: ledger.EventApproved, Actor: ledger.Person{Name: who.Name, Email: who.Email},
		Approval: &ledger.Approval{Policy: name, By: who.Name, Email: who.Email, Groups: who.Groups, Comment: r.Comment}}
	if !on.current {
		return c.late(b, k, e, on, r.Version)
	}
	before, authors := record.Deployment.Approvals, record.Deployment.Authors
	if on.candidate {
		before, authors = record.Candidate.Approvals, record.Candidate.Authors
		aboutCandidate(&e, record)
	} else {
		aboutDeployment(&e, record)
	}
	if !on.gate.Approval.AllowAuthor && policy.Chose(authors, *e.Approval) {
		return "", reject(OwnRelease, "%s chose version %s, and policy %s does not count that person's own approval", who.Name, r.Version, name)
	}
	for _, x := range before {
		if x.Policy == name && (x.By == who.Name || x.Email != "" && strings.EqualFold(x.Email, who.Email)) {
			return fmt.Sprintf("%s has approved %s for %s already (%s)", who.Name, r.Version, k.Environment, name), nil
		}
	}
	if !on.candidate && record.Deployment.State.Final() {
		return c.late(b, k, e, on, r.Version)
	}
	if err := b.add(k, e); err != nil {
		return "", reject(Decided, "%v", err)
	}
	c.dirty[k], c.stages[k] = true, true
	return fmt.Sprintf("approved %s for %s (%s)", r.Version, k.Environment, name), nil
}
