package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	admission "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pinion-cd/pinion/reconcile/cluster"
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
  checked:
    image: registry.example/checked:1.0.0
  refused:
    image: registry.example/refused:1.0.0
  taken:
    image: registry.example/taken:1.0.0
  unmade:
    image: registry.example/unmade:1.0.0
  vault:
    image: registry.example/vault:1.0.0
-- pipelines/default.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: ["*"]
stages: [{environment: dev}]
-- environments/other.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: NAMESPACE-other
pins:
  late:
    image: registry.example/late:1.0.0
-- pipelines/checked.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: [checked]
stages: [{environment: dev, verify: [smoke]}]
-- pipelines/late.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: [late]
stages: [{environment: other, verify: [smoke]}]
-- policies/smoke.yaml --
apiVersion: pinion.dev/v1
kind: Policy
job: {manifest: jobs/smoke.yaml}
-- policies/jobs/smoke.yaml --
apiVersion: batch/v1
kind: Job
metadata: {name: smoke}
spec:
  template:
    metadata: {annotations: {devcluster.pinion.dev/behavior: never-ready}}
    spec: {restartPolicy: Never, containers: [{name: smoke, image: registry.example/smoke:1.0.0}]}
-- services/late/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/vault/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/checked/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/checked/main.jsonnet --
local v = import 'values.json';
{ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'checked' }, stringData: { password: v.password } }
-- services/taken/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/taken/main.jsonnet --
local v = import 'values.json';
{ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'taken' }, stringData: { password: v.password } }
-- services/app/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
rollout: {timeout: 8s}
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
        metadata: { labels: { app: 'app' }, annotations: { 'devcluster.pinion.dev/behavior-1.1.0': 'crash-loop' } },
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

// rotated is a service that had the Secret db, with another value in it.
const rotated = `
-- services/NAME/secret.yaml --
-- services/NAME/main.jsonnet --
local v = import 'values.json';
{ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'db', labels: { rotated: 'LABEL' } }, stringData: { password: v.password } }
-- services/NAME/values.json --
VALUES
`

// hunt is a world in which canaries are looked for.
type hunt struct {
	*world
	key, config string
	data        string // of the daemon
}

func newHunt(t *testing.T) *hunt {
	t.Helper()
	h := &hunt{world: newWorld(t, canaryShop), data: t.TempDir()}
	archive := "-- services/vault/secret.yaml --\n" + h.fixture("secret.yaml") + "\n-- services/late/secret.yaml --\n" + h.fixture("secret.yaml")
	for _, svc := range []string{"app", "checked", "refused", "taken", "unmade"} {
		archive += "\n-- services/" + svc + "/values.json --\n" + h.fixture("values.json") + "\n"
	}
	h.push("secrets", archive)
	var err error
	h.key, err = filepath.Abs(filepath.Join("..", "..", "render", "sops", "testdata", "key.txt"))
	h.must(err)
	for _, ns := range []string{h.namespace, h.namespace + "-other"} {
		_, err := h.kube.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{})
		h.must(err)
		t.Cleanup(func() { h.kube.CoreV1().Namespaces().Delete(context.Background(), ns, metav1.DeleteOptions{}) })
	}
	return h
}

func (h *hunt) fixture(name string) string {
	h.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "render", "sops", "testdata", name))
	h.must(err)
	return string(data)
}

// start starts the daemon with a format of its log.
func (h *hunt) start(log string) *daemon {
	h.Helper()
	h.config = filepath.Join(h.TempDir(), "config.yaml")
	h.must(os.WriteFile(h.config, []byte("apiVersion: pinion.dev/v1\nkind: Config\nsecrets: {ageKeyFiles: ["+h.key+"]}\nclusters:\n  default: {}\nlog: "+log+"\n"), 0o600))
	return h.daemon(h.data, "--config", h.config)
}

// secret returns a value that a Secret of the cluster has.
func (h *hunt) secret(namespace, name string) string {
	h.Helper()
	secret, err := h.kube.CoreV1().Secrets(namespace).Get(h.Context(), name, metav1.GetOptions{})
	h.must(err)
	password := secret.Data["password"]
	if leaks(password) == nil {
		h.Fatalf("the Secret %s does not have the canary: %q", name, secret.Data)
	}
	return string(password)
}

