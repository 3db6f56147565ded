package artifact

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"
)

// Rule says which versions of an artifact may be chosen, and which of them is
// the newest. The zero Rule allows nothing.
type Rule struct {
	// Range is what semantic versions have to be in; "" : any. Without a
	// Pattern, a tag is a semantic version, all three numbers of it.
	Range string
	// Pattern takes tags apart that are more than a version.
	Pattern string
	// Branch is what a version must have been built from; "": any.
	Branch      string
	Prereleases bool

	spans    []span         // of the range; one of them is enough
	form     *regexp.Regexp // of the pattern
	semantic bool
}

// MakeRule makes a rule of what was checked with [ParseRange] and
// [ParsePattern].
func MakeRule(r Rule) (Rule, error) {
	if r.Range != "" {
		if _, err := ParseRange(r.Range); err != nil {
			return Rule{}, err
		}
		var err error
		if r.spans, err = spansOf(r.Range, r.Prereleases); err != nil {
			return Rule{}, err
		}
	}
	r.semantic = r.Pattern == ""
	if r.semantic {
		if r.Range == "" {
			return Rule{}, errors.New("a rule needs a range or a pattern")
		}
		return r, nil
	}
	var err error
	r.form, err = compile(r.Pattern, r.Branch)
	return r, err
}

// ParseRange reads a range of semantic versions, as in ">=1.2.0 <2" or "1.x".
func ParseRange(s string) (*semver.Constraints, error) {
	if len(s) > maxRule {
		return nil, fmt.Errorf("the range has more than %d characters", maxRule)
	}
	c, err := semver.NewConstraint(s)
	if err != nil {
		return nil, errors.New("it is not a range of semantic versions")
	}
	return c, nil
}

// span is one alternative of a range.
type span struct {
	constraint *semver.Constraints
	// below are the versions of which it wants only what comes before. Before
	// 2.0.0 comes 2.0.0-rc.1, which nobody means who writes <2; so their
	// prereleases are not in it, unless the bound is one itself.
	below []*semver.Version
}

var (
	upperBound = regexp.MustCompile(`(<=|=<|<)\s*v?([0-9xX*]+(?:\.[0-9xX*]+){0,2})(-[0-9A-Za-z])?`)
	anyNumber  = regexp.MustCompile(`[xX*]+`)
)

// spansOf takes a range apart that [ParseRange] has read.
func spansOf(text string, prereleases bool) ([]span, error) {
	var all []span
	for one := range strings.SplitSeq(text, "||") {
		c, err := ParseRange(one)
		if err != nil {
			return nil, err
		}
		c.IncludePrerelease = prereleases
		s := span{constraint: c}
		for _, m := range upperBound.FindAllStringSubmatch(one, -1) {
			if m[1] != "<" || m[3] != "" {
				continue
			}
			v, err := semver.NewVersion(anyNumber.ReplaceAllString(m[2], "0"))
			if err != nil {
				return nil, errors.New("it is not a range of semantic versions")
			}
			s.below = append(s.below, v)
		}
		all = append(all, s)
	}
	return all, nil
}

// has tells whether a version is in a span; excluded: it is a prerelease of what
// the span excludes, and would be in it otherwise.
func (s span) has(v *semver.Version) (is, excluded bool) {
	if !s.constraint.Check(v) {
		return false, false
	}
	excluded = v.Prerelease() != "" && slices.ContainsFunc(s.below, func(b *semver.Version) bool {
		return v.Major() == b.Major() && v.Minor() == b.Minor() && v.Patch() == b.Patch()
	})
	return !excluded, excluded
}

// in says why a version is not in the range; nil: it is.
func (r Rule) in(v *semver.Version) error {
	err := fmt.Errorf("it is not in %s", r.Range)
	for _, s := range r.spans {
		is, excluded := s.has(v)
		switch {
		case is:
			return nil
		case excluded:
			err = fmt.Errorf("it is a prerelease of what %s excludes", r.Range)
		}
	}
	return err
}

// AsksForPrereleases tells whether a range names a prerelease itself.
func AsksForPrereleases(s string) bool { return prereleaseBound().MatchString(s) }

var prereleaseBound = form(`[0-9xX*]-[0-9A-Za-z]`)

const (
	maxRule = 500
	// maxTag is what the OCI Distribution Specification allows.
	maxTag = 128
)

// placeholders are what a pattern may have in braces.
var placeholders = map[string]string{
	"date":    `[0-9]{8}(?:[.T]?[0-9]{4}(?:[0-9]{2})?)?`,
	"version": `v?[0-9]+(?:\.[0-9]+)+(?:-[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?`,
	"number":  `[0-9]+`,
	"branch":  `[0-9A-Za-z_][0-9A-Za-z_.-]*`,
	"commit":  `[0-9a-f]{7,64}`,
}

