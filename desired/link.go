package desired

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
)

// linker looks at what spans files. It is linear in what the files hold, but
// for the search of near names, which has a budget.
type linker struct {
	*Repository
	owner      map[ArtifactName]ServiceName
	rivals     map[ArtifactName][]ServiceName // who claim it besides
	candidates map[Kind][]string              // sorted
	budget     int                            // comparisons of names that are still allowed
}

// link fills the Repository from what was read of each file.
func (r *Repository) link(tree Tree) error {
	r.broken = make(map[Kind]map[string][]Problem)
	l := &linker{
		Repository: r,
		owner:      make(map[ArtifactName]ServiceName),
		rivals:     make(map[ArtifactName][]ServiceName),
		candidates: make(map[Kind][]string),
		budget:     1_000_000,
	}
	jobs := r.jobManifests()
	for _, kind := range folders {
		r.broken[kind.kind] = make(map[string][]Problem)
		f := r.folders[kind.kind]
		for _, p := range slices.Concat(f.around, f.problems) {
			if !jobs[p.File] {
				l.tell(p, p.Severity == SeverityError)
			}
		}
		for _, x := range f.files {
			if x.broken && jobs[x.path] {
				continue // it is the manifest of a job, and no policy
			}
			for _, p := range x.problems {
				l.tell(p, x.broken && p.Severity == SeverityError)
			}
		}
	}
	r.Environments = valuesOf[EnvironmentName, *Environment](r.folders[KindEnvironment])
	r.Services = valuesOf[ServiceName, *Service](r.folders[KindService])
	r.Pipelines = valuesOf[PipelineName, *Pipeline](r.folders[KindPipeline])
	r.Policies = valuesOf[PolicyName, *Policy](r.folders[KindPolicy])
	r.Holds = valuesOf[HoldName, *Hold](r.folders[KindHold])
	r.Keys = valuesOf[KeyName, *Key](r.folders[KindKey])

	l.services()
	l.environments()
	if err := l.policies(tree); err != nil {
		return err
	}
	l.pipelines()
	l.holds()
	l.notify()
	l.deploy()
	l.sharedNamespaces()
	l.unpinnedManifests()
	l.unusedPolicies()
	r.Problems = sorted(r.Problems)
	return nil
}

func valuesOf[N ~string, V any](f *folder) map[N]V {
	m := make(map[N]V, len(f.files))
	for name, x := range f.files {
		if v, ok := x.value.(V); ok {
			m[N(name)] = v
		}
	}
	return m
}

// tell records a problem, and, if breaks, that it takes down the whole of what
// it is about.
func (l *linker) tell(p Problem, breaks bool) {
	l.Problems = append(l.Problems, p)
	if breaks {
		name := strings.ToLower(p.Name)
		l.broken[p.Kind][name] = append(l.broken[p.Kind][name], p)
	}
}

// rawOf returns what a sound file says, with its places.
func rawOf[T any](r *Repository, kind Kind, name string) T {
	return r.folders[kind].files[name].raw.(T)
}

// guess returns a hint with the nearest name of a kind, or else.
func (l *linker) guess(kind Kind, name, otherwise string) string {
	names, ok := l.candidates[kind]
	if !ok {
		switch kind {
		case KindEnvironment:
			names = sortedNames(l.Environments)
		case KindService:
			names = sortedNames(l.Services)
		case KindPolicy:
			names = sortedNames(l.Policies)
		case KindKey:
			names = sortedNames(l.Keys)
		case "artifact":
			names = sortedNames(l.owner)
		}
		l.candidates[kind] = names
	}
	if l.budget -= len(names); l.budget < 0 {
		return otherwise
	}
	if near := nearest(name, names); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return otherwise
}

func sortedNames[K ~string, V any](m map[K]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, string(name))
	}
	slices.Sort(names)
	return names
}

// known says whether a name refers to something: to something sound, to
// something that is there and can't be used, or to nothing.
func (l *linker) known(kind Kind, name string) (sound, there bool) {
	sound = l.sound(kind, name)
	return sound, sound || len(l.broken[kind][strings.ToLower(name)]) > 0
}

