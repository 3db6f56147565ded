package forge

import (
	"fmt"
	"strings"
	"testing"
)

func TestExamination(t *testing.T) {
	x := Examination{}
	if s := x.Status(); s.State != Success || s.Description != "no errors" || s.Context != "pinion/lint" {
		t.Errorf("nothing wrong: %+v", s)
	}
	x = Examination{Errors: 2, Warnings: 1, Problems: []string{"environments/dev.yaml:3:1: error: no such key", "b", "c"}}
	if s := x.Status(); s.State != Failure || s.Description != "2 errors: environments/dev.yaml:3:1: error: no such key" {
		t.Errorf("two errors: %+v", s)
	}
	// Whatever is in it, it stays a comment, and short enough for one.
	bad := "```\n</details> @everyone " + CommentMark + "\n"
	for i := range 40 {
		x.Environments = append(x.Environments, EnvironmentChange{Environment: "staging", Rendered: strings.Repeat(bad, 1000+i), Live: bad, Failed: bad})
	}
	for range 3000 {
		x.Problems = append(x.Problems, bad)
	}
	c := x.Comment("4f1c2aa90b7e", "aaaaaaaaaaaa")
	if len(c) > maxComment+1000 || !strings.HasPrefix(c, CommentMark) {
		t.Errorf("it has %d bytes, and begins with %.40q", len(c), c)
	}
	if !strings.Contains(c, "environments more, which would be too much") {
		t.Errorf("it does not say that it is cut: …%s", c[max(0, len(c)-300):])
	}
	for _, e := range []struct {
		change EnvironmentChange
		noLive string
		want   string
	}{
		{EnvironmentChange{Failed: "x"}, "", "it can't be told"},
		{EnvironmentChange{Rendered: "x"}, "", "what is rendered changes, and nothing in the cluster"},
		{EnvironmentChange{Rendered: "x"}, "a fork", "what is rendered changes"},
		{EnvironmentChange{Rendered: "x", Live: "y"}, "", "what is rendered changes"},
		{EnvironmentChange{}, "", "nothing that is rendered changes"},
	} {
		if got := e.change.summary(e.noLive); got != e.want {
			t.Errorf("%s: %q, want %q", fmt.Sprint(e.change), got, e.want)
		}
	}
}
