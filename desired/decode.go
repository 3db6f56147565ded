package desired

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

// maxFaults bounds the faults of one file that are told one by one.
const maxFaults = 50

// field is one key of a mapping, as a struct's tags say it.
type field struct {
	key                                  string
	index                                []int
	required, isolate, oneof, atLeastOne bool
	form, doc, fallback, example         string
	enum                                 []string
}

var shapes sync.Map // reflect.Type → []field; a cache of what never changes

// shape returns the keys of a struct in the order of its fields.
func shape(t reflect.Type) []field {
	if s, ok := shapes.Load(t); ok {
		return s.([]field)
	}
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			for _, inner := range shape(f.Type) {
				inner.index = append([]int{i}, inner.index...)
				fields = append(fields, inner)
			}
			continue
		}
		tag, ok := f.Tag.Lookup("yaml")
		if !ok {
			continue
		}
		key, rest, _ := strings.Cut(tag, ",")
		x := field{
			key: key, index: []int{i}, required: rest == "required",
			isolate:    f.Tag.Get("isolate") != "",
			oneof:      f.Tag.Get("oneof") != "",
			atLeastOne: f.Tag.Get("atLeastOne") != "",
			form:       f.Tag.Get("form"),
			doc:        f.Tag.Get("doc"),
			fallback:   f.Tag.Get("default"),
			example:    f.Tag.Get("example"),
		}
		if enum := f.Tag.Get("enum"); enum != "" {
			x.enum = strings.Split(enum, ",")
		}
		fields = append(fields, x)
	}
	shapes.Store(t, fields)
	return fields
}

// decoder fills a file's struct from its nodes, and collects what is wrong.
type decoder struct {
	file     string
	kind     Kind
	name     string
	data     []byte // of the file
	problems []Problem
	broken   bool       // there is an error outside of what is isolated
	isolated int        // depth: an error now does not break the file
	entry    *[]Problem // where the errors of an isolated entry go besides
	shared   int        // errors that broke the file, to bound them
}

func (d *decoder) fail(n *yaml.Node, message, hint string) {
	d.failAt(Position{d.file, n.Line, n.Column}, message, hint)
}

func (d *decoder) failAt(at Position, message, hint string) {
	p := Problem{SeverityError, at, message, hint, d.kind, d.name}
	if d.isolated == 0 {
		d.broken = true
		if d.shared++; d.shared > maxFaults {
			return
		}
		if d.shared == maxFaults {
			p.Message, p.Hint = "too many faults: those that follow are not told", "mend those before"
		}
	}
	d.problems = append(d.problems, p)
	if d.entry != nil {
		*d.entry = append(*d.entry, p)
	}
}

func (d *decoder) at(n *yaml.Node) Position { return Position{d.file, n.Line, n.Column} }

