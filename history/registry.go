package history

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
)

// Registry is how the looks at a repository of a registry go. Git does not tell
// it: only who watches the registry knows.
type Registry struct {
	Repository   string                    `json:"repository"`
	Environments []desired.EnvironmentName `json:"environments"`        // that watch it
	Read         time.Time                 `json:"read,omitzero"`       // the last look that went well
	Failing      time.Time                 `json:"failing,omitzero"`    // since when it can't be read
	Problem      string                    `json:"problem,omitempty"`   // why; or else what is wrong with single tags
	Next         time.Time                 `json:"next,omitzero"`       // when it is looked at again; absent: now
	Elsewhere    bool                      `json:"elsewhere,omitempty"` // it is not looked at by who was asked, who knows no more
}

// Watched returns the repositories of registries into which main has somebody
// look, for new versions or for signatures, sorted, each with the environments
// for which that is.
func (view *View) Watched(ctx context.Context) ([]Registry, error) {
	return view.watched(ctx, func(desired.Tracked) bool { return true })
}

// WatchedFor returns those of one service in one environment.
func (view *View) WatchedFor(ctx context.Context, env desired.EnvironmentName, svc desired.ServiceName) ([]Registry, error) {
	return view.watched(ctx, func(t desired.Tracked) bool { return t.Environment == env && t.Service == svc })
}

func (view *View) watched(ctx context.Context, wanted func(desired.Tracked) bool) ([]Registry, error) {
	repo, err := view.Repository(ctx)
	if err != nil {
		return nil, err
	}
	var all []Registry
	for _, t := range repo.Tracked() {
		if !t.Watches() || !wanted(t) {
			continue
		}
		name := artifact.Normal(t.Pin.Image.Repository)
		i, known := slices.BinarySearchFunc(all, name, func(r Registry, name string) int { return strings.Compare(r.Repository, name) })
		if !known {
			all = slices.Insert(all, i, Registry{Repository: name})
		}
		if !slices.Contains(all[i].Environments, t.Environment) {
			all[i].Environments = append(all[i].Environments, t.Environment)
		}
	}
	return all, nil
}

// answer says what somebody has to know who waits for a version; "": nothing is
// wrong.
func (r Registry) answer(now time.Time) string {
	again := "it is being looked at"
	if r.Next.After(now) {
		again = "it is looked at again at " + Clock(now, r.Next)
	}
	switch {
	case r.Elsewhere, r.Problem == "":
		return ""
	case r.Failing.IsZero():
		return fmt.Sprintf("not all of %s can be taken: %s", r.Repository, r.Problem)
	}
	return fmt.Sprintf("%s can't be read since %s ago, so newer versions are not seen: %s; %s", r.Repository, Age(now, r.Failing), r.Problem, again)
}

// Hear adds what is known of the registries to an explanation.
func (x *Explanation) Hear(all []Registry) {
	x.Registries = all
	for _, r := range all {
		if text := r.answer(x.Now); text != "" {
			x.Answer += "; " + text
		}
	}
}
