package proposal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/ledger"
	"go.yaml.in/yaml/v3"
)

// Hold is what `pinion hold` was asked for.
type Hold struct {
	Name         desired.HoldName
	Environments []desired.EnvironmentName
	Services     []desired.ServiceName
	Reason       string
	Owner        string // whom to ask; as the hold needs one, it is not empty
	Until        time.Time
	Message      string
	Replace      bool
	Now          time.Time
	// MayEnd judges who writes over a hold, which ends it; see Release.
	MayEnd func(covers []desired.EnvironmentName) error
}

func (in Hold) Propose(ctx context.Context, gr *Ground) (*Proposal, error) {
	in = in.normal()
	repo := gr.Commit.Repository
	for _, e := range in.Environments {
		if _, err := gr.environment(e); err != nil {
			return nil, err
		}
	}
	for _, s := range in.Services {
		if _, err := gr.service(s); err != nil {
			return nil, err
		}
	}
	file, there := holdFile(repo, in.Name)
	if err := mayEnd(repo, in.Name, in.MayEnd); err != nil {
		return nil, err
	}
	switch is := repo.Holds[in.Name]; {
	case is != nil && in.same(is): // as when the first answer was lost
		return &Proposal{Nothing: fmt.Sprintf("hold %s is there already, just so: %s", in.Name, file)}, nil
	case there && !in.Replace:
		return nil, unfit("hold %s is there already: %s; choose another name, or give --replace", in.Name, file)
	}
	data, err := in.encode()
	if err != nil {
		return nil, err
	}
	h := &desired.Hold{Name: in.Name, Environments: in.Environments, Services: in.Services, Until: in.Until}
	p := &Proposal{
		Files: map[string][]byte{file: data},
		Change: ledger.Change{
			Kind: ledger.ChangeHeld, Hold: in.Name, Summary: scope(h) + ": " + firstLine(in.Reason),
			Reason: in.Message,
		},
	}
	if ps := repo.ProblemsOf(desired.KindHold, string(in.Name)); there && len(ps) > 0 {
		p.warn("%s is not sound, and is written anew: %s", file, ps[0].Message)
	}
	ends := "until `pinion release " + string(in.Name) + "`"
	if !in.Until.IsZero() {
		ends = fmt.Sprintf("until %s (for %s)", in.Until.Format(time.RFC3339), history.ShortAge(in.Until.Sub(in.Now).Round(time.Minute)))
	}
	p.Next = []string{fmt.Sprintf("nothing is promoted into %s %s; rollbacks go on", scope(h), ends)}
	waiting, err := gr.waiting(ctx, h)
	if err != nil {
		return nil, err
	}
	for _, c := range waiting {
		p.Next = append(p.Next, "it stops "+c.String())
	}
	return p, nil
}

// normal is what is asked for as it is written.
func (in Hold) normal() Hold {
	in.Environments, in.Services = set(in.Environments), set(in.Services)
	in.Reason, in.Until = strings.TrimSpace(in.Reason), in.Until.Truncate(time.Second)
	return in
}

// same tells whether a hold, which may be written by hand, is what is asked for.
func (in Hold) same(h *desired.Hold) bool {
	is := Hold{Environments: h.Environments, Services: h.Services, Reason: h.Reason, Owner: h.Owner, Until: h.Until}.normal()
	return slices.Equal(is.Environments, in.Environments) && slices.Equal(is.Services, in.Services) &&
		is.Reason == in.Reason && is.Owner == in.Owner && is.Until.Equal(in.Until)
}

// set sorts names, each once.
func set[S ~string](names []S) []S { return slices.Compact(slices.Sorted(slices.Values(names))) }

// encode writes the file of a hold that is normal.
func (in Hold) encode() ([]byte, error) {
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
		n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, s := range all {
			n.Content = append(n.Content, text(s))
		}
		add(key, n)
	}
	names("environments", texts(in.Environments))
	names("services", texts(in.Services))
	add("reason", text(in.Reason))
	add("owner", text(in.Owner))
	if !in.Until.IsZero() {
		add("until", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!timestamp", Value: in.Until.Format(time.RFC3339)})
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

// mayEnd asks whether a hold may be ended, if it is there.
func mayEnd(repo *desired.Repository, name desired.HoldName, may func([]desired.EnvironmentName) error) error {
	if _, there := holdFile(repo, name); !there || may == nil {
		return nil
	}
	if h := repo.Holds[name]; h != nil {
		return may(h.Environments)
	}
	return may(nil)
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
func (gr *Ground) waiting(ctx context.Context, h *desired.Hold) ([]waiter, error) {
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
