package gitstate_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pinion-cd/pinion/gitstate"
)

// git runs the real git in a folder.
func git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	return gitInput(t, dir, nil, args...)
}

func gitInput(t testing.TB, dir string, in io.Reader, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Stdin = in
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=A Person", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=A Person", "GIT_COMMITTER_EMAIL=a@example.com")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("git %s: %v\n%s%s", strings.Join(args, " "), err, &out, &errs)
	}
	return strings.TrimSpace(out.String())
}

// upstream is a bare repository that stands for the remote.
type upstream struct {
	t   testing.TB
	dir string
}

func newUpstream(t testing.TB, files map[string]string) *upstream {
	t.Helper()
	u := &upstream{t, filepath.Join(t.TempDir(), "remote.git")}
	git(t, "", "init", "--quiet", "--bare", "--initial-branch=main", u.dir)
	if files != nil {
		u.commit("main", "Start", files)
	}
	return u
}

// commit writes a commit onto a branch, as a push by somebody else would. A
// file with the content "<gone>" is removed.
func (u *upstream) commit(branch, message string, files map[string]string) string {
	u.t.Helper()
	var b bytes.Buffer
	fmt.Fprintf(&b, "commit refs/heads/%s\ncommitter A Person <a@example.com> %d +0000\ndata %d\n%s\n", branch, 1700000000+seconds(), len(message), message)
	if u.has(branch) {
		fmt.Fprintf(&b, "from refs/heads/%s^0\n", branch)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		text := files[name]
		mode := "100644"
		switch {
		case text == "<gone>":
			fmt.Fprintf(&b, "D %s\n", name)
			continue
		case strings.HasPrefix(text, "<link>"):
			mode, text = "120000", strings.TrimPrefix(text, "<link>")
		case strings.HasPrefix(text, "<exec>"):
			mode, text = "100755", strings.TrimPrefix(text, "<exec>")
		case strings.HasPrefix(text, "<submodule>"):
			fmt.Fprintf(&b, "M 160000 %s %s\n", strings.TrimPrefix(text, "<submodule>"), name)
			continue
		}
		fmt.Fprintf(&b, "M %s inline %s\ndata %d\n%s\n", mode, name, len(text), text)
	}
	b.WriteString("done\n")
	gitInput(u.t, u.dir, &b, "fast-import", "--quiet", "--done", "--force", "--date-format=raw")
	return u.tip(branch)
}

var clock int64

// seconds is a time that moves on with each commit.
func seconds() int64 { clock++; return clock }

func (u *upstream) has(branch string) bool {
	cmd := exec.Command("git", "rev-parse", "--verify", "--quiet", "refs/heads/"+branch)
	cmd.Dir = u.dir
	return cmd.Run() == nil
}

func (u *upstream) tip(branch string) string {
	u.t.Helper()
	return git(u.t, u.dir, "rev-parse", "refs/heads/"+branch)
}

func (u *upstream) fsck() {
	u.t.Helper()
	fsck(u.t, u.dir)
}

func fsck(t testing.TB, dir string) {
	t.Helper()
	if out := git(t, dir, "fsck", "--strict", "--full", "--no-dangling"); out != "" {
		t.Errorf("git fsck %s: %s", dir, out)
	}
}

// present is the bare repository that a mirror's folder names.
func present(t testing.TB, mirror string) string {
	t.Helper()
	name, err := os.ReadFile(filepath.Join(mirror, "current"))
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(mirror, strings.TrimSpace(string(name)))
}

func open(t testing.TB, o gitstate.Options) *gitstate.Mirror {
	t.Helper()
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "mirror")
	}
	m, err := gitstate.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func fetch(t testing.TB, m *gitstate.Mirror) gitstate.Tip {
	t.Helper()
	tip, err := m.Fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return tip
}

func snapshot(t testing.TB, m *gitstate.Mirror, commit string) *gitstate.Snapshot {
	t.Helper()
	s, err := m.Snapshot(t.Context(), commit)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func read(t testing.TB, s *gitstate.Snapshot, name string) string {
	t.Helper()
	data, err := s.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// soon is a context for waiting on something that comes at once.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
