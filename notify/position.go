package notify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	Sinks map[string]Position `json:"sinks"`
}

// Encode returns the content of the file.
func (p Positions) Encode() []byte {
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		panic("notify: positions can't be encoded: " + err.Error())
	}
	return append(data, '\n')
}

// DecodePositions reads what Encode writes.
func DecodePositions(data []byte) (Positions, error) {
	var p Positions
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return Positions{}, fmt.Errorf("positions of sinks: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Positions{}, errors.New("positions of sinks: more than one JSON value")
	}
	for name, x := range p.Sinks {
		commits := []string{x.At}
		for _, at := range x.Behind {
			commits = append(commits, at)
		}
		for _, c := range commits {
			if _, _, err := ParseMark(c); err != nil {
				return Positions{}, fmt.Errorf("positions of sinks: %s: %w", name, err)
			}
		}
	}
	return p, nil
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
