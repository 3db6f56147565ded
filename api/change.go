package api

import (
	"errors"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/proposal"
)

// Pin asks for another version of an artifact in an environment.
type Pin struct {
	Environment desired.EnvironmentName `json:"environment"`
	Artifact    desired.ArtifactName    `json:"artifact"`
	Version     string                  `json:"version" doc:"a tag, tag@digest, a digest, or the whole reference"`
	Add         bool                    `json:"add,omitempty" doc:"pin an artifact that is not pinned there yet"`
	Reason      string                  `json:"reason,omitempty"`
	DryRun      bool                    `json:"dryRun,omitempty" doc:"judge, and write nothing"`
}

// Promotion asks for a verified version to enter an environment.
type Promotion struct {
	Service desired.ServiceName     `json:"service"`
	To      desired.EnvironmentName `json:"to"`
	Version string                  `json:"version,omitempty" doc:"absent: the newest that is verified in the stages before"`
	Reason  string                  `json:"reason,omitempty"`
	DryRun  bool                    `json:"dryRun,omitempty" doc:"judge, and write nothing"`
}

// Rollback asks for a way back.
type Rollback struct {
	Environment desired.EnvironmentName `json:"environment"`
	Service     desired.ServiceName     `json:"service"`
	To          string                  `json:"to,omitempty" doc:"absent: what was verified there last"`
	Force       bool                    `json:"force,omitempty" doc:"go to a version that never ran there, too"`
	Reason      string                  `json:"reason,omitempty"`
	DryRun      bool                    `json:"dryRun,omitempty" doc:"judge, and write nothing"`
}

// HoldRequest asks for a freeze.
type HoldRequest struct {
	Name         desired.HoldName          `json:"name"`
	Environments []desired.EnvironmentName `json:"environments,omitempty" doc:"absent: all"`
	Services     []desired.ServiceName     `json:"services,omitempty" doc:"absent: all"`
	Reason       string                    `json:"reason" doc:"for who is stopped by it"`
	Owner        string                    `json:"owner,omitempty" doc:"whom to ask; absent: the caller"`
	Until        time.Time                 `json:"until,omitzero"`
	Replace      bool                      `json:"replace,omitempty" doc:"write over a hold of this name"`
	DryRun       bool                      `json:"dryRun,omitempty" doc:"judge, and write nothing"`
}

// HoldRelease asks for the end of a freeze.
type HoldRelease struct {
	Reason string `json:"reason,omitempty"`
	DryRun bool   `json:"dryRun,omitempty" doc:"judge, and write nothing"`
}

// ReconciliationsPath is where a look is asked for.
const ReconciliationsPath = "/api/v1/reconciliations"

// Reconciliation asks for a look at the repository now, and at the objects of an
// environment.
type Reconciliation struct {
	Environment desired.EnvironmentName `json:"environment,omitempty" doc:"absent: all that the daemon that answers keeps"`
}

