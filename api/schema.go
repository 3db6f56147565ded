package api

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/policy"
)

// schema is a JSON Schema of the draft that OpenAPI 3.1 goes by.
type schema map[string]any

// field is a field of a type as encoding/json writes it.
type field struct {
	name     string
	optional bool
	typ      reflect.Type
	summary  string
}

// fieldsOf returns the fields of a struct in their order.
func fieldsOf(t reflect.Type) []field {
	var all []field
	for i := range t.NumField() {
		f := t.Field(i)
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && tag == "":
			all = append(all, fieldsOf(f.Type)...)
		case f.IsExported() && tag != "-":
			optional := strings.Contains(options, "omit")
			all = append(all, field{tag, optional, f.Type, f.Tag.Get("doc")})
		}
	}
	return all
}

// words are the values of the types that have only some.
var words = map[reflect.Type][]string{
	reflect.TypeFor[ledger.State]():      {"pinned", "started", "completed", "verified", "failed", "superseded"},
	reflect.TypeFor[ledger.Cause]():      {"pin", "tracking", "manifests", "promotion", "rollback", "revert"},
	reflect.TypeFor[artifact.Result]():   {"passed", "failed"},
	reflect.TypeFor[ledger.Result]():     {"success", "failure"},
	reflect.TypeFor[ledger.Answer]():     {"corrected", "reported", "contested", "ended"},
	reflect.TypeFor[ledger.Event]():      {"pinned", "started", "completed", "verified", "failed", "superseded", "check", "approved", "offered", "drifted", "retired", "rerun"},
	reflect.TypeFor[policy.Outcome]():    {"passed", "pending", "failed"},
	reflect.TypeFor[policy.Move]():       {"stay", "offer", "promote", "dismiss"},
	reflect.TypeFor[desired.Check]():     {"report", "soak", "job", "http", "prometheus", "approval", "window", "cel"},
	reflect.TypeFor[history.Progress]():  {"reached", "waits", "refused", "passed", "ahead"},
	reflect.TypeFor[desired.OnFailure](): {"stop", "rollback", "rollbackAll"},
}

// schemas makes the schemas of types, each once and by its name.
type schemas struct {
	all   map[string]schema
	types map[string]reflect.Type

	failure error
}

// of returns the schema of a type, or a reference to it. Requests are closed:
// they may have no field that they do not know, and no name that can't be one.
func (s *schemas) of(t reflect.Type, closed bool) schema {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return schema{"type": "string", "format": "date-time"}
	case t.Kind() == reflect.Pointer:
		return s.of(t.Elem(), closed)
	}
	if enum, ok := words[t]; ok {
		return schema{"type": "string", "enum": enum}
	}
	switch t.Kind() {
	case reflect.String:
		if closed && names[t] {
			return ofForm(formName)
		}
		return schema{"type": "string"}
	case reflect.Bool:
		return schema{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return schema{"type": "integer"}
	case reflect.Slice:
		return schema{"type": "array", "items": s.of(t.Elem(), closed)}
	case reflect.Map:
		return schema{"type": "object", "additionalProperties": s.of(t.Elem(), closed)}
	case reflect.Struct:
		return schema{"$ref": "#/components/schemas/" + s.named(t, closed)}
	}
	return schema{} // anything
}

// named makes the schema of a struct.
func (s *schemas) named(t reflect.Type, closed bool) string {
	name := s.name(t)
	if _, ok := s.all[name]; ok {
		return name
	}
	properties, required := schema{}, []string{}
	x := schema{"type": "object", "properties": properties}
	s.all[name], s.types[name] = x, t // before its fields, which may have it in them
	for _, f := range fieldsOf(t) {
		p := s.of(f.typ, closed)
		if f.summary != "" {
			p["description"] = f.summary
		}
		properties[f.name] = p
		if !f.optional {
			required = append(required, f.name)
		}
	}
	if len(required) > 0 {
		x["required"] = required
	}
	if closed {
		x["additionalProperties"] = false
	}
	return name
}

// titles are the names of the types whose own name another one has.
var titles = map[reflect.Type]string{
	reflect.TypeFor[ledger.Deployment](): "RecordedDeployment",
	reflect.TypeFor[ledger.Candidate]():  "RecordedCandidate",
	reflect.TypeFor[desired.Problem]():   "FileProblem",
	reflect.TypeFor[Pin]():               "PinRequest",
	reflect.TypeFor[Approval]():          "ApprovalRequest",
}

// name returns the name of a type. Two types of one name are a mistake, which
// failure tells.
func (s *schemas) name(t reflect.Type) string {
	name := t.Name()
	if title, ok := titles[t]; ok {
		name = title
	}
	if own, of, ok := strings.Cut(name, "["); ok { // Page[*…/history.Deployment]
		of = strings.TrimSuffix(of, "]")
		name = of[strings.LastIndexByte(of, '.')+1:] + own
	}
	if other, ok := s.types[name]; ok && other != t {
		s.failure = errors.Join(s.failure, fmt.Errorf("the types %v and %v have one name", t, other))
	}
	return name
}

// ofForm returns the schema of a parameter.
func ofForm(f Form) schema {
	switch {
	case f.Most > 0:
		return schema{"type": "integer", "minimum": f.Least, "maximum": f.Most}
	case f.Enum != nil:
		return schema{"type": "string", "enum": slices.Clone(f.Enum)}
	case f.Format != "":
		return schema{"type": "string", "format": f.Format}
	case f.Pattern != "":
		return schema{"type": "string", "pattern": f.Pattern}
	}
	return schema{"type": "string"}
}
