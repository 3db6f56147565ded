package audit

import (
	"bytes"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/artifact"
)

// Stock is what was known of artifacts as it was replayed: each commit of the
// branch [artifact.Branch] must add to what was known, by the rules of
// [artifact.Shelf.Take], just that which its message says, in one file, and take
// nothing away.
type Stock struct {
	positions map[string]int // by commit, from 0
	steps     []known
	records   map[string]artifact.Record // by file
	last      Commit
}

// known is what one commit has added; the zero value is nothing that is sound.
type known struct {
	commit string
	time   time.Time
	// earliest is the earliest time of this commit and of those after it: these grow,
	// whatever the clocks were.
	earliest time.Time
	added    []artifact.Record
}

// NewStock begins with nothing.
func NewStock() *Stock {
	return &Stock{positions: map[string]int{}, records: map[string]artifact.Record{}}
}

// Len is the number of commits.
func (s *Stock) Len() int { return len(s.steps) }

// Versions is the number of versions that are known.
func (s *Stock) Versions() int { return len(s.records) }

// Has returns the position of a commit, counted from 0.
func (s *Stock) Has(commit string) (int, bool) {
	i, ok := s.positions[commit]
	return i, ok
}

// Later returns the last commit that was made by a time, if it comes after
// another one; "": none does.
func (s *Stock) Later(commit string, at time.Time) string {
	later := ""
	for _, k := range s.steps[s.positions[commit]+1:] {
		if k.time.After(at) {
			break
		}
		later = k.commit
	}
	return later
}

// Around returns the commits that may have been the last at a time, the most
// probable first; "" is that there was none yet.
func (s *Stock) Around(t time.Time) []string {
	low, high, likely := s.until(t.Add(-skew-time.Nanosecond)), s.until(t.Add(skew)), s.until(t)
	var all []string
	add := func(n int) {
		switch {
		case n < low || n > high:
		case n == 0:
			all = append(all, "")
		default:
			all = append(all, s.steps[n-1].commit)
		}
	}
	add(max(low, min(likely, high)))
	for d := 1; len(all) < mostMoments && (likely-d >= low || likely+d <= high); d++ {
		add(likely - d)
		add(likely + d)
	}
	return all
}

// until is how many commits there are up to the last one that was made by a time.
func (s *Stock) until(t time.Time) int {
	return sort.Search(len(s.steps), func(i int) bool { return s.steps[i].earliest.After(t) })
}

// Shelf returns what was known at a commit; nil: it is none of the branch's. A
// shelf of before, if there is one, is gone on with.
func (s *Stock) Shelf(commit string, before *artifact.Shelf) *artifact.Shelf {
	to, ok := s.positions[commit]
	if !ok {
		return nil
	}
	from := -1
	if i, ok := s.positions[before.At()]; ok && i <= to {
		from = i
	} else {
		before = nil
	}
	var added []artifact.Record
	for _, k := range s.steps[from+1 : to+1] {
		added = append(added, k.added...)
	}
	return before.With(commit, added...)
}

// Next takes in the next commit. An error says that a file could not be read.
func (s *Stock) Next(c Commit, files Files) ([]Finding, error) {
	n := len(s.steps)
	s.positions[c.ID] = n
	s.steps = append(s.steps, known{commit: c.ID, time: c.Time, earliest: c.Time})
	for i := n - 1; i >= 0 && s.steps[i].earliest.After(c.Time); i-- {
		s.steps[i].earliest = c.Time
	}
	defer func() { s.last = Commit{ID: c.ID, Time: c.Time} }()
	var found []Finding
	tell := func(severity Severity, rule Rule, meaning, format string, args ...any) {
		found = append(found, Finding{Severity: severity, Rule: rule, Branch: artifact.Branch, Commit: c.ID, Time: c.Time, Message: fmt.Sprintf(format, args...), Meaning: meaning})
	}
	const stranger = "somebody else than the daemon has written to the branch"
	switch parents := len(c.Parents); {
	case parents > 1:
		tell(Error, RuleLine, stranger, "it is a merge of %d commits, and what is known of artifacts is a line", parents)
	case n == 0 && parents != 0:
		tell(Error, RuleLine, stranger, "it is the first commit, and has a parent")
	}
	if n > 0 && c.Time.Before(s.last.Time.Add(-backward)) {
		tell(Warning, RuleTime, "a clock was set back, or it was written later than it says", "its time is %s before that of the commit before it, %s", s.last.Time.Sub(c.Time), short(s.last.ID))
	}
	for _, name := range files.Changed {
		wrong, err := s.file(n, c, name, files, len(files.Changed) > 1, tell)
		if err != nil {
			return nil, err
		}
		if wrong != nil {
			tell(Error, RuleArtifact, stranger+", or has changed what it says", "%v", wrong)
		}
	}
	if len(files.Changed) == 0 {
		tell(Error, RuleArtifact, stranger, "it says %q, and adds nothing to what is known", subject(c.Message))
	}
	return found, nil
}

// file takes in what a commit has done to one file; or else it says what is
// wrong with it. What was known stays known: who puts it back is right.
func (s *Stock) file(n int, c Commit, name string, files Files, several bool, tell func(Severity, Rule, string, string, ...any)) (wrong, err error) {
	id, err := files.ID(name)
	if err != nil {
		return nil, err
	}
	before, there := s.records[name]
	if id == "" {
		if !there {
			return nil, nil // told of the commit that added it
		}
		return fmt.Errorf("%s: what was known of %s:%s is removed", name, before.Repository, before.Version), nil
	}
	data, err := files.Read(name)
	if err != nil {
		return nil, err
	}
	if there && bytes.Equal(data, before.Encode()) {
		return nil, nil // it is mended
	}
	after, wrong := artifact.Decode(name, data)
	if wrong != nil {
		return wrong, nil
	}
	was := &before
	if !there {
		was = nil
	}
	taken, wrong := artifact.Follows(was, after)
	if wrong != nil {
		return fmt.Errorf("%s: %w", name, wrong), nil
	}
	if want := taken.Record.Encode(); !bytes.Equal(data, want) {
		return fmt.Errorf("%s: it is not as Pinion writes it: %s", name, difference(data, want)), nil
	}
	s.records[name] = after
	s.steps[n].added = append(s.steps[n].added, after)
	switch {
	case several:
		tell(Error, RuleFiles, "somebody has edited the tree", "it changes %s, and a commit tells of one version", names(files.Changed))
	case strings.TrimRight(c.Message, "\n") != strings.TrimRight(taken.Message(), "\n"):
		tell(Error, RuleArtifact, "somebody has changed the message", "its message is not what has come to be known: %s", difference([]byte(c.Message), []byte(taken.Message())))
	case after.Found.After(c.Time.Add(skew)):
		tell(Error, RuleTime, "it was changed by hand", "it says that %s:%s came to be known on %s, which is after it was written", after.Repository, after.Version, after.Found.UTC().Format(time.RFC3339))
	}
	return nil, nil
}

func subject(message string) string {
	first, _, _ := strings.Cut(message, "\n")
	return first
}
