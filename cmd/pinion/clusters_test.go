package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/pinion-cd/pinion/internal/devtest"
)

// threeClusters is a repository whose pipeline goes over three clusters. The
// service app is pinned in each environment by people; web is promoted.
const threeClusters = `
-- environments/dev.yaml --
apiVersion: pinion.dev/v1
kind: Environment
cluster: a
namespace: NAMESPACE
pins:
  app:
    image: registry.example/app:1.0.0
  web:
    image: registry.example/web:1.0.0
-- environments/staging.yaml --
apiVersion: pinion.dev/v1
kind: Environment
cluster: b
namespace: NAMESPACE
pins:
  app:
    image: registry.example/app:1.0.0
  web:
    image: registry.example/web:1.0.0
-- environments/production.yaml --
apiVersion: pinion.dev/v1
kind: Environment
cluster: c
namespace: NAMESPACE
pins:
  app:
    image: registry.example/app:1.0.0
  web:
    image: registry.example/web:1.0.0
-- services/app/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/app/app.yaml --
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  replicas: 1
  selector: {matchLabels: {app: app}}
  template:
    metadata:
      labels: {app: app}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: app}]
-- services/web/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/web/web.yaml --
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata:
      labels: {app: web}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: web}]
-- pipelines/web.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: [web]
stages:
- environment: dev
- environment: staging
- environment: production
`

// A cluster that is gone, slow or closed to us delays nothing on the others,
// and a pipeline goes on over it when it is back.
func TestClustersDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	environments := []string{"dev", "staging", "production"}
	planes := map[string]*devtest.ControlPlane{}
	proxies := map[string]*devtest.Proxy{}
	var clusters strings.Builder
	for i, name := range []string{"a", "b", "c"} {
		planes[environments[i]] = devtest.Start(t)
		p := devtest.NewProxy(t, planes[environments[i]].Kubeconfig)
		proxies[environments[i]] = p
		fmt.Fprintf(&clusters, "  %s: {kubeconfig: %s}\n", name, p.Kubeconfig)
	}
	w := newWorldOn(t, planes["dev"].Kubeconfig, threeClusters)
	at := map[string]*world{}
	for env, plane := range planes {
		there := *w
		config, err := clientcmd.BuildConfigFromFlags("", plane.Kubeconfig)
		w.must(err)
		there.kube, err = kubernetes.NewForConfig(config)
		w.must(err)
		at[env] = &there
	}
	config := filepath.Join(t.TempDir(), "config.yaml")
	w.must(os.WriteFile(config, []byte("apiVersion: pinion.dev/v1\nkind: Config\nclusters:\n"+clusters.String()), 0o600))
	w.kubeconfig = ""
	d := w.daemon(t.TempDir(), "--config", config)
	for _, env := range environments {
		at[env].runs("app", "registry.example/app:1.0.0")
		at[env].runs("web", "registry.example/web:1.0.0")
	}
	d.line(0, "[6/6 done]")

	bump := func(service, from, to string, envs ...string) {
		t.Helper()
		w.git("fetch", "-q", "origin")
		w.git("reset", "-q", "--hard", "origin/main")
		for _, env := range envs {
			path := filepath.Join(w.clone, "environments", env+".yaml")
			data, err := os.ReadFile(path)
			w.must(err)
			old := "registry.example/" + service + ":" + from
			if !strings.Contains(string(data), old) {
				t.Fatalf("%s does not pin %s", env, old)
			}
			w.must(os.WriteFile(path, []byte(strings.ReplaceAll(string(data), old, "registry.example/"+service+":"+to)), 0o644))
		}
		w.push(service+" "+to, "")
	}
	all := func(service, version string, envs ...string) {
		t.Helper()
		for _, env := range envs {
			at[env].runs(service, "registry.example/"+service+":"+version)
		}
	}

	// Gone, without notice.
	mark := d.mark()
	planes["staging"].Kill()
	bump("app", "1.0.0", "1.1.0", environments...)
	bump("web", "1.0.0", "1.1.0", "dev")
	all("app", "1.1.0", "dev", "production")
	all("web", "1.1.0", "dev")
	d.line(mark, "failed staging/app", "the API server")
	if pinned := w.git("-C", w.remote, "show", "main:environments/production.yaml"); !strings.Contains(pinned, "web:1.0.0") {
		t.Errorf("production has a version that staging could not verify:\n%s", pinned)
	}
	planes["staging"].Restart(t)
	all("app", "1.1.0", environments...)
	all("web", "1.1.0", environments...) // through the pipeline
	w.until("each ledger has web as verified", func(context.Context) string {
		for _, env := range environments {
			if log := w.git("-C", w.remote, "log", "--format=%s", "ledger/"+env); !strings.Contains(log, "verified("+env+"): web 1.0.0 → 1.1.0") {
				return env + " has not"
			}
		}
		return ""
	})

	// Slow: each request takes longer than a rollout elsewhere.
	proxies["production"].Do(func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-time.After(3 * time.Second):
		case <-r.Context().Done():
		}
		return false
	})
	bump("app", "1.1.0", "1.2.0", environments...)
	all("app", "1.2.0", "dev", "staging")
	all("app", "1.2.0", "production")
	proxies["production"].Do(nil)

	// Closed: the account may do nothing any more, and then it may again.
	mark = d.mark()
	proxies["dev"].Do(func(_ http.ResponseWriter, r *http.Request) bool {
		r.Header.Set("Impersonate-User", "nobody@shop.example")
		return false
	})
	bump("app", "1.2.0", "1.3.0", environments...)
	all("app", "1.3.0", "staging", "production")
	d.line(mark, "failed dev/app", "nobody@shop.example")
	proxies["dev"].Do(nil)
	all("app", "1.3.0", environments...)
	d.stop()
}
