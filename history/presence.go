package history

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

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
)

// presence is one stay of an artifact's version in an environment.
type Presence struct {
	Environment desired.EnvironmentName `json:"environment"`
	Service     desired.ServiceName     `json:"service"`
	Artifact    desired.ArtifactName    `json:"artifact"`
	Version     string                  `json:"version"`
	Image       string                  `json:"image"`
	// Presence is runs, pinned (it is asked for, and was not applied yet), ran,
	// waits (a Candidate) or refused.
	Presence   string       `json:"presence"`
	State      ledger.State `json:"state,omitempty"`
	Since      time.Time    `json:"since,omitzero"`
	Until      time.Time    `json:"until,omitzero"` // of what ran
	Deployment string       `json:"deployment,omitempty"`
	Reason     string       `json:"reason,omitempty"`
}

// Sought is the artifact, and perhaps its version, that is looked for.
type Sought struct {
	Artifact desired.ArtifactName
	Version  string // a tag, a digest or the beginning of one, the whole image; empty: any
}

// in finds it among the pins of a release.
func (w Sought) in(r ledger.Release) (image string, ok bool) {
	for _, p := range r.Pins {
		if p.Artifact == w.Artifact && (w.Version == "" || isVersion(p.Image, w.Version)) {
			return p.Image, true
		}
	}
	return "", false
}

// isVersion tells whether an image has a version: its tag, its digest or the
// beginning of it, or all of it.
func isVersion(image, version string) bool {
	if !strings.Contains(image, version) {
		return false // most are not, and need not be taken apart
	}
	img, err := desired.ParseImage(image)
	if err != nil {
		return image == version
	}
	return imageIs(img, version)
}

// imageIs is isVersion of an image that was taken apart.
func imageIs(img desired.Image, version string) bool {
	return version == img.Reference || img.Version != "" && (version == img.Version || version == img.Version+"@"+img.Digest) ||
		strings.HasPrefix(version, "sha256:") && len(version) > len("sha256:") && strings.HasPrefix(img.Digest, version)
}

func versionOf(image string) string {
	return ledger.Release{Pins: []ledger.Pin{{Image: image}}}.Version()
}

// rank is the order in which presences are shown.
func rank(p Presence) int {
	return slices.Index([]string{"runs", "pinned", "waits", "refused", "ran"}, p.Presence)
}

// Found is what is known of an artifact's version.
type Found struct {
	Presences []Presence
	// Failures are what could not be read, in which there may be more.
	Failures []error
}

// Where looks for an artifact, or one version of it, in all environments; all
// of the history, and not only the newest records, with all. The error is one
// about an artifact that nobody knows.
func (view *View) Where(ctx context.Context, w Sought, all bool) (Found, error) {
	f := Found{Presences: []Presence{}}
	known := false
	wait := view.preloadMain(ctx)
	defer wait()
	envs := slices.Sorted(maps.Keys(view.Tips))
	for _, env := range envs {
		here, has, err := view.presences(ctx, env, w)
		known = known || has
		if err == nil && all {
			if here, err = view.more(ctx, env, w, here); err != nil {
				err = fmt.Errorf("read %s: %w", ledger.Branch(env), err)
			}
			known = known || len(here) > 0
		}
		if err != nil {
			f.Failures = append(f.Failures, err)
		}
		f.Presences = append(f.Presences, here...)
	}
	wait()
	if !known && len(f.Failures) == 0 {
		if err := view.knowsArtifact(ctx, w.Artifact); err != nil {
			return f, err
		}
	}
	// The order of the pipelines, where main can tell it.
	if repo, err := view.Repository(ctx); err == nil {
		envs = Order(repo, envs)
	}
	at := map[desired.EnvironmentName]int{}
	for i, env := range envs {
		at[env] = i
	}
	slices.SortStableFunc(f.Presences, func(a, b Presence) int {
		return cmp.Or(cmp.Compare(at[a.Environment], at[b.Environment]), cmp.Compare(a.Service, b.Service), cmp.Compare(rank(a), rank(b)), b.Since.Compare(a.Since))
	})
	return f, nil
}