// ends has the Job that checks a service fail, after it has written a log.
func (h *hunt) ends(namespace, service, log string) {
	h.Helper()
	told := false
	h.until("the Job that checks "+service+" has failed", func(ctx context.Context) string {
		jobs, err := h.kube.BatchV1().Jobs(namespace).List(ctx, metav1.ListOptions{LabelSelector: cluster.LabelCheckService + "=" + service})
		h.must(err)
		for _, j := range jobs.Items {
			if told = told || h.writes(ctx, namespace, "job-name="+j.Name, log, "fail"); j.Status.Failed > 0 {
				return ""
			}
		}
		return fmt.Sprintf("there are %d Jobs", len(jobs.Items))
	})
}

// writes has the pods that labels choose write a log and behave in some way. It
// says whether there are any.
func (h *hunt) writes(ctx context.Context, namespace, labels, log, behavior string) bool {
	h.Helper()
	pods, err := h.kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: labels})
	h.must(err)
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{
		"devcluster.pinion.dev/logs": log, "devcluster.pinion.dev/behavior": behavior,
	}}})
	h.must(err)
	for _, p := range pods.Items {
		_, err := h.kube.CoreV1().Pods(namespace).Patch(ctx, p.Name, types.MergePatchType, patch, metav1.PatchOptions{})
		h.must(err)
	}
	return len(pods.Items) > 0
}

// masked waits for an entry of a ledger, and expects that it quotes something
// that was cut out.
func (h *hunt) masked(environment, subject string) {
	h.Helper()
	h.until("there is "+subject, func(context.Context) string {
		all := h.entries(environment)
		if !slices.ContainsFunc(all, func(s string) bool { return strings.HasPrefix(s, subject) }) {
			return strings.Join(all, "; ")
		}
		return ""
	})
	entry := h.git("log", "-1", "--format=%B", "--fixed-strings", "--grep="+subject, "origin/ledger/"+environment)
	h.look(subject, []byte(entry))
	if !strings.Contains(entry, "***") {
		h.Errorf("nothing was cut out of\n%s", entry)
	}
}

// denies has the API server refuse an operation on the Secret db, and quote what
// it holds. It returns what ends that.
func (h *hunt) denies(operation admission.OperationType) func() {
	h.Helper()
	meta := metav1.ObjectMeta{Name: strings.ToLower(string(operation)) + "-" + h.namespace}
	policies := h.kube.AdmissionregistrationV1()
	_, err := policies.ValidatingAdmissionPolicies().Create(h.Context(), &admission.ValidatingAdmissionPolicy{
		ObjectMeta: meta,
		Spec: admission.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admission.MatchResources{ResourceRules: []admission.NamedRuleWithOperations{{RuleWithOperations: admission.RuleWithOperations{
				Operations: []admission.OperationType{operation},
				Rule:       admission.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}},
			}}}},
			MatchConditions: []admission.MatchCondition{{Name: "ours", Expression: fmt.Sprintf("request.namespace == %q && request.name == 'db'", h.namespace)}},
			Validations:     []admission.Validation{{Expression: "false", MessageExpression: "'it holds ' + string(oldObject.data.password)"}},
		},
	}, metav1.CreateOptions{})
	h.must(err)
	_, err = policies.ValidatingAdmissionPolicyBindings().Create(h.Context(), &admission.ValidatingAdmissionPolicyBinding{
		ObjectMeta: meta,
		Spec:       admission.ValidatingAdmissionPolicyBindingSpec{PolicyName: meta.Name, ValidationActions: []admission.ValidationAction{admission.Deny}},
	}, metav1.CreateOptions{})
	h.must(err)
	end := func() {
		policies.ValidatingAdmissionPolicyBindings().Delete(context.Background(), meta.Name, metav1.DeleteOptions{})
		policies.ValidatingAdmissionPolicies().Delete(context.Background(), meta.Name, metav1.DeleteOptions{})
	}
	h.Cleanup(end)
	try := func(ctx context.Context) error {
		if operation == admission.Delete {
			return h.kube.CoreV1().Secrets(h.namespace).Delete(ctx, "db", metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}})
		}
		_, err := h.kube.CoreV1().Secrets(h.namespace).Patch(ctx, "db", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	h.until("the policy is in force", func(ctx context.Context) string {
		if err := try(ctx); err == nil || leaks([]byte(err.Error())) == nil {
			return fmt.Sprintf("the API server says %v", err)
		}
		return ""
	})
	return func() {
		end()
		h.until("the policy is gone", func(ctx context.Context) string {
			if err := try(ctx); err != nil {
				return err.Error()
			}
			return ""
		})
	}
}

