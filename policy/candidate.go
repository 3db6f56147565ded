package policy

import (
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// proof is a release that was verified in an environment.
type proof struct {
	id, commit string
	release    ledger.Release
	at         time.Time
	authors    []ledger.Person
	checks     []ledger.Check
	reason     string // why it is verified; of the current deployment alone
}

// same tells whether two releases are one: in pins and source, or, where the
// manifests do not move, in pins.
func same(a, b ledger.Release, pinsOnly bool) bool {
	return a.Equal(b) || pinsOnly && a.SamePins(b)
}

// pinsOnly tells whether manifests do not move into the stage.
func (w *work) pinsOnly() bool { return w.stage.ManifestsHead || w.tracks() }

// refusal returns what keeps a release out of an environment.
func refusal(r ledger.Record, x ledger.Release, pinsOnly bool) (ledger.Refusal, bool) {
	if pinsOnly {
		i := slices.IndexFunc(r.Refused, func(f ledger.Refusal) bool { return f.Release.SamePins(x) })
		if i < 0 {
			return ledger.Refusal{}, false
		}
		return r.Refused[i], true
	}
	return r.Refuses(x)
}

// proofs are the releases that count as verified in an environment, the newest
// first. What has failed there since, or is refused there, does not.
func proofs(r ledger.Record, pinsOnly bool) iter.Seq[proof] {
	var failed []ledger.Release
	counts := func(x ledger.Release, state ledger.State) bool {
		if state == ledger.StateFailed {
			failed = append(failed, x)
		}
		if state != ledger.StateVerified || slices.ContainsFunc(failed, func(y ledger.Release) bool { return same(x, y, pinsOnly) }) {
			return false
		}
		_, no := refusal(r, x, pinsOnly)
		return !no
	}
	past := func(p *ledger.Past) proof {
		return proof{id: p.ID, commit: p.Commit, release: p.Release, at: p.Ended, authors: p.Authors}
	}
	return func(yield func(proof) bool) {
		if d := &r.Deployment; d.ID != "" && counts(d.Release, d.State) && !yield(proof{d.ID, d.Commit, d.Release, d.Ended, d.Authors, d.Checks, d.Reason}) {
			return
		}
		for i := range r.Previous {
			p := &r.Previous[i]
			if counts(p.Release, p.State) && !yield(past(p)) {
				return
			}
		}
		if v := r.Verified; v != nil && counts(v.Release, v.State) {
			yield(past(v)) // it may be older than all that are kept
		}
	}
}

// lookup returns the newest proof of a release.
func lookup(all iter.Seq[proof], is func(ledger.Release) bool) (proof, bool) {
	for p := range all {
		if is(p.release) {
			return p, true
		}
	}
	return proof{}, false
}

// find looks for the candidate: the newest release that is verified in all
// stages before and not older than what the target has had. Found says in which
// deployments, in the order of the stages. Its verdicts say how it is with each
// stage; unknown, that not all of them could be looked at.
func (w *work) find() (found []proof, verdicts []Verdict, unknown bool) {
	lists := make([]iter.Seq[proof], len(w.stage.After))
	verdicts = make([]Verdict, 0, len(w.stage.After)+1+len(w.stage.Admit)+len(w.Rules.Repository.Holds)) // the others follow
	heads := make([]bool, len(w.stage.After))
	for i, env := range w.stage.After {
		v := Verdict{Gate: "stage " + string(env), Outcome: Pending, Needs: fmt.Sprintf("see `pinion why %s %s`", env, w.Service)}
		heads[i] = w.pipeline.Stage(env).ManifestsHead
		r, known := w.Before[env]
		lists[i] = func(func(proof) bool) {} // none
		switch {
		case !known:
			v.Reason, v.Needs, unknown = fmt.Sprintf("nothing is known of %s in %s", w.Service, env), "", true
		case !r.Retired.IsZero():
			v.Reason, v.Needs = fmt.Sprintf("%s has left %s on %s", w.Service, env, on(r.Retired)), ""
		default:
			lists[i] = proofs(r, heads[i] || w.stage.ManifestsHead)
			v.Reason = standing(r)
		}
		verdicts = append(verdicts, v)
	}
	// The nearest is the newest one, which may lack some of the stages.
	var nearest []*proof
	for p := range lists[0] {
		if w.Forced != nil && !same(p.release, *w.Forced, w.Forced.Source == "" || w.stage.ManifestsHead) {
			continue
		}
		all, missing := make([]*proof, len(lists)), false
		for i, list := range lists {
			if i == 0 {
				all[0] = &p
				continue
			}
			o, ok := lookup(list, func(x ledger.Release) bool { return same(p.release, x, heads[0] || heads[i]) })
			if !ok {
				missing = true
				continue
			}
			all[i] = &o
		}
		if nearest == nil || !missing {
			nearest = all
		}
		if !missing {
			for _, x := range all {
				found = append(found, *x)
			}
			break
		}
		if w.Forced == nil && w.had(p.release) {
			break // what comes now is older
		}
	}
	for i := 1; i < len(lists) && nearest == nil; i++ {
		// The first one has nothing of it, and another one may.
		for p := range lists[i] {
			if w.Forced == nil || same(p.release, *w.Forced, w.Forced.Source == "" || w.stage.ManifestsHead) {
				stages, _ := w.stages(p, w.stage.After[i])
				for j := range stages {
					if _, known := w.Before[w.stage.After[j]]; known {
						verdicts[j] = stages[j]
					}
				}
				return nil, verdicts, unknown
			}
		}
	}
	for i, p := range nearest {
		v := &verdicts[i]
		if p == nil {
			w.apart(*nearest[0], w.stage.After[0], lists[i], w.stage.After[i], v)
			continue
		}
		w.passes(*p, w.stage.After[i], v)
	}
	return found, verdicts, unknown
}

// passes says of a stage before that it has verified what is asked for.
func (w *work) passes(p proof, env desired.EnvironmentName, v *Verdict) {
	v.Outcome, v.Since, v.Needs = Passed, p.at, ""
	v.Reason = fmt.Sprintf("%s was verified there on %s (%s)", version(p.release), on(p.at), p.id)
	if r := w.Before[env]; r.Deployment.ID != p.id {
		v.Reason += "; " + standing(r)
	}
}

// apart says of a release that one stage has verified why it does not count in
// another one. If that has its pins: these alone are not enough.
func (w *work) apart(p proof, where desired.EnvironmentName, other iter.Seq[proof], env desired.EnvironmentName, v *Verdict) {
	o, ok := lookup(other, p.release.SamePins)
	if !ok {
		if r := w.Before[env]; r.Deployment.ID != "" && r.Retired.IsZero() && !r.Deployment.Release.SamePins(p.release) {
			v.Reason = fmt.Sprintf("%s is not verified there; %s", version(p.release), v.Reason)
		}
		return
	}
	a, b := apart(p.release, o.release)
	v.Reason = fmt.Sprintf("%s has verified %s, and %s %s", where, a, env, b)
	v.Needs = "the same manifests have to be verified in both: change both in one commit"
}

// ahead looks, where what is verified in all stages before leads nowhere, for the
// newest release that leads forward and lacks some of them: that is what is
// waited for. It returns where it is verified, and how it is with each stage.
func (w *work) ahead(found []proof) (next *proof, verdicts []Verdict, where desired.EnvironmentName) {
	if w.Forced != nil || w.tracks() || len(found) != len(w.stage.After) || !w.Target.Retired.IsZero() {
		return nil, nil, ""
	}
	for i, env := range w.stage.After {
		head := w.pipeline.Stage(env).ManifestsHead
		for p := range proofs(w.Before[env], head || w.stage.ManifestsHead) {
			if p.id == found[i].id || w.had(p.release) {
				break // what comes now is older
			}
			if _, no := refusal(w.Target, p.release, w.pinsOnly()); no || w.backward(p) != nil || next != nil && !p.at.After(next.at) {
				continue
			}
			if stages, missing := w.stages(p, env); missing {
				next, verdicts, where = &p, stages, env
				break
			}
		}
	}
	return next, verdicts, where
}

// stages says how it is with a release, which one of the stages before has
// verified, in each of them.
func (w *work) stages(p proof, where desired.EnvironmentName) (verdicts []Verdict, missing bool) {
	for _, env := range w.stage.After {
		r, head := w.Before[env], w.pipeline.Stage(env).ManifestsHead
		v := Verdict{Gate: "stage " + string(env), Outcome: Pending, Reason: standing(r), Needs: fmt.Sprintf("see `pinion why %s %s`", env, w.Service)}
		list := proofs(r, head || w.stage.ManifestsHead)
		o, ok := lookup(list, func(x ledger.Release) bool {
			return same(p.release, x, head || w.pipeline.Stage(where).ManifestsHead)
		})
		if ok {
			w.passes(o, env, &v)
		} else {
			w.apart(p, where, list, env, &v)
			missing = true
		}
		verdicts = append(verdicts, v)
	}
	return verdicts, missing
}

// had tells whether the target has or had a release.
func (w *work) had(x ledger.Release) bool {
	if w.Target.Deployment.ID != "" && same(w.Target.Deployment.Release, x, w.pinsOnly()) {
		return true
	}
	return slices.ContainsFunc(w.Target.Previous, func(p ledger.Past) bool { return same(p.Release, x, w.pinsOnly()) })
}

// standing says how it is with an environment from which nothing comes.
func standing(r ledger.Record) string {
	d := r.Deployment
	if d.ID == "" {
		return "nothing was deployed there yet"
	}
	text := fmt.Sprintf("%s is %s there", version(d.Release), d.State)
	if d.State == ledger.StateFailed && d.Reason != "" {
		text += " (" + clause(d.Reason) + ")"
	}
	if r.Verified == nil {
		text += ", and nothing was verified there yet"
	}
	if f, no := r.Refuses(d.Release); no && d.State == ledger.StateVerified {
		text += ", and refused: " + f.Reason
	}
	return text
}

// block is why the candidate is not to enter.
type block struct {
	reason, needs string
	passing       bool // it may be otherwise soon, so an offer is not taken back
}

// compare holds the candidate against what the target has. Nil: it may enter.
func (w *work) compare(x proof) *block {
	t, d := w.Target, w.Target.Deployment
	env, pinsOnly := w.Environment, w.pinsOnly()
	here := d.ID != "" && t.Retired.IsZero()
	if len(problems(w.Pinned)) > 0 {
		return &block{fmt.Sprintf("%s can't move in %s: %s", w.Service, env, w.Pinned.Problems[0].Error()), "mend the file", true}
	}
	// 0. The files may say what the ledger does not know yet.
	if b := w.unsettled(here); b != nil {
		return b
	}
	if !t.Retired.IsZero() {
		return &block{fmt.Sprintf("%s was taken out of %s on %s", w.Service, env, on(t.Retired)), "pin it there by hand to bring it back", false}
	}
	if here && same(d.Release, x.release, pinsOnly) {
		why := fmt.Sprintf("%s has %s", env, version(x.release))
		if d.State != ledger.StateVerified {
			why += fmt.Sprintf(", which is %s", d.State)
			if d.State == ledger.StateFailed && d.Reason != "" {
				why += " (" + clause(d.Reason) + ")"
			}
		}
		return &block{reason: why}
	}
	if w.tracks() {
		if b := w.stale(); b != nil {
			return b
		}
	} else if f, no := refusal(t, x.release, pinsOnly); no {
		return &block{fmt.Sprintf("%s is refused in %s since %s: %s", version(x.release), env, on(f.Time), clause(f.Reason)), "pin it by hand to try again", false}
	}
	if w.Forced == nil && !w.tracks() {
		if b := w.backward(x); b != nil {
			return b
		}
	}
	if here && !d.State.Final() && (d.Cause == ledger.CauseRollback || d.Cause == ledger.CauseRevert) {
		return &block{fmt.Sprintf("%s goes back to %s, which is %s", env, version(d.Release), d.State), "wait until that has ended", true}
	}
	return nil
}

// unsettled says that the tip's files and the ledger differ: somebody has just
// changed the files.
func (w *work) unsettled(here bool) *block {
	d := w.Target.Deployment
	switch {
	case w.Pinned == nil && !here:
		return nil
	case w.Pinned == nil:
		return &block{fmt.Sprintf("the files of %s do not have %s any more, which the ledger does not know yet", w.Environment, w.Service), "wait until it does", true}
	}
	files := ledger.ReleaseOf(w.Pinned.Pins, w.Pinned.Source)
	if here && files.SamePins(d.Release) && (files.Source == "" || files.Source == d.Release.Source) {
		if w.Unrecorded == "" {
			return nil
		}
		return &block{fmt.Sprintf("commit %s changed the pins of %s in %s, there or back, which the ledger does not know yet", short(w.Unrecorded), w.Service, w.Environment), "wait until it does", true}
	}
	what := version(files)
	if here && files.SamePins(d.Release) && len(files.Pins) > 0 {
		what += " with the manifests of " + short(files.Source)
	}
	return &block{fmt.Sprintf("the files of %s say %s since %s, which the ledger does not know yet", w.Environment, what, short(w.Rules.Commit)), "wait until it does", true}
}

// backward says that the candidate would lead back, or over what a person has
// decided.
func (w *work) backward(x proof) *block {
	t, d := w.Target, w.Target.Deployment
	if d.ID == "" {
		return nil
	}
	env, samePins := w.Environment, d.Release.SamePins(x.release)
	byHand := "pin it by hand"
	if v := x.release.Version(); v != "" {
		byHand += fmt.Sprintf(", or use `pinion promote %s --to %s --version %s`", w.Service, env, argument(v))
	}
	for _, p := range t.Previous {
		// With the pins that are there, other manifests are no way back.
		if p.Started.IsZero() || !(p.Release.Equal(x.release) || !samePins && p.Release.SamePins(x.release)) {
			continue
		}
		return &block{reason: fmt.Sprintf("%s ran in %s before %s does, and automation does not go back", version(x.release), env, version(d.Release)), needs: byHand}
	}
	if newer, ok := ledger.Newer(d.Release, x.release); ok && newer {
		return &block{reason: fmt.Sprintf("%s holds %s, which is newer%s", env, version(d.Release), pinnedBy(d)), needs: byHand}
	}
	if samePins && (w.Older == nil || w.older(x.release.Source, d.Release.Source)) {
		have, would := apart(d.Release, x.release)
		return &block{reason: fmt.Sprintf("%s has %s, and %s are older", env, have, would), needs: byHand}
	}
	// Versions that do not say which is newer leave it to the commits.
	if d.Cause != ledger.CausePin && d.Cause != ledger.CauseRevert {
		return nil
	}
	if newer, ok := ledger.Newer(x.release, d.Release); !(ok && newer) && !w.older(d.Commit, x.commit) {
		have, would := apart(d.Release, x.release)
		return &block{reason: fmt.Sprintf("%s holds %s%s, and it can't be told that %s is newer", env, have, pinnedBy(d), would), needs: byHand}
	}
	return nil
}

func (w *work) older(commit, than string) bool {
	return w.Older != nil && commit != "" && than != "" && w.Older(commit, than)
}

func pinnedBy(d ledger.Deployment) string {
	if d.Actor == (ledger.Person{}) {
		return ""
	}
	return ", pinned by " + name(d.Actor)
}

func problems(d *desired.Deployment) []desired.Problem {
	if d == nil {
		return nil
	}
	return d.Problems
}
