package deliver_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
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
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/notify"
	"github.com/pinion-cd/pinion/notify/deliver"
)

func TestMain(m *testing.M) {
	if os.Getenv("PINION_TEST_COURIER") != "" {
		runAlone()
		return
	}
	os.Exit(m.Run())
}

var (
	robot  = gitstate.Signature{Name: "Pinion", Email: "pinion@example.com"}
	person = gitstate.Signature{Name: "Ann", Email: "ann@example.com"}
)

const secretText = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// house is a deployment repository, and who writes to it.
type house struct {
	t       *testing.T
	url     string
	writer  *gitstate.Mirror
	entries int
}

func newHouse(t *testing.T) *house {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "remote.git")
	for _, args := range [][]string{{"init", "-q", "--bare", "--initial-branch=main", dir}} {
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	h := &house{t: t, url: dir}
	h.writer = openMirror(t, dir)
	h.main(map[string]string{
		"environments/dev.yaml":     "apiVersion: pinion.dev/v1\nkind: Environment\nnamespace: dev\nnotify:\n- {sink: asked, events: [verified], services: [web]}\n",
		"environments/staging.yaml": "apiVersion: pinion.dev/v1\nkind: Environment\nnamespace: staging\n",
		"services/web/service.yaml": "apiVersion: pinion.dev/v1\nkind: Service\n",
	})
	return h
}

func openMirror(t testing.TB, url string) *gitstate.Mirror {
	t.Helper()
	m, err := gitstate.Open(context.Background(), gitstate.Options{URL: url, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func (h *house) push(branch string, all ...gitstate.Change) {
	h.t.Helper()
	for i := range all {
		all[i].Branch, all[i].AllowEmpty, all[i].Committer = branch, true, all[i].Author
	}
	all[0].Expected, _ = h.writer.Branch(branch)
	if _, err := h.writer.Push(context.Background(), all); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) main(files map[string]string) {
	h.t.Helper()
	h.mainAt(time.Now(), files)
}

func (h *house) mainAt(at time.Time, files map[string]string) {
	h.t.Helper()
	c := gitstate.Change{Message: "Change", Author: person, Files: map[string][]byte{}}
	c.Author.Time = at
	for name, text := range files {
		if c.Files[name] = []byte(text); text == "" {
			c.Files[name] = nil
		}
	}
	h.push("main", c)
}

// commitOf is that of the deployment of which the entries are recorded as the nth.
func commitOf(n int) string { return fmt.Sprintf("%012x%028x", n, n) }

// record adds entries of a deployment to a ledger.
func (h *house) record(env, svc string, events ...ledger.Event) {
	h.t.Helper()
	var all []gitstate.Change
	h.entries++
	commit := commitOf(h.entries)
	for _, ev := range events {
		e := ledger.Entry{
			Event: ev, Environment: desired.EnvironmentName(env), Service: desired.ServiceName(svc), Time: time.Now(),
			Deployment: ledger.DeploymentID(desired.ServiceName(svc), commit), Commit: commit,
			Release: ledger.Release{Pins: []ledger.Pin{{Artifact: "web", Image: fmt.Sprintf("ghcr.io/acme/web:1.0.%d", h.entries)}}},
		}
		if ev == ledger.EventPinned {
			e.Cause = ledger.CausePin
		}
		c := gitstate.Change{Message: e.Message(), Author: robot}
		c.Author.Time = e.Time
		all = append(all, c)
	}
	h.push("ledger/"+env, all...)
}

// receiver takes what it is sent, as behave says.
type receiver struct {
	*httptest.Server
	behave func(w http.ResponseWriter, r *http.Request, n notify.Notification)

	mu   sync.Mutex // guards what follows
	took []notify.Notification
	asks int
	bad  []string
}

func newReceiver(t *testing.T, behave func(w http.ResponseWriter, r *http.Request, n notify.Notification)) *receiver {
	x := &receiver{behave: behave}
	x.Server = httptest.NewServer(http.HandlerFunc(x.serve))
	t.Cleanup(x.Close)
	return x
}

func (x *receiver) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var n notify.Notification
	err := json.Unmarshal(body, &n)
	x.mu.Lock()
	x.asks++
	key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(secretText, "whsec_"))
	m := hmac.New(sha256.New, key)
	fmt.Fprintf(m, "%s.%s.%s", r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp"), body)
	want := "v1," + base64.StdEncoding.EncodeToString(m.Sum(nil))
	if err != nil || r.Header.Get("webhook-signature") != want || r.Header.Get("webhook-id") != n.ID || r.Method != http.MethodPost {
		x.bad = append(x.bad, fmt.Sprintf("%s %v %s", r.Method, r.Header, body))
	}
	x.mu.Unlock()
	s := &status{ResponseWriter: w, code: http.StatusOK}
	if x.behave != nil {
		x.behave(s, r, n)
	}
	if s.code/100 == 2 {
		x.mu.Lock()
		x.took = append(x.took, n)
		x.mu.Unlock()
	}
}

type status struct {
	http.ResponseWriter
	code int
}

func (s *status) WriteHeader(code int) {
	s.code = code
	s.ResponseWriter.WriteHeader(code)
}

// taken are the lines of what was taken, as "environment/service event".
func (x *receiver) taken() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var all []string
	for _, n := range x.took {
		where := string(n.Environment) + "/" + string(n.Service)
		if n.Hold != nil {
			where = "hold " + string(n.Hold.Name)
		}
		all = append(all, where+" "+string(n.Event))
	}
	return all
}

// deployments are the events of each deployment, each once, as they came.
func (x *receiver) deployments() map[string][]string {
	x.mu.Lock()
	defer x.mu.Unlock()
	seen, by := map[string]bool{}, map[string][]string{}
	for _, n := range x.took {
		if where := string(n.Environment) + "/" + n.Deployment; !seen[n.ID] {
			seen[n.ID] = true
			by[where] = append(by[where], string(n.Event))
		}
	}
	return by
}

func (x *receiver) ids() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var all []string
	for _, n := range x.took {
		all = append(all, n.ID)
	}
	return all
}

