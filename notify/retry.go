package notify

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The pace of retries.
const (
	firstWait   = time.Second
	longestWait = 5 * time.Minute
	// longestAsked bounds what a receiver can ask for with Retry-After.
	longestAsked = time.Hour
	// goneFor is how long a receiver that says it is gone is left alone.
	goneFor = 24 * time.Hour
	// GiveUp is for how long news are tried in vain before they are given up: so
	// long nothing of their lane was taken, and so old they are.
	GiveUp = 72 * time.Hour
)

// Wait is how long to wait after so many failures in a row: a second doubled
// each time, at most five minutes, and up to a fifth longer by share, which is
// from 0 to 1, so that many do not come back in the same moment.
func Wait(failures int, share float64) time.Duration {
	d := longestWait
	if failures < 10 {
		d = min(d, firstWait<<max(0, failures-1))
	}
	return d + time.Duration(float64(d/5)*share)
}

// Answer is what came of a try.
type Answer struct {
	Status     int    // 0: there was none
	RetryAfter string // the header
	Trouble    string // why there was none, in words
}

// Ruling is what an answer means.
type Ruling struct {
	Taken bool
	// Refused: the receiver is there, and does not take this one for what it says.
	Refused bool
	// Pause is how long the receiver wants nothing at all; 0: it does not say.
	Pause  time.Duration
	Reason string // why it was not taken, in words
}

// Judge tells what an answer means: 2xx says that the news were taken, and all
// else that they were not. A redirect is not followed, for the address was
// chosen by the operator.
func (a Answer) Judge(now time.Time) Ruling {
	r := Ruling{Reason: a.Trouble, Pause: asked(a.RetryAfter, now)}
	switch {
	case a.Status == 0:
		if r.Reason == "" {
			r.Reason = "no answer"
		}
	case a.Status/100 == 2:
		return Ruling{Taken: true}
	case a.Status/100 == 3:
		r.Reason = fmt.Sprintf("it answers %d, and a redirect is not followed; write the address that it leads to", a.Status)
	case a.Status == 410:
		r.Pause, r.Reason = goneFor, "it answers 410: it is gone for good; it is asked again in a day, or when the daemon is started again"
	default:
		r.Reason = fmt.Sprintf("it answers %d", a.Status)
		r.Refused = a.Status == 400 || a.Status == 409 || a.Status == 413 || a.Status == 422
	}
	return r
}

// asked reads Retry-After: seconds, or a date (RFC 9110, 10.2.3).
func asked(header string, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	if n, err := strconv.ParseUint(header, 10, 63); err == nil {
		return time.Duration(min(n, uint64(longestAsked/time.Second))) * time.Second
	}
	for _, form := range []string{"Mon, 02 Jan 2006 15:04:05 GMT", "Monday, 02-Jan-06 15:04:05 GMT", time.ANSIC} {
		if at, err := time.Parse(form, header); err == nil {
			return max(0, min(at.Sub(now), longestAsked))
		}
	}
	return 0
}
