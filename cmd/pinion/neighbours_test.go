package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/internal/devtest"
	"github.com/pinion-cd/pinion/ledger"
)

// neighboursFor is how long TestNeighboursChaos does harm; see chaosFor.
const neighboursFor = 6 * time.Second

// neighbouring are three services that need no pods: web comes in from a
// registry, api is published by CI, tool is pinned by people. All are reported
// on in staging, and enter production by pull request when somebody approves.
const neighbouring = `
-- environments/dev.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: NAMESPACE
pins:
  api:
    image: registry.example/api:1.0.0
  tool:
    image: registry.example/tool:1.0.0
  web:
    image: HOST/acme/web:1.0.0
-- environments/staging.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: NAMESPACE-s
pins:
  api:
    image: registry.example/api:1.0.0
  tool:
    image: registry.example/tool:1.0.0
  web:
    image: HOST/acme/web:1.0.0
-- environments/production.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: NAMESPACE-p
pins:
  api:
    image: registry.example/api:1.0.0
  tool:
    image: registry.example/tool:1.0.0
  web:
    image: HOST/acme/web:1.0.0
-- services/api/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/api/main.jsonnet --
(import 'map.libsonnet')('api')
-- services/tool/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/tool/main.jsonnet --
(import 'map.libsonnet')('tool')
-- services/web/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/web/main.jsonnet --
(import 'map.libsonnet')('web')
-- lib/map.libsonnet --
function(name) { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: name }, data: { image: std.extVar('pinion').pins[name].image } }
-- policies/e2e.yaml --
apiVersion: pinion.dev/v1
kind: Policy
report: {by: [ci]}
-- policies/release.yaml --
apiVersion: pinion.dev/v1
kind: Policy
approval: {groups: [release-managers]}
-- pipelines/web.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: [web]
stages:
- environment: dev
  track: [{semver: ">=1.0.0 <10"}]
- {environment: staging, verify: [e2e], onFailure: rollback, manifests: head}
- {environment: production, admit: [release], by: pullRequest, merge: auto, manifests: head}
-- pipelines/api.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: [api]
stages:
- environment: dev
  track: [{semver: ">=1.0.0 <10", publishers: [ci]}]
- {environment: staging, verify: [e2e], onFailure: rollback, manifests: head}
- {environment: production, admit: [release], by: pullRequest, merge: auto, manifests: head}
-- pipelines/tool.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: [tool]
stages:
- environment: dev
- {environment: staging, verify: [e2e], onFailure: rollback, manifests: head}
- {environment: production, admit: [release], by: pullRequest, merge: auto, manifests: head}
`

// last is the version of each service that all ends with.
const last = "9.0.0"

// TestNeighboursChaos runs a daemon among its neighbours while these fail, and
// while it is killed: a forge that loses answers, a git that is away, a registry,
// receivers of news. Meanwhile versions come in and are tracked, people and
// programs write by the API, and one follows the events. In the end nothing that
// was acknowledged is missing, and nothing was done twice.
func TestNeighboursChaos(t *testing.T) {
	t.Parallel()
	long, random := chaosTime(t, neighboursFor)
	registry := devtest.Registry(t, devtest.RegistryOptions{})
	x := &neighbours{random: random, registry: registry, front: newFront(t, registry.Host), digests: map[string][]string{}, done: map[string]int{}, asked: map[string]request{}}
	for i := range x.diaries {
		x.diaries[i] = newDiary(t)
	}
	method := []string{"merge", "squash", "rebase"}[random.IntN(3)]
	x.done["pull requests: "+method]++
	x.forgeWorld = newForgeWorld(t, strings.ReplaceAll(neighbouring, "HOST", x.front.host), "  mergeMethod: "+method+"\n")
	x.tag("1.0.0")
	// What the test does itself meets no harm.
	x.git("remote", "set-url", "origin", x.Dir)
	x.bare("config", "core.logAllRefUpdates", "always")
	x.Harm(x.harmed)
	forge, err := os.ReadFile(x.config)
	x.must(err)
	hook := filepath.Join(t.TempDir(), "hook")
	x.must(os.WriteFile(hook, []byte("sesame\n"), 0o600))
	_, text, _ := strings.Cut(string(forge), "kind: Config\n")
	x.config = configured(t, text+fmt.Sprintf(`sinks:
  steady: {url: %s}
  moody: {url: %s}
outbound: {allow: [127.0.0.1]}
registry: {poll: 1s, webhookSecretFile: %s}
api: {limits: {requestsPerSecond: 10000}}
`, x.diaries[0].URL, x.diaries[1].URL, hook))
	x.data = t.TempDir()
	x.start()
	for env, state := range map[string]ledger.State{"dev": ledger.StateVerified, "staging": ledger.StateCompleted, "production": ledger.StateVerified} {
		x.until("all of "+env+" is there", seldom(func() string { return x.has(env, "1.0.0", state) }))
	}
	x.until("the sinks are known", seldom(func() string {
		if out, err := x.tryBare("grep", "-l", `"moody"`, gitstate.SinksBranch); err != nil || strings.Count(out, "ledger/") < len(stages) {
			return "they are not"
		}
		return ""
	}))
	x.began = x.tips()
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	x.reader = &reader{began: make(chan struct{})}
	clients.Go(func() { x.follows(ctx) })
	select {
	case <-x.reader.began:
	case <-time.After(patience):
		t.Fatal("the events do not begin")
	}
	for _, client := range []func(context.Context){x.reports, x.approves, x.pins, x.holds, x.publishes} {
		clients.Go(func() { client(ctx) })
	}

	x.during(long)
	x.final.Store(true)
	x.tag(last)
	x.until("all of production has the last version", seldom(func() string { return x.has("production", last, ledger.StateVerified) }))
	t.Logf("done: %v, by the API: %v, events: %d", x.done, x.acknowledged(), x.reader.heard())
	x.check()
}