func (x *receiver) asked() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.asks
}

func (x *receiver) check(t *testing.T) {
	t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, s := range x.bad {
		t.Errorf("not signed, or not as it should be: %s", s)
	}
}

func (x *receiver) sink(name string) deliver.Sink {
	secrets, err := notify.ParseSecrets(secretText)
	if err != nil {
		panic(err)
	}
	return deliver.Sink{Sink: notify.Sink{Name: name}, URL: x.URL, Secrets: secrets}
}

// daemon is a courier that runs.
type daemon struct {
	*deliver.Courier
	mirror *gitstate.Mirror
	log    bytes.Buffer
	ahead  atomic.Int64 // of its clock
	stop   func()
}

func (h *house) start(has func(desired.EnvironmentName) bool, sinks ...deliver.Sink) *daemon {
	h.t.Helper()
	d := &daemon{mirror: openMirror(h.t, h.url)}
	h.run(d, has, sinks...)
	return d
}

func (h *house) run(d *daemon, has func(desired.EnvironmentName) bool, sinks ...deliver.Sink) {
	d.Courier = deliver.New(options(d.mirror, has, sinks, &d.log, func() time.Time { return time.Now().Add(time.Duration(d.ahead.Load())) }))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx) }()
	d.stop = sync.OnceFunc(func() { cancel(); <-done })
	h.t.Cleanup(func() {
		d.stop()
		if h.t.Failed() {
			h.t.Logf("%+v\n%s", d.Counts(), &d.log)
		}
	})
}

func options(m *gitstate.Mirror, has func(desired.EnvironmentName) bool, sinks []deliver.Sink, log io.Writer, clock func() time.Time) deliver.Options {
	var known atomic.Pointer[desired.Repository]
	return deliver.Options{
		Mirror: m, Branch: "main", Sinks: sinks, Has: has, Identity: robot, Clock: clock,
		Logger: slog.New(slog.NewTextHandler(log, nil)),
		Newest: func() *desired.Repository {
			tip, _ := m.Tip()
			if snap, err := m.Snapshot(context.Background(), tip); err == nil {
				if repo, err := desired.Read(snap, known.Load()); err == nil {
					known.Store(repo)
				}
			}
			return known.Load()
		},
	}
}

// look has the daemon see what was pushed.
func (d *daemon) look(t *testing.T) {
	t.Helper()
	if _, err := d.mirror.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.Moved()
}

