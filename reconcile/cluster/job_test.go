package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/pinion-cd/pinion/internal/devtest"
	"github.com/pinion-cd/pinion/reconcile/cluster"
)

// job returns the JSON of a Job with our labels, whose pods behave as
// annotations say.
func job(t *testing.T, name, annotations string) []byte {
	t.Helper()
	mark := "{" + cluster.LabelCheck + ": smoke, " + cluster.LabelCheckDeployment + ": " + name + "}"
	body, err := yaml.YAMLToJSON(fmt.Appendf(nil, `
apiVersion: batch/v1
kind: Job
metadata: {name: %s, labels: %s}
spec:
  backoffLimit: 0
  template:
    metadata: {labels: %s, annotations: {%s}}
    spec: {restartPolicy: Never, containers: [{name: a, image: "a:1"}]}
`, name, mark, mark, annotations))
	if err != nil {
		t.Fatal(err)
	}
	return body
}

const (
	jobHangs = "devcluster.pinion.dev/behavior: never-ready"
	jobFails = "devcluster.pinion.dev/behavior: fail"
)

func (s *stand) createJob(c *cluster.Cluster, name, annotations string) *cluster.Job {
	s.Helper()
	j, created, err := c.CreateJob(s.ctx, s.namespace, name, job(s.T, name, annotations))
	if err != nil || !created {
		s.Fatalf("created: %v, %v", created, err)
	}
	return j
}

func TestJobs(t *testing.T) {
	s := newStand(t, "")
	if j, err := s.c.FindJob(s.ctx, s.namespace, "smoke"); j != nil || err != nil {
		t.Errorf("before it is there: %+v, %v", j, err)
	}
	made := s.createJob(s.c, "smoke", jobFails)
	again, created, err := s.c.CreateJob(s.ctx, s.namespace, "smoke", job(t, "smoke", ""))
	if err != nil || created || again.UID != made.UID || again.Labels[cluster.LabelCheck] != "smoke" {
		t.Errorf("made twice: %+v, %v, %v", again, created, err)
	}
	last, err := s.c.FollowJob(s.ctx, made, func(cluster.Job) {})
	if err != nil || last.Phase != cluster.JobFailed || !strings.HasPrefix(last.Reason, "BackoffLimitExceeded: ") || last.Ended.IsZero() || last.UID != made.UID {
		t.Errorf("%+v, %v", last, err)
	}
	found, err := s.c.FindJob(s.ctx, s.namespace, "smoke")
	if err != nil || !found.Done() || found.Reason != last.Reason {
		t.Errorf("%+v, %v", found, err)
	}
	if _, _, err := s.c.CreateJob(s.ctx, "nowhere-at-all", "x", job(t, "x", "")); err == nil {
		t.Error("made in no namespace")
	} else {
		as[*cluster.NamespaceError](t, err, "nowhere-at-all")
	}
	_, _, err = s.c.CreateJob(s.ctx, s.namespace, "x", []byte(`{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"x"},"spec":{"tempalte":{}}}`))
	as[*cluster.InvalidError](t, err, "tempalte")
}

func TestLogsOfAJob(t *testing.T) {
	s := newStand(t, "")
	text := strings.Repeat("x", 30_000) + "\n" + strings.Repeat("a line\n", 100) + "the last"
	quoted, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	j := s.createJob(s.c, "smoke", jobFails+", devcluster.pinion.dev/logs: "+string(quoted))
	last, err := s.c.FollowJob(s.ctx, j, func(cluster.Job) {})
	if err != nil {
		t.Fatal(err)
	}
	for lines, want := range map[int]string{2: "a line\nthe last\n", 101: strings.Repeat("a line\n", 4) + "the last\n", 1000: strings.Repeat("a line\n", 4) + "the last\n"} {
		logs, trouble, err := s.c.JobLogs(s.ctx, &last, lines, 40)
		if err != nil || len(logs) != 1 || logs[0].Container != "a" || logs[0].Err != nil || string(logs[0].Text) != want {
			t.Errorf("%d lines: %q, %v, want %q", lines, logs, err, want)
		}
		if !strings.HasPrefix(trouble, "pod smoke-") || !strings.Contains(trouble, "exit code 1") {
			t.Errorf("the trouble is %q", trouble)
		}
	}
	// Of another Job with the same labels.
	other := last
	other.UID = "other"
	if _, _, err := s.c.JobLogs(s.ctx, &other, 1, 1); err == nil || !strings.Contains(err.Error(), "there are none any more") {
		t.Error(err)
	}
}

