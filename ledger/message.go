package ledger

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
)

// Normal returns the entry as it is recorded: times to the second and in UTC,
// the time of a check or an approval that of the entry, pins in order, texts
// cut to what is kept and without what can't be shown. Message and Apply do it
// themselves. Nothing of it is shared with the entry.
func (e Entry) Normal() Entry {
	e.Time = second(e.Time)
	e.Deployment = token(e.Deployment, maxToken)
	e.Commit = token(e.Commit, maxToken)
	e.Manifests = token(e.Manifests, maxToken)
	e.Release = e.Release.normal()
	e.From = normalTokens(e.From)
	e.Actor = e.Actor.normal()
	e.Authors = normalPersons(e.Authors)
	e.Checks = normalChecks(e.Checks, e.Time, e.Event == EventCheck)
	if e.Approval != nil {
		a := *e.Approval
		a.By = cmp.Or(token(a.By, maxToken), "unknown")
		if a.Email = token(a.Email, maxToken); a.Email == "-" {
			a.Email = ""
		}
		a.Groups = normalGroups(a.Groups)
		a.Comment = line(a.Comment, maxDescription)
		a.Time = e.Time
		e.Approval = &a
	}
	e.Drift = e.Drift.normal()
	e.Reason = paragraphs(e.Reason, maxReason)
	e.Before = line(e.Before, maxLine)
	e.After = line(e.After, maxLine)
	return e
}

// valid tells what is wrong with an entry by itself, whatever the present.
func (e Entry) valid() error {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("ledger entry %q of %s in %s: %w", e.Event, e.Service, e.Environment, fmt.Errorf(format, args...))
	}
	switch {
	case !slices.Contains(Events, e.Event):
		return wrong("there is no such event")
	case !isLabel(string(e.Environment)):
		return wrong("%q is not the name of an environment", e.Environment)
	case !isLabel(string(e.Service)):
		return wrong("%q is not the name of a service", e.Service)
	case e.Time.Year() < 1970 || e.Time.Year() > 9999:
		return wrong("it has no time that git could have")
	}
	switch {
	case !e.Candidate && e.Deployment == "":
		return wrong("it names neither a deployment nor a candidate")
	case e.Candidate && e.Deployment != "":
		return wrong("it names a deployment and a candidate: it can be about one only")
	case e.Candidate && len(e.Release.Pins) == 0 && e.Release.Source == "":
		return wrong("it does not say which release the candidate is")
	}
	if e.Candidate {
		switch e.Event {
		case EventOffered, EventCheck, EventApproved, EventSuperseded, EventFailed, EventRerun:
		default:
			return wrong("a candidate can't be %s: a deployment can", e.Event)
		}
	} else if e.Event == EventOffered {
		return wrong("a deployment can't be offered: a candidate can")
	}
	if err := e.Release.valid(); err != nil {
		return wrong("%w", err)
	}
	switch {
	case e.Cause == "" && e.Event == EventPinned:
		return wrong("it does not say the cause")
	case e.Cause != "" && !e.Cause.known():
		return wrong("there is no cause %q", e.Cause)
	}
	if e.Event == EventPinned {
		switch id := DeploymentID(e.Service, e.Commit); {
		case e.Commit == "":
			return wrong("it does not say the commit")
		case e.Deployment != id:
			return wrong("the deployment of commit %s is %s, not %s", e.Commit, id, e.Deployment)
		}
	}
	if err := validChecks(e.Checks); err != nil {
		return wrong("%w", err)
	}
	if p, twice := repeated(e.Checks); twice {
		return wrong("%s: there are two results", p)
	}
	switch {
	case e.Event == EventCheck && len(e.Checks) != 1:
		return wrong("it has %d results, not 1", len(e.Checks))
	case len(e.Checks) > 0 && e.Event != EventCheck && e.Event != EventVerified && e.Event != EventFailed:
		return wrong("it can't have the result of a check")
	case (e.Approval != nil) != (e.Event == EventApproved):
		return wrong("an approval belongs into an entry %q, and that needs one", EventApproved)
	case e.Approval != nil && !isLabel(string(e.Approval.Policy)):
		return wrong("%q is not the name of a policy", e.Approval.Policy)
	case (e.Policy != "") != (e.Event == EventRerun):
		return wrong("a policy belongs into an entry %q, and that needs one", EventRerun)
	case e.Policy != "" && !isLabel(string(e.Policy)):
		return wrong("%q is not the name of a policy", e.Policy)
	case e.Drift != nil && e.Event != EventDrifted:
		return wrong("a drift belongs into an entry %q", EventDrifted)
	case e.Late && e.Event != EventCheck && e.Event != EventApproved && e.Event != EventRerun:
		return wrong("only a check, an approval or a rerun can come late")
	}
	if e.Drift != nil {
		if err := e.Drift.valid(); err != nil {
			return wrong("%w", err)
		}
	}
	return nil
}