// decode fills into, a pointer, from n. path is the way from the top, for messages.
func (d *decoder) decode(n *yaml.Node, into any, f field, path string) {
	switch v := into.(type) {
	case *word:
		d.word(n, v, f, path)
	case *list:
		d.list(n, v, f, path)
	case *number:
		d.number(n, v, path)
	case *flag:
		d.flag(n, v, path)
	case *object:
		d.object(n, v, path)
	case tabular:
		d.table(n, v, f, path)
	default:
		v2 := reflect.ValueOf(into).Elem()
		switch v2.Kind() {
		case reflect.Pointer:
			v2.Set(reflect.New(v2.Type().Elem()))
			d.decode(n, v2.Interface(), f, path)
		case reflect.Slice:
			d.structs(n, v2, f, path)
		case reflect.Struct:
			d.mapping(n, v2, path)
		default:
			panic("desired: no way to decode a " + v2.Type().String())
		}
	}
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	if p, ok := v.Addr().Interface().(interface{ place(Position) }); ok {
		p.place(d.at(n))
	}
	fields := shape(v.Type())
	if n.Kind != yaml.MappingNode {
		d.wrongType(n, "a mapping", path, "it has the keys "+strings.Join(keysOf(fields), ", "))
		return
	}
	seen := make(map[string]*yaml.Node, len(fields))
	meant := make(map[string]bool) // by a misspelt key: one complaint is enough
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, value := n.Content[i], n.Content[i+1]
		j := slices.IndexFunc(fields, func(f field) bool { return f.key == k.Value })
		switch {
		case k.Kind != yaml.ScalarNode:
			d.fail(k, under(path)+"a key is "+describe(k)+", not text", "")
			continue
		case j < 0:
			meant[d.unknownKey(k, fields, path)] = true
			continue
		}
		f := fields[j]
		if first := seen[f.key]; first != nil {
			d.fail(k, fmt.Sprintf("%sthe key %q is there twice", under(path), f.key), fmt.Sprintf("remove it here or in line %d", first.Line))
			continue
		}
		seen[f.key] = k
		field := v.FieldByIndex(f.index)
		if _, isTable := field.Addr().Interface().(tabular); f.isolate && !isTable {
			d.isolated++
			d.decode(value, field.Addr().Interface(), f, join(path, f.key))
			d.isolated--
			continue
		}
		d.decode(value, field.Addr().Interface(), f, join(path, f.key))
	}
	var choices, chosen []string
	anyMeant := false
	for _, f := range fields {
		if f.required && seen[f.key] == nil && !meant[f.key] {
			if f.isolate {
				d.isolated++
			}
			hint := "add " + example(f)
			if f.key == "kind" && path == "" {
				hint = "add kind: " + string(d.kind)
			}
			d.fail(n, fmt.Sprintf("%sthe key %q is missing", under(path), f.key), hint)
			if f.isolate {
				d.isolated--
			}
		}
		if f.oneof {
			choices = append(choices, f.key)
			if seen[f.key] != nil {
				chosen = append(chosen, f.key)
			}
			anyMeant = anyMeant || meant[f.key]
		}
	}
	switch {
	case len(choices) == 0 || len(chosen) == 1 || len(chosen) == 0 && anyMeant:
	case len(chosen) == 0:
		d.fail(n, under(path)+"it says no check", "add exactly one of "+strings.Join(choices, ", "))
	default:
		slices.SortFunc(chosen, func(a, b string) int { return seen[a].Line - seen[b].Line })
		d.fail(seen[chosen[1]], under(path)+"it says more than one check: "+strings.Join(chosen, ", "), "keep exactly one, and put the others in files of their own")
	}
}

// unknownKey returns the key that is probably meant.
func (d *decoder) unknownKey(k *yaml.Node, fields []field, path string) (guess string) {
	known := keysOf(fields)
	hint := "known are " + strings.Join(known, ", ")
	if guess = nearest(k.Value, known); guess != "" {
		hint = fmt.Sprintf("did you mean %q?", guess)
	}
	d.fail(k, fmt.Sprintf("%sthe key %q is not known", under(path), abridge(k.Value)), hint)
	return guess
}

func (d *decoder) table(n *yaml.Node, t tabular, f field, path string) {
	t.open(d.at(n))
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // the key is there and all of its entries are commented out
	}
	if n.Kind != yaml.MappingNode {
		d.wrongType(n, "a mapping", path, "")
		return
	}
	if f.isolate {
		d.isolated++
		defer func() { d.isolated-- }()
	}
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, value := n.Content[i], n.Content[i+1]
		var problems []Problem
		d.entry = &problems
		key := wordAt(d.file, k)
		element := t.grow(key)
		if d.key(k, path) {
			if message, hint := checkLabel(k.Value); message != "" {
				d.fail(k, under(path)+message, hint)
			}
		}
		if first, ok := seen[k.Value]; ok && k.Kind == yaml.ScalarNode {
			d.fail(k, fmt.Sprintf("%sthe key %q is there twice", under(path), abridge(k.Value)), fmt.Sprintf("remove it here or in line %d", n.Content[2*first].Line))
			t.fail(first, problems...)
		} else {
			seen[k.Value] = i / 2
		}
		inner := f
		inner.isolate = false
		d.decode(value, element, inner, join(path, abridge(k.Value)))
		d.entry = nil
		t.fail(i/2, problems...)
	}
}

