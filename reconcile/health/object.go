package health

import (
	"strconv"
	"strings"
)

// object is an object as JSON says it: whole numbers are int64.
type object map[string]any

// kind returns "Deployment.apps".
func (o object) kind() string {
	kind := o.text("kind")
	if group, _, ok := strings.Cut(o.text("apiVersion"), "/"); ok {
		return kind + "." + group
	}
	return kind
}

func (o object) group() string {
	group, _, ok := strings.Cut(o.text("apiVersion"), "/")
	if !ok {
		return ""
	}
	return group
}

func (o object) at(path ...string) any {
	var v any = map[string]any(o)
	for _, key := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

func (o object) text(path ...string) string {
	s, _ := o.at(path...).(string)
	return s
}

func (o object) flag(path ...string) bool {
	b, _ := o.at(path...).(bool)
	return b
}

func (o object) list(path ...string) []any {
	l, _ := o.at(path...).([]any)
	return l
}

// number returns a whole number, also one that is written as text.
func (o object) number(fallback int64, path ...string) int64 {
	switch n := o.at(path...).(type) {
	case int64:
		return n
	case int:
		return int64(n)
	case float64:
		return int64(n)
	case string:
		if i, err := strconv.ParseInt(n, 10, 64); err == nil {
			return i
		}
	}
	return fallback
}

func (o object) generation() int64 { return o.number(0, "metadata", "generation") }

// unseen tells whether the status says that it is of an older generation.
func (o object) unseen() bool {
	return o.number(o.generation(), "status", "observedGeneration") < o.generation()
}

// condition is one of status.conditions, or of another list of that form.
type condition struct {
	kind, status, reason, message string
	generation                    int64 // that it speaks of; -1: it does not say
}

// words says why: "DoesNotExist: the Secret is not there".
func (c condition) words() string {
	if c.reason == "" || strings.HasPrefix(c.message, c.reason+":") {
		return c.message
	}
	if c.message == "" {
		return c.reason
	}
	return c.reason + ": " + c.message
}

// about says which condition it is that is not as it should be, and why.
func (c condition) about() string {
	if words := c.words(); words != "" {
		return c.kind + " is " + c.status + ": " + words
	}
	return c.kind + " is " + c.status
}

func conditionsOf(list []any) []condition {
	var all []condition
	for _, x := range list {
		m, ok := x.(map[string]any)
		if !ok {
			continue
		}
		c := object(m)
		all = append(all, condition{c.text("type"), c.text("status"), c.text("reason"), c.text("message"), c.number(-1, "observedGeneration")})
	}
	return all
}

func (o object) condition(kind string) (condition, bool) {
	return find(conditionsOf(o.list("status", "conditions")), kind)
}

func find(all []condition, kind string) (condition, bool) {
	for _, c := range all {
		if c.kind == kind {
			return c, true
		}
	}
	return condition{kind: kind, generation: -1}, false
}

// stale tells whether a condition speaks of an older generation.
func (o object) stale(c condition) bool {
	return c.generation >= 0 && c.generation < o.generation()
}

// The words for what a controller has still to do.
const (
	silent  = "its controller has not said anything of it yet"
	outrun  = "its controller has not seen its newest generation yet"
	pending = "its controller has not said yet whether it is "
)
