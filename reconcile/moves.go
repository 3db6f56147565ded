package reconcile

import (
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
)

// Promote writes a promotion into the environment's file that the editor holds,
// and says what the commit says.
func Promote(p policy.Promotion, ed *desired.Editor) ([]byte, ledger.Change, error) {
	// A stage that a release enters for the first time has no pins of it yet.
	release, data, err := put(p.Service, p.Release, p.Manifests, true, ed)
	return data, ledger.Change{
		Kind:        ledger.ChangePromoted,
		Environment: p.Environment,
		Service:     p.Service,
		From:        p.From,
		Release:     release,
		Policy:      p.Pipeline,
		Before:      p.Before,
		Reason:      p.Evidence,
		Checks:      p.Checks,
		CoAuthors:   p.Authors,
	}, err
}

// GoBack writes a rollback into the environment's file that the editor holds,
// and says what the commit says.
func GoBack(r policy.Retreat, ed *desired.Editor) ([]byte, ledger.Change, error) {
	// Whoever has removed a pin did not ask to have it back.
	release, data, err := put(r.Service, r.To, r.Manifests, false, ed)
	return data, ledger.Change{
		Kind:        ledger.ChangeRolledBack,
		Environment: r.Environment,
		Service:     r.Service,
		Release:     release,
		Before:      r.Before,
		Reason:      r.Reason,
	}, err
}

// put writes a release, and returns it as the commit's message has it: with
// its source only if the commit of the manifests moves.
func put(svc desired.ServiceName, release ledger.Release, manifests, add bool, ed *desired.Editor) (ledger.Release, []byte, error) {
	edit := desired.Edit{Service: svc, Add: add}
	for _, p := range release.Pins {
		edit.Pins = append(edit.Pins, desired.PinEdit{Artifact: p.Artifact, Reference: p.Image})
	}
	if manifests {
		edit.Manifests = release.Source
	} else {
		release.Source = ""
	}
	data, err := ed.Apply(edit)
	return release, data, err
}
