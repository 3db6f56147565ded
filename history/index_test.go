package history

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
)

// office writes random ledgers into a real repository.
type office struct {
	*testing.T
	*rand.Rand
	dir     string
	clone   *gitstate.Clone
	now     time.Time
	records map[place]ledger.Record
	has     map[desired.EnvironmentName]bool
	entries int
}

func newOffice(t *testing.T, seed uint64) *office {
	o := &office{T: t, Rand: rand.New(rand.NewPCG(seed, 7)), dir: t.TempDir(), now: time.Date(2026, 11, 1, 9, 0, 0, 0, time.UTC),
		records: map[place]ledger.Record{}, has: map[desired.EnvironmentName]bool{}}
	o.git("", "init", "-q", "--bare")
	var err error
	if o.clone, err = gitstate.OpenClone(o.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.clone.Close() })
	return o
}

func (o *office) git(in string, args ...string) {
	o.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Stdin = o.dir, strings.NewReader(in)
	if out, err := cmd.CombinedOutput(); err != nil {
		o.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

func (o *office) branches() map[string]string {
	b, err := o.clone.Ledgers()
	if err != nil {
		o.Error(err)
	}
	return b
}

// write writes n entries, each of which the ledger's rules allow.
func (o *office) write(n int) {
	o.Helper()
	var b bytes.Buffer
	goesOn := map[desired.EnvironmentName]bool{} // in this stream
	for written := 0; written < n; {
		env := desired.EnvironmentName([]string{"dev", "staging", "production"}[o.IntN(3)])
		svc := desired.ServiceName([]string{"api", "web"}[o.IntN(2)])
		at := place{env, svc}
		r := o.records[at]
		e := ledger.Entry{Environment: env, Service: svc, Event: ledger.Event([]string{"pinned", "started", "completed", "verified", "failed", "superseded", "check", "retired"}[o.IntN(8)]),
			Deployment: r.Deployment.ID, Commit: r.Deployment.Commit, Release: r.Deployment.Release, Reason: "It is so."}
		switch e.Event {
		case ledger.EventPinned:
			e.Commit = fmt.Sprintf("%040x", o.IntN(1<<30))
			e.Deployment = ledger.DeploymentID(svc, e.Commit)
			e.Release = ledger.Release{Pins: []ledger.Pin{{Artifact: desired.ArtifactName(svc), Image: o.image(svc)}}}
			e.Cause, e.Authors = ledger.CausePin, []ledger.Person{{Name: "Dana", Email: "dana@shop.example"}}
			if id := r.Deployment.ID; id != "" && !r.Deployment.State.Final() && r.Retired.IsZero() {
				continue // it is superseded first
			}
		case ledger.EventStarted:
			e.Manifests = "sha256:" + strings.Repeat("0", 64)
		case ledger.EventCheck:
			e.Checks = []ledger.Check{{Policy: "e2e", Result: ledger.Success, By: "ci"}}
			e.Late = o.IntN(4) == 0
		}
		if e.Event != ledger.EventPinned && r.Deployment.ID == "" {
			continue
		}
		// As a rule the clock goes on; now and then it was set back.
		o.now = o.now.Add(time.Duration(o.IntN(90)) * time.Second)
		if o.IntN(50) == 0 {
			o.now = o.now.Add(-5 * time.Minute)
		}
		e.Time = o.now
		next, err := r.Apply(e)
		if err != nil {
			continue
		}
		o.records[at] = next
		branch, message, record := "refs/heads/"+ledger.Branch(env), e.Message(), next.Encode()
		fmt.Fprintf(&b, "commit %s\ncommitter Pinion <pinion@shop.example> %d +0000\ndata %d\n%s\n", branch, e.Time.Unix(), len(message), message)
		if o.has[env] && !goesOn[env] {
			fmt.Fprintf(&b, "from %s^0\n", branch)
		}
		o.has[env], goesOn[env] = true, true
		fmt.Fprintf(&b, "M 100644 inline %s\ndata %d\n%s\n", ledger.RecordFile(svc), len(record), record)
		written++
		o.entries++
		if written%50 == 0 || written == n {
			o.git(b.String(), "fast-import", "--quiet")
			b.Reset()
			clear(goesOn)
		}
	}
}

// image has a tag, a digest, or both.
func (o *office) image(svc desired.ServiceName) string {
	tag, digest := fmt.Sprintf(":1.%d.0", o.IntN(9)), fmt.Sprintf("@sha256:%064d", o.IntN(4))
	if n := o.IntN(8); n == 0 {
		tag = ""
	} else if n > 2 {
		digest = ""
	}
	return "registry.example/" + string(svc) + tag + digest
}

func (o *office) index() *Index {
	x := NewIndex(o.clone, o.branches)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { x.Run(ctx); close(ended) }()
	o.Cleanup(func() { stop(); <-ended })
	return x
}

// all lists all deployments in pages, and calls between before each.
func (o *office) all(x *Index, q DeploymentQuery, limit int, between func()) []*Deployment {
	o.Helper()
	var all []*Deployment
	for next := ""; ; {
		p, err := x.Deployments(o.Context(), q, next, limit)
		if err != nil {
			o.Fatal(err)
		}
		all = append(all, p.Items...)
		if next = p.Next; next == "" {
			return all
		}
		if len(p.Items) != limit {
			o.Errorf("a page that is not the last one has %d items, not %d", len(p.Items), limit)
		}
		between()
	}
}

// An index that has followed the ledgers says what one says that reads them
// from the tips back, and what the ledgers' own records say.
func TestIndexFollows(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		o := newOffice(t, seed)
		o.write(40)
		followed := o.index()
		for range 6 {
			o.all(followed, DeploymentQuery{}, 7, func() {})
			o.write(35)
		}
		got := o.all(followed, DeploymentQuery{}, 1000, func() {})
		want := o.all(o.index(), DeploymentQuery{}, 1000, func() {})
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(Deployment{})); diff != "" {
			t.Fatalf("seed %d: followed (+) and read back (-):\n%s", seed, diff)
		}
		newest := map[place]*Deployment{}
		for _, d := range got {
			if at := (place{d.Environment, d.Service}); newest[at] == nil {
				newest[at] = d
			}
		}
		for at, r := range o.records {
			d := newest[at]
			if d == nil {
				t.Errorf("seed %d: %v is not listed", seed, at)
				continue
			}
			if r.Deployment.ID != d.ID || r.Deployment.State != d.State || !r.Deployment.Ended.Equal(d.Ended) || !r.Retired.Equal(d.Left) ||
				!cmp.Equal(r.Deployment.Checks, d.Checks, cmpopts.EquateEmpty(), cmpopts.EquateApproxTime(0)) {
				t.Errorf("seed %d: %v: listed as %+v, recorded as %+v", seed, at, d, r.Deployment)
			}
		}
	}
}

