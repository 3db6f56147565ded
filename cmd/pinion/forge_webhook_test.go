package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pinion-cd/pinion/forge"
)

// hubSignature signs a body as GitHub and Gitea do.
func hubSignature(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// endless is a body of zeros that counts what was taken of it.
type endless struct{ taken atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	clear(p)
	e.taken.Add(int64(len(p)))
	return len(p), nil
}

func TestWebhooksThatAreRefused(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	h := newHooks(&forgeConfig{Kind: forge.GitHub, WebhookSecretFile: file}, slog.New(slog.NewTextHandler(&log, nil)))
	server := httptest.NewServer(newServer(newMetrics(), nil, h, &registryHooks{}).handler)
	defer server.Close()
	post := func(kind, signature string, body io.Reader, length int64) (int, string) {
		t.Helper()
		r, err := http.NewRequest(http.MethodPost, server.URL+webhookPath+kind, body)
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = length
		r.Header.Set("X-Hub-Signature-256", signature)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0, err.Error() // a body that is not taken may end the connection
		}
		defer resp.Body.Close()
		answer, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(answer)
	}
	body := []byte(`{"ref": "refs/heads/main"}`)
	good := hubSignature("sesame", body)
	arrived := func() bool {
		select {
		case <-h.arrived:
			return true
		default:
			return false
		}
	}
	for range 2 { // a replay is a reason to look, and no more
		if code, answer := post("github", good, bytes.NewReader(body), int64(len(body))); code != http.StatusAccepted || !arrived() {
			t.Errorf("a good one: %d %s", code, answer)
		}
	}
	huge, many := &endless{}, &endless{}
	for _, tt := range []struct {
		name, kind, signature string
		body                  io.Reader
		length                int64
		code                  int
	}{
		{"another secret", "github", hubSignature("open", body), bytes.NewReader(body), int64(len(body)), 401},
		{"the signature of another body", "github", good, strings.NewReader("{}"), 2, 401},
		{"no signature", "github", "", bytes.NewReader(body), int64(len(body)), 401},
		{"another kind", "gitea", good, bytes.NewReader(body), int64(len(body)), 404},
		{"100 MB", "github", good, io.LimitReader(huge, 100<<20), 100 << 20, 413},
		{"100 MB without saying so", "github", good, io.LimitReader(many, 100<<20), -1, 413},
	} {
		code, answer := post(tt.kind, tt.signature, tt.body, tt.length)
		if code != tt.code && code != 0 {
			t.Errorf("%s: %d %s, want %d", tt.name, code, answer, tt.code)
		}
		if arrived() {
			t.Errorf("%s is taken for a delivery", tt.name)
		}
		if strings.Contains(answer, "sesame") {
			t.Errorf("%s: the answer shows the secret: %s", tt.name, answer)
		}
	}
	if n := huge.taken.Load(); n > 16<<20 {
		t.Errorf("%d bytes were taken of a body that says that it is too large", n)
	}
	if n := many.taken.Load(); n > 2*forge.MaxDelivery {
		t.Errorf("%d bytes were taken of a body that is too large", n)
	}
	if n := strings.Count(log.String(), "a webhook was refused"); n != 1 {
		t.Errorf("%d warnings for what came within a minute:\n%s", n, &log)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	h.warned = time.Time{} // as if a minute had passed
	for range 2 {
		if code, answer := post("github", good, bytes.NewReader(body), int64(len(body))); code != http.StatusServiceUnavailable || strings.Contains(answer, file) {
			t.Errorf("without its secret: %d %s", code, answer)
		}
	}
	if n := strings.Count(log.String(), "a webhook can't be verified"); n != 1 {
		t.Errorf("%d errors for what came within a minute:\n%s", n, &log)
	}
	// Who gives no secret expects no webhook.
	h.forge.WebhookSecretFile = ""
	logged := log.Len()
	if code, answer := post("github", good, bytes.NewReader(body), int64(len(body))); code != http.StatusNotFound || log.Len() != logged {
		t.Errorf("without a secret in the configuration: %d %s\n%s", code, answer, &log)
	}
}

// A sender that stops in the middle keeps nothing of ours.
func TestWebhookFromASlowSender(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("sesame"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Pipes in the place of connections: then the time is the test's.
	synctest.Test(t, func(t *testing.T) {
		h := newHooks(&forgeConfig{Kind: forge.GitHub, WebhookSecretFile: file}, slog.New(slog.DiscardHandler))
		here, there := net.Pipe()
		l := &oneConnection{connection: make(chan net.Conn, 1)}
		l.connection <- there
		server := &http.Server{Handler: newServer(newMetrics(), nil, h, &registryHooks{}).handler}
		go server.Serve(l)
		defer server.Close()
		start := time.Now()
		fmt.Fprintf(here, "POST %sgithub HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nX-Hub-Signature-256: %s\r\n\r\n{", webhookPath, hubSignature("sesame", nil))
		answer, _ := io.ReadAll(here)
		if took := time.Since(start); took != deliveryTime {
			t.Errorf("it was waited for %s, not %s", took, deliveryTime)
		}
		if !strings.HasPrefix(string(answer), "HTTP/1.1 400") {
			t.Errorf("the answer is %q", answer)
		}
		if len(h.arrived) > 0 {
			t.Error("half a delivery is taken for one")
		}
	})
}

type oneConnection struct{ connection chan net.Conn }

func (l *oneConnection) Accept() (net.Conn, error) {
	c, ok := <-l.connection
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (l *oneConnection) Close() error   { close(l.connection); return nil }
func (l *oneConnection) Addr() net.Addr { return &net.TCPAddr{} }

// Many deliveries are few looks, and the last one is always followed by one.
func TestWebhooksInAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHooks(nil, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		looks := 0
		var last time.Time
		done := make(chan struct{})
		go func() { defer close(done); h.run(ctx, func() { looks++; last = time.Now() }) }()
		deliver := time.NewTicker(10 * time.Millisecond)
		for range 1000 {
			<-deliver.C
			select {
			case h.arrived <- struct{}{}:
			default:
			}
		}
		end := time.Now()
		<-time.After(2 * hookPause)
		cancel()
		<-done
		if looks < 9 || looks > 12 {
			t.Errorf("%d looks in 10 s", looks)
		}
		if last.Before(end) && end.Sub(last) > 10*time.Millisecond {
			t.Errorf("the last look was %s before the last delivery", end.Sub(last))
		}
	})
}

// A push that the daemon would see in an hour is seen at once.
func TestWebhookWakesTheDaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop("web"))
	w.serve()
	dir := t.TempDir()
	file, config := filepath.Join(dir, "secret"), filepath.Join(dir, "config.yaml")
	w.must(os.WriteFile(file, []byte("sesame\n"), 0o600))
	w.must(os.WriteFile(config, fmt.Appendf(nil, "apiVersion: pinion.dev/v1\nkind: Config\nforge:\n  kind: gitea\n  webhookSecretFile: %s\n", file), 0o600))
	d := w.daemon(t.TempDir(), "--poll", "1h", "--config", config)
	d.line(0, "[1/1 done]")
	second := w.bump("web", "1.0.0", "1.1.0")
	mark := d.mark()
	if got := d.hook([]byte(`{"after": "0000000000000000000000000000000000000000"}`)); got != http.StatusAccepted { // which is not believed
		t.Fatalf("the delivery is answered with %d", got)
	}
	d.line(mark, second[:12])
	w.shows(map[string]wanted{"web": {"1.1.0", second}})
}

// hook delivers a webhook of Gitea, and returns the answer's status.
func (d *daemon) hook(body []byte) int {
	d.Helper()
	r, err := http.NewRequest(http.MethodPost, "http://"+d.address+webhookPath+"gitea", bytes.NewReader(body))
	d.must(err)
	r.Header.Set("X-Hub-Signature-256", hubSignature("sesame", body))
	resp, err := http.DefaultClient.Do(r)
	d.must(err)
	resp.Body.Close()
	return resp.StatusCode
}