// jump sets the daemon's clock ahead.
func (d *daemon) jump(by time.Duration) {
	d.ahead.Add(int64(by))
	d.Moved()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not so in time: %s", what)
		}
	}
}

// kept waits until a sink's position is kept, which is what begins it.
func (h *house) kept(name string) {
	h.t.Helper()
	eventually(h.t, "the position of "+name+" is kept", func() bool {
		out, err := exec.Command("git", "-C", h.url, "grep", "-q", `"`+name+`"`, gitstate.SinksBranch).CombinedOutput()
		return err == nil && len(out) == 0
	})
}

var whole = []ledger.Event{ledger.EventPinned, ledger.EventStarted, ledger.EventCompleted, ledger.EventVerified}

func lines(where string, events ...string) []string {
	var all []string
	for _, e := range events {
		all = append(all, where+" "+e)
	}
	return all
}

func TestNewsAreTold(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.record("dev", "web", whole...) // before there was a sink
	all, asked := newReceiver(t, nil), newReceiver(t, nil)
	byRequest := asked.sink("asked")
	byRequest.OnRequest = true
	sinks := []deliver.Sink{all.sink("all"), byRequest}
	d := h.start(nil, sinks...)
	h.kept("all")
	h.record("dev", "web", whole...)
	h.record("staging", "web", ledger.EventPinned) // a ledger that is new
	h.main(map[string]string{"holds/inc-1.yaml": "apiVersion: pinion.dev/v1\nkind: Hold\nreason: INC-1\nowner: ann@example.com\n"})
	h.main(map[string]string{"holds/inc-1.yaml": "", "README.md": "x"})
	d.look(t)
	eventually(t, "all was told", func() bool { return len(all.taken()) == 7 && len(asked.taken()) == 1 })
	got := all.taken()
	slices.SortStableFunc(got, func(a, b string) int {
		return strings.Compare(a[:strings.LastIndex(a, " ")], b[:strings.LastIndex(b, " ")])
	})
	want := slices.Concat(lines("dev/web", "pinned", "started", "completed", "verified"), lines("hold inc-1", "held", "released"), lines("staging/web", "pinned"))
	if !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
	if got := asked.taken(); !slices.Equal(got, lines("dev/web", "verified")) {
		t.Errorf("told on request %q", got)
	}
	eventually(t, "nothing waits", func() bool { return d.Counts()["all"] == (deliver.Counts{Sent: 7}) })
	d.stop()

	// Another daemon, with nothing on its disk, goes on where that one was.
	h.record("dev", "web", ledger.EventRetired)
	h.start(nil, sinks...)
	eventually(t, "the next one is told", func() bool { return len(all.taken()) >= 8 })
	if got := all.taken()[7:]; !slices.Equal(got, lines("dev/web", "retired")) {
		t.Errorf("after a restart, told %q", got)
	}
	all.check(t)
}

