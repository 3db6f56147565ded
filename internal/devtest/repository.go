package devtest

import (
	"os/exec"
	"testing"
)

// Fsck has git check everything that the references of a repository reach.
// Others may push to it meanwhile: what is checked is a clone, which is one
// state. git fsck on the repository itself lists its objects first and then
// follows their links, so beside a push it calls objects missing that came
// after it had listed their folder.
func Fsck(t testing.TB, repository string) {
	t.Helper()
	clone := t.TempDir()
	for _, args := range [][]string{
		{"clone", "-q", "--mirror", "--no-local", repository, clone},
		{"-C", clone, "fsck", "--strict", "--full", "--no-dangling"},
	} {
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Errorf("git %v: %v\n%s", args, err, out)
			return
		}
	}
}
