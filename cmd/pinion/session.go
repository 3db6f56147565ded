package main

import (
	"context"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/reconcile"
	"github.com/pinion-cd/pinion/reconcile/cluster"
)

// session is what a command works with that reads a repository and renders:
// the configuration, the repository, and the workers.
type session struct {
	*repository
	config    *config
	renderer  reconcile.Renderer
	closePool func()
	clusters  map[desired.ClusterName]*cluster.Cluster // after connect
}

// begin opens the repository and makes the workers ready. close ends both.
func (g *globals) begin(ctx context.Context, s subject) (*session, error) {
	c, err := g.readConfig()
	if err != nil {
		return nil, err
	}
	r, err := g.open(ctx, s)
	if err != nil {
		return nil, err
	}
	renderer, closePool, err := c.renderer(g.keyFiles()...)
	if err != nil {
		r.close()
		return nil, err
	}
	return &session{repository: r, config: c, renderer: renderer, closePool: closePool}, nil
}

// connect makes the clusters of the configuration ready.
func (s *session) connect(ctx context.Context, g *globals) (err error) {
	s.clusters, err = g.clusters(ctx, s.config, connecting{repository: s.name})
	return err
}

// render renders what is selected of a repository: the session's, or another.
func (s *session) render(ctx context.Context, r *repository, selection reconcile.Selection) ([]reconcile.Rendered, error) {
	return reconcile.Render(ctx, r.commits, s.renderer, r.commit, selection, s.config.Render.processes())
}

func (s *session) close() {
	closeClusters(s.clusters)
	s.closePool()
	s.repository.close()
}
