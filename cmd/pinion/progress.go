package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

// progress tells on standard error what moves and what waits, for what, and
// why. On a terminal, the services that move are redrawn below what is told;
// elsewhere each change is a line, and what still waits is said again now and
// then.
type progress struct {
	w     io.Writer
	width int  // of the terminal
	tty   bool // lines may be redrawn
	now   func() time.Time
	color palette

	mu     sync.Mutex                 // guards all below
	moving map[reconcile.Key]movement // services that are on their way
	told   repeats
	done   int
	total  int
	drawn  int // lines on the terminal that are redrawn
	said   time.Time
}

type movement struct {
	since   time.Time // of its being on its way
	changed time.Time // the event came
	event   reconcile.Event
	unsaid  bool // the event has no line yet
	again   bool // it is tried as it was before, and failed
}

// reminder is the time between two reminders of what waits, and steady how
// long something has to wait for the same before that is worth a line.
const (
	reminder = 15 * time.Second
	steady   = 700 * time.Millisecond
)

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, now: time.Now, moving: map[reconcile.Key]movement{}}
	p.width, p.tty = terminal(w)
	p.color = paletteFor(w)
	p.said = p.now()
	return p
}

// start has the waiting told again until the returned function is called.
func (p *progress) start() (stop func()) {
	interval := steady / 2
	if p.tty {
		interval = time.Second
	}
	ticker := time.NewTicker(interval)
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			select {
			case <-ticker.C:
				p.remind()
			case <-done:
				return
			}
		}
	})
	return func() {
		ticker.Stop()
		close(done)
		wait.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.erase()
	}
}

// remind says what has come to wait for something, and says again what waits
// if nothing else was said for a while.
func (p *progress) remind() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tty {
		p.erase()
		p.draw()
		return
	}
	keys := slices.SortedFunc(maps.Keys(p.moving), reconcile.Key.Compare)
	for _, k := range keys {
		m := p.moving[k]
		if m.unsaid && p.now().Sub(m.changed) >= steady {
			m.unsaid = false
			p.moving[k] = m
			p.line(fmt.Sprintf("%s %s %s%s", m.event.Phase, k, m.event.Version, reason(m.event.Message)))
		}
	}
	keys = slices.DeleteFunc(keys, func(k reconcile.Key) bool { return p.moving[k].again })
	if len(keys) == 0 || p.now().Sub(p.said) < reminder {
		return
	}
	const most = 5
	for i, k := range keys {
		if i == most {
			p.line(fmt.Sprintf("… and %d more", len(keys)-most))
			break
		}
		m := p.moving[k]
		p.line(fmt.Sprintf("still %s %s, for %s%s", m.event.Phase, k, p.now().Sub(m.since).Round(time.Second), reason(m.event.Message)))
	}
}

// report tells one event.
func (p *progress) report(ev reconcile.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ev.Total > 0 { // else it is no event of the engine's
		p.done, p.total = ev.Done, ev.Total
	}
	ev.Message = printable(ev.Message)
	p.erase()
	defer p.draw()
	key := reconcile.Key{Environment: ev.Environment, Service: ev.Service}
	name := strings.TrimSuffix(key.String(), "/")
	switch ev.Type {
	case reconcile.EventPhase:
		p.phase(key, ev)
	case reconcile.EventCommit:
		if name == "" {
			p.line(fmt.Sprintf("commit %.12s: %s", ev.Commit, ev.Message))
		} else {
			delete(p.moving, key)
			p.told.gone(key)
			p.line(fmt.Sprintf("%s is gone: %s", name, ev.Message))
		}
	case reconcile.EventProblem:
		if ev.Severity == desired.SeverityWarning {
			p.line(p.color.wait(join(name, ev.Message)))
		} else {
			p.line(p.color.bad(join(name, ev.Message)))
		}
	case reconcile.EventHalted:
		p.line(p.color.bad("halted: " + ev.Message))
	case reconcile.EventWarning:
		p.line(p.color.wait("warning: " + join(name, ev.Message)))
	case reconcile.EventDrifted:
		p.line(p.color.wait("drift: " + join(name, ev.Message)))
	case reconcile.EventApplied:
		p.line(fmt.Sprintf("applied %s %s (commit %.12s): %s", name, ev.Version, ev.Commit, ev.Message))
	case reconcile.EventPruned:
		p.line(fmt.Sprintf("deleted %s", join(name, ev.Message)))
	case reconcile.EventRecorded:
		p.line(p.entry(ev))
	case reconcile.EventMoved, reconcile.EventChecking, reconcile.EventArtifact:
		p.line(join(name, ev.Message))
	default:
		p.line(join(name, string(ev.Type)+": "+ev.Message))
	}
}

