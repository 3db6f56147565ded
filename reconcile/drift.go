package reconcile

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// Drift is what others did to a service's objects, and what an engine did
// about it.
type Drift struct {
	Key
	Target *Target // that was drifted from
	Time   time.Time
	Answer ledger.Answer
	// Objects are those that differ from what was applied.
	Objects []cluster.Drift
}

// Record returns the drift as a ledger has it.
func (d Drift) Record() *ledger.Drift {
	l := &ledger.Drift{Answer: d.Answer}
	more := 0
	add := func(c ledger.Drifted) {
		if len(l.Changes) == ledger.MaxDrifted {
			more++
			return
		}
		l.Changes = append(l.Changes, c)
	}
	for _, o := range d.Objects {
		if o.Deleted {
			add(ledger.Drifted{Object: o.Ref.String()})
		}
		for _, c := range o.Changes {
			add(ledger.Drifted{Object: o.Ref.String(), Path: c.Path, Old: c.Old, New: c.New, By: c.Manager})
		}
	}
	if more > 0 {
		l.More = strconv.Itoa(more)
	}
	return l
}

// signature tells drifts apart: by what was changed and by whom, whatever the
// values.
func (d Drift) signature() string {
	var b strings.Builder
	for _, o := range d.Objects {
		fmt.Fprintln(&b, o.Ref, o.Deleted)
		for _, c := range o.Changes {
			fmt.Fprintln(&b, c.Path, c.Manager)
		}
	}
	return b.String()
}

// empty tells whether nothing differs: fields were changed, and changed back.
func empty(objects []cluster.Drift) bool {
	return !slices.ContainsFunc(objects, func(o cluster.Drift) bool { return o.Deleted || len(o.Changes) > 0 })
}

// describe says in one line what has drifted.
func (d Drift) describe() string { return d.Record().String() }

// reason says in words what happened, for a ledger.
func driftReason(l *ledger.Drift) string {
	var b strings.Builder
	switch l.Answer {
	case ledger.AnswerEnded:
		return "All objects are as the commit wants them again."
	case ledger.AnswerReported:
		b.WriteString("Somebody else changed what was applied. The environment only reports drift, so it stays until that is undone, a new commit of the service is applied, or a person says pinion apply.")
	case ledger.AnswerContested:
		fmt.Fprintf(&b, "%s the same again and again. It is taken back less and less often, every five minutes in the end, and not recorded before there is peace for %d minutes. Leave the field out of the manifests, ignore it, or stop whoever changes it.",
			changer(l), int(quietCorrection.Minutes()))
	default:
		fmt.Fprintf(&b, "%s what was applied. It was taken back.", changer(l))
	}
	b.WriteString("\n\n")
	for i, c := range l.Changes {
		if i == mostTold {
			fmt.Fprintf(&b, "- and %d more\n", len(l.Changes)-mostTold)
			break
		}
		fmt.Fprintf(&b, "- %s\n", c)
	}
	if l.More != "" {
		fmt.Fprintf(&b, "- and %s that are not listed\n", l.More)
	}
	return b.String()
}

// mostTold is how many changes are told in words.
const mostTold = 15

func changer(l *ledger.Drift) string {
	by := l.By()
	if len(by) == 0 {
		return "Somebody, of whom Kubernetes keeps no record, changed or deleted"
	}
	return strings.Join(by, " and ") + " changed"
}

// The bounds of what is recorded of one service while its drift is not at rest.
const (
	mostAlike  = 3  // drifts that are alike, before they count as a fight
	mostUnlike = 64 // kinds of drift that are told apart
)

// answered decides what of a correction is recorded: each that is like no other
// lately, and of a fight only that it is one.
func (u *unit) answered(d Drift) (a ledger.Answer, told bool) {
	s := d.signature()
	if u.alike == nil {
		u.alike = map[string]int{}
	}
	if _, known := u.alike[s]; !known && len(u.alike) == mostUnlike {
		return "", false
	}
	u.alike[s]++
	switch n := u.alike[s]; {
	case n <= mostAlike:
		return ledger.AnswerCorrected, true
	case n == mostAlike+1:
		u.contested = true
		return ledger.AnswerContested, true
	}
	return "", false
}

// damp makes the next look, or the next correction, wait; longer each time that
// it comes to one before there was peace.
func (u *unit) damp(now time.Time) {
	if now.Sub(u.damped) > quietCorrection {
		u.calm()
	}
	u.corrections++
	u.damped = now.Add(delay(u.key, u.corrections, firstCorrection))
}

// calm forgets a fight.
func (u *unit) calm() { u.corrections, u.alike, u.contested = 0, nil, false }

// peace returns when a fight counts as over if nothing happens until then.
func (u *unit) peace() time.Time { return u.damped.Add(quietCorrection) }

// lost tells of an object that is out of sync whether others are to blame: they
// have deleted or changed what was applied.
func (u *unit) lost(o render.Object, have cluster.Observed, there bool) bool {
	if !there {
		return u.settled || !u.applied.IsZero()
	}
	return have.Owned && !have.Deleting && have.Environment == u.key.Environment && have.Service == u.key.Service &&
		have.Digest == o.Digest && !cluster.InSync(have, o)
}

// trace stands for the state in which others have left an object.
func trace(o render.Object, have cluster.Observed, there bool) uint64 {
	h := fnv.New64a()
	fmt.Fprintln(h, o.Ref, there)
	if there {
		fmt.Fprintln(h, have.UID, have.Others, have.Fields.Value())
	}
	return h.Sum64()
}

// Completed tells whether objects with a digest were once all applied, as a
// ledger has it; known is false if that can't be said yet.
type Completed func(k Key, manifests string) (done, known bool)
