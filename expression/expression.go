// Package expression compiles and evaluates expressions in the Common
// Expression Language (https://github.com/google/cel-spec), which ask something
// of a deployment, an answer, or an object: true or false.
//
// It sees to it that each ends: how long an expression is, how many steps it
// takes and how many elements it goes through is bounded, and what would look
// at the machine (time zones) is not there. What it speaks of is said by who
// makes a [Language]; what an expression comes to mean, too. There is no clock
// and no I/O, so a crash leaves nothing behind.
package expression

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	celast "github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/env"
	"github.com/google/cel-go/common/overloads"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/ext"
	"github.com/google/cel-go/interpreter"

	"github.com/pinion-cd/pinion/desired"
)

const (
	maxExpression = 4 << 10 // bytes of an expression
	maxCompiled   = 1 << 10 // expressions that are remembered, of each language
	maxFaults     = 5       // of one expression
)

// Limits are of one evaluation. Cost alone does not bound its time: to count
// it, CEL keeps what each round of a loop came to, and looks through that
// again. 20,000 rounds of one loop took 2.4 s.
type Limits struct {
	Cost   uint64 // in the units of CEL, about a step each
	Rounds uint   // of all loops together
}

// Expression is a compiled expression in the Common Expression Language
// (https://github.com/google/cel-spec). It may be used by several goroutines.
type Expression struct {
	program cel.Program
	limits  Limits
	names   map[string]bool // that it mentions
}

// UnknownError says that what an expression comes to hangs on what nobody knows.
type UnknownError struct{ Fields []string }

func (e *UnknownError) Error() string {
	return "nothing is known of " + strings.Join(e.Fields, ", ")
}

// Error is why an expression does not compile.
type Error struct{ Faults []Fault } // at least one

// Fault is one thing that is wrong with an expression. Line and
// Column, in characters, count from 0.
type Fault struct {
	Line, Column  int
	Message, Hint string
}

func (e *Error) Error() string {
	texts := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		texts[i] = f.Message
		if f.Hint != "" {
			texts[i] += "; " + f.Hint
		}
	}
	return strings.Join(texts, "; ")
}

// Language is what the expressions of one kind may speak of. It remembers what
// it has compiled, and may be used by several goroutines.
type Language struct {
	variables []cel.EnvOption
	names     []string // of variables and fields, for suggestions
	limits    Limits

	once sync.Once
	env  *cel.Env
	err  error

	mu       sync.Mutex // guards what follows
	compiled map[string]result
}

type result struct {
	expression *Expression
	err        error
}

// NewLanguage returns a language with variables. names are those of variables
// and fields, for suggestions.
func NewLanguage(limits Limits, names []string, variables ...cel.EnvOption) *Language {
	return &Language{variables: variables, names: names, limits: limits}
}

// Compile compiles an expression that is true or false. The error is an *Error.
func (l *Language) Compile(src string) (*Expression, error) {
	l.mu.Lock()
	r, known := l.compiled[src]
	l.mu.Unlock()
	if known {
		return r.expression, r.err
	}
	r.expression, r.err = l.compileAnew(src)
	if len(src) > maxExpression {
		return nil, r.err // not worth to be remembered
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.compiled) >= maxCompiled || l.compiled == nil {
		l.compiled = make(map[string]result)
	}
	l.compiled[src] = r
	return r.expression, r.err
}

