package proposal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
	"github.com/pinion-cd/pinion/reconcile"
)

// Proposal is a commit that would be pushed to main.
type Proposal struct {
	Files  map[string][]byte // by name; nil: removed
	Change ledger.Change
	// Warnings are what may surprise, and Next is what will happen then.
	Warnings, Next []string
	// Nothing says why there is nothing to do; the rest is empty then.
	Nothing string
	// Refused says why a policy, a hold or a guard forbids it, and Verdicts how
	// it is with each gate; the rest is empty then.
	Refused  error
	Verdicts []policy.Verdict
}

// Ground is what a proposal is judged on: the tip of main, and the ledgers as
// they were fetched with it.
type Ground struct {
	*history.View
	Commit *reconcile.Commit // at the tip
	Branch string            // the name of main
	Name   string            // of the repository, without user info
}

// Unfit is why what is asked for can't be, as things are.
type Unfit struct{ Reason string }

func (u *Unfit) Error() string { return u.Reason }

func unfit(format string, args ...any) *Unfit { return &Unfit{fmt.Sprintf(format, args...)} }

// Malformed is why what is asked for can't be, however things are.
type Malformed struct{ Reason string }

func (m *Malformed) Error() string { return m.Reason }

// Asked is what somebody asks for.
type Asked interface {
	Propose(context.Context, *Ground) (*Proposal, error)
}

// warnOfSuspension says that what is proposed is not applied for now.
func (gr *Ground) warnOfSuspension(p *Proposal, env desired.EnvironmentName, svc desired.ServiceName) {
	if why := gr.Commit.Repository.Suspended(env, svc); why != "" {
		p.warn("%s; until that is taken back, nothing is applied there", why)
	}
}

// Sound makes sure that a commit has no mistake that its parent does not have.
func (gr *Ground) Sound(after *desired.Repository) error {
	known := map[string]bool{}
	for _, p := range gr.Commit.Repository.Problems {
		known[p.File+"\x00"+p.Message] = true // lines move
	}
	var errs []error
	for _, p := range after.Problems {
		if p.Severity == desired.SeverityError && !known[p.File+"\x00"+p.Message] {
			errs = append(errs, fmt.Errorf("the change would not be read: %w", p))
		}
	}
	return errors.Join(errs...)
}

// missing is the error about a name that the repository does not have.
func missing[N ~string, V any](kind string, name N, have map[N]V) error {
	return history.Unknown(kind, string(name), slices.Sorted(maps.Keys(have)), "the repository has")
}

// texts are names as strings.
func texts[S ~string](names []S) []string {
	var all []string
	for _, n := range names {
		all = append(all, string(n))
	}
	return all
}

func firstLine(s string) string {
	for i, r := range s {
		if r == '\n' {
			return s[:i] + " …"
		}
	}
	return s
}
