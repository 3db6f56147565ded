package main

import (
	"context"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/policy"
)

// sharedRules are the rules of commits, by what they are read from.
type sharedRules struct {
	mu   sync.Mutex // guards what follows, and is held while reading
	read map[string]*readRules
	last *desired.Repository
}

type readRules struct {
	repository *desired.Repository
	zones      map[string]*time.Location
}

// mostSharedRules bounds how many are kept.
const mostSharedRules = 500

// rulesAt returns the rules of a commit of main. Those that have the same
// pipelines, policies, holds and services, and environments of the same names,
// share what was read; so what the files of the environments say is not to be
// taken from it.
func (r *auditReader) rulesAt(ctx context.Context, commit string) (policy.Rules, map[string]*time.Location, error) {
	snap, err := r.archive.Snapshot(ctx, commit)
	if err != nil {
		return policy.Rules{}, nil, err
	}
	var key strings.Builder
	for _, folder := range []string{"pipelines", "policies", "holds", "services"} {
		id, err := idOf(snap, folder)
		if err != nil {
			return policy.Rules{}, nil, err
		}
		key.WriteString(id + " ")
	}
	entries, err := fs.ReadDir(snap, "environments")
	if known(err) != nil {
		return policy.Rules{}, nil, err
	}
	for _, e := range entries {
		key.WriteString(e.Name() + " ")
	}
	exact, err := idOf(snap, "environments")
	if err != nil {
		return policy.Rules{}, nil, err
	}
	shared, alone := key.String(), key.String()+exact
	s := &r.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.read[alone]
	if x == nil {
		x = s.read[shared]
	}
	if x == nil {
		x = &readRules{zones: map[string]*time.Location{}}
		if x.repository, err = desired.Read(snap, s.last); err != nil {
			return policy.Rules{}, nil, err
		}
		s.last = x.repository
		if len(x.repository.BrokenNames(desired.KindEnvironment)) > 0 {
			shared = alone // a stage can't be used as long as its environment is broken
		}
		for _, p := range x.repository.Policies {
			if p.Window == nil {
				continue
			}
			// One that is not known stays out: the window is closed then, and says so.
			if loc, err := time.LoadLocation(p.Window.Timezone); err == nil {
				x.zones[p.Window.Timezone] = loc
			}
		}
		if s.read == nil || len(s.read) >= mostSharedRules {
			s.read = map[string]*readRules{}
		}
		s.read[shared] = x
	}
	return policy.Rules{Commit: commit, Repository: x.repository}, x.zones, nil
}

// environment reads the file of one environment; nil: it is not there, or not
// sound.
func (r *auditReader) environment(snap *gitstate.Snapshot, env desired.EnvironmentName) (*desired.Environment, error) {
	file := "environments/" + string(env) + ".yaml"
	id, err := idOf(snap, file)
	if err != nil || id == "" {
		return nil, err
	}
	key := file + " " + id
	if e, ok := r.environments[key]; ok {
		return e, nil
	}
	repo, err := desired.Read(oneFile{snap, "environments", string(env) + ".yaml"}, nil)
	if err != nil {
		return nil, err
	}
	if len(r.environments) >= 100 {
		clear(r.environments)
	}
	r.environments[key] = repo.Environments[env]
	return repo.Environments[env], nil
}

// deployment is what a commit asks for; the repository has its services and
// pipelines. Mistakes in the files are not looked for: they keep a release from
// moving, and say nothing against one that has moved.
func (r *auditReader) deployment(snap *gitstate.Snapshot, repo *desired.Repository, env desired.EnvironmentName, svc desired.ServiceName) (*desired.Deployment, error) {
	s := repo.Services[svc]
	e, err := r.environment(snap, env)
	if err != nil || e == nil || s == nil {
		return nil, err
	}
	d := &desired.Deployment{Environment: e, Service: s, Source: e.Manifests[svc]}
	for _, a := range s.Artifacts {
		if pin, ok := e.Pins[a]; ok {
			d.Pins = append(d.Pins, pin)
		}
	}
	if len(s.Artifacts) == 0 {
		if p, _ := repo.PipelineOf(svc); p == nil || p.Stage(env) != nil {
			return d, nil
		}
	}
	if len(d.Pins) == 0 {
		return nil, nil
	}
	return d, nil
}

// oneFile is a tree of which one file in one folder is seen.
type oneFile struct {
	*gitstate.Snapshot
	folder, name string
}

func (o oneFile) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := o.Snapshot.ReadDir(name)
	return slices.DeleteFunc(all, func(e fs.DirEntry) bool {
		return name == "." && e.Name() != o.folder || name == o.folder && e.Name() != o.name
	}), err
}
