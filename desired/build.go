package desired

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// header reports whether a file says that it is of the decoder's kind. If it
// says that it is something else, that is the one fault worth telling.
func (d *decoder) header(root *yaml.Node) bool {
	for i := 0; i+1 < len(root.Content); i += 2 {
		k, v := root.Content[i], root.Content[i+1]
		if v.Kind != yaml.ScalarNode || v.Tag != "!!str" {
			continue
		}
		switch {
		case k.Value == "apiVersion" && v.Value != APIVersion:
			hint := "write apiVersion: " + APIVersion
			if !strings.HasPrefix(v.Value, "pinion.dev/") && nearest(v.Value, []string{APIVersion}) == "" {
				hint = fmt.Sprintf("%s/ holds files of Pinion only: move others away, or write apiVersion: %s and kind: %s", folderOf(d.kind), APIVersion, d.kind)
			}
			d.fail(v, fmt.Sprintf("apiVersion is %q", abridge(v.Value)), hint)
			return false
		case k.Value == "kind" && v.Value != string(d.kind):
			hint := fmt.Sprintf("write kind: %s", d.kind)
			if dir := folderOf(Kind(v.Value)); dir == "services" {
				hint = fmt.Sprintf("move it to services/%s/service.yaml, or %s", d.name, hint)
			} else if dir != "" {
				hint = fmt.Sprintf("move it to %s/%s.yaml, or %s", dir, d.name, hint)
			}
			d.fail(v, fmt.Sprintf("kind is %q, and %s/ holds kind %s", abridge(v.Value), folderOf(d.kind), d.kind), hint)
			return false
		}
	}
	return true
}

// build makes the public value of a decoded file.
func (d *decoder) build(raw any) any {
	switch raw := raw.(type) {
	case *environmentFile:
		return d.environment(raw)
	case *serviceFile:
		return d.service(raw)
	case *pipelineFile:
		return d.pipeline(raw)
	case *policyFile:
		return d.policy(raw)
	case *holdFile:
		return d.hold(raw)
	}
	panic(fmt.Sprintf("desired: no way to build from a %T", raw))
}

func (d *decoder) warn(at Position, message, hint string) {
	d.problems = append(d.problems, Problem{SeverityWarning, at, message, hint, d.kind, d.name})
}

func (d *decoder) environment(raw *environmentFile) *Environment {
	e := &Environment{
		Name:      EnvironmentName(d.name),
		File:      d.file,
		Cluster:   ClusterName(raw.Cluster.or("default")),
		Namespace: raw.Namespace.Text,

		ServiceAccount: raw.Account.Text,

		Parameters: raw.Parameters.Value,
		Drift:      Drift(raw.Drift.or(string(DriftCorrect))),
		Ignore:     ignores(raw.Ignore),
		Suspend:    suspension(raw.Suspend),
		Notify:     notifications(raw.Notify),
		Pins:       make(map[ArtifactName]Pin, len(raw.Pins.Entries)),
		Manifests:  make(map[ServiceName]string, len(raw.Manifests.Entries)),
	}
	e.ManifestsAt = make(map[ServiceName]Position, len(raw.Manifests.Entries))
	for _, x := range raw.Pins.Entries {
		if len(x.Problems) > 0 {
			continue
		}
		img, err := ParseImage(x.Value.Image.Text)
		if err != nil {
			panic("desired: a checked image does not parse: " + err.Error())
		}
		name := ArtifactName(x.Key.Text)
		e.Pins[name] = Pin{Artifact: name, Image: img, Position: x.Value.Image.Position}
		if img.Version == "latest" && img.Digest == "" {
			d.warn(x.Value.Image.Position, fmt.Sprintf("%s is pinned to the tag latest, which moves", name), "pin an exact version, or add the digest")
		}
	}
	for _, x := range raw.Manifests.Entries {
		if len(x.Problems) == 0 {
			e.Manifests[ServiceName(x.Key.Text)] = x.Value.Text
			e.ManifestsAt[ServiceName(x.Key.Text)] = x.Value.Position
		}
	}
	return e
}

