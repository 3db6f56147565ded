package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

func newPinCommand(g *globals) *cobra.Command {
	var w writing
	var add bool
	var requestedBy []string
	cmd := &cobra.Command{
		Use:   "pin ENV ARTIFACT VERSION",
		Short: "Commit a bump: pin another version of an artifact in an environment",
		Long: `Pin another version of an artifact in an environment. VERSION is a tag, a
tag@digest, a digest, or a whole reference; without a repository in it, that of
the present pin stays.

` + writingHelp + `

Exit code 0 also if that version is pinned already.`,
		Example: `  pinion pin dev web 1.4.3
  pinion pin dev web 1.4.3@sha256:2222…
  pinion pin dev web ghcr.io/acme/web:1.4.3 --add --requested-by "Kim <kim@shop.example>"`,
		Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			persons, err := people("requested-by", requestedBy)
			if err != nil {
				return err
			}
			in := pinning{
				environment: desired.EnvironmentName(args[0]), artifact: desired.ArtifactName(args[1]), version: args[2],
				add: add, reason: w.message, requestedBy: persons,
			}
			return g.write(cmd.Context(), &w, in.propose)
		},
	}
	w.flags(cmd.Flags())
	cmd.Flags().BoolVar(&add, "add", false, "pin an artifact that is not pinned there yet")
	cmd.Flags().StringArrayVar(&requestedBy, "requested-by", nil, `for whom this is done, "Name <name@example.com>"; may be given several times`)
	return cmd
}

// pinning is what `pinion pin` was asked for.
type pinning struct {
	environment desired.EnvironmentName
	artifact    desired.ArtifactName
	version     string
	add         bool
	reason      string
	requestedBy []ledger.Person
}

func (in pinning) propose(_ context.Context, gr *ground) (*proposal, error) {
	repo := gr.commit.Repository
	env, err := gr.environment(in.environment)
	if err != nil {
		return nil, err
	}
	svc, err := gr.owner(in.artifact)
	if err != nil {
		return nil, err
	}
	was, pinned := env.Pins[in.artifact]
	if !pinned && !in.add {
		return nil, fmt.Errorf("%s does not pin %s; give --add to pin it there", env.File, in.artifact)
	}
	image, err := in.image(repo, was.Image)
	if err != nil {
		return nil, err
	}
	if pinned && (image == was.Image || image.Digest == "" && image.Repository == was.Image.Repository && image.Version == was.Image.Version) {
		return &proposal{nothing: fmt.Sprintf("%s pins %s at %s already", in.environment, in.artifact, was.Image.Reference)}, nil
	}
	data, err := gr.commit.Snapshot.ReadFile(env.File)
	if err != nil {
		return nil, err
	}
	if pinned {
		data, err = desired.SetPin(env.File, data, in.artifact, image.Reference)
	} else {
		data, err = desired.AddPin(env.File, data, in.artifact, image.Reference)
	}
	if err != nil {
		return nil, err
	}
	before := release(repo, env, svc)
	after := before.with(in.artifact, image.Reference)
	p := &proposal{
		files: map[string][]byte{env.File: data},
		change: ledger.Change{
			Kind: ledger.ChangePinned, Environment: in.environment, Service: svc, Release: after.Release, Before: before.Version(),
			Reason: in.reason, RequestedBy: in.requestedBy,
		},
	}
	if image.Digest == "" {
		p.warn("%s is a tag, and what it names can change; a digest can't: %s@sha256:…", image.Version, image.Version)
	}
	if pinned && image.Repository != was.Image.Repository {
		p.warn("the repository of %s changes from %s to %s", in.artifact, was.Image.Repository, image.Repository)
	}
	if commit := env.Manifests[svc]; commit != "" {
		p.warn("%s reads the manifests of %s from commit %.12s, and goes on doing so", in.environment, svc, commit)
	}
	for _, h := range holdsOn(repo, in.environment, svc, gr.Now) {
		p.warn("hold %s is on %s in %s (%s; ask %s); it stops promotions, not this", h.Name, svc, in.environment, firstLine(h.Reason), h.Owner)
	}
	gr.warnOfSuspension(p, in.environment, svc)
	p.next = journey(repo, in.environment, svc, after.Version())
	return p, nil
}

// digestOnly is a digest as it is written alone.
var digestOnly = regexp.MustCompile(`^@?([a-z0-9]+:[0-9a-fA-F]{32,})$`)

// image returns the reference that the version stands for.
func (in pinning) image(repo *desired.Repository, was desired.Image) (desired.Image, error) {
	reference := in.version
	name, _, _ := strings.Cut(in.version, "@")
	digest := digestOnly.FindStringSubmatch(in.version)
	if digest != nil || !strings.ContainsAny(name, "/:") {
		repository := was.Repository
		if repository == "" {
			var err error
			if repository, err = in.elsewhere(repo); err != nil {
				return desired.Image{}, err
			}
		}
		reference = repository + ":" + in.version
		if digest != nil {
			reference = repository + "@" + digest[1]
		}
	}
	return desired.ParseImage(reference)
}

// elsewhere returns the repository that the other environments pin.
func (in pinning) elsewhere(repo *desired.Repository) (string, error) {
	found := map[string]bool{}
	for _, env := range repo.Environments {
		if pin, ok := env.Pins[in.artifact]; ok {
			found[pin.Image.Repository] = true
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("it is not known from which repository %s comes; write the whole reference: REPOSITORY:%s", in.artifact, in.version)
	}
	for r := range found {
		return r, nil
	}
	return "", nil
}

func (p *proposal) warn(format string, args ...any) {
	p.warnings = append(p.warnings, fmt.Sprintf(format, args...))
}

// environment returns an environment of the tip, which has to be sound.
func (gr *ground) environment(name desired.EnvironmentName) (*desired.Environment, error) {
	repo := gr.commit.Repository
	if env := repo.Environments[name]; env != nil {
		return env, nil
	}
	if ps := repo.Broken(desired.KindEnvironment, string(name)); len(ps) > 0 {
		return nil, ps[0]
	}
	return nil, missing("environment", name, repo.Environments)
}

// service returns a service of the tip, which has to be sound.
func (gr *ground) service(name desired.ServiceName) (*desired.Service, error) {
	repo := gr.commit.Repository
	if svc := repo.Services[name]; svc != nil {
		return svc, nil
	}
	if ps := repo.Broken(desired.KindService, string(name)); len(ps) > 0 {
		return nil, ps[0]
	}
	return nil, missing("service", name, repo.Services)
}

// owner returns the service that an artifact belongs to.
func (gr *ground) owner(artifact desired.ArtifactName) (desired.ServiceName, error) {
	repo := gr.commit.Repository
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
