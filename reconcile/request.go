package reconcile

import (
	"cmp"
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
	Commit  string // the ledger's tip that has it, or the entry if it was there before
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
	UnknownDeployment  RejectionCode = "unknown-deployment" // nothing is known of the version; not recorded
	NotCurrent         RejectionCode = "not-current"        // recorded, and moves nothing
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
			a.receipt.Commit, a.receipt.Branch = cmp.Or(a.receipt.Commit, book.tip), gitstate.LedgerPrefix+string(a.key.Environment)
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
		a.receipt, rejection = c.takeReport(b, a.key, *r.report)
	default:
		a.receipt, rejection = c.takeApproval(b, a.key, *r.approval)
	}
	if rejection != nil {
		a.err = rejection
		a.receipt.Late = rejection.Code == NotCurrent
		if rejection.Receipt != nil {
			a.receipt.Commit = rejection.Receipt.Commit
		}
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

// known makes sure that what a request names is there, on main or, if what
// has been recorded counts, on the ledger.
func (c *Clerk) known(k Key, recorded bool) *Rejection {
	repo := c.commit.Repository
	recorded = recorded && c.record(k).Deployment.ID != ""
	switch {
	case c.unreadable(k):
		return reject(NotReady, "what %s has of %s can't be read; somebody has to mend it", ledger.Branch(k.Environment), k.Service)
	case repo.Environments[k.Environment] == nil && len(repo.Broken(desired.KindEnvironment, string(k.Environment))) == 0 && !recorded:
		return reject(UnknownEnvironment, "there is no environment %q; there are %s", k.Environment, names(repo.Environments))
	case repo.Services[k.Service] == nil && len(repo.Broken(desired.KindService, string(k.Service))) == 0 && !recorded:
		return reject(UnknownService, "there is no service %q; there are %s", k.Service, names(repo.Services))
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

func (c *Clerk) takeReport(b *batch, k Key, r ReportRequest) (Receipt, *Rejection) {
	if by := c.deployOf(k); by != nil && r.Policy == DeployReport {
		text, err := c.takeDeployed(b, k, by, r)
		return Receipt{Message: text}, err
	}
	if err := c.known(k, true); err != nil {
		return Receipt{}, err
	}
	on, err := c.find(b.ctx, b, k, r.Policy, r.Version)
	if err != nil {
		return Receipt{}, err
	}
	who := r.Principal
	switch report := on.gate.Report; {
	case report == nil && r.Result != "":
		return Receipt{}, reject(PolicyNotUsed, "policy %s is a %s check, which nobody reports", r.Policy, on.gate.Check)
	case report != nil && !policy.Reports(report, who.Name, who.Groups):
		return Receipt{}, reject(NotAReporter, "%s may not report %s; policy %s lets %s do that", who.Name, r.Policy, r.Policy, strings.Join(report.By, ", "))
	}
	e := ledger.Entry{Event: ledger.EventCheck, Actor: ledger.Person{Name: who.Name, Email: who.Email}}
	if r.Result == "" {
		e.Event, e.Policy = ledger.EventRerun, r.Policy
	} else {
		e.Checks = []ledger.Check{{Policy: r.Policy, Result: r.Result, By: who.Name, URL: r.URL, Description: r.Description}}
		if !policy.Reports(on.gate.Report, who.Name, nil) {
			e.Checks[0].Groups = who.Groups
		}
	}
	if !on.current {
		return c.late(b, k, e, on, r.Version)
	}
	said := func(format string, args ...any) Receipt {
		return Receipt{Message: fmt.Sprintf("%s of %s in %s is ", r.Policy, r.Version, k.Environment) + fmt.Sprintf(format, args...)}
	}
	before := c.resultOf(b, k, on, r.Policy)
	if r.Rerun && (r.Result == "" || before != nil && !sameWords(*before, e)) {
		if err := c.takeBack(b, k, on, r); err != nil || r.Result == "" {
			return said("checked once more"), err
		}
		before = nil
	}
	record := b.record(k)
	open := on.candidate || record.Deployment.State == ledger.StateCompleted
	if before != nil && open && !policy.Reports(on.gate.Report, before.By, before.Groups) {
		// It counts for nothing, and must not keep out what does.
		again := r
		again.Description = fmt.Sprintf("The result by %s does not count: the policy lets %s report.", before.By, strings.Join(on.gate.Report.By, ", "))
		if err := c.takeBack(b, k, on, again); err != nil {
			return Receipt{}, err
		}
		before = nil
	}
	aboutIt(&e, b.record(k), on)
	switch {
	case before != nil && before.Result == r.Result:
		return said("recorded already, by %s", before.By), nil
	case before != nil:
		first, err := c.once(b, k, e)
		if err != nil {
			return Receipt{}, err
		}
		return Receipt{}, &Rejection{Code: Decided, Receipt: first.receipt(), Message: fmt.Sprintf(
			"%s of %s in %s is decided: %s, by %s; the report is recorded and moves nothing (--rerun takes the result back while the verification is under way)", r.Policy, r.Version, k.Environment, before.Result, before.By)}
	case !on.candidate && record.Deployment.State.Final():
		return c.late(b, k, e, on, r.Version)
	}
	if err := b.add(k, e); err != nil {
		return Receipt{}, reject(Decided, "%v", err)
	}
	c.dirty[k], c.stages[k] = true, true
	return said("recorded: %s", r.Result), nil
}

// resultOf returns the result that a policy has; nil: it has none.
func (c *Clerk) resultOf(b *batch, k Key, on asked, name desired.PolicyName) *ledger.Check {
	checks := b.record(k).Deployment.Checks
	if on.candidate {
		checks = b.record(k).Candidate.Checks
	}
	if i := slices.IndexFunc(checks, func(x ledger.Check) bool { return x.Policy == name }); i >= 0 {
		return &checks[i]
	}
	return nil
}

// sameWords tells whether a result is what a check entry says, so that somebody
// asks for it once more.
func sameWords(x ledger.Check, e ledger.Entry) bool {
	y := e.Normal().Checks[0]
	return x.Result == y.Result && x.By == y.By && x.URL == y.URL && x.Description == y.Description
}

func aboutIt(e *ledger.Entry, r ledger.Record, on asked) {
	if on.candidate {
		aboutCandidate(e, r)
		return
	}
	aboutDeployment(e, r)
}

// takeBack takes the result of a policy back.
func (c *Clerk) takeBack(b *batch, k Key, on asked, r ReportRequest) *Rejection {
	e := ledger.Entry{Event: ledger.EventRerun, Policy: r.Policy, Reason: sentence(r.Description),
		Actor: ledger.Person{Name: r.Principal.Name, Email: r.Principal.Email}}
	record := b.record(k)
	aboutIt(&e, record, on)
	reruns, open := record.Deployment.Reruns, record.Deployment.State == ledger.StateCompleted
	if on.candidate {
		reruns, open = record.Candidate.Reruns, true
	}
	x := c.resultOf(b, k, on, r.Policy)
	switch {
	case x == nil && open && slices.Contains(reruns, r.Policy):
		return nil // it was taken back already
	case x != nil && x.Result == ledger.Failure && on.gate.Report == nil:
		return reject(Decided, "%s of %s in %s has failed, and that is decided", r.Policy, r.Version, k.Environment)
	}
	if err := b.add(k, e); err != nil {
		return reject(Decided, "%v", err)
	}
	c.dirty[k], c.stages[k] = true, true
	return nil
}

func (c *Clerk) takeApproval(b *batch, k Key, r ApprovalRequest) (Receipt, *Rejection) {
	if err := c.known(k, true); err != nil {
		return Receipt{}, err
	}
	asked := []desired.PolicyName{r.Policy}
	if r.Policy == "" {
		asked = c.approvals(b, k)
		if len(asked) == 0 {
			return Receipt{}, reject(PolicyNotUsed, "nothing in %s asks for an approval of %s", k.Environment, k.Service)
		}
	}
	var said []string
	var first *Rejection
	recorded := ""
	for _, name := range asked {
		receipt, err := c.approve(b, k, name, r)
		if err != nil && first == nil {
			first = err
		}
		if err == nil {
			said, recorded = append(said, receipt.Message), receipt.Commit
		}
	}
	if len(said) == 0 {
		return Receipt{}, first
	}
	if len(said) > 1 {
		recorded = "" // the tip has them all
	}
	return Receipt{Commit: recorded, Message: strings.Join(said, "; ")}, nil
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

func (c *Clerk) approve(b *batch, k Key, name desired.PolicyName, r ApprovalRequest) (Receipt, *Rejection) {
	on, err := c.find(b.ctx, b, k, name, r.Version)
	if err != nil {
		return Receipt{}, err
	}
	who := r.Principal
	if on.gate.Approval == nil {
		return Receipt{}, reject(PolicyNotUsed, "policy %s is a %s check, which nobody approves", name, on.gate.Check)
	}
	if !slices.ContainsFunc(who.Groups, func(g string) bool { return slices.Contains(on.gate.Approval.Groups, g) }) {
		return Receipt{}, reject(NotInGroup, "%s may not approve: policy %s asks for somebody of %s", who.Name, name, strings.Join(on.gate.Approval.Groups, ", "))
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
	}
	aboutIt(&e, record, on)
	if !on.gate.Approval.AllowAuthor && policy.Chose(authors, *e.Approval) {
		return Receipt{}, reject(OwnRelease, "%s chose version %s, and policy %s does not count that person's own approval", who.Name, r.Version, name)
	}
	for _, x := range before {
		if x.Policy == name && (x.By == who.Name || x.Email != "" && strings.EqualFold(x.Email, who.Email)) {
			return Receipt{Message: fmt.Sprintf("%s has approved %s for %s already (%s)", who.Name, r.Version, k.Environment, name)}, nil
		}
	}
	if !on.candidate && record.Deployment.State.Final() {
		return c.late(b, k, e, on, r.Version)
	}
	if err := b.add(k, e); err != nil {
		return Receipt{}, reject(Decided, "%v", err)
	}
	c.dirty[k], c.stages[k] = true, true
	return Receipt{Message: fmt.Sprintf("approved %s for %s (%s)", r.Version, k.Environment, name)}, nil
}
