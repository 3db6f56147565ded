package audit

import (
	"bytes"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
)

// Grounds are what a verification is judged by besides what is recorded.
type Grounds struct {
	Rules     policy.Rules // of the deployment's commit
	Locations map[string]*time.Location
	// Shelves are what may have been known of artifacts at a time, the most
	// probable first. They are asked for only if the rules ask what is known.
	Shelves func(time.Time) iter.Seq[*artifact.Shelf]
}

// shelves are those of a time; one that is nothing, if the rules don't ask.
func shelves(rules policy.Rules, about ledger.Entry, at func(time.Time) iter.Seq[*artifact.Shelf]) iter.Seq[*artifact.Shelf] {
	if !rules.AsksArtifacts(about.Environment, about.Service) {
		return func(yield func(*artifact.Shelf) bool) { yield(nil) }
	}
	return at(about.Time)
}

// Verified judges an entry that says that a deployment is verified, by the
// rules of the deployment's commit and what was recorded and known until then.
// For how long something was healthy is told by the times alone.
func Verified(c Commit, s Step, by Grounds) []Finding {
	var j policy.Judgement
	for shelf := range shelves(by.Rules, s.Entry, by.Shelves) {
		x := policy.Verify(policy.Verification{
			Now: s.Entry.Time, Record: s.Before, Rules: by.Rules, Locations: by.Locations, Shelf: shelf,
			Health: policy.Health{Known: true, Healthy: true},
		})
		if x.State == ledger.StateVerified {
			return nil
		}
		if j.Reason == "" {
			j = x
		}
	}
	return []Finding{entryFinding(c, s.Entry, Error, RuleVerified, "the entry was put in by hand, or what it rests on was removed",
		fmt.Sprintf("%s was not verified by the policies of its commit %s: %s", s.Entry.Deployment, short(s.Before.Deployment.Commit), open(j.Verdicts, j.Reason)))}
}

// within is by how much later than it says an entry may have been judged: its time
// is cut to a second, and a timeout may end in one.
const within = time.Second - 1

// Failed judges an entry that says that a deployment has failed its verification,
// as Verified does. That a rollout has failed is the word of the daemon; how
// healthy something was, too, so whatever waits for that counts as waiting still.
func Failed(c Commit, s Step, by Grounds) []Finding {
	if s.Before.Deployment.State != ledger.StateCompleted {
		return nil
	}
	var j policy.Judgement
	for shelf := range shelves(by.Rules, s.Entry, by.Shelves) {
		x := policy.Verify(policy.Verification{Now: s.Entry.Time.Add(within), Record: s.Before, Rules: by.Rules, Locations: by.Locations, Shelf: shelf})
		if x.State == ledger.StateFailed {
			return nil
		}
		if j.Reason == "" {
			j = x
		}
	}
	return []Finding{entryFinding(c, s.Entry, Error, RuleFailed, "the entry was put in by hand, or what it rests on was removed",
		fmt.Sprintf("%s had not failed by the policies of its commit %s: %s", s.Entry.Deployment, short(s.Before.Deployment.Commit), open(j.Verdicts, j.Reason)))}
}

// Dismissed tells whether a candidate had failed a gate by some rules, as an entry
// says, and what had not failed.
func Dismissed(s Step, by Grounds) (bool, string) {
	e := s.Entry
	verdicts := policy.Gates(policy.Admission{Now: e.Time.Add(within), Service: e.Service, Environment: e.Environment, Rules: by.Rules, Target: s.Before, Locations: by.Locations})
	for _, v := range verdicts {
		if v.Outcome == policy.Failed {
			return true, ""
		}
	}
	return false, open(verdicts, "none of them asks for anything")
}

// NotDismissed is about an entry that says that a candidate has failed, and no rules
// of main by which it had.
func NotDismissed(c Commit, s Step, why string) Finding {
	return entryFinding(c, s.Entry, Error, RuleFailed, "the entry was put in by hand, or what it rests on was removed",
		fmt.Sprintf("%s had not failed a gate of %s: %s", describe(s.Entry.Release), s.Entry.Environment, why))
}

