package policy

import (
	"fmt"

	"github.com/pinion-cd/pinion/desired"
)

// Stage returns the stage of an environment in the pipeline that claims the
// service. Without a sound stage the text says why; what is returned besides it
// can be named, and not used.
func (r Rules) Stage(env desired.EnvironmentName, svc desired.ServiceName) (*desired.Pipeline, *desired.Stage, string) {
	p, s, why, _ := r.stage(env, svc)
	return p, s, why
}

// stage is Stage. Free says that it is certain that no pipeline leads the
// service through the environment.
func (r Rules) stage(env desired.EnvironmentName, svc desired.ServiceName) (p *desired.Pipeline, s *desired.Stage, why string, free bool) {
	if r.Repository == nil || r.Repository.Environments == nil { // nobody has read it
		return nil, nil, "the pipelines are not known", false
	}
	p, unsure := r.Repository.PipelineOf(svc)
	if len(unsure) > 0 {
		return nil, nil, unsure[0].Error(), false
	}
	if p == nil {
		return nil, nil, fmt.Sprintf("no pipeline claims %s", svc), true
	}
	s = p.Stage(env)
	if s == nil {
		for _, other := range p.Stages {
			if len(other.Problems) > 0 { // it may be this one, misspelt
				return p, nil, fmt.Sprintf("the pipeline %s has no stage %s, and one that can't be used: %s", p.Name, env, other.Problems[0].Error()), false
			}
		}
		return p, nil, fmt.Sprintf("the pipeline %s has no stage %s", p.Name, env), true
	}
	if len(s.Problems) > 0 {
		return p, s, fmt.Sprintf("the stage %s of the pipeline %s can't be used: %s", env, p.Name, s.Problems[0].Error()), false
	}
	return p, s, "", false
}

// ByPullRequest tells whether the stage of an environment is entered by pull
// requests.
func (r Rules) ByPullRequest(env desired.EnvironmentName, svc desired.ServiceName) bool {
	_, s, _, _ := r.stage(env, svc)
	return s != nil && s.ByPullRequest
}
