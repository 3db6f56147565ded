package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/pinion-cd/pinion/outbound"
)

const (
	maxRedirects = 5
	// maxBody bounds each answer, unpacked. Manifests of several megabytes are
	// refused by registries themselves.
	maxBody = 4 << 20
	// What is kept to be asked for by its entity tag.
	maxKept    = 256 << 10 // bytes of one answer's body
	maxKeptAll = 16 << 20  // of all, with what they are found by and their headers
	mostKept   = 10_000    // of them
	// mostHosts bounds what is known of hosts: redirects may lead to ever new names.
	mostHosts   = 1000
	longestRest = time.Hour // that a registry is left alone for, whatever it says
)

// Result is what became of a request.
type Result string

// The results.
const (
	Success   Result = "success"
	Unchanged Result = "unchanged" // as its entity tag says
	Refused   Result = "refused"   // 4xx, the asking for credentials included
	Limited   Result = "limited"   // 429, or 503 that says when to come back
	Failure   Result = "failure"   // 5xx, no answer, or one that breaks a bound
)

// Results are all of them.
var Results = []Result{Success, Unchanged, Refused, Limited, Failure}

// BusyError says that a registry wants to be left alone.
type BusyError struct {
	Host  string
	Until time.Time // zero: it does not say for how long
}

func (e *BusyError) Error() string {
	if e.Until.IsZero() {
		return e.Host + " answers that it is asked too often"
	}
	return fmt.Sprintf("%s answers that it is asked too often, and wants to be left alone until %s", e.Host, e.Until.UTC().Format(time.RFC3339))
}

// reachError says that a host has not answered.
type reachError struct{ err error }

func (e *reachError) Error() string { return e.err.Error() }
func (e *reachError) Unwrap() error { return e.err }

// edge is what each request passes through, those of redirects and for tokens
// too.
type edge struct {
	next     http.RoundTripper
	insecure []string
	rate     rate.Limit
	count    func(host string, r Result)

	mu       sync.Mutex // guards what follows
	limiters map[string]*rate.Limiter
	busy     map[string]time.Time // until when a host is left alone
	kept     map[string]kept
	bytes    int // that are kept
}

// kept is an answer with an entity tag.
type kept struct {
	tag    string
	header http.Header
	body   []byte
}

func (e *edge) RoundTrip(r *http.Request) (*http.Response, error) {
	host := strings.ToLower(r.URL.Host)
	depth := 0
	for before := r.Response; before != nil && before.Request != nil; before = before.Request.Response {
		if depth++; depth > maxRedirects {
			return nil, fmt.Errorf("more than %d redirects", maxRedirects)
		}
	}
	if r.URL.Scheme == "http" && !e.plain(host) {
		return nil, &plainError{host}
	}
	limiter, err := e.enter(host, time.Now())
	if err != nil {
		return nil, err
	}
	if err := limiter.Wait(r.Context()); err != nil {
		if r.Context().Err() == nil {
			err = context.DeadlineExceeded // there is no place before the request's time is over
		}
		return nil, err
	}
	key, old := e.recall(r)
	if old.tag != "" {
		r = r.Clone(r.Context())
		r.Header.Set("If-None-Match", old.tag)
	}
	resp, err := e.next.RoundTrip(r)
	if err != nil {
		e.count(host, Failure)
		if outbound.Forbidden(err) == nil && !errors.Is(err, context.Canceled) {
			err = &reachError{err}
		}
		return nil, err
	}
	result, err := e.settle(host, resp)
	if err != nil {
		resp.Body.Close()
		e.count(host, result)
		return nil, err
	}
	if resp.StatusCode == http.StatusNotModified && old.tag != "" {
		resp.Body.Close()
		e.count(host, Unchanged)
		return old.response(r), nil
	}
	if err := e.keep(key, r, resp); err != nil {
		e.count(host, Failure)
		return nil, err
	}
	e.count(host, result)
	return resp, nil
}

// plain tells whether plain HTTP may be spoken to a host.
func (e *edge) plain(host string) bool {
	return isLoopback(host) || slices.Contains(e.insecure, host)
}

func isLoopback(host string) bool {
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host = host[:i]
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || err == nil && a.IsLoopback()
}

type plainError struct{ host string }

func (e *plainError) Error() string {
	return fmt.Sprintf("plain HTTP is not spoken to %s; add it to registry.insecure in the daemon's configuration", e.host)
}

// enter returns what bounds the rate of a host, unless that is to be left alone.
func (e *edge) enter(host string, now time.Time) (*rate.Limiter, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if until, ok := e.busy[host]; ok {
		if now.Before(until) {
			return nil, &BusyError{host, until}
		}
		delete(e.busy, host)
	}
	l := e.limiters[host]
	if l == nil {
		if len(e.limiters) >= mostHosts {
			clear(e.limiters)
		}
		l = rate.NewLimiter(e.rate, max(1, int(e.rate)))
		e.limiters[host] = l
	}
	return l, nil
}