func (l *Language) compileAnew(src string) (x *Expression, err error) {
	defer func() {
		// The compiler is not ours, and the daemon must outlive what it does
		// not expect.
		if r := recover(); r != nil {
			x, err = nil, fault(fmt.Sprintf("the expression can't be compiled: %v", r), "")
		}
	}()
	switch {
	case len(src) > maxExpression:
		return nil, fault(fmt.Sprintf("the expression has %d bytes, more than %d", len(src), maxExpression), "say less in one policy")
	case !utf8.ValidString(src):
		return nil, fault("the expression is not UTF-8", "")
	}
	l.once.Do(func() { l.env, l.err = cel.NewCustomEnv(append(l.variables, surroundings...)...) })
	if l.err != nil {
		return nil, fault("expressions can't be compiled: "+l.err.Error(), "")
	}
	ast, issues := l.env.Compile(src)
	if issues.Err() != nil {
		return nil, l.explain(issues)
	}
	if t := ast.OutputType(); !t.IsExactType(cel.BoolType) {
		hint := "compare it with something"
		if t.IsExactType(cel.DynType) {
			hint = "compare it with something: " + example(src) + " == true"
		}
		return nil, fault(fmt.Sprintf("the expression is %s, not a boolean", noun(t)), hint)
	}
	cost, err := l.env.EstimateCost(ast, sizes{})
	if err != nil {
		return nil, fault("the expression's cost can't be told: "+err.Error(), "")
	}
	if most := 10 * l.limits.Cost; cost.Max > most { // it is a guess, and seldom comes to that
		return nil, fault(fmt.Sprintf("the expression may take more than %d steps", most), "nest fewer all, exists, map and filter")
	}
	program, err := l.env.Program(ast, cel.CostLimit(l.limits.Cost), cel.InterruptCheckFrequency(l.limits.Rounds), cel.EvalOptions(cel.OptPartialEval))
	if err != nil {
		return nil, fault("the expression can't be compiled: "+err.Error(), "")
	}
	names := map[string]bool{}
	for _, e := range celast.MatchDescendants(celast.NavigateAST(ast.NativeRep()), celast.KindMatcher(celast.IdentKind)) {
		names[e.AsIdent()] = true
	}
	return &Expression{program, l.limits, names}, nil
}

// surroundings are what all expressions have besides their variables.
var surroundings = []cel.EnvOption{
	cel.StdLib(cel.StdLibSubset(env.NewLibrarySubset().AddExcludedFunctions(calendar...))),
	cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateDurationLiterals()),
	cel.CrossTypeNumericComparisons(true), // value < 1
	cel.DefaultUTCTimeZone(true),
	cel.ParserRecursionLimit(64),
	cel.ParserExpressionSizeLimit(maxExpression),
	cel.ExpressionNodeLimit(4 * maxExpression),
	cel.RegexProgramSizeLimit(1 << 10),
	ext.Strings(),
	ext.Sets(),
}

// calendar are the functions that would look up time zones on the machine.
var calendar = func() (functions []*env.Function) {
	for _, name := range []string{
		overloads.TimeGetDate, overloads.TimeGetDayOfMonth, overloads.TimeGetDayOfWeek, overloads.TimeGetDayOfYear,
		overloads.TimeGetFullYear, overloads.TimeGetHours, overloads.TimeGetMilliseconds, overloads.TimeGetMinutes,
		overloads.TimeGetMonth, overloads.TimeGetSeconds,
	} {
		functions = append(functions, env.NewFunction(name))
	}
	return functions
}()

func fault(message, hint string) *Error {
	return &Error{[]Fault{{Message: message, Hint: hint}}}
}

func example(src string) string {
	if len(src) > 40 || strings.ContainsAny(src, " \n") {
		return "…"
	}
	return src
}

func noun(t *cel.Type) string {
	switch t.Kind() {
	case types.DynKind:
		return "of any type"
	case types.StringKind:
		return "text"
	case types.IntKind, types.UintKind, types.DoubleKind:
		return "a number"
	case types.ListKind:
		return "a list"
	case types.MapKind, types.StructKind:
		return "a mapping"
	case types.NullTypeKind:
		return "null"
	}
	return "of the type " + t.String()
}