// presences looks through the records of an environment. known says that one
// of them has the artifact, whatever its version.
func (view *View) presences(ctx context.Context, env desired.EnvironmentName, w Sought) (found []Presence, known bool, err error) {
	book, err := view.book(ctx, env)
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
		if !view.has(book, env, svc) {
			// Most records are about something else, and need not be taken apart.
			data, err := book.ReadFile(ledger.RecordFile(svc))
			if err == nil && !bytes.Contains(data, []byte(w.Artifact)) {
				continue
			}
		}
		r, ok, err := view.recordIn(book, env, svc)
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
func (w Sought) among(r ledger.Record) (found []Presence, known bool) {
	any := Sought{Artifact: w.Artifact}
	add := func(x ledger.Release, p Presence) {
		if _, ok := any.in(x); ok {
			known = true
		}
		image, ok := w.in(x)
		if !ok {
			return
		}
		p.Environment, p.Service, p.Artifact = r.Environment, r.Service, w.Artifact
		p.Image, p.Version = image, versionOf(image)
		found = append(found, p)
	}
	if d := r.Deployment; d.ID != "" {
		p := Presence{Presence: "runs", State: d.State, Since: d.Started, Deployment: d.ID, Reason: d.Reason}
		switch {
		case !r.Retired.IsZero():
			p.Presence, p.Until = "ran", r.Retired
		case d.Started.IsZero():
			p.Presence, p.Since = "pinned", d.Pinned
		}
		add(d.Release, p)
	}
	if c := r.Candidate; c != nil {
		add(c.Release, Presence{Presence: "waits", Since: c.Offered, Reason: c.Reason})
	}
	for _, x := range r.Refused {
		add(x.Release, Presence{Presence: "refused", Since: x.Time, Reason: x.Reason})
	}
	for _, p := range r.Previous {
		if !p.Started.IsZero() {
			add(p.Release, Presence{Presence: "ran", State: p.State, Since: p.Started, Until: p.Left, Deployment: p.ID})
		}
	}
	return found, known
}

// more adds what the whole history of a ledger has, and the records lack.
func (view *View) more(ctx context.Context, env desired.EnvironmentName, w Sought, found []Presence) ([]Presence, error) {
	have := map[string]bool{}
	for _, p := range found {
		have[p.Deployment] = true
	}
	left := map[desired.ServiceName]time.Time{} // when the deployment after it was pinned
	state := map[string]ledger.State{}
	started := map[string]time.Time{}
	mention := "\nPinion-Pin: " + string(w.Artifact) + " "
	err := view.Archive.History(ctx, view.Tips[env], func(c gitstate.CommitInfo) bool {
		if !strings.Contains(c.Message, mention) {
			return true
		}
		e, err := ledger.ParseMessage(c.Message, c.Committer.Time)
		if err != nil || e.Deployment == "" {
			return true // of another's hand, or about a Candidate
		}
		image, ok := w.in(e.Release)
		switch e.Event {
		case ledger.EventStarted:
			started[e.Deployment] = e.Time
		case ledger.EventPinned:
			if ok && !have[e.Deployment] && !started[e.Deployment].IsZero() {
				have[e.Deployment] = true
				found = append(found, Presence{Environment: env, Service: e.Service, Artifact: w.Artifact, Image: image, Version: versionOf(image),
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
func (view *View) knowsArtifact(ctx context.Context, name desired.ArtifactName) error {
	names := map[desired.ArtifactName]bool{}
	if repo, err := view.Repository(ctx); err == nil {
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
	for env := range view.Tips {
		all, err := view.Records(ctx, env)
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
	return Unknown("artifact", string(name), slices.Sorted(maps.Keys(names)), "there are")
}
