package deliver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/pinion-cd/pinion/notify"
	"github.com/pinion-cd/pinion/outbound"
)

// Sink is a receiver with its address and its secrets, which are shown nowhere.
type Sink struct {
	notify.Sink
	URL     string
	Secrets []notify.Secret
}

// sender sends messages. The addresses are the operator's, so any host may be
// asked.
type sender struct{ client *http.Client }

func newSender() *sender {
	return &sender{outbound.NewClient(outbound.Options{Allow: outbound.Any(), Redirects: outbound.None, KeepAlive: true})}
}

const maxAnswer = 64 << 10 // bytes that are read, so that the connection can be kept

// send tries once.
func (s *sender) send(ctx context.Context, to Sink, n notify.Notification, now time.Time) notify.Ruling {
	m, err := notify.Write(to.Format, n)
	if err != nil {
		return notify.Ruling{Reason: err.Error()}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to.URL, bytes.NewReader(m.Body))
	if err != nil {
		return notify.Ruling{Reason: "the address can't be used"} // the error would show it
	}
	r.Header.Set("User-Agent", "pinion")
	for name, value := range m.Signed(to.Secrets, now) {
		r.Header.Set(name, value)
	}
	response, err := s.client.Do(r)
	if err != nil {
		return notify.Answer{Trouble: outbound.Cause(err).Error()}.Judge(now)
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(response.Body, maxAnswer))
	a := notify.Answer{Status: response.StatusCode, RetryAfter: response.Header.Get("Retry-After")}
	if err != nil && !errors.Is(err, context.Canceled) && a.Status/100 != 2 {
		a.Trouble = outbound.Cause(err).Error()
	}
	return a.Judge(now)
}

// Test sends a message that tells nothing, and returns why it was not taken.
func Test(ctx context.Context, to Sink, id string, now time.Time) error {
	n := notify.Notification{ID: id, Event: "test", Time: now.UTC().Truncate(time.Second), Summary: "test: Pinion can reach this receiver"}
	if r := newSender().send(ctx, to, n, now); !r.Taken {
		return errors.New(r.Reason)
	}
	return nil
}
