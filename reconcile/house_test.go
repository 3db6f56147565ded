package reconcile_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/internal/devtest"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
	"github.com/pinion-cd/pinion/reconcile/check"
	"github.com/pinion-cd/pinion/render"
)

// patience bounds every wait of a test; nothing is judged by it.
const patience = 60 * time.Second

// house is a deployment repository on a real git remote and a clerk that keeps
// its ledgers. In place of clusters there is the test: it says what an engine
// would see.
type house struct {
	testing.TB
	remote, clone string
	mirror        *gitstate.Mirror
	clerk         *reconcile.Clerk
	stop          func()

	mu     sync.Mutex // guards what follows
	now    time.Time  // zero: the system's
	events []reconcile.Event
	stir   bool                       // phases were set
	phases map[string]reconcile.Phase // by "environment/service version"; ready if none is set
	// healthy is since when that is so, blind that it can't be seen at the moment,
	// and told what the clerk was told last.
	healthy map[string]time.Time
	blind   map[string]bool
	told    map[string]reconcile.Sighting
	unseen  map[string]bool // environments of which the clerk is told nothing
	// settledAt is what the clerks have said last.
	settledAt string
}

// newHouse makes the repository from a txtar archive, and starts a clerk.
func newHouse(t testing.TB, archive string) *house {
	t.Helper()
	h := newRepository(t, archive)
	h.start(reconcile.ClerkOptions{})
	return h
}

func (h *house) settles(commit string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.settledAt = commit
}

func (h *house) lastSettled() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.settledAt
}

// houseOn is a house on a remote that is there, or will be.
func houseOn(t testing.TB, remote, clone string) *house {
	return &house{TB: t, remote: remote, clone: clone, phases: map[string]reconcile.Phase{},
		healthy: map[string]time.Time{}, blind: map[string]bool{}, told: map[string]reconcile.Sighting{}}
}

func newRepository(t testing.TB, archive string) *house {
	t.Helper()
	dir := t.TempDir()
	h := houseOn(t, filepath.Join(dir, "remote.git"), filepath.Join(dir, "clone"))
	h.must(os.Mkdir(h.clone, 0o755))
	h.git("init", "-q", "--bare", "--initial-branch=main", h.remote)
	h.git("init", "-q", "--initial-branch=main")
	h.git("remote", "add", "origin", h.remote)
	h.push("the first commit", archive)
	return h
}

// start starts a clerk, as a daemon does at its start.
func (h *house) start(o reconcile.ClerkOptions) {
	h.Helper()
	mirror, err := gitstate.Open(context.Background(), gitstate.Options{URL: h.remote, Dir: filepath.Join(h.TempDir(), "mirror"), Poll: time.Second})
	h.must(err)
	_, err = mirror.Fetch(context.Background())
	h.must(err)
	o.Mirror = mirror
	o.Branch = "main"
	o.Identity = ledger.Person{Name: "Pinion", Email: "pinion@shop.example"}
	o.Digests = []byte("a key")
	if o.Checks == nil {
		o.Checks = check.New(nil, check.Options{})
	}
	o.Clock = h.clock
	o.Settled, o.Settle = h.lastSettled(), h.settles
	o.Report = func(ev reconcile.Event) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.events = append(h.events, ev)
		// A log is searched by these: commits of main, and by their name those of others.
		if e := ev.Entry; e != nil {
			if ev.Deployment != e.Deployment || e.Deployment != "" && ledger.DeploymentID(ev.Service, ev.Commit) != e.Deployment || len(ev.Recorded) != 40 || ev.Recorded == ev.Commit {
				h.Errorf("%s is told with the deployment %q, the commit %q, by the entry %q", ev.Message, ev.Deployment, ev.Commit, ev.Recorded)
			}
		}
	}
	engine := reconcile.NewEngine(reconcile.Options{Commits: mirror})
	clerk := reconcile.NewClerk(o, engine)
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { clerk.Run(ctx) })
	wait.Go(func() { h.watch(ctx, mirror, clerk) })
	h.mirror, h.clerk = mirror, clerk
	h.stop = sync.OnceFunc(func() {
		cancel()
		wait.Wait()
		mirror.Close()
	})
	h.Cleanup(func() {
		h.stop()
		if h.Failed() {
			h.Logf("main:\n%s", h.git("--git-dir="+h.remote, "log", "--format=%h %an: %s", "main"))
			for _, b := range strings.Fields(h.git("--git-dir="+h.remote, "for-each-ref", "--format=%(refname:short)", "refs/heads/ledger")) {
				h.Logf("%s:\n%s", b, h.git("--git-dir="+h.remote, "log", "--format=%h %s", b))
			}
			for _, ev := range h.events {
				if ev.Type != reconcile.EventRecorded && ev.Type != reconcile.EventMoved {
					h.Logf("%s %s/%s: %s", ev.Type, ev.Environment, ev.Service, ev.Message)
				}
			}
		}
	})
}

