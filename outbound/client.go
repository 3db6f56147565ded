package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

// DefaultTimeout is of one request, with its redirects and its answer.
const DefaultTimeout = 10 * time.Second

const (
	maxRedirects = 5
	maxHeader    = 1 << 16 // bytes
	idleTime     = 30 * time.Second
)

// Redirects says which redirects are followed.
type Redirects int

// The zero value is the strictest that does without surprises.
const (
	SameHost Redirects = iota // with http or https; others come back as they are
	Listed                    // to any host that Allow admits
	None
)

// Options say how a client asks.
type Options struct {
	// Allow is who may be asked; the zero value: nobody.
	Allow     Allow
	Redirects Redirects
	Timeout   time.Duration // 0: DefaultTimeout; negative: only the request's context bounds it
	// KeepAlive keeps connections, for who asks the same server again and again.
	// Else each request has one of its own, and reaches the pod of now.
	KeepAlive bool
	RootCAs   *x509.CertPool // nil: the system's
	Resolver  *net.Resolver  // nil: the system's
}

// NewClient returns a client; see the package's comment.
func NewClient(o Options) *http.Client {
	limit := o.Timeout
	switch {
	case limit == 0:
		limit = DefaultTimeout
	case limit < 0:
		limit = 0
	}
	dialer := &net.Dialer{
		Timeout:  DefaultTimeout,
		Resolver: o.Resolver,
		// After the name was looked up, so no name server can lead astray.
		Control: func(_, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			if isMetadata(to.Addr()) {
				return &MetadataError{to.Addr()}
			}
			return nil
		},
	}
	return &http.Client{
		Timeout: limit,
		Transport: &guard{allow: o.Allow, next: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: o.RootCAs},
			TLSHandshakeTimeout:    DefaultTimeout,
			ForceAttemptHTTP2:      true,
			DisableKeepAlives:      !o.KeepAlive,
			IdleConnTimeout:        idleTime,
			MaxIdleConnsPerHost:    8,
			MaxResponseHeaderBytes: maxHeader,
		}},
		CheckRedirect: func(next *http.Request, before []*http.Request) error {
			elsewhere := next.URL.Hostname() != before[0].URL.Hostname()
			switch {
			case o.Redirects == None,
				next.URL.Scheme != "http" && next.URL.Scheme != "https",
				elsewhere && o.Redirects == SameHost:
				return http.ErrUseLastResponse
			case len(before) > maxRedirects:
				return fmt.Errorf("more than %d redirects", maxRedirects)
			}
			return nil
		},
	}
}

// guard holds each request to the list, those of redirects too.
type guard struct {
	allow Allow
	next  *http.Transport
}

func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := g.allow.Check(r.URL); err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	return g.next.RoundTrip(r)
}

// CloseIdleConnections is what http.Client looks for.
func (g *guard) CloseIdleConnections() { g.next.CloseIdleConnections() }

// Forbidden returns why an address will never be asked, as long as nobody
// changes the address or the list; nil if an error is of another kind.
func Forbidden(err error) error {
	if e, ok := errors.AsType[*MetadataError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*ForbiddenError](err); ok {
		return e
	}
	return nil
}

// Cause says why there was no answer, without the address that was asked, which
// may hold a password.
func Cause(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	var slow net.Error
	switch {
	case Forbidden(err) != nil:
		return Forbidden(err)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &slow) && slow.Timeout():
		return errors.New("no answer in time")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the connection broke off")
	}
	if name, ok := errors.AsType[*net.DNSError](err); ok {
		if name.IsNotFound {
			return errors.New("the host's name is not known")
		}
		return errors.New("the host's name can't be looked up")
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return fmt.Errorf("%s: %w", op.Op, op.Err)
	}
	return err
}

// Show returns an address without user info.
func Show(u *url.URL) string {
	c := *u
	c.User = nil
	return c.String()
}
