package gitstate_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/gitstate"
)

// services is a tree of n services with three files each.
func services(n int) map[string]string {
	files := map[string]string{}
	for i := range n {
		dir := fmt.Sprintf("services/svc-%04d/", i)
		files[dir+"service.yaml"] = fmt.Sprintf("apiVersion: pinion.dev/v1\nkind: Service\nartifacts: [svc-%04d]\n", i)
		files[dir+"deployment.yaml"] = fmt.Sprintf("kind: Deployment\nmetadata: {name: svc-%04d}\n", i)
		files[dir+"service-object.yaml"] = fmt.Sprintf("kind: Service\nmetadata: {name: svc-%04d}\n", i)
	}
	return files
}

// history gives a repository many commits of one line each.
func (u *upstream) history(n int) {
	var b bytes.Buffer
	for i := range n {
		text := fmt.Sprintf("pins: {svc: %d}\n", i)
		fmt.Fprintf(&b, "commit refs/heads/main\ncommitter A Person <a@example.com> %d +0000\ndata 4\nbump\n", 1700000000+seconds())
		if i == 0 {
			b.WriteString("from refs/heads/main^0\n")
		}
		fmt.Fprintf(&b, "M 100644 inline environments/env-%02d.yaml\ndata %d\n%s\n", i%20, len(text), text)
	}
	b.WriteString("done\n")
	gitInput(u.t, u.dir, &b, "fast-import", "--quiet", "--done", "--force", "--date-format=raw")
}

