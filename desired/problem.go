package desired

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity says what a Problem does to the thing it is found in.
type Severity string

const (
	// SeverityError: what the Problem is about is not used.
	SeverityError Severity = "error"
	// SeverityWarning: it is used, and is probably not what was meant.
	SeverityWarning Severity = "warning"
)

// Problem is something that is wrong in a file of the deployment repository.
type Problem struct {
	Severity Severity `json:"severity"`
	Position
	Message string `json:"message"`        // what is wrong, in lower case
	Hint    string `json:"hint,omitempty"` // how to mend it
	// Kind and Name say to what the file belongs: the stem of its name, or the
	// name of a service's folder. Name is empty if the file belongs to nothing.
	Kind Kind   `json:"kind,omitempty"`
	Name string `json:"name,omitempty"`
}

// Error returns "file:line:column: message; hint".
func (p Problem) Error() string {
	var b strings.Builder
	if at := p.Position.String(); at != "" {
		b.WriteString(at + ": ")
	}
	b.WriteString(p.Message)
	if p.Hint != "" {
		b.WriteString("; " + p.Hint)
	}
	return b.String()
}

// String returns "file:line:column", or "file" if the line is not known.
func (p Position) String() string {
	p.File = strings.ReplaceAll(p.File, "\n", `\n`) // what is said of it stays one line
	switch {
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

func (p Problem) compare(q Problem) int {
	return cmp.Or(
		cmp.Compare(p.File, q.File),
		cmp.Compare(p.Line, q.Line),
		cmp.Compare(p.Column, q.Column),
		cmp.Compare(p.Severity, q.Severity),
		cmp.Compare(p.Message, q.Message),
		cmp.Compare(p.Hint, q.Hint),
		cmp.Compare(p.Kind, q.Kind),
		cmp.Compare(p.Name, q.Name),
	)
}

// sorted sorts in place and drops what is there twice.
func sorted(problems []Problem) []Problem {
	slices.SortFunc(problems, Problem.compare)
	return slices.Compact(problems)
}
