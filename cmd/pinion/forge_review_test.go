package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/pinion-cd/pinion/forge"
	"github.com/pinion-cd/pinion/gitstate"
)

const reviewed = `
-- environments/dev.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: NAMESPACE
pins:
  web:
    image: registry.example/web:1.0.0
-- services/web/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
artifacts: [web]
-- services/web/main.jsonnet --
function(pinion) { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'web' }, data: { image: pinion.pins.web.image } }
-- services/hidden/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
artifacts: []
`

// inCluster begins the part of a comment that says how what runs differs.
const inCluster = "What would change in the cluster now:"

// comments returns ours on a pull request.
func (w *forgeWorld) comments(number int) []string {
	w.Helper()
	var all []struct{ Body string }
	w.ask("bot-token", "GET", fmt.Sprintf("/issues/%d/comments", number), nil, &all)
	var ours []string
	for _, c := range all {
		if strings.Contains(c.Body, "What this changes") {
			ours = append(ours, c.Body)
		}
	}
	return ours
}

// proposes pushes a branch that begins at main, and opens a pull request.
func (w *forgeWorld) proposes(branch, archive string) (head string) {
	w.Helper()
	w.git("fetch", "-q", "origin", "main")
	w.git("checkout", "-q", "-B", branch, "FETCH_HEAD")
	w.write(archive)
	w.git("add", "-A")
	w.git("commit", "-q", "-m", branch)
	w.git("push", "-q", "-f", "origin", branch)
	head = w.git("rev-parse", "HEAD")
	w.git("checkout", "-q", "main")
	return head
}

func TestPullRequestsAreReviewed(t *testing.T) {
	t.Parallel()
	// The daemon has the key of a service's values, and shows them to nobody.
	secrets, err := txtar.ParseFile("testdata/script/secrets.txtar")
	if err != nil {
		t.Fatal(err)
	}
	archive, keys := reviewed, filepath.Join(t.TempDir(), "age.key")
	for _, f := range secrets.Files {
		switch f.Name {
		case "shop.key":
			if err := os.WriteFile(keys, f.Data, 0o600); err != nil {
				t.Fatal(err)
			}
		case "shop/services/api/secret.yaml":
			archive += "-- services/hidden/secret.yaml --\n" + string(f.Data)
		}
	}
	w := newForgeWorld(t, archive, "  pullRequests: true\nsecrets: {ageKeyFiles: ["+keys+"]}\n")
	d := w.daemon(t.TempDir(), "--config", w.config)
	d.line(0, "[2/2 done]")

	// One that changes something.
	head := w.proposes("change", `
-- services/web/main.jsonnet --
function(pinion) { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'web' }, data: { image: pinion.pins.web.image, hello: 'world' } }
-- services/hidden/main.jsonnet --
local s = std.parseYaml(importstr 'secret.yaml');
{ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'hidden' }, data: { stolen: s.stringData.password } }
`)
	w.ask("alice-token", "POST", "/pulls", map[string]string{"title": "say hello", "head": "change", "base": "main"}, nil)
	var text string
	said := func(number int, words ...string) func(context.Context) string {
		return func(context.Context) string {
			all := w.comments(number)
			if len(all) != 1 {
				return fmt.Sprintf("%d comments", len(all))
			}
			text = all[0]
			for _, word := range words {
				if !strings.Contains(text, word) {
					return fmt.Sprintf("it does not say %q:\n%s", word, text)
				}
			}
			return ""
		}
	}
	w.until("it is told what it does", said(1, head[:12], "ConfigMap "+w.namespace+"/web", ".data.hello", "+ world", "encrypted"))
	if got := w.status(head, "pinion/lint"); !strings.HasPrefix(got, "success: ") {
		t.Errorf("its head has %q", got)
	}
	for _, word := range []string{"horse", "hunter2", "Y2FuYXJ5"} { // of the secrets in the file
		if strings.Contains(text, word) {
			t.Fatalf("the comment has a secret:\n%s", text)
		}
	}

	// Another head, with a mistake: the same comment, and a failure.
	head = w.proposes("change", `
-- environments/dev.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespce: NAMESPACE
`)
	w.until("it is told of the mistake", said(1, head[:12], `did you mean "namespace"?`, "dev</b>: it can't be told"))
	if got := w.status(head, "pinion/lint"); !strings.HasPrefix(got, "failure: 1 error: environments/dev.yaml:3:1") {
		t.Errorf("its head has %q", got)
	}
	if strings.Contains(text, "- ConfigMap") {
		t.Errorf("it says that what can't be read is deleted:\n%s", text)
	}

	// One that touches nothing of ours is not commented, and not held up.
	readme := w.proposes("readme", "-- README.md --\nhello\n")
	w.ask("alice-token", "POST", "/pulls", map[string]string{"title": "readme", "head": "readme", "base": "main"}, nil)
	next := w.proposes("more", "-- services/more/service.yaml --\napiVersion: pinion.dev/v1\nkind: Service\nartifacts: []\n-- services/more/more.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\n")
	w.ask("alice-token", "POST", "/pulls", map[string]string{"title": "more", "head": "more", "base": "main"}, nil)
	w.until("a new service is told of", said(3, next[:12], "+ ConfigMap "+w.namespace+"/more", inCluster))
	if _, live, _ := strings.Cut(text, inCluster); !strings.Contains(live, "+ ConfigMap "+w.namespace+"/more") {
		t.Errorf("the comment does not say that the cluster has no ConfigMap more:\n%s", text)
	}
	if all := w.comments(2); len(all) != 0 {
		t.Errorf("what changes nothing is commented: %q", all)
	}
	for _, status := range []string{"pinion/lint", "pinion/promotion"} {
		if got := w.status(readme, status); !strings.HasPrefix(got, "success: it ") {
			t.Errorf("what changes nothing has %q for %s", got, status)
		}
	}
}

