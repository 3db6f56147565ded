package api

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/ledger"
)

// Environment is an environment as main has it. One that only a ledger knows has
// been removed.
type Environment struct {
	Name           desired.EnvironmentName        `json:"name"`
	Cluster        desired.ClusterName            `json:"cluster,omitempty"`
	Namespace      string                         `json:"namespace,omitempty"`
	ServiceAccount string                         `json:"serviceAccount,omitempty"`
	Pins           []ledger.Pin                   `json:"pins,omitempty"`
	Manifests      map[desired.ServiceName]string `json:"manifests,omitempty"` // the commit that a service's are read from
	Suspended      string                         `json:"suspended,omitempty"` // why
	Removed        bool                           `json:"removed,omitempty"`
	Ledger         string                         `json:"ledger,omitempty"` // its newest entry
	Problems       []desired.Problem              `json:"problems,omitempty"`
}

// Service is a service as main has it.
type Service struct {
	Name         desired.ServiceName       `json:"name"`
	Artifacts    []desired.ArtifactName    `json:"artifacts"`
	Folder       string                    `json:"folder"`
	DependsOn    []desired.ServiceName     `json:"dependsOn,omitempty"`
	Timeout      string                    `json:"rolloutTimeout"`
	Pipeline     desired.PipelineName      `json:"pipeline,omitempty"`
	Environments []desired.EnvironmentName `json:"environments"` // that ask for it
	Suspended    string                    `json:"suspended,omitempty"`
	Problems     []desired.Problem         `json:"problems,omitempty"`
}

// Pipeline is a pipeline as main has it.
type Pipeline struct {
	Name     desired.PipelineName  `json:"name"`
	Services []desired.ServiceName `json:"services"` // as written: "*" is every other one
	Stages   []Stage               `json:"stages"`
	Problems []desired.Problem     `json:"problems,omitempty"`
}

// Stage is a stage of a pipeline.
type Stage struct {
	Environment desired.EnvironmentName   `json:"environment"`
	After       []desired.EnvironmentName `json:"after,omitempty"`
	Verify      []desired.PolicyName      `json:"verify,omitempty"`
	Admit       []desired.PolicyName      `json:"admit,omitempty"`
	OnFailure   desired.OnFailure         `json:"onFailure"`
	By          string                    `json:"by"`              // commit, or pullRequest: how promotions enter it
	Merge       string                    `json:"merge,omitempty"` // of pullRequest, by whom it is merged: people, or auto
	Track       []Track                   `json:"track,omitempty"` // by which new versions enter it
	// ManifestsHead: manifests do not move like versions there.
	ManifestsHead bool              `json:"manifestsHead,omitempty"`
	Problems      []desired.Problem `json:"problems,omitempty"`
}

// Track is a rule by which new versions enter a stage.
type Track struct {
	Artifacts   []desired.ArtifactName `json:"artifacts,omitempty"` // none: all that no other rule names
	Semver      string                 `json:"semver,omitempty"`
	Pattern     string                 `json:"pattern,omitempty"`
	Branch      string                 `json:"branch,omitempty"`
	Prereleases bool                   `json:"prereleases,omitempty"`
	Publishers  []string               `json:"publishers,omitempty"`
	Watch       bool                   `json:"watch"`            // whether the registry is watched
	Signed      []desired.KeyName      `json:"signed,omitempty"` // keys of which one must have signed a version
}

// Policy is a policy as main has it.
type Policy struct {
	Name        desired.PolicyName `json:"name"`
	Check       desired.Check      `json:"check"`
	Reporters   []string           `json:"reporters,omitempty"`
	Groups      []string           `json:"groups,omitempty"` // whose members may approve
	Count       int                `json:"count,omitempty"`  // how many of them have to
	AllowAuthor bool               `json:"allowAuthor,omitempty"`
	Soak        string             `json:"soak,omitempty"`
	Job         string             `json:"job,omitempty"` // the file of its manifest
	URL         string             `json:"url,omitempty"`
	Query       string             `json:"query,omitempty"`
	Expect      string             `json:"expect,omitempty"`
	For         string             `json:"for,omitempty"`
	Window      string             `json:"window,omitempty"`
	Timezone    string             `json:"timezone,omitempty"`
	CEL         string             `json:"cel,omitempty"`
	Timeout     string             `json:"timeout,omitempty"`
	Problems    []desired.Problem  `json:"problems,omitempty"`
}