// Pages have each deployment once that was there when the first one was read,
// whatever comes in between.
func TestPagesStayRight(t *testing.T) {
	t.Parallel()
	o := newOffice(t, 11)
	o.write(200)
	x := o.index()
	for _, q := range []DeploymentQuery{{}, {Environment: "dev"}, {Service: "web", State: ledger.StateSuperseded}, {Version: "1.3.0"}} {
		var want, got []string
		for _, d := range o.all(x, q, 1000, func() {}) {
			want = append(want, string(d.Environment)+d.Entry)
		}
		had := map[string]bool{}
		for _, id := range want {
			had[id] = true
		}
		for _, d := range o.all(x, q, 3, func() { o.write(5) }) {
			if id := string(d.Environment) + d.Entry; had[id] {
				got = append(got, id)
			}
		}
		if q.State == "" && !cmp.Equal(want, got) {
			t.Errorf("%+v:\n%s", q, cmp.Diff(want, got))
		}
		seen := map[string]bool{}
		for _, id := range got {
			if seen[id] {
				t.Errorf("%+v: %s comes twice", q, id)
			}
			seen[id] = true
		}
	}
	var entries []string
	for next := ""; ; {
		p, err := x.Entries(t.Context(), EntryQuery{Environment: "dev"}, next, 7)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range p.Items {
			var e Entry
			if err := json.Unmarshal(text, &e); err != nil {
				t.Fatal(err)
			}
			entries = append(entries, e.Entry)
		}
		if next = p.Next; next == "" {
			break
		}
		o.write(3)
	}
	var walked []string
	if err := o.clone.History(t.Context(), entries[0], func(c gitstate.CommitInfo) bool {
		walked = append(walked, c.ID)
		want, err := json.Marshal(ReadEntry(c))
		got, ok, failure := x.Entry(t.Context(), "dev", c.ID)
		if err := errors.Join(err, failure); err != nil || !ok || string(got) != string(want) {
			t.Errorf("entry %s: %s, %t, %v; want %s", c.ID, got, ok, err, want)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(walked, entries); diff != "" {
		t.Errorf("entries page by page (+), and as git has them (-):\n%s", diff)
	}
}

// Whoever follows hears of each entry once and in its order, also from another
// index, as after a restart, and also while nobody has asked for anything else.
func TestFollowOverRestarts(t *testing.T) {
	t.Parallel()
	o := newOffice(t, 5)
	o.write(60)
	x := o.index()
	start, err := x.Here(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	var heard []string
	at := start
	for round := range 5 {
		o.write(20)
		x.Poke()
		for want := 20 * (round + 1); len(heard) < want; {
			var got []Followed
			if got, at, err = x.Follow(t.Context(), EntryQuery{}, at, 7); err != nil {
				t.Fatal(err)
			}
			for _, f := range got {
				var e Entry
				if err := json.Unmarshal(f.Entry, &e); err != nil || e.Event != f.Event {
					t.Fatalf("%s: %s, %v", f.Event, f.Entry, err)
				}
				heard = append(heard, string(e.Environment)+e.Entry)
			}
		}
		x = o.index()
		if at, err = ParsePosition(at.String()); err != nil {
			t.Fatal(err)
		}
	}
	for env, tip := range Tips(o.branches()) {
		var want, got []string
		if err := o.clone.History(t.Context(), tip, func(c gitstate.CommitInfo) bool {
			if c.ID == start[env] {
				return false
			}
			want = append([]string{string(env) + c.ID}, want...)
			return true
		}); err != nil {
			t.Fatal(err)
		}
		for _, h := range heard {
			if strings.HasPrefix(h, string(env)) {
				got = append(got, h)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", env, diff)
		}
	}
	if _, _, err := x.Follow(t.Context(), EntryQuery{}, Position{"dev": "0000000000000000"}, 7); !errors.Is(err, ErrPosition) {
		t.Errorf("from an entry that there never was: %v", err)
	}
	if p, err := ParsePosition(Position{}.String()); err != nil || len(p) != 0 || (Position{}).String() == "" {
		t.Errorf("before there is a ledger: %v, %v", p, err)
	}
	for _, bad := range []string{"", "dev", "dev:", "dev:12", ":0123456789abcdef", "dev:0123456789abcdeg", "dev:0123456789abcdef,"} {
		if p, err := ParsePosition(bad); err == nil {
			t.Errorf("%q is a position: %v", bad, p)
		}
	}
}