// Manifests reach files in any folder, and so does what is examined.
func TestWhatIsExamined(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull,
			"GIT_AUTHOR_NAME=Dana", "GIT_AUTHOR_EMAIL=dana@shop.example", "GIT_COMMITTER_NAME=Dana", "GIT_COMMITTER_EMAIL=dana@shop.example")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(bytes.TrimSpace(out))
	}
	commit := func(archive string) string {
		t.Helper()
		for _, f := range txtar.Parse([]byte(archive)).Files {
			path := filepath.Join(dir, f.Name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, f.Data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		git("add", "-A")
		git("commit", "-q", "--allow-empty", "-m", "a change")
		return git("rev-parse", "HEAD")
	}
	git("init", "-q", "--initial-branch=main")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	base := commit(examined + "-- keys/release.pub --\n" + string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	clone, err := gitstate.OpenClone(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { clone.Close() })
	c := &config{}
	renderer, end, err := c.renderer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(end)
	x := &examiner{config: c, commits: clone, renderer: renderer}
	for _, tt := range []struct{ what, archive, want string }{
		{"no file", "", "success: it changes nothing that Pinion reads"},
		{"a text for people", "-- README.md --\nhello\n-- docs/a.yaml --\n{\n", "success: it changes nothing that Pinion reads"},
		{"a library that nothing imports", "-- lib/unused.libsonnet --\n{\n", "success: it changes nothing that Pinion reads"},
		{"a key", "-- keys/release.pub --\nnone\n", "failure: 1 error: keys/release.pub"},
		{"a Kustomize base", "-- base/kustomization.yaml --\nresources: [gone.yaml]\n", "failure: 1 error: base/kustomization.yaml"},
		{"an object of a Kustomize base", "-- base/web.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata: {a: b}\n", "success: no errors"},
		{"a text that is imported", "-- texts/hello.txt --\nhello, world\n", "success: no errors"},
		{"a shared library", "-- shared/names.libsonnet --\n{\n", "failure: 1 error: shared/names.libsonnet:2:1"},
		{"a text that is imported by what can't be rendered", "-- texts/number.txt --\n1\n", "success: no errors"},
		{"another text that is", "-- texts/number.txt --\nnone, too\n", "failure: 1 error: services/broken/main.jsonnet"},
		{"a folder that ought to be one of ours", "-- hold/a.yaml --\na: b\n", "success: no errors, 1 warning"},
		{"the manifest of a job", "-- jobs/smoke.yaml --\nkind: Job\n", "success: no errors"},
	} {
		start := base
		if strings.Contains(tt.archive, "number.txt") {
			git("checkout", "-q", base)
			start = commit("-- services/broken/service.yaml --\napiVersion: pinion.dev/v1\nkind: Service\nartifacts: []\n" +
				"-- services/broken/main.jsonnet --\n{ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'broken' }, data: { n: std.toString(std.parseInt(std.rstripChars(importstr '../../texts/number.txt', '\\n'))) } }\n" +
				"-- texts/number.txt --\nnone\n")
		}
		git("checkout", "-q", start)
		got, err := x.examine(t.Context(), forge.Subject{Base: start, Head: commit(tt.archive)})
		if err != nil {
			t.Errorf("%s: %v", tt.what, err)
			continue
		}
		if s := got.Status(); !strings.HasPrefix(string(s.State)+": "+s.Description, tt.want) {
			t.Errorf("%s: %s: %s, want %s\n%s", tt.what, s.State, s.Description, tt.want, strings.Join(got.Problems, "\n"))
		}
		if got.Untouched != strings.HasSuffix(tt.want, "that Pinion reads") {
			t.Errorf("%s: untouched is %t", tt.what, got.Untouched)
		}
	}
}

const examined = `
-- environments/dev.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: dev
-- services/web/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
artifacts: []
-- services/web/kustomization.yaml --
resources: [../../base]
-- base/kustomization.yaml --
resources: [web.yaml]
-- base/web.yaml --
apiVersion: v1
kind: ConfigMap
metadata: {name: web}
-- services/api/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
artifacts: []
-- services/api/main.jsonnet --
local names = import '../../shared/names.libsonnet';
{ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: names.api }, data: { hello: importstr '../../texts/hello.txt' } }
-- shared/names.libsonnet --
{ api: 'api' }
-- texts/hello.txt --
hello
-- lib/unused.libsonnet --
{}
-- policies/smoke.yaml --
apiVersion: pinion.dev/v1
kind: Policy
job: {manifest: ../jobs/smoke.yaml}
-- jobs/smoke.yaml --
apiVersion: batch/v1
kind: Job
-- pipelines/default.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: ["*"]
stages:
- environment: dev
  verify: [smoke]
`
