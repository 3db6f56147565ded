package check

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/internal/devtest"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
)

func TestMain(m *testing.M) { os.Exit(devtest.Main(m)) }

// stand is an environment in a namespace of its own.
type stand struct {
	*testing.T
	namespace string
	config    *rest.Config
	admin     *kubernetes.Clientset
	c         *cluster.Cluster
	r         *Runner
}

func newStand(t *testing.T, kubeconfig string) *stand {
	t.Helper()
	if kubeconfig == "" {
		kubeconfig = devtest.Cluster(t)
	}
	config, _, err := cluster.FromKubeconfig(kubeconfig, "")
	if err != nil {
		t.Fatal(err)
	}
	plain := rest.CopyConfig(config)
	plain.QPS = -1
	admin, err := kubernetes.NewForConfig(plain)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("t%x", sha256.Sum256([]byte(t.Name()+time.Now().String())))[:16]
	s := &stand{T: t, namespace: name, config: config, admin: admin}
	s.c, s.r = s.connect(config)
	if err := s.c.EnsureNamespace(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	return s
}

// connect is a start of the daemon.
func (s *stand) connect(config *rest.Config) (*cluster.Cluster, *Runner) {
	s.Helper()
	c, err := cluster.Connect(s.Context(), cluster.Config{Name: "test", REST: config, Timeout: 10 * time.Second})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(c.Close)
	return c, New(map[desired.ClusterName]*cluster.Cluster{"default": c}, Options{Interval: 50 * time.Millisecond})
}

// request asks for a check by a manifest.
func (s *stand) request(manifest string) Request {
	return Request{
		Environment: &desired.Environment{Name: "staging", Cluster: "default", Namespace: s.namespace},
		Service:     "web", Deployment: "web-4f1c2aa90b7e",
		Policy: &desired.Policy{
			Name: "smoke", File: "policies/smoke.yaml", Check: desired.CheckJob,
			Job: &desired.Job{Manifest: "policies/smoke-job.yaml"},
		},
		Pins: []desired.Pin{{Artifact: "web", Image: desired.Image{
			Reference: "ghcr.io/acme/web:1.4.2@sha256:" + strings.Repeat("2", 64), Repository: "ghcr.io/acme/web", Version: "1.4.2",
		}}},
		Tree: desired.Hashed(fstest.MapFS{"policies/smoke-job.yaml": &fstest.MapFile{Data: []byte(manifest)}}),
	}
}

// manifest is a Job whose pods behave as annotations say.
func manifest(annotations string) string {
	return `apiVersion: batch/v1
kind: Job
metadata: {name: smoke, labels: {team: shop}}
spec:
  ttlSecondsAfterFinished: 0
  template:
    metadata: {annotations: {` + annotations + `}}
    spec:
      containers:
      - name: smoke
        image: ghcr.io/acme/web:latest
        args: ["--url", "http://{service}.{namespace}.svc/{environment}"]
`
}

const (
	succeeds = ``
	fails    = `devcluster.pinion.dev/behavior: fail`
	hangs    = `devcluster.pinion.dev/behavior: never-ready`
	noImage  = `devcluster.pinion.dev/behavior: image-pull-error`
	writes   = `devcluster.pinion.dev/logs: "GET / 200\n\u001b[31mGET /cart 500\u001b[0m\n"`
)

func (s *stand) jobs() []batchv1.Job {
	s.Helper()
	list, err := s.admin.BatchV1().Jobs(s.namespace).List(s.Context(), metav1.ListOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return list.Items
}

// job returns the one Job that there is.
func (s *stand) job() batchv1.Job {
	s.Helper()
	all := s.jobs()
	if len(all) != 1 {
		s.Fatalf("there are %d Jobs, not one", len(all))
	}
	return all[0]
}

// started is a check that is being made.
type started struct {
	*stand
	said   chan string
	result chan Result
	err    error
	cancel context.CancelFunc
}

func (s *stand) start(r *Runner, q Request) *started {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 2*time.Minute)
	a := &started{stand: s, said: make(chan string, 1000), result: make(chan Result, 1), cancel: cancel}
	var wg sync.WaitGroup
	wg.Go(func() {
		var result Result
		result, a.err = r.Run(ctx, q, func(words string) { a.said <- words })
		a.result <- result
	})
	s.Cleanup(func() { cancel(); wg.Wait() })
	return a
}

// until waits until it says some words.
func (a *started) until(words string) {
	a.Helper()
	var all []string
	late := time.After(patience)
	for {
		select {
		case said := <-a.said:
			if strings.Contains(said, words) {
				return
			}
			all = append(all, said)
		case result := <-a.result:
			a.Fatalf("it is decided: %+v, %v; it has said %q, not %q", result, a.err, all, words)
		case <-late:
			a.Fatalf("it has said %q, not %q", all, words)
		}
	}
}

func (a *started) end() Result {
	a.Helper()
	select {
	case result := <-a.result:
		if a.err != nil {
			a.Fatal(a.err)
		}
		return result
	case <-time.After(patience):
		a.Fatal("it is not decided")
	}
	return Result{}
}

func TestJobSucceeds(t *testing.T) {
	t.Parallel()
	s := newStand(t, "")
	q := s.request(manifest(writes))
	q.Deadline = time.Now().Add(time.Hour)
	result := s.start(s.r, q).end()
	expect(t, result, ledger.Success, "Job.batch "+s.namespace+"/web-smoke-", " completed after ")
	if want := "GET / 200\nGET /cart 500"; result.Output != want || result.URL != "" {
		t.Errorf("%+v, want the output %q", result, want)
	}
	j := s.job()
	spec := j.Spec.Template.Spec
	if got := spec.Containers[0].Image; got != q.Pins[0].Image.Reference {
		t.Errorf("it ran %s", got)
	}
	if got := spec.Containers[0].Args[1]; got != "http://web."+s.namespace+".svc/staging" {
		t.Errorf("with the argument %s", got)
	}
	if spec.RestartPolicy != "Never" || *j.Spec.BackoffLimit != 0 || j.Spec.TTLSecondsAfterFinished != nil {
		t.Errorf("%+v", j.Spec)
	}
	if d := time.Duration(*j.Spec.ActiveDeadlineSeconds) * time.Second; d < 50*time.Minute || d > time.Hour+overtime {
		t.Errorf("Kubernetes ends it after %s", d)
	}
	if j.ManagedFields[0].Manager != cluster.Manager {
		t.Errorf("made by %s", j.ManagedFields[0].Manager)
	}
	for what, labels := range map[string]map[string]string{"the Job": j.Labels, "its pods": j.Spec.Template.Labels} {
		for key, value := range q.labels() {
			if labels[key] != value {
				t.Errorf("%s: %s is %q, want %q", what, key, labels[key], value)
			}
		}
		for _, key := range []string{render.LabelManagedBy, render.LabelService, render.LabelEnvironment} {
			if labels[key] != "" {
				t.Errorf("%s pass for an object of the service: %s: %s", what, key, labels[key])
			}
		}
	}
	if j.Labels["team"] != "shop" {
		t.Errorf("the label of the manifest is gone: %v", j.Labels)
	}
}

func TestJobFails(t *testing.T) {
	t.Parallel()
	s := newStand(t, "")
	result := s.start(s.r, s.request(manifest(fails+", "+writes))).end()
	expect(t, result, ledger.Failure, "failed", "BackoffLimitExceeded", "exit code 1")
	if want := "GET / 200\nGET /cart 500"; result.Output != want {
		t.Errorf("the output is %q, want %q", result.Output, want)
	}
}

// A service's objects are found by labels; those of checks are none of them,
// even if the manifest was copied from one.
func TestJobIsNoObjectOfTheService(t *testing.T) {
	t.Parallel()
	s := newStand(t, "")
	marks := render.LabelManagedBy + ": pinion, pinion.dev/environment: staging, pinion.dev/service: web"
	text := strings.Replace(manifest(succeeds), "{team: shop}", "{"+marks+"}", 1)
	text = strings.Replace(text, "metadata: {annotations: {}}", "metadata: {labels: {"+marks+"}, annotations: {pinion.dev/digest: x}}", 1)
	expect(t, s.start(s.r, s.request(text)).end(), ledger.Success)
	j := s.job()
	for _, labels := range []map[string]string{j.Labels, j.Spec.Template.Labels} {
		if labels[render.LabelManagedBy] != "" || labels[render.LabelService] != "" || labels[render.LabelEnvironment] != "" {
			t.Errorf("%v", labels)
		}
	}
	if j.Spec.Template.Annotations["pinion.dev/digest"] != "" {
		t.Errorf("%v", j.Spec.Template.Annotations)
	}
	scope := cluster.Scope{Environment: "staging", Namespace: s.namespace}
	if err := s.c.Watch(t.Context(), scope, []cluster.Kind{{Group: "batch", Kind: "Job"}, {Kind: "Pod"}}); err != nil {
		t.Fatal(err)
	}
	if seen := s.c.Observe(scope); !seen.Complete || len(seen.Objects) != 0 {
		t.Errorf("%+v", seen)
	}
}

func TestJobIsTakenOverAfterACrash(t *testing.T) {
	t.Parallel()
	s := newStand(t, "")
	q := s.request(manifest(hangs))
	first := s.start(s.r, q)
	first.until(" runs")
	first.cancel()
	if result := <-first.result; !errors.Is(first.err, context.Canceled) || result != (Result{}) {
		t.Errorf("%+v, %v", result, first.err)
	}
	_, r := s.connect(s.config)
	second := s.start(r, q)
	third := s.start(r, q) // and no harm comes of another one at the same time
	second.until(" runs")
	j := s.job()
	s.heal(j.Name)
	expect(t, second.end(), ledger.Success)
	expect(t, third.end(), ledger.Success)
	// And once more when it has ended.
	_, r = s.connect(s.config)
	expect(t, s.start(r, q).end(), ledger.Success)
	if again := s.job(); again.UID != j.UID {
		t.Error("it was run twice")
	}
}

// heal lets the pods of a Job succeed.
func (s *stand) heal(job string) {
	s.Helper()
	pods, err := s.admin.CoreV1().Pods(s.namespace).List(s.Context(), metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + job})
	if err != nil || len(pods.Items) == 0 {
		s.Fatalf("%d pods, %v", len(pods.Items), err)
	}
	for _, p := range pods.Items {
		if _, err := s.admin.CoreV1().Pods(s.namespace).Patch(s.Context(), p.Name, types.MergePatchType,
			[]byte(`{"metadata":{"annotations":{"devcluster.pinion.dev/behavior":"run"}}}`), metav1.PatchOptions{}); err != nil {
			s.Fatal(err)
		}
	}
}

