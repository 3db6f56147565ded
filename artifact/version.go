package artifact

import (
	"cmp"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// Version is a tag as a [Rule] reads it.
type Version struct {
	Tag    string
	Branch string // as the tag says it; "" if it does not
	// version is what a range is asked of; nil if it is not a semantic one.
	version    *semver.Version
	prerelease bool
	parts      []part
}

// part is one thing that orders a version.
type part struct {
	numbers []string // without zeros in front
	pre     []string // identifiers of a prerelease; empty: it is none
}

// Compare orders two versions of one rule: -1, 0 or 1. Versions that are equal
// in what they say are ordered by their tags, so that the order is total.
func (v Version) Compare(o Version) int {
	return cmp.Or(v.rank(o), cmp.Compare(v.Tag, o.Tag))
}

// Newer tells whether v comes after o by what they say: v1.2.3 is not newer
// than 1.2.3.
func (v Version) Newer(o Version) bool { return v.rank(o) > 0 }

func (v Version) rank(o Version) int {
	for i := range min(len(v.parts), len(o.parts)) {
		if c := v.parts[i].compare(o.parts[i]); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(v.parts), len(o.parts))
}

// compare follows https://semver.org, section 11, for any number of numbers;
// one that is not there is 0.
func (p part) compare(o part) int {
	for i := range max(len(p.numbers), len(o.numbers)) {
		if c := compareNumbers(at(p.numbers, i), at(o.numbers, i)); c != 0 {
			return c
		}
	}
	switch {
	case len(p.pre) == 0 && len(o.pre) == 0:
		return 0
	case len(p.pre) == 0:
		return 1
	case len(o.pre) == 0:
		return -1
	}
	for i := range min(len(p.pre), len(o.pre)) {
		a, b := p.pre[i], o.pre[i]
		switch x, y := isNumber(a), isNumber(b); {
		case x && y:
			if c := compareNumbers(number(a), number(b)); c != 0 {
				return c
			}
		case x:
			return -1
		case y:
			return 1
		case a != b:
			return cmp.Compare(a, b)
		}
	}
	return cmp.Compare(len(p.pre), len(o.pre))
}

func at(numbers []string, i int) string {
	if i < len(numbers) {
		return numbers[i]
	}
	return ""
}

// compareNumbers compares numbers of any size, which have no zeros in front.
func compareNumbers(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// number brings digits into the form that compareNumbers takes.
func number(digits string) string { return strings.TrimLeft(digits, "0") }

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// dotted reads 1.2.3 and 1.2.3-rc.1, with any number of numbers.
func dotted(s string) part {
	s, pre, is := strings.Cut(s, "-")
	var p part
	for n := range strings.SplitSeq(s, ".") {
		p.numbers = append(p.numbers, number(n))
	}
	if is {
		p.pre = strings.Split(pre, ".")
	}
	return p
}
