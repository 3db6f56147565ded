package api

import (
	"math"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits say how much one caller may ask.
type Limits struct {
	PerSecond float64 // requests; 0: DefaultPerSecond
	Burst     int     // that may come at once; 0: twice of it
}

// DefaultPerSecond is how many requests a second one caller may send.
const DefaultPerSecond = 100

// limits holds each caller to them.
type limits struct {
	rate  rate.Limit
	burst int

	mu       sync.Mutex // guards what follows
	callers  map[string]*rate.Limiter
	reserved map[string]int
}

// strangersPerSecond is how many tokens a second that turn out to be nobody's may
// come from one address before others are asked no more about new ones.
const strangersPerSecond = 5

// mostCallers bounds whom is kept account of. Whoever is forgotten begins anew.
const mostCallers = 10_000

func newLimits(l Limits) *limits {
	if l.PerSecond <= 0 {
		l.PerSecond = DefaultPerSecond
	}
	if l.Burst <= 0 {
		l.Burst = max(1, int(2*l.PerSecond))
	}
	return &limits{rate: rate.Limit(l.PerSecond), burst: l.Burst, callers: map[string]*rate.Limiter{}, reserved: map[string]int{}}
}

// admit counts a request. If it is one too many, it says after which time one
// will be admitted.
func (l *limits) admit(caller string, now time.Time) (after time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.callers[caller]
	if c == nil {
		if len(l.callers) >= mostCallers {
			clear(l.callers)
		}
		c = rate.NewLimiter(l.rate, l.burst)
		l.callers[caller] = c
	}
	if c.AllowN(now, 1) {
		return 0, true
	}
	return time.Duration((1 - c.TokensAt(now)) / float64(l.rate) * float64(time.Second)), false
}

// reserve keeps a place for a request that may turn out to be one that counts;
// settle is to follow. It returns false if there is none.
func (l *limits) reserve(caller string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := float64(l.burst)
	if c := l.callers[caller]; c != nil {
		left = c.TokensAt(now)
	}
	if left-float64(l.reserved[caller]) < 1 {
		return false
	}
	l.reserved[caller]++
	return true
}

// settle gives back a place, and counts the request if it is one that counts.
func (l *limits) settle(caller string, now time.Time, counts bool) {
	if counts {
		l.admit(caller, now)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reserved[caller]--; l.reserved[caller] == 0 {
		delete(l.reserved, caller)
	}
}

// tooMany refuses a request that came too soon.
func tooMany(w http.ResponseWriter, after time.Duration) {
	seconds := max(1, int(math.Ceil(after.Seconds())))
	w.Header().Set("Retry-After", strconv.Itoa(seconds))
	Refusal(TooMany, "you ask more often than api.limits in the daemon's configuration allows; ask again in %d s", seconds).Write(w)
}

// addressOf is where a request comes from.
func addressOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
