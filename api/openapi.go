package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// anybody are the problems that any operation may meet.
var anybody = []Code{Invalid, Unauthenticated, Denied, TooMany, NotReady, Internal}

// problems are the codes that an operation may answer with.
func (o *Operation) problems() []Code {
	all := append(slices.Clone(anybody), o.Problems...)
	if o.body != nil {
		all = append(all, TooLarge)
	}
	return all
}

// document makes the OpenAPI document of operations.
func document(operations []Operation) ([]byte, error) {
	s := &schemas{all: map[string]schema{}, types: map[string]reflect.Type{}}
	paths := schema{}
	for _, o := range operations {
		item, _ := paths[o.Path].(schema)
		if item == nil {
			item = schema{}
			paths[o.Path] = item
		}
		item[strings.ToLower(o.Method)] = o.document(s)
	}
	problem := s.of(reflect.TypeFor[Problem](), false)
	codes := slices.Sorted(maps.Keys(statuses))
	s.all["Problem"]["properties"].(schema)["code"] = schema{"type": "string", "enum": codes}
	if s.failure != nil {
		return nil, fmt.Errorf("make the OpenAPI document: %w", s.failure)
	}
	responses := schema{}
	for code, status := range statuses {
		name := http.StatusText(status)
		r, _ := responses[responseName(status)].(schema)
		if r == nil {
			r = schema{"description": name, "content": schema{"application/problem+json": schema{"schema": problem}}}
			responses[responseName(status)] = r
		}
		told, _ := r["x-codes"].([]string)
		told = append(told, string(code))
		slices.Sort(told)
		r["x-codes"] = told
		r["description"] = name + ": " + strings.Join(told, ", ")
	}
	for _, r := range responses {
		delete(r.(schema), "x-codes")
	}
	return json.MarshalIndent(schema{
		"openapi": "3.1.0",
		"info": schema{
			"title":       "Pinion",
			"version":     "v1",
			"description": "What is deployed where, why, and what happened: read from the deployment repository and its ledgers. See docs/api.md.",
			"license":     schema{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		},
		"servers":  []schema{{"url": "/"}},
		"security": []schema{{"token": []string{}}},
		"paths":    paths,
		"components": schema{
			"schemas":         s.all,
			"responses":       responses,
			"securitySchemes": schema{"token": schema{"type": "http", "scheme": "bearer"}},
		},
	}, "", " ")
}

func responseName(status int) string {
	return strings.ReplaceAll(http.StatusText(status), " ", "")
}

// document describes one operation.
func (o *Operation) document(s *schemas) schema {
	d := schema{"operationId": o.ID, "summary": o.Summary}
	if o.Scope != "" {
		d["description"] = "Asks for the scope `" + string(o.Scope) + "`."
	} else {
		d["security"] = []schema{}
	}
	var parameters []schema
	for _, p := range o.Parameters {
		x := schema{"name": p.Name, "in": "query", "schema": ofForm(p.Form), "description": p.Summary}
		if p.Path {
			x["in"] = "path"
		}
		if p.Path || p.Required {
			x["required"] = true
		}
		parameters = append(parameters, x)
	}
	if parameters != nil {
		d["parameters"] = parameters
	}
	if o.body != nil {
		d["requestBody"] = schema{"required": true, "content": schema{"application/json": schema{"schema": s.of(o.body, true)}}}
	}
	ok := schema{"description": "It is so."}
	switch {
	case o.stream != nil:
		ok["content"] = schema{"text/event-stream": schema{"schema": schema{"type": "string"}}}
	case o.answer != nil:
		ok["content"] = schema{"application/json": schema{"schema": s.of(o.answer, false)}}
	}
	responses := schema{"200": ok}
	if o.Method == http.MethodGet && o.stream == nil {
		responses["304"] = schema{"description": "It is as the ETag in If-None-Match says."}
	}
	for _, code := range o.problems() {
		responses[strconv.Itoa(statuses[code])] = schema{"$ref": "#/components/responses/" + responseName(statuses[code])}
	}
	d["responses"] = responses
	return d
}
