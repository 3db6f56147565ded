package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// promoted is a deployment repository for what is measured of promotions:
// services of one ConfigMap each, from dev to staging.
type promoted struct {
	remote, clone string
	services      int
}

const benchToken = "a token of the benchmark"

func (b *bench) makePromoted(ctx context.Context, name string, services int, verify, policies string) (*promoted, error) {
	p := &promoted{remote: b.path(name + ".git"), clone: b.path(name), services: services}
	files := map[string]string{
		"environments/dev.yaml":     p.environment("dev", "1.0.0"),
		"environments/staging.yaml": p.environment("staging", "1.0.0"),
		"pipelines/default.yaml": "apiVersion: pinion.dev/v1\nkind: Pipeline\nservices: [\"*\"]\nstages:\n- environment: dev\n  verify: [" + verify +
			"]\n- environment: staging\n",
		"policies/" + verify + ".yaml": policies,
	}
	for i := range services {
		s := service(i)
		files["services/"+s+"/service.yaml"] = "apiVersion: pinion.dev/v1\nkind: Service\n"
		files["services/"+s+"/main.jsonnet"] = "function(pinion) {apiVersion: 'v1', kind: 'ConfigMap', metadata: {name: pinion.service}, data: {image: pinion.pins['" + s + "'].image}}\n"
	}
	return p, b.publish(ctx, p.remote, p.clone, files)
}

func (p *promoted) environment(name, version string) string {
	var s strings.Builder
	fmt.Fprintf(&s, "apiVersion: pinion.dev/v1\nkind: Environment\nnamespace: bench-%s\npins:\n", name)
	for i := range p.services {
		fmt.Fprintf(&s, "  %[1]s:\n    image: registry.example/%[1]s:%s@sha256:%x\n", service(i), version, sha256.Sum256([]byte(version+service(i))))
	}
	return s.String()
}

// push writes a file on top of what is on the remote, and pushes it.
func (b *bench) push(ctx context.Context, p *promoted, files map[string]string) error {
	for {
		if err := b.git(ctx, "-C", p.clone, "fetch", "-q", "origin", "main"); err != nil {
			return err
		}
		if err := b.git(ctx, "-C", p.clone, "reset", "-q", "--hard", "FETCH_HEAD"); err != nil {
			return err
		}
		for path, text := range files {
			if err := os.WriteFile(filepath.Join(p.clone, path), []byte(text), 0o644); err != nil {
				return err
			}
		}
		if err := b.git(ctx, "-C", p.clone, "commit", "-q", "-a", "-m", "Change"); err != nil {
			return err
		}
		if b.git(ctx, "-C", p.clone, "push", "-q", "origin", "HEAD:main") == nil {
			return nil
		}
	}
}

// tip returns where a branch of a bare repository is; "" if it can't be read
// in this moment.
func tip(remote, branch string) string {
	data, err := os.ReadFile(filepath.Join(remote, "refs/heads", branch))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// moved waits until a branch is not where it was, and returns where it is.
func moved(ctx context.Context, remote, branch, from string) (string, error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if at := tip(remote, branch); at != "" && at != from {
			return at, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", fmt.Errorf("%s of %s does not move: %w", branch, remote, ctx.Err())
		}
	}
}

// entries counts the entries of a ledger whose subjects begin with a word.
func entries(ctx context.Context, remote, branch, word string) int {
	out, err := exec.CommandContext(ctx, "git", "--git-dir="+remote, "log", "--format=%s", branch).Output()
	if err != nil {
		return 0
	}
	n := 0
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, word) {
			n++
		}
	}
	return n
}

// counted waits until a branch has so many commits of a kind.
func counted(ctx context.Context, remote, branch, word string, want int) error {
	at := ""
	for {
		next, err := moved(ctx, remote, branch, at)
		if err != nil {
			return fmt.Errorf("%d of %d %q: %w", entries(context.WithoutCancel(ctx), remote, branch, word), want, word, err)
		}
		if at = next; entries(ctx, remote, branch, word) >= want {
			return nil
		}
	}
}

