package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

var webhooks = resource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"}

// asks has the API server ask a webhook about the ConfigMaps of the world's
// namespace that are of some services.
func (w *world) asks(client string, seconds int, services ...string) (name string) {
	w.Helper()
	name = w.namespace + ".example"
	w.create(webhooks, fmt.Sprintf(`
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: %s}
webhooks:
- name: check.%[1]s
  clientConfig: %s
  failurePolicy: Fail
  timeoutSeconds: %d
  sideEffects: None
  admissionReviewVersions: [v1]
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %s}}
  objectSelector: {matchExpressions: [{key: pinion.dev/service, operator: In, values: [%s]}]}
  rules: [{apiGroups: [""], apiVersions: [v1], resources: [configmaps], operations: [CREATE, UPDATE], scope: Namespaced}]
`, name, client, seconds, w.namespace, strings.Join(services, ", ")))
	return name
}

// create creates what lies in no namespace; it goes with the test.
func (w *world) create(r resource, manifest string) {
	w.Helper()
	var u unstructured.Unstructured
	w.must(yaml.Unmarshal([]byte(manifest), &u.Object))
	_, err := w.dynamic.Resource(schema.GroupVersionResource(r)).Create(w.Context(), &u, metav1.CreateOptions{})
	w.must(err)
	w.Cleanup(func() { w.remove(r, u.GetName()) })
}

func (w *world) remove(r resource, name string) {
	// The test's own context is over when it is tidied up.
	w.dynamic.Resource(schema.GroupVersionResource(r)).Delete(context.Background(), name, metav1.DeleteOptions{})
}

// nobody returns an address of the loopback interface where nobody listens.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// allower is a webhook that allows everything.
func allower(t *testing.T, address string) (bundle string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var review struct{ Request struct{ UID string } }
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &review)
		}
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(rw, `{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": %q, "allowed": true}}`, review.Request.UID)
	}))
	s.Listener.Close()
	s.Listener = l
	s.StartTLS()
	t.Cleanup(s.Close)
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

// settingsOf is a repository of services with some ConfigMaps each.
func settingsOf(n int, names ...string) string {
	var b strings.Builder
	b.WriteString(environment("dev", "NAMESPACE", names...))
	for _, name := range names {
		fmt.Fprintf(&b, "-- services/%s/%[1]s.yaml --\n", name)
		for i := range n {
			fmt.Fprintf(&b, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s-%d}\ndata: {greeting: hello}\n", name, i)
		}
	}
	return b.String()
}

// What an APIService names has no backend: what is of its group is named, and
// asked for again, and others are untouched.
func TestAPIServiceWithoutABackend(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settingsOf(3, "app", "other"))
	group := w.namespace + ".example"
	services := resource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"}
	w.create(services, fmt.Sprintf("apiVersion: apiregistration.k8s.io/v1\nkind: APIService\nmetadata: {name: v1.%s}\nspec: {group: %[1]s, version: v1, groupPriorityMinimum: 100, versionPriority: 10, insecureSkipTLSVerify: true, service: {namespace: %s, name: backend}}", group, w.namespace))
	w.write("-- services/app/more.yaml --\napiVersion: " + group + "/v1\nkind: Thing\nmetadata: {name: thing}\n")
	w.push("a thing", "")
	d := w.daemon(t.TempDir())
	t.Log(d.line(0, "failed dev/app", group))
	t.Log(d.line(0, "failed dev/app", "the API server can't reach what serves "+group))
	d.line(0, "ready dev/other")
	if w.here(t.Context(), configMaps, "app-0") {
		t.Error("the service is half applied")
	}
	mark := d.mark()
	w.push("without it", "-- services/app/more.yaml --\n")
	d.line(mark, "[2/2 done] ready dev/app")
}

// A webhook that can't be reached is named, delays no other service, and the
// service is applied soon after the webhook answers.
func TestWebhookThatAnswersLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settingsOf(3, "app", "other"))
	address := nobody(t)
	name := w.asks(fmt.Sprintf(`{url: "https://%s/check"}`, address), 2, "app")
	d := w.daemon(t.TempDir())
	line := d.line(0, "dev/app", "the API server can't reach the admission webhook", `check.`+name)
	t.Log(line)
	for _, word := range []string{address, "refused"} {
		if !strings.Contains(line, word) {
			t.Errorf("it does not say %q: %s", word, line)
		}
	}
	d.line(0, "ready dev/other")
	if w.here(t.Context(), configMaps, "app-0") {
		t.Error("something of the service is applied")
	}
	bundle := allower(t, address)
	mark := d.mark()
	_, err := w.dynamic.Resource(schema.GroupVersionResource(webhooks)).Patch(t.Context(), name, types.JSONPatchType,
		[]byte(`[{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": "`+bundle+`"}]`), metav1.PatchOptions{})
	w.must(err)
	d.line(mark, "[2/2 done] ready dev/app")
}

// So is one behind a Service that is not there, and the service is applied soon
// after the webhook is removed.
func TestWebhookBehindAServiceThatIsNotThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settingsOf(3, "app", "other"))
	name := w.asks(fmt.Sprintf("{service: {namespace: %s, name: admission, path: /check}}", w.namespace), 2, "app")
	d := w.daemon(t.TempDir())
	line := d.line(0, "dev/app", "the API server can't reach the admission webhook", "check."+name)
	t.Log(line)
	if !strings.Contains(line, "(Service "+w.namespace+"/admission)") {
		t.Errorf("it does not name the Service: %s", line)
	}
	d.line(0, "ready dev/other")
	mark := d.mark()
	w.remove(webhooks, name)
	d.line(mark, "[2/2 done] ready dev/app")
}

// Services whose webhook never answers do not hold the places of others.
func TestWebhookThatHangs(t *testing.T) {
	t.Parallel()
	hung := []string{"app", "bpp", "cpp", "dpp", "epp"}
	w := newWorld(t, settingsOf(12, append(hung, "other")...))
	d := w.daemon(t.TempDir())
	d.line(0, "[6/6 done]")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	t.Cleanup(func() { l.Close() })
	met := make(chan struct{}, 1000)
	var late atomic.Int32 // calls that the API server has given up
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			met <- struct{}{}
			go func() {
				io.Copy(io.Discard, c)
				late.Add(1)
			}()
		}
	}()
	name := w.asks(fmt.Sprintf(`{url: "https://%s/check"}`, l.Addr()), 30, hung...)
	mark := d.mark()
	w.greet("goodbye", hung...)
	<-met
	<-met
	w.greet("goodbye", "other")
	d.line(mark, "applied dev/other")
	if n := late.Load(); n > 0 {
		t.Errorf("other waited until the API server had given up %d calls of the webhook", n)
	}
	d.never(mark, "applied dev/app")
	w.remove(webhooks, name)
	d.line(mark, "[6/6 done]")
}

// greet changes all ConfigMaps of services, and pushes that.
func (w *world) greet(greeting string, services ...string) {
	w.Helper()
	for _, s := range services {
		w.edit("services/"+s+"/"+s+".yaml", "greeting: hello", "greeting: "+greeting)
	}
	w.push("greet", "")
}
