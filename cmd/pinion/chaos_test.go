package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	quantity "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pinion-cd/pinion/internal/devtest"
)

// chaosFor is how long TestChaos does harm; PINION_LONG sets another time, and
// PINION_TEST_SEED repeats a run.
const chaosFor = 45 * time.Second

// TestChaos runs two replicas while all around them fails: the API server is
// stopped and killed, watches are cut, discovery knows half of the kinds, rights
// are withdrawn, the remote is away, the leader is stopped and killed; meanwhile
// people commit, and others change and delete what is in the cluster. In the
// end each object is compared with the commit, field by field.
func TestChaos(t *testing.T) {
	t.Parallel()
	long, random := chaosTime(t, chaosFor)
	c := devtest.Start(t)
	names := many(12)
	w := newWorldOn(t, c.Kubeconfig, shop(names...))
	x := &chaos{world: w, plane: c, proxy: devtest.NewProxy(t, c.Kubeconfig), random: random,
		data: []string{t.TempDir(), t.TempDir()}, versions: map[string]string{}, done: map[string]int{}}
	for _, n := range names {
		x.versions[n] = "1.0.0"
	}
	w.makeLeaseNamespace()
	w.kubeconfig = x.proxy.Kubeconfig
	x.healthy()
	for i := range x.data {
		x.replicas = append(x.replicas, x.start(i))
	}
	for _, n := range names {
		w.runs(n, "registry.example/"+n+":1.0.0")
	}

	end := time.Now().Add(long)
	for time.Now().Before(end) {
		x.harm(end)
	}
	x.heal()
	t.Logf("done: %v", x.done)
	w.kubeconfig = c.Kubeconfig
	x.compare()
	x.ledger()
}

// chaos is two replicas and all that is done to them.
type chaos struct {
	*world
	plane    *devtest.ControlPlane
	proxy    *devtest.Proxy
	data     []string // of the replicas
	replicas []*daemon
	random   *rand.Rand
	versions map[string]string // that are wanted, by service
	extra    int               // of the ConfigMaps that come and go
	commits  int
	done     map[string]int
	cut      atomic.Int64 // counts up; requests of before are cut
}

// start starts a replica, on the data that it left.
func (x *chaos) start(i int) *daemon {
	x.Helper()
	config := filepath.Join(x.TempDir(), "config.yaml")
	x.must(os.WriteFile(config, fmt.Appendf(nil, `apiVersion: pinion.dev/v1
kind: Config
leaderElection: {namespace: %s, leaseDuration: %s, renewDeadline: %s, retryPeriod: %s}
`, x.leaseNamespace(), testLease, testDeadline, testRetry), 0o600))
	return x.daemon(x.data[i], "--config", config)
}

// healthy lets requests through, until their watches are cut.
func (x *chaos) healthy() { x.proxy.Do(x.through(nil)) }

// through is a harm that also ends the watches that began before the last cut.
func (x *chaos) through(harm devtest.Harm) devtest.Harm {
	return func(rw http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("watch") != "" {
			began := x.cut.Load()
			ctx, cancel := context.WithCancel(r.Context())
			*r = *r.WithContext(ctx)
			go func() {
				tick := time.NewTicker(50 * time.Millisecond)
				defer tick.Stop()
				defer cancel()
				for x.cut.Load() == began {
					select {
					case <-tick.C:
					case <-ctx.Done():
						return
					}
				}
			}()
		}
		return harm != nil && harm(rw, r)
	}
}

