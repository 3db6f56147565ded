package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/pinion-cd/pinion/forge/envoy"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

// atForge is what the daemon does at the forge; the zero value does nothing.
type atForge struct {
	teller *envoy.Teller
}

func (c *config) atForge(tenure *reconcile.Tenure, log *slog.Logger) (*atForge, error) {
	at := &atForge{}
	talk, err := c.dial()
	if err != nil || talk == nil {
		return at, err
	}
	log = log.With("forge", string(c.Forge.Kind), "repository", c.Forge.Repository)
	if c.Forge.Statuses {
		at.teller = envoy.NewTeller(envoy.TellerOptions{Forge: talk, Ours: tenure.Has, Link: c.Forge.StatusURL, Log: log})
	}
	return at, nil
}

// know passes on what a ledger says.
func (a *atForge) know(r ledger.Record) {
	if a.teller != nil {
		a.teller.Know(r, time.Now())
	}
}

// run does it until ctx ends.
func (a *atForge) run(ctx context.Context, wait *sync.WaitGroup) {
	if a.teller != nil {
		wait.Go(func() { a.teller.Run(ctx) })
	}
}
