package health

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/cel-go/cel"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/expression"
)

// language is that of health rules: object is all of the live object, as the
// API server has it.
var language = expression.NewLanguage(expression.Limits{Cost: 200_000, Rounds: 2_000}, []string{"object"},
	cel.Variable("object", cel.DynType), cel.OptionalTypes())

// Rules are a service's, compiled, by "Kind.group".
type Rules struct {
	source []desired.HealthRule
	byKind map[string]*Rule
}

// Rule judges the objects of one kind.
type Rule struct {
	Version                     string // of the kind, for which it is written
	current, inProgress, failed *compiled
}

type compiled struct {
	text string
	*expression.Expression
}

// Compile compiles a service's rules; nil, if it has none. The error says where
// each mistake is, and how to mend it.
func Compile(rules []desired.HealthRule) (*Rules, error) {
	if len(rules) == 0 {
		return nil, nil
	}
	all := &Rules{source: rules, byKind: make(map[string]*Rule, len(rules))}
	var problems []desired.Problem
	for _, r := range rules {
		x := &Rule{Version: r.Version}
		for _, e := range []struct {
			from desired.Expression
			into **compiled
		}{{r.Current, &x.current}, {r.InProgress, &x.inProgress}, {r.Failed, &x.failed}} {
			if e.from.Text == "" {
				continue
			}
			program, err := language.Compile(e.from.Text)
			problems = append(problems, problemsOf(e.from, err)...)
			*e.into = &compiled{e.from.Text, program}
		}
		all.byKind[kindOf(r)] = x
	}
	if len(problems) == 0 {
		return all, nil
	}
	lines := make([]string, len(problems))
	for i, p := range problems {
		lines[i] = p.Error()
	}
	return nil, errors.New(strings.Join(lines, "\n"))
}

// Check returns an error for each thing that keeps a health rule from being
// compiled, sorted by place.
func Check(r *desired.Repository) []desired.Problem {
	var problems []desired.Problem
	for _, s := range r.Services {
		for _, rule := range s.Health {
			for _, x := range []desired.Expression{rule.Current, rule.InProgress, rule.Failed} {
				if x.Text == "" {
					continue
				}
				_, err := language.Compile(x.Text)
				for _, p := range problemsOf(x, err) {
					p.Kind, p.Name = desired.KindService, string(s.Name)
					problems = append(problems, p)
				}
			}
		}
	}
	slices.SortFunc(problems, func(a, b desired.Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Message, b.Message))
	})
	return problems
}

func problemsOf(x desired.Expression, err error) []desired.Problem {
	var bad *expression.Error
	if !errors.As(err, &bad) {
		return nil
	}
	var problems []desired.Problem
	for _, f := range bad.Faults {
		problems = append(problems, desired.Problem{
			Severity: desired.SeverityError, Position: x.At(f.Line, f.Column), Message: "health: " + f.Message, Hint: f.Hint,
		})
	}
	return problems
}

func kindOf(r desired.HealthRule) string {
	if r.Group == "" {
		return r.Kind
	}
	return r.Kind + "." + r.Group
}

// Same tells whether two say the same; nil says nothing.
func (r *Rules) Same(o *Rules) bool {
	if r == nil || o == nil {
		return r == o
	}
	return r == o || desired.SameHealth(r.source, o.source)
}

// For returns the rule for a kind, as in "Deployment.apps"; nil, if there is
// none.
func (r *Rules) For(kind string) *Rule {
	if r == nil {
		return nil
	}
	return r.byKind[kind]
}

// Kinds returns the kinds that have a rule, as "Kind.group", sorted.
func (r *Rules) Kinds() []string {
	if r == nil {
		return nil
	}
	kinds := make([]string, 0, len(r.byKind))
	for k := range r.byKind {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	return kinds
}

// judge asks what has failed first, and what is healthy last. An error is no
// answer: the object is then on its way.
func (r *Rule) judge(o object) Health {
	if version := versionOf(o.text("apiVersion")); version != r.Version {
		return Health{Status: InProgress, Message: fmt.Sprintf("the API server shows it in version %s, and the service's health rule is for %s; write the rule for %s", version, r.Version, version)}
	}
	vars := map[string]any{"object": map[string]any(o)}
	for _, x := range []struct {
		key  string
		rule *compiled
	}{{"failed", r.failed}, {"inProgress", r.inProgress}, {"current", r.current}} {
		if x.rule == nil {
			continue
		}
		yes, err := x.rule.Eval(vars)
		switch {
		case err != nil:
			return Health{Status: InProgress, Message: fmt.Sprintf("the health rule's %s, %s, has no answer: %v", x.key, x.rule.words(), err)}
		case x.key == "failed" && yes:
			return Health{Status: Failed, Message: "the health rule says that it has failed: " + x.rule.words() + said(o)}
		case x.key == "inProgress" && yes:
			return Health{Status: InProgress, Message: "the health rule says that it is on its way: " + x.rule.words() + said(o)}
		case x.key == "current" && yes:
			return Health{Status: Current}
		}
	}
	return Health{Status: InProgress, Message: "the health rule is not satisfied: " + r.current.words() + said(o)}
}

func versionOf(apiVersion string) string {
	if _, version, ok := strings.Cut(apiVersion, "/"); ok {
		return version
	}
	return apiVersion
}

// words returns the expression, fit for a line.
func (c *compiled) words() string {
	const most = 120
	text := strings.Join(strings.Fields(c.text), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// said returns what the object says of itself where most of them do.
func said(o object) string {
	if c, ok := o.condition("Ready"); ok && c.status != "True" {
		return " (" + c.about() + ")"
	}
	if words := (condition{reason: o.text("status", "phase"), message: o.text("status", "message")}).words(); words != "" {
		return " (" + words + ")"
	}
	return ""
}
