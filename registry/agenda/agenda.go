// Package agenda decides when which repository of a registry is looked at.
//
// Each is looked at once in a while, not all at the same moment, and soon if
// somebody says that there is something new. One registry is asked one thing
// after the other, several registries side by side. After a failure a repository
// waits, twice as long each time, up to a bound; if it is the registry that has
// failed, all its repositories wait, and the first one that is looked at again
// tells how it is. What a registry says of how long it wants to be left alone is
// kept to. A wake-up shortens none of these waits, and no repository is looked at
// twice within a second, whoever wants it.
//
// A registry tells of a push before it can be seen: CNCF Distribution does so
// before it moves the tag, and behind others stand caches. So a repository of
// which something new was said is looked at soon, and twice more a while later.
//
// It is pure: the time and the dice are arguments. It keeps nothing, and after a
// crash all repositories are due.
package agenda

import (
	"strings"
	"time"
)

const (
	// pause is the least time between two looks at one repository.
	pause = time.Second
	// How long after news a repository is looked at once more, and for the last
	// time because of them; and for how long they are fresh: until that last look
	// has begun, if nothing fails.
	secondLook = 5 * time.Second
	thirdLook  = 30 * time.Second
	freshFor   = 40 * time.Second
	// The first wait after a failure, and the longest.
	firstWait   = 5 * time.Second
	longestWait = 10 * time.Minute
	// mostOpen bounds how many registries are asked at the same time.
	mostOpen = 16
)

// Agenda is what there is to look at. The zero value has nothing.
type Agenda struct {
	poll  time.Duration
	items map[string]item
	hosts map[string]Host
}

type item struct {
	host     string
	due      time.Time
	last     time.Time // when the last look began; zero: there was none
	news     time.Time // when somebody last said that there is something new
	success  time.Time // the last look that went well
	failing  time.Time // since when looks fail; zero: the last one did not
	failures int       // in a row
	open     bool      // it is being looked at
	again    bool      // once more, for somebody has said so meanwhile
}

// Host is how it is with one registry.
type Host struct {
	Failures int       // in a row
	Failing  time.Time // since when it fails; zero: it does not
	Until    time.Time // it is left alone; zero: it is not
	Success  time.Time // the last look that went well
	open     bool      // one of its repositories is being looked at
}

// State is how it is with one repository.
type State struct {
	Success time.Time // the last look that went well; zero: none did yet
	Failing time.Time // since when it, or its registry, can't be read; zero: it can
	Next    time.Time // when it is looked at again; zero: it is being looked at
}

// Make returns an agenda that has each repository looked at once in poll.
func Make(poll time.Duration) *Agenda {
	return &Agenda{poll: poll, items: map[string]item{}, hosts: map[string]Host{}}
}

// HostOf is the registry of a repository.
func HostOf(repository string) string {
	host, _, _ := strings.Cut(repository, "/")
	return host
}

// Set says which repositories there are. New ones are due.
func (a *Agenda) Set(now time.Time, repositories []string) {
	hosts, wanted := map[string]bool{}, map[string]bool{}
	for _, r := range repositories {
		hosts[HostOf(r)], wanted[r] = true, true
		if _, ok := a.items[r]; !ok {
			a.items[r] = item{host: HostOf(r), due: now}
		}
	}
	for r := range a.items {
		if !wanted[r] {
			delete(a.items, r)
		}
	}
	for h := range a.hosts {
		if !hosts[h] && !a.hosts[h].open {
			delete(a.hosts, h)
		}
	}
}

// Wake has a repository looked at soon.
func (a *Agenda) Wake(now time.Time, repository string) {
	x, ok := a.items[repository]
	switch {
	case !ok || x.failures > 0:
		return
	case x.open:
		x.again = true
	default:
		x.due = earlier(x.due, later(now, x.last.Add(pause)))
	}
	a.items[repository] = x
}

// News has a repository looked at soon, and again when what is new is to be seen
// at last.
func (a *Agenda) News(now time.Time, repository string) {
	if x, ok := a.items[repository]; ok {
		x.news = now
		a.items[repository] = x
	}
	a.Wake(now, repository)
}

