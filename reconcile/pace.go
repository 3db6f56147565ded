package reconcile

import "time"

// pace keeps a clerk from pushing all the time. While thousands of services roll
// out one after the other, for minutes, each push would hold the few that came up
// since the last one, and git would take from the API server the time that it
// needs for the others. So pushes may come as they like for a while, and after
// that one by one, with more in each.
type pace struct {
	spent float64 // pushes, less what time has given back
	at    time.Time
}

const (
	// atWill pushes come without any pause, and then one each every.
	atWill = 100
	every  = time.Second
)

// push notes a push. Those that did not wait make the next one wait no longer
// than any.
func (p *pace) push(now time.Time) {
	p.rest(now)
	p.spent = min(p.spent+1, atWill+1)
}

// wait is how long the next push has to wait.
func (p *pace) wait(now time.Time) time.Duration {
	p.rest(now)
	if p.spent < atWill {
		return 0
	}
	return time.Duration((p.spent-atWill)*float64(every)).Truncate(time.Millisecond) + time.Millisecond
}

func (p *pace) rest(now time.Time) {
	if !p.at.IsZero() {
		p.spent = max(0, p.spent-now.Sub(p.at).Seconds()/every.Seconds())
	}
	p.at = now
}