func (h *hunt) look(what string, text []byte) {
	h.Helper()
	if found := leaks(text); found != nil {
		i := bytes.Index(text, []byte(canaries[0][:4]))
		h.Errorf("%s tells %s (%.200q)", what, strings.Join(found, ", "), text[max(0, i-50):min(len(text), max(0, i)+150)])
	}
}

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
	h := newHunt(t)
	// Somebody else has a Secret of a name that a service has, too.
	_, err := h.kube.CoreV1().Secrets(h.namespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "taken"}, StringData: map[string]string{"password": "another correct horse"},
	}, metav1.CreateOptions{FieldManager: "somebody"})
	h.must(err)
	d := h.start("{}")
	h.runs("app", "registry.example/app:1.0.0")
	d.line(0, "dev", "vault", "ready")
	d.line(0, "dev", "refused", "failed")
	d.line(0, "dev", "taken", "failed", "somebody")
	d.line(0, "dev", "unmade", "can not be made")
	first := h.secret(h.namespace, "db")
	h.ends(h.namespace, "checked", "it has "+h.secret(h.namespace, "checked")+" and "+first+"\n"+strings.Repeat("x", 5000)+first)
	h.masked("dev", "check(dev): checked")

	// Others change what holds it.
	mark := d.mark()
	other := metav1.PatchOptions{FieldManager: "somebody"}
	_, err = h.kube.CoreV1().Secrets(h.namespace).Patch(t.Context(), "db", types.MergePatchType, []byte(`{"stringData":{"password":"another"}}`), other)
	h.must(err)
	_, err = h.kube.AppsV1().Deployments(h.namespace).Patch(t.Context(), "app", types.StrategicMergePatchType,
		[]byte(`{"spec":{"template":{"spec":{"containers":[{"name":"main","env":[{"name":"PASSWORD","value":"another"}]}]}}}}`), other)
	h.must(err)
	d.line(mark, "drift", "Secret")
	d.line(mark, "drift", "Deployment")
	h.until("the drift is recorded", func(context.Context) string {
		if log := strings.Join(h.entries("dev"), "; "); !strings.Contains(log, "drifted(dev): vault") {
			return log
		}
		return ""
	})

	// While no daemon runs, a check ends, and the Secret that it had becomes
	// another one.
	d.stop()
	said := d.said(0)
	h.ends(h.namespace+"-other", "late", "it has "+h.secret(h.namespace+"-other", "db"))
	h.rotate("late", "one")
	d = h.start("{format: json, level: debug}")
	d.line(0, "other", "late", "ready")

	h.rotates(d, first)
	h.leaves(d)
	h.look("the inventory", []byte(fmt.Sprint(h.kept("pinion-dev"))))
	h.commands()
	h.answers(d)
	d.stop()
	h.look("the daemon's log", []byte(strings.Join(append(said, d.said(0)...), "\n")))
	h.files()
}

// rotate pushes another value of a service's Secret.
func (h *hunt) rotate(service, label string) {
	h.Helper()
	h.push("rotate "+service, strings.NewReplacer("NAME", service, "LABEL", label, "VALUES", h.fixture("values.json")).Replace(rotated))
}

