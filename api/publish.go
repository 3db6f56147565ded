package api

import (
	"maps"
	"slices"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/policy"
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
	// Committed is from when lead times are counted.
	Committed time.Time `json:"committed,omitzero" doc:"when the commit of the source was made"`
}

// publishing is the operation. What is known of artifacts is of no environment,
// so any replica can record it; who is limited to environments publishes what no
// stage outside of them would take from that one.
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
		Facts: artifact.Facts{Commit: p.Commit, Branch: p.Branch, Source: p.Source, Build: p.Build, Tests: p.Tests, Quality: p.Quality, Created: p.Created, Committed: p.Committed}}
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
	q.Within = c.Caller.within(ScopeArtifact)
	return receiptOf(c.Backend.Clerk.Publish(c, q))
}

// Known is a version of an artifact that came to be known.
type Known struct {
	Repository string          `json:"repository"`
	Version    string          `json:"version"` // the tag
	Digest     string          `json:"digest"`  // that it is bound to
	Commit     string          `json:"commit,omitempty"`
	Branch     string          `json:"branch,omitempty"`
	Source     string          `json:"source,omitempty"`
	Build      string          `json:"build,omitempty"`
	Tests      artifact.Result `json:"tests,omitempty"`
	Quality    artifact.Result `json:"quality,omitempty"`
	Created    time.Time       `json:"created,omitzero"`
	Committed  time.Time       `json:"committed,omitzero" doc:"when the commit of the source was made"`
	By         string          `json:"by,omitempty"` // who has published it
	Found      time.Time       `json:"found"`        // when it came to be known
	Seen       time.Time       `json:"seen,omitzero" doc:"when a look at the registry found it there"`
	Signed     []string        `json:"signed,omitempty" doc:"the keys of keys/ that have signed it, as artifact.signed of a policy has them"`
	Moved      []string        `json:"moved,omitempty" doc:"other digests that its tag has led to, which are refused"`
}

// listArtifacts lists what is known of artifacts.
func listArtifacts(c *Call) (page history.Page[Known], err error) {
	err = c.look(func(v *history.View) error {
		shelf, err := v.Shelf(c)
		if err != nil {
			return err
		}
		repository, err := v.Repository(c)
		if err != nil {
			return err
		}
		records := map[string]artifact.Record{}
		for _, name := range shelf.Repositories() {
			for _, r := range shelf.Versions(name) {
				records[r.Reference()] = r
			}
		}
		page, err = pageOf(c, slices.Sorted(maps.Keys(records)), func(reference string) (Known, error) {
			r := records[reference]
			told := r.Told()
			return Known{r.Repository, r.Version, r.Digest, told.Commit, told.Branch, told.Source, told.Build, told.Tests, told.Quality, told.Created, told.Committed, r.By, r.Found, r.Seen, policy.Signers(repository, r), r.Moved}, nil
		})
		return err
	})
	return page, err
}
