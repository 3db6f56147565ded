package gitstate_test

import (
	"errors"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/gitstate"
)

// A branch of ours beside the mirrored ones is made, rewritten and removed, each
// time only from where it was seen.
func TestBranchBeside(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"file", "http"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t, map[string]string{"a": "1", "b": "1"})
			url := u.dir
			if way == "http" {
				url = serveHTTP(t, u, false, "", "").url
			}
			m := open(t, gitstate.Options{URL: url})
			fetch(t, m)
			first := u.tip("main")
			who := gitstate.Signature{Name: "Pinion", Email: "pinion@localhost", Time: time.Unix(1_700_000_000, 0)}
			change := gitstate.Change{Branch: "pinion/promote/production/web", Parent: first, Files: map[string][]byte{"a": []byte("2")},
				Message: "two", Author: who, Committer: who}
			one, err := m.Commit(t.Context(), change)
			must(t, err)
			if got := git(t, u.dir, "rev-parse", one+"^"); got != first || u.tip(change.Branch) != one {
				t.Fatalf("%s has the parent %s; the branch is at %s", one, got, u.tip(change.Branch))
			}
			// Main moves on, and the branch is taken there.
			second := u.commit("main", "another", map[string]string{"b": "2"})
			fetch(t, m)
			change.Parent = second
			if _, err := m.Commit(t.Context(), change); !errors.Is(err, gitstate.ErrMoved) {
				t.Errorf("made although it is there: %v", err)
			}
			change.Expected = first
			if _, err := m.Commit(t.Context(), change); !errors.Is(err, gitstate.ErrMoved) {
				t.Errorf("rewritten from where it is not: %v", err)
			}
			change.Expected = one
			two, err := m.Commit(t.Context(), change)
			must(t, err)
			if got := git(t, u.dir, "rev-parse", two+"^"); got != second || u.tip(change.Branch) != two {
				t.Fatalf("%s has the parent %s; the branch is at %s", two, got, u.tip(change.Branch))
			}
			// What others have pushed there can be looked at.
			ref := "refs/heads/" + change.Branch
			third := u.commit(change.Branch, "theirs", map[string]string{"c": "1"})
			got, err := m.Bring(t.Context(), ref, "refs/pull/1/head")
			must(t, err)
			if len(got) != 1 || got[ref] != third {
				t.Fatalf("brought %v, want %s", got, third)
			}
			info, err := m.Info(t.Context(), third)
			must(t, err)
			if info.Message != "theirs" || info.Committer.Name != "A Person" {
				t.Errorf("it is %+v", info)
			}
			if _, ok := m.Branch(change.Branch); ok {
				t.Error("the branch is mirrored")
			}
			if err := m.Remove(t.Context(), change.Branch, two); !errors.Is(err, gitstate.ErrMoved) {
				t.Errorf("removed from where it is not: %v", err)
			}
			must(t, m.Remove(t.Context(), change.Branch, third))
			must(t, m.Remove(t.Context(), change.Branch, third))
			if u.has(change.Branch) {
				t.Error("the branch is there still")
			}
			// The mirrored ones are safe from all that.
			for _, branch := range []string{"main", "ledger/production"} {
				if _, err := m.Commit(t.Context(), gitstate.Change{Branch: branch, Expected: second, Parent: first, Message: "x", Author: who, Committer: who,
					Files: map[string][]byte{"a": []byte("3")}}); err == nil {
					t.Errorf("%s is rewritten", branch)
				}
				if err := m.Remove(t.Context(), branch, second); err == nil {
					t.Errorf("%s is removed", branch)
				}
			}
			refs, err := m.References(t.Context())
			must(t, err)
			if refs["refs/heads/main"] != second {
				t.Errorf("the references are %v", refs)
			}
			u.fsck()
		})
	}
}
