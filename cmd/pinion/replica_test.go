package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pinion-cd/pinion/api"
	"github.com/pinion-cd/pinion/internal/devtest"
)

// The times of the leases in tests.
const (
	testLease    = 3 * time.Second
	testDeadline = 2 * time.Second
	testRetry    = 500 * time.Millisecond
)

const replicaToken = "a token of the tests"

// written is a write that a replica has sent to the API server.
type written struct {
	at        time.Time
	replica   string
	namespace string
	what      string
}

// recorder notes who writes what. It stands in front of the API server, with
// a proxy for each replica.
type recorder struct {
	mu     sync.Mutex
	writes []written // guarded by mu
}

// of returns the writes that f chooses.
func (r *recorder) of(f func(written) bool) (some []written) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range r.writes {
		if f(x) {
			some = append(some, x)
		}
	}
	return some
}

var inNamespace = regexp.MustCompile(`/namespaces/([^/]+)/`)

// note is for a proxy: it notes what a replica writes, but for its leases.
func (r *recorder) note(replica string, req *http.Request) {
	if req.Method == http.MethodGet || req.URL.Query().Get("dryRun") != "" || strings.Contains(req.URL.Path, "/leases") {
		return
	}
	x := written{at: time.Now(), replica: replica, what: req.Method + " " + req.URL.Path}
	if m := inNamespace.FindStringSubmatch(req.URL.Path); m != nil {
		x.namespace = m[1]
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes = append(r.writes, x)
}

// member is a replica with what stands between it and the API server.
type member struct {
	*daemon
	name  string
	proxy *devtest.Proxy
}

// replica starts a daemon beside others. harm is asked before each request is
// served and after it was noted; nil: none.
func (w *world) replica(r *recorder, name string, harm devtest.Harm, args ...string) *member {
	w.Helper()
	p := devtest.NewProxy(w.T, w.kubeconfig)
	p.Do(func(rw http.ResponseWriter, req *http.Request) bool {
		r.note(name, req)
		return harm != nil && harm(rw, req)
	})
	dir := w.TempDir()
	config, secret := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "secret")
	w.must(os.WriteFile(secret, []byte("sesame\n"), 0o600))
	w.must(os.WriteFile(config, fmt.Appendf(nil, `apiVersion: pinion.dev/v1
kind: Config
leaderElection: {namespace: %s, leaseDuration: %s, renewDeadline: %s, retryPeriod: %s}
forge: {kind: gitea, webhookSecretFile: %s}
tokens:
- {principal: ci, sha256: %x}
`, w.leaseNamespace(), testLease, testDeadline, testRetry, secret, sha256.Sum256([]byte(replicaToken))), 0o600))
	through := *w
	through.kubeconfig = p.Kubeconfig
	return &member{through.daemon(w.TempDir(), append([]string{"--config", config}, args...)...), name, p}
}

func (w *world) leaseNamespace() string { return w.namespace + "-pinion" }

func (w *world) makeLeaseNamespace() {
	w.Helper()
	_, err := w.kube.CoreV1().Namespaces().Create(w.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.leaseNamespace()}}, metav1.CreateOptions{})
	w.must(err)
	w.Cleanup(func() {
		w.kube.CoreV1().Namespaces().Delete(context.Background(), w.leaseNamespace(), metav1.DeleteOptions{})
	})
}

func (m *member) leads() bool { return m.metric("pinion_leader", `lease="pinion"`) == 1 }

