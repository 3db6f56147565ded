package desired

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Drift is what happens in an environment when somebody else changes or
// deletes what was applied.
type Drift string

const (
	DriftCorrect Drift = "correct" // it is taken back; the default
	DriftReport  Drift = "report"  // nothing is written for it, and it is reported
)

// Ignore leaves fields of objects to others: what is rendered for them is only
// their first value.
type Ignore struct {
	Kind     string
	Group    string   // "": whatever the group
	Name     string   // may hold *, which stands for any text; "": all
	Pointers []string // JSON pointers (RFC 6901), sorted
}

// Matches tells whether a rule is about an object.
func (i Ignore) Matches(group, kind, name string) bool {
	return i.Kind == kind && (i.Group == "" || i.Group == group) && (i.Name == "" || glob(i.Name, name))
}

// SameIgnores tells whether two lists have the same rules in the same order.
func SameIgnores(a, b []Ignore) bool {
	return slices.EqualFunc(a, b, func(x, y Ignore) bool {
		return x.Kind == y.Kind && x.Group == y.Group && x.Name == y.Name && slices.Equal(x.Pointers, y.Pointers)
	})
}

// glob compares a text with a pattern in which * stands for any text.
func glob(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == text
	}
	last := len(parts) - 1
	if !strings.HasPrefix(text, parts[0]) {
		return false
	}
	text = text[len(parts[0]):]
	for _, p := range parts[1:last] {
		i := strings.Index(text, p)
		if i < 0 {
			return false
		}
		text = text[i+len(p):]
	}
	return strings.HasSuffix(text, parts[last])
}

// ignores makes the rules of a file.
func ignores(raw []ignoreFile) []Ignore {
	var all []Ignore
	for _, x := range raw {
		i := Ignore{Kind: x.Kind.or(""), Group: x.Group.or(""), Name: x.Name.or("")}
		for _, p := range x.Pointers.Items {
			i.Pointers = append(i.Pointers, p.Text)
		}
		slices.Sort(i.Pointers)
		all = append(all, i)
	}
	return all
}

var (
	kindRegexp    = regexp.MustCompile(`^[A-Z][A-Za-z0-9]*$`)
	groupRegexp   = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)
	pointerRegexp = regexp.MustCompile(`^(/([^~]|~[01])*)+$`)
	dottedRegexp  = regexp.MustCompile(`^\$?\.?[A-Za-z][\w.\[\]-]*$`)
)

func checkKind(s string) (message, hint string) {
	if kindRegexp.MatchString(s) {
		return "", ""
	}
	const want = "write the kind as a manifest does: Deployment"
	message = fmt.Sprintf("%q is not a kind", abridge(s))
	if kind, group, ok := strings.Cut(s, "."); ok && kindRegexp.MatchString(kind) && groupRegexp.MatchString(group) {
		return message, fmt.Sprintf("write kind: %s and group: %s", kind, group)
	}
	if s != "" && kindRegexp.MatchString(strings.ToUpper(s[:1])+s[1:]) {
		return message, fmt.Sprintf("did you mean %q?", strings.ToUpper(s[:1])+s[1:])
	}
	return message, want
}

func checkGroup(s string) (message, hint string) {
	if groupRegexp.MatchString(s) {
		return "", ""
	}
	message = fmt.Sprintf("%q is not an API group", abridge(s))
	if group, _, ok := strings.Cut(s, "/"); ok && groupRegexp.MatchString(group) {
		return message, fmt.Sprintf("leave the version out: %s", group)
	}
	return message, "write it as in apps or networking.k8s.io, or leave it out for any group"
}

func checkPattern(s string) (message, hint string) {
	if s == "" || strings.ContainsAny(s, " \t\n/?[]") {
		return fmt.Sprintf("%q is not the name of an object", abridge(s)), "write the name; * in it stands for any text"
	}
	return "", ""
}

// checkPointer takes a pointer to anything but what tells an object from
// others, or whose it is.
func checkPointer(s string) (message, hint string) {
	if !pointerRegexp.MatchString(s) || strings.HasSuffix(s, "/") || strings.Contains(s, "//") {
		message = fmt.Sprintf("%q is not a JSON pointer", abridge(s))
		if dottedRegexp.MatchString(s) {
			path := strings.NewReplacer(".", "/", "[", "/", "]", "").Replace(strings.TrimLeft(s, "$."))
			return message, fmt.Sprintf("did you mean %q?", "/"+path)
		}
		return message, "write /spec/replicas; ~1 stands for / within a key, and ~0 for ~"
	}
	for _, taboo := range []string{"/apiVersion", "/kind", "/metadata/name", "/metadata/namespace"} {
		if s == taboo || s == "/metadata" {
			return fmt.Sprintf("%s can't be ignored: it says which object it is", s), "name a field below /spec, /data, /metadata/labels or /metadata/annotations"
		}
	}
	for _, m := range []string{"/metadata/labels", "/metadata/annotations"} {
		key, below := strings.CutPrefix(s, m+"/")
		if s == m || below && (strings.HasPrefix(key, "pinion.dev~1") || key == "app.kubernetes.io~1managed-by") {
			return fmt.Sprintf("%s can't be ignored: Pinion knows its objects by what is there", s), "name other labels and annotations one by one: " + m + "/example.com~1name"
		}
	}
	return "", ""
}
