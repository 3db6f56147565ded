package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/pinion-cd/pinion/history"
	"github.com/pinion-cd/pinion/ledger"
)

// The pace of a stream: how often it says that it is still there, how long a
// caller may take to read what is written, how soon a caller shall come back,
// and how many events are looked up at once.
const (
	heartbeat  = 15 * time.Second
	patience   = 30 * time.Second
	comeBack   = 2 * time.Second
	mostAtOnce = 200
)

// MaxStreams is how many streams there may be at a time.
const MaxStreams = 500

// maxStreamsOfOne is how many of them one caller may have, and askAgain is how
// often it is made sure that the caller still may.
const (
	maxStreamsOfOne = 10
	askAgain        = time.Minute
)

// Stream is an answer that goes on, as server-sent events.
type Stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

// send writes one event. The id is the position behind it.
func (s *Stream) send(event, id string, data any) error {
	text, err := json.Marshal(data)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if !s.begun {
		h := s.w.Header()
		h.Set("Content-Type", "text/event-stream")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Accel-Buffering", "no") // of a proxy that would wait for more
		fmt.Fprintf(&b, "retry: %d\n", comeBack.Milliseconds())
		s.begun = true
	}
	fmt.Fprintf(&b, "event: %s\nid: %s\ndata: %s\n\n", event, id, text)
	return s.write(b.Bytes())
}

func (s *Stream) write(data []byte) error {
	s.control.SetWriteDeadline(time.Now().Add(patience))
	if _, err := s.w.Write(data); err != nil {
		return err
	}
	return s.control.Flush()
}

// Begun is the data of the first event, and of one after events were missed.
type Begun struct {
	At time.Time `json:"at"`
	// Lost: what happened before can't be told any more; read anew.
	Lost bool `json:"lost,omitempty"`
}

func streams() []Operation {
	return []Operation{
		Streaming(Operation{Path: "/api/v1/events", ID: "followEvents", Scope: ScopeRead,
			Summary: "The entries of the ledgers as they come, as server-sent events. The event is that of the entry, the data is the entry as listEntries has it, and the id is what to send as Last-Event-ID to go on behind it. The first event is `begin`; one after a Last-Event-ID that the ledgers do not have any more says that something is lost.",
			Parameters: []Parameter{inEnvironment, ofService,
				{Name: "event", Summary: "Only what happened so.", Form: enumForm(Events...)},
				{Name: "after", Summary: "As Last-Event-ID, for who can't send a header.", Form: formPosition}},
			Problems: []Code{UnknownEnvironment, TooMany}}, follow),
	}
}

// Events are what may happen.
var Events = []ledger.Event{ledger.EventPinned, ledger.EventStarted, ledger.EventCompleted, ledger.EventVerified, ledger.EventFailed, ledger.EventSuperseded,
	ledger.EventCheck, ledger.EventApproved, ledger.EventOffered, ledger.EventDrifted, ledger.EventRetired, ledger.EventRerun}

// follow writes the entries as they come.
func follow(c *Call, s *Stream) error {
	if err := knows(c, c.environment()); err != nil {
		return err
	}
	q := history.EntryQuery{Environment: c.environment(), Service: c.service(), Event: ledger.Event(c.text("event"))}
	index := c.Backend.Index
	after := c.request.Header.Get("Last-Event-ID")
	if after == "" {
		after = c.text("after")
	}
	begun := Begun{At: c.Now}
	at, err := history.ParsePosition(after)
	if after == "" {
		at, err = index.Here(c, q.Environment)
	}
	if err != nil {
		return err
	}
	if err := s.send("begin", at.String(), begun); err != nil {
		return err
	}
	for {
		wait, cancel := context.WithTimeout(c, heartbeat)
		found, behind, err := index.Follow(wait, q, at, mostAtOnce)
		quiet := wait.Err() != nil
		cancel()
		switch {
		case c.Err() != nil:
			return nil // the caller has gone, or the daemon stops
		case errors.Is(err, history.ErrPosition):
			if at, err = index.Here(c, q.Environment); err != nil {
				return err
			}
			if err := s.send("begin", at.String(), Begun{At: c.Now, Lost: true}); err != nil {
				return err
			}
		case err != nil && quiet:
			if err := s.write([]byte(": still here\n\n")); err != nil {
				return err
			}
		case err != nil:
			return err
		default:
			for _, f := range found {
				if err := s.send(string(f.Event), f.Position.String(), f.Entry); err != nil {
					return err
				}
			}
			at = behind
		}
	}
}
