package artifact

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Choice is the newest version that may be chosen, and why others were not.
type Choice struct {
	Record  Record
	Version Version
	Found   bool
	// Refused are the versions that come after the chosen one, or after the
	// present one if none was chosen, the newest first, each with its reason.
	Refused []Refusal
}

// Refusal is a version that is not chosen.
type Refusal struct {
	Version string
	Reason  string
}

// String writes a refusal as a part of a sentence.
func (r Refusal) String() string { return r.Version + ": " + r.Reason }

// Refuses says why a version that is known can't be chosen by a rule; nil: it
// can.
func (r Rule) Refuses(x Record) error {
	v, err := r.Read(x.Version)
	if err != nil {
		return err
	}
	if err := r.Allows(v, x.Branch); err != nil {
		return err
	}
	if len(x.Moved) > 0 {
		return fmt.Errorf("its tag was moved to %.19s, and it is bound to %.19s", x.Moved[len(x.Moved)-1], x.Digest)
	}
	return nil
}

// Choose returns the newest version of a repository that the rule allows, that
// is newer than the present one, and that one of the sources has brought. Its
// record says what those say of it.
func (s *Shelf) Choose(r Rule, from Sources, repository string, present Version) Choice {
	type candidate struct {
		record  *entry
		version Version
	}
	var newer []candidate
	for _, x := range s.of(repository).versions {
		if v, err := r.readEntry(x); err == nil && v.Newer(present) {
			newer = append(newer, candidate{x, v})
		}
	}
	slices.SortFunc(newer, func(a, b candidate) int { return b.version.Compare(a.version) })
	var c Choice
	for _, x := range newer {
		known, untrusted := x.record.For(from)
		err := r.Refuses(known)
		if err == nil {
			err = untrusted
		}
		if err == nil {
			err = from.unsigned(known)
		}
		if err != nil {
			c.Refused = append(c.Refused, Refusal{x.record.Version, err.Error()})
			continue
		}
		if known.Branch == "" && x.version.Branch != "" { // nobody but the tag says it
			known.Branch = cmp.Or(r.Branch, x.version.Branch)
		}
		c.Record, c.Version, c.Found = known, x.version, true
		return c
	}
	return c
}

// Next returns the tag that a look at the registry has to go into: the newest
// that the rule could choose and that is not known to be there yet. Tags that
// were gone into for nothing are in tried. Without any, what is known already is
// the newest.
func (s *Shelf) Next(r Rule, from Sources, repository string, present Version, tags []string, tried func(tag string) bool) (string, bool) {
	var newer []Version
	for _, tag := range tags {
		// What it was built from is told by what is not read yet.
		if v, err := r.Read(tag); err == nil && v.Newer(present) && r.Allows(v, r.Branch) == nil {
			newer = append(newer, v)
		}
	}
	slices.SortFunc(newer, func(a, b Version) int { return b.Compare(a) })
	for _, v := range newer {
		known, ok := s.Lookup(repository, v.Tag)
		if !ok || known.Seen.IsZero() && len(known.Moved) == 0 {
			if !tried(v.Tag) {
				return v.Tag, true
			}
			continue
		}
		if x, err := known.For(from); err == nil && r.Refuses(x) == nil && from.unsigned(x) == nil {
			return "", false
		}
	}
	return "", false
}

// Reasons joins the first refusals.
func Reasons(all []Refusal) string {
	const most = 3
	var texts []string
	for _, r := range all[:min(len(all), most)] {
		texts = append(texts, r.String())
	}
	if n := len(all) - most; n > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(texts, "; ")
}
