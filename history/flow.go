package history

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// Flow is one version's way through the pipeline of its service.
type Flow struct {
	Service  desired.ServiceName  `json:"service"`
	Version  string               `json:"version"`
	Pins     []ledger.Pin         `json:"pins"`
	Pipeline desired.PipelineName `json:"pipeline,omitempty"` // of main, now
	Began    time.Time            `json:"began"`              // when it was pinned first
	Stages   []FlowStage          `json:"stages"`             // in the order of the pipeline
}

// FlowStage is a stage of a flow, or an environment outside of the pipeline that
// had the version.
type FlowStage struct {
	Environment desired.EnvironmentName   `json:"environment"`
	After       []desired.EnvironmentName `json:"after,omitempty"`
	// Progress is reached (it is there), waits (it is offered), refused, passed
	// (it was there), or ahead.
	Progress    Progress     `json:"progress"`
	State       ledger.State `json:"state,omitempty"` // of the newest deployment
	Since       time.Time    `json:"since,omitzero"`  // of the progress
	Reason      string       `json:"reason,omitempty"`
	Outside     bool         `json:"outside,omitempty"`     // it is no stage of the pipeline
	Deployments []string     `json:"deployments,omitempty"` // their ids, newest first
	// The times of the newest one.
	Pinned    time.Time         `json:"pinned,omitzero"`
	Started   time.Time         `json:"started,omitzero"`
	Completed time.Time         `json:"completed,omitzero"`
	Ended     time.Time         `json:"ended,omitzero"`
	Approvals []ledger.Approval `json:"approvals,omitempty"` // of the newest one, or of the version that waits
}

// Progress is how far a version has come in a stage.
type Progress string

// The kinds of progress.
const (
	Reached  Progress = "reached"
	Waits    Progress = "waits"
	Refused  Progress = "refused"
	PassedBy Progress = "passed"
	Ahead    Progress = "ahead"
)

// Flows finds the deployments of each version of a service, or of one version,
// newest first; the versions that were pinned last come first. The cursor names
// the deployment with which the last one of a page began.
func (x *Index) Flows(ctx context.Context, svc desired.ServiceName, version, after string, limit int) (Page[[]*Deployment], error) {
	p := Page[[]*Deployment]{Items: [][]*Deployment{}}
	all, err := x.Deployments(ctx, DeploymentQuery{Service: svc, Version: version}, "", math.MaxInt)
	if err != nil {
		return p, err
	}
	by := map[string][]*Deployment{}
	var order []string
	for _, d := range all.Items {
		k := pinsKey(d.Pins)
		if by[k] == nil {
			order = append(order, k)
		}
		by[k] = append(by[k], d)
	}
	began := func(k string) *Deployment { return by[k][len(by[k])-1] }
	// By their beginnings, for these stay where they are.
	slices.SortStableFunc(order, func(a, b string) int { return began(b).Pinned.Compare(began(a).Pinned) })
	from := 0
	if after != "" {
		i := slices.IndexFunc(order, func(k string) bool { return cursor(began(k).Environment, began(k).Entry) == after })
		if i < 0 {
			return p, ErrCursor
		}
		from = i + 1
	}
	for i, k := range order[from:] {
		if i == limit {
			last := began(order[from+i-1])
			p.Next = cursor(last.Environment, last.Entry)
			return p, nil
		}
		p.Items = append(p.Items, by[k])
	}
	p.Truncated = all.Truncated
	return p, nil
}

// Flows tells the ways of versions, each by its deployments, newest first.
func (view *View) Flows(ctx context.Context, versions Page[[]*Deployment]) (Page[Flow], error) {
	p := Page[Flow]{Items: []Flow{}, Next: versions.Next, Truncated: versions.Truncated}
	for _, all := range versions.Items {
		f, err := view.flow(ctx, all[0].Service, all)
		if err != nil {
			return p, err
		}
		p.Items = append(p.Items, f)
	}
	return p, nil
}

func pinsKey(pins []ledger.Pin) string {
	k := ""
	for _, p := range pins {
		k += string(p.Artifact) + " " + p.Image + "\n"
	}
	return k
}

// flow tells the way of one version, by its deployments, newest first.
func (view *View) flow(ctx context.Context, svc desired.ServiceName, all []*Deployment) (Flow, error) {
	last, first := all[0], all[len(all)-1]
	f := Flow{Service: svc, Version: last.Version, Pins: last.Pins, Began: first.Pinned, Stages: []FlowStage{}}
	repo, err := view.Repository(ctx)
	if err != nil {
		return f, err
	}
	in := map[desired.EnvironmentName][]*Deployment{}
	for _, d := range all {
		in[d.Environment] = append(in[d.Environment], d)
	}
	envs := Order(repo, nil)
	pipeline := repo.StagesOf(svc)
	if pipeline != nil {
		f.Pipeline = pipeline.Name
	}
	for _, env := range append(envs, strangers(in, envs)...) {
		var stage *desired.Stage
		if pipeline != nil {
			stage = pipeline.Stage(env)
		}
		if stage == nil && in[env] == nil {
			continue
		}
		s := FlowStage{Environment: env, Progress: Ahead, Outside: stage == nil}
		if stage != nil {
			s.After = stage.After
		}
		r, _, err := view.Record(ctx, env, svc)
		if err != nil {
			return f, err
		}
		s.stand(r, ledger.Release{Pins: last.Pins}, in[env])
		f.Stages = append(f.Stages, s)
	}
	return f, nil
}

// stand says how far a version is, by the record of the environment.
func (s *FlowStage) stand(r ledger.Record, x ledger.Release, deployed []*Deployment) {
	for _, d := range deployed {
		s.Deployments = append(s.Deployments, d.ID)
	}
	if len(deployed) > 0 {
		d := deployed[0]
		s.Pinned, s.Started, s.Completed, s.Ended, s.Approvals = d.Pinned, d.Started, d.Completed, d.Ended, d.Approvals
		s.Progress, s.State, s.Reason, s.Since = PassedBy, d.State, d.Reason, d.Left
		if d.ID == r.Deployment.ID && r.Retired.IsZero() {
			s.Progress, s.Since = Reached, sinceOf(r.Deployment)
		}
	}
	if s.Progress == Reached {
		return
	}
	if c := r.Candidate; c != nil && c.Release.SamePins(x) {
		s.Progress, s.Since, s.Reason, s.Approvals = Waits, c.Offered, c.Reason, c.Approvals
	} else if no, ok := r.Refuses(x); ok {
		s.Progress, s.Since, s.Reason = Refused, no.Time, no.Reason
	}
}

// strangers are the environments that only the ledgers know.
func strangers(in map[desired.EnvironmentName][]*Deployment, known []desired.EnvironmentName) []desired.EnvironmentName {
	var more []desired.EnvironmentName
	for env := range in {
		if !slices.Contains(known, env) {
			more = append(more, env)
		}
	}
	slices.Sort(more)
	return more
}
