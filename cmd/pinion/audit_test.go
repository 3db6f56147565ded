package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/pinion-cd/pinion/audit"
	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
	"github.com/pinion-cd/pinion/reconcile/check"
	"github.com/pinion-cd/pinion/render"
)

// gatedShop is a service on its way to production, past gates of many kinds.
const gatedShop = `
-- environments/dev.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: shop-dev
pins:
  web:
    image: registry.example/web:1.0.0
-- environments/staging.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: shop-staging
pins:
  web:
    image: registry.example/web:1.0.0
-- environments/production.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: shop-production
pins:
  web:
    image: registry.example/web:1.0.0
-- services/web/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- services/web/web.yaml --
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web}]}
-- pipelines/default.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: ["*"]
stages:
- environment: dev
- environment: staging
  verify: [e2e, soak]
  onFailure: rollback
- environment: production
  admit: [release, office-hours]
  onFailure: rollbackAll
-- policies/e2e.yaml --
apiVersion: pinion.dev/v1
kind: Policy
report: {by: [ci]}
-- policies/soak.yaml --
apiVersion: pinion.dev/v1
kind: Policy
soak: 30m
-- policies/release.yaml --
apiVersion: pinion.dev/v1
kind: Policy
approval: {groups: [release-managers], count: 2}
-- policies/office-hours.yaml --
apiVersion: pinion.dev/v1
kind: Policy
window: {allow: "Mon-Fri 08:00-16:00", timezone: Europe/Prague}
-- holds/README --
Holds.
`

var pinionItself = ledger.Person{Name: "Pinion", Email: "pinion@shop.example"}

// office is a deployment repository whose ledgers a real clerk keeps, by a
// clock of the test's. In place of clusters there is the test.
type office struct {
	*testing.T
	dir, remote, clone string
	signer             *gitstate.Signer

	mirror *gitstate.Mirror
	clerk  *reconcile.Clerk
	stop   func()

	mu     sync.Mutex // guards what follows
	now    time.Time
	phases map[string]reconcile.Phase // by "environment version"
}

func newOffice(t *testing.T, files string) *office {
	t.Helper()
	dir := t.TempDir()
	o := &office{T: t, dir: dir, remote: filepath.Join(dir, "remote.git"), clone: filepath.Join(dir, "clone"), phases: map[string]reconcile.Phase{},
		now: time.Date(2026, 10, 5, 7, 0, 0, 0, time.UTC)} // a Monday
	for _, name := range []string{"daemon", "stranger"} {
		out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", filepath.Join(dir, name)).CombinedOutput()
		if err != nil {
			t.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
	}
	var err error
	o.signer, err = gitstate.OpenSigner(filepath.Join(dir, "daemon"), "")
	o.must(err)
	o.must(os.WriteFile(filepath.Join(dir, "allowed_signers"), []byte(pinionItself.Email+" "+o.signer.PublicKey()+"\n"), 0o644))
	o.must(os.Mkdir(o.clone, 0o755))
	o.git("init", "-q", "--bare", "--initial-branch=main", o.remote)
	o.git("init", "-q", "--initial-branch=main")
	o.git("remote", "add", "origin", o.remote)
	o.change("The shop", func() {
		for _, f := range txtar.Parse([]byte(files)).Files {
			o.write(f.Name, string(f.Data))
		}
	})
	return o
}

func (o *office) must(err error) {
	o.Helper()
	if err != nil {
		o.Fatal(err)
	}
}

func (o *office) write(name, text string) {
	path := filepath.Join(o.clone, name)
	o.must(os.MkdirAll(filepath.Dir(path), 0o755))
	o.must(os.WriteFile(path, []byte(text), 0o644))
}

// open starts the clerk.
func (o *office) open() {
	o.Helper()
	mirror, err := gitstate.Open(context.Background(), gitstate.Options{URL: o.remote, Dir: filepath.Join(o.TempDir(), "mirror"), Poll: time.Second})
	o.must(err)
	_, err = mirror.Fetch(context.Background())
	o.must(err)
	engine := reconcile.NewEngine(reconcile.Options{Commits: mirror})
	clerk := reconcile.NewClerk(reconcile.ClerkOptions{
		Mirror: mirror, Branch: "main", Identity: pinionItself, Sign: o.signer.Sign, Digests: []byte("a key"),
		Checks: check.New(nil, check.Options{}), Clock: o.clock,
		Report: func(ev reconcile.Event) {
			if ev.Type == reconcile.EventProblem || ev.Type == reconcile.EventWarning {
				o.Logf("%s %s/%s: %s", ev.Type, ev.Environment, ev.Service, ev.Message)
			}
		},
	}, engine)
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { clerk.Run(ctx) })
	wait.Go(func() { o.watch(ctx, mirror, clerk) })
	o.mirror, o.clerk = mirror, clerk
	o.stop = sync.OnceFunc(func() {
		cancel()
		wait.Wait()
		mirror.Close()
	})
	o.Cleanup(o.stop)
}

// watch plays the engine: what is asked for is ready, unless the test says
// otherwise.
func (o *office) watch(ctx context.Context, mirror *gitstate.Mirror, clerk *reconcile.Clerk) {
	cache := render.NewCache(64 << 20)
	targets := map[reconcile.Key]*reconcile.Target{}
	var last *reconcile.Commit
	for range mirror.Watch(ctx) {
		tip, err := mirror.Fetch(ctx)
		if err != nil {
			continue
		}
		clerk.Moved()
		c, err := reconcile.ReadCommit(ctx, mirror, tip.Commit, last)
		if err != nil {
			continue
		}
		last = c
		for _, d := range c.Repository.Deployments() {
			t, tree, err := reconcile.Resolve(ctx, mirror, c, d)
			if err != nil {
				continue
			}
			if t.Result, _ = cache.Get(t.Request, tree); t.Result == nil {
				if t.Result, err = render.Build(ctx, tree, t.Request); err != nil {
					continue
				}
				cache.Put(t.Request, t.Result)
			}
			if old := targets[t.Key]; old != nil && old.Result.Digest == t.Result.Digest && old.Pinned == t.Pinned && (!t.Pinned || old.Source == t.Source) &&
				ledger.ReleaseOf(old.Request.Pins, "").SamePins(ledger.ReleaseOf(t.Request.Pins, "")) {
				t = old
			}
			targets[t.Key] = t
			o.mu.Lock()
			phase, ok := o.phases[string(t.Environment)+" "+t.Version()]
			o.mu.Unlock()
			if !ok {
				phase = reconcile.Ready
			}
			clerk.See(reconcile.Sighting{Key: t.Key, Target: t, Tip: c.ID, Phase: phase, Message: "as the test says", Started: true, Final: phase == reconcile.Failed})
		}
	}
}

func (o *office) clock() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.now
}

// later moves the clock on.
func (o *office) later(d time.Duration) {
	o.mu.Lock()
	o.now = o.now.Add(d)
	o.mu.Unlock()
	if o.clerk != nil {
		o.clerk.Moved()
	}
}

