package reconcile

import (
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// EventType says what an Event tells.
type EventType string

// The events that an engine reports.
const (
	EventCommit   EventType = "commit"  // a commit was read; Message says what it holds
	EventProblem  EventType = "problem" // a mistake in a file, or a part that could not be read
	EventPhase    EventType = "phase"   // a service's phase or what it waits for has changed
	EventApplied  EventType = "applied" // objects were written
	EventPruned   EventType = "pruned"  // objects were deleted
	EventHook     EventType = "hook"    // a hook has completed
	EventHalted   EventType = "halted"  // a deletion waits for a person
	EventWarning  EventType = "warning"
	EventCompared EventType = "compared" // all objects of an environment were compared with the API server's truth
	EventDrifted  EventType = "drifted"  // others have changed or deleted what was applied

	EventRecorded EventType = "recorded" // an entry was pushed to a ledger
	EventMoved    EventType = "moved"    // a promotion or a rollback was pushed to the main branch
	EventChecking EventType = "checking" // a check begins
	EventArtifact EventType = "artifact" // a version of an artifact came to be known
)

// Event is one thing that an engine reports as it goes.
type Event struct {
	Time        time.Time               `json:"time"`
	Type        EventType               `json:"type"`
	Environment desired.EnvironmentName `json:"environment,omitempty"`
	Service     desired.ServiceName     `json:"service,omitempty"`
	Phase       Phase                   `json:"phase,omitempty"`
	Version     string                  `json:"version,omitempty"`
	// Commit is one of the main branch: of a deployment, the one it comes from.
	Commit string `json:"commit,omitempty"`
	// Deployment is the id of the deployment, where it is known.
	Deployment string `json:"deployment,omitempty"`
	// Recorded is the commit of a ledger, or of the branch of the artifacts, by
	// which it is recorded.
	Recorded string `json:"entry,omitempty"`
	Message  string `json:"message,omitempty"`
	// Severity is that of a problem of a file; "": an error.
	Severity desired.Severity `json:"severity,omitempty"`
	// Entry is what was recorded.
	Entry *ledger.Entry `json:"-"`
	// Record is what the ledger says with that entry.
	Record *ledger.Record `json:"-"`
	// Done and Total count the services that are ready, and all.
	Done  int `json:"done"`
	Total int `json:"total"`
}

// deploymentOf is the id of the deployment of a service that comes from a
// commit; "": there is none that is known. Where there are no objects to name a
// commit, the digest of what was rendered stands for it.
func deploymentOf(service desired.ServiceName, commit string) string {
	if commit == "" || strings.Contains(commit, ":") {
		return ""
	}
	return ledger.DeploymentID(service, commit)
}

// ServiceStatus is where a service stands in an environment.
type ServiceStatus struct {
	Key
	Version string `json:"version"`
	// Commit is the commit on main that the running deployment comes from.
	Commit  string    `json:"commit,omitempty"`
	Phase   Phase     `json:"state"`
	Message string    `json:"message,omitempty"`
	Since   time.Time `json:"since"`
}

// Status is where all services stand, at one moment.
type Status struct {
	Commit   string            `json:"commit"`
	Services []ServiceStatus   `json:"services"`
	Problems []desired.Problem `json:"problems,omitempty"`
	// Halts are the deletions that wait for a person.
	Halts []string `json:"halts,omitempty"`
}

// Failed tells whether any service is failed or blocked, or a file is wrong.
func (s Status) Failed() bool {
	for _, p := range s.Problems {
		if p.Severity == desired.SeverityError {
			return true
		}
	}
	for _, v := range s.Services {
		if v.Phase != Ready {
			return true
		}
	}
	return len(s.Halts) > 0
}
