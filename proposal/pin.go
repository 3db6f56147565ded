package proposal

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// Pin is what `pinion pin` was asked for.
type Pin struct {
	Environment desired.EnvironmentName
	Artifact    desired.ArtifactName
	Version     string
	Add         bool
	Reason      string
	RequestedBy []ledger.Person
}

func (in Pin) Propose(_ context.Context, gr *Ground) (*Proposal, error) {
	repo := gr.Commit.Repository
	env, err := gr.environment(in.Environment)
	if err != nil {
		return nil, err
	}
	svc, err := gr.owner(in.Artifact)
	if err != nil {
		return nil, err
	}
	was, pinned := env.Pins[in.Artifact]
	image, err := in.image(repo, was.Image)
	switch {
	case errors.As(err, new(*Malformed)):
		return nil, err
	case !pinned && !in.Add:
		return nil, unfit("%s does not pin %s; give --add to pin it there", env.File, in.Artifact)
	case err != nil:
		return nil, err
	}
	if pinned && (image == was.Image || image.Digest == "" && image.Repository == was.Image.Repository && image.Version == was.Image.Version) {
		return &Proposal{Nothing: fmt.Sprintf("%s pins %s at %s already", in.Environment, in.Artifact, was.Image.Reference)}, nil
	}
	data, err := gr.Commit.Snapshot.ReadFile(env.File)
	if err != nil {
		return nil, err
	}
	if pinned {
		data, err = desired.SetPin(env.File, data, in.Artifact, image.Reference)
	} else {
		data, err = desired.AddPin(env.File, data, in.Artifact, image.Reference)
	}
	if err != nil {
		return nil, err
	}
	before := release(repo, env, svc)
	after := before.with(in.Artifact, image.Reference)
	p := &Proposal{
		Files: map[string][]byte{env.File: data},
		Change: ledger.Change{
			Kind: ledger.ChangePinned, Environment: in.Environment, Service: svc, Release: after.Release, Before: before.Version(),
			Reason: in.Reason, RequestedBy: in.RequestedBy,
		},
	}
	if image.Digest == "" {
		p.warn("%s is a tag, and what it names can change; a digest can't: %s@sha256:…", image.Version, image.Version)
	}
	if pinned && image.Repository != was.Image.Repository {
		p.warn("the repository of %s changes from %s to %s", in.Artifact, was.Image.Repository, image.Repository)
	}
	if commit := env.Manifests[svc]; commit != "" {
		p.warn("%s reads the manifests of %s from commit %.12s, and goes on doing so", in.Environment, svc, commit)
	}
	for _, h := range holdsOn(repo, in.Environment, svc, gr.Now) {
		p.warn("hold %s is on %s in %s (%s; ask %s); it stops promotions, not this", h.Name, svc, in.Environment, firstLine(h.Reason), h.Owner)
	}
	gr.warnOfSuspension(p, in.Environment, svc)
	p.Next = journey(repo, in.Environment, svc, after.Version())
	return p, nil
}

// digestOnly is a digest as it is written alone.
var digestOnly = regexp.MustCompile(`^@?([a-z0-9]+:[0-9a-fA-F]{32,})$`)

// image returns the reference that the version stands for. The error is Malformed
// if it stands for none, whichever the repository is.
func (in Pin) image(repo *desired.Repository, was desired.Image) (desired.Image, error) {
	reference := in.Version
	name, _, _ := strings.Cut(in.Version, "@")
	digest := digestOnly.FindStringSubmatch(in.Version)
	var unknown error
	if digest != nil || !strings.ContainsAny(name, "/:") {
		repository := was.Repository
		if repository == "" {
			if repository, unknown = in.elsewhere(repo); unknown != nil {
				repository = string(in.Artifact) // the version is judged all the same
			}
		}
		reference = repository + ":" + in.Version
		if digest != nil {
			reference = repository + "@" + digest[1]
		}
	}
	image, err := desired.ParseImage(reference)
	if err != nil {
		return desired.Image{}, &Malformed{err.Error()}
	}
	return image, unknown
}

// elsewhere returns the repository that the other environments pin.
func (in Pin) elsewhere(repo *desired.Repository) (string, error) {
	found := map[string]bool{}
	for _, env := range repo.Environments {
		if pin, ok := env.Pins[in.Artifact]; ok {
			found[pin.Image.Repository] = true
		}
	}
	if len(found) != 1 {
		return "", unfit("it is not known from which repository %s comes; write the whole reference: REPOSITORY:%s", in.Artifact, in.Version)
	}
	for r := range found {
		return r, nil
	}
	return "", nil
}

