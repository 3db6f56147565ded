package gitstate

import (
	"context"
	"io"
	"net/http"
	"time"
)

// What conversations may do that have been left: how many of them there are, for how
// long each goes on, and how much longer when the mirror is closed.
const (
	mostLeft = 4
	leftFor  = 5 * time.Minute
	leftLast = 2 * time.Second
)

// leave ends a conversation. If a push was answered in it, the other side may be at
// work still: a hook, or the upkeep of its repository. Whoever pushed does not wait for
// that; but somebody listens until it ends, for what has a hook's output may end the
// hook where nobody does.
func (m *Mirror) leave(l *line) {
	if !l.answered {
		l.hangUp()
		return
	}
	select {
	case m.remote.left <- struct{}{}:
	default: // so many are at work already
		l.listen()
		l.hangUp()
		return
	}
	m.mu.Lock()
	stay := !m.closed && l.detach()
	if stay {
		m.running.Add(1)
	}
	m.mu.Unlock()
	if !stay {
		<-m.remote.left
		l.hangUp()
		return
	}
	go func() {
		defer m.running.Done()
		defer func() { <-m.remote.left }()
		defer l.hangUp()
		defer context.AfterFunc(m.done, func() { time.AfterFunc(leftLast, l.cancel) })()
		defer time.AfterFunc(leftFor, l.cancel).Stop()
		l.listen()
	}()
}

// listen reads what the other side says, until it has ended.
func (l *line) listen() { io.Copy(io.Discard, l.progress.reader(l.session.rest())) }

// answers keeps the body of the last answer.
type answers struct {
	http.RoundTripper
	last io.ReadCloser
}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := a.RoundTripper.RoundTrip(r)
	if err == nil {
		a.last = resp.Body
	}
	return resp, err
}
