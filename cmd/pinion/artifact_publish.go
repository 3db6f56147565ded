package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/api"
	"github.com/pinion-cd/pinion/reconcile"
)

func newArtifactPublishCommand(g *globals) *cobra.Command {
	var c client
	var in api.Publication
	var created, committed string
	cmd := &cobra.Command{
		Use:   "publish IMAGE",
		Short: "Tell the daemon that there is a new version of an artifact",
		Long: `Tell the daemon that there is a new version of an artifact: from CI, when the image
is pushed. IMAGE has its tag and its digest. The version is bound to that digest for
ever. A stage whose pipeline tracks it (track:, which names you as a publisher) takes
it in when its gates are open. What is said of the build goes into the commit of the
pin; said again with more, it is added.

It asks the daemon, and ends when the record has been pushed. While the daemon can't
be reached, or if its answer is lost, it is asked again until --timeout; what is
recorded already is not recorded twice.

Exit code 1 if no stage could take the version, such as one of another branch; 4 if
the token does not allow it.`,
		Example: `  pinion artifact publish ghcr.io/acme/web:1.4.3@sha256:… --commit $SHA --branch main --build $URL --tests passed`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Image = args[0]
			for _, x := range []struct {
				flag, text string
				into       *time.Time
			}{{"created", created, &in.Created}, {"committed", committed, &in.Committed}} {
				if x.text == "" {
					continue
				}
				at, err := time.Parse(time.RFC3339, x.text)
				if err != nil {
					return fmt.Errorf("--%s %q is not a time as in RFC 3339: 2026-12-01T09:00:00Z", x.flag, x.text)
				}
				*x.into = at
			}
			return g.publish(cmd.Context(), &c, in)
		},
	}
	c.flags(cmd.Flags())
	f := cmd.Flags()
	f.StringVar(&in.Commit, "commit", "", "the commit of the source that it was built from")
	f.StringVar(&in.Branch, "branch", "", "the branch that it was built from")
	f.StringVar(&in.Source, "source", "", "the address of the source's repository")
	f.StringVar(&in.Build, "build", "", "the address of the build")
	f.StringVar((*string)(&in.Tests), "tests", "", "what the tests came to: passed or failed")
	f.StringVar((*string)(&in.Quality), "quality", "", "what the quality gate came to: passed or failed")
	f.StringVar(&created, "created", "", "when it was built, as in RFC 3339")
	f.StringVar(&committed, "committed", "", "when the commit of the source was made, as in RFC 3339 (git show -s --format=%cI); lead times begin there")
	return cmd
}

func (g *globals) publish(ctx context.Context, c *client, in api.Publication) error {
	format, err := g.format("text", "json")
	if err != nil {
		return err
	}
	if _, err := in.Read(reconcile.Principal{}); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	r, err := c.post(ctx, api.ArtifactsPath, in)
	if err != nil {
		name, _, _ := strings.Cut(in.Image, "@")
		return fmt.Errorf("publish %s: %w", name, err)
	}
	return g.writeReceipt(format, r)
}