// dangling returns what is wrong with a reference to something that is not there.
func (l *linker) dangling(ref word, kind Kind, from Kind, name string) Problem {
	noun := strings.ToLower(string(kind))
	file := folderOf(kind) + "/" + ref.Text + ".yaml"
	switch kind {
	case KindService:
		file = "services/" + ref.Text + "/service.yaml"
	case KindKey:
		file = keyFile(ref.Text)
	}
	return Problem{SeverityError, ref.Position,
		fmt.Sprintf("there is no %s %s", noun, ref.Text),
		l.guess(kind, ref.Text, "add "+file+", or remove the name"),
		from, name}
}

func (l *linker) services() {
	l.service = make(map[ServiceName][]Problem)
	blame := func(p Problem, names ...ServiceName) {
		l.tell(p, false)
		for _, n := range names {
			l.service[n] = append(l.service[n], p)
		}
	}
	claims := make(map[ArtifactName][]ServiceName, len(l.Services))
	names := sortedNames(l.Services)
	edges := make(map[string][]string)
	for _, name := range names {
		s := l.Services[ServiceName(name)]
		for _, a := range s.Artifacts {
			claims[a] = append(claims[a], s.Name)
		}
		if len(s.DependsOn) == 0 {
			continue
		}
		for _, dep := range rawOf[*serviceFile](l.Repository, KindService, name).DependsOn.Items {
			if _, there := l.known(KindService, dep.Text); !there {
				blame(l.dangling(dep, KindService, KindService, name), s.Name)
				continue
			}
			edges[name] = append(edges[name], dep.Text)
		}
	}
	for a, by := range claims {
		l.owner[a] = by[0]
		if len(by) == 1 {
			continue
		}
		// A service of the artifact's own name keeps it: that others claim it,
		// too, must not stop it. Else it can't be told whose it is.
		own := slices.Contains(by, ServiceName(a))
		if own {
			l.owner[a] = ServiceName(a)
		}
		for _, s := range by {
			if s == l.owner[a] {
				continue
			}
			p := Problem{SeverityError, l.artifactPosition(s, a),
				fmt.Sprintf("the artifact %s belongs to %s already", a, l.Services[l.owner[a]].File),
				"an artifact belongs to one service: remove it from one of the two, or name it apart and pin it twice", KindService, string(s)}
			blame(p, s)
			l.rivals[a] = append(l.rivals[a], s)
			if !own {
				l.service[by[0]] = append(l.service[by[0]], p)
			}
		}
	}
	for _, c := range cycles(names, edges) {
		first := c.path[0]
		var at Position
		for _, dep := range rawOf[*serviceFile](l.Repository, KindService, first).DependsOn.Items {
			if dep.Text == c.path[1%len(c.path)] {
				at = dep.Position
			}
		}
		members := make([]ServiceName, len(c.members))
		for i, m := range c.members {
			members[i] = ServiceName(m)
		}
		blame(Problem{SeverityError, at, "services depend on each other in a circle: " + c.String(), "remove one dependsOn from it", KindService, first}, members...)
	}
}

func (l *linker) artifactPosition(svc ServiceName, a ArtifactName) Position {
	raw := rawOf[*serviceFile](l.Repository, KindService, string(svc))
	for _, w := range raw.Artifacts.Items {
		if w.Text == string(a) {
			return w.Position
		}
	}
	return raw.Kind.Position // the artifact is the service's own name, and not written
}

func (l *linker) environments() {
	l.environment = make(map[EnvironmentName]*inside, len(l.Environments))
	anyBroken := len(l.broken[KindService]) > 0
	for _, name := range sortedNames(l.Environments) {
		raw := rawOf[*environmentFile](l.Repository, KindEnvironment, name)
		in := &inside{pins: make(map[ArtifactName][]Problem), manifests: make(map[ServiceName][]Problem)}
		l.environment[EnvironmentName(name)] = in
		for _, x := range raw.Pins.Entries {
			a := ArtifactName(x.Key.Text)
			if len(x.Problems) > 0 {
				in.pins[a] = append(in.pins[a], x.Problems...)
			}
			if _, ok := l.owner[a]; ok {
				continue
			}
			in.stray = append(in.stray, a)
			// A broken service may be the one that has it.
			if !anyBroken && labelRegexp.MatchString(x.Key.Text) {
				hint := l.guess("artifact", x.Key.Text, "add it to the artifacts of a service, or remove the pin")
				l.tell(Problem{SeverityError, x.Key.Position, fmt.Sprintf("pins: no service has the artifact %s", a), hint, KindEnvironment, name}, false)
			}
		}
		for _, x := range raw.Manifests.Entries {
			svc := ServiceName(x.Key.Text)
			if len(x.Problems) > 0 {
				in.manifests[svc] = append(in.manifests[svc], x.Problems...)
			}
			if _, there := l.known(KindService, x.Key.Text); !there && labelRegexp.MatchString(x.Key.Text) {
				l.tell(l.dangling(x.Key, KindService, KindEnvironment, name), false)
			}
		}
	}
}

