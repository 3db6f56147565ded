package gitstate_test

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pinion-cd/pinion/gitstate"
)

func TestMirrorFollows(t *testing.T) {
	u := newUpstream(t, map[string]string{"environments/dev.yaml": "one\n", "services/web/main.jsonnet": "{}\n"})
	dir := filepath.Join(t.TempDir(), "mirror")
	m := open(t, gitstate.Options{URL: u.dir, Dir: dir})
	first, ok := m.Tip()
	if !ok || first != u.tip("main") {
		t.Fatalf("tip after clone = %q, %v; want %s", first, ok, u.tip("main"))
	}
	before := snapshot(t, m, first)
	second := u.commit("main", "Change", map[string]string{"environments/dev.yaml": "two\n", "holds/a/b.yaml": "x", "services/web/main.jsonnet": "<gone>"})
	u.commit("ledger/dev", "pinned", map[string]string{"web/deployment.yaml": "state"})
	tip := fetch(t, m)
	if want := (gitstate.Tip{Commit: second, Previous: first}); tip != want {
		t.Errorf("fetch = %+v, want %+v", tip, want)
	}
	if id, ok := m.Branch("ledger/dev"); !ok || id != u.tip("ledger/dev") {
		t.Errorf("ledger/dev = %q, %v", id, ok)
	}
	after := snapshot(t, m, second)
	if got := read(t, before, "environments/dev.yaml") + read(t, after, "environments/dev.yaml"); got != "one\ntwo\n" {
		t.Errorf("files are %q", got)
	}
	changed, err := after.Changed(before)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"environments/dev.yaml", "holds/a/b.yaml", "services/web/main.jsonnet"}, changed); d != "" {
		t.Error(d)
	}
	if _, err := after.ReadFile("services/web/main.jsonnet"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reading a file that is gone: %v", err)
	}
	if tip := fetch(t, m); tip.Commit != second || tip.Previous != second {
		t.Errorf("a fetch of nothing = %+v", tip)
	}
	if d := cmp.Diff(map[string]string{"main": second, "ledger/dev": u.tip("ledger/dev")}, m.Branches()); d != "" {
		t.Error(d)
	}
	for _, q := range []struct {
		a, b string
		want bool
	}{{first, second, true}, {second, first, false}, {first, first, true}, {u.tip("ledger/dev"), second, false}} {
		if got, err := m.IsAncestor(t.Context(), q.a, q.b); err != nil || got != q.want {
			t.Errorf("IsAncestor(%s, %s) = %v, %v", q.a, q.b, got, err)
		}
	}
	var subjects []string
	if err := m.History(t.Context(), second, func(c gitstate.CommitInfo) bool {
		subjects = append(subjects, c.Message)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"Change", "Start"}, subjects); d != "" {
		t.Error(d)
	}
	for rev, want := range map[string]string{"main": second, "HEAD": second, second[:7]: second, "main~1": first, "HEAD^": first, second + "~": first, "ledger/dev": u.tip("ledger/dev")} {
		if got, err := m.Resolve(t.Context(), rev); err != nil || got != want {
			t.Errorf("Resolve(%s) = %q, %v; want %s", rev, got, err, want)
		}
	}
	for _, rev := range []string{"nope", "main~9", "dead", "0123456789012345678901234567890123456789", "main:x", ""} {
		got, err := m.Resolve(t.Context(), rev)
		if rev == "" {
			continue // HEAD
		}
		if err == nil || rev != "main:x" && !errors.Is(err, gitstate.ErrNoCommit) {
			t.Errorf("Resolve(%q) = %q, %v", rev, got, err)
		}
	}
	fsck(t, present(t, dir))
}

// Where there are no events, Watch polls.
func TestWatchPolls(t *testing.T) {
	u := newUpstream(t, map[string]string{"a": "1"})
	m := open(t, gitstate.Options{URL: serveHTTP(t, u, false, "", "").url, Poll: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	looks := m.Watch(ctx)
	for range 3 {
		select {
		case <-looks:
		case <-soon(t).Done():
			t.Fatal("no signal")
		}
	}
	cancel()
	for range looks { // it ends
	}
}

func TestWatchSeesALocalPush(t *testing.T) {
	u := newUpstream(t, map[string]string{"a": "1"})
	m := open(t, gitstate.Options{URL: "file://" + u.dir, Poll: 1 << 50})
	looks := m.Watch(t.Context())
	wait := func(what string) {
		t.Helper()
		select {
		case _, ok := <-looks:
			if !ok {
				t.Fatal("the channel is closed")
			}
		case <-soon(t).Done():
			t.Fatalf("no signal for %s", what)
		}
	}
	wait("the first look")
	u.commit("main", "Push", map[string]string{"a": "2"})
	wait("a push")
	// A push makes several events, so the last of them may come later: look
	// until the ledger is there.
	u.commit("ledger/dev", "Push", map[string]string{"a": "2"})
	for {
		wait("a push of a branch in a new folder")
		fetch(t, m)
		if _, ok := m.Branch("ledger/dev"); ok {
			break
		}
	}
	for range 3 { // the first may be answered by an event that was left over
		id := u.commit("ledger/dev", "Push", map[string]string{"a": "3"})
		for at, _ := m.Branch("ledger/dev"); at != id; at, _ = m.Branch("ledger/dev") {
			wait("a push of a branch in that folder")
			fetch(t, m)
		}
	}
	git(t, u.dir, "pack-refs", "--all")
	wait("packed refs")
	m.Poke()
	wait("a poke")
	m.Close()
	for range looks { // it ends
	}
}