// settle judges an answer by its status, and bounds its body.
func (e *edge) settle(host string, resp *http.Response) (Result, error) {
	status := resp.StatusCode
	until := retryAfter(resp.Header.Get("Retry-After"), time.Now())
	switch {
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable && !until.IsZero():
		if !until.IsZero() {
			e.leave(host, until)
		}
		return Limited, &BusyError{host, until}
	case resp.ContentLength > maxBody && resp.Request.Method != http.MethodHead:
		return Failure, fmt.Errorf("the answer has %d bytes, and may have %d", resp.ContentLength, maxBody)
	}
	resp.Body = &bounded{resp.Body, maxBody}
	switch {
	case status >= 500:
		return Failure, nil
	case status >= 400:
		return Refused, nil
	}
	return Success, nil
}

// leave has a host left alone. If there are too many of those, the one whose time
// is over first is not.
func (e *edge) leave(host string, until time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, known := e.busy[host]; !known && len(e.busy) >= mostHosts {
		first := host
		for h, t := range e.busy {
			if first == host || t.Before(e.busy[first]) {
				first = h
			}
		}
		delete(e.busy, first)
	}
	e.busy[host] = until
}

// retryAfter reads https://www.rfc-editor.org/rfc/rfc9110#field.retry-after; the
// zero time: it says nothing that counts.
func retryAfter(s string, now time.Time) time.Time {
	var until time.Time
	if seconds, err := strconv.ParseUint(s, 10, 31); err == nil {
		until = now.Add(time.Duration(seconds) * time.Second)
	} else if until, err = http.ParseTime(s); err != nil {
		return time.Time{}
	}
	if latest := now.Add(longestRest); until.After(latest) {
		return latest
	}
	if !until.After(now) {
		return time.Time{}
	}
	return until
}

// recall returns what is kept of an answer; key is "" if such answers are not.
func (e *edge) recall(r *http.Request) (string, kept) {
	list := strings.HasSuffix(r.URL.Path, "/tags/list") && r.Method == http.MethodGet
	if !list && !strings.Contains(r.URL.Path, "/manifests/") || r.Header.Get("Range") != "" {
		return "", kept{}
	}
	key := r.Method + " " + r.URL.String() + " " + r.Header.Get("Accept")
	e.mu.Lock()
	defer e.mu.Unlock()
	return key, e.kept[key]
}

// keep reads an answer that has an entity tag.
func (e *edge) keep(key string, r *http.Request, resp *http.Response) error {
	tag := resp.Header.Get("ETag")
	if key == "" || tag == "" || len(tag) > 1<<10 || resp.StatusCode != http.StatusOK {
		return nil
	}
	var body []byte
	if r.Method != http.MethodHead {
		var err error
		body, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
		resp.Body = io.NopCloser(bytes.NewReader(body))
	}
	if len(body) > maxKept {
		return nil
	}
	header := http.Header{}
	for _, name := range []string{"Content-Type", "Docker-Content-Digest", "Link", "Content-Length"} {
		if v := resp.Header.Values(name); len(v) > 0 {
			header[name] = slices.Clone(v)
		}
	}
	if r.Method == http.MethodHead && resp.ContentLength >= 0 {
		header.Set("Content-Length", strconv.FormatInt(resp.ContentLength, 10))
	}
	k := kept{tag, header, body}
	size := k.size(key)
	if size > 2*maxKept { // a header can be as long as a server likes
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.forget(key)
	for other := range e.kept { // any will do, for each is asked for again and again
		if e.bytes+size <= maxKeptAll && len(e.kept) < mostKept {
			break
		}
		e.forget(other)
	}
	e.kept[key] = k
	e.bytes += size
	return nil
}

func (e *edge) forget(key string) {
	if k, ok := e.kept[key]; ok {
		e.bytes -= k.size(key)
		delete(e.kept, key)
	}
}

// size is what it takes in memory, with what it is found by.
func (k kept) size(key string) int {
	const around = 512 // what maps and headers are made of
	n := around + len(key) + len(k.tag) + len(k.body)
	for name, values := range k.header {
		n += len(name)
		for _, v := range values {
			n += len(v)
		}
	}
	return n
}

// response is the answer as it was when it was kept.
func (k kept) response(r *http.Request) *http.Response {
	length := int64(len(k.body))
	if r.Method == http.MethodHead {
		length, _ = strconv.ParseInt(k.header.Get("Content-Length"), 10, 64)
	}
	return &http.Response{Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: k.header.Clone(),
		Body: io.NopCloser(bytes.NewReader(k.body)), ContentLength: length, Request: r}
}

// bounded is a body that ends with an error after so many bytes.
type bounded struct {
	io.ReadCloser
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, errTooLong
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left+1)])
	if b.left -= int64(n); b.left < 0 {
		return 0, errTooLong
	}
	if err != nil && err != io.EOF {
		err = &reachError{err}
	}
	return n, err
}

var errTooLong = errors.New("the answer has more than " + strconv.Itoa(maxBody) + " bytes")
