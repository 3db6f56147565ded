package desired

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/artifact"
)

// Track is what a stage takes new versions of artifacts from by itself.
type Track struct {
	// Artifacts are those that the rule is for; none: every artifact that no
	// other rule of the stage names.
	Artifacts []ArtifactName
	Rule      artifact.Rule
	// Publishers are the principals and groups who may publish versions.
	Publishers []string
	// Watch: what is found in the registry counts, too.
	Watch bool
	// Signed are the keys of which one must have signed a version; none: it may
	// be unsigned. Keys are those that are there.
	Signed   []KeyName
	Keys     []*Key
	Position Position
}

// Sources are who brings the versions, and who has to sign them.
func (t *Track) Sources() artifact.Sources {
	s := artifact.Sources{Publishers: t.Publishers, Registry: t.Watch}
	for _, k := range t.Keys {
		s.Signers = append(s.Signers, artifact.Signer{Name: string(k.Name), Fingerprint: k.Fingerprint})
	}
	return s
}

// Watches tells whether anybody has to look into the registry for the rule: for
// new versions, or for who has signed those that are published.
func (t *Track) Watches() bool { return t.Watch || len(t.Keys) > 0 }

// Tracks returns the rule by which the stage takes new versions of an artifact;
// nil: it does not.
func (s *Stage) Tracks(a ArtifactName) *Track {
	var rest *Track
	for i := range s.Track {
		switch t := &s.Track[i]; {
		case slices.Contains(t.Artifacts, a):
			return t
		case len(t.Artifacts) == 0:
			rest = t
		}
	}
	return rest
}

// Tracked is an artifact that a stage takes new versions of.
type Tracked struct {
	Environment EnvironmentName
	Service     ServiceName
	Stage       *Stage
	Pin         Pin
	Known       []*Key // all that the commit has, sorted by name
	*Track
}

// Tracked returns all artifacts that are tracked, in the order of
// [Repository.Deployments].
func (r *Repository) Tracked() []Tracked {
	tracks := false
	for _, p := range r.Pipelines {
		tracks = tracks || slices.ContainsFunc(p.Stages, func(s Stage) bool { return len(s.Track) > 0 })
	}
	if !tracks {
		return nil
	}
	var known []*Key
	for _, name := range sortedNames(r.Keys) {
		known = append(known, r.Keys[KeyName(name)])
	}
	var all []Tracked
	for _, d := range r.deployments {
		p := r.StagesOf(d.Service.Name)
		if p == nil {
			continue
		}
		s := p.Stage(d.Environment.Name)
		if s == nil || len(s.Problems) > 0 {
			continue
		}
		for _, pin := range d.Pins {
			if t := s.Tracks(pin.Artifact); t != nil {
				all = append(all, Tracked{d.Environment.Name, d.Service.Name, s, pin, known, t})
			}
		}
	}
	return all
}

type trackFile struct {
	Position    Position
	Artifacts   list        `yaml:"artifacts" form:"label" doc:"The artifacts that the rule is for. Absent: every artifact that no other rule of the stage names."`
	Semver      word        `yaml:"semver" form:"range" example:">=1.0.0 <2.0.0" doc:"The range that a version has to be in. Without pattern:, a tag is a semantic version with all three numbers."`
	Pattern     word        `yaml:"pattern" form:"tags" example:"{date}-{branch}-{version}" doc:"The form of the tags: text, and {date}, {number} and {version}, which order them from left to right, and {branch} and {commit}."`
	Branch      word        `yaml:"branch" form:"token" example:"main" doc:"The branch that a version must have been built from, as its tag or its build says. Absent: any."`
	Prereleases flag        `yaml:"prereleases" default:"false" doc:"Whether a prerelease, such as 1.3.0-rc.1, may be chosen."`
	Publishers  list        `yaml:"publishers" form:"token" doc:"The principals and groups who may publish versions, with pinion artifact publish. Absent: nobody; they are found in the registry."`
	Signed      *signedFile `yaml:"signed" doc:"Versions must be signed, as cosign does it. Absent: they need not be."`
	Watch       flag        `yaml:"watch" doc:"Whether new versions are found by watching the registry. Absent: they are, unless there are publishers."`
}

type signedFile struct {
	Keys list `yaml:"keys,required" form:"label" atLeastOne:"true" doc:"The keys, keys/NAME.pub, of which one must have signed a version."`
}

func (t *trackFile) place(at Position) { t.Position = at }

// checkRange takes what [artifact.ParseRange] does.
func checkRange(s string) (message, hint string) {
	const want = `write it as ">=1.2.0 <2.0.0", "^1.2.0", "~1.2.0" or "1.x"`
	if strings.TrimSpace(s) == "" {
		return "the range is empty", want
	}
	if _, err := artifact.ParseRange(s); err != nil {
		return fmt.Sprintf("%q: %v", abridge(s), err), want
	}
	return "", ""
}

