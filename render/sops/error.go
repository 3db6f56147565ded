package sops

import "fmt"

// Error says what is wrong with an encrypted file, without anything of what is
// in it. Line and Column count from 1; 0 stands for the whole file.
type Error struct {
	Line, Column int
	Message      string
	Hint         string
	// Locked: the file is sound as far as one can tell, but none of the keys
	// opens it.
	Locked bool
	// Program: the sops program may be able to open it.
	Program bool
}

func (e *Error) Error() string {
	s := e.Message
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	if e.Line > 0 {
		return fmt.Sprintf("%d:%d: %s", e.Line, e.Column, s)
	}
	return s
}

func (n *node) errorf(hint, format string, args ...any) *Error {
	e := &Error{Message: fmt.Sprintf(format, args...), Hint: hint}
	if n != nil {
		e.Line, e.Column = n.line, n.column
	}
	return e
}