// jobManifests returns the files that policies name as the manifests of jobs:
// they may lie beside the policies.
func (r *Repository) jobManifests() map[string]bool {
	files := make(map[string]bool)
	for _, x := range r.folders[KindPolicy].files {
		if p, ok := x.value.(*Policy); ok && p.Job != nil {
			files[p.Job.Manifest] = true
		}
	}
	return files
}

// policies drops what names a job that is not there.
func (l *linker) policies(tree Tree) error {
	for _, name := range sortedNames(l.Policies) {
		p := l.Policies[PolicyName(name)]
		if p.Job == nil {
			continue
		}
		_, err := tree.ID(p.Job.Manifest)
		if err == nil {
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read %s: %w", p.Job.Manifest, err)
		}
		at := rawOf[*policyFile](l.Repository, KindPolicy, name).Job.Manifest.Position
		l.tell(Problem{SeverityError, at, "there is no file " + p.Job.Manifest, "the path is relative to the folder of this file", KindPolicy, name}, true)
		delete(l.Policies, p.Name)
	}
	return nil
}

func (l *linker) pipelines() {
	l.claims = make(map[ServiceName]*Pipeline)
	l.contested = make(map[ServiceName][]Problem)
	claim := func(p *Pipeline, w word) {
		svc := ServiceName(w.Text)
		held, what := l.claims[svc], "the service "+w.Text
		if svc == AnyService {
			held, what = l.rest, "every service that no pipeline names"
		}
		if held != nil {
			problem := Problem{SeverityError, w.Position,
				fmt.Sprintf("the pipelines %s and %s both claim %s", held.Name, p.Name, what),
				"a service moves through one pipeline: remove it from one of the two", KindPipeline, string(p.Name)}
			l.tell(problem, false)
			l.contested[svc] = append(l.contested[svc], problem)
			return
		}
		if svc == AnyService {
			l.rest = p
			return
		}
		l.claims[svc] = p
	}
	for _, name := range sortedNames(l.Pipelines) {
		raw := rawOf[*pipelineFile](l.Repository, KindPipeline, name)
		p := *l.Pipelines[PipelineName(name)] // the file's own is shared with other commits
		p.Stages = slices.Clone(p.Stages)
		l.Pipelines[p.Name] = &p
		for _, w := range raw.Services.Items {
			if _, there := l.known(KindService, w.Text); !there && w.Text != string(AnyService) {
				l.tell(l.dangling(w, KindService, KindPipeline, name), false)
			}
			claim(&p, w)
		}
		for i := range p.Stages {
			s := &p.Stages[i]
			s.Problems = slices.Clone(s.Problems)
			l.stageRefs(s, name, KindEnvironment, []word{raw.Stages[i].Environment})
			l.stageRefs(s, name, KindPolicy, raw.Stages[i].Verify.Items)
			l.stageRefs(s, name, KindPolicy, raw.Stages[i].Admit.Items)
			l.track(s, name, raw.Stages[i].Track)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.broken[KindPipeline])) {
		p := l.broken[KindPipeline][name][0]
		l.unclear = &Problem{SeverityError, p.Position, "it can't be told which pipeline claims the service, for this file can't be used: " + p.Message, p.Hint, p.Kind, p.Name}
		break
	}
}

