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

// Heard takes in an answer to what was sent for a lane. It says whether the
// receiver has recovered, so that what waits for its time need not any longer.
func (r *Receiver) Heard(lane string, is Ruling, now time.Time, share float64) (recovered bool) {
	if is.Taken {
		recovered = r.failing[lane] || len(r.failing) >= manyFailing
		*r = Receiver{}
		return recovered
	}
	if r.failing == nil {
		r.failing = map[string]bool{}
	}
	if len(r.failing) < mostRemember {
		r.failing[lane] = true
	}
	r.reason, r.until = is.Reason, time.Time{}
	if is.Pause > 0 {
		r.until = now.Add(is.Pause)
	} else if n := len(r.failing); n >= manyFailing {
		r.until = now.Add(Wait(n, share))
	}
	return false
}