// Only the API server's word about this very Job counts as "not there".
func TestJobThatIsSaidToBeGone(t *testing.T) {
	s := newStand(t, "")
	proxy := devtest.NewProxy(t, devtest.Cluster(t))
	c := connect(t, restConfig(t, proxy.Kubeconfig))
	j := s.createJob(c, "smoke", jobHangs)

	// What stands before the API server knows of nothing.
	proxy.Do(devtest.Status(http.StatusNotFound))
	if found, err := c.FindJob(s.ctx, s.namespace, "smoke"); found != nil || err == nil {
		t.Errorf("%+v, %v", found, err)
	} else if _, retry := cluster.Retry(err); !retry {
		t.Errorf("it does not pass by itself: %v", err)
	}
	proxy.Do(nil)

	// A list that is empty, as one that is read from a cache that is behind.
	const ahead = "999999999"
	var empty, asked atomic.Int32
	proxy.Do(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.HasSuffix(r.URL.Path, "/jobs") && r.URL.Query().Get("sendInitialEvents") != "":
			return devtest.Status(http.StatusUnprocessableEntity)(w, r) // an API server without streamed lists
		case strings.HasSuffix(r.URL.Path, "/jobs") && r.URL.Query().Get("watch") == "":
			version := map[bool]string{true: "1", false: ahead}[empty.Add(1) == 1]
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"apiVersion":"batch/v1","kind":"JobList","metadata":{"resourceVersion":%q},"items":[]}`, version)
			return true
		case strings.HasSuffix(r.URL.Path, "/jobs/smoke"):
			asked.Add(1)
		case strings.HasSuffix(r.URL.Path, "/jobs"):
			return devtest.Status(http.StatusGone)(w, r) // so that it lists again
		}
		return false
	})
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		// The second list is not behind: then the Job itself is asked for.
		s.untilSeen(func() string {
			if asked.Load() == 0 {
				return "it was not asked for"
			}
			return ""
		})
		// A watch from there on would wait for what the API server never comes to.
		proxy.Do(func(w http.ResponseWriter, r *http.Request) bool {
			return r.URL.Query().Get("resourceVersion") == ahead && devtest.Status(http.StatusGone)(w, r)
		})
		if err := s.admins("batch", "v1", "jobs").Delete(s.ctx, "smoke", metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	last, err := c.FollowJob(ctx, j, func(cluster.Job) {})
	if err != nil || last.Phase != cluster.JobGone {
		t.Errorf("%+v, %v", last, err)
	}
	if empty.Load() < 2 {
		t.Errorf("it was listed %d times", empty.Load())
	}
}

func TestAnotherJobOfTheName(t *testing.T) {
	s := newStand(t, "")
	j := s.createJob(s.c, "smoke", jobHangs)
	if err := s.c.DeleteJob(s.ctx, j); err != nil {
		t.Fatal(err)
	}
	s.untilSeen(func() string {
		if there, err := s.c.FindJob(s.ctx, s.namespace, "smoke"); there != nil || err != nil {
			return fmt.Sprint(there, err)
		}
		return ""
	})
	other := s.createJob(s.c, "smoke", jobHangs)
	if last, err := s.c.FollowJob(s.ctx, j, func(cluster.Job) {}); err != nil || last.Phase != cluster.JobGone || last.UID != j.UID {
		t.Errorf("%+v, %v", last, err)
	}
	if err := s.c.DeleteJob(s.ctx, j); err != nil {
		t.Errorf("delete the one that is gone: %v", err)
	}
	if err := s.c.ExpireJob(s.ctx, &cluster.Job{Ref: j.Ref, UID: j.UID, Phase: cluster.JobFailed}, time.Second); err == nil {
		t.Error("another Job than was meant expires")
	}
	if there, err := s.c.FindJob(s.ctx, s.namespace, "smoke"); err != nil || there == nil || there.UID != other.UID || there.Deleting {
		t.Errorf("%+v, %v", there, err)
	}
	if err := errors.Join(s.c.DeleteJob(s.ctx, other), s.c.ExpireJob(s.ctx, j, time.Second)); err != nil {
		t.Error(err)
	}
}

func TestDeniedJobs(t *testing.T) {
	s := newStand(t, "")
	if denied, err := s.c.DeniedJobs(s.ctx, s.namespace); err != nil || len(denied) != 0 {
		t.Errorf("%q, %v", denied, err)
	}
	config := rest.CopyConfig(s.config)
	config.Impersonate.UserName = "nobody"
	denied, err := connect(t, config).DeniedJobs(s.ctx, s.namespace)
	if want := "create jobs.batch in namespace " + s.namespace; err != nil || !strings.Contains(strings.Join(denied, "\n"), want) {
		t.Errorf("%q, %v", denied, err)
	}
}
