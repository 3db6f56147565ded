package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/notify"
)

// mood is how a neighbour behaves.
type mood string

const (
	well    mood = ""
	away    mood = "away"    // no answer
	failing mood = "failing" // 502 now and then
	busy    mood = "busy"    // 429
	losing  mood = "losing"  // what was done is not answered
	slow    mood = "slow"    // it does not know yet what can be merged; a receiver hangs
)

// harmed is what the forge does instead of serving, or after it.
func (x *neighbours) harmed(rw http.ResponseWriter, r *http.Request, next http.Handler) bool {
	if r.Header.Get("Authorization") == "Bearer alice-token" {
		return false // people try again in a way of their own
	}
	at := &x.api
	if strings.HasPrefix(r.URL.Path, "/shop/") {
		at = &x.hub
	}
	is, _ := at.Load().(mood)
	switch odd := x.turn.Add(1)%2 == 1; is {
	case away:
		panic(http.ErrAbortHandler)
	case failing:
		if odd {
			rw.WriteHeader(http.StatusBadGateway)
		}
		return odd
	case busy:
		rw.Header().Set("Retry-After", "1")
		rw.WriteHeader(http.StatusTooManyRequests)
		return true
	case losing:
		if r.Method == http.MethodGet || strings.HasSuffix(r.URL.Path, "git-upload-pack") || !odd {
			return false
		}
		next.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	case slow:
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r)
		rw.Header().Set("Content-Type", answer.Header().Get("Content-Type"))
		rw.WriteHeader(answer.Code)
		rw.Write(bytes.ReplaceAll(answer.Body.Bytes(), []byte(`"mergeable":true`), []byte(`"mergeable":false`)))
		return true
	}
	return false
}

// front stands before a registry.
type front struct {
	host string
	mood atomic.Value
}

func newFront(t *testing.T, behind string) *front {
	f := &front{}
	reverse := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: behind})
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch is, _ := f.mood.Load().(mood); is {
		case away:
			panic(http.ErrAbortHandler)
		case failing:
			rw.WriteHeader(http.StatusBadGateway)
		case busy:
			rw.Header().Set("Retry-After", "1")
			rw.WriteHeader(http.StatusTooManyRequests)
		default:
			reverse.ServeHTTP(rw, r)
		}
	}))
	t.Cleanup(s.Close)
	f.host = strings.TrimPrefix(s.URL, "http://")
	return f
}

// diary is a receiver that notes what it has taken.
type diary struct {
	*httptest.Server
	mood atomic.Value
	turn atomic.Int64

	mu   sync.Mutex // guards told
	told []notify.Notification
}

func newDiary(t *testing.T) *diary {
	d := &diary{}
	d.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var n notify.Notification
		if err := json.NewDecoder(r.Body).Decode(&n); err != nil {
			return // the daemon was killed while it sent
		}
		is, _ := d.mood.Load().(mood)
		switch odd := d.turn.Add(1)%2 == 1; {
		case is == away:
			panic(http.ErrAbortHandler)
		case is == slow: // it hangs
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for d.mood.Load() == slow && r.Context().Err() == nil {
				<-tick.C
			}
			panic(http.ErrAbortHandler)
		case is == busy:
			rw.Header().Set("Retry-After", "1")
			rw.WriteHeader(http.StatusTooManyRequests)
			return
		case is == failing && odd:
			rw.WriteHeader(http.StatusInternalServerError)
			return
		}
		d.mu.Lock()
		d.told = append(d.told, n)
		d.mu.Unlock()
		if is == losing {
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(d.Close)
	return d
}

func (d *diary) all() []notify.Notification {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.told)
}
