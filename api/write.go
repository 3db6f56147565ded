package api

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

// What is asked of the daemon by its own commands, and where.
const (
	ReportsPath   = "/api/v1/reports"
	ApprovalsPath = "/api/v1/approvals"
)

// Report tells the result of a policy's check for a version.
type Report struct {
	Environment desired.EnvironmentName `json:"environment"`
	Service     desired.ServiceName     `json:"service"`
	Policy      desired.PolicyName      `json:"policy"`
	Status      string                  `json:"status,omitempty" doc:"success or failure (also passed, failed; in any case); may be left out of a rerun"`
	Version     string                  `json:"version" doc:"the version, the deployment's id, the whole reference, its digest, or seven or more digits of the commit"`
	Description string                  `json:"description,omitempty"`
	URL         string                  `json:"url,omitempty"`
	// Rerun takes back the result that is there already; the status, if there
	// is one, takes its place.
	Rerun bool `json:"rerun,omitempty" doc:"take back the result that is there already"`
}

// Approval gives one person's consent to a version.
type Approval struct {
	Environment desired.EnvironmentName `json:"environment"`
	Service     desired.ServiceName     `json:"service"`
	Policy      desired.PolicyName      `json:"policy,omitempty" doc:"absent: each that waits for this person"`
	Version     string                  `json:"version"`
	Comment     string                  `json:"comment,omitempty"`
}

// Receipt says what was recorded. It is given after it has been pushed.
type Receipt struct {
	Recorded string       `json:"recorded"` // the ledger's commit
	Branch   string       `json:"branch"`
	Late     bool         `json:"late"`            // it came for what is not current, and moves nothing
	State    ledger.State `json:"state,omitempty"` // of the deployment
	Message  string       `json:"message,omitempty"`
}

func writes() []Operation {
	recording := []Code{UnknownEnvironment, UnknownService, UnknownPolicy, UnknownDeployment, NotCurrent, Decided, PolicyNotUsed, NotOurs}
	return []Operation{
		publishing(),
		Writing(Operation{Path: ReportsPath, ID: "report", Summary: "Report the result of a policy's check for a version.", Scope: ScopeReport,
			Problems: append([]Code{NotAReporter}, recording...)}, func(b *Report) desired.EnvironmentName { return b.Environment }, report),
		Writing(Operation{Path: ApprovalsPath, ID: "approve", Summary: "Approve a version.", Scope: ScopeApprove,
			Problems: append([]Code{NotInGroup, OwnRelease}, recording...)}, func(b *Approval) desired.EnvironmentName { return b.Environment }, approve),
	}
}

// report takes in the result of a check that an outside system has made.
func report(c *Call, body *Report) (Receipt, error) {
	q := reconcile.ReportRequest{
		Principal: c.Caller.Principal, Environment: body.Environment, Service: body.Service, Policy: body.Policy,
		Version: body.Version, Description: body.Description, URL: body.URL, Rerun: body.Rerun,
	}
	if !body.Rerun || body.Status != "" {
		result, ok := ResultOf(body.Status)
		if !ok {
			return Receipt{}, invalid("status is %q; write success or failure", cut(body.Status))
		}
		q.Result = result
	}
	if body.URL != "" {
		u, err := url.Parse(body.URL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return Receipt{}, invalid("url is not an http or https URL")
		}
		u.User = nil
		q.URL = u.String()
	}
	if err := need("environment", body.Environment, "service", body.Service, "policy", body.Policy, "version", body.Version); err != nil {
		return Receipt{}, err
	}
	return receiptOf(c.Backend.Clerk.Report(c, q))
}

// ResultOf reads a result in the words of the systems that report one.
func ResultOf(status string) (ledger.Result, bool) {
	switch strings.ToLower(status) {
	case "success", "passed":
		return ledger.Success, true
	case "failure", "failed":
		return ledger.Failure, true
	}
	return "", false
}

// approve takes in a person's consent.
func approve(c *Call, body *Approval) (Receipt, error) {
	if err := need("environment", body.Environment, "service", body.Service, "version", body.Version); err != nil {
		return Receipt{}, err
	}
	return receiptOf(c.Backend.Clerk.Approve(c, reconcile.ApprovalRequest{
		Principal: c.Caller.Principal, Environment: body.Environment, Service: body.Service, Policy: body.Policy,
		Version: body.Version, Comment: body.Comment,
	}))
}

// need makes sure that none of the values, each behind its name, is empty.
func need(pairs ...any) error {
	for i := 0; i < len(pairs); i += 2 {
		if fmt.Sprint(pairs[i+1]) == "" {
			return invalid("%s is missing", pairs[i])
		}
	}
	return nil
}

func receiptOf(r reconcile.Receipt, err error) (Receipt, error) {
	var rejection *reconcile.Rejection
	if err != nil && !errors.As(err, &rejection) {
		err = Refusal(NotReady, "it could not be pushed within %s; whether it was recorded is not known: ask again, nothing is recorded twice", AnswerTime)
	}
	return Receipt{Recorded: r.Commit, Branch: r.Branch, Late: r.Late, State: r.State, Message: r.Message}, err
}
