package cluster

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
)

// Nothing that writes is sent after a term, also if nobody has noticed its end
// yet, as in a process that was stopped.
func TestFenceKeepsWritesBack(t *testing.T) {
	var arrived atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil && (r.Method == http.MethodGet || string(body) == "a body") {
			arrived.Add(1)
		}
	}))
	defer server.Close()
	client := &http.Client{Transport: fence(&http.Transport{DisableKeepAlives: true})}
	send := func(ctx context.Context, method string) error {
		var body io.Reader
		if method != http.MethodGet {
			body = io.NopCloser(strings.NewReader("a body"))
		}
		r, err := http.NewRequestWithContext(ctx, method, server.URL, body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(r)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	under := func(term *Term) context.Context {
		// Without its end, so that only the clock can tell.
		return context.WithValue(t.Context(), termKey{}, term)
	}
	now := time.Now()
	for _, c := range []struct {
		name   string
		ctx    context.Context
		method string
		want   int64
	}{
		{"without a term", t.Context(), http.MethodPatch, 1},
		{"a term that nobody competes for", under(nil), http.MethodPatch, 1},
		{"in its term", under(newTerm("x", 1, time.Hour, now)), http.MethodPatch, 1},
		{"after its term", under(newTerm("x", 1, time.Minute, now.Add(-time.Minute))), http.MethodPatch, 0},
		{"a deletion after its term", under(newTerm("x", 1, time.Minute, now.Add(-time.Minute))), http.MethodDelete, 0},
		{"what only reads, after its term", under(newTerm("x", 1, time.Minute, now.Add(-time.Minute))), http.MethodGet, 1},
	} {
		arrived.Store(0)
		err := send(c.ctx, c.method)
		if got := arrived.Load(); got != c.want {
			t.Errorf("%s: %d requests arrived, want %d", c.name, got, c.want)
		}
		var lost *LostError
		if errors.As(err, &lost) != (c.want == 0) {
			t.Errorf("%s: the error is %v", c.name, err)
		}
	}

	// The term ends while a connection is being made.
	term := newTerm("x", 1, time.Hour, now)
	arrived.Store(0)
	ctx := httptrace.WithClientTrace(under(term), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { term.renew(now.Add(-time.Hour)) }})
	if err := send(ctx, http.MethodPatch); err == nil || arrived.Load() != 0 {
		t.Errorf("%d requests arrived after the term had ended on their way; the error is %v", arrived.Load(), err)
	}
}

func TestTermEndsItsContext(t *testing.T) {
	term := newTerm("x", 1, time.Hour, time.Now())
	ctx, done := term.Context(t.Context())
	defer done()
	term.end("the test wants it")
	<-ctx.Done()
	var lost *LostError
	if !errors.As(context.Cause(ctx), &lost) {
		t.Errorf("the context ended for %v", context.Cause(ctx))
	}
	if _, passing := Retry(classify(failure{op: "apply"}, context.Cause(ctx))); !passing {
		t.Error("a lost lease counts as a failure that somebody has to mend")
	}
}

func TestClaim(t *testing.T) {
	now := time.Now()
	held := func(by string) *coordinationv1.Lease {
		return &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: &by}}
	}
	for _, c := range []struct {
		name string
		seen seenLease
		take bool
		wait time.Duration
	}{
		{"there is none, and never was", seenLease{since: now}, true, 0},
		{"nobody has it", seenLease{lease: held(""), since: now}, true, 0},
		{"we have it, from a term before", seenLease{lease: held("me"), since: now, holding: time.Minute}, true, 0},
		{"another one has it", seenLease{lease: held("you"), since: now.Add(-20 * time.Second), holding: time.Minute}, false, 40 * time.Second},
		{"another one has not renewed it", seenLease{lease: held("you"), since: now.Add(-time.Minute), holding: time.Minute}, true, 0},
		{"somebody deleted it under its holder", seenLease{since: now.Add(-time.Second), holding: time.Minute}, false, 59 * time.Second},
	} {
		if take, wait := claim(&c.seen, "me", now); take != c.take || wait != c.wait {
			t.Errorf("%s: take %v, wait %s; want %v, %s", c.name, take, wait, c.take, c.wait)
		}
	}
}
