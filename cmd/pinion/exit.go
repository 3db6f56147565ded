package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
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
	msg := strings.TrimRight(err.Error(), "\n")
	fmt.Fprintf(g.err, "pinion: %s\n", strings.ReplaceAll(msg, "\n", "\n  "))
	return code
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