func (p *Proposal) warn(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

// environment returns an environment of the tip, which has to be sound.
func (gr *Ground) environment(name desired.EnvironmentName) (*desired.Environment, error) {
	repo := gr.Commit.Repository
	if env := repo.Environments[name]; env != nil {
		return env, nil
	}
	if ps := repo.Broken(desired.KindEnvironment, string(name)); len(ps) > 0 {
		return nil, ps[0]
	}
	return nil, missing("environment", name, repo.Environments)
}

// service returns a service of the tip, which has to be sound.
func (gr *Ground) service(name desired.ServiceName) (*desired.Service, error) {
	repo := gr.Commit.Repository
	if svc := repo.Services[name]; svc != nil {
		return svc, nil
	}
	if ps := repo.Broken(desired.KindService, string(name)); len(ps) > 0 {
		return nil, ps[0]
	}
	return nil, missing("service", name, repo.Services)
}

// owner returns the service that an artifact belongs to.
func (gr *Ground) owner(artifact desired.ArtifactName) (desired.ServiceName, error) {
	repo := gr.Commit.Repository
	owners := map[desired.ArtifactName]desired.ServiceName{}
	for name, svc := range repo.Services {
		for _, a := range svc.Artifacts {
			owners[a] = name
		}
	}
	if svc, ok := owners[artifact]; ok {
		return svc, nil
	}
	if ps := repo.Broken(desired.KindService, string(artifact)); len(ps) > 0 {
		return "", ps[0]
	}
	return "", missing("artifact", artifact, owners)
}

// pinsOf is what an environment pins of a service.
type pinsOf struct{ ledger.Release }

func release(repo *desired.Repository, env *desired.Environment, svc desired.ServiceName) pinsOf {
	var pins []desired.Pin
	for _, a := range repo.Services[svc].Artifacts {
		if p, ok := env.Pins[a]; ok {
			pins = append(pins, p)
		}
	}
	return pinsOf{ledger.ReleaseOf(pins, "")}
}

// with returns the pins with another reference for an artifact.
func (r pinsOf) with(artifact desired.ArtifactName, reference string) pinsOf {
	pins := slices.DeleteFunc(slices.Clone(r.Pins), func(p ledger.Pin) bool { return p.Artifact == artifact })
	pins = append(pins, ledger.Pin{Artifact: artifact, Image: reference})
	slices.SortFunc(pins, func(a, b ledger.Pin) int { return strings.Compare(string(a.Artifact), string(b.Artifact)) })
	return pinsOf{ledger.Release{Pins: pins}}
}

// holdsOn returns the holds that are on a service in an environment.
func holdsOn(repo *desired.Repository, env desired.EnvironmentName, svc desired.ServiceName, now time.Time) []*desired.Hold {
	var on []*desired.Hold
	for _, h := range repo.Holds {
		if h.Covers(env, svc) && !h.Expired(now) {
			on = append(on, h)
		}
	}
	slices.SortFunc(on, func(a, b *desired.Hold) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return on
}

// journey says what becomes of a version that enters an environment.
func journey(repo *desired.Repository, env desired.EnvironmentName, svc desired.ServiceName, version string) []string {
	deploys := fmt.Sprintf("%s deploys %s %s", env, svc, version)
	p := repo.StagesOf(svc)
	if p == nil {
		return []string{deploys + "; no pipeline takes it further"}
	}
	stage := p.Stage(env)
	if stage == nil {
		return []string{deploys + fmt.Sprintf("; pipeline %s has no stage %s, so it goes no further", p.Name, env)}
	}
	verified := "when it is rolled out"
	if len(stage.Verify) > 0 {
		verb := "pass"
		if len(stage.Verify) == 1 {
			verb = "passes"
		}
		verified = "when " + list(stage.Verify) + " " + verb
	}
	next := p.Next(env)
	if len(next) == 0 {
		return []string{deploys + "; " + verified + ", it is verified, and pipeline " + string(p.Name) + " ends"}
	}
	var to []string
	for _, s := range next {
		where := "it goes to " + string(s.Environment)
		if len(s.After) > 1 {
			others := slices.DeleteFunc(slices.Clone(s.After), func(e desired.EnvironmentName) bool { return e == env })
			where += ", once " + list(others) + " has it, too"
		}
		if len(s.Admit) > 0 {
			where += ", if " + list(s.Admit) + " lets it in"
			if len(s.Admit) > 1 {
				where = strings.TrimSuffix(where, "lets it in") + "let it in"
			}
		}
		to = append(to, where)
	}
	return []string{deploys + "; " + verified + ", " + strings.Join(to, "; and ")}
}

// list writes names as one says them: "a, b and c".
func list[S ~string](names []S) string {
	var all []string
	for _, n := range names {
		all = append(all, string(n))
	}
	if n := len(all); n > 1 {
		return strings.Join(all[:n-1], ", ") + " and " + all[n-1]
	}
	return strings.Join(all, "")
}
