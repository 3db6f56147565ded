package audit

import (
	"crypto/sha1" // git's object ids are made with it
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

// Files is what an entry's commit has done to the files of a ledger.
type Files struct {
	Changed []string // that differ from those of its first parent, sorted
	// ID returns the git object id of a file, and "" if there is none.
	ID func(name string) (string, error)
	// Odd tells whether what is there under a name is a link, or anything else than
	// a plain file.
	Odd func(name string) (bool, error)
	// Read returns a file. It is asked for only where something is wrong.
	Read func(name string) ([]byte, error)
}

// Step is an entry with the record that it was written onto.
type Step struct {
	Entry  ledger.Entry
	Before ledger.Record
	// Sound: it is an entry, and its record allows it.
	Sound bool
}

// Replay works out a ledger from its entries, oldest first.
type Replay struct {
	book     *Book
	services map[desired.ServiceName]*state
	last     Commit
}

// state is a service's record as its entries lead to it. Once a tree holds
// another one, what follows may have been written onto either: the one that
// fits is taken, so that one forgery is one finding.
type state struct {
	record ledger.Record
	stray  *ledger.Record
}

// NewReplay begins with the ledger of an environment.
func NewReplay(env desired.EnvironmentName) *Replay {
	return &Replay{book: newBook(env), services: map[desired.ServiceName]*state{}}
}

// Book is what was replayed.
func (r *Replay) Book() *Book { return r.book }

// backward is by how much the time of an entry may be before that of the one
// before it: clocks are set now and then.
const backward = 2 * time.Minute

// Next takes in the next commit. An error says that a file could not be read.
func (r *Replay) Next(c Commit, files Files) (Step, []Finding, error) {
	s := step{Replay: r, commit: c, files: files}
	n := r.book.add(c)
	s.line(n)
	out, err := s.entry(n)
	// The message is not needed any more, and may be long.
	r.last = Commit{ID: c.ID, Time: c.Time}
	return out, s.found, err
}

// step is one commit under way.
type step struct {
	*Replay
	commit Commit
	files  Files
	found  []Finding
}

func (s *step) tell(severity Severity, rule Rule, svc desired.ServiceName, meaning, format string, args ...any) {
	s.found = append(s.found, Finding{
		Severity: severity, Rule: rule, Branch: ledger.Branch(s.book.Environment), Commit: s.commit.ID, Time: s.commit.Time,
		Environment: s.book.Environment, Service: svc, Message: fmt.Sprintf(format, args...), Meaning: meaning,
	})
}

func (s *step) line(n int) {
	const meaning = "somebody else than the daemon has written to the branch"
	switch parents := len(s.commit.Parents); {
	case parents > 1:
		s.tell(Error, RuleLine, "", meaning, "it is a merge of %d commits, and a ledger is a line", parents)
	case n == 0 && parents != 0:
		s.tell(Error, RuleLine, "", meaning, "it is the first entry, and has a parent")
	}
	if n > 0 && s.commit.Time.Before(s.last.Time.Add(-backward)) {
		s.tell(Warning, RuleTime, "", "a clock was set back, or the entry was written later than it says",
			"its time is %s before that of the entry before it, %s", s.last.Time.Sub(s.commit.Time), short(s.last.ID))
	}
}

func (s *step) entry(n int) (Step, error) {
	e, err := ledger.ParseMessage(s.commit.Message, s.commit.Time)
	if err == nil && e.Environment != s.book.Environment {
		err = fmt.Errorf("it is an entry of %s", e.Environment)
	}
	if err != nil {
		s.tell(Error, RuleEntry, "", "somebody else than the daemon has written to the branch, or has changed the message", "it is not an entry of %s: %v", s.book.Environment, err)
		return Step{}, s.adopt(s.files.Changed)
	}
	s.book.mark(n, s.commit, e)
	if subject, _, _ := strings.Cut(s.commit.Message, "\n"); subject != e.Subject() {
		s.tell(Warning, RuleSubject, e.Service, "somebody has changed the subject, or it is of another version of Pinion", "its subject is %q, and its trailers say %q", subject, e.Subject())
	}
	if err := s.others(e); err != nil {
		return Step{}, err
	}
	return s.apply(e)
}

// others looks for files that an entry has no business with.
func (s *step) others(e ledger.Entry) error {
	var strange []string
	for _, name := range s.files.Changed {
		odd, err := s.files.Odd(name)
		if err != nil {
			return err
		}
		switch {
		case odd:
			s.tell(Error, RuleFiles, e.Service, "somebody has edited the tree", "%s is no plain file: it is a link, or it has another mode", name)
		case name == ledger.RecordFile(e.Service):
		case name == ledger.ManifestsFile(e.Service) && e.Event == ledger.EventStarted:
		default:
			strange = append(strange, name)
		}
	}
	if len(strange) == 0 {
		return nil
	}
	s.tell(Error, RuleFiles, e.Service, "somebody has edited the tree", "it changes %s, with which a %s of %s has nothing to do", names(strange), e.Event, e.Service)
	return s.adopt(strange)
}

func names(all []string) string {
	if len(all) > 3 {
		return strings.Join(all[:3], ", ") + fmt.Sprintf(" and %d more", len(all)-3)
	}
	return strings.Join(all, ", ")
}

// adopt takes the records of changed files as what others may build on.
func (s *step) adopt(changed []string) error {
	for _, name := range changed {
		svc, file, _ := strings.Cut(name, "/")
		if name != ledger.RecordFile(desired.ServiceName(svc)) || file == "" {
			continue
		}
		if err := s.stray(desired.ServiceName(svc)); err != nil {
			return err
		}
	}
	return nil
}

// stray keeps the record that the tree has of a service.
func (s *step) stray(svc desired.ServiceName) error {
	st := s.state(svc)
	st.stray = nil
	name := ledger.RecordFile(svc)
	if id, err := s.files.ID(name); err != nil || id == "" {
		return err
	}
	data, err := s.files.Read(name)
	if err != nil {
		return err
	}
	if r, err := ledger.DecodeRecord(name, data); err == nil && r.Service == svc && r.Environment == s.book.Environment {
		st.stray = &r
	}
	return nil
}

func (s *step) state(svc desired.ServiceName) *state {
	st := s.services[svc]
	if st == nil {
		st = &state{}
		s.services[svc] = st
	}
	return st
}

// apply makes the next record, and compares the tree with it.
func (s *step) apply(e ledger.Entry) (Step, error) {
	st := s.state(e.Service)
	name := ledger.RecordFile(e.Service)
	id, err := s.files.ID(name)
	if err != nil {
		return Step{}, err
	}
	out := Step{Entry: e, Before: st.record}
	next, refused := st.record.Apply(e)
	if refused == nil && BlobID(next.Encode()) == id {
		st.record, st.stray = next, nil
		out.Sound = true
		return out, nil
	}
	if st.stray != nil {
		if other, err := st.stray.Apply(e); err == nil && BlobID(other.Encode()) == id {
			out.Before, out.Sound = *st.stray, true
			st.record, st.stray = other, nil
			return out, nil
		}
	}
	if refused != nil {
		meaning := "an entry before it was removed or changed, or it was put in by hand"
		if !errors.As(refused, new(*ledger.MoveError)) {
			meaning = "it was put in by hand"
		}
		s.tell(Error, RuleMove, e.Service, meaning, "it does not follow from the entries before it: %v", refused)
		return out, s.stray(e.Service)
	}
	out.Sound = true
	why := "is not there"
	if id != "" {
		data, err := s.files.Read(name)
		if err != nil {
			return Step{}, err
		}
		why = difference(data, next.Encode())
	}
	s.tell(Error, RuleTree, e.Service, "somebody has edited the tree, or an entry before it was removed or changed", "%s is not what the entries lead to: %s", name, why)
	st.record = next
	return out, s.stray(e.Service)
}

// BlobID is the git object id of a file with that content.
func BlobID(data []byte) string {
	h := sha1.New()
	h.Write(strconv.AppendInt([]byte("blob "), int64(len(data)), 10))
	h.Write([]byte{0})
	h.Write(data)
	return hex.EncodeToString(h.Sum(nil))
}

// difference names the first line in which two texts differ.
func difference(have, want []byte) string {
	a, b := strings.Split(string(have), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(a), len(b)) {
		x, y := "nothing", "nothing"
		if i < len(a) {
			x = quote(a[i])
		}
		if i < len(b) {
			y = quote(b[i])
		}
		if x != y {
			return fmt.Sprintf("line %d has %s where %s should be", i+1, x, y)
		}
	}
	return "they are the same"
}

func quote(line string) string {
	line = strings.TrimSpace(line)
	if len(line) > 120 {
		line = strings.ToValidUTF8(line[:120], "") + "…"
	}
	if line == "" {
		return "nothing"
	}
	return strconv.Quote(line)
}

// Daemon returns who has committed most of the entries, given how many each
// has.
func Daemon(committers map[ledger.Person]int) ledger.Person {
	var daemon ledger.Person
	for _, p := range sortedPersons(committers) {
		if committers[p] > committers[daemon] {
			daemon = p
		}
	}
	return daemon
}

func sortedPersons(m map[ledger.Person]int) []ledger.Person {
	all := make([]ledger.Person, 0, len(m))
	for p := range m {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b ledger.Person) int { return strings.Compare(a.Email+"\x00"+a.Name, b.Email+"\x00"+b.Name) })
	return all
}
