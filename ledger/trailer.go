package ledger

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/desired"
)

// A message is a subject, a body and trailers, with an empty line between them.
// The trailers are the last paragraph and nothing else is, as in
// git-interpret-trailers(1). The body is a text in words, and after it what
// the checks have to say:
//
//	It was healthy for 30m.
//
//	- e2e: 41 of 41
//
//	Output of smoke:
//	    GET / 200
//
// What others have written stands in the text, after "- e2e:" in its line, or
// indented. A line of the text that git, somebody's grep or the reading back
// would take for something else has a ">" before it, as mail has it before a
// "From" (mboxrd).

type trailer struct{ key, value string }

// note is what a check or an approval has to say in the body.
type note struct {
	label               string // the policy's name
	description, output string
}

const indent = "    "

// assemble writes a message.
func assemble(subject, text string, notes []note, trailers []trailer) string {
	var b strings.Builder
	b.WriteString(subject)
	b.WriteString("\n\n")
	if text != "" {
		special := special(notes)
		for l := range strings.SplitSeq(text, "\n") {
			if special(strings.TrimLeft(l, ">")) {
				b.WriteByte('>')
			}
			b.WriteString(l)
			b.WriteByte('\n')
		}
		b.WriteByte('\n')
	}
	for _, n := range notes {
		if n.description != "" {
			fmt.Fprintf(&b, "- %s: %s\n\n", n.label, n.description)
		}
		if n.output != "" {
			fmt.Fprintf(&b, "Output of %s:\n", n.label)
			for l := range strings.SplitSeq(n.output, "\n") {
				if l != "" {
					b.WriteString(indent)
				}
				b.WriteString(l)
				b.WriteByte('\n')
			}
			b.WriteByte('\n')
		}
	}
	for _, t := range trailers {
		fmt.Fprintf(&b, "%s: %s\n", t.key, t.value)
	}
	return b.String()
}

