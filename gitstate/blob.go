package gitstate

import "github.com/go-git/go-git/v5/plumbing"

// Blob is the content of a file for more than one push: one that loses the
// race for its branch is followed by another, of the same files mostly. What
// was worked out of it is kept with it.
//
// A Blob is for the pushes of one Mirror, which exclude each other.
type Blob struct{ made *made }

// NewBlob takes data, which must not be changed any more. before is the version
// before it, much the same as a rule; nil: there is none that is sent, too.
func NewBlob(data []byte, before *Blob) *Blob {
	b := &Blob{&made{kind: plumbing.BlobObject, data: data}}
	if before != nil {
		b.made.prev = before.made
	}
	return b
}

// Data returns the content. It must not be changed.
func (b *Blob) Data() []byte { return b.made.data }

// ID returns the git object id, 40 hexadecimal digits; "" as long as it was in
// no push.
func (b *Blob) ID() string {
	if b.made.id.IsZero() {
		return ""
	}
	return b.made.id.String()
}