// Hold is a freeze as main has it.
type Hold struct {
	Name         desired.HoldName          `json:"name"`
	Environments []desired.EnvironmentName `json:"environments,omitempty"` // none: all
	Services     []desired.ServiceName     `json:"services,omitempty"`     // none: all
	Reason       string                    `json:"reason,omitempty"`
	Owner        string                    `json:"owner,omitempty"`
	Until        time.Time                 `json:"until,omitzero"`
	Expired      bool                      `json:"expired"`
	Problems     []desired.Problem         `json:"problems,omitempty"`
}

// declared answers with something of main.
func declared[A any](c *Call, f func(*history.View, *desired.Repository) (A, error)) (a A, err error) {
	err = c.look(func(v *history.View) error {
		repo, err := v.Repository(c)
		if err == nil {
			a, err = f(v, repo)
		}
		return err
	})
	return a, err
}

// missing is the error about a name that is not sound, or not there.
func missing[N ~string, V any](repo *desired.Repository, kind desired.Kind, name N, have map[N]V) error {
	if ps := repo.Broken(kind, string(name)); len(ps) > 0 {
		return ps[0]
	}
	return history.Unknown(strings.ToLower(string(kind)), string(name), slices.Sorted(maps.Keys(have)), "there are")
}

func listEnvironments(c *Call) (history.Page[Environment], error) {
	return declared(c, func(v *history.View, repo *desired.Repository) (history.Page[Environment], error) {
		envs, err := v.Environments(c)
		if err != nil {
			return history.Page[Environment]{}, err
		}
		slices.Sort(envs)
		return pageOf(c, envs, func(name desired.EnvironmentName) (Environment, error) { return environmentOf(v, repo, name), nil })
	})
}

func getEnvironment(c *Call) (Environment, error) {
	return declared(c, func(v *history.View, repo *desired.Repository) (Environment, error) {
		if err := v.KnowsEnvironment(c, c.environment()); err != nil {
			return Environment{}, err
		}
		return environmentOf(v, repo, c.environment()), nil
	})
}

func environmentOf(v *history.View, repo *desired.Repository, name desired.EnvironmentName) Environment {
	x := Environment{Name: name, Ledger: v.Tips[name], Problems: repo.ProblemsOf(desired.KindEnvironment, string(name))}
	e := repo.Environments[name]
	if e == nil {
		x.Removed = len(repo.Broken(desired.KindEnvironment, string(name))) == 0
		return x
	}
	x.Cluster, x.Namespace, x.ServiceAccount, x.Manifests = e.Cluster, e.Namespace, e.ServiceAccount, e.Manifests
	if e.Suspend != nil {
		x.Suspended = e.Suspend.Reason
	}
	for _, a := range slices.Sorted(maps.Keys(e.Pins)) {
		x.Pins = append(x.Pins, ledger.Pin{Artifact: a, Image: e.Pins[a].Image.Reference})
	}
	return x
}

func listServices(c *Call) (history.Page[Service], error) {
	return declared(c, func(_ *history.View, repo *desired.Repository) (history.Page[Service], error) {
		return pageOf(c, slices.Sorted(maps.Keys(repo.Services)), func(name desired.ServiceName) (Service, error) { return serviceOf(repo, name), nil })
	})
}

func getService(c *Call) (Service, error) {
	return declared(c, func(_ *history.View, repo *desired.Repository) (Service, error) {
		if repo.Services[c.service()] == nil {
			return Service{}, missing(repo, desired.KindService, c.service(), repo.Services)
		}
		return serviceOf(repo, c.service()), nil
	})
}

func serviceOf(repo *desired.Repository, name desired.ServiceName) Service {
	s := repo.Services[name]
	x := Service{Name: name, Artifacts: s.Artifacts, Folder: s.Folder, DependsOn: s.DependsOn, Timeout: s.Rollout.Timeout.String(),
		Environments: []desired.EnvironmentName{}, Problems: repo.ProblemsOf(desired.KindService, string(name))}
	if x.Artifacts == nil {
		x.Artifacts = []desired.ArtifactName{}
	}
	if p := repo.StagesOf(name); p != nil {
		x.Pipeline = p.Name
	}
	if s.Suspend != nil {
		x.Suspended = s.Suspend.Reason
	}
	for _, env := range slices.Sorted(maps.Keys(repo.Environments)) {
		if _, ok := repo.Deployment(env, name); ok {
			x.Environments = append(x.Environments, env)
		}
	}
	return x
}

func listPipelines(c *Call) (history.Page[Pipeline], error) {
	return declared(c, func(_ *history.View, repo *desired.Repository) (history.Page[Pipeline], error) {
		return pageOf(c, slices.Sorted(maps.Keys(repo.Pipelines)), func(name desired.PipelineName) (Pipeline, error) { return pipelineOf(repo, name), nil })
	})
}

