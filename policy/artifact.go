package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/expression"
)

// known is what an expression sees of an artifact.
type known struct {
	Name       string    `cel:"name"`
	Repository string    `cel:"repository"`
	Version    string    `cel:"version"`
	Digest     string    `cel:"digest"`
	Commit     string    `cel:"commit"`
	Branch     string    `cel:"branch"`
	Source     string    `cel:"source"`
	Build      string    `cel:"build"`
	Tests      string    `cel:"tests"`
	Quality    string    `cel:"quality"`
	Created    time.Time `cel:"created"`
	Origin     string    `cel:"origin"`
	Publisher  string    `cel:"publisher"`
	Found      time.Time `cel:"found"`
	Moved      bool      `cel:"moved"`
	Signed     []string  `cel:"signed"`
}

// about is the variable of which an expression that has it is asked once for
// each artifact.
const about = "artifact"

// ArtifactVariables are what the expressions of cel policies see of an artifact,
// and which of it nobody has said (yet).
// Signed are the names of keys that have signed it.
func ArtifactVariables(name desired.ArtifactName, r artifact.Record, signed []string) (x any, unsaid []string) {
	k := known{
		Name: string(name), Repository: r.Repository, Version: r.Version, Digest: r.Digest,
		Commit: r.Commit, Branch: r.Branch, Source: r.Source, Build: r.Build, Tests: string(r.Tests), Quality: string(r.Quality), Created: r.Created,
		Origin: string(r.Origin), Publisher: r.By, Found: r.Found, Moved: len(r.Moved) > 0, Signed: signed,
	}
	for field, empty := range map[string]bool{
		"commit": k.Commit == "", "branch": k.Branch == "", "source": k.Source == "", "build": k.Build == "", "tests": k.Tests == "", "quality": k.Quality == "",
		"created": k.Created.IsZero(), "signed": len(k.Signed) == 0,
	} {
		if empty {
			unsaid = append(unsaid, field)
		}
	}
	slices.Sort(unsaid)
	return &k, unsaid
}

// AsksArtifacts tells whether a stage's policies ask what is known of artifacts.
func (r Rules) AsksArtifacts(env desired.EnvironmentName, svc desired.ServiceName) bool {
	_, s, why := r.Stage(env, svc)
	if s == nil || why != "" {
		return false
	}
	return slices.ContainsFunc(slices.Concat(s.Verify, s.Admit), func(name desired.PolicyName) bool { return asks(r.Repository.Policies[name]) })
}

// asks tells whether a policy asks what is known of artifacts.
func asks(p *desired.Policy) bool {
	if p == nil || p.Check != desired.CheckCEL {
		return false
	}
	x, err := CompileDeployment(p.CEL)
	return err == nil && x.Mentions(about)
}

// sources are who may say something of an artifact where a stage asks: those who
// may bring it there, or to a stage from which it comes; false: nobody.
func sources(p *desired.Pipeline, s *desired.Stage, a desired.ArtifactName) (all artifact.Sources, any bool) {
	seen := map[desired.EnvironmentName]bool{s.Environment: true}
	for list := []*desired.Stage{s}; len(list) > 0; list = list[1:] {
		if t := list[0].Tracks(a); t != nil {
			x := t.Sources()
			all.Publishers, all.Registry, any = append(all.Publishers, x.Publishers...), all.Registry || x.Registry, true
		}
		for _, env := range list[0].After {
			if before := p.Stage(env); before != nil && !seen[env] {
				seen[env] = true
				list = append(list, before)
			}
		}
	}
	return all, any
}

// ofArtifacts asks an expression of each artifact of the deployment. What it
// says is false of one is false. Where it hangs on what nobody has said, it is
// waited for: more may come to be known.
func (b *bench) ofArtifacts(x *Expression, src string, no Verdict) Verdict {
	var lacks []string
	vars := DeploymentVariables(b.environment, b.service, b.deployment)
	if len(b.deployment.Release.Pins) == 0 {
		no.Reason = "its expression asks of an artifact, and none is deployed"
		return no
	}
	for _, p := range b.deployment.Release.Pins {
		r, why := b.lookup(p.Artifact, p.Image)
		if why != "" {
			lacks = append(lacks, why)
			continue
		}
		what := fmt.Sprintf("%s %s", p.Artifact, r.Version)
		var unsaid []string
		vars[about], unsaid = ArtifactVariables(p.Artifact, r, Signers(b.repository, r))
		ok, err := x.EvalWithout(vars, about, unsaid)
		var unknown *expression.UnknownError
		switch {
		case errors.As(err, &unknown):
			lacks = append(lacks, fmt.Sprintf("of %s nothing is known of %s", what, strings.Join(unknown.Fields, ", ")))
		case err != nil:
			no.Reason = fmt.Sprintf("its expression can't be evaluated for %s: %v", what, err)
			return no
		case !ok:
			no.Reason = fmt.Sprintf("its expression is false for %s: %s", what, src)
			return no
		}
	}
	if len(lacks) > 0 {
		return Verdict{Outcome: Pending, Since: b.begun, Reason: strings.Join(lacks, "; "), Needs: "publish it, with what its build says, with `pinion artifact publish`"}
	}
	return Verdict{Outcome: Passed, Reason: "its expression holds"}
}

// Signers are the names of the keys that have signed an artifact, sorted. A key
// that is not there any more has no name.
func Signers(repository *desired.Repository, r artifact.Record) []string {
	var names []string
	for _, k := range repository.Keys {
		if slices.Contains(r.Signed, k.Fingerprint) {
			names = append(names, string(k.Name))
		}
	}
	slices.Sort(names)
	return names
}

// lookup finds what those whom the stage trusts say of an image; or else it says
// why there is nothing.
func (b *bench) lookup(name desired.ArtifactName, reference string) (artifact.Record, string) {
	if b.shelf == nil {
		return artifact.Record{}, "what is known of artifacts could not be read"
	}
	from, any := sources(b.pipeline, b.stage, name)
	if !any {
		return artifact.Record{}, fmt.Sprintf("neither %s nor a stage before it tracks %s, so nobody can say anything of it that counts", b.stage.Environment, name)
	}
	image := pinOf(reference)
	r, ok := b.shelf.Image(image.Repository, image.Version, image.Digest)
	if !ok {
		if other, known := b.shelf.Lookup(image.Repository, image.Version); known {
			return r, fmt.Sprintf("no artifact is recorded for %s: %s is bound to %.19s", reference, other.Version, other.Digest)
		}
		return r, "no artifact is recorded for " + reference
	}
	if image.Digest == "" && len(r.Moved) > 0 {
		return r, fmt.Sprintf("%s is pinned without its digest, and its tag was moved: what is deployed can't be told", reference)
	}
	r, err := r.For(from)
	if err != nil {
		return r, fmt.Sprintf("nothing that counts is known of %s: %v", reference, err)
	}
	return r, ""
}