// git runs git in the clone, as Dana and by the test's clock.
func (o *office) git(args ...string) string {
	o.Helper()
	out, err := o.tryGit(args...)
	if err != nil {
		o.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (o *office) tryGit(args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = o.clone
	date := o.clock().Format(time.RFC3339)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull, "GIT_AUTHOR_DATE="+date, "GIT_COMMITTER_DATE="+date,
		"GIT_AUTHOR_NAME=Dana", "GIT_AUTHOR_EMAIL=dana@shop.example", "GIT_COMMITTER_NAME=Dana", "GIT_COMMITTER_EMAIL=dana@shop.example")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// change commits what edit does to the newest files, and pushes it.
func (o *office) change(message string, edit func()) string {
	o.Helper()
	for {
		if _, err := o.tryGit("fetch", "-q", "origin", "main"); err == nil {
			o.git("reset", "-q", "--hard", "FETCH_HEAD")
		}
		edit()
		o.git("add", "-A")
		o.git("commit", "-q", "--allow-empty", "-m", message)
		out, err := o.tryGit("push", "-q", "origin", "HEAD:main")
		if err == nil {
			if o.mirror != nil {
				o.mirror.Poke()
			}
			return o.git("rev-parse", "HEAD")
		}
		if !strings.Contains(out, "rejected") && !strings.Contains(out, "failed to update ref") && !strings.Contains(out, "cannot lock ref") {
			o.Fatalf("git push: %v\n%s", err, out)
		}
	}
}

func (o *office) replace(file, old, new string) {
	o.Helper()
	o.change(file+": "+new, func() {
		data, err := os.ReadFile(filepath.Join(o.clone, file))
		o.must(err)
		if !bytes.Contains(data, []byte(old)) {
			o.Fatalf("%s does not contain %q:\n%s", file, old, data)
		}
		o.write(file, strings.ReplaceAll(string(data), old, new))
	})
}

// is waits until the ledger says so of web.
func (o *office) is(environment, version string, state ledger.State) {
	o.Helper()
	o.until(fmt.Sprintf("%s has web %s, %s", environment, version, state), func() string {
		r, err := o.record(environment)
		switch {
		case err != nil:
			return err.Error()
		case r.Deployment.Release.Version() != version || r.Deployment.State != state:
			return fmt.Sprintf("it has %s, %s: %s", r.Deployment.Release.Version(), r.Deployment.State, r.Deployment.Reason)
		}
		return ""
	})
}

func (o *office) offered(environment, version string) {
	o.Helper()
	o.until(environment+" is offered "+version, func() string {
		r, err := o.record(environment)
		if err != nil {
			return err.Error()
		}
		if r.Candidate == nil || r.Candidate.Release.Version() != version {
			return "it is not"
		}
		return ""
	})
}

func (o *office) until(what string, f func() string) {
	o.Helper()
	end := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		missing := f()
		if missing == "" {
			return
		}
		if time.Now().After(end) {
			o.Fatalf("%s: not so after %s: %s\n%s", what, patience, missing, o.git("--git-dir="+o.remote, "log", "--oneline", "--all"))
		}
		<-tick.C
	}
}

func (o *office) record(environment string) (ledger.Record, error) {
	out, err := o.tryGit("--git-dir="+o.remote, "show", "ledger/"+environment+":web/deployment.yaml")
	if err != nil {
		return ledger.Record{}, fmt.Errorf("%s", out)
	}
	return ledger.DecodeRecord("deployment.yaml", []byte(out+"\n"))
}

func (o *office) report(version string, result ledger.Result) {
	o.Helper()
	_, err := o.clerk.Report(context.Background(), reconcile.ReportRequest{
		Principal: reconcile.Principal{Name: "ci"}, Environment: "staging", Service: "web", Policy: "e2e", Version: version,
		Result: result, URL: "https://ci.shop.example/" + version, Description: "41 of 41",
	})
	o.must(err)
}

func (o *office) approve(by, version string) {
	o.Helper()
	_, err := o.clerk.Approve(context.Background(), reconcile.ApprovalRequest{
		Principal:   reconcile.Principal{Name: by, Email: by + "@shop.example", Groups: []string{"release-managers"}},
		Environment: "production", Service: "web", Version: version,
	})
	o.must(err)
}

// bump brings a version from dev to being verified in staging.
func (o *office) bump(from, to string) {
	o.Helper()
	o.later(time.Hour)
	o.replace("environments/dev.yaml", "web:"+from, "web:"+to)
	o.is("staging", to, ledger.StateCompleted)
	o.later(5 * time.Minute)
	o.report(to, ledger.Success)
	o.later(30 * time.Minute)
	o.is("staging", to, ledger.StateVerified)
}

// live has a week of everything happen. In the end 1.6.0 waits for approvals.
func (o *office) live() {
	o.Helper()
	o.open()
	o.is("dev", "1.0.0", ledger.StateVerified)
	o.is("staging", "1.0.0", ledger.StateCompleted)
	o.report("1.0.0", ledger.Success)
	o.later(30 * time.Minute)
	o.is("staging", "1.0.0", ledger.StateVerified)
	o.is("production", "1.0.0", ledger.StateVerified)

	o.bump("1.0.0", "1.1.0")
	o.offered("production", "1.1.0")
	o.approve("alice", "1.1.0")
	o.later(time.Minute)
	o.approve("bob", "1.1.0")
	o.is("production", "1.1.0", ledger.StateVerified)

	// A hold, and then a person who is quicker than the daemon.
	o.change("hold", func() {
		o.write("holds/freeze.yaml", "apiVersion: pinion.dev/v1\nkind: Hold\nenvironments: [production]\nreason: INC-431\nowner: dana@shop.example\n")
	})
	o.bump("1.1.0", "1.2.0")
	o.offered("production", "1.2.0")
	o.approve("alice", "1.2.0")
	o.approve("bob", "1.2.0")
	o.stop()
	o.change("release", func() { o.git("rm", "-q", "holds/freeze.yaml") })
	cmd := pinionCommand("promote", "web", "--to", "production", "--yes", "--repo", o.clone)
	cmd.Env = append(cmd.Env, nowIs+"="+rfc3339(o.clock()), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull,
		"GIT_AUTHOR_DATE="+rfc3339(o.clock()), "GIT_COMMITTER_DATE="+rfc3339(o.clock()),
		"GIT_AUTHOR_NAME=Kim", "GIT_AUTHOR_EMAIL=kim@shop.example", "GIT_COMMITTER_NAME=Kim", "GIT_COMMITTER_EMAIL=kim@shop.example")
	if out, err := cmd.CombinedOutput(); err != nil {
		o.Fatalf("pinion promote: %v\n%s", err, out)
	}
	o.open()
	o.is("production", "1.2.0", ledger.StateVerified)

	// One that fails its check, one that fails where it matters.
	o.later(time.Hour)
	o.replace("environments/dev.yaml", "web:1.2.0", "web:1.3.0")
	o.is("staging", "1.3.0", ledger.StateCompleted)
	o.later(time.Minute)
	o.report("1.3.0", ledger.Failure)
	o.is("staging", "1.2.0", ledger.StateVerified)
	o.later(20 * time.Hour)
	o.phases["production 1.4.0"] = reconcile.Failed
	o.bump("1.3.0", "1.4.0")
	o.offered("production", "1.4.0")
	o.approve("alice", "1.4.0")
	o.approve("bob", "1.4.0")
	for _, env := range []string{"dev", "staging", "production"} {
		o.is(env, "1.2.0", ledger.StateVerified)
	}

	// Manifests move like versions; and approvals come before the window opens.
	o.later(20 * time.Hour)
	o.replace("services/web/web.yaml", "containers:", "terminationGracePeriodSeconds: 5, containers:")
	o.until("staging has the new manifests", func() string {
		r, _ := o.record("staging")
		if d, _ := o.record("dev"); d.Deployment.Release.Source != r.Deployment.Release.Source || r.Deployment.State != ledger.StateCompleted && r.Deployment.State != ledger.StateVerified {
			return "not yet"
		}
		return ""
	})
	o.later(time.Hour)
	o.report("1.2.0", ledger.Success)
	o.is("staging", "1.2.0", ledger.StateVerified)
	o.bump("1.2.0", "1.5.0")
	o.offered("production", "1.5.0")
	o.later(8 * time.Hour)
	o.approve("alice", "1.5.0")
	o.approve("bob", "1.5.0")
	o.later(16 * time.Hour)
	o.is("production", "1.5.0", ledger.StateVerified)
	o.later(time.Minute)
	o.bump("1.5.0", "1.6.0")
	o.offered("production", "1.6.0")
	o.stop()
	o.git("--git-dir="+o.remote, "repack", "-adq") // to be copied quickly
}

// verdict is what `pinion audit -o json` says.
type verdict struct {
	audited
	code   int
	stderr string
}

// auditOf runs pinion audit on a repository.
func auditOf(t *testing.T, dir string, args ...string) verdict {
	t.Helper()
	cmd := pinionCommand(append([]string{"audit", "--repo", dir, "-o", "json"}, args...)...)
	cmd.Env = append(cmd.Env, "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	v := verdict{stderr: stderr.String()}
	if err != nil {
		v.code = cmd.ProcessState.ExitCode()
	}
	if len(out) > 0 {
		if err := json.Unmarshal(out, &v.audited); err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
	}
	return v
}

func (v verdict) text() string {
	var b strings.Builder
	for _, f := range v.Findings {
		fmt.Fprintf(&b, "%s %s %s %.12s %s/%s: %s (%s)\n", f.Severity, f.Rule, f.Branch, f.Commit, f.Environment, f.Service, f.Message, f.Meaning)
	}
	return b.String() + v.stderr
}

// forger is a copy of an honest history, for somebody to write into who has
// push rights and no key.
type forger struct {
	*testing.T
	o   *office
	dir string // the remote
	now time.Time
}

func (o *office) forger(t *testing.T) *forger {
	t.Helper()
	f := &forger{t, o, filepath.Join(t.TempDir(), "remote.git"), o.clock()}
	if out, err := exec.Command("cp", "-r", o.remote, f.dir).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	return f
}

func (f *forger) git(args ...string) string {
	f.Helper()
	return strings.TrimSpace(f.input("", args...))
}

func (f *forger) input(in string, args ...string) string {
	f.Helper()
	cmd := exec.Command("git", append([]string{"--git-dir=" + f.dir}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull, "GIT_INDEX_FILE="+f.dir+"/forged-index")
	cmd.Stdin = strings.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		f.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return string(out)
}

func (f *forger) tip(branch string) string {
	f.Helper()
	return f.git("rev-parse", "refs/heads/"+branch)
}

// forged is a commit to be made, by the daemon's name if no other is given.
type forged struct {
	branch  string
	onto    string // a revision; "": the branch's tip
	also    []string
	message string
	files   map[string]string
	by      ledger.Person
	at      time.Time
	sign    *gitstate.Signer
}

// odd is a text of a file that stands there in another mode.
func odd(mode, text string) string { return "\x00" + mode + "\x00" + text }

// commit makes a commit, and moves its branch to it.
func (f *forger) commit(c forged) string {
	f.Helper()
	if c.onto == "" {
		c.onto = f.tip(c.branch)
	}
	f.git("read-tree", c.onto)
	for name, text := range c.files {
		if text == "" {
			f.input("0 "+strings.Repeat("0", 40)+"\t"+name+"\n", "update-index", "--index-info")
			continue
		}
		mode := "100644"
		if rest, ok := strings.CutPrefix(text, "\x00"); ok {
			mode, text, _ = strings.Cut(rest, "\x00")
		}
		id := strings.TrimSpace(f.input(text, "hash-object", "-w", "--stdin"))
		if mode == "160000" {
			id = f.tip("main")
		}
		f.git("update-index", "--add", "--replace", "--cacheinfo", mode+","+id+","+name)
	}
	if c.by == (ledger.Person{}) {
		c.by = pinionItself
	}
	if c.at.IsZero() {
		f.now = f.now.Add(time.Second)
		c.at = f.now
	}
	var head strings.Builder
	fmt.Fprintf(&head, "tree %s\n", f.git("write-tree"))
	for _, p := range append([]string{c.onto}, c.also...) {
		fmt.Fprintf(&head, "parent %s\n", f.git("rev-parse", p))
	}
	fmt.Fprintf(&head, "author %s <%s> %d +0000\ncommitter %s <%s> %d +0000\n", c.by.Name, c.by.Email, c.at.Unix(), c.by.Name, c.by.Email, c.at.Unix())
	id := f.object(head.String(), "\n"+c.message, c.sign)
	f.git("update-ref", "refs/heads/"+c.branch, id)
	return id
}

func (f *forger) object(head, rest string, sign *gitstate.Signer) string {
	f.Helper()
	if sign != nil {
		signature, err := sign.Sign([]byte(head + rest))
		f.o.must(err)
		head += "gpgsig " + strings.ReplaceAll(strings.TrimRight(signature, "\n"), "\n", "\n ") + "\n"
	}
	return strings.TrimSpace(f.input(head+rest, "hash-object", "-t", "commit", "-w", "--stdin"))
}

func (f *forger) record(revision, environment string) ledger.Record {
	f.Helper()
	r, err := ledger.DecodeRecord("deployment.yaml", []byte(f.input("", "show", revision+":web/deployment.yaml")))
	f.o.must(err)
	return r
}

// entry writes an entry as the daemon would, but without its key.
func (f *forger) entry(environment string, change func(*ledger.Entry), options ...func(*forged)) string {
	f.Helper()
	branch := "ledger/" + environment
	r := f.record(f.tip(branch), environment)
	d := r.Deployment
	f.now = f.now.Add(time.Second)
	e := ledger.Entry{Environment: desired.EnvironmentName(environment), Service: "web", Time: f.now, Deployment: d.ID, Commit: d.Commit, Release: d.Release, Manifests: d.Manifests}
	change(&e)
	if e.Event == ledger.EventPinned && e.Deployment == "" {
		e.Deployment = ledger.DeploymentID("web", e.Commit)
	}
	next, err := r.Apply(e)
	f.o.must(err)
	c := forged{branch: branch, message: e.Message(), files: map[string]string{"web/deployment.yaml": string(next.Encode())}, at: e.Time}
	for _, o := range options {
		o(&c)
	}
	return f.commit(c)
}

// candidate makes an entry one of the candidate.
func (f *forger) candidate(e *ledger.Entry) {
	c := f.record(f.tip("ledger/production"), "production").Candidate
	e.Candidate, e.Deployment, e.Commit, e.Manifests, e.Release = true, "", "", "", c.Release
}

// approved writes an approval of what waits for production.
func (f *forger) approved(by string, groups ...string) {
	f.Helper()
	f.entry("production", func(e *ledger.Entry) {
		f.candidate(e)
		e.Event = ledger.EventApproved
		e.Approval = &ledger.Approval{Policy: "release", By: by, Email: by + "@shop.example", Groups: groups}
	})
}

// pipeline is the id of the newest pipeline file that can be read.
func (f *forger) pipeline() string {
	f.Helper()
	for _, id := range strings.Fields(f.git("rev-list", "--first-parent", "main")) {
		if out, err := exec.Command("git", "--git-dir="+f.dir, "rev-parse", "-q", "--verify", id+":pipelines/default.yaml").Output(); err == nil {
			return strings.TrimSpace(string(out))
		}
	}
	return ""
}

// promotion writes 1.6.0 to production, as the daemon would.
func (f *forger) promotion(edit func(*forged, *ledger.Change)) string {
	f.Helper()
	was := func(name string) string { // also where somebody has put something else
		if out, err := exec.Command("git", "--git-dir="+f.dir, "cat-file", "blob", "main:"+name).Output(); err == nil && bytes.Contains(out, []byte("web:1.5.0")) {
			return string(out)
		}
		return f.input("", "show", f.git("log", "-1", "--format=%H", "--grep=web 1.2.0 → 1.5.0", "main")+":"+name)
	}
	release := f.record(f.tip("ledger/staging"), "staging").Deployment.Release
	c := forged{branch: "main", files: map[string]string{}}
	change := ledger.Change{Kind: ledger.ChangePromoted, Environment: "production", Service: "web", Release: release, Before: "1.5.0",
		From: []string{"staging@" + f.tip("ledger/staging")}, Policy: "default@" + f.pipeline(),
		Reason: "Verified in staging.", CoAuthors: []ledger.Person{{Name: "Dana", Email: "dana@shop.example"}}}
	name := "environments/production.yaml"
	ed, err := desired.NewEditor(name, []byte(was(name)))
	f.o.must(err)
	data, err := ed.Apply(desired.Edit{Service: "web", Pins: []desired.PinEdit{{Artifact: "web", Reference: release.Pins[0].Image}}, Manifests: release.Source})
	f.o.must(err)
	c.files[name] = string(data)
	if edit != nil {
		edit(&c, &change)
	}
	c.message = change.Message()
	return f.commit(c)
}

// rewrite makes a ledger anew, commit by commit: a commit's object is changed,
// and left out if nothing is left of it. What is changed loses its signature.
func (f *forger) rewrite(environment string, change func(n int, raw string) string) {
	f.Helper()
	branch := "ledger/" + environment
	parent, changed := "", false
	for n, id := range strings.Fields(f.git("rev-list", "--reverse", branch)) {
		was := f.input("", "cat-file", "commit", id)
		raw := change(n, was)
		if raw == "" {
			changed = true
			continue
		}
		if changed = changed || raw != was; changed {
			raw = regexp.MustCompile(`(?s)gpgsig .*?-----END SSH SIGNATURE-----\n`).ReplaceAllString(raw, "")
		}
		raw = regexp.MustCompile(`(?m)^parent .*\n`).ReplaceAllString(raw, "")
		if parent != "" {
			tree, rest, _ := strings.Cut(raw, "\n")
			raw = tree + "\nparent " + parent + "\n" + rest
		}
		parent = strings.TrimSpace(f.input(raw, "hash-object", "-t", "commit", "-w", "--stdin"))
	}
	f.git("update-ref", "refs/heads/"+branch, parent)
}

// nth returns the position of the last entry whose subject begins so.
func (f *forger) nth(environment, subject string) (int, string) {
	f.Helper()
	ids := strings.Split(f.git("log", "--reverse", "--format=%H %s", "ledger/"+environment), "\n")
	for n, line := range slices.Backward(ids) {
		if id, s, _ := strings.Cut(line, " "); strings.HasPrefix(s, subject) {
			return n, id
		}
	}
	f.Fatalf("no entry %q in %s", subject, ids)
	return 0, ""
}

// treeWith is a tree of a ledger with another text in it.
func (f *forger) treeWith(revision, name, text string) string {
	f.Helper()
	f.git("read-tree", revision)
	f.git("update-index", "--add", "--cacheinfo", "100644,"+strings.TrimSpace(f.input(text, "hash-object", "-w", "--stdin"))+","+name)
	return f.git("write-tree")
}

// afresh writes a ledger anew with all its trees, so that nothing in it tells.
func (f *forger) afresh(environment string, change func(*ledger.Entry)) {
	f.Helper()
	var r ledger.Record
	f.rewrite(environment, func(_ int, raw string) string {
		head, message, _ := strings.Cut(raw, "\n\n")
		m := regexp.MustCompile(`(?m)^committer .*> (\d+) `).FindStringSubmatch(head)
		var seconds int64
		fmt.Sscan(m[1], &seconds)
		e, err := ledger.ParseMessage(message, time.Unix(seconds, 0))
		f.o.must(err)
		change(&e)
		r, err = r.Apply(e)
		f.o.must(err)
		tree := strings.Fields(head)[1]
		return strings.Replace(head, tree, f.treeWith(tree, "web/deployment.yaml", string(r.Encode())), 1) + "\n\n" + e.Message()
	})
}

// found compares the findings, each as "severity rule environment: message",
// with patterns; none may be left over.
func (v verdict) found(t *testing.T, code int, want ...string) {
	t.Helper()
	var left []string
	for _, f := range v.Findings {
		line := fmt.Sprintf("%s %s %s: %s", f.Severity, f.Rule, f.Environment, f.Message)
		if f.More > 0 {
			line += fmt.Sprintf(" +%d", f.More)
		}
		left = append(left, line)
		if f.Meaning == "" && f.Severity != audit.Note {
			t.Errorf("%s: what it may mean is not said", f.Message)
		}
		if len(f.Commit) != 40 || f.Branch == "" {
			t.Errorf("%s: it is about commit %q of %q", f.Message, f.Commit, f.Branch)
		}
	}
	for _, w := range want {
		i := slices.IndexFunc(left, regexp.MustCompile("^"+w).MatchString)
		if i < 0 {
			t.Errorf("no finding %q", w)
			continue
		}
		left = slices.Delete(left, i, i+1)
	}
	for _, l := range left {
		t.Errorf("a finding too many: %s", l)
	}
	if v.code != code {
		t.Errorf("exit code %d, not %d", v.code, code)
	}
	if t.Failed() {
		t.Logf("%s", v.text())
	}
}

func TestAudit(t *testing.T) {
	o := newOffice(t, gatedShop)
	o.live()
	signers := "--allowed-signers=" + filepath.Join(o.dir, "allowed_signers")
	unsigned := "--no-signatures"
	try := func(name string, code int, forge func(f *forger) []string, want ...string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := o.forger(t)
			args := forge(f)
			auditOf(t, f.dir, args...).found(t, code, want...)
		})
	}
	pinByDana := func(f *forger, version string) string {
		name := "environments/staging.yaml"
		text := regexp.MustCompile(`web:\d\S*`).ReplaceAllString(f.input("", "show", "main:"+name), "web:"+version)
		return f.commit(forged{branch: "main", by: ledger.Person{Name: "Dana", Email: "dana@shop.example"}, message: "bump\n", files: map[string]string{name: text}})
	}
	both := func(f *forger) {
		f.approved("alice", "release-managers")
		f.approved("bob", "release-managers")
	}

	try("honest", 0, func(f *forger) []string { return []string{signers} })

	// Promotions by hand. The first one is none: it is what the daemon would do.
	try("promotion by hand that is allowed", 0, func(f *forger) []string {
		both(f)
		f.promotion(nil)
		return []string{unsigned}
	})
	try("promotion with false trailers", 1, func(f *forger) []string {
		f.promotion(nil)
		return []string{unsigned}
	}, `error promotion production: a promotion without its evidence: .*1\.6\.0.* to production at 2026-10-08T09:28:01Z was not allowed: release: 0 of 2 approvals by release-managers`)
	try("promotion of another digest than it says", 1, func(f *forger) []string {
		both(f)
		f.promotion(func(c *forged, _ *ledger.Change) {
			for name, text := range c.files {
				c.files[name] = strings.Replace(text, "web:1.6.0", "web:1.6.0@sha256:"+strings.Repeat("7", 64), 1)
			}
		})
		return []string{unsigned}
	}, `error promotion production: it claims registry.example/web:1.6.0, .*, and changes something else: of environments/production.yaml, line 6 has "image: registry.example/web:1.6.0@sha256:7+" where "image: registry.example/web:1.6.0" should be`)
	try("promotion that changes more", 1, func(f *forger) []string {
		both(f)
		f.promotion(func(c *forged, _ *ledger.Change) {
			c.files["services/web/web.yaml"] = f.input("", "show", "main:services/web/web.yaml") + "---\n"
		})
		return []string{unsigned}
	}, `error promotion production: it changes services/web/web.yaml besides`)
	try("promotion of a version that was never in staging", 1, func(f *forger) []string {
		both(f)
		f.promotion(func(c *forged, change *ledger.Change) {
			for name, text := range c.files {
				c.files[name] = strings.Replace(text, "web:1.6.0", "web:1.6.1", 1)
			}
			change.Release.Pins = []ledger.Pin{{Artifact: "web", Image: "registry.example/web:1.6.1"}}
		})
		return []string{unsigned}
	}, `error promotion production: it claims that registry.example/web:1.6.1.* was verified in staging, and entry [0-9a-f]{12} of ledger/staging does not say so: it has registry.example/web:1.6.0`,
		`error promotion production: a promotion without its evidence: .*policy led to registry.example/web:1.6.0`)
	try("promotion from an entry of another version", 1, func(f *forger) []string {
		both(f)
		_, entry := f.nth("staging", "pinned(staging): web 1.5.0 → 1.6.0")
		f.promotion(func(_ *forged, change *ledger.Change) { change.From = []string{"staging@" + entry} })
		return []string{unsigned}
	}, `error promotion production: it claims that .*1\.6\.0.* was verified in staging, and entry [0-9a-f]{12} of ledger/staging does not say so`)
	try("promotion from an entry that is not there", 1, func(f *forger) []string {
		both(f)
		f.promotion(func(_ *forged, change *ledger.Change) { change.From = []string{"staging@" + f.tip("main")} })
		return []string{unsigned}
	}, `error promotion production: it claims to rest on staging@[0-9a-f]{40}, and ledger/staging has no such entry`)
	try("promotion from nowhere", 1, func(f *forger) []string {
		both(f)
		f.promotion(func(_ *forged, change *ledger.Change) { change.From = []string{"dev@" + f.tip("ledger/dev")} })
		return []string{unsigned}
	}, `error promotion production: it claims to come from dev@[0-9a-f]{40}, and that is no stage before production`,
		`error promotion production: it names no entry of ledger/staging`)
	try("promotion past a hold", 1, func(f *forger) []string {
		both(f)
		f.commit(forged{branch: "main", by: ledger.Person{Name: "Dana", Email: "dana@shop.example"}, message: "hold\n", files: map[string]string{
			"holds/freeze.yaml": "apiVersion: pinion.dev/v1\nkind: Hold\nenvironments: [production]\nreason: INC-432\n"}})
		f.promotion(nil)
		return []string{unsigned}
	}, `error promotion production: a promotion without its evidence: .* hold freeze: INC-432`)
	late := func(after time.Duration) func(f *forger) []string {
		return func(f *forger) []string {
			dana := ledger.Person{Name: "Dana", Email: "dana@shop.example"}
			pipeline := f.input("", "show", "main:pipelines/default.yaml")
			f.commit(forged{branch: "main", by: dana, message: "by pull request\n", files: map[string]string{
				"pipelines/default.yaml": strings.Replace(pipeline, "admit: [release, office-hours]\n", "admit: [release, office-hours]\n  by: pullRequest\n", 1)}})
			both(f)
			f.now = f.now.Add(2 * time.Minute)
			f.commit(forged{branch: "main", by: dana, message: "hold\n", files: map[string]string{
				"holds/freeze.yaml": "apiVersion: pinion.dev/v1\nkind: Hold\nenvironments: [production]\nreason: INC-432\n"}})
			f.now = f.now.Add(after)
			f.promotion(func(c *forged, _ *ledger.Change) { c.by = ledger.Person{Name: "Forge", Email: "forge@shop.example"} })
			return []string{unsigned}
		}
	}
	try("promotion that a forge merges in the moment of a hold", 0, late(10*time.Second),
		`warning promotion production: it was allowed by main as it was at [0-9a-f]{12}, and not by what came between`)
	try("promotion that a forge merges past a hold", 1, late(2*time.Minute),
		`error promotion production: a promotion without its evidence: .* hold freeze: INC-432`)
	try("promotion past a hold with a date before it", 1, late(-100*time.Second),
		`error promotion production: a promotion without its evidence: .* hold freeze: INC-432`)
	try("promotion outside of the window", 1, func(f *forger) []string {
		both(f)
		f.promotion(func(c *forged, _ *ledger.Change) { c.at = time.Date(2026, 10, 11, 10, 0, 0, 0, time.UTC) })
		return []string{unsigned}
	}, `error promotion production: a promotion without its evidence: .*2026-10-11T10:00:00Z was not allowed: office-hours: opens `)
	try("promotion with the author's approval", 1, func(f *forger) []string {
		f.approved("dana", "release-managers")
		f.approved("alice", "release-managers")
		f.promotion(nil)
		return []string{unsigned}
	}, `error promotion production: a promotion without its evidence: .* release: 1 of 2 approvals by release-managers: alice; dana's does not count: who chose the version`)
	try("promotion with an approval by somebody else", 1, func(f *forger) []string {
		f.approved("mallory", "interns")
		f.approved("alice", "release-managers")
		f.promotion(nil)
		return []string{unsigned}
	}, `error promotion production: a promotion without its evidence: .* mallory's does not count: not in release-managers`)
	try("promotion before its approvals", 1, func(f *forger) []string {
		f.promotion(nil)
		f.now = f.now.Add(2 * time.Minute)
		both(f)
		return []string{unsigned}
	}, `error promotion production: a promotion without its evidence: .* release: 0 of 2`)
	try("promotion of what was refused", 1, func(f *forger) []string {
		both(f)
		f.promotion(func(c *forged, change *ledger.Change) {
			_, entry := f.nth("staging", "verified(staging): web 1.2.0 → 1.4.0")
			release := f.record(entry, "staging").Deployment.Release
			for name := range c.files {
				ed, err := desired.NewEditor(name, []byte(f.input("", "show", "main:"+name)))
				o.must(err)
				data, err := ed.Apply(desired.Edit{Service: "web", Pins: []desired.PinEdit{{Artifact: "web", Reference: release.Pins[0].Image}}, Manifests: release.Source})
				o.must(err)
				c.files[name] = string(data)
			}
			change.Release, change.From = release, []string{"staging@" + entry}
		})
		return []string{unsigned}
	}, `error promotion production: a promotion without its evidence: registry.example/web:1.4.0`)
	try("promotion by another pipeline", 0, func(f *forger) []string {
		both(f)
		f.promotion(func(_ *forged, change *ledger.Change) { change.Policy = "default@" + strings.Repeat("7", 40) })
		return []string{unsigned}
	}, `warning promotion production: it claims to follow "default@7+"`)

	// What has the look of a promotion, and none of its grounds.
	mallory := ledger.Person{Name: "Mallory", Email: "mallory@shop.example"}
	// claim commits the promotion with another message.
	claim := func(f *forger, message func(string) string) string {
		id := f.promotion(func(c *forged, _ *ledger.Change) { c.by = mallory })
		text := f.git("log", "-1", "--format=%B", id) + "\n"
		f.git("update-ref", "refs/heads/main", id+"^")
		return f.commit(forged{branch: "main", by: mallory, message: message(text), files: map[string]string{
			"environments/production.yaml": f.input("", "show", id+":environments/production.yaml")}})
	}
	title := func(message string) string {
		subject, _, _ := strings.Cut(message, "\n")
		return subject + "\n"
	}
	const none = `error promotion production: its message has the look of a promotion, and it is none: Mallory <mallory@shop.example> has changed what it changes`
	for name, message := range map[string]func(string) string{
		"its title alone":               title,
		"its title, as a squash has it": func(m string) string { return strings.TrimSpace(title(m)) + " (#5)\n" },
		"its trailers, without its pins": func(m string) string {
			return regexp.MustCompile(`(?m)^Pinion-(Pin|Source): .*\n`).ReplaceAllString(m, "")
		},
		"its trailers under another title": func(m string) string {
			return strings.Replace(m, "promote(production)", "a bump of", 1) + "Pinion-Event: promoted\n"
		},
		"its trailers with other lines": func(m string) string { return strings.ReplaceAll(m, "\n", "\r\n") },
	} {
		try("a commit with "+name, 1, func(f *forger) []string {
			claim(f, message)
			return []string{unsigned}
		}, none)
	}
	byPullRequest := func(f *forger) {
		pipeline := f.input("", "show", "main:pipelines/default.yaml")
		f.commit(forged{branch: "main", by: ledger.Person{Name: "Dana", Email: "dana@shop.example"}, message: "by pull request\n", files: map[string]string{
			"pipelines/default.yaml": strings.Replace(pipeline, "admit: [release, office-hours]\n", "admit: [release, office-hours]\n  by: pullRequest\n", 1)}})
	}
	try("a squash with the title of what was allowed", 0, func(f *forger) []string {
		byPullRequest(f)
		both(f)
		claim(f, title)
		return []string{unsigned}
	})
	try("a squash with the title of what was not", 1, func(f *forger) []string {
		byPullRequest(f)
		claim(f, title)
		return []string{unsigned}
	}, `error promotion production: a promotion without its evidence: .* release: 0 of 2 approvals`)
	try("a squash with the title that does more", 1, func(f *forger) []string {
		byPullRequest(f)
		both(f)
		id := claim(f, title)
		f.git("update-ref", "refs/heads/main", id+"^")
		f.commit(forged{branch: "main", by: mallory, message: title(f.git("log", "-1", "--format=%s", id)), files: map[string]string{
			"environments/production.yaml": f.input("", "show", id+":environments/production.yaml"), "README": "more"}})
		return []string{unsigned}
	}, `error promotion production: it changes README besides what it claims`)
	try("a squash with the title that promotes nothing", 1, func(f *forger) []string {
		byPullRequest(f)
		f.commit(forged{branch: "main", by: mallory, message: "promote(production): web 1.5.0 → 1.6.0\n", files: map[string]string{"README": "more"}})
		return []string{unsigned}
	}, `error promotion production: it claims to promote web to production, and changes nothing of it`)
	try("a promotion that an older daemon could not read", 0, func(f *forger) []string {
		both(f)
		release := f.record(f.tip("ledger/staging"), "staging").Deployment.Release
		var message string
		id := f.promotion(func(_ *forged, change *ledger.Change) {
			change.Checks = []ledger.Check{{Policy: "e2e", Result: ledger.Success, By: "ci", URL: "https://ci.shop.example/1"}, {Policy: "e2e", Result: ledger.Success, By: "ci", URL: "https://ci.shop.example/2"}}
			message = change.Message()
		})
		f.entry("production", func(e *ledger.Entry) {
			e.Event, e.Commit, e.Deployment, e.Cause, e.Manifests = ledger.EventPinned, id, "", ledger.CausePin, ""
			e.Release = release
			e.Actor, e.Authors = ledger.AuthorsOf(pinionItself, pinionItself, message, nil, false, pinionItself)
		})
		return []string{unsigned}
	}, `warning deployment production: it says that the cause is a pin, and does not know the promotion, which names several results of one policy`)
	// Files that are none.
	for name, text := range map[string]string{"symbolic link": odd("120000", "dev.yaml"), "submodule": odd("160000", "")} {
		for _, file := range []string{"environments/production.yaml", "environments", "pipelines", "pipelines/default.yaml", "policies/release.yaml", "services/web/service.yaml", "services/web", "holds"} {
			t.Run("a "+name+" in the place of "+strings.ReplaceAll(file, "/", " "), func(t *testing.T) {
				t.Parallel()
				f := o.forger(t)
				both(f)
				before := f.tip("main")
				f.commit(forged{branch: "main", by: mallory, message: "a link\n", files: map[string]string{file: text}})
				if file != "environments" {
					f.promotion(func(c *forged, _ *ledger.Change) { c.onto = f.tip("main") })
				}
				back := f.git("-c", "user.name=Dana", "-c", "user.email=dana@shop.example", "commit-tree", "-p", f.tip("main"), "-m", "no link", before+"^{tree}")
				f.git("update-ref", "refs/heads/main", back)
				if v := auditOf(t, f.dir, unsigned, "-v"); v.code == 2 || !strings.Contains(v.stderr, "3 ledgers, 121 entries") {
					t.Errorf("exit code %d, and\n%s", v.code, v.text())
				}
			})
		}
		try("a promotion to a "+name, 1, func(f *forger) []string {
			both(f)
			f.promotion(func(c *forged, _ *ledger.Change) { c.files["environments/production.yaml"] = text })
			return []string{unsigned}
		}, `error promotion production: what it claims can't be told by environments/production.yaml: .*it is a `+name)
		try("a promotion from a "+name, 1, func(f *forger) []string {
			both(f)
			id := f.promotion(nil)
			f.git("update-ref", "refs/heads/main", id+"^")
			f.commit(forged{branch: "main", by: mallory, message: "a link\n", files: map[string]string{"environments/production.yaml": text}})
			f.commit(forged{branch: "main", message: f.git("log", "-1", "--format=%B", id) + "\n", files: map[string]string{"environments/production.yaml": f.input("", "show", id+":environments/production.yaml")}})
			return []string{unsigned}
		}, `error promotion production: what it claims can't be told by environments/production.yaml: .*it is a `+name)
	}
	for name, mode := range map[string]string{"a symbolic link": "120000", "a program": "100755"} {
		try("a record that is "+name, 1, func(f *forger) []string {
			f.entry("dev", func(e *ledger.Entry) { e.Event = ledger.EventDrifted }, func(c *forged) {
				c.files["web/deployment.yaml"] = odd(mode, c.files["web/deployment.yaml"])
			})
			return []string{unsigned}
		}, `error files dev: web/deployment.yaml is no plain file`)
	}
	try("a ledger's folder that is a symbolic link", 1, func(f *forger) []string {
		f.entry("dev", func(e *ledger.Entry) { e.Event = ledger.EventDrifted }, func(c *forged) {
			c.files = map[string]string{"web": odd("120000", "elsewhere")}
		})
		return []string{unsigned}
	}, `error files dev: web is no plain file`, `error files dev: it changes web/manifests.yaml`, `error tree dev: web/deployment.yaml is not what the entries lead to: is not there`)
	// Merges.
	side := func(f *forger, more bool) (base, tip string) {
		base = f.tip("main")
		tip = f.promotion(func(c *forged, _ *ledger.Change) { c.by = mallory })
		if more {
			tip = f.commit(forged{branch: "main", by: mallory, message: "docs\n", files: map[string]string{"README": "more"}})
		}
		f.git("update-ref", "refs/heads/main", base)
		return base, tip
	}
	merged := func(f *forger, tip string, also ...string) {
		files := map[string]string{"environments/production.yaml": f.input("", "show", tip+":environments/production.yaml")}
		if text, err := exec.Command("git", "--git-dir="+f.dir, "show", tip+":README").Output(); err == nil {
			files["README"] = string(text)
		}
		f.commit(forged{branch: "main", by: mallory, message: "Merge branch 'docs'\n", also: append(also, tip), files: files})
	}
	try("a merge of a promotion that was not allowed", 1, func(f *forger) []string {
		_, tip := side(f, false)
		merged(f, tip)
		return []string{unsigned}
	}, `error promotion production: a promotion without its evidence: .* release: 0 of 2 approvals`)
	try("a merge with a promotion below", 1, func(f *forger) []string {
		_, tip := side(f, true)
		merged(f, tip)
		return []string{unsigned}
	}, `error promotion production: it merges commit [0-9a-f]{12}, which has the look of a promotion, and brings none: it changes README besides what it claims`)
	try("a merge of three with a promotion", 1, func(f *forger) []string {
		_, tip := side(f, false)
		other := f.commit(forged{branch: "main", by: mallory, message: "docs\n"})
		f.git("update-ref", "refs/heads/main", other+"^")
		merged(f, tip, other)
		return []string{unsigned}
	}, `error promotion production: it merges commit [0-9a-f]{12}, which has the look of a promotion, and brings none: a promotion without its evidence: .* 0 of 2 approvals`)
	try("a merge of what was allowed and main beside it", 0, func(f *forger) []string {
		both(f)
		base, tip := side(f, false)
		f.commit(forged{branch: "main", by: mallory, message: "docs\n", files: map[string]string{"README": "more"}})
		main := f.tip("main")
		f.git("update-ref", "refs/heads/main", tip)
		updated := f.commit(forged{branch: "main", by: mallory, message: "Merge branch 'main'\n", also: []string{main}, files: map[string]string{"README": "more"}})
		f.git("update-ref", "refs/heads/main", main)
		_ = base
		merged(f, updated)
		return []string{unsigned}
	})
	try("a merge with a promotion that was taken back there", 0, func(f *forger) []string {
		base, tip := side(f, false)
		f.git("update-ref", "refs/heads/main", tip)
		back := f.commit(forged{branch: "main", by: mallory, message: "Revert\n", files: map[string]string{"environments/production.yaml": f.input("", "show", base+":environments/production.yaml")}})
		f.git("update-ref", "refs/heads/main", base)
		merged(f, back)
		return []string{unsigned}
	})
	try("main beside its line", 1, func(f *forger) []string {
		tip := f.tip("main")
		old := f.git("rev-list", "--first-parent", "--max-parents=0", "main")
		f.git("update-ref", "refs/heads/main", old)
		tree := map[string]string{}
		for _, name := range strings.Fields(f.git("diff", "--name-only", old, tip)) {
			tree[name] = f.input("", "show", tip+":"+name)
		}
		f.commit(forged{branch: "main", by: mallory, message: "Merge branch 'main'\n", also: []string{tip}, files: tree})
		return []string{unsigned}
	}, slices.Concat(slices.Repeat([]string{`error deployment \S+: commit [0-9a-f]{12}, a (promotion|rollback), is not on the line of first parents of HEAD any more, so it can't be judged`}, 15),
		[]string{`error promotion staging: it changes environments/dev.yaml, .* besides what it claims`},
		slices.Repeat([]string{`warning deployment \S+: commit [0-9a-f]{12}, which asked for the deployment, is not on the line of first parents of HEAD`}, 7))...)
	try("a person's work beside main's line", 0, func(f *forger) []string {
		tip := pinByDana(f, "1.7.0")
		f.git("update-ref", "refs/heads/main", tip+"^")
		f.entry("staging", func(e *ledger.Entry) {
			e.Event, e.Commit, e.Deployment, e.Cause, e.Manifests = ledger.EventPinned, tip, "", ledger.CausePin, ""
			e.Release.Pins = []ledger.Pin{{Artifact: "web", Image: "registry.example/web:1.7.0"}}
			e.Actor, e.Authors = ledger.Person{Name: "Dana", Email: "dana@shop.example"}, []ledger.Person{{Name: "Dana", Email: "dana@shop.example"}}
		})
		f.commit(forged{branch: "main", by: mallory, message: "docs\n", files: map[string]string{"README": "more"}})
		f.commit(forged{branch: "main", by: mallory, message: "Merge branch 'main'\n", also: []string{tip}, files: map[string]string{"environments/staging.yaml": f.input("", "show", tip+":environments/staging.yaml")}})
		return []string{unsigned}
	}, `warning deployment staging: commit [0-9a-f]{12}, which asked for the deployment, is not on the line of first parents of HEAD`)
	for _, by := range []ledger.Person{{Name: "pinion", Email: "pinion@shop.example"}, {Name: "Mallory", Email: "Pinion@Shop.example"}, {Name: "Pinion", Email: "mallory@shop.example"}} {
		try("the daemon's name under a pin, as "+by.String(), 1, func(f *forger) []string {
			name := "environments/production.yaml"
			f.commit(forged{branch: "main", by: by, message: "a bump\n", files: map[string]string{name: strings.Replace(f.input("", "show", "main:"+name), "web:1.5.0", "web:9.9.9", 1)}})
			return []string{unsigned}
		}, `error daemon : it was committed by `+by.String()+`, the daemon, and is neither`)
		try("a promotion by "+by.String(), 1, func(f *forger) []string {
			both(f)
			f.promotion(func(c *forged, _ *ledger.Change) { c.by = by })
			return []string{signers}
		}, `error signature production: the commit is not signed; sign with git commit -S \+1`, `error signature production: the commit is not signed`)
	}
	try("the daemon's name under a pin", 1, func(f *forger) []string {
		name := "environments/production.yaml"
		f.commit(forged{branch: "main", message: "a bump\n", files: map[string]string{name: strings.Replace(f.input("", "show", "main:"+name), "web:1.5.0", "web:9.9.9", 1)}})
		return []string{unsigned}
	}, `error daemon : it was committed by Pinion <pinion@shop.example>, the daemon, and is neither`)

	// What somebody has asked the daemon for, by its API.
	kim := []ledger.Person{{Name: "kim", Email: "kim@shop.example"}}
	asked := func(f *forger, change ledger.Change, files map[string]string) []string {
		f.commit(forged{branch: "main", message: change.Message(), files: files})
		return []string{unsigned}
	}
	pinAsked := func(f *forger, by []ledger.Person, claims, does string) []string {
		name := "environments/dev.yaml"
		text := regexp.MustCompile(`web:\d\S*`).ReplaceAllString(f.input("", "show", "main:"+name), "web:"+does)
		return asked(f, ledger.Change{Kind: ledger.ChangePinned, Environment: "dev", Service: "web", RequestedBy: by,
			Release: ledger.Release{Pins: []ledger.Pin{{Artifact: "web", Image: "registry.example/web:" + claims}}}}, map[string]string{name: text})
	}
	holdAsked := func(f *forger, kind ledger.ChangeKind, name, text string) []string {
		return asked(f, ledger.Change{Kind: kind, Hold: "freeze", RequestedBy: kim}, map[string]string{name: text})
	}
	const freeze = "apiVersion: pinion.dev/v1\nkind: Hold\nreason: INC-432\nowner: kim@shop.example\n"
	try("a pin that somebody asked for", 0, func(f *forger) []string { return pinAsked(f, kim, "9.9.9", "9.9.9") })
	try("a pin that nobody asked for", 1, func(f *forger) []string { return pinAsked(f, nil, "9.9.9", "9.9.9") },
		`error daemon : it was committed by Pinion <pinion@shop.example>, the daemon, and is neither`)
	try("another pin than somebody asked for", 1, func(f *forger) []string { return pinAsked(f, kim, "9.9.9", "9.9.8") },
		`error request dev: it claims registry.example/web:9.9.9, and changes something else`)
	try("a hold that somebody asked for", 0, func(f *forger) []string {
		holdAsked(f, ledger.ChangeHeld, "holds/freeze.yaml", freeze)
		return holdAsked(f, ledger.ChangeReleased, "holds/freeze.yaml", "")
	})
	try("a hold that is released by its name alone", 1, func(f *forger) []string {
		return holdAsked(f, ledger.ChangeReleased, "holds/freeze.yaml", freeze)
	}, `error request : it claims that hold freeze is released, and does the opposite`)
	try("a hold that is another file", 1, func(f *forger) []string {
		return holdAsked(f, ledger.ChangeHeld, "policies/release.yaml", "apiVersion: pinion.dev/v1\nkind: Policy\nsoak: 1s\n")
	}, `error request : it claims to be about the hold freeze, and changes policies/release.yaml`)
	try("a rollback that somebody asked for", 0, func(f *forger) []string {
		name := "environments/production.yaml"
		return asked(f, ledger.Change{Kind: ledger.ChangeRolledBack, Environment: "production", Service: "web", Before: "1.5.0", RequestedBy: kim,
			Release: ledger.Release{Pins: []ledger.Pin{{Artifact: "web", Image: "registry.example/web:1.1.0"}}}},
			map[string]string{name: strings.Replace(f.input("", "show", "main:"+name), "web:1.5.0", "web:1.1.0", 1)})
	})
	try("promotion by nobody's key", 1, func(f *forger) []string {
		both(f)
		f.promotion(nil)
		return []string{signers}
	}, `error signature production: the commit is not signed; sign with git commit -S \+1`, `error signature production: the commit is not signed`)

	// Rollbacks.
	rollback := func(f *forger, image string) []string {
		name := "environments/production.yaml"
		change := ledger.Change{Kind: ledger.ChangeRolledBack, Environment: "production", Service: "web", Before: "1.5.0", Reason: "It failed.",
			Release: ledger.Release{Pins: []ledger.Pin{{Artifact: "web", Image: image}}}}
		f.commit(forged{branch: "main", message: change.Message(), files: map[string]string{name: strings.Replace(f.input("", "show", "main:"+name), "registry.example/web:1.5.0", image, 1)}})
		return []string{unsigned}
	}
	try("rollback that nothing asked for", 0, func(f *forger) []string { return rollback(f, "registry.example/web:1.1.0") },
		`warning rollback production: it goes back to registry.example/web:1.1.0, and no failure`)
	try("rollback to what was never verified", 1, func(f *forger) []string { return rollback(f, "registry.example/web:1.4.0") },
		`error rollback production: it goes back to registry.example/web:1.4.0, which was never verified in production`)

	// Entries put in.
	dana := ledger.Person{Name: "Dana", Email: "dana@shop.example"}
	pin := pinByDana
	pinned := func(f *forger, commit, version string, edit func(*ledger.Entry)) {
		f.entry("staging", func(e *ledger.Entry) {
			e.Event, e.Commit, e.Deployment, e.Cause, e.Manifests = ledger.EventPinned, commit, "", ledger.CausePin, ""
			e.Release.Pins = []ledger.Pin{{Artifact: "web", Image: "registry.example/web:" + version}}
			e.Actor, e.Authors = dana, []ledger.Person{dana}
			if edit != nil {
				edit(e)
			}
		})
	}
	event := func(f *forger, environment string, event ledger.Event, edit func(*ledger.Entry)) {
		f.entry(environment, func(e *ledger.Entry) {
			if e.Event = event; event == ledger.EventStarted {
				e.Manifests = "sha256:" + strings.Repeat("7", 64)
			}
			if edit != nil {
				edit(e)
			}
		})
	}
	rolledOut := func(f *forger) {
		pinned(f, pin(f, "1.7.0"), "1.7.0", nil)
		event(f, "staging", ledger.EventStarted, nil)
		event(f, "staging", ledger.EventCompleted, nil)
	}
	try("verified without its check", 1, func(f *forger) []string {
		rolledOut(f)
		f.now = f.now.Add(time.Hour)
		event(f, "staging", ledger.EventVerified, func(e *ledger.Entry) {
			e.Checks = []ledger.Check{{Policy: "e2e", Result: ledger.Success, By: "ci", Time: e.Time}, {Policy: "soak", Result: ledger.Success, By: "pinion", Time: e.Time}}
		})
		return []string{unsigned}
	}, `error verified staging: web-[0-9a-f]{12} was not verified by the policies of its commit [0-9a-f]{12}: e2e: waits for a report by ci`)
	try("failed without a reason", 1, func(f *forger) []string {
		rolledOut(f)
		event(f, "staging", ledger.EventFailed, func(e *ledger.Entry) { e.Reason = "It is not good." })
		return []string{unsigned}
	}, `error failed staging: web-[0-9a-f]{12} had not failed by the policies of its commit [0-9a-f]{12}: e2e: waits for a report by ci`)
	try("failed by a result that nobody has reported", 1, func(f *forger) []string {
		rolledOut(f)
		event(f, "staging", ledger.EventFailed, func(e *ledger.Entry) {
			e.Checks = []ledger.Check{{Policy: "e2e", Result: ledger.Failure, By: "ci"}}
		})
		return []string{unsigned}
	}, `error failed staging: .*: e2e: waits for a report by ci`)
	try("failed by a report", 0, func(f *forger) []string {
		rolledOut(f)
		event(f, "staging", ledger.EventCheck, func(e *ledger.Entry) {
			e.Checks = []ledger.Check{{Policy: "e2e", Result: ledger.Failure, By: "ci"}}
		})
		event(f, "staging", ledger.EventFailed, nil)
		return []string{unsigned}
	})
	waited := func(f *forger, timeout string) []string {
		if timeout != "" {
			f.commit(forged{branch: "main", by: dana, message: "in time\n", files: map[string]string{
				"policies/release.yaml": f.input("", "show", "main:policies/release.yaml") + "timeout: " + timeout + "\n"}})
		}
		f.now = f.now.Add(2 * time.Hour)
		f.entry("production", func(e *ledger.Entry) {
			f.candidate(e)
			e.Event, e.Reason = ledger.EventFailed, "It was not good enough."
		})
		return []string{unsigned}
	}
	try("a candidate that failed without a reason", 1, func(f *forger) []string { return waited(f, "") },
		`error failed production: registry.example/web:1.6.0, .* had not failed a gate of production: release: 0 of 2 approvals`)
	try("a candidate that failed before its time", 1, func(f *forger) []string { return waited(f, "3h") },
		`error failed production: registry.example/web:1.6.0, .* had not failed a gate of production: release: 0 of 2 approvals`)
	try("a candidate that nobody has approved in time", 0, func(f *forger) []string { return waited(f, "1h") })
	try("verified before its time", 1, func(f *forger) []string {
		rolledOut(f)
		event(f, "staging", ledger.EventCheck, func(e *ledger.Entry) {
			e.Checks = []ledger.Check{{Policy: "e2e", Result: ledger.Success, By: "ci"}}
		})
		event(f, "staging", ledger.EventVerified, nil)
		return []string{unsigned}
	}, `error verified staging: .*: soak: soaked 2s of 30m`)
	try("verified by a report of somebody else", 1, func(f *forger) []string {
		rolledOut(f)
		event(f, "staging", ledger.EventCheck, func(e *ledger.Entry) {
			e.Checks = []ledger.Check{{Policy: "e2e", Result: ledger.Success, By: "mallory"}}
		})
		f.now = f.now.Add(time.Hour)
		event(f, "staging", ledger.EventVerified, nil)
		return []string{unsigned}
	}, `error verified staging: .*that of mallory does not count`)
	try("verified as it ought to be", 0, func(f *forger) []string {
		rolledOut(f)
		event(f, "staging", ledger.EventCheck, func(e *ledger.Entry) {
			e.Checks = []ledger.Check{{Policy: "e2e", Result: ledger.Success, By: "ci"}}
		})
		f.now = f.now.Add(time.Hour)
		event(f, "staging", ledger.EventVerified, nil)
		return []string{unsigned}
	})
	try("pinned what nobody asked for", 1, func(f *forger) []string {
		pinned(f, pin(f, "1.7.0"), "1.7.7", nil)
		return []string{unsigned}
	}, `error deployment staging: it says that commit [0-9a-f]{12} asked for registry.example/web:1.7.7, .*, and that asked for registry.example/web:1.7.0`)
	try("pinned by somebody else", 1, func(f *forger) []string {
		pinned(f, pin(f, "1.7.0"), "1.7.0", func(e *ledger.Entry) {
			e.Actor = ledger.Person{Name: "Mallory", Email: "mallory@shop.example"}
			e.Authors = []ledger.Person{e.Actor}
		})
		return []string{unsigned}
	}, `error deployment staging: it says that Mallory <mallory@shop.example> made commit [0-9a-f]{12}, and Dana <dana@shop.example> did`,
		`error deployment staging: it says that Mallory <mallory@shop.example> chose the release of commit [0-9a-f]{12}, and Dana <dana@shop.example> did`)
	try("pinned with other manifests", 1, func(f *forger) []string {
		first := strings.Fields(f.git("rev-list", "main"))
		pinned(f, pin(f, "1.7.0"), "1.7.0", func(e *ledger.Entry) { e.Release.Source = first[len(first)-1] })
		return []string{unsigned}
	}, `error deployment staging: it says that commit [0-9a-f]{12} asked for the manifests of [0-9a-f]{12}, and that asked for those of`)
	try("pinned by a promotion that is none", 1, func(f *forger) []string {
		pinned(f, pin(f, "1.7.0"), "1.7.0", func(e *ledger.Entry) { e.Cause = ledger.CausePromotion })
		return []string{unsigned}
	}, `error deployment staging: it says that the cause is a promotion, and it is a pin`)
	try("pinned by a commit that is not there", 1, func(f *forger) []string {
		pinned(f, strings.Repeat("7", 40), "1.7.0", nil)
		return []string{unsigned}
	}, `error deployment staging: it says that commit 777777777777 asked for the deployment, and HEAD has no such commit`)
	try("an entry by another committer", 1, func(f *forger) []string {
		f.entry("dev", func(e *ledger.Entry) { e.Event = ledger.EventDrifted }, func(c *forged) { c.by = ledger.Person{Name: "Mallory", Email: "mallory@shop.example"} })
		return []string{unsigned}
	}, `error committer dev: it was committed by Mallory <mallory@shop.example>, and the daemon is Pinion <pinion@shop.example>`)
	try("two daemons that are known", 0, func(f *forger) []string {
		f.entry("dev", func(e *ledger.Entry) { e.Event = ledger.EventDrifted }, func(c *forged) { c.by = ledger.Person{Name: "Pinion", Email: "new@shop.example"} })
		return []string{unsigned, "--daemon", "new@shop.example", "--daemon", "Pinion <pinion@shop.example>"}
	})
	try("an entry that is unsigned among signed", 1, func(f *forger) []string {
		f.entry("dev", func(e *ledger.Entry) { e.Event = ledger.EventDrifted })
		return []string{signers}
	}, `error signature dev: the commit is not signed`)
	stranger, err := gitstate.OpenSigner(filepath.Join(o.dir, "stranger"), "")
	o.must(err)
	try("an entry signed by an unknown key", 1, func(f *forger) []string {
		f.entry("dev", func(e *ledger.Entry) { e.Event = ledger.EventDrifted }, func(c *forged) { c.sign = stranger })
		return []string{signers}
	}, `error signature dev: the key is not allowed to sign: ssh-ed25519 SHA256:`)
	try("an entry signed by a person", 1, func(f *forger) []string {
		f.entry("dev", func(e *ledger.Entry) { e.Event = ledger.EventDrifted }, func(c *forged) { c.sign = stranger })
		file := filepath.Join(f.TempDir(), "allowed_signers")
		o.must(os.WriteFile(file, []byte(pinionItself.Email+" "+o.signer.PublicKey()+"\nmallory@shop.example "+stranger.PublicKey()+"\n"), 0o644))
		return []string{"--allowed-signers=" + file}
	}, `error signature dev: it is signed by mallory@shop.example \(SHA256:.*\), and committed by Pinion <pinion@shop.example>`)
	try("a move that can't be", 1, func(f *forger) []string {
		r := f.record(f.tip("ledger/dev"), "dev")
		e := ledger.Entry{Event: ledger.EventCompleted, Environment: "dev", Service: "web", Time: f.now.Add(time.Minute), Deployment: r.Deployment.ID, Commit: r.Deployment.Commit, Release: r.Deployment.Release}
		r.Deployment.State = ledger.StateCompleted
		f.commit(forged{branch: "ledger/dev", message: e.Message(), at: e.Time, files: map[string]string{"web/deployment.yaml": string(r.Encode())}})
		return []string{unsigned}
	}, `error move dev: it does not follow from the entries before it: web-[0-9a-f]{12} in dev is verified, and that is final`)
	try("an entry of another environment", 1, func(f *forger) []string {
		for range 3 {
			f.commit(forged{branch: "ledger/dev", message: f.git("log", "-1", "--format=%B", "ledger/staging") + "\n"})
		}
		return []string{unsigned}
	}, `error entry dev: it is not an entry of dev: it is an entry of staging \+2`)
	try("a commit that is no entry", 1, func(f *forger) []string {
		f.commit(forged{branch: "ledger/dev", message: "Hello\n"})
		event(f, "dev", ledger.EventDrifted, nil)
		return []string{unsigned}
	}, `error entry dev: it is not an entry of dev: read the ledger entry "Hello"`)
	try("time that goes back", 0, func(f *forger) []string {
		f.now = f.now.Add(-time.Hour)
		event(f, "dev", ledger.EventDrifted, nil)
		return []string{unsigned}
	}, `warning time dev: its time is .* before that of the entry before it`)
	try("a merge in a ledger", 1, func(f *forger) []string {
		f.entry("dev", func(e *ledger.Entry) { e.Event = ledger.EventDrifted }, func(c *forged) { c.also = []string{"main"} })
		return []string{unsigned}
	}, `error line dev: it is a merge of 2 commits, and a ledger is a line`)

	// Entries changed, left out, and trees edited.
	try("a tree edited in a commit", 1, func(f *forger) []string {
		n, id := f.nth("production", "completed(production): web 1.1.0 → 1.2.0")
		text := strings.Replace(f.input("", "show", id+":web/deployment.yaml"), "state: completed", "state: verified", 1)
		tree := f.treeWith(id, "web/deployment.yaml", text)
		f.rewrite("production", func(i int, raw string) string {
			if i == n {
				_, rest, _ := strings.Cut(raw, "\n")
				return "tree " + tree + "\n" + rest
			}
			return raw
		})
		return []string{unsigned}
	}, `error tree production: web/deployment.yaml is not what the entries lead to: line \d+ has "state: verified" where "state: completed" should be`)
	try("the last tree edited", 1, func(f *forger) []string {
		id := f.tip("ledger/production")
		text := strings.Replace(f.input("", "show", id+":web/deployment.yaml"), "web:1.5.0", "web:6.6.6", 1)
		e := f.git("log", "-1", "--format=%B", "ledger/production")
		f.commit(forged{branch: "ledger/production", onto: id + "^", message: e + "\n", at: o.clock(), files: map[string]string{"web/deployment.yaml": text}})
		return []string{unsigned}
	}, `error tree production: web/deployment.yaml is not what the entries lead to: line \d+ has ".*6\.6\.6" where ".*1\.5\.0" should be`)
	try("a file that nobody has to do with", 1, func(f *forger) []string {
		f.entry("dev", func(e *ledger.Entry) { e.Event = ledger.EventDrifted }, func(c *forged) {
			c.files["README"] = "Hello"
			c.files["web/manifests.yaml"] = "kind: Nothing\n"
		})
		return []string{unsigned}
	}, `error files dev: it changes README, web/manifests.yaml, with which a drifted of web has nothing to do`)
	try("an entry left out", 1, func(f *forger) []string {
		n, _ := f.nth("staging", "check(staging): web 1.5.0, e2e passed")
		f.rewrite("staging", func(i int, raw string) string {
			if i == n {
				return ""
			}
			return raw
		})
		return []string{unsigned}
	}, `error tree staging: web/deployment.yaml is not what the entries lead to: `, `error verified staging: .*: e2e: waits for a report by ci`,
		// Those after it have other ids now.
		`error promotion production: it claims to rest on staging@[0-9a-f]{40}, and ledger/staging has no such entry`)
	try("an entry left out that others stand on", 1, func(f *forger) []string {
		n, _ := f.nth("dev", "completed(dev): web 1.2.0 → 1.5.0")
		f.rewrite("dev", func(i int, raw string) string {
			if i == n {
				return ""
			}
			return raw
		})
		return []string{unsigned}
	}, `error move dev: it does not follow from the entries before it: .* it can't become verified before it is completed`,
		`error promotion staging: it claims to rest on dev@.*`, `error promotion staging: it claims to rest on dev@.*`)
	try("a subject changed", 1, func(f *forger) []string {
		f.rewrite("production", func(i int, raw string) string {
			return strings.Replace(raw, "approved(production): web 1.5.0 by bob", "approved(production): web 1.5.0 by mallory", 1)
		})
		return []string{signers}
	}, `warning subject production: its subject is "approved\(production\): web 1.5.0 by mallory"`, `error signature production: the commit is not signed; .* \+\d+`)

	// What was made anew as a whole: only signatures and what was known tell.
	other := func(f *forger) {
		f.afresh("production", func(e *ledger.Entry) {
			if e.Approval != nil && e.Approval.By == "bob" {
				e.Approval.By, e.Approval.Email = "carol", "carol@shop.example"
			}
		})
	}
	try("made anew", 0, func(f *forger) []string { other(f); return []string{unsigned} })
	try("made anew, and signatures are looked at", 1, func(f *forger) []string { other(f); return []string{signers} },
		`error signature production: the commit is not signed; .* \+\d+`)
	try("made anew, and the tips were kept", 1, func(f *forger) []string {
		tips := filepath.Join(f.TempDir(), "tips")
		if v := auditOf(f.T, f.dir, unsigned, "--write-baseline", tips); v.code != 0 {
			f.Fatalf("%s", v.text())
		}
		other(f)
		return []string{unsigned, "--since-tips", tips}
	}, `error rewritten production: ledger/production was at [0-9a-f]{12}, as \S+/tips says, and that is not in its history any more`)
	try("made anew, and a tag was kept", 1, func(f *forger) []string {
		f.git("tag", "audited", "ledger/production")
		other(f)
		return []string{unsigned, "--baseline", "audited"}
	}, `error rewritten production: ledger/production was at [0-9a-f]{12}, as audited says`)
	try("made anew, and a clone knows", 1, func(f *forger) []string {
		clone := filepath.Join(f.TempDir(), "clone")
		run := func(args ...string) {
			cmd := exec.Command("git", args...)
			cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull)
			if out, err := cmd.CombinedOutput(); err != nil {
				f.Fatalf("git %v: %v\n%s", args, err, out)
			}
		}
		run("clone", "-q", f.dir, clone)
		other(f)
		event(f, "dev", ledger.EventDrifted, nil)
		run("-C", clone, "fetch", "-q")
		f.dir = clone
		return []string{unsigned}
	}, `error rewritten production: ledger/production was at [0-9a-f]{12}, as the reflog of origin/ledger/production says`)
	try("a ledger that is gone", 1, func(f *forger) []string {
		tips := filepath.Join(f.TempDir(), "tips")
		auditOf(f.T, f.dir, unsigned, "--write-baseline", tips)
		f.git("update-ref", "-d", "refs/heads/ledger/production")
		return []string{unsigned, "--since-tips", tips}
	}, `error rewritten production: ledger/production was at [0-9a-f]{12}, as .* says, and there is no such branch any more`,
		`warning rollback dev: .*`, `warning rollback staging: .*`, `error rollback .*`, `error promotion production: .*`, `error promotion production: .*`, `error promotion production: .*`, `error promotion production: .*`)
	try("main rewritten", 1, func(f *forger) []string {
		tips := filepath.Join(f.TempDir(), "tips")
		auditOf(f.T, f.dir, unsigned, "--write-baseline", tips)
		f.git("update-ref", "refs/heads/main", "main~1")
		return []string{unsigned, "--since-tips", tips}
	}, `error rewritten : main was at [0-9a-f]{12}`, `error deployment staging: it says that commit [0-9a-f]{12} asked for the deployment, and HEAD has no such commit`)
	try("only what is new", 1, func(f *forger) []string {
		f.commit(forged{branch: "ledger/dev", message: "Hello\n"})
		tips := filepath.Join(f.TempDir(), "tips")
		auditOf(f.T, f.dir, unsigned, "--write-baseline", tips)
		event(f, "dev", ledger.EventDrifted, nil)
		if v := auditOf(f.T, f.dir, unsigned, "--since-tips", tips, "--only-new"); v.code != 0 || v.LeftOut != 1 {
			f.Errorf("%d left out\n%s", v.LeftOut, v.text())
		}
		f.commit(forged{branch: "ledger/dev", message: "Hello again\n"})
		return []string{unsigned, "--since-tips", tips, "--only-new"}
	}, `error entry dev: .*Hello again`)
	try("one environment", 1, func(f *forger) []string {
		f.commit(forged{branch: "ledger/dev", message: "Hello\n"})
		f.commit(forged{branch: "ledger/staging", message: "Hello\n"})
		return []string{unsigned, "staging"}
	}, `error entry staging: .*`)
	try("who has changed what", 0, func(f *forger) []string { return []string{unsigned, "-v", "production"} },
		`note pin production: a person has changed web: - → registry.example/web:1.0.0`)

	t.Run("what people read", func(t *testing.T) {
		t.Parallel()
		f := o.forger(t)
		f.commit(forged{branch: "ledger/dev", message: "Hello\n"})
		f.commit(forged{branch: "ledger/dev", message: "Hello\n"})
		cmd := pinionCommand("audit", "--repo", f.dir, "--no-signatures")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, _ := cmd.Output()
		want := `^SEVERITY  COMMIT        ENVIRONMENT  SERVICE  FINDING
error     [0-9a-f]{12}  dev          -        it is not an entry of dev: .*; the same is true of 1 later commit \(somebody else than .*\)
$`
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("got\n%s", out)
		}
		want = `^3 ledgers, 121 entries, 11 promotions, 4 rollbacks: 1 finding
signatures were not checked: --no-signatures
nothing is known of where the branches were before: .*
$`
		if !regexp.MustCompile(want).Match(stderr.Bytes()) || cmd.ProcessState.ExitCode() != 1 {
			t.Errorf("exit code %d, and\n%s", cmd.ProcessState.ExitCode(), &stderr)
		}
	})
	t.Run("docs", func(t *testing.T) {
		t.Parallel()
		o.documented(t)
	})

	// What can't be read is never fine.
	unread := func(name string, forge func(f *forger) string, stderr string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := o.forger(t)
			v := auditOf(t, forge(f), unsigned)
			if v.code != 2 || !regexp.MustCompile(stderr).MatchString(v.stderr) {
				t.Errorf("exit code %d, and %q is not in\n%s", v.code, stderr, v.text())
			}
		})
	}
	unread("a shallow clone", func(f *forger) string {
		clone := filepath.Join(f.TempDir(), "clone")
		if out, err := exec.Command("git", "clone", "-q", "--depth=5", "--no-single-branch", "file://"+f.dir, clone).CombinedOutput(); err != nil {
			f.Fatalf("%v\n%s", err, out)
		}
		return clone
	}, "this clone is shallow: .*\n  run `git fetch --unshallow`")
	lose := func(f *forger, object string) string {
		id := f.git("rev-parse", object)
		packs, err := filepath.Glob(filepath.Join(f.dir, "objects", "pack", "*.pack"))
		o.must(err)
		for _, p := range packs {
			data, err := os.ReadFile(p)
			o.must(err)
			o.must(os.Remove(p))
			o.must(os.Remove(strings.TrimSuffix(p, ".pack") + ".idx"))
			f.input(string(data), "unpack-objects", "-q")
		}
		o.must(os.Remove(filepath.Join(f.dir, "objects", id[:2], id[2:])))
		return f.dir
	}
	unread("a commit is missing", func(f *forger) string { return lose(f, "ledger/production~5") }, `object [0-9a-f]{40} is missing`)
	unread("a tree is missing", func(f *forger) string { return lose(f, "ledger/production~5:web") }, `object [0-9a-f]{40} is missing`)
	unread("a file of main is missing", func(f *forger) string { return lose(f, "main~3:environments/staging.yaml") }, `object [0-9a-f]{40} is missing`)
	unread("no ledger", func(f *forger) string {
		for _, env := range []string{"dev", "staging", "production"} {
			f.git("update-ref", "-d", "refs/heads/ledger/"+env)
		}
		return f.dir
	}, `no ledger`)
}

