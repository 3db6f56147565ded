package policy

import (
	"errors"

	"github.com/pinion-cd/pinion/desired"
)

// Expression is a compiled expression. It may be used by several goroutines.
type Expression struct{}

// CompileDeployment compiles the expression of a cel policy, over deployment.
func CompileDeployment(src string) (*Expression, error) { return nil, errors.New("not compiled") }

// CompileHTTP compiles the expectation of an http policy, over status, body
// and headers; see [HTTPVariables].
func CompileHTTP(src string) (*Expression, error) { return nil, errors.New("not compiled") }

// CompilePrometheus compiles the expectation of a prometheus policy, over
// value; see [PrometheusVariables].
func CompilePrometheus(src string) (*Expression, error) { return nil, errors.New("not compiled") }

// Eval evaluates the expression. An error is no answer, and lets nothing pass.
func (x *Expression) Eval(vars map[string]any) (bool, error) {
	return false, errors.New("not compiled")
}

// HTTPVariables are what CompileHTTP's expressions see of an answer. The body
// is what its JSON says, or a string if it is none. The names of headers are in
// lower case.
func HTTPVariables(status int, headers map[string]string, body []byte) map[string]any { return nil }

// PrometheusVariables are what CompilePrometheus's expressions see.
func PrometheusVariables(value float64) map[string]any { return nil }

// CheckExpressions returns an error for each expression of a policy that does
// not compile.
func CheckExpressions(r *desired.Repository) []desired.Problem { return nil }
