package main

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/api"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/internal/devtest"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

// configOf reads a configuration.
func configOf(t *testing.T, text string) *config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte("apiVersion: pinion.dev/v1\nkind: Config\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := (&globals{config: file}).readConfig()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What the configuration says of identity providers is what becomes of their
// tokens.
func TestAccessOfAConfiguration(t *testing.T) {
	t.Parallel()
	p := devtest.NewIdentityProvider(t, true)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	const grants = "\n  grants: [{groups: [\"sso:release-managers\"], scopes: [approve], environments: [production]}, {principals: [kim@shop.example], scopes: [admin]}]\n"
	for _, x := range []struct {
		oidc, who, scopes string
	}{
		{"prefix: \"sso:\"", "sso:4711", "[{[approve] [production]}]"},
		{"principal: email", "kim@shop.example", "[{[admin] []}]"},
		{"prefix: \"sso:\", groups: roles", "sso:4711", "[]"},
	} {
		text := fmt.Sprintf("api:\n  anonymous: read\n  oidc: [{issuer: %q, audience: pinion, caFile: %s, %s}]", p.URL, ca, x.oidc) + grants
		o, err := configOf(t, text).access(nil)
		if err != nil {
			t.Fatal(err)
		}
		if !o.Anonymous {
			t.Error("anybody may read, it says, and nobody may")
		}
		caller, ok, err := o.Authenticators[len(o.Authenticators)-1].Authenticate(t.Context(), p.Token(nil))
		if !ok || err != nil || caller.Name != x.who || fmt.Sprint(caller.Grants) != x.scopes {
			t.Errorf("%s: %t %v %s %v", x.oidc, ok, err, caller.Name, caller.Grants)
		}
	}
	// Its certificate is nobody's whom the system knows.
	o, err := configOf(t, fmt.Sprintf("api:\n  oidc: [{issuer: %q, audience: pinion}]\n", p.URL)).access(nil)
	if err != nil || o.Anonymous {
		t.Fatal(o.Anonymous, err)
	}
	if _, ok, err := o.Authenticators[len(o.Authenticators)-1].Authenticate(t.Context(), p.Token(nil)); ok || err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without its certificate: %t %v", ok, err)
	}
}

// A token of the configuration may do what is usual, or what is written.
func TestTokensOfAConfiguration(t *testing.T) {
	t.Parallel()
	c, err := (&globals{config: configured(t, "")}).readConfig()
	if err != nil {
		t.Fatal(err)
	}
	o, err := c.access(nil)
	if err != nil || o.Anonymous || len(o.Authenticators) != 1 {
		t.Fatal(o, err)
	}
	for who, want := range map[string][]api.Scope{"ci": api.DefaultScopes, "devs": {api.ScopePin, api.ScopeHold}} {
		caller, ok, err := o.Authenticators[0].Authenticate(t.Context(), who+"-token")
		if !ok || err != nil || !slices.Equal(caller.Grants[0].Scopes, want) {
			t.Errorf("%s: %t %v %v", who, ok, err, caller)
		}
	}
}

// The log in JSON has the names by which one looks.
func TestLogInJSON(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	logger, err := configOf(t, "log: {format: json}\n").logger(&globals{err: &out})
	if err != nil {
		t.Fatal(err)
	}
	logEvents(logger)(reconcile.Event{Type: reconcile.EventRecorded, Environment: "staging", Service: "web", Version: "1.4.2", Commit: "4f1c2aa9", Deployment: "web-4f1c2aa90b7e", Recorded: "77aa01", Message: "It failed.",
		Entry: &ledger.Entry{Event: ledger.EventFailed, Time: time.Unix(0, 0)}})
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%s: %v", &out, err)
	}
	for key, want := range map[string]string{"environment": "staging", "service": "web", "deployment": "web-4f1c2aa90b7e", "commit": "4f1c2aa9", "entry": "77aa01", "version": "1.4.2",
		"event": "failed", "message": "It failed.", slog.LevelKey: "INFO"} {
		if got[key] != want {
			t.Errorf("%s is %v, want %s: %s", key, got[key], want, &out)
		}
	}
	// What is a warning in a file is one in the log.
	for severity, want := range map[desired.Severity]string{desired.SeverityWarning: "WARN", desired.SeverityError: "ERROR", "": "ERROR"} {
		out.Reset()
		logEvents(logger)(reconcile.Event{Type: reconcile.EventProblem, Severity: severity, Message: "a folder is not read"})
		if !strings.Contains(out.String(), `"level":"`+want+`"`) {
			t.Errorf("%q: %s", severity, &out)
		}
	}
}
