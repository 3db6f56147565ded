package api

import (
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile"
)

// ArtifactsPath is where versions of artifacts are published.
const ArtifactsPath = "/api/v1/artifacts"

// Publication says that there is a new version of an artifact.
type Publication struct {
	Image   string          `json:"image" doc:"the reference, with its tag and its digest"`
	Commit  string          `json:"commit,omitempty" doc:"of the source"`
	Branch  string          `json:"branch,omitempty" doc:"of the source"`
	Source  string          `json:"source,omitempty" doc:"the address of the source's repository"`
	Build   string          `json:"build,omitempty" doc:"the address of the build"`
	Tests   artifact.Result `json:"tests,omitempty"`
	Quality artifact.Result `json:"quality,omitempty" doc:"of the quality gate"`
	Created time.Time       `json:"created,omitzero"`
}

// publishing is the operation. What is known of artifacts is of no environment,
// so any replica can record it.
func publishing() Operation {
	return Writing(Operation{Path: ArtifactsPath, ID: "publish", Summary: "Publish a version of an artifact.", Scope: ScopeArtifact,
		Problems: []Code{UnknownArtifact, NotAPublisher, NotTracked, MovedTag}}, nil, publish)
}

// Read checks a publication, and says what is asked.
func (p *Publication) Read(who reconcile.Principal) (reconcile.PublishRequest, error) {
	image, err := desired.ParseImage(p.Image)
	switch {
	case err != nil:
		return reconcile.PublishRequest{}, invalid("image: %v", err)
	case image.Version == "" || image.Digest == "":
		return reconcile.PublishRequest{}, invalid("image is %s; write it with its tag and its digest: REPOSITORY:VERSION@sha256:…", cut(image.Reference))
	}
	q := reconcile.PublishRequest{Principal: who, Repository: image.Repository, Version: image.Version, Digest: image.Digest,
		Facts: artifact.Facts{Commit: p.Commit, Branch: p.Branch, Source: p.Source, Build: p.Build, Tests: p.Tests, Quality: p.Quality, Created: p.Created}}
	if err := q.Facts.Check(); err != nil {
		return q, invalid("%v", err)
	}
	return q, nil
}

// publish takes in a new version of an artifact.
func publish(c *Call, body *Publication) (Receipt, error) {
	q, err := body.Read(c.Caller.Principal)
	if err != nil {
		return Receipt{}, err
	}
	return receiptOf(c.Backend.Clerk.Publish(c, q))
}
