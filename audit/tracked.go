package audit

import (
	"cmp"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// fetched is after what time every replica should have fetched what is there.
const fetched = 10 * time.Minute

// Tracked judges whether a version that was brought to a first stage was known
// and allowed at its moment, and whether the commit does what it claims.
func Tracked(m Move) ([]Finding, error) {
	if found := m.diff(RuleTracked); len(found) > 0 {
		return found, nil
	}
	tell := func(meaning, format string, args ...any) []Finding {
		return []Finding{m.finding(Error, RuleTracked, meaning, format, args...)}
	}
	from, commit, _ := strings.Cut(strings.Join(m.Change.From, " "), "@")
	if from != artifact.Branch {
		return tell(byHand, "it does not say which commit of %s knew the version", artifact.Branch), nil
	}
	shelf, err := m.Shelf(commit)
	if err != nil {
		return nil, err
	}
	if shelf == nil {
		return tell(byHand, "it claims to rest on %.12s of %s, and that has no such commit", cmp.Or(commit, "nothing"), artifact.Branch), nil
	}
	ok, decision, err := m.admitted(nil, nil, shelf)
	if err != nil {
		return nil, err
	}
	if !ok {
		why := open(decision.Verdicts, decision.Reason)
		if p := decision.Promotion; p != nil {
			why = "policy led to " + describe(p.Release) + " then"
		}
		return tell("somebody has written it past policy, or what it rests on was removed from a ledger",
			"%s was brought to %s at %s, and that was not allowed: %s", describe(m.Change.Release), m.Change.Environment, m.Commit.Time.UTC().Format(time.RFC3339), why), nil
	}
	pipeline, stage, _ := m.Rules.Stage(m.Change.Environment, m.Change.Service)
	if later := m.Later(commit, m.Commit.Time.Add(-fetched)); later != nil && stage != nil {
		if why := refuses(later, stage, m.Change.Release); why != nil {
			return []Finding{m.finding(Warning, RuleTracked, "the daemon had not fetched what was known, or somebody has written it by hand",
				"it rests on %s of %s, and by %s, which was known long before, %s could not be chosen: %v", short(commit), artifact.Branch, short(later.At()), describe(m.Change.Release), why)}, nil
		}
	}
	if m.Change.Policy != m.pipeline(pipeline) {
		return []Finding{m.finding(Warning, RuleTracked, "it was judged by another pipeline than it was committed on", "it claims to follow %q, and it follows %q", m.Change.Policy, m.pipeline(pipeline))}, nil
	}
	return nil, nil
}

// refuses says why a stage could not choose one of a release's versions by what
// is known; nil: it could, were it the newest.
func refuses(known *artifact.Shelf, stage *desired.Stage, release ledger.Release) error {
	for _, p := range release.Pins {
		track := stage.Tracks(p.Artifact)
		image, err := desired.ParseImage(p.Image)
		if track == nil || err != nil {
			continue
		}
		r, ok := known.Image(image.Repository, image.Version, image.Digest)
		if !ok {
			continue // told of the commit that took it away
		}
		r, err = r.For(track.Sources())
		if err == nil {
			err = track.Rule.Refuses(r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
