package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// work is an admission under way.
type work struct {
	Admission
	pipeline *desired.Pipeline
	stage    *desired.Stage
	decision Decision
	chosen   []chosen // of a stage that tracks
}

// Admit decides whether a stage is entered, and with which release: the newest
// one that is verified in all stages before it, if that leads forward, no hold
// is in its way, and each gate of the stage is passed. Of a first stage that
// tracks artifacts, it is the newest one that the stage's rules allow.
//
// Of a Dismiss, what is dismissed is Target.Candidate; Decision.Candidate is
// what is judged instead, if anything is. A decision about a Forced release
// that is neither Promote nor about Target.Candidate is to be shown and not
// recorded: the next one, without it, would take it back.
func Admit(a Admission) Decision {
	w := &work{Admission: a, decision: Decision{Move: Stay}}
	d := &w.decision
	if gone, why, needs := w.place(); why != "" {
		d.Verdicts = append(d.Verdicts, Verdict{Gate: "stage " + string(a.Environment), Outcome: Pending, Reason: why, Needs: needs})
		d.Verdicts = append(d.Verdicts, w.holds(a.Now)...)
		w.void(why, gone)
		return *d
	}
	find := w.find
	if w.tracks() {
		find = w.track
	}
	found, verdicts, unknown := find()
	d.Verdicts = verdicts
	if len(found) == 0 {
		why := fmt.Sprintf("nothing is verified that could enter %s: %s", a.Environment, reasons(verdicts, Pending))
		switch {
		case w.tracks():
			why = fmt.Sprintf("nothing is known that could enter %s: %s", a.Environment, reasons(verdicts, Pending))
		case a.Forced != nil:
			why = fmt.Sprintf("%s is not verified in all stages before %s: %s", version(*a.Forced), a.Environment, reasons(verdicts, Pending))
		}
		w.none(why, !unknown)
		return *d
	}
	c, offered := w.candidate(found)
	d.Candidate = &c
	stop := w.artifacts(c.Release)
	if stop == nil {
		stop = w.compare(found[0])
	}
	if stop != nil && !stop.passing {
		if next, stages, where := w.ahead(found); next != nil {
			d.Candidate, d.Verdicts = nil, stages
			w.none(fmt.Sprintf("%s is verified in %s, and waits to enter %s: %s", version(next.release), where, a.Environment, reasons(stages, Pending)), true)
			return *d
		}
	}
	if stop != nil {
		d.Verdicts = append(d.Verdicts, Verdict{Gate: "version", Outcome: Pending, Reason: stop.reason, Needs: stop.needs})
	} else {
		d.Verdicts = append(d.Verdicts, Verdict{Gate: "version", Outcome: Passed, Reason: w.onward(c.Release)})
	}
	b := w.bench(&c, found)
	if stop != nil && !offered {
		b.idle = waiting
	}
	d.Verdicts = append(d.Verdicts, w.holds(a.Now)...)
	for _, name := range w.stage.Admit {
		d.Verdicts = append(d.Verdicts, b.judge(name))
	}
	if stop != nil {
		w.void(stop.reason, !stop.passing)
		return *d
	}
	w.move(b, found, offered)
	return *d
}

// none says that there is nothing that could enter, and how it is with the other
// gates.
func (w *work) none(why string, certain bool) {
	d := &w.decision
	d.Verdicts = append(d.Verdicts, w.holds(w.Now)...)
	b := w.bench(nil, nil)
	for _, name := range w.stage.Admit {
		d.Verdicts = append(d.Verdicts, b.judge(name))
	}
	w.void(why, certain)
}

// Gates judges the gates of a stage for the candidate that is recorded, by the
// record and the rules alone: whether it would be the candidate still is not asked.
// What depends on more, as a soak does, is pending.
func Gates(a Admission) []Verdict {
	w := &work{Admission: a, decision: Decision{Move: Stay}}
	if _, why, _ := w.place(); why != "" || a.Target.Candidate == nil {
		return nil
	}
	b := w.bench(a.Target.Candidate, []proof{{}})
	verdicts := make([]Verdict, 0, len(w.stage.Admit))
	for _, name := range w.stage.Admit {
		verdicts = append(verdicts, b.judge(name))
	}
	return verdicts
}

