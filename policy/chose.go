package policy

import (
	"slices"
	"strings"

	"github.com/pinion-cd/pinion/ledger"
)

// Chose tells whether who approves is one of those who chose the release: by
// the address, else by the name.
func Chose(authors []ledger.Person, a ledger.Approval) bool {
	return slices.ContainsFunc(authors, func(p ledger.Person) bool {
		if p.Email != "" && a.Email != "" {
			return strings.EqualFold(p.Email, a.Email)
		}
		return p.Name != "" && strings.EqualFold(p.Name, a.By) || p.Email != "" && strings.EqualFold(p.Email, a.By)
	})
}
