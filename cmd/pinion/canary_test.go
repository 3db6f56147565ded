package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// canaries are parts of what the fixtures of render/sops hold encrypted: a
// value, a part of a larger file, and a value that is imported elsewhere.
var canaries = []string{"correct horse", "hunter2", "päss \"word\""}

// forms are how a text may be written: as it is, escaped, as hexadecimal digits,
// and in the middle of a base64 text, wherever it begins there.
func forms(text string) []string {
	all := []string{text, strings.Trim(fmt.Sprintf("%q", text), `"`), strings.Trim(fmt.Sprintf("%+q", text), `"`), hex.EncodeToString([]byte(text))}
	for shift := range 3 {
		padded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + text))
		// What depends on the neighbours is left out.
		all = append(all, strings.TrimRight(padded[(shift*8+5)/6:len(padded)-4], "="))
	}
	return all
}

// leaks names the canaries that a text holds.
func leaks(text []byte) (found []string) {
	for _, c := range canaries {
		for _, f := range forms(c) {
			if bytes.Contains(text, []byte(f)) {
				found = append(found, fmt.Sprintf("%q as %q", c, f))
			}
		}
	}
	return found
}

const canaryShop = `
-- environments/dev.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: NAMESPACE
pins:
  app:
    image: registry.example/app:1.0.0
  refused:
    image: registry.example/refused:1.0.0
  unmade:
    image: registry.example/unmade:1.0.0
  vault:
    image: registry.example/vault:1.0.0
-- pipelines/default.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: ["*"]
stages: [{environment: dev}]
-- services/vault/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/app/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
rollout: {timeout: 5s}
-- services/app/main.jsonnet --
local v = import 'values.json';
function(pinion) [
  { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'app' }, data: { 'app.conf': 'password = ' + v.password } },
  {
    apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'app' },
    spec: {
      replicas: 1,
      selector: { matchLabels: { app: 'app' } },
      template: {
        metadata: { labels: { app: 'app' }, annotations: { 'devcluster.pinion.dev/behavior-1.1.0': 'crash' } },
        spec: { terminationGracePeriodSeconds: 1, containers: [{ name: 'main', image: pinion.pins.app.image, env: [{ name: 'PASSWORD', value: v.password }] }] },
      },
    },
  },
]
-- services/refused/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/refused/main.jsonnet --
local v = import 'values.json';
{ apiVersion: 'v1', kind: 'Service', metadata: { name: 'refused' }, spec: { type: v.password, ports: [{ port: 80 }] } }
-- services/unmade/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/unmade/main.jsonnet --
local v = import 'values.json';
error 'it can not be made with ' + v.password
`

