package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
)

// demo is what the steps share.
type demo struct {
	options
	dir     string // of all that is thrown away
	started time.Time
	step    int

	remote, clone string
	kube          *kubernetes.Clientset
	namespaces    []string // of the environments, "dev" first
	created       []string // namespaces that were not there before

	cluster, daemon *process
}

// say announces a step.
func (d *demo) say(format string, args ...any) {
	d.step++
	fmt.Printf("\n%d. %s\n", d.step, fmt.Sprintf(format, args...))
}

// tell says what was seen.
func (d *demo) tell(format string, args ...any) {
	fmt.Printf("   %s\n", strings.ReplaceAll(strings.TrimRight(fmt.Sprintf(format, args...), "\n"), "\n", "\n   "))
}

func (d *demo) since(t time.Time) time.Duration {
	return time.Since(t).Round(10 * time.Millisecond)
}

// stop ends what was started, and removes what was made.
func (d *demo) stop() error {
	var errs []error
	if d.daemon != nil {
		errs = append(errs, d.daemon.stop())
	}
	if d.cluster == nil && d.kube != nil {
		errs = append(errs, d.cleanCluster())
	}
	if d.cluster != nil {
		errs = append(errs, d.cluster.stop())
	}
	return errors.Join(append(errs, os.RemoveAll(d.dir))...)
}

// git runs git as a developer would, and shows it.
func (d *demo) git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(),
		"GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_SYSTEM="+os.DevNull, "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Dana Developer", "GIT_AUTHOR_EMAIL=dana@shop.example",
		"GIT_COMMITTER_NAME=Dana Developer", "GIT_COMMITTER_EMAIL=dana@shop.example")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// bump changes one pin in dev, as a developer would, and pushes it. It returns
// the commit and the moment of the push.
func (d *demo) bump(ctx context.Context, artifact, from, to string) (commit string, pushed time.Time, err error) {
	file := filepath.Join(d.clone, "environments", "dev.yaml")
	data, err := os.ReadFile(file)
	if err != nil {
		return "", pushed, err
	}
	text, err := replacePin(string(data), artifact, from, to)
	if err != nil {
		return "", pushed, err
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return "", pushed, err
	}
	diff, err := d.git(ctx, d.clone, "diff", "--unified=0", "--no-color")
	if err != nil {
		return "", pushed, err
	}
	for line := range strings.Lines(diff) {
		if strings.HasPrefix(line, "-  ") || strings.HasPrefix(line, "+  ") {
			d.tell("%s", line)
		}
	}
	if _, err := d.git(ctx, d.clone, "commit", "-a", "-m", fmt.Sprintf("dev: %s %s → %s", artifact, from, to)); err != nil {
		return "", pushed, err
	}
	if commit, err = d.git(ctx, d.clone, "rev-parse", "HEAD"); err != nil {
		return "", pushed, err
	}
	pushed = time.Now()
	if _, err := d.git(ctx, d.clone, "push", "origin", "main"); err != nil {
		return "", pushed, err
	}
	d.tell("Dana pushed commit %.12s.", commit)
	return commit, pushed, nil
}

// replacePin changes the version in the line below an artifact's name.
func replacePin(text, artifact, from, to string) (string, error) {
	lines := strings.SplitAfter(text, "\n")
	inside := false
	for i, line := range lines {
		switch trimmed := strings.TrimSpace(line); {
		case trimmed == artifact+":":
			inside = true
		case inside && strings.HasPrefix(trimmed, "image:") && strings.Contains(line, ":"+from):
			lines[i] = strings.Replace(line, ":"+from, ":"+to, 1)
			return strings.Join(lines, ""), nil
		case inside && strings.HasPrefix(trimmed, "image:"):
			return "", fmt.Errorf("the pin of %s is not %s but %s", artifact, from, trimmed)
		}
	}
	return "", fmt.Errorf("there is no pin of %s", artifact)
}
