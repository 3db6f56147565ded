package artifact

import (
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
// is newer than the present one, and that none but these has published.
func (s *Shelf) Choose(r Rule, publishers []string, repository string, present Version) Choice {
	type candidate struct {
		record  Record
		version Version
	}
	var newer []candidate
	for _, x := range s.Versions(repository) {
		if v, err := r.Read(x.Version); err == nil && v.Newer(present) {
			newer = append(newer, candidate{x, v})
		}
	}
	slices.SortFunc(newer, func(a, b candidate) int { return b.version.Compare(a.version) })
	var c Choice
	for _, x := range newer {
		err := r.Refuses(x.record)
		if err == nil {
			err = x.record.Trusted(publishers)
		}
		if err != nil {
			c.Refused = append(c.Refused, Refusal{x.record.Version, err.Error()})
			continue
		}
		c.Record, c.Version, c.Found = x.record, x.version, true
		return c
	}
	return c
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
