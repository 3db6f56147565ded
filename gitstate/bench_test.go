package gitstate_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"path/filepath"
	"testing"

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
