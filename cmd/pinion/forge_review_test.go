package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
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
	w.until("a new service is told of", said(3, next[:12], "+ ConfigMap "+w.namespace+"/more"))
	if all := w.comments(2); len(all) != 0 {
		t.Errorf("what changes nothing is commented: %q", all)
	}
	for _, status := range []string{"pinion/lint", "pinion/promotion"} {
		if got := w.status(readme, status); !strings.HasPrefix(got, "success: it ") {
			t.Errorf("what changes nothing has %q for %s", got, status)
		}
	}
}