// The answer to the request that creates the Job is lost.
func TestLostAnswerMakesNoSecondJob(t *testing.T) {
	t.Parallel()
	s := newStand(t, "")
	proxy := devtest.NewProxy(t, devtest.Cluster(t))
	config, _, err := cluster.FromKubeconfig(proxy.Kubeconfig, "")
	if err != nil {
		t.Fatal(err)
	}
	_, r := s.connect(config)
	lost := 0
	proxy.Do(func(w http.ResponseWriter, q *http.Request) bool {
		if q.Method != http.MethodPost || lost > 0 {
			return false
		}
		lost++
		var j batchv1.Job
		if err := json.NewDecoder(q.Body).Decode(&j); err != nil {
			t.Error(err)
		}
		if _, err := s.admin.BatchV1().Jobs(s.namespace).Create(q.Context(), &j, metav1.CreateOptions{}); err != nil {
			t.Error(err)
		}
		return devtest.Reset(w, q)
	})
	expect(t, s.start(r, s.request(manifest(succeeds))).end(), ledger.Success)
	if s.job(); lost != 1 {
		t.Errorf("%d answers were lost", lost)
	}
}

func TestRerunMakesAnotherJob(t *testing.T) {
	t.Parallel()
	s := newStand(t, "")
	q := s.request(manifest(fails))
	expect(t, s.start(s.r, q).end(), ledger.Failure)
	q.Run = 1
	q.Tree = s.request(manifest(succeeds)).Tree
	expect(t, s.start(s.r, q).end(), ledger.Success)
	if all := s.jobs(); len(all) != 2 {
		t.Errorf("there are %d Jobs", len(all))
	}
}

