package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/history"
)

// Operation is one thing that can be asked.
type Operation struct {
	Method, Path string // as in net/http's patterns: "/api/v1/holds/{hold}"
	ID           string // of the operation, for who generates a client: "getHold"
	Summary      string
	Scope        Scope
	Parameters   []Parameter
	Problems     []Code       // besides those that any operation may meet
	body, answer reflect.Type // body: nil for none
	serve        func(*Call) (any, error)
	stream       func(*Call, *Stream) error // the answer goes on, as server-sent events
	// lasting: the answer follows from where the branches are and from the
	// parameters alone, so it is kept until one moves.
	lasting bool
	// about returns which environment a body is about, "" if it does not say.
	about func(body any) desired.EnvironmentName
}

// Call is one request.
type Call struct {
	context.Context
	Caller  Caller
	Now     time.Time
	Backend *Backend

	log       *slog.Logger
	operation *Operation
	request   *http.Request
	values    map[string]string // of the parameters
	body      any
	// deployments are those that were asked for lately, as JSON.
	deployments *texts[*history.Deployment]
	fleeting    bool // something could not be read, so the answer can be another one the next time
}

// Parameter is a part of the path or of the query.
type Parameter struct {
	Name, Summary string
	Form          Form
	Path          bool
	Required      bool // of the query
}

// Form is what a parameter's value looks like.
type Form struct {
	Pattern string // an anchored regular expression of RE2 and of ECMA-262; empty: any text
	Format  string // of JSON Schema
	Enum    []string
	Least   int // of a number, with Most
	Most    int
	Says    string // what to write, for who wrote something else
}

// The forms.
var (
	label        = `[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?`
	formName     = Form{Pattern: "^" + label + "$", Says: "a name of lower-case letters, digits and hyphens"}
	formDeploy   = Form{Pattern: "^" + label + "-[0-9a-f]{12}$", Says: "a deployment's id, such as web-4f1c2aa90b7e"}
	formCommit   = Form{Pattern: "^[0-9a-f]{40}$", Says: "a whole commit id of 40 hexadecimal digits"}
	formText     = Form{Pattern: `^[^\x00-\x20\x7f]{1,512}$`, Says: "a text without spaces"}
	formTime     = Form{Format: "date-time", Says: "a moment as RFC 3339 has it: 2026-12-01T09:00:00Z"}
	formLimit    = Form{Least: 1, Most: 500, Says: "a number from 1 to 500"}
	formPosition = Form{Pattern: `^[a-z0-9:,-]+$`, Says: "the id of an event"}
	formCursor   = Form{Pattern: `^[A-Za-z0-9@.:/_-]{1,500}$`, Says: "the next of the page before"}
	formYes      = Form{Enum: []string{"true", "false"}, Says: "true or false"}
	paging       = []Parameter{{Name: "limit", Summary: "How many items at most; 50 if it is not given.", Form: formLimit}, {Name: "cursor", Summary: "Where to go on: the `next` of the page before.", Form: formCursor}}
	defaultLimit = 50
)

// patterns are compiled when there is a question, which no command has.
var patterns = sync.OnceValue(func() map[string]*regexp.Regexp {
	all := map[string]*regexp.Regexp{}
	for _, f := range []Form{formName, formDeploy, formCommit, formText, formPosition, formCursor} {
		all[f.Pattern] = regexp.MustCompile(f.Pattern)
	}
	return all
})

// check refuses a value of another form.
func (f Form) check(v string) bool {
	switch {
	case f.Pattern != "":
		return patterns()[f.Pattern].MatchString(v)
	case f.Format == "date-time":
		_, err := time.Parse(time.RFC3339, v)
		return err == nil
	case f.Enum != nil:
		return slices.Contains(f.Enum, v)
	case f.Most > 0:
		n, err := strconv.Atoi(v)
		return err == nil && n >= f.Least && n <= f.Most && strconv.Itoa(n) == v
	}
	return true
}

// enumForm is the form of one of several words.
func enumForm[S ~string](words ...S) Form {
	f := Form{}
	for _, w := range words {
		f.Enum = append(f.Enum, string(w))
	}
	f.Says = "one of " + strings.Join(f.Enum, ", ")
	return f
}

// Reading returns an operation that reads: a GET.
func Reading[A any](o Operation, serve func(*Call) (A, error)) Operation {
	o.Method, o.answer = http.MethodGet, reflect.TypeFor[A]()
	if o.Scope == "" {
		o.Scope = ScopeRead
	}
	o.serve = func(c *Call) (any, error) { return serve(c) }
	return o
}

