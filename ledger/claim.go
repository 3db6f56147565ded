package ledger

import (
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/pinion-cd/pinion/desired"
)

// promotionSubject is the first line of a promotion's message, as a forge may
// have written it anew: with the number of the pull request behind it.
var promotionSubject = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^promote\(([a-z0-9-]{1,63})\): ([a-z0-9-]{1,63})( .*)?$`)
})

// Claim returns what a commit of main claims to do, and false if that is
// nothing of Pinion's. merged is the message of the commit that it merges; "": it
// is no merge. A pull request that is merged in a forge's page has a message of
// the forge's: a merge claims what the commit does that it merges, and a squash
// that has kept nothing but the subject claims to bring what was offered. Then
// the Change has no Release.
func Claim(message, merged string) (Change, bool) {
	if c, ok := ParseChange(message); ok {
		return c, true
	}
	if c, ok := ParseChange(merged); ok && c.Kind == ChangePromoted {
		return c, true
	}
	first, _, _ := strings.Cut(message, "\n")
	if m := promotionSubject().FindStringSubmatch(strings.TrimSpace(first)); m != nil {
		return Change{Kind: ChangePromoted, Environment: desired.EnvironmentName(m[1]), Service: desired.ServiceName(m[2])}, true
	}
	return Change{}, false
}

// Open tells whether the change leaves it to the commit's diff and to the offer
// what it brings.
func (c Change) Open() bool { return c.Kind == ChangePromoted && c.Release.isZero() }

// bringsOffer tells whether the next release is the one that waits.
func (c Change) bringsOffer(r Record, next Release) bool {
	return c.Open() && c.Environment == r.Environment && c.Service == r.Service &&
		r.Candidate != nil && r.Candidate.Release.SamePins(next)
}

// AuthorsOf tells who a commit of main is by, as [Authors] does, with those of
// the commits that it merges. The daemon chooses nothing: what it has written
// names who did.
func AuthorsOf(author, committer Person, message string, merged []Person, claimed bool, daemon Person) (actor Person, authors []Person) {
	actor, authors = Authors(author, committer, message)
	for _, p := range merged {
		if !slices.ContainsFunc(authors, p.Same) {
			authors = append(authors, p)
		}
	}
	if claimed {
		authors = slices.DeleteFunc(authors, func(p Person) bool { return p == daemon })
	}
	return actor, authors
}
