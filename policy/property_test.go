package policy_test

import (
	"github.com/pinion-cd/pinion/ledger"
)

var deployed = ledger.Deployment{
	Commit: commit("c2"), Release: release("1.4.2", "c2"), State: ledger.StateCompleted, Cause: ledger.CausePin,
	Actor: ledger.Person{Name: "Dana", Email: "dana@example.com"}, Authors: []ledger.Person{{Name: "Dana", Email: "dana@example.com"}},
}