func entryFinding(c Commit, e ledger.Entry, severity Severity, rule Rule, meaning, message string) Finding {
	return Finding{Severity: severity, Rule: rule, Branch: ledger.Branch(e.Environment), Commit: c.ID, Time: c.Time,
		Environment: e.Environment, Service: e.Service, Message: message, Meaning: meaning}
}

// open says which gates are not passed.
func open(verdicts []policy.Verdict, otherwise string) string {
	var parts []string
	for _, v := range verdicts {
		if v.Outcome != policy.Passed {
			parts = append(parts, v.Gate+": "+v.Reason)
		}
	}
	if len(parts) == 0 {
		return otherwise
	}
	return strings.Join(parts, "; ")
}

// Pinned judges what an entry says of who asked for a deployment, and how. Made
// is the commit of main that it names.
func Pinned(c Commit, s Step, made Commit) []Finding {
	e := s.Entry
	var found []Finding
	tell := func(format string, args ...any) {
		found = append(found, entryFinding(c, e, Error, RuleDeployment, putIn, fmt.Sprintf(format, args...)))
	}
	commit := short(e.Commit)
	change, claimed := made.Claim()
	// Before, a daemon took its own message for no claim if it had several results
	// of one policy.
	if e.Cause != ledger.CauseOf(s.Before, e.Release, change, claimed) && change.Repeats() && e.Cause == ledger.CauseOf(s.Before, e.Release, ledger.Change{}, false) {
		change, claimed = ledger.Change{}, false
		found = append(found, entryFinding(c, e, Warning, RuleDeployment, "it was recorded by an older version of Pinion",
			fmt.Sprintf("it says that the cause is a %s, and does not know the promotion, which names several results of one policy", e.Cause)))
	}
	actor, authors := ledger.AuthorsOf(made.Author, made.Committer, made.Message, made.MergedBy, claimed, c.Committer)
	want := ledger.Entry{Actor: actor, Authors: authors}.Normal()
	if e.Actor != want.Actor {
		tell("it says that %s made commit %s, and %s did", someone(e.Actor), commit, someone(want.Actor))
	}
	if !slices.Equal(e.Authors, want.Authors) {
		tell("it says that %s chose the release of commit %s, and %s did", people(e.Authors), commit, people(want.Authors))
	}
	if cause := ledger.CauseOf(s.Before, e.Release, change, claimed); e.Cause != cause {
		tell("it says that the cause is a %s, and it is a %s", e.Cause, cause)
	}
	return found
}

const putIn = "the entry was put in or changed by hand"

// Claim is what a pinned entry says that a commit of main asked for.
type Claim struct {
	entry ledger.Entry
	by    Commit
}

// ClaimOf returns the claim of an entry. It keeps nothing of the message.
func ClaimOf(c Commit, e ledger.Entry) Claim {
	k := Claim{by: Commit{ID: c.ID, Time: c.Time}, entry: ledger.Entry{
		Environment: desired.EnvironmentName(strings.Clone(string(e.Environment))), Service: desired.ServiceName(strings.Clone(string(e.Service))),
		Commit: strings.Clone(e.Commit), Release: ledger.Release{Source: strings.Clone(e.Release.Source)},
	}}
	for _, p := range e.Release.Pins {
		k.entry.Release.Pins = append(k.entry.Release.Pins, ledger.Pin{Artifact: desired.ArtifactName(strings.Clone(string(p.Artifact))), Image: strings.Clone(p.Image)})
	}
	return k
}

// Environment, Service and Source are what the claim is about.
func (k Claim) Environment() desired.EnvironmentName { return k.entry.Environment }
func (k Claim) Service() desired.ServiceName         { return k.entry.Service }
func (k Claim) Source() string                       { return k.entry.Release.Source }

