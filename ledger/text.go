package ledger

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// What a text may be at most, in bytes. A longer one is cut, and says so.
const (
	maxReason      = 4 << 10
	maxDescription = 500
	maxOutput      = 8 << 10
	maxURL         = 2 << 10
	maxLine        = 2 << 10 // what stands in a trailer, unless it has a limit of its own
	maxToken       = 300
)

// colour is what a program writes to have its output coloured.
var colour = regexp.MustCompile("\x1b\\[[0-9;:?]*[ -/]*[@-~]")

// printable removes what can't be shown, or what makes a text look like
// another one: control characters, and those that turn the direction of
// writing. What separates lines becomes a newline.
func printable(s string) string {
	clean := true
	for i := 0; i < len(s) && clean; i++ {
		clean = s[i] >= ' ' && s[i] < 0x7f || s[i] == '\n'
	}
	if clean {
		return s
	}
	s = strings.ToValidUTF8(s, "\ufffd")
	s = colour.ReplaceAllString(s, "")
	s = strings.ReplaceAll(s, "\r\n", "\n")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == '\r' || r == '\u0085' || r == '\u2028' || r == '\u2029':
			return '\n'
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == '\ufeff':
			return -1
		}
		return r
	}, s)
}

// paragraphs brings a text of several lines into the form in which it is
// stored: no space at the end of a line, at most one empty line at a time.
func paragraphs(s string, most int) string {
	var lines []string
	for line := range strings.SplitSeq(printable(s), "\n") {
		line = strings.TrimRightFunc(line, unicode.IsSpace)
		if line == "" && (len(lines) == 0 || lines[len(lines)-1] == "") {
			continue
		}
		lines = append(lines, line)
	}
	return head(strings.TrimSpace(strings.Join(lines, "\n")), most)
}

// tail brings the output of a program into the form in which it is stored. Its
// end is what is kept.
func tail(s string, most int) string {
	var lines []string
	for line := range strings.SplitSeq(printable(s), "\n") {
		lines = append(lines, strings.TrimRightFunc(line, unicode.IsSpace))
	}
	s = strings.Trim(strings.Join(lines, "\n"), "\n")
	if len(s) <= most {
		return s
	}
	const note = "(the first %d bytes are not kept)\n"
	cut := len(s) - most + len(note) + 10
	for cut < len(s) && !utf8.RuneStart(s[cut]) {
		cut++
	}
	// A line is kept whole if it is not as long as all that is kept.
	if i := strings.IndexByte(s[cut:], '\n'); 0 <= i && i < most/2 {
		cut += i + 1
	}
	return fmt.Sprintf(note, cut) + s[cut:]
}

// head cuts a text at its end.
func head(s string, most int) string {
	if len(s) <= most {
		return s
	}
	const note = "… (%d bytes more)"
	cut := most - len(note) - 10
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	kept := strings.TrimSpace(s[:cut])
	return kept + fmt.Sprintf(note, len(s)-len(kept))
}

// line brings a text into one line.
func line(s string, most int) string {
	return brief(strings.Join(strings.Fields(printable(s)), " "), most)
}

// token brings a text into one word.
func token(s string, most int) string {
	return brief(strings.Join(strings.Fields(printable(s)), "_"), most)
}

// brief cuts a line at its end.
func brief(s string, most int) string {
	if len(s) <= most {
		return s
	}
	cut := most - len("…")
	for cut > 0 && !utf8.RuneStart(s[cut]) { // it may be no text at all
		cut--
	}
	return strings.TrimSpace(s[:cut]) + "…"
}

// address brings a URL into one word without user info: a name and password
// have no place in a ledger.
func address(s string) string {
	s = strings.Join(strings.Fields(printable(s)), "%20")
	if i := strings.Index(s, "://"); i >= 0 {
		rest := s[i+3:]
		end := strings.IndexAny(rest, `/?#\`)
		if end < 0 {
			end = len(rest)
		}
		s = s[:i+3] + rest[strings.LastIndexByte(rest[:end], '@')+1:]
	}
	return brief(s, maxURL)
}

// second is the precision of git.
func second(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.Unix(t.Unix(), 0).UTC()
}

func (r Release) normal() Release {
	r.Source = token(r.Source, maxToken)
	pins := make([]Pin, 0, len(r.Pins))
	for _, p := range r.Pins {
		p.Image = token(p.Image, maxLine)
		pins = append(pins, p)
	}
	slices.SortStableFunc(pins, func(a, b Pin) int { return cmp.Compare(a.Artifact, b.Artifact) })
	r.Pins = orNil(pins)
	return r
}

// brackets drops what encloses an address; made once, for each takes its time.
var brackets = strings.NewReplacer("<", "", ">", "")

func (p Person) normal() Person {
	return Person{line(brackets.Replace(p.Name), maxToken), token(brackets.Replace(p.Email), maxToken)}
}

func normalPersons(all []Person) []Person {
	persons := make([]Person, 0, len(all))
	for _, p := range all {
		if p = p.normal(); p != (Person{}) {
			persons = append(persons, p)
		}
	}
	return orNil(persons)
}

func normalChecks(all []Check, at time.Time, output bool) []Check {
	checks := make([]Check, 0, len(all))
	for _, c := range all {
		c.By = cmp.Or(token(c.By, maxToken), "unknown")
		c.Groups = normalGroups(c.Groups)
		c.URL = address(c.URL)
		c.Description = line(c.Description, maxDescription)
		if output {
			c.Output = tail(c.Output, maxOutput)
		} else {
			c.Output = ""
		}
		c.Time = at
		checks = append(checks, c)
	}
	return orNil(checks)
}

func normalGroups(all []string) []string {
	var groups []string
	for _, g := range all {
		if g = token(strings.ReplaceAll(g, ",", "_"), maxToken); g != "" {
			groups = append(groups, g)
		}
	}
	return groups
}

func normalTokens(all []string) []string {
	tokens := make([]string, 0, len(all))
	for _, s := range all {
		if s = token(s, maxToken); s != "" {
			tokens = append(tokens, s)
		}
	}
	return orNil(tokens)
}

func orNil[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return s
}
