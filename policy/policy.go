package policy

import (
	"time"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// Outcome is what a gate comes to.
type Outcome string

// The outcomes. The zero value is none of them, and lets nothing pass.
const (
	Passed  Outcome = "passed"
	Pending Outcome = "pending"
	Failed  Outcome = "failed"
)

// Verdict is one gate with its value.
type Verdict struct {
	// Gate is a policy's name, or "rollout", "hold <name>" ("hold" alone, of
	// what in holds/ has no name), "stage <name>" (a stage before, from which
	// the release has to come, or the stage itself if it can't be used),
	// "track <artifact>" (whether there is a newer version that the stage takes),
	// "version" (the environment already has it, has a newer one, or has
	// refused it).
	Gate    string        `json:"gate"`
	Check   desired.Check `json:"check,omitempty"` // of a policy
	Outcome Outcome       `json:"outcome"`
	Reason  string        `json:"reason"` // why, in words: "0 of 2 approvals by release-managers"
	// Needs says what would open a gate that is not passed: "approve with
	// `pinion approve production web …`", "wait until Mon 09:00 CET".
	Needs string    `json:"needs,omitempty"`
	Since time.Time `json:"since,omitzero"`
	// Opens is when the gate passes by itself, if nothing else happens.
	Opens time.Time `json:"opens,omitzero"`
	// Deadline is when a pending gate fails by its timeout.
	Deadline time.Time `json:"deadline,omitzero"`
	// Result is the recorded result that it rests on.
	Result *ledger.Check `json:"result,omitempty"`
}

// Rules are what one commit says about a service's way through its pipeline.
type Rules struct {
	Commit     string // on main
	Repository *desired.Repository
	// PipelineBlob is the git id of the pipeline's file.
	PipelineBlob string
}

// Health is what can be seen of a deployment now.
type Health struct {
	// Known: somebody watches. If not, what depends on it stays pending.
	Known   bool
	Healthy bool
	Since   time.Time // healthy and unchanged without a break since then
	Message string    // what is not healthy
}

// Verification is what Verify judges from.
type Verification struct {
	Now    time.Time
	Record ledger.Record // Record.Deployment is judged
	// Rules are those of the commit that the deployment comes from.
	Rules  Rules
	Health Health
	// Locations has the time zones of the windows that can be loaded.
	Locations map[string]*time.Location
	// Shelf is what is known of artifacts, for rules that ask for it (see
	// [Rules.AsksArtifacts]); nil: that could not be read.
	Shelf *artifact.Shelf
}

// Judgement is what Verify comes to.
type Judgement struct {
	// State is verified or failed when the deployment is to move there, else
	// the state that it has.
	State    ledger.State
	Reason   string
	Verdicts []Verdict // rollout first, then the policies in the stage's order
	// Checks are the results that the judgement is founded on.
	Checks []ledger.Check
	// Run are the policies whose check has to be made now: job, http,
	// prometheus without a recorded result.
	Run []desired.PolicyName
	// Wake is when to judge again even if nothing happens; zero: never.
	Wake time.Time
}

// Admission is what Admit judges from: whether and with what a stage may be
// entered, for one service.
type Admission struct {
	Now         time.Time
	Service     desired.ServiceName
	Environment desired.EnvironmentName // of the stage to be entered
	// Rules are those of the tip that the promotion would extend.
	Rules Rules
	// Target is the environment's record; its zero value: nothing ran there yet.
	Target ledger.Record
	// Pinned is what the tip's files say of the service in the environment:
	// nil, not there.
	Pinned *desired.Deployment
	// Unrecorded is the newest commit of main that changed those pins and is not in
	// Target yet, if the files may say the same by it as before; "": none is known.
	Unrecorded string
	// Before are the records of the stages that come right before, by
	// environment, and Entries the ledger commits that they were read from.
	Before  map[desired.EnvironmentName]ledger.Record
	Entries map[desired.EnvironmentName]string
	// Older tells whether a commit of main comes before another one (and is
	// not the same). It is asked only about commits that the records name.
	Older     func(commit, than string) bool
	Health    Health // of the target, for gates that look at it
	Locations map[string]*time.Location
	// Shelf is what is known of artifacts, for a stage that tracks them and for
	// rules that ask for it; nil: nothing, or that could not be read.
	Shelf *artifact.Shelf
	// Forced, if set, is the release that a person asks for by name
	// (`pinion promote`): it must still be verified in the stages before, but
	// need not be the newest.
	Forced *ledger.Release
}

// Move is what is to be done about a stage.
type Move string

// The moves.
const (
	Stay    Move = "stay"    // nothing: Reason says why
	Offer   Move = "offer"   // record a new candidate, which waits (superseding an older one)
	Promote Move = "promote" // write the promotion
	Dismiss Move = "dismiss" // a gate of the candidate has failed, or it is none any more: record that
)

// Promotion is what is to be written to enter a stage.
type Promotion struct {
	Service     desired.ServiceName
	Environment desired.EnvironmentName
	Release     ledger.Release
	// Manifests: the commit of the manifests moves, too.
	Manifests bool
	From      []string // "staging@<ledger commit>"
	// Tracked: nothing was verified before; the release has versions that the
	// stage tracks, and Builds say how they were made.
	Tracked bool
	Builds  []ledger.Build
	Authors []ledger.Person
	// Evidence says in words how the release was verified, and Checks by what.
	Evidence string
	Checks   []ledger.Check
	Before   string // the version that is there
	Pipeline string // "default@<blob>"
}

// Decision is what Admit comes to.
type Decision struct {
	Move      Move
	Reason    string
	Candidate *ledger.Candidate // that is judged; nil: there is none
	// Supersedes: the record's candidate gives way to another one, or is
	// promoted over; an entry says so before anything else.
	Supersedes bool
	// Failed: of a Dismiss, that a gate has failed, and the release is not
	// offered again.
	Failed    bool
	Verdicts  []Verdict
	Promotion *Promotion
	// Proposal is, of a stage that is entered by pull requests, what the
	// candidate's is to bring, also while gates are not passed.
	Proposal *Promotion
	// Run are the admit policies whose check has to be made now.
	Run  []desired.PolicyName
	Wake time.Time
}

// Retreat is where to go back to after a failure.
type Retreat struct {
	Environment desired.EnvironmentName
	Service     desired.ServiceName
	To          ledger.Release
	Manifests   bool
	Reason      string
	Before      string // the version that is left
}