// Change is a commit on main that was asked for.
type Change struct {
	Commit   string   `json:"commit,omitempty"` // absent: nothing was written
	Subject  string   `json:"subject,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	Next     []string `json:"next,omitempty"`    // what happens then
	Nothing  string   `json:"nothing,omitempty"` // why there was nothing to do
}

// Reconciling says what is looked at.
type Reconciling struct {
	Main string `json:"main"` // the commit that main is at, as the remote says
}

func changes() []Operation {
	may := []Code{UnknownEnvironment, UnknownService, Refused, Conflict, Broken, NotOurs}
	return []Operation{
		Writing(Operation{Path: "/api/v1/pins", ID: "pin", Summary: "Commit a bump: pin another version of an artifact in an environment.", Scope: ScopePin,
			Problems: append([]Code{UnknownArtifact}, may...)}, func(b *Pin) desired.EnvironmentName { return b.Environment }, pin),
		Writing(Operation{Path: "/api/v1/promotions", ID: "promote", Summary: "Commit a promotion, if policy allows it.", Scope: ScopePromote,
			Problems: may}, func(b *Promotion) desired.EnvironmentName { return b.To }, promote),
		Writing(Operation{Path: "/api/v1/rollbacks", ID: "rollBack", Summary: "Commit a way back to the version that was verified last, or to one that is named. It sticks.", Scope: ScopePromote,
			Problems: may}, func(b *Rollback) desired.EnvironmentName { return b.Environment }, rollBack),
		Writing(Operation{Path: "/api/v1/holds", ID: "hold", Summary: "Freeze environments or services.", Scope: ScopeHold,
			Problems: may}, nil, hold),
		Writing(Operation{Path: "/api/v1/holds/{hold}/release", ID: "release", Summary: "End a freeze.", Scope: ScopeHold,
			Parameters: []Parameter{{Name: "hold", Summary: "The name of a hold.", Form: formName, Path: true}},
			Problems:   append([]Code{UnknownHold}, may...)}, nil, release),
		Writing(Operation{Path: ReconciliationsPath, ID: "reconcile", Summary: "Look at the repository now, and compare all objects of an environment with the cluster.", Scope: ScopeReconcile,
			Problems: []Code{UnknownEnvironment, NotOurs}}, func(b *Reconciliation) desired.EnvironmentName { return b.Environment }, look),
	}
}

func pin(c *Call, b *Pin) (Change, error) {
	if err := need("environment", b.Environment, "artifact", b.Artifact, "version", b.Version); err != nil {
		return Change{}, err
	}
	return c.write(proposal.Pin{Environment: b.Environment, Artifact: b.Artifact, Version: b.Version, Add: b.Add, Reason: b.Reason}, b.DryRun)
}

func promote(c *Call, b *Promotion) (Change, error) {
	if err := need("service", b.Service, "to", b.To); err != nil {
		return Change{}, err
	}
	return c.write(proposal.Promote{Service: b.Service, To: b.To, Version: b.Version, Message: b.Reason}, b.DryRun)
}

func rollBack(c *Call, b *Rollback) (Change, error) {
	if err := need("environment", b.Environment, "service", b.Service); err != nil {
		return Change{}, err
	}
	if b.Force && b.To == "" {
		return Change{}, invalid("force goes to a version that never ran there, and none is named; give to")
	}
	return c.write(proposal.Rollback{Environment: b.Environment, Service: b.Service, To: b.To, Force: b.Force, Message: b.Reason, By: c.by(), Now: c.Now}, b.DryRun)
}

func hold(c *Call, b *HoldRequest) (Change, error) {
	switch {
	case b.Name == "":
		return Change{}, need("name", b.Name)
	case strings.TrimSpace(b.Owner) != b.Owner || strings.ContainsAny(b.Owner, "\r\n"):
		return Change{}, invalid("owner is not one line without spaces around it; write whom to ask")
	case strings.TrimSpace(b.Reason) == "":
		return Change{}, invalid("reason is missing; a hold needs one, for who is stopped by it")
	case !b.Until.IsZero() && !b.Until.After(c.Now):
		return Change{}, invalid("until is over already; give a time to come")
	}
	if err := c.authorize(b.Environments...); err != nil {
		return Change{}, err
	}
	owner := b.Owner
	if owner == "" {
		if owner = c.Caller.Email; owner == "" {
			owner = c.Caller.Name
		}
	}
	return c.write(proposal.Hold{Name: b.Name, Environments: b.Environments, Services: b.Services, Reason: b.Reason, Owner: owner,
		Until: b.Until.UTC().Truncate(time.Second), Replace: b.Replace, Now: c.Now, MayEnd: c.mayEnd}, b.DryRun)
}

func release(c *Call, b *HoldRelease) (Change, error) {
	return c.write(proposal.Release{Name: desired.HoldName(c.text("hold")), Message: b.Reason, Now: c.Now, MayEnd: c.mayEnd}, b.DryRun)
}

// mayEnd makes sure that the caller may write to all that a hold covers.
func (c *Call) mayEnd(covers []desired.EnvironmentName) error { return c.authorize(covers...) }

func look(c *Call, b *Reconciliation) (Reconciling, error) {
	if b.Environment == "" {
		if err := c.authorize(); err != nil {
			return Reconciling{}, err
		}
	} else if err := knows(c, b.Environment); err != nil {
		return Reconciling{}, err
	}
	c.log.Info("a look at the repository was asked for", c.asked()...)
	main, err := c.Backend.Reconcile(c, b.Environment)
	if err != nil && c.Err() == nil {
		return Reconciling{}, Refusal(NotReady, "the repository can't be fetched: %v", err)
	}
	return Reconciling{main}, err
}

// by is the caller, as a commit names her.
func (c *Call) by() ledger.Person { return ledger.Person{Name: c.Caller.Name, Email: c.Caller.Email} }

// write has a proposal judged and pushed.
func (c *Call) write(asked proposal.Asked, dry bool) (Change, error) {
	w, err := c.Backend.Writer.Write(c, c.Now, asked, c.by(), dry)
	var notOurs *Problem
	var malformed *proposal.Malformed
	var unfit *proposal.Unfit
	switch {
	case err == nil:
	case errors.As(err, &notOurs):
		return Change{}, err
	case errors.As(err, &malformed):
		return Change{}, invalid("%v", malformed)
	case errors.As(err, &unfit):
		return Change{}, Refusal(Conflict, "%v", unfit)
	case errors.Is(err, gitstate.ErrRefused):
		return Change{}, Refusal(NotReady, "%v; allow the daemon's account to push to main, or open a pull request", err)
	case errors.Is(err, proposal.ErrPush), c.Err() != nil:
		return Change{}, Refusal(NotReady, "%v; whether it was written is not known: ask again, nothing is written twice", err)
	default:
		return Change{}, err
	}
	p := w.Proposal
	if p.Refused != nil {
		problem := Refusal(Refused, "%v", p.Refused)
		problem.Gates = p.Verdicts
		return Change{}, problem
	}
	subject, _, _ := strings.Cut(w.Message, "\n")
	return Change{Commit: w.Commit, Subject: subject, Warnings: p.Warnings, Next: p.Next, Nothing: p.Nothing}, nil
}
