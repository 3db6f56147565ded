package check

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/pinion-cd/pinion/reconcile/cluster"
)

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"a\tb\r\nc":                     "a b\nc",
		"10%\r20%\r":                    "10%\n20%\n",
		"\x1b[31;1mred\x1b[0m":          "red",
		"\x1b]0;title\aafter":           "after",
		"\x1b]8;;http://x\x1b\\link":    "link",
		"\x1b]never ended\nnext":        "\nnext",
		"\x1b7saved\x1b":                "saved",
		"\x1b[":                         "",
		"bell\a, null\x00, delete\x7f.": "bell, null, delete.",
		"\u202eevil\u2066":              "evil",
		"\u009b31mC1":                   "31mC1",
		"bad \xff utf-8":                "bad \ufffd utf-8",
		"two\u2028lines":                "two lines",
		"čau 👩‍🚀":                       "čau 👩‍🚀",
	} {
		if got := plain(in); got != want {
			t.Errorf("plain(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzPlain(f *testing.F) {
	f.Add("\x1b[31m\x1b]0;a\x1b\\\x1bP\n\x1b")
	f.Add("\xff\x1b[\xff")
	f.Fuzz(func(t *testing.T, s string) {
		for name, got := range map[string]string{"plain": plain(s), "line": line(s), "tail": tail(plain(s), 3, 20)} {
			if !utf8.ValidString(got) {
				t.Errorf("%s(%q) is not UTF-8: %q", name, s, got)
			}
			if i := strings.IndexFunc(got, func(r rune) bool { return unicode.IsControl(r) && (r != '\n' || name == "line") }); i >= 0 {
				t.Errorf("%s(%q) has a control character: %q", name, s, got)
			}
		}
		if got := line(s); len(got) > maxLine {
			t.Errorf("a line of %d bytes", len(got))
		}
		if got := tail(plain(s), 3, 20); len(got) > 20 || strings.Count(got, "\n") > 2 {
			t.Errorf("tail(%q) = %q", s, got)
		}
	})
}

func TestTail(t *testing.T) {
	for _, test := range []struct {
		in          string
		lines, size int
		want        string
	}{
		{"a\nb\nc\n", 2, 100, "b\nc"},
		{"a\nb\nc\n\n\n", 2, 100, "b\nc"},
		{"first line\nsecond line\nthird", 9, 15, "third"},
		{"one line that is long", 9, 7, "…long"},
		{"ččč", 9, 5, "…č"},
		{"", 9, 9, ""},
	} {
		if got := tail(test.in, test.lines, test.size); got != test.want {
			t.Errorf("tail(%q, %d, %d) = %q, want %q", test.in, test.lines, test.size, got, test.want)
		}
	}
}

func TestJoinedLogs(t *testing.T) {
	long := strings.Repeat("x\n", 1000)
	got := joined([]cluster.Log{{Container: "a", Text: []byte(long)}, {Container: "b"}, {Container: "c", Text: []byte(strings.Repeat("y", 9000))}})
	if len(got) > maxOutput || strings.Count(got, "\n") >= maxOutputLines {
		t.Errorf("%d bytes, %d lines", len(got), strings.Count(got, "\n"))
	}
	for _, want := range []string{"container a:\nx\nx", "container c:\n…yyy"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in %q", want, got)
		}
	}
	if strings.Contains(got, "container b") {
		t.Error("a container that wrote nothing is named")
	}
	if got := joined([]cluster.Log{{Container: "a", Text: []byte(long)}}); strings.Count(got, "\n") != maxOutputLines-1 || strings.Contains(got, "container") {
		t.Errorf("of one container: %q", got)
	}
}
