package devtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
)

// Contract is a server's OpenAPI document, and a client that holds the server to
// it: each answer has a status that the document names, and the form that the
// document gives it, and so has each body that is taken.
type Contract struct {
	Token string // sent with each request, if set

	t          testing.TB
	base       string
	operations []*Call
	schemas    map[string]*jsonschema.Resolved
	answered   map[string]map[int]int // by operation and status
}

// Call is an operation of a document.
type Call struct {
	ID, Method, Path string
	parameters       []parameter
	body             *jsonschema.Schema
	responses        map[string]response
}

type parameter struct {
	Name     string             `json:"name"`
	In       string             `json:"in"`
	Required bool               `json:"required"`
	Schema   *jsonschema.Schema `json:"schema"`
}

type media struct {
	Schema json.RawMessage `json:"schema"`
}

type response struct {
	Ref     string           `json:"$ref"`
	Content map[string]media `json:"content"`
}

// NewContract reads the document of a server.
func NewContract(t testing.TB, base, document string) *Contract {
	t.Helper()
	c := &Contract{t: t, base: base, schemas: map[string]*jsonschema.Resolved{}, answered: map[string]map[int]int{}}
	data := c.fetch(base + document)
	var d struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string              `json:"operationId"`
			Parameters  []parameter         `json:"parameters"`
			Responses   map[string]response `json:"responses"`
			RequestBody struct {
				Content map[string]media `json:"content"`
			} `json:"requestBody"`
		}
		Components struct {
			Schemas   map[string]map[string]any `json:"schemas"`
			Responses map[string]response       `json:"responses"`
		}
	}
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatalf("%s: %v", document, err)
	}
	if d.OpenAPI != "3.1.0" {
		t.Fatalf("%s is of OpenAPI %q", document, d.OpenAPI)
	}
	// What a type does not have, no answer has.
	for _, s := range d.Components.Schemas {
		if _, open := s["additionalProperties"]; !open && s["properties"] != nil {
			s["additionalProperties"] = false
		}
	}
	definitions, err := json.Marshal(d.Components.Schemas)
	if err != nil {
		t.Fatal(err)
	}
	resolve := func(what string, s json.RawMessage) *jsonschema.Resolved {
		text := strings.ReplaceAll(fmt.Sprintf(`{"allOf": [%s], "$defs": %s}`, s, definitions), "#/components/schemas/", "#/$defs/")
		var root jsonschema.Schema
		if err := json.Unmarshal([]byte(text), &root); err != nil {
			t.Fatalf("the schema of %s: %v", what, err)
		}
		r, err := root.Resolve(nil)
		if err != nil {
			t.Fatalf("the schema of %s: %v", what, err)
		}
		return r
	}
	for path, item := range d.Paths {
		for method, o := range item {
			op := &Call{ID: o.OperationID, Method: strings.ToUpper(method), Path: path, parameters: o.Parameters, responses: map[string]response{}}
			for status, r := range o.Responses {
				if name, ok := strings.CutPrefix(r.Ref, "#/components/responses/"); ok {
					r, ok = d.Components.Responses[name]
					if !ok {
						t.Fatalf("%s: there is no response %s", op.ID, name)
					}
				}
				op.responses[status] = r
				for kind, m := range r.Content {
					key := op.ID + " " + status + " " + kind
					c.schemas[key] = resolve(key, m.Schema)
				}
			}
			if m, ok := o.RequestBody.Content["application/json"]; ok {
				r := resolve(op.ID, m.Schema)
				op.body = r.Schema()
				c.schemas[op.ID] = r
			}
			c.operations = append(c.operations, op)
		}
	}
	sort.Slice(c.operations, func(i, j int) bool { return c.operations[i].ID < c.operations[j].ID })
	return c
}

func (c *Contract) fetch(address string) []byte {
	c.t.Helper()
	resp, err := http.Get(address)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		c.t.Fatalf("%s: %s, %v", address, resp.Status, err)
	}
	return data
}

// Operation returns an operation by its id.
func (c *Contract) Operation(id string) *Call {
	c.t.Helper()
	for _, o := range c.operations {
		if o.ID == id {
			return o
		}
	}
	c.t.Fatalf("the document has no operation %s", id)
	return nil
}

