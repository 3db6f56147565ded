package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// chosen is a version that a stage takes in the place of what is pinned.
type chosen struct {
	record artifact.Record
	pin    desired.Pin // that is there
	rule   artifact.Rule
}

// tracks tells whether versions enter the stage that no stage before has
// verified.
func (w *work) tracks() bool { return len(w.stage.After) == 0 && len(w.stage.Track) > 0 }

// track looks for the candidate of a first stage: what is pinned there, with
// the newest version of each artifact that the stage's rules allow in the place
// of an older one. Its verdicts say how it is with each artifact.
//
// Where versions come from is the pin that is there: its repository, and its
// tag, which has to be one that the rule can order. So a person's pin of a
// version that is newer stays, and one that the rule can't read is left alone.
func (w *work) track() (found []proof, verdicts []Verdict, unknown bool) {
	if w.Pinned == nil {
		return nil, []Verdict{{Gate: "track", Outcome: Pending, Reason: fmt.Sprintf("nothing of %s is pinned in %s", w.Service, w.Environment),
			Needs: "pin a version there by hand: it says from which repository the next ones come"}}, false
	}
	release := ledger.ReleaseOf(w.Pinned.Pins, "")
	for _, pin := range w.Pinned.Pins {
		t := w.stage.Tracks(pin.Artifact)
		if t == nil {
			continue
		}
		v := Verdict{Gate: "track " + string(pin.Artifact), Outcome: Pending}
		if x, ok := w.choose(&v, pin, t); ok {
			w.chosen = append(w.chosen, x)
			i := slices.IndexFunc(release.Pins, func(p ledger.Pin) bool { return p.Artifact == pin.Artifact })
			release.Pins[i].Image = x.reference()
		}
		verdicts = append(verdicts, v)
	}
	if len(verdicts) == 0 {
		verdicts = []Verdict{{Gate: "track", Outcome: Pending, Reason: fmt.Sprintf("the stage %s tracks no artifact of %s", w.Environment, w.Service)}}
	}
	if len(w.chosen) == 0 {
		return nil, verdicts, w.Shelf == nil
	}
	if f := w.Forced; f != nil && !same(release, *f, true) {
		verdicts = append(verdicts, Verdict{Gate: "track", Outcome: Pending, Reason: fmt.Sprintf("the stage takes %s, not %s", version(release), version(*f)), Needs: "pin it by hand"})
		return nil, verdicts, false
	}
	p := proof{commit: w.Rules.Commit, release: release}
	for _, x := range w.chosen {
		p.at = later(p.at, x.record.Found)
	}
	// An artifact that has nothing newer keeps no other one out.
	for i := range verdicts {
		verdicts[i].Outcome, verdicts[i].Needs = Passed, ""
	}
	return []proof{p}, verdicts, false
}

// choose finds the newest version of an artifact, and says how it is.
func (w *work) choose(v *Verdict, pin desired.Pin, track *desired.Track) (chosen, bool) {
	rule := track.Rule
	image := pin.Image
	tag := w.Shelf.Tag(image.Repository, image.Version, image.Digest)
	if tag == "" {
		v.Reason = fmt.Sprintf("%s is pinned by its digest alone, and it is not known which version that is", pin.Artifact)
		v.Needs = "pin it with its tag"
		return chosen{}, false
	}
	present, err := rule.Read(tag)
	if err != nil {
		v.Reason = fmt.Sprintf("%s is pinned to %s, and whether another version is newer can't be told: %v", pin.Artifact, tag, err)
		v.Needs = "pin a version of that form by hand"
		return chosen{}, false
	}
	c := w.Shelf.Choose(rule, track.Sources(), image.Repository, present)
	if !c.Found {
		v.Reason = fmt.Sprintf("nothing newer than %s is known of %s that is %s", tag, image.Repository, rule)
		v.Needs = "publish a newer version"
		if len(track.Publishers) == 0 {
			v.Needs = "push a newer version to the registry"
		}
	} else {
		v.Outcome, v.Since = Passed, c.Record.Found
		v.Reason = fmt.Sprintf("%s is the newest of %s that is %s", c.Record.Version, image.Repository, rule)
	}
	if len(c.Refused) > 0 {
		v.Reason += "; " + artifact.Reasons(c.Refused)
	}
	return chosen{record: c.Record, pin: pin, rule: rule}, c.Found
}

// stale says that the environment has had one of the chosen versions, or
// refuses it, in whatever company.
func (w *work) stale() *block {
	t, env := w.Target, w.Environment
	for _, x := range w.chosen {
		has := func(r ledger.Release) bool {
			return slices.ContainsFunc(r.Pins, func(p ledger.Pin) bool { return p.Artifact == x.pin.Artifact && x.is(p.Image) })
		}
		what := fmt.Sprintf("%s %s", x.pin.Artifact, x.record.Version)
		for _, f := range t.Refused {
			if has(f.Release) {
				return &block{fmt.Sprintf("%s is refused in %s since %s: %s", what, env, on(f.Time), clause(f.Reason)), "publish a newer version, or pin it by hand to try again", false}
			}
		}
		for _, p := range t.Previous {
			if !p.Started.IsZero() && has(p.Release) {
				return &block{fmt.Sprintf("%s ran in %s before %s does, and automation does not go back to it", what, env, x.pin.Image.Version), "publish a newer version, or pin it by hand", false}
			}
		}
	}
	return nil
}

// reference is what takes the pin's place: its repository as it is written there.
func (x chosen) reference() string {
	return x.pin.Image.Repository + ":" + x.record.Version + "@" + x.record.Digest
}

// is tells whether a reference stands for the chosen version.
func (x chosen) is(reference string) bool {
	p := pinOf(reference)
	return artifact.Normal(p.Repository) == x.record.Repository && (p.Digest == x.record.Digest || p.Version == x.record.Version)
}

// build says how the chosen version was made.
func (x chosen) build(signed []string) ledger.Build {
	r := x.record
	b := ledger.Build{Artifact: x.pin.Artifact, Commit: r.Commit, Branch: r.Branch, Source: r.Source, URL: r.Build,
		Tests: string(r.Tests), Quality: string(r.Quality), Created: r.Created, Signed: strings.Join(signed, ",")}
	return b
}

// sentence says why a version was chosen, and what is known of it.
func (x chosen) sentence(signed []string) string {
	r := x.record
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s is the newest of %s that is %s", x.pin.Artifact, r.Version, r.Repository, x.rule)
	if r.Origin == artifact.FromPublisher {
		b.WriteString("; published by " + r.By)
	} else {
		b.WriteString("; found in the registry")
	}
	switch {
	case r.Commit != "" && r.Branch != "":
		fmt.Fprintf(&b, ", built from %s of %s", short(r.Commit), r.Branch)
	case r.Commit != "":
		b.WriteString(", built from " + short(r.Commit))
	case r.Branch != "":
		b.WriteString(", built from " + r.Branch)
	}
	if r.Build != "" {
		b.WriteString(" (" + r.Build + ")")
	}
	if r.Tests != "" {
		fmt.Fprintf(&b, ", tests %s", r.Tests)
	}
	if r.Quality != "" {
		fmt.Fprintf(&b, ", quality gate %s", r.Quality)
	}
	if len(signed) > 0 {
		b.WriteString(", signed by " + strings.Join(signed, " and "))
	}
	return b.String() + "."
}
