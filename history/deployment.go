package history

import (
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// Deployment is one deployment as its entries tell it.
type Deployment struct {
	ID          string                  `json:"id"` // unique within the environment
	Environment desired.EnvironmentName `json:"environment"`
	Service     desired.ServiceName     `json:"service"`
	Version     string                  `json:"version,omitempty"`
	Pins        []ledger.Pin            `json:"pins,omitempty"`
	Source      string                  `json:"source,omitempty"`    // the commit that its manifests were read from
	Manifests   string                  `json:"manifests,omitempty"` // digest of the rendered objects
	Commit      string                  `json:"commit"`              // the commit on main that it comes from
	State       ledger.State            `json:"state"`
	Reason      string                  `json:"reason,omitempty"` // why it is in this state
	Cause       ledger.Cause            `json:"cause,omitempty"`
	From        []string                `json:"from,omitempty"`
	Actor       *ledger.Person          `json:"actor,omitempty"`
	Authors     []ledger.Person         `json:"authors,omitempty"`
	Pinned      time.Time               `json:"pinned"`
	Started     time.Time               `json:"started,omitzero"`
	Completed   time.Time               `json:"completed,omitzero"`
	Ended       time.Time               `json:"ended,omitzero"` // when it was verified, failed or superseded
	Left        time.Time               `json:"left,omitzero"`  // when another one took its place, or none; absent: it is the newest
	Checks      []ledger.Check          `json:"checks,omitempty"`
	Approvals   []ledger.Approval       `json:"approvals,omitempty"`
	Drifts      int                     `json:"drifts,omitempty"` // how many entries tell that it drifted
	Entry       string                  `json:"entry"`            // the ledger's commit with which it begins
	LastEntry   string                  `json:"lastEntry"`        // the newest one that is about it

	images []desired.Image // of the pins, taken apart once, for who looks for a version
}

// began returns the deployment that a pinned entry begins.
func began(e Entry) *Deployment {
	d := &Deployment{ID: e.Deployment, Environment: e.Environment, Service: e.Service, Entry: e.Entry, Pinned: e.When}
	d.take(ledger.Record{Environment: e.Environment, Service: e.Service}, e)
	return d
}

// record is what the ledger's own rules need to know of it.
func (d *Deployment) record() ledger.Record {
	r := ledger.Record{Environment: d.Environment, Service: d.Service, Deployment: ledger.Deployment{
		ID: d.ID, Commit: d.Commit, Release: ledger.Release{Pins: d.Pins, Source: d.Source}, Manifests: d.Manifests,
		State: d.State, Reason: d.Reason, Cause: d.Cause, Authors: d.Authors,
		Pinned: d.Pinned, Started: d.Started, Completed: d.Completed, Ended: d.Ended,
		Checks: d.Checks, Approvals: d.Approvals,
	}}
	if d.Actor != nil {
		r.Deployment.Actor = *d.Actor
	}
	return r
}

// apply returns the deployment after one more entry about it, by the rules by
// which the ledger's own records move.
func (d *Deployment) apply(e Entry) *Deployment {
	next := *d
	next.take(d.record(), e)
	return &next
}

func (d *Deployment) take(before ledger.Record, e Entry) {
	d.LastEntry = e.Entry
	if e.Event == ledger.EventDrifted {
		d.Drifts++
	}
	if e.Late || e.Event == ledger.EventDrifted || e.Event == ledger.EventRetired {
		return // it moves no state
	}
	r, err := before.Apply(e.entry)
	if err != nil {
		return // forged: `pinion audit` says so
	}
	x := r.Deployment
	if len(d.images) != len(x.Release.Pins) {
		d.images = make([]desired.Image, len(x.Release.Pins))
		for i, p := range x.Release.Pins {
			if d.images[i], err = desired.ParseImage(p.Image); err != nil {
				d.images[i] = desired.Image{Reference: p.Image}
			}
		}
	}
	d.Commit, d.Pins, d.Source, d.Manifests, d.Version = x.Commit, x.Release.Pins, x.Release.Source, x.Manifests, x.Release.Version()
	d.State, d.Reason, d.Cause, d.Authors = x.State, x.Reason, x.Cause, x.Authors
	d.Started, d.Completed, d.Ended = x.Started, x.Completed, x.Ended
	d.Checks, d.Approvals = x.Checks, x.Approvals
	if len(e.From) > 0 {
		d.From = e.From
	}
	if x.Actor != (ledger.Person{}) {
		d.Actor = &x.Actor
	}
}

// DeploymentQuery says which deployments are asked for. What is empty asks for
// nothing in particular.
type DeploymentQuery struct {
	ID          string
	Environment desired.EnvironmentName
	Service     desired.ServiceName
	Version     string
	State       ledger.State
	Since       time.Time // pinned then or later
	Until       time.Time // pinned then or before
}

func (q DeploymentQuery) wants(d *Deployment) bool {
	switch {
	case q.ID != "" && d.ID != q.ID,
		q.Service != "" && d.Service != q.Service,
		q.State != "" && d.State != q.State,
		!q.Since.IsZero() && d.Pinned.Before(q.Since),
		!q.Until.IsZero() && d.Pinned.After(q.Until):
		return false
	}
	return q.Version == "" || d.hasVersion(q.Version)
}

// hasVersion tells whether a person who says version can mean this deployment.
func (d *Deployment) hasVersion(version string) bool {
	return d.Version == version || len(version) >= 7 && strings.HasPrefix(d.Commit, strings.ToLower(version)) ||
		slices.ContainsFunc(d.images, func(i desired.Image) bool { return imageIs(i, version) })
}
