package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/ledger"
)

// tracking is a service that needs no pods, in a stage that takes new versions.
const tracking = `
-- environments/dev.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: NAMESPACE
pins:
  web:
    image: registry.example/web:1.2.9
-- services/web/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/web/main.jsonnet --
function(pinion) { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'web' }, data: { image: pinion.pins.web.image } }
-- pipelines/default.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: [web]
stages:
- environment: dev
  track:
  - semver: ">=1.0.0 <2"
    publishers: [ci]
`

// says runs a command as somebody whom the daemon knows, and checks what it
// says and how it ends.
func (d *daemon) says(principal string, code int, want string, args ...string) {
	d.Helper()
	token := filepath.Join(d.TempDir(), "token")
	d.must(os.WriteFile(token, []byte(principal+"-token"), 0o600))
	out, errs, got := d.pinion(append(args, "--server", "http://"+d.address, "--token-file", token)...)
	if got != code || !regexp.MustCompile(want).MatchString(out+errs) {
		d.Errorf("pinion %s: %d, want %d and %s\n%s%s", strings.Join(args, " "), got, code, want, out, errs)
	}
}

// tells checks what a command says that reads the clone.
func (w *world) tells(code int, want string, args ...string) {
	w.Helper()
	out, errs, got := w.pinion(args...)
	if got != code || !regexp.MustCompile(want).MatchString(out+errs) {
		w.Errorf("pinion %s: %d, want %d and %s\n%s%s", strings.Join(args, " "), got, code, want, out, errs)
	}
}