func (d *decoder) service(raw *serviceFile) *Service {
	s := &Service{
		Name:      ServiceName(d.name),
		File:      d.file,
		DependsOn: namesOf[ServiceName](raw.DependsOn),
		Folder:    path.Join(path.Dir(d.file), raw.Manifests.or(".")),
		Rollout:   Rollout{Timeout: 10 * time.Minute},
		Conflicts: Conflicts(raw.Conflicts.or(string(ConflictsReport))),
		Replace:   Replace(raw.Replace.or(string(ReplaceReport))),
		Ignore:    ignores(raw.Ignore),
		Suspend:   suspension(raw.Suspend),
		Health:    d.healthRules(raw.Health),
		Deploy:    d.deploy(raw),
		Artifacts: []ArtifactName{ArtifactName(d.name)},
	}
	s.Plaintext = PlaintextRefuse
	if raw.Secrets != nil {
		s.Plaintext = Plaintext(raw.Secrets.Plaintext.or(string(PlaintextRefuse)))
	}
	if raw.Artifacts.Set {
		s.Artifacts = namesOf[ArtifactName](raw.Artifacts)
	}
	if raw.Rollout != nil {
		s.Rollout.Timeout = raw.Rollout.Timeout.duration(s.Rollout.Timeout)
	}
	if leaves(s.Folder) {
		d.failAt(raw.Manifests.Position, fmt.Sprintf("manifests: %q lies outside of the repository", abridge(raw.Manifests.Text)), "manifests are read from the commit's own tree only")
	}
	return s
}

// leaves reports whether a cleaned path is outside of the tree.
func leaves(p string) bool { return p == ".." || strings.HasPrefix(p, "../") }

func (d *decoder) pipeline(raw *pipelineFile) *Pipeline {
	p := &Pipeline{Name: PipelineName(d.name), File: d.file, Services: namesOf[ServiceName](raw.Services)}
	lines := make(map[string]int, len(raw.Stages))
	for _, x := range raw.Stages {
		env := x.Environment
		if env.Bad || !env.Set {
			continue
		}
		if first := lines[env.Text]; first > 0 {
			d.failAt(env.Position, fmt.Sprintf("%s is the environment of two stages", env.Text), fmt.Sprintf("remove this one or that in line %d", first))
		}
		lines[env.Text] = env.Position.Line
	}
	after := make(map[string][]string, len(raw.Stages))
	names := make([]string, 0, len(lines))
	for i, x := range raw.Stages {
		s := Stage{
			Environment:   EnvironmentName(x.Environment.Text),
			After:         namesOf[EnvironmentName](x.After),
			Verify:        namesOf[PolicyName](x.Verify),
			Admit:         namesOf[PolicyName](x.Admit),
			OnFailure:     OnFailure(x.OnFailure.or(string(OnFailureStop))),
			ByPullRequest: x.By.Text == "pullRequest",
			Merge:         x.Merge.Text == "auto",
			ManifestsHead: x.Manifests.Text == "head",
			Position:      x.Environment.Position,
		}
		if x.Merge.Set && !x.Merge.Bad && !s.ByPullRequest {
			d.isolated++
			d.entry = &s.Problems
			d.failAt(x.Merge.Position, "merge: says who merges pull requests, and the stage has none", "add by: pullRequest, or remove merge:")
			d.entry = nil
			d.isolated--
		}
		if !x.After.Set && i > 0 {
			s.After = []EnvironmentName{EnvironmentName(raw.Stages[i-1].Environment.Text)}
		}
		s.Track = d.tracks(x.Track, s.After)
		if len(s.Track) > 0 && s.ByPullRequest {
			d.failAt(x.By.Position, "by: pullRequest is for versions that come from a stage before, and this stage tracks new ones", "remove by:, or track:; a later stage can be entered by pull request")
		}
		names = append(names, x.Environment.Text)
		for _, a := range x.After.Items {
			after[x.Environment.Text] = append(after[x.Environment.Text], a.Text)
			if lines[a.Text] > 0 {
				continue
			}
			hint := "name the environment of another stage of this pipeline"
			if guess := nearest(a.Text, names); guess != "" {
				hint = fmt.Sprintf("did you mean %q?", guess)
			}
			d.isolated++
			d.entry = &s.Problems
			d.failAt(a.Position, fmt.Sprintf("after: there is no stage %s", a.Text), hint)
			d.entry = nil
			d.isolated--
		}
		if !x.After.Set && i > 0 {
			after[x.Environment.Text] = []string{raw.Stages[i-1].Environment.Text}
		}
		p.Stages = append(p.Stages, s)
	}
	if d.broken {
		return p
	}
	for _, c := range cycles(names, after) {
		i := slices.Index(names, c.path[0])
		at := raw.Stages[i].After.Position
		if !raw.Stages[i].After.Set {
			at = raw.Stages[i].Environment.Position
		}
		d.failAt(at, "stages come after each other in a circle: "+c.String(), "remove one after: from it; a stage without after: comes after the one written before it, after: [] comes first")
	}
	return p
}

