package policy

import (
	"cmp"
	"errors"
	"slices"

	"github.com/pinion-cd/pinion/desired"
)

// CheckExpressions returns an error for each thing that keeps an expression of
// a policy from being compiled, sorted by place.
func CheckExpressions(r *desired.Repository) []desired.Problem {
	var problems []desired.Problem
	for _, p := range r.Policies {
		_, err := expressionOf(p)
		var bad *ExpressionError
		if !errors.As(err, &bad) {
			continue
		}
		for _, f := range bad.Faults {
			problems = append(problems, desired.Problem{
				Severity: desired.SeverityError,
				Position: r.ExpressionAt(p, f.Line, f.Column),
				Message:  f.Message,
				Hint:     f.Hint,
				Kind:     desired.KindPolicy,
				Name:     string(p.Name),
			})
		}
	}
	slices.SortFunc(problems, func(a, b desired.Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Message, b.Message))
	})
	return problems
}

// expressionOf compiles a policy's expression. It is nil if the policy has none.
func expressionOf(p *desired.Policy) (*Expression, error) {
	switch p.Check {
	case desired.CheckCEL:
		return CompileDeployment(p.CEL)
	case desired.CheckHTTP:
		return CompileHTTP(p.HTTP.Expect)
	case desired.CheckPrometheus:
		return CompilePrometheus(p.Prometheus.Expect)
	}
	return nil, nil
}
