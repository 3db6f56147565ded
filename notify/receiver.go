package notify

import "time"

const (
	// mostAtOnce is how many requests to one sink are under way.
	mostAtOnce = 8
	// manyFailing is how many lanes have to fail, and none to succeed, for it to
	// be the receiver that is in trouble.
	manyFailing  = 3
	mostRemember = 1000
)

// Receiver is what is known of whether a sink takes anything at all. The zero
// value is one of which nothing is known.
type Receiver struct {
	failing map[string]bool // lanes of branches, since the last success
	until   time.Time       // nothing is sent before
	reason  string
	asked   bool      // until is what it asked for
	since   time.Time // when it asked for that
}

// Down tells whether it takes nothing, and the last reason.
func (r *Receiver) Down() (down bool, reason string) {
	return len(r.failing) >= manyFailing || !r.until.IsZero(), r.reason
}

// May tells whether something may be sent besides so much that is under way;
// if not yet, again is when, or zero: when one of these is answered.
func (r *Receiver) May(now time.Time, underWay int) (ok bool, again time.Time) {
	switch {
	case r.until.After(now):
		return false, r.until
	case len(r.failing) >= manyFailing:
		return underWay == 0, time.Time{}
	}
	return underWay < mostAtOnce, time.Time{}
}

// Heard takes in an answer to what was sent for a lane at a time. It says whether
// the receiver has recovered, so that what waits for its time need not any longer.
//
// What a receiver asks for is kept to, whatever it says of other requests that
// were sent before it had asked.
func (r *Receiver) Heard(lane string, is Ruling, sent, now time.Time, share float64) (recovered bool) {
	before := *r
	kept := before.asked && before.until.After(now) && sent.Before(before.since)
	if is.Taken {
		recovered = !kept && (r.failing[lane] || len(r.failing) >= manyFailing)
		if *r = (Receiver{}); kept {
			r.until, r.reason, r.asked, r.since = before.until, before.reason, true, before.since
		}
		return recovered
	}
	if r.failing == nil {
		r.failing = map[string]bool{}
	}
	if len(r.failing) < mostRemember {
		r.failing[lane] = true
	}
	r.reason, r.until, r.asked = is.Reason, time.Time{}, is.Pause > 0
	if r.asked {
		r.until, r.since = now.Add(is.Pause), now
	} else if n := len(r.failing); n >= manyFailing && !is.Refused {
		r.until = now.Add(Wait(n, share))
	}
	if kept && !r.until.After(before.until) {
		r.until, r.reason, r.asked, r.since = before.until, before.reason, true, before.since
	}
	return false
}
