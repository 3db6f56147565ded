package forge

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// ContextPrefix is what the contexts of all our statuses begin with.
const ContextPrefix = "pinion/"

// outcome is one service's part in what a commit brought to an environment.
type outcome struct {
	service desired.ServiceName
	release ledger.Release
	state   ledger.State
	reason  string
}

// Of returns the status of an environment on a commit of main: what became of
// the deployments that come from it, as the records of that environment's
// services say. It is false if none is known.
func Of(env desired.EnvironmentName, commit string, records []ledger.Record) (Status, bool) {
	var all []outcome
	for _, r := range records {
		if d := r.Deployment; d.Commit == commit && d.ID != "" {
			all = append(all, outcome{r.Service, d.Release, d.State, d.Reason})
			continue
		}
		if i := slices.IndexFunc(r.Previous, func(p ledger.Past) bool { return p.Commit == commit }); i >= 0 {
			all = append(all, outcome{r.Service, r.Previous[i].Release, r.Previous[i].State, ""})
		}
	}
	if len(all) == 0 {
		return Status{}, false
	}
	slices.SortFunc(all, func(a, b outcome) int {
		return cmp.Or(weight(b.state)-weight(a.state), cmp.Compare(a.service, b.service))
	})
	s := Status{Context: ContextPrefix + string(env), State: states[all[0].state]}
	s.Description = all[0].words()
	if n := len(all); n > 1 {
		same := 0
		for _, o := range all {
			if states[o.state] == s.State {
				same++
			}
		}
		s.Description = fmt.Sprintf("%d of %d: %s", same, n, s.Description)
	}
	s.Description = Short(s.Description)
	return s, true
}

// states are what the states of a deployment are for a forge. A state that is
// none of these is no success.
var states = map[ledger.State]State{
	ledger.StatePinned: Pending, ledger.StateStarted: Pending, ledger.StateCompleted: Pending,
	ledger.StateVerified: Success, ledger.StateFailed: Failure, ledger.StateSuperseded: Neutral,
}

// weight orders what counts of several: one that has failed before all, and
// then what is still under way.
func weight(s ledger.State) int {
	return map[State]int{Failure: 4, Pending: 3, Success: 2, Neutral: 1}[states[s]]
}

func (o outcome) words() string {
	name := strings.TrimSpace(string(o.service) + " " + o.release.Version())
	switch o.state {
	case ledger.StatePinned:
		return name + " is about to be applied"
	case ledger.StateStarted:
		return name + " is being rolled out"
	case ledger.StateCompleted:
		return name + " is rolled out, and its verification is under way"
	case ledger.StateVerified:
		return name + " is verified"
	case ledger.StateSuperseded:
		return name + " gave way to another before it was verified"
	}
	text := name + " is " + string(o.state)
	if first, _, _ := strings.Cut(o.reason, "\n"); first != "" {
		text += ": " + first
	}
	return text
}