// documented runs every command of docs/audit.md in a clone.
func (o *office) documented(t *testing.T) {
	data, err := os.ReadFile("../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run := func(command string) (string, error) {
		cmd := exec.Command("sh", "-c", command)
		cmd.Dir = filepath.Join(dir, "clone")
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull, "GIT_PAGER=cat", "PATH="+dir+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	must(err)
	must(os.WriteFile(filepath.Join(dir, "pinion"), []byte(fmt.Sprintf("#!/bin/sh\n%s=1 exec %s \"$@\"\n", asMain, self)), 0o755))
	must(os.Mkdir(filepath.Join(dir, "clone"), 0o755))
	if out, err := run("git clone -q " + o.remote + " . && cp " + filepath.Join(o.dir, "allowed_signers") + " ." +
		" && git tag A $(git rev-list -1 --grep='^started(production): web 1.0.0' origin/ledger/production)" +
		" && git tag B $(git rev-list -1 --grep='^started(production): web 1.2.0 → 1.5.0' origin/ledger/production)"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// What some of them have to print.
	says := map[string]string{
		"git log --format='%cI  %(trailers:key=Pinion-Event":                       `(?m)^2026-10-08T07:52:00\+00:00  pinned  web  web registry.example/web:1.5.0  Pinion <pinion@shop.example>  [0-9a-f]{40}$`,
		"git log --format='%cI %s' --grep='^Pinion-Service":                        `(?m)^2026-10-05T10:41:00\+00:00 pinned\(production\): web 1.1.0 → 1.2.0$`,
		"git log --format='%cI %s%n":                                               `(?m)^    Promoted by commit`,
		"git log -p":                                                               `(?m)^\+    image: registry.example/web:1.5.0$`,
		"git log --format='%cI %(trailers:key=Pinion-Deploy":                       `(?m) web-[0-9a-f]{12} e2e success ci https://ci.shop.example/1.5.0`,
		"git log --format='%cI %(trailers:key=Pinion-Pin":                          `(?m) web registry.example/web:1.5.0 release alice alice@shop.example release-managers$`,
		"git log --format='%h %cI %s  %(trailers":                                  `(?m) promote\(production\): web 1.2.0 → 1.5.0  staging@[0-9a-f]{40}  default@[0-9a-f]{40}$`,
		"git show \"$(git rev-list":                                                `image: registry.example/web:1.2.0`,
		"git diff A B":                                                             `(?m)^\+.*image: registry.example/web:1.5.0$`,
		"git -c gpg.ssh.allowedSignersFile=\"$PWD/allowed_signers\" verify-commit": `Good "git" signature for pinion@shop.example`,
		"git -c gpg.ssh.allowedSignersFile=\"$PWD/allowed_signers\" log --format":  `(?m)^[0-9a-f]+ G pinion@shop.example Pinion <pinion@shop.example> promote`,
		"git merge-base":                                                           `^A is still there$`,
		"pinion audit production":                                                  `(?s)^1 ledger, .*: nothing wrong\nsignatures: `,
		"pinion audit --allowed-signers allowed_signers --since":                   `compared with audit.tips$`,
	}
	n := 0
	for _, block := range regexp.MustCompile("(?s)\n```sh\n(.*?)```").FindAllStringSubmatch(string(data), -1) {
		for command := range strings.Lines(block[1]) {
			command = strings.TrimSpace(command)
			n++
			out, err := run(command)
			if err != nil || strings.TrimSpace(out) == "" {
				t.Errorf("%s\n%v, it prints %q", command, err, out)
			}
			for prefix, want := range says {
				if !strings.HasPrefix(command, prefix) {
					continue
				}
				delete(says, prefix)
				if !regexp.MustCompile(want).MatchString(strings.TrimRight(out, "\n")) {
					t.Errorf("%s\ndoes not print %s, but\n%s", command, want, out)
				}
			}
		}
	}
	if n < 15 || len(says) > 0 {
		t.Errorf("found %d commands, and none of %q", n, slices.Sorted(maps.Keys(says)))
	}
}

// BenchmarkAudit audits a clone with ledgers of 20 environments and, together,
// 100,000 entries, and as many promotions as these tell of. PINION_BENCH_KEEP
// names a folder to keep it in.
func BenchmarkAudit(b *testing.B) {
	const environments, services, versions = 20, 10, 125
	dir := os.Getenv("PINION_BENCH_KEEP")
	if dir == "" {
		dir = b.TempDir()
	}
	if !exists(filepath.Join(dir, "HEAD")) {
		manyPromotions(b, dir, environments, services, versions)
	}
	for b.Loop() {
		cmd := pinionCommand("audit", "--repo", dir, "--no-signatures")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		start := time.Now()
		if out, err := cmd.Output(); err != nil {
			b.Fatalf("%v\n%s%s", err, out[:min(len(out), 5000)], &stderr)
		}
		const entries = environments * services * versions * 4
		b.ReportMetric(entries/time.Since(start).Seconds(), "entries/s")
		b.ReportMetric((cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), "cpu-s")
		b.Log(stderr.String())
	}
}

// manyPromotions writes an honest history: each version of each service goes
// through all environments.
func manyPromotions(b *testing.B, dir string, environments, services, versions int) {
	b.Helper()
	git := func(args ...string) *exec.Cmd {
		cmd := exec.Command("git", append([]string{"--git-dir=" + dir}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull)
		return cmd
	}
	fail := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	fail(git("init", "-q", "--bare", "--initial-branch=main").Run())
	cmd := git("fast-import", "--quiet")
	stdin, err := cmd.StdinPipe()
	fail(err)
	stdout, err := cmd.StdoutPipe()
	fail(err)
	fail(cmd.Start())
	in, replies := bufio.NewWriterSize(stdin, 1<<20), bufio.NewReader(stdout)
	marks := 0
	commit := func(branch string, by ledger.Person, at time.Time, message string, files map[string]string) string {
		marks++
		fmt.Fprintf(in, "commit refs/heads/%s\nmark :%d\ncommitter %s %d +0000\ndata %d\n%s\n", branch, marks, by, at.Unix(), len(message), message)
		for name, text := range files {
			fmt.Fprintf(in, "M 100644 inline %s\ndata %d\n%s\n", name, len(text), text)
		}
		fmt.Fprintf(in, "\nget-mark :%d\n", marks)
		fail(in.Flush())
		id, err := replies.ReadString('\n')
		fail(err)
		return strings.TrimSpace(id)
	}
	name := func(env int) desired.EnvironmentName {
		return desired.EnvironmentName(fmt.Sprintf("env%02d", env))
	}
	service := func(svc int) desired.ServiceName { return desired.ServiceName(fmt.Sprintf("svc%d", svc)) }
	image := func(svc, version int) string {
		return fmt.Sprintf("registry.example/svc%d:1.%d.0@sha256:%064x", svc, version, version*services+svc)
	}
	const head = "apiVersion: pinion.dev/v1\nkind: "
	pins := make([][]int, environments)
	file := func(env int) map[string]string {
		text := fmt.Sprintf(head+"Environment\nnamespace: shop-%d\npins:\n", env)
		for s, v := range pins[env] {
			text += fmt.Sprintf("  svc%d:\n    image: %s\n", s, image(s, v))
		}
		return map[string]string{fmt.Sprintf("environments/%s.yaml", name(env)): text}
	}
	files := map[string]string{}
	stages := ""
	for i := range environments {
		pins[i] = make([]int, services)
		maps.Copy(files, file(i))
		stages += fmt.Sprintf("- environment: %s\n  manifests: head\n", name(i))
	}
	for s := range services {
		files[fmt.Sprintf("services/svc%d/service.yaml", s)] = head + "Service\n"
	}
	pipeline := head + "Pipeline\nservices: [\"*\"]\nstages:\n" + stages
	files["pipelines/default.yaml"] = pipeline
	dana := ledger.Person{Name: "Dana", Email: "dana@shop.example"}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	source := commit("main", dana, now, "The shop\n", files)
	records := make([][]ledger.Record, environments)
	for i := range records {
		records[i] = make([]ledger.Record, services)
	}
	tips := make([]string, environments)
	for v := range versions {
		for s := range services {
			for i := range environments {
				now = now.Add(time.Minute)
				release := ledger.Release{Source: source, Pins: []ledger.Pin{{Artifact: desired.ArtifactName(service(s)), Image: image(s, v)}}}
				e := ledger.Entry{Environment: name(i), Service: service(s), Release: release, Commit: source, Cause: ledger.CausePin, Actor: dana, Authors: []ledger.Person{dana},
					Before: records[i][s].Deployment.Release.Version(), Reason: "All objects are as the commit wants them, and healthy."}
				pins[i][s] = v
				switch {
				case v == 0:
				case i == 0:
					e.Commit = commit("main", dana, now, "bump\n", file(i))
				default:
					change := ledger.Change{Kind: ledger.ChangePromoted, Environment: name(i), Service: service(s), Release: ledger.Release{Pins: release.Pins}, Before: e.Before,
						From: []string{string(name(i-1)) + "@" + tips[i-1]}, Policy: "default@" + audit.BlobID([]byte(pipeline)), CoAuthors: []ledger.Person{dana},
						Reason: fmt.Sprintf("Verified in %s: rollout complete.", name(i-1))}
					e.Commit = commit("main", pinionItself, now, change.Message(), file(i))
					e.Cause, e.From, e.Actor = ledger.CausePromotion, change.From, pinionItself
				}
				e.Deployment = ledger.DeploymentID(e.Service, e.Commit)
				for _, event := range []ledger.Event{ledger.EventPinned, ledger.EventStarted, ledger.EventCompleted, ledger.EventVerified} {
					e.Event, e.Time = event, now
					if event != ledger.EventPinned {
						e.Cause, e.From, e.Actor, e.Authors = "", nil, ledger.Person{}, nil
						e.Manifests = fmt.Sprintf("sha256:%064x", v)
					}
					records[i][s], err = records[i][s].Apply(e)
					fail(err)
					written := map[string]string{ledger.RecordFile(e.Service): string(records[i][s].Encode())}
					if event == ledger.EventStarted {
						written[ledger.ManifestsFile(e.Service)] = fmt.Sprintf("kind: Deployment\nspec: {image: %s}\n", image(s, v))
					}
					tips[i] = commit(ledger.Branch(name(i)), pinionItself, now, e.Message(), written)
				}
			}
		}
	}
	fail(in.Flush())
	fail(stdin.Close())
	fail(cmd.Wait())
	fail(git("repack", "-adq").Run())
}
