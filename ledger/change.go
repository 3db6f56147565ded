package ledger

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
)

// ChangeKind is what a commit of Pinion on main does.
type ChangeKind string

// The kinds.
const (
	ChangePromoted   ChangeKind = "promoted"
	ChangeTracked    ChangeKind = "tracked" // a new version of an artifact has entered a first stage
	ChangeRolledBack ChangeKind = "rolled-back"
	ChangePinned     ChangeKind = "pinned"
	ChangeHeld       ChangeKind = "held"
	ChangeReleased   ChangeKind = "released"
)

// word is what the subject begins with.
func (k ChangeKind) word() string {
	switch k {
	case ChangePromoted:
		return "promote"
	case ChangeTracked:
		return "track"
	case ChangeRolledBack:
		return "rollback"
	case ChangePinned:
		return "pin"
	case ChangeHeld:
		return "hold"
	case ChangeReleased:
		return "release"
	}
	return "change"
}

func (k ChangeKind) hold() bool { return k == ChangeHeld || k == ChangeReleased }

// Change is what the message of a commit says that Pinion writes on main, the
// daemon or one of its commands. Anyone can write such a message: it claims,
// and what is true is told by the commit's diff.
type Change struct {
	Kind        ChangeKind
	Environment desired.EnvironmentName // not of held and released
	Service     desired.ServiceName     // not of held and released
	Hold        desired.HoldName        // of held and released only
	// Summary is what the subject of a held or released says after the name:
	// one line.
	Summary string
	// From is, of a promoted, "staging@<ledger commit>"; of a tracked, the
	// commit that knew the version: "pinion/artifacts@<commit>".
	From []string
	// Builds are how the artifacts were made that a tracked brings.
	Builds []Build
	// Release is what the environment has afterwards. Source is set if the
	// commit of the manifests moves.
	Release Release
	Policy  string // the pipeline that allowed it: "default@<blob>"
	Before  string // the version that the subject begins with, "" if none
	Reason  string // in words; the body
	// Checks are the results that it is founded on, without their groups, their
	// time and Output. One policy may have several, each of another stage: they
	// differ, and Reason says which is whose.
	Checks []Check
	// RequestedBy are for whom a command or the daemon wrote it, CoAuthors
	// those who chose the release.
	RequestedBy, CoAuthors []Person
}

func (c Change) normal() Change {
	c.Summary = line(c.Summary, maxDescription)
	c.From = normalTokens(c.From)
	c.Release = c.Release.normal()
	c.Policy = token(c.Policy, maxToken)
	c.Before = line(c.Before, maxLine)
	c.Reason = paragraphs(c.Reason, maxReason)
	c.Checks = normalChecks(c.Checks, time.Time{}, false)
	for i := range c.Checks {
		c.Checks[i].Groups = nil // the entries that it names have them
	}
	c.Checks = distinct(c.Checks)
	c.RequestedBy = normalPersons(c.RequestedBy)
	c.CoAuthors = normalPersons(c.CoAuthors)
	c.Builds = slices.Clone(c.Builds)
	for i := range c.Builds {
		c.Builds[i] = c.Builds[i].normal()
	}
	return c
}

// Repeats tells whether it has several results of one policy.
func (c Change) Repeats() bool {
	_, twice := repeated(c.Checks)
	return twice
}

// distinct leaves out what is said already.
func distinct(checks []Check) []Check {
	var all []Check
	for _, c := range checks {
		if !slices.ContainsFunc(all, func(o Check) bool {
			return o.Policy == c.Policy && o.Result == c.Result && o.By == c.By && o.URL == c.URL && o.Description == c.Description
		}) {
			all = append(all, c)
		}
	}
	return all
}

// valid tells whether a change says all that one of its kind has to.
func (c Change) valid() bool {
	switch c.Kind {
	case ChangePromoted, ChangeTracked, ChangeRolledBack, ChangePinned:
		if !isLabel(string(c.Environment)) || !isLabel(string(c.Service)) || c.Hold != "" || c.Summary != "" || c.Release.isZero() {
			return false
		}
	case ChangeHeld, ChangeReleased:
		if !isLabel(string(c.Hold)) || c.Environment != "" || c.Service != "" || !c.Release.isZero() {
			return false
		}
	default:
		return false
	}
	if slices.ContainsFunc(c.Builds, func(b Build) bool { return !isLabel(string(b.Artifact)) }) {
		return false
	}
	return c.Release.valid() == nil && validChecks(c.Checks) == nil
}

