package desired

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// CheckClusters returns an error for each environment whose cluster is not
// among the known ones, which are a matter of the daemon's configuration.
func (r *Repository) CheckClusters(known []ClusterName) []Problem {
	names := make([]string, len(known))
	for i, k := range known {
		names[i] = string(k)
	}
	slices.Sort(names)
	var problems []Problem
	for name, e := range r.Environments {
		if slices.Contains(known, e.Cluster) {
			continue
		}
		raw := rawOf[*environmentFile](r, KindEnvironment, string(name))
		at := raw.Cluster.Position
		if !raw.Cluster.Set {
			at = raw.Kind.Position
		}
		hint := "no cluster is configured"
		if len(names) > 0 {
			hint = "known are " + strings.Join(names, ", ")
		}
		if guess := nearest(string(e.Cluster), names); guess != "" {
			hint = fmt.Sprintf("did you mean %q?", guess)
		}
		problems = append(problems, Problem{SeverityError, at, fmt.Sprintf("there is no cluster %s", e.Cluster), hint, KindEnvironment, string(name)})
	}
	return sorted(problems)
}

// CheckHolds returns a warning for each hold that has ended.
func (r *Repository) CheckHolds(now time.Time) []Problem {
	var problems []Problem
	for name, h := range r.Holds {
		if h.Expired(now) {
			problems = append(problems, Problem{SeverityWarning, h.Position,
				fmt.Sprintf("the hold has ended at %s, and holds nothing any more", h.Until.UTC().Format(time.RFC3339)), "remove " + h.File, KindHold, string(name)})
		}
	}
	return sorted(problems)
}

// CheckTimezones returns an error for each window whose time zone is not
// known. To know them takes a look at the system, as time.LoadLocation does.
func (r *Repository) CheckTimezones(known func(name string) bool) []Problem {
	var problems []Problem
	for name, p := range r.Policies {
		if p.Window != nil && !known(p.Window.Timezone) {
			problems = append(problems, Problem{SeverityError, p.Window.Position,
				fmt.Sprintf("there is no time zone %s", p.Window.Timezone), "write a name of the IANA database: Europe/Prague, UTC", KindPolicy, string(name)})
		}
	}
	return sorted(problems)
}

// sharedNamespaces warns where one service is twice in one namespace.
func (l *linker) sharedNamespaces() {
	type namespace struct {
		cluster ClusterName
		name    string
	}
	together := make(map[namespace]int)
	for _, e := range l.Environments {
		together[namespace{e.Cluster, e.Namespace}]++
	}
	type place struct {
		namespace
		service ServiceName
	}
	type pair struct{ first, second EnvironmentName }
	first := make(map[place]EnvironmentName)
	both := make(map[pair][]string)
	for _, d := range l.deployments {
		e := d.Environment
		ns := namespace{e.Cluster, e.Namespace}
		if together[ns] < 2 {
			continue
		}
		at := place{ns, d.Service.Name}
		other, ok := first[at]
		if !ok {
			first[at] = e.Name
			continue
		}
		both[pair{other, e.Name}] = append(both[pair{other, e.Name}], string(d.Service.Name))
	}
	for p, services := range both {
		at := rawOf[*environmentFile](l.Repository, KindEnvironment, string(p.second)).Namespace.Position
		l.tell(Problem{SeverityWarning, at,
			fmt.Sprintf("%s and %s are the same cluster and namespace, and both have %s: their objects take turns", p.first, p.second, some(services)),
			"give each environment a namespace of its own", KindEnvironment, string(p.second)}, false)
	}
}

// unpinnedManifests warns where a change of manifests reaches a later stage
// the moment it is merged.
func (l *linker) unpinnedManifests() {
	type place struct {
		pipeline PipelineName
		stage    EnvironmentName
	}
	free := make(map[place][]string)
	for _, d := range l.deployments {
		env, svc := d.Environment.Name, d.Service.Name
		if d.Source != "" || len(l.environment[env].manifests[svc]) > 0 {
			continue
		}
		p := l.StagesOf(svc)
		if p == nil {
			continue
		}
		if s := p.Stage(env); s != nil && len(s.After) > 0 && !s.ManifestsHead {
			free[place{p.Name, env}] = append(free[place{p.Name, env}], string(svc))
		}
	}
	for at, services := range free {
		l.tell(Problem{SeverityWarning, l.Pipelines[at.pipeline].Stage(at.stage).Position,
			fmt.Sprintf("a change of the manifests of %s reaches %s as it is merged, past all verification", some(services), at.stage),
			fmt.Sprintf("a promotion writes the commit under manifests: in environments/%s.yaml; if it is meant so, write manifests: head here", at.stage),
			KindPipeline, string(at.pipeline)}, false)
	}
}

func (l *linker) unusedPolicies() {
	if len(l.broken[KindPipeline]) > 0 {
		return // it may be the one that names it
	}
	used := make(map[PolicyName]bool)
	for _, p := range l.Pipelines {
		for _, s := range p.Stages {
			for _, name := range slices.Concat(s.Verify, s.Admit) {
				used[name] = true
			}
		}
	}
	for name := range l.Policies {
		if !used[name] {
			at := rawOf[*policyFile](l.Repository, KindPolicy, string(name)).Kind.Position
			l.tell(Problem{SeverityWarning, at, fmt.Sprintf("no stage names the policy %s", name), "name it under verify: or admit: of a stage, or remove the file", KindPolicy, string(name)}, false)
		}
	}
}

// some names a few of many.
func some(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// PipelineOf returns the pipeline that claims the service: nil if none does. If
// it can't be told which one, or whether any does, the problems say why.
func (r *Repository) PipelineOf(svc ServiceName) (*Pipeline, []Problem) {
	p, problems := r.claimant(svc)
	if len(problems) > 0 {
		return nil, problems
	}
	return p, nil
}

// Nearest returns the candidate that a misspelt name probably means, or "" if
// none is near.
func Nearest(name string, candidates []string) string { return nearest(name, candidates) }
