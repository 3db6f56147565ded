package desired

import (
	"slices"
	"time"
)

// Hold is a freeze. One whose scope can be read counts even if the rest of its
// file is at fault: then Problems says what, and what can't be read is zero.
type Hold struct {
	Name         HoldName
	File         string
	Environments []EnvironmentName // empty: all
	Services     []ServiceName     // empty: all
	Reason       string
	Owner        string
	Until        time.Time // zero: until it is removed
	Position     Position  // of the end, else of the file
	// Problems: what is wrong with the hold, such as a name that is not there.
	Problems []Problem
}

// Covers reports whether the hold is about a service in an environment,
// whenever it ends.
func (h *Hold) Covers(env EnvironmentName, svc ServiceName) bool {
	return (len(h.Environments) == 0 || slices.Contains(h.Environments, env)) &&
		(len(h.Services) == 0 || slices.Contains(h.Services, svc))
}

// Expired reports whether the hold has come to its end.
func (h *Hold) Expired(now time.Time) bool {
	return !h.Until.IsZero() && !now.Before(h.Until)
}
