package desired

// AnyService in a pipeline's services claims every service that no other
// pipeline names.
const AnyService ServiceName = "*"

// OnFailure is what happens when a deployment fails in a stage.
type OnFailure string

const (
	OnFailureStop        OnFailure = "stop"        // nothing moves until a person acts; the default
	OnFailureRollback    OnFailure = "rollback"    // the service goes back to its last verified version there
	OnFailureRollbackAll OnFailure = "rollbackAll" // and so it does in every environment of the pipeline that runs the failed version
)

// Pipeline is the order in which versions move through environments.
type Pipeline struct {
	Name     PipelineName
	File     string
	Services []ServiceName // as written; AnyService among them
	Stages   []Stage       // as written
}

// Stage is one environment of a pipeline, with its gates.
type Stage struct {
	Environment EnvironmentName
	// After names the stages that come right before this one: what the file
	// says, else the stage that is written before it. Empty for a first stage.
	After     []EnvironmentName
	Verify    []PolicyName // what must hold for a deployment to count as verified, besides its rollout
	Admit     []PolicyName // what must hold for the stage to be entered
	OnFailure OnFailure
	// ByPullRequest: promotions into the stage are proposed as pull requests, and
	// Merge says that the daemon merges them.
	ByPullRequest, Merge bool
	Track                []Track // by which new versions enter a first stage
	// ManifestsHead: the stage opts out of moving manifests like versions;
	// they are always read from the newest commit.
	ManifestsHead bool
	Position      Position
	// Problems: if there are any, the stage names an environment, a stage or a
	// policy that is not there, and nothing may be promoted into it or out of it.
	Problems []Problem
}

// Stage returns the stage of an environment, or nil if the pipeline has none.
func (p *Pipeline) Stage(env EnvironmentName) *Stage {
	for i := range p.Stages {
		if p.Stages[i].Environment == env {
			return &p.Stages[i]
		}
	}
	return nil
}

// Next returns the stages that come right after that of the environment, in
// the order in which they are written.
func (p *Pipeline) Next(env EnvironmentName) []*Stage {
	var next []*Stage
	for i := range p.Stages {
		for _, after := range p.Stages[i].After {
			if after == env {
				next = append(next, &p.Stages[i])
			}
		}
	}
	return next
}
