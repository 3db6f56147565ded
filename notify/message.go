package notify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/pinion-cd/pinion/desired"
)

// Format is how news are written.
type Format string

// The formats.
const (
	FormatJSON Format = "json" // the Notification
	// FormatCDEvents is CDEvents as CloudEvents in HTTP's binary mode.
	FormatCDEvents Format = "cdevents"
	FormatSlack    Format = "slack" // {"text": …}, as Slack, Mattermost and others take it
)

// Formats are all of them.
var Formats = []Format{FormatJSON, FormatCDEvents, FormatSlack}

// Message is one request, all but its address.
type Message struct {
	ID      string
	Headers map[string]string // without those of the signature
	Body    []byte
}

// Write writes news in a format; the zero Format is FormatJSON.
func Write(f Format, n Notification) (Message, error) {
	m := Message{ID: n.ID, Headers: map[string]string{"Content-Type": "application/json"}}
	var body any
	switch f {
	case FormatJSON, "":
		body = n
	case FormatCDEvents:
		body, m.Headers = cdeventOf(n)
	case FormatSlack:
		body = map[string]string{"text": text(n)}
	default:
		return Message{}, fmt.Errorf("there is no format %q", f)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(body); err != nil {
		return Message{}, fmt.Errorf("write %s as %s: %w", n.ID, f, err)
	}
	m.Body = bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	return m, nil
}

// Signed are all headers of a try.
func (m Message) Signed(secrets []Secret, now time.Time) map[string]string {
	h := Sign(secrets, m.ID, now, m.Body)
	maps.Copy(h, m.Headers)
	return h
}

// symbols begin a line of a chat, so that what matters is seen.
var symbols = map[desired.News]string{
	desired.NewsVerified:   ":white_check_mark:",
	desired.NewsFailed:     ":x:",
	desired.NewsRolledBack: ":rewind:",
	desired.NewsPromoted:   ":rocket:",
	desired.NewsWanted:     ":raised_hand:",
	desired.NewsHeld:       ":lock:",
	desired.NewsReleased:   ":unlock:",
	desired.NewsDrifted:    ":warning:",
}

// maxText bounds a line of a chat: Slack cuts messages at 40,000 characters, and
// nobody reads as much.
const maxText = 3000

// text is news for people. The control characters of Slack's mark-up (&, < and
// >) are escaped as it asks. Others that take its messages read Markdown, and
// mention whoever stands behind an @, so that and links are broken up by a space
// of no width: no text of a repository can mention anybody, or hide a link.
func text(n Notification) string {
	line := "*" + escape(n.Summary) + "*"
	if s := symbols[n.Event]; s != "" {
		line = s + " " + line
	}
	if !strings.HasSuffix(n.Summary, n.Reason) {
		line += "\n" + escape(cut(n.Reason, maxText))
	}
	if n.Actor != nil && n.Actor.Name != "" {
		line += "\n_" + escape(n.Actor.Name) + "_"
	}
	return line
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "@", "@\u200b", "](", "]\u200b(").Replace(s)
}

// cut shortens a text at the boundary of a character.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && s[most]&0xc0 == 0x80 {
		most--
	}
	return s[:most] + "…"
}
