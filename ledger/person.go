package ledger

import (
	"slices"
	"strings"
)

// String returns "Name <address>", or the one that is known.
func (p Person) String() string {
	switch {
	case p.Email == "" && ParsePerson(p.Name) == p:
		return p.Name
	case p.Name == "" && ParsePerson(p.Email) == p:
		return p.Email
	}
	return p.trailer()
}

// ParsePerson reads "Name <address>", an address, or a name.
func ParsePerson(s string) Person {
	s = strings.TrimSpace(s)
	if i := strings.LastIndexByte(s, '<'); i >= 0 && strings.HasSuffix(s, ">") {
		return Person{strings.TrimSpace(s[:i]), strings.TrimSpace(s[i+1 : len(s)-1])}
	}
	if strings.Contains(s, "@") && !strings.ContainsAny(s, " \t") {
		return Person{Email: s}
	}
	return Person{Name: s}
}

// Same tells whether two persons are one: their addresses are the same, in
// whatever case, or, without addresses, their names.
func (p Person) Same(o Person) bool {
	if p.Email != "" || o.Email != "" {
		return strings.EqualFold(p.Email, o.Email)
	}
	return p.Name == o.Name
}

// Authors tells who a commit on main is by. The actor is its author: the
// committer is often a forge's web page that has pressed the button. The
// authors are the actor and whom a line Requested-By or Co-authored-by names,
// each once. Such a line counts wherever it stands, for a squash merge moves it
// away from the end, and one author too many is the safe side: it is one person
// more whose own approval does not count.
func Authors(author, committer Person, message string) (actor Person, authors []Person) {
	actor = author.normal()
	if actor == (Person{}) {
		actor = committer.normal()
	}
	add := func(p Person) {
		if p != (Person{}) && !slices.ContainsFunc(authors, p.Same) {
			authors = append(authors, p)
		}
	}
	add(actor)
	for l := range strings.SplitSeq(message, "\n") {
		for _, key := range []string{"Requested-By:", "Co-authored-by:"} {
			if hasPrefixFold(l, key) {
				add(ParsePerson(l[len(key):]).normal())
			}
		}
	}
	return actor, authors
}
