package reconcile

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"slices"
	"sync"
	"unique"

	"github.com/pinion-cd/pinion/render"
)

// A service at rest is known by digests: its objects' bytes are needed when
// they are applied, written down, or held against fields that were never seen
// with them before. Until then they are kept packed, a fifth of their size, and
// the strings that the environments of a service have in common are kept once.

var packers = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(io.Discard, flate.BestSpeed) // the level is one that there is
	return w
}}

// pack keeps the bytes of the target's objects packed from now on. The
// rendering itself, which others may have, stays as it is.
func (t *Target) pack() {
	if t.packed != nil || len(t.Result.Objects) == 0 {
		return
	}
	var b bytes.Buffer
	w := packers.Get().(*flate.Writer)
	w.Reset(&b)
	slim := *t.Result
	slim.Objects = slices.Clone(slim.Objects)
	for i := range slim.Objects {
		o := &slim.Objects[i]
		w.Write(o.JSON) // into memory
		t.sizes = append(t.sizes, len(o.JSON))
		o.JSON = nil
		o.Version = intern(o.Version)
		o.Ref = render.Ref{Group: intern(o.Ref.Group), Kind: intern(o.Ref.Kind), Namespace: intern(o.Ref.Namespace), Name: intern(o.Ref.Name)}
	}
	w.Close()
	packers.Put(w)
	slim.Reads = slices.Clone(slim.Reads)
	for i := range slim.Reads {
		slim.Reads[i].Path, slim.Reads[i].ID = intern(slim.Reads[i].Path), intern(slim.Reads[i].ID)
	}
	t.Result, t.packed = &slim, bytes.Clone(b.Bytes())
}

func intern(s string) string {
	if s == "" {
		return ""
	}
	return unique.Make(s).Value()
}

// whole returns the target with its objects' bytes.
func (t *Target) whole() (*Target, error) {
	if t.packed == nil {
		return t, nil
	}
	data, err := io.ReadAll(flate.NewReader(bytes.NewReader(t.packed)))
	full := *t
	result := *t.Result
	result.Objects = slices.Clone(result.Objects)
	for i, n := range t.sizes {
		if err != nil || n > len(data) {
			return nil, fmt.Errorf("unpack the objects of %s: %d bytes are missing: %w", t.Key, n-len(data), err)
		}
		result.Objects[i].JSON, data = data[:n:n], data[n:]
	}
	full.Result, full.packed, full.sizes = &result, nil, nil
	return &full, nil
}

// object returns an object of the target with its bytes.
func (t *Target) object(i int) render.Object {
	if full, err := t.whole(); err == nil {
		return full.Result.Objects[i]
	}
	return t.Result.Objects[i] // in sync with nothing; a job says why
}
