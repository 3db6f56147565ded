package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/proposal"
)

func newHoldCommand(g *globals) *cobra.Command {
	var w writing
	var in proposal.Hold
	var environments, services []string
	var until string
	cmd := &cobra.Command{
		Use:   "hold NAME --reason TEXT",
		Short: "Freeze environments or services: write a hold",
		Long: `Write holds/NAME.yaml: nothing is promoted into what it covers until it ends or
is removed with ` + "`pinion release NAME`" + `. Without --environment it covers all
environments, without --service all services. Rollbacks go on.

` + writingHelp,
		Example: `  pinion hold inc-431 --reason "INC-431, checkout errors" --environment production --until 4h`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Name, in.Message, in.Now = desired.HoldName(args[0]), w.message, g.now
			if !label.MatchString(args[0]) {
				return fmt.Errorf("%q can't be the name of a hold; a name is at most 63 lower-case letters, digits and hyphens, with a letter or digit at both ends", args[0])
			}
			for _, e := range environments {
				in.Environments = append(in.Environments, desired.EnvironmentName(e))
			}
			for _, s := range services {
				in.Services = append(in.Services, desired.ServiceName(s))
			}
			if strings.TrimSpace(in.Reason) == "" {
				return errors.New("a hold needs a reason, for who is stopped by it; give --reason TEXT")
			}
			var err error
			if in.Until, err = parseUntil(until, in.Now); err != nil {
				return err
			}
			return g.write(cmd.Context(), &w, func(ctx context.Context, s *site, gr *proposal.Ground) (_ *proposal.Proposal, err error) {
				if in.Owner == "" {
					if in.Owner, err = s.userEmail(ctx); err != nil {
						return nil, err
					}
				}
				return in.Propose(ctx, gr)
			})
		},
	}
	w.flags(cmd.Flags())
	f := cmd.Flags()
	f.StringVar(&in.Reason, "reason", "", "why, for who is stopped by it")
	f.StringArrayVarP(&environments, "environment", "e", nil, "an environment to freeze; may be given several times")
	f.StringArrayVarP(&services, "service", "s", nil, "a service to freeze; may be given several times")
	f.StringVar(&until, "until", "", "when it ends: a time (2026-12-01T09:00:00Z), or how long from now (4h); without it, when it is removed")
	f.StringVar(&in.Owner, "owner", "", "whom to ask (default: git's user.email)")
	f.BoolVar(&in.Replace, "replace", false, "write over a hold of this name")
	return cmd
}

var label = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// parseUntil reads a time or a duration from now.
func parseUntil(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		d, err := time.ParseDuration(s)
		if err != nil {
			return time.Time{}, fmt.Errorf("--until %s is neither a time nor a duration; write 2026-12-01T09:00:00Z, or 4h", s)
		}
		t = now.Add(d)
	}
	if !t.After(now) {
		return time.Time{}, fmt.Errorf("--until %s is over already; give a time to come", s)
	}
	return t.UTC().Truncate(time.Second), nil
}

// userEmail is the address that git would put into a commit.
func (s *site) userEmail(ctx context.Context) (string, error) {
	who, err := s.git.output(ctx, "var", "GIT_COMMITTER_IDENT")
	if err != nil {
		return "", fmt.Errorf("find out who owns the hold: %w; give --owner, or git config user.email", err)
	}
	if _, rest, ok := strings.Cut(who, "<"); ok {
		if email, _, ok := strings.Cut(rest, ">"); ok && email != "" {
			return email, nil
		}
	}
	return "", errors.New("git knows no address of yours, and a hold needs an owner; give --owner, or git config user.email")
}
