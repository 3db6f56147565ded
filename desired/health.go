package desired

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// HealthRule is how a service's objects of a kind are told to be healthy, in
// CEL over object. The expressions are not compiled here.
type HealthRule struct {
	Group   string
	Version string
	Kind    string

	Current    Expression
	InProgress Expression // without text: there is none
	Failed     Expression // without text: there is none
}

// APIVersion returns the group and the version as a manifest has them.
func (r HealthRule) APIVersion() string {
	if r.Group == "" {
		return r.Version
	}
	return r.Group + "/" + r.Version
}

// SameHealth tells whether two lists say the same, wherever they stand.
func SameHealth(a, b []HealthRule) bool {
	return slices.EqualFunc(a, b, func(x, y HealthRule) bool {
		return x.Group == y.Group && x.Version == y.Version && x.Kind == y.Kind &&
			x.Current.Text == y.Current.Text && x.InProgress.Text == y.InProgress.Text && x.Failed.Text == y.Failed.Text
	})
}

// Expression is a CEL expression as a file has it.
type Expression struct {
	Text     string
	Position Position

	written written
}

// At returns the place in the file of a character of the expression, by its
// line and column in it, both counted from 0. Where that can't be told, it is
// the place of the expression as a whole.
func (e Expression) At(line, column int) Position {
	return e.written.place(e.Position, line, column)
}

func (d *decoder) expression(w word) Expression {
	if !w.Set || w.Bad {
		return Expression{}
	}
	return Expression{Text: w.Text, Position: w.Position, written: d.written(w)}
}

// healthRules makes the rules of a file.
func (d *decoder) healthRules(raw []healthFile) []HealthRule {
	var rules []HealthRule
	lines := map[string]int{} // by kind and group
	for _, x := range raw {
		version := x.APIVersion.or("")
		r := HealthRule{
			Version: version, Kind: x.Kind.or(""),
			Current: d.expression(x.Current), InProgress: d.expression(x.InProgress), Failed: d.expression(x.Failed),
		}
		if group, v, ok := strings.Cut(version, "/"); ok {
			r.Group, r.Version = group, v
		}
		if version == "" || r.Kind == "" {
			continue // it is told already
		}
		if r.Group == "" && r.Kind == "Secret" {
			d.failAt(x.Kind.Position, "health: a Secret can't be judged: its values are never read", "judge what makes the Secret, such as an ExternalSecret")
		}
		of := r.Kind + "." + r.Group
		if first := lines[of]; first > 0 {
			d.failAt(x.Kind.Position, fmt.Sprintf("health: there are two rules for %s", r.Kind), fmt.Sprintf("put this one and that in line %d together, with || or &&", first))
		}
		lines[of] = x.Kind.Position.Line
		rules = append(rules, r)
	}
	return rules
}

var apiVersionRegexp = regexp.MustCompile(`^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?v[0-9]+((alpha|beta)[0-9]+)?$`)

func checkAPIVersion(s string) (message, hint string) {
	if apiVersionRegexp.MatchString(s) {
		return "", ""
	}
	const want = "write it as a manifest does: apps/v1, example.com/v1beta1, or v1"
	message = fmt.Sprintf("%q is not an API version", abridge(s))
	if groupRegexp.MatchString(s) && strings.Contains(s, ".") {
		return message, fmt.Sprintf("add the version: %s/v1", s)
	}
	return message, want
}
