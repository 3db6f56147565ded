package desired

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// schema is what we use of JSON Schema, draft-07
// (https://json-schema.org/draft-07/json-schema-validation).
type schema struct {
	Schema               string             `json:"$schema,omitempty"`
	Title                string             `json:"title,omitempty"`
	Description          string             `json:"description,omitempty"`
	Type                 any                `json:"type,omitempty"` // a string or a list of them
	Const                string             `json:"const,omitempty"`
	Enum                 []string           `json:"enum,omitempty"`
	Default              any                `json:"default,omitempty"`
	Examples             []string           `json:"examples,omitempty"`
	Pattern              string             `json:"pattern,omitempty"`
	Format               string             `json:"format,omitempty"`
	Minimum              int                `json:"minimum,omitempty"`
	Required             []string           `json:"required,omitempty"`
	Properties           map[string]*schema `json:"properties,omitempty"`
	PropertyNames        *schema            `json:"propertyNames,omitempty"`
	AdditionalProperties any                `json:"additionalProperties,omitempty"` // false or a schema
	Items                *schema            `json:"items,omitempty"`
	MinItems             int                `json:"minItems,omitempty"`
	UniqueItems          bool               `json:"uniqueItems,omitempty"`
	OneOf                []*schema          `json:"oneOf,omitempty"`
}

var descriptions = map[Kind]string{
	KindEnvironment: "A place where services run: a cluster and a namespace, with the pins that say which version of each artifact runs there. The file's name, without .yaml, is the environment's name.",
	KindService:     "Manifests and the artifacts that they need: the unit that is deployed and promoted. The folder's name is the service's name.",
	KindPipeline:    "The order in which the versions of services move through environments.",
	KindPolicy:      "One named check: what must hold for a deployment to count as verified, or for a stage to be entered.",
	KindHold:        "A freeze. Both lists empty: of everything.",
}

// Schema returns the JSON Schema (draft-07) of a kind, for editors. It is made
// from the types that the decoder reads into, and accepts whatever the decoder
// accepts; what it can't express, such as references to other files, is left
// to [Read].
func Schema(kind Kind) ([]byte, error) {
	file := newFile(kind)
	if file == nil {
		return nil, fmt.Errorf("schema: there is no kind %q", kind)
	}
	s := structSchema(reflect.TypeOf(file).Elem())
	s.Schema = "http://json-schema.org/draft-07/schema#"
	s.Title = "Pinion " + string(kind)
	s.Description = descriptions[kind]
	s.Properties["kind"].Const = string(kind)
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(s); err != nil {
		return nil, fmt.Errorf("schema of %s: %w", kind, err)
	}
	return b.Bytes(), nil
}

func structSchema(t reflect.Type) *schema {
	s := &schema{Type: "object", Properties: make(map[string]*schema), AdditionalProperties: false}
	for _, f := range shape(t) {
		p := valueSchema(reflect.New(t.FieldByIndex(f.index).Type).Interface(), f)
		p.Description = f.doc
		s.Properties[f.key] = p
		if f.required {
			s.Required = append(s.Required, f.key)
		}
		if f.oneof {
			s.OneOf = append(s.OneOf, &schema{Required: []string{f.key}})
		}
	}
	return s
}

// valueSchema describes what decoder.decode takes for the type that sample
// points to.
func valueSchema(sample any, f field) *schema {
	switch v := sample.(type) {
	case *word:
		return wordSchema(f)
	case *list:
		s := &schema{Type: "array", Items: wordSchema(field{form: f.form}), UniqueItems: true}
		if f.atLeastOne {
			s.MinItems = 1
		}
		return s
	case *number:
		s := &schema{Type: "integer", Minimum: 1}
		if f.fallback != "" {
			s.Default = json.Number(f.fallback)
		}
		return s
	case *flag:
		s := &schema{Type: "boolean"}
		if f.fallback != "" {
			s.Default = f.fallback == "true"
		}
		return s
	case *object:
		return &schema{Type: []string{"object", "null"}}
	case tabular:
		return &schema{
			Type:                 []string{"object", "null"},
			PropertyNames:        &schema{Pattern: forms["label"].pattern},
			AdditionalProperties: valueSchema(v.sample(), field{form: f.form}),
		}
	}
	t := reflect.TypeOf(sample).Elem()
	switch t.Kind() {
	case reflect.Pointer:
		return structSchema(t.Elem())
	case reflect.Slice:
		s := &schema{Type: "array", Items: structSchema(t.Elem())}
		if f.atLeastOne {
			s.MinItems = 1
		}
		return s
	case reflect.Struct:
		return structSchema(t)
	}
	panic("desired: no schema for a " + t.String())
}

func wordSchema(f field) *schema {
	s := &schema{Type: "string", Pattern: forms[f.form].pattern, Format: forms[f.form].format}
	if f.fallback != "" {
		s.Default = f.fallback
	}
	if f.example != "" && !strings.Contains(f.example, "…") {
		s.Examples = []string{f.example}
	}
	switch len(f.enum) {
	case 0:
	case 1:
		s.Const = f.enum[0]
	default:
		s.Enum = f.enum
	}
	return s
}