// Fresh tells whether what somebody said of a repository may still be to be seen.
func (a *Agenda) Fresh(now time.Time, repository string) bool {
	news := a.items[repository].news
	return !news.IsZero() && now.Sub(news) < freshFor
}

// Next returns the repository that is to be looked at now, if there is one, and
// counts it as being looked at until Done; otherwise, when to ask again: zero,
// if that is not before something else happens.
func (a *Agenda) Next(now time.Time) (repository string, ok bool, at time.Time) {
	open := 0
	for _, h := range a.hosts {
		if h.open {
			open++
		}
	}
	if open >= mostOpen {
		return "", false, time.Time{}
	}
	var best string
	for r, x := range a.items {
		h := a.hosts[x.host]
		if h.open {
			continue
		}
		if due := later(x.due, h.Until); due.After(now) {
			if at.IsZero() || due.Before(at) {
				at = due
			}
			continue
		}
		if y := a.items[best]; best == "" || x.due.Before(y.due) || x.due.Equal(y.due) && r < best {
			best = r
		}
	}
	if best == "" {
		return "", false, at
	}
	x := a.items[best]
	x.open, x.last = true, now
	a.items[best] = x
	h := a.hosts[x.host]
	h.open = true
	a.hosts[x.host] = h
	return best, true, time.Time{}
}

// Outcome is what became of a look.
type Outcome struct {
	Failed bool
	Host   bool      // the registry has failed, and not this repository alone
	Until  time.Time // the registry wants to be left alone; zero: it does not say
}

// Done says what became of a look; dice is from 0 to below 1.
func (a *Agenda) Done(now time.Time, repository string, o Outcome, dice float64) {
	host := HostOf(repository)
	h := a.hosts[host]
	h.open = false
	switch {
	case !o.Failed:
		h = Host{Success: now}
	case o.Host:
		if h.Failures++; h.Failing.IsZero() {
			h.Failing = now
		}
		h.Until = later(now.Add(wait(h.Failures, dice)), o.Until)
	default: // it has answered
		h = Host{Success: h.Success}
	}
	a.hosts[host] = h
	x, ok := a.items[repository]
	if !ok {
		return
	}
	x.open = false
	if !o.Failed {
		x.success, x.failing = now, time.Time{}
	} else if x.failing.IsZero() {
		x.failing = now
	}
	switch {
	case o.Failed: // if it is the host's, others of it are asked first
		x.failures++
		x.due, x.again = now.Add(wait(x.failures, dice)), false
	case x.again:
		x.failures, x.again = 0, false
		x.due = later(now, x.last.Add(pause))
	default:
		x.failures = 0
		x.due = now.Add(time.Duration(float64(a.poll) * (0.9 + 0.2*dice)))
		for _, after := range []time.Duration{secondLook, thirdLook} {
			if again := x.news.Add(after); !x.news.IsZero() && again.After(x.last) {
				x.due = earlier(x.due, later(again, x.last.Add(pause)))
				break
			}
		}
	}
	a.items[repository] = x
}

// wait is how long to wait after so many failures: from a half to all of a time
// that is doubled by each.
func wait(failures int, dice float64) time.Duration {
	most := min(firstWait<<min(failures-1, 20), longestWait)
	return time.Duration(float64(most) * (0.5 + 0.5*dice))
}

// Hosts returns how it is with each registry that is to be looked at, by its name.
// One fails since the first of its repositories does that can't be read.
func (a *Agenda) Hosts() map[string]Host {
	all := map[string]Host{}
	for _, x := range a.items {
		h, ok := all[x.host]
		if !ok {
			h = a.hosts[x.host]
		}
		h.Failing = first(h.Failing, x.failing)
		all[x.host] = h
	}
	return all
}

// State returns how it is with a repository; ok is false if there is none.
func (a *Agenda) State(repository string) (s State, ok bool) {
	x, ok := a.items[repository]
	if !ok {
		return s, false
	}
	h := a.hosts[x.host]
	s = State{Success: x.success, Failing: first(h.Failing, x.failing), Next: later(x.due, h.Until)}
	if x.open {
		s.Next = time.Time{}
	}
	return s, true
}

// first returns the earlier of two times of which each may be zero: never.
func first(a, b time.Time) time.Time {
	if a.IsZero() || b.IsZero() {
		return later(a, b)
	}
	return earlier(a, b)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