// Asked is what a commit of main asks for.
type Asked struct {
	// Deployment is what its files say; nil: the service is not there.
	Deployment *desired.Deployment
	// Folder and Source are the ids of the service's folder at the commit and
	// at the commit that the claim's manifests are from, "" if it is not there;
	// Before says that the latter is the former, or before it on main.
	Folder, Source string
	Before         bool
}

// Judge compares the claim with what was asked for.
func (k Claim) Judge(a Asked) []Finding {
	e := k.entry
	var found []Finding
	tell := func(format string, args ...any) {
		found = append(found, entryFinding(k.by, e, Error, RuleDeployment, putIn, fmt.Sprintf(format, args...)))
	}
	commit := short(e.Commit)
	switch d := a.Deployment; {
	case d == nil:
		tell("it says that commit %s asked for %s, and that has no %s in %s", commit, describe(e.Release), e.Service, e.Environment)
	case !ledger.ReleaseOf(d.Pins, "").SamePins(e.Release):
		tell("it says that commit %s asked for %s, and that asked for %s", commit, describe(e.Release), describe(ledger.ReleaseOf(d.Pins, d.Source)))
	case d.Source != "" && d.Source != e.Release.Source:
		tell("it says that commit %s asked for the manifests of %s, and that asked for those of %s", commit, short(e.Release.Source), short(d.Source))
	case e.Release.Source == "":
		tell("it does not say which manifests commit %s asked for", commit)
	case d.Source == "" && !a.Before:
		tell("it says that the manifests are those of %s, and that is not commit %s or one before it on main", short(e.Release.Source), commit)
	case d.Source == "" && a.Source != a.Folder:
		tell("it says that the manifests are those of %s, and commit %s has others", short(e.Release.Source), commit)
	}
	return found
}

func someone(p ledger.Person) string {
	if p == (ledger.Person{}) {
		return "nobody"
	}
	return p.String()
}

func people(all []ledger.Person) string {
	if len(all) == 0 {
		return "nobody"
	}
	texts := make([]string, len(all))
	for i, p := range all {
		texts[i] = p.String()
	}
	return strings.Join(texts, " and ")
}

