package history

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
)

// Entry is an entry of a ledger, for scripts.
type Entry struct {
	Entry       string                  `json:"entry"` // the commit on the ledger
	Time        string                  `json:"time"`
	Event       ledger.Event            `json:"event,omitempty"`
	Environment desired.EnvironmentName `json:"environment,omitempty"`
	Service     desired.ServiceName     `json:"service,omitempty"`
	Version     string                  `json:"version,omitempty"`
	Before      string                  `json:"before,omitempty"`
	After       string                  `json:"after,omitempty"`
	Deployment  string                  `json:"deployment,omitempty"`
	Candidate   bool                    `json:"candidate,omitempty"`
	Late        bool                    `json:"late,omitempty"`
	Commit      string                  `json:"commit,omitempty"`
	Pins        []ledger.Pin            `json:"pins,omitempty"`
	Source      string                  `json:"source,omitempty"`
	Manifests   string                  `json:"manifests,omitempty"`
	From        []string                `json:"from,omitempty"`
	Cause       ledger.Cause            `json:"cause,omitempty"`
	By          string                  `json:"by"`
	Actor       *ledger.Person          `json:"actor,omitempty"`
	Authors     []ledger.Person         `json:"authors,omitempty"`
	Checks      []ledger.Check          `json:"checks,omitempty"`
	Approval    *ledger.Approval        `json:"approval,omitempty"`
	Policy      desired.PolicyName      `json:"policy,omitempty"`
	Drift       *ledger.Drift           `json:"drift,omitempty"`
	Reason      string                  `json:"reason,omitempty"`
	Subject     string                  `json:"subject"`
	// Error: the commit is no entry of Pinion's, and why.
	Error string `json:"error,omitempty"`

	When    time.Time `json:"-"`
	Message string    `json:"-"`
	entry   ledger.Entry
}

// Holds makes sure that an environment's ledger knows a service.
func (view *View) Holds(ctx context.Context, env desired.EnvironmentName, svc desired.ServiceName) error {
	_, ok, err := view.Record(ctx, env, svc)
	if ok || err != nil {
		return err
	}
	all, err := view.Records(ctx, env)
	if err != nil {
		return err
	}
	return Unknown("service", string(svc), slices.Sorted(maps.Keys(all)), ledger.Branch(env)+" has")
}

// ReadEntry reads an entry. A commit that is none is shown as what it is.
func ReadEntry(c gitstate.CommitInfo) Entry {
	x := Entry{Entry: c.ID, Time: rfc3339(c.Committer.Time), When: c.Committer.Time, Message: c.Message, By: c.Author.String()}
	x.Subject, _, _ = strings.Cut(c.Message, "\n")
	e, err := ledger.ParseMessage(c.Message, c.Committer.Time)
	if err != nil {
		x.Error = err.Error()
		return x
	}
	x.entry = e
	x.Event, x.Environment, x.Service = e.Event, e.Environment, e.Service
	x.Version, x.Before, x.After = e.Release.Version(), e.Before, e.After
	x.Deployment, x.Candidate, x.Late, x.Commit = e.Deployment, e.Candidate, e.Late, e.Commit
	x.Pins, x.Source, x.Manifests, x.From = e.Release.Pins, e.Release.Source, e.Manifests, e.From
	x.Cause, x.Authors, x.Checks, x.Approval, x.Policy, x.Reason = e.Cause, e.Authors, e.Checks, e.Approval, e.Policy, e.Reason
	x.Drift = e.Drift
	if e.Actor != (ledger.Person{}) {
		x.Actor = &e.Actor
	}
	switch {
	case e.Actor != (ledger.Person{}):
		x.By = cmp.Or(e.Actor.Name, e.Actor.Email)
	case e.Approval != nil:
		x.By = e.Approval.By
	case e.Event == ledger.EventCheck && len(e.Checks) > 0:
		x.By = e.Checks[0].By
	case e.Drift != nil && len(e.Drift.By()) > 0:
		x.By = strings.Join(e.Drift.By(), ", ")
	default:
		x.By = "pinion"
	}
	return x
}
