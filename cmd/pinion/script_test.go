package main

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pinion-cd/pinion/internal/devtest"
	"github.com/pinion-cd/pinion/render/worker"
)

func TestMain(m *testing.M) {
	worker.Hook()
	if os.Getenv(asMain) != "" {
		os.Exit(run(os.Args[1:]))
	}
	testscript.Main(clusterTests{m}, map[string]func(){
		"pinion": func() { os.Exit(run(os.Args[1:])) },
	})
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
	})
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
