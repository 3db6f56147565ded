package check

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxLine        = 500 // bytes of a description
	maxOutput      = 4 << 10
	maxOutputLines = 50
)

// line makes one line of any text, fit to be shown and recorded.
func line(s string) string {
	s = strings.Join(strings.Fields(plain(s)), " ")
	if len(s) > maxLine {
		s = strings.ToValidUTF8(s[:maxLine-len("…")], "") + "…"
	}
	return s
}

// plain takes from a text what moves a cursor, colours or hides: escape
// sequences, control characters other than line feeds, and the marks that
// change the direction of writing. What is not UTF-8 becomes U+FFFD.
func plain(s string) string {
	var b strings.Builder
	for s != "" {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == '\x1b':
			n = escape(s)
		case r == '\n', r == '\r' && !strings.HasPrefix(s, "\r\n"):
			b.WriteByte('\n')
		case r == '\t', r == '\u2028', r == '\u2029':
			b.WriteByte(' ')
		case unicode.IsControl(r), '\u202a' <= r && r <= '\u202e', '\u2066' <= r && r <= '\u2069', r == '\ufeff':
		default:
			b.WriteRune(r)
		}
		s = s[n:]
	}
	return b.String()
}

// escape returns the length of the escape sequence that s begins with (ECMA-48,
// 5.4 and 5.6).
func escape(s string) int {
	if len(s) < 2 {
		return len(s)
	}
	switch s[1] {
	case '[':
		for i := 2; i < len(s); i++ {
			if c := s[i]; c < 0x20 || c > 0x3f {
				if 0x40 <= c && c <= 0x7e {
					i++
				}
				return i
			}
		}
		return len(s)
	case ']', 'P', '_', '^', 'X': // a string, up to BEL or ESC \
		for i := 2; i < len(s); i++ {
			switch {
			case s[i] == '\a':
				return i + 1
			case s[i] == '\n':
				return i // never ended
			case s[i] == '\x1b':
				if strings.HasPrefix(s[i:], "\x1b\\") {
					i += 2
				}
				return i
			}
		}
		return len(s)
	}
	if s[1] < 0x20 || s[1] > 0x7e {
		return 1
	}
	return 2
}

// Tail returns the last lines of what a container wrote, within a number of
// bytes and fit to be shown.
func Tail(s string, lines, size int) string { return tail(plain(s), lines, size) }

// tail returns the last lines of a text within a number of bytes. A line that is
// longer than all of them begins with an ellipsis: so it shows that it was cut,
// also to who looks for a value in it that is not to be shown.
func tail(s string, lines, size int) string {
	s = strings.TrimRight(s, "\n ")
	if all := strings.Split(s, "\n"); len(all) > lines {
		s = strings.Join(all[len(all)-lines:], "\n")
	}
	if len(s) <= size {
		return s
	}
	cut := s[len(s)-size:]
	if i := strings.IndexByte(cut, '\n'); i >= 0 {
		return cut[i+1:] // not half a line
	}
	cut = cut[min(len("…"), len(cut)):]
	for cut != "" && !utf8.RuneStart(cut[0]) {
		cut = cut[1:]
	}
	return "…" + cut
}
