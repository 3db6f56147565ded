package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/pinion-cd/pinion/api"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// server answers over HTTP.
type server struct {
	// ready: a commit has been read from the repository.
	ready   atomic.Bool
	api     *api.Server
	replica atomic.Pointer[replica] // nil while the daemon is alone, or does not know yet
	alone   bool                    // it will be
	hooks   *hooks
	notices *registryHooks
	handler http.Handler
}

func newServer(m *metrics, a *api.Server, h *hooks, n *registryHooks) *server {
	s := &server{api: a, hooks: h, notices: n}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !s.ready.Load() {
			http.Error(w, "the repository has not been read yet", http.StatusServiceUnavailable)
			return
		}
		if r := s.replica.Load(); !s.alone && (r == nil || !r.ready()) {
			http.Error(w, "the leases can't be read, so none could be taken over", http.StatusServiceUnavailable)
			return
		}
		w.Write([]byte("ok\n"))
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.Handle("/api/", s.api)
	mux.Handle("POST "+webhookPath+"{forge}", s.hooks)
	mux.Handle("POST "+registryHookPath, s.notices)
	s.handler = mux
	return s
}

// serve answers, over TLS if secure is given, until ctx ends, and then lets requests under way finish.
func (s *server) serve(ctx context.Context, l net.Listener, secure *tls.Config) error {
	h := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		MaxHeaderBytes:    64 << 10,
		TLSConfig:         secure,
	}
	h.RegisterOnShutdown(s.api.EndStreams)
	failed := make(chan error, 1)
	go func() {
		if secure != nil {
			failed <- h.ServeTLS(l, "", "")
		} else {
			failed <- h.Serve(l)
		}
	}()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := h.Shutdown(grace)
	<-failed
	if errors.Is(err, context.DeadlineExceeded) {
		return h.Close()
	}
	return err
}
