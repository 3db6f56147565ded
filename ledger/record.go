package ledger

import (
	"time"

	"github.com/pinion-cd/pinion/desired"
)

// State is where a deployment stands.
type State string

// The states, in their order. The last three are final.
const (
	StatePinned     State = "pinned"     // a commit on main asks for it
	StateStarted    State = "started"    // its objects are being applied
	StateCompleted  State = "completed"  // it is rolled out; its verification is under way
	StateVerified   State = "verified"   // all that its stage asks for holds
	StateFailed     State = "failed"     // it could not be rolled out, or a check failed
	StateSuperseded State = "superseded" // another one took its place before it was verified
)

// Final tells whether a deployment moves no more.
func (s State) Final() bool {
	return s == StateVerified || s == StateFailed || s == StateSuperseded
}

// Pin is the exact version of one artifact.
type Pin struct {
	Artifact desired.ArtifactName `json:"artifact"`
	Image    string               `json:"image"` // the reference, as the environment's file has it
}

// Release is what moves from one environment to the next: the pins, and the
// commit that the manifests are read from.
type Release struct {
	Pins   []Pin  `json:"pins,omitempty"` // sorted by artifact
	Source string `json:"source,omitempty"`
}

// Person is who did something: a name and an address, either of which may be
// empty.
type Person struct {
	Name  string `json:"name,omitempty"`
	Email string `json:"email,omitempty"`
}

// Cause is why there is a deployment.
type Cause string

// The causes.
const (
	CausePin       Cause = "pin"       // somebody has changed a pin
	CauseManifests Cause = "manifests" // the pins are the same; manifests, parameters or the service's file have changed
	CauseTracking  Cause = "tracking"  // the daemon has brought a new version that the stage tracks
	CausePromotion Cause = "promotion" // the daemon has promoted it, or a person with its commit
	CauseRollback  Cause = "rollback"  // the daemon, or a person with `pinion rollback`, went back to it
	CauseRevert    Cause = "revert"    // somebody went back to it by a commit of their own
)

// Result is what a check came to.
type Result string

// The results.
const (
	Success Result = "success"
	Failure Result = "failure"
)

// Check is the result of one policy.
type Check struct {
	Policy      desired.PolicyName `json:"policy"`
	Result      Result             `json:"result"`
	By          string             `json:"by"`                    // who says so: a principal, or "pinion"; without spaces
	Groups      []string           `json:"groups,omitempty"`      // those of the principal in that moment, if it counts by one of them; without spaces and commas
	URL         string             `json:"url,omitempty"`         // without spaces and user info
	Description string             `json:"description,omitempty"` // one line
	Output      string             `json:"output,omitempty"`      // the end of what a Job wrote
	Time        time.Time          `json:"time"`
}

// Approval is one person's consent.
type Approval struct {
	Policy  desired.PolicyName `json:"policy"`
	By      string             `json:"by"` // the principal; without spaces
	Email   string             `json:"email,omitempty"`
	Groups  []string           `json:"groups,omitempty"` // those of the person in that moment; without spaces and commas
	Comment string             `json:"comment,omitempty"`
	Time    time.Time          `json:"time"`
}

// Deployment is one release in one environment.
type Deployment struct {
	ID        string   `json:"deployment"` // see DeploymentID
	Commit    string   `json:"commit"`     // the commit on main that it comes from
	Release   Release  `json:"release"`
	Manifests string   `json:"manifests,omitempty"` // digest of the rendered objects; empty until they are rendered
	State     State    `json:"state"`
	Reason    string   `json:"reason,omitempty"` // why it is in this state, in words
	Cause     Cause    `json:"cause"`
	From      string   `json:"from,omitempty"`    // of a promotion: "staging@<ledger commit>", several with a comma between
	Actor     Person   `json:"actor"`             // who made the commit
	Authors   []Person `json:"authors,omitempty"` // who chose this release: author, Requested-By and Co-authored-by of the pin that it began with

	Pinned    time.Time `json:"pinned,omitzero"`
	Started   time.Time `json:"started,omitzero"`
	Completed time.Time `json:"completed,omitzero"`
	Ended     time.Time `json:"ended,omitzero"` // when it was verified, failed or superseded

	Checks    []Check    `json:"checks,omitempty"` // sorted by policy; the newest result of each
	Approvals []Approval `json:"approvals,omitempty"`
	// Reruns are the policies whose result was taken back, each time once more.
	Reruns []desired.PolicyName `json:"reruns,omitempty"`
}

// Past is a deployment of before, in short.
type Past struct {
	ID        string    `json:"deployment"`
	Commit    string    `json:"commit"`
	Release   Release   `json:"release"`
	Manifests string    `json:"manifests,omitempty"`
	State     State     `json:"state"`
	Authors   []Person  `json:"authors,omitempty"`
	Started   time.Time `json:"started,omitzero"` // zero: it never ran
	Ended     time.Time `json:"ended,omitzero"`   // when it came to its last state
	Left      time.Time `json:"left,omitzero"`    // when another one took its place
}

// Refusal is a release that no automation brings (back) into the environment:
// it failed there, was rolled back, or its candidate failed a gate. A person's
// pin of it takes the refusal away, and so does its verification.
type Refusal struct {
	// Release: without a Source, its pins are refused whatever the manifests.
	Release Release   `json:"release"`
	Reason  string    `json:"reason"`
	Time    time.Time `json:"time"`
}

// Candidate is a verified release that waits to enter the environment.
type Candidate struct {
	Release Release `json:"release"`
	// From are the deployments that verified it: "staging@<ledger commit>".
	From      []string   `json:"from"`
	Authors   []Person   `json:"authors,omitempty"`
	Offered   time.Time  `json:"offered"`
	Reason    string     `json:"reason,omitempty"` // what it waited for when it was offered
	Checks    []Check    `json:"checks,omitempty"`
	Approvals []Approval `json:"approvals,omitempty"`
	// Reruns are the policies whose result was taken back, each time once more.
	Reruns []desired.PolicyName `json:"reruns,omitempty"`
}

// Record is the present of one service in one environment: the file
// <service>/deployment.yaml of the ledger's tree.
type Record struct {
	Environment desired.EnvironmentName `json:"environment"`
	Service     desired.ServiceName     `json:"service"`
	// Deployment is the newest one.
	Deployment Deployment `json:"current"`
	// Verified is the last one that was verified; it may be the newest.
	Verified *Past `json:"verified,omitempty"`
	// Previous are those before Deployment, newest first, at most MaxPrevious.
	Previous []Past `json:"previous,omitempty"`
	// Refused are the refusals, newest first, at most MaxRefused.
	Refused []Refusal `json:"refused,omitempty"`
	// Candidate is what waits to enter.
	Candidate *Candidate `json:"candidate,omitempty"`
	// Retired is when the environment stopped asking for the service; the
	// next pinned entry ends that.
	Retired time.Time `json:"retired,omitzero"`
	Drifted time.Time `json:"drifted,omitzero"` // when somebody last changed an object of the present deployment
	// Drift is what was changed then; nil: nothing, or it is over.
	Drift *Drift `json:"drift,omitempty"`
}

// What a record keeps at most, so that its cost does not grow with its age. The
// rest is in the history. A release that was refused so long ago is kept out by
// the newer ones that came after it.
const (
	MaxPrevious = 20
	MaxRefused  = 50
)
