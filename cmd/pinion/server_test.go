package main

import (
	"context"
	"crypto/sha256"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pinion-cd/pinion/api"
	"github.com/pinion-cd/pinion/reconcile"
)

// Who sends slowly, or does not read what was asked for, is left after a while,
// by the daemon's own server.
func TestServerAndSlowCallers(t *testing.T) {
	t.Parallel()
	const token = "Authorization: Bearer ci-token\r\n"
	for name, x := range map[string]struct {
		sent   string
		reads  bool
		longer time.Duration // than that nobody is waited for
		answer string        // how it begins
	}{
		"nothing":            {"", true, 11 * time.Second, ""},
		"half a head":        {"GET /api/v1/openapi.json HTTP/1.1\r\nHost: x\r\n", true, 11 * time.Second, ""},
		"half a body":        {"POST /api/v1/reports HTTP/1.1\r\nHost: x\r\n" + token + "Content-Length: 100\r\n\r\n{", true, 26 * time.Second, "HTTP/1.1 400"},
		"nobody reads":       {"GET /api/v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n", false, 31 * time.Second, ""},
		"too large a head":   {"GET /api/v1/openapi.json HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 80<<10), true, time.Second, "HTTP/1.1 431"},
		"one after the next": {"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", true, 31 * time.Second, "HTTP/1.1 200"},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, err := api.New(api.Options{Authenticators: []api.Authenticator{api.Tokens{{Hash: sha256.Sum256([]byte("ci-token")),
				Caller: api.Caller{Principal: reconcile.Principal{Name: "ci"}, Grants: []api.Grant{{Scopes: api.DefaultScopes}}, Known: true}}}}})
			if err != nil {
				t.Fatal(err)
			}
			a.Open(&api.Backend{})
			here, there := net.Pipe() // so the time is the test's
			l := &oneConnection{connection: make(chan net.Conn, 1)}
			l.connection <- there
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() {
				ended <- newServer(newMetrics(), a, newHooks(nil, slog.New(slog.DiscardHandler)), &registryHooks{}).serve(ctx, l, nil)
			}()
			start := time.Now()
			go io.WriteString(here, x.sent)
			if !x.reads {
				<-time.After(x.longer)
			}
			answer, _ := io.ReadAll(here) // until the server lets go
			if took := time.Since(start); took > x.longer {
				t.Errorf("%s: it was waited for %s", name, took)
			}
			if !strings.HasPrefix(string(answer), x.answer) || x.answer == "" && len(answer) > 0 {
				t.Errorf("%s: the answer is %.100q", name, answer)
			}
			here.Close()
			cancel()
			<-ended
		})
	}
}
