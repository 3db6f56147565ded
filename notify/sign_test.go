package notify

import (
	"strings"
	"testing"
	"time"
)

// The example of the specification's own libraries.
func TestSignatureOfStandardWebhooks(t *testing.T) {
	secrets, err := ParseSecrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
	if err != nil {
		t.Fatal(err)
	}
	h := Sign(secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	for name, want := range map[string]string{
		"Webhook-Id":        "msg_p5jXN8AQM9LWM0D4loKWxJek",
		"Webhook-Timestamp": "1614265330",
		"Webhook-Signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
	} {
		if h[name] != want {
			t.Errorf("%s: %s, want %s", name, h[name], want)
		}
	}
	if h := Sign(nil, "x", noon, nil); h["Webhook-Signature"] != "" {
		t.Error("signed without a secret")
	}
}

func TestSecrets(t *testing.T) {
	const one, two = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
	both, err := ParseSecrets(one + "\n\n" + two)
	if err != nil || len(both) != 2 {
		t.Fatalf("two secrets: %v, %d", err, len(both))
	}
	signatures := strings.Fields(Sign(both, "id", noon, nil)["Webhook-Signature"])
	if len(signatures) != 2 || signatures[0] == signatures[1] {
		t.Errorf("two secrets make %q", signatures)
	}
	for text, want := range map[string]string{
		"":                  "it has no secret",
		"MfKQ9r8GKYqrTwjUP": "line 1 does not begin with whsec_",
		one + "\nwhsec_%%%": "line 2 is not base64",
		"whsec_c2hvcnQ=":    "line 1 has 5 bytes",
	} {
		_, err := ParseSecrets(text)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), "MfKQ") || strings.Contains(err.Error(), "%%%")) {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
}

func FuzzDecodePositions(f *testing.F) {
	f.Add([]byte(`{"sinks":{"chat":{"since":"2026-11-28T12:00:00Z","at":"4f1c2aa90b7e4f1c2aa90b7e4f1c2aa90b7e0000","behind":{"web":""}}}}`))
	f.Add([]byte(`{"sinks":{"chat":{"at":"../x"}}}`))
	f.Add([]byte(`{} {}`))
	f.Add([]byte(`{"sinks":{"chat":{},"mail":null}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := DecodePositions(data)
		if err != nil {
			return
		}
		for name, x := range p.Sinks {
			if x.Since.IsZero() {
				t.Errorf("%s is told all there ever was", name)
			}
		}
		again, err := DecodePositions(p.Encode())
		if err != nil || string(again.Encode()) != string(p.Encode()) {
			t.Errorf("%v: %s\n%s", err, p.Encode(), again.Encode())
		}
	})
}
