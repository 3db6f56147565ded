package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

const manyEnvironments = 12

// passedOn is one service that goes through all environments, one by one.
func passedOn() string {
	var b, stages strings.Builder
	for i := range manyEnvironments {
		fmt.Fprintf(&b, "-- environments/e%d.yaml --\napiVersion: pinion.dev/v1\nkind: Environment\nnamespace: NAMESPACE-e%d\npins:\n  web:\n    image: registry.example/web:1.0.0\n", i, i)
		fmt.Fprintf(&stages, "- environment: e%d\n", i)
	}
	b.WriteString("-- services/web/service.yaml --\napiVersion: pinion.dev/v1\nkind: Service\n")
	b.WriteString("-- services/web/main.jsonnet --\nfunction(pinion) { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'web' }, data: { version: pinion.pins.web.version } }\n")
	b.WriteString("-- pipelines/default.yaml --\napiVersion: pinion.dev/v1\nkind: Pipeline\nservices: [\"*\"]\nstages:\n" + stages.String())
	return b.String()
}

// held is from when on somebody was seen to have a lease.
type held struct {
	at   time.Time
	name string        // of the lease
	by   string        // an identity; "": nobody
	idle time.Duration // since the one before had renewed it, by the clocks of both
}

// watchLeases notes who has which lease, until the test ends.
func (w *world) watchLeases() func() []held {
	w.Helper()
	var mu sync.Mutex
	var all []held
	ctx, cancel := context.WithCancel(context.Background())
	client := w.kube.CoordinationV1().Leases(w.leaseNamespace())
	watch, err := client.Watch(ctx, metav1.ListOptions{})
	w.must(err)
	var wait sync.WaitGroup
	wait.Go(func() {
		last := map[string]coordinationv1.LeaseSpec{}
		for ev := range watch.ResultChan() {
			lease, ok := ev.Object.(*coordinationv1.Lease)
			if !ok {
				return
			}
			before, now := last[lease.Name], lease.Spec
			last[lease.Name] = now
			x := held{at: time.Now(), name: lease.Name, by: ptr.Deref(now.HolderIdentity, "")}
			if x.by == ptr.Deref(before.HolderIdentity, "") {
				continue
			}
			if now.AcquireTime != nil && before.RenewTime != nil {
				x.idle = now.AcquireTime.Sub(before.RenewTime.Time)
			}
			mu.Lock()
			all = append(all, x)
			mu.Unlock()
		}
	})
	w.Cleanup(func() { cancel(); watch.Stop(); wait.Wait() })
	return func() []held {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

// recordPushes has the remote note who pushes what: the replica's name, the
// time, the two ids and the reference. It returns what was noted.
func (w *world) recordPushes() func() [][]string {
	w.Helper()
	log := filepath.Join(w.TempDir(), "pushes")
	hook := fmt.Sprintf("#!/bin/sh\nwhile read old new ref; do echo \"${PINION_TEST_REPLICA:-nobody} $(date +%%s%%N) $old $new $ref\" >> %s; done\n", log)
	w.must(os.MkdirAll(filepath.Join(w.remote, "hooks"), 0o755))
	w.must(os.WriteFile(filepath.Join(w.remote, "hooks", "post-receive"), []byte(hook), 0o755))
	return func() (all [][]string) {
		data, err := os.ReadFile(log)
		w.must(err)
		for line := range strings.Lines(string(data)) {
			all = append(all, strings.Fields(line))
		}
		return all
	}
}

// Replicas are killed, stopped, added and removed, and change their number,
// while one version after the other goes through all environments.
func TestShardsHaveOneWriter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, passedOn())
	w.makeLeaseNamespace()
	leases, pushes := w.watchLeases(), w.recordPushes()
	for i := range manyEnvironments {
		w.Cleanup(func() {
			w.kube.CoreV1().Namespaces().Delete(context.Background(), fmt.Sprintf("%s-e%d", w.namespace, i), metav1.DeleteOptions{})
		})
	}
	var all recorder
	identities := map[string]string{} // by the replica's name
	start := func(name, shard string) *member {
		t.Helper()
		with := *w
		with.env = append(slices.Clone(w.env), "PINION_TEST_REPLICA="+name)
		m := with.replica(&all, name, nil, "--shard", shard)
		line := m.line(0, "the environments are shared")
		_, rest, _ := strings.Cut(line, "identity=")
		identities[name], _, _ = strings.Cut(rest, " ")
		return m
	}
	version := 0
	bump := func() {
		t.Helper()
		w.git("fetch", "-q", "origin", "main")
		w.git("reset", "-q", "--hard", "origin/main")
		version++
		w.replace("environments/e0.yaml", fmt.Sprintf("web:1.%d.0", version-1), fmt.Sprintf("web:1.%d.0", version))
	}
	shows := func(env int, version int) {
		t.Helper()
		namespace, want := fmt.Sprintf("%s-e%d", w.namespace, env), fmt.Sprintf("1.%d.0", version)
		w.until(fmt.Sprintf("e%d shows %s", env, want), func(ctx context.Context) string {
			cm, err := w.kube.CoreV1().ConfigMaps(namespace).Get(ctx, "web", metav1.GetOptions{})
			if err != nil {
				return err.Error()
			}
			if got := cm.Data["version"]; got != want {
				return "it shows " + got
			}
			return ""
		})
	}
	passes := func() { t.Helper(); shows(manyEnvironments-1, version) }

	a0, a1 := start("a0", "0/2"), start("a1", "1/2")
	for i := range manyEnvironments {
		shows(i, 0)
	}
	bump()
	passes()
	t.Log("one is killed, and comes back")
	bump()
	a0.kill()
	b0 := start("b0", "0/2")
	passes()
	t.Log("one is stopped, another one with its number takes over, and it goes on")
	bump()
	w.must(a1.cmd.Process.Signal(syscall.SIGSTOP))
	b1 := start("b1", "1/2")
	passes()
	bump()
	w.must(a1.cmd.Process.Signal(syscall.SIGCONT))
	passes()
	t.Log("a third one is added, the others are replaced one by one")
	c2 := start("c2", "2/3")
	bump()
	b1.stop()
	a1.stop()
	c1 := start("c1", "1/3")
	b0.stop()
	bump()
	c0 := start("c0", "0/3")
	passes()
	t.Log("two are left, one of which was killed")
	bump()
	d0 := start("d0", "0/2")
	c2.stop()
	c0.kill()
	d1 := start("d1", "1/2")
	c1.stop()
	passes()
	bump()
	passes()
	for i := range manyEnvironments {
		shows(i, version)
	}
	// At the end all that happened is written down, too.
	for i := range manyEnvironments {
		w.until(fmt.Sprintf("the ledger of e%d is complete", i), func(context.Context) string {
			w.git("fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*")
			subject := w.git("log", "-1", "--format=%s", fmt.Sprintf("origin/ledger/e%d", i))
			if !strings.HasPrefix(subject, fmt.Sprintf("verified(e%d): web 1.%d.0 → 1.%d.0", i, version-1, version)) {
				return subject
			}
			return ""
		})
	}
	for _, m := range []*member{a0, a1, b0, b1, c0, c1, c2, d0, d1} {
		m.never(0, "another daemon")
	}
	w.audited()

	// Who wrote had the lease.
	seen := leases()
	has := func(env, replica string, at time.Time) bool {
		const slack = time.Second // until the watch has shown it
		holder := ""
		for _, h := range seen {
			if h.name != "pinion-"+env {
				continue
			}
			if h.at.After(at) {
				return holder == identities[replica] || h.by == identities[replica] && h.at.Before(at.Add(slack))
			}
			holder = h.by
		}
		return holder == identities[replica]
	}
	writers := map[string]map[string]bool{}
	judge := func(what, env, replica string, at time.Time) {
		if writers[env] == nil {
			writers[env] = map[string]bool{}
		}
		writers[env][replica] = true
		if !has(env, replica, at) {
			t.Errorf("%s: %s of %s at %s, which did not have the lease", env, what, replica, at.Format("15:04:05.000"))
		}
	}
	applied, pushed := 0, 0
	for _, x := range all.of(func(written) bool { return true }) {
		if env, ok := strings.CutPrefix(x.namespace, w.namespace+"-"); ok && strings.HasPrefix(env, "e") {
			applied++
			judge(x.what, env, x.replica, x.at)
		}
	}
	for _, p := range pushes() {
		if p[0] == "nobody" {
			continue // us
		}
		ns, err := strconv.ParseInt(p[1], 10, 64)
		w.must(err)
		if env, ok := strings.CutPrefix(p[4], "refs/heads/ledger/"); ok {
			pushed++
			judge("a push to the ledger", env, p[0], time.Unix(0, ns))
			continue
		}
		for _, env := range strings.Fields(w.git("log", "--format=%(trailers:key=Pinion-Environment,valueonly)", p[2]+".."+p[3])) {
			pushed++
			judge("a promotion", env, p[0], time.Unix(0, ns))
		}
	}
	most := 0
	for _, who := range writers {
		most = max(most, len(who))
	}
	t.Logf("%d writes to the cluster, %d pushes, %d changes of leases; an environment had up to %d writers, one after the other", applied, pushed, len(seen), most)
	if applied < manyEnvironments*(version+1) || pushed < manyEnvironments*(version+1) || most < 4 {
		t.Error("that is too little for the test to mean anything")
	}
}
