package ledger

import "github.com/pinion-cd/pinion/desired"

// ChangeKind is what a commit of Pinion on main does.
type ChangeKind string

// The kinds.
const (
	ChangePromoted   ChangeKind = "promoted"
	ChangeRolledBack ChangeKind = "rolled-back"
	ChangePinned     ChangeKind = "pinned"
	ChangeHeld       ChangeKind = "held"
	ChangeReleased   ChangeKind = "released"
)

// Change is what the message of a commit says that Pinion writes on main, the
// daemon or one of its commands. Anyone can write such a message: it claims,
// and what is true is told by the commit's diff.
type Change struct {
	Kind        ChangeKind
	Environment desired.EnvironmentName // not of held and released
	Service     desired.ServiceName     // not of held and released
	Hold        desired.HoldName        // of held and released only
	// Summary is what the subject says of a held or released: one line.
	Summary string
	From    []string // "staging@<ledger commit>", of a promoted
	// Release is what the environment has afterwards. Source is set if the
	// commit of the manifests moves.
	Release Release
	Policy  string // the pipeline that allowed it: "default@<blob>"
	Before  string // the version that the subject begins with, "" if none
	Reason  string // in words; the body
	Checks  []Check
	// RequestedBy are for whom a command or the daemon wrote it, CoAuthors
	// those who chose the release.
	RequestedBy, CoAuthors []Person
}

// Message returns the change as the message of its commit.
func (c Change) Message() string { return "" }

// ParseChange reads what a commit's message claims, and false if it does not
// have the form of one of Pinion's.
func ParseChange(message string) (Change, bool) { return Change{}, false }

// CauseOf tells why a record's next deployment comes about, by what changes.
// isPinion says that the commit is one of Pinion's, of the form of change.
func CauseOf(r Record, next Release, change Change, isPinion bool) Cause { return CausePin }
