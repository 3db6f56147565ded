package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/render"
)

// The exit codes.
const (
	exitOK        = 0
	exitDifferent = 1 // differences, or not (yet) so
	exitFailed    = 2
	exitRefused   = 3 // by a policy, a hold or a guard
	exitDenied    = 4 // not authorised
	exitTimeout   = 124
)

// exitError ends the command with a code; a nil cause is silent.
type exitError struct {
	code  int
	cause error
}

func (e *exitError) Error() string {
	if e.cause == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.cause.Error()
}

func (e *exitError) Unwrap() error { return e.cause }

// exit prints an error, once, and returns the code to exit with.
func (g *globals) exit(err error) int {
	if err == nil {
		return exitOK
	}
	code := codeOf(err)
	var e *exitError
	if errors.As(err, &e) && e.cause == nil {
		return code
	}
	for _, text := range explain("", err) {
		fmt.Fprintf(g.err, "pinion: %s\n", strings.ReplaceAll(printable(strings.TrimRight(text, "\n")), "\n", "\n  "))
	}
	return code
}

// explain returns the texts of the errors that are joined in one: a line of
// cause each, one of place if it is known, and one of what to do. prefix is
// what was being done.
func explain(prefix string, err error) []string {
	lines := func(message string, rest ...string) []string {
		text := prefix + message
		for _, s := range rest {
			if s != "" {
				text += "\n" + s
			}
		}
		return []string{text}
	}
	at := func(place string) string {
		if place == "" {
			return ""
		}
		return "at " + place
	}
	switch e := err.(type) {
	case desired.Problem:
		return lines(e.Message, at(e.Position.String()), e.Hint)
	case *render.Error:
		return lines(e.Message, at(desired.Position{File: e.File, Line: e.Line, Column: e.Column}.String()), e.Hint)
	case interface{ Unwrap() []error }:
		var all []string
		for _, one := range e.Unwrap() {
			all = append(all, explain(prefix, one)...)
		}
		return all
	}
	if inner := errors.Unwrap(err); inner != nil {
		if outer, ok := strings.CutSuffix(err.Error(), inner.Error()); ok {
			return explain(prefix+outer, inner)
		}
	}
	message, hint := err.Error(), ""
	if i := strings.LastIndex(message, "; "); i >= 0 && !strings.Contains(message, "\n") {
		message, hint = message[:i], message[i+2:]
	}
	return lines(message, hint)
}

func codeOf(err error) int {
	var e *exitError
	switch {
	case errors.As(err, &e):
		return e.code
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	}
	return exitFailed
}
