package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// Term is a time for which a lease is surely ours: from the moment before the
// request that took it was sent, until it is lost or has not been renewed for
// too long. A nil Term stands for one that nobody else competes for, and never
// ends.
type Term struct {
	// Lease is the lease's name, and Number which of its terms this is: it
	// grows whenever another replica takes the lease.
	Lease  string
	Number int

	lasts  time.Duration // after a renewal
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	renewed time.Time // guarded by mu; before the last request that succeeded was sent
}

// LostError says that a lease is not ours any more, or may not be.
type LostError struct {
	Lease string
	Why   string
}

func (e *LostError) Error() string {
	return fmt.Sprintf("lease %s is lost: %s; nothing is written under it any more", e.Lease, e.Why)
}

func newTerm(lease string, number int, lasts time.Duration, began time.Time) *Term {
	t := &Term{Lease: lease, Number: number, lasts: lasts, renewed: began}
	t.ctx, t.cancel = context.WithCancelCause(context.Background())
	return t
}

// Check tells, by the clocks of this machine and without a request, whether
// the lease is still ours. It is asked again in the last moment before each
// write, for a process that was stopped in between has not noticed anything.
func (t *Term) Check() error {
	if t == nil {
		return nil
	}
	if t.ctx.Err() != nil {
		return context.Cause(t.ctx)
	}
	t.mu.Lock()
	age := elapsed(t.renewed, time.Now())
	t.mu.Unlock()
	if age >= t.lasts {
		t.end("it was not renewed for " + age.Round(time.Millisecond).String())
		return context.Cause(t.ctx)
	}
	return nil
}

// left is for how long the term lasts if it is not renewed.
func (t *Term) left() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lasts - elapsed(t.renewed, time.Now())
}

// elapsed is the time between two moments of this process, by the clock that
// says more. The monotonic one stands still while the machine sleeps, the wall
// clock may be set back.
func elapsed(from, to time.Time) time.Duration {
	return max(to.Sub(from), to.Round(0).Sub(from.Round(0)))
}

func (t *Term) renew(sent time.Time) {
	t.mu.Lock()
	t.renewed = sent
	t.mu.Unlock()
}

func (t *Term) end(why string) { t.cancel(&LostError{t.Lease, why}) }

// Done is closed when the term is over.
func (t *Term) Done() <-chan struct{} {
	if t == nil {
		return nil
	}
	return t.ctx.Done()
}

type termKey struct{}

// Context returns a context that ends with the term, and under which no
// request that writes is sent once it is over.
func (t *Term) Context(parent context.Context) (context.Context, context.CancelFunc) {
	if t == nil {
		return context.WithCancel(parent)
	}
	ctx, cancel := context.WithCancelCause(context.WithValue(parent, termKey{}, t))
	stop := context.AfterFunc(t.ctx, func() { cancel(context.Cause(t.ctx)) })
	return ctx, func() { stop(); cancel(context.Canceled) }
}

// fence has the term of a request checked before it is sent, and again when
// its body is: that is after a connection was found, which may have taken long.
func fence(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		t, _ := r.Context().Value(termKey{}).(*Term)
		if t == nil || r.Method == http.MethodGet || r.Method == http.MethodHead {
			return next.RoundTrip(r)
		}
		if err := t.Check(); err != nil {
			if r.Body != nil {
				r.Body.Close()
			}
			return nil, err
		}
		r = r.Clone(r.Context())
		if r.Body != nil {
			r.Body = &fencedBody{r.Body, t}
		}
		if again := r.GetBody; again != nil {
			r.GetBody = func() (io.ReadCloser, error) {
				b, err := again()
				if err != nil {
					return nil, err
				}
				return &fencedBody{b, t}, nil
			}
		}
		return next.RoundTrip(r)
	})
}

type fencedBody struct {
	io.ReadCloser
	term *Term
}

func (b *fencedBody) Read(p []byte) (int, error) {
	if err := b.term.Check(); err != nil {
		return 0, err
	}
	return b.ReadCloser.Read(p)
}

// isLost finds out whether a request was not sent for a lease's sake.
func isLost(err error) (*LostError, bool) {
	var lost *LostError
	ok := errors.As(err, &lost)
	return lost, ok
}
