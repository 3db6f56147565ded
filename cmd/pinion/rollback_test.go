package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/pinion-cd/pinion/ledger"
)

// counter is a deployment repository with a remote, and what was deployed there.
type counter struct {
	*testing.T
	remote, clone string
	record        ledger.Record // of web in production
	now           time.Time
}

func newCounter(t *testing.T, archive string) *counter {
	dir := t.TempDir()
	c := &counter{T: t, remote: filepath.Join(dir, "remote.git"), clone: filepath.Join(dir, "clone"), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	c.git(nil, "init", "-q", "--bare", "--initial-branch=main", c.remote)
	c.git(nil, "clone", "-q", c.remote, c.clone)
	c.push(archive)
	return c
}

func (c *counter) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull, asMain+"=1",
		"GIT_AUTHOR_NAME=Dana", "GIT_AUTHOR_EMAIL=dana@shop.example", "GIT_COMMITTER_NAME=Dana", "GIT_COMMITTER_EMAIL=dana@shop.example")
	if _, err := os.Stat(c.clone); err == nil {
		cmd.Dir = c.clone
	}
	return cmd
}

func (c *counter) git(in *bytes.Buffer, args ...string) string {
	c.Helper()
	cmd := c.command("git", args...)
	if in != nil {
		cmd.Stdin = in
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// push commits and pushes files, and returns the commit.
func (c *counter) push(archive string) string {
	c.Helper()
	for _, f := range txtar.Parse([]byte(archive)).Files {
		path := filepath.Join(c.clone, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			c.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			c.Fatal(err)
		}
	}
	c.git(nil, "add", "-A")
	c.git(nil, "commit", "-q", "--allow-empty", "-m", "A change")
	c.git(nil, "push", "-q", "origin", "HEAD:main")
	return c.git(nil, "rev-parse", "HEAD")
}

// deployed records that a version came to a state in production.
func (c *counter) deployed(commit, version, source string, events ...ledger.Event) {
	c.Helper()
	for _, event := range append([]ledger.Event{ledger.EventPinned}, events...) {
		c.now = c.now.Add(time.Minute)
		e := ledger.Entry{
			Event: event, Environment: "production", Service: "web", Time: c.now, Deployment: ledger.DeploymentID("web", commit), Commit: commit,
			Release: ledger.Release{Pins: []ledger.Pin{{Artifact: "web", Image: "registry.example/web:" + version}}, Source: source},
		}
		switch event {
		case ledger.EventPinned:
			e.Cause = ledger.CausePin
		case ledger.EventStarted:
			e.Manifests = "sha256:" + strings.Repeat("0", 64)
		}
		next, err := c.record.Apply(e)
		if err != nil {
			c.Fatal(err)
		}
		in := new(bytes.Buffer)
		importEntry(in, e, next, c.record.Service != "")
		c.record = next
		c.git(in, "--git-dir="+c.remote, "fast-import", "--quiet")
	}
}

// rollback runs pinion rollback production web.
func (c *counter) rollback(args ...string) (stdout, stderr string, code int) {
	c.Helper()
	cmd := c.command(os.Args[0], append([]string{"rollback", "production", "web"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Run()
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

const counterFiles = `
-- environments/production.yaml --
apiVersion: pinion.dev/v1
kind: Environment
namespace: shop-production
pins:
  web:
    image: registry.example/web:1.0.2
-- services/web/service.yaml --
apiVersion: pinion.dev/v1
kind: Service
-- pipelines/default.yaml --
apiVersion: pinion.dev/v1
kind: Pipeline
services: ["*"]
stages:
- environment: production
`

// What is gone back to are the pins and the manifests that were verified
// together, where manifests move.
func TestRollbackTakesTheManifestsAlong(t *testing.T) {
	c := newCounter(t, counterFiles)
	one := c.git(nil, "rev-parse", "HEAD")
	c.deployed(one, "1.0.1", one, ledger.EventStarted, ledger.EventCompleted, ledger.EventVerified)
	two := c.push("-- README.md --\nHello.\n")
	c.deployed(two, "1.0.2", two, ledger.EventStarted, ledger.EventCompleted, ledger.EventFailed)
	stdout, stderr, code := c.rollback("--dry-run")
	if code != 0 || !strings.Contains(stdout, "+    image: registry.example/web:1.0.1\n") || !strings.Contains(stdout, "+manifests:\n+  web: "+one+"\n") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}

	// A stage that reads them from the newest commit goes on with that.
	c.push(strings.Replace(counterFiles, "- environment: production", "- environment: production\n  manifests: head", 1))
	stdout, stderr, code = c.rollback("--dry-run")
	if code != 0 || !strings.Contains(stdout, "web:1.0.1\n") || strings.Contains(stdout, "manifests") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}

	// Manifests that are not in main's history can't be read from there.
	c.git(nil, "checkout", "-q", "--orphan", "other")
	c.git(nil, "commit", "-q", "-m", "Anew")
	c.git(nil, "push", "-q", "-f", "origin", "HEAD:main")
	c.push(counterFiles)
	stdout, stderr, code = c.rollback("--dry-run")
	if code != 0 || !strings.Contains(stdout, "web:1.0.1\n") || strings.Contains(stdout, "manifests") || !strings.Contains(stderr, "is not in the history of main, so they stay as they are") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
}

// A record keeps the last deployments only; the ledger keeps all.
func TestRollbackFindsWhatTheRecordHasForgotten(t *testing.T) {
	c := newCounter(t, counterFiles)
	head := c.git(nil, "rev-parse", "HEAD")
	commit := func(n int) string { return fmt.Sprintf("%012x%028x", n+1, 0) }
	for i := range ledger.MaxPrevious + 3 {
		c.deployed(commit(i), fmt.Sprintf("0.%d.0", i), "", ledger.EventStarted, ledger.EventCompleted, ledger.EventVerified)
	}
	c.deployed(commit(1000), "0.99.0", "", ledger.EventSuperseded)
	for i := range ledger.MaxPrevious {
		c.deployed(commit(2000+i), fmt.Sprintf("0.%d.0", 100+i), "", ledger.EventStarted, ledger.EventCompleted, ledger.EventVerified)
	}
	c.deployed(head, "1.0.2", "", ledger.EventStarted, ledger.EventCompleted, ledger.EventVerified)
	if slices.ContainsFunc(c.record.Previous, func(p ledger.Past) bool { return p.Release.Version() == "0.1.0" }) {
		t.Fatal("the record has it")
	}
	stdout, stderr, code := c.rollback("--to", "0.1.0", "--dry-run")
	if code != 0 || !strings.Contains(stdout, "+    image: registry.example/web:0.1.0\n") || strings.Contains(stderr, "warning") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	// This one was there, and never ran.
	if stdout, stderr, code = c.rollback("--to", "0.99.0", "--dry-run"); code != exitRefused || !strings.Contains(stderr, "web 0.99.0 never ran in production") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	// By the deployment's id.
	id := ledger.DeploymentID("web", commit(0))
	if stdout, stderr, code = c.rollback("--to", id, "--dry-run"); code != 0 || !strings.Contains(stdout, "web:0.0.0\n") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
}