// Subject returns the first line of the message.
func (c Change) Subject() string {
	if c.Kind.hold() {
		return subject(c.Kind.word(), string(c.Hold), line(cmp.Or(c.Summary, "no reason given"), maxDescription))
	}
	return subject(c.Kind.word(), string(c.Environment), moved(c.Service, c.Before, c.Release.Version(), false, c.Release.Source))
}

// Message returns the change as the message of its commit.
func (c Change) Message() string {
	c = c.normal()
	var t []trailer
	add := func(key, value string) {
		if value != "" {
			t = append(t, trailer{key, value})
		}
	}
	add("Pinion-Event", string(c.Kind))
	add("Pinion-Environment", string(c.Environment))
	add("Pinion-Service", string(c.Service))
	add("Pinion-Hold", string(c.Hold))
	add("Pinion-Summary", c.Summary)
	for _, f := range c.From {
		add("Pinion-From", f)
	}
	for _, p := range c.Release.Pins {
		add("Pinion-Pin", p.trailer())
	}
	for _, b := range c.Builds {
		add("Pinion-Artifact", b.trailer())
	}
	add("Pinion-Source", c.Release.Source)
	add("Pinion-Policy", c.Policy)
	add("Pinion-Before", c.Before)
	for _, k := range c.Checks {
		add("Pinion-Check", k.trailer())
	}
	for _, p := range c.RequestedBy {
		add("Requested-By", p.trailer())
	}
	for _, p := range c.CoAuthors {
		add("Co-authored-by", p.trailer())
	}
	return assemble(c.Subject(), c.Reason, notesOf(c.Checks), t)
}

// ParseChange reads what a commit's message claims, and false if it does not
// have the form of one of Pinion's.
func ParseChange(message string) (Change, bool) {
	c, err := parseChange(message)
	if err != nil || !c.valid() {
		return Change{}, false
	}
	return c, true
}

func parseChange(message string) (Change, error) {
	if !strings.Contains(message, "Pinion-Event: ") {
		return Change{}, fmt.Errorf("it has no trailer of ours")
	}
	_, body, trailers, err := disassemble(message)
	if err != nil {
		return Change{}, err
	}
	var c Change
	seen := map[string]bool{}
	for _, t := range trailers {
		several := false
		switch v := t.value; {
		case t.key == "Pinion-Deployment" || t.key == "Pinion-Candidate":
			return Change{}, fmt.Errorf("it is an entry of a ledger")
		case t.key == "Pinion-Event":
			c.Kind = ChangeKind(v)
		case t.key == "Pinion-Environment":
			c.Environment = desired.EnvironmentName(v)
		case t.key == "Pinion-Service":
			c.Service = desired.ServiceName(v)
		case t.key == "Pinion-Hold":
			c.Hold = desired.HoldName(v)
		case t.key == "Pinion-Summary":
			c.Summary = v
		case t.key == "Pinion-Source":
			c.Release.Source = v
		case t.key == "Pinion-Policy":
			c.Policy = v
		case t.key == "Pinion-Before":
			c.Before = v
		default:
			several = true
			switch {
			case t.key == "Pinion-From":
				c.From = append(c.From, v)
			case t.key == "Pinion-Pin":
				c.Release.Pins = append(c.Release.Pins, parsePin(v))
			case t.key == "Pinion-Artifact":
				c.Builds = append(c.Builds, parseBuild(v))
			case t.key == "Pinion-Check":
				k, err := parseCheck(v)
				if err != nil {
					return Change{}, err
				}
				c.Checks = append(c.Checks, k)
			case strings.EqualFold(t.key, "Requested-By"):
				c.RequestedBy = append(c.RequestedBy, ParsePerson(v))
			case strings.EqualFold(t.key, "Co-authored-by"):
				c.CoAuthors = append(c.CoAuthors, ParsePerson(v))
			}
		}
		if seen[t.key] && !several {
			return Change{}, fmt.Errorf("%s stands there twice", t.key)
		}
		seen[t.key] = true
	}
	notes := notesOf(c.Checks)
	c.Reason = readBody(body, notes)
	for i := range c.Checks {
		c.Checks[i].Description = notes[i].description
	}
	return c.normal(), nil
}