func describe(r ledger.Release) string {
	var parts []string
	for _, p := range r.Pins {
		parts = append(parts, p.Image)
	}
	if r.Source != "" {
		parts = append(parts, "the manifests of "+short(r.Source))
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

// Move is a commit of main that claims to be a promotion, a rollback, or what
// somebody has asked the daemon for, and what was there when it was made.
type Move struct {
	Branch string // main
	Commit Commit
	Change ledger.Change
	// Open: the message left it to the files what it brings, and Change says it by
	// them.
	Open     bool
	ByDaemon bool
	Changed  []string // the files that differ from those of the first parent
	// Is is the environment's file after it, and Editor has the one before it;
	// whoever lends it gets it back with Is in it if nothing is wrong.
	Is     []byte
	Editor *desired.Editor
	// Rules are those of the first parent, Pinned what its files say of the
	// service; nil, not there.
	Rules     policy.Rules
	Pinned    *desired.Deployment
	Locations map[string]*time.Location
	// Past is what the ledger of an environment knows of the service.
	Past func(desired.EnvironmentName) Past
	// RulesOf returns the rules of a commit; of a rollback only.
	RulesOf func(commit string) (policy.Rules, error)
	// Shelf returns what a commit of the branch of artifacts knew; nil: the branch
	// does not have that commit. Of a tracked version only.
	Shelf func(commit string) (*artifact.Shelf, error)
	// Later returns what was known at a time, if that is more than what a commit
	// of that branch knew; nil: it is not. Of a tracked version only.
	Later func(commit string, at time.Time) *artifact.Shelf
	// Shelves are as of [Grounds]; of a promotion only.
	Shelves func(time.Time) iter.Seq[*artifact.Shelf]
	// Older tells whether a commit of main comes before another one.
	Older func(commit, than string) bool
}

func (m Move) finding(severity Severity, rule Rule, meaning, format string, args ...any) Finding {
	return Finding{Severity: severity, Rule: rule, Branch: m.Branch, Commit: m.Commit.ID, Time: m.Commit.Time,
		Environment: m.Change.Environment, Service: m.Change.Service, Message: fmt.Sprintf(format, args...), Meaning: meaning}
}

const byHand = "somebody has written the commit by hand, with the trailers of Pinion's"

// diff compares what the commit changes with what it claims.
func (m Move) diff(rule Rule) []Finding {
	file := "environments/" + string(m.Change.Environment) + ".yaml"
	others := slices.DeleteFunc(slices.Clone(m.Changed), func(name string) bool { return name == file })
	if len(others) > 0 {
		return []Finding{m.finding(Error, rule, byHand, "it changes %s besides what it claims", names(others))}
	}
	edit := desired.Edit{Service: m.Change.Service, Manifests: m.Change.Release.Source, Add: rule == RulePromotion || rule == RuleRequest}
	for _, p := range m.Change.Release.Pins {
		edit.Pins = append(edit.Pins, desired.PinEdit{Artifact: p.Artifact, Reference: p.Image})
	}
	data, err := m.Editor.Apply(edit)
	if err != nil {
		return []Finding{m.finding(Error, rule, byHand, "what it claims can't be done to %s: %v", file, err)}
	}
	if !bytes.Equal(data, m.Is) {
		return []Finding{m.finding(Error, rule, byHand, "it claims %s, and changes something else: of %s, %s", describe(m.Change.Release), file, difference(m.Is, data))}
	}
	return nil
}

// Promotion judges whether a promotion was allowed at its moment, and does what
// it claims.
func Promotion(m Move) ([]Finding, error) {
	if m.Open && len(m.Change.Release.Pins) == 0 && m.Change.Release.Source == "" {
		return []Finding{m.finding(Error, RulePromotion, imitation, "it claims to promote %s to %s, and changes nothing of it", m.Change.Service, m.Change.Environment)}, nil
	}
	if found := m.diff(RulePromotion); len(found) > 0 {
		return found, nil
	}
	pipeline, stage, _ := m.Rules.Stage(m.Change.Environment, m.Change.Service)
	var after []desired.EnvironmentName
	head := false
	if stage != nil {
		after, head = stage.After, stage.ManifestsHead
	}
	var found []Finding
	var seen map[desired.EnvironmentName]moment
	if !m.Open { // what it rests on is for the ledger to know
		var err error
		if found, seen, err = m.from(pipeline, after, head); err != nil {
			return nil, err
		}
	}
	var ok bool
	var decision policy.Decision
	first := true
	for shelf := range shelves(m.Rules, ledger.Entry{Environment: m.Change.Environment, Service: m.Change.Service, Time: m.Commit.Time}, m.Shelves) {
		yes, d, err := m.admitted(after, seen, shelf)
		if err != nil {
			return nil, err
		}
		if first {
			decision, first = d, false
		}
		if ok = yes; ok {
			break
		}
	}
	if !ok {
		why := open(decision.Verdicts, decision.Reason)
		if p := decision.Promotion; p != nil {
			why = "policy led to " + describe(p.Release) + " then"
		}
		found = append(found, m.finding(Error, RulePromotion, "somebody has written it past policy, or what it rests on was removed from a ledger",
			"a promotion without its evidence: %s to %s at %s was not allowed: %s", describe(m.Change.Release), m.Change.Environment, m.Commit.Time.UTC().Format(time.RFC3339), why))
	}
	if want := m.pipeline(pipeline); ok && !m.Open && m.Change.Policy != want {
		found = append(found, m.finding(Warning, RulePromotion, "it was judged by another pipeline than it was committed on", "it claims to follow %q, and it follows %q", m.Change.Policy, want))
	}
	return found, nil
}

// MergedLate is about a promotion that was let in by what main was at a commit
// before its parent, and not by what came in between.
func (m Move) MergedLate(by string) Finding {
	return m.finding(Warning, RulePromotion, "the forge merged it in the moment in which that came", "it was allowed by main as it was at %s, and not by what came between that and the merge", short(by))
}

func (m Move) pipeline(p *desired.Pipeline) string {
	if p == nil {
		return ""
	}
	return string(p.Name) + "@" + m.Rules.PipelineBlob
}

// from judges the entries that a promotion names. Seen says which of each
// service's entries were there before the commit, as it names one.
func (m Move) from(pipeline *desired.Pipeline, after []desired.EnvironmentName, head bool) (found []Finding, seen map[desired.EnvironmentName]moment, err error) {
	seen = map[desired.EnvironmentName]moment{}
	for _, text := range m.Change.From {
		name, entry, _ := strings.Cut(text, "@")
		env := desired.EnvironmentName(name)
		tell := func(format string, args ...any) {
			found = append(found, m.finding(Error, RulePromotion, byHand, format, args...))
		}
		if !slices.Contains(after, env) {
			tell("it claims to come from %s, and that is no stage before %s", text, m.Change.Environment)
			continue
		}
		past := m.Past(env)
		if past.Book == nil {
			tell("it claims to rest on %s, and there is no %s", text, ledger.Branch(env))
			continue
		}
		position, ok := past.Book.Has(entry)
		if !ok {
			tell("it claims to rest on %s, and %s has no such entry", text, ledger.Branch(env))
			continue
		}
		seen[env] = past.seen(position)
		r, _, err := past.at(seen[env])
		if err != nil {
			return nil, nil, err
		}
		pinsOnly := head || pipeline.Stage(env) != nil && pipeline.Stage(env).ManifestsHead
		if !verifiedIn(r, m.Change.Release, pinsOnly) {
			tell("it claims that %s was verified in %s, and entry %s of %s does not say so: %s",
				describe(m.Change.Release), env, short(entry), ledger.Branch(env), standing(r))
		}
	}
	for _, env := range after {
		if !slices.ContainsFunc(m.Change.From, func(f string) bool { return strings.HasPrefix(f, string(env)+"@") }) {
			found = append(found, m.finding(Error, RulePromotion, byHand, "it names no entry of %s, a stage before %s", ledger.Branch(env), m.Change.Environment))
		}
	}
	return found, seen, nil
}

func standing(r ledger.Record) string {
	d := r.Deployment
	if d.ID == "" {
		return "nothing was deployed there"
	}
	return fmt.Sprintf("it has %s, %s", describe(d.Release), d.State)
}

// verifiedIn tells whether a record knows a release as verified.
func verifiedIn(r ledger.Record, x ledger.Release, pinsOnly bool) bool {
	same := func(y ledger.Release, state ledger.State) bool {
		return state == ledger.StateVerified && y.SamePins(x) && (pinsOnly || x.Source == "" || y.Source == x.Source)
	}
	return same(r.Deployment.Release, r.Deployment.State) || r.Verified != nil && same(r.Verified.Release, r.Verified.State) ||
		slices.ContainsFunc(r.Previous, func(p ledger.Past) bool { return same(p.Release, p.State) })
}

// admitted asks policy, at the moments in which it may have been asked before.
func (m Move) admitted(after []desired.EnvironmentName, seen map[desired.EnvironmentName]moment, shelf *artifact.Shelf) (bool, policy.Decision, error) {
	target := m.Past(m.Change.Environment)
	pasts := []Past{target}
	lists := [][]moment{target.moments(m.Commit.Time, 0, m.Commit.ID)}
	for _, env := range after {
		p := m.Past(env)
		pasts = append(pasts, p)
		lists = append(lists, p.moments(m.Commit.Time, seen[env], m.Commit.ID))
	}
	var first *policy.Decision
	ok, err := choose(lists, func(chosen []moment) (bool, error) {
		a := policy.Admission{
			Now: m.Commit.Time, Service: m.Change.Service, Environment: m.Change.Environment,
			Rules: m.Rules, Pinned: m.Pinned, Locations: m.Locations, Older: m.Older, Shelf: shelf,
			Before:  map[desired.EnvironmentName]ledger.Record{},
			Entries: map[desired.EnvironmentName]string{},
		}
		for i, p := range pasts {
			r, there, err := p.at(chosen[i])
			switch {
			case err != nil:
				return false, err
			case !there:
			case i == 0:
				a.Target = r
			default:
				a.Before[after[i-1]] = r
				a.Entries[after[i-1]] = p.marks()[chosen[i]-1].entry
			}
		}
		d := policy.Admit(a)
		if first == nil {
			first = &d
		}
		if m.same(d) {
			return true, nil
		}
		if m.ByDaemon && !m.requested() {
			return false, nil
		}
		// A person may ask for a release by its name.
		a.Forced = &ledger.Release{Pins: m.Change.Release.Pins}
		return m.same(policy.Admit(a)), nil
	})
	if first == nil {
		first = &policy.Decision{Reason: "there is nothing to judge it from"}
	}
	return ok, *first, err
}

// same tells whether policy led to what the commit does.
func (m Move) same(d policy.Decision) bool {
	p := d.Promotion
	if d.Move != policy.Promote || p == nil || !p.Release.SamePins(m.Change.Release) {
		return false
	}
	source := m.Change.Release.Source
	if m.Open && source == "" && p.Manifests && m.Pinned != nil {
		source = m.Pinned.Source // which stays
	}
	return p.Manifests && p.Release.Source == source || !p.Manifests && source == ""
}

// Opened is a change that leaves it to the files what it brings, as they say it:
// what they were and are. It brings nothing if they are the same.
func Opened(change ledger.Change, was, is *desired.Deployment) ledger.Change {
	if is == nil {
		return change
	}
	x := ledger.ReleaseOf(is.Pins, is.Source)
	if was != nil {
		same := ledger.ReleaseOf(was.Pins, was.Source)
		switch {
		case x.Equal(same):
			return change
		case x.Source == same.Source:
			x.Source = ""
		}
	}
	change.Release = x
	return change
}

const imitation = "somebody has written a message like one of the daemon's"

// Imitation is about a commit whose message has the look of a promotion or a
// tracked version, and is none.
func Imitation(branch string, c Commit, like ledger.Change) Finding {
	what := "a promotion"
	if like.Kind == ledger.ChangeTracked {
		what = "a tracked version"
	}
	return Finding{Severity: Error, Rule: RuleOf(like), Branch: branch, Commit: c.ID, Time: c.Time, Environment: like.Environment, Service: like.Service,
		Message: fmt.Sprintf("its message has the look of %s, and it is none: %s has changed what it changes", what, someone(c.Author)), Meaning: imitation}
}

// Brought is about a merge that is no promotion, and brings a commit that claims to
// be one, and what that one claims to move; found says why it is none.
func Brought(branch string, merge Commit, commit string, like ledger.Change, found []Finding) Finding {
	why := "its message is not one of Pinion's"
	if i := slices.IndexFunc(found, func(f Finding) bool { return f.Severity == Error }); i >= 0 {
		why = found[i].Message
	}
	return Finding{Severity: Error, Rule: RuleOf(like), Branch: branch, Commit: merge.ID, Time: merge.Time, Environment: like.Environment, Service: like.Service,
		Message: fmt.Sprintf("it merges commit %s, which has the look of a promotion, and brings none: %s", short(commit), why), Meaning: imitation}
}

// RuleOf is the rule that a change of main is judged by.
func RuleOf(c ledger.Change) Rule {
	switch c.Kind {
	case ledger.ChangeRolledBack:
		return RuleRollback
	case ledger.ChangeTracked:
		return RuleTracked
	case ledger.ChangePinned, ledger.ChangeHeld, ledger.ChangeReleased:
		return RuleRequest
	}
	return RulePromotion
}

// requested tells whether somebody has asked for it.
func (m Move) requested() bool { return len(m.Change.RequestedBy) > 0 }

// Pin judges a pin that somebody has asked the daemon for: who may do that is for
// the daemon to know, so it has to do what it claims, and no more.
func Pin(m Move) ([]Finding, error) { return m.diff(RuleRequest), nil }

// Hold judges a hold that somebody has had the daemon write or remove. Is has the
// only file that the commit changes; nil: it is not there any more.
func Hold(m Move) []Finding {
	file := ""
	if len(m.Changed) == 1 {
		file = m.Changed[0]
	}
	name, ok := strings.CutPrefix(strings.TrimSuffix(strings.TrimSuffix(file, ".yaml"), ".yml"), "holds/")
	switch {
	case !ok || name != string(m.Change.Hold):
		return []Finding{m.finding(Error, RuleRequest, byHand, "it claims to be about the hold %s, and changes %s", m.Change.Hold, names(m.Changed))}
	case (m.Is != nil) != (m.Change.Kind == ledger.ChangeHeld):
		return []Finding{m.finding(Error, RuleRequest, byHand, "it claims that hold %s is %s, and does the opposite", m.Change.Hold, m.Change.Kind)}
	}
	return nil
}

// Rollback judges a rollback by the daemon: a failure has to have asked for it,
// or somebody, who may go back to what was never verified, too.
func Rollback(m Move) ([]Finding, error) {
	if found := m.diff(RuleRollback); len(found) > 0 || m.requested() {
		return found, nil
	}
	asked, err := m.fell()
	if asked || err != nil {
		return nil, err
	}
	past := m.Past(m.Change.Environment)
	for _, k := range past.marks() {
		if k.event != ledger.EventVerified || k.time.After(m.Commit.Time.Add(skew)) {
			continue
		}
		r, err := past.Record(k.entry)
		if err != nil {
			return nil, err
		}
		if verifiedIn(r, m.Change.Release, false) {
			return []Finding{m.finding(Warning, RuleRollback, "somebody has written it by hand, or the failure was removed from a ledger",
				"it goes back to %s, and no failure that is recorded asked for that", describe(m.Change.Release))}, nil
		}
	}
	return []Finding{m.finding(Error, RuleRollback, byHand, "it goes back to %s, which was never verified in %s", describe(m.Change.Release), m.Change.Environment)}, nil
}

// fell asks policy where failures led at the commit's time.
func (m Move) fell() (bool, error) {
	envs := []desired.EnvironmentName{m.Change.Environment}
	if pipeline, _, _ := m.Rules.Stage(m.Change.Environment, m.Change.Service); pipeline != nil {
		for _, s := range pipeline.Stages {
			if s.Environment != m.Change.Environment {
				envs = append(envs, s.Environment)
			}
		}
	}
	var pasts []Past
	var lists [][]moment
	for _, env := range envs {
		p := m.Past(env)
		pasts, lists = append(pasts, p), append(lists, p.moments(m.Commit.Time, 0, m.Commit.ID))
	}
	return choose(lists, func(chosen []moment) (bool, error) {
		all := map[desired.EnvironmentName]ledger.Record{}
		for i, p := range pasts {
			r, there, err := p.at(chosen[i])
			if err != nil {
				return false, err
			}
			if there {
				all[envs[i]] = r
			}
		}
		for _, env := range envs {
			r := all[env]
			if r.Deployment.State != ledger.StateFailed {
				continue
			}
			rules, err := m.RulesOf(r.Deployment.Commit)
			if err != nil {
				return false, err
			}
			retreats, _ := policy.Fall(m.Commit.Time, r, rules, all)
			for _, to := range retreats {
				if to.Environment == m.Change.Environment && to.To.SamePins(m.Change.Release) && (m.Change.Release.Source == "" || m.Change.Release.Source == to.To.Source) {
					return true, nil
				}
			}
		}
		return false, nil
	})
}