// harm does one thing that goes wrong, and commits and interferes meanwhile.
func (x *chaos) harm(end time.Time) {
	// Some of it is longer than a lease.
	hold := min(time.Until(end), time.Duration(500+x.random.IntN(5500))*time.Millisecond)
	i := x.random.IntN(len(x.replicas))
	over := time.After(max(hold, 0))
	kinds := []struct {
		name       string
		begin, end func()
	}{
		{"API server stopped", x.plane.Pause, x.plane.Resume},
		{"API server killed", x.plane.Kill, func() { x.plane.Restart(x) }},
		{"watches cut", func() { x.cut.Add(1) }, func() { x.cut.Add(1) }},
		{"discovery half down", func() {
			x.proxy.Do(x.through(func(rw http.ResponseWriter, r *http.Request) bool {
				return (strings.HasPrefix(r.URL.Path, "/apis/apps") && strings.Count(r.URL.Path, "/") <= 3 || r.URL.Path == "/apis") && devtest.Status(503)(rw, r)
			}))
			x.cut.Add(1)
		}, x.healthy},
		{"rights withdrawn", func() {
			x.proxy.Do(x.through(func(_ http.ResponseWriter, r *http.Request) bool {
				// Somebody who may do nothing: the API server itself refuses.
				r.Header.Set("Impersonate-User", "nobody@shop.example")
				return false
			}))
			x.cut.Add(1)
		}, x.healthy},
		{"requests fail", func() {
			x.proxy.Do(x.through(func(rw http.ResponseWriter, r *http.Request) bool {
				switch len(r.URL.Path) % 4 {
				case 0:
					return devtest.Status(500)(rw, r)
				case 1:
					return devtest.Reset(rw, r)
				}
				return false
			}))
		}, x.healthy},
		{"remote away", func() { x.must(os.Rename(x.remote, x.remote+".away")) }, func() { x.must(os.Rename(x.remote+".away", x.remote)) }},
		{"replica stopped", func() { x.replicas[i].cmd.Process.Signal(syscall.SIGSTOP) }, func() { x.replicas[i].cmd.Process.Signal(syscall.SIGCONT) }},
		{"replica killed", x.replicas[i].kill, func() { x.replicas[i] = x.start(i) }},
		{"quiet", func() {}, func() {}},
	}
	k := kinds[x.random.IntN(len(kinds))]
	x.done[k.name]++
	k.begin()
	for n := 0; n < 3; n++ {
		x.meanwhile(k.name == "remote away")
	}
	<-over
	k.end()
}

// heal ends all harm.
func (x *chaos) heal() {
	x.healthy()
	x.cut.Add(1)
}

// meanwhile is what people and other programs do.
func (x *chaos) meanwhile(noRemote bool) {
	names := many(len(x.versions))
	name := names[x.random.IntN(len(names))]
	ctx, cancel := context.WithTimeout(x.Context(), 500*time.Millisecond)
	defer cancel()
	patch := func(text string) {
		// It may well fail; then nothing is changed.
		_, err := x.kube.AppsV1().Deployments(x.namespace).Patch(ctx, name, types.StrategicMergePatchType, []byte(text), metav1.PatchOptions{FieldManager: "somebody"})
		if err == nil {
			x.done["changed by hand"]++
		}
	}
	switch x.random.IntN(6) {
	case 0, 1:
		if noRemote {
			return
		}
		x.commits++
		next := fmt.Sprintf("1.%d.0", x.commits)
		x.bump(name, x.versions[name], next)
		x.versions[name] = next
		x.done["bumped"]++
	case 2:
		if noRemote {
			return
		}
		// An object that comes, and goes again.
		x.extra++
		file := "-- services/s00/extra.yaml --\n"
		if x.extra%2 == 1 {
			file += fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra-%d}\ndata: {a: b}\n", x.extra)
		}
		x.push("an object comes or goes", file)
		x.done["added or removed"]++
	case 3:
		patch(`{"spec":{"replicas":2}}`)
	case 4:
		patch(`{"spec":{"template":{"spec":{"containers":[{"name":"main","image":"registry.example/bad:1"}]}}}}`)
	case 5:
		if x.kube.CoreV1().ConfigMaps(x.namespace).Delete(ctx, name, metav1.DeleteOptions{}) == nil {
			x.done["deleted by hand"]++
		}
	}
}

