package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
)

func newWhereCommand(g *globals) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "where ARTIFACT [VERSION]",
		Short: "Show which environments run an artifact's version, or ran it, and when",
		Long: `Show which environments run an artifact, or one version of it: now, or before
and when; where it waits to enter; and where it is refused, because it failed
there or was rolled back. A version is a tag, a digest (or the beginning of one,
sha256:2222), or the whole image.

It reads the newest records of the ledgers, which go back some 20 deployments
of a service; --all reads their whole history. Exit code 1 if there is nothing
to show.`,
		Example: `  pinion where web
  pinion where web 1.4.2 --all`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error { return g.where(cmd.Context(), args, all) },
	}
	cmd.Flags().BoolVar(&all, "all", false, "look through the whole history of the ledgers")
	return cmd
}

// presence is one stay of an artifact's version in an environment.
type presence struct {
	Environment desired.EnvironmentName `json:"environment"`
	Service     desired.ServiceName     `json:"service"`
	Artifact    desired.ArtifactName    `json:"artifact"`
	Version     string                  `json:"version"`
	Image       string                  `json:"image"`
	// Presence is runs, pinned (it is asked for, and was not applied yet), ran,
	// waits (a candidate) or refused.
	Presence   string       `json:"presence"`
	State      ledger.State `json:"state,omitempty"`
	Since      time.Time    `json:"since,omitzero"`
	Until      time.Time    `json:"until,omitzero"` // of what ran
	Deployment string       `json:"deployment,omitempty"`
	Reason     string       `json:"reason,omitempty"`
}

// sought is the artifact, and perhaps its version, that is looked for.
type sought struct {
	artifact desired.ArtifactName
	version  string
}

// in finds it among the pins of a release.
func (w sought) in(r ledger.Release) (image string, ok bool) {
	for _, p := range r.Pins {
		if p.Artifact == w.artifact && (w.version == "" || isVersion(p.Image, w.version)) {
			return p.Image, true
		}
	}
	return "", false
}

// isVersion tells whether an image has a version: its tag, its digest or the
// beginning of it, or all of it.
func isVersion(image, version string) bool {
	img, err := desired.ParseImage(image)
	if err != nil {
		return image == version
	}
	return version == image || img.Version != "" && (version == img.Version || version == img.Version+"@"+img.Digest) ||
		strings.HasPrefix(version, "sha256:") && len(version) > len("sha256:") && strings.HasPrefix(img.Digest, version)
}

func versionOf(image string) string {
	return ledger.Release{Pins: []ledger.Pin{{Image: image}}}.Version()
}