func checkTags(s string) (message, hint string) {
	err := artifact.ParsePattern(s)
	var x *artifact.PatternError
	switch {
	case err == nil:
		return "", ""
	case errors.As(err, &x) && x.Name != "":
		if near := nearest(x.Name, artifact.Placeholders()); near != "" {
			return x.Message, fmt.Sprintf("did you mean {%s}?", near)
		}
	}
	return err.Error(), "known are {" + strings.Join(artifact.Placeholders(), "}, {") + "}; write it as {date}-{branch}-{version}"
}

// tracks makes a stage's rules.
func (d *decoder) tracks(raw []trackFile, after []EnvironmentName) []Track {
	var all []Track
	named := map[string]int{}
	rest := 0
	for _, x := range raw {
		at := x.Position
		if len(after) > 0 && len(all) == 0 {
			d.failAt(at, fmt.Sprintf("the stage comes after %s, and takes its versions from there", after[0]), "track in a first stage, or write after: [] if this is one")
		}
		t := Track{Artifacts: namesOf[ArtifactName](x.Artifacts), Publishers: namesOf[string](x.Publishers), Watch: x.Watch.Value || !x.Watch.Set && len(x.Publishers.Items) == 0, Position: at}
		if x.Signed != nil {
			t.Signed = namesOf[KeyName](x.Signed.Keys)
		}
		if x.Artifacts.Set && len(x.Artifacts.Items) == 0 {
			d.failAt(x.Artifacts.Position, "track.artifacts is an empty list", "name the artifacts, or leave the key out for all that no other rule names")
		}
		for _, w := range x.Artifacts.Items {
			if line := named[w.Text]; line > 0 {
				d.failAt(w.Position, fmt.Sprintf("track: two rules name %s", w.Text), fmt.Sprintf("remove it here or in line %d", line))
			}
			named[w.Text] = w.Position.Line
		}
		if x.Watch.Set && !x.Watch.Value && len(x.Publishers.Items) == 0 {
			d.failAt(x.Watch.Position, "track: nobody brings versions: the registry is not watched, and there are no publishers", "name publishers, or remove watch: false")
		}
		if len(x.Artifacts.Items) == 0 {
			if rest > 0 {
				d.failAt(at, "track: two rules are for every artifact", fmt.Sprintf("name the artifacts of this one or of that in line %d", rest))
			}
			rest = at.Line
		}
		switch {
		case x.Semver.Bad || x.Pattern.Bad || x.Branch.Bad:
		case !x.Semver.Set && !x.Pattern.Set:
			d.failAt(at, "track: it does not say which versions", `add semver: ">=1.0.0", or pattern: "{date}-{branch}-{version}"`)
		case x.Semver.Set && !x.Prereleases.Value && artifact.AsksForPrereleases(x.Semver.Text):
			d.failAt(x.Semver.Position, fmt.Sprintf("%q names a prerelease, and prereleases are not allowed", abridge(x.Semver.Text)), "add prereleases: true, or take it out of the range")
		case x.Semver.Set && x.Pattern.Set && !artifact.PatternHas(x.Pattern.Text, "version"):
			d.failAt(x.Semver.Position, "the range is asked of {version}, which the pattern does not have", "add {version} to the pattern, or remove semver:")
		default:
			var err error
			t.Rule, err = artifact.MakeRule(artifact.Rule{Range: x.Semver.Text, Pattern: x.Pattern.Text, Branch: x.Branch.Text, Prereleases: x.Prereleases.Value})
			if err != nil {
				d.failAt(at, "track: "+err.Error(), "")
			}
		}
		all = append(all, t)
	}
	return all
}

// track looks up the artifacts and the keys that a stage's rules name.
func (l *linker) track(s *Stage, name string, raw []trackFile) {
	s.Track = slices.Clone(s.Track) // the file's own is shared with other commits
	for i, x := range raw {
		if x.Signed != nil {
			l.stageRefs(s, name, KindKey, x.Signed.Keys.Items)
			s.Track[i].Keys = nil
			for _, k := range s.Track[i].Signed {
				if key := l.Keys[k]; key != nil {
					s.Track[i].Keys = append(s.Track[i].Keys, key)
				}
			}
		}
		for _, w := range x.Artifacts.Items {
			if _, ok := l.owner[ArtifactName(w.Text)]; ok || len(l.broken[KindService]) > 0 {
				continue
			}
			p := Problem{SeverityError, w.Position, fmt.Sprintf("track: no service has the artifact %s", w.Text),
				l.guess("artifact", w.Text, "add it to the artifacts of a service, or remove the name"), KindPipeline, name}
			l.tell(p, false)
			s.Problems = append(s.Problems, p)
		}
	}
}