// Placeholders are the names that a pattern may have in braces, sorted.
func Placeholders() []string {
	names := make([]string, 0, len(placeholders))
	for n := range placeholders {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// PatternError says what is wrong with a pattern; Name is a placeholder that is
// not known.
type PatternError struct{ Message, Name string }

func (e *PatternError) Error() string { return e.Message }

// ParsePattern checks a pattern. The error is a *PatternError.
func ParsePattern(s string) error {
	_, err := compile(s, "")
	return err
}

// PatternHas tells whether a pattern has a placeholder.
func PatternHas(pattern, placeholder string) bool {
	return strings.Contains(pattern, "{"+placeholder+"}")
}

func compile(pattern, branch string) (*regexp.Regexp, error) {
	if len(pattern) > maxRule {
		return nil, &PatternError{Message: fmt.Sprintf("the pattern has more than %d characters", maxRule)}
	}
	var b strings.Builder
	b.WriteString("^")
	seen := map[string]bool{}
	ordered := false
	for rest := pattern; rest != ""; {
		open := strings.IndexAny(rest, "{}")
		if open < 0 {
			b.WriteString(regexp.QuoteMeta(rest))
			break
		}
		b.WriteString(regexp.QuoteMeta(rest[:open]))
		end := strings.IndexByte(rest[open:], '}')
		if rest[open] == '}' || end < 0 {
			return nil, &PatternError{Message: "a brace has no counterpart"}
		}
		name := rest[open+1 : open+end]
		rest = rest[open+end+1:]
		form, ok := placeholders[name]
		switch {
		case !ok:
			return nil, &PatternError{Message: fmt.Sprintf("it has {%s}, which is not known", name), Name: name}
		case seen[name]:
			return nil, &PatternError{Message: fmt.Sprintf("it has {%s} twice", name)}
		case name == "branch" && branch != "":
			form = regexp.QuoteMeta(BranchInTag(branch))
		}
		seen[name] = true
		ordered = ordered || name != "branch" && name != "commit"
		fmt.Fprintf(&b, "(?P<%s>%s)", name, form)
	}
	if !ordered {
		return nil, &PatternError{Message: "it has nothing that orders versions"}
	}
	b.WriteString("$")
	return regexp.Compile(b.String())
}

// BranchInTag is how a branch is written in a tag, where no slash can be.
func BranchInTag(branch string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case '0' <= r && r <= '9', 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', r == '.', r == '_', r == '-':
			return r
		}
		return '-'
	}, branch)
}

// Read takes a tag apart. The error says why it can't be ordered by this rule.
func (r Rule) Read(tag string) (Version, error) {
	switch {
	case len(tag) > maxTag:
		return Version{}, errors.New("it is longer than a tag can be")
	case r.semantic:
		return readSemantic(tag)
	case r.form == nil:
		return Version{}, errors.New("there is no rule for it")
	}
	form := r.form
	m := form.FindStringSubmatch(tag)
	if m == nil {
		return Version{}, fmt.Errorf("it does not have the form %s", r.described())
	}
	v := Version{Tag: tag}
	for i, name := range form.SubexpNames() {
		switch name {
		case "branch":
			v.Branch = m[i]
		case "date":
			digits := strings.NewReplacer(".", "", "T", "").Replace(m[i])
			layout := "20060102150405"[:len(digits)]
			if _, err := time.Parse(layout, digits); err != nil {
				return Version{}, fmt.Errorf("%s is no date", m[i])
			}
			v.parts = append(v.parts, part{numbers: []string{digits + strings.Repeat("0", 14-len(digits))}})
		case "number":
			v.parts = append(v.parts, part{numbers: []string{number(m[i])}})
		case "version":
			text := strings.TrimPrefix(m[i], "v")
			p := dotted(text)
			v.parts = append(v.parts, p)
			v.prerelease = len(p.pre) > 0
			v.version, _ = semver.StrictNewVersion(text)
		}
	}
	return v, nil
}

// readEntry is Read of an entry's tag.
func (r Rule) readEntry(x *entry) (Version, error) {
	if r.semantic && len(x.Version) <= maxTag {
		return x.semantic()
	}
	return r.Read(x.Version)
}

// described is the pattern as it is asked of a tag.
func (r Rule) described() string {
	if r.Branch == "" {
		return r.Pattern
	}
	return strings.ReplaceAll(r.Pattern, "{branch}", BranchInTag(r.Branch))
}

func readSemantic(tag string) (Version, error) {
	text := strings.TrimPrefix(tag, "v")
	sv, err := semver.StrictNewVersion(text)
	if err != nil {
		return Version{}, errors.New("it is not a semantic version with all three numbers")
	}
	text, _, _ = strings.Cut(text, "+")
	return Version{Tag: tag, version: sv, prerelease: sv.Prerelease() != "", parts: []part{dotted(text)}}, nil
}

// Allows says why a version that was read can't be chosen; nil: it can. Branch
// is what is known besides of the branch that it was built from.
func (r Rule) Allows(v Version, branch string) error {
	if v.prerelease && !r.Prereleases {
		return errors.New("it is a prerelease")
	}
	if len(r.spans) > 0 {
		if v.version == nil {
			return fmt.Errorf("it has no semantic version, and has to be in %s", r.Range)
		}
		if err := r.in(v.version); err != nil {
			return err
		}
	}
	if r.Branch == "" || v.Branch != "" { // the pattern has asked for it
		return nil
	}
	switch {
	case branch == "":
		return fmt.Errorf("it is not known to be of the branch %s", r.Branch)
	case branch != r.Branch:
		return fmt.Errorf("it is of the branch %s, not of %s", branch, r.Branch)
	}
	return nil
}

// String says in words what a rule allows.
func (r Rule) String() string {
	var texts []string
	if r.Range != "" {
		texts = append(texts, r.Range)
	}
	if r.Pattern != "" {
		texts = append(texts, r.Pattern)
	}
	if r.Prereleases {
		texts = append(texts, "with prereleases")
	}
	if r.Branch != "" {
		texts = append(texts, "of the branch "+r.Branch)
	}
	return strings.Join(texts, " ")
}
