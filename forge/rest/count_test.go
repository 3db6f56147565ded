package rest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/pinion-cd/pinion/forge"
)

// Each request is counted once, by what became of it, and what was not sent is
// none.
func TestRequestsAreCounted(t *testing.T) {
	t.Parallel()
	type said struct {
		status int
		body   string
	}
	const whole = `{"login": "pinion"}`
	answers := make(chan said, 1)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		x := <-answers
		if x.status == 0 {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(x.status)
		fmt.Fprint(w, x.body)
	}))
	// A connection that was used before and ends without an answer is tried once more
	// by the client's transport, and is another request here.
	s.Config.SetKeepAlivesEnabled(false)
	s.Start()
	t.Cleanup(s.Close)
	var counted []Result
	c, err := New(Options{Kind: forge.Gitea, URL: s.URL, Repository: "shop/deploy", Count: func(r Result) { counted = append(counted, r) }})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []said{{200, whole}, {404, "{}"}, {403, "{}"}, {500, "{}"}, {200, "<"}, {0, ""}, {429, "{}"}} {
		answers <- x
		c.Whoami(t.Context())
	}
	if _, err := c.Whoami(t.Context()); err == nil { // it would wait for an answer
		t.Error("a forge that asks to wait is asked")
	}
	if want := []Result{Success, Refused, Refused, Failure, Failure, Failure, Limited}; !slices.Equal(counted, want) {
		t.Errorf("counted is %v, want %v", counted, want)
	}
}
