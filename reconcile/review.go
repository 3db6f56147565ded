package reconcile

import (
	"fmt"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
)

// situation is all that is known of one service in one environment when it is
// decided what goes into the ledger.
type situation struct {
	Key
	Now    time.Time
	Record ledger.Record
	// Sighting is what was seen of it last; nil: nothing yet.
	Sighting *Sighting
	// Identity is which deployment the sighting is of; nil: not known yet.
	Identity *identity
	// Drifts are what others did to the service, oldest first, and is not
	// recorded yet.
	Drifts []Drift
	// Rules are those of the deployment's commit; nil: they could not be read.
	Rules     func(commit string) *policy.Rules
	Locations map[string]*time.Location
	// Shelf is what is known of artifacts; nil: that can't be used.
	Shelf *artifact.Shelf
	// Calling is since when a webhook is called for the deployment; zero: it is
	// not. Called says that it was taken, and Refusal why it was not.
	Calling time.Time
	Called  bool
	Refusal string
	// Gone says why the environment does not ask for the service any more;
	// empty: it does, or that is not certain.
	Gone string
}

// finding is what goes into the ledger, and what is to be done besides.
type finding struct {
	Record  ledger.Record // after the entries
	Entries []ledger.Entry
	// Objects says, for an entry, that what was applied goes with it.
	Objects map[int]*Target
	// Passed are the Drifts of which nothing is to be recorded.
	Passed []Drift
	// Judged is set if the deployment is being verified, or has just been.
	Judged *policy.Judgement
	// Wake is when to look again; zero: when something happens.
	Wake time.Time
}

// review decides what is to be recorded of one service. It is level-triggered:
// whatever was missed is made up for, in the order in which it must have
// happened.
func review(s situation) (finding, error) {
	f := finding{Record: s.Record, Objects: map[int]*Target{}}
	add := func(e ledger.Entry) error {
		e.Environment, e.Service, e.Time = s.Environment, s.Service, s.Now
		next, err := f.Record.Apply(e)
		if err != nil {
			return err
		}
		f.Record = next
		f.Entries = append(f.Entries, e)
		return nil
	}
	about := func(event ledger.Event, reason string) ledger.Entry {
		d := f.Record.Deployment
		e := ledger.Entry{Event: event, Deployment: d.ID, Commit: d.Commit, Release: d.Release, Manifests: d.Manifests, Reason: reason}
		if len(f.Record.Previous) > 0 {
			e.Before = f.Record.Previous[0].Release.Version()
		}
		return e
	}
	if s.Gone != "" {
		return f, retire(&f, s, add, about)
	}
	if s.Sighting == nil || s.Identity == nil {
		return f, judge(&f, s, nil, add, about)
	}
	if s.Identity.id != f.Record.Deployment.ID {
		for i, w := range append(s.Identity.before, s.Identity.wanted) {
			if d := f.Record.Deployment; d.ID != "" && !d.State.Final() {
				why := fmt.Sprintf("%s took its place", w.release.Version())
				if i > 0 {
					why += " before anything of it was recorded"
				}
				e := about(ledger.EventSuperseded, why+", by commit "+short(w.commit)+".")
				e.After = w.release.Version()
				if err := add(e); err != nil {
					return f, err
				}
			}
			if err := add(w.pinned(s.Key, f.Record)); err != nil {
				return f, err
			}
		}
	}
	if err := follow(&f, s, add, about); err != nil {
		return f, err
	}
	return f, drifted(&f, s, add, about)
}

type (
	adder    = func(ledger.Entry) error
	template = func(event ledger.Event, reason string) ledger.Entry
)

// retire records that an environment does not ask for a service any more.
func retire(f *finding, s situation, add adder, about template) error {
	d := f.Record.Deployment
	if d.ID == "" || !f.Record.Retired.IsZero() {
		return nil
	}
	if !d.State.Final() {
		if err := add(about(ledger.EventSuperseded, s.Gone+".")); err != nil {
			return err
		}
	}
	return add(about(ledger.EventRetired, s.Gone+"."))
}