// report sends the result of the check e2e.
func (d *daemon) report(ctx context.Context, svc, version string) error {
	body, err := json.Marshal(map[string]string{"environment": "dev", "service": svc, "policy": "e2e", "status": "success", "version": version})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+d.address+"/api/v1/reports", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+benchToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		return fmt.Errorf("report %s: %s", resp.Status, text)
	}
	return nil
}

// fromReport measures the time from the report that completes a verification
// to the promotion on the remote, beside a bare push of one commit.
func (b *bench) fromReport(ctx context.Context) error {
	p, err := b.makePromoted(ctx, "report", 1, "e2e", "apiVersion: pinion.dev/v1\nkind: Policy\nreport: {by: [ci]}\n")
	if err != nil {
		return err
	}
	c, err := b.startControlPlane(ctx, "report-cluster")
	if err != nil {
		return err
	}
	defer c.stop()
	d, err := b.startDaemon(100, p.remote, c.kubeconfig)
	if err != nil {
		return err
	}
	defer d.stop()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	ours, err := b.promoteEach(ctx, p, d)
	if err != nil {
		return err
	}
	var bare []float64
	d.stop()
	for range b.bumps {
		if err := b.git(ctx, "-C", p.clone, "commit", "-q", "--allow-empty", "-m", "Nothing"); err != nil {
			return err
		}
		begun := time.Now()
		if err := b.git(ctx, "-C", p.clone, "push", "-q", p.remote, "HEAD:refs/heads/bare"); err != nil {
			return err
		}
		bare = append(bare, time.Since(begun).Seconds())
	}
	fmt.Printf("from the report that completes the verification to the promotion: %s; a bare git push of one commit: %s; above it: %s (medians of %d)\n",
		seconds(median(ours)), seconds(median(bare)), seconds(median(ours)-median(bare)), b.bumps)
	return nil
}

// promoteEach has one version after the other promoted, and returns how long it
// took from each report to the promotion on the remote.
func (b *bench) promoteEach(ctx context.Context, p *promoted, d *daemon) ([]float64, error) {
	if err := counted(ctx, p.remote, "ledger/dev", "completed", 1); err != nil {
		return nil, err
	}
	if err := d.report(ctx, service(0), "1.0.0"); err != nil {
		return nil, err
	}
	var took []float64
	for i := range b.bumps {
		version := fmt.Sprintf("1.0.%d", i+1)
		if err := b.push(ctx, p, map[string]string{"environments/dev.yaml": p.environment("dev", version)}); err != nil {
			return nil, err
		}
		if err := counted(ctx, p.remote, "ledger/dev", "completed", i+2); err != nil {
			return nil, err
		}
		if err := counted(ctx, p.remote, "ledger/staging", "verified", i+1); err != nil {
			return nil, err
		}
		from := tip(p.remote, "main")
		begun := time.Now()
		if err := d.report(ctx, service(0), version); err != nil {
			return nil, err
		}
		if _, err := moved(ctx, p.remote, "main", from); err != nil {
			return nil, err
		}
		took = append(took, time.Since(begun).Seconds())
	}
	return took, nil
}