// seldom looks five times a second at most, for each look starts programs.
func seldom(look func() string) func(context.Context) string {
	var next time.Time
	missing := "nothing was looked at"
	return func(context.Context) string {
		if now := time.Now(); !now.Before(next) {
			missing = look()
			next = time.Now().Add(200 * time.Millisecond)
		}
		return missing
	}
}

// chaosTime reads how long harm is done, and where the dice begin.
func chaosTime(t *testing.T, usual time.Duration) (time.Duration, *rand.Rand) {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("PINION_LONG"); text != "" {
		var err error
		if usual, err = time.ParseDuration(text); err != nil {
			t.Fatalf("PINION_LONG: %v", err)
		}
	}
	if text := os.Getenv("PINION_TEST_SEED"); text != "" {
		if _, err := fmt.Sscan(text, &seed); err != nil {
			t.Fatalf("PINION_TEST_SEED: %v", err)
		}
	}
	t.Logf("for %s, seed %d", usual, seed)
	return usual, rand.New(rand.NewPCG(seed, 0))
}

var stages = []string{"dev", "staging", "production"}

// neighbours are a daemon and who is around it.
type neighbours struct {
	*forgeWorld
	random   *rand.Rand // of the test's own goroutine
	data     string
	daemon   *daemon
	address  atomic.Value // of the daemon, a string
	registry *devtest.RegistryServer
	front    *front
	diaries  [2]*diary
	reader   *reader
	began    map[string]string // the tips of the branches then
	final    atomic.Bool       // nothing new comes any more
	api, hub atomic.Value      // how the forge's API and its git behave: a mood
	turn     atomic.Int64      // counts requests, for what fails now and then

	tags    int
	digests map[string][]string // of the tags, as they were pushed
	done    map[string]int

	mu    sync.Mutex // guards what follows
	marks int
	asked map[string]request // by their marks
}

// start starts the daemon on the data that it left.
func (x *neighbours) start() {
	x.Helper()
	x.daemon = x.world.daemon(x.data, "--config", x.config)
	x.address.Store(x.daemon.address)
}

