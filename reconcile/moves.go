package reconcile

import (
	"fmt"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
)

// Promote writes a promotion into the environment's file that the editor holds,
// and says what the commit says.
func Promote(p policy.Promotion, ed *desired.Editor) ([]byte, ledger.Change, error) {
	edit, change := promotion(p)
	data, err := ed.Apply(edit)
	return data, change, err
}

// Redo writes a promotion into the environment's file that the editor holds, by
// nothing but what its commit says. Where Promote wrote the commit, it makes the
// same of the file of the commit before.
func Redo(c ledger.Change, ed *desired.Editor) ([]byte, error) {
	if c.Kind != ledger.ChangePromoted {
		return nil, fmt.Errorf("a commit of the kind %q is no promotion", c.Kind)
	}
	edit, _ := put(c.Service, c.Release, c.Release.Source != "", true)
	return ed.Apply(edit)
}

// GoBack writes a rollback into the environment's file that the editor holds,
// and says what the commit says.
func GoBack(r policy.Retreat, ed *desired.Editor) ([]byte, ledger.Change, error) {
	edit, change := retreat(r)
	data, err := ed.Apply(edit)
	return data, change, err
}

func promotion(p policy.Promotion) (desired.Edit, ledger.Change) {
	// A stage that a release enters for the first time has no pins of it yet.
	edit, release := put(p.Service, p.Release, p.Manifests, true)
	kind := ledger.ChangePromoted
	if p.Tracked {
		kind = ledger.ChangeTracked
		// Whoever has removed a pin did not ask to have it back.
		edit.Add = false
	}
	return edit, ledger.Change{
		Kind:        kind,
		Environment: p.Environment,
		Service:     p.Service,
		From:        p.From,
		Builds:      p.Builds,
		Release:     release,
		Policy:      p.Pipeline,
		Before:      p.Before,
		Reason:      p.Evidence,
		Checks:      p.Checks,
		CoAuthors:   p.Authors,
	}
}

func retreat(r policy.Retreat) (desired.Edit, ledger.Change) {
	// Whoever has removed a pin did not ask to have it back.
	edit, release := put(r.Service, r.To, r.Manifests, false)
	return edit, ledger.Change{
		Kind:        ledger.ChangeRolledBack,
		Environment: r.Environment,
		Service:     r.Service,
		Release:     release,
		Before:      r.Before,
		Reason:      r.Reason,
	}
}

// put says what writes a release into a file, and returns the release as the
// commit's message has it: with its source only if the commit of the manifests
// moves.
func put(svc desired.ServiceName, release ledger.Release, manifests, add bool) (desired.Edit, ledger.Release) {
	edit := desired.Edit{Service: svc, Add: add}
	for _, p := range release.Pins {
		edit.Pins = append(edit.Pins, desired.PinEdit{Artifact: p.Artifact, Reference: p.Image})
	}
	if manifests {
		edit.Manifests = release.Source
	} else {
		release.Source = ""
	}
	return edit, release
}