// explain turns what the compiler complains of into faults.
func (l *Language) explain(issues *cel.Issues) *Error {
	var e Error
	for _, x := range issues.Errors() {
		if len(e.Faults) == maxFaults {
			break
		}
		f := Fault{Line: max(0, x.Location.Line()-1), Column: max(0, x.Location.Column()), Message: strings.ReplaceAll(x.Message, " (in container '')", "")}
		_, name, reference := strings.Cut(f.Message, "undeclared reference to '")
		if !reference {
			if _, name, reference = strings.Cut(f.Message, "undefined field '"); reference {
				f.Column++ // its place is that of the dot
			}
		}
		name, _, _ = strings.Cut(name, "'")
		// A list of all that might stand there helps nobody.
		f.Message, _, _ = strings.Cut(f.Message, " expecting ")
		f.Message = strings.Replace(f.Message, "Syntax error: mismatched input '<EOF>'", "syntax error: it ends too early", 1)
		f.Message = strings.Replace(f.Message, "Syntax error:", "syntax error:", 1)
		if literal, ok := strings.CutPrefix(f.Message, "invalid "); ok {
			if function, ok := strings.CutSuffix(literal, " argument"); ok {
				f.Message = fmt.Sprintf("the text that %s is given does not have the form that it takes", function)
			}
		}
		switch {
		case reference:
			f.Hint = "known are " + strings.Join(l.names, ", ")
			if near := desired.Nearest(name, l.names); near != "" {
				f.Hint = fmt.Sprintf("did you mean %q?", near)
			}
		case strings.Contains(f.Message, "(double, int)"), strings.Contains(f.Message, "(int, double)"):
			f.Hint = "write the whole number with a point: 0.0"
		}
		e.Faults = append(e.Faults, f)
	}
	if len(e.Faults) == 0 {
		return fault("the expression does not compile", "")
	}
	return &e
}

// sizes guesses how much there is of what only an evaluation shows, to find
// what can't be meant. The limit of an evaluation holds whatever comes.
type sizes struct{}

func (sizes) EstimateSize(n checker.AstNode) *checker.SizeEstimate {
	switch n.Type().Kind() {
	case types.StringKind, types.BytesKind:
		return &checker.SizeEstimate{Max: 1000}
	}
	return &checker.SizeEstimate{Max: 100}
}

func (sizes) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}

// over has ended, so an evaluation does when it first looks: after the rounds
// of loops that it is allowed.
var over = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// Mentions tells whether the expression speaks of a variable.
func (x *Expression) Mentions(variable string) bool { return x != nil && x.names[variable] }

// Eval evaluates the expression. An error is no answer, and lets nothing pass.
func (x *Expression) Eval(vars map[string]any) (bool, error) {
	return x.EvalWithout(vars, "", nil)
}

// EvalWithout is Eval where some fields of a variable are not known. The error is
// an *UnknownError if the answer hangs on them.
func (x *Expression) EvalWithout(vars map[string]any, variable string, unknown []string) (bool, error) {
	if x == nil || x.program == nil {
		return false, errors.New("there is no expression")
	}
	var in any = vars
	if len(unknown) > 0 {
		patterns := make([]*cel.AttributePatternType, len(unknown))
		for i, field := range unknown {
			patterns[i] = cel.AttributePattern(variable).QualString(field)
		}
		partial, err := cel.PartialVars(vars, patterns...)
		if err != nil {
			return false, err
		}
		in = partial
	}
	out, _, err := x.program.ContextEval(over, in)
	if u, ok := out.(*types.Unknown); ok && err == nil {
		return false, unknownIn(u)
	}
	switch {
	case errors.Is(err, interpreter.InterruptError{}):
		return false, fmt.Errorf("it goes through more than %d elements", x.limits.Rounds)
	case err != nil && strings.Contains(err.Error(), "cost limit exceeded"):
		return false, fmt.Errorf("it takes more than %d steps", x.limits.Cost)
	case err != nil:
		return false, err
	}
	b, ok := out.Value().(bool)
	if !ok {
		return false, fmt.Errorf("it is %v, not true or false", out.Value())
	}
	return b, nil
}

func unknownIn(u *types.Unknown) *UnknownError {
	e := &UnknownError{}
	for _, id := range u.IDs() {
		trails, _ := u.GetAttributeTrails(id)
		for _, t := range trails {
			if name := t.String(); !slices.Contains(e.Fields, name) {
				e.Fields = append(e.Fields, name)
			}
		}
	}
	slices.Sort(e.Fields)
	return e
}