// Operations are the ids of all operations but the streams.
func (c *Contract) Operations() []string {
	var ids []string
	for _, o := range c.operations {
		if !o.stream() {
			ids = append(ids, o.ID)
		}
	}
	return ids
}

func (o *Call) stream() bool {
	_, ok := o.responses["200"].Content["text/event-stream"]
	return ok
}

// Answered tells how often an operation has answered with a status.
func (c *Contract) Answered(id string, status int) int { return c.answered[id][status] }

// Ask asks for an operation, holds the answer to the document, and returns it.
// The values are of the parameters; body is written as JSON, nil for none.
func (c *Contract) Ask(id string, values map[string]string, body any) (status int, answer map[string]any) {
	c.t.Helper()
	o := c.Operation(id)
	path, query := o.Path, url.Values{}
	for name, v := range values {
		if slot := "{" + name + "}"; strings.Contains(path, slot) {
			path = strings.ReplaceAll(path, slot, url.PathEscape(v))
		} else {
			query.Set(name, v)
		}
	}
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			c.t.Fatal(err)
		}
	}
	return c.send(o, path, query.Encode(), data)
}

func (c *Contract) send(o *Call, path, query string, body []byte) (int, map[string]any) {
	c.t.Helper()
	address := c.base + path
	if query != "" {
		address += "?" + query
	}
	req, err := http.NewRequest(o.Method, address, bytes.NewReader(body))
	if err != nil {
		return 0, nil // no address that can be asked
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	resp, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		c.t.Errorf("%s %s: %v", o.Method, address, err)
		return 0, nil
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Errorf("%s %s: %v", o.Method, address, err)
		return 0, nil
	}
	var taken any
	if resp.StatusCode == http.StatusOK && json.Unmarshal(body, &taken) == nil && c.schemas[o.ID] != nil {
		if err := c.schemas[o.ID].Validate(taken); err != nil {
			c.t.Errorf("%s %s %.500s: it is taken, and has not the form that the document gives it: %v", o.Method, address, body, err)
		}
	}
	return resp.StatusCode, c.judge(o, fmt.Sprintf("%s %s %.500s: %s %.1000s", o.Method, address, body, resp.Status, data), resp, data)
}

// judge holds an answer to the document, and reads it.
func (c *Contract) judge(o *Call, said string, resp *http.Response, data []byte) map[string]any {
	c.t.Helper()
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if _, ok := o.responses[fmt.Sprint(resp.StatusCode)]; !ok {
		c.t.Errorf("%s\nthe document does not name that status for %s", said, o.ID)
		return nil
	}
	var x any
	if err := json.Unmarshal(data, &x); err != nil {
		c.t.Errorf("%s\nit is no JSON: %v", said, err)
		return nil
	}
	s := c.schemas[fmt.Sprintf("%s %d %s", o.ID, resp.StatusCode, kind)]
	if s == nil {
		c.t.Errorf("%s\nthe document does not name the type %q for it", said, kind)
		return nil
	}
	if err := s.Validate(x); err != nil {
		c.t.Errorf("%s\nit has not the form that the document gives it: %v", said, err)
	}
	if c.answered[o.ID] == nil {
		c.answered[o.ID] = map[int]int{}
	}
	c.answered[o.ID][resp.StatusCode]++
	m, _ := x.(map[string]any)
	return m
}

// Hold holds the answer to a request of somebody else's to the document, if that
// has the operation; the data is the answer's body.
func (c *Contract) Hold(resp *http.Response, data []byte) {
	c.t.Helper()
	steps := strings.Split(resp.Request.URL.Path, "/")
	for _, o := range c.operations {
		form := strings.Split(o.Path, "/")
		if o.Method == resp.Request.Method && slices.EqualFunc(form, steps, func(f, s string) bool { return f == s || strings.HasPrefix(f, "{") }) {
			c.judge(o, fmt.Sprintf("%s %s: %s %.1000s", o.Method, resp.Request.URL, resp.Status, data), resp, data)
		}
	}
}

