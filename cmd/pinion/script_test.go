package main

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pinion-cd/pinion/internal/devtest"
	"github.com/pinion-cd/pinion/render/worker"
)

func TestMain(m *testing.M) {
	worker.Hook()
	if os.Getenv(asMain) != "" {
		os.Exit(run(os.Args[1:], testTime()))
	}
	testscript.Main(clusterTests{m}, map[string]func(){
		"pinion": func() { os.Exit(run(os.Args[1:], testTime())) },
	})
}

// nowIs, in the environment of the test binary, is the time at which pinion
// takes itself to be started.
const nowIs = "PINION_TEST_NOW"

func testTime() time.Time {
	if t, err := time.Parse(time.RFC3339, os.Getenv(nowIs)); err == nil {
		return t
	}
	return time.Now()
}

// clusterTests ends the control plane that tests have started.
type clusterTests struct{ m *testing.M }

func (c clusterTests) Run() int { return devtest.Main(c.m) }

var update = flag.Bool("update", false, "rewrite what the scripts compare with")

// TestScript runs the commands that need no cluster.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		UpdateScripts:       *update,
		Setup:               gitIdentity,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"code": exitCode, "ledgers": writeLedgers, "receiver": receiveNews},
	})
}

// exitCode runs a command, and expects the exit code that stands before it.
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
		if status := exit.Sys().(syscall.WaitStatus); status.Signaled() {
			got = 128 + int(status.Signal())
		}
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

// gitIdentity gives a script an identity and a clock for its commits, so that
// their ids are the same on every run.
func gitIdentity(env *testscript.Env) error {
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("XDG_CACHE_HOME", filepath.Join(env.WorkDir, ".cache"))
	env.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	env.Setenv("GIT_CONFIG_SYSTEM", os.DevNull)
	for _, who := range []string{"AUTHOR", "COMMITTER"} {
		env.Setenv("GIT_"+who+"_NAME", "Dana")
		env.Setenv("GIT_"+who+"_EMAIL", "dana@shop.example")
		env.Setenv("GIT_"+who+"_DATE", "2026-11-02T12:00:00Z")
	}
	return nil
}
