package history

import (
	"context"
	"maps"
	"slices"

	"github.com/pinion-cd/pinion/desired"
)

// Matrix is where all services stand in all environments.
type Matrix struct {
	Environments []desired.EnvironmentName          // in the order of the pipelines
	Services     []desired.ServiceName              // sorted
	Standings    map[desired.ServiceName][]Standing // in the order of the environments
	Failures     []error                            // what could not be read
}

// Matrix returns where all services stand, but those that can't be read.
func (view *View) Matrix(ctx context.Context) (*Matrix, error) {
	if view.matrix != nil {
		return view.matrix, nil
	}
	envs, err := view.Environments(ctx)
	if err != nil {
		return nil, err
	}
	m := &Matrix{Environments: envs, Standings: map[desired.ServiceName][]Standing{}}
	for _, env := range envs {
		all, err := view.Standings(ctx, env, "")
		if err != nil {
			m.Failures = append(m.Failures, err)
		}
		for _, s := range all {
			m.Standings[s.Service] = append(m.Standings[s.Service], s)
		}
	}
	m.Services = slices.Sorted(maps.Keys(m.Standings))
	if len(m.Failures) == 0 {
		view.matrix = m
	}
	return m, nil
}
