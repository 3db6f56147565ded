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
	status, body := http.StatusOK, `{"login": "pinion"}`
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if status == 0 {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(s.Close)
	var counted []Result
	c, err := New(Options{Kind: forge.Gitea, URL: s.URL, Repository: "shop/deploy", Count: func(r Result) { counted = append(counted, r) }})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		status int
		body   string
	}{{200, body}, {404, "{}"}, {403, "{}"}, {500, "{}"}, {200, "<"}, {0, ""}, {429, "{}"}, {200, body}} {
		status, body = x.status, x.body
		c.Whoami(t.Context())
	}
	if want := []Result{Success, Refused, Refused, Failure, Failure, Failure, Limited}; !slices.Equal(counted, want) {
		t.Errorf("counted is %v, want %v", counted, want)
	}
}