// What is decrypted is in the cluster's objects, and nowhere else: not in what
// the daemon says, answers, records or keeps, and not in what a command prints.
func TestNothingTellsASecret(t *testing.T) {
	t.Parallel()
	for _, c := range canaries {
		for _, f := range forms(c) {
			if leaks([]byte("before "+f+" after")) == nil {
				t.Fatalf("%q would not be found", f)
			}
		}
	}
	w := newWorld(t, canaryShop)
	fixture := func(name string) string {
		data, err := os.ReadFile(filepath.Join("..", "..", "render", "sops", "testdata", name))
		w.must(err)
		return string(data)
	}
	archive := "-- services/vault/secret.yaml --\n" + fixture("secret.yaml")
	for _, svc := range []string{"app", "refused", "unmade"} {
		archive += "\n-- services/" + svc + "/values.json --\n" + fixture("values.json") + "\n"
	}
	w.push("secrets", archive)
	key, err := filepath.Abs(filepath.Join("..", "..", "render", "sops", "testdata", "key.txt"))
	w.must(err)
	config := filepath.Join(t.TempDir(), "config.yaml")
	w.must(os.WriteFile(config, []byte("apiVersion: pinion.dev/v1\nkind: Config\nsecrets: {ageKeyFiles: ["+key+"]}\nclusters:\n  default: {}\n"), 0o600))
	data := t.TempDir()
	d := w.daemon(data, "--config", config)
	w.runs("app", "registry.example/app:1.0.0")
	d.line(0, "dev", "vault", "ready")
	d.line(0, "dev", "refused", "failed")
	d.line(0, "dev", "unmade", "can not be made")
	secret, err := w.kube.CoreV1().Secrets(w.namespace).Get(t.Context(), "db", metav1.GetOptions{})
	w.must(err)
	if leaks(secret.Data["password"]) == nil {
		t.Fatalf("the Secret does not have the canary: %q", secret.Data)
	}

	// Others change what holds it, and a rollout with it fails.
	mark := d.mark()
	other := metav1.PatchOptions{FieldManager: "somebody"}
	_, err = w.kube.CoreV1().Secrets(w.namespace).Patch(t.Context(), "db", types.MergePatchType, []byte(`{"stringData":{"password":"another"}}`), other)
	w.must(err)
	_, err = w.kube.AppsV1().Deployments(w.namespace).Patch(t.Context(), "app", types.StrategicMergePatchType,
		[]byte(`{"spec":{"template":{"spec":{"containers":[{"name":"main","env":[{"name":"PASSWORD","value":"another"}]}]}}}}`), other)
	w.must(err)
	d.line(mark, "drift", "Secret")
	d.line(mark, "drift", "Deployment")
	w.bump("app", "1.0.0", "1.1.0")
	d.line(mark, "app", "1.1.0", "failed")
	w.until("the failure is recorded", func(context.Context) string {
		if log := w.git("-C", w.remote, "log", "--format=%s", "ledger/dev"); !strings.Contains(log, "failed(dev): app") || !strings.Contains(log, "drifted(dev): vault") {
			return log
		}
		return ""
	})

	look := func(what string, text []byte) {
		t.Helper()
		if found := leaks(text); found != nil {
			i := bytes.Index(text, []byte(canaries[0][:4]))
			t.Errorf("%s tells %s (%.200q)", what, strings.Join(found, ", "), text[max(0, i-50):min(len(text), max(0, i)+150)])
		}
	}
	w.git("fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*")
	for _, args := range [][]string{
		{"status"}, {"status", "dev"}, {"status", "--live"}, {"log", "dev"}, {"render", "dev"}, {"diff", "dev"}, {"apply", "dev"},
		{"why", "dev", "app"}, {"why", "dev", "refused"}, {"why", "dev", "unmade"}, {"why", "dev", "vault"}, {"where", "app"}, {"lint"}, {"audit"},
	} {
		for _, form := range [][]string{nil, {"-o", "json"}} {
			keyed := append(append([]string{}, args...), form...)
			if form != nil && (args[0] == "apply" || args[0] == "diff") {
				continue
			}
			switch args[0] {
			case "render", "diff", "apply", "lint":
				keyed = append(keyed, "--age-key-file", key)
			case "status":
				if len(args) > 1 && args[1] == "--live" {
					keyed = append(keyed, "--age-key-file", key)
				}
			}
			out, errs, _ := w.pinion(keyed...)
			look("pinion "+strings.Join(keyed, " "), []byte(out+errs))
		}
	}
	for _, path := range []string{"/metrics", "/healthz", "/readyz", "/api/v1/reports", "/api/v1/approvals"} {
		resp, err := http.Get("http://" + d.address + path)
		w.must(err)
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		w.must(err)
		look("GET "+path, body)
	}
	inventory, err := w.kube.CoreV1().ConfigMaps(w.namespace).Get(t.Context(), "pinion-dev", metav1.GetOptions{})
	w.must(err)
	look("the inventory", []byte(fmt.Sprint(inventory)))
	d.stop()
	look("the daemon's log", []byte(strings.Join(d.said(0), "\n")))
	objects := func(dir string) {
		out, err := exec.Command("git", "--git-dir="+dir, "cat-file", "--batch-all-objects", "--batch").Output()
		w.must(err)
		look("the objects of "+dir, out)
	}
	objects(w.remote)
	w.must(filepath.WalkDir(data, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && e.Name() == "objects":
			objects(filepath.Dir(path))
		case e.Type().IsRegular():
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			look(path, text)
		}
		return nil
	}))
}
