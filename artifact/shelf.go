package artifact

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"
)

// Shelf is what is known at one commit of the branch. It is not modified; With
// makes another one.
type Shelf struct {
	Commit string // "": there is no branch yet
	// repositories are sorted by name. Lists, since With copies them: who goes through
	// a history makes a shelf for each commit of it.
	repositories []shelved
	broken       map[string]error  // what can't be read, by file
	bound        map[string]Record // what those files were when they could be read
}

// shelved is what is known of one repository, sorted by tag.
type shelved struct {
	name     string
	versions []*entry
}

// entry is a record with what a semantic rule reads of its tag, for each choice goes
// through all versions.
type entry struct {
	Record
	semantic func() (Version, error)
}

func newEntry(r Record) *entry {
	return &entry{r, sync.OnceValues(func() (Version, error) { return readSemantic(r.Version) })}
}

func (x shelved) find(version string) (int, bool) {
	return slices.BinarySearchFunc(x.versions, version, func(r *entry, v string) int { return strings.Compare(r.Version, v) })
}

// find tells where a repository is, or would be.
func (s *Shelf) find(name string) (int, bool) {
	return slices.BinarySearchFunc(s.repositories, name, func(x shelved, n string) int { return strings.Compare(x.name, n) })
}

// of is what is known of a repository.
func (s *Shelf) of(repository string) shelved {
	if s != nil {
		if i, ok := s.find(Normal(repository)); ok {
			return s.repositories[i]
		}
	}
	return shelved{}
}

// ReadShelf reads a commit's tree. What of it can't be read is in the error,
// and the rest comes all the same: that a version is not known keeps it out.
func ReadShelf(commit string, tree fs.FS) (*Shelf, error) {
	var all []Record
	var errs []error
	broken := map[string]error{}
	err := fs.WalkDir(tree, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(name, ".yaml") {
			return err
		}
		data, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		r, err := Decode(name, data)
		if err != nil {
			errs, broken[name] = append(errs, err), err
			return nil
		}
		all = append(all, r)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %s at %.12s: %w", Branch, commit, err)
	}
	return (&Shelf{broken: broken}).With(commit, all...), errors.Join(errs...)
}

// With returns the shelf of a later commit, with these records in the place of
// what was known of their versions.
func (s *Shelf) With(commit string, records ...Record) *Shelf {
	next := &Shelf{Commit: commit}
	if s != nil {
		next.repositories = slices.Clone(s.repositories)
		next.broken, next.bound = s.broken, s.bound
	}
	copied := map[string]bool{}
	for _, r := range records {
		i, ok := next.find(r.Repository)
		if !ok {
			next.repositories = slices.Insert(next.repositories, i, shelved{name: r.Repository})
		}
		x := &next.repositories[i]
		if !copied[r.Repository] {
			copied[r.Repository] = true
			x.versions = append(make([]*entry, 0, len(x.versions)+1), x.versions...)
		}
		if j, ok := x.find(r.Version); ok {
			x.versions[j] = newEntry(r)
		} else {
			x.versions = slices.Insert(x.versions, j, newEntry(r))
		}
	}
	return next
}

// At is the commit; of no shelf, and where there is no branch yet, "".
func (s *Shelf) At() string {
	if s == nil {
		return ""
	}
	return s.Commit
}

// Lookup returns what is known of a version.
func (s *Shelf) Lookup(repository, version string) (Record, bool) {
	x := s.of(repository)
	if i, ok := x.find(version); ok {
		return x.versions[i].Record, true
	}
	return Record{}, false
}

// Digest returns what is known of a digest; of several versions that share it,
// the one whose tag comes first.
func (s *Shelf) Digest(repository, digest string) (Record, bool) {
	for _, r := range s.of(repository).versions {
		if r.Digest == digest {
			return r.Record, true
		}
	}
	return Record{}, false
}

// Image returns what is known of the image that a reference stands for.
func (s *Shelf) Image(repository, version, digest string) (Record, bool) {
	r, ok := s.Lookup(repository, version)
	switch {
	case ok && (digest == "" || digest == r.Digest):
		return r, true
	case version == "" && digest != "":
		return s.Digest(repository, digest)
	}
	return Record{}, false
}

// Tag returns the tag that a pin has, or, of one by its digest alone, the one
// that is known to have that digest; "": none is.
func (s *Shelf) Tag(repository, version, digest string) string {
	if version != "" {
		return version
	}
	r, _ := s.Digest(repository, digest)
	return r.Version
}

// Versions returns what is known of a repository, sorted by tag.
func (s *Shelf) Versions(repository string) []Record {
	var all []Record
	for _, r := range s.of(repository).versions {
		all = append(all, r.Record)
	}
	return all
}

// Repositories returns the names of those of which something is known, sorted.
func (s *Shelf) Repositories() []string {
	if s == nil {
		return nil
	}
	var names []string
	for _, x := range s.repositories {
		names = append(names, x.name)
	}
	return names
}

// Event is what a commit of the branch tells.
type Event string

