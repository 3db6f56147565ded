package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/internal/devtest"
)

// A registry that tells of a push has its new version deployed, pinned by its
// digest, although the next look would be in an hour.
func TestRegistryIsWatched(t *testing.T) {
	t.Parallel()
	var address atomic.Value // of the daemon, which is started later than the registry
	relay := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to, _ := address.Load().(string)
		r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
		passed, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+to+registryHookPath, r.Body)
		if err != nil || to == "" {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		passed.Header = r.Header
		resp, err := http.DefaultClient.Do(passed)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
	}))
	t.Cleanup(relay.Close)
	r := devtest.Registry(t, devtest.RegistryOptions{User: "pinion", Password: "word", Notify: relay.URL, Authorization: "Bearer sesame"})
	first := r.Push(t, "acme/web:1.2.9", nil)
	r.Push(t, "acme/web:latest", nil)

	w := newWorld(t, strings.NewReplacer("registry.example/web", r.Host+"/acme/web", "\n    publishers: [ci]", "").Replace(tracking))
	dir := t.TempDir()
	secret, credentials := filepath.Join(dir, "secret"), filepath.Join(dir, "config.json")
	w.must(os.WriteFile(secret, []byte("sesame\n"), 0o600))
	w.must(os.WriteFile(credentials, fmt.Appendf(nil, `{"auths": {%q: {"username": "pinion", "password": "word"}}}`, r.Host), 0o600))
	config := configured(t, fmt.Sprintf("outbound: {allow: [127.0.0.1]}\nregistry: {poll: 1h, credentialsFile: %s, webhookSecretFile: %s}", credentials, secret))
	d := w.daemon(t.TempDir(), "--config", config)
	w.recorded("dev", "verified(dev): web 1.2.9")
	address.Store(d.address)
	metric := func(line string) {
		t.Helper()
		w.until("the metric "+line, func(context.Context) string {
			if body, _ := d.get("/metrics"); !regexp.MustCompile(`(?m)^` + line + `$`).MatchString(body) {
				return "it is not there"
			}
			return ""
		})
	}
	metric(fmt.Sprintf(`pinion_registry_last_success_timestamp_seconds\{host="%s"\} 1\.\d+e\+09`, r.Host))

	second := r.Push(t, "acme/web:1.2.10", map[string]string{
		"org.opencontainers.image.revision": "4f1c2aa90b7e", "dev.pinion.branch": "main", "dev.pinion.build": "https://ci.shop.example/7", "dev.pinion.tests": "passed", "dev.pinion.quality": "perhaps",
	})
	w.recorded("dev", "pinned(dev): web 1.2.9 → 1.2.10", "started", "completed", "verified(dev): web 1.2.9 → 1.2.10")
	d.line(0, "a label of "+r.Host+`/acme/web:1.2.10 is left out: quality: "perhaps" is not a result`)
	w.git("pull", "-q", "origin", "main")
	w.git("fetch", "-q")
	message := w.git("log", "-1", "--format=%B", "origin/main")
	for _, want := range []string{
		"track(dev): web 1.2.9 → 1.2.10", "1.2.10 is the newest of " + r.Host + "/acme/web that is >=1.0.0 <2; found in the registry, built from 4f1c2aa90b7e of main (https://ci.shop.example/7), tests passed.",
		"Pinion-Pin: web " + r.Host + "/acme/web:1.2.10@" + second,
		"Pinion-Artifact: web commit=4f1c2aa90b7e branch=main build=https://ci.shop.example/7 tests=passed",
	} {
		if !strings.Contains(message, want) {
			t.Errorf("the commit says\n%s\nwant %q", message, want)
		}
	}
	if first == second {
		t.Fatal("both have one digest")
	}

	// A tag that is moved is refused, and told.
	moved := r.Push(t, "acme/web:1.2.10", nil)
	d.line(0, "the tag "+r.Host+"/acme/web:1.2.10 was moved to "+moved+", which is refused: it is bound to "+second)
	w.git("fetch", "-q")
	if subject := w.git("log", "-1", "--format=%s", "origin/"+artifact.Branch); subject != "moved("+r.Host+"/acme/web): 1.2.10" {
		t.Errorf("the branch ends with %s", subject)
	}
	w.tells(0, `acme/web +1.2.10 +\S+ +registry +4f1c2aa90b7e of main +passed +its tag was moved, which is refused`, "artifact", "list")
	w.tells(0, `ok +registry: webhook +1 secret in use.*\n(.*\n)*ok +registry: `+r.Host+`/acme/web +3 tags can be read; dev watches it`, "doctor", "--config", config)
	w.tells(0, `1 ledger, 8 entries, 0 promotions, 1 tracked version, 1 known version: nothing wrong`, "audit", "--no-signatures")
	w.tells(0, `(?s)To enter dev, .*track web +pending .*nothing newer than 1.2.10 is known of `+r.Host+`/acme/web that is >=1.0.0 <2.*push a newer version to the registry`, "why", "dev", "web")
	metric(fmt.Sprintf(`pinion_registry_requests_total\{host="%s",result="success"\} \d+`, r.Host))
	metric(fmt.Sprintf(`pinion_registry_backoff_seconds\{host="%s"\} 0`, r.Host))

	// What can't be asked is told, and stands in nobody's way.
	r.Kill()
	notify := func(authorization string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+d.address+registryHookPath, strings.NewReader(`{"repository": "acme/web", "updated_tags": ["1.3.0"]}`))
		w.must(err)
		req.Header.Set("Authorization", authorization)
		resp, err := http.DefaultClient.Do(req)
		w.must(err)
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := notify("Bearer open"); got != http.StatusUnauthorized {
		t.Errorf("a notification with another secret is answered with %d", got)
	}
	if got := notify("Bearer sesame"); got != http.StatusAccepted {
		t.Errorf("a notification is answered with %d", got)
	}
	d.line(0, "watch registries: list the tags of "+r.Host+"/acme/web: dial")
	metric(fmt.Sprintf(`pinion_registry_backoff_seconds\{host="%s"\} [1-9].*`, r.Host))
	metric(fmt.Sprintf(`pinion_registry_failing_since_timestamp_seconds\{host="%s"\} 1\.\d+e\+09`, r.Host))
	c := d.contract("mallory")
	why := func() string {
		t.Helper()
		status, x := c.Ask("explain", map[string]string{"environment": "dev", "service": "web"}, nil)
		if status != http.StatusOK {
			t.Fatalf("why: %d %v", status, x)
		}
		return fmt.Sprint(x["answer"])
	}
	cause := regexp.QuoteMeta(r.Host+"/acme/web can't be read since ") + `\d+s ago, so newer versions are not seen: list the tags of .*refused; it is (looked at again at|being looked at)`
	if text := why(); !regexp.MustCompile(cause).MatchString(text) {
		t.Errorf("why: %s", text)
	}
	if status, p := c.Ask("getPipeline", map[string]string{"pipeline": "default"}, nil); status != http.StatusOK || !strings.Contains(fmt.Sprint(p["stages"]), "track:[map[semver:>=1.0.0 <2 watch:true]]") {
		t.Errorf("the pipeline is %v", p)
	}
	_, list := c.Ask("listRegistries", nil, nil)
	if items, _ := list["items"].([]any); len(items) != 1 || fmt.Sprint(items[0].(map[string]any)["environments"]) != "[dev]" || items[0].(map[string]any)["failing"] == nil {
		t.Errorf("the registries are %v", list)
	}
	token := filepath.Join(dir, "token")
	w.must(os.WriteFile(token, []byte("mallory-token\n"), 0o600))
	w.tells(0, `(?s)`+cause+`.*\nRegistries that are watched for new versions:\n +REPOSITORY +READ +FAILS SINCE .*PROBLEM\n +`+r.Host+`/acme/web +20`,
		"why", "dev", "web", "--server", "http://"+d.address, "--token-file", token)
	w.tells(1, `FAIL +registry: `+r.Host+`/acme/web +list the tags of .*refused`, "doctor", "--config", config)
	w.tells(1, `the registry of web can't be watched: 127.0.0.1:\d+ is not asked`, "lint", "--config", configured(t, ""))
}

