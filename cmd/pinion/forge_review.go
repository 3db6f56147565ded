package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/forge"
	"github.com/pinion-cd/pinion/reconcile"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

// examiner finds out what a pull request would do, as lint and diff do. Whoever
// may open one decides what is in it: its manifests are rendered by workers that
// have no keys, and what comes from a fork is compared with no cluster.
type examiner struct {
	config   *config
	commits  reconcile.Commits
	renderer reconcile.Renderer // without keys
	clusters map[desired.ClusterName]*cluster.Cluster
}

const (
	// examineTime bounds the look at one pull request.
	examineTime = 5 * time.Minute
	// mostCompared is how many objects of one environment are compared with what
	// runs: each is a request.
	mostCompared = 500
)

func (x *examiner) examine(ctx context.Context, s forge.Subject) (forge.Examination, error) {
	ctx, cancel := context.WithTimeout(ctx, examineTime)
	defer cancel()
	var out forge.Examination
	before, err := reconcile.ReadCommit(ctx, x.commits, s.Base, nil)
	if err != nil {
		return out, err
	}
	after, err := reconcile.ReadCommit(ctx, x.commits, s.Head, before)
	if err != nil {
		return out, err
	}
	changed, err := after.Snapshot.Changed(before.Snapshot)
	if err != nil {
		return out, err
	}
	var sides [2][]reconcile.Rendered
	for i, c := range []*reconcile.Commit{before, after} {
		if sides[i], err = reconcile.Render(ctx, x.commits, x.renderer, c, reconcile.Selection{}, 1); err != nil {
			return out, err
		}
		if i == 0 && untouched(changed, before.Repository, after.Repository, sides[0]) {
			out.Untouched = true
			return out, nil
		}
	}
	problems, err := x.config.problems(after.Repository, sides[1], true)
	if err != nil {
		return out, err
	}
	for _, p := range problems {
		if p.Severity == desired.SeverityError {
			out.Errors++
		} else {
			out.Warnings++
		}
		out.Problems = append(out.Problems, problemLine(p))
	}
	if !s.Trusted {
		out.Live = "it comes from another repository"
	}
	changes, _ := compareRenderings(sound(sides[0], sides[1]))
	for _, env := range environmentsOf(before.Repository, after.Repository) {
		var failed []string
		for _, r := range sides[0] {
			// What a file that can't be used does not say any more is not gone.
			still := slices.ContainsFunc(sides[1], func(n reconcile.Rendered) bool { return n.Key == r.Key })
			if gone, why := after.Repository.Gone(r.Environment, r.Service); r.Environment == env && !still && !gone {
				changes = slices.DeleteFunc(changes, func(c change) bool { return c.Key == r.Key })
				failed = append(failed, fmt.Sprintf("%s: %s", r.Key, why))
			}
		}
		e := forge.EnvironmentChange{Environment: env, Rendered: textOf(changes, env)}
		for i, r := range sides[1] {
			if r.Environment == env && r.Err != nil && !sameFailure(sides[0], sides[1][i]) {
				failed = append(failed, fmt.Sprintf("%s: %v", r.Key, r.Err))
			}
		}
		e.Failed = strings.Join(failed, "\n")
		if e.Rendered == "" && e.Failed == "" {
			continue
		}
		if s.Trusted && e.Failed == "" {
			x.live(ctx, &e, before, after, sides[1])
		}
		out.Environments = append(out.Environments, e)
	}
	return out, ctx.Err()
}

// untouched tells whether nothing that was read differs: neither by package
// desired, nor by what is rendered, which reaches files in any folder. What fails
// to be rendered reads files, too, and who has changed one may have mended it.
func untouched(changed []string, before, after *desired.Repository, rendered []reconcile.Rendered) bool {
	if slices.ContainsFunc(changed, desired.Reads) || !slices.Equal(before.Problems, after.Problems) {
		return false
	}
	touch := render.MakeTouch(changed)
	for _, p := range before.Policies {
		if p.Job != nil && touch.Touches([]render.Read{{Path: p.Job.Manifest}}) {
			return false
		}
	}
	for _, r := range rendered {
		var failure *render.Error
		switch {
		case r.Err == nil:
			if touch.Touches(r.Target.Result.Reads) {
				return false
			}
		case errors.As(r.Err, &failure):
			if failure.Reads == nil || touch.Touches(failure.Reads) {
				return false
			}
		default: // its files are not sound, which is so at the head, or it is not known what it reads
			if d, ok := before.Deployment(r.Environment, r.Service); !ok || len(d.Problems) == 0 {
				return false
			}
		}
	}
	return true
}

// sound are the renderings of services that both sides have rendered, or only
// one of them has: what can't be rendered is told elsewhere.
func sound(before, after []reconcile.Rendered) (_, _ []reconcile.Rendered) {
	broken := map[reconcile.Key]bool{}
	for _, r := range slices.Concat(before, after) {
		broken[r.Key] = broken[r.Key] || r.Err != nil
	}
	keep := func(all []reconcile.Rendered) []reconcile.Rendered {
		return slices.DeleteFunc(slices.Clone(all), func(r reconcile.Rendered) bool { return broken[r.Key] })
	}
	return keep(before), keep(after)
}

// sameFailure tells whether a service could not be rendered before, either, for
// the same reason.
func sameFailure(before []reconcile.Rendered, r reconcile.Rendered) bool {
	return slices.ContainsFunc(before, func(b reconcile.Rendered) bool {
		return b.Key == r.Key && b.Err != nil && b.Err.Error() == r.Err.Error()
	})
}

func environmentsOf(repos ...*desired.Repository) []desired.EnvironmentName {
	var all []desired.EnvironmentName
	for _, r := range repos {
		for name := range r.Environments {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// textOf shows the changes in one environment.
func textOf(changes []change, env desired.EnvironmentName) string {
	var out bytes.Buffer
	writeChanges(&out, palette{}, slices.DeleteFunc(slices.Clone(changes), func(c change) bool { return c.Environment != env }))
	return out.String()
}

// live compares one environment with what runs.
func (x *examiner) live(ctx context.Context, e *forge.EnvironmentChange, before, after *reconcile.Commit, all []reconcile.Rendered) {
	then, now := before.Repository.Environments[e.Environment], after.Repository.Environments[e.Environment]
	switch {
	case now == nil || x.clusters[now.Cluster] == nil:
		return
	case then == nil || then.Cluster != now.Cluster || then.Namespace != now.Namespace || then.ServiceAccount != now.ServiceAccount:
		// It would be looked at with other rights than those that main gives it.
		e.Live = "(not compared: it is another place, or another account, than on main)"
		return
	}
	all = slices.DeleteFunc(slices.Clone(all), func(r reconcile.Rendered) bool { return r.Environment != e.Environment })
	objects := 0
	for _, r := range all {
		if r.Err == nil {
			objects += len(r.Target.Result.Objects)
		}
	}
	if objects > mostCompared {
		e.Live = fmt.Sprintf("(not compared: %d objects)", objects)
		return
	}
	in := &session{repository: &repository{commits: x.commits, commit: after}, config: x.config, clusters: x.clusters}
	changes, _, err := compareLive(ctx, in, reconcile.Selection{Environment: e.Environment}, all)
	e.Live = textOf(changes, e.Environment)
	if err != nil {
		e.Live += "(not all could be compared: " + err.Error() + ")"
	}
}
