package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/notify"
)

// receiveNews starts a receiver that answers with a status, and writes its
// address into the file url, and what it is sent into the file received.
func receiveNews(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: receiver STATUS")
	}
	status, err := strconv.Atoi(args[0])
	ts.Check(err)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var got bytes.Buffer
		r.Header.Write(&got)
		io.Copy(&got, r.Body)
		os.WriteFile(ts.MkAbs("received"), append(got.Bytes(), '\n'), 0o600)
		if status/100 == 3 {
			w.Header().Set("Location", "http://169.254.169.254/")
		}
		w.WriteHeader(status)
	}))
	ts.Defer(s.Close)
	ts.Check(os.WriteFile(ts.MkAbs("url"), []byte(s.URL+"/secret\n"), 0o600))
}

// board is a receiver that keeps the news.
type board struct {
	*httptest.Server
	mu   sync.Mutex // guards told
	told []notify.Notification
}

func newBoard(t *testing.T) *board {
	b := &board{}
	b.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var n notify.Notification
		if err := json.NewDecoder(r.Body).Decode(&n); err != nil {
			t.Errorf("news that can't be read: %v", err)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.told = append(b.told, n)
	}))
	t.Cleanup(b.Close)
	return b
}

// summaries are those of some news of an environment, in their order.
func (b *board) summaries(env desired.EnvironmentName, only ...desired.News) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []string
	for _, n := range b.told {
		derived := n.Event == desired.NewsPromoted || n.Event == desired.NewsRolledBack || n.Event == desired.NewsWanted
		if n.Environment == env && (slices.Contains(only, n.Event) || len(only) == 0 && !derived) {
			all = append(all, n.Summary)
		}
	}
	return all
}

// tells waits until what was told of an environment is the end of its ledger,
// so many entries at least.
func (b *board) tells(w *world, env string, least int) {
	w.Helper()
	w.until("the news of "+env+" are told", func(context.Context) string {
		told, have := b.summaries(desired.EnvironmentName(env)), w.entries(env)
		if len(told) < least || len(told) > len(have) || !slices.Equal(told, have[len(have)-len(told):]) {
			return "they are " + strings.Join(told, "; ") + ", and the ledger has " + strings.Join(have, "; ")
		}
		return ""
	})
}
