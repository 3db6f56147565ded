package render

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/google/go-jsonnet"
	"github.com/google/go-jsonnet/ast"
	"go.yaml.in/yaml/v3"
)

// natives are the functions that public Jsonnet libraries expect of
// std.native, under the names and with the meaning that Tanka gave them
// (https://tanka.dev/jsonnet/native/). All of them are pure. The two of
// Tanka's that run other programs are there to say that they are not.
func natives() []*jsonnet.NativeFunction {
	return []*jsonnet.NativeFunction{
		native("parseJson", func(args []string) (any, error) {
			var v any
			if err := json.Unmarshal([]byte(args[0]), &v); err != nil {
				return nil, fmt.Errorf("parseJson: %w", err)
			}
			return v, nil
		}, "json"),
		native("parseYaml", func(args []string) (any, error) {
			docs, err := parseFile("the YAML text", []byte(args[0]))
			if err != nil {
				return nil, fmt.Errorf("parseYaml: %w", err)
			}
			list := []any{}
			for _, doc := range docs {
				list = append(list, floats(doc.value))
			}
			return list, nil
		}, "yaml"),
		{Name: "manifestJsonFromJson", Params: ast.Identifiers{"json", "indent"}, Func: func(args []any) (any, error) {
			text, ok := args[0].(string)
			indent, ok2 := args[1].(float64)
			if !ok || !ok2 || indent < 0 || indent > 100 {
				return nil, fmt.Errorf("manifestJsonFromJson takes a string and a number of spaces")
			}
			var b bytes.Buffer
			if err := json.Indent(&b, bytes.TrimSpace([]byte(text)), "", strings.Repeat(" ", int(indent))); err != nil {
				return nil, fmt.Errorf("manifestJsonFromJson: %w", err)
			}
			b.WriteByte('\n')
			return b.String(), nil
		}},
		native("manifestYamlFromJson", func(args []string) (any, error) {
			var v any
			if err := json.Unmarshal([]byte(args[0]), &v); err != nil {
				return nil, fmt.Errorf("manifestYamlFromJson: %w", err)
			}
			data, err := yaml.Marshal(v)
			if err != nil {
				return nil, fmt.Errorf("manifestYamlFromJson: %w", err)
			}
			return string(data), nil
		}, "json"),
		native("escapeStringRegex", func(args []string) (any, error) {
			return regexp.QuoteMeta(args[0]), nil
		}, "str"),
		native("regexMatch", func(args []string) (any, error) {
			return regexp.MatchString(args[0], args[1])
		}, "regex", "string"),
		native("regexSubst", func(args []string) (any, error) {
			r, err := regexp.Compile(args[0])
			if err != nil {
				return nil, err
			}
			return r.ReplaceAllString(args[1], args[2]), nil
		}, "regex", "src", "repl"),
		native("sha256", func(args []string) (any, error) {
			sum := sha256.Sum256([]byte(args[0]))
			return hex.EncodeToString(sum[:]), nil
		}, "str"),
		refused("helmTemplate", "Pinion does not render charts: commit what helm template prints, or write it in Jsonnet", "name", "chart", "opts"),
		refused("kustomizeBuild", "Jsonnet can't run Kustomize here: make the folder a service with a kustomization.yaml of its own", "path", "opts"),
	}
}

// native makes a function of strings.
func native(name string, f func([]string) (any, error), params ...string) *jsonnet.NativeFunction {
	n := &jsonnet.NativeFunction{Name: name}
	for _, p := range params {
		n.Params = append(n.Params, ast.Identifier(p))
	}
	n.Func = func(args []any) (any, error) {
		texts := make([]string, len(args))
		for i, arg := range args {
			text, ok := arg.(string)
			if !ok {
				return nil, fmt.Errorf("%s: %s must be a string", name, params[i])
			}
			texts[i] = text
		}
		return f(texts)
	}
	return n
}

func refused(name, words string, params ...ast.Identifier) *jsonnet.NativeFunction {
	return &jsonnet.NativeFunction{Name: name, Params: params, Func: func([]any) (any, error) {
		return nil, fmt.Errorf("%s: %s", name, words)
	}}
}

// floats turns all numbers into float64, the only ones that Jsonnet knows.
func floats(v any) any {
	switch v := v.(type) {
	case int64:
		return float64(v)
	case uint64:
		return float64(v)
	case []any:
		for i := range v {
			v[i] = floats(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = floats(v[k])
		}
	}
	return v
}