func TestRegistryWebhook(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("sesame\nold\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	serve := func(c registryConfig) string {
		s := httptest.NewServer(newServer(newMetrics(), nil, nil, &registryHooks{turnstile: turnstile{log: slog.New(slog.DiscardHandler)}, config: c}).handler)
		t.Cleanup(s.Close)
		return s.URL + registryHookPath
	}
	with, without := serve(registryConfig{WebhookSecretFile: file}), serve(registryConfig{})
	body := []byte(`{"events": []}`)
	for _, c := range []struct {
		name, url, header, value string
		body                     io.Reader
		want                     int
	}{
		{"no webhook", without, "Authorization", "Bearer sesame", bytes.NewReader(body), 404},
		{"nothing", with, "", "", bytes.NewReader(body), 401},
		{"a token", with, "Authorization", "Bearer sesame", bytes.NewReader(body), 202},
		{"the old one", with, "Authorization", "Bearer old", bytes.NewReader(body), 202},
		{"a bare one", with, "Authorization", "sesame", bytes.NewReader(body), 202},
		{"a password", with, "Authorization", "Basic cmVnaXN0cnk6c2VzYW1l", bytes.NewReader(body), 202},
		{"a wrong one", with, "Authorization", "Bearer sesam", bytes.NewReader(body), 401},
		{"an empty one", with, "Authorization", "Bearer ", bytes.NewReader(body), 401},
		{"in the address", with + "?token=sesame", "", "", bytes.NewReader(body), 202},
		{"a wrong one there", with + "?token=", "", "", bytes.NewReader(body), 401},
		{"signed", with, "X-Hub-Signature-256", hubSignature("sesame", body), bytes.NewReader(body), 202},
		{"signed wrongly", with, "X-Hub-Signature-256", hubSignature("other", body), bytes.NewReader(body), 401},
		{"another body", with, "X-Hub-Signature-256", hubSignature("sesame", body), strings.NewReader(`{}`), 401},
		{"a large one", with, "Authorization", "Bearer sesame", bytes.NewReader(make([]byte, maxNotice+1)), 413},
		{"a large one that does not say so", with, "Authorization", "Bearer sesame", io.MultiReader(bytes.NewReader(make([]byte, maxNotice+1))), 413},
		{"no JSON", with, "Authorization", "Bearer sesame", strings.NewReader("<"), 202},
	} {
		req, err := http.NewRequest(http.MethodPost, c.url, c.body)
		if err != nil {
			t.Fatal(err)
		}
		if c.header != "" {
			req.Header.Set(c.header, c.value)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s: %s, want %d", c.name, resp.Status, c.want)
		}
	}
}

func TestRegistryConfigThatIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "config.json")
	if err := os.WriteFile(file, []byte(`{"credHelpers": {"ghcr.io": "gcr"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"{poll: 10ms}":                                          "registry.poll is 10ms; write a second or more",
		"{requestsPerSecond: -1}":                               "registry.requestsPerSecond is negative",
		"{insecure: ['http://registry.example']}":               `registry.insecure has "http://registry.example"`,
		"{helpers: [gcr]}":                                      "registry.helpers is given without registry.credentialsFile",
		"{credentialsFile: " + dir + "/none}":                   "registry.credentialsFile: read credentials of registries: open",
		"{credentialsFile: " + file + "}":                       "add gcr to registry.helpers",
		"{credentialsFile: " + file + ", caFile: " + file + "}": "add gcr to registry.helpers",
		"{caFile: " + file + "}":                                "holds no certificate",
		"{credentialFile: x}":                                   "credentialsFile, helpers, insecure, caFile, poll, requestsPerSecond, webhookSecretFile",
		"{credentialsFile: " + file + ", helpers: [gcr], insecure: [registry.example, '[::1]:5000'], poll: 1s}": "",
	} {
		path := filepath.Join(dir, "pinion.yaml")
		if err := os.WriteFile(path, []byte("apiVersion: pinion.dev/v1\nkind: Config\nregistry: "+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := (&globals{config: path}).readConfig()
		if got := fmt.Sprint(err); want == "" && err != nil || !strings.Contains(got, want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}