// A hold that comes to its end is told, once, in its turn: by a daemon that runs
// then, and by one that was down; and its removal after that is no news.
func TestHoldsThatEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	x := newReceiver(t, nil)
	d := h.start(nil, x.sink("all"))
	h.kept("all")
	hold := func(name string, ends time.Duration) string {
		return fmt.Sprintf("apiVersion: pinion.dev/v1\nkind: Hold\nreason: %s\nowner: ann@example.com\nuntil: %s\n", name, time.Now().Add(ends).UTC().Format(time.RFC3339))
	}
	var want []string
	told := func(more ...string) {
		t.Helper()
		want = append(want, more...)
		eventually(t, fmt.Sprintf("told is %q", want), func() bool { return len(x.taken()) >= len(want) })
		if got := x.taken(); !slices.Equal(got, want) {
			t.Fatalf("told %q, want %q", got, want)
		}
	}
	h.main(map[string]string{"holds/one.yaml": hold("one", time.Hour), "holds/two.yaml": hold("two", 2*time.Hour), "holds/three.yaml": hold("three", 3*time.Hour)})
	d.look(t)
	told("hold one held", "hold three held", "hold two held")
	d.jump(90 * time.Minute)
	told("hold one released")
	eventually(t, "nothing waits", func() bool { return d.Counts()["all"] == (deliver.Counts{Sent: 4}) })
	d.stop()

	// Meanwhile another one ends, and the next is changed.
	h.main(map[string]string{"holds/three.yaml": hold("three, longer", 4*time.Hour)})
	d = &daemon{mirror: openMirror(t, h.url)}
	d.ahead.Store(int64(150 * time.Minute))
	h.run(d, nil, x.sink("all"))
	told("hold three held", "hold two released")
	d.jump(2 * time.Hour)
	told("hold three released")
	x.mu.Lock()
	last := x.took[len(x.took)-1]
	x.mu.Unlock()
	if tip, _ := h.writer.Branch("main"); last.ID != last.Hold.Until.Format("20060102T150405Z")+"-released-three" || !last.Time.Equal(last.Hold.Until) || last.Record.Commit != tip ||
		last.Summary != "released(all environments; all services): three, longer, its end has come" {
		t.Errorf("told is %+v of %+v", last, last.Hold)
	}
	eventually(t, "nothing waits", func() bool { return d.Counts()["all"] == (deliver.Counts{Sent: 3}) })
	d.stop()

	// One who comes later is told nothing of all that, nor of files that are removed
	// when their holds have ended.
	late := newReceiver(t, nil)
	d = &daemon{mirror: openMirror(t, h.url)}
	d.ahead.Store(int64(5 * time.Hour))
	h.run(d, nil, x.sink("all"), late.sink("late"))
	h.kept("late")
	ended := time.Now().Add(5 * time.Hour)
	h.mainAt(ended, map[string]string{"holds/one.yaml": "", "holds/two.yaml": "", "holds/three.yaml": ""})
	h.mainAt(ended, map[string]string{"holds/four.yaml": "apiVersion: pinion.dev/v1\nkind: Hold\nreason: four\nowner: ann@example.com\n"})
	d.look(t)
	told("hold four held")
	eventually(t, "the late one is told", func() bool { return slices.Equal(late.taken(), []string{"hold four held"}) })
	x.check(t)
}

// Receivers that misbehave hold up nobody else, and are told when they take
// news again; but for those that never do.
func TestReceiversThatMisbehave(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.record("dev", "web", ledger.EventPinned)
	var mended atomic.Bool
	failing := func(code int, header ...string) func(http.ResponseWriter, *http.Request, notify.Notification) {
		return func(w http.ResponseWriter, _ *http.Request, _ notify.Notification) {
			if !mended.Load() {
				for i := 0; i < len(header); i += 2 {
					w.Header().Set(header[i], header[i+1])
				}
				w.WriteHeader(code)
			}
		}
	}
	good := newReceiver(t, nil)
	down := newReceiver(t, failing(500))
	busy := newReceiver(t, failing(429, "Retry-After", "900"))
	gone := newReceiver(t, failing(410))
	astray := newReceiver(t, failing(307, "Location", "http://169.254.169.254/latest/meta-data/"))
	endless := newReceiver(t, func(w http.ResponseWriter, r *http.Request, _ notify.Notification) {
		w.WriteHeader(200)
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	})
	hanging := newReceiver(t, func(w http.ResponseWriter, r *http.Request, _ notify.Notification) {
		<-r.Context().Done()
		w.WriteHeader(500)
	})
	picky := newReceiver(t, func(w http.ResponseWriter, _ *http.Request, n notify.Notification) {
		if n.Service == "bad" && !mended.Load() {
			w.WriteHeader(400)
		}
	})
	all := map[string]*receiver{"good": good, "down": down, "busy": busy, "gone": gone, "astray": astray, "endless": endless, "hanging": hanging, "picky": picky}
	var sinks []deliver.Sink
	for name, x := range all {
		sinks = append(sinks, x.sink(name))
	}
	metadata := good.sink("metadata")
	metadata.URL = "http://169.254.169.254/"
	d := h.start(nil, append(sinks, metadata)...)
	h.kept("good")
	for range 3 {
		h.record("dev", "web", whole...)
		h.record("dev", "bad", whole...)
		h.record("dev", "api", whole...)
	}
	d.look(t)
	eventually(t, "the good ones are told", func() bool {
		return len(good.taken()) == 36 && len(endless.taken()) == 36 && len(picky.taken()) == 24
	})
	for _, name := range []string{"down", "busy", "gone", "astray", "hanging", "metadata"} {
		eventually(t, name+" is counted", func() bool { n := d.Counts()[name]; return n.Waiting == 36 && n.Sent == 0 })
	}
	eventually(t, "each is asked", func() bool {
		return down.asked() > 1 && busy.asked() > 0 && gone.asked() > 0 && astray.asked() > 0 && hanging.asked() > 0 && d.Counts()["metadata"].Failed > 0
	})
	if n := busy.asked() + gone.asked(); n != 2 {
		t.Errorf("asked %d times although they want to be left alone", n)
	}
	mended.Store(true)
	for _, x := range []*receiver{down, busy, astray, picky} {
		eventually(t, "told in the end", func() bool { d.jump(time.Minute); return len(x.taken()) == 36 })
		by := x.deployments()
		for where, got := range by {
			if want := []string{"pinned", "started", "completed", "verified"}; !slices.Equal(got, want) {
				t.Errorf("%s: told %v", where, got)
			}
		}
		if len(by) != 9 || len(x.ids()) != 36 {
			t.Errorf("told of %d deployments, %d times", len(by), len(x.ids()))
		}
	}
	d.jump(96 * time.Hour)
	eventually(t, "what nobody takes is given up", func() bool { d.jump(time.Minute); return d.Counts()["metadata"].GivenUp > 2 })
	eventually(t, "the one that was gone is told, however old", func() bool { d.jump(time.Minute); return len(gone.taken()) == 36 })
	d.stop()
	for name, x := range all {
		x.check(t)
		if strings.Contains(d.log.String(), x.URL) {
			t.Errorf("the log shows the address of %s", name)
		}
	}
	if s := d.log.String(); strings.Contains(s, secretText) || !strings.Contains(s, "a redirect is not followed") || !strings.Contains(s, "an address at which clouds hand out credentials") {
		t.Errorf("the log says\n%s", s)
	}
}

