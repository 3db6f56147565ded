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
// the Change is [Change.Open], and counts only where the stage is entered by pull
// requests: nobody else has a reason to write so.
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

// look is a trailer of ours, or what is nearly one.
var look = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?i)^pinion-(event|environment|service)[ \t]*:[ \t]*(\S*)$`)
})

// Imitates tells whether a message has the look of a promotion or a tracked
// version, whether or not it has the form of one: by its subject or by any line
// of it. Where it says so, the Change is about an environment and a service; it
// is [Change.Open].
func Imitates(message string) (Change, bool) {
	var c Change
	i := 0
	for l := range strings.Lines(strings.ReplaceAll(message, "\r", "\n")) {
		l = strings.TrimSpace(l)
		if i++; i == 1 {
			if m := imitation().FindStringSubmatch(l); m != nil {
				c.Kind = ChangePromoted
				if strings.EqualFold(m[1], ChangeTracked.word()) {
					c.Kind = ChangeTracked
				}
				c.Environment, c.Service = desired.EnvironmentName(m[2]), desired.ServiceName(m[3])
			}
		}
		m := look().FindStringSubmatch(l)
		if m == nil {
			continue
		}
		switch value := strings.ToLower(m[2]); strings.ToLower(m[1]) {
		case "event":
			if k := ChangeKind(value); k == ChangePromoted || k == ChangeTracked && c.Kind == "" {
				c.Kind = k
			}
		case "environment":
			if c.Environment == "" && isLabel(value) {
				c.Environment = desired.EnvironmentName(value)
			}
		case "service":
			if c.Service == "" && isLabel(value) {
				c.Service = desired.ServiceName(value)
			}
		}
	}
	return c, c.Kind != ""
}

// imitation is a subject as [Change.Subject] writes it, or nearly.
var imitation = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?i)^(promote|track)\(\s*([a-z0-9-]{1,63})\s*\)\s*:\s*([a-z0-9-]{1,63})\b`)
})

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