// get asks a replica over HTTP.
func (m *member) get(path string) (int, string) {
	m.Helper()
	resp, err := http.Get("http://" + m.address + path)
	m.must(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	m.must(err)
	return resp.StatusCode, string(body)
}

// takesOver waits until a replica leads, and returns how long that took.
func (m *member) takesOver(since time.Time) time.Duration {
	m.Helper()
	m.until(m.name+" leads", func(context.Context) string {
		if !m.leads() {
			return "it does not"
		}
		return ""
	})
	return time.Since(since)
}

// led is one service, of which CI reports.
const led = `
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
rollout: {timeout: 60s}
-- services/web/web.yaml --
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: web}]
-- pipelines/default.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: ["*"]
stages:
- environment: dev
  verify: [e2e]
-- policies/e2e.yaml --
apiVersion: pinion.dev/v1
kind: Policy
report: {by: [ci]}
`

func TestLeaderIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, led)
	w.makeLeaseNamespace()
	leases := w.watchLeases()
	var all recorder
	elect := "--leader-elect"
	a := w.replica(&all, "a", nil, elect)
	a.takesOver(time.Now())
	b := w.replica(&all, "b", nil, elect)
	w.runs("web", "registry.example/web:1.0.0")

	// The standby is warm: it knows the commit, and is ready to take over.
	b.until("the standby is ready", func(context.Context) string {
		if code, said := b.get("/readyz"); code != http.StatusOK {
			return said
		}
		return ""
	})
	if code, _ := b.get("/healthz"); code != http.StatusOK {
		t.Errorf("/healthz of a standby answers %d", code)
	}
	if b.leads() {
		t.Fatal("two replicas lead")
	}
	w.replace("environments/dev.yaml", "web:1.0.0", "web:1.1.0")
	w.runs("web", "registry.example/web:1.1.0")
	a.line(0, "completed(dev): web 1.0.0 → 1.1.0")

	// What is reported to the standby reaches the leader, once.
	body, _ := json.Marshal(api.Report{Environment: "dev", Service: "web", Policy: "e2e", Status: "success", Version: "1.1.0"})
	post := func(m *member, forwarded string) (int, string) {
		req, err := http.NewRequest(http.MethodPost, "http://"+m.address+api.ReportsPath, bytes.NewReader(body))
		w.must(err)
		req.Header.Set("Authorization", "Bearer "+replicaToken)
		if forwarded != "" {
			req.Header.Set(forwardedBy, forwarded)
		}
		resp, err := http.DefaultClient.Do(req)
		w.must(err)
		defer resp.Body.Close()
		said, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(said)
	}
	if code, said := post(b, "c"); code != http.StatusServiceUnavailable || !strings.Contains(said, "not-ours") || !strings.Contains(said, "kept by replica") {
		t.Errorf("what was forwarded already is answered with %d: %s", code, said)
	}
	if code, said := post(b, ""); code != http.StatusOK {
		t.Fatalf("a report to the standby is answered with %d: %s", code, said)
	}
	a.line(0, "verified(dev): web")
	if some := all.of(func(x written) bool { return x.replica == "b" }); len(some) > 0 {
		t.Errorf("the standby has written: %v", some)
	}

	// It ends as a supervisor ends it: the lease is given up, and taken at once.
	began := time.Now()
	a.stop()
	took := b.takesOver(began)
	t.Logf("SIGTERM: the standby leads after %s", took)
	changed := func(times int) []held {
		t.Helper()
		w.until("the lease's changes are seen", func(context.Context) string {
			if h := leases(); len(h) < times {
				return fmt.Sprintf("%+v", h)
			}
			return ""
		})
		return leases()
	}
	if h := changed(3); len(h) != 3 || h[1].by != "" {
		t.Errorf("a standby leads after a SIGTERM, and the lease was not given up: %+v", h)
	}
	mark := b.mark()
	w.replace("environments/dev.yaml", "web:1.1.0", "web:1.2.0")
	w.runs("web", "registry.example/web:1.2.0")
	b.line(mark, "completed(dev): web 1.1.0 → 1.2.0")

	// It is killed: the lease runs out.
	c := w.replica(&all, "c", nil, elect)
	c.until("the standby has seen the lease", func(context.Context) string {
		if code, said := c.get("/readyz"); code != http.StatusOK {
			return said
		}
		return ""
	})
	began = time.Now()
	b.kill()
	took = c.takesOver(began)
	t.Logf("SIGKILL: the standby leads after %s, with a lease of %s", took, testLease)
	if h := changed(4); len(h) != 4 || h[3].idle < testLease {
		t.Errorf("the standby has taken the lease before it ran out after %s: %+v", testLease, h)
	}
	w.replace("environments/dev.yaml", "web:1.2.0", "web:1.3.0")
	w.runs("web", "registry.example/web:1.3.0")
	c.line(0, "completed(dev): web 1.2.0 → 1.3.0")
	for _, m := range []*member{a, b, c} {
		m.never(0, "another daemon")
	}
	w.audited()
}

