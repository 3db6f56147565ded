package reconcile_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pinion-cd/pinion/artifact"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
)

// What a version is bound to is not forgotten, whoever pushes what to the branch:
// while a clerk runs, and by the next one, whose mirror is new.
func TestBindingsAreNotForgotten(t *testing.T) {
	t.Parallel()
	h := newHouse(t, trackShop)
	h.runs("dev", "1.2.9", ledger.StateVerified)
	bare := func(args ...string) string { return h.git(append([]string{"--git-dir=" + h.remote}, args...)...) }
	takes := func(version, first string) {
		t.Helper()
		_, err := h.publish("ci", version, digest(first), artifact.Facts{})
		h.must(err)
		h.runs("dev", version, ledger.StateVerified)
	}
	takes("1.2.10", "a")
	takes("1.2.11", "b")
	good := bare("rev-parse", artifact.Branch)
	ref := "refs/heads/" + artifact.Branch

	// again starts a clerk that has a mirror of its own.
	again := func(o reconcile.ClerkOptions) {
		h.stop()
		h.mu.Lock()
		h.events = nil
		h.mu.Unlock()
		h.start(o)
	}
	closed := func(words ...string) {
		t.Helper()
		h.says(reconcile.EventProblem, words...)
		h.refuses(reconcile.NotReady, "ci", "1.2.11", digest("e"))
		h.refuses(reconcile.NotReady, "ci", "1.2.12", digest("c"))
	}

	// On top of what is there somebody binds a version to something else, and
	// removes another one.
	file := artifact.File("registry.example/web", "1.2.11")
	h.must(os.WriteFile(filepath.Join(h.clone, ".git", "lie"), []byte(strings.Replace(bare("show", good+":"+file)+"\n", digest("b"), digest("e"), 1)), 0o644))
	blob := h.git("hash-object", "-w", ".git/lie")
	h.git("fetch", "-q", "origin", artifact.Branch)
	h.git("read-tree", good)
	h.git("update-index", "--cacheinfo", "100644,"+blob+","+file)
	h.git("rm", "-q", "--cached", artifact.File("registry.example/web", "1.2.10"))
	forged := h.git("commit-tree", "-p", good, "-m", "tidy", h.git("write-tree"))
	h.git("push", "-q", "origin", forged+":"+ref)
	lies := []string{fmt.Sprintf("pinion/artifacts at %.12s is not true", forged), "web:1.2.10 is bound to " + digest("a") + ", and that is removed",
		"web:1.2.11 is bound to " + digest("b") + ", and not to " + digest("e"), "before a commit there restores it"}
	h.mirror.Poke()
	closed(lies...)
	again(reconcile.ClerkOptions{})
	closed(lies...)
	mended := h.git("commit-tree", "-p", forged, "-m", "restore", good+"^{tree}")
	h.git("push", "-q", "origin", mended+":"+ref)
	h.mirror.Poke()
	h.until("it can be published again", func() string {
		if _, err := h.publish("ci", "1.2.12", digest("c"), artifact.Facts{}); err != nil {
			return err.Error()
		}
		return ""
	})
	h.runs("dev", "1.2.12", ledger.StateVerified)
	good = bare("rev-parse", artifact.Branch)
	rests := good[:12]

	// The branch is gone, or made anew: who has seen it stays with it, and who has
	// not finds out by what rests on it.
	for _, lose := range []func(){
		func() { bare("update-ref", "-d", ref) },
		func() { bare("update-ref", ref, bare("commit-tree", "-m", "anew", good+"^{tree}")) },
	} {
		h.git("fetch", "-q", "origin", artifact.Branch)
		lose()
		again(reconcile.ClerkOptions{})
		closed("web in dev rests on "+rests+" of it, which is not there", "restore it with `git push origin "+rests+":refs/heads/pinion/artifacts`")
		h.git("push", "-q", "-f", "origin", good+":"+ref)
		again(reconcile.ClerkOptions{})
		h.refuses(reconcile.MovedTag, "ci", "1.2.12", digest("e"))
		good = bare("rev-parse", artifact.Branch)
	}
	// Somebody may let it begin anew.
	bare("update-ref", "-d", ref)
	again(reconcile.ClerkOptions{AllowRewrite: true})
	_, err := h.publish("ci", "1.2.13", digest("d"), artifact.Facts{})
	h.must(err)
	h.runs("dev", "1.2.13", ledger.StateVerified)
	again(reconcile.ClerkOptions{})
	takes("1.2.14", "d")

	// A file that can't be read is in nobody's way, nor is it after a start, where
	// what is deployed rests on a commit that has it.
	good = bare("rev-parse", artifact.Branch)
	h.must(os.WriteFile(filepath.Join(h.clone, ".git", "lie"), []byte("what?\n"), 0o644))
	blob = h.git("hash-object", "-w", ".git/lie")
	h.git("fetch", "-q", "origin", artifact.Branch)
	h.git("read-tree", good)
	h.git("update-index", "--cacheinfo", "100644,"+blob+","+artifact.File("registry.example/web", "1.2.13"))
	broken := h.git("commit-tree", "-p", good, "-m", "break", h.git("write-tree"))
	h.git("push", "-q", "origin", broken+":"+ref)
	h.mirror.Poke()
	h.says(reconcile.EventProblem, "the rest of what is known goes on")
	takes("1.2.15", "f")
	again(reconcile.ClerkOptions{})
	takes("1.2.16", "9")
}
