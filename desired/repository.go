package desired

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Repository is what the files of one commit say. The maps hold what is sound;
// what is not is in Problems, and [Repository.Broken] tells it from what is
// not there. It is not modified after [Read] has returned it, and may be used
// by several goroutines.
type Repository struct {
	Environments map[EnvironmentName]*Environment
	Services     map[ServiceName]*Service
	Pipelines    map[PipelineName]*Pipeline
	Policies     map[PolicyName]*Policy
	Holds        map[HoldName]*Hold
	Keys         map[KeyName]*Key
	// Problems are sorted by file, line and column.
	Problems []Problem

	folders map[Kind]*folder
	// broken are the errors that take down a whole file, by kind and by the
	// name in lower case; under the empty name, those of what can't be told
	// to be one file.
	broken      map[Kind]map[string][]Problem
	service     map[ServiceName][]Problem   // errors that span files and stop a service everywhere
	environment map[EnvironmentName]*inside // what is wrong inside of a sound environment
	deployments []Deployment
	claims      map[ServiceName]*Pipeline // by name
	rest        *Pipeline                 // claims every other service
	// unclear: it can't be told which pipeline claims a service that no sound
	// one names; contested: which of several claims this one.
	unclear   *Problem
	contested map[ServiceName][]Problem
}

// inside is what is wrong inside of an environment whose file is sound.
type inside struct {
	pins      map[ArtifactName][]Problem
	manifests map[ServiceName][]Problem
	stray     []ArtifactName // pins that no sound service has
}

// Deployment is one service in one environment, with the pins of its artifacts.
type Deployment struct {
	Environment *Environment
	Service     *Service
	Pins        []Pin  // sorted by artifact
	Source      string // the commit that the manifests are read from; "" for the commit itself
	// Problems: if there are any, the deployment can't move, and stays at its
	// last good state.
	Problems []Problem
}

// Deployments returns what the commit asks for, sorted by environment and
// service. A service is in an environment when at least one of its artifacts
// is pinned there. One without artifacts is in every environment of the
// pipeline that claims it, or, if none does, in every environment.
func (r *Repository) Deployments() []Deployment {
	return slices.Clone(r.deployments)
}

// DeploymentsIn returns those of [Repository.Deployments] in one environment.
func (r *Repository) DeploymentsIn(env EnvironmentName) []Deployment {
	from, _ := slices.BinarySearchFunc(r.deployments, env, func(d Deployment, env EnvironmentName) int {
		return cmp.Compare(d.Environment.Name, env)
	})
	to := from
	for to < len(r.deployments) && r.deployments[to].Environment.Name == env {
		to++
	}
	return slices.Clone(r.deployments[from:to])
}

// Deployment returns one of [Repository.Deployments].
func (r *Repository) Deployment(env EnvironmentName, svc ServiceName) (Deployment, bool) {
	i, ok := slices.BinarySearchFunc(r.deployments, svc, func(d Deployment, svc ServiceName) int {
		return cmp.Or(cmp.Compare(d.Environment.Name, env), cmp.Compare(d.Service.Name, svc))
	})
	if !ok {
		return Deployment{}, false
	}
	return r.deployments[i], true
}

// Broken returns the errors that take down the whole of the named thing, so
// that its absence from the maps does not mean that nobody asks for it: its
// file is there, or one whose name differs in case or extension. It returns
// nothing for what is in the maps.
func (r *Repository) Broken(kind Kind, name string) []Problem {
	if r.sound(kind, name) {
		return nil
	}
	return slices.Clone(r.broken[kind][strings.ToLower(name)])
}

// sound reports whether the thing is in the maps.
func (r *Repository) sound(kind Kind, name string) bool {
	ok := false
	switch kind {
	case KindEnvironment:
		_, ok = r.Environments[EnvironmentName(name)]
	case KindService:
		_, ok = r.Services[ServiceName(name)]
	case KindPipeline:
		_, ok = r.Pipelines[PipelineName(name)]
	case KindPolicy:
		_, ok = r.Policies[PolicyName(name)]
	case KindHold:
		_, ok = r.Holds[HoldName(name)]
	case KindKey:
		_, ok = r.Keys[KeyName(name)]
	}
	return ok
}

