package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/policy"
)

const (
	tryTime      = 10 * time.Second // of one request, with its redirects and its body
	maxBody      = 1 << 20
	maxRedirects = 5
)

// refusedError says that a connection was not made, for it could give away
// credentials of the machine.
type refusedError struct{ address netip.Addr }

func (e *refusedError) Error() string {
	return fmt.Sprintf("%s is an address at which clouds hand out credentials, and is never asked", e.address)
}

// metadata are the addresses at which a cloud tells a machine its credentials:
// those of a link, and those that some clouds have put elsewhere (AWS's and
// Google's for IPv6, Azure's, Alibaba's).
var metadata = []netip.Prefix{
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("fd00:ec2::/32"), netip.MustParsePrefix("fd20:ce::/32"),
	netip.MustParsePrefix("168.63.129.16/32"), netip.MustParsePrefix("100.100.100.200/32"),
}

// nat64 and mapped addresses stand for an IPv4 address (RFC 6052).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

func refused(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	for _, p := range metadata {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// newClient returns the client of all checks; see the package's comment. No
// resolver means the system's.
func newClient(resolver *net.Resolver) *http.Client {
	dialer := &net.Dialer{
		Timeout:  tryTime,
		Resolver: resolver,
		// After the name was looked up, so no name server can lead astray.
		Control: func(_, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			if refused(to.Addr()) {
				return &refusedError{to.Addr()}
			}
			return nil
		},
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext:         dialer.DialContext,
			TLSHandshakeTimeout: tryTime,
			ForceAttemptHTTP2:   true,
			// A kept connection would lead to the pod of before.
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: 1 << 16,
		},
		CheckRedirect: func(next *http.Request, before []*http.Request) error {
			if next.URL.Hostname() != before[0].URL.Hostname() || (next.URL.Scheme != "http" && next.URL.Scheme != "https") {
				return http.ErrUseLastResponse
			}
			if len(before) > maxRedirects {
				return fmt.Errorf("more than %d redirects", maxRedirects)
			}
			return nil
		},
	}
}

// answer is what an address answered.
type answer struct {
	status    int
	headers   map[string]string // by names in lower case
	body      []byte
	cut       bool   // the body was longer
	elsewhere string // the other host that it redirects to
}

// fetch asks an address once.
func (r *Runner) fetch(ctx context.Context, target *url.URL) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, errors.New("the address can't be used")
	}
	request.Header.Set("User-Agent", "pinion")
	request.Header.Set("Accept", "application/json, */*;q=0.5")
	response, err := r.client.Do(request)
	if err != nil {
		return nil, silence(err)
	}
	defer response.Body.Close()
	a := &answer{status: response.StatusCode, headers: make(map[string]string, len(response.Header))}
	for name, values := range response.Header {
		a.headers[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	if to, err := response.Location(); err == nil && response.StatusCode/100 == 3 {
		a.elsewhere = shown(to)
	}
	a.body, err = io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	if err != nil {
		return nil, silence(err)
	}
	if len(a.body) > maxBody {
		a.body, a.cut = a.body[:maxBody], true
	}
	return a, nil
}

// silence says why there is no answer, without the address that was asked.
func silence(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	var refused *refusedError
	var slow net.Error
	switch {
	case errors.As(err, &refused):
		return refused
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &slow) && slow.Timeout():
		return fmt.Errorf("no answer within %s", tryTime)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the connection broke off")
	}
	return err
}

// address parses an address of a policy.
func address(text string, q Request) (*url.URL, error) {
	u, err := url.Parse(desired.Expand(text, q.Environment, q.Service))
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		return nil, fmt.Errorf("%s: the url is not http://HOST/PATH or https://HOST/PATH", q.Policy.File)
	}
	return u, nil
}

// shown returns an address without user info.
func shown(u *url.URL) string {
	c := *u
	c.User = nil
	return c.String()
}

// http asks an address until it answers as expected.
func (r *Runner) http(ctx context.Context, q Request, say func(string)) (Result, error) {
	target, err := address(q.Policy.HTTP.URL, q)
	if err != nil {
		return failed("%v", err), nil
	}
	expect, err := policy.CompileHTTP(q.Policy.HTTP.Expect)
	if err != nil {
		return failed("%s: expect: %v", q.Policy.Expression, err), nil
	}
	where := "GET " + shown(target)
	limited, within, cancel := q.bounded(ctx, boundHTTP)
	defer cancel()
	pace := r.pace(q)
	last := ""
	for {
		a, err := r.fetch(limited, target)
		if ctx.Err() != nil {
			return Result{}, ctx.Err()
		}
		var refused *refusedError
		switch {
		case errors.As(err, &refused):
			result := failed("%s: %v", where, refused)
			result.URL = shown(target)
			return result, nil
		case err != nil && limited.Err() != nil:
			if last == "" { // else it was cut short
				last = "no answer"
			}
		case err != nil:
			last = err.Error()
		default:
			met, err := expect.Eval(policy.HTTPVariables(a.status, a.headers, a.body))
			if met && err == nil {
				result := passed("%s: %d, as expected: %s", where, a.status, q.Policy.HTTP.Expect)
				result.URL = shown(target)
				return result, nil
			}
			last = fmt.Sprintf("%d, wanted %s", a.status, q.Policy.HTTP.Expect)
			if err != nil {
				last += fmt.Sprintf(" (%v)", err)
			}
			if a.cut {
				last += fmt.Sprintf("; of the body only the first %d MiB were read", maxBody>>20)
			}
			if a.elsewhere != "" {
				last += "; it redirects to " + a.elsewhere + ", and another host is not followed"
			}
		}
		say(where + ": " + last)
		if !wait(limited, pace.next()) {
			break
		}
	}
	if ctx.Err() != nil {
		return Result{}, ctx.Err()
	}
	result := failed("%s: %s; not as expected within %s", where, last, within)
	result.URL = shown(target)
	return result, nil
}