func getPipeline(c *Call) (Pipeline, error) {
	return declared(c, func(_ *history.View, repo *desired.Repository) (Pipeline, error) {
		name := desired.PipelineName(c.text("pipeline"))
		if repo.Pipelines[name] == nil {
			return Pipeline{}, missing(repo, desired.KindPipeline, name, repo.Pipelines)
		}
		return pipelineOf(repo, name), nil
	})
}

func pipelineOf(repo *desired.Repository, name desired.PipelineName) Pipeline {
	p := repo.Pipelines[name]
	x := Pipeline{Name: name, Services: p.Services, Stages: []Stage{}, Problems: repo.ProblemsOf(desired.KindPipeline, string(name))}
	if x.Services == nil {
		x.Services = []desired.ServiceName{}
	}
	for _, s := range p.Stages {
		stage := Stage{Environment: s.Environment, After: s.After, Verify: s.Verify, Admit: s.Admit, OnFailure: cmp.Or(s.OnFailure, desired.OnFailureStop), By: "commit",
			ManifestsHead: s.ManifestsHead, Problems: s.Problems}
		if s.ByPullRequest {
			stage.By, stage.Merge = "pullRequest", "people"
		}
		if s.Merge {
			stage.Merge = "auto"
		}
		for _, t := range s.Track {
			stage.Track = append(stage.Track, Track{t.Artifacts, t.Rule.Range, t.Rule.Pattern, t.Rule.Branch, t.Rule.Prereleases, t.Publishers, t.Watch, t.Signed})
		}
		x.Stages = append(x.Stages, stage)
	}
	return x
}

func listPolicies(c *Call) (history.Page[Policy], error) {
	return declared(c, func(_ *history.View, repo *desired.Repository) (history.Page[Policy], error) {
		return pageOf(c, slices.Sorted(maps.Keys(repo.Policies)), func(name desired.PolicyName) (Policy, error) { return policyOf(repo, name), nil })
	})
}

func getPolicy(c *Call) (Policy, error) {
	return declared(c, func(_ *history.View, repo *desired.Repository) (Policy, error) {
		name := desired.PolicyName(c.text("policy"))
		if repo.Policies[name] == nil {
			return Policy{}, missing(repo, desired.KindPolicy, name, repo.Policies)
		}
		return policyOf(repo, name), nil
	})
}

func policyOf(repo *desired.Repository, name desired.PolicyName) Policy {
	p := repo.Policies[name]
	x := Policy{Name: name, Check: p.Check, CEL: p.CEL, Soak: lasts(p.Soak), Timeout: lasts(p.Timeout), Problems: repo.ProblemsOf(desired.KindPolicy, string(name))}
	switch {
	case p.Report != nil:
		x.Reporters = p.Report.By
	case p.Job != nil:
		x.Job = p.Job.Manifest
	case p.HTTP != nil:
		x.URL, x.Expect = gitstate.Redact(p.HTTP.URL), p.HTTP.Expect
	case p.Prometheus != nil:
		x.URL, x.Query, x.Expect, x.For = gitstate.Redact(p.Prometheus.URL), p.Prometheus.Query, p.Prometheus.Expect, lasts(p.Prometheus.For)
	case p.Approval != nil:
		x.Groups, x.Count, x.AllowAuthor = p.Approval.Groups, p.Approval.Count, p.Approval.AllowAuthor
	case p.Window != nil:
		x.Window, x.Timezone = p.Window.Allow, p.Window.Timezone
	}
	return x
}

// lasts writes a duration; "" for none.
func lasts(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

func listHolds(c *Call) (history.Page[Hold], error) {
	return declared(c, func(_ *history.View, repo *desired.Repository) (history.Page[Hold], error) {
		return pageOf(c, slices.Sorted(maps.Keys(repo.Holds)), func(name desired.HoldName) (Hold, error) { return holdOf(repo, name, c.Now), nil })
	})
}

func getHold(c *Call) (Hold, error) {
	return declared(c, func(_ *history.View, repo *desired.Repository) (Hold, error) {
		name := desired.HoldName(c.text("hold"))
		if repo.Holds[name] == nil {
			return Hold{}, missing(repo, desired.KindHold, name, repo.Holds)
		}
		return holdOf(repo, name, c.Now), nil
	})
}

func holdOf(repo *desired.Repository, name desired.HoldName, now time.Time) Hold {
	h := repo.Holds[name]
	return Hold{name, h.Environments, h.Services, h.Reason, h.Owner, h.Until, h.Expired(now), h.Problems}
}
