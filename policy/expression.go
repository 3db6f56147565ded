package policy

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/ext"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/expression"
	"github.com/pinion-cd/pinion/ledger"
)

var (
	ofJudging  = expression.Limits{Cost: 100_000, Rounds: 2_000}
	ofFetching = expression.Limits{Cost: 1_000_000, Rounds: 5_000}
)

// Expression is a compiled expression of a policy.
type Expression = expression.Expression

// ExpressionError is why one does not compile.
type ExpressionError = expression.Error

// facts are what an expression sees of a deployment. There is no time among
// them: what an expression says of a deployment does not change by itself.
type facts struct {
	Environment string         `cel:"environment"`
	Service     string         `cel:"service"`
	Version     string         `cel:"version"`
	Pins        map[string]pin `cel:"pins"` // by artifact
	Source      string         `cel:"source"`
	Commit      string         `cel:"commit"`
	Manifests   string         `cel:"manifests"`
	Cause       string         `cel:"cause"`
	Authors     []string       `cel:"authors"`
	Actor       string         `cel:"actor"`
}

type pin struct {
	Image      string `cel:"image"`
	Repository string `cel:"repository"`
	Version    string `cel:"version"`
	Digest     string `cel:"digest"`
}

var (
	ofDeployment = expression.NewLanguage(ofJudging,
		[]string{"deployment", "environment", "service", "version", "pins", "source", "commit", "manifests", "cause", "authors", "actor", "image", "repository", "digest",
			about, "name", "branch", "build", "tests", "quality", "created", "origin", "publisher", "found", "moved", "signed"},
		ext.NativeTypes(ext.ParseStructTags(true), reflect.TypeFor[facts](), reflect.TypeFor[pin](), reflect.TypeFor[known]()),
		cel.Variable("deployment", cel.ObjectType("policy.facts")), cel.Variable(about, cel.ObjectType("policy.known")))
	ofHTTP = expression.NewLanguage(ofFetching, []string{"status", "body", "headers"},
		cel.Variable("status", cel.IntType),
		cel.Variable("body", cel.DynType),
		cel.Variable("headers", cel.MapType(cel.StringType, cel.StringType)))
	ofPrometheus = expression.NewLanguage(ofFetching, []string{"value"}, cel.Variable("value", cel.DoubleType))
)

// CompileDeployment compiles the expression of a cel policy, over deployment and
// artifact; see [DeploymentVariables] and [ArtifactVariables]. The error is an *ExpressionError.
func CompileDeployment(src string) (*Expression, error) { return ofDeployment.Compile(src) }

// CompileHTTP compiles the expectation of an http policy, over status, body
// and headers; see [HTTPVariables]. The error is an *ExpressionError.
func CompileHTTP(src string) (*Expression, error) { return ofHTTP.Compile(src) }

// CompilePrometheus compiles the expectation of a prometheus policy, over
// value; see [PrometheusVariables]. The error is an *ExpressionError.
func CompilePrometheus(src string) (*Expression, error) { return ofPrometheus.Compile(src) }

// DeploymentVariables are what the expressions of cel policies see of a
// deployment.
func DeploymentVariables(env desired.EnvironmentName, svc desired.ServiceName, d ledger.Deployment) map[string]any {
	x := facts{
		Environment: string(env),
		Service:     string(svc),
		Version:     d.Release.Version(),
		Pins:        make(map[string]pin, len(d.Release.Pins)),
		Source:      d.Release.Source,
		Commit:      d.Commit,
		Manifests:   d.Manifests,
		Cause:       string(d.Cause),
		Actor:       d.Actor.String(),
	}
	for _, p := range d.Release.Pins {
		x.Pins[string(p.Artifact)] = pinOf(p.Image)
	}
	for _, p := range d.Authors {
		x.Authors = append(x.Authors, p.String())
	}
	return map[string]any{"deployment": &x}
}

// pinOf takes a reference apart as [desired.ParseImage] does, which has found
// it valid long ago.
func pinOf(reference string) pin {
	p := pin{Image: reference}
	p.Repository, p.Digest, _ = strings.Cut(reference, "@")
	if i := strings.LastIndexByte(p.Repository, ':'); i > strings.LastIndexByte(p.Repository, '/') {
		p.Repository, p.Version = p.Repository[:i], p.Repository[i+1:]
	}
	return p
}

// HTTPVariables are what the expressions of http policies see of an answer. The
// body is what its JSON says, or a string if it is none. The names of headers
// are in lower case.
func HTTPVariables(status int, headers map[string]string, body []byte) map[string]any {
	low := make(map[string]string, len(headers))
	for name, value := range headers {
		low[strings.ToLower(name)] = value
	}
	return map[string]any{"status": int64(status), "headers": low, "body": parseBody(body)}
}

// PrometheusVariables are what the expressions of prometheus policies see.
func PrometheusVariables(value float64) map[string]any { return map[string]any{"value": value} }

func parseBody(body []byte) any {
	var v any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&v); err != nil || d.More() {
		return strings.ToValidUTF8(string(body), "\uFFFD")
	}
	return numbers(v)
}

// numbers makes whole numbers integers, which a double would round from 2⁵³ on.
func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		f, err := v.Float64()
		if err != nil {
			return math.Inf(1)
		}
		return f
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	}
	return v
}