// stageRefs looks up the names in a stage. What is there and can't be used is
// told where it lies; the stage must not move all the same.
func (l *linker) stageRefs(s *Stage, pipeline string, kind Kind, refs []word) {
	for _, w := range refs {
		sound, there := l.known(kind, w.Text)
		switch {
		case !there:
			p := l.dangling(w, kind, KindPipeline, pipeline)
			l.tell(p, false)
			s.Problems = append(s.Problems, p)
		case !sound:
			why := l.broken[kind][strings.ToLower(w.Text)][0]
			s.Problems = append(s.Problems, Problem{SeverityError, w.Position,
				fmt.Sprintf("the %s %s can't be used: %s", strings.ToLower(string(kind)), w.Text, why.Error()), "", KindPipeline, pipeline})
		}
	}
}

func (l *linker) holds() {
	for _, name := range sortedNames(l.Holds) {
		raw := rawOf[*holdFile](l.Repository, KindHold, name)
		h := *l.Holds[HoldName(name)]
		h.Problems = slices.Clone(h.Problems)
		l.Holds[h.Name] = &h
		for _, refs := range []struct {
			kind  Kind
			words []word
		}{{KindEnvironment, raw.Environments.Items}, {KindService, raw.Services.Items}} {
			for _, w := range refs.words {
				if _, there := l.known(refs.kind, w.Text); !there {
					p := l.dangling(w, refs.kind, KindHold, name)
					l.tell(p, false)
					h.Problems = append(h.Problems, p)
				}
			}
		}
	}
}

// deploy finds which services are in which environments.
func (l *linker) deploy() {
	var bare []ServiceName // without artifacts
	for name, s := range l.Services {
		if len(s.Artifacts) == 0 {
			bare = append(bare, name)
		}
	}
	for _, name := range sortedNames(l.Environments) {
		e := l.Environments[EnvironmentName(name)]
		in := l.environment[e.Name]
		services := make(map[ServiceName]bool, len(e.Pins))
		for a := range e.Pins {
			l.addClaimants(services, a)
		}
		for a := range in.pins {
			l.addClaimants(services, a)
		}
		unsure := make(map[ServiceName][]Problem)
		for _, svc := range bare {
			p, problems := l.claimant(svc)
			if p == nil || p.Stage(e.Name) != nil {
				services[svc] = true
				unsure[svc] = problems
			}
		}
		for _, svc := range sortedNames(services) {
			d := l.deployment(e, l.Services[ServiceName(svc)])
			d.Problems = append(d.Problems, unsure[d.Service.Name]...)
			d.Problems = sorted(d.Problems)
			l.deployments = append(l.deployments, d)
		}
	}
}

// addClaimants adds the services that have the artifact.
func (l *linker) addClaimants(services map[ServiceName]bool, a ArtifactName) {
	owner, ok := l.owner[a]
	if !ok {
		return
	}
	services[owner] = true
	for _, other := range l.rivals[a] {
		services[other] = true
	}
}

func (l *linker) deployment(e *Environment, s *Service) Deployment {
	in := l.environment[e.Name]
	d := Deployment{Environment: e, Service: s, Source: e.Manifests[s.Name]}
	d.Problems = append(d.Problems, in.manifests[s.Name]...)
	d.Problems = append(d.Problems, l.service[s.Name]...)
	var missing []string
	for _, a := range s.Artifacts {
		pin, ok := e.Pins[a]
		switch {
		case len(in.pins[a]) > 0:
			d.Problems = append(d.Problems, in.pins[a]...)
		case ok:
			d.Pins = append(d.Pins, pin)
		default:
			missing = append(missing, string(a))
		}
	}
	slices.SortFunc(d.Pins, func(a, b Pin) int { return cmp.Compare(a.Artifact, b.Artifact) })
	if len(missing) > 0 {
		slices.Sort(missing)
		at := rawOf[*environmentFile](l.Repository, KindEnvironment, string(e.Name)).Pins.Position
		if len(d.Pins) > 0 {
			at = d.Pins[0].Position
		}
		p := Problem{SeverityError, at,
			fmt.Sprintf("%s needs %s, too, and %s does not pin it", s.File, strings.Join(missing, ", "), e.File),
			"pin all artifacts of a service, or none of them", KindEnvironment, string(e.Name)}
		l.tell(p, false)
		d.Problems = append(d.Problems, p)
	}
	return d
}
