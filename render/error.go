package render

import (
	"fmt"
	"strings"
)

// Error says what is wrong with a service's manifests, and where: its author
// can mend it. Line and Column count from 1; 0 stands for the whole file. Any
// other error of this package means that the tree could not be read, or that
// the context was done.
type Error struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`        // what, in lower case
	Hint    string `json:"hint,omitempty"` // how to mend it
	// Locked: the file is encrypted, and no key opens it here. Elsewhere one may.
	Locked bool `json:"locked,omitempty"`
	// Reads is all that was looked at before it failed, as in [Result]; a
	// worker's pool tells it, nil: it is not known.
	Reads []Read `json:"-"`
}

// Error returns "file:line:column: message; hint".
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d", e.Line)
			if e.Column > 0 {
				fmt.Fprintf(&b, ":%d", e.Column)
			}
		}
		b.WriteString(": ")
	}
	b.WriteString(e.Message)
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// place is where something stands in the manifests.
type place struct {
	file         string
	line, column int
	path         string // within the output of Jsonnet: ".web.deployment"
}

func (p place) String() string {
	s := p.file
	if p.line > 0 {
		s += fmt.Sprintf(":%d", p.line)
	}
	if p.path != "" {
		s += " at " + p.path
	}
	return s
}

// errorf makes an Error at p. The hint may be empty.
func (p place) errorf(hint, format string, args ...any) *Error {
	message := fmt.Sprintf(format, args...)
	if p.path != "" {
		message = "at " + p.path + ": " + message
	}
	return &Error{File: p.file, Line: p.line, Column: p.column, Message: message, Hint: hint}
}