func TestJobIsDeletedBySomebody(t *testing.T) {
	t.Parallel()
	for _, propagation := range []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground} {
		t.Run(string(propagation), func(t *testing.T) {
			s := newStand(t, "")
			a := s.start(s.r, s.request(manifest(hangs)))
			a.until(" runs")
			if err := s.admin.BatchV1().Jobs(s.namespace).Delete(t.Context(), s.job().Name, metav1.DeleteOptions{PropagationPolicy: &propagation}); err != nil {
				t.Fatal(err)
			}
			expect(t, a.end(), ledger.Failure, "the Job was deleted")
			if n := len(s.jobs()); n != 0 {
				t.Errorf("there are %d Jobs", n)
			}
		})
	}
}

func TestCancelAndRecorded(t *testing.T) {
	t.Parallel()
	t.Run("cancel what runs", func(t *testing.T) {
		s := newStand(t, "")
		q := s.request(manifest(hangs))
		a := s.start(s.r, q)
		a.until(" runs")
		a.cancel()
		if err := s.r.Cancel(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		if n := len(s.jobs()); n != 0 {
			t.Errorf("there are %d Jobs", n)
		}
		if <-a.result; !errors.Is(a.err, context.Canceled) {
			t.Errorf("what was cancelled ends with %v", a.err)
		}
		if err := errors.Join(s.r.Cancel(t.Context(), q), s.r.Recorded(t.Context(), q)); err != nil {
			t.Errorf("once more: %v", err)
		}
	})
	t.Run("cancel what has ended", func(t *testing.T) {
		s := newStand(t, "")
		q := s.request(manifest(succeeds))
		s.start(s.r, q).end()
		if err := s.r.Cancel(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		if ttl := s.job().Spec.TTLSecondsAfterFinished; ttl == nil || *ttl != 3600 {
			t.Errorf("it goes after %v", ttl)
		}
	})
	t.Run("record what has ended", func(t *testing.T) {
		s := newStand(t, "")
		q := s.request(manifest(succeeds))
		s.start(s.r, q).end()
		for range 2 {
			if err := s.r.Recorded(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
		if j := s.job(); *j.Spec.TTLSecondsAfterFinished != 3600 || j.Spec.ActiveDeadlineSeconds != nil {
			t.Errorf("%+v", j.Spec)
		}
	})
	t.Run("record what runs", func(t *testing.T) {
		s := newStand(t, "")
		q := s.request(manifest(hangs))
		a := s.start(s.r, q)
		a.until(" runs")
		a.cancel()
		if err := s.r.Recorded(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		_, r := s.connect(s.config)
		expect(t, s.start(r, q).end(), ledger.Failure, "DeadlineExceeded")
		if ttl := s.job().Spec.TTLSecondsAfterFinished; ttl == nil || *ttl != 3600 {
			t.Errorf("it goes after %v", ttl)
		}
	})
	t.Run("another kind of check", func(t *testing.T) {
		q := asking("http://127.0.0.1", "status == 200")
		if err := errors.Join(quick().Recorded(t.Context(), q), quick().Cancel(t.Context(), q)); err != nil {
			t.Error(err)
		}
	})
}

// The request that creates the Job is under way when the check is called off.
func TestCancelWhileTheJobIsCreated(t *testing.T) {
	t.Parallel()
	s := newStand(t, "")
	proxy := devtest.NewProxy(t, devtest.Cluster(t))
	config, _, err := cluster.FromKubeconfig(proxy.Kubeconfig, "")
	if err != nil {
		t.Fatal(err)
	}
	_, r := s.connect(config)
	asked, cancelled := make(chan struct{}), make(chan error, 1)
	proxy.Do(func(w http.ResponseWriter, q *http.Request) bool {
		if q.Method != http.MethodPost {
			return false
		}
		close(asked)
		select {
		case err := <-cancelled:
			t.Errorf("nobody waited for the request: Cancel returned %v", err)
		case <-time.After(time.Second):
		}
		return false
	})
	q := s.request(manifest(hangs))
	a := s.start(r, q)
	<-asked
	a.cancel()
	cancelled <- r.Cancel(t.Context(), q)
	if err := <-cancelled; err != nil {
		t.Error(err)
	}
	if n := len(s.jobs()); n != 0 {
		t.Errorf("there are %d Jobs", n)
	}
}

func TestJobOfSomebodyElse(t *testing.T) {
	t.Parallel()
	s := newStand(t, "")
	q := s.request(manifest(succeeds))
	j, err := NewJob(q)
	if err != nil {
		t.Fatal(err)
	}
	body, err := j.JSON(time.Now(), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	var foreign batchv1.Job
	if err := json.Unmarshal(body, &foreign); err != nil {
		t.Fatal(err)
	}
	foreign.Labels = map[string]string{"app": "theirs"} // without any it would get those of its pods
	if _, err := s.admin.BatchV1().Jobs(s.namespace).Create(t.Context(), &foreign, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	expect(t, s.start(s.r, q).end(), ledger.Failure, "Job.batch "+s.namespace+"/"+foreign.Name, "is there already, and is not this check's")
	if err := errors.Join(s.r.Cancel(t.Context(), q), s.r.Recorded(t.Context(), q)); err != nil {
		t.Error(err)
	}
	if j := s.job(); j.Spec.TTLSecondsAfterFinished != nil {
		t.Error("it was touched")
	}
}

func TestJobThatCannotStart(t *testing.T) {
	t.Parallel()
	s := newStand(t, "")
	q := s.request(manifest(noImage))
	a := s.start(s.r, q)
	a.until("ImagePullBackOff")
	a.cancel()
	<-a.result
	// Taken over when its time is almost up.
	q.Deadline, q.Policy.Timeout = time.Now().Add(3*time.Second), 2*time.Hour
	result := s.start(s.r, q).end()
	expect(t, result, ledger.Failure, "not done within its timeout of 2h", "ImagePullBackOff")
	if !strings.HasPrefix(result.Output, "no logs: ") || strings.Contains(result.Output, "\n") {
		t.Errorf("the output is %q", result.Output)
	}
}

func TestJobThatEndedWhenTheTimeIsUp(t *testing.T) {
	t.Parallel()
	s := newStand(t, "")
	q := s.request(manifest(writes))
	expect(t, s.start(s.r, q).end(), ledger.Success)
	q.Deadline = time.Now().Add(-time.Hour)
	result := s.start(s.r, q).end()
	expect(t, result, ledger.Success)
	if result.Output == "" {
		t.Error("without its output")
	}
	q.Run++
	expect(t, s.start(s.r, q).end(), ledger.Failure, "could not be run within its time", "no time left to create it")
	s.job()
}

func TestManifestsThatAreRefused(t *testing.T) {
	t.Parallel()
	s := newStand(t, "")
	good := manifest(succeeds)
	const file = "policies/smoke-job.yaml"
	for _, test := range []struct{ name, text, words string }{
		{"another kind", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}", file + ":1:1: is Deployment (apps/v1), where one Job (batch/v1) is needed"},
		{"another version", strings.Replace(good, "batch/v1", "batch/v1beta1", 1), "is Job (batch/v1beta1)"},
		{"a list", "apiVersion: v1\nkind: List\nitems: []", "is List (v1)"},
		{"no object", "[1, 2]", "is a list, where one Job"},
		{"nothing", "# later\n", "is empty"},
		{"two documents", good + "---\n" + good, file + ":14:1: holds 2 objects"},
		{"no YAML", "a: [", file + ":"},
		{"a key twice", good + "spec: {}\n", `the key "spec" is there twice`},
		{"another namespace", strings.Replace(good, "{name: smoke", "{namespace: default, name: smoke", 1), "is for the namespace default, but the environment staging has the namespace " + s.namespace},
		{"a namespace that is none", strings.Replace(good, "{name: smoke", "{namespace: {service}, name: smoke", 1), "metadata.namespace is not a string; leave metadata.namespace out"},
		{"a template that is none", "apiVersion: batch/v1\nkind: Job\nspec: {template: []}", "spec.template is not an object"},
		{"labels that are none", strings.Replace(good, "{team: shop}", "[]", 1), "metadata.labels is not an object"},
		{"an unknown field", strings.Replace(good, "  template:", "  tempalte: {}\n  template:", 1), file + `: the API server refuses the Job: `},
		{"what the API server refuses", strings.Replace(good, "  template:", "  completions: -1\n  template:", 1), "spec.completions"},
		{"no file", "", file + ": there is no such file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			q := s.request(test.text)
			q.Deployment = test.name
			if test.text == "" {
				q.Tree = desired.Hashed(fstest.MapFS{})
			}
			expect(t, s.start(s.r, q).end(), ledger.Failure, test.words)
		})
	}
	if n := len(s.jobs()); n != 0 {
		t.Errorf("there are %d Jobs", n)
	}
	q := s.request(strings.Replace(good, "{name: smoke", `{namespace: "{namespace}", generateName: smoke-`, 1))
	expect(t, s.start(s.r, q).end(), ledger.Success)
}

func TestWhatTheManifestMaySay(t *testing.T) {
	t.Parallel()
	s := &stand{T: t, namespace: "shop"}
	text := `apiVersion: batch/v1
kind: Job
metadata: {resourceVersion: "1", annotations: {a: b, pinion.dev/commit: x}}
spec:
  backoffLimit: 3
  activeDeadlineSeconds: 60
  parallelism: 2
  template:
    spec:
      restartPolicy: OnFailure
      initContainers: [{name: a, image: web}, {name: b, image: "other/web:1"}]
      containers: [{name: c, image: "ghcr.io/acme/web@sha256:33"}]
status: {active: 1}
`
	q := s.request(text)
	j, err := NewJob(q)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	body, err := j.JSON(now, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	var k batchv1.Job
	if err := json.Unmarshal(body, &k); err != nil {
		t.Fatal(err)
	}
	pod := k.Spec.Template.Spec
	if *k.Spec.BackoffLimit != 3 || *k.Spec.Parallelism != 2 || *k.Spec.ActiveDeadlineSeconds != 60 || pod.RestartPolicy != "OnFailure" {
		t.Errorf("%+v", k.Spec)
	}
	pinned := q.Pins[0].Image.Reference
	if pod.InitContainers[0].Image != pinned || pod.InitContainers[1].Image != "other/web:1" || pod.Containers[0].Image != pinned {
		t.Errorf("%+v", pod)
	}
	if k.ResourceVersion != "" || k.Status.Active != 0 || len(k.Annotations) != 1 || k.Namespace != "shop" {
		t.Errorf("%+v %+v", k.ObjectMeta, k.Status)
	}
	if body, err = j.JSON(now, now.Add(-time.Hour)); err != nil || !strings.Contains(string(body), `"activeDeadlineSeconds":60`) {
		t.Errorf("%s, %v", body, err)
	}
	if text = strings.Replace(text, "backoffLimit: 3", "backoffLimitPerIndex: 1", 1); true {
		if j, err = NewJob(s.request(text)); err != nil {
			t.Fatal(err)
		}
		if spec := j.object["spec"].(map[string]any); spec["backoffLimit"] != nil {
			t.Errorf("%v", spec)
		}
	}
}

func TestNamesOfJobs(t *testing.T) {
	t.Parallel()
	s := &stand{T: t, namespace: "shop"}
	q := s.request(manifest(succeeds))
	seen := map[string]string{}
	for what, change := range map[string]func(*Request){
		"as it is":           func(*Request) {},
		"another run":        func(q *Request) { q.Run = 1 },
		"another deployment": func(q *Request) { q.Deployment = "web-2222" },
		"another environment": func(q *Request) {
			e := *q.Environment
			e.Name = "dev"
			q.Environment = &e
		},
		"a long service": func(q *Request) {
			q.Service = desired.ServiceName(strings.Repeat("a", 53) + "-" + strings.Repeat("b", 9))
		},
		"a longer one": func(q *Request) {
			q.Service = desired.ServiceName(strings.Repeat("a", 53) + "-" + strings.Repeat("b", 8))
		},
		"a candidate": func(q *Request) { q.Deployment = "candidate 1.4.2 4f1c 2026" },
	} {
		x := q
		change(&x)
		name := x.jobName()
		if other := seen[name]; other != "" {
			t.Errorf("%s has the name of %s", what, other)
		}
		seen[name] = what
		if len(name) > 63 || strings.Contains(name, "--") || !strings.HasPrefix(name, string(x.Service)[:3]) {
			t.Errorf("%s: %q", what, name)
		}
		if again := x.jobName(); again != name {
			t.Errorf("%s: %q and %q", what, name, again)
		}
		for key, value := range x.labels() {
			if !labelPattern.MatchString(value) {
				t.Errorf("%s: the label %s can't be %q", what, key, value)
			}
		}
	}
	if name := q.jobName(); !strings.HasPrefix(name, "web-smoke-") || len(name) != len("web-smoke-")+8 {
		t.Errorf("%q", name)
	}
}

// as connects as a service account that may do what rules say.
func (s *stand) as(name string) *Runner {
	s.Helper()
	config := rest.CopyConfig(s.config)
	config.Impersonate.UserName = "system:serviceaccount:" + s.namespace + ":" + name
	_, r := s.connect(config)
	return r
}

func TestNoPermission(t *testing.T) {
	t.Parallel()
	s := newStand(t, "")
	q := s.request(manifest(succeeds))
	q.Deadline = time.Now().Add(4 * time.Second)
	a := s.start(s.as("nobody"), q)
	a.until("may not get jobs.batch in namespace " + s.namespace + "; give it a Role")
	expect(t, a.end(), ledger.Failure, "could not be run within its time", "may not get jobs.batch")
	if n := len(s.jobs()); n != 0 {
		t.Errorf("there are %d Jobs", n)
	}
}

func TestNamespaceIsMade(t *testing.T) {
	t.Parallel()
	s := newStand(t, "")
	q := s.request(manifest(succeeds))
	q.Environment.Namespace = s.namespace + "-later"
	expect(t, s.start(s.r, q).end(), ledger.Success)
}

func TestQuotaIsWaitedFor(t *testing.T) {
	t.Parallel()
	s := newStand(t, "")
	quota := func(n string) {
		t.Helper()
		_, err := s.admin.CoreV1().ResourceQuotas(s.namespace).Patch(t.Context(), "jobs", types.ApplyPatchType,
			[]byte(`{"apiVersion":"v1","kind":"ResourceQuota","metadata":{"name":"jobs"},"spec":{"hard":{"count/jobs.batch":"`+n+`"}}}`), metav1.PatchOptions{FieldManager: "test"})
		if err != nil {
			t.Fatal(err)
		}
	}
	quota("0")
	// The API server hears of a quota a moment after it was written.
	probe := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "probe"}, Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{
		Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "main", Image: "registry.example/probe:1"}}}}}}
	for end := time.Now().Add(30 * time.Second); ; {
		_, err := s.admin.BatchV1().Jobs(s.namespace).Create(t.Context(), probe, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil && strings.Contains(err.Error(), "exceeded quota") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the quota does not hold: %v", err)
		}
	}
	a := s.start(s.r, s.request(manifest(succeeds)))
	a.until("exceeded quota")
	quota("1")
	expect(t, a.end(), ledger.Success)
	// What is there is taken over, though there is no room for another one.
	_, r := s.connect(s.config)
	expect(t, s.start(r, s.request(manifest(succeeds))).end(), ledger.Success)
}

func TestUnknownCluster(t *testing.T) {
	t.Parallel()
	q := (&stand{T: t, namespace: "shop"}).request(manifest(succeeds))
	q.Environment.Cluster = "moon"
	_, err := quick().Run(t.Context(), q, nil)
	if err == nil || !strings.Contains(err.Error(), `no cluster "moon"`) {
		t.Error(err)
	}
}

// The API server goes away while a Job runs, and while one is to be created.
func TestOutage(t *testing.T) {
	t.Parallel()
	control := devtest.Start(t)
	s := newStand(t, control.Kubeconfig)
	running, ended, later := s.request(manifest(hangs)), s.request(manifest(hangs)), s.request(manifest(succeeds))
	ended.Deployment, later.Deployment = "web-2222", "web-3333"
	a, b := s.start(s.r, running), s.start(s.r, ended)
	a.until(" runs")
	b.until(" runs")

	control.Kill()
	a.until("as last seen")
	c := s.start(s.r, later)
	c.until("can't reach the API server")
	control.Restart(t)

	expect(t, c.end(), ledger.Success)
	// Somebody deletes one, and the other one succeeds.
	if err := s.admin.BatchV1().Jobs(s.namespace).Delete(t.Context(), ended.jobName(), metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationBackground)}); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	s.heal(running.jobName())
	expect(t, a.end(), ledger.Success)
	expect(t, b.end(), ledger.Failure, "the Job was deleted")

	// It hangs without a word.
	later.Deployment = "web-4444"
	control.Pause()
	d := s.start(s.r, later)
	d.until("did not answer in time")
	control.Resume()
	expect(t, d.end(), ledger.Success)
}
