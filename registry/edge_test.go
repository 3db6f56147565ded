package registry

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// What is known of hosts, and what is kept of answers, is bounded, whatever
// strangers send.
func TestBoundsOfTheEdge(t *testing.T) {
	e := &edge{busy: map[string]time.Time{}, kept: map[string]kept{}}
	now := time.Now()
	e.leave("long.example", now.Add(time.Hour))
	for i := range 2 * mostHosts {
		e.leave(fmt.Sprintf("%d.example", i), now.Add(time.Duration(i+1)*time.Millisecond))
	}
	if len(e.busy) > mostHosts || e.busy["long.example"].IsZero() || e.busy[fmt.Sprintf("%d.example", 2*mostHosts-1)].IsZero() {
		t.Errorf("%d hosts are left alone", len(e.busy))
	}

	answer := func(i, long int) {
		t.Helper()
		r, err := http.NewRequest(http.MethodHead, fmt.Sprintf("https://registry.example/v2/acme/web/manifests/%d", i), nil)
		if err != nil {
			t.Fatal(err)
		}
		key, _ := e.recall(r)
		h := http.Header{"Etag": {`"x"`}, "Link": {strings.Repeat("l", long)}}
		if err := e.keep(key, r, &http.Response{StatusCode: http.StatusOK, Header: h, ContentLength: 1, Body: http.NoBody}); err != nil {
			t.Fatal(err)
		}
	}
	sum := func() (n int) {
		for key, k := range e.kept {
			n += k.size(key)
		}
		return n
	}
	for i := range 500 {
		answer(i, 100<<10)
	}
	answer(500, 3*maxKept)
	if n := sum(); n > maxKeptAll || n != e.bytes || len(e.kept) < 100 {
		t.Errorf("%d answers of %d bytes are kept, and %d are counted", len(e.kept), n, e.bytes)
	}
	for i := range mostKept + 100 {
		answer(i, 1)
	}
	if n := sum(); n > maxKeptAll || n != e.bytes || len(e.kept) > mostKept {
		t.Errorf("%d answers of %d bytes are kept, and %d are counted", len(e.kept), n, e.bytes)
	}
}