// place finds the stage and looks whether it and those before it can be used.
// Gone says that it is certain that nothing is to enter it.
func (w *work) place() (gone bool, why, needs string) {
	p, s, why, free := w.Rules.stage(w.Environment, w.Service)
	if why != "" {
		return free, why, "mend the file"
	}
	w.pipeline, w.stage = p, s
	if len(s.After) == 0 && len(s.Track) == 0 {
		return true, fmt.Sprintf("%s is a first stage of the pipeline %s: nothing is promoted into it", w.Environment, p.Name), "pin a version there"
	}
	for _, env := range s.After {
		before := p.Stage(env)
		if before == nil {
			return false, fmt.Sprintf("the pipeline %s has no stage %s, which comes before %s", p.Name, env, w.Environment), "mend the file"
		}
		if len(before.Problems) > 0 {
			return false, fmt.Sprintf("the stage %s, which comes before %s, can't be used: %s", env, w.Environment, before.Problems[0].Error()), "mend the file"
		}
	}
	r := w.Rules.Repository
	if r.Services[w.Service] == nil {
		for _, name := range []string{string(w.Service), ""} {
			if broken := r.Broken(desired.KindService, name); len(broken) > 0 {
				return false, fmt.Sprintf("the service %s can't be used: %s", w.Service, broken[0].Error()), "mend its file"
			}
		}
		return true, fmt.Sprintf("there is no service %s any more", w.Service), ""
	}
	return false, "", ""
}

// void stays, or, if it is certain that what waits is not to enter any more,
// takes its offer back.
func (w *work) void(why string, certain bool) {
	d := &w.decision
	d.Move, d.Reason = Stay, why
	old := w.Target.Candidate
	if old == nil || !certain || w.Forced != nil {
		return
	}
	d.Move, d.Supersedes = Dismiss, true
	d.Reason = fmt.Sprintf("%s does not wait any more: %s", version(old.Release), cmp.Or(w.passed(old.Release), why))
}

// passed says why a release that waits is not the candidate any more, if that
// is not what keeps the candidate out.
func (w *work) passed(old ledger.Release) string {
	c := w.decision.Candidate
	if w.stage == nil || c != nil && same(old, c.Release, w.pinsOnly()) {
		return ""
	}
	if w.tracks() {
		if c == nil {
			return ""
		}
		return fmt.Sprintf("%s is the newest that the stage takes, and %s", version(c.Release), w.decision.Reason)
	}
	for _, env := range w.stage.After {
		r := w.Before[env]
		_, counted := lookup(proofs(r, false), old.SamePins)
		if r.Retired.IsZero() && !counted {
			return fmt.Sprintf("it does not count as verified in %s any more; %s", env, standing(r))
		}
	}
	if c == nil {
		return ""
	}
	_, newest := apart(old, c.Release)
	return fmt.Sprintf("%s is the newest that is verified, and %s", newest, w.decision.Reason)
}

// candidate returns what is judged, as it is recorded or as it would be
// offered now, and whether it is recorded.
func (w *work) candidate(found []proof) (ledger.Candidate, bool) {
	x := found[0].release
	for i, p := range found[:min(len(found), len(w.stage.After))] {
		// The manifests of a stage that reads them from the newest commit were
		// verified with none of the others.
		if !w.pipeline.Stage(w.stage.After[i]).ManifestsHead {
			x = p.release
			break
		}
	}
	c := ledger.Candidate{Release: x, Offered: w.Now}
	for _, env := range w.stage.After {
		from := string(env)
		if w.Entries[env] != "" {
			from += "@" + w.Entries[env]
		}
		c.From = append(c.From, from)
	}
	if w.tracks() {
		c.From = []string{artifact.Branch + "@" + w.Shelf.At()}
	}
	old := w.Target.Candidate
	offered := old != nil && same(old.Release, x, w.pinsOnly())
	if offered {
		c = *old
		c.Authors = slices.Clone(old.Authors)
	}
	for _, p := range found {
		for _, who := range p.authors {
			if !slices.Contains(c.Authors, who) {
				c.Authors = append(c.Authors, who)
			}
		}
	}
	return c, offered
}

// artifacts says that the release does not fit the service of the tip.
func (w *work) artifacts(x ledger.Release) *block {
	s := w.Rules.Repository.Services[w.Service]
	var missing, strange []string
	for _, a := range s.Artifacts {
		if !slices.ContainsFunc(x.Pins, func(p ledger.Pin) bool { return p.Artifact == a }) {
			missing = append(missing, string(a))
		}
	}
	for _, p := range x.Pins {
		if !slices.Contains(s.Artifacts, p.Artifact) {
			strange = append(strange, string(p.Artifact))
		}
	}
	slices.Sort(missing)
	verify := "a version with the artifacts of " + s.File + " has to be verified"
	switch {
	case len(missing) > 0:
		return &block{fmt.Sprintf("%s needs %s, too, and %s does not have it", s.File, strings.Join(missing, ", "), version(x)), verify, false}
	case len(strange) > 0:
		return &block{fmt.Sprintf("%s does not name %s any more, and %s has it", s.File, strings.Join(strange, ", "), version(x)), verify, false}
	}
	return nil
}