// A webhook that comes to a standby reaches who leads, which would look in an hour.
func TestWebhookReachesTheLeader(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop("web"))
	w.makeLeaseNamespace()
	w.serve()
	var all recorder
	args := []string{"--leader-elect", "--poll", "1h"}
	a := w.replica(&all, "a", nil, args...)
	a.takesOver(time.Now())
	b := w.replica(&all, "b", nil, args...)
	b.until("the standby knows who leads", func(context.Context) string {
		if code, said := b.get("/readyz"); code != http.StatusOK {
			return said
		}
		return ""
	})
	a.line(0, "[1/1 done]")
	second := w.bump("web", "1.0.0", "1.1.0")
	mark := a.mark()
	if got := b.hook([]byte(`{}`)); got != http.StatusAccepted {
		t.Fatalf("the delivery is answered with %d", got)
	}
	a.line(mark, second[:12])
	w.shows(map[string]wanted{"web": {"1.1.0", second}})
	if b.leads() {
		t.Error("the standby leads")
	}
}

// audited expects an audit of the world's repository to find nothing.
func (w *world) audited() {
	w.Helper()
	w.git("fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*")
	if out, errs, code := w.pinion("audit"); code != 0 {
		w.Errorf("pinion audit ends with %d:\n%s%s", code, out, errs)
	}
}

// A leader is stopped in the middle of an apply, for longer than its lease
// lasts, and goes on when another one leads.
func TestStoppedLeaderWritesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, led)
	w.makeLeaseNamespace()
	var all recorder
	held, release, answered := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	hold := false
	a := w.replica(&all, "a", func(_ http.ResponseWriter, req *http.Request) bool {
		mu.Lock()
		mine := hold && req.URL.Query().Get("dryRun") != ""
		if mine {
			hold = false
		}
		mu.Unlock()
		if mine {
			body, _ := io.ReadAll(req.Body) // what is not sent yet will not be soon
			req.Body = io.NopCloser(bytes.NewReader(body))
			context.AfterFunc(req.Context(), func() { close(answered) })
			close(held)
			<-release // and then it is served
		}
		return false
	}, "--leader-elect")
	a.takesOver(time.Now())
	b := w.replica(&all, "b", nil, "--leader-elect")
	w.runs("web", "registry.example/web:1.0.0")
	a.line(0, "completed(dev): web")

	// a waits for the answer to its dry run; what comes next is an apply.
	mu.Lock()
	hold = true
	mu.Unlock()
	w.replace("environments/dev.yaml", "web:1.0.0", "web:1.1.0")
	<-held
	stopped := time.Now()
	w.must(a.cmd.Process.Signal(syscall.SIGSTOP))
	took := b.takesOver(stopped)
	t.Logf("SIGSTOP: the standby leads after %s", took)
	w.runs("web", "registry.example/web:1.1.0")
	w.replace("environments/dev.yaml", "web:1.1.0", "web:1.2.0")
	w.runs("web", "registry.example/web:1.2.0")
	b.line(0, "completed(dev): web 1.1.0 → 1.2.0")

	// The answer waits for it when it goes on.
	mark := a.mark()
	close(release)
	<-answered
	w.must(a.cmd.Process.Signal(syscall.SIGCONT))
	a.line(mark, "lease lost")
	a.line(mark, "commit "+w.git("rev-parse", "HEAD")[:12]) // it follows again, as a standby
	w.replace("environments/dev.yaml", "web:1.2.0", "web:1.3.0")
	w.runs("web", "registry.example/web:1.3.0")
	b.line(0, "completed(dev): web 1.2.0 → 1.3.0")
	if some := all.of(func(x written) bool { return x.replica == "a" && x.at.After(stopped) }); len(some) > 0 {
		t.Errorf("after it was stopped, the old leader has written: %v", some)
	}
	// The fence is of use to nobody who can't come back.
	began := time.Now()
	b.kill()
	a.takesOver(began)
	w.replace("environments/dev.yaml", "web:1.3.0", "web:1.4.0")
	w.runs("web", "registry.example/web:1.4.0")
	a.line(mark, "completed(dev): web 1.3.0 → 1.4.0")
	a.never(0, "another daemon")
	w.audited()
}
