package history

import (
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
)

// Which environments there are follows the branches, also for who does not wait for
// those who look.
func TestPresentKnowsEnvironments(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	git := func(in string, args ...string) string {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Stdin = dir, strings.NewReader(in)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("", "init", "-q", "--bare")
	clone, err := gitstate.OpenClone(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer clone.Close()
	branches := map[string]string{}
	commit := func(branch string, change string) {
		t.Helper()
		ref := "refs/heads/" + branch
		from := ""
		if branches[branch] != "" {
			from = "from " + ref + "^0\n"
		}
		git(fmt.Sprintf("commit %s\ncommitter Dana <dana@shop.example> 1790000000 +0000\ndata 0\n%s%s\n", ref, from, change), "fast-import", "--quiet")
		branches = maps.Clone(branches)
		branches[branch] = git("", "rev-parse", ref)
	}
	file := func(env string) string {
		text := fmt.Sprintf("apiVersion: pinion.dev/v1\nkind: Environment\ncluster: default\nnamespace: %s\n", env)
		return fmt.Sprintf("M 100644 inline environments/%s.yaml\ndata %d\n%s", env, len(text), text)
	}
	p := NewPresent(clone, "main", func() map[string]string { return branches })
	for _, step := range []struct {
		branch, change string
		knows, not     []desired.EnvironmentName
	}{
		{"main", file("dev"), []desired.EnvironmentName{"dev"}, []desired.EnvironmentName{"staging"}},
		{"main", file("staging"), []desired.EnvironmentName{"dev", "staging"}, []desired.EnvironmentName{"old"}},
		{"ledger/old", "", []desired.EnvironmentName{"dev", "staging", "old"}, nil},
		{"main", "D environments/dev.yaml", []desired.EnvironmentName{"staging", "old"}, []desired.EnvironmentName{"dev"}},
	} {
		commit(step.branch, step.change)
		for range 2 {
			for _, env := range step.knows {
				if err := p.KnowsEnvironment(t.Context(), time.Time{}, env); err != nil {
					t.Errorf("after %q on %s: %v", step.change, step.branch, err)
				}
			}
			for _, env := range step.not {
				if err := p.KnowsEnvironment(t.Context(), time.Time{}, env); !errors.Is(err, ErrNotFound) {
					t.Errorf("after %q on %s: %s: %v", step.change, step.branch, env, err)
				}
			}
		}
	}
	// As long as no branch moves, nobody waits for who looks.
	if err := p.Look(t.Context(), time.Time{}, func(*View) error { return p.KnowsEnvironment(t.Context(), time.Time{}, "staging") }); err != nil {
		t.Error(err)
	}
}