// follow records how far the rollout has come.
func follow(f *finding, s situation, add adder, about template) error {
	seen := s.Sighting
	if seen.Problem != "" {
		switch f.Record.Deployment.State {
		case ledger.StatePinned, ledger.StateStarted:
			return add(about(ledger.EventFailed, "It could not be rendered: "+seen.Problem))
		}
		return nil
	}
	if seen.Target.Deploy != nil {
		return followElsewhere(f, s, add, about)
	}
	if f.Record.Deployment.State == ledger.StatePinned && seen.Started {
		e := about(ledger.EventStarted, "")
		e.Manifests = seen.Target.Result.Digest
		if err := add(e); err != nil {
			return err
		}
		f.Objects[len(f.Entries)-1] = seen.Target
	}
	switch state := f.Record.Deployment.State; {
	case state == ledger.StateStarted && seen.Phase == Ready:
		if err := add(about(ledger.EventCompleted, noted(rolledOut(f.Record, s.Now), seen.Note))); err != nil {
			return err
		}
	case (state == ledger.StateStarted || state == ledger.StatePinned) && seen.Phase == Failed && seen.Final:
		return add(about(ledger.EventFailed, strings.TrimSpace(noted(sentence(seen.Message), seen.Note)+"\n\n"+seen.Evidence)))
	}
	health := policy.Health{Known: !seen.Blind, Healthy: seen.Phase == Ready, Since: seen.Healthy, Message: seen.Message}
	return judge(f, s, &health, add, about)
}

// noted adds to a reason what was adopted and replaced.
func noted(reason, note string) string {
	if note == "" {
		return reason
	}
	return reason + " Besides: " + strings.TrimSuffix(note, ".") + "."
}

func rolledOut(r ledger.Record, now time.Time) string {
	took := max(0, now.Sub(r.Deployment.Started)).Round(time.Second)
	if took == 0 {
		return "All objects are as the commit wants them, and healthy."
	}
	return fmt.Sprintf("All objects are as the commit wants them, and healthy, after %s.", took)
}

// drifted records what others did to what was applied, and that what stood is
// over. It moves nothing.
func drifted(f *finding, s situation, add adder, about template) error {
	d := f.Record.Deployment
	record := func(l *ledger.Drift) error {
		e := about(ledger.EventDrifted, driftReason(l))
		e.Drift = l
		return add(e)
	}
	for _, x := range s.Drifts {
		l := x.Record()
		// What stands is found anew by each start, and what was recorded by a
		// push whose answer was lost is taken in again.
		again := l.Same(f.Record.Drift) && (l.Answer == ledger.AnswerReported || !x.Time.After(f.Record.Drifted.Add(time.Second)))
		if again || d.Manifests == "" || x.Target == nil || x.Target.Result == nil || x.Target.Result.Digest != d.Manifests {
			f.Passed = append(f.Passed, x)
			continue
		}
		if err := record(l); err != nil {
			return err
		}
	}
	if f.Record.Drift.Stands() && s.Sighting.InSync && !s.Sighting.Contested {
		return record(&ledger.Drift{Answer: ledger.AnswerEnded})
	}
	return nil
}

// judge records the end of a verification.
func judge(f *finding, s situation, health *policy.Health, add adder, about template) error {
	d := f.Record.Deployment
	if d.State != ledger.StateCompleted {
		return nil
	}
	rules := s.Rules(d.Commit)
	if rules == nil {
		return nil
	}
	if s.Shelf == nil && rules.AsksArtifacts(s.Environment, s.Service) {
		return nil // what is known of artifacts can't be used, and nobody fails for that
	}
	v := policy.Verification{Now: s.Now, Record: f.Record, Rules: *rules, Locations: s.Locations, Shelf: s.Shelf}
	if health != nil {
		v.Health = *health
	}
	j := policy.Verify(v)
	f.Judged, f.Wake = &j, j.Wake
	event := map[ledger.State]ledger.Event{ledger.StateVerified: ledger.EventVerified, ledger.StateFailed: ledger.EventFailed}[j.State]
	if event == "" {
		return nil
	}
	e := about(event, sentence(j.Reason))
	e.Checks = j.Checks
	return add(e)
}

func short(commit string) string { return commit[:min(12, len(commit))] }

// sentence makes a text begin and end as a sentence does.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	if first, rest, more := strings.Cut(s, "\n"); more {
		return sentence(first) + "\n" + rest // the end of what a hook wrote
	}
	word, _, _ := strings.Cut(s, " ")
	if c := s[0]; 'a' <= c && c <= 'z' && !strings.HasSuffix(word, ":") { // else it is a name
		s = string(c-'a'+'A') + s[1:]
	}
	switch s[len(s)-1] {
	case '.', '!', '?':
		return s
	}
	return s + "."
}