// obscured returns an error for which it is not certain that the thing, which
// is not in the maps, is not asked for: it is broken, or there is something in
// the folder that can't be told to be one thing or another.
func (r *Repository) obscured(kind Kind, name string) *Problem {
	if r.sound(kind, name) {
		return nil
	}
	for _, name := range []string{strings.ToLower(name), ""} {
		if problems := r.broken[kind][name]; len(problems) > 0 {
			return &problems[0]
		}
	}
	return nil
}

// BrokenNames returns the names, in lower case, of what is broken, sorted.
func (r *Repository) BrokenNames(kind Kind) []string {
	names := slices.Sorted(maps.Keys(r.broken[kind]))
	return slices.DeleteFunc(names, func(n string) bool { return n == "" || r.sound(kind, n) })
}

// ProblemsOf returns the errors and warnings in the file of the named thing.
func (r *Repository) ProblemsOf(kind Kind, name string) []Problem {
	var of []Problem
	for _, p := range r.Problems {
		if p.Kind == kind && p.Name == name {
			of = append(of, p)
		}
	}
	return of
}

// StagesOf returns the pipeline that claims the service, or nil if none does
// or if it can't be told which one.
func (r *Repository) StagesOf(svc ServiceName) *Pipeline {
	p, unsure := r.claimant(svc)
	if len(unsure) > 0 {
		return nil
	}
	return p
}

// claimant returns the pipeline that claims a service, or the reason why it
// can't be told.
func (r *Repository) claimant(svc ServiceName) (*Pipeline, []Problem) {
	if problems := r.contested[svc]; len(problems) > 0 {
		return nil, problems
	}
	if p := r.claims[svc]; p != nil {
		return p, nil
	}
	if r.unclear != nil {
		return nil, []Problem{*r.unclear}
	}
	if problems := r.contested[AnyService]; len(problems) > 0 {
		return nil, problems
	}
	return r.rest, nil
}

// NoEnvironment reports whether it is certain that the commit has no environment
// of that name.
func (r *Repository) NoEnvironment(env EnvironmentName) bool {
	return (r.folders[KindEnvironment].id != "" || r.folders[KindService].id != "") &&
		r.Environments[env] == nil && r.obscured(KindEnvironment, string(env)) == nil
}

// Gone reports whether it is certain that the commit does not ask for the
// service in the environment any more, and says why, or why not. Whatever can't
// be read, or may be a misspelt rest of the service, makes it uncertain.
func (r *Repository) Gone(env EnvironmentName, svc ServiceName) (bool, string) {
	if r.folders[KindEnvironment].id == "" && r.folders[KindService].id == "" {
		return false, "the commit has neither environments/ nor services/: it may not be a deployment repository at all"
	}
	if p := r.obscured(KindEnvironment, string(env)); p != nil {
		return false, "it can't be told what the environment asks for: " + p.Error()
	}
	if p := r.obscured(KindService, string(svc)); p != nil {
		return false, "it can't be told what the service is: " + p.Error()
	}
	if _, ok := r.Deployment(env, svc); ok {
		return false, fmt.Sprintf("the commit asks for %s in %s", svc, env)
	}
	e := r.Environments[env]
	if e == nil {
		return true, fmt.Sprintf("the commit has no environments/%s.yaml", env)
	}
	if stray := r.environment[env].stray; len(stray) > 0 {
		return false, fmt.Sprintf("%s pins %s, which no sound service has: it may be one of %s", e.File, stray[0], svc)
	}
	s := r.Services[svc]
	if s == nil {
		if _, ok := e.Manifests[svc]; ok || len(r.environment[env].manifests[svc]) > 0 {
			return false, fmt.Sprintf("%s still says which manifests of %s to use", e.File, svc)
		}
		return true, fmt.Sprintf("the commit has no services/%s, and each pin of %s belongs to another service", svc, e.File)
	}
	if len(s.Artifacts) == 0 {
		return true, fmt.Sprintf("%s needs no artifacts, and the pipeline that claims it has no stage %s", s.File, env)
	}
	return true, fmt.Sprintf("%s pins no artifact of %s", e.File, svc)
}