// What a receiver does not take of some deployments holds up only these.
func TestWhatIsRefusedHoldsUpNoOtherDeployment(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.record("dev", "web", ledger.EventPinned)
	var mended atomic.Bool
	refused := map[string]bool{}
	x := newReceiver(t, func(w http.ResponseWriter, _ *http.Request, n notify.Notification) {
		if refused[n.Deployment] && !mended.Load() {
			w.WriteHeader(422)
		}
	})
	d := h.start(nil, x.sink("picky"))
	h.kept("picky")
	const all, odd = 12, 10 // more of them than fit behind one service before
	for i := range all {
		if i < odd {
			refused[ledger.DeploymentID("web", commitOf(h.entries+1))] = true
		}
		h.record("dev", "web", whole...)
	}
	d.look(t)
	eventually(t, "the others are told", func() bool { return len(x.taken()) == 4*(all-odd) })
	eventually(t, "what is refused waits", func() bool { n := d.Counts()["picky"]; return n.Waiting == 4*odd && n.Failed >= odd })
	// Also after a restart.
	d.stop()
	d = h.start(nil, x.sink("picky"))
	h.record("dev", "web", whole...)
	d.look(t)
	eventually(t, "the next one is told", func() bool { d.jump(time.Second); return len(x.taken()) == 4*(all-odd+1) })
	mended.Store(true)
	eventually(t, "all is told", func() bool { d.jump(time.Minute); return len(x.taken()) == 4*(all+1) })
	for where, got := range x.deployments() {
		if want := []string{"pinned", "started", "completed", "verified"}; !slices.Equal(got, want) {
			t.Errorf("%s: told %v", where, got)
		}
	}
	d.stop()
}

// Two replicas that hand an environment over tell all of it, each its own.
func TestHandover(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.record("dev", "web", ledger.EventPinned)
	x := newReceiver(t, nil)
	var second atomic.Bool
	a := h.start(func(desired.EnvironmentName) bool { return !second.Load() }, x.sink("all"))
	b := h.start(func(desired.EnvironmentName) bool { return second.Load() }, x.sink("all"))
	h.kept("all")
	h.record("dev", "web", whole...)
	a.look(t)
	b.look(t)
	eventually(t, "the first one tells", func() bool { return len(x.taken()) == 4 })
	if n := b.Counts()["all"]; n.Sent+uint64(n.Waiting) != 0 {
		t.Errorf("the second one tells, too: %+v", n)
	}
	a.stop()
	second.Store(true)
	h.record("dev", "web", ledger.EventRetired)
	b.look(t)
	eventually(t, "the second one tells", func() bool { return len(x.taken()) == 5 })
	if got := x.taken(); got[4] != "dev/web retired" {
		t.Errorf("told %q", got)
	}
	eventually(t, "the second one knows", func() bool { return b.Counts()["all"].Sent == 1 })
}