// key reports whether a mapping's key is text, or a number that can stand for
// itself, as in an environment's name of digits.
func (d *decoder) key(k *yaml.Node, path string) bool {
	if k.Kind == yaml.ScalarNode && (k.Tag == "!!str" || k.Tag == "!!int") {
		return true
	}
	hint := ""
	if k.Kind == yaml.ScalarNode {
		hint = fmt.Sprintf("quote it: %q", abridge(k.Value))
	}
	d.fail(k, under(path)+"a key is "+describe(k)+", not text", hint)
	return false
}

func (d *decoder) structs(n *yaml.Node, v reflect.Value, f field, path string) {
	if n.Kind != yaml.SequenceNode {
		d.wrongType(n, "a list", path, "begin each element with -")
		return
	}
	if len(n.Content) == 0 && f.atLeastOne {
		d.fail(n, path+" is an empty list", "write at least one")
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, c := range n.Content {
		d.decode(c, v.Index(i).Addr().Interface(), field{}, fmt.Sprintf("%s[%d]", path, i))
	}
}

func (d *decoder) list(n *yaml.Node, into *list, f field, path string) {
	into.Position, into.Set = d.at(n), true
	if n.Kind != yaml.SequenceNode {
		hint := "begin each element with -"
		if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
			hint = "write [] for none, or leave the key out"
		} else if n.Kind == yaml.ScalarNode {
			hint = "write [" + abridge(n.Value) + "]"
		}
		d.wrongType(n, "a list", path, hint)
		return
	}
	if len(n.Content) == 0 && f.atLeastOne {
		d.fail(n, path+" is an empty list", "write at least one")
	}
	seen := make(map[string]bool, len(n.Content))
	for i, c := range n.Content {
		var w word
		d.word(c, &w, f, fmt.Sprintf("%s[%d]", path, i))
		if w.Bad {
			continue
		}
		if seen[w.Text] {
			d.fail(c, fmt.Sprintf("%s names %q twice", path, w.Text), "remove one")
			continue
		}
		seen[w.Text] = true
		into.Items = append(into.Items, w)
	}
}

func (d *decoder) word(n *yaml.Node, into *word, f field, path string) {
	*into = wordAt(d.file, n)
	into.Bad = true
	noun := "text"
	if f.form != "" {
		noun = forms[f.form].noun
	}
	if n.Kind != yaml.ScalarNode {
		d.wrongType(n, noun, path, "")
		return
	}
	if n.Tag != "!!str" && !(n.Tag == "!!timestamp" && f.form == "time") {
		hint := fmt.Sprintf("quote it: %q", abridge(n.Value))
		switch {
		case n.Tag == "!!null" && f.required:
			hint = "write " + example(f)
		case n.Tag == "!!null":
			hint = "write " + example(f) + ", or leave the key out"
		case f.form == "image":
			hint = fmt.Sprintf("without quotes a version is a number, and alone it is not a reference: quote it with its repository, \"REPOSITORY:%s\"", abridge(n.Value))
		case f.form == "duration":
			_, hint = checkDuration(n.Value)
		case f.form == "text" || f.form == "line" || f.form == "token" || f.form == "label" || f.form == "claim" || f.form == "commit" || f.form == "folder" || f.form == "path":
		default:
			hint = "write " + example(f)
		}
		d.wrongType(n, noun, path, hint)
		return
	}
	if f.enum != nil {
		if !slices.Contains(f.enum, n.Value) {
			hint := "write " + strings.Join(f.enum, " or ")
			if guess := nearest(n.Value, f.enum); guess != "" && len(f.enum) > 1 {
				hint = fmt.Sprintf("did you mean %q? %s", guess, hint)
			}
			d.fail(n, fmt.Sprintf("%s is %q", path, abridge(n.Value)), hint)
			return
		}
	}
	if f.form != "" {
		if message, hint := forms[f.form].check(n.Value); message != "" {
			d.fail(n, path+": "+message, hint)
			return
		}
	}
	into.Bad = false
}