// watch plays the engine: whatever the tip asks for is seen to be ready, or in
// the phase that the test has set.
func (h *house) watch(ctx context.Context, mirror *gitstate.Mirror, clerk *reconcile.Clerk) {
	cache := render.NewCache(64 << 20)
	targets := map[reconcile.Key]*reconcile.Target{}
	seen := map[reconcile.Key]reconcile.Sighting{}
	see := func(s reconcile.Sighting) {
		h.mu.Lock()
		unseen := h.unseen[string(s.Environment)]
		h.mu.Unlock()
		if seen[s.Key] == s || unseen {
			return
		}
		seen[s.Key] = s
		clerk.See(s)
		if s.Target != nil {
			h.mu.Lock()
			h.told[s.Key.String()+" "+s.Target.Version()] = s
			h.mu.Unlock()
		}
	}
	var last *reconcile.Commit
	for range mirror.Watch(ctx) {
		tip, err := mirror.Fetch(ctx)
		if err != nil {
			continue
		}
		clerk.Moved()
		if clerk.Busy() {
			continue
		}
		c, err := reconcile.ReadCommit(ctx, mirror, tip.Commit, last)
		if err != nil {
			continue
		}
		if last != nil {
			if changed, err := c.Snapshot.Changed(last.Snapshot); err == nil && len(changed) == 0 && !h.stirred() {
				continue
			}
		}
		last = c
		for _, d := range c.Repository.Deployments() {
			t, tree, err := reconcile.Resolve(ctx, mirror, c, d)
			if err != nil {
				last = nil // it could not be read, and is looked at again
				continue
			}
			if t.Result, _ = cache.Get(t.Request, tree); t.Result == nil {
				if t.Result, err = render.Build(ctx, tree, t.Request); err != nil {
					see(reconcile.Sighting{Key: t.Key, Target: targets[t.Key], Tip: c.ID, Problem: err.Error(), Wanted: &d})
					continue
				}
				h.must(cache.Put(t.Request, t.Result))
			}
			if old := targets[t.Key]; old != nil && old.Result.Digest == t.Result.Digest && old.Pinned == t.Pinned && (!t.Pinned || old.Source == t.Source) &&
				ledger.ReleaseOf(old.Request.Pins, "").SamePins(ledger.ReleaseOf(t.Request.Pins, "")) {
				t = old
			}
			targets[t.Key] = t
			h.mu.Lock()
			is := t.Key.String() + " " + t.Version()
			phase, ok := h.phases[is]
			healthy, blind := h.healthy[is], h.blind[is]
			h.mu.Unlock()
			if !ok {
				phase = reconcile.Ready
			}
			see(reconcile.Sighting{Key: t.Key, Target: t, Tip: c.ID, Phase: phase, Message: "as the test says", Started: true, Final: phase == reconcile.Failed, Healthy: healthy, Blind: blind})
		}
	}
}

// is makes a version of a service be in a phase where it is rolled out.
func (h *house) is(where, version string, phase reconcile.Phase) {
	h.mu.Lock()
	h.phases[where+" "+version], h.stir = phase, true
	h.mu.Unlock()
	h.mirror.Poke()
}

// looks has the clerk told, before it returns, how a version of a service that is
// rolled out is seen.
func (h *house) looks(where, version string, phase reconcile.Phase, healthy time.Time, blind bool) {
	h.Helper()
	key := where + " " + version
	h.mu.Lock()
	h.healthy[key], h.blind[key] = healthy, blind
	h.mu.Unlock()
	h.is(where, version, phase)
	h.until(key+" is "+string(phase), func() string {
		h.mu.Lock()
		defer h.mu.Unlock()
		if s := h.told[key]; s.Phase != phase || !s.Healthy.Equal(healthy) || s.Blind != blind {
			return fmt.Sprintf("it is %s, healthy since %s", s.Phase, s.Healthy)
		}
		return ""
	})
	h.settled()
}

// hides keeps from the clerk what is seen of an environment, or tells it at last.
func (h *house) hides(environment string, hidden bool) {
	h.mu.Lock()
	h.unseen, h.stir = map[string]bool{environment: hidden}, true
	h.mu.Unlock()
	h.mirror.Poke()
}