func walk(b testing.TB, s *gitstate.Snapshot) (n int) {
	err := fs.WalkDir(s, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		_, err = s.ID(name)
		n++
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// A tree of 1,000 services, all ids looked at: in a mirror that was just
// opened.
func BenchmarkSnapshotCold(b *testing.B) {
	u := newUpstream(b, services(1000))
	o := gitstate.Options{URL: u.dir, Dir: filepath.Join(b.TempDir(), "mirror")}
	open(b, o).Close()
	for b.Loop() {
		b.StopTimer()
		// A second repository on the same folder knows nothing yet.
		c, err := gitstate.OpenClone(present(b, o.Dir))
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		s, err := c.Snapshot(b.Context(), "main")
		if err != nil {
			b.Fatal(err)
		}
		if n := walk(b, s); n != 3000 {
			b.Fatal(n)
		}
		b.StopTimer()
		c.Close()
		b.StartTimer()
	}
}

// The same after a commit of one file, with what has changed.
func BenchmarkSnapshotWarm(b *testing.B) {
	u := newUpstream(b, services(1000))
	m := open(b, gitstate.Options{URL: u.dir})
	tip, _ := m.Tip()
	last := snapshot(b, m, tip)
	walk(b, last)
	n := 0
	for b.Loop() {
		b.StopTimer()
		n++
		u.commit("main", "one", map[string]string{"services/svc-0500/deployment.yaml": fmt.Sprint(n)})
		tip := fetch(b, m)
		b.StartTimer()
		s := snapshot(b, m, tip.Commit)
		changed, err := s.Changed(last)
		if err != nil || len(changed) != 1 {
			b.Fatal(changed, err)
		}
		last = s
	}
}

func bigMirror(b *testing.B) (*upstream, *gitstate.Mirror) {
	u := newUpstream(b, services(1000))
	u.history(20_000)
	return u, open(b, gitstate.Options{URL: u.dir})
}

// A commit of one file arrives in a repository of 20,000 commits.
func BenchmarkFetchOne(b *testing.B) {
	u, m := bigMirror(b)
	n := 0
	for b.Loop() {
		b.StopTimer()
		n++
		u.commit("main", "one", map[string]string{"environments/env-00.yaml": fmt.Sprint("x", n)})
		b.StartTimer()
		snapshot(b, m, fetch(b, m).Commit)
	}
}

func BenchmarkFetchNothing(b *testing.B) {
	_, m := bigMirror(b)
	for b.Loop() {
		fetch(b, m)
	}
}

// A commit of ours, by compare and swap, on 20,000 others.
func BenchmarkCommit(b *testing.B) {
	u, m := bigMirror(b)
	tip, _ := m.Tip()
	n := 0
	for b.Loop() {
		n++
		id, err := m.Commit(b.Context(), change(tip, "promote", map[string]string{"environments/env-00.yaml": fmt.Sprint("y", n)}))
		if err != nil {
			b.Fatal(err)
		}
		tip = id
	}
	b.StopTimer()
	u.fsck()
}

func BenchmarkClone(b *testing.B) {
	u := newUpstream(b, services(1000))
	u.history(20_000)
	for b.Loop() {
		open(b, gitstate.Options{URL: u.dir}).Close()
	}
}

func BenchmarkOpen(b *testing.B) {
	u := newUpstream(b, services(1000))
	u.history(20_000)
	o := gitstate.Options{URL: u.dir, Dir: filepath.Join(b.TempDir(), "mirror")}
	open(b, o).Close()
	for b.Loop() {
		open(b, o).Close()
	}
}

func BenchmarkHistory(b *testing.B) {
	_, m := bigMirror(b)
	tip, _ := m.Tip()
	for b.Loop() {
		n := 0
		if err := m.History(b.Context(), tip, func(gitstate.CommitInfo) bool { n++; return n < 1000 }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkIsAncestorOfAll(b *testing.B) {
	u, m := bigMirror(b)
	tip, _ := m.Tip()
	root := git(b, u.dir, "rev-list", "--max-parents=0", "main")
	for b.Loop() {
		if ok, err := m.IsAncestor(b.Context(), root, tip); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

// pins is an environment's file with a line for each of 1,000 services, some
// 130 KB; bump moves one of them.
type pins struct {
	version [1000]int
	lines   [1000][]byte
}

func newPins() *pins {
	p := &pins{}
	for i := range p.lines {
		p.version[i]--
		p.bump(i)
	}
	return p
}

func (p *pins) bump(i int) []byte {
	p.version[i]++
	n := p.version[i]
	p.lines[i] = fmt.Appendf(nil, "  svc-%04d: {image: ghcr.io/acme/svc-%04d, version: 1.4.%d, digest: sha256:%x}\n", i, i, n, sha256.Sum256(fmt.Append(nil, i, n)))
	return p.text()
}

func (p *pins) text() []byte {
	b := make([]byte, 0, 140_000)
	b = append(b, "apiVersion: pinion.dev/v1\nkind: Environment\npins:\n"...)
	for _, line := range p.lines {
		b = append(b, line...)
	}
	return b
}

// entry is the state of a service in a ledger.
func entry(i, n int) []byte {
	return fmt.Appendf(nil, "service: svc-%04d\nstate: verified\nversion: 1.4.%d\nchecks:\n- {name: e2e, result: success, digest: sha256:%x}\n", i, n, sha256.Sum256(fmt.Append(nil, i, n)))
}

func entryFile(i int) string { return fmt.Sprintf("svc-%04d/deployment.yaml", i) }

// crowd is a repository of 1,000 services with an environment that pins all of
// them, and a ledger that has an entry of each.
func crowd(b testing.TB) (*upstream, *pins) {
	p := newPins()
	files := services(1000)
	files["environments/production.yaml"] = string(p.text())
	u := newUpstream(b, files)
	ledger := map[string]string{}
	for i := range p.lines {
		ledger[entryFile(i)] = string(entry(i, 0))
	}
	u.commit("ledger/production", "start", ledger)
	git(b, u.dir, "config", "receive.autogc", "false") // it would take the processors from what is measured
	return u, p
}

// promotions are n changes on main, each of one line of the environment, and n
// on the ledger, each of one service's entry.
func promotions(m *gitstate.Mirror, p *pins, n int) []gitstate.Change {
	main, _ := m.Tip()
	ledger, _ := m.Branch("ledger/production")
	var list []gitstate.Change
	for k := range n {
		i := k * 7 % len(p.lines)
		list = append(list, gitstate.Change{Expected: main, Author: robot, Committer: robot,
			Files: map[string][]byte{"environments/production.yaml": p.bump(i)},
			Message: fmt.Sprintf("promote(production): svc-%04d 1.4.%d → 1.4.%d\n\nVerified in staging: rollout complete, e2e passed.\n\nPinion-Event: promoted\nPinion-Environment: production\nPinion-Service: svc-%04d\n",
				i, p.version[i]-1, p.version[i], i)})
		main = ""
	}
	for k := range n {
		i := k * 7 % len(p.lines)
		list = append(list, gitstate.Change{Branch: "ledger/production", Expected: ledger, Author: robot, Committer: robot,
			Files: map[string][]byte{entryFile(i): entry(i, p.version[i])},
			Message: fmt.Sprintf("pinned(production): svc-%04d 1.4.%d → 1.4.%d\n\nPinion-Event: pinned\nPinion-Environment: production\nPinion-Service: svc-%04d\n",
				i, p.version[i]-1, p.version[i], i)})
		ledger = ""
	}
	return list
}

// A thousand promotions and as many entries of the ledger in one push; how many
// times 0.1 s is the question, for that is how often others push.
func BenchmarkPush1000(b *testing.B) {
	u, p := crowd(b)
	m := open(b, gitstate.Options{URL: u.dir})
	for b.Loop() {
		b.StopTimer()
		list := promotions(m, p, 1000)
		b.StartTimer()
		if _, err := m.Push(b.Context(), list); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	u.fsck()
}

// One promotion of the same environment.
func BenchmarkPush1(b *testing.B) {
	u, p := crowd(b)
	m := open(b, gitstate.Options{URL: u.dir})
	for b.Loop() {
		b.StopTimer()
		list := promotions(m, p, 1)
		b.StartTimer()
		if _, err := m.Push(b.Context(), list); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	u.fsck()
}

// An entry for a ledger that has many: it must not matter how many.
func BenchmarkLedger(b *testing.B) {
	for _, n := range []int{100, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			u, _ := crowd(b)
			var in bytes.Buffer
			for k := range n {
				text := entry(k%1000, k)
				fmt.Fprintf(&in, "commit refs/heads/ledger/production\ncommitter A Person <a@example.com> %d +0000\ndata 6\npinned\n", 1700000000+seconds())
				if k == 0 {
					in.WriteString("from refs/heads/ledger/production^0\n")
				}
				fmt.Fprintf(&in, "M 100644 inline %s\ndata %d\n%s\n", entryFile(k%1000), len(text), text)
			}
			in.WriteString("done\n")
			gitInput(b, u.dir, &in, "fast-import", "--quiet", "--done", "--force", "--date-format=raw")
			m := open(b, gitstate.Options{URL: u.dir})
			tip, _ := m.Branch("ledger/production")
			k := n
			for b.Loop() {
				k++
				c := change(tip, "verified", map[string]string{entryFile(k % 1000): string(entry(k%1000, k))})
				c.Branch = "ledger/production"
				id, err := m.Commit(b.Context(), c)
				if err != nil {
					b.Fatal(err)
				}
				tip = id
			}
		})
	}
}

// The same beside somebody who pushes to main every 100 ms, another file: how
// long it takes until all of it is there, and how many pushes. A push that was
// too late is followed by one of half as many commits, one that landed by one of
// twice as many.
func BenchmarkPush1000Beside(b *testing.B) {
	u, p := crowd(b)
	s := serveHTTP(b, u, false, "", "")
	other := open(b, gitstate.Options{URL: u.dir})
	ctx, stop := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ctx.Err() == nil; n++ {
			<-tick.C
			tip, err := other.Fetch(ctx)
			if err == nil {
				_, err = other.Commit(ctx, change(tip.Commit, "other", map[string]string{"services/svc-0000/service.yaml": fmt.Sprint(n)}))
			}
			if err != nil && ctx.Err() == nil && !errors.Is(err, gitstate.ErrMoved) {
				b.Error(err)
				return
			}
		}
	})
	b.Cleanup(func() { stop(); wg.Wait(); u.fsck() })
	for _, kind := range []string{"file", "http"} {
		b.Run(kind, func(b *testing.B) {
			o := gitstate.Options{URL: u.dir}
			if kind == "http" {
				o.URL = s.url
			}
			m := open(b, o)
			before, lost := m.Pushes(), 0
			for b.Loop() {
				lost += promoteAll(b, m, p)
			}
			b.ReportMetric(float64(m.Pushes()-before)/float64(b.N), "pushes/op")
			b.ReportMetric(float64(lost)/float64(b.N), "lost/op")
		})
	}
}

// promoteAll makes 1,000 promotions, and tells how many pushes were too late.
func promoteAll(b *testing.B, m *gitstate.Mirror, p *pins) (lost int) {
	for left, batch := len(p.lines), len(p.lines); left > 0; {
		fetch(b, m)
		saved := *p
		batch = min(batch, left)
		_, err := m.Push(b.Context(), promotions(m, p, batch))
		switch {
		case err == nil:
			left -= batch
			batch *= 2
		case errors.Is(err, gitstate.ErrMoved):
			*p = saved
			batch = max(batch/2, 1)
			lost++
		default:
			b.Fatal(err)
		}
	}
	return lost
}

// The second try of a push of 1,000 promotions that was too late: from the
// fetch to the moved branch. What the first one brought is there.
func BenchmarkPush1000Again(b *testing.B) {
	for _, ledger := range []bool{true, false} {
		b.Run(fmt.Sprint("ledger=", ledger), func(b *testing.B) {
			u, p := crowd(b)
			m := open(b, gitstate.Options{URL: u.dir})
			for b.Loop() {
				b.StopTimer()
				hook(b, u, "pre-receive", faster("main"))
				list := promotions(m, p, 1000)
				if !ledger {
					list = list[:1000]
				}
				if _, err := m.Push(b.Context(), list); !errors.Is(err, gitstate.ErrMoved) {
					b.Fatal(err)
				}
				hook(b, u, "pre-receive", "true")
				b.StartTimer()
				list[0].Expected = fetch(b, m).Commit
				if _, err := m.Push(b.Context(), list); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			u.fsck()
		})
	}
}