// answers checks what the daemon answers a principal.
func (d *daemon) answers(principal, path, want string) {
	d.Helper()
	req, err := http.NewRequestWithContext(d.Context(), http.MethodGet, "http://"+d.address+path, nil)
	d.must(err)
	req.Header.Set("Authorization", "Bearer "+principal+"-token")
	resp, err := http.DefaultClient.Do(req)
	d.must(err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	d.must(err)
	if resp.StatusCode != http.StatusOK || !regexp.MustCompile(want).Match(data) {
		d.Errorf("GET %s: %s, want %s\n%s", path, resp.Status, want, data)
	}
}

func TestArtifactsArePublishedAndTracked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, tracking)
	d := w.daemon(t.TempDir(), "--config", configured(t, ""))
	w.recorded("dev", "verified(dev): web 1.2.9")
	image := func(version, first string) string {
		return "registry.example/web:" + version + "@sha256:" + first + strings.Repeat("0", 64-len(first))
	}
	d.says("ci", 0, `recorded in pinion/artifacts: [0-9a-f]{40}\nregistry.example/web:1.2.10 is recorded`,
		"artifact", "publish", image("1.2.10", "a"), "--commit", "4f1c2aa90b7e", "--branch", "main", "--build", "https://ci.shop.example/7", "--tests", "passed", "--committed", "2026-11-19T11:00:00+01:00")
	w.recorded("dev", "pinned(dev): web 1.2.9 → 1.2.10", "started", "completed", "verified(dev): web 1.2.9 → 1.2.10")
	d.says("ci", 0, `is recorded already`, "artifact", "publish", image("1.2.10", "a"))
	for first, want := range map[string]int{"a": http.StatusOK, "b": http.StatusConflict} {
		if status, answer := d.contract("ci").Ask("publish", nil, map[string]any{"image": image("1.2.10", first)}); status != want {
			t.Errorf("published once more with %s: %d %v", first, status, answer)
		}
	}
	d.says("ci", 2, `is bound to sha256:a0+, and sha256:b0+ is refused: a version is not changed, publish a new one`, "artifact", "publish", image("1.2.10", "b"))
	d.says("ci", 1, `no stage could take it: it is not in >=1.0.0 <2`, "artifact", "publish", image("2.0.0", "c"))
	d.says("ci", 2, `write it with its tag and its digest`, "artifact", "publish", "registry.example/web:1.3.0")
	d.says("ci", 2, `no stage tracks registry.example/wep\s+tracked are registry.example/web`, "artifact", "publish", strings.Replace(image("1.3.0", "c"), "web", "wep", 1))
	d.says("ci", 2, `tests: "perhaps" is not a result`, "artifact", "publish", image("1.3.0", "c"), "--tests", "perhaps")
	d.says("ci", 2, `--committed "yesterday" is not a time as in RFC 3339`, "artifact", "publish", image("1.3.0", "c"), "--committed", "yesterday")
	d.says("ci", 2, `committed is no time at which anything was committed`, "artifact", "publish", image("1.3.0", "c"), "--committed", "1969-12-31T00:00:00Z")
	d.says("mallory", 4, `mallory may not publish registry.example/web\s+the stage that tracks it lets ci do that`, "artifact", "publish", image("1.3.0", "c"))
	d.says("nobody", 4, `nobody is known who has that token`, "artifact", "publish", image("1.3.0", "c"))
	d.line(0, "the tag registry.example/web:1.2.10 was moved to sha256:b0")

	d.answers("mallory", "/api/v1/artifacts", `"version":"1\.2\.10","digest":"sha256:a0+","commit":"4f1c2aa90b7e".*"tests":"passed","committed":"2026-11-19T10:00:00Z","by":"ci".*"moved":\["sha256:b0+"\]`)
	d.answers("mallory", "/api/v1/artifacts?cursor="+image("1.2.10", "a"), `"items":\[\]`)

	w.git("pull", "-q", "origin", "main")
	w.git("fetch", "-q")
	w.tells(0, `registry.example/web +1.2.10 +\S+ +ci +4f1c2aa90b7e of main +passed +its tag was moved, which is refused`, "artifact", "list")
	w.tells(0, `"build": "https://ci.shop.example/7"`, "artifact", "list", "web", "-o", "json")
	w.tells(0, `"committed": "2026-11-19T10:00:00Z"`, "artifact", "list", "web", "-o", "json")
	w.tells(2, `artifact wep: not found\s+did you mean "web"\?`, "artifact", "list", "wep")
	w.tells(0, `(?s)To enter dev, .*track web +pending .*nothing newer than 1.2.10 is known of registry.example/web that is >=1.0.0 <2`, "why", "dev", "web")
	w.tells(0, `1 ledger, 8 entries, 0 promotions, 1 tracked version, 1 known version: nothing wrong`, "audit", "--no-signatures")
	d.stop()

	// Who writes such a commit by hand is found out.
	from, main := w.git("rev-parse", "origin/pinion/artifacts"), w.git("rev-parse", "origin/main")
	forge := func(version, from, finding string) {
		t.Helper()
		was := w.git("rev-parse", "HEAD")
		to := image(version, "d")
		w.replaceAs("environments/dev.yaml", image("1.2.10", "a"), to, ledger.Change{
			Kind: ledger.ChangeTracked, Environment: "dev", Service: "web", From: []string{from}, Before: "1.2.10",
			Release: ledger.Release{Pins: []ledger.Pin{{Artifact: "web", Image: to}}}, Policy: "default@" + w.git("rev-parse", "HEAD:pipelines/default.yaml"),
		}.Message())
		w.tells(1, finding, "audit", "--no-signatures", "--rev", w.git("rev-parse", "HEAD"))
		w.git("reset", "-q", "--hard", was)
	}
	forge("1.9.0", "pinion/artifacts@"+from, `was not allowed: track web: nothing newer than 1.2.10 is known`)
	forge("1.9.0", "pinion/artifacts@"+main, fmt.Sprintf(`claims to rest on %.12s of pinion/artifacts, and that has no such commit`, main))
	forge("1.9.0", "staging@"+from, `does not say which commit of pinion/artifacts knew the version`)
}

// replaceAs changes text in a file and commits it with a message, as the daemon
// would.
func (w *world) replaceAs(file, old, new, message string) {
	w.Helper()
	path := filepath.Join(w.clone, file)
	data, err := os.ReadFile(path)
	w.must(err)
	w.must(os.WriteFile(path, []byte(strings.ReplaceAll(string(data), old, new)), 0o644))
	w.git("-c", "user.name=Pinion", "-c", "user.email=pinion@localhost", "commit", "-q", "-a", "-m", message)
}