// Lasting is Reading where the answer follows from where the branches are and from
// the parameters alone, neither from who asks nor from when.
func Lasting[A any](o Operation, serve func(*Call) (A, error)) Operation {
	o = Reading(o, serve)
	o.lasting = true
	return o
}

// Joining is Reading where the answer, the JSON of an A, is put together of texts that
// are kept.
func Joining[A any](o Operation, join func(*Call) (joined, error)) Operation {
	o = Reading(o, func(*Call) (a A, err error) { return a, errors.ErrUnsupported })
	o.serve = func(c *Call) (any, error) { return join(c) }
	return o
}

// Writing returns an operation that writes: a POST with a body. about says which
// environment a body is about.
func Writing[B, A any](o Operation, about func(*B) desired.EnvironmentName, serve func(*Call, *B) (A, error)) Operation {
	o.Method, o.body, o.answer = http.MethodPost, reflect.TypeFor[B](), reflect.TypeFor[A]()
	o.serve = func(c *Call) (any, error) { return serve(c, c.body.(*B)) }
	o.about = func(body any) desired.EnvironmentName {
		if about == nil {
			return ""
		}
		return about(body.(*B))
	}
	return o
}

// Streaming returns an operation whose answer goes on: a GET.
func Streaming(o Operation, stream func(*Call, *Stream) error) Operation {
	o.Method, o.stream = http.MethodGet, stream
	return o
}

// parse reads the parameters, and refuses what it does not know.
func (o *Operation) parse(r *http.Request) (map[string]string, error) {
	values := map[string]string{}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalid("the query can't be read: %v", err)
	}
	var known []string
	for _, p := range o.Parameters {
		if p.Path {
			values[p.Name] = r.PathValue(p.Name)
		} else {
			known = append(known, p.Name)
		}
	}
	for name, all := range query {
		switch {
		case !slices.Contains(known, name):
			if near := desired.Nearest(name, known); near != "" {
				return nil, invalid("there is no parameter %q here; did you mean %q?", name, near)
			}
			return nil, invalid("there is no parameter %q here; there are: %s", name, strings.Join(known, ", "))
		case len(all) > 1:
			return nil, invalid("parameter %s is given %d times; give it once", name, len(all))
		case all[0] != "":
			values[name] = all[0]
		}
	}
	for _, p := range o.Parameters {
		v, given := values[p.Name]
		switch {
		case !given && p.Required:
			return nil, invalid("parameter %s is missing; give %s", p.Name, p.Form.Says)
		case given && !p.Form.check(v):
			return nil, invalid("%s is %q; write %s", p.Name, cut(v), p.Form.Says)
		}
	}
	return values, nil
}

// cut shortens what a caller has sent, for an answer.
func cut(s string) string {
	if len(s) > 100 {
		return strings.ToValidUTF8(s[:100], "") + "…"
	}
	return s
}

// text returns a parameter, "" if it was not given.
func (c *Call) text(name string) string { return c.values[name] }

func (c *Call) environment() desired.EnvironmentName {
	return desired.EnvironmentName(c.values["environment"])
}
func (c *Call) service() desired.ServiceName { return desired.ServiceName(c.values["service"]) }

// moment returns a parameter that is a time.
func (c *Call) moment(name string) time.Time {
	t, _ := time.Parse(time.RFC3339, c.values[name]) // its form was checked
	return t
}

// limit returns how long a page is.
func (c *Call) limit() int {
	if n, err := strconv.Atoi(c.values["limit"]); err == nil {
		return n
	}
	return defaultLimit
}

// look shows the present of the repository to f.
func (c *Call) look(f func(*history.View) error) error {
	return c.Backend.Present.Look(c.Context, c.Now, f)
}

// pageOf is the part of a sorted list of names that is asked for; the cursor is
// the last name of the page before.
func pageOf[N ~string, T any](c *Call, names []N, item func(N) (T, error)) (history.Page[T], error) {
	p := history.Page[T]{Items: []T{}}
	from := 0
	if after := c.text("cursor"); after != "" {
		i, found := slices.BinarySearch(names, N(after))
		if from = i; found {
			from++
		}
	}
	for i, n := range names[from:] {
		if i == c.limit() {
			p.Next = string(names[from+i-1])
			break
		}
		x, err := item(n)
		if err != nil {
			return p, err
		}
		p.Items = append(p.Items, x)
	}
	return p, nil
}