// bare runs git in the repository of the forge.
func (x *neighbours) bare(args ...string) string {
	x.Helper()
	out, err := x.tryBare(args...)
	if err != nil {
		x.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (x *neighbours) tryBare(args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = x.Dir
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// tips are the branches that only ever grow.
func (x *neighbours) tips() map[string]string {
	x.Helper()
	all := map[string]string{}
	for line := range strings.Lines(x.bare("for-each-ref", "--format=%(refname:short) %(objectname)", "refs/heads/main", "refs/heads/ledger", "refs/heads/pinion/artifacts")) {
		name, id, _ := strings.Cut(strings.TrimSpace(line), " ")
		all[name] = id
	}
	return all
}

// has says which service is not in a state with a version.
func (x *neighbours) has(env, version string, state ledger.State) string {
	for _, svc := range []desired.ServiceName{"api", "tool", "web"} {
		file := ledger.RecordFile(svc)
		text, _ := x.tryBare("show", "ledger/"+env+":"+file)
		r, err := ledger.DecodeRecord(file, []byte(text+"\n"))
		if d := r.Deployment; err != nil || d.Release.Version() != version || d.State != state {
			return fmt.Sprintf("%s has %s %s, %s; %v", env, svc, d.Release.Version(), d.State, err)
		}
	}
	return ""
}

// during does one harm after the other, each kind once before one comes again.
func (x *neighbours) during(long time.Duration) {
	x.Helper()
	in := func(at *atomic.Value, is mood) (func(), func()) {
		return func() { at.Store(is) }, func() { at.Store(well) }
	}
	type harm struct {
		name       string
		begin, end func()
	}
	kinds := []harm{
		{"daemon killed", func() { x.daemon.kill() }, x.start},
		{"daemon and its data lost", func() { x.daemon.kill(); x.data = x.TempDir() }, x.start},
		{"quiet", func() {}, func() {}},
	}
	for name, at := range map[string]*atomic.Value{"forge": &x.api, "git": &x.hub, "registry": &x.front.mood, "receiver": &x.diaries[1].mood} {
		for _, is := range []mood{away, failing, busy, losing, slow} {
			if name == "git" && is == slow || name == "registry" && (is == slow || is == losing) {
				continue
			}
			begin, end := in(at, is)
			kinds = append(kinds, harm{name + " " + string(is), begin, end})
		}
	}
	slices.SortFunc(kinds, func(a, b harm) int { return strings.Compare(a.name, b.name) })
	end := time.Now().Add(long)
	for time.Now().Before(end) {
		for _, i := range x.random.Perm(len(kinds)) {
			hold := 150*time.Millisecond + time.Duration(x.random.Int64N(int64(min(4*time.Second, long/time.Duration(len(kinds))))))
			left := time.Until(end)
			if left <= 0 {
				break
			}
			k, over := kinds[i], time.After(min(hold, left))
			x.done[k.name]++
			k.begin()
			if !strings.HasPrefix(k.name, "daemon") && x.random.IntN(4) == 0 { // two things at once
				x.daemon.kill()
				x.start()
				x.done["daemon killed meanwhile"]++
			}
			x.meanwhile()
			<-over
			k.end()
		}
	}
}

// meanwhile is what comes in, and what people do, in the registry, in git and at
// the forge.
func (x *neighbours) meanwhile() {
	x.Helper()
	switch x.random.IntN(5) {
	case 0, 1:
		x.tags++
		x.tag(fmt.Sprintf("1.%d.0", x.tags))
		x.done["tag"]++
	case 2: // a person's commit, which may be in the way of the daemon's
		x.git("fetch", "-q", "origin")
		x.git("reset", "-q", "--hard", "origin/main")
		x.write(fmt.Sprintf("-- NOTES --\n%d\n", x.done["commit"]))
		x.git("add", "-A")
		x.git("commit", "-q", "-m", "a note")
		cmd := exec.Command("git", "push", "-q", "origin", "HEAD:main")
		cmd.Dir = x.clone
		if cmd.Run() == nil {
			x.done["commit"]++
		}
	case 3: // a tag is moved, which is refused if somebody knows what it was
		if x.tags > 0 {
			x.tag(fmt.Sprintf("1.%d.0", 1+x.random.IntN(x.tags)))
			x.done["tag moved"]++
		}
	case 4: // a person says no, or approves there
		var open []pullSeen
		x.ask("alice-token", "GET", "/pulls?state=open&limit=50&page=1", nil, &open)
		if len(open) == 0 {
			return
		}
		at := fmt.Sprintf("/pulls/%d", open[x.random.IntN(len(open))].Number)
		if x.random.IntN(3) == 0 {
			x.ask("alice-token", "PATCH", at, map[string]string{"state": "closed"}, nil)
			x.done["closed by a person"]++
			return
		}
		x.ask("alice-token", "POST", at+"/reviews", map[string]string{"event": "APPROVED"}, nil)
		x.done["approved there"]++
	}
}

// tag pushes a version of web, of which the registry tells the daemon once.
func (x *neighbours) tag(version string) {
	x.digests[version] = append(x.digests[version], x.registry.Push(x, "acme/web:"+version, nil))
	to, _ := x.address.Load().(string)
	if to == "" {
		return
	}
	r, err := http.NewRequest(http.MethodPost, "http://"+to+registryHookPath, strings.NewReader(fmt.Sprintf(`{"repository": "acme/web", "updated_tags": [%q]}`, version)))
	x.must(err)
	r.Header.Set("Authorization", "Bearer sesame")
	if resp, err := http.DefaultClient.Do(r); err == nil {
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}
