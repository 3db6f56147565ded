//go:build unix

package reconcile_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
	"github.com/pinion-cd/pinion/reconcile/check"
)

// asClerk, in the environment of the test binary, makes it a daemon without
// clusters, with its mirror in that folder.
const asClerk = "PINION_TEST_CLERK"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asClerk); dir != "" {
		serveClerk(dir, os.Getenv("PINION_TEST_REMOTE"))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// alone stands in for a test in a process of its own.
type alone struct{ testing.TB }

func (alone) Helper() {}

func (alone) Fatal(args ...any) {
	fmt.Fprintln(os.Stderr, args...)
	os.Exit(3)
}

// serveClerk does what a daemon does, from its start to its end by a signal.
// Its first line says where it takes in reports and approvals, each further
// one is an event.
func serveClerk(dir, remote string) {
	h := houseOn(alone{}, remote, "")
	// The hooks of the remote find out by these whom to kill.
	os.Setenv("PINION_TEST_PID", strconv.Itoa(os.Getpid()))
	mirror, err := gitstate.Open(context.Background(), gitstate.Options{URL: remote, Dir: dir, Poll: time.Second})
	h.must(err)
	var mu sync.Mutex
	clerk := reconcile.NewClerk(reconcile.ClerkOptions{
		Mirror:   mirror,
		Branch:   "main",
		Identity: ledger.Person{Name: "Pinion", Email: "pinion@shop.example"},
		Digests:  []byte("a key"),
		Checks:   check.New(nil, check.Options{}),
		Report: func(ev reconcile.Event) {
			if ev.Type == reconcile.EventWarning || ev.Type == reconcile.EventProblem {
				mu.Lock()
				defer mu.Unlock()
				fmt.Printf("%s %s/%s: %q\n", ev.Type, ev.Environment, ev.Service, ev.Message)
			}
		},
	}, reconcile.NewEngine(reconcile.Options{Commits: mirror}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	h.must(err)
	fmt.Println(l.Addr())
	go clerk.Run(context.Background())
	go h.watch(context.Background(), mirror, clerk)
	http.HandleFunc("/report", func(w http.ResponseWriter, r *http.Request) {
		var q reconcile.ReportRequest
		h.must(json.NewDecoder(r.Body).Decode(&q))
		answerTo(w)(clerk.Report(r.Context(), q))
	})
	http.HandleFunc("/approve", func(w http.ResponseWriter, r *http.Request) {
		var q reconcile.ApprovalRequest
		h.must(json.NewDecoder(r.Body).Decode(&q))
		answerTo(w)(clerk.Approve(r.Context(), q))
	})
	h.must(http.Serve(l, nil))
}

// reply is what a request is answered with.
type reply struct {
	Receipt  reconcile.Receipt
	Recorded bool
	Code     reconcile.RejectionCode // if it was not taken, or moves nothing
	Message  string
}

func answerTo(w http.ResponseWriter) func(reconcile.Receipt, error) {
	return func(receipt reconcile.Receipt, err error) {
		a := reply{Receipt: receipt, Recorded: err == nil}
		var no *reconcile.Rejection
		switch {
		case errors.As(err, &no):
			a.Code, a.Message = no.Code, no.Message
			if no.Receipt != nil {
				a.Receipt, a.Recorded = *no.Receipt, true
			}
		case err != nil:
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		json.NewEncoder(w).Encode(a)
	}
}

// clerkProcess is a clerk in a process of its own.
type clerkProcess struct {
	cmd     *exec.Cmd
	address string
	ended   chan struct{}
	events  []string // read it when the process has ended
}

// process starts a clerk. step and at name the push at which it is to be
// killed by the remote's hook, if step is not "".
func (h *house) process(dir, step string, at int) *clerkProcess {
	h.Helper()
	p := &clerkProcess{cmd: exec.Command(os.Args[0]), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), asClerk+"="+dir, "PINION_TEST_REMOTE="+h.remote, "PINION_TEST_STEP="+step, "PINION_TEST_AT="+strconv.Itoa(at), "GOMAXPROCS=2")
	var trouble bytes.Buffer
	p.cmd.Stderr = &trouble
	out, err := p.cmd.StdoutPipe()
	h.must(err)
	h.must(p.cmd.Start())
	first := make(chan string, 1)
	go func() {
		s := bufio.NewScanner(out)
		s.Buffer(nil, 1<<20)
		if s.Scan() {
			first <- s.Text()
		} else {
			first <- ""
		}
		for s.Scan() {
			p.events = append(p.events, s.Text())
		}
		p.cmd.Wait()
		if trouble.Len() > 0 {
			p.events = append(p.events, trouble.String())
		}
		close(p.ended)
	}()
	h.Cleanup(func() {
		p.kill()
	})
	p.address = <-first
	return p
}

// kill ends the process as kill -9 does.
func (p *clerkProcess) kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

// ask sends a request. The error says that there is no answer, so that nobody
// knows whether it was taken.
func (p *clerkProcess) ask(ctx context.Context, what string, q any) (reply, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return reply{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.address+"/"+what, bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		return reply{}, fmt.Errorf("%s: %s", resp.Status, text)
	}
	var a reply
	return a, json.NewDecoder(resp.Body).Decode(&a)
}

// killer is a hook of the remote that kills a clerk at one of its pushes, and
// lets the push go on; at the step "lost" it does not.
const killer = `#!/bin/sh
step=${0##*/}
case $step in
reference-transaction) step=$1;;
pre-receive) [ "$PINION_TEST_STEP" = lost ] && step=lost;;
esac
[ -n "$PINION_TEST_STEP" ] && [ "$PINION_TEST_STEP" = "$step" ] || exit 0
log="$GIT_DIR/pushes.$PINION_TEST_PID"
echo >> "$log"
[ "$(wc -l < "$log")" -eq "$PINION_TEST_AT" ] || exit 0
kill -9 "$PINION_TEST_PID"
[ $step != lost ]
`

// hooked gives the remote a hook.
func (h *house) hook(name, script string) {
	h.Helper()
	path := filepath.Join(h.remote, "hooks", name)
	h.must(os.MkdirAll(filepath.Dir(path), 0o755))
	// Renamed into place: a file that is open for writing can't be executed.
	h.must(os.WriteFile(path+".new", []byte(script), 0o755))
	h.must(os.Rename(path+".new", path))
}

// city is a repository of several services with people who bump versions,
// report and approve, all the time, to whichever clerk there is.
type city struct {
	*house
	services []string
	mirror   *gitstate.Mirror // the people's own
	stop     func()

	mu       sync.Mutex // guards what follows
	clerks   []*clerkProcess
	random   *rand.Rand
	resting  bool           // nobody bumps a version any more
	minor    map[string]int // the newest version of each service
	asking   map[string]bool
	number   int
	commits  []string // that people have pushed
	accepted []accepted
	refused  []string // those that came for what is there no more, and are not recorded
	unknown  int      // requests that were not answered
}

// accepted is a request that was acknowledged.
type accepted struct {
	mark        string // its URL or its comment, its alone
	environment string
	receipt     reconcile.Receipt
	already     bool // it says that somebody else's is there
}

// services is threeStages with several services.
func threeStagesOf(services ...string) string {
	var b strings.Builder
	_, policies, _ := strings.Cut(threeStages, "-- pipelines/")
	for _, env := range []string{"dev", "staging", "production"} {
		fmt.Fprintf(&b, "-- environments/%s.yaml --\napiVersion: pinion.dev/v1\nkind: Environment\nnamespace: shop-%s\npins:\n", env, env)
		for _, s := range services {
			fmt.Fprintf(&b, "  %s:\n    image: registry.example/%s:1.0.0\n", s, s)
		}
	}
	for _, s := range services {
		fmt.Fprintf(&b, "-- services/%s/service.yaml --\napiVersion: pinion.dev/v1\nkind: Service\n", s)
		fmt.Fprintf(&b, "-- services/%s/%s.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {a: b}\n", s, s, s)
	}
	return b.String() + "-- pipelines/" + policies
}

func newCity(t testing.TB, seed uint64, services ...string) *city {
	t.Helper()
	slices.Sort(services)
	c := &city{house: newRepository(t, threeStagesOf(services...)), services: services, random: rand.New(rand.NewPCG(seed, 0)), minor: map[string]int{}, asking: map[string]bool{}}
	c.logged()
	ctx, cancel := context.WithCancel(context.Background())
	var err error
	c.mirror, err = gitstate.Open(ctx, gitstate.Options{URL: c.remote, Dir: filepath.Join(t.TempDir(), "people"), Poll: 300 * time.Millisecond})
	c.must(err)
	var wait sync.WaitGroup
	wait.Go(func() {
		for range c.mirror.Watch(ctx) {
			c.live(ctx, &wait)
		}
	})
	c.stop = sync.OnceFunc(func() {
		cancel()
		wait.Wait()
		c.mirror.Close()
	})
	t.Cleanup(c.stop)
	return c
}

// live has the people look at the repository once, and do what they do.
func (c *city) live(ctx context.Context, wait *sync.WaitGroup) {
	if _, err := c.mirror.Fetch(ctx); err != nil {
		return
	}
	records := map[string]map[desired.ServiceName]ledger.Record{}
	for _, env := range []string{"dev", "staging", "production"} {
		if tip, ok := c.mirror.Branch(ledger.Branch(desired.EnvironmentName(env))); ok {
			snap, err := c.mirror.Snapshot(ctx, tip)
			if err != nil {
				return
			}
			if records[env], err = ledger.Read(snap); err != nil {
				return
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, svc := range c.services {
		name := desired.ServiceName(svc)
		dev, staging, production := records["dev"][name], records["staging"][name], records["production"][name]
		if !c.resting && dev.Deployment.State == ledger.StateVerified && dev.Deployment.Release.Version() == c.version(svc) && c.random.IntN(3) == 0 {
			c.bump(ctx, svc)
		}
		if d := staging.Deployment; d.State == ledger.StateCompleted && len(d.Checks) == 0 {
			result := ledger.Success
			if bad(d.Release.Version()) {
				result = ledger.Failure
			}
			c.report(ctx, wait, svc, d.Release.Version(), result)
		}
		if c.random.IntN(50) == 0 && len(staging.Previous) > 0 && !c.resting {
			c.report(ctx, wait, svc, staging.Previous[0].Release.Version(), ledger.Success) // late
		}
		if x := production.Candidate; x != nil {
			for _, who := range []string{"alice", "bob"} {
				if !slices.ContainsFunc(x.Approvals, func(a ledger.Approval) bool { return a.By == who }) {
					c.approve(ctx, wait, who, svc, x.Release.Version())
				}
			}
		}
	}
}

func (c *city) version(svc string) string { return fmt.Sprintf("1.%d.0", c.minor[svc]) }

// bad tells the versions that fail in staging.
func bad(version string) bool { return strings.HasSuffix(version, "3.0") }

// bump pins the next version in dev; mu is held.
func (c *city) bump(ctx context.Context, svc string) {
	tip, _ := c.mirror.Tip()
	snap, err := c.mirror.Snapshot(ctx, tip)
	if err != nil {
		return
	}
	file := "environments/dev.yaml"
	data, err := snap.ReadFile(file)
	if err != nil {
		return
	}
	old := c.version(svc)
	next := fmt.Sprintf("1.%d.0", c.minor[svc]+1)
	edited := bytes.ReplaceAll(data, []byte("/"+svc+":"+old+"\n"), []byte("/"+svc+":"+next+"\n"))
	who := gitstate.Signature{Name: "Dana", Email: "dana@shop.example", Time: time.Now()}
	// Another one has been faster, perhaps: then there is another time.
	if id, err := c.mirror.Commit(ctx, gitstate.Change{Expected: tip, Files: map[string][]byte{file: edited}, Message: "bump " + svc + " to " + next, Author: who, Committer: who}); err == nil {
		c.minor[svc]++
		c.commits = append(c.commits, id)
	}
}

func (c *city) report(ctx context.Context, wait *sync.WaitGroup, svc, version string, result ledger.Result) {
	c.number++
	mark := fmt.Sprintf("https://ci.shop.example/%d", c.number)
	c.ask(ctx, wait, "report", "staging", svc+" "+version, mark, reconcile.ReportRequest{
		Principal: reconcile.Principal{Name: "ci"}, Environment: "staging", Service: desired.ServiceName(svc),
		Policy: "e2e", Version: version, Result: result, URL: mark,
	})
}

func (c *city) approve(ctx context.Context, wait *sync.WaitGroup, who, svc, version string) {
	c.number++
	mark := fmt.Sprintf("approval %d", c.number)
	c.ask(ctx, wait, "approve", "production", svc+" "+version+" "+who, mark, reconcile.ApprovalRequest{
		Principal:   reconcile.Principal{Name: who, Email: who + "@shop.example", Groups: []string{"release-managers"}},
		Environment: "production", Service: desired.ServiceName(svc), Version: version, Comment: mark,
	})
}

// ask sends a request, unless the same is under way, and notes what was said;
// mu is held.
func (c *city) ask(ctx context.Context, wait *sync.WaitGroup, what, environment, about, mark string, q any) {
	if len(c.clerks) == 0 || c.asking[about] && c.random.IntN(8) > 0 {
		return
	}
	p := c.clerks[c.random.IntN(len(c.clerks))]
	c.asking[about] = true
	wait.Go(func() {
		a, err := p.ask(ctx, what, q)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.asking[about] = false
		switch {
		case err != nil || a.Code == reconcile.NotReady:
			c.unknown++
		case a.Recorded:
			c.accepted = append(c.accepted, accepted{mark, environment, a.Receipt, strings.Contains(a.Receipt.Message, "already")})
		case a.Code == reconcile.NotCurrent || a.Code == reconcile.UnknownDeployment || a.Code == reconcile.Decided:
			c.refused = append(c.refused, mark+": "+a.Message)
		default:
			c.Errorf("%s: %s: %s", mark, a.Code, a.Message)
		}
	})
}

// employ makes some clerks those whom people ask.
func (c *city) employ(all ...*clerkProcess) {
	c.mu.Lock()
	c.clerks = all
	c.mu.Unlock()
	c.mirror.Poke()
}

// rest has people bump nothing any more, and waits until the newest versions
// have come as far as they can.
func (c *city) rest() {
	c.Helper()
	c.mu.Lock()
	c.resting = true
	// A version that fails, or was taken back, comes to no end.
	for _, svc := range c.services {
		for before := c.minor[svc]; c.minor[svc] == before || bad(c.version(svc)); {
			if _, err := c.mirror.Fetch(context.Background()); err != nil {
				c.Fatal(err)
			}
			c.bump(context.Background(), svc)
		}
	}
	c.mu.Unlock()
	for _, svc := range c.services {
		for _, env := range []string{"dev", "staging", "production"} {
			c.until(fmt.Sprintf("%s of %s is verified in %s", c.version(svc), svc, env), func() string {
				c.mirror.Poke()
				r, err := c.record(env, svc)
				if err != nil {
					return err.Error()
				}
				if r.Deployment.State != ledger.StateVerified || r.Deployment.Release.Version() != c.version(svc) {
					return fmt.Sprintf("it has %s, %s; the candidate is %v", r.Deployment.Release.Version(), r.Deployment.State, r.Candidate)
				}
				return ""
			})
		}
	}
}

// kept checks that all that was acknowledged is in the ledgers, once, and that
// nothing else is there twice.
func (c *city) kept(a *audit) {
	c.Helper()
	for _, x := range c.accepted {
		n := a.counts[x.mark]
		if x.already && n > 0 {
			c.Errorf("%s was acknowledged as there already, and is there %d times", x.mark, n)
		}
		if !x.already && n != 1 {
			c.Errorf("%s was acknowledged (%s), and is there %d times", x.mark, x.receipt.Message, n)
		}
		if a.ids[x.receipt.Commit] != "ledger/"+x.environment {
			c.Errorf("%s was acknowledged in %s, which is not in the ledger", x.mark, x.receipt.Commit)
		}
	}
	for _, id := range c.commits {
		if a.ids[id] != "main" {
			c.Errorf("the commit %s of a person is not on main", id)
		}
	}
	for mark, n := range a.counts {
		if n > 1 {
			c.Errorf("%s is there %d times", mark, n)
		}
	}
}

// seeded returns the seed of a test, and says it if the test fails.
func seeded(t testing.TB) uint64 {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("PINION_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("again with: PINION_TEST_SEED=%d", seed)
		}
	})
	return seed
}

// A clerk is killed at each step of each of the pushes that lead a version from
// a verification to the next stage, and at random moments, while people bump
// versions, report and approve. Nothing of what was acknowledged is lost, and
// nothing is there twice.
func TestKilledClerk(t *testing.T) {
	t.Parallel()
	rounds, least := 170, 200 // at random moments; of all kills
	if testing.Short() {
		rounds, least = 20, 50
	}
	c := newCity(t, seeded(t), "api", "db", "web")
	for _, name := range []string{"pre-receive", "update", "reference-transaction", "post-receive"} {
		c.hook(name, killer)
	}
	dir := filepath.Join(t.TempDir(), "mirror")
	kills := 0
	start := time.Now()
	look := func(p *clerkProcess) {
		t.Helper()
		<-p.ended
		c.employ()
		if status := p.cmd.ProcessState.String(); status != "signal: killed" {
			t.Fatalf("it ended by itself: %s\n%s", status, strings.Join(p.events, "\n"))
		}
		for _, ev := range p.events {
			t.Errorf("kill %d: %s", kills, ev)
		}
		kills++
	}
	// Before the push is looked at (and then it never is), before it is
	// accepted, with the branches locked, accepted and not answered, answered.
	for _, step := range []string{"lost", "pre-receive", "update", "prepared", "committed", "post-receive"} {
		for at := 1; at <= 6; at++ {
			p := c.process(dir, step, at)
			c.employ(p)
			select {
			case <-p.ended:
			case <-time.After(patience):
				t.Fatalf("nothing has killed it at %s %d", step, at)
			}
			look(p)
		}
	}
	t.Logf("%d kills by hooks in %s", kills, time.Since(start))
	for range rounds {
		where := dir
		if c.rand(8) == 0 {
			where = filepath.Join(t.TempDir(), "mirror") // another machine
		}
		p := c.process(where, "", 0)
		c.employ(p)
		timer := time.AfterFunc(time.Duration(c.rand(250_000))*time.Microsecond, func() { p.cmd.Process.Kill() })
		look(p)
		timer.Stop()
	}
	t.Logf("%d kills in %s", kills, time.Since(start))
	if kills < least {
		t.Errorf("%d kills, and not %d", kills, least)
	}
	p := c.process(dir, "", 0)
	c.employ(p)
	c.rest()
	p.kill()
	c.stop()
	a := c.lawful()
	c.kept(a)
	for _, text := range c.refused {
		t.Log(text)
	}
	t.Logf("%d entries, %d promotions, %d rollbacks; %d requests acknowledged, %d not; %s", a.total, a.promotions, a.rollbacks, len(c.accepted), c.unknown, time.Since(start))
	if a.promotions == 0 || len(c.accepted) == 0 || c.unknown == 0 {
		t.Error("too little has happened")
	}
}

func (c *city) rand(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.random.IntN(n)
}