// The events.
const (
	EventFound     Event = "found"     // a look at a registry has found it
	EventPublished Event = "published" // somebody has published it
	EventUpdated   Event = "updated"   // more is known of it
	EventSigned    Event = "signed"    // a key has signed it
	EventMoved     Event = "moved"     // its tag leads to another digest, which is refused
)

// Sighting is a version as it was found or published.
type Sighting struct {
	Repository, Version, Digest string
	Facts
	Signed []string // of a signature: fingerprints of keys whose signature was verified
	Origin Origin
	By     string
	As     []string // see [Record]
	Time   time.Time
}

// Taken is what a sighting comes to.
type Taken struct {
	Event  Event // "": nothing is new
	Record Record
	// Refused says why the sighting is not taken: its digest is another one, or
	// its publisher, if that is Foreign.
	Refused string
	Foreign bool
}

// Take decides what a sighting adds to what is known. What a publisher says and
// what the image says are kept apart. Another publisher changes neither, and a
// digest that another one says does not make the tag a moved one.
func (s *Shelf) Take(x Sighting) (Taken, error) {
	x.Repository = Normal(x.Repository)
	known, ok := s.Lookup(x.Repository, x.Version)
	if s != nil {
		if err := s.broken[File(x.Repository, x.Version)]; err != nil {
			return Taken{}, fmt.Errorf("what is known of %s:%s can't be read: %w", x.Repository, x.Version, err)
		}
	}
	if x.Origin == FromSignature && (!ok || x.Digest != known.Digest) {
		return Taken{}, fmt.Errorf("a signature of %s:%s is for %s, and that is not what is known of it", x.Repository, x.Version, x.Digest)
	}
	if !ok {
		r := Record{Repository: x.Repository, Version: x.Version, Digest: x.Digest, Origin: x.Origin, By: x.By, As: names(x.As),
			Found: x.Time.UTC().Truncate(time.Second)}
		if x.Origin == FromPublisher {
			r.Facts = Facts{}.with(x.Facts)
		} else {
			r.Labels, r.Seen = Facts{}.with(x.Facts), r.Found
		}
		if err := r.check(); err != nil {
			return Taken{}, err
		}
		event := EventFound
		if x.Origin == FromPublisher {
			event = EventPublished
		}
		return Taken{Event: event, Record: r}, nil
	}
	next := known
	if x.Origin == FromPublisher && !known.shared(x.By, x.As) {
		return Taken{Record: known, Foreign: true, Refused: fmt.Sprintf("%s:%s was published by %s, and %s can't change what that one has said of it",
			x.Repository, x.Version, known.By, x.By)}, nil
	}
	if x.Digest != known.Digest {
		t := Taken{Record: known, Refused: fmt.Sprintf("%s:%s is bound to %s, and %s is refused: a version is not changed, publish a new one",
			x.Repository, x.Version, known.Digest, x.Digest)}
		if len(known.Moved) >= mostMoved || slices.Contains(known.Moved, x.Digest) {
			return t, nil
		}
		next.Moved = append(slices.Clone(known.Moved), x.Digest)
		t.Event, t.Record = EventMoved, next
		return t, next.check()
	}
	event := EventUpdated
	switch {
	case x.Origin == FromSignature:
		event, next.Signed = EventSigned, names(slices.Concat(known.Signed, x.Signed))
	case x.Origin == FromPublisher:
		next.Facts = known.Facts.with(x.Facts)
		next.Origin, next.By, next.As = x.Origin, x.By, names(x.As)
		if known.Origin != FromPublisher {
			event = EventPublished
		}
	case known.Seen.IsZero():
		next.Labels, next.Seen, event = Facts{}.with(x.Facts), x.Time.UTC().Truncate(time.Second), EventFound
	}
	if err := next.check(); err != nil {
		return Taken{}, err
	}
	if string(next.Encode()) == string(known.Encode()) {
		return Taken{Record: known}, nil
	}
	return Taken{Event: event, Record: next}, nil
}

// names sorts a list, with nothing twice.
func names(all []string) []string {
	all = slices.Sorted(slices.Values(all))
	return slices.Clip(slices.Compact(all))
}

// Message is what the commit says that records the event.
func (t Taken) Message() string {
	r := t.Record
	var b strings.Builder
	fmt.Fprintf(&b, "%s(%s): %s\n\n", t.Event, r.Repository, r.Version)
	switch t.Event {
	case EventFound:
		b.WriteString("The registry has it.\n")
	case EventPublished:
		fmt.Fprintf(&b, "Published by %s.\n", r.By)
	case EventUpdated:
		b.WriteString("More is known of it.\n")
	case EventSigned:
		fmt.Fprintf(&b, "Signed by %s.\n", strings.Join(r.Signed, ", "))
	case EventMoved:
		fmt.Fprintf(&b, "Its tag leads to %s now, which is refused: it is bound to %s.\n", r.Moved[len(r.Moved)-1], r.Digest)
	}
	b.WriteString("\n")
	add := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s: %s\n", key, value)
		}
	}
	add("Pinion-Event", string(t.Event))
	add("Pinion-Artifact", r.Reference())
	add("Pinion-Build", r.Told().Build)
	add("Pinion-Actor", r.By)
	return b.String()
}