// atOnce measures how long it takes to promote all services that become
// verified in the same instant, while somebody else pushes every 100 ms.
func (b *bench) atOnce(ctx context.Context) error {
	const always = "apiVersion: pinion.dev/v1\nkind: Policy\nwindow: {allow: \"Mon-Sun 00:00-24:00\"}\n"
	p, err := b.makePromoted(ctx, "at-once", b.services, "gate", always)
	if err != nil {
		return err
	}
	c, err := b.startControlPlane(ctx, "at-once-cluster")
	if err != nil {
		return err
	}
	defer c.stop()
	d, err := b.startDaemon(101, p.remote, c.kubeconfig)
	if err != nil {
		return err
	}
	defer d.stop()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	if err := errors.Join(counted(ctx, p.remote, "ledger/dev", "verified", b.services), counted(ctx, p.remote, "ledger/staging", "verified", b.services)); err != nil {
		return err
	}
	// The gate opens for all in the same instant: a full minute that is far
	// enough for all to be rolled out by then.
	opens := time.Now().UTC().Add(time.Minute + time.Duration(b.services)*60*time.Millisecond).Truncate(time.Minute).Add(time.Minute)
	gate := fmt.Sprintf("apiVersion: pinion.dev/v1\nkind: Policy\nwindow: {allow: \"Mon-Sun %s-24:00\"}\n", opens.Format("15:04"))
	if err := b.push(ctx, p, map[string]string{"environments/dev.yaml": p.environment("dev", "1.1.0"), "policies/gate.yaml": gate}); err != nil {
		return err
	}
	if err := counted(ctx, p.remote, "ledger/dev", "completed", 2*b.services); err != nil {
		return err
	}
	if late := time.Since(opens); late > 0 {
		return fmt.Errorf("the services were rolled out %s after the gate opened; this machine needs a later one", late)
	}
	w := b.secondWriter(ctx, p.remote)
	time.Sleep(time.Until(opens.Add(-500 * time.Millisecond)))
	before, err := d.metric("pinion_git_pushes_total")
	if err != nil {
		return err
	}
	if err := counted(ctx, p.remote, "main", "promote(staging)", b.services); err != nil {
		return err
	}
	took := time.Since(opens)
	after, err := d.metric("pinion_git_pushes_total")
	if err != nil {
		return err
	}
	pushed, lost := w.end(ctx)
	fmt.Printf("%d services verified in the same instant: promoted after %s, in %.0f pushes; a second writer pushed %d commits meanwhile, of which %d are lost\n",
		b.services, took.Round(time.Millisecond), after-before, pushed, lost)
	return nil
}

// writer pushes a commit to main every 100 ms, as a person with a script does:
// it fetches and tries again if it is refused.
type writer struct {
	b      *bench
	remote string
	stop   context.CancelFunc
	wait   sync.WaitGroup
	ids    []string
	err    error
}

func (b *bench) secondWriter(ctx context.Context, remote string) *writer {
	w := &writer{b: b, remote: remote}
	ctx, w.stop = context.WithCancel(ctx)
	clone := b.path("writer")
	w.wait.Go(func() {
		if w.err = b.git(ctx, "clone", "-q", remote, clone); w.err != nil {
			return
		}
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for ctx.Err() == nil {
				id, err := w.once(ctx, clone, n)
				if err == nil {
					w.ids = append(w.ids, id)
					break
				}
			}
		}
	})
	return w
}

// once makes a commit without a working tree, and pushes it.
func (w *writer) once(ctx context.Context, clone string, n int) (string, error) {
	run := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "git", append([]string{"-C", clone, "-c", "user.name=Writer", "-c", "user.email=writer@shop.example"}, args...)...)
		out, err := cmd.Output()
		return strings.TrimSpace(string(out)), err
	}
	if _, err := run("fetch", "-q", "origin", "main"); err != nil {
		return "", err
	}
	id, err := run("commit-tree", "FETCH_HEAD^{tree}", "-p", "FETCH_HEAD", "-m", fmt.Sprintf("Write %d", n))
	if err != nil {
		return "", err
	}
	_, err = run("push", "-q", "origin", id+":refs/heads/main")
	return id, err
}

// end stops the writer, and returns how many commits it has pushed and how
// many of them are not part of main.
func (w *writer) end(ctx context.Context) (pushed, lost int) {
	w.stop()
	w.wait.Wait()
	for _, id := range w.ids {
		if w.b.git(ctx, "--git-dir="+w.remote, "merge-base", "--is-ancestor", id, "main") != nil {
			lost++
		}
	}
	return len(w.ids), lost
}