func (r Release) valid() error {
	for i, p := range r.Pins {
		switch {
		case !isLabel(string(p.Artifact)):
			return fmt.Errorf("%q is not the name of an artifact", p.Artifact)
		case i > 0 && r.Pins[i-1].Artifact == p.Artifact:
			return fmt.Errorf("it pins the artifact %s twice", p.Artifact)
		case p.Image == "":
			return fmt.Errorf("the artifact %s has no image", p.Artifact)
		}
	}
	return nil
}

func validChecks(checks []Check) error {
	for _, c := range checks {
		switch {
		case !isLabel(string(c.Policy)):
			return fmt.Errorf("%q is not the name of a policy", c.Policy)
		case c.Result != Success && c.Result != Failure:
			return fmt.Errorf("%s: there is no result %q: there is %s and %s", c.Policy, c.Result, Success, Failure)
		}
	}
	return nil
}

// repeated returns a policy of which there is more than one result.
func repeated(checks []Check) (desired.PolicyName, bool) {
	seen := map[desired.PolicyName]bool{}
	for _, c := range checks {
		if seen[c.Policy] {
			return c.Policy, true
		}
		seen[c.Policy] = true
	}
	return "", false
}

// isLabel tells whether s is a name as package desired has them.
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// Message returns the entry as the message of its commit. ParseMessage reads
// back what Normal returns.
func (e Entry) Message() string {
	e = e.Normal()
	var t []trailer
	add := func(key, value string) {
		if value != "" {
			t = append(t, trailer{"Pinion-" + key, value})
		}
	}
	add("Event", string(e.Event))
	add("Environment", string(e.Environment))
	add("Service", string(e.Service))
	add("Deployment", e.Deployment)
	if e.Candidate {
		add("Candidate", "true")
	}
	add("Commit", e.Commit)
	for _, p := range e.Release.Pins {
		add("Pin", p.trailer())
	}
	add("Source", e.Release.Source)
	add("Manifests", e.Manifests)
	for _, f := range e.From {
		add("From", f)
	}
	add("Cause", string(e.Cause))
	add("Before", e.Before)
	add("After", e.After)
	for _, c := range e.Checks {
		add("Check", c.trailer())
	}
	for _, c := range e.Checks {
		add("Groups", c.groupsTrailer())
	}
	if e.Approval != nil {
		add("Approval", e.Approval.trailer())
	}
	add("Policy", string(e.Policy))
	if e.Drift != nil {
		add("Answer", string(e.Drift.Answer))
		for _, c := range e.Drift.Changes {
			add("Drift", c.trailer())
		}
		add("More", e.Drift.More)
	}
	if e.Late {
		add("Late", "true")
	}
	if e.Actor != (Person{}) {
		add("Actor", e.Actor.trailer())
	}
	for _, p := range e.Authors {
		add("Author", p.trailer())
	}
	return assemble(e.Subject(), e.Reason, e.notes(), t)
}

func (e Entry) notes() []note {
	notes := notesOf(e.Checks)
	if e.Approval != nil {
		notes = append(notes, note{label: string(e.Approval.Policy), description: e.Approval.Comment})
	}
	return notes
}

// notesOf are the notes of checks. Of several results of one policy, the second
// one's is called "e2e 2", as no policy can be.
func notesOf(checks []Check) []note {
	var notes []note
	of := map[desired.PolicyName]int{}
	for _, c := range checks {
		label := string(c.Policy)
		if of[c.Policy]++; of[c.Policy] > 1 {
			label += " " + strconv.Itoa(of[c.Policy])
		}
		notes = append(notes, note{label, c.Description, c.Output})
	}
	return notes
}

const (
	maxSubject = 120 // characters
	maxVersion = 50  // bytes of a version in a subject
)

// Subject returns the first line of the message: what happened, as a sentence
// in the form of Conventional Commits.
func (e Entry) Subject() string {
	what := string(e.Service)
	version := e.Release.Version()
	if e.Event == EventRetired {
		return subject(string(e.Event), string(e.Environment), what)
	}
	if version != "" {
		what += " " + abridge(version)
	}
	switch e.Event {
	case EventCheck, EventApproved, EventRerun, EventDrifted:
	default:
		what = moved(e.Service, e.Before, version, e.Cause == CauseManifests, cmp.Or(e.Release.Source, e.Commit))
	}
	if e.Candidate && e.Event != EventOffered && e.Event != EventApproved {
		what += ", a candidate"
		if e.Event == EventSuperseded && e.After != "" {
			what += ","
		}
	}
	switch {
	case e.Event == EventCheck && len(e.Checks) > 0:
		word := "failed"
		if e.Checks[0].Result == Success {
			word = "passed"
		}
		what += fmt.Sprintf(", %s %s", e.Checks[0].Policy, word)
	case e.Event == EventApproved && e.Approval != nil:
		what += " by " + e.Approval.By
	case e.Event == EventRerun:
		what += fmt.Sprintf(", %s once more", e.Policy)
	case e.Event == EventSuperseded && e.After != "":
		what += " by " + abridge(e.After)
	case e.Drift != nil:
		if by := strings.Join(e.Drift.By(), ", "); by != "" {
			what += " by " + abridge(by)
		}
		what += ", " + string(e.Drift.Answer)
	}
	if e.Late {
		what += ", late"
	}
	return subject(string(e.Event), string(e.Environment), what)
}