func (d *decoder) number(n *yaml.Node, into *number, path string) {
	into.Position, into.Set = d.at(n), true
	value, err := strconv.ParseInt(n.Value, 10, 32)
	switch {
	case n.Kind != yaml.ScalarNode || n.Tag != "!!int":
		d.wrongType(n, "a whole number", path, "write it without quotes: 1")
	case err != nil || value < 1 || strings.HasPrefix(n.Value, "0"):
		d.fail(n, fmt.Sprintf("%s is %s", path, abridge(n.Value)), "write a whole number from 1 up")
	}
	into.Value = value
}

func (d *decoder) flag(n *yaml.Node, into *flag, path string) {
	into.Position, into.Set = d.at(n), true
	if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
		d.wrongType(n, "a boolean", path, "write true or false, without quotes")
		return
	}
	into.Value = strings.EqualFold(n.Value, "true")
}

func (d *decoder) object(n *yaml.Node, into *object, path string) {
	into.Position, into.Set = d.at(n), true
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.wrongType(n, "a mapping", path, "")
		return
	}
	into.Value = d.value(n, path).(map[string]any)
}

// value turns nodes into what JSON knows.
func (d *decoder) value(n *yaml.Node, path string) any {
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if k.Kind != yaml.ScalarNode || k.Tag != "!!str" {
				hint := ""
				if k.Kind == yaml.ScalarNode {
					hint = fmt.Sprintf("quote it: %q", abridge(k.Value))
				}
				d.fail(k, under(path)+"a key is "+describe(k)+", not text", hint)
				continue
			}
			if _, ok := m[k.Value]; ok {
				d.fail(k, fmt.Sprintf("%sthe key %q is there twice", under(path), abridge(k.Value)), "remove one")
				continue
			}
			m[k.Value] = d.value(n.Content[i+1], join(path, abridge(k.Value)))
		}
		return m
	case yaml.SequenceNode:
		s := make([]any, 0, len(n.Content))
		for i, c := range n.Content {
			s = append(s, d.value(c, fmt.Sprintf("%s[%d]", path, i)))
		}
		return s
	}
	switch n.Tag {
	case "!!null":
		return nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true")
	case "!!int", "!!float":
		return d.numeric(n, path)
	}
	return n.Value // a date too: JSON has none
}

func (d *decoder) numeric(n *yaml.Node, path string) any {
	digits := strings.TrimLeft(n.Value, "+-")
	if strings.Contains(digits, "_") || len(digits) > 1 && digits[0] == '0' && '0' <= digits[1] && digits[1] <= '9' && n.Tag == "!!int" {
		d.fail(n, fmt.Sprintf("%s: %s is not the same number to every reader of YAML", path, abridge(n.Value)), "write it without 0 before it and without _, or quote it")
		return nil
	}
	var v any
	if err := n.Decode(&v); err != nil {
		d.fail(n, path+": "+abridge(n.Value)+" is not a number", fmt.Sprintf("quote it: %q", abridge(n.Value)))
		return nil
	}
	switch v := v.(type) {
	case int:
		return int64(v)
	case int64:
		return v
	case float64:
		switch {
		case math.IsNaN(v) || math.IsInf(v, 0):
			d.fail(n, path+": "+n.Value+" is not a number that JSON knows", fmt.Sprintf("quote it: %q", n.Value))
			return nil
		case strings.Trim(digits, "0123456789") != "":
			return v
		}
	}
	d.fail(n, path+": "+abridge(n.Value)+" does not fit in 64 bits", fmt.Sprintf("quote it: %q", abridge(n.Value)))
	return nil
}

func (d *decoder) wrongType(n *yaml.Node, want, path, hint string) {
	if path == "" {
		path = "the file"
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		d.fail(n, fmt.Sprintf("%s is empty, not %s", path, want), hint)
		return
	}
	d.fail(n, fmt.Sprintf("%s is %s, not %s", path, describe(n), want), hint)
}

// example shows how a key may be written.
func example(f field) string {
	value := "…"
	switch {
	case f.example != "":
		value = f.example
	case f.fallback != "":
		value = f.fallback
	case len(f.enum) > 0:
		value = f.enum[0]
	case f.atLeastOne:
		value = "[…]"
	}
	return f.key + ": " + value
}

func keysOf(fields []field) []string {
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	return keys
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func under(path string) string {
	if path == "" {
		return ""
	}
	return path + ": "
}
