package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/ledger"
)

func newHoldCommand(g *globals) *cobra.Command {
	var w writing
	var in holding
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
			in.name, in.message, in.now = desired.HoldName(args[0]), w.message, g.now
			if !label.MatchString(args[0]) {
				return fmt.Errorf("%q can't be the name of a hold; a name is at most 63 lower-case letters, digits and hyphens, with a letter or digit at both ends", args[0])
			}
			for _, e := range environments {
				in.environments = append(in.environments, desired.EnvironmentName(e))
			}
			for _, s := range services {
				in.services = append(in.services, desired.ServiceName(s))
			}
			if strings.TrimSpace(in.reason) == "" {
				return errors.New("a hold needs a reason, for who is stopped by it; give --reason TEXT")
			}
			var err error
			if in.until, err = parseUntil(until, in.now); err != nil {
				return err
			}
			return g.write(cmd.Context(), &w, in.propose)
		},
	}
	w.flags(cmd.Flags())
	f := cmd.Flags()
	f.StringVar(&in.reason, "reason", "", "why, for who is stopped by it")
	f.StringArrayVarP(&environments, "environment", "e", nil, "an environment to freeze; may be given several times")
	f.StringArrayVarP(&services, "service", "s", nil, "a service to freeze; may be given several times")
	f.StringVar(&until, "until", "", "when it ends: a time (2026-12-01T09:00:00Z), or how long from now (4h); without it, when it is removed")
	f.StringVar(&in.owner, "owner", "", "whom to ask (default: git's user.email)")
	f.BoolVar(&in.replace, "replace", false, "write over a hold of this name")
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

// holding is what `pinion hold` was asked for.
type holding struct {
	name         desired.HoldName
	environments []desired.EnvironmentName
	services     []desired.ServiceName
	reason       string
	owner        string
	until        time.Time
	message      string
	replace      bool
	now          time.Time
}

func (in holding) propose(ctx context.Context, gr *ground) (*proposal, error) {
	repo := gr.commit.Repository
	for _, e := range in.environments {
		if _, err := gr.environment(e); err != nil {
			return nil, err
		}
	}
	for _, s := range in.services {
		if _, err := gr.service(s); err != nil {
			return nil, err
		}
	}
	file, there := holdFile(repo, in.name)
	if there && !in.replace {
		return nil, fmt.Errorf("hold %s is there already: %s; choose another name, or give --replace", in.name, file)
	}
	if in.owner == "" {
		var err error
		if in.owner, err = gr.site.userEmail(ctx); err != nil {
			return nil, err
		}
	}
	data, err := in.encode()
	if err != nil {
		return nil, err
	}
	h := &desired.Hold{Name: in.name, Environments: in.environments, Services: in.services, Until: in.until}
	p := &proposal{
		files: map[string][]byte{file: data},
		change: ledger.Change{
			Kind: ledger.ChangeHeld, Hold: in.name, Summary: scope(h) + ": " + firstLine(strings.TrimSpace(in.reason)),
			Reason: in.message,
		},
	}
	if ps := repo.ProblemsOf(desired.KindHold, string(in.name)); there && len(ps) > 0 {
		p.warn("%s is not sound, and is written anew: %s", file, ps[0].Message)
	}
	ends := "until `pinion release " + string(in.name) + "`"
	if !in.until.IsZero() {
		ends = fmt.Sprintf("until %s (for %s)", in.until.Format(time.RFC3339), history.ShortAge(in.until.Sub(in.now).Round(time.Minute)))
	}
	p.next = []string{fmt.Sprintf("nothing is promoted into %s %s; rollbacks go on", scope(h), ends)}
	waiting, err := gr.waiting(ctx, h)
	if err != nil {
		return nil, err
	}
	for _, c := range waiting {
		p.next = append(p.next, "it stops "+c.String())
	}
	return p, nil
}

// encode writes the hold's file.
func (in holding) encode() ([]byte, error) {
	root := &yaml.Node{Kind: yaml.MappingNode}
	add := func(key string, value *yaml.Node) {
		root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, value)
	}
	text := func(s string) *yaml.Node {
		n := &yaml.Node{}
		n.SetString(s)
		return n
	}
	add("apiVersion", text("pinion.dev/v1"))
	add("kind", text("Hold"))
	names := func(key string, all []string) {
		if len(all) == 0 {
			return
		}
		slices.Sort(all)
		n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, s := range slices.Compact(all) {
			n.Content = append(n.Content, text(s))
		}
		add(key, n)
	}
	names("environments", texts(in.environments))
	names("services", texts(in.services))
	add("reason", text(strings.TrimSpace(in.reason)))
	add("owner", text(in.owner))
	if !in.until.IsZero() {
		add("until", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!timestamp", Value: in.until.Format(time.RFC3339)})
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	err := enc.Encode(root)
	return b.Bytes(), errors.Join(err, enc.Close())
}

// holdFile returns the file of a hold, sound or not, and whether it is there.
func holdFile(repo *desired.Repository, name desired.HoldName) (string, bool) {
	if h := repo.Holds[name]; h != nil {
		return h.File, true
	}
	for _, p := range repo.Broken(desired.KindHold, string(name)) {
		return p.File, true
	}
	return "holds/" + string(name) + ".yaml", false
}

// scope says what a hold covers.
func scope(h *desired.Hold) string {
	switch {
	case len(h.Environments) == 0 && len(h.Services) == 0:
		return "every environment"
	case len(h.Services) == 0:
		return list(h.Environments)
	case len(h.Environments) == 0:
		return "every environment, for " + list(h.Services)
	}
	return list(h.Environments) + ", for " + list(h.Services)
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

// waiter is a release that waits to enter an environment.
type waiter struct {
	environment desired.EnvironmentName
	service     desired.ServiceName
	version     string
}

func (w waiter) String() string {
	return fmt.Sprintf("%s %s, which waits to enter %s", w.service, w.version, w.environment)
}

// waiting returns what waits to enter what a hold covers, by the ledgers.
func (gr *ground) waiting(ctx context.Context, h *desired.Hold) ([]waiter, error) {
	var all []waiter
	for _, env := range slices.Sorted(maps.Keys(gr.Tips)) {
		records, err := gr.Records(ctx, env)
		if err != nil {
			return nil, err
		}
		for _, svc := range slices.Sorted(maps.Keys(records)) {
			if c := records[svc].Candidate; c != nil && h.Covers(env, svc) {
				all = append(all, waiter{env, svc, c.Release.Version()})
			}
		}
	}
	return all, nil
}