// stirred tells whether a test has set a phase since it was asked last.
func (h *house) stirred() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	stirred := h.stir
	h.stir = false
	return stirred
}

func (h *house) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now.IsZero() {
		return time.Now()
	}
	return h.now
}

// at sets the clock, and has the clerk look at it.
func (h *house) at(now time.Time) {
	h.mu.Lock()
	h.now = now
	h.mu.Unlock()
	h.clerk.Moved()
}

func (h *house) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// git runs git in the clone, as Dana.
func (h *house) git(args ...string) string {
	h.Helper()
	out, err := h.tryGit(args...)
	if err != nil {
		h.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (h *house) tryGit(args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = h.clone
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull,
		"GIT_AUTHOR_NAME=Dana", "GIT_AUTHOR_EMAIL=dana@shop.example", "GIT_COMMITTER_NAME=Dana", "GIT_COMMITTER_EMAIL=dana@shop.example")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// push commits the files of an archive on top of what is on the remote, and
// pushes them; it returns the commit. An empty file is removed.
func (h *house) push(message, archive string) string {
	h.Helper()
	return h.change(message, func() {
		for _, f := range txtar.Parse([]byte(archive)).Files {
			path := filepath.Join(h.clone, f.Name)
			if len(f.Data) == 0 {
				h.must(os.RemoveAll(path))
				continue
			}
			h.must(os.MkdirAll(filepath.Dir(path), 0o755))
			h.must(os.WriteFile(path, f.Data, 0o644))
		}
	})
}

// change commits what edit does to the newest files, and pushes it, as a
// person does who pulls when a push is refused.
func (h *house) change(message string, edit func()) string {
	h.Helper()
	for {
		if _, err := h.tryGit("fetch", "-q", "origin", "main"); err == nil {
			h.git("reset", "-q", "--hard", "FETCH_HEAD")
		}
		edit()
		h.git("add", "-A")
		h.git("commit", "-q", "--allow-empty", "-m", message)
		out, err := h.tryGit("push", "-q", "origin", "HEAD:main")
		if err == nil {
			return h.git("rev-parse", "HEAD")
		}
		if !strings.Contains(out, "rejected") && !strings.Contains(out, "failed to update ref") && !strings.Contains(out, "cannot lock ref") {
			h.Fatalf("git push: %v\n%s", err, out)
		}
	}
}

// replace changes text in a file, and pushes the change.
func (h *house) replace(file, old, new string) string {
	h.Helper()
	return h.change(fmt.Sprintf("%s: %s", file, new), func() {
		path := filepath.Join(h.clone, file)
		data, err := os.ReadFile(path)
		h.must(err)
		if !bytes.Contains(data, []byte(old)) {
			h.Fatalf("%s does not contain %q:\n%s", file, old, data)
		}
		h.must(os.WriteFile(path, bytes.ReplaceAll(data, []byte(old), []byte(new)), 0o644))
	})
}

// pin changes the version of web in an environment.
func (h *house) pin(environment, from, to string) string {
	h.Helper()
	return h.replace("environments/"+environment+".yaml", "web:"+from, "web:"+to)
}

// until asks again and again until f returns "", which says what is missing.
func (h *house) until(what string, f func() string) {
	h.Helper()
	end := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		missing := f()
		if missing == "" {
			return
		}
		if time.Now().After(end) {
			h.Fatalf("%s: not so after %s: %s", what, patience, missing)
		}
		<-tick.C
	}
}

// file returns a file on the remote's branch, or "".
func (h *house) file(branch, name string) string {
	out, err := h.tryGit("--git-dir="+h.remote, "show", branch+":"+name)
	if err != nil {
		return ""
	}
	return out
}

// subjects returns the subjects of a branch of the remote, oldest first.
func (h *house) subjects(branch string) []string {
	out, err := h.tryGit("--git-dir="+h.remote, "log", "--reverse", "--format=%s", branch)
	if err != nil {
		return nil
	}
	return strings.Split(out, "\n")
}

// ends waits until a branch ends with commits whose subjects begin as given.
func (h *house) ends(branch string, want ...string) {
	h.Helper()
	h.until(branch+" ends with "+strings.Join(want, "; "), func() string {
		all := h.subjects(branch)
		if len(all) < len(want) {
			return "it has " + strings.Join(all, "; ")
		}
		for i, s := range all[len(all)-len(want):] {
			if !strings.HasPrefix(s, want[i]) {
				return "it has\n" + strings.Join(all, "\n")
			}
		}
		return ""
	})
}

// runs waits until the tip pins a version of web, and the ledger says that it
// is in a state.
func (h *house) runs(environment, version string, state ledger.State) ledger.Record {
	h.Helper()
	var r ledger.Record
	h.until(fmt.Sprintf("%s has web %s, %s", environment, version, state), func() string {
		var err error
		r, err = h.record(environment, "web")
		switch {
		case err != nil:
			return err.Error()
		case r.Deployment.Release.Version() != version || r.Deployment.State != state:
			return fmt.Sprintf("it has %s, %s: %s", r.Deployment.Release.Version(), r.Deployment.State, r.Deployment.Reason)
		}
		return ""
	})
	return r
}

// record returns a record of the remote's ledger.
func (h *house) record(environment, service string) (ledger.Record, error) {
	out, err := h.tryGit("--git-dir="+h.remote, "show", "ledger/"+environment+":"+service+"/deployment.yaml")
	if err != nil {
		return ledger.Record{}, fmt.Errorf("%s", out)
	}
	return ledger.DecodeRecord("deployment.yaml", []byte(out+"\n"))
}

// settled waits until the clerk has nothing to do: two looks at the remote, a
// round of the clerk apart, see the same branches.
func (h *house) settled() {
	h.Helper()
	branches := func() string {
		return h.git("--git-dir="+h.remote, "for-each-ref", "--format=%(objectname) %(refname)")
	}
	for last := ""; ; {
		_, err := h.clerk.Report(context.Background(), reconcile.ReportRequest{Environment: "none"})
		if err == nil {
			h.Fatal("a report about no environment was taken")
		}
		now := branches()
		tips := h.mirror.Branches()
		same := now == last
		for _, line := range strings.Split(now, "\n") {
			id, ref, _ := strings.Cut(line, " ")
			same = same && tips[strings.TrimPrefix(ref, "refs/heads/")] == id
		}
		if same {
			return
		}
		last = now
	}
}

// report reports a result as an outside system does.
func (h *house) report(by, environment, policy, version string, result ledger.Result) error {
	_, err := h.clerk.Report(context.Background(), reconcile.ReportRequest{
		Principal: reconcile.Principal{Name: by}, Environment: desired.EnvironmentName(environment), Service: "web",
		Policy: desired.PolicyName(policy), Version: version, Result: result, URL: "https://ci.shop.example/" + version,
	})
	return err
}

// approve approves as a release manager.
func (h *house) approve(by, environment, version string) error {
	_, err := h.clerk.Approve(context.Background(), reconcile.ApprovalRequest{
		Principal:   reconcile.Principal{Name: by, Email: by + "@shop.example", Groups: []string{"release-managers"}},
		Environment: desired.EnvironmentName(environment), Service: "web", Version: version,
	})
	return err
}

// sound checks what has to hold whatever happens: the remote is in order, each
// ledger's trees follow from its entries, and no deployment is pinned twice.
func (h *house) sound() {
	h.Helper()
	devtest.Fsck(h, h.remote)
	for _, b := range strings.Fields(h.git("--git-dir="+h.remote, "for-each-ref", "--format=%(refname:short)", "refs/heads/ledger")) {
		records := map[desired.ServiceName]ledger.Record{}
		var names, want []string
		for _, c := range h.history(b) {
			e, err := ledger.ParseMessage(c.message, c.at)
			if err != nil {
				h.Errorf("%s, entry %s: %v", b, c.id, err)
				continue
			}
			next, err := records[e.Service].Apply(e)
			if err != nil {
				h.Errorf("%s, entry %s: %v", b, c.id, err)
				continue
			}
			records[e.Service] = next
			names, want = append(names, c.id+":"+ledger.RecordFile(e.Service)), append(want, string(next.Encode()))
		}
		for i, got := range h.blobs(names) {
			if string(got) != want[i] {
				h.Errorf("%s: the tree is not what the entries lead to: %s is\n%s\nwant\n%s", b, names[i], got, want[i])
			}
		}
		for _, svc := range slices.Sorted(maps.Keys(records)) {
			if records[svc].Deployment.ID == "" && records[svc].Candidate == nil {
				h.Errorf("%s: %s has neither a deployment nor a candidate", b, svc)
			}
		}
	}
}

// edit changes text in a file of the clone.
func (h *house) edit(file, old, new string) {
	h.Helper()
	path := filepath.Join(h.clone, file)
	data, err := os.ReadFile(path)
	h.must(err)
	h.must(os.WriteFile(path, bytes.ReplaceAll(data, []byte(old), []byte(new)), 0o644))
}
