package envoy

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/forge"
)

// What a forge may require of every head, every head has; but the commit of a
// proposal is called nothing else because another branch leads to it.
func TestEveryHeadHasItsStatuses(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	s.git("checkout", "-q", "-b", "readme")
	s.write("README.md", "hello\n")
	s.git("add", "-A")
	s.git("commit", "-q", "-m", "readme")
	readme := s.git("rev-parse", "HEAD")
	head := s.proposes()
	s.git("fetch", "-q", "origin", proposed)
	s.git("push", "-q", "origin", "readme", "FETCH_HEAD:refs/heads/copy")
	r := NewReviewer(ReviewerOptions{
		Forge: s.client, Mirror: s.proposer.options.Mirror, Branch: "main", Poll: time.Second, Log: slog.New(slog.DiscardHandler),
		Examine: func(_ context.Context, x forge.Subject) (forge.Examination, error) {
			return forge.Examination{Untouched: x.Head == readme}, nil
		},
	})
	for _, branch := range []string{"readme", "copy"} {
		if _, err := s.client.OpenPull(t.Context(), forge.Pull{Title: branch, Branch: branch, Base: "main"}); err != nil {
			t.Fatal(err)
		}
		if err := r.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct{ commit, context, want string }{
			{readme, forge.LintContext, "it changes nothing that Pinion reads"},
			{readme, forge.GateContext, "it promotes nothing"},
			{head, forge.LintContext, "no errors"},
			{head, forge.GateContext, ""}, // the proposer has not said anything yet
		} {
			there, err := s.client.Statuses(t.Context(), tt.commit)
			if err != nil {
				t.Fatal(err)
			}
			if got := there[tt.context]; got.Description != tt.want || tt.want != "" && got.State != forge.Success {
				t.Errorf("with %s, %.8s has %+v, want %q", branch, tt.commit, got, tt.want)
			}
		}
	}
	for number, want := range map[int]int{1: 0, 2: 0, 3: 1} { // the proposal, the readme, the copy
		if all, err := s.client.Comments(t.Context(), number); err != nil || len(all) != want {
			t.Errorf("#%d has %d comments, want %d (%v)", number, len(all), want, err)
		}
	}
}