// moved writes "web 1.4.1 → 1.4.2", or, where the version stays, whose
// manifests it is about.
func moved(svc desired.ServiceName, before, version string, manifests bool, source string) string {
	what := string(svc)
	switch {
	case version != "" && before != "" && before != version:
		what += " " + abridge(before) + " → " + abridge(version)
	case version != "":
		what += " " + abridge(version)
	}
	if (manifests || before == version || version == "") && source != "" {
		if version == "" {
			return what + " with the manifests of " + short(source)
		}
		what += ", manifests of " + short(source)
	}
	return what
}

func subject(event, scope, what string) string {
	s := []rune(event + "(" + scope + "): " + what)
	if len(s) > maxSubject {
		s = append(s[:maxSubject-1], '…')
	}
	return string(s)
}

// abridge shortens the versions of many artifacts: "api 2.0.1, web 1.4.2 and 5
// more".
func abridge(version string) string {
	if len(version) <= maxVersion {
		return version
	}
	parts := strings.Split(version, ", ")
	n, length := 1, len(parts[0])
	for n < len(parts) && length+2+len(parts[n]) <= maxVersion {
		length += 2 + len(parts[n])
		n++
	}
	s := brief(strings.Join(parts[:n], ", "), maxVersion)
	if n < len(parts) {
		s += fmt.Sprintf(" and %d more", len(parts)-n)
	}
	return s
}

// ParseMessage reads the entry back from the message of its commit, which was
// made at that time. It reads the trailers of the last paragraph and the body;
// the subject is for people. Trailers that it does not know are passed over.
func ParseMessage(message string, at time.Time) (Entry, error) {
	e, err := parseMessage(message, at)
	if err != nil {
		return Entry{}, fmt.Errorf("read the ledger entry %q: %w", brief(strings.SplitN(message, "\n", 2)[0], 200), err)
	}
	return e, nil
}

func parseMessage(message string, at time.Time) (Entry, error) {
	_, body, trailers, err := disassemble(message)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Time: at}
	drift := func() *Drift {
		if e.Drift == nil {
			e.Drift = &Drift{}
		}
		return e.Drift
	}
	seen := map[string]bool{}
	groups := map[desired.PolicyName][]string{}
	for _, t := range trailers {
		key, v := t.key, t.value
		yes := func() (bool, error) {
			if v != "true" {
				return false, fmt.Errorf("%s is %q, not \"true\"", key, v)
			}
			return true, nil
		}
		several := false
		var err error
		switch key {
		case "Pinion-Event":
			e.Event = Event(v)
		case "Pinion-Environment":
			e.Environment = desired.EnvironmentName(v)
		case "Pinion-Service":
			e.Service = desired.ServiceName(v)
		case "Pinion-Deployment":
			e.Deployment = v
		case "Pinion-Candidate":
			e.Candidate, err = yes()
		case "Pinion-Commit":
			e.Commit = v
		case "Pinion-Source":
			e.Release.Source = v
		case "Pinion-Manifests":
			e.Manifests = v
		case "Pinion-Cause":
			e.Cause = Cause(v)
		case "Pinion-Before":
			e.Before = v
		case "Pinion-After":
			e.After = v
		case "Pinion-Approval":
			var a Approval
			if a, err = parseApproval(v); err == nil {
				e.Approval = &a
			}
		case "Pinion-Policy":
			e.Policy = desired.PolicyName(v)
		case "Pinion-Late":
			e.Late, err = yes()
		case "Pinion-Actor":
			e.Actor = ParsePerson(v)
		case "Pinion-Pin":
			several = true
			e.Release.Pins = append(e.Release.Pins, parsePin(v))
		case "Pinion-From":
			several = true
			e.From = append(e.From, v)
		case "Pinion-Check":
			several = true
			var c Check
			c, err = parseCheck(v)
			e.Checks = append(e.Checks, c)
		case "Pinion-Groups":
			several = true
			err = parseGroups(v, groups)
		case "Pinion-Answer":
			drift().Answer = Answer(v)
		case "Pinion-More":
			drift().More = v
		case "Pinion-Drift":
			several = true
			var c Drifted
			c, err = parseDrifted(v)
			drift().Changes = append(drift().Changes, c)
		case "Pinion-Author":
			several = true
			e.Authors = append(e.Authors, ParsePerson(v))
		default:
			several = true
		}
		switch {
		case err != nil:
			return Entry{}, err
		case seen[key] && !several:
			return Entry{}, fmt.Errorf("%s stands there twice", key)
		}
		seen[key] = true
	}
	if err := giveGroups(e.Checks, groups); err != nil {
		return Entry{}, err
	}
	notes := e.notes()
	e.Reason = readBody(body, notes)
	for i := range e.Checks {
		e.Checks[i].Description, e.Checks[i].Output = notes[i].description, notes[i].output
	}
	if e.Approval != nil {
		e.Approval.Comment = notes[len(notes)-1].description
	}
	e = e.Normal()
	return e, e.valid()
}
