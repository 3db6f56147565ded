package reconcile

import (
	"slices"

	"github.com/pinion-cd/pinion/render"
)

// Whoever writes a text may put into it what it was given: the API server and
// an admission check an object, a container all that it can read. What the API
// server says of a service is told without the values of that service's
// Secrets; what a container has written without those of all services beside
// it, for a pod may use another's Secret.
//
// A text may be older than the newest target. So a target also knows the values
// of the ones before it, and of services that have left, the last target is kept.

// mostFormer is how many sets of values a target knows besides its own.
const mostFormer = 4

func (u *unit) hide(text string) string { return u.target.hide(text) }

// hide cuts the values of the service's Secrets out of a text.
func (t *Target) hide(text string) string { return hide(text, []*Target{t}) }

// Hide returns an error without those values in its text.
func (t *Target) Hide(err error) error { return hidden{t.hide(err.Error()), err} }

// hide cuts the values of the Secrets of several services, and more values, out
// of a text.
func hide(text string, targets []*Target, more ...string) string {
	if text == "" {
		return text
	}
	values := slices.Clone(more)
	for _, t := range targets {
		own, err := t.secrets()
		if err != nil {
			return "what there is to say can't be told from its secrets: " + err.Error()
		}
		values = append(values, own...)
	}
	if len(values) == 0 {
		return text
	}
	return render.NewMask(values).Hide(text)
}

// secrets returns the values of the service's Secrets, and those that they had
// before.
func (t *Target) secrets() ([]string, error) {
	if t == nil {
		return nil, nil
	}
	values := slices.Concat(t.former...)
	if !t.secretive() {
		return values, nil
	}
	full, err := t.whole()
	if err != nil {
		return nil, err
	}
	return append(values, full.Result.SecretValues()...), nil
}

// secretive tells whether the target's objects hold values that are not to be
// shown.
func (t *Target) secretive() bool {
	return t.Result != nil && slices.ContainsFunc(t.Result.All(), secretive)
}

// guarded tells whether a text about the service may have to be cut.
func (t *Target) guarded() bool { return t != nil && (len(t.former) > 0 || t.secretive()) }

func secretive(o render.Object) bool {
	return o.Ref.Kind == "Secret" && o.Ref.Group == "" || len(o.Hidden) > 0
}

// succeed returns a target that also knows the values of the one before it.
// Neither of the two is changed, for others may have them.
func (t *Target) succeed(before *Target) *Target {
	if !before.guarded() {
		return t
	}
	own, err := t.secrets()
	if err != nil {
		return t // who hides by it says so
	}
	former := before.former
	if before.secretive() {
		full, err := before.whole()
		if err != nil {
			return t
		}
		former = append([][]string{full.Result.SecretValues()}, former...)
	}
	next := *t
	next.former = nil
	for _, values := range former {
		known := slices.Concat(own, slices.Concat(next.former...))
		values = slices.DeleteFunc(slices.Clone(values), func(v string) bool { return slices.Contains(known, v) })
		if len(values) > 0 && len(next.former) < mostFormer {
			next.former = append(next.former, values)
		}
	}
	return &next
}

// beside returns the targets with Secrets of all services of a namespace, also
// of those that have left it.
func (e *Engine) beside(p Place) []*Target {
	var all []*Target
	for _, u := range e.units {
		if u.target.guarded() && u.target.Place == p {
			all = append(all, u.target)
		}
	}
	for _, t := range e.gone {
		if t.Place == p {
			all = append(all, t)
		}
	}
	return all
}

// hide cuts the values of a service's Secrets out of a text, also if the service
// has left.
func (e *Engine) hide(k Key, text string) string {
	if u := e.units[k]; u != nil {
		return u.hide(text)
	}
	return e.gone[k].hide(text)
}

// hidden is an error whose text has no secret in it.
type hidden struct {
	text string
	err  error
}

func (h hidden) Error() string { return h.text }
func (h hidden) Unwrap() error { return h.err }