// onward says how the release stands to what the target has.
func (w *work) onward(x ledger.Release) string {
	d := w.Target.Deployment
	if d.ID == "" {
		return fmt.Sprintf("%s is the first one in %s", version(x), w.Environment)
	}
	have, would := apart(d.Release, x)
	return fmt.Sprintf("%s has %s, and %s follows", w.Environment, have, would)
}

// holds are the verdicts of what is frozen. A file that can't be read may
// freeze anything.
func (w *work) holds(now time.Time) []Verdict {
	r := w.Rules.Repository
	if r == nil {
		return nil
	}
	var verdicts []Verdict
	if why := r.Suspended(w.Environment, w.Service); why != "" {
		verdicts = append(verdicts, Verdict{Gate: "suspend", Outcome: Pending, Reason: why, Needs: "remove suspend: from its file"})
	}
	for _, n := range slices.Sorted(maps.Keys(r.Holds)) {
		h := r.Holds[n]
		if !h.Covers(w.Environment, w.Service) || h.Expired(now) {
			continue
		}
		v := Verdict{Gate: "hold " + string(n), Outcome: Pending, Reason: cmp.Or(h.Reason, "no reason is given"), Opens: h.Until}
		if h.Owner != "" {
			v.Reason += " (" + h.Owner + ")"
		}
		v.Needs = fmt.Sprintf("end it with `pinion release %s`", n)
		if !h.Until.IsZero() {
			v.Needs = "wait until " + on(h.Until) + ", or " + v.Needs
		}
		verdicts = append(verdicts, v)
	}
	for _, n := range append(r.BrokenNames(desired.KindHold), "") {
		if broken := r.Broken(desired.KindHold, n); len(broken) > 0 {
			verdicts = append(verdicts, Verdict{Gate: strings.TrimSpace("hold " + n), Outcome: Pending, Reason: "it can't be read, so it holds everything: " + broken[0].Error(), Needs: "mend or remove it"})
		}
	}
	return verdicts
}

// waiting is how it is with a gate as long as there is nothing to judge.
const waiting = "waits for a version that could enter"

// bench is what the policies of the stage are judged from: for a candidate, or
// for none.
func (w *work) bench(c *ledger.Candidate, found []proof) *bench {
	b := &bench{
		repository:  w.Rules.Repository,
		pipeline:    w.pipeline,
		stage:       w.stage,
		shelf:       w.Shelf,
		environment: w.Environment,
		service:     w.Service,
		locations:   w.Locations,
		now:         w.Now,
	}
	if c == nil {
		b.idle = waiting
		return b
	}
	var verified time.Time
	for _, p := range found {
		verified = later(verified, p.at)
	}
	if old := w.Target.Candidate; old != nil && same(old.Release, c.Release, w.pinsOnly()) {
		b.begun = c.Offered
	}
	b.now = later(later(w.Now, verified), b.begun)
	b.checks, b.approvals, b.authors = c.Checks, c.Approvals, c.Authors
	b.deployment = ledger.Deployment{Commit: found[0].commit, Release: c.Release, Cause: ledger.CausePromotion, Authors: c.Authors}
	if w.tracks() {
		b.deployment.Cause = ledger.CauseTracking
	}
	b.soak = func(long time.Duration) Verdict {
		if verified.IsZero() {
			return Verdict{Outcome: Pending, Reason: "it is not known since when it could soak"}
		}
		return soaked(Verdict{Outcome: Pending, Since: verified}, b.now, long)
	}
	return b
}

