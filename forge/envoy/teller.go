package envoy

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/forge"
	"github.com/pinion-cd/pinion/forge/rest"
	"github.com/pinion-cd/pinion/ledger"
)

// Statuses is what a Teller needs of a forge.
type Statuses interface {
	SetStatus(ctx context.Context, commit string, s forge.Status) error
	Statuses(ctx context.Context, commit string) (map[string]forge.Status, error)
}

// TellerOptions are what a Teller works with.
type TellerOptions struct {
	Forge Statuses
	// Ours tells whether an environment is ours to speak of; nil: all are.
	Ours func(desired.EnvironmentName) bool
	// Link is the address that a status leads to, with {environment} and
	// {commit} in it; "": none.
	Link string
	Log  *slog.Logger
}

// place is one status: of an environment, on a commit.
type place struct {
	environment desired.EnvironmentName
	commit      string
}

// said is what a place was told, and when.
type said struct {
	status forge.Status
	at     time.Time
}

// Teller writes commit statuses.
type Teller struct {
	options TellerOptions
	woken   chan struct{}

	mu      sync.Mutex // guards what follows
	records map[desired.EnvironmentName]map[desired.ServiceName]ledger.Record
	due     []place // the oldest first
	queued  map[place]bool

	// What follows belongs to the goroutine in Run.

	said     map[place]said
	later    map[place]time.Time // to be said again, if nothing else comes before
	asked    map[string]bool     // commits of which the forge's statuses were read
	tries    map[place]int
	troubled string
}

// The pace of a Teller. GitHub asks for no more than 80 writes a minute, and
// takes 1000 statuses of one context on a commit.
const (
	tellEvery   = time.Second
	rephrase    = 30 * time.Second // at the earliest, if only the words are others
	firstRetry  = 5 * time.Second
	longRetry   = 5 * time.Minute
	mostTries   = 12
	recently    = 24 * time.Hour // what has left before is told no more after a start
	mostSaid    = 20_000
	mostWaiting = 20_000
)

// NewTeller returns a Teller.
func NewTeller(o TellerOptions) *Teller {
	if o.Ours == nil {
		o.Ours = func(desired.EnvironmentName) bool { return true }
	}
	return &Teller{
		options: o,
		woken:   make(chan struct{}, 1),
		records: map[desired.EnvironmentName]map[desired.ServiceName]ledger.Record{},
		queued:  map[place]bool{},
		said:    map[place]said{},
		later:   map[place]time.Time{},
		asked:   map[string]bool{},
		tries:   map[place]int{},
	}
}

// Know takes in a record as it was pushed; it never waits.
func (t *Teller) Know(r ledger.Record, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.records[r.Environment]
	if of == nil {
		of = map[desired.ServiceName]ledger.Record{}
		t.records[r.Environment] = of
	}
	old, known := of[r.Service]
	of[r.Service] = r
	if known && old.Deployment.ID == r.Deployment.ID && old.Deployment.State == r.Deployment.State {
		return
	}
	t.add(place{r.Environment, r.Deployment.Commit})
	for _, p := range r.Previous {
		if known && p.ID == old.Deployment.ID || p.Left.After(now.Add(-recently)) {
			t.add(place{r.Environment, p.Commit})
		}
		if known && p.ID == old.Deployment.ID {
			break
		}
	}
	select {
	case t.woken <- struct{}{}:
	default:
	}
}

// add puts a place at the end of what is due; mu is held.
func (t *Teller) add(p place) {
	if p.commit == "" || t.queued[p] || len(t.due) >= mostWaiting {
		return
	}
	t.queued[p] = true
	t.due = append(t.due, p)
}

// ripen makes due what was put off until now, and returns when there is more.
func (t *Teller) ripen(now time.Time) time.Duration {
	wait := time.Hour
	t.mu.Lock()
	defer t.mu.Unlock()
	for p, at := range t.later {
		if now.Before(at) {
			wait = min(wait, at.Sub(now))
			continue
		}
		delete(t.later, p)
		t.add(p)
	}
	return wait
}

// next takes what has waited longest.
func (t *Teller) next() (p place, s forge.Status, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.due) > 0 {
		p, t.due = t.due[0], t.due[1:]
		delete(t.queued, p)
		if !t.options.Ours(p.environment) {
			continue
		}
		var all []ledger.Record
		for _, r := range t.records[p.environment] {
			all = append(all, r)
		}
		if s, ok = forge.Of(p.environment, p.commit, all); ok {
			return p, s, true
		}
	}
	return p, s, false
}

// Run tells until ctx ends.
func (t *Teller) Run(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
		wait := t.ripen(time.Now())
		p, s, ok := t.next()
		if !ok {
			pause.Reset(wait)
			select {
			case <-t.woken:
				pause.Reset(0)
			case <-pause.C:
				pause.Reset(0)
			case <-ctx.Done():
				return
			}
			continue
		}
		s.URL = strings.NewReplacer("{environment}", string(p.environment), "{commit}", p.commit).Replace(t.options.Link)
		pause.Reset(t.tell(ctx, p, s))
	}
}

// tell makes the forge say of a place what is to be said, and returns for how
// long to leave it alone.
func (t *Teller) tell(ctx context.Context, p place, s forge.Status) time.Duration {
	if !t.asked[p.commit] {
		there, err := t.options.Forge.Statuses(ctx, p.commit)
		if err != nil {
			return t.failed(ctx, p, err)
		}
		if len(t.asked) > mostSaid {
			clear(t.asked)
			clear(t.said)
		}
		t.asked[p.commit] = true
		for context, one := range there {
			if env, ours := strings.CutPrefix(context, forge.ContextPrefix); ours {
				t.said[place{desired.EnvironmentName(env), p.commit}] = said{status: one}
			}
		}
	}
	before, now := t.said[p], time.Now()
	switch {
	case before.status == s:
		return 0
	case before.status.State == s.State && now.Sub(before.at) < rephrase:
		t.later[p] = before.at.Add(rephrase)
		return 0
	}
	if err := t.options.Forge.SetStatus(ctx, p.commit, s); err != nil {
		return t.failed(ctx, p, err)
	}
	t.said[p] = said{s, now}
	delete(t.tries, p)
	if t.troubled != "" {
		t.troubled = ""
		t.options.Log.Info("commit statuses can be written again")
	}
	return tellEvery
}

// failed has a place looked at once more, and returns for how long to wait. It
// is given up when a commit is not to the forge's taste.
func (t *Teller) failed(ctx context.Context, p place, err error) time.Duration {
	if ctx.Err() != nil {
		return 0
	}
	if text := err.Error(); text != t.troubled {
		t.troubled = text
		t.options.Log.Warn("a commit status could not be written; it is tried again", "environment", p.environment, "commit", p.commit, "error", err)
	}
	t.tries[p]++
	wait := min(firstRetry<<min(t.tries[p]-1, 10), longRetry)
	if t.tries[p] >= mostTries && !errors.Is(err, rest.ErrResting) && !errors.Is(err, rest.ErrUnknown) && !errors.Is(err, rest.ErrDenied) {
		delete(t.tries, p)
		t.options.Log.Warn("a commit status is given up", "environment", p.environment, "commit", p.commit)
		return tellEvery
	}
	t.mu.Lock()
	t.add(p)
	alone := len(t.due) == 1
	t.mu.Unlock()
	if !alone && !errors.Is(err, rest.ErrResting) && !errors.Is(err, rest.ErrDenied) {
		return firstRetry // others may fare better
	}
	return wait
}
