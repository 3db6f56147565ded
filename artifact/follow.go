package artifact

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Follows says what came to be known when one record took the place of another
// one, or of nothing; an error says why nobody could have come to know that.
// What a record may become is for [Shelf.Take] to say, and nothing else.
func Follows(before *Record, after Record) (Taken, error) {
	var shelf *Shelf
	if before != nil {
		shelf = shelf.With("", *before)
		switch {
		case before.Repository != after.Repository || before.Version != after.Version:
			return Taken{}, fmt.Errorf("it was the record of %s:%s", before.Repository, before.Version)
		case before.Digest != after.Digest:
			return Taken{}, fmt.Errorf("it was bound to %s, and a version is never bound to another digest", before.Digest)
		}
	}
	published := Sighting{Repository: after.Repository, Version: after.Version, Digest: after.Digest, Facts: after.Facts,
		Origin: FromPublisher, By: after.By, As: after.As, Time: after.Found}
	if before != nil && len(after.Moved) > len(before.Moved) {
		published.Digest = after.Moved[len(after.Moved)-1]
	}
	found := published
	found.Origin, found.Facts, found.By, found.As, found.Time = FromRegistry, after.Labels, "", nil, after.Seen
	sightings := []Sighting{published, found}
	switch {
	case before != nil && len(after.Signed) > len(before.Signed):
		published.Origin, published.Signed = FromSignature, after.Signed
		sightings = []Sighting{published}
	case after.Origin != FromPublisher:
		sightings = sightings[1:]
	case before == nil: // what the registry says comes on top
		sightings = sightings[:1]
	}
	var wrong error
	for _, x := range sightings {
		t, err := shelf.Take(x)
		switch {
		case err != nil:
			wrong = err
		case t.Foreign:
			wrong = errors.New(t.Refused)
		case t.Event != "" && slices.Equal(t.Record.Encode(), after.Encode()):
			return t, nil
		}
	}
	if wrong != nil {
		return Taken{}, wrong
	}
	return Taken{}, errors.New("something that was known is changed or not there any more, or nothing is new")
}

var subjectForm = form(`^(found|published|updated|signed|moved)\([^()\s]+\): \S+\n`)

// IsMessage tells whether a commit's message is one of the branch's.
func IsMessage(message string) bool { return subjectForm().MatchString(message) }

// After returns this as it follows on what was known: what can't be read now
// stays bound to what it was, for whoever mends the file later.
func (s *Shelf) After(known *Shelf) *Shelf {
	next := *s
	next.bound = map[string]Record{}
	for _, r := range known.all() {
		if file := File(r.Repository, r.Version); s.broken[file] != nil {
			next.bound[file] = r
		}
	}
	return &next
}

// all are the records, and what those were that can't be read any more.
func (s *Shelf) all() []Record {
	var all []Record
	for _, repository := range s.Repositories() {
		all = append(all, s.Versions(repository)...)
	}
	for _, file := range slices.Sorted(maps.Keys(s.bound)) {
		all = append(all, s.bound[file])
	}
	return all
}

// Forgets says what of this the next commits of the branch have taken away or
// bound to something else; nil: nothing.
func (s *Shelf) Forgets(next *Shelf) error {
	var errs []error
	for _, was := range s.all() {
		switch is, ok := next.Lookup(was.Repository, was.Version); {
		case !ok && next.broken[File(was.Repository, was.Version)] != nil: // that is told, and nobody can bind it anew; see After
		case !ok:
			errs = append(errs, fmt.Errorf("%s:%s is bound to %s, and that is removed", was.Repository, was.Version, was.Digest))
		case is.Digest != was.Digest:
			errs = append(errs, fmt.Errorf("%s:%s is bound to %s, and not to %s", was.Repository, was.Version, was.Digest, is.Digest))
		}
	}
	const most = 3
	if n := len(errs) - most; n > 0 {
		errs = append(errs[:most], fmt.Errorf("and %d more", n))
	}
	return errors.Join(errs...)
}
