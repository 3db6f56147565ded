package ledger

import (
	"time"

	"github.com/pinion-cd/pinion/desired"
)

// Event is what an entry tells.
type Event string

// The events. Those of a candidate (see Entry.Candidate) are offered, check,
// approved, rerun, superseded and failed.
const (
	EventPinned     Event = "pinned"
	EventStarted    Event = "started"
	EventCompleted  Event = "completed"
	EventVerified   Event = "verified"
	EventFailed     Event = "failed"
	EventSuperseded Event = "superseded"
	EventCheck      Event = "check"    // one policy's result
	EventApproved   Event = "approved" // one person's consent
	EventOffered    Event = "offered"  // a verified release waits to enter the environment
	EventDrifted    Event = "drifted"  // somebody changed what was applied
	EventRetired    Event = "retired"  // the environment does not ask for the service any more
	// EventRerun takes back a policy's result, so that it is checked once more.
	EventRerun Event = "rerun"
)

// Events are all of them.
var Events = []Event{
	EventPinned, EventStarted, EventCompleted, EventVerified, EventFailed, EventSuperseded,
	EventCheck, EventApproved, EventOffered, EventDrifted, EventRetired, EventRerun,
}

// Entry is one commit of a ledger.
type Entry struct {
	Event       Event
	Environment desired.EnvironmentName
	Service     desired.ServiceName
	Time        time.Time // the commit's; to the second

	// Deployment is the ID that the entry is about. It is empty if it is about
	// a candidate: then Candidate is true and Release says which.
	Deployment string
	Candidate  bool
	Commit     string  // of the deployment
	Release    Release // of the deployment or the candidate
	Manifests  string  // digest of the rendered objects, from started on
	From       []string
	Cause      Cause    // of a pinned entry
	Actor      Person   // who made it happen; zero: the daemon
	Authors    []Person // of a pinned or an offered entry

	// Checks: the one result of a check entry; the results that a verified or
	// failed entry is founded on, without their Output. The time of each is the
	// entry's. Policy is set in a rerun entry.
	Checks   []Check
	Approval *Approval
	Policy   desired.PolicyName
	Drift    *Drift // of a drifted entry

	// Late says that a check or an approval came for what is not the current
	// deployment or candidate: it is recorded and moves nothing.
	Late bool

	// Reason says in words why; it becomes the message's body.
	Reason string
	// Before is the version that the subject begins with, "" if none.
	Before string
	// After is, of a superseded entry, the version that takes the place, "" if
	// none does.
	After string
}