// compare waits until each object of the commit is in the cluster with each
// field that the commit gives it, and nothing else of ours is.
func (x *chaos) compare() {
	x.Helper()
	out, errs, code := x.pinion("render", "dev", "-o", "json")
	if code != 0 {
		x.Fatalf("render: %s", errs)
	}
	var want []map[string]any
	if err := json.Unmarshal([]byte(out), &want); err != nil {
		x.Fatalf("render -o json: %v\n%.500s", err, out)
	}
	resources := map[string]schema.GroupVersionResource{
		"Deployment": {Group: "apps", Version: "v1", Resource: "deployments"},
		"ConfigMap":  {Version: "v1", Resource: "configmaps"},
	}
	x.until("the cluster is as the commit wants it", func(ctx context.Context) string {
		var wrong []string
		left := map[string]unstructured.Unstructured{}
		for kind, r := range resources {
			list, err := x.dynamic.Resource(r).Namespace(x.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=pinion,pinion.dev/service"})
			if err != nil {
				return err.Error()
			}
			for _, o := range list.Items {
				left[kind+" "+o.GetName()] = o
			}
		}
		for _, o := range want {
			u := unstructured.Unstructured{Object: o}
			key := u.GetKind() + " " + u.GetName()
			have, ok := left[key]
			if !ok {
				wrong = append(wrong, key+" is not there")
				continue
			}
			delete(left, key)
			if why := lacking(o, have.Object, ""); why != "" {
				wrong = append(wrong, key+": "+why)
			}
		}
		for key := range left {
			wrong = append(wrong, key+" should not be there")
		}
		slices.Sort(wrong)
		return strings.Join(wrong, "; ")
	})
	for name, v := range x.versions {
		x.runs(name, "registry.example/"+name+":"+v)
	}
}

// lacking says where have is not what want says, or "". What want does not
// name does not matter.
func lacking(want, have any, path string) string {
	// A field that is absent has its zero value, and the API server leaves many
	// out that have it.
	if v := reflect.ValueOf(want); have == nil && (want == nil || v.IsZero() || (v.Kind() == reflect.Map || v.Kind() == reflect.Slice) && v.Len() == 0) {
		return ""
	}
	switch want := want.(type) {
	case map[string]any:
		have, ok := have.(map[string]any)
		if !ok {
			return path + " is no mapping"
		}
		for k, v := range want {
			if k == "pinion.dev/commit" {
				continue // which commit a deployment comes from is told by the ledger
			}
			if why := lacking(v, have[k], path+"."+k); why != "" {
				return why
			}
		}
	case []any:
		have, ok := have.([]any)
		if !ok || len(have) != len(want) {
			return path + " has another length"
		}
		for i, v := range want {
			if why := lacking(v, have[i], fmt.Sprintf("%s[%d]", path, i)); why != "" {
				return why
			}
		}
	case float64:
		if n, ok := have.(int64); !(ok && float64(n) == want) && have != want {
			return fmt.Sprintf("%s is %v, want %v", path, have, want)
		}
	case string:
		if have == want {
			break
		}
		// The API server writes a quantity in its own way: 1 for 1000m.
		a, wanted := quantity.ParseQuantity(want)
		b, found := quantity.ParseQuantity(fmt.Sprint(have))
		if wanted != nil || found != nil || a.Cmp(b) != 0 {
			return fmt.Sprintf("%s is %v, want %v", path, have, want)
		}
	default:
		if !reflect.DeepEqual(want, have) {
			return fmt.Sprintf("%s is %v, want %v", path, have, want)
		}
	}
	return ""
}

// ledger waits until the ledger says that each service's version is verified,
// and has it audited.
func (x *chaos) ledger() {
	x.Helper()
	x.until("the ledger says what runs", func(context.Context) string {
		x.git("fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*")
		for name, v := range x.versions {
			record := x.git("show", "origin/ledger/dev:"+name+"/deployment.yaml")
			if !strings.Contains(record, ":"+v+"\n") || !strings.Contains(record, "state: verified") {
				return fmt.Sprintf("%s %s is not verified", name, v)
			}
		}
		return ""
	})
	if out, errs, code := x.pinion("audit"); code != 0 {
		x.Errorf("audit: exit code %d\n%s%s", code, out, errs)
	}
	devtest.Fsck(x, x.remote)
}