// move decides by the gates what is to be done about the candidate.
func (w *work) move(b *bench, found []proof, offered bool) {
	d := &w.decision
	c := d.Candidate
	from := make([]string, len(w.stage.After))
	for i, env := range w.stage.After {
		from[i] = string(env)
	}
	verified := fmt.Sprintf("%s is verified in %s", version(c.Release), strings.Join(from, " and "))
	if w.tracks() {
		verified = fmt.Sprintf("%s is the newest that %s takes", version(c.Release), w.Environment)
	}
	failed, pending := reasons(d.Verdicts, Failed), reasons(d.Verdicts, Pending)
	another := w.Target.Candidate != nil && !offered
	if w.stage.ByPullRequest && failed == "" {
		d.Proposal = w.promotion(b, found)
	}
	switch {
	case failed != "" && offered:
		d.Move, d.Failed, d.Reason = Dismiss, true, failed
		return
	case failed != "" || pending != "" && !offered:
		d.Move, d.Supersedes = Offer, another
		d.Reason = fmt.Sprintf("%s, and waits to enter %s: %s", verified, w.Environment, cmp.Or(pending, failed))
		c.Reason = cmp.Or(pending, failed)
	case w.stage.ByPullRequest && !offered && w.Forced == nil:
		// What waits for a person to merge it is offered first, so that the ledger
		// knows what the merge brings.
		d.Move, d.Supersedes = Offer, another
		c.Reason = "its pull request is to be merged"
		d.Reason = fmt.Sprintf("%s, and waits to enter %s: %s", verified, w.Environment, c.Reason)
	case pending != "":
		d.Move, d.Reason = Stay, fmt.Sprintf("%s waits to enter %s: %s", version(c.Release), w.Environment, pending)
	default:
		d.Move, d.Supersedes = Promote, another
		d.Reason = fmt.Sprintf("%s, and every gate of %s is open", verified, w.Environment)
		if w.stage.ByPullRequest {
			d.Reason += "; its pull request is to be merged"
		}
		d.Promotion = w.promotion(b, found)
		return
	}
	d.Run, d.Wake = b.run, first(w.Now, d.Verdicts)
}

// promotion is what is written to enter the stage.
func (w *work) promotion(b *bench, found []proof) *Promotion {
	c := w.decision.Candidate
	p := &Promotion{
		Service:     w.Service,
		Environment: w.Environment,
		Release:     c.Release,
		Manifests:   !w.pinsOnly(),
		From:        c.From,
		Tracked:     w.tracks(),
		Authors:     c.Authors,
		Pipeline:    string(w.pipeline.Name),
	}
	if w.Rules.PipelineBlob != "" {
		p.Pipeline += "@" + w.Rules.PipelineBlob
	}
	if w.Target.Deployment.ID != "" {
		p.Before = w.Target.Deployment.Release.Version()
	}
	var sentences []string
	if w.tracks() {
		p.From = []string{artifact.Branch + "@" + w.Shelf.At()} // not that of the offer: more may be known by now
	}
	for _, x := range w.chosen {
		signed := Signers(w.Rules.Repository, x.record)
		p.Builds = append(p.Builds, x.build(signed))
		sentences = append(sentences, x.sentence(signed))
	}
	for i, env := range w.stage.After {
		sentences = append(sentences, fmt.Sprintf("Verified in %s: %s.", env, w.verified(found[i], w.pipeline.Stage(env))))
		p.Checks = append(p.Checks, found[i].checks...)
	}
	admitted := slices.Concat(c.Checks, b.made)
	admitted = slices.DeleteFunc(admitted, func(x ledger.Check) bool {
		return x.Result != ledger.Success || !slices.Contains(w.stage.Admit, x.Policy)
	})
	var others []ledger.Check
	for _, name := range w.stage.Admit {
		for _, x := range admitted {
			switch {
			case x.Policy != name:
			case w.Rules.Repository.Policies[name].Check == desired.CheckApproval:
				who := strings.TrimPrefix(cmp.Or(x.Description, x.By), approvedBy)
				sentences = append(sentences, "Approved by "+who+".")
			default:
				others = append(others, x)
			}
		}
	}
	if len(others) > 0 {
		sentences = append(sentences, "Admitted: "+strings.Join(evidence(others, w.stage.Admit, w.Rules.Repository), ", ")+".")
	}
	p.Evidence = strings.Join(sentences, " ")
	p.Checks = append(p.Checks, admitted...)
	slices.SortFunc(p.Checks, func(x, y ledger.Check) int {
		return cmp.Or(cmp.Compare(x.Policy, y.Policy), x.Time.Compare(y.Time), cmp.Compare(x.By, y.By), cmp.Compare(x.URL, y.URL))
	})
	p.Checks = slices.CompactFunc(p.Checks, func(x, y ledger.Check) bool {
		return x.Policy == y.Policy && x.Result == y.Result && x.By == y.By && slices.Equal(x.Groups, y.Groups) && x.URL == y.URL &&
			x.Description == y.Description && x.Output == y.Output && x.Time.Equal(y.Time)
	})
	return p
}

// verified says how a release was verified in a stage before.
func (w *work) verified(p proof, s *desired.Stage) string {
	switch {
	case p.reason != "":
		return clause(p.reason)
	case len(p.checks) > 0:
		return strings.Join(append([]string{"rollout complete"}, evidence(p.checks, s.Verify, w.Rules.Repository)...), ", ")
	}
	return fmt.Sprintf("%s on %s", p.id, on(p.at))
}
