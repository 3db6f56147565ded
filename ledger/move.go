package ledger

// MoveError is an entry that a record does not allow.
type MoveError struct {
	Event      Event
	State      State  // of the current deployment; "" if there is none
	Deployment string // that the entry is about, or that is current
	Reason     string // in words, with the deployment and its environment
}

func (e *MoveError) Error() string { return e.Reason }

// Apply returns the present after an entry. The record itself is not changed.
// An entry that the present does not allow is a *MoveError.
func (r Record) Apply(e Entry) (Record, error) { return r, nil }

// Refuses returns the refusal that a release comes under.
func (r Record) Refuses(x Release) (Refusal, bool) { return Refusal{}, false }

// RanBefore returns the last deployment of before that had a release's pins.
func (r Record) RanBefore(x Release) (Past, bool) { return Past{}, false }