// Whoever deletes the branch of positions, or writes nonsense there, harms
// nothing but what the sinks are told.
func TestPositionsThatAreLost(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.record("dev", "web", ledger.EventPinned)
	x := newReceiver(t, nil)
	d := h.start(nil, x.sink("all"))
	h.kept("all")
	if out, err := exec.Command("git", "-C", h.url, "branch", "-D", gitstate.SinksBranch).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	h.record("dev", "web", whole...)
	d.look(t) // fails if it is an error that the branch is not there
	eventually(t, "all is told", func() bool { return len(x.taken()) == 4 })
	d.jump(time.Hour)
	h.kept("all")
	d.stop()
	// A rewritten ledger: there is no way to tell what was told of it.
	h.writer.Fetch(t.Context())
	h.push(gitstate.SinksBranch, gitstate.Change{Message: "Break", Author: gitstate.Signature{Name: "a", Email: "b", Time: time.Now()},
		Files: map[string][]byte{"ledger/dev.json": []byte(`{"sinks":{"all":{"since":"2026-01-01T00:00:00Z","at":"0123456789012345678901234567890123456789"}}}`)}})
	h.record("dev", "web", ledger.EventRetired)
	d = h.start(nil, x.sink("all"))
	eventually(t, "the position is kept anew", func() bool {
		out, _ := exec.Command("git", "-C", h.url, "show", gitstate.SinksBranch+":ledger/dev.json").Output()
		return len(out) > 0 && !strings.Contains(string(out), "0123456789")
	})
	d.stop()
	if !strings.Contains(d.log.String(), "how far a sink was told is not in the history") {
		t.Errorf("the log says\n%s", &d.log)
	}
}