// rotates changes a Secret, and has texts quote what it was before.
func (h *hunt) rotates(d *daemon, first string) {
	h.Helper()
	d.line(0, "dev", "vault", "ready")
	allow := h.denies(admission.Update)
	mark := d.mark()
	h.rotate("vault", "one")
	if line := d.line(mark, "vault", "denied request"); !strings.Contains(line, "it holds ***") {
		h.Errorf("nothing was cut out of %s", line)
	}
	allow()
	h.rotate("vault", "two")
	h.until("the Secret is another one", func(context.Context) string {
		if now := h.secret(h.namespace, "db"); now == first {
			return "it is what it was"
		}
		return ""
	})
	h.bump("app", "1.0.0", "1.1.0")
	now := h.secret(h.namespace, "db")
	h.crashes("it was " + first + ", and it is " + now)
	h.masked("dev", "failed(dev): app")
	h.crashes("it is " + now) // a command that a person runs does not know what was
}

// crashes has the app's new pod crash after it has written a log.
func (h *hunt) crashes(log string) {
	h.Helper()
	h.until("the app has a new pod", func(ctx context.Context) string {
		sets, err := h.kube.AppsV1().ReplicaSets(h.namespace).List(ctx, metav1.ListOptions{})
		h.must(err)
		for _, s := range sets.Items {
			if strings.HasSuffix(s.Spec.Template.Spec.Containers[0].Image, ":1.1.0") &&
				h.writes(ctx, h.namespace, "pod-template-hash="+s.Labels["pod-template-hash"], log, "crash-loop") {
				return ""
			}
		}
		return fmt.Sprintf("there are %d ReplicaSets", len(sets.Items))
	})
}

// leaves has a Secret pruned, which the API server refuses at first.
func (h *hunt) leaves(d *daemon) {
	h.Helper()
	allow := h.denies(admission.Delete)
	mark := d.mark()
	h.write("-- services/vault --\n")
	h.replace("environments/dev.yaml", "  vault:\n    image: registry.example/vault:1.0.0\n", "")
	d.line(mark, "delete Secret", "denied request")
	allow()
	d.line(mark, "pruned", "Secret")
}

// commands runs what a person can ask.
func (h *hunt) commands() {
	h.Helper()
	h.git("fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*")
	for _, args := range [][]string{
		{"status"}, {"status", "dev"}, {"status", "--live"}, {"log", "dev"}, {"log", "dev", "-v"}, {"log", "other", "-v"}, {"render", "dev"}, {"diff", "dev"}, {"apply", "dev"},
		{"why", "dev", "app"}, {"why", "dev", "refused"}, {"why", "dev", "unmade"}, {"why", "dev", "taken"}, {"where", "app"}, {"lint"}, {"audit"},
	} {
		for _, form := range [][]string{nil, {"-o", "json"}} {
			keyed := append(append([]string{}, args...), form...)
			if form != nil && (args[0] == "apply" || args[0] == "diff") {
				continue
			}
			switch args[0] {
			case "render", "diff", "apply", "lint":
				keyed = append(keyed, "--age-key-file", h.key)
			case "status":
				if len(args) > 1 && args[1] == "--live" {
					keyed = append(keyed, "--age-key-file", h.key)
				}
			}
			out, errs, _ := h.pinion(keyed...)
			h.look("pinion "+strings.Join(keyed, " "), []byte(out+errs))
		}
	}
}

// answers asks the daemon.
func (h *hunt) answers(d *daemon) {
	h.Helper()
	for _, path := range []string{"/metrics", "/healthz", "/readyz", "/api/v1/reports", "/api/v1/approvals"} {
		resp, err := http.Get("http://" + d.address + path)
		h.must(err)
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		h.must(err)
		h.look("GET "+path, body)
	}
}

// files looks through all that the remote and the daemon keep.
func (h *hunt) files() {
	h.Helper()
	objects := func(dir string) {
		out, err := exec.Command("git", "--git-dir="+dir, "cat-file", "--batch-all-objects", "--batch").Output()
		h.must(err)
		h.look("the objects of "+dir, out)
	}
	objects(h.remote)
	h.must(filepath.WalkDir(h.data, func(path string, e fs.DirEntry, err error) error {
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
			h.look(path, text)
		}
		return nil
	}))
}
