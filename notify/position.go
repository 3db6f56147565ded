package notify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// Position is how far a sink was told of a branch: all up to the commit At, or
// that [Mark], but for the lanes that are behind, each with the commit up to which it was
// told. A sink that is new is told what is not older than Since.
type Position struct {
	Since  time.Time         `json:"since"`
	At     string            `json:"at,omitempty"` // "": nothing yet
	Behind map[string]string `json:"behind,omitempty"`
}

// Positions are those of the sinks on one branch, by their names: a file of the
// branch on which they are kept.
type Positions struct {
	Sinks map[string]Position
	// Unread are those that can't be read.
	Unread map[string]Unread
}

// Unread is what stands in the place of a position, and why it is none.
type Unread struct {
	Text json.RawMessage
	Err  error
}

// Encode returns the content of the file. What could not be read stays as it was.
func (p Positions) Encode() []byte {
	all := map[string]any{}
	for name, x := range p.Unread {
		all[name] = x.Text
	}
	for name, x := range p.Sinks {
		all[name] = x
	}
	data, err := json.MarshalIndent(map[string]any{"sinks": all}, "", "  ")
	if err != nil {
		panic("notify: positions can't be encoded: " + err.Error())
	}
	return append(data, '\n')
}

// DecodePositions reads what Encode writes. One that can't be read is in no other
// one's way; an error says that none of them could.
func DecodePositions(data []byte) (Positions, error) {
	var raw struct {
		Sinks map[string]json.RawMessage `json:"sinks"`
	}
	if err := strictly(data, &raw); err != nil {
		return Positions{}, fmt.Errorf("positions of sinks: %w", err)
	}
	p := Positions{Sinks: map[string]Position{}, Unread: map[string]Unread{}}
	for name, text := range raw.Sinks {
		var x Position
		err := strictly(text, &x)
		if err == nil && x.Since.IsZero() {
			err = errors.New("it does not say since when")
		}
		for _, at := range append(slices.Collect(maps.Values(x.Behind)), x.At) {
			if err == nil {
				_, _, err = ParseMark(at)
			}
		}
		if err != nil {
			p.Unread[name] = Unread{text, fmt.Errorf("the position of %.80q: %w", name, err)}
			continue
		}
		p.Sinks[name] = x
	}
	return p, nil
}

// strictly decodes one JSON value without unknown fields.
func strictly(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

func isCommit(s string) bool {
	if len(s) != 40 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