// A position that can't be read keeps shut what it is about, and nothing else,
// until somebody mends it.
func TestPositionsThatAreBroken(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.record("dev", "web", ledger.EventPinned)
	h.record("staging", "web", ledger.EventPinned)
	one, two := newReceiver(t, nil), newReceiver(t, nil)
	sinks := []deliver.Sink{one.sink("one"), two.sink("two")}
	d := h.start(nil, sinks...)
	h.kept("one")
	d.stop()
	show := func(file string) string {
		t.Helper()
		out, err := exec.Command("git", "-C", h.url, "show", gitstate.SinksBranch+":"+file).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	dev, staging := show("ledger/dev.json"), show("ledger/staging.json")
	write := func(files map[string]string) {
		t.Helper()
		h.writer.Fetch(t.Context())
		c := gitstate.Change{Message: "Edit", Author: gitstate.Signature{Name: "a", Email: "b", Time: time.Now()}, Files: map[string][]byte{}}
		for name, text := range files {
			c.Files[name] = []byte(text)
		}
		h.push(gitstate.SinksBranch, c)
	}
	tip, _ := h.writer.Branch("ledger/dev")
	write(map[string]string{"ledger/dev.json": strings.Replace(dev, tip, "x", 1), "ledger/staging.json": "{"})
	h.record("dev", "web", ledger.EventStarted)
	h.record("staging", "web", ledger.EventStarted)
	d = h.start(nil, sinks...)
	eventually(t, "the other one is told", func() bool { return slices.Equal(two.taken(), []string{"dev/web started"}) })
	h.main(map[string]string{"holds/inc-1.yaml": "apiVersion: pinion.dev/v1\nkind: Hold\nreason: INC-1\nowner: ann@example.com\n"})
	d.look(t)
	eventually(t, "holds are told", func() bool { return slices.Equal(one.taken(), []string{"hold inc-1 held"}) })
	if n := d.Counts(); n["one"].Shut != 2 || n["two"].Shut != 1 {
		t.Errorf("shut are %+v", n)
	}
	eventually(t, "what was told is kept", func() bool { return show("ledger/dev.json") != strings.Replace(dev, tip, "x", 1) })
	if text := show("ledger/dev.json"); !strings.Contains(text, `"at": "x"`) || show("ledger/staging.json") != "{" {
		t.Errorf("what can't be read is now\n%s\n%s", text, show("ledger/staging.json"))
	}

	write(map[string]string{"ledger/dev.json": dev, "ledger/staging.json": staging})
	d.look(t)
	d.jump(2 * time.Minute)
	eventually(t, "both are told what they have missed", func() bool {
		return slices.Contains(one.taken(), "dev/web started") && slices.Contains(one.taken(), "staging/web started") && slices.Contains(two.taken(), "staging/web started")
	})
	eventually(t, "nothing is shut", func() bool { return d.Counts()["one"].Shut+d.Counts()["two"].Shut == 0 })
	d.stop()
	for _, want := range []string{`one is told nothing of ledger/dev: ledger/dev.json of branch pinion/sinks: the position of \"one\"`, "two is told nothing of ledger/staging", "put back what an earlier commit of the branch has"} {
		if !strings.Contains(d.log.String(), want) {
			t.Errorf("the log says\n%s\nwant %s", &d.log, want)
		}
	}
}

// runAlone is a courier in a process of its own, to be killed.
func runAlone() {
	dir, err := os.MkdirTemp("", "courier-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	m, err := gitstate.Open(context.Background(), gitstate.Options{URL: os.Getenv("PINION_TEST_COURIER"), Dir: dir})
	if err != nil {
		panic(err)
	}
	secrets, err := notify.ParseSecrets(secretText)
	if err != nil {
		panic(err)
	}
	o := options(m, nil, []deliver.Sink{{Sink: notify.Sink{Name: "all"}, URL: os.Getenv("PINION_TEST_RECEIVER"), Secrets: secrets}}, os.Stderr, time.Now)
	o.KeepEvery = 200 * time.Millisecond
	deliver.New(o).Run(context.Background())
}

// A daemon that is killed again and again, between what it sends and what it
// keeps: nothing is lost, and of each deployment the order holds.
func TestKilled(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.record("dev", "web", ledger.EventPinned)
	var limit atomic.Int64
	full := make(chan struct{}, 100)
	x := newReceiver(t, nil)
	x.behave = func(w http.ResponseWriter, r *http.Request, _ notify.Notification) {
		if limit.Add(-1) < 0 {
			full <- struct{}{}
			if limit.Load()%2 == 0 { // taken, and the sender never hears of it
				w.WriteHeader(200)
			}
			<-r.Context().Done()
		}
	}
	start := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "PINION_TEST_COURIER="+h.url, "PINION_TEST_RECEIVER="+x.URL)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		return cmd
	}
	limit.Store(1 << 40)
	first := start()
	h.kept("all")
	first.Process.Kill()
	first.Wait()
	for range 6 {
		h.record("dev", "web", whole...)
		h.record("dev", "api", whole...)
		h.record("staging", "web", whole...)
	}
	for _, n := range []int64{5, 17, 30} {
		limit.Store(n)
		cmd := start()
		<-full
		cmd.Process.Kill()
		cmd.Wait()
	}
	limit.Store(1 << 40)
	start()
	unique := func() map[string]bool {
		seen := map[string]bool{}
		for _, id := range x.ids() {
			seen[id] = true
		}
		return seen
	}
	eventually(t, "all is told", func() bool { return len(unique()) >= 72 })
	eventually(t, "that is kept", func() bool { // and nobody writes there any more
		for _, branch := range []string{"ledger/dev", "ledger/staging"} {
			tip, err := exec.Command("git", "-C", h.url, "rev-parse", branch).Output()
			kept, _ := exec.Command("git", "-C", h.url, "show", gitstate.SinksBranch+":"+branch+".json").Output()
			if err != nil || !strings.Contains(string(kept), strings.TrimSpace(string(tip))) {
				return false
			}
		}
		return true
	})
	// In order: whoever drops what has come before sees each deployment's news once, as they came about.
	by := x.deployments()
	delete(by, "dev/"+ledger.DeploymentID("web", commitOf(1))) // before the sink was known
	for where, got := range by {
		if want := []string{"pinned", "started", "completed", "verified"}; !slices.Equal(got, want) {
			t.Errorf("%s: told %v", where, got)
		}
	}
	if len(by) != 18 {
		t.Errorf("told of %d deployments", len(by))
	}
	x.check(t)
}