func (g *globals) where(ctx context.Context, args []string, all bool) error {
	format, err := g.format("table", "json", "yaml")
	if err != nil {
		return err
	}
	l, err := g.openLedgers(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	if len(l.tips) == 0 {
		return l.none()
	}
	w := sought{artifact: desired.ArtifactName(args[0])}
	if len(args) > 1 {
		w.version = args[1]
	}
	found := []presence{}
	known := false
	failures := map[desired.EnvironmentName]error{}
	envs := slices.Sorted(maps.Keys(l.tips))
	for _, env := range envs {
		here, has, err := l.presences(ctx, env, w)
		known = known || has
		if err != nil {
			failures[env] = err
		}
		if all {
			here, err = l.more(ctx, env, w, here)
			if err != nil {
				failures[env] = fmt.Errorf("read %s: %w", ledger.Branch(env), err)
			}
			known = known || len(here) > 0
		}
		found = append(found, here...)
	}
	if !known && len(failures) == 0 {
		if err := l.isArtifact(ctx, w.artifact); err != nil {
			return err
		}
	}
	// The order of the pipelines, where main can tell it.
	if repo, err := l.repository(ctx); err == nil {
		envs = order(repo, envs)
	}
	at := map[desired.EnvironmentName]int{}
	for i, env := range envs {
		at[env] = i
	}
	slices.SortStableFunc(found, func(a, b presence) int {
		return cmp.Or(cmp.Compare(at[a.Environment], at[b.Environment]), cmp.Compare(a.Service, b.Service), cmp.Compare(rank(a), rank(b)), b.Since.Compare(a.Since))
	})
	if at := l.asOf(ctx); at != "" {
		fmt.Fprintln(g.err, "ledgers,", at)
	}
	if err := g.writeWhere(format, l.now, found); err != nil {
		return err
	}
	if len(failures) > 0 { // what is missing may be in what could not be read
		var errs []error
		for _, env := range slices.Sorted(maps.Keys(failures)) {
			errs = append(errs, failures[env])
		}
		return errors.Join(errs...)
	}
	if len(found) == 0 {
		what := string(w.artifact)
		if w.version != "" {
			what += " " + w.version
		}
		hint := "`pinion log` tells what there was"
		if !all {
			hint = "--all looks through the whole history"
		}
		return &exitError{code: exitDifferent, cause: fmt.Errorf("no environment runs or ran %s; %s", what, hint)}
	}
	return nil
}

// rank is the order in which presences are shown.
func rank(p presence) int {
	return slices.Index([]string{"runs", "pinned", "waits", "refused", "ran"}, p.Presence)
}

// presences looks through the records of an environment. known says that one
// of them has the artifact, whatever its version.
func (l *ledgers) presences(ctx context.Context, env desired.EnvironmentName, w sought) (found []presence, known bool, err error) {
	book, err := l.book(ctx, env)
	if err != nil {
		return nil, false, err
	}
	folders, err := book.ReadDir(".")
	if err != nil {
		return nil, false, fmt.Errorf("read %s: %w", ledger.Branch(env), err)
	}
	var errs []error
	for _, f := range folders {
		if !f.IsDir() {
			continue
		}
		svc := desired.ServiceName(f.Name())
		// Most records are about something else, and need not be taken apart.
		data, err := book.ReadFile(ledger.RecordFile(svc))
		if err == nil && !bytes.Contains(data, []byte(w.artifact)) {
			continue
		}
		r, ok, err := readRecord(book, env, svc)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !ok {
			continue
		}
		here, has := w.among(r)
		known = known || has
		found = append(found, here...)
	}
	return found, known, errors.Join(errs...)
}

// among lists what a record says of it.
func (w sought) among(r ledger.Record) (found []presence, known bool) {
	any := sought{artifact: w.artifact}
	add := func(x ledger.Release, p presence) {
		if _, ok := any.in(x); ok {
			known = true
		}
		image, ok := w.in(x)
		if !ok {
			return
		}
		p.Environment, p.Service, p.Artifact = r.Environment, r.Service, w.artifact
		p.Image, p.Version = image, versionOf(image)
		found = append(found, p)
	}
	if d := r.Deployment; d.ID != "" {
		p := presence{Presence: "runs", State: d.State, Since: d.Started, Deployment: d.ID, Reason: d.Reason}
		switch {
		case !r.Retired.IsZero():
			p.Presence, p.Until = "ran", r.Retired
		case d.Started.IsZero():
			p.Presence, p.Since = "pinned", d.Pinned
		}
		add(d.Release, p)
	}
	if c := r.Candidate; c != nil {
		add(c.Release, presence{Presence: "waits", Since: c.Offered, Reason: c.Reason})
	}
	for _, x := range r.Refused {
		add(x.Release, presence{Presence: "refused", Since: x.Time, Reason: x.Reason})
	}
	for _, p := range r.Previous {
		if !p.Started.IsZero() {
			add(p.Release, presence{Presence: "ran", State: p.State, Since: p.Started, Until: p.Left, Deployment: p.ID})
		}
	}
	return found, known
}

// more adds what the whole history of a ledger has, and the records lack.
func (l *ledgers) more(ctx context.Context, env desired.EnvironmentName, w sought, found []presence) ([]presence, error) {
	have := map[string]bool{}
	for _, p := range found {
		have[p.Deployment] = true
	}
	left := map[desired.ServiceName]time.Time{} // when the deployment after it was pinned
	state := map[string]ledger.State{}
	started := map[string]time.Time{}
	mention := "\nPinion-Pin: " + string(w.artifact) + " "
	err := l.archive.History(ctx, l.tips[env], func(c gitstate.CommitInfo) bool {
		if !strings.Contains(c.Message, mention) {
			return true
		}
		e, err := ledger.ParseMessage(c.Message, c.Committer.Time)
		if err != nil || e.Deployment == "" {
			return true // of another's hand, or about a candidate
		}
		image, ok := w.in(e.Release)
		switch e.Event {
		case ledger.EventStarted:
			started[e.Deployment] = e.Time
		case ledger.EventPinned:
			if ok && !have[e.Deployment] && !started[e.Deployment].IsZero() {
				have[e.Deployment] = true
				found = append(found, presence{Environment: env, Service: e.Service, Artifact: w.artifact, Image: image, Version: versionOf(image),
					Presence: "ran", State: state[e.Deployment], Since: started[e.Deployment], Until: left[e.Service], Deployment: e.Deployment})
			}
			left[e.Service] = e.Time
			delete(started, e.Deployment)
			delete(state, e.Deployment)
			return true
		}
		switch e.Event {
		case ledger.EventStarted, ledger.EventCompleted, ledger.EventVerified, ledger.EventFailed, ledger.EventSuperseded:
			if state[e.Deployment] == "" { // the newest one comes first
				state[e.Deployment] = ledger.State(e.Event)
			}
		}
		return true
	})
	return found, err
}

// isArtifact makes sure that main or a ledger knows an artifact.
func (l *ledgers) isArtifact(ctx context.Context, name desired.ArtifactName) error {
	names := map[desired.ArtifactName]bool{}
	if repo, err := l.repository(ctx); err == nil {
		for _, s := range repo.Services {
			for _, a := range s.Artifacts {
				names[a] = true
			}
		}
		for _, e := range repo.Environments {
			for a := range e.Pins {
				names[a] = true
			}
		}
	}
	for env := range l.tips {
		all, err := l.records(ctx, env)
		if err != nil {
			return err
		}
		for _, r := range all {
			for _, p := range r.Deployment.Release.Pins {
				names[p.Artifact] = true
			}
		}
	}
	if names[name] {
		return nil
	}
	return unknownName("artifact", string(name), slices.Sorted(maps.Keys(names)), "there are")
}

func (g *globals) writeWhere(format string, now time.Time, found []presence) error {
	switch format {
	case "json":
		return g.writeJSON(found)
	case "yaml":
		return g.writeValue(found)
	}
	if len(found) == 0 {
		return nil
	}
	p := paletteFor(g.out)
	rows := [][]cell{plain("ENVIRONMENT", "SERVICE", "VERSION", "PRESENCE", "STATE", "SINCE", "UNTIL", "WHY")}
	for _, f := range found {
		row := plain(string(f.Environment), string(f.Service), f.Version, f.Presence, string(f.State), g.moment(now, f.Since), g.moment(now, f.Until), f.Reason)
		row[3].paint, row[4].paint = p.state(f.Presence), p.state(dash(string(f.State)))
		rows = append(rows, row)
	}
	return (&table{w: g.out}).write(rows...)
}

// moment writes when something was: how long ago on a terminal, where somebody
// reads it now, and else the time, for it may be kept.
func (g *globals) moment(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	if _, tty := terminal(g.out); tty {
		return ageAt(now, t) + " ago"
	}
	return rfc3339(t)
}

// writeValue writes a value as YAML to standard output.
func (g *globals) writeValue(v any) error {
	text, err := yaml.Marshal(v)
	if err != nil {
		return err
	}
	_, err = g.out.Write(text)
	return err
}
