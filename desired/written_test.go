package desired_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/pinion-cd/pinion/desired"
)

// Each text marks with § the character that is looked for, by its line and
// column in the expression.
func TestExpressionAt(t *testing.T) {
	for _, test := range []struct {
		name, text   string
		line, column int
	}{
		{"plain", "cel: deployment.§pins", 0, 11},
		{"plain first", "cel: §deployment", 0, 0},
		{"single quotes", "cel: 'a == §b'", 0, 5},
		{"doubled single quotes", "cel: 'a == ''x'' && §b'", 0, 12},
		{"double quotes", `cel: "a == §b"`, 0, 5},
		{"escapes", `cel: "a == \"x\" \u0026& §b"`, 0, 12},
		{"wide characters", `cel: "'é' == §b"`, 0, 7},
		{"in a mapping", `http: {url: "http://x", expect: "status == §b"}`, 0, 10},
		{"literal", "cel: |\n  a &&\n  §b", 1, 0},
		{"literal, first line", "cel: |-\n    a && §b", 0, 5},
		{"literal, after an empty line", "cel: |\n\n  a &&\n    §b", 2, 2},
		{"literal in a mapping", "prometheus:\n  url: http://x\n  query: x\n  expect: |\n    a ||\n    §b", 1, 0},
		// What can't be told is the place of the whole.
		{"folded", "cel: §>\n  a &&\n  b", 0, 5},
		{"literal that says its indentation", "cel: §|2\n    a &&\n  b", 1, 0},
		{"plain in two lines", "cel: §a &&\n  b", 0, 5},
		{"no expectation", `http: {url: §"http://x"}`, 0, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := "apiVersion: pinion.dev/v1\nkind: Policy\n" + test.text + "\n"
			before, _, _ := strings.Cut(text, "§")
			want := desired.Position{File: "policies/x.yaml", Line: strings.Count(before, "\n") + 1, Column: len([]rune(before[strings.LastIndexByte(before, '\n')+1:])) + 1}
			r := read(t, fstest.MapFS{"policies/x.yaml": {Data: []byte(strings.Replace(text, "§", "", 1))}})
			p := r.Policies["x"]
			if p == nil {
				t.Fatal(r.Problems)
			}
			if got := r.ExpressionAt(p, test.line, test.column); got != want {
				t.Errorf("%s, want %s", got, want)
			}
			for line := range 5 { // whatever one asks for
				for column := range 50 {
					r.ExpressionAt(p, line, column)
				}
			}
		})
	}
}