// special tells which lines can't stand in the text as they are.
func special(notes []note) func(string) bool {
	return func(l string) bool {
		switch {
		// A comment, the line under which git cuts, and the end of a message
		// that a patch follows.
		case strings.HasPrefix(l, "#"), strings.HasPrefix(l, "---"), l == "Conflicts:":
			return true
		case hasPrefixFold(l, "Pinion-"), hasPrefixFold(l, "Co-authored-by:"), hasPrefixFold(l, "Requested-by:"), hasPrefixFold(l, "Signed-off-by:"):
			return true
		}
		return slices.ContainsFunc(notes, func(n note) bool {
			return strings.HasPrefix(l, "- "+n.label+": ") || l == "Output of "+n.label+":"
		})
	}
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// disassemble takes a message apart. The body is left as it is until it is
// known whose notes it has.
func disassemble(message string) (subject string, body []string, trailers []trailer, err error) {
	lines := strings.Split(strings.TrimRight(message, "\n"), "\n")
	last := len(lines) - 1
	for last >= 0 && lines[last] != "" {
		last--
	}
	if last < 1 || lines[1] != "" {
		return "", nil, nil, fmt.Errorf("it is not a subject, an empty line, and trailers in the end")
	}
	for _, l := range lines[last+1:] {
		key, value, ok := strings.Cut(l, ": ")
		if !ok || key == "" || strings.ContainsFunc(key, func(r rune) bool { return !isAlnum(r) && r != '-' }) {
			return "", nil, nil, fmt.Errorf("%q in the last paragraph is not a trailer", brief(l, 100))
		}
		trailers = append(trailers, trailer{key, strings.TrimSpace(value)})
	}
	return lines[0], lines[1:last], trailers, nil
}

func isAlnum(r rune) bool {
	return '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}

// readBody takes the body apart, into the text and what the notes say.
func readBody(body []string, notes []note) (text string) {
	special := special(notes)
	var b strings.Builder
	i := 0
	for ; i < len(body); i++ {
		l := body[i]
		if bare := strings.TrimLeft(l, ">"); special(bare) {
			if bare == l && (strings.HasPrefix(l, "- ") || strings.HasPrefix(l, "Output of ")) {
				break
			}
			l = strings.TrimPrefix(l, ">")
		}
		b.WriteString(l)
		b.WriteByte('\n')
	}
	for i < len(body) {
		l := body[i]
		i++
		for n := range notes {
			if d, ok := strings.CutPrefix(l, "- "+notes[n].label+": "); ok {
				notes[n].description = d
			}
			if l != "Output of "+notes[n].label+":" {
				continue
			}
			var output []string
			for i < len(body) && (body[i] == "" || strings.HasPrefix(body[i], indent)) {
				output = append(output, strings.TrimPrefix(body[i], indent))
				i++
			}
			notes[n].output = strings.Join(output, "\n")
		}
	}
	return b.String()
}

func (p Pin) trailer() string { return strings.TrimSpace(string(p.Artifact) + " " + p.Image) }

func parsePin(s string) Pin {
	artifact, image, _ := strings.Cut(s, " ")
	return Pin{desired.ArtifactName(artifact), image}
}

func (c Check) trailer() string {
	return strings.TrimSpace(strings.Join([]string{string(c.Policy), string(c.Result), c.By, c.URL}, " "))
}

func parseCheck(s string) (Check, error) {
	w := strings.Fields(s)
	if len(w) < 3 || len(w) > 4 {
		return Check{}, fmt.Errorf("%q is not a policy, its result, by whom, and an address", s)
	}
	c := Check{Policy: desired.PolicyName(w[0]), Result: Result(w[1]), By: w[2]}
	if len(w) == 4 {
		c.URL = w[3]
	}
	return c, nil
}

// groupsTrailer writes "e2e builders,ci", and nothing if there are no groups.
// It is a trailer of its own, for who does not know it passes it over.
func (c Check) groupsTrailer() string {
	if len(c.Groups) == 0 {
		return ""
	}
	return string(c.Policy) + " " + strings.Join(c.Groups, ",")
}

func parseGroups(s string, into map[desired.PolicyName][]string) error {
	w := strings.Fields(s)
	if len(w) != 2 {
		return fmt.Errorf("%q is not a policy and groups", s)
	}
	policy := desired.PolicyName(w[0])
	if into[policy] != nil {
		return fmt.Errorf("the groups of who reported %s stand there twice", policy)
	}
	into[policy] = strings.Split(w[1], ",")
	return nil
}

// giveGroups puts the groups to the results that they belong to.
func giveGroups(checks []Check, groups map[desired.PolicyName][]string) error {
	given := 0
	for i, c := range checks {
		if g := groups[c.Policy]; g != nil {
			checks[i].Groups = g
			given++
		}
	}
	if given < len(groups) {
		return fmt.Errorf("it has groups of who reported a policy, and no result of that policy")
	}
	return nil
}

// trailer writes "release-approval alice alice@example.com release-managers,sre",
// with "-" for an address that is not known.
func (a Approval) trailer() string {
	w := []string{string(a.Policy), a.By}
	if a.Email != "" || len(a.Groups) > 0 {
		email := a.Email
		if email == "" {
			email = "-"
		}
		w = append(w, email)
	}
	if len(a.Groups) > 0 {
		w = append(w, strings.Join(a.Groups, ","))
	}
	return strings.Join(w, " ")
}

func parseApproval(s string) (Approval, error) {
	w := strings.Fields(s)
	if len(w) < 2 || len(w) > 4 {
		return Approval{}, fmt.Errorf("%q is not a policy, by whom, an address and groups", s)
	}
	a := Approval{Policy: desired.PolicyName(w[0]), By: w[1]}
	if len(w) > 2 && w[2] != "-" {
		a.Email = w[2]
	}
	if len(w) > 3 {
		a.Groups = strings.Split(w[3], ",")
	}
	return a, nil
}

func (p Person) trailer() string { return strings.TrimSpace(p.Name + " <" + p.Email + ">") }
