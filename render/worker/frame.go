package worker

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/render"
)

// A frame is a byte that says what it is, the length of its content in four
// bytes, and the content.
type kind byte

const (
	kindHello   kind = 'h' // worker: hello
	kindRequest kind = 'q' // pool: render.Request
	kindSecrets kind = 'k' // pool, before the first request: openers
	kindOpen    kind = 'o' // worker: a file's name
	kindList    kind = 'l' // worker: a folder's name
	kindStat    kind = 's' // worker: a name
	kindID      kind = 'i' // worker: a name
	kindDecrypt kind = 'd' // worker: the name of a file that the sops program is to decrypt
	kindAnswer  kind = 'a' // pool: to the last five
	kindResult  kind = 'r' // worker: header, and a blob follows
	kindBlob    kind = 'b' // worker: the objects' JSON, one after the other
	kindError   kind = 'e' // worker: failure
)

// What the pool accepts from a worker, in bytes.
const (
	maxName   = 4 << 10
	maxHeader = 16 << 20
)

// errTooLong says that a frame is longer than its reader wants.
var errTooLong = errors.New("frame too long")

func writeFrame(w *bufio.Writer, k kind, content ...[]byte) error {
	n := 0
	for _, c := range content {
		n += len(c)
	}
	var head [5]byte
	head[0] = byte(k)
	binary.BigEndian.PutUint32(head[1:], uint32(n))
	w.Write(head[:]) // the writer keeps the first error
	for _, c := range content {
		w.Write(c)
	}
	return w.Flush()
}

// readFrame reads a frame whose content is no longer than limit says for its
// kind.
func readFrame(r *bufio.Reader, limit func(kind) int) (kind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	k, n := kind(head[0]), int(binary.BigEndian.Uint32(head[1:]))
	if n > limit(k) {
		return k, nil, fmt.Errorf("%w: %q of %d bytes", errTooLong, k, n)
	}
	content := make([]byte, n)
	_, err := io.ReadFull(r, content)
	return k, content, err
}

// hello is a worker's first frame.
type hello struct {
	// Confined is empty if the process is confined by the operating system;
	// else it says why not.
	Confined string `json:"confined,omitempty"`
}

// openers are what encrypted files are opened with.
type openers struct {
	Keys    []byte `json:"keys,omitempty"`    // as sops.ParseKeys takes them
	Program bool   `json:"program,omitempty"` // the pool has the sops program
}

// header is a result without the objects' bytes.
type header struct {
	Objects  []objectHeader `json:"objects"`
	Digest   string         `json:"digest"`
	Warnings []string       `json:"warnings,omitempty"`
	Sealed   bool           `json:"sealed,omitempty"`
	Memory   uint64         `json:"memory"` // bytes that the worker holds now
}

type objectHeader struct {
	Ref     render.Ref       `json:"ref"`
	Version string           `json:"version"`
	Digest  string           `json:"digest"`
	At      desired.Position `json:"at,omitzero"`
	Size    int              `json:"size"`
	Hook    string           `json:"hook,omitempty"` // when it runs, if it is a hook
	Hidden  []string         `json:"hidden,omitempty"`
}

// failure is an error of a rendering.
type failure struct {
	Error *render.Error `json:"error,omitempty"`
	Text  string        `json:"text,omitempty"` // if it is no *render.Error
}

// The first byte of an answer.
const (
	answerOK     = 0 // what was asked for follows
	answerAbsent = 1 // there is no such file or folder
	answerError  = 2 // a failure follows
)

// entry is a name in a folder, or what is at a name.
type entry struct {
	Name string      `json:"name"`
	Mode fs.FileMode `json:"mode"`
	Size int64       `json:"size,omitempty"`
}

// withID puts an object id before the content of an answer.
func withID(id string, content []byte) []byte {
	b := make([]byte, 0, 2+len(id)+len(content))
	b = append(b, answerOK, byte(len(id)))
	b = append(b, id...)
	return append(b, content...)
}

func cutID(b []byte) (string, []byte, error) {
	if len(b) < 1 || len(b) < 1+int(b[0]) {
		return "", nil, io.ErrUnexpectedEOF
	}
	n := 1 + int(b[0])
	return string(b[1:n]), b[n:], nil
}

func failed(err error) []byte {
	f := failure{Text: err.Error()}
	if e, ok := errors.AsType[*render.Error](err); ok {
		f = failure{Error: e}
	}
	data, err := json.Marshal(f)
	if err != nil {
		data = []byte(`{"text": "an error that can't be told"}`)
	}
	return append([]byte{answerError}, data...)
}

func (f failure) err() error {
	if f.Error != nil {
		return f.Error
	}
	return errors.New(f.Text)
}