// Fuzz sends n requests that are made from the document: right ones, and ones
// that are wrong in one place or in many. known are words that mean something to
// the server. No answer may be a failure of the server.
func (c *Contract) Fuzz(seed uint64, n int, known []string, skip ...string) {
	c.t.Helper()
	f := &fuzzer{rand.New(rand.NewPCG(seed, 1)), known}
	for range n {
		o := c.operations[f.IntN(len(c.operations))]
		if o.stream() || slices.Contains(skip, o.ID) {
			continue
		}
		path, query := o.Path, url.Values{}
		for _, p := range o.parameters {
			v := f.value(p.Schema)
			if p.In == "path" {
				if v == "" || v == "." || v == ".." {
					v = "-"
				}
				path = strings.ReplaceAll(path, "{"+p.Name+"}", url.PathEscape(v))
			} else if p.Required && f.IntN(20) > 0 || f.IntN(3) == 0 {
				query.Add(p.Name, v)
			}
		}
		if f.IntN(20) == 0 {
			query.Add(f.word(), f.word())
		}
		text := query.Encode()
		if f.IntN(40) == 0 {
			text += "&%zz=" + url.QueryEscape(f.word())
		}
		var body []byte
		if o.body != nil {
			body, _ = json.Marshal(f.json(c.schemas[o.ID].Schema(), o.body, 0))
			if len(body) > 0 && f.IntN(10) == 0 {
				body = body[:f.IntN(len(body))]
			}
		}
		if status, _ := c.send(o, path, text, body); status >= 500 && status != http.StatusServiceUnavailable {
			c.t.Errorf("%s %s?%s %.300s: the server failed with %d", o.Method, path, text, body, status)
		}
	}
}

type fuzzer struct {
	*rand.Rand
	known []string
}

// strange are values that have broken servers before.
var strange = []string{"", "0", "-1", "null", "..", "../../etc/passwd", "%2e%2e%2f", "a/b", "\x00", "\u202e", "'; drop table", strings.Repeat("a", 300),
	"2026-13-45T99:99:99Z", "9999-12-31T23:59:59Z", "0000-01-01T00:00:00Z", "sha256:", "🦑", "{environment}", "*", "true", "1e309", "\r\nX: y"}

func (f *fuzzer) word() string {
	switch f.IntN(4) {
	case 0:
		return strange[f.IntN(len(strange))]
	case 1:
		return fmt.Sprintf("w%d", f.IntN(1000))
	}
	return f.known[f.IntN(len(f.known))]
}

// value makes a value for a parameter, as a rule one of its form.
func (f *fuzzer) value(s *jsonschema.Schema) string {
	switch {
	case f.IntN(8) == 0:
		return f.word()
	case len(s.Enum) > 0:
		return fmt.Sprint(s.Enum[f.IntN(len(s.Enum))])
	case s.Type == "integer":
		return fmt.Sprint(f.IntN(600) - 20)
	case s.Format == "date-time":
		return time.Unix(int64(f.IntN(2_000_000_000)), 0).UTC().Format(time.RFC3339)
	}
	return f.word()
}

// json makes a value for a body, as a rule one of its schema.
func (f *fuzzer) json(root, s *jsonschema.Schema, depth int) any {
	if depth > 5 {
		return nil
	}
	if name, ok := strings.CutPrefix(s.Ref, "#/$defs/"); ok {
		return f.json(root, root.Defs[name], depth+1)
	}
	if len(s.AllOf) > 0 {
		return f.json(root, s.AllOf[0], depth+1)
	}
	if f.IntN(12) == 0 {
		return []any{nil, 1, -1.5, true, f.word(), []any{f.word()}, map[string]any{f.word(): f.word()}}[f.IntN(7)]
	}
	switch s.Type {
	case "object":
		m := map[string]any{}
		for name, p := range s.Properties {
			if slices.Contains(s.Required, name) && f.IntN(20) > 0 || f.IntN(2) == 0 {
				m[name] = f.json(root, p, depth+1)
			}
		}
		if f.IntN(15) == 0 {
			m[f.word()] = f.word()
		}
		return m
	case "array":
		list := []any{}
		for range f.IntN(4) {
			list = append(list, f.json(root, s.Items, depth+1))
		}
		return list
	case "boolean":
		return f.IntN(2) == 0
	case "integer":
		return f.IntN(100)
	}
	return f.value(s)
}
