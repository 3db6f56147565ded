package trigger_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/notify"
	"github.com/pinion-cd/pinion/outbound"
	"github.com/pinion-cd/pinion/reconcile/trigger"
)

// An id has no full stop, which would let one message's signature be another's.
func TestIDs(t *testing.T) {
	var ids []string
	tool := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ids = append(ids, r.Header.Get("Webhook-Id"), r.Header.Get("Idempotency-Key"))
	}))
	defer tool.Close()
	secrets, err := notify.ParseSecrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	c := trigger.New(outbound.Any(), map[string][]notify.Secret{strings.TrimPrefix(tool.URL, "http://"): secrets})
	if is := c.Call(t.Context(), trigger.Call{Environment: "dev", Deployment: "web-4f1c2aa90b7e", URL: tool.URL}, time.Now()); !is.Taken {
		t.Fatal(is.Reason)
	}
	for _, id := range ids {
		if id != "dev_web-4f1c2aa90b7e" {
			t.Errorf("it is called with the id %q", id)
		}
	}
}
