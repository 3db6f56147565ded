package notify

import (
	"slices"

	"github.com/pinion-cd/pinion/desired"
)

// Sink is somebody who is told news, as the daemon's configuration has it. An
// empty list stands for all.
type Sink struct {
	Name         string
	Format       Format
	Events       []desired.News
	Environments []desired.EnvironmentName
	Services     []desired.ServiceName
	// OnRequest: only what an environment's file asks for under notify.
	OnRequest bool
}

// Wants tells whether a sink is to be told, given the newest commit, nil if it
// is not known.
func (s Sink) Wants(n Notification, newest *desired.Repository) bool {
	if !in(s.Events, n.Event) || !about(n, s.Environments, s.Services) {
		return false
	}
	if !s.OnRequest {
		return true
	}
	if newest == nil {
		return false
	}
	for name, env := range newest.Environments {
		if !in(s.Environments, name) {
			continue
		}
		for _, ask := range env.Notify {
			if ask.Sink == s.Name && in(ask.Events, n.Event) && about(n, []desired.EnvironmentName{name}, ask.Services) {
				return true
			}
		}
	}
	return false
}

// about tells whether news are about any of some environments and services.
func about(n Notification, environments []desired.EnvironmentName, services []desired.ServiceName) bool {
	if n.Hold != nil {
		return meet(n.Hold.Environments, environments) && meet(n.Hold.Services, services)
	}
	return in(environments, n.Environment) && in(services, n.Service)
}

// in tells whether a list, which stands for all if it is empty, has a name.
func in[T comparable](list []T, name T) bool { return len(list) == 0 || slices.Contains(list, name) }

// meet tells whether two such lists have anything in common.
func meet[T comparable](a, b []T) bool {
	return len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, func(x T) bool { return slices.Contains(b, x) })
}
