package main

import (
	"io"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	got, err := parseUp([]string{"--data-dir", dir}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	want := options{dataDir: dir, kubeconfig: filepath.Join(dir, "kubeconfig"), log: filepath.Join(dir, "devcluster.log"), nodes: 1}
	if got != want {
		t.Errorf("the defaults are %+v, want %+v", got, want)
	}
	got, err = parseUp([]string{"--data-dir=a", "--kubeconfig=b", "--log=c", "--nodes=3", "--port=6443"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{got.dataDir, got.kubeconfig, got.log} {
		if !filepath.IsAbs(path) {
			t.Errorf("%s is relative, but the process will leave this folder", path)
		}
	}
	if got.nodes != 3 || got.port != 6443 {
		t.Errorf("nodes and port are %d and %d, want 3 and 6443", got.nodes, got.port)
	}
}

func TestWrongCommands(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ args, want string }{
		{"", "no command"},
		{"down", `unknown command "down"`},
		{"up", "--data-dir is required"},
		{"up --data-dir=x y", `unexpected argument "y"`},
		{"up --data-dir=x --nodes=0", "at least 1"},
		{"up --data-dir=x --port=70000", "not a port"},
		{"up --data-dirs=x", "unknown flag: --data-dirs"},
	} {
		var stdout strings.Builder
		err := runCommand(strings.Fields(test.args), &stdout, io.Discard)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("devcluster %s: error is %v, want one with %q", test.args, err, test.want)
		}
		if stdout.Len() > 0 {
			t.Errorf("devcluster %s: stdout is %q, want nothing", test.args, stdout.String())
		}
	}
}