// entry returns the subject of an entry, in the colour of what it tells.
func (p *progress) entry(ev reconcile.Event) string {
	if ev.Entry == nil {
		return ev.Message
	}
	switch ev.Entry.Event {
	case ledger.EventVerified, ledger.EventApproved:
		return p.color.good(ev.Message)
	case ledger.EventFailed:
		return p.color.bad(ev.Message + reason(ev.Entry.Reason))
	case ledger.EventOffered:
		return p.color.wait(ev.Message + reason(ev.Entry.Reason))
	}
	return ev.Message
}

// phase tells that a service's phase, or what it waits for, has changed.
func (p *progress) phase(key reconcile.Key, ev reconcile.Event) {
	m, known := p.moving[key]
	if !known {
		m.since = p.now()
	}
	more, worth := p.told.worth(ev, p.now())
	m.event, m.changed, m.unsaid, m.again = ev, p.now(), false, !worth
	took := ""
	if d := p.now().Sub(m.since); known && d >= time.Second {
		took = fmt.Sprintf(" after %s", d.Round(100*time.Millisecond))
	}
	switch ev.Phase {
	case reconcile.Ready:
		delete(p.moving, key)
		p.line(p.color.good(fmt.Sprintf("ready %s %s%s%s", key, ev.Version, took, reason(ev.Message))))
	case reconcile.Failed, reconcile.Degraded:
		if delete(p.moving, key); worth {
			p.line(p.color.bad(fmt.Sprintf("%s %s %s%s%s%s", ev.Phase, key, ev.Version, took, reason(ev.Message), more)))
		}
	case reconcile.Suspended:
		delete(p.moving, key)
		p.line(p.color.wait(fmt.Sprintf("%s %s %s%s", ev.Phase, key, ev.Version, reason(ev.Message))))
	case reconcile.Applying, reconcile.Pending:
		p.moving[key] = m
	default:
		m.unsaid = worth
		p.moving[key] = m
	}
}

func reason(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}

func join(name, message string) string {
	if name == "" {
		return message
	}
	return name + ": " + message
}

// line appends a line that stays.
func (p *progress) line(s string) {
	p.said = p.now()
	count := ""
	if p.total > 0 {
		count = fmt.Sprintf("[%d/%d done] ", p.done, p.total)
	}
	fmt.Fprintf(p.w, "%s %s%s\n", p.said.Format(time.TimeOnly), count, strings.ReplaceAll(s, "\n", "\n         "))
}

// draw writes the services that move below the lines that stay.
func (p *progress) draw() {
	if !p.tty || len(p.moving) == 0 {
		return
	}
	const most = 8
	keys := slices.SortedFunc(maps.Keys(p.moving), reconcile.Key.Compare)
	for i, k := range keys {
		if i == most {
			p.drawn++
			fmt.Fprintf(p.w, "  … and %d more\n", len(keys)-most)
			break
		}
		m := p.moving[k]
		s := fmt.Sprintf("  %s %s %s%s", m.event.Phase, k, p.now().Sub(m.since).Round(time.Second), reason(m.event.Message))
		fmt.Fprintln(p.w, p.color.wait(truncate(strings.ReplaceAll(s, "\n", " "), p.width-1)))
		p.drawn++
	}
}

// erase takes away what draw has written.
func (p *progress) erase() {
	if p.drawn > 0 {
		fmt.Fprintf(p.w, "\x1b[%dA\x1b[J", p.drawn)
		p.drawn = 0
	}
}

// truncate cuts a line to a number of characters.
func truncate(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:max(n-1, 0)]) + "…"
}
