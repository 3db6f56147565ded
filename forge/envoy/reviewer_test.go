package envoy

import (
	"context"
	"log/slog"
	"strings"
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

// What is said of a head does not stay when the next one changes nothing.
func TestACommentFollowsTheHead(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	untouched := map[string]bool{}
	r := NewReviewer(ReviewerOptions{
		Forge: s.client, Mirror: s.proposer.options.Mirror, Branch: "main", Poll: time.Second, Log: slog.New(slog.DiscardHandler),
		Examine: func(_ context.Context, x forge.Subject) (forge.Examination, error) {
			return forge.Examination{Untouched: untouched[x.Head]}, nil
		},
	})
	push := func(text string, nothing bool) (head string) {
		t.Helper()
		s.git("checkout", "-q", "-B", "change", "main")
		s.write("README.md", text)
		s.git("add", "-A")
		s.git("commit", "-q", "-m", text)
		s.git("push", "-q", "-f", "origin", "change")
		head = s.git("rev-parse", "HEAD")
		untouched[head] = nothing
		return head
	}
	said := func() string {
		t.Helper()
		if err := r.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		all, err := s.client.Comments(t.Context(), 1)
		if err != nil || len(all) > 1 {
			t.Fatalf("%d comments, %v", len(all), err)
		}
		if len(all) == 0 {
			return ""
		}
		return all[0].Body
	}
	if _, err := s.proposer.options.Mirror.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	push("nothing", true)
	if _, err := s.client.OpenPull(t.Context(), forge.Pull{Title: "change", Branch: "change", Base: "main"}); err != nil {
		t.Fatal(err)
	}
	if got := said(); got != "" {
		t.Errorf("what changes nothing is commented: %s", got)
	}
	for _, x := range []struct {
		text    string
		nothing bool
		want    string
	}{
		{"something", false, "finds nothing wrong"},
		{"nothing again", true, "It changes nothing that Pinion reads."},
		{"something again", false, "finds nothing wrong"},
	} {
		head := push(x.text, x.nothing)
		if got := said(); !strings.Contains(got, head[:12]) || !strings.Contains(got, x.want) {
			t.Errorf("%s: %.12s has\n%s\nwant %q", x.text, head, got, x.want)
		}
	}
}
