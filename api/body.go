package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/desired"
)

// names are the types of names that a body may have, which have one form.
var names = map[reflect.Type]bool{
	reflect.TypeFor[desired.EnvironmentName](): true,
	reflect.TypeFor[desired.ServiceName]():     true,
	reflect.TypeFor[desired.ArtifactName]():    true,
	reflect.TypeFor[desired.PolicyName]():      true,
	reflect.TypeFor[desired.HoldName]():        true,
}

// decode reads a body strictly.
func (o *Operation) decode(data []byte) (any, error) {
	body := reflect.New(o.body).Interface()
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	err := dec.Decode(body)
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("there is more than one JSON value")
		}
	}
	if err == nil {
		err = exact(json.NewDecoder(bytes.NewReader(data)), o.body, "")
	}
	if err == nil {
		return body, nil
	}
	if problem := new(*Problem); errors.As(err, problem) {
		return nil, err
	}
	text := strings.TrimPrefix(err.Error(), "json: ")
	if name, ok := strings.CutPrefix(text, "unknown field "); ok {
		text = unknownField(strings.Trim(name, `"`), o.body)
	}
	return nil, invalid("the body can't be read: %s", text)
}

// asked is who asks for what, for the log: of what is written, with what it is
// about.
func (c *Call) asked() []any {
	all := []any{"principal", c.Caller.Name, "operation", c.operation.ID}
	for _, p := range c.operation.Parameters {
		if p.Path {
			all = append(all, p.Name, cut(c.request.PathValue(p.Name)))
		}
	}
	if c.body == nil {
		return all
	}
	v := reflect.ValueOf(c.body).Elem()
	for i := range v.NumField() {
		f := v.Field(i)
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		switch {
		case f.IsZero():
		case names[f.Type()]:
			all = append(all, name, f.String())
		case f.Kind() == reflect.Slice && names[f.Type().Elem()]:
			var list []string
			for j := range f.Len() {
				list = append(list, f.Index(j).String())
			}
			all = append(all, name, cut(strings.Join(list, ",")))
		}
	}
	return all
}

func unknownField(name string, t reflect.Type) string {
	var fields []string
	for _, f := range fieldsOf(t) {
		fields = append(fields, f.name)
	}
	text := fmt.Sprintf("there is no field %q", cut(name))
	near := desired.Nearest(name, fields)
	if i := slices.IndexFunc(fields, func(f string) bool { return strings.EqualFold(f, name) }); i >= 0 {
		near = fields[i]
	}
	if near != "" {
		return text + fmt.Sprintf("; did you mean %q?", near)
	}
	return text + "; there are " + strings.Join(fields, ", ")
}

// exact refuses what encoding/json takes for a t and its schema does not: null, a
// key in another case, one that is there twice, and a name that can't be one. What
// it reads has been read as a t, so it has its form otherwise.
func exact(dec *json.Decoder, t reflect.Type, at string) error {
	token, err := dec.Token()
	if err != nil {
		return err
	}
	switch token {
	case nil:
		if at == "" {
			return errors.New("it is null; write an object")
		}
		return fmt.Errorf("%s is null; leave it out", at)
	case json.Delim('['):
		for i := 0; dec.More(); i++ {
			if err := exact(dec, t.Elem(), fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
		_, err = dec.Token()
		return err
	case json.Delim('{'):
		fields, seen := map[string]reflect.Type{}, map[string]bool{}
		for _, f := range fieldsOf(t) {
			fields[f.name] = f.typ
		}
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return err
			}
			name := key.(string)
			typ, known := fields[name]
			if !known {
				return errors.New(unknownField(name, t))
			}
			if seen[name] {
				return fmt.Errorf("%s is there twice; give it once", name)
			}
			seen[name] = true
			if err := exact(dec, typ, strings.TrimPrefix(at+"."+name, ".")); err != nil {
				return err
			}
		}
		_, err = dec.Token()
		return err
	}
	if v, ok := token.(string); ok && names[t] && !formName.check(v) {
		return invalid("%s is %q; write %s", at, cut(v), formName.Says)
	}
	return nil
}