func (d *decoder) policy(raw *policyFile) *Policy {
	p := &Policy{Name: PolicyName(d.name), File: d.file, Timeout: raw.Timeout.duration(0)}
	switch {
	case raw.Report != nil:
		p.Check, p.Report = CheckReport, &Report{By: namesOf[string](raw.Report.By)}
	case raw.Soak.Set:
		p.Check, p.Soak = CheckSoak, raw.Soak.duration(0)
	case raw.Job != nil:
		p.Check, p.Job = CheckJob, &Job{Manifest: path.Join(path.Dir(d.file), raw.Job.Manifest.Text)}
		if leaves(p.Job.Manifest) {
			d.failAt(raw.Job.Manifest.Position, fmt.Sprintf("job.manifest: %q lies outside of the repository", abridge(raw.Job.Manifest.Text)), "manifests are read from the commit's own tree only")
		}
	case raw.HTTP != nil:
		p.Check, p.HTTP = CheckHTTP, &HTTP{URL: raw.HTTP.URL.Text, Position: raw.HTTP.URL.Position, Expect: raw.HTTP.Expect.or("status == 200")}
		p.Expression, raw.expression = raw.HTTP.Expect.Position, d.written(raw.HTTP.Expect)
		if !raw.HTTP.Expect.Set {
			p.Expression = raw.HTTP.URL.Position
		}
	case raw.Prometheus != nil:
		x := raw.Prometheus
		p.Check, p.Prometheus = CheckPrometheus, &Prometheus{URL: x.URL.Text, Position: x.URL.Position, Query: x.Query.Text, Expect: x.Expect.Text, For: x.For.duration(0)}
		p.Expression, raw.expression = x.Expect.Position, d.written(x.Expect)
	case raw.Approval != nil:
		p.Check, p.Approval = CheckApproval, &Approval{Groups: namesOf[string](raw.Approval.Groups), Count: 1}
		if raw.Approval.Count.Set {
			p.Approval.Count = int(raw.Approval.Count.Value)
		}
		p.Approval.AllowAuthor = raw.Approval.AllowAuthor.Value
	case raw.Window != nil:
		x := raw.Window
		p.Check, p.Window = CheckWindow, &Window{Allow: x.Allow.Text, Timezone: x.Timezone.or("UTC"), Position: x.Timezone.Position}
		if !x.Timezone.Set {
			p.Window.Position = x.Allow.Position
		}
		p.Window.Spans, _ = parseSpans(x.Allow.Text) // a fault is told already, and breaks the file
	case raw.CEL.Set:
		p.Check, p.CEL, p.Expression, raw.expression = CheckCEL, raw.CEL.Text, raw.CEL.Position, d.written(raw.CEL)
	}
	needs, key := raw.Soak, "soak" // the time that it takes at least
	if raw.Prometheus != nil {
		needs, key = raw.Prometheus.For, "for"
	}
	if raw.Timeout.or("") != "" && p.Timeout < needs.duration(0) {
		d.failAt(raw.Timeout.Position, fmt.Sprintf("the timeout of %s ends before %s: %s can", raw.Timeout.Text, key, needs.Text), "make it longer, or leave it out")
	}
	return p
}

func (d *decoder) hold(raw *holdFile) *Hold {
	h := &Hold{
		Name:         HoldName(d.name),
		File:         d.file,
		Environments: namesOf[EnvironmentName](raw.Environments),
		Services:     namesOf[ServiceName](raw.Services),
		Reason:       raw.Reason.or(""),
		Owner:        raw.Owner.or(""),
		Position:     Position{File: d.file, Line: raw.Kind.Position.Line, Column: raw.Kind.Position.Column},
	}
	if raw.Until.Set && !raw.Until.Bad {
		h.Until, _ = time.Parse(time.RFC3339, raw.Until.Text) // its form is checked
		h.Position = raw.Until.Position
	}
	for _, p := range d.problems {
		if p.Severity == SeverityError {
			h.Problems = append(h.Problems, p)
		}
	}
	return h
}

// or returns the text, or what holds if there is none or it is at fault.
func (w word) or(fallback string) string {
	if !w.Set || w.Bad {
		return fallback
	}
	return w.Text
}

func (w word) duration(fallback time.Duration) time.Duration {
	if !w.Set || w.Bad {
		return fallback
	}
	d, err := time.ParseDuration(w.Text)
	if err != nil {
		panic("desired: a checked duration does not parse: " + err.Error())
	}
	return d
}

func namesOf[T ~string](l list) []T {
	if len(l.Items) == 0 {
		return nil
	}
	names := make([]T, len(l.Items))
	for i, w := range l.Items {
		names[i] = T(w.Text)
	}
	return names
}
