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
}

// Matrix returns where all services stand. What could not be read is an error.
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
			return nil, err
		}
		for _, s := range all {
			m.Standings[s.Service] = append(m.Standings[s.Service], s)
		}
	}
	m.Services = slices.Sorted(maps.Keys(m.Standings))
	view.matrix = m
	return m, nil
}
